//! Counts of times, of which percentiles are asked for.

/// Counts of times, in steps of an eighth.
#[derive(Clone, Debug)]
pub(crate) struct Histogram(pub(crate) Box<[u64; STEPS]>);

pub(crate) const STEPS: usize = 64 * 8;

impl Histogram {
    /// The step of a time: its highest bit and the three behind that.
    pub(crate) fn step(nanos: u64) -> usize {
        if nanos < 8 {
            return nanos as usize;
        }
        let exponent = nanos.ilog2() as usize;
        exponent * 8 + (nanos >> (exponent - 3)) as usize % 8
    }

    /// The longest time of a step.
    pub(crate) fn longest(step: usize) -> u64 {
        if step < 8 {
            return step as u64;
        }
        let (exponent, eighths) = (step / 8, step as u128 % 8);
        let end = (9 + eighths) << exponent >> 3;
        u64::try_from(end - 1).unwrap_or(u64::MAX)
    }

    pub(crate) fn percentile(&self, percent: f64, total: u64) -> u64 {
        let wanted = (percent.clamp(0.0, 100.0) / 100.0 * total as f64)
            .ceil()
            .max(1.0);
        let mut seen = 0;
        for (step, count) in self.0.iter().enumerate() {
            seen += count;
            if seen as f64 >= wanted {
                return Histogram::longest(step);
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_a_step_that_ends_at_most_an_eighth_later() {
        for nanos in (0..5000).chain([1 << 40, (1 << 40) + 12_345, u64::MAX]) {
            let step = Histogram::step(nanos);
            let longest = Histogram::longest(step);
            assert!(
                longest >= nanos,
                "{nanos} in step {step}, which ends at {longest}"
            );
            assert!(longest - nanos <= nanos / 8, "{nanos}: {longest}");
        }
    }
}
