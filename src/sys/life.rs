//! Which process this is, of all that come from one another by forks: asked for without a system call.
//!
//! Each process has a number, in a page that the kernel fills with zeros in the child of any fork, also of one that goes past
//! the C library. So who finds 0 is in a new process, and takes the next number:
//!
//! | the word is | in | next |
//! |---|---|---|
//! | 0 | a process that has not asked yet, forked or not | its number, by any of its threads |
//! | a number | a process that has asked | for good |
//!
//! A number is the pid and, above it, a count that grows from parent to child. Of a parent that lives and its child the pids
//! differ; of one that is gone the child has taken over the count, and counts on. Nothing here waits, since what a fork
//! finds locked stays so.

use crate::sys::held::map_wiped_on_fork;
use crate::sys::identity;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// One process, as it is told apart from those that it was forked from and those that are forked from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life(u64);

/// Where this process's number is: in the page, or [`NO_PAGE`] where there could be none; null until it is asked for.
static WORD: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
/// Stands for a page that cannot be had. What is there is never anybody's number: who finds it asks for its pid.
static NO_PAGE: AtomicU64 = AtomicU64::new(UNKNOWN);
const UNKNOWN: u64 = u64::MAX;

/// The count in the latest number that this process, or one that it comes from, has taken.
static COUNT: AtomicU64 = AtomicU64::new(0);

impl Life {
    /// That of this process.
    #[inline]
    pub(crate) fn now() -> Life {
        let word = WORD.load(Ordering::Acquire);
        if !word.is_null() {
            // SAFETY: what is not null is valid for good: the page is never unmapped, and the other is a static. Both hold
            // an atomic from the beginning.
            let number = unsafe { &*word }.load(Ordering::Relaxed);
            if number != 0 && number != UNKNOWN {
                return Life(number);
            }
        }
        Life::begin()
    }

    /// Its pid.
    pub(crate) fn pid(self) -> u32 {
        self.0 as u32
    }

    /// Gives this process its number, unless another thread has done so meanwhile.
    #[cold]
    fn begin() -> Life {
        let word = word();
        if ptr::eq(word, &raw const NO_PAGE) {
            return Life(u64::from(identity::pid()));
        }
        // Counted before the number is to be seen: whatever of this process is of that number, a child counts on from there.
        let count = COUNT.fetch_add(1, Ordering::SeqCst).wrapping_add(1);
        let number = (count & 0x7fff_ffff) << 32 | u64::from(identity::pid());
        // SAFETY: as in `now`.
        let word = unsafe { &*word };
        match word.compare_exchange(0, number, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => Life(number),
            Err(others) => Life(others),
        }
    }
}

/// The place of the number, made if nobody has made it yet.
fn word() -> *mut AtomicU64 {
    let known = WORD.load(Ordering::Acquire);
    if !known.is_null() {
        return known;
    }
    let made = match map_wiped_on_fork(size_of::<AtomicU64>()) {
        Ok(page) => page.cast::<AtomicU64>(),
        Err(_) => (&raw const NO_PAGE).cast_mut(),
    };
    // One that came too late is not unmapped: this happens once, if at all, and costs a page.
    let place = WORD.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire);
    place.map_or_else(|theirs| theirs, |_| made)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::sys::forks::apart;
    use std::collections::BTreeSet;
    use std::sync::mpsc;
    use std::thread;

    /// Forks, and returns whether `is_true` held in the child. The other threads of the test program are not there in it: it
    /// does nothing but read, compute and end.
    fn holds_in_fork(fork: fn() -> libc::c_long, is_true: impl FnOnce() -> bool) -> bool {
        match fork() {
            0 => {
                let code = if is_true() { 0 } else { 1 };
                // SAFETY: it ends this process, and nothing else.
                unsafe { libc::_exit(code) }
            }
            child => {
                let (child, mut status) = (libc::pid_t::try_from(child).unwrap(), -1);
                // SAFETY: the place for the status is valid for writing.
                let collected = unsafe { libc::waitpid(child, &raw mut status, 0) };
                assert_eq!(collected, child);
                status == 0
            }
        }
    }

    fn by_the_library() -> libc::c_long {
        // SAFETY: the child does what `holds_in_fork` says.
        libc::c_long::from(unsafe { libc::fork() })
    }

    fn past_the_library() -> libc::c_long {
        let none = ptr::null_mut::<libc::c_void>();
        let flags = libc::SIGCHLD as libc::c_ulong;
        // SAFETY: without `CLONE_VM` this copies the process, as `fork` does; the child does what `holds_in_fork` says.
        unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) }
    }

    #[test]
    fn a_process_has_one_life_whichever_thread_asks() {
        let (tell, told) = mpsc::channel();
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let tell = tell.clone();
                thread::spawn(move || tell.send(Life::now().0).unwrap())
            })
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        drop(tell);
        let lives: BTreeSet<u64> = told.iter().collect();
        assert_eq!(lives, BTreeSet::from([Life::now().0]));
        assert_eq!(Life::now().pid(), identity::pid());
    }

    #[test]
    fn each_fork_begins_another_life_however_it_is_made() {
        let _apart = apart::forks();
        let ours = Life::now();
        for fork in [by_the_library, past_the_library] {
            assert!(holds_in_fork(fork, || {
                let theirs = Life::now();
                let is_another = theirs != ours && theirs == Life::now();
                is_another
                    && theirs.pid() == identity::pid()
                    && holds_in_fork(past_the_library, || {
                        Life::now() != ours && Life::now() != theirs
                    })
            }));
            assert_eq!(Life::now(), ours);
        }
    }

    #[test]
    fn a_child_that_has_its_forebears_pid_again_is_another_one() {
        let _apart = apart::forks();
        let ours = Life::now();
        // As if this process were gone, and its pid given to a child of its child.
        assert!(holds_in_fork(by_the_library, || {
            let count = Life::now().0 >> 32;
            count > ours.0 >> 32
        }));
    }
}
