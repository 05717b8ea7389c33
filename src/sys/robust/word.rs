//! A word that one thread holds at a time: taking it, waiting for it, giving it up.

use crate::deadline::Deadline;
use crate::sys::atomic::{AtomicU64, Ordering, fence};
use crate::sys::futex::{self, Watched};
use crate::sys::held::{HELD_MAX, Pending, Thread};
use crate::sys::limits;
use crate::sys::memory::{Mapping, Part};
use crate::sys::robust::state::{
    COUNT, DIED, ENTERING, ENTERING_HELD, HOLDER, KEEP, LOW, TO_ENTER, WAITED, counted, if_set,
};
use crate::sys::step::step;
use std::hint::spin_loop;
use std::io;
use std::marker::PhantomData;
use std::mem;

/// How often a word that is held is looked at before its holder's end is slept for: a holder is mostly done in less time
/// than a sleep takes.
const LOOKS: u32 = 100;

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
    owner_died: bool,
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

    /// Takes it if nobody holds it.
    ///
    /// # Panics
    ///
    /// As [`Word::acquire`].
    #[inline]
    pub(crate) fn try_acquire(self) -> Option<Held<'a>> {
        let thread = with_room(current());
        let _pending = thread.pend(self.node);
        step!("word::try::pending");
        loop {
            let seen = self.word.load(Ordering::Relaxed);
            if seen & HOLDER != 0 {
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
        let thread = with_room(current());
        let pending = thread.pend(self.node);
        step!("word::acquire::pending");
        let seen = self.word.load(Ordering::Relaxed);
        if seen & HOLDER == 0 {
            if let Some(held) = self.take(thread, seen) {
                drop(pending);
                return Some(held);
            }
        }
        self.acquire_slowly(thread, deadline)
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

    /// Gives it up, if this thread holds it, in place of a guard that was forgotten.
    pub(crate) fn release(self) {
        drop(self.assume_held());
    }

    /// As [`Word::release`] and [`Held::give_up_as_died`].
    pub(crate) fn release_as_died(self) {
        self.assume_held().give_up_as_died();
    }

    fn assume_held(self) -> Held<'a> {
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
        step!("word::take::taken");
        thread.link(self.node);
        step!("word::take::linked");
        Some(Held {
            word: self,
            owner_died: seen & DIED != 0,
            of_this_thread: PhantomData,
        })
    }

    #[cold]
    fn acquire_slowly(self, thread: Thread, deadline: Deadline) -> Option<Held<'a>> {
        let mut looks = if limits::processors() > 1 { LOOKS } else { 0 };
        loop {
            let seen = self.word.load(Ordering::Relaxed);
            if seen & HOLDER == 0 {
                if let Some(held) = self.take(thread, seen) {
                    // A monitor's holder looks at what is there after this. Pairs with the fence in `Monitor::announce`.
                    fence(Ordering::SeqCst);
                    return Some(held);
                }
            } else if looks > 0 && seen & WAITED == 0 {
                looks -= 1;
                spin_loop();
            } else if !self.sleep_while_held(seen, TO_ENTER, deadline) {
                return None;
            }
        }
    }

    /// Sleeps while that thread holds it, known to it. Returns false when the deadline has passed.
    pub(crate) fn sleep_while_held(self, seen: u64, class: u32, deadline: Deadline) -> bool {
        let mark = if class == TO_ENTER {
            WAITED | ENTERING_HELD
        } else {
            WAITED
        };
        let marked = counted(seen) | seen & LOW | mark;
        if seen & mark != mark && self.change(seen, marked).is_none() {
            return true;
        }
        let low = (marked & LOW) as u32;
        step!("word::sleep::marked");
        let is_in_time = futex::wait_as(self.word, low, class, deadline);
        step!("word::sleep::woken");
        is_in_time
    }

    /// Changes it from what was seen.
    #[inline]
    pub(crate) fn change(self, seen: u64, to: u64) -> Option<u64> {
        self.word
            .compare_exchange(seen, to, Ordering::AcqRel, Ordering::Relaxed)
            .ok()
            .map(|_| to)
    }

    /// Gives it up, in the state that `next` makes of the present one. Returns that state; `None` if this thread does not
    /// hold it any more, since another process has written there.
    #[inline]
    pub(crate) fn give_up(self, thread: Thread, next: impl Fn(u64) -> u64) -> Option<u64> {
        thread.unlink(self.node);
        step!("word::give::unlinked");
        let number = u64::from(thread.tid());
        let mut seen = self.word.load(Ordering::Relaxed);
        while seen & HOLDER == number {
            let freed = next(seen);
            // Release: the next holder sees what this one wrote. Pairs with the acquire in `take`.
            match self
                .word
                .compare_exchange_weak(seen, freed, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return Some(freed),
                Err(changed) => seen = changed,
            }
        }
        None
    }

    /// After it has become `told`: wakes one; if none sleeps, it is plainly free, unless it has changed.
    #[cold]
    pub(crate) fn tell_one(self, told: u64) {
        step!("word::tell::told");
        if futex::wake(self.word, 1) == 0 {
            step!("word::tell::nobody");
            self.change(told, told & COUNT);
        }
    }
}

impl Held<'_> {
    /// Whether the holder before this one died, or gave it up as broken, and nobody has taken it since.
    #[inline]
    pub(crate) fn owner_died(&self) -> bool {
        self.owner_died
    }

    /// Gives it up as a holder that dies does: the next one finds that its owner died.
    pub(crate) fn give_up_as_died(self) {
        let word = self.word;
        mem::forget(self);
        let thread = current();
        let _pending = thread.pend(word.node);
        let died = |seen| counted(seen) | seen & WAITED | DIED;
        if word
            .give_up(thread, died)
            .is_some_and(|now| now & WAITED != 0)
        {
            step!("word::broken::given");
            futex::wake(word.word, 1);
        }
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        let thread = current();
        let _pending = thread.pend(self.word.node);
        let freed = self.word.give_up(thread, |seen| {
            if seen & WAITED == 0 {
                seen & COUNT
            } else {
                seen & COUNT | KEEP | if_set(seen, ENTERING_HELD, ENTERING)
            }
        });
        step!("word::give::given");
        match freed {
            Some(told) if told & KEEP != 0 => self.word.tell_one(told),
            _ => {}
        }
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
fn with_room(thread: Thread) -> Thread {
    assert!(
        thread.has_room(),
        "a thread cannot hold more than {HELD_MAX} locks at a time"
    );
    thread
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
