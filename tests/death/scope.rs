//! Scopes: a process of one, its minder, and the application are killed at each step.
//!
//! What is promised: `join` tells what became of a process, or that nobody knows; a scope that returns has none left; of one
//! whose application dies none is left either.

use crate::board;
use crate::case::Then::{Done, Either, Undone};
use crate::case::{Row, SOON, assert_killed, assert_nobody_left, deaths_by_fork, spawned, victim};
use crate::common::{assert_crash_by_signal, census};
use multiprocess::{Queue, StartMethod, TaskError, scope};
use nix::sys::signal::Signal;

pub(crate) const TABLES: &[&[Row]] = &[PROCESS, UNJOINED, MINDER, APPLICATION];

/// Two processes of a scope, joined; the second comes by no step before the first one has ended.
fn both() -> multiprocess::Result<[Result<u32, TaskError>; 2]> {
    let word = String::from("borrowed");
    scope(|s| {
        let first = s.spawn(|| word.len() as u32).join();
        [first, s.spawn(|| 9).join()]
    })
}

fn assert_serves() {
    assert_eq!(both().unwrap(), [Ok(8), Ok(9)]);
}

fn assert_somebody_died() {
    let died = census::poll(SOON, || board::dead(0), Option::is_some);
    assert!(died.is_some(), "nobody came to that step");
}

const PROCESS: &[Row] = &[
    spawned("fork::child::begun", Undone),
    spawned("child::return::run", Undone),
    spawned("child::return::told", Done),
];

deaths_by_fork!(a_process, PROCESS, |case| {
    case.arm().anyone_else();
    let [first, second] = both().unwrap();
    assert_somebody_died();
    match first {
        Ok(length) => assert!(case.is_done() && length == 8),
        Err(error) => {
            assert!(!case.is_done(), "{error}");
            assert_crash_by_signal(&error, Signal::SIGKILL);
        }
    }
    assert_eq!(second, Ok(9));
    assert_nobody_left(case);
    assert_serves();
});

const UNJOINED: &[Row] = &[
    spawned("fork::child::begun", Undone),
    spawned("child::return::run", Undone),
    spawned("child::return::told", Done),
];

deaths_by_fork!(a_process_that_nobody_joins, UNJOINED, |case| {
    case.arm().anyone_else();
    let ended = scope(|s| {
        s.spawn(|| 1);
    });
    assert_somebody_died();
    // The scope tells it, unless all that was to come of it had come.
    match ended {
        Ok(()) => assert!(case.is_done()),
        Err(error) => {
            assert!(!case.is_done(), "{error}");
            assert!(error.to_string().contains("SIGKILL"), "{error}");
        }
    }
    assert_nobody_left(case);
    assert_serves();
});

const MINDER: &[Row] = &[
    spawned("fork::minder::begun", Either),
    spawned("fork::minder::held", Either),
    spawned("fork::minder::told", Either),
    spawned("fork::minder::reaped", Done),
];

deaths_by_fork!(a_minder, MINDER, |case| {
    case.arm().anyone_else();
    let [first, second] = both().unwrap();
    assert_somebody_died();
    // It died with its minder, or had ended before.
    assert!(
        first == Ok(8) || (first.is_err() && !case.is_done()),
        "{first:?}"
    );
    assert_eq!(second, Ok(9));
    assert_nobody_left(case);
    assert_serves();
});

const APPLICATION: &[Row] = &[
    spawned("fork::application::forked", Undone),
    spawned("scope::spawn::forked", Undone),
    spawned("scope::spawn::started", Undone),
    spawned("scope::join::ended", Undone),
    spawned("scope::end::one_ended", Undone),
    spawned("scope::end::one_failed", Undone),
];

deaths_by_fork!(the_application, APPLICATION, |case| {
    let gate = Queue::<u32>::new().unwrap();
    let application = victim(
        StartMethod::ForkServer,
        case.arm(),
        gate.clone(),
        |gate: Queue<u32>| {
            let word = String::from("borrowed");
            let ended = scope(|s| {
                // It waits for what never comes, and is killed here if the application comes to that.
                let waits = s.spawn(|| gate.get().unwrap());
                s.spawn(|| 1).join().unwrap();
                s.spawn(|| 2);
                s.spawn(|| assert!(word.is_empty(), "as it should"));
                waits.kill().unwrap();
            });
            ended.unwrap_err();
        },
    );
    assert_killed(application, 0);
    assert_nobody_left(case);
    assert_serves();
});
