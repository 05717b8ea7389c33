//! Signals and children of the application's own: what a process starts with, and that neither the library nor the
//! application notices the other's.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::alone::{in_own_process, mark, test_path};
use common::census::{family, poll, process};
use common::fault::{self, fault_row};
use common::meet::{Gate, pass};
use common::unsafely::{COLLECTED, SIGNALS, alarm_every, handle, ignore};
use common::{LIMIT, assert_serves, every_method, every_method_alone, kill_hard, pid_of, pool};
use multiprocess::{Process, StartMethod};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;

fn builder(method: StartMethod) -> multiprocess::ProcessBuilder {
    Process::builder().start_method(method)
}

/// Makes this process odd, and looks at a child.
fn assert_starts_with_defaults(method: StartMethod) {
    ignore(Signal::SIGHUP);
    ignore(Signal::SIGCHLD);
    handle(Signal::SIGUSR1);
    handle(Signal::SIGINT);
    let blocked: SigSet = [Signal::SIGTERM, Signal::SIGUSR2].into_iter().collect();
    blocked.thread_block().unwrap();
    let mut child = builder(method)
        .spawn((), |()| {
            std::fs::read_to_string("/proc/self/status").unwrap()
        })
        .unwrap();
    assert!(child.wait().unwrap().success());
    let status = child.join().unwrap();
    let mask = |name: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name));
        u64::from_str_radix(mask.unwrap().trim(), 16).unwrap()
    };
    let bit = |signal: i32| 1u64 << (signal - 1);
    assert_eq!(mask("SigBlk:"), 0, "{status}");
    // What the C library keeps for itself is as whoever started this program left it.
    let internal = bit(32) | bit(33);
    let ignored = mask("SigIgn:") & !internal;
    assert_eq!(ignored, bit(Signal::SIGPIPE as i32), "{status}");
    // A word on stack overflow, as in any Rust program.
    let known = bit(Signal::SIGSEGV as i32) | bit(Signal::SIGBUS as i32) | internal;
    assert_eq!(mask("SigCgt:") & !known, 0, "{status}");
    assert_eq!(mask("SigPnd:") | mask("ShdPnd:"), 0, "{status}");
}

every_method_alone!(signals_are_at_their_defaults_and_not_blocked, |method| {
    assert_starts_with_defaults(method);
});

#[test]
fn signals_are_at_their_defaults_where_the_fork_server_is_started_late() {
    let name = "signals_are_at_their_defaults_where_the_fork_server_is_started_late";
    in_own_process(&test_path(module_path!(), name), LIMIT, || {
        assert_starts_with_defaults(StartMethod::ForkServer);
        assert_starts_with_defaults(StartMethod::Spawn);
    });
}

every_method_alone!(a_waitpid_for_any_child_sees_none, |method| {
    let gate = Gate::new();
    let running = builder(method)
        .spawn(gate.path(), |gate| pass(&gate))
        .unwrap();
    let pool = pool(method, 2);
    assert_serves(&pool);
    // It does not block either, though processes run.
    assert_eq!(waitpid(None, None), Err(Errno::ECHILD));
    gate.let_through(1);
    running.join().unwrap();
    let killed = builder(method).spawn((), |()| {
        loop {
            std::thread::park()
        }
    });
    let mut killed: Process<()> = killed.unwrap();
    killed.kill().unwrap();
    // Ended or not, collected here or not: it is none of theirs.
    assert_eq!(
        waitpid(None, Some(WaitPidFlag::WNOHANG)),
        Err(Errno::ECHILD)
    );
    assert_eq!(killed.wait().unwrap().signal(), Some(9));
});

every_method_alone!(
    a_handler_that_collects_every_child_disturbs_nobody,
    |method| {
        handle(Signal::SIGCHLD);
        let pool = pool(method, 2);
        for round in 0..20_u32 {
            let child = builder(method).spawn(round, |round| round + 1).unwrap();
            assert_eq!(child.join().unwrap(), round + 1);
            let error = builder(method)
                .spawn(3, |code: i32| std::process::exit(code))
                .unwrap()
                .join()
                .map(|(): ()| ())
                .unwrap_err();
            assert_eq!(error.exit_status().unwrap().code(), Some(3));
            drop(builder(method).spawn((), |()| ()).unwrap());
        }
        assert_serves(&pool);
        // What a server leaves when it is killed is held on to until the next start.
        let count = || multiprocess::active_children().len();
        assert_eq!(poll(LIMIT, count, |count| *count == 2), 2);
        let servers = family(std::process::id(), mark().as_deref());
        let [server] = &common::census::servers(&servers)[..] else {
            panic!("one server: {servers:?}")
        };
        kill_hard(server.pid);
        poll(LIMIT, || server.is_gone(), |gone| *gone);
        let child = builder(method).spawn(1, |n: i32| n).unwrap();
        assert_eq!(child.join().unwrap(), 1);
        assert_eq!(SIGNALS.load(Ordering::SeqCst), 0, "nothing of ours is told");

        #[allow(
            clippy::zombie_processes,
            reason = "the application's handler collects it, which is what is tested"
        )]
        let own = std::process::Command::new("true").spawn().unwrap();
        poll(
            LIMIT,
            || COLLECTED.load(Ordering::SeqCst),
            |count| *count == 1,
        );
        assert_eq!(COLLECTED.load(Ordering::SeqCst), 1, "{own:?}");
    }
);

