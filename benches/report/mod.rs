//! A table of measurements taken in turn, each line held to its bar.
//!
//! The machine drifts within seconds, so what is compared is measured side by side: a round takes
//! every column of every line once, in an order that rotates, and a ratio is the median of the
//! ratios of the rounds.

use std::fmt;
use std::thread::sleep;
use std::time::Duration;

/// Takes one measurement. Panics when a result is wrong.
type Measure<'a> = Box<dyn FnMut() -> Duration + 'a>;

const COLUMNS: usize = 3;
const OURS: usize = 0;
const LIMIT: usize = 1;
const RAYON: usize = 2;

/// What the median of ours must keep to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bar {
    AtMost(Duration),
    TimesLimit(f64),
    TimesRayon(f64),
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bar::AtMost(most) => write!(f, "<= {}", Time(*most)),
            Bar::TimesLimit(factor) => write!(f, "<= {factor} x limit"),
            Bar::TimesRayon(factor) => write!(f, "<= {factor} x rayon"),
        }
    }
}

/// One job, done by us, at the limit of the machine, and by threads.
pub(crate) struct Line<'a> {
    job: &'static str,
    bar: Bar,
    measures: [Option<Measure<'a>>; COLUMNS],
    /// Of each round, in the order of the rounds.
    samples: [Vec<Duration>; COLUMNS],
}

impl<'a> Line<'a> {
    pub(crate) fn new(
        job: &'static str,
        bar: Bar,
        ours: impl FnMut() -> Duration + 'a,
    ) -> Line<'a> {
        Line {
            job,
            bar,
            measures: [Some(Box::new(ours)), None, None],
            samples: Default::default(),
        }
    }

    pub(crate) fn limit(mut self, limit: impl FnMut() -> Duration + 'a) -> Line<'a> {
        self.measures[LIMIT] = Some(Box::new(limit));
        self
    }

    pub(crate) fn rayon(mut self, rayon: impl FnMut() -> Duration + 'a) -> Line<'a> {
        self.measures[RAYON] = Some(Box::new(rayon));
        self
    }

    /// Ours as a multiple of another column; `None` where that is empty.
    fn ratio(&self, to: usize) -> Option<f64> {
        let rounds = self.samples[OURS].iter().zip(&self.samples[to]);
        let mut ratios: Vec<f64> = rounds
            .map(|(ours, other)| ours.as_secs_f64() / other.as_secs_f64())
            .collect();
        ratios.sort_by(f64::total_cmp);
        (!ratios.is_empty()).then(|| ratios[ratios.len() / 2])
    }

    fn keeps_bar(&self) -> bool {
        match self.bar {
            Bar::AtMost(most) => median(&self.samples[OURS]) <= most,
            Bar::TimesLimit(factor) => self.ratio(LIMIT).is_some_and(|ratio| ratio <= factor),
            Bar::TimesRayon(factor) => self.ratio(RAYON).is_some_and(|ratio| ratio <= factor),
        }
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| {:<35} |", self.job)?;
        for samples in &self.samples {
            write!(f, " {:>19} |", summary(samples))?;
        }
        for to in [LIMIT, RAYON] {
            let ratio = self
                .ratio(to)
                .map_or_else(String::new, |ratio| format!("{ratio:.2}"));
            write!(f, " {ratio:>7} |")?;
        }
        write!(f, " {:<15} |", self.bar.to_string())
    }
}

/// Measures every column of every line once a round.
pub(crate) fn measure(lines: &mut [Line<'_>], rounds: usize) {
    for round in 0..rounds {
        for line in &mut *lines {
            for turn in 0..COLUMNS {
                let column = (round + turn) % COLUMNS;
                if let Some(measure) = &mut line.measures[column] {
                    // Lets those measured before fall asleep.
                    sleep(Duration::from_millis(2));
                    let sample = measure();
                    line.samples[column].push(sample);
                }
            }
        }
    }
}

/// Prints the table, its verdicts with a question mark where the machine was busy with other
/// things.
pub(crate) fn print<'a>(lines: impl IntoIterator<Item = &'a Line<'a>>, busy: bool) {
    let doubt = if busy { "?" } else { "" };
    let header = ["ours", "limit", "rayon"]
        .map(|column| format!(" {column:>19} |"))
        .concat();
    println!(
        "| {:<35} |{header} x limit | x rayon | {:<15} | {:<7} |",
        "job, 2 workers", "bar", ""
    );
    let rules = [37, 21, 21, 21, 9, 9, 17, 9].map(|width| "-".repeat(width));
    println!("|{}|", rules.join("|"));
    for line in lines {
        let verdict = if line.keeps_bar() { "ok" } else { "missed" };
        println!("{line} {:<7} |", format!("{verdict}{doubt}"));
    }
}

/// The median, and the fastest in brackets.
pub(crate) fn summary(samples: &[Duration]) -> String {
    match samples.iter().min() {
        Some(fastest) => format!("{} [{}]", Time(median(samples)), Time(*fastest)),
        None => String::new(),
    }
}

fn median(samples: &[Duration]) -> Duration {
    quantile(samples, 0.5)
}

/// The sample that the given part of all does not exceed; zero if there is none.
pub(crate) fn quantile(samples: &[Duration], part: f64) -> Duration {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let index = (sorted.len() as f64 * part) as usize;
    sorted.get(index).copied().unwrap_or_default()
}

/// A duration with three digits.
pub(crate) struct Time(pub(crate) Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos() as f64;
        let (value, unit) = match nanos {
            ..1e3 => (nanos, "ns"),
            ..1e6 => (nanos / 1e3, "us"),
            ..1e9 => (nanos / 1e6, "ms"),
            _ => (nanos / 1e9, "s"),
        };
        let decimals = match value {
            _ if unit == "ns" => 0,
            ..10.0 => 2,
            ..100.0 => 1,
            _ => 0,
        };
        write!(f, "{value:.decimals$} {unit}")
    }
}
