//! One process: what goes in, what comes out, and how it ends.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::census::{poll, process, wait_until_gone};
use common::fault::{self, fault_row};
use common::meet::{Ear, Gate, pass, say};
use common::unsafely::{exit_at_once, overflow_stack, segfault};
use common::{LIMIT, each_method_alone, every_method_alone, kill_hard, within};
use multiprocess::{Process, StartMethod, TaskErrorKind, current_process};
use nix::sys::signal::{Signal, raise};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::os::unix::process::ExitStatusExt;
use std::panic::panic_any;
use std::path::PathBuf;
use std::thread;

const MIB: usize = 1 << 20;

/// Starts a process as the test's method says.
fn start<A, T, F>(method: StartMethod, args: A, f: F) -> Process<T>
where
    A: multiprocess::Portable,
    T: multiprocess::Portable,
    F: Fn(A) -> T + Copy + 'static,
{
    Process::builder()
        .start_method(method)
        .spawn(args, f)
        .unwrap()
}

#[derive(Debug, PartialEq, Clone, Serialize, Deserialize)]
struct Report {
    lines: HashMap<String, Vec<Option<i64>>>,
    from: Result<u32, String>,
}

every_method_alone!(join_returns_what_the_function_returned, |method| {
    let report = Report {
        lines: HashMap::from([("a".to_owned(), vec![None, Some(-1)])]),
        from: Err("nobody".to_owned()),
    };
    let changed = start(method, (report.clone(), 7_u32), |(mut report, from)| {
        report.from = Ok(from);
        report
    });
    assert_eq!(
        changed.join().unwrap(),
        Report {
            from: Ok(7),
            ..report
        }
    );
    assert_eq!(start(method, (), |()| ()).join().unwrap(), ());
    assert_eq!(
        start(method, "text".to_owned(), |text| text.len())
            .join()
            .unwrap(),
        4
    );
});

every_method_alone!(it_runs_in_a_process_of_its_own, |method| {
    let process = start(method, (), |()| {
        (std::process::id(), current_process().pid())
    });
    let pid = process.pid();
    assert_ne!(pid, std::process::id());
    assert_eq!(process.join().unwrap(), (pid, pid));
});

every_method_alone!(arguments_and_results_of_64_mib_travel, |method| {
    let process = start(method, vec![3_u8; 64 * MIB], |mut bytes| {
        bytes[0] = 4;
        bytes
    });
    let bytes = process.join().unwrap();
    assert_eq!((bytes.len(), bytes[0]), (64 * MIB, 4));
    assert!(bytes[1..] == vec![3; 64 * MIB - 1]);
});

every_method_alone!(
    wait_before_join_does_not_deadlock_on_a_large_result,
    |method| {
        let mut process = start(method, (), |()| vec![5_u8; 64 * MIB]);
        assert!(process.wait().unwrap().success());
        assert!(process.join().unwrap() == vec![5; 64 * MIB]);
    }
);

every_method_alone!(
    dropping_the_handle_after_a_large_argument_blocks_nothing,
    |method| {
        for _ in 0..5 {
            drop(start(method, vec![1_u8; 16 * MIB], |bytes| bytes.len()));
        }
    }
);

every_method_alone!(a_panic_ends_it_with_code_101, |method| {
    const LINE: u32 = line!() + 2;
    fn give_up(item: u32) -> u8 {
        panic!("no luck with {item}")
    }
    let mut process = start(method, 3, give_up);
    let status = process.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(101), None));
    let error = process.join().unwrap_err();
    assert_eq!(
        (error.kind(), error.panic_message()),
        (TaskErrorKind::Panic, Some("no luck with 3"))
    );
    let location = format!("{:?}", error.location().unwrap());
    assert!(
        location.contains("tests/process.rs") && location.contains(&LINE.to_string()),
        "{location}"
    );
    assert_eq!(error.item(), None);
    assert_eq!(error.exit_status(), Some(status));
});

every_method_alone!(a_panic_with_no_string_ends_it_with_code_101, |method| {
    let mut process: Process<u8> = start(method, (), |()| panic_any(42));
    assert_eq!(process.wait().unwrap().code(), Some(101));
    assert!(process.join().unwrap_err().is_panic());
    // Joined with nobody having waited for it.
    let process: Process<u8> = start(method, (), |()| panic_any(42));
    let error = process.join().unwrap_err();
    let status = error.exit_status().and_then(|status| status.code());
    assert!(error.is_panic() && status == Some(101), "{error:?}");
});

