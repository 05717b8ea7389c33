//! Starting a process: the fork server, the process itself, and the application are killed at each step.
//!
//! What is promised: a start is there or it is an error; how a process ended is told, or that nobody knows; a server that died
//! is replaced; of an application that dies no daemon is left.

use crate::board::{self, Arm};
use crate::case::Then::{Done, Either, Undone};
use crate::case::{
    Case, Row, SOON, assert_killed, assert_nobody_left, at, deaths, method_of, name_of, spawned,
};
use crate::common::unsafely::{are_ends_kept, set_environment, unset_environment};
use crate::common::{alone, assert_crash_by_signal, census, kill_hard, pid_of};
use multiprocess::{Pipe, Process, Queue, TaskErrorKind};
use nix::sys::signal::{Signal, kill};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

pub(crate) const TABLES: &[&[Row]] = &[
    SERVER,
    SERVER_THAT_TELLS,
    SERVER_THAT_IS_STOPPED,
    SERVER_OF_A_DAEMON,
    SERVER_THAT_COLLECTS,
    CHILD,
    APPLICATION,
];

type Runs = Queue<u32>;

fn start(case: Case, runs: &Runs, number: u32) -> multiprocess::Result<Process<u32>> {
    Process::builder().start_method(case.method).spawn(
        (runs.clone(), number),
        |(runs, number): (Runs, u32)| {
            runs.put(number).unwrap();
            number + 1
        },
    )
}

fn assert_serves(case: Case) {
    let runs = Queue::new().unwrap();
    for number in 70..72 {
        let process = start(case, &runs, number).unwrap();
        assert_eq!(process.join().unwrap(), number + 1);
        assert_eq!(runs.get_timeout(SOON).unwrap(), number);
    }
}

/// Has the next start begin with a new server.
pub(crate) fn end_server() {
    for one in census::family(std::process::id(), alone::mark().as_deref()) {
        if one.command == "forkserver" && one.lives() {
            kill_hard(one.pid);
            census::wait_until_gone(&one);
        }
    }
}

fn assert_somebody_died() {
    let died = census::poll(SOON, || board::dead(0), Option::is_some);
    assert!(died.is_some(), "nobody came to that step");
}

const SERVER: &[Row] = &[
    at("child::accept::adopted", Undone),
    at("server::prepare::ready", Undone),
    at("server::request::received", Undone),
    at("server::request::marked", Either),
    at("server::start::started", Either),
    at("server::start::held", Either),
    at("server::start::told", Done),
    at("server::start::let_go", Done),
];

deaths!(the_server_that_starts, SERVER, |case| {
    check_server_that_starts(case);
});

const SERVER_THAT_TELLS: &[Row] = &[
    at("server::prepare::ready", Undone),
    at("server::request::received", Undone),
    at("server::request::marked", Either),
    at("server::start::started", Either),
    at("server::start::held", Either),
    at("server::start::told", Done),
];

deaths!(
    the_server_that_starts_and_will_tell,
    SERVER_THAT_TELLS,
    |case| {
        on_older_kernel(|| check_server_that_starts(case));
    }
);

/// With servers that tell how a process ended, since the kernel does not keep it.
fn on_older_kernel(body: impl FnOnce()) {
    set_environment(OLDER_KERNEL, "1");
    body();
    unset_environment(OLDER_KERNEL);
    end_server();
}

const OLDER_KERNEL: &str = "MULTIPROCESS_DEATH_OLDER_KERNEL";

fn check_server_that_starts(case: Case) {
    end_server();
    let runs = Queue::new().unwrap();
    case.arm().anyone_else();
    let started = start(case, &runs, 1);
    assert_somebody_died();
    match (case.row.then, started) {
        // Nothing was started, and another server was asked.
        (Undone, started) => assert_eq!(started.unwrap().join().unwrap(), 2),
        // It runs on, and says what it has come to.
        (Done, started) => assert_eq!(started.unwrap().join().unwrap(), 2),
        (_, Ok(process)) => {
            assert_ne!(case.row.step, "server::request::marked");
            assert_eq!(process.join().unwrap(), 2);
        }
        (_, Err(error)) => assert!(error.to_string().contains("fork server"), "{error}"),
    }
    // A request that is marked may have begun, and is not made again: here it had not.
    if case.row.step != "server::request::marked" {
        assert_eq!(runs.get_timeout(SOON).unwrap(), 1);
    }
    assert_nobody_left(case);
    assert!(runs.try_get().unwrap_err().is_empty(), "it ran twice");
    assert_serves(case);
}

const SERVER_THAT_IS_STOPPED: &[Row] = &[at("server::start::told", Done)];

