//! procspawn.

use std::collections::VecDeque;
use std::hint::black_box;
use std::process::{Command, abort};
use std::thread::sleep;
use std::time::{Duration, Instant};

use procspawn::Pool;

use crate::baseline::work::{burn, square};
use crate::ours::{BURNS, IDLE, LARGE_BYTES, LARGES, MILLION, burn_units};
use crate::sample::{Measure, all, each, quantiles, told};

/// The argument with which this program is a new one that has no pool yet.
pub(crate) const FIRST_POOL: &str = "--first-pool-of-procspawn";

pub(crate) fn measure(job: &str) -> Option<Measure> {
    match job {
        "map_million" => map_million(),
        "map_100us" => map_100us(),
        "chunk1" | "apply_async" => all_at_once(),
        "apply" => apply(),
        "apply_idle" => apply_idle(),
        "map_8mib" => map_8mib(),
        "first_pool" => told(|| {
            let child = Command::new("/proc/self/exe")
                .arg(FIRST_POOL)
                .output()
                .unwrap();
            let nanos = String::from_utf8(child.stdout).unwrap();
            Duration::from_nanos(nanos.trim().parse().unwrap())
        }),
        "later_pool" => told(pool_answers_twice),
        "spawn" => each(|| procspawn::spawn((), |()| ()).join().unwrap()),
        "crash" => crash(false),
        "crash_replaced" => crash(true),
        _ => None,
    }
}

pub(crate) fn pool_answers_twice() -> Duration {
    let start = Instant::now();
    let pool = Pool::new(2).unwrap();
    let answers = [3, 4].map(|x| pool.spawn(x, square).join().unwrap());
    let elapsed = start.elapsed();
    assert_eq!(answers, [9, 16]);
    elapsed
}

/// In two chunks, made by hand: it has no map.
fn map_million() -> Option<Measure> {
    let pool = Pool::new(2).unwrap();
    told(move || {
        let start = Instant::now();
        let half = |from: u64, to: u64| {
            let items: Vec<u64> = (from..to).collect();
            pool.spawn(items, |items| {
                items.into_iter().map(square).collect::<Vec<u64>>()
            })
        };
        let halves = [half(0, MILLION / 2), half(MILLION / 2, MILLION)];
        let squares = halves.map(|half| half.join().unwrap()).concat();
        let elapsed = start.elapsed();
        assert_eq!(squares.len() as u64, MILLION);
        elapsed
    })
}

fn map_100us() -> Option<Measure> {
    let pool = Pool::new(2).unwrap();
    let units = burn_units();
    told(move || {
        let start = Instant::now();
        let calls: Vec<_> = (0..BURNS).map(|_| pool.spawn(units, burn)).collect();
        calls.into_iter().for_each(|call| _ = call.join().unwrap());
        start.elapsed()
    })
}

/// A thousand at once, since each that is queued takes three descriptors.
fn all_at_once() -> Option<Measure> {
    let pool = Pool::new(2).unwrap();
    all(move |count| {
        let start = Instant::now();
        let mut sum = 0_u64;
        for first in (0..count).step_by(1000) {
            let numbers = first..count.min(first + 1000);
            let calls: Vec<_> = numbers.map(|x| pool.spawn(x, square)).collect();
            sum += calls
                .into_iter()
                .map(|call| call.join().unwrap())
                .sum::<u64>();
        }
        let elapsed = start.elapsed();
        assert_eq!(sum, (0..count).map(square).sum());
        elapsed
    })
}

fn apply() -> Option<Measure> {
    let pool = Pool::new(2).unwrap();
    Some(Box::new(move |count| {
        let call = |x| {
            let start = Instant::now();
            let result = pool.spawn(black_box(x), square).join().unwrap();
            let elapsed = start.elapsed();
            assert_eq!(result, square(x));
            elapsed
        };
        quantiles((0..count).map(call).collect())
    }))
}

fn apply_idle() -> Option<Measure> {
    let pool = Pool::new(2).unwrap();
    pool.spawn(3, square).join().unwrap();
    told(move || {
        sleep(IDLE);
        let start = Instant::now();
        black_box(pool.spawn(3, square).join().unwrap());
        start.elapsed()
    })
}

/// As many at a time as there are workers: its `spawn` sends an argument that fills a socket only to a worker that is free,
/// and a worker is free only when its last result was joined.
fn map_8mib() -> Option<Measure> {
    const AT_ONCE: usize = 2;
    let pool = Pool::new(2).unwrap();
    told(move || {
        let items = vec![vec![1_u8; LARGE_BYTES]; LARGES];
        let start = Instant::now();
        let mut calls = VecDeque::new();
        let mut bytes = 0;
        for item in items {
            calls.push_back(pool.spawn(item, |item| item.len()));
            if calls.len() == AT_ONCE {
                bytes += calls.pop_front().unwrap().join().unwrap();
            }
        }
        bytes += calls
            .into_iter()
            .map(|call| call.join().unwrap())
            .sum::<usize>();
        let elapsed = start.elapsed();
        assert_eq!(bytes, LARGE_BYTES * LARGES);
        elapsed
    })
}

fn crash(replaced: bool) -> Option<Measure> {
    let pool = Pool::new(1).unwrap();
    told(move || {
        assert_eq!(pool.spawn(3, square).join().unwrap(), 9);
        let start = Instant::now();
        assert!(
            pool.spawn((), |()| { abort() })
                .join()
                .map(|()| ())
                .is_err()
        );
        let told = start.elapsed();
        assert_eq!(pool.spawn(4, square).join().unwrap(), 16);
        if replaced { start.elapsed() } else { told }
    })
}
