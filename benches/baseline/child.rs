//! A forked process that runs one function and dies with its parent.

use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getpid, getppid};

/// Owns a forked process: dropping it kills and reaps it.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
}

impl Child {
    /// Forks a process that runs `body` with no descriptor but the standard three and `kept`, and
    /// ends.
    ///
    /// # Safety
    ///
    /// Other threads may run here and their locks may be held in the copy for ever. So `body` must
    /// not allocate, print or take any lock: it computes, reads the clock, touches memory that is
    /// there already and calls the kernel.
    pub(crate) unsafe fn fork(kept: Option<BorrowedFd<'_>>, body: impl FnOnce()) -> Child {
        let parent = getpid();
        // SAFETY: `live_with` makes system calls only, and the caller promises the same of `body`.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => Child { pid: child },
            ForkResult::Child => {
                let end = EndOfProcess;
                live_with(parent, kept);
                body();
                drop(end);
                unreachable!("the process has ended")
            }
        }
    }

    /// How long it has run, and how long it was ready to run while others ran in its place.
    pub(crate) fn ran_and_waited(&self) -> (Duration, Duration) {
        let counts = fs::read_to_string(format!("/proc/{}/schedstat", self.pid)).unwrap();
        let mut nanos = counts
            .split_whitespace()
            .map(|count| count.parse().unwrap());
        let mut next = || Duration::from_nanos(nanos.next().unwrap_or_default());
        (next(), next())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Our own child that nobody else waits for: its pid is not used again before it is reaped
        // here.
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}

/// The cost of a process and no more: fork, end, wait.
pub(crate) fn fork_and_wait() {
    // SAFETY: the child makes one system call, which ends it.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => drop(waitpid(child, None).unwrap()),
        ForkResult::Child => drop(EndOfProcess),
    }
}

/// Ends the process where it stands when dropped, so that not even a panic returns into the copy of
/// the bench.
struct EndOfProcess;

impl Drop for EndOfProcess {
    fn drop(&mut self) {
        // SAFETY: it has no precondition; that no destructor and no exit handler of the bench runs
        // is the purpose.
        unsafe { libc::_exit(0) }
    }
}

/// Keeps this process to `kept`, and to the life of `parent`.
fn live_with(parent: Pid, kept: Option<BorrowedFd<'_>>) {
    let asked = prctl::set_pdeathsig(Signal::SIGKILL);
    // The parent may have died before it was asked for.
    if asked.is_err() || getppid() != parent {
        drop(EndOfProcess);
    }
    let kept = kept.map_or(2, |kept| kept.as_raw_fd().unsigned_abs());
    close_between(3, kept.saturating_sub(1));
    close_between(kept + 1, libc::c_uint::MAX);
}

/// Closes the descriptors from `first` to `last`, both included.
fn close_between(first: libc::c_uint, last: libc::c_uint) {
    if first <= last {
        // SAFETY: this process uses none of them any more: it is a fresh copy that runs `body`
        // alone, which has `kept` only.
        unsafe { libc::close_range(first, last, 0) };
    }
}
