//! Spinning before sleeping, as long as it pays.

use crate::sys::limits;
use std::hint::spin_loop;
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
        }
    }

    /// Spins until `is_done` or until it no longer pays; returns whether it is done.
    pub(crate) fn until(&mut self, mut is_done: impl FnMut() -> bool) -> bool {
        if is_done() {
            return true;
        }
        let allowed = self.budget();
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
            if start.elapsed() >= allowed {
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

    fn budget(&mut self) -> Duration {
        if limits::processors() == 1 {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spin_that_never_pays_is_given_up_and_tried_again_now_and_then() {
        let mut spin = Spin::new(LONGEST_OF_SERVER);
        for _ in 0..20 {
            spin.until(|| false);
        }
        let mut looks = 0;
        let spun: Vec<bool> = (0..64)
            .map(|_| {
                looks = 0;
                spin.until(|| {
                    looks += 1;
                    false
                });
                looks > 1
            })
            .collect();
        let tried = spun.iter().filter(|&&spun| spun).count();
        assert!(tried <= 4, "{tried} of 64 waits spun");
        assert!(limits::processors() == 1 || tried > 0);
    }

    #[test]
    fn what_would_have_paid_is_tried_again() {
        let mut spin = Spin::new(LONGEST_OF_SERVER);
        let spins = |spin: &mut Spin| {
            let mut looks = 0;
            spin.until(|| {
                looks += 1;
                false
            });
            looks > 1
        };
        while spins(&mut spin) {}
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
