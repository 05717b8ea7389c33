//! What locks and barriers cost: nobody else wants them, and two processes do. Next to std's, for threads, and to the C
//! library's robust mutex, for processes.

#![allow(clippy::unwrap_used, reason = "a bench that cannot run is to stop")]

mod baseline;

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use criterion::Criterion;
use multiprocess::{Barrier, Condition, Lock, Process, RLock};

use baseline::mutex::{RobustMutex, TwoCounters};
use baseline::ourselves;

fn main() {
    if ourselves::play_role() {
        return;
    }
    let counters = TwoCounters::fork();
    let mut criterion = Criterion::default().configure_from_args();
    uncontended(&mut criterion);
    two_count(&mut criterion, &counters);
    two_meet(&mut criterion);
    criterion.final_summary();
}

/// One process, which takes and gives up.
fn uncontended(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("uncontended");
    let plain = Lock::new(()).unwrap();
    group.bench_function("Lock<()>", |b| b.iter(|| drop(plain.lock().unwrap())));
    let number = Lock::new(0_u64).unwrap();
    group.bench_function("Lock<u64> += 1", |b| {
        b.iter(|| *number.lock().unwrap() += 1);
    });
    let recursive = RLock::new().unwrap();
    group.bench_function("RLock", |b| b.iter(|| drop(recursive.lock().unwrap())));
    let condition = Condition::new().unwrap();
    group.bench_function("Condition::notify_one", |b| {
        b.iter(|| condition.notify_one());
    });
    let std = Mutex::new(0_u64);
    group.bench_function("std Mutex<u64> += 1", |b| {
        b.iter(|| *std.lock().unwrap() += 1);
    });
    let robust = RobustMutex::new();
    group.bench_function("pthread robust += 1", |b| b.iter(|| robust.count_one()));
    group.finish();
}

/// Two that count up one number, for each time that one of them does.
fn two_count(criterion: &mut Criterion, counters: &TwoCounters) {
    let mut group = criterion.benchmark_group("two_count");
    group.sample_size(20);
    let number = Lock::new(0_u64).unwrap();
    let start = Barrier::new(2).unwrap();
    group.bench_function("Lock<u64>, processes", |b| {
        b.iter_custom(|rounds| {
            let before = *number.lock().unwrap();
            let elapsed = slower_of_two(
                rounds,
                &(number.clone(), start.clone()),
                |(number, start), each| {
                    start.wait().unwrap();
                    let started = Instant::now();
                    for _ in 0..each {
                        *number.lock().unwrap() += 1;
                    }
                    started.elapsed()
                },
            );
            assert_eq!(*number.lock().unwrap(), before + 2 * rounds.div_ceil(2));
            elapsed
        });
    });
    group.bench_function("std Mutex<u64>, threads", |b| {
        b.iter_custom(|rounds| {
            let number = Arc::new(Mutex::new(0_u64));
            let start = Arc::new(std::sync::Barrier::new(2));
            let threads = [0, 1].map(|_| {
                let (number, start) = (Arc::clone(&number), Arc::clone(&start));
                thread::spawn(move || {
                    start.wait();
                    let started = Instant::now();
                    for _ in 0..rounds.div_ceil(2) {
                        *number.lock().unwrap() += 1;
                    }
                    started.elapsed()
                })
            });
            threads
                .map(|thread| thread.join().unwrap())
                .into_iter()
                .max()
                .unwrap()
        });
    });
    group.bench_function("pthread robust, processes", |b| {
        b.iter_custom(|rounds| counters.count(rounds.div_ceil(2)));
    });
    group.finish();
}

/// Two that meet, round after round.
fn two_meet(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("two_meet");
    group.sample_size(20);
    let barrier = Barrier::new(2).unwrap();
    group.bench_function("Barrier, processes", |b| {
        b.iter_custom(|rounds| {
            // Each does all rounds: `slower_of_two` halves them.
            slower_of_two(2 * rounds, &barrier, |barrier, each| {
                barrier.wait().unwrap();
                let started = Instant::now();
                for _ in 0..each {
                    barrier.wait().unwrap();
                }
                started.elapsed()
            })
        });
    });
    group.bench_function("std Barrier, threads", |b| {
        b.iter_custom(|rounds| {
            let barrier = Arc::new(std::sync::Barrier::new(2));
            let threads = [0, 1].map(|_| {
                let barrier = Arc::clone(&barrier);
                thread::spawn(move || {
                    barrier.wait();
                    let started = Instant::now();
                    for _ in 0..rounds {
                        barrier.wait();
                    }
                    started.elapsed()
                })
            });
            threads
                .map(|thread| thread.join().unwrap())
                .into_iter()
                .max()
                .unwrap()
        });
    });
    group.finish();
}

/// Has two processes do half of the rounds each, and returns how long the slower one took.
fn slower_of_two<S, F>(rounds: u64, shared: &S, run: F) -> Duration
where
    S: multiprocess::Portable + Clone,
    F: Fn(S, u64) -> Duration + Copy + 'static,
{
    let half = || (shared.clone(), rounds.div_ceil(2));
    let processes = [half(), half()]
        .map(|half| Process::spawn(half, move |(shared, each)| run(shared, each)).unwrap());
    let elapsed = processes.map(|process| process.join().unwrap());
    elapsed[0].max(elapsed[1])
}
