//! How it is known how a process ended: from the kernel, where that keeps it, and otherwise from who has started the process;
//! and what is known when the fork server is killed.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::alone::{in_own_process, mark, test_path};
use common::census::{ProcessInfo, family, poll, process};
use common::meet::{Ear, Gate, pass, say};
use common::unsafely::{
    DIES_HALF_WAY, are_ends_kept, exit_at_once, hide_kept_ends, set_environment, unset_environment,
};
use common::{LIMIT, assert_serves, clean, each_method_alone, kill_hard, pid_of, pool};
use multiprocess::{Process, StartMethod, active_children};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

fn start<A, T, F>(method: StartMethod, args: A, f: F) -> Process<T>
where
    A: multiprocess::Portable,
    T: multiprocess::Portable,
    F: Fn(A) -> T + Copy + 'static,
{
    let builder = Process::builder().start_method(method);
    builder.spawn(args, f).unwrap()
}

/// What the fork servers of this process are called by.
fn servers() -> Vec<u32> {
    let family = family(std::process::id(), mark().as_deref());
    let servers = common::census::servers(&family);
    servers.iter().map(|server| server.pid).collect()
}

fn kill_the_server_of(pid: u32) {
    let server = process(process(pid).unwrap().parent).unwrap();
    assert_eq!(server.command, "forkserver");
    kill_hard(server.pid);
    poll(LIMIT, || server.is_gone(), |gone| *gone);
}

/// As [`kill_the_server_of`], where this process adopts orphans: collects what the server had forked ahead of need and not
/// offered yet, which the library here knows nothing of.
fn kill_and_inherit(pid: u32) {
    let server = process(pid).unwrap().parent;
    kill_the_server_of(pid);
    let this = std::process::id();
    let is_spare = |one: &ProcessInfo| one.parent == this && one.command.starts_with("forkserver");
    for one in family(this, None) {
        // The process itself may not have its own name yet.
        if is_spare(&one) && ![pid, server].contains(&one.pid) {
            let _collected = waitpid(pid_of(one.pid), None);
        }
    }
}

/// Every way to end and every way to learn of it.
fn assert_ends_are_known(method: StartMethod) {
    for code in [0, 3, 101, 255] {
        let mut child = start(method, code, |code: i32| exit_at_once(code));
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert_eq!(child.exit_status().unwrap().code(), Some(code));
        let _: Process<()> = child;
    }
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGABRT] {
        let gate = Gate::new();
        let child = start(method, gate.path(), |gate| pass(&gate));
        kill(pid_of(child.pid()), signal).unwrap();
        let status = child.join().unwrap_err().exit_status().unwrap();
        assert_eq!(status.signal(), Some(signal as i32));
    }
    let child = start(method, (), |()| exit_at_once(9));
    let status = poll(LIMIT, || child.exit_status(), Option::is_some);
    assert_eq!(status.unwrap().code(), Some(9));
    let _: Process<()> = child;

    let gate = Gate::new();
    let mut slow = start(method, gate.path(), |gate| pass(&gate));
    let limit = Duration::from_millis(20);
    assert_eq!(slow.wait_timeout(limit).unwrap(), None);
    gate.let_through(1);
    assert!(slow.wait_timeout(LIMIT).unwrap().unwrap().success());
    slow.join().unwrap();

    let all: Vec<_> = (0..40_u32).map(|n| start(method, n, |n| n)).collect();
    for (number, child) in (0..).zip(all) {
        assert_eq!(child.join().unwrap(), number);
    }
    let alive = poll(LIMIT, active_children, Vec::is_empty);
    assert!(alive.is_empty(), "{alive:?}");

    let pool = pool(method, 2);
    let error = pool
        .apply(7, |code: i32| exit_at_once(code))
        .map(|(): ()| ());
    assert_eq!(error.unwrap_err().exit_status().unwrap().code(), Some(7));
    assert_serves(&pool);
}

each_method_alone!(how_one_ended_is_known, |method| {
    assert_ends_are_known(method);
});

mod on_an_older_kernel {
    use super::*;

    fn run(name: &str, body: fn(StartMethod)) {
        let test = test_path(module_path!(), name);
        in_own_process(&test, LIMIT, move || {
            hide_kept_ends();
            clean(StartMethod::ForkServer, body);
            clean(StartMethod::Spawn, body);
        });
    }

    #[test]
    fn how_one_ended_is_known() {
        run("how_one_ended_is_known", assert_ends_are_known);
    }

