//! A word on which threads also sleep until something is there.

use crate::deadline::Deadline;
use crate::sys::atomic::{Ordering, fence};
use crate::sys::futex;
use crate::sys::held::Thread;
use crate::sys::memory::Mapping;
use crate::sys::robust::state::{
    COUNT, DIED, ENTERING, FOR_MORE, HOLDER, KEEP, LOW, TO_ENTER, WAITED, idle,
};
use crate::sys::robust::word::{Held, Word, current};
use crate::sys::step::step;
use std::mem;

/// A word on which threads also sleep until something is there: see `mod.rs`. Whether something is there is
/// told by a function that looks at shared atomics, with at least acquire ordering.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Monitor<'a> {
    word: Word<'a>,
}

/// A monitor that this thread has entered. Dropped, it is left as if something were there.
#[derive(Debug)]
pub(crate) struct Inside<'a> {
    held: Held<'a>,
}

impl<'a> Monitor<'a> {
    /// The monitor at `offset`, of [`Word::LEN`] bytes.
    ///
    /// # Panics
    ///
    /// As [`Word::at`].
    #[inline]
    pub(crate) fn at(mapping: &'a Mapping, offset: usize) -> Monitor<'a> {
        Monitor {
            word: Word::at(mapping, offset),
        }
    }

    /// Comes in when nobody is inside; `None` when the deadline has passed before.
    ///
    /// # Panics
    ///
    /// As [`Word::acquire`].
    #[inline]
    pub(crate) fn enter(self, deadline: Deadline) -> Option<Inside<'a>> {
        self.word.acquire(deadline).map(|held| Inside { held })
    }

    /// As [`Monitor::enter`], at once or not at all.
    ///
    /// # Panics
    ///
    /// As [`Word::acquire`].
    #[inline]
    pub(crate) fn try_enter(self) -> Option<Inside<'a>> {
        self.word.try_acquire().map(|held| Inside { held })
    }

    /// Runs `bring`, which makes something be there, from outside; then wakes one who waits for it. If this thread is killed
    /// in between, the kernel wakes one.
    ///
    /// # Panics
    ///
    /// As [`Word::acquire`].
    #[inline]
    pub(crate) fn announce<R>(self, bring: impl FnOnce() -> R) -> R {
        let _pending = current().pend(self.word.node);
        step!("monitor::announce::pending");
        let result = bring();
        step!("monitor::announce::brought");
        self.tell();
        result
    }

    /// Wakes one who waits, if nobody is inside who would look.
    #[inline]
    fn tell(self) {
        // What is there now is seen by whoever gets the word after this load of it, or sleeps on it. Pairs with the
        // fences after a word was taken slowly or has become idle.
        fence(Ordering::SeqCst);
        loop {
            let seen = self.word.word.load(Ordering::Relaxed);
            let is_idle = seen & LOW == WAITED;
            // Told: the one who was woken may be slow, and there is more now. When nobody sleeps it becomes free, so
            // that this is no system call for each thing that is brought.
            let is_told = seen & LOW == 0 && seen & KEEP != 0;
            if !is_idle && !is_told {
                return;
            }
            let told = seen & (COUNT | ENTERING) | KEEP;
            if is_told || self.word.change(seen, told).is_some() {
                return self.word.tell_one(told);
            }
        }
    }

    /// After it has become idle: those who only want to come in are woken, one after the other, as each leaves.
    fn let_in_one(self) {
        loop {
            let seen = self.word.word.load(Ordering::Relaxed);
            if seen & LOW != WAITED || seen & ENTERING == 0 {
                return;
            }
            step!("monitor::let_in::asked");
            if futex::wake_class(self.word.word, 1, TO_ENTER) > 0
                || self.word.change(seen, seen & !ENTERING).is_some()
            {
                return;
            }
        }
    }

    /// Makes it idle, if it still is as it was seen, which is free or told: who sleeps from now on, or still does, is woken
    /// when something is there.
    fn make_idle(self, seen: u64) -> bool {
        let is_made = self.word.change(seen, idle(seen)).is_some();
        fence(Ordering::SeqCst);
        is_made
    }

    /// Before a sleeper goes away, its deadline passed: it may have been woken for something that it will not take.
    fn pass_on(self, is_there: impl Fn() -> bool) {
        loop {
            let seen = self.word.word.load(Ordering::Relaxed);
            if seen & LOW != 0 || seen & KEEP == 0 {
                return;
            }
            if self.make_idle(seen) {
                step!("monitor::pass_on::idle");
                self.let_in_one();
                if is_there() {
                    self.tell();
                }
                return;
            }
        }
    }

    /// Leaves with nothing there: some may sleep.
    fn leave_idle(self, thread: Thread) {
        if self.word.give_up(thread, idle).is_some() {
            step!("monitor::leave::idle");
            fence(Ordering::SeqCst);
            self.let_in_one();
        }
    }
}

impl<'a> Inside<'a> {
    /// Leaves, and has one come in who waits for something, if `is_there` says so.
    #[inline]
    pub(crate) fn leave(self, is_there: impl Fn() -> bool) {
        let Inside { held } = self;
        let word = held.word;
        if word.word.load(Ordering::Relaxed) & WAITED == 0 {
            // Who begins to sleep now makes it contended, so that dropping wakes; that one will look by itself.
            return drop(held);
        }
        if is_there() {
            return drop(held);
        }
        mem::forget(held);
        let monitor = Monitor { word };
        let thread = current();
        let _pending = thread.pend(word.node);
        monitor.leave_idle(thread);
        step!("monitor::leave::left");
        if is_there() {
            monitor.tell();
        }
    }

    /// Leaves, and sleeps until something is there and it is inside again; `None`, outside, when the deadline has passed
    /// before. It may come in with nothing there: look again. `is_there` is asked outside as well.
    pub(crate) fn wait(
        self,
        is_there: impl Fn() -> bool,
        deadline: Deadline,
    ) -> Option<Inside<'a>> {
        let Inside { held } = self;
        let word = held.word;
        mem::forget(held);
        let monitor = Monitor { word };
        let thread = current();
        let _pending = thread.pend(word.node);
        monitor.leave_idle(thread);
        step!("monitor::wait::left");
        let mut is_late = false;
        loop {
            let seen = word.word.load(Ordering::Relaxed);
            let is_free = seen & HOLDER == 0;
            let is_there_now = is_there();
            if is_free && (is_there_now || seen & DIED != 0) {
                if let Some(held) = word.take(thread, seen) {
                    fence(Ordering::SeqCst);
                    step!("monitor::wait::taken");
                    return Some(Inside { held });
                }
                continue;
            }
            if is_late {
                monitor.pass_on(is_there);
                return None;
            }
            let is_in_time = if !is_free {
                word.sleep_while_held(seen, FOR_MORE, deadline)
            } else if seen & LOW == WAITED {
                monitor.let_in_one();
                let is_in_time = futex::wait_as(word.word, WAITED as u32, FOR_MORE, deadline);
                step!("monitor::wait::woken");
                is_in_time
            } else {
                monitor.make_idle(seen);
                true
            };
            // Then it looks once more: whoever was woken for what is there may be slow, or stopped, and has no more right to it
            // than any that comes by. What that one finds is what it would find if it had lost a race.
            is_late = !is_in_time;
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
