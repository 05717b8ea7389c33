//! A word that one thread holds at a time: taking it, waiting for it, giving it up.

use crate::deadline::Deadline;
use crate::sys::atomic::{AtomicU64, Ordering};
use crate::sys::futex::Watched;
use crate::sys::held::{HELD_MAX, Pending, Thread};
use crate::sys::memory::Mapping;
use crate::sys::part::Part;
use crate::sys::robust::state::{
    COUNT, DIED, ENTERING, ENTERING_HELD, HOLDER, KEEP, LOW, WAITED, counted, if_set,
};
use crate::sys::step::step;
use std::io;
use std::marker::PhantomData;

/// A word in shared memory that can be held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Word<'a> {
    pub(crate) word: &'a AtomicU64,
    pub(crate) node: &'a AtomicU64,
}

/// A word that this thread holds; it is given up when dropped.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    pub(crate) word: Word<'a>,
    pub(crate) owner_died: bool,
    of_this_thread: PhantomData<*const ()>,
}

/// Has the kernel know of this thread, so that taking a word cannot be refused any more.
///
/// # Errors
///
/// Where the kernel refuses 20 KiB, or the list.
pub(crate) fn prepare() -> io::Result<()> {
    Thread::current().map(drop)
}

/// Until the result is dropped: if this thread dies, the kernel wakes one who sleeps on the 32 bits at `offset`, unless these
/// have any of their lower 30 bits set.
///
/// # Panics
///
/// As [`Word::at`].
#[inline]
pub(crate) fn pending_on(mapping: &Mapping, offset: usize) -> Pending<'_> {
    current().pend(Word::at(mapping, offset).node)
}

/// The number of the thread that calls, as a word that it holds has it.
#[inline]
pub(crate) fn this_thread() -> u32 {
    current().tid()
}

impl<'a> Word<'a> {
    /// How many bytes it takes. Zeros are a word that nobody holds.
    pub(crate) const LEN: usize = 16;

    /// The word at `offset`.
    ///
    /// # Panics
    ///
    /// Where `offset` is out of range or not a multiple of 8.
    #[inline]
    pub(crate) fn at(mapping: &'a Mapping, offset: usize) -> Word<'a> {
        Word {
            word: mapping.word(offset),
            node: mapping.word(offset + 8),
        }
    }

    /// The word at `offset` of a part.
    ///
    /// # Panics
    ///
    /// As [`Word::at`].
    #[inline]
    pub(crate) fn of(part: Part<'a>, offset: usize) -> Word<'a> {
        Word {
            word: part.word(offset),
            node: part.word(offset + 8),
        }
    }

    /// Takes it, if it is plainly free: the short way, to be tried before the others. What is taken so is given up by
    /// [`Word::release_last`], [`Word::release`] or [`Word::release_as_died`].
    #[inline]
    pub(crate) fn take_plainly(self) -> bool {
        let Some(thread) = Thread::known() else {
            return false;
        };
        let seen = self.word.load(Ordering::Relaxed);
        if seen & (LOW | KEEP) != 0 || !thread.has_room() {
            return false;
        }
        let _pending = thread.pend(self.node);
        step!("word::try::pending");
        let taken = seen & COUNT | u64::from(thread.tid());
        // Acquire: as in `take`.
        let is_taken = self
            .word
            .compare_exchange(seen, taken, Ordering::Acquire, Ordering::Relaxed)
            .is_ok();
        if is_taken {
            self.link(thread);
        }
        is_taken
    }

    /// Takes it if nobody holds it.
    ///
    /// # Panics
    ///
    /// As [`Word::acquire`].
    #[inline]
    pub(crate) fn try_acquire(self) -> Option<Held<'a>> {
        self.try_acquire_unless(|| false)
    }

    /// The same; but where its last holder died, it is taken only if `is_kept` says no. Nobody has taken it in between: what it found
    /// is what that holder left.
    ///
    /// # Panics
    ///
    /// As [`Word::acquire`].
    #[inline]
    pub(crate) fn try_acquire_unless(self, is_kept: impl Fn() -> bool) -> Option<Held<'a>> {
        if self.take_plainly() {
            return Some(self.assume_held());
        }
        self.try_acquire_slowly(is_kept)
    }

