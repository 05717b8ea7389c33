//! What the tests of words and monitors need: processes that die at random instants.

use crate::deadline::Deadline;
use crate::sys::forks::apart::Forks;
use crate::sys::memory::{Mapping, SealedMemory};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::time::Duration;

pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) fn memory() -> Mapping {
    SealedMemory::create(4096).unwrap().map(0, 4096).unwrap()
}

pub(crate) fn soon() -> Deadline {
    Deadline::after(SOON)
}

/// Forks a process that runs `body` and ends with the code that it returns.
pub(crate) fn forked(_apart: &Forks, body: impl FnOnce() -> i32) -> Pid {
    // SAFETY: the C library's allocator serves the child of a fork; `body` uses nothing else that a thread of the
    // parent could hold.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            crate::sys::identity::exit_now(code.unwrap_or(101))
        }
    }
}

pub(crate) fn assert_ends_well(child: Pid) {
    assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
}

/// Kills it; fails if it had ended by itself with anything but 0.
pub(crate) fn kill_hard(child: Pid) {
    kill(child, Signal::SIGKILL).unwrap();
    match waitpid(child, None).unwrap() {
        WaitStatus::Signaled(_, Signal::SIGKILL, _) | WaitStatus::Exited(_, 0) => {}
        other => panic!("{other:?}"),
    }
}

/// Numbers for the instants at which something dies.
pub(crate) struct Random(pub(in crate::sys::robust) u64);

impl Random {
    pub(crate) fn new() -> Random {
        let seed = std::env::var("ROBUST_SEED").ok();
        let seed = seed.and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            u64::from_le_bytes(
                crate::sys::identity::nonce().unwrap()[..8]
                    .try_into()
                    .unwrap(),
            )
        });
        eprintln!("ROBUST_SEED={seed}");
        Random(seed | 1)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// Lets a random time pass: what is tested is dying at any instant.
    pub(crate) fn pause(&mut self, longest: Duration) {
        let nanos = u64::try_from(longest.as_nanos()).unwrap();
        std::thread::sleep(Duration::from_nanos(self.below(nanos)));
    }
}
