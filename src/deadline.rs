//! The one place where a `Duration` becomes an instant on the monotonic clock.

use std::time::{Duration, Instant};

/// The end of a wait: an instant, or never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// Waits for ever.
    pub(crate) const NEVER: Deadline = Deadline(None);

    /// Ends `limit` from now; a limit that reaches past the clock's range never ends.
    pub(crate) fn after(limit: Duration) -> Deadline {
        Deadline(Instant::now().checked_add(limit))
    }

    /// This, or `limit` from now if that is sooner.
    pub(crate) fn or_after(self, limit: Duration) -> Deadline {
        match self.remaining() {
            Some(left) if left <= limit => self,
            _ => Deadline::after(limit),
        }
    }

    /// Whether it has come.
    pub(crate) fn has_passed(self) -> bool {
        self.remaining().is_some_and(|left| left.is_zero())
    }

    /// What is left: `None` if this never ends, zero if it has passed.
    pub(crate) fn remaining(self) -> Option<Duration> {
        self.0
            .map(|end| end.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::Deadline;
    use std::time::Duration;

    #[test]
    fn a_limit_past_the_clocks_range_never_ends() {
        assert_eq!(Deadline::after(Duration::MAX).remaining(), None);
        assert_eq!(Deadline::NEVER.remaining(), None);
        assert_eq!(
            Deadline::after(Duration::ZERO).remaining(),
            Some(Duration::ZERO)
        );
    }
}
