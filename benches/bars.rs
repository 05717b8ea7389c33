//! Is it fast enough? Every bar of the first milestone, measured side by side in one run, and what
//! has no bar but should be known.
//!
//! `cargo bench --bench bars` takes under a minute; with `-- --test` it makes one small round that
//! checks results only.

#![allow(clippy::unwrap_used, reason = "a bench that cannot run is to stop")]

mod baseline;
mod report;

use std::hint::black_box;
use std::thread::sleep;
use std::time::{Duration, Instant};

use multiprocess::Pool;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use baseline::ideal::{Halves, WarmMapping};
use baseline::ping::{SleepingPeer, SpinningPeer};
use baseline::work::{burn, square, units_for};
use baseline::{allocator, ourselves};
use report::{Bar, Line, Time, quantile, summary};

fn main() {
    let has = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    if ourselves::play_role() || has("--list") {
        return;
    }
    // Like criterion's benches: measured is only what `cargo bench` started.
    let sizes = if has("--bench") && !has("--test") {
        FULL
    } else {
        TINY
    };
    let units = units_for(sizes.burn);

    // These fork, so they come before whatever starts a thread.
    let halves = Halves::fork(sizes.squares);
    let spinning = SpinningPeer::fork();
    let sleeping = SleepingPeer::fork();
    let pool = Pool::builder().workers(2).build().unwrap();
    let threads = ThreadPoolBuilder::new().num_threads(2).build().unwrap();

    let us = Duration::from_micros;
    let mut lines = [
        Line::new("map 10^6 u64, x*x", Bar::TimesLimit(2.0), || {
            map_squares(&pool, sizes)
        })
        .limit(|| halves_square(&halves, sizes))
        .rayon(|| rayon_squares(&threads, sizes)),
        Line::new("map 2,000 items of 100 us", Bar::TimesRayon(1.03), || {
            map_burns(&pool, sizes, units)
        })
        .limit(|| halves.burn(sizes.burns, units))
        .rayon(|| rayon_burns(&threads, sizes, units)),
        Line::new(
            "map 10,000 with chunk_size(1), each",
            Bar::AtMost(us(1)),
            || map_one_by_one(&pool, sizes),
        )
        .limit(|| spinning.round_trips(sizes.calls) / sizes.calls),
        Line::new("apply, back to back", Bar::AtMost(us(3)), || {
            apply(&pool, sizes.calls)
        })
        .limit(|| spinning.round_trips(sizes.calls) / sizes.calls)
        .rayon(|| rayon_install(&threads, sizes.calls)),
        Line::new("apply, idle for a second", Bar::TimesLimit(1.3), || {
            apply_when_idle(&pool, sizes)
        })
        .limit(|| {
            sleep(sizes.idle);
            sleeping.round_trips(1)
        }),
        Line::new(
            "first pool, until 2 answers",
            Bar::AtMost(us(2_000)),
            ourselves::first_pool,
        )
        .limit(ourselves::exec_and_wait)
        .rayon(rayon_pool_answers_twice),
        Line::new(
            "later pool, until 2 answers",
            Bar::AtMost(us(800)),
            ourselves::pool_of_two_answers_twice,
        )
        .rayon(rayon_pool_answers_twice),
    ];
    report::measure(&mut lines, sizes.rounds);

    // Apart from the rest, which is to run with the allocator as it is.
    allocator::keep_freed_memory();
    let mut mapping = WarmMapping::new(sizes.large_bytes);
    let mut large = [Line::new(
        "map 200 of 8 MiB to their length",
        Bar::TimesLimit(3.0),
        || map_large(&pool, sizes),
    )
    .limit(|| copy_large(&mut mapping, sizes))];
    report::measure(&mut large, sizes.rounds);

    if sizes.rounds == FULL.rounds {
        println!(
            "\nMedians of {} interleaved rounds, fastest in brackets.\n",
            sizes.rounds
        );
        let waiting = halves.kept_waiting();
        let busy = waiting > 0.05;
        report::print(lines.iter().chain(&large), busy);
        println!(
            "\nBaseline processes were kept waiting {:.1}% of their time by others{}.",
            waiting * 100.0,
            if busy { ": no verdict holds" } else { "" },
        );
    } else {
        println!("\nEvery result was right. The sizes are small and the times mean nothing.");
    }
    println!();
    drop(large);
    publish_large(&mut mapping, sizes);
    publish_apply(&pool, sizes);
    publish_imap(&pool, sizes);
    publish_many_workers(sizes);
}

