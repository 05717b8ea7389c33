//! What a hostile look at the crate once found broken: each was a hang, a lost worker or a leak.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::census::{family, poll, process};
use common::fault;
use common::{LIMIT, assert_serves, each_method_alone, kill_hard, pool, unsafely};
use multiprocess::{Process, StartMethod, TaskErrorKind, active_children};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::wait::WaitStatus;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

each_method_alone!(an_iterator_that_panics_ends_its_imap, |method| {
    let pool = pool(method, 2);
    let numbers = (0..20_u32).inspect(|&number| assert_ne!(number, 5, "in the iterator"));
    let mut results = pool.job().chunk_size(4).imap(numbers.clone(), |n| n);
    let mut panics = 0;
    while let Some(result) =
        catch_unwind(AssertUnwindSafe(|| results.next())).unwrap_or_else(|_| {
            panics += 1;
            Some(Ok(0))
        })
    {
        assert!(result.unwrap() < 5);
    }
    drop(results);
    let texts = numbers.map(|number| number.to_string());
    let mut results = pool.job().chunk_size(4).imap(texts, |text| text);
    while let Ok(result) = catch_unwind(AssertUnwindSafe(|| results.next())) {
        assert!(result.unwrap().is_ok());
    }
    assert!(results.next().is_none());
    assert_eq!(panics, 1);
    drop(results);
    assert_serves(&pool);
});

each_method_alone!(
    a_fork_of_the_application_has_no_part_in_its_pools,
    |method| {
        let pool = pool(method, 2);
        assert_serves(&pool);
        let before = pool.worker_pids();
        let mut pool = Some(pool);
        let code = unsafely::in_fork(|| {
            let pool = pool.take().unwrap();
            let error = pool.apply(1, |n: i32| n).unwrap_err();
            assert_eq!(error.kind(), TaskErrorKind::System);
            drop(pool);
        });
        assert_eq!(code, 0);
        let pool = pool.unwrap();
        assert_eq!(pool.worker_pids(), before);
        assert_serves(&pool);
    }
);

each_method_alone!(
    a_fork_within_the_input_of_a_map_has_no_part_in_it,
    |method| {
        let pool = pool(method, 2);
        assert_serves(&pool);
        let before = pool.worker_pids();
        let mut ended = None;
        let numbers = (0..1000_u64).inspect(|&number| {
            if number == 100 {
                // The copy ends before this process goes on.
                ended = unsafely::fork_here().map(unsafely::wait_for);
            }
        });
        // In both processes.
        let doubled = pool.map(numbers, |number| number * 2);
        let Some(ended) = ended else {
            let is_told = doubled.is_err_and(|error| error.kind() == TaskErrorKind::System);
            unsafely::exit_at_once(if is_told { 0 } else { 1 });
        };
        assert!(matches!(ended, WaitStatus::Exited(_, 0)), "{ended:?}");
        let expected = (0..1000).map(|number| number * 2);
        assert!(doubled.unwrap().into_iter().eq(expected));
        assert_eq!(pool.worker_pids(), before);
        assert_serves(&pool);
    }
);

each_method_alone!(
    a_fork_of_the_application_starts_processes_whatever_other_threads_were_starting,
    |method| {
        let start = move || {
            let child = Process::builder().start_method(method).spawn((), |()| ());
            child.unwrap().join().unwrap();
        };
        let is_over = AtomicBool::new(false);
        let ends: Vec<WaitStatus> = std::thread::scope(|threads| {
            for _ in 0..2 {
                threads.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        start();
                    }
                });
            }
            // What those threads hold stays held in the child, where they are not. The C library sees to its own locks.
            let ends = (0..30).map(|_| {
                let child = unsafely::fork_child(|| {
                    start();
                    active_children();
                    std::process::exit(7)
                });
                unsafely::wait_for(child)
            });
            let ends = ends.collect();
            is_over.store(true, Ordering::Relaxed);
            ends
        });
        for end in ends {
            assert!(matches!(end, WaitStatus::Exited(_, 7)), "{end:?}");
        }
    }
);

each_method_alone!(
    a_thread_that_keeps_standard_output_locked_keeps_no_result,
    |method| {
        let child = Process::builder().start_method(method).spawn(20, |n: i32| {
            let (tell, told) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                let _held = std::io::stdout().lock();
                tell.send(()).unwrap();
                loop {
                    std::thread::park();
                }
            });
            told.recv().unwrap();
            n + 1
        });
        assert_eq!(child.unwrap().join().unwrap(), 21);
    }
);

each_method_alone!(with_standard_input_closed_it_serves, |method| {
    nix::unistd::close(0).unwrap();
    let pool = pool(method, 2);
    assert_serves(&pool);
    let child = Process::builder()
        .start_method(method)
        .spawn((), |()| std::io::read_to_string(std::io::stdin()).unwrap())
        .unwrap();
    assert_eq!(child.join().unwrap(), "");
    drop(pool);
    // The census counts descriptors: their number is to be as it was.
    let null = std::fs::File::open("/dev/null").unwrap();
    std::mem::forget(null);
});

