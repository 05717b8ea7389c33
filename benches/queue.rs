//! Queues: one to one, two to two, round trips, large messages; beside std's channel between threads and a socket pair.

#![allow(
    clippy::unwrap_used,
    reason = "a benchmark that fails has nothing to measure"
)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use multiprocess::{Process, Queue};
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Puts `each` numbers in each of `sides` processes, gets them in as many, and tells how long all of it took.
fn stream(queue: &Queue<u64>, sides: u64, each: u64) -> Duration {
    let ready = Queue::<()>::new().unwrap();
    let go = Queue::<()>::new().unwrap();
    let putters: Vec<Process<()>> = (0..sides)
        .map(|_| {
            let args = (queue.clone(), ready.clone(), go.clone(), each);
            Process::spawn(
                args,
                |(queue, ready, go, each): (Queue<u64>, Queue<()>, Queue<()>, u64)| {
                    ready.put(()).unwrap();
                    go.get().unwrap();
                    for number in 0..each {
                        queue.put(number).unwrap();
                    }
                },
            )
            .unwrap()
        })
        .collect();
    let others: Vec<Process<u64>> = (1..sides)
        .map(|_| {
            Process::spawn((queue.clone(), each), |(queue, each): (Queue<u64>, u64)| {
                (0..each).map(|_| queue.get().unwrap()).sum::<u64>()
            })
            .unwrap()
        })
        .collect();
    for _ in 0..sides {
        ready.get().unwrap();
    }
    let start = Instant::now();
    for _ in 0..sides {
        go.put(()).unwrap();
    }
    let mut sum: u64 = (0..each).map(|_| queue.get().unwrap()).sum();
    let took = start.elapsed();
    for other in others {
        sum += other.join().unwrap();
    }
    for putter in putters {
        putter.join().unwrap();
    }
    assert_eq!(sum, sides * (0..each).sum::<u64>());
    took
}

fn streams(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue of u64");
    group.sample_size(10);
    group.throughput(Throughput::Elements(1));
    let smallest = |count: u64| count.max(1000);
    for sides in [1, 2] {
        group.bench_function(format!("{sides} to {sides}"), |bencher| {
            bencher.iter_custom(|count| {
                let each = smallest(count / sides);
                let took = stream(&Queue::new().unwrap(), sides, each);
                took.mul_f64(count as f64 / (each * sides) as f64)
            });
        });
        group.bench_function(format!("{sides} to {sides}, bounded to 1024"), |bencher| {
            bencher.iter_custom(|count| {
                let each = smallest(count / sides);
                let took = stream(&Queue::bounded(1024).unwrap(), sides, each);
                took.mul_f64(count as f64 / (each * sides) as f64)
            });
        });
    }
    group.bench_function("put and get by one process", |bencher| {
        let queue = Queue::new().unwrap();
        bencher.iter(|| {
            queue.put(black_box(7_u64)).unwrap();
            queue.get().unwrap()
        });
    });
    group.bench_function("1 to 1, std::sync::mpsc between threads", |bencher| {
        bencher.iter_custom(|count| {
            let (sender, receiver) = mpsc::channel();
            let putter = thread::spawn(move || {
                for number in 0..count {
                    sender.send(number).unwrap();
                }
            });
            let start = Instant::now();
            let sum: u64 = receiver.iter().sum();
            let took = start.elapsed();
            putter.join().unwrap();
            assert_eq!(sum, (0..count).sum::<u64>());
            took
        });
    });
    group.finish();
}

fn round_trips(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("round trip of u64");
    group.sample_size(20);
    group.bench_function("two queues", |bencher| {
        let (there, back) = (Queue::new().unwrap(), Queue::new().unwrap());
        let echo = Process::spawn(
            (there.clone(), back.clone()),
            |(there, back): (Queue<u64>, Queue<u64>)| {
                for number in there.iter() {
                    back.put(number + 1).unwrap();
                }
            },
        )
        .unwrap();
        bencher.iter(|| {
            there.put(black_box(1)).unwrap();
            assert_eq!(back.get().unwrap(), 2);
        });
        there.close();
        echo.join().unwrap();
    });
    group.bench_function("socket pair between threads", |bencher| {
        let (mut here, mut there) = UnixStream::pair().unwrap();
        let echo = thread::spawn(move || {
            let mut number = [0; 8];
            while there.read_exact(&mut number).is_ok() {
                there.write_all(&number).unwrap();
            }
        });
        bencher.iter(|| {
            let mut number = black_box(1_u64).to_ne_bytes();
            here.write_all(&number).unwrap();
            here.read_exact(&mut number).unwrap();
        });
        drop(here);
        echo.join().unwrap();
    });
    group.finish();
}

fn large(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue of 1 MiB");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(1 << 20));
    group.bench_function("1 to 1, bounded to 8", |bencher| {
        bencher.iter_custom(|count| {
            let queue = Queue::bounded(8).unwrap();
            let putter = Process::spawn(
                (queue.clone(), count),
                |(queue, count): (Queue<Vec<u8>>, u64)| {
                    let mut bytes = vec![1; 1 << 20];
                    queue.put(bytes.clone()).unwrap();
                    for _ in 0..count {
                        queue.put(bytes).unwrap();
                        bytes = vec![1; 1 << 20];
                    }
                },
            )
            .unwrap();
            queue.get().unwrap();
            let start = Instant::now();
            for _ in 0..count {
                assert_eq!(queue.get().unwrap().len(), 1 << 20);
            }
            let took = start.elapsed();
            putter.join().unwrap();
            took
        });
    });
    group.finish();
}

criterion_group!(benches, streams, round_trips, large);
criterion_main!(benches);
