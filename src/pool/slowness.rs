//! How a slow input is met.

use crate::pool::opened::Pulled;
use std::time::Duration;

/// How often an input has to be quick, in a row, before it is a slow one no more, until it is slow again.
const QUICK_TIMES: u32 = 64;
/// It is waited no longer than so many times what an item takes, and that is taken to be so much at least. Where many items come at
/// once, it is taken to be no more, either.
const GRACE_ITEMS: u32 = 20;
const GRACE_ITEM: Duration = Duration::from_millis(1);

/// What a slow input is met with. The next item may take as long as the last one, or never come; and whoever asks for it blocks. So of
/// the time that the input has let us wait, an eighth may be spent on waiting for outcomes before it is asked again.
#[derive(Debug, Default)]
pub(crate) struct Slowness {
    /// How long a piece of the last batch took.
    last: Duration,
    /// How long one took when the input was slow last.
    usual: Duration,
    /// How often it has been quick since then.
    quick_times: u32,
    /// What is left of the eighth.
    grace: Duration,
}

impl Slowness {
    /// Learns from a pull, and from what an item is believed to take.
    pub(crate) fn learn(&mut self, pulled: Pulled, item_takes: impl FnOnce() -> Duration) {
        self.last = pulled.longest;
        if pulled.is_slow() {
            (self.usual, self.quick_times) = (self.last, 0);
            // No item is waited for much longer than others take: one may take for ever.
            let most = item_takes().max(GRACE_ITEM).saturating_mul(GRACE_ITEMS);
            self.grace = (self.usual / 8).min(most);
        } else {
            // When many come at once, the workers are to have them at once.
            self.grace = self.grace.min(GRACE_ITEM * GRACE_ITEMS);
            self.quick_times = self.quick_times.saturating_add(1);
            if self.quick_times > QUICK_TIMES {
                (self.usual, self.grace) = (Duration::ZERO, Duration::ZERO);
            }
        }
    }

    pub(crate) fn has_grace(&self) -> bool {
        !self.grace.is_zero()
    }

    /// How long outcomes may be waited for before the next item is asked for.
    pub(crate) fn grace(&self) -> Duration {
        self.grace
    }

    /// So much of it has been waited.
    pub(crate) fn spend(&mut self, waited: Duration) {
        self.grace = self.grace.saturating_sub(waited);
    }

    /// Whether it has been slow not long ago.
    pub(crate) fn is_slow(&self) -> bool {
        !self.usual.is_zero()
    }

    /// How long the next item may take.
    pub(crate) fn expected(&self) -> Duration {
        self.usual.max(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulled(longest: Duration) -> Pulled {
        Pulled {
            count: 1,
            took: longest,
            longest,
        }
    }

    #[test]
    fn a_slow_input_leaves_an_eighth_of_its_time_for_what_an_item_takes() {
        let millis = Duration::from_millis;
        let mut slowness = Slowness::default();
        slowness.learn(pulled(millis(9)), || millis(5));
        assert!(!slowness.has_grace() && !slowness.is_slow());
        assert_eq!(slowness.expected(), millis(9));
        let mut grace = |took, item_takes| {
            slowness.learn(pulled(millis(took)), || millis(item_takes));
            slowness.grace
        };
        assert_eq!(grace(80, 5), millis(10));
        // No item is waited for much longer than the others take, and nothing is known at first.
        assert_eq!(grace(80_000, 5), millis(100));
        assert_eq!(grace(80_000, 0), millis(20));
        assert_eq!(grace(8_000, 300), millis(1_000));
    }

    #[test]
    fn of_many_items_at_once_not_each_is_waited_for_and_in_the_end_the_input_is_quick() {
        let mut slowness = Slowness::default();
        let quick = pulled(Duration::from_micros(1));
        slowness.learn(pulled(Duration::from_secs(8)), || {
            Duration::from_millis(300)
        });
        slowness.learn(quick, || Duration::ZERO);
        assert_eq!(slowness.grace, Duration::from_millis(20));
        for _ in 1..QUICK_TIMES {
            slowness.learn(quick, || Duration::ZERO);
        }
        assert_eq!(slowness.expected(), Duration::from_secs(8));
        slowness.learn(quick, || Duration::ZERO);
        assert!(!slowness.has_grace() && !slowness.is_slow());
        assert_eq!(slowness.expected(), quick.longest);
    }
}