    #[cold]
    fn try_acquire_slowly(self, is_kept: impl Fn() -> bool) -> Option<Held<'a>> {
        let thread = with_room(current());
        let _pending = thread.pend(self.node);
        loop {
            // Acquire: before what a dead holder left is looked at. Each take of such a word counts, so that `take` fails if there
            // was another one.
            let seen = self.word.load(Ordering::Acquire);
            if seen & HOLDER != 0 || (seen & DIED != 0 && is_kept()) {
                return None;
            }
            if let Some(held) = self.take(thread, seen) {
                return Some(held);
            }
        }
    }

    /// Takes it; `None` when the deadline has passed before. A thread that holds it already waits as others do.
    ///
    /// # Panics
    ///
    /// Where the thread holds as many words as it can, or has never held one and the kernel refuses the memory for it.
    #[inline]
    pub(crate) fn acquire(self, deadline: Deadline) -> Option<Held<'a>> {
        if self.take_plainly() {
            return Some(self.assume_held());
        }
        self.acquire_slowly(deadline)
    }

    /// Whether this thread holds it, as far as this thread knows.
    pub(crate) fn is_held_by_this_thread(self) -> bool {
        current().holds(self.node)
    }

    /// The number of the thread that holds it; any number, if another process wants that.
    pub(crate) fn holder(self) -> Option<u32> {
        let low = (self.word.load(Ordering::Relaxed) & HOLDER) as u32;
        (low != 0).then_some(low)
    }

    /// Whether its last holder died and nobody has taken it since.
    pub(crate) fn is_died(self) -> bool {
        self.word.load(Ordering::Relaxed) & (DIED | HOLDER) == DIED
    }

    /// The word, and what its low half is as long as the same thread holds it and lives, for one who wants to sleep that
    /// long; `None` if nobody holds it.
    pub(crate) fn watch(self) -> Option<Watched<'a>> {
        loop {
            let seen = self.word.load(Ordering::Relaxed);
            if seen & HOLDER == 0 {
                return None;
            }
            let marked = counted(seen) | seen & LOW | WAITED;
            if seen & WAITED != 0 || self.change(seen, marked).is_some() {
                step!("word::watch::marked");
                return Some(Watched {
                    word: self.word,
                    low: (marked & LOW) as u32,
                });
            }
        }
    }

    #[inline]
    pub(crate) fn assume_held(self) -> Held<'a> {
        Held {
            word: self,
            owner_died: false,
            of_this_thread: PhantomData,
        }
    }

    /// Takes it, if it is still as it was seen, which is free in some way.
    #[inline]
    pub(crate) fn take(self, thread: Thread, seen: u64) -> Option<Held<'a>> {
        let number = u64::from(thread.tid());
        let taken = if seen & (LOW | KEEP) == 0 {
            seen & COUNT | number
        } else {
            counted(seen) | WAITED | number | if_set(seen, ENTERING | DIED, ENTERING_HELD)
        };
        // Acquire: what the last holder wrote is seen. Pairs with the release in `give_up`.
        self.word
            .compare_exchange(seen, taken, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        self.link(thread);
        Some(Held {
            word: self,
            owner_died: seen & DIED != 0,
            of_this_thread: PhantomData,
        })
    }

    /// Puts it, which was just taken, into the list of what this thread holds.
    #[inline]
    fn link(self, thread: Thread) {
        step!("word::take::taken");
        thread.link(self.node);
        step!("word::take::linked");
    }

    /// Changes it from what was seen.
    #[inline]
    pub(crate) fn change(self, seen: u64, to: u64) -> Option<u64> {
        self.word
            .compare_exchange(seen, to, Ordering::AcqRel, Ordering::Relaxed)
            .ok()
            .map(|_| to)
    }
}

/// The running thread.
///
/// # Panics
///
/// Where it has never held a word and the kernel refuses the memory for it.
#[inline]
pub(crate) fn current() -> Thread {
    match Thread::current() {
        Ok(thread) => thread,
        Err(error) => refuse(&error),
    }
}

#[cold]
fn refuse(error: &io::Error) -> ! {
    panic!("the kernel refuses what a thread needs to hold locks: {error}")
}

#[inline]
pub(crate) fn with_room(thread: Thread) -> Thread {
    assert!(
        thread.has_room(),
        "a thread cannot hold more than {HELD_MAX} locks at a time"
    );
    thread
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
