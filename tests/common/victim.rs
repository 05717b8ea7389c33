//! Processes that are killed at any instant of what they do: forks of the test's own process, of which it takes thousands.

use super::census;
use super::unsafely::{fork_child, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use std::hint::spin_loop;
use std::time::{Duration, Instant};

/// A fork that does one thing, until it is killed.
pub(crate) struct Victim {
    pid: Pid,
}

impl Victim {
    /// Forks; the child runs `body`.
    pub(crate) fn new(body: impl FnOnce()) -> Victim {
        Victim {
            pid: fork_child(body),
        }
    }

    /// Waits until it sleeps, or has ended.
    pub(crate) fn wait_until_asleep(&self) {
        let pid = self.pid.as_raw().unsigned_abs();
        while census::process(pid).is_some_and(|process| !matches!(process.state, 'S' | 'Z')) {
            std::thread::yield_now();
        }
    }

    /// Kills it and waits until it is dead. Fails if its body had failed.
    pub(crate) fn kill(self) {
        kill(self.pid, Signal::SIGKILL).unwrap();
        let status = wait_for(self.pid);
        let is_as_it_should = matches!(
            status,
            WaitStatus::Signaled(_, Signal::SIGKILL, _) | WaitStatus::Exited(_, 0)
        );
        assert!(is_as_it_should, "{status:?}");
    }
}

/// Instants that are chosen by a number that is printed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Random {
        let seed = std::env::var("MULTIPROCESS_TEST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or_else(|| u64::from(std::process::id()) << 32 | 1);
        println!("MULTIPROCESS_TEST_SEED={seed}");
        Random(seed)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// Lets up to `longest` pass.
    pub(crate) fn pause(&mut self, longest: Duration) {
        let nanos = u64::try_from(longest.as_nanos()).unwrap();
        let end = Instant::now() + Duration::from_nanos(self.below(nanos));
        while Instant::now() < end {
            spin_loop();
        }
    }
}
