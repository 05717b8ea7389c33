//! Sleeping and waking on a word between processes, and spinning on it.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU32, Ordering};

/// Sleeps until `word` is no longer `value`.
pub(crate) fn wait_while(word: &AtomicU32, value: u32) {
    // Acquire: what was written before the store that ends the wait is visible after it.
    while word.load(Ordering::Acquire) == value {
        // SAFETY: `word` is a live aligned futex word; no time-out is given, and the kernel reads
        // no further argument. That it returns early (a signal, a changed word) is seen by the
        // loop.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                word.as_ptr(),
                libc::FUTEX_WAIT,
                value,
                std::ptr::null::<libc::timespec>(),
            )
        };
    }
}

/// Stores `value` and wakes who sleeps on `word`.
pub(crate) fn set_and_wake(word: &AtomicU32, value: u32) {
    // Release: pairs with the acquire in `wait_while`.
    word.store(value, Ordering::Release);
    // SAFETY: `word` is a live aligned futex word; waking reads no further argument.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAKE,
            libc::c_int::MAX,
        )
    };
}

/// Spins until `is_done`. Gives the processor up now and then, as whom it waits for may need the
/// same one.
pub(crate) fn spin_until(is_done: impl Fn() -> bool) {
    let mut turns = 0_u32;
    while !is_done() {
        turns = turns.wrapping_add(1);
        if turns % 16_384 == 0 {
            // Allocates nothing and locks nothing: it is the system call.
            std::thread::yield_now();
        } else {
            spin_loop();
        }
    }
}
