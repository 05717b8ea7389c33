//! What is special about processes that are forked here and now, and scopes.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::alone::{Application, in_own_process, on_the_only_thread, role, test_path};
use common::census::Census;
use common::meet::{Gate, pass};
use common::unsafely::{
    at_exit, exit_at_once, fork_idle_child, own_descriptors, plays_before_main, print_as_c,
    wait_for,
};
use common::{LIMIT, kill_hard, pid_of, pool};
use multiprocess::{
    Event, Process, StartMethod, TaskErrorKind, active_children, current_process, scope,
};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// Makes a test of a body that runs on the only thread of a process, where nothing is left over.
macro_rules! forking {
    ($name:ident, $body:block) => {
        #[test]
        fn $name() {
            let test = test_path(module_path!(), stringify!($name));
            on_the_only_thread(&test, LIMIT, || {
                let warmed = by_fork().spawn((), |()| ()).unwrap();
                warmed.join().unwrap();
                Process::spawn((), |()| ()).unwrap().join().unwrap();
                let before = Census::now();
                $body
                before.assert_nothing_added();
            });
        }
    };
}

fn by_fork() -> multiprocess::ProcessBuilder {
    Process::builder().start_method(StartMethod::Fork)
}

forking!(what_is_in_memory_is_in_the_process, {
    static WORDS: Mutex<Vec<String>> = Mutex::new(Vec::new());
    WORDS.lock().unwrap().push("here".to_owned());
    let child = by_fork().spawn((), |()| {
        WORDS.lock().unwrap().push("there".to_owned());
        WORDS.lock().unwrap().clone()
    });
    assert_eq!(child.unwrap().join().unwrap(), ["here", "there"]);
    assert_eq!(*WORDS.lock().unwrap(), ["here"]);
});

forking!(a_scope_borrows_and_returns, {
    let text = String::from("to be or not to be");
    let mut counts = HashMap::new();
    let changed = Cell::new(1);
    let answer = scope(|s| {
        let words = s.spawn(|| text.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let letters = s.spawn(|| text.chars().filter(|c| c.is_alphabetic()).count());
        let unwanted = s.spawn(|| {
            changed.set(2);
            changed.get()
        });
        for word in words.join().unwrap() {
            *counts.entry(word).or_insert(0) += 1;
        }
        assert_eq!(unwanted.join().unwrap(), 2);
        letters.join().unwrap()
    });
    assert_eq!(answer.unwrap(), 13);
    assert_eq!((counts["be"], counts["or"]), (2, 1));
    assert_eq!(changed.get(), 1, "it changed its own copy");
});

forking!(a_scope_waits_for_what_nobody_joins, {
    let gate = Gate::new();
    let pids = scope(|s| {
        let pids: Vec<u32> = (0..3)
            .map(|_| s.spawn(|| pass(&gate.path())).pid().unwrap())
            .collect();
        assert_eq!(active_children().len(), 3);
        gate.let_through(3);
        pids
    });
    for pid in pids.unwrap() {
        assert!(
            common::census::process(pid).is_none(),
            "ended and collected"
        );
    }
    // A handle that leaves the scope still has the result.
    let late = scope(|s| s.spawn(|| 5)).unwrap();
    assert_eq!(late.join().unwrap(), 5);
});

forking!(a_failure_that_nobody_joins_is_the_scopes, {
    let error = scope(|s| {
        s.spawn(|| 1);
        s.spawn(|| -> u8 { panic!("not joined") });
    })
    .unwrap_err();
    assert_eq!(
        error.task_error().unwrap().panic_message(),
        Some("not joined")
    );

    let joined = scope(|s| s.spawn(|| -> u8 { exit_at_once(4) }).join());
    let error = joined.unwrap().unwrap_err();
    assert_eq!(error.exit_status().unwrap().code(), Some(4));

    let killed = scope(|s| {
        let child = s.spawn(|| {
            loop {
                std::thread::park();
            }
        });
        child.kill().unwrap();
        let result: Result<(), _> = child.join();
        result
    });
    assert!(killed.unwrap().unwrap_err().is_crash());
});

forking!(a_scope_whose_closure_panics_outlives_no_child, {
    let gate = Gate::new();
    let pid = Cell::new(0);
    let caught = catch_unwind(AssertUnwindSafe(|| {
        scope(|s| {
            pid.set(s.spawn(|| pass(&gate.path())).pid().unwrap());
            gate.let_through(1);
            panic!("in the scope");
        })
    }));
    assert_eq!(
        *caught.unwrap_err().downcast::<&str>().unwrap(),
        "in the scope"
    );
    assert!(common::census::process(pid.get()).is_none());
});

forking!(
    what_is_moved_into_a_closure_is_dropped_once_in_each_process,
    {
        static DROPPED: AtomicU32 = AtomicU32::new(0);
        struct Counted;
        impl Drop for Counted {
            fn drop(&mut self) {
                DROPPED.fetch_add(1, Ordering::SeqCst);
            }
        }
        let counted = Counted;
        let there = scope(|s| {
            let child = s.spawn(move || {
                drop(counted);
                DROPPED.load(Ordering::SeqCst)
            });
            assert_eq!(DROPPED.load(Ordering::SeqCst), 1);
            child.join().unwrap()
        });
        assert_eq!((there.unwrap(), DROPPED.load(Ordering::SeqCst)), (1, 1));
    }
);

forking!(processes_of_a_scope_are_named_and_may_have_scopes, {
    let (name, inner) = scope(|s| {
        let child = s.spawn(|| {
            let inner = scope(|s| s.spawn(|| current_process().name().to_owned()).join());
            (current_process().name().to_owned(), inner.unwrap().unwrap())
        });
        let name = child.name().to_owned();
        let (own, inner) = child.join().unwrap();
        assert_eq!(own, name);
        (name, inner)
    })
    .unwrap();
    assert_eq!(inner, format!("{name}:1"));
});

forking!(a_handle_that_was_copied_by_a_fork_takes_nothing_away, {
    let gate = Gate::new();
    let mut child = Process::spawn(gate.path(), |gate| pass(&gate)).unwrap();
    let there = scope(|s| {
        let looks = s.spawn(|| {
            gate.let_through(1);
            child.wait().map_err(|error| error.to_string()).is_err()
        });
        looks.join().unwrap()
    });
    assert!(
        there.unwrap(),
        "the news are for the process that started it"
    );
    assert!(child.wait().unwrap().success());
    child.join().unwrap();
});

forking!(a_process_whose_minder_is_killed_is_lost_and_said_to_be, {
    let gate = Gate::new();
    let mut child = by_fork().spawn(gate.path(), |gate| pass(&gate)).unwrap();
    kill_hard(common::census::process(child.pid()).unwrap().parent);
    gate.let_through(1);
    assert!(child.wait().is_err());
    // What it returned has come all the same.
    child.join().unwrap();
});

#[test]
fn it_is_refused_while_other_threads_run() {
    let test = test_path(module_path!(), "it_is_refused_while_other_threads_run");
    in_own_process(&test, LIMIT, || {
        let error = by_fork().spawn((), |()| ()).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("other threads run"), "{error}");
        let error = scope(|_| ()).unwrap_err();
        assert!(error.to_string().contains("other threads run"), "{error}");
        let refused = multiprocess::Pool::builder()
            .start_method(StartMethod::Fork)
            .workers(1)
            .build()
            .and_then(|pool| Ok(pool.apply((), |()| ())?));
        let error = refused.unwrap_err();
        assert!(error.to_string().contains("other threads run"), "{error}");
        assert!(active_children().is_empty());
    });
}