each_method_alone!(
    more_processes_than_the_application_may_have_descriptors_start_all_the_same,
    |method| {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert!(hard > 200, "this machine allows {hard} descriptors only");
        setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
        let pids: Vec<u32> = (0..80)
            .map(|_| {
                let child = Process::builder()
                    .daemon(true)
                    .start_method(method)
                    .spawn((), |()| {
                        loop {
                            std::thread::park();
                        }
                    });
                let child: Process<()> = child.unwrap();
                child.pid()
            })
            .collect();
        let limit = Process::builder()
            .start_method(method)
            .spawn((), |()| getrlimit(Resource::RLIMIT_NOFILE).unwrap().0)
            .unwrap();
        // The server takes what it can get, and gives each process what the application has when it is started.
        assert_eq!(limit.join().unwrap(), 64);
        let pool = pool(method, 2);
        assert_serves(&pool);
        for pid in pids {
            kill_hard(pid);
            poll(LIMIT, || process(pid), Option::is_none);
        }
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    }
);

each_method_alone!(
    a_fork_server_that_is_killed_leaves_no_zombie_and_no_descriptor,
    |method| {
        let start = || Process::builder().start_method(method).spawn(1, |n: i32| n);
        for _ in 0..30 {
            assert_eq!(start().unwrap().join().unwrap(), 1);
            let started = family(std::process::id(), common::alone::mark().as_deref());
            let mut servers = started
                .iter()
                .filter(|process| process.command == "forkserver" && process.lives())
                .peekable();
            assert!(servers.peek().is_some(), "{started:#?}");
            for server in servers {
                kill_hard(server.pid);
            }
            // The request may reach the dying server, or the next one; the process is started once.
            assert_eq!(start().unwrap().join().unwrap(), 1);
            let family = family(std::process::id(), None);
            assert!(
                family.iter().all(|process| process.state != 'Z'),
                "{family:?}"
            );
        }
        assert_serves(&pool(method, 2));
    }
);

each_method_alone!(a_result_whose_drop_panics_is_told, |method| {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Grenade(u32);
    impl Drop for Grenade {
        fn drop(&mut self) {
            assert_ne!(self.0, std::process::id(), "dropped where it was made");
        }
    }
    let child = Process::builder()
        .start_method(method)
        .spawn((), |()| Grenade(std::process::id()))
        .unwrap();
    let error = child.join().map(|_| ()).unwrap_err();
    assert!(!error.is_crash(), "{error}");
    assert!(
        error.to_string().contains("dropped where it was made"),
        "{error}"
    );
});

/// Has the loader list a program's libraries and exit, instead of running it.
const DIES_EARLY: &str = "LD_TRACE_LOADED_OBJECTS";

#[test]
fn a_process_that_dies_before_its_first_message_is_an_error_at_once() {
    let name = "a_process_that_dies_before_its_first_message_is_an_error_at_once";
    // One that is forked has no loader.
    let method = StartMethod::Spawn;
    let start = move || Process::builder().start_method(method);
    let body = move || {
        fault::strike();
        let child = start().env(DIES_EARLY, "1").spawn(1, |n: i32| n);
        let error = child.unwrap().join().unwrap_err();
        fault::told(&error);
        assert!(error.is_crash(), "{error}");
        assert_eq!(error.exit_status().unwrap().code(), Some(0));
        assert_eq!(start().spawn(1, |n: i32| n).unwrap().join(), Ok(1));
        fault::over("another one serves");
    };
    common::within(LIMIT, move || fault::row(name, method, body));
}

#[test]
fn workers_that_die_before_their_first_message_are_an_error_and_the_pool_recovers() {
    let name = "workers_that_die_before_their_first_message_are_an_error_and_the_pool_recovers";
    let test = common::alone::test_path(module_path!(), name);
    let body = || {
        let pool = pool(StartMethod::Spawn, 2);
        assert_serves(&pool);
        unsafely::set_environment(DIES_EARLY, "1");
        // Those that live were started before; whoever takes their place dies.
        for pid in pool.worker_pids() {
            kill_hard(pid);
            poll(LIMIT, || process(pid), Option::is_none);
        }
        fault::strike();
        let results = pool.imap(0..8_u32, |n| n).inspect(fault::watch);
        let results: Vec<_> = results.collect();
        assert_eq!(results.len(), 8);
        assert!(
            results
                .iter()
                .all(|result| result.as_ref().is_err_and(|error| error.is_crash()))
        );
        unsafely::unset_environment(DIES_EARLY);
        assert_serves(&pool);
    };
    common::alone::in_own_process(&test, LIMIT, move || {
        fault::row(name, StartMethod::Spawn, body)
    });
}
