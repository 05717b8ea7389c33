//! How much of its stack a thread has left.

use std::cell::Cell;
use std::ops::Range;

thread_local! {
    /// Where the reserve of this thread begins and ends, once that has been asked for.
    static RESERVE: Cell<Option<(usize, usize)>> = const { Cell::new(None) };
}

/// The most of a stack that is kept for others.
const RESERVE_MAX: usize = 256 << 10;

/// The last part of the stack of this thread, which is kept for what cannot be foreseen: a quarter, or as much as is ever
/// needed. Empty where nothing is known of the stack. Who runs on another one, as coroutines do, is never in it.
pub(crate) fn reserve() -> Range<usize> {
    let (start, end) = RESERVE.with(|reserve| {
        let known = reserve
            .get()
            .unwrap_or_else(|| find_reserve().unwrap_or((0, 0)));
        reserve.set(Some(known));
        known
    });
    start..end
}

/// An address on the stack of this thread, as deep as it is now.
#[inline]
pub(crate) fn here() -> usize {
    let here = 0_u8;
    std::hint::black_box(&raw const here) as usize
}

fn find_reserve() -> Option<(usize, usize)> {
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: it takes nothing, and names this thread.
    let this = unsafe { libc::pthread_self() };
    // SAFETY: the thread runs, and the attributes are valid for writing.
    if unsafe { libc::pthread_getattr_np(this, attributes.as_mut_ptr()) } != 0 {
        return None;
    }
    let (mut start, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: the attributes were filled above, and both results are valid for writing.
    let found = unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &mut start, &mut size) };
    // SAFETY: they were filled above, and are not used after this.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    (found == 0).then(|| (start as usize, start as usize + (size / 4).min(RESERVE_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_above_its_reserve_until_its_stack_is_nearly_used_up() {
        fn descend(levels: usize) -> Option<usize> {
            let frame = std::hint::black_box([levels; 512]);
            if reserve().contains(&here()) {
                return Some(levels);
            }
            // More levels than any of these stacks has room for.
            let found = if levels < 1 << 20 {
                descend(levels + 1)
            } else {
                None
            };
            std::hint::black_box(frame[7]);
            found
        }
        for size in [256 << 10, 1 << 20, 8 << 20] {
            let thread = std::thread::Builder::new().stack_size(size);
            let levels = thread
                .spawn(|| descend(0))
                .unwrap()
                .join()
                .unwrap()
                .unwrap();
            assert!(
                levels * 4096 > size / 4 && levels * 4096 < size,
                "{levels} of {size}"
            );
        }
    }
}