// Tokio keeps a pair of sockets for the life of the program, which a census would find.
every_method!(under_tokio_both_kinds_of_children_are_heard_of, |method| {
    let runtime = common::program::tokio();
    #[allow(
        deprecated,
        reason = "what has taken its place is unsafe, and not in the versions that most use"
    )]
    runtime.block_on(async {
        for _ in 0..5 {
            let mut commands: Vec<_> = (0..4)
                .map(|code| {
                    tokio::process::Command::new("sh")
                        .args(["-c", &format!("exit {code}")])
                        .spawn()
                        .unwrap()
                })
                .collect();
            let gate = Gate::new();
            let mut child = builder(method)
                .spawn(gate.path(), |gate| {
                    pass(&gate);
                    std::process::exit(9)
                })
                .unwrap();
            let sentinel = std::os::fd::AsFd::as_fd(&child)
                .try_clone_to_owned()
                .unwrap();
            let sentinel = AsyncFd::new(sentinel).unwrap();
            for (code, command) in (0..).zip(&mut commands) {
                assert_eq!(command.wait().await.unwrap().code(), Some(code));
            }
            assert!(child.is_alive());
            gate.let_through(1);
            let _ready = sentinel.readable().await.unwrap();
            assert!(!child.is_alive());
            assert_eq!(child.wait().unwrap().code(), Some(9));
            let _: Process<()> = child;
        }
    });
});

every_method_alone!(signals_all_the_time_interrupt_nothing, |method| {
    handle(Signal::SIGALRM);
    alarm_every(100);
    for round in 0..20_u32 {
        let mut child = builder(method)
            .spawn(vec![round; 100_000], |numbers| numbers)
            .unwrap();
        assert!(child.wait_timeout(LIMIT).unwrap().unwrap().success());
        assert_eq!(child.join().unwrap(), vec![round; 100_000]);
    }
    let gate = Gate::new();
    let mut child = builder(method)
        .spawn(gate.path(), |gate| pass(&gate))
        .unwrap();
    let limit = Duration::from_millis(20);
    let started = Instant::now();
    assert_eq!(child.wait_timeout(limit).unwrap(), None);
    assert!(started.elapsed() >= limit);
    gate.let_through(1);
    child.join().unwrap();
    alarm_every(0);
    assert!(SIGNALS.load(Ordering::SeqCst) > 100);
});

fault_row!(signals_all_the_time_interrupt_no_call_of_a_pool, |method| {
    let pool = pool(method, 2);
    handle(Signal::SIGALRM);
    alarm_every(100);
    fault::strike();
    for round in 0..20_u64 {
        let lazy = pool.imap(0..200_u64, |number| number + 1);
        assert!(lazy.map(Result::unwrap).eq(1..=200));
        let large = pool.map(vec![vec![round; 50_000]; 4], |numbers| numbers);
        assert_eq!(large.unwrap(), vec![vec![round; 50_000]; 4]);
        let calls: Vec<_> = (0..100).map(|n| pool.apply_async(n, |n: u64| n)).collect();
        assert!(calls.into_iter().map(|call| call.get().unwrap()).eq(0..100));
    }
    fault::answered("twenty rounds of calls");
    assert_serves(&pool);
    alarm_every(0);
    assert!(SIGNALS.load(Ordering::SeqCst) > 100);
});

every_method_alone!(a_teller_that_is_stopped_holds_up_no_time_limit, |method| {
    let gate = Gate::new();
    let mut child = builder(method)
        .spawn(gate.path(), |gate| pass(&gate))
        .unwrap();
    let child_now = process(child.pid()).unwrap();
    let teller = process(child_now.parent).unwrap();
    kill(pid_of(teller.pid), Signal::SIGSTOP).unwrap();
    poll(
        LIMIT,
        || process(teller.pid).unwrap().state,
        |state| *state == 'T',
    );
    child.kill().unwrap();
    // Dead, but its parent may not have said so.
    let limit = Duration::from_millis(50);
    let started = Instant::now();
    match child.wait_timeout(limit).unwrap() {
        None => {}
        // The kernel itself keeps how it ended, and needs no teller.
        Some(status) => {
            assert_ne!(method, StartMethod::Fork);
            assert_eq!(status.signal(), Some(9));
        }
    }
    assert!(started.elapsed() < LIMIT / 2);
    // What was killed may have to wait for a processor to end on.
    assert!(!poll(LIMIT, || child.is_alive(), |is_alive| !is_alive));
    // Whoever needs it has it go on.
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    if method != StartMethod::Fork {
        kill(pid_of(teller.pid), Signal::SIGSTOP).unwrap();
        let child = builder(method).spawn(5, |n: i32| n).unwrap();
        assert_eq!(child.join().unwrap(), 5);
        kill(pid_of(teller.pid), Signal::SIGSTOP).unwrap();
        assert!(multiprocess::active_children().is_empty());
    }
});

every_method!(what_is_sent_at_once_is_not_lost, |method| {
    for round in 0..200 {
        let mut process: Process = Process::builder()
            .start_method(method)
            .spawn((), |()| {
                loop {
                    std::thread::park();
                }
            })
            .unwrap();
        let signal = if round % 2 == 0 {
            process.interrupt().unwrap();
            Signal::SIGINT
        } else {
            process.terminate().unwrap();
            Signal::SIGTERM
        };
        let ended = process.wait_timeout(LIMIT).unwrap();
        assert_eq!(
            ended.map(|status| status.signal()),
            Some(Some(signal as i32))
        );
    }
});
