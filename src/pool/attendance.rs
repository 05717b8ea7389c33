//! When a caller that is busy with results looks after the workers.

use std::time::{Duration, Instant};

/// How long a caller may be busy with results before the workers are looked after in between.
pub(crate) const UNATTENDED: Duration = Duration::from_micros(100);
/// A caller that takes several results in so short a time takes more of them before the clock is looked at again.
const SHORT: Duration = Duration::from_micros(2);
/// The most results between two looks at the clock: so many keep the workers alone where each suddenly takes long. To look costs as much
/// as a number's result does otherwise.
const UNWATCHED_MAX: u32 = 8;

/// The workers have been looked after, and then the caller took results.
#[derive(Debug)]
pub(crate) struct Attendance {
    since: Instant,
    /// How long ago that was when the clock was looked at last.
    seen: Duration,
    /// How many results are taken between two looks, and until the next one.
    unwatched: u32,
    left: u32,
}

impl Attendance {
    pub(crate) fn now() -> Attendance {
        Attendance {
            since: Instant::now(),
            seen: Duration::ZERO,
            unwatched: 1,
            left: 1,
        }
    }

    /// Whether the workers have been left alone for long, before a result is taken that is there; or before they are looked after anyway:
    /// then it is known for sure.
    #[inline]
    pub(crate) fn is_due(&mut self, has_some: bool) -> bool {
        self.left -= 1;
        if self.left > 0 && has_some {
            return false;
        }
        self.look() > UNATTENDED
    }

    #[cold]
    fn look(&mut self) -> Duration {
        let away = self.away();
        self.unwatched = unwatched_after(self.unwatched, away.saturating_sub(self.seen));
        (self.seen, self.left) = (away, self.unwatched);
        away
    }

    /// How long ago the workers were looked after.
    pub(crate) fn away(&self) -> Duration {
        self.since.elapsed()
    }
}

/// How many results are taken before the next look at the clock, where up to so many took so long.
fn unwatched_after(unwatched: u32, took: Duration) -> u32 {
    if took < SHORT {
        (2 * unwatched).min(UNWATCHED_MAX)
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_that_takes_long_is_noticed_at_once_and_one_that_was_quick_soon() {
        // Only time tells that it takes long.
        let take_long = || std::thread::sleep(2 * UNATTENDED);
        let mut attendance = Attendance::now();
        for _ in 0..3 {
            take_long();
            assert!(attendance.is_due(true));
            attendance = Attendance::now();
        }
        (attendance.unwatched, attendance.left) = (UNWATCHED_MAX, UNWATCHED_MAX);
        let until_due = (1..)
            .find(|_| {
                take_long();
                attendance.is_due(true)
            })
            .unwrap_or(0);
        assert_eq!(until_due, UNWATCHED_MAX);
        // Until the workers are looked after.
        assert!(attendance.is_due(true));
        // Where nothing is there, it is not left to chance what comes first, outcomes or the next item.
        (attendance.unwatched, attendance.left) = (UNWATCHED_MAX, UNWATCHED_MAX);
        assert!(attendance.is_due(false));
    }

    #[test]
    fn the_clock_is_looked_at_more_seldom_only_while_results_are_taken_quickly() {
        let quick = SHORT / 2;
        assert_eq!(unwatched_after(1, quick), 2);
        assert_eq!(unwatched_after(UNWATCHED_MAX, quick), UNWATCHED_MAX);
        assert_eq!(unwatched_after(UNWATCHED_MAX, SHORT), 1);
    }
}
