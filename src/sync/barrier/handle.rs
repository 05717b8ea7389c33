//! `Barrier`: parties wait for each other.

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::shm::Slot;
use crate::sync::barrier::broken::{BarrierError, BarrierWaitResult, Broken};
use crate::sync::barrier::rounds::{
    CAUSE, COME, PARTIES_MAX, Rounds, broken_by, cause_of, is_reset, next_round, round_of,
};
use crate::sys::atomic::Ordering;
use crate::sys::step::step;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::time::Duration;

/// Has a fixed number of parties wait for each other, round after round.
///
/// Clones, in this process and in others, are the same barrier; it can be sent at any time. A party is a thread of any
/// process; it need not be the same one in each round.
///
/// A party that waits and dies, or whose time is over, *breaks* the barrier: everybody who waits gets a [`BarrierError`] at
/// once, and so does everybody who comes, until [`Barrier::reset`].
///
/// Where there are as many processors as parties, who waits looks for the others for some microseconds before it sleeps.
///
/// # Examples
///
/// ```
/// use multiprocess::{Barrier, Process};
///
/// let barrier = Barrier::new(3)?;
/// let processes: Vec<Process<bool>> = (0..3)
///     .map(|_| Process::spawn(barrier.clone(), |barrier: Barrier| barrier.wait().unwrap().is_leader()))
///     .collect::<Result<_, _>>()?;
/// let leaders = processes.into_iter().filter_map(|process| process.join().ok()).filter(|&led| led);
/// assert_eq!(leaders.count(), 1);
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Clone)]
pub struct Barrier {
    rounds: Rounds,
}

impl Barrier {
    /// Makes a barrier at which nobody waits.
    ///
    /// # Errors
    ///
    /// Where `parties` is 0 or more than 8,000; where the system has no memory or no descriptor left.
    ///
    /// # Examples
    ///
    /// ```
    /// let barrier = multiprocess::Barrier::new(1)?;
    /// assert!(barrier.wait()?.is_leader());
    /// assert!(multiprocess::Barrier::new(0).is_err());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn new(parties: usize) -> Result<Barrier> {
        if parties == 0 || parties > PARTIES_MAX {
            return Err(Error::refused(
                "cannot make a barrier",
                format!("it needs 1 to {PARTIES_MAX} parties, and not {parties}"),
            ));
        }
        Ok(Barrier {
            rounds: Rounds::allocate(parties)?,
        })
    }

    /// Waits until all parties have come.
    ///
    /// # Errors
    ///
    /// Where the barrier is broken, or is broken while this one waits.
    ///
    /// # Examples
    ///
    /// ```
    /// let barrier = multiprocess::Barrier::new(2)?;
    /// let other = barrier.clone();
    /// let thread = std::thread::spawn(move || other.wait().unwrap().index());
    /// assert_eq!(barrier.wait()?.index() + thread.join().unwrap(), 1);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn wait(&self) -> Result<BarrierWaitResult, BarrierError> {
        self.rounds.wait_until(Deadline::NEVER)
    }

    /// As [`Barrier::wait`], no longer than `limit`: then the barrier is broken, for all.
    ///
    /// # Errors
    ///
    /// As [`Barrier::wait`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let barrier = multiprocess::Barrier::new(2)?;
    /// let error = barrier.wait_timeout(Duration::from_millis(10)).unwrap_err();
    /// assert!(error.is_timeout() && barrier.is_broken());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn wait_timeout(&self, limit: Duration) -> Result<BarrierWaitResult, BarrierError> {
        self.rounds.wait_until(Deadline::after(limit))
    }

    /// Breaks the barrier: who waits, and who comes, gets an error, until it is reset.
    ///
    /// # Examples
    ///
    /// ```
    /// let barrier = multiprocess::Barrier::new(2)?;
    /// barrier.abort();
    /// assert!(barrier.is_broken() && barrier.wait().is_err());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn abort(&self) {
        self.rounds.move_on(|seen| {
            let is_over = self.rounds.is_complete(seen) || is_reset(seen);
            let of = if is_over { next_round(seen) } else { seen };
            (of & CAUSE == 0).then(|| broken_by(of, Broken::Aborted))
        });
    }

    /// Makes the barrier whole, with nobody waiting: who waits gets an error.
    ///
    /// # Examples
    ///
    /// ```
    /// let barrier = multiprocess::Barrier::new(1)?;
    /// barrier.abort();
    /// barrier.reset();
    /// assert!(barrier.wait().is_ok());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn reset(&self) {
        let seen = self.rounds.move_on(|seen| {
            if self.rounds.is_complete(seen) {
                // The next one may have a party already that died as it came: that is over as well.
                Some(next_round(next_round(seen)))
            } else if seen & (CAUSE | COME) == 0 {
                Some(next_round(seen))
            } else {
                // From there on nobody can complete it, so that what is noted of it is true when it is left.
                (seen & CAUSE == 0).then(|| broken_by(seen, Broken::Reset))
            }
        });
        step!("barrier::reset::broken");
        self.rounds.leave_broken(round_of(seen));
    }

    /// Returns how many parties a round needs.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(multiprocess::Barrier::new(3)?.parties(), 3);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn parties(&self) -> usize {
        self.rounds.parties
    }

    /// Returns how many parties waited a moment ago.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(multiprocess::Barrier::new(3)?.waiting(), 0);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn waiting(&self) -> usize {
        let seen = self.rounds.deciding().load(Ordering::Acquire);
        if seen & CAUSE != 0 || self.rounds.is_complete(seen) {
            0
        } else {
            (seen & COME) as usize
        }
    }

    /// Returns whether the barrier was broken a moment ago.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!multiprocess::Barrier::new(3)?.is_broken());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_broken(&self) -> bool {
        self.cause().is_some()
    }

    /// Why it was broken a moment ago. While it is reset, it is whole for whoever comes.
    fn cause(&self) -> Option<Broken> {
        let seen = self.rounds.deciding().load(Ordering::Acquire);
        cause_of(seen).filter(|_| !is_reset(seen))
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier")
            .field("parties", &self.parties())
            .field("waiting", &self.waiting())
            .field("broken", &self.cause())
            .finish()
    }
}

