//! What the black-box tests share: one body under every start method, a bound on waiting, meeting points,
//! a process of one's own, and a count of what is left over.

#![allow(
    dead_code,
    unused_macros,
    unused_imports,
    reason = "each test file uses its own part"
)]
#![allow(clippy::unwrap_used, reason = "tests")]

pub(crate) mod alone;
pub(crate) mod census;
pub(crate) mod fault;
pub(crate) mod many;
pub(crate) mod meet;
pub(crate) mod program;
pub(crate) mod refusals;
pub(crate) mod unsafely;
pub(crate) mod victim;

use census::Census;
use multiprocess::{Pool, Process, StartMethod, TaskError, TaskErrorKind};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::panic;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// When a test counts as hung. No test measures anything with it.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// For what moves gigabytes or starts thousands of processes on a busy machine.
pub(crate) const LONG_LIMIT: Duration = Duration::from_secs(300);

/// Makes `name::fork_server` and `name::spawn` of one body, each failing when it has not ended within [`LIMIT`], or another
/// limit.
macro_rules! each_method {
    ($name:ident, |$method:ident| $body:block) => {
        crate::common::each_method!($name, crate::common::LIMIT, |$method| $body);
    };
    ($name:ident, $limit:expr, |$method:ident| $body:block) => {
        mod $name {
            use super::*;

            fn body($method: multiprocess::StartMethod) $body

            #[test]
            fn fork_server() {
                crate::common::within($limit, || body(multiprocess::StartMethod::ForkServer));
            }

            #[test]
            fn spawn() {
                crate::common::within($limit, || body(multiprocess::StartMethod::Spawn));
            }
        }
    };
}
pub(crate) use each_method;

/// As [`each_method`], with the body in a process of its own, where afterwards nothing may be left over: see [`clean`].
macro_rules! each_method_alone {
    ($name:ident, |$method:ident| $body:block) => {
        crate::common::each_method_alone!($name, crate::common::LIMIT, |$method| $body);
    };
    ($name:ident, $limit:expr, |$method:ident| $body:block) => {
        mod $name {
            use super::*;

            fn body($method: multiprocess::StartMethod) $body

            #[test]
            fn fork_server() {
                let test = crate::common::alone::test_path(module_path!(), "fork_server");
                crate::common::alone::in_own_process(&test, $limit, || crate::common::clean(multiprocess::StartMethod::ForkServer, body));
            }

            #[test]
            fn spawn() {
                let test = crate::common::alone::test_path(module_path!(), "spawn");
                crate::common::alone::in_own_process(&test, $limit, || crate::common::clean(multiprocess::StartMethod::Spawn, body));
            }
        }
    };
}
pub(crate) use each_method_alone;

/// As [`each_method`], with `name::fork` as well. Its body runs by itself, on the only thread of a process.
macro_rules! every_method {
    ($name:ident, |$method:ident| $body:block) => {
        mod $name {
            use super::*;

            fn body($method: multiprocess::StartMethod) $body

            #[test]
            fn fork_server() {
                crate::common::within(crate::common::LIMIT, || body(multiprocess::StartMethod::ForkServer));
            }

            #[test]
            fn spawn() {
                crate::common::within(crate::common::LIMIT, || body(multiprocess::StartMethod::Spawn));
            }

            #[test]
            fn fork() {
                let test = crate::common::alone::test_path(module_path!(), "fork");
                crate::common::alone::on_the_only_thread(&test, crate::common::LIMIT, || body(multiprocess::StartMethod::Fork));
            }
        }
    };
}
pub(crate) use every_method;

/// As [`each_method_alone`], with `name::fork` as well. Its body runs on the only thread of its process.
macro_rules! every_method_alone {
    ($name:ident, |$method:ident| $body:block) => {
        crate::common::every_method_alone!($name, crate::common::LIMIT, |$method| $body);
    };
    ($name:ident, $limit:expr, |$method:ident| $body:block) => {
        mod $name {
            use super::*;

            fn body($method: multiprocess::StartMethod) $body

            #[test]
            fn fork_server() {
                let test = crate::common::alone::test_path(module_path!(), "fork_server");
                crate::common::alone::in_own_process(&test, $limit, || crate::common::clean(multiprocess::StartMethod::ForkServer, body));
            }

            #[test]
            fn spawn() {
                let test = crate::common::alone::test_path(module_path!(), "spawn");
                crate::common::alone::in_own_process(&test, $limit, || crate::common::clean(multiprocess::StartMethod::Spawn, body));
            }

            #[test]
            fn fork() {
                let test = crate::common::alone::test_path(module_path!(), "fork");
                crate::common::alone::on_the_only_thread(&test, $limit, || crate::common::clean(multiprocess::StartMethod::Fork, body));
            }
        }
    };
}
pub(crate) use every_method_alone;