deaths!(
    the_server_that_is_stopped_once_it_has_told_keeps_nothing_open,
    SERVER_THAT_IS_STOPPED,
    |case| {
        end_server();
        let (here, there) = Pipe::<u32>::pair().unwrap();
        Arm::stop(0, case.row.step).anyone_else();
        let builder = Process::builder().start_method(case.method);
        let process = builder.spawn(there, |pipe: Pipe<u32>| pipe.send(1).unwrap());
        let is_stopped = || {
            let server = board::dead(0).and_then(census::process);
            server.is_some_and(|one| one.state == 'T')
        };
        assert!(census::poll(SOON, is_stopped, |is| *is));
        if are_ends_kept() {
            process.unwrap().join().unwrap();
            assert_eq!(here.recv().unwrap(), 1);
            assert!(here.poll(Duration::ZERO).unwrap(), "the end is news");
            assert!(here.recv().unwrap_err().is_closed());
            assert!(is_stopped());
        }
        kill(pid_of(board::dead(0).unwrap()), Signal::SIGCONT).unwrap();
        assert_nobody_left(case);
        assert_serves(case);
    }
);

const SERVER_OF_A_DAEMON: &[Row] = &[
    at("server::prepare::ready", Undone),
    at("server::request::received", Undone),
    at("server::start::started", Either),
    at("server::start::held", Either),
    at("server::start::told", Done),
    at("server::start::let_go", Done),
];

deaths!(
    the_server_that_starts_a_daemon,
    SERVER_OF_A_DAEMON,
    |case| {
        end_server();
        let (runs, gate) = (Queue::new().unwrap(), Queue::new().unwrap());
        case.arm().anyone_else();
        let builder = Process::builder().start_method(case.method).daemon(true);
        let started = builder.spawn(
            (runs.clone(), gate.clone()),
            |(runs, gate): (Runs, Queue<u32>)| {
                runs.put(1).unwrap();
                gate.get().unwrap()
            },
        );
        assert_somebody_died();
        match (case.row.then, started) {
            // Another server has started it, and lives.
            (Undone, started) => {
                gate.put(5).unwrap();
                assert_eq!(started.unwrap().join().unwrap(), 5);
            }
            // It has died with its server.
            (_, Ok(process)) => {
                let error = process.join().unwrap_err();
                assert_eq!(error.kind(), TaskErrorKind::Crash, "{error}");
            }
            (then, Err(error)) => {
                assert_ne!(then, Done, "{error}");
                assert!(error.to_string().contains("fork server"), "{error}");
            }
        }
        assert_nobody_left(case);
        let ran = std::iter::from_fn(|| runs.try_get().ok()).count();
        match case.row.then {
            Undone => assert_eq!(ran, 1),
            _ => assert!(ran <= 1, "it ran {ran} times"),
        }
        assert_serves(case);
    }
);

const SERVER_THAT_COLLECTS: &[Row] = &[
    at("server::collect::reaped", Undone),
    at("server::collect::told", Done),
];

deaths!(
    the_server_when_a_process_ends,
    SERVER_THAT_COLLECTS,
    |case| {
        on_older_kernel(|| check_server_that_collects(case));
    }
);

fn check_server_that_collects(case: Case) {
    end_server();
    let gate = Queue::<u32>::new().unwrap();
    let process = Process::builder()
        .start_method(case.method)
        .spawn(gate.clone(), |gate: Queue<u32>| {
            std::process::exit(gate.get().unwrap().try_into().unwrap())
        });
    let mut process: Process<()> = process.unwrap();
    case.arm().anyone_else();
    gate.put(7).unwrap();
    let status = process.wait_timeout(SOON);
    assert_somebody_died();
    if case.is_done() {
        assert_eq!(status.unwrap().unwrap().code(), Some(7));
    }
    let error = process.join().unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Crash, "{error}");
    let code = error.exit_status().map(|status| status.code());
    assert_eq!(code, case.is_done().then_some(Some(7)));
    assert_serves(case);
}

const CHILD: &[Row] = &[
    spawned("child::accept::adopted", Undone),
    spawned("child::accept::greeted", Undone),
    at("child::enter::settled", Undone),
    at("child::enter::ready", Undone),
    at("child::return::run", Undone),
    at("child::return::told", Done),
];

deaths!(the_process, CHILD, |case| {
    let runs = Queue::new().unwrap();
    case.arm().anyone_else();
    let mut process = start(case, &runs, 1).unwrap();
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
    assert_serves(case);
});

const APPLICATION: &[Row] = &[
    at("launcher::server::greeted", Undone),
    at("launcher::server::executed", Undone),
    at("launcher::request::sent", Undone),
    at("launcher::started::told", Undone),
];

deaths!(the_application, APPLICATION, |case| {
    let gate = Queue::<u32>::new().unwrap();
    let application = case.victim(
        (gate.clone(), name_of(case.method)),
        |(gate, method): (Queue<u32>, String)| {
            let process = Process::builder()
                .start_method(method_of(&method))
                .daemon(true)
                .spawn(gate, |gate: Queue<u32>| gate.get().unwrap())
                .unwrap();
            process.join().unwrap();
        },
    );
    assert_killed(application, 0);
    assert_nobody_left(case);
    assert_serves(case);
});