impl Serialize for Barrier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.rounds.parties as u64, &self.rounds.slot).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Barrier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (parties, slot) = <(u64, Slot)>::deserialize(deserializer)?;
        let rounds = Rounds::of(parties, slot)
            .ok_or_else(|| D::Error::custom("shared memory came that is no barrier"))?;
        Ok(Barrier { rounds })
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_slow_to_look_learns_that_its_round_was_complete_whatever_came_after_it() {
        let barrier = Barrier::new(1).unwrap();
        barrier.wait().unwrap();
        for _ in 0..100 {
            barrier.reset();
            barrier.abort();
            barrier.reset();
        }
        assert_eq!(barrier.rounds.cause_noted(0), None);
        let seen = barrier.rounds.deciding().load(Ordering::Acquire);
        assert!(round_of(seen) > 100);
    }

    #[test]
    fn a_dead_partys_seat_is_nobodys_while_its_round_is_not_over() {
        // It died as it came to round 0, or, once that was complete, to round 1.
        for (is_complete, round) in [(false, 0), (true, 1)] {
            let barrier = Barrier::new(2).unwrap();
            let rounds = &barrier.rounds;
            if is_complete {
                std::thread::scope(|scope| {
                    let other = scope.spawn(|| barrier.wait().unwrap());
                    barrier.wait().unwrap();
                    other.join().unwrap();
                });
            }
            let dead = rounds.word(0).try_acquire().unwrap();
            rounds.label(0).store(round + 1, Ordering::Release);
            dead.give_up_as_died();
            let all = || -> Vec<_> { std::iter::from_fn(|| rounds.sit_down()).collect() };
            assert_eq!(all().len(), rounds.seats() - 1);
            assert!(rounds.is_any_dead(round));
            barrier.reset();
            assert_eq!(all().len(), rounds.seats());
            assert!(!rounds.is_any_dead(round), "another has its seat");
        }
    }
}