/// How much of everything.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    rounds: usize,
    squares: usize,
    /// How often a short job is repeated for one sample.
    repeats: u32,
    burns: usize,
    burn: Duration,
    one_by_one: u32,
    calls: u32,
    idle: Duration,
    larges: usize,
    large_bytes: usize,
    percentile_calls: usize,
    many_workers: usize,
}

const FULL: Sizes = Sizes {
    rounds: 12,
    squares: 1_000_000,
    repeats: 5,
    burns: 2_000,
    burn: Duration::from_micros(100),
    one_by_one: 10_000,
    calls: 2_000,
    idle: Duration::from_secs(1),
    larges: 200,
    large_bytes: 8 << 20,
    percentile_calls: 100_000,
    many_workers: 200,
};

const TINY: Sizes = Sizes {
    rounds: 1,
    squares: 1_000,
    repeats: 1,
    burns: 20,
    burn: Duration::from_micros(10),
    one_by_one: 100,
    calls: 20,
    idle: Duration::from_millis(10),
    larges: 4,
    large_bytes: 1 << 20,
    percentile_calls: 1_000,
    many_workers: 4,
};

/// The result of `work`, and its time on average of so many times, after one for warming up.
fn timed<R>(times: u32, mut work: impl FnMut() -> R) -> (R, Duration) {
    let mut result = work();
    let mut elapsed = Duration::ZERO;
    for _ in 0..times {
        // The result before is dropped first, and that is not timed.
        drop(result);
        let start = Instant::now();
        result = work();
        elapsed += start.elapsed();
    }
    (result, elapsed / times)
}

fn check_squares(squares: &[u64], len: usize) {
    assert!(
        (0..len as u64).map(square).eq(squares.iter().copied()),
        "wrong squares"
    );
}

fn map_squares(pool: &Pool, sizes: Sizes) -> Duration {
    let (squares, time) = timed(sizes.repeats, || {
        pool.map(0..sizes.squares as u64, square).unwrap()
    });
    check_squares(&squares, sizes.squares);
    time
}

fn rayon_squares(threads: &ThreadPool, sizes: Sizes) -> Duration {
    let work = || {
        (0..sizes.squares as u64)
            .into_par_iter()
            .map(square)
            .collect::<Vec<_>>()
    };
    let (squares, time) = timed(sizes.repeats, || threads.install(work));
    check_squares(&squares, sizes.squares);
    time
}

fn halves_square(halves: &Halves, sizes: Sizes) -> Duration {
    check_squares(&halves.square().values, sizes.squares);
    (0..sizes.repeats)
        .map(|_| halves.square().ideal)
        .sum::<Duration>()
        / sizes.repeats
}

fn map_burns(pool: &Pool, sizes: Sizes, units: u64) -> Duration {
    let start = Instant::now();
    let results = pool.map(vec![units; sizes.burns], burn).unwrap();
    let elapsed = start.elapsed();
    assert_eq!(results, vec![burn(units); sizes.burns]);
    elapsed
}

fn rayon_burns(threads: &ThreadPool, sizes: Sizes, units: u64) -> Duration {
    let start = Instant::now();
    let items = vec![units; sizes.burns];
    let results: Vec<u64> = threads.install(|| items.into_par_iter().map(burn).collect());
    let elapsed = start.elapsed();
    assert_eq!(results, vec![burn(units); sizes.burns]);
    elapsed
}

fn map_one_by_one(pool: &Pool, sizes: Sizes) -> Duration {
    let items = 0..u64::from(sizes.one_by_one);
    let (squares, time) = timed(1, || {
        pool.job().chunk_size(1).map(items.clone(), square).unwrap()
    });
    check_squares(&squares, sizes.one_by_one as usize);
    time / sizes.one_by_one
}

fn apply(pool: &Pool, calls: u32) -> Duration {
    let call = || {
        (0..u64::from(calls))
            .map(|x| pool.apply(black_box(x), square).unwrap())
            .sum::<u64>()
    };
    let (sum, time) = timed(1, call);
    assert_eq!(sum, (0..u64::from(calls)).map(square).sum());
    time / calls
}

fn rayon_install(threads: &ThreadPool, calls: u32) -> Duration {
    let call = || {
        (0..u64::from(calls))
            .map(|x| threads.install(|| square(black_box(x))))
            .sum::<u64>()
    };
    timed(1, call).1 / calls
}

