//! Waiting for a word that another thread holds: first awake, then asleep.

use crate::deadline::Deadline;
use crate::sys::atomic::{Ordering, fence};
use crate::sys::futex;
use crate::sys::limits;
use crate::sys::robust::state::{ENTERING_HELD, HOLDER, LOW, TO_ENTER, WAITED, counted};
use crate::sys::robust::word::{Held, Word, current, with_room};
use crate::sys::step::step;
use std::hint::spin_loop;

/// How many pauses a waiter makes between its looks, all together, before it sleeps: some ten microseconds, in which most
/// holders are done, and which is less than a sleep and its end take.
const LOOKS: u32 = 1000;
/// The same for one that was woken and finds that another one was faster.
const LOOKS_WHEN_WOKEN: u32 = 256;
/// How many pauses there are between two looks at most.
const PAUSES_MAX: u32 = 256;

/// How a waiter looks, before it sleeps: more and more seldom. Each look takes the word's cache line from the holder, who is to
/// get on. A waiter is late by no more than it has waited.
struct Looks {
    left: u32,
    pauses: u32,
}

impl Looks {
    fn new(pauses: u32) -> Looks {
        // With one processor, the holder cannot get on while this one looks.
        let left = if limits::processors() > 1 { pauses } else { 0 };
        Looks { left, pauses: 1 }
    }

    /// Lets some time pass, if there is some left; then it is to be looked again.
    fn pause(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        let pauses = self.pauses.min(self.left);
        (0..pauses).for_each(|_| spin_loop());
        self.left -= pauses;
        self.pauses = (2 * pauses).min(PAUSES_MAX);
        true
    }
}

impl<'a> Word<'a> {
    #[cold]
    pub(crate) fn acquire_slowly(self, deadline: Deadline) -> Option<Held<'a>> {
        let thread = with_room(current());
        let _pending = thread.pend(self.node);
        step!("word::acquire::pending");
        let mut looks = Looks::new(LOOKS);
        let mut was_woken = false;
        loop {
            let seen = self.word.load(Ordering::Relaxed);
            if seen & HOLDER == 0 {
                if let Some(held) = self.take(thread, seen) {
                    // A monitor's holder looks at what is there after this. Pairs with the fence in `Monitor::announce`.
                    fence(Ordering::SeqCst);
                    return Some(held);
                }
                continue;
            }
            // Where others sleep, the word will be busy for longer. Who was just woken cannot tell by that: it slept itself.
            let is_worth_it = seen & WAITED == 0 || was_woken;
            if is_worth_it && looks.pause() {
                continue;
            }
            if !self.sleep_while_held(seen, TO_ENTER, deadline) {
                return None;
            }
            was_woken = true;
            looks = Looks::new(LOOKS_WHEN_WOKEN);
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
}