forking!(
    a_thread_within_a_scope_is_an_error_and_one_that_was_joined_is_not,
    {
        std::thread::spawn(|| ()).join().unwrap();
        scope(|s| {
            assert_eq!(s.spawn(|| 1).join().unwrap(), 1);
            let gate = Gate::new();
            let path = gate.path();
            let thread = std::thread::spawn(move || pass(&path));
            let error = s.spawn(|| 1).join().unwrap_err();
            assert_eq!(error.kind(), TaskErrorKind::System);
            assert!(error.to_string().contains("other threads run"), "{error}");
            gate.let_through(1);
            thread.join().unwrap();
            assert_eq!(s.spawn(|| 2).join().unwrap(), 2);
        })
        .unwrap();
    }
);

forking!(a_thread_that_was_joined_may_take_its_time_to_go, {
    let thread = std::thread::spawn(|| {
        // Memory that it alone has, for the kernel to give back when the thread has been joined: that takes 50 ms and more.
        own_descriptors();
        let memory = memfd_create("much", MFdFlags::MFD_CLOEXEC).unwrap();
        if let Err(error) = fallocate(&memory, FallocateFlags::empty(), 0, 1 << 29) {
            println!("nothing to give back, so this shows little: {error}");
        }
        std::mem::forget(memory);
    });
    thread.join().unwrap();
    assert_eq!(scope(|s| s.spawn(|| 1).join().unwrap()).unwrap(), 1);
    by_fork().spawn((), |()| ()).unwrap().join().unwrap();
});

forking!(a_pool_of_forked_workers_sees_what_was_in_memory, {
    static FACTOR: AtomicU32 = AtomicU32::new(1);
    FACTOR.store(7, Ordering::SeqCst);
    let pool = pool(StartMethod::Fork, 2);
    let products = pool.map(0..10_u32, |n| n * FACTOR.load(Ordering::SeqCst));
    assert_eq!(products.unwrap()[9], 63);
});

plays_before_main!(application);

extern "C" fn say_goodbye() {
    println!("goodbye");
}

static IDLE: AtomicU32 = AtomicU32::new(0);

extern "C" fn end_idle_child() {
    let child = IDLE.load(Ordering::SeqCst);
    kill_hard(child);
    wait_for(pid_of(child));
}

