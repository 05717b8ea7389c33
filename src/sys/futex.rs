//! Sleeping on a word of shared memory until somebody wakes the sleeper, and waking.
//!
//! The kernel looks at the word once more before it lets anybody sleep. So whoever changes the word first and wakes then
//! misses nobody: a sleeper is either woken, or finds that the word has changed.

use crate::deadline::Deadline;
use crate::sys::errno::check;
use nix::errno::Errno;
use std::sync::atomic::{AtomicU32, AtomicU64};

#[cfg(not(target_endian = "little"))]
compile_error!("the low half of a 64-bit word must be its first 32 bits");

/// Sleepers of every class.
const ANY: u32 = u32::MAX;

/// A word on which the kernel lets threads sleep: 32 bits, or the low half of 64.
pub(crate) trait Futex {
    /// Where its 32 bits are.
    fn address(&self) -> *mut u32;
}

impl Futex for AtomicU32 {
    fn address(&self) -> *mut u32 {
        self.as_ptr()
    }
}

impl Futex for AtomicU64 {
    fn address(&self) -> *mut u32 {
        self.as_ptr().cast()
    }
}

/// Sleeps as long as the word is `expected`, until woken. Returns false when the deadline has passed and nobody has woken
/// this thread; otherwise the word is to be looked at again: signals end a sleep as well.
pub(crate) fn wait(word: &impl Futex, expected: u32, deadline: Deadline) -> bool {
    wait_as(word, expected, ANY, deadline)
}

/// As [`wait`], as a sleeper of certain classes: it is woken by those who wake one of them.
pub(crate) fn wait_as(word: &impl Futex, expected: u32, classes: u32, deadline: Deadline) -> bool {
    let end = match end_of(deadline) {
        End::Passed => return false,
        End::Never => None,
        End::At(end) => Some(end),
    };
    let end: *const libc::timespec = end.as_ref().map_or(std::ptr::null(), |end| end);
    // SAFETY: the address is that of a live, aligned word; `end` is null or a valid instant; the fifth argument is not
    // used. Shared, not private: other processes wake.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.address(),
            libc::FUTEX_WAIT_BITSET,
            expected,
            end,
            std::ptr::null::<u32>(),
            classes,
        )
    };
    // What else there is (the word has changed, a signal has come) is a reason to look again.
    check(result) != Err(Errno::ETIMEDOUT)
}

/// Wakes up to `count` sleepers; returns how many.
pub(crate) fn wake(word: &impl Futex, count: i32) -> usize {
    wake_class(word, count, ANY)
}

/// As [`wake`], those who sleep as one of these classes.
pub(crate) fn wake_class(word: &impl Futex, count: i32, classes: u32) -> usize {
    // SAFETY: the address is that of a live, aligned word; waking reads no timeout and no second word.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.address(),
            libc::FUTEX_WAKE_BITSET,
            count,
            std::ptr::null::<libc::timespec>(),
            std::ptr::null::<u32>(),
            classes,
        )
    };
    usize::try_from(result).unwrap_or(0)
}

/// A word that a thread sleeps on with others, and what it must be.
pub(crate) struct Watched<'a> {
    pub(crate) word: &'a AtomicU64,
    pub(crate) low: u32,
}

/// How many words a thread can sleep on at once.
pub(crate) const WATCHED_MAX: usize = 128;

/// The kernel's `struct futex_waitv`.
#[repr(C)]
#[derive(Clone, Copy)]
struct WaitV {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

const FUTEX_32: u32 = 2;

/// Sleeps as long as the low half of each of these words is what it must be, until woken on any of them. The first
/// [`WATCHED_MAX`] count. Returns as [`wait`] does; `None` where the kernel is older than 5.16, which does not have this.
pub(crate) fn wait_for_any(words: &[Watched<'_>], deadline: Deadline) -> Option<bool> {
    let end = match end_of(deadline) {
        End::Passed => return Some(false),
        End::Never => None,
        End::At(end) => Some(end),
    };
    let end: *const libc::timespec = end.as_ref().map_or(std::ptr::null(), |end| end);
    let nothing = WaitV {
        value: 0,
        address: 0,
        flags: 0,
        reserved: 0,
    };
    let mut list = [nothing; WATCHED_MAX];
    let count = words.len().min(WATCHED_MAX);
    for (entry, watched) in list.iter_mut().zip(words) {
        *entry = WaitV {
            value: u64::from(watched.low),
            address: watched.word.address().expose_provenance() as u64,
            flags: FUTEX_32,
            reserved: 0,
        };
    }
    // SAFETY: the list has `count` entries, each of a live, aligned word; `end` is null or a valid instant of the clock
    // that is named.
    let result = unsafe {
        libc::syscall(
            libc::SYS_futex_waitv,
            list.as_ptr(),
            count,
            0,
            end,
            libc::CLOCK_MONOTONIC,
        )
    };
    match check(result) {
        // Refused by a filter of system calls, it is not there either.
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EINVAL) => None,
        Err(Errno::ETIMEDOUT) => Some(false),
        _ => Some(true),
    }
}

enum End {
    Passed,
    At(libc::timespec),
    Never,
}

/// The same instant as the kernel counts it, on the monotonic clock.
fn end_of(deadline: Deadline) -> End {
    let Some(left) = deadline.remaining() else {
        return End::Never;
    };
    if left.is_zero() {
        return End::Passed;
    }
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is valid for writing. The monotonic clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    let nanos = now.tv_nsec + libc::c_long::from(left.subsec_nanos() as i32);
    let end = i64::try_from(left.as_secs())
        .ok()
        .and_then(|seconds| now.tv_sec.checked_add(seconds))
        .and_then(|seconds| seconds.checked_add(nanos / 1_000_000_000));
    match end {
        Some(seconds) => End::At(libc::timespec {
            tv_sec: seconds,
            tv_nsec: nanos % 1_000_000_000,
        }),
        None => End::Never,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;
    use std::time::{Duration, Instant};

    #[test]
    fn a_sleep_ends_by_its_deadline_by_a_change_and_by_a_call() {
        let word = AtomicU32::new(7);
        let start = Instant::now();
        let deadline = Deadline::after(Duration::from_millis(20));
        assert!(!wait(&word, 7, deadline));
        assert!(start.elapsed() >= Duration::from_millis(20));
        assert!(!wait(&word, 7, deadline), "it has passed");
        assert!(wait(&word, 8, Deadline::NEVER), "the word is another");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while word.load(Ordering::Acquire) == 7 {
                    wait(&word, 7, Deadline::NEVER);
                }
            });
            word.store(9, Ordering::Release);
            wake(&word, 1);
        });
    }

    #[test]
    fn one_class_is_woken_and_the_other_sleeps_on() {
        let word = AtomicU64::new(1 << 40 | 3);
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| wait_as(&word, 3, 2, Deadline::NEVER));
            while wake_class(&word, 1, 1) == 0 && wake_class(&word, 1, 2) == 0 {
                std::thread::yield_now();
            }
            assert!(sleeper.join().unwrap());
        });
    }

    #[test]
    fn a_deadline_past_the_clocks_range_is_none() {
        let far = Deadline::after(Duration::from_secs(i64::MAX as u64));
        assert!(!matches!(end_of(far), End::Passed));
    }
}
