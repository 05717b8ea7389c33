//! What a user of threads would pick: rayon, crossbeam's channels, std.

use std::hint::black_box;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, unbounded};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::baseline::processor;
use crate::baseline::work::{burn, square};
use crate::ours::{BURNS, IDLE, MILLION, burn_units};
use crate::sample::{Measure, all, each, quantiles, told};

pub(crate) fn measure(job: &str) -> Option<Measure> {
    match job {
        "map_million" => map_million(),
        "map_100us" => map_100us(),
        "apply" => install(),
        "apply_idle" => install_idle(),
        "first_pool" | "later_pool" => told(pool_answers_twice),
        "spawn" | "spawn_1gib" => each(|| thread::spawn(|| ()).join().unwrap()),
        "pipe_rtt" | "pipe_rtt_one" | "queue_rtt" => round_trip(),
        "pipe_u64" | "queue_11" => all(|count| stream(1, count)),
        "queue_22" => all(|count| stream(2, count)),
        "lock" => {
            let number = Mutex::new(0_u64);
            each(move || *number.lock().unwrap() += black_box(1))
        }
        "lock_two" => all(|count| {
            let number = Arc::new(Mutex::new(0_u64));
            slower_of_two(move |_| {
                (0..count.div_ceil(2)).for_each(|_| *number.lock().unwrap() += 1);
            })
        }),
        "barrier" => all(|count| {
            let barrier = Arc::new(Barrier::new(2));
            slower_of_two(move |n| {
                processor::stay_on(n);
                (0..count).for_each(|_| drop(barrier.wait()));
            })
        }),
        _ => None,
    }
}

pub(crate) fn two_threads() -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(2).build().unwrap()
}

fn map_million() -> Option<Measure> {
    let threads = two_threads();
    told(move || {
        let start = Instant::now();
        let work = || {
            (0..black_box(MILLION))
                .into_par_iter()
                .map(square)
                .collect::<Vec<_>>()
        };
        let squares = threads.install(work);
        let elapsed = start.elapsed();
        assert_eq!(squares.len() as u64, MILLION);
        elapsed
    })
}

fn map_100us() -> Option<Measure> {
    let threads = two_threads();
    let units = burn_units();
    told(move || {
        let start = Instant::now();
        let items = vec![units; BURNS];
        let results: Vec<u64> = threads.install(|| items.into_par_iter().map(burn).collect());
        let elapsed = start.elapsed();
        assert_eq!(results.len(), BURNS);
        elapsed
    })
}

fn install() -> Option<Measure> {
    let threads = two_threads();
    Some(Box::new(move |count| {
        let call = |x| {
            let start = Instant::now();
            let result = threads.install(|| square(black_box(x)));
            let elapsed = start.elapsed();
            assert_eq!(result, square(x));
            elapsed
        };
        quantiles((0..count).map(call).collect())
    }))
}

fn install_idle() -> Option<Measure> {
    let threads = two_threads();
    told(move || {
        thread::sleep(IDLE);
        let start = Instant::now();
        black_box(threads.install(|| square(black_box(3))));
        start.elapsed()
    })
}

fn pool_answers_twice() -> Duration {
    let start = Instant::now();
    let threads = two_threads();
    black_box([3, 4].map(|x| threads.install(|| square(black_box(x)))));
    start.elapsed()
}

fn round_trip() -> Option<Measure> {
    let ((there, their), (back, ours)) = (bounded::<u64>(1), bounded::<u64>(1));
    thread::spawn(move || {
        their
            .iter()
            .for_each(|number| back.send(number + 1).unwrap())
    });
    each(move || {
        there.send(black_box(7)).unwrap();
        assert_eq!(ours.recv().unwrap(), 8);
    })
}

fn stream(sides: u64, count: u64) -> Duration {
    let each = count.div_ceil(sides);
    let (sender, receiver) = unbounded::<u64>();
    let start = Instant::now();
    let putters: Vec<_> = (0..sides)
        .map(|_| {
            let sender = sender.clone();
            thread::spawn(move || (0..each).for_each(|number| sender.send(number).unwrap()))
        })
        .collect();
    let get = |receiver: crossbeam_channel::Receiver<u64>| {
        move || (0..each).map(|_| receiver.recv().unwrap()).sum::<u64>()
    };
    let getters: Vec<_> = (1..sides)
        .map(|_| thread::spawn(get(receiver.clone())))
        .collect();
    let mut sum = get(receiver)();
    sum += getters
        .into_iter()
        .map(|getter| getter.join().unwrap())
        .sum::<u64>();
    let elapsed = start.elapsed();
    putters
        .into_iter()
        .for_each(|putter| putter.join().unwrap());
    assert_eq!(sum, sides * (0..each).sum::<u64>());
    elapsed
}

fn slower_of_two(work: impl Fn(usize) + Clone + Send + 'static) -> Duration {
    let start = Arc::new(Barrier::new(2));
    let threads = [0, 1].map(|n| {
        let (start, work) = (Arc::clone(&start), work.clone());
        thread::spawn(move || {
            start.wait();
            let started = Instant::now();
            work(n);
            started.elapsed()
        })
    });
    let elapsed = threads.map(|thread| thread.join().unwrap());
    elapsed[0].max(elapsed[1])
}