#[test]
fn a_variable_that_there_cannot_be_is_refused() {
    for (name, value) in [("", "1"), ("A=B", "1"), ("A\0", "1"), ("A", "1\0")] {
        let started = Process::builder().env(name, value).spawn((), |()| ());
        let error = started.map(drop).unwrap_err().to_string();
        assert!(error.contains("no variable"), "{error}");
    }
}

every_method_alone!(an_exit_is_seen_as_its_code, |method| {
    let mut process: Process<u8> = start(method, 3, |code: i32| std::process::exit(code));
    let pid = process.pid();
    assert_eq!(process.wait().unwrap().code(), Some(3));
    let error = process.join().unwrap_err();
    assert_eq!(
        (error.kind(), error.pid()),
        (TaskErrorKind::Crash, Some(pid))
    );
    assert_eq!(error.exit_status().unwrap().code(), Some(3));

    for code in [0, 1, 101, 255] {
        let mut process: Process<u8> = start(method, code, |code: i32| exit_at_once(code));
        assert_eq!(process.wait().unwrap().code(), Some(code));
        let error = process.join().unwrap_err();
        assert!(error.is_crash(), "it left without a result: {error}");
    }
});

every_method_alone!(a_deadly_signal_is_seen, |method| {
    for signal in [
        Signal::SIGKILL,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGABRT,
        Signal::SIGUSR1,
    ] {
        let mut process = start(method, signal as i32, |signal| {
            raise(Signal::try_from(signal).unwrap()).unwrap()
        });
        let status = process.wait().unwrap();
        assert_eq!(
            (status.signal(), status.code()),
            (Some(signal as i32), None)
        );
        let error = process.join().unwrap_err();
        assert_eq!(
            (error.kind(), error.exit_status()),
            (TaskErrorKind::Crash, Some(status))
        );
    }
});

every_method_alone!(a_segfault_and_a_stack_overflow_are_seen, |method| {
    let mut process = start(method, (), |()| segfault());
    assert_eq!(
        process.wait().unwrap().signal(),
        Some(Signal::SIGSEGV as i32)
    );
    let mut process = start(method, (), |()| overflow_stack(0));
    assert_eq!(
        process.wait().unwrap().signal(),
        Some(Signal::SIGABRT as i32)
    );
    assert!(process.join().unwrap_err().is_crash());
});

every_method_alone!(sigpipe_is_ignored_as_in_any_rust_program, |method| {
    let process = start(method, (), |()| {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        drop(reader);
        nix::unistd::write(&writer, b"x") == Err(nix::errno::Errno::EPIPE)
    });
    assert!(process.join().unwrap());
});

every_method_alone!(kill_ends_it, |method| {
    let (mut ear, gate) = (Ear::new(), Gate::new());
    let mut process = start(method, (ear.path(), gate.path()), |(ear, gate)| {
        say(&ear, "begun");
        pass(&gate);
    });
    assert_eq!(ear.hear(), "begun");
    assert!(process.is_alive());
    assert_eq!(process.exit_status(), None);
    process.kill().unwrap();
    let status = process.wait().unwrap();
    assert_eq!(status.signal(), Some(9));
    assert!(!process.is_alive());
    assert_eq!(process.exit_status(), Some(status));
    process.kill().unwrap();
    let error = process.join().unwrap_err();
    assert_eq!(
        (error.kind(), error.exit_status()),
        (TaskErrorKind::Crash, Some(status))
    );
});

every_method_alone!(a_kill_from_elsewhere_ends_a_join, |method| {
    let (mut ear, gate) = (Ear::new(), Gate::new());
    let process = start(method, (ear.path(), gate.path()), |(ear, gate)| {
        say(&ear, std::process::id());
        pass(&gate);
    });
    let killer = thread::spawn(move || kill_hard(ear.hear_number()));
    assert!(process.join().unwrap_err().is_crash());
    killer.join().unwrap();
});

every_method_alone!(wait_may_be_repeated, |method| {
    let gate = Gate::new();
    let mut process = start(method, gate.path(), |gate| pass(&gate));
    assert_eq!(process.exit_status(), None);
    gate.let_through(1);
    let status = process.wait().unwrap();
    assert!(status.success());
    for _ in 0..3 {
        assert_eq!(process.wait().unwrap(), status);
        assert_eq!(process.exit_status(), Some(status));
        assert!(!process.is_alive());
    }
    process.join().unwrap();
});

every_method_alone!(exit_status_becomes_known_without_a_wait, |method| {
    let process = start(method, (), |()| exit_at_once(9));
    let status = poll(LIMIT, || process.exit_status(), Option::is_some);
    assert_eq!(status.unwrap().code(), Some(9));
    assert!(!process.is_alive());
    let _: Process<()> = process;
});

