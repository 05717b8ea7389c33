//! The seats of those who wait.

use crate::deadline::Deadline;
use crate::error::Result;
use crate::shm::Slot;
use crate::sync::object;
use crate::sys::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sys::futex;
use crate::sys::limits;
use crate::sys::robust::{Held, Word, pending_on};
use crate::sys::step::step;
use std::hint::spin_loop;

/// How many can wait at a time and be told apart.
const SEATS: usize = if cfg!(all(test, loom)) { 3 } else { 340 };

// Words of the whole.
const NEXT_NUMBER: usize = 0;
/// Seats from this one on have never been taken.
const FRESH: usize = 8;
const FIRST: usize = 16;

// Words of a seat.
const NUMBER: usize = Word::LEN;
/// A futex, and room for a node, which the kernel's account of it asks for.
const STATE: usize = NUMBER + 8;
const SEAT: usize = STATE + Word::LEN + 8;

pub(crate) const LEN: usize = FIRST + SEATS * SEAT;

// No state has a bit that the kernel takes for part of a thread's number.
const EMPTY: u32 = 0;
const WAITING: u32 = 1 << 31;
const NOTIFIED: u32 = 1 << 30;
const PASSING: u32 = 3 << 30;

/// How often a waiter looks before it sleeps.
const LOOKS: u32 = 200;

/// A condition's place in shared memory.
#[derive(Clone)]
pub(crate) struct Seats {
    pub(crate) slot: Slot,
}

/// A seat that this thread has taken.
pub(crate) struct Seat<'a> {
    held: Option<Held<'a>>,
    state: &'a AtomicU32,
}

impl Seats {
    pub(crate) fn allocate() -> Result<Seats> {
        let slot = object::allocate("condition", LEN)?;
        Ok(Seats { slot })
    }

    /// Wakes the one that has waited longest, if anybody waits.
    pub(crate) fn notify_one(&self) {
        // Each turn ends a wait; more turns than seats are needed only where another process writes nonsense.
        for _ in 0..2 * SEATS {
            let waiting = self.taken().filter(|&seat| self.waits(seat));
            let Some(first) = waiting.min_by_key(|&seat| self.number(seat).load(Ordering::Relaxed))
            else {
                return;
            };
            if self.notify(first) {
                return;
            }
        }
    }

    /// Wakes all that wait.
    pub(crate) fn notify_all(&self) {
        for seat in self.taken() {
            if self.waits(seat) {
                self.notify(seat);
            }
        }
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.taken().filter(|&seat| self.waits(seat)).count()
    }

    /// Takes a seat, if there is one: the first that is free, so that few have to be looked at.
    pub(crate) fn sit_down(&self) -> Option<Seat<'_>> {
        let (seat, held) = (0..SEATS).find_map(|seat| {
            let held = self.word(seat).try_acquire()?;
            Some((seat, held))
        })?;
        step!("condition::sit::taken");
        let state = self.state(seat);
        self.clear(seat);
        let number = self.at(NEXT_NUMBER).fetch_add(1, Ordering::Relaxed);
        self.number(seat).store(number, Ordering::Relaxed);
        step!("condition::sit::numbered");
        // Release: with the number. Pairs with the acquire in `waits`.
        state.store(WAITING, Ordering::Release);
        step!("condition::sit::waiting");
        self.at(FRESH).fetch_max(seat as u64 + 1, Ordering::Release);
        Some(Seat {
            held: Some(held),
            state,
        })
    }

    /// Makes a seat `EMPTY` that this thread has just taken. If the one before died here with a notification, that is
    /// another's: it is passed on first and cleared after that. Who dies in between leaves it to the next one.
    fn clear(&self, seat: usize) {
        let state = self.state(seat);
        let change =
            |from, to| state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        // Of who notifies and this one, each leaves a state once. More turns are needed only where another process writes
        // nonsense.
        for _ in 0..4 {
            let seen = state.load(Ordering::Acquire);
            match seen {
                EMPTY => return,
                PASSING => {
                    self.notify_one();
                    break;
                }
                // From now on, who has notified the dead one does not take that back as well.
                NOTIFIED => drop(change(NOTIFIED, PASSING)),
                _ => drop(change(seen, EMPTY)),
            }
        }
        state.store(EMPTY, Ordering::Release);
    }

    /// Whether somebody waits there who is alive.
    fn waits(&self, seat: usize) -> bool {
        self.state(seat).load(Ordering::Acquire) == WAITING && self.word(seat).holder().is_some()
    }

    /// Ends the wait there; false if it has ended by itself, or its waiter is dead.
    fn notify(&self, seat: usize) -> bool {
        let state = self.state(seat);
        let _pending = pending_on(self.slot.mapping(), self.offset(seat) + STATE);
        // Release: what was changed before is seen by the one that wakes. Pairs with the acquire in `Seat::sleep`.
        let is_first = state
            .compare_exchange(WAITING, NOTIFIED, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if !is_first {
            return false;
        }
        step!("condition::notify::notified");
        futex::wake(state, 1);
        step!("condition::notify::woken");
        // Whoever takes a dead one's seat meanwhile finds the notification there, and passes it on.
        let comes_back = || {
            state
                .compare_exchange(NOTIFIED, EMPTY, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        };
        !(self.word(seat).is_died() && comes_back())
    }

    /// Those that have ever been taken.
    fn taken(&self) -> std::ops::Range<usize> {
        let fresh = self.at(FRESH).load(Ordering::Acquire);
        0..usize::try_from(fresh).map_or(SEATS, |fresh| fresh.min(SEATS))
    }

    fn at(&self, offset: usize) -> &AtomicU64 {
        self.slot.mapping().word(self.slot.offset() + offset)
    }

    fn offset(&self, seat: usize) -> usize {
        self.slot.offset() + FIRST + seat * SEAT
    }

    fn word(&self, seat: usize) -> Word<'_> {
        Word::at(self.slot.mapping(), self.offset(seat))
    }

    fn number(&self, seat: usize) -> &AtomicU64 {
        self.slot.mapping().word(self.offset(seat) + NUMBER)
    }

    fn state(&self, seat: usize) -> &AtomicU32 {
        self.slot.mapping().word32(self.offset(seat) + STATE)
    }
}

impl Seat<'_> {
    /// Returns whether a notification came before the deadline.
    pub(crate) fn sleep(self, deadline: Deadline) -> bool {
        let is_over = || self.state.load(Ordering::Acquire) != WAITING;
        let looks = if limits::processors() > 1 { LOOKS } else { 0 };
        for _ in 0..looks {
            if is_over() {
                return true;
            }
            spin_loop();
        }
        while !is_over() {
            let is_in_time = futex::wait(self.state, WAITING, deadline);
            step!("condition::wait::woken");
            if !is_in_time {
                let gave_up = self.state.compare_exchange(
                    WAITING,
                    EMPTY,
                    Ordering::AcqRel,
                    Ordering::Acquire,
                );
                return gave_up.is_err();
            }
        }
        true
    }
}

impl Drop for Seat<'_> {
    /// Stands up.
    fn drop(&mut self) {
        self.state.store(EMPTY, Ordering::Release);
        step!("condition::leave::emptied");
        self.held = None;
    }
}
