//! How cost and memory grow: with workers, items, the time of an item, its size. A job is `KIND:VALUE`.

use std::time::{Duration, Instant};

use multiprocess::Pool;
use rayon::ThreadPoolBuilder;
use rayon::prelude::*;

use crate::baseline::work::{burn, square, units_for};
use crate::ours::{BURNS, burn_units, two_workers};
use crate::sample::{Measure, Sample, memory_kib};
use crate::threads::two_threads;

/// What moves in one measurement of sizes, unless one item is larger.
const VOLUME: usize = 256 << 20;

pub(crate) fn ours(job: &str) -> Option<Measure> {
    let (kind, value) = job.split_once(':')?;
    let value: usize = value.parse().ok()?;
    match kind {
        "workers" => {
            let pool = Pool::builder().workers(value).build().unwrap();
            let units = burn_units();
            measure(move || {
                let start = Instant::now();
                let results = pool.map(vec![units; BURNS], burn).unwrap();
                seen(start.elapsed(), &pool, results.len())
            })
        }
        "items" => {
            let pool = two_workers();
            measure(move || {
                let start = Instant::now();
                let results = pool.map(0..value as u64, square).unwrap();
                seen(start.elapsed(), &pool, results.len())
            })
        }
        "items_lazily" => {
            let pool = two_workers();
            measure(move || {
                let start = Instant::now();
                let results = pool.imap(0..value as u64, square);
                let count = results.filter(|result| result.is_ok()).count();
                assert_eq!(count, value);
                seen(start.elapsed(), &pool, count)
            })
        }
        "nanos" => {
            let pool = two_workers();
            let (units, count) = burns(value);
            measure(move || {
                let start = Instant::now();
                let results = pool.map(vec![units; count], burn).unwrap();
                seen(start.elapsed(), &pool, results.len())
            })
        }
        "bytes" => {
            let pool = two_workers();
            let count = (VOLUME / value).clamp(4, 100_000);
            measure(move || {
                // Made as they are asked for: they do not all fit into memory at once.
                let items = (0..count).map(move |_| vec![1_u8; value]);
                let start = Instant::now();
                let lengths = pool.imap(items, |item| item.len());
                let bytes: usize = lengths.map(Result::unwrap).sum();
                assert_eq!(bytes, count * value);
                seen(start.elapsed(), &pool, count)
            })
        }
        _ => None,
    }
}

pub(crate) fn rayon(job: &str) -> Option<Measure> {
    let (kind, value) = job.split_once(':')?;
    let value: usize = value.parse().ok()?;
    match kind {
        "workers" => {
            let threads = ThreadPoolBuilder::new().num_threads(value).build().unwrap();
            let units = burn_units();
            measure(move || {
                let start = Instant::now();
                let work = || {
                    vec![units; BURNS]
                        .into_par_iter()
                        .map(burn)
                        .collect::<Vec<_>>()
                };
                let results = threads.install(work);
                Sample::of(start.elapsed(), results.len() as u64)
            })
        }
        "items" => {
            let threads = two_threads();
            measure(move || {
                let start = Instant::now();
                let work = || {
                    (0..value as u64)
                        .into_par_iter()
                        .map(square)
                        .collect::<Vec<_>>()
                };
                let results = threads.install(work);
                Sample::of(start.elapsed(), results.len() as u64)
            })
        }
        "nanos" => {
            let threads = two_threads();
            let (units, count) = burns(value);
            measure(move || {
                let start = Instant::now();
                let work = || {
                    vec![units; count]
                        .into_par_iter()
                        .map(burn)
                        .collect::<Vec<_>>()
                };
                let results = threads.install(work);
                Sample::of(start.elapsed(), results.len() as u64)
            })
        }
        _ => None,
    }
}

fn measure(mut once: impl FnMut() -> Sample + 'static) -> Option<Measure> {
    Some(Box::new(move |_| once()))
}

/// How much an item of so many nanoseconds is, and how many make a tenth of a second for two.
fn burns(nanos: usize) -> (u64, usize) {
    let units = units_for(Duration::from_nanos(nanos as u64));
    (units, (200_000_000 / nanos.max(200)).clamp(20, 1_000_000))
}

/// What each item took; the memory of the workers, and the most that this process ever had.
fn seen(elapsed: Duration, pool: &Pool, items: usize) -> Sample {
    let pids = pool.worker_pids();
    let workers: f64 = pids.iter().map(|pid| memory_kib(*pid, &["Pss"])).sum();
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let peak: f64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    Sample::of(elapsed, items as u64)
        .with("workers_mib", workers / 1024.0)
        .with("peak_mib", peak / 1024.0)
}