/// What the application below does; in an ordinary test run, nothing.
#[test]
fn application() {
    let Some(role) = role() else { return };
    match role.as_str() {
        "prints by Fork" => {
            at_exit(say_goodbye);
            print!("held back;");
            print_as_c(c"held back by C;");
            let child = by_fork().spawn((), |()| {
                print_as_c(c"of the child by C;");
                print!("of the child;");
            });
            child.unwrap().join().unwrap();
            let exited = scope(|s| s.spawn(|| print!("of the scope;")).join());
            exited.unwrap().unwrap();
        }
        "waits by Fork" => {
            // A daemon that waits for ever must not hold up the end, nor hear of it from the one that is waited for.
            let never = Gate::new();
            let daemon = by_fork().daemon(true);
            drop(daemon.spawn(never.path(), |gate| pass(&gate)).unwrap());
            drop(by_fork().spawn((), |()| {
                drop(Process::spawn((), |()| println!("grandchild")).unwrap());
                println!("child");
            }));
            std::mem::forget(never);
        }
        "forks by itself, not by Fork" => {
            // Registered before the library's own, it runs after that.
            at_exit(end_idle_child);
            by_fork().spawn((), |()| ()).unwrap().join().unwrap();
            let running = by_fork().spawn((), |()| println!("child"));
            IDLE.store(fork_idle_child(), Ordering::SeqCst);
            drop(running.unwrap());
        }
        _ => unreachable!("{role}"),
    }
}

#[test]
fn what_is_printed_comes_once_and_exit_handlers_are_the_parents() {
    let ended = Application::new("application", "prints by Fork")
        .start()
        .wait(LIMIT);
    assert!(ended.status.success(), "{ended:?}");
    for text in [
        "held back;",
        "held back by C;",
        "of the child;",
        "of the child by C;",
        "of the scope;",
        "goodbye",
    ] {
        assert_eq!(ended.stdout.matches(text).count(), 1, "{text}: {ended:?}");
    }
    ended.assert_nothing_left();
}

#[test]
fn at_the_end_what_the_application_has_forked_by_itself_is_not_waited_for() {
    let ended = Application::new("application", "forks by itself, not by Fork")
        .start()
        .wait(LIMIT);
    assert!(ended.status.success(), "{ended:?}");
    assert!(ended.stdout.contains("child\n"), "{ended:?}");
    ended.assert_nothing_left();
}

#[test]
fn at_the_end_children_are_waited_for_and_their_children_too() {
    let ended = Application::new("application", "waits by Fork")
        .start()
        .wait(LIMIT);
    assert!(ended.status.success(), "{ended:?}");
    assert!(ended.stdout.contains("child\n"), "{ended:?}");
    assert!(ended.stdout.contains("grandchild\n"), "{ended:?}");
    ended.assert_nothing_left();
}

forking!(a_forked_copy_of_an_imap_leaves_the_workers_alone, {
    for method in [StartMethod::ForkServer, StartMethod::Spawn] {
        let pool = pool(method, 2);
        let pids = pool.worker_pids();
        let gate = Event::new().unwrap();
        let job = pool.with(gate.clone());
        // One worker is at the second item, and has more behind it.
        let square = |gate: &Event, n: u64| {
            if n == 1 {
                gate.wait();
            }
            n * n
        };
        let mut squares = Some(job.imap(0..100_u64, square));
        let mut found = Some(job.imap_unordered(0..100_u64, square));
        assert_eq!(squares.as_mut().unwrap().next(), Some(Ok(0)));
        let told = scope(|s| {
            let ask = || squares.as_mut().unwrap().find_map(Result::err);
            s.spawn(ask).join()
        });
        let error = told.unwrap().unwrap().unwrap();
        assert_eq!(error.kind(), TaskErrorKind::System);
        assert!(error.to_string().contains("forked"), "{error}");
        let dropped = scope(|s| s.spawn(|| drop((squares.take(), found.take()))).join());
        dropped.unwrap().unwrap();
        let seen = scope(|s| {
            let look = || (pool.worker_pids(), pool.workers(), format!("{pool:?}"));
            s.spawn(look).join()
        });
        let seen = seen.unwrap().unwrap();
        assert_eq!(seen, (vec![], 2, format!("{pool:?}")));
        let counted = scope(|s| s.spawn(|| pool.stats().workers().len()).join());
        assert_eq!(counted.unwrap().unwrap(), 2);
        gate.set();
        let right = |n: u64| n * n;
        let rest: Vec<u64> = squares.unwrap().map(Result::unwrap).collect();
        assert!(rest.into_iter().eq((1..100).map(right)));
        let mut others = vec![0; 100];
        found
            .unwrap()
            .for_each(|(item, result)| others[item] = result.unwrap());
        assert!(others.into_iter().eq((0..100).map(right)));
        assert_eq!(pool.worker_pids(), pids);
    }
});
