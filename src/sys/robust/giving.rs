//! Giving a word up, and waking who waits for it.

use crate::sys::atomic::Ordering;
use crate::sys::futex;
use crate::sys::held::Thread;
use crate::sys::robust::state::{
    COUNT, DIED, ENTERING, ENTERING_HELD, HOLDER, KEEP, LOW, WAITED, counted, if_set,
};
use crate::sys::robust::word::{Held, Word, current};
use crate::sys::step::step;
use std::mem;

impl Word<'_> {
    /// Gives it up, if it is what this thread took last, after it has run `finish`. Returns false, with nothing done, if it
    /// is not.
    #[inline]
    pub(crate) fn release_last(self, finish: impl FnOnce()) -> bool {
        let Some(thread) = Thread::known() else {
            return false;
        };
        if !thread.holds_as_last(self.node) {
            return false;
        }
        finish();
        let _pending = thread.pend(self.node);
        thread.unlink_last(self.node);
        step!("word::give::unlinked");
        let seen = self.word.load(Ordering::Relaxed);
        let is_plainly_held = seen & LOW == u64::from(thread.tid());
        // Release: as in `give_up`.
        let is_free = is_plainly_held
            && self
                .word
                .compare_exchange(seen, seen & COUNT, Ordering::Release, Ordering::Relaxed)
                .is_ok();
        if is_free {
            step!("word::give::given");
        } else {
            self.leave_and_tell(thread);
        }
        true
    }

    /// Gives it up, if this thread holds it, in place of a guard that was forgotten.
    #[inline]
    pub(crate) fn release(self) {
        if !self.release_last(|| ()) {
            self.release_slowly();
        }
    }

    #[cold]
    fn release_slowly(self) {
        let thread = current();
        let _pending = thread.pend(self.node);
        thread.unlink(self.node);
        step!("word::give::unlinked");
        self.leave_and_tell(thread);
    }

    /// As [`Word::release`] and [`Held::give_up_as_died`].
    pub(crate) fn release_as_died(self) {
        self.assume_held().give_up_as_died();
    }

    /// Gives it up, in the state that `next` makes of the present one. Returns that state; `None` if this thread does not
    /// hold it any more, since another process has written there.
    pub(crate) fn give_up(self, thread: Thread, next: impl Fn(u64) -> u64) -> Option<u64> {
        thread.unlink(self.node);
        step!("word::give::unlinked");
        self.leave(thread, next)
    }

    /// As [`Word::give_up`], when it is not in the thread's list any more.
    fn leave(self, thread: Thread, next: impl Fn(u64) -> u64) -> Option<u64> {
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

    /// As [`Word::leave`], and wakes one if some may sleep. The word is pending.
    #[cold]
    fn leave_and_tell(self, thread: Thread) {
        let freed = self.leave(thread, |seen| {
            if seen & WAITED == 0 {
                seen & COUNT
            } else {
                seen & COUNT | KEEP | if_set(seen, ENTERING_HELD, ENTERING)
            }
        });
        step!("word::give::given");
        match freed {
            Some(told) if told & KEEP != 0 => self.tell_one(told),
            _ => {}
        }
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

    /// Keeps it, to be given up by [`Word::release`] or the like. Returns whether its last holder died.
    #[inline]
    pub(crate) fn keep(self) -> bool {
        let owner_died = self.owner_died;
        mem::forget(self);
        owner_died
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
        self.word.release();
    }
}
