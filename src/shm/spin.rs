//! Spinning before sleeping, as long as it pays.

use crate::sys::clock;
use crate::sys::identity;
use crate::sys::limits;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The longest spin of who serves. Waking a halted processor costs 20 to 50 microseconds, so that a wait this long costs no
/// more than twice what the best choice would have.
pub(crate) const LONGEST_OF_SERVER: Duration = Duration::from_micros(50);
/// The longest spin of who asks: long enough for a server that slept to wake and to answer.
pub(crate) const LONGEST_OF_CLIENT: Duration = Duration::from_micros(120);
/// What a spin that has been given up is tried with again, now and then.
const PROBE: Duration = Duration::from_micros(4);
/// What a change between two processes on one processor takes at most.
const CONTENDED: Duration = Duration::from_micros(12);
/// How many waits pass between two such trials.
const PROBE_EVERY: u32 = 16;

/// Decides how long one waiter spins. A spin that paid may take twice as long as it took the next time; one that did not
/// halves what is allowed, until it is not worth a look at the clock. With one processor it never spins: whoever is
/// awaited could not run meanwhile.
#[derive(Debug)]
pub(crate) struct Spin {
    longest: Duration,
    allowed: Duration,
    waits_since_probe: u32,
    /// How long the last wait has spun in vain.
    spun: Duration,
    /// Whether who woke this one last did so on the same processor: while one spins there, the other could not go on.
    shares_processor: bool,
}

impl Spin {
    /// A waiter that spins for no longer than `longest`.
    pub(crate) fn new(longest: Duration) -> Spin {
        let allowed = if limits::processors() > 1 {
            longest
        } else {
            Duration::ZERO
        };
        Spin {
            longest,
            allowed,
            waits_since_probe: 0,
            spun: Duration::ZERO,
            shares_processor: false,
        }
    }

    /// Spins until `is_done` or until it no longer pays; returns whether it is done.
    pub(crate) fn until(&mut self, mut is_done: impl FnMut() -> bool) -> bool {
        if is_done() {
            return true;
        }
        let allowed = self.budget();
        self.spun = Duration::ZERO;
        if allowed.is_zero() {
            return false;
        }
        // Most waits that pay end in these, and need no clock.
        for _ in 0..32 {
            spin_loop();
            if is_done() {
                self.allowed = self.allowed.max(PROBE.min(self.longest));
                return true;
            }
        }
        let start = Instant::now();
        loop {
            for _ in 0..32 {
                spin_loop();
                if is_done() {
                    self.allowed = self.allowed.max((start.elapsed() * 4).min(self.longest));
                    return true;
                }
            }
            self.spun = start.elapsed();
            if self.spun >= allowed {
                self.allowed /= 2;
                return false;
            }
        }
    }

    /// Learns from a wait that ended asleep, after `slept`: if spinning on would have paid, it will be tried again. A sleep
    /// that ended almost at once does not say so: there, the other side may have had to wait for this processor.
    pub(crate) fn learn(&mut self, slept: Duration) {
        if slept > CONTENDED && slept < self.longest && limits::processors() > 1 {
            self.allowed = self.longest;
        }
    }

    /// Learns from a wait that ended asleep, after `waited` from its beginning to the moment in which the other side rang, on
    /// another processor. What it took to wake up after that is not in it: on some machines that alone is longer than the
    /// longest spin, and two sides that both sleep would never learn that they need not.
    pub(crate) fn learn_exactly(&mut self, waited: Duration) {
        if waited < self.longest && limits::processors() > 1 {
            self.allowed = self.longest;
        }
    }

    /// Learns from a sleep that began after the last spin, at `since` of the monotonic clock, and was ended by one who has called
    /// [`note_wake`]. What is said there of an earlier moment is of another sleep, perhaps of one that this thread has ended.
    pub(crate) fn learn_of_wake(&mut self, since: u64, [processor, moment]: [&AtomicU64; 2]) {
        let Some(slept) = moment.load(Ordering::Relaxed).checked_sub(since) else {
            return;
        };
        let processor = processor.load(Ordering::Relaxed);
        self.shares_processor = processor != 0 && processor == identity::processor();
        if !self.shares_processor {
            self.learn_exactly(self.spun.saturating_add(Duration::from_nanos(slept)));
        }
    }

