//! One death: a row of a table, and what its test needs.

use crate::board::{self, Arm};
use crate::common::census::{self, descriptors};
use crate::common::{alone, clean, pid_of, within};
use multiprocess::{Portable, Process, StartMethod};
use nix::sys::signal::{Signal, kill};
use std::os::unix::process::ExitStatusExt;
use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

/// Within what everybody else must have got what is promised.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// A place to die at.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) step: &'static str,
    /// It dies at the first passing, and in other runs at the second, up to this one.
    pub(crate) passings: u32,
    pub(crate) then: Then,
    /// How many start methods it is run under.
    pub(crate) methods: u32,
    /// Where that is one: whether it is the fork server's.
    is_forked: bool,
}

/// What of it has happened when it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Nothing.
    Undone,
    /// All of it.
    Done,
    /// Nothing, and it has the lock, or the like.
    Held,
    /// All of it, and it still has the lock, or the like.
    HeldDone,
    /// At the nth passing, one less than n times; at the first, nothing.
    Before,
    /// At the nth passing, n times.
    After,
    /// It depends on what the others do meanwhile.
    Either,
}

/// It dies at the first passing.
pub(crate) const fn at(step: &'static str, then: Then) -> Row {
    each(step, 1, then)
}

/// It dies at the first passing, at the second, up to this one, each in a run of its own.
pub(crate) const fn each(step: &'static str, passings: u32, then: Then) -> Row {
    Row {
        step,
        passings,
        then,
        methods: 2,
        is_forked: false,
    }
}

/// As [`at`], under `Spawn` alone: a process that is forked does not come there.
pub(crate) const fn spawned(step: &'static str, then: Then) -> Row {
    Row {
        methods: 1,
        ..at(step, then)
    }
}

/// As [`at`], by the fork server alone.
pub(crate) const fn forked(step: &'static str, then: Then) -> Row {
    Row {
        methods: 1,
        is_forked: true,
        ..at(step, then)
    }
}

/// One death under one start method.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) method: StartMethod,
    pub(crate) row: &'static Row,
    pub(crate) nth: u32,
}

impl Case {
    /// The death of this case.
    pub(crate) fn arm(&self) -> Arm {
        Arm {
            slot: 0,
            step: self.row.step.to_owned(),
            nth: self.nth,
            stops: false,
        }
    }

    /// How often what it does was done before it died; `None` where that cannot be said.
    pub(crate) fn done(&self) -> Option<u32> {
        match self.row.then {
            Then::Undone | Then::Held => Some(0),
            Then::Done | Then::HeldDone => Some(1),
            Then::Before => Some(self.nth - 1),
            Then::After => Some(self.nth),
            Then::Either => None,
        }
    }

    /// Whether it was done.
    pub(crate) fn is_done(&self) -> bool {
        self.done() == Some(1)
    }

    /// Whether it had the lock, or the like.
    pub(crate) fn is_held(&self) -> bool {
        matches!(self.row.then, Then::Held | Then::HeldDone)
    }

    /// A process that runs `act` and dies in it.
    pub(crate) fn victim<A: Portable, T: Portable>(
        &self,
        args: A,
        act: impl Fn(A) -> T + Copy + 'static,
    ) -> Process<T> {
        victim(self.method, self.arm(), args, act)
    }

    /// Another process.
    pub(crate) fn other<A: Portable, T: Portable>(
        &self,
        args: A,
        act: impl Fn(A) -> T + Copy + 'static,
    ) -> Process<T> {
        Process::builder()
            .start_method(self.method)
            .daemon(true)
            .spawn(args, act)
            .unwrap()
    }

    /// Waits until the victim has died; fails where it died of anything else, or anywhere else.
    pub(crate) fn assert_killed<T>(&self, victim: Process<T>) {
        assert_killed(victim, 0);
    }
}

/// A process that runs `act` and dies in it, of what is armed.
pub(crate) fn victim<A: Portable, T: Portable>(
    method: StartMethod,
    arm: Arm,
    args: A,
    act: impl Fn(A) -> T + Copy + 'static,
) -> Process<T> {
    Process::builder()
        .start_method(method)
        .daemon(true)
        .spawn((arm, args), move |(arm, args): (Arm, A)| {
            arm.me();
            act(args)
        })
        .unwrap()
}

/// A process that runs `act` and is stopped in it; it has been when this returns.
pub(crate) fn stopped<A: Portable, T: Portable>(
    case: Case,
    arm: Arm,
    args: A,
    act: impl Fn(A) -> T + Copy + 'static,
) -> Process<T> {
    let slot = arm.slot;
    let process = victim(case.method, arm, args, act);
    wait_until_stopped(&process, slot);
    process
}

/// Waits until it was stopped by what was armed in that slot.
pub(crate) fn wait_until_stopped<T>(process: &Process<T>, slot: u64) {
    let is_there = || {
        let is_stopped = census::process(process.pid()).is_some_and(|one| one.state == 'T');
        is_stopped && board::dead(slot) == Some(process.pid())
    };
    assert!(census::poll(SOON, is_there, |is| *is), "it never stops");
}

/// Lets one go on that was stopped.
pub(crate) fn go_on<T>(process: &Process<T>) {
    kill(pid_of(process.pid()), Signal::SIGCONT).unwrap();
}

/// Waits until it has died of what was armed in that slot, and nothing else.
pub(crate) fn assert_killed<T>(mut victim: Process<T>, slot: u64) {
    let status = victim.wait_timeout(SOON).unwrap();
    let status = status.unwrap_or_else(|| panic!("it hangs, and never came to that step"));
    let died = board::dead(slot);
    assert!(
        status.signal() == Some(9) && died == Some(victim.pid()),
        "it did not die at that step: {status}, dead: {died:?}"
    );
}

