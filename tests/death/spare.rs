//! Processes that the fork server forks ahead of need: they, the server and the application are killed at each step.
//!
//! What is promised: a start is there, once, or a process that has begun has ended; nobody waits that nobody can use.

use crate::board::{self, Arm};
use crate::case::Then::{Done, Undone};
use crate::case::{
    Case, Row, SOON, assert_killed, assert_nobody_left, deaths_by_server, forked, method_of,
    name_of,
};
use crate::common::{assert_crash_by_signal, census, pid_of};
use crate::process::end_server;
use multiprocess::{Process, Queue};
use nix::sys::signal::{Signal, kill};

pub(crate) const TABLES: &[&[Row]] = &[SERVER, STOPPED, SPARE, APPLICATION];

/// So many starts use some that were forked ahead.
const STARTS: u32 = 40;

fn start(case: Case, runs: &Queue<u32>, number: u32) -> Process<u32> {
    let builder = Process::builder().start_method(case.method);
    let started = builder.spawn((runs.clone(), number), |(runs, number)| {
        runs.put(number).unwrap();
        number + 1
    });
    started.unwrap()
}

/// Starts processes, one after the other, until somebody has died, and some more; each runs once, but for one that was the one
/// who died. Returns whether there was such a one.
fn start_until_death(case: Case) -> bool {
    let runs = Queue::new().unwrap();
    let mut was_among_them = false;
    let mut left_after = 3;
    for number in 0..STARTS {
        let process = start(case, &runs, number);
        let pid = process.pid();
        match process.join() {
            Ok(value) => {
                assert_eq!(value, number + 1);
                assert_eq!(runs.get_timeout(SOON).unwrap(), number);
            }
            Err(error) => {
                assert_eq!(board::dead(0), Some(pid), "{error}");
                assert_crash_by_signal(&error, Signal::SIGKILL);
                was_among_them = true;
            }
        }
        assert!(runs.try_get().unwrap_err().is_empty(), "{number} ran twice");
        left_after -= u32::from(board::dead(0).is_some());
        if left_after == 0 {
            break;
        }
    }
    assert!(board::dead(0).is_some(), "nobody came to that step");
    was_among_them
}

/// Those that wait belong to a server that lives.
fn assert_no_orphan_waits() {
    let orphans = || {
        let mut idle = census::idle();
        idle.retain(|one| {
            let parent = census::process(one.parent);
            parent.is_none_or(|parent| parent.command != "forkserver" || !parent.lives())
        });
        idle
    };
    let left = census::poll(SOON, orphans, Vec::is_empty);
    assert!(left.is_empty(), "they wait for nobody: {left:#?}");
}

const SERVER: &[Row] = &[
    forked("server::spare::forked", Undone),
    forked("server::spare::offered", Undone),
];

deaths_by_server!(the_server_that_forks_ahead, SERVER, |case| {
    end_server();
    case.arm().anyone_else();
    assert!(!start_until_death(case), "a process died");
    assert_no_orphan_waits();
    assert_nobody_left(case);
});

const STOPPED: &[Row] = &[forked("server::spare::forked", Undone)];

deaths_by_server!(the_server_is_stopped_as_it_forks_ahead, STOPPED, |case| {
    end_server();
    let stop = Arm::stop(0, case.row.step);
    stop.anyone_else();
    let gate = Queue::<u32>::new().unwrap();
    let is_stopped = || {
        let server = board::dead(0).and_then(census::process);
        server.is_some_and(|one| one.state == 'T')
    };
    let mut is_over = false;
    for number in 0..STARTS {
        if board::dead(0).is_some() {
            // It was stopped after the last look, so that the next start has it go on.
            stop.anyone_else();
        }
        let waits = Process::spawn(gate.clone(), |gate: Queue<u32>| gate.get().unwrap()).unwrap();
        is_over = census::poll(SOON / 20, is_stopped, |is| *is);
        gate.put(number).unwrap();
        // Its parent collects nobody now, and nobody has it go on.
        assert_eq!(waits.join().unwrap(), number);
        if is_over {
            break;
        }
    }
    assert!(is_over && is_stopped(), "nobody was needed to go on");
    kill(pid_of(board::dead(0).unwrap()), Signal::SIGCONT).unwrap();
    assert_eq!(start(case, &gate, 7).join().unwrap(), 8);
    assert_eq!(gate.get_timeout(SOON).unwrap(), 7);
    assert_nobody_left(case);
});

const SPARE: &[Row] = &[
    forked("spare::wait::ready", Undone),
    forked("spare::request::there", Undone),
    forked("spare::request::received", Done),
    forked("spare::request::told", Done),
];

deaths_by_server!(the_one_that_waits, SPARE, |case| {
    end_server();
    case.arm().anyone_else();
    // It had taken its request in, or it had not, and the start was made again.
    assert_eq!(start_until_death(case), case.is_done());
    assert_no_orphan_waits();
    assert_nobody_left(case);
});

const APPLICATION: &[Row] = &[
    forked("launcher::spare::offered", Undone),
    forked("launcher::spare::sent", Done),
    forked("launcher::spare::noted", Done),
];

deaths_by_server!(the_application_that_uses_it, APPLICATION, |case| {
    let gate = Queue::<u32>::new().unwrap();
    let application = case.victim(
        (gate.clone(), name_of(case.method)),
        |(gate, method): (Queue<u32>, String)| {
            for number in 0..STARTS {
                let start = || Process::builder().start_method(method_of(&method));
                let quick = start().spawn(number, |number| number + 1).unwrap();
                assert_eq!(quick.join().unwrap(), number + 1);
                // These wait until they die.
                let held = start()
                    .daemon(true)
                    .spawn(gate.clone(), |gate: Queue<u32>| gate.get().unwrap());
                drop(held.unwrap());
            }
        },
    );
    assert_killed(application, 0);
    assert_nobody_left(case);
    assert_no_orphan_waits();
});