fn apply_when_idle(pool: &Pool, sizes: Sizes) -> Duration {
    sleep(sizes.idle);
    let start = Instant::now();
    let result = pool.apply(black_box(3), square).unwrap();
    let elapsed = start.elapsed();
    assert_eq!(result, 9);
    elapsed
}

fn rayon_pool_answers_twice() -> Duration {
    let start = Instant::now();
    let threads = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    black_box([
        threads.install(|| square(black_box(3))),
        threads.install(|| square(black_box(4))),
    ]);
    start.elapsed()
}

fn large_items(sizes: Sizes) -> Vec<Vec<u8>> {
    vec![vec![1; sizes.large_bytes]; sizes.larges]
}

fn map_large(pool: &Pool, sizes: Sizes) -> Duration {
    let items = large_items(sizes);
    let start = Instant::now();
    let lengths = pool.map(items, |item| item.len() as u64).unwrap();
    let elapsed = start.elapsed();
    assert_eq!(lengths, vec![sizes.large_bytes as u64; sizes.larges]);
    elapsed
}

fn copy_large(mapping: &mut WarmMapping, sizes: Sizes) -> Duration {
    let items = large_items(sizes);
    let start = Instant::now();
    let bytes = items.iter().map(|item| mapping.copy_in(item)).sum::<u64>();
    let elapsed = start.elapsed();
    assert_eq!(bytes, (sizes.large_bytes * sizes.larges) as u64);
    elapsed
}

/// The limit of the line of large items again, where the same warm item is copied over and over.
fn publish_large(mapping: &mut WarmMapping, sizes: Sizes) {
    let item = vec![1; sizes.large_bytes];
    let copy_all = || {
        (0..sizes.larges)
            .map(|_| mapping.copy_in(&item))
            .sum::<u64>()
    };
    let (_, time) = timed(sizes.repeats, copy_all);
    println!("the 8 MiB copies from one warm item: {}", Time(time));
}

fn publish_apply(pool: &Pool, sizes: Sizes) {
    let call = |x| {
        let start = Instant::now();
        let result = pool.apply(black_box(x), square).unwrap();
        let elapsed = start.elapsed();
        assert_eq!(result, square(x));
        elapsed
    };
    let times: Vec<Duration> = (0..sizes.percentile_calls as u64).map(call).collect();
    let [half, most, nearly_all] = [0.5, 0.99, 0.999].map(|part| Time(quantile(&times, part)));
    println!("apply, back to back: p50 {half}, p99 {most}, p99.9 {nearly_all}");
}

fn publish_imap(pool: &Pool, sizes: Sizes) {
    let first = |_| {
        let start = Instant::now();
        let mut results = pool.imap(1..=sizes.squares as u64, square);
        let first = results.next();
        let elapsed = start.elapsed();
        assert_eq!(first.unwrap().unwrap(), 1);
        elapsed
    };
    let times: Vec<Duration> = (0..sizes.rounds).map(first).collect();
    println!(
        "imap over 10^6 u64, until the first result: {}",
        summary(&times)
    );
}

/// Each worker is made to answer; then each has the memory that it keeps.
fn publish_many_workers(sizes: Sizes) {
    let start = Instant::now();
    let pool = Pool::builder().workers(sizes.many_workers).build().unwrap();
    let started = start.elapsed();
    let items = 0..sizes.many_workers as u64 * 10;
    let squares = pool.job().chunk_size(1).map(items, square).unwrap();
    let answered = start.elapsed();
    check_squares(&squares, sizes.many_workers * 10);

    let pids = pool.worker_pids();
    assert_eq!(pids.len(), sizes.many_workers);
    let kib = pids.iter().map(|pid| proportional_kib(*pid)).sum::<u64>();
    let start = Instant::now();
    drop(pool);
    println!(
        "{} workers: built in {}, 10 items for each answered after {}, gone in {}; \
         {:.1} MiB (PSS) in all, {} KiB each",
        sizes.many_workers,
        Time(started),
        Time(answered),
        Time(start.elapsed()),
        kib as f64 / 1024.0,
        kib / sizes.many_workers as u64,
    );
}

/// The memory of a process, with its part of what it shares (PSS).
fn proportional_kib(pid: u32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let pss = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .unwrap();
    pss.trim().trim_end_matches(" kB").parse().unwrap()
}
