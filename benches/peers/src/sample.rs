//! What one measurement gave.

use std::fmt;
use std::time::{Duration, Instant};

/// Does so many operations. Panics when a result is wrong.
pub(crate) type Measure = Box<dyn FnMut(u64) -> Sample>;

/// What one operation took, in nanoseconds, and what else was seen.
#[derive(Debug)]
pub(crate) struct Sample {
    each: f64,
    more: Vec<(&'static str, f64)>,
}

impl Sample {
    /// So long for so many operations.
    pub(crate) fn of(elapsed: Duration, count: u64) -> Sample {
        Sample::value(elapsed.as_nanos() as f64 / count as f64)
    }

    /// Something that is no time.
    pub(crate) fn value(each: f64) -> Sample {
        Sample {
            each,
            more: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, key: &'static str, value: f64) -> Sample {
        self.more.push((key, value));
        self
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.each)?;
        for (key, value) in &self.more {
            write!(f, " {key}={value}")?;
        }
        Ok(())
    }
}

/// Measures `once`, which does one operation, so often.
pub(crate) fn each(mut once: impl FnMut() + 'static) -> Option<Measure> {
    Some(Box::new(move |count| {
        let start = Instant::now();
        (0..count).for_each(|_| once());
        Sample::of(start.elapsed(), count)
    }))
}

/// As `each`, where `once` takes the time itself.
pub(crate) fn told(mut once: impl FnMut() -> Duration + 'static) -> Option<Measure> {
    Some(Box::new(move |count| {
        Sample::of((0..count).map(|_| once()).sum(), count)
    }))
}

/// Measures `all`, which is told how many operations to do.
pub(crate) fn all(mut all: impl FnMut(u64) -> Duration + 'static) -> Option<Measure> {
    Some(Box::new(move |count| Sample::of(all(count), count)))
}

/// The times at which half, 99% and 99.9% of the calls were answered.
pub(crate) fn quantiles(mut times: Vec<Duration>) -> Sample {
    let (total, count) = (times.iter().sum(), times.len());
    times.sort_unstable();
    let at = |part: f64| times[((count as f64 * part) as usize).min(count - 1)].as_nanos() as f64;
    Sample::of(total, count as u64)
        .with("p50", at(0.5))
        .with("p99", at(0.99))
        .with("p999", at(0.999))
}

/// A figure of a process in KiB, by its name in `smaps_rollup`.
pub(crate) fn memory_kib(pid: u32, names: &[&str]) -> f64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let figure = |line: &str| {
        let (name, figure) = line.split_once(':')?;
        names
            .contains(&name)
            .then_some(figure)?
            .trim()
            .strip_suffix(" kB")?
            .parse::<f64>()
            .ok()
    };
    rollup.lines().filter_map(figure).sum()
}

/// What only this process has.
pub(crate) const PRIVATE: &[&str] = &["Private_Clean", "Private_Dirty"];

/// How many descriptors are open here.
pub(crate) fn descriptors() -> f64 {
    std::fs::read_dir("/proc/self/fd").unwrap().count() as f64
}
