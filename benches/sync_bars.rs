//! Are locks and barriers fast enough? Each next to what it is held to, side by side in one run.
//!
//! `cargo bench --bench sync_bars` takes some seconds; with `-- --test` it makes one small round that checks results only.
//! A round takes each measurement once; a ratio is the median of the ratios of the rounds, since the machine drifts.

#![allow(clippy::unwrap_used, reason = "a bench that cannot run is to stop")]

mod baseline;
#[allow(dead_code, reason = "only its times and quantiles are needed")]
mod report;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use multiprocess::{Barrier, Lock, Portable, Process, RLock};

use baseline::mutex::{RobustMutex, TwoCounters};
use baseline::ourselves;
use baseline::ping::SpinningPeer;
use baseline::processor;
use report::quantile;

fn main() {
    let has = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    if ourselves::play_role() || has("--list") {
        return;
    }
    let is_full = has("--bench") && !has("--test");
    let (rounds, times) = if is_full { (25, 400_000) } else { (1, 1_000) };
    // Long enough that both are at it most of the time, though one of them starts a little later.
    let together = 5 * times;

    // These fork, so they come before whatever starts a thread.
    let counters = TwoCounters::fork();
    let peer = SpinningPeer::fork();
    let robust = RobustMutex::new();
    let std = Mutex::new(0_u64);
    let (plain, number) = (Lock::new(()).unwrap(), Lock::new(0_u64).unwrap());
    let recursive = RLock::new().unwrap();

    let robust_alone = || each(times, || robust.count_one());
    let mut lines = [
        Line::new("Lock<()>, uncontended", "robust pthread", Bar::AtMost(12.0)),
        Line::new(
            "Lock<u64>, uncontended, += 1",
            "robust pthread",
            Bar::AtMost(12.0),
        ),
        Line::new("RLock, uncontended", "std Mutex", Bar::None),
        Line::new(
            "Lock<u64>, 2 processes, += 1",
            "robust pthread",
            Bar::Times(1.3),
        ),
        Line::new(
            "Barrier of 2 processes, a round",
            "a word each way, spinning",
            Bar::AtMost(300.0),
        ),
    ];
    for _ in 0..rounds {
        lines[0].note(each(times, || drop(plain.lock().unwrap())), robust_alone());
        lines[1].note(each(times, || *number.lock().unwrap() += 1), robust_alone());
        lines[2].note(
            each(times, || drop(recursive.lock().unwrap())),
            each(times, || *std.lock().unwrap() += 1),
        );
        lines[3].note(
            two_count(together),
            counters.count(together / 2).as_nanos() as f64 / together as f64,
        );
        let trips = u32::try_from(times / 4).unwrap();
        lines[4].note(
            two_meet(times / 4),
            peer.round_trips(trips).as_nanos() as f64 / f64::from(trips),
        );
    }
    assert_eq!(*number.lock().unwrap(), rounds as u64 * times);
    if !is_full {
        println!("\nEvery result was right. The sizes are small and the times mean nothing.");
        return;
    }
    println!("\nMedians of {rounds} interleaved rounds, in ns, lower quartiles in brackets.\n");
    println!("| job | ours | next to it | | ratio | bar | |");
    println!("|---|---|---|---|---|---|---|");
    lines.iter().for_each(Line::print);
}

/// What the median of ours must keep to.
#[derive(Clone, Copy)]
enum Bar {
    AtMost(f64),
    /// As a multiple of what is next to it.
    Times(f64),
    None,
}

struct Line {
    job: &'static str,
    other: &'static str,
    bar: Bar,
    ours: Vec<f64>,
    others: Vec<f64>,
}

impl Line {
    fn new(job: &'static str, other: &'static str, bar: Bar) -> Line {
        Line {
            job,
            other,
            bar,
            ours: Vec::new(),
            others: Vec::new(),
        }
    }

    fn note(&mut self, ours: f64, other: f64) {
        self.ours.push(ours);
        self.others.push(other);
    }

    fn print(&self) {
        let ratios: Vec<f64> = self
            .ours
            .iter()
            .zip(&self.others)
            .map(|(a, b)| a / b)
            .collect();
        let (ours, ratio) = (part(&self.ours, 0.5), part(&ratios, 0.5));
        let (bar, keeps) = match self.bar {
            Bar::AtMost(most) => (format!("<= {most} ns"), ours <= most),
            Bar::Times(factor) => (format!("<= {factor} x"), ratio <= factor),
            Bar::None => (String::new(), true),
        };
        println!(
            "| {} | {ours:.1} [{:.1}] | {:.1} [{:.1}] | {} | {ratio:.2} [{:.2}] | {bar} | {} |",
            self.job,
            part(&self.ours, 0.25),
            part(&self.others, 0.5),
            part(&self.others, 0.25),
            self.other,
            part(&ratios, 0.25),
            if keeps { "ok" } else { "missed" },
        );
    }
}

/// The sample that the given part of all does not exceed.
fn part(samples: &[f64], part: f64) -> f64 {
    let picoseconds = |nanos: &f64| Duration::from_nanos((nanos * 1e3) as u64);
    let samples: Vec<Duration> = samples.iter().map(picoseconds).collect();
    quantile(&samples, part).as_nanos() as f64 / 1e3
}

/// How many nanoseconds each call takes.
#[inline]
fn each(times: u64, mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..times {
        call();
    }
    start.elapsed().as_nanos() as f64 / times as f64
}

/// Two count up one number, as often together; the time for each.
fn two_count(times: u64) -> f64 {
    let number = Lock::new(0_u64).unwrap();
    let start = Barrier::new(2).unwrap();
    let half = times / 2;
    let slower = slower_of_two(
        &(number.clone(), start, half),
        |(number, start, half), _| {
            start.wait().unwrap();
            each(half, || *number.lock().unwrap() += 1)
        },
    );
    assert_eq!(*number.lock().unwrap(), 2 * half);
    slower / 2.0
}

/// Two meet so often; the time for each round.
fn two_meet(times: u64) -> f64 {
    let barrier = Barrier::new(2).unwrap();
    slower_of_two(&(barrier, times), |(barrier, times), n| {
        processor::stay_on(n);
        barrier.wait().unwrap();
        each(times, || {
            barrier.wait().unwrap();
        })
    })
}

fn slower_of_two<S, F>(shared: &S, run: F) -> f64
where
    S: Portable + Clone,
    F: Fn(S, usize) -> f64 + Copy + 'static,
{
    let run = move |(shared, n)| run(shared, n);
    let both = [0, 1].map(|n| Process::spawn((shared.clone(), n), run).unwrap());
    let times = both.map(|process| process.join().unwrap());
    times[0].max(times[1])
}