    #[test]
    fn a_server_that_was_killed_has_told_nobody() {
        run("a_server_that_was_killed_has_told_nobody", |method| {
            let gate = Gate::new();
            let mut child = start(method, gate.path(), |gate| {
                pass(&gate);
                5
            });
            kill_the_server_of(child.pid());
            gate.let_through(1);
            let error = child.wait().unwrap_err().to_string();
            assert!(error.contains("the fork server was killed"), "{error}");
            // What it returned has come all the same.
            assert_eq!(child.join().unwrap(), 5);
            assert_eq!(start(method, 1, |n: i32| n).join().unwrap(), 1);
        });
    }

    #[test]
    fn a_server_that_is_stopped_goes_on_for_who_waits() {
        run("a_server_that_is_stopped_goes_on_for_who_waits", |method| {
            let gate = Gate::new();
            let mut child = start(method, gate.path(), |gate| pass(&gate));
            let server = process(child.pid()).unwrap().parent;
            kill(pid_of(server), Signal::SIGSTOP).unwrap();
            child.kill().unwrap();
            assert_eq!(child.wait().unwrap().signal(), Some(9));
        });
    }
}

each_method_alone!(
    what_runs_when_the_server_is_killed_is_accounted_for,
    |method| {
        let (mut ear, gate) = (Ear::new(), Gate::new());
        let paths = (ear.path(), gate.path());
        let mut child = start(method, paths, |(ear, gate)| {
            say(&ear, "begun");
            pass(&gate);
            std::process::exit(3)
        });
        assert_eq!(ear.hear(), "begun");
        kill_the_server_of(child.pid());
        assert!(child.is_alive());
        let alive = active_children();
        assert!(
            alive.iter().any(|one| one.pid() == child.pid()),
            "{alive:?}"
        );
        // The next start makes another server, and that one child has none of its own.
        assert_eq!(start(method, 1, |n: i32| n).join().unwrap(), 1);
        let one = poll(LIMIT, servers, |servers| servers.len() == 1);
        assert_eq!(one.len(), 1, "{one:?}");
        gate.let_through(1);
        match child.wait() {
            // Whoever adopts orphans here has collected it.
            Ok(status) => assert_eq!(status.code(), Some(3)),
            Err(error) => assert!(
                error.to_string().contains("nobody is left to tell"),
                "{error}"
            ),
        }
        assert!(!child.is_alive());
        let result: Result<(), _> = child.join();
        assert!(result.unwrap_err().is_crash());
        // What was kept for the end of the program, which waits for such a process, goes with a later start.
        assert_eq!(start(method, 1, |n: i32| n).join().unwrap(), 1);
    }
);

#[test]
fn an_heir_collects_what_the_server_has_left() {
    let name = "an_heir_collects_what_the_server_has_left";
    in_own_process(&test_path(module_path!(), name), LIMIT, || {
        // Before there is a server: whose orphans go where is settled at their birth.
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        for method in [StartMethod::ForkServer, StartMethod::Spawn] {
            clean(method, |method| {
                let gate = Gate::new();
                let mut child = start(method, gate.path(), |gate| {
                    pass(&gate);
                    std::process::exit(3)
                });
                kill_and_inherit(child.pid());
                gate.let_through(1);
                let ended = child.wait().map_err(|error| error.to_string());
                if are_ends_kept() {
                    assert_eq!(ended.unwrap().code(), Some(3));
                }
                let _: Process<()> = child;
                let child = start(method, gate.path(), |gate| {
                    pass(&gate);
                    1
                });
                kill_and_inherit(child.pid());
                gate.let_through(1);
                // What it returned is there, and nobody else collects it.
                assert_eq!(child.join().unwrap(), 1);
                assert_eq!(start(method, 1, |n: i32| n).join().unwrap(), 1);
            });
        }
    });
}

#[test]
fn a_server_that_dies_between_start_and_word_has_started_one_process_and_no_second() {
    let name = "a_server_that_dies_between_start_and_word_has_started_one_process_and_no_second";
    in_own_process(&test_path(module_path!(), name), LIMIT, || {
        for (is_daemon, method) in [
            (true, StartMethod::ForkServer),
            (false, StartMethod::ForkServer),
        ] {
            let servers = tempfile::NamedTempFile::new().unwrap();
            set_environment(DIES_HALF_WAY, servers.path().to_str().unwrap());
            let builder = Process::builder().start_method(method).daemon(is_daemon);
            let error = builder.spawn((), |()| ()).map(|_| ()).unwrap_err();
            assert!(error.to_string().contains("may have begun"), "{error}");
            // Each of them would have started it once more.
            let born = std::fs::read_to_string(servers.path()).unwrap();
            assert_eq!(born.lines().count(), 1, "{error}");
            unset_environment(DIES_HALF_WAY);
            assert_eq!(start(method, 1, |n: i32| n).join().unwrap(), 1);
            for server in self::servers() {
                kill_hard(server);
                poll(LIMIT, || process(server), Option::is_none);
            }
        }
    });
}
