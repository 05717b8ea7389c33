//! Counts of times, of which percentiles are asked for.

use std::time::Duration;

/// Counts of times, in steps of an eighth: 4 KiB, however many times there are.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Box<[u64; STEPS]>,
    total: u64,
    longest: u64,
}

const STEPS: usize = 64 * 8;

impl Histogram {
    pub(crate) fn new() -> Histogram {
        Histogram {
            counts: Box::new([0; STEPS]),
            total: 0,
            longest: 0,
        }
    }

    /// Enters so many times, all of the same length.
    pub(crate) fn enter(&mut self, nanos: u64, count: u64) {
        self.counts[Histogram::step(nanos)] += count;
        self.total += count;
        self.longest = self.longest.max(nanos);
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn longest(&self) -> Duration {
        Duration::from_nanos(self.longest)
    }

    /// The time within which `percent` of the times are, at most an eighth too long.
    pub(crate) fn percentile(&self, percent: f64) -> Duration {
        // A hair less, as 99.9 percent of 1,000 are 999, and not the bit more that rounding may make of it.
        let exact = percent.clamp(0.0, 100.0) * self.total as f64 / 100.0;
        let wanted = (exact * (1.0 - 1e-12)).ceil().max(1.0);
        let mut seen = 0;
        for (step, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen as f64 >= wanted {
                return Duration::from_nanos(Histogram::end(step).min(self.longest));
            }
        }
        Duration::ZERO
    }

    /// The step of a time: its highest bit and the three behind that.
    fn step(nanos: u64) -> usize {
        if nanos < 8 {
            return nanos as usize;
        }
        let exponent = nanos.ilog2() as usize;
        exponent * 8 + (nanos >> (exponent - 3)) as usize % 8
    }

    /// The longest time of a step.
    fn end(step: usize) -> u64 {
        if step < 8 {
            return step as u64;
        }
        let (exponent, eighths) = (step / 8, step as u128 % 8);
        let end = (9 + eighths) << exponent >> 3;
        u64::try_from(end - 1).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_a_step_that_ends_at_most_an_eighth_later() {
        for nanos in (0..5000).chain([1 << 40, (1 << 40) + 12_345, u64::MAX]) {
            let step = Histogram::step(nanos);
            let end = Histogram::end(step);
            assert!(end >= nanos, "{nanos} in step {step}, which ends at {end}");
            assert!(end - nanos <= nanos / 8, "{nanos}: {end}");
        }
    }

    #[test]
    fn percentiles_count_times_and_none_is_longer_than_the_longest() {
        let mut times = Histogram::new();
        assert_eq!(times.percentile(99.0), Duration::ZERO);
        times.enter(100, 990);
        times.enter(10_000, 9);
        times.enter(1_000_000, 1);
        for (percent, nanos) in [
            (0.0, 100),
            (50.0, 100),
            (99.0, 100),
            (99.1, 10_000),
            (99.9, 10_000),
            (99.95, 1_000_000),
            (100.0, 1_000_000),
            (f64::NAN, 100),
        ] {
            let found = times.percentile(percent).as_nanos() as u64;
            assert!(
                (nanos..=nanos + nanos / 8).contains(&found),
                "{percent}: {found}"
            );
        }
        assert_eq!(times.percentile(100.0), times.longest());
        assert_eq!(times.total(), 1000);
    }
}