    fn budget(&mut self) -> Duration {
        if self.shares_processor || limits::processors() == 1 {
            return Duration::ZERO;
        }
        if self.allowed >= PROBE {
            return self.allowed;
        }
        self.waits_since_probe += 1;
        if self.waits_since_probe >= PROBE_EVERY {
            self.waits_since_probe = 0;
            return PROBE;
        }
        Duration::ZERO
    }
}

/// Says where this thread runs, and when this is, to those whom it is about to wake.
pub(crate) fn note_wake([processor, moment]: [&AtomicU64; 2]) {
    processor.store(identity::processor(), Ordering::Relaxed);
    moment.store(clock::monotonic_nanos(), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELSEWHERE: u64 = u64::MAX;

    /// One that has given up spinning.
    fn tired() -> Spin {
        let mut spin = Spin::new(LONGEST_OF_SERVER);
        while spins(&mut spin) {}
        spin
    }

    /// Whether it looks more than once, at what does not come.
    fn spins(spin: &mut Spin) -> bool {
        let mut looks = 0;
        spin.until(|| {
            looks += 1;
            false
        });
        looks > 1
    }

    #[test]
    fn who_was_woken_from_another_processor_spins_again_if_that_would_have_paid() {
        let longest = LONGEST_OF_SERVER.as_nanos() as u64;
        let learn = |spin: &mut Spin, processor, moment| {
            let words = [&AtomicU64::new(processor), &AtomicU64::new(moment)];
            spin.learn_of_wake(1_000_000, words);
        };
        let mut spin = tired();
        learn(&mut spin, ELSEWHERE, 1_000_000 + longest);
        assert!(!spins(&mut spin), "it would have spun in vain");
        let mut spin = tired();
        learn(&mut spin, ELSEWHERE, 999_999);
        assert!(!spins(&mut spin), "that was another sleep");
        learn(&mut spin, ELSEWHERE, 1_000_000 + longest / 2);
        assert_eq!(spins(&mut spin), limits::processors() > 1);
        // It has spun as long as it may, to no avail: what it slept comes on top.
        learn(&mut spin, ELSEWHERE, 1_000_001);
        assert!(spin.allowed < LONGEST_OF_SERVER);
    }

    #[test]
    fn who_was_woken_on_its_own_processor_does_not_spin() {
        let words = [&AtomicU64::new(0), &AtomicU64::new(0)];
        let mut spin = Spin::new(LONGEST_OF_SERVER);
        // Until nobody has moved this thread between the two.
        while !spin.shares_processor {
            note_wake(words);
            spin.learn_of_wake(0, words);
        }
        assert!(!spins(&mut spin));
        words[0].store(ELSEWHERE, Ordering::Relaxed);
        words[1].store(1, Ordering::Relaxed);
        spin.learn_of_wake(0, words);
        assert_eq!(spins(&mut spin), limits::processors() > 1);
    }

    #[test]
    fn a_spin_that_never_pays_is_given_up_and_tried_again_now_and_then() {
        let mut spin = Spin::new(LONGEST_OF_SERVER);
        for _ in 0..20 {
            spin.until(|| false);
        }
        let spun: Vec<bool> = (0..64).map(|_| spins(&mut spin)).collect();
        let tried = spun.iter().filter(|&&spun| spun).count();
        assert!(tried <= 4, "{tried} of 64 waits spun");
        assert!(limits::processors() == 1 || tried > 0);
    }

    #[test]
    fn what_would_have_paid_is_tried_again() {
        let mut spin = tired();
        spin.learn_exactly(LONGEST_OF_SERVER);
        assert!(!spins(&mut spin));
        spin.learn_exactly(LONGEST_OF_SERVER / 2);
        assert!(limits::processors() == 1 || spins(&mut spin));
    }

    #[test]
    fn what_is_done_already_needs_no_spin() {
        assert!(Spin::new(LONGEST_OF_CLIENT).until(|| true));
    }
}
