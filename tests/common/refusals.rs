//! System calls that are refused, one at a time: a process whose calls a supervisor lets pass or fails, by the kernel's
//! `seccomp` notifications. What that process starts is under the same supervision, also after it has executed a program.

use super::unsafely::{self, Listener};
use nix::sys::wait::{WaitPidFlag, WaitStatus};
use nix::unistd::Pid;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// Whose calls are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The process that was forked, and its threads.
    Own,
    /// All that it has started.
    Others,
}

/// The calls of which one may be refused, and what they then say. Those for memory that the allocator makes are not among
/// them: Rust ends a program that gets none.
const CALLS: &[(i64, &str, i32)] = &[
    (libc::SYS_mmap, "mmap", libc::ENOMEM),
    (libc::SYS_ftruncate, "ftruncate", libc::ENOMEM),
    (libc::SYS_memfd_create, "memfd_create", libc::EMFILE),
    (libc::SYS_socketpair, "socketpair", libc::EMFILE),
    (libc::SYS_sendmsg, "sendmsg", libc::ENOBUFS),
    (libc::SYS_recvmsg, "recvmsg", libc::ENOMEM),
    (libc::SYS_sendto, "sendto", libc::ENOBUFS),
    (libc::SYS_clone, "clone", libc::EAGAIN),
    (libc::SYS_clone3, "clone3", libc::EAGAIN),
    (libc::SYS_execve, "execve", libc::ENOMEM),
    (libc::SYS_epoll_create1, "epoll_create1", libc::EMFILE),
    (libc::SYS_epoll_ctl, "epoll_ctl", libc::ENOMEM),
    (libc::SYS_pidfd_open, "pidfd_open", libc::EMFILE),
    (libc::SYS_eventfd2, "eventfd2", libc::EMFILE),
    (libc::SYS_pipe2, "pipe2", libc::EMFILE),
    (libc::SYS_fcntl, "fcntl", libc::EMFILE),
    (libc::SYS_ppoll, "ppoll", libc::ENOMEM),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, "poll", libc::ENOMEM),
];

// What the process and its supervisor tell each other, in memory that both have.

/// Where the process has the descriptor to be supervised by; 0 as long as it has none, -1 where it can have none.
const LISTENER: usize = 0;
/// How many more calls pass before one is refused; negative where none is to be.
const LEFT: usize = 1;
/// Whether those of others are counted.
const OTHERS: usize = 2;
/// The call that was refused, counted from 1 in [`CALLS`].
const REFUSED: usize = 3;

type Words = &'static [AtomicI64; 4];

/// In the supervised process: by which it has calls refused.
pub(crate) struct Refusals(Words);

impl Refusals {
    /// Runs `body` while the call after `passed` others is refused; tells which one that was, if there were so many.
    pub(crate) fn refuse<R>(
        &self,
        whose: Whose,
        passed: i64,
        body: impl FnOnce() -> R,
    ) -> (R, Option<&'static str>) {
        let set = |word: usize, to: i64| self.0[word].store(to, Ordering::SeqCst);
        set(REFUSED, 0);
        set(OTHERS, i64::from(whose == Whose::Others));
        set(LEFT, passed);
        let result = body();
        set(LEFT, -1);
        let refused = usize::try_from(self.0[REFUSED].load(Ordering::SeqCst)).unwrap();
        (result, refused.checked_sub(1).map(|at| CALLS[at].1))
    }
}

/// Runs `body` in a fork of this process, on its only thread, and supervises it. Returns false where the kernel lets nobody
/// supervise; fails when `body` does.
pub(crate) fn supervised(body: impl FnOnce(Refusals)) -> bool {
    let words = unsafely::shared_words();
    words[LEFT].store(-1, Ordering::SeqCst);
    let child = unsafely::fork_child(|| {
        let calls: Vec<i64> = CALLS.iter().map(|(number, ..)| *number).collect();
        let listener = Listener::install(&calls);
        words[LISTENER].store(listener.map_or(-1, i64::from), Ordering::SeqCst);
        if listener.is_some() {
            body(Refusals(words));
        }
    });
    let number = loop {
        match words[LISTENER].load(Ordering::SeqCst) {
            0 => std::thread::sleep(Duration::from_millis(1)),
            number => break number,
        }
    };
    if let Some(number) = i32::try_from(number).ok().filter(|number| *number > 0) {
        supervise(&Listener::of(child, number), child, words);
    }
    match unsafely::wait_for(child) {
        WaitStatus::Exited(_, 0) => number > 0,
        other => panic!("the supervised process ended by {other:?}"),
    }
}

/// Answers until the process has ended, and all that it has started.
fn supervise(listener: &Listener, child: Pid, words: Words) {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let has_ended = || {
        let status = nix::sys::wait::waitid(nix::sys::wait::Id::Pid(child), flags);
        status != Ok(WaitStatus::StillAlive)
    };
    let mut ended = None;
    loop {
        match listener.next(Duration::from_millis(50)) {
            Ok(Some(call)) => {
                let refused = refusal(words, child, call.thread, call.number);
                listener.answer(&call, refused);
            }
            Ok(None) => {
                if ended.is_none() && has_ended() {
                    ended = Some(Instant::now());
                }
                // What is left of it is counted by who runs this test; its calls have waited long enough.
                if ended.is_some_and(|ended| ended.elapsed() > Duration::from_secs(3)) {
                    return;
                }
            }
            // Nobody is left who could call.
            Err(()) => return,
        }
    }
}

/// What a call is to fail with, if it is the one that is to be refused.
fn refusal(words: Words, child: Pid, thread: u32, number: i64) -> Option<i32> {
    if words[LEFT].load(Ordering::SeqCst) < 0 {
        return None;
    }
    let is_own = Path::new(&format!("/proc/{child}/task/{thread}")).exists();
    if is_own == (words[OTHERS].load(Ordering::SeqCst) != 0) {
        return None;
    }
    if words[LEFT].fetch_sub(1, Ordering::SeqCst) != 0 {
        return None;
    }
    let at = CALLS.iter().position(|(call, ..)| *call == number)?;
    words[REFUSED].store(i64::try_from(at).unwrap() + 1, Ordering::SeqCst);
    Some(CALLS[at].2)
}
