//! Starting by `Fork`: the minder, the process itself, and the application are killed at each step.
//!
//! What is promised: as in `process`, with the minder in place of the server.

use crate::board;
use crate::case::Then::{Done, Either, Undone};
use crate::case::{Row, SOON, assert_killed, assert_nobody_left, deaths_by_fork, spawned, victim};
use crate::common::{assert_crash_by_signal, census};
use multiprocess::{Process, Queue, Result, StartMethod};
use nix::sys::signal::Signal;
use std::os::unix::process::ExitStatusExt;

pub(crate) const TABLES: &[&[Row]] = &[MINDER, CHILD, APPLICATION];

fn start(runs: &Queue<u32>) -> Result<Process<u32>> {
    let start = Process::builder().start_method(StartMethod::Fork);
    start.spawn(runs.clone(), |runs: Queue<u32>| {
        runs.put(1).unwrap();
        2
    })
}

fn assert_serves() {
    let runs = Queue::new().unwrap();
    for _ in 0..2 {
        assert_eq!(start(&runs).unwrap().join().unwrap(), 2);
        assert_eq!(runs.try_get().unwrap(), 1);
    }
}

const MINDER: &[Row] = &[
    spawned("fork::minder::begun", Undone),
    spawned("fork::minder::held", Either),
    spawned("fork::minder::told", Done),
    spawned("fork::minder::reaped", Done),
];

deaths_by_fork!(the_minder, MINDER, |case| {
    let runs = Queue::new().unwrap();
    case.arm().anyone_else();
    let started = start(&runs);
    match started {
        // It runs on, and says what it has come to.
        Ok(process) => {
            assert_ne!(case.row.then, Undone);
            assert_eq!(process.join().unwrap(), 2);
        }
        Err(error) => {
            assert_ne!(case.row.then, Done, "{error}");
            assert!(error.to_string().contains("died over it"), "{error}");
        }
    }
    let died = census::poll(SOON, || board::dead(0), Option::is_some);
    assert!(died.is_some(), "nobody came to that step");
    // What runs has run then.
    assert_nobody_left(case);
    let ran = runs.len();
    match case.row.then {
        Undone => assert_eq!(ran, 0, "it was started by nobody"),
        Done => assert_eq!(ran, 1),
        _ => assert!(ran <= 1, "it ran twice"),
    }
    assert_serves();
});

const CHILD: &[Row] = &[
    spawned("fork::child::begun", Undone),
    spawned("child::return::run", Undone),
    spawned("child::return::told", Done),
];

deaths_by_fork!(the_process, CHILD, |case| {
    let runs = Queue::new().unwrap();
    case.arm().anyone_else();
    let mut process = start(&runs).unwrap();
    let status = process.wait_timeout(SOON).unwrap().unwrap();
    assert_eq!(status.signal(), Some(9));
    assert_eq!(board::dead(0), Some(process.pid()));
    match process.join() {
        Ok(value) => assert!(case.is_done() && value == 2),
        Err(error) => {
            assert!(!case.is_done(), "{error}");
            assert_crash_by_signal(&error, Signal::SIGKILL);
        }
    }
    assert_serves();
});

const APPLICATION: &[Row] = &[
    spawned("fork::application::forked", Undone),
    spawned("launcher::started::told", Undone),
];

deaths_by_fork!(the_application, APPLICATION, |case| {
    let gate = Queue::<u32>::new().unwrap();
    let args = gate.clone();
    let application = victim(
        StartMethod::ForkServer,
        case.arm(),
        args,
        |gate: Queue<u32>| {
            let process = Process::builder()
                .start_method(StartMethod::Fork)
                .daemon(true)
                .spawn(gate, |gate: Queue<u32>| gate.get().unwrap())
                .unwrap();
            process.join().unwrap();
        },
    );
    assert_killed(application, 0);
    assert_nobody_left(case);
    assert_serves();
});
