//! Permits that are taken and given back: the word under the semaphores.
//!
//! The upper half of the word is how many are free. The lower half, which the kernel compares, is two bits:
//!
//! | AVAILABLE | SLEEPERS | meaning | next |
//! |---|---|---|---|
//! | 1 | 0 | some are free, nobody sleeps | the last is taken: 0 0 |
//! | 0 | 0 | none is free, nobody sleeps | given back: 1 0; somebody who is about to sleep: 0 1 |
//! | 0 | 1 | none is free, some may sleep | given back: 1 1, and one is woken |
//! | 1 | 1 | some are free, some may sleep | taken; or it is found that nobody sleeps: 1 0 |
//!
//! AVAILABLE is "upper half > 0" in every change, since both halves change at once. The kernel lets a thread sleep on "0 1"
//! alone: at that moment nothing was free.
//!
//! **A permit that is given back wakes somebody.** Who gives it sees SLEEPERS and wakes one. If nobody slept
//! ([`Permits::ring`]) the bit goes, and whoever fell asleep before it was gone is woken after that; who falls asleep later
//! has set it anew. One who was woken takes a permit and leaves SLEEPERS set, for the others that may sleep; if more permits are
//! free after that it rings for them.
//!
//! **Nobody waits for a particular other process.** Each step below is one change of the word, or a call that wakes. Who
//! dies between two of them:
//!
//! | died | state | who goes on |
//! |---|---|---|
//! | having given a permit back, before the wake-up | 1 1 | the kernel wakes one |
//! | having cleared SLEEPERS, before all were woken | 1 0 or 0 0 | the kernel wakes one, which sets SLEEPERS, and rings |
//! | asleep, or just woken | any | the kernel wakes another, which looks |
//! | having taken a permit after a sleep, before it rang | any | the kernel wakes one, which looks and rings |
//! | having taken a permit | any | the permit is gone with it: nobody knows whose it was |

use crate::deadline::Deadline;
use crate::error::Result;
use crate::sync::unowned::Unowned;
use crate::sys::step::step;
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering::SeqCst;

/// The most that can be free: as many as POSIX semaphores have.
pub(crate) const PERMITS_MAX: usize = i32::MAX as usize;

const AVAILABLE: u64 = 1 << 30;
const SLEEPERS: u64 = 1 << 31;

/// Permits in shared memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Permits {
    word: Unowned,
}

impl Permits {
    /// `free` permits, which must be no more than [`PERMITS_MAX`].
    pub(crate) fn new(free: usize) -> Result<Permits> {
        let word = Unowned::new("semaphore")?;
        word.state().store(state(free as u64, 0), SeqCst);
        Ok(Permits { word })
    }

    /// How many are free.
    pub(crate) fn free(&self) -> usize {
        usize::try_from(free(self.word.state().load(SeqCst))).unwrap_or(usize::MAX)
    }

    /// Takes one, if one is free.
    #[inline]
    pub(crate) fn try_take(&self) -> bool {
        let take = |now| Some(state(free(now).checked_sub(1)?, now & SLEEPERS));
        let is_taken = self.word.state().fetch_update(SeqCst, SeqCst, take).is_ok();
        step!("permits::try::looked");
        is_taken
    }

    /// Takes one; false when the deadline passes before one is free.
    #[inline]
    pub(crate) fn take(&self, deadline: Deadline) -> bool {
        self.try_take() || self.take_asleep(deadline)
    }

    #[cold]
    fn take_asleep(&self, deadline: Deadline) -> bool {
        let _covered = self.word.cover();
        step!("permits::take::covered");
        let mut is_in_time = true;
        loop {
            let take = |now| Some(state(free(now).saturating_sub(1), SLEEPERS));
            let before = match self.word.state().fetch_update(SeqCst, SeqCst, take) {
                Ok(before) | Err(before) => before,
            };
            if free(before) > 0 {
                step!("permits::take::taken");
                if free(before) > 1 {
                    self.ring();
                }
                return true;
            }
            if !is_in_time {
                return false;
            }
            step!("permits::take::marked");
            is_in_time = self.word.sleep(state(0, SLEEPERS), deadline);
            step!("permits::take::woken");
        }
    }

    /// Gives one back, so that no more than `limit` are free; false if they are already.
    #[inline]
    pub(crate) fn give(&self, limit: usize) -> bool {
        let _covered = self.word.cover();
        step!("permits::give::covered");
        let give = |now| {
            let more = free(now).checked_add(1)?;
            (more <= limit as u64).then(|| state(more, now & SLEEPERS))
        };
        let given = self.word.state().fetch_update(SeqCst, SeqCst, give);
        step!("permits::give::given");
        match given {
            Ok(before) if before & SLEEPERS != 0 => self.ring(),
            Ok(_) => {}
            Err(_) => return false,
        }
        true
    }

    /// Wakes one who sleeps, and notes it if nobody does.
    #[cold]
    fn ring(&self) {
        if self.word.wake(1) == 0 {
            step!("permits::ring::nobody");
            self.word.state().fetch_and(!SLEEPERS, SeqCst);
            step!("permits::ring::cleared");
            // Who fell asleep meanwhile would not be seen by the next one who gives.
            self.word.wake(i32::MAX);
        }
    }
}

fn free(state: u64) -> u64 {
    state >> 32
}

/// The word, of which nothing but the number of free permits and SLEEPERS is kept: another process may have written
/// anything.
fn state(free: u64, sleepers: u64) -> u64 {
    let available = if free > 0 { AVAILABLE } else { 0 };
    free << 32 | available | sleepers
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use std::time::Duration;

    const SOON: Duration = Duration::from_millis(20);

    #[test]
    fn permits_are_taken_and_given_back_up_to_the_limit() {
        let permits = Permits::new(2).unwrap();
        assert!(permits.try_take() && permits.take(Deadline::NEVER));
        assert!(!permits.try_take() && !permits.take(Deadline::after(SOON)));
        assert!(permits.give(2) && permits.give(2) && !permits.give(2));
        assert_eq!(permits.free(), 2);
    }

    #[test]
    fn one_that_gave_up_waiting_leaves_nothing_that_matters() {
        let permits = Permits::new(0).unwrap();
        assert!(!permits.take(Deadline::after(SOON)));
        assert!(permits.give(PERMITS_MAX));
        assert_eq!(permits.word.state().load(SeqCst), state(1, 0));
    }

    #[test]
    fn whatever_another_process_writes_waits_end_by_their_deadline() {
        let permits = Permits::new(0).unwrap();
        for garbage in [1, u64::from(u32::MAX), AVAILABLE, SLEEPERS | 7] {
            permits.word.state().store(garbage, SeqCst);
            assert!(!permits.take(Deadline::after(SOON)));
        }
        permits.word.state().store(u64::MAX, SeqCst);
        assert!(permits.try_take() && permits.take(Deadline::NEVER));
        assert!(!permits.give(PERMITS_MAX));
    }

    #[test]
    fn no_permit_is_lost_among_many_who_sleep() {
        let permits = Permits::new(3).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..3000 {
                        assert!(permits.take(Deadline::NEVER));
                        std::thread::yield_now();
                        assert!(permits.give(3));
                    }
                });
            }
        });
        assert_eq!(permits.free(), 3);
    }
}