every_method_alone!(dropping_the_handle_lets_it_run, |method| {
    let (mut ear, gate) = (Ear::new(), Gate::new());
    drop(start(method, (ear.path(), gate.path()), |(ear, gate)| {
        say(&ear, std::process::id());
        pass(&gate);
        say(&ear, "still here");
    }));
    let detached = process(ear.hear_number()).unwrap();
    gate.let_through(1);
    assert_eq!(ear.hear(), "still here");
    wait_until_gone(&detached);
});

fault_row!(it_outlives_the_thread_that_started_it, |method| {
    let (mut ear, gate) = (Ear::new(), Gate::new());
    let paths = (ear.path(), gate.path());
    let process = thread::spawn(move || {
        start(method, paths, |(ear, gate)| {
            say(&ear, "begun");
            pass(&gate);
            "done".to_owned()
        })
    });
    let process = process.join().unwrap();
    fault::strike();
    // The thread is gone; had its death been passed on, the process would be, too.
    assert_eq!(ear.hear(), "begun");
    gate.let_through(1);
    assert_eq!(process.join().unwrap(), "done");
    fault::answered("its result");
    assert_eq!(start(method, 1_u32, |one| one).join().unwrap(), 1);
    fault::over("another one serves");
});

every_method_alone!(sixty_four_run_at_once, |method| {
    let (mut ear, gate) = (Ear::new(), Gate::new());
    let processes: Vec<_> = (0..64_u32)
        .map(|number| {
            start(
                method,
                (number, ear.path(), gate.path()),
                |(number, ear, gate): (u32, PathBuf, PathBuf)| {
                    say(&ear, std::process::id());
                    pass(&gate);
                    number * 2
                },
            )
        })
        .collect();
    let pids: BTreeSet<u32> = processes.iter().map(Process::pid).collect();
    let begun: BTreeSet<u32> = (0..64).map(|_| ear.hear_number()).collect();
    assert_eq!((pids.len(), &begun), (64, &pids));
    gate.let_through(64);
    for (number, process) in (0..).zip(processes) {
        assert_eq!(process.join().unwrap(), number * 2);
    }
});

each_method_alone!(many_threads_start_processes_at_once, |method| {
    thread::scope(|scope| {
        for thread in 0..16_u32 {
            scope.spawn(move || {
                for round in 0..10 {
                    assert_eq!(
                        start(method, (thread, round), |(a, b)| a * 100 + b)
                            .join()
                            .unwrap(),
                        thread * 100 + round
                    );
                }
            });
        }
    });
});

every_method_alone!(a_process_may_start_a_process, |method| {
    fn depth(left: u32) -> u32 {
        if left == 0 {
            0
        } else {
            1 + Process::spawn(left - 1, depth).unwrap().join().unwrap()
        }
    }
    assert_eq!(start(method, 3, depth).join().unwrap(), 3);
    // By the test's own method all the way.
    let sum = match method {
        StartMethod::Spawn => start(method, 5, |n: u32| {
            start(StartMethod::Spawn, n, |n| n + 1).join().unwrap()
        }),
        _ => start(method, 5, |n: u32| {
            start(StartMethod::ForkServer, n, |n| n + 1).join().unwrap()
        }),
    };
    assert_eq!(sum.join().unwrap(), 6);
});

every_method_alone!(a_result_that_cannot_travel_is_its_own_error, |method| {
    #[derive(Deserialize)]
    struct Unencodable(#[expect(dead_code, reason = "only its encoding is of interest")] u8);
    impl Serialize for Unencodable {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("cannot be put into words"))
        }
    }
    #[derive(Serialize)]
    struct Undecodable(u8);
    impl<'de> Deserialize<'de> for Undecodable {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Err(serde::de::Error::custom("not in this life"))
        }
    }
    let error = start(method, (), |()| Unencodable(1))
        .join()
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::ResultEncoding);
    let error = start(method, (), |()| Undecodable(1))
        .join()
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::ResultDecoding);
    let error = start(method, Undecodable(1), |_| ()).join().unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::ArgumentDecoding);
    match Process::builder()
        .start_method(method)
        .spawn(Unencodable(1), |_| ())
    {
        Err(error) => assert!(
            error.to_string().contains("cannot be put into words"),
            "{error}"
        ),
        Ok(process) => assert_eq!(
            process.join().unwrap_err().kind(),
            TaskErrorKind::ArgumentEncoding
        ),
    }
});

#[test]
fn spawn_needs_no_builder() {
    within(LIMIT, || {
        let mut process = Process::spawn((20, 22), |(a, b): (u32, u32)| a + b).unwrap();
        assert!(process.wait().unwrap().success());
        assert_eq!(process.join().unwrap(), 42);
    });
}