/// A limit, or so many times as long as a test does as much.
pub(crate) fn scaled_limit(limit: Duration) -> Duration {
    limit.saturating_mul(u32::try_from(many::scaled(1)).unwrap())
}

/// Runs `body` on a thread of its own and fails when it has not ended within [`scaled_limit`] of `limit`.
pub(crate) fn within<T: Send + 'static>(
    limit: Duration,
    body: impl FnOnce() -> T + Send + 'static,
) -> T {
    let limit = scaled_limit(limit);
    let (done, ended) = mpsc::channel();
    let runner = thread::spawn(move || {
        let outcome = panic::catch_unwind(panic::AssertUnwindSafe(body));
        // The test has stopped listening when it gave up on us.
        let _ = done.send(());
        outcome
    });
    match ended.recv_timeout(limit) {
        Ok(()) | Err(RecvTimeoutError::Disconnected) => {
            match runner.join().and_then(|outcome| outcome) {
                Ok(value) => value,
                Err(payload) => panic::resume_unwind(payload),
            }
        }
        Err(RecvTimeoutError::Timeout) => panic!("hangs: not ended after {limit:?}"),
    }
}

/// Runs `body` and fails when anything of a [`Census`] is left over. What the library
/// makes once for the whole program, such as its fork server, is made before the first count.
pub(crate) fn clean(method: StartMethod, body: impl FnOnce(StartMethod)) {
    for warmed in [StartMethod::ForkServer, StartMethod::Spawn] {
        assert_serves(&pool(warmed, 1));
        let process = Process::builder()
            .start_method(warmed)
            .spawn(1_u32, |one| one)
            .unwrap();
        assert_eq!(process.join().unwrap(), 1);
    }
    if method == StartMethod::Fork {
        let process = Process::builder()
            .start_method(method)
            .spawn(1_u32, |one| one)
            .unwrap();
        assert_eq!(process.join().unwrap(), 1);
    }
    let before = Census::now();
    body(method);
    fault::forget();
    before.assert_nothing_added();
}

/// What `poll` says of a descriptor within `limit`, however often a signal interrupts it.
pub(crate) fn polls_readable(source: &impl AsFd, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        let mut polled = [PollFd::new(source.as_fd(), PollFlags::POLLIN)];
        let left = end.saturating_duration_since(Instant::now()).as_millis();
        match poll(&mut polled, PollTimeout::try_from(left).unwrap()) {
            Err(Errno::EINTR) => {}
            ready => return ready.unwrap() == 1,
        }
    }
}

/// Makes a pool.
pub(crate) fn pool(method: StartMethod, workers: usize) -> Pool {
    Pool::builder()
        .workers(workers)
        .start_method(method)
        .build()
        .unwrap()
}

/// Checks that the pool still does what a pool does, on every worker.
pub(crate) fn assert_serves(pool: &Pool) {
    fault::served(pool);
    let doubled = pool.map(0..100_u64, |number| number * 2).unwrap();
    assert_eq!(
        doubled,
        (0..100).map(|number| number * 2).collect::<Vec<u64>>()
    );
    assert_eq!(
        pool.apply((20, 22), |(a, b): (u32, u32)| a + b).unwrap(),
        42
    );
    assert_eq!(pool.worker_pids().len(), pool.workers());
}

/// A pid as nix wants it.
pub(crate) fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(pid.try_into().unwrap())
}

/// Sends SIGKILL.
pub(crate) fn kill_hard(pid: u32) {
    kill(pid_of(pid), Signal::SIGKILL).unwrap();
}

/// Checks that a process died of a signal.
pub(crate) fn assert_crash_by_signal(error: &TaskError, signal: Signal) {
    assert_eq!(error.kind(), TaskErrorKind::Crash);
    let status = error.exit_status().unwrap();
    assert_eq!(
        (status.signal(), status.code()),
        (Some(signal as i32), None),
        "{error}"
    );
    assert_eq!(error.panic_message(), None);
}

/// Checks that a process left by an exit code.
pub(crate) fn assert_crash_by_exit(error: &TaskError, code: i32) {
    assert_eq!(error.kind(), TaskErrorKind::Crash);
    let status = error.exit_status().unwrap();
    assert_eq!(
        (status.signal(), status.code()),
        (None, Some(code)),
        "{error}"
    );
}