/// Waits until a process sleeps, or has ended.
pub(crate) fn wait_until_asleep<T>(process: &Process<T>) {
    let is_awake = |pid| census::process(pid).is_some_and(|one| !matches!(one.state, 'S' | 'Z'));
    while is_awake(process.pid()) {
        std::thread::yield_now();
    }
}

/// Kills it, and waits until it is dead.
pub(crate) fn kill_now<T>(mut process: Process<T>) {
    process.kill().unwrap();
    let ended = process.wait_timeout(SOON).unwrap();
    assert_eq!(ended.unwrap().signal(), Some(9));
}

/// What a process returned, which must be soon.
pub(crate) fn result_of<T: Portable>(mut process: Process<T>) -> T {
    let ended = process.wait_timeout(SOON).unwrap();
    assert!(ended.is_some(), "another process waits for ever");
    process.join().unwrap()
}

/// Runs each case of a table, in a process that does nothing else, and says of all that failed.
pub(crate) fn run(method: StartMethod, rows: &'static [Row], body: fn(Case)) {
    let _board = board::make();
    clean(method, |method| {
        let mut failures = Vec::new();
        let is_forked = method == StartMethod::ForkServer;
        let applies = |row: &&Row| row.methods == 2 || row.is_forked == is_forked;
        for row in rows.iter().filter(applies) {
            for nth in 1..=row.passings {
                let case = Case { method, row, nth };
                if let Err(why) = run_one(case, body) {
                    failures.push(format!("{} ({nth}): {why}", row.step));
                }
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    });
}

fn run_one(case: Case, body: fn(Case)) -> Result<(), String> {
    let before = descriptors();
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
        if case.method == StartMethod::Fork {
            // There may be no other thread.
            body(case);
        } else {
            within(3 * SOON, move || body(case));
        }
        let settled = |now: &usize| *now <= before.len();
        let after = census::poll(SOON, || descriptors().len(), settled);
        assert!(
            settled(&after),
            "left over: {before:?}, {:?}",
            descriptors()
        );
    }));
    board::disarm();
    outcome.map_err(|payload| {
        let text = payload.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        text.unwrap_or_default()
    })
}

/// Nobody is left but the fork server: the census at the end of the table would find them as well, but not say at which step.
pub(crate) fn assert_nobody_left(case: Case) {
    let family = || {
        let mark = alone::mark();
        let mut family = census::family(std::process::id(), mark.as_deref());
        // What runs by `Fork` is itself a fork, of one that waits for it.
        let parent = std::os::unix::process::parent_id();
        family.retain(|one| {
            one.lives() && !one.command.starts_with("forkserver") && one.pid != parent
        });
        family
    };
    let left = census::poll(SOON, family, Vec::is_empty);
    assert!(
        left.is_empty(),
        "left behind at {}: {left:#?}",
        case.row.step
    );
}

/// The name of a start method, which travels.
pub(crate) fn name_of(method: StartMethod) -> String {
    format!("{method:?}")
}

/// The start method of a name.
pub(crate) fn method_of(name: &str) -> StartMethod {
    match name {
        "Spawn" => StartMethod::Spawn,
        "Fork" => StartMethod::Fork,
        _ => StartMethod::ForkServer,
    }
}

/// Makes the tests of one table: `name::fork_server` and `name::spawn`.
macro_rules! deaths {
    ($name:ident, $rows:expr, |$case:ident| $body:block) => {
        mod $name {
            use super::*;

            fn body($case: crate::case::Case) $body

            #[test]
            fn fork_server() {
                let test = crate::common::alone::test_path(module_path!(), "fork_server");
                crate::common::alone::in_own_process(&test, crate::common::LONG_LIMIT, || {
                    crate::case::run(multiprocess::StartMethod::ForkServer, $rows, body);
                });
            }

            #[test]
            fn spawn() {
                let test = crate::common::alone::test_path(module_path!(), "spawn");
                crate::common::alone::in_own_process(&test, crate::common::LONG_LIMIT, || {
                    crate::case::run(multiprocess::StartMethod::Spawn, $rows, body);
                });
            }
        }
    };
}
pub(crate) use deaths;

/// As [`deaths`], by the fork server alone.
macro_rules! deaths_by_server {
    ($name:ident, $rows:expr, |$case:ident| $body:block) => {
        mod $name {
            use super::*;

            fn body($case: crate::case::Case) $body

            #[test]
            fn fork_server() {
                let test = crate::common::alone::test_path(module_path!(), "fork_server");
                crate::common::alone::in_own_process(&test, crate::common::LONG_LIMIT, || {
                    crate::case::run(multiprocess::StartMethod::ForkServer, $rows, body);
                });
            }
        }
    };
}
pub(crate) use deaths_by_server;

/// As [`deaths`], under `Fork`, on the only thread of a process.
macro_rules! deaths_by_fork {
    ($name:ident, $rows:expr, |$case:ident| $body:block) => {
        mod $name {
            use super::*;

            fn body($case: crate::case::Case) $body

            #[test]
            fn fork() {
                let test = crate::common::alone::test_path(module_path!(), "fork");
                crate::common::alone::on_the_only_thread(&test, crate::common::LONG_LIMIT, || {
                    crate::case::run(multiprocess::StartMethod::Fork, $rows, body);
                });
            }
        }
    };
}
pub(crate) use deaths_by_fork;
