//! What a pipe costs: round trips on two processors and on one, and messages one way, beside the bare mechanisms.

#![allow(clippy::unwrap_used, reason = "a bench that cannot run is to stop")]

mod baseline;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use multiprocess::{Pipe, Process};

use baseline::ping::{SleepingPeer, SpinningPeer};
use baseline::processor;
use baseline::socket::SocketPeer;

fn main() {
    if baseline::ourselves::play_role() {
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    one_way(&mut criterion);
    round_trip(&mut criterion, "pipe_round_trip", None);
    // From here on this process stays on one processor, and so do those that it forks.
    processor::stay_on(0);
    round_trip(&mut criterion, "pipe_round_trip_on_one_processor", Some(0));
    criterion.final_summary();
}

/// A process that sends each number back, on one processor if that is asked for.
fn echo(processor: Option<usize>) -> (Pipe<u64>, Process) {
    let (here, there) = Pipe::<u64>::pair().unwrap();
    type Given = (Pipe<u64>, Option<usize>);
    let child = Process::builder().daemon(true);
    let child = child.spawn((there, processor), |(pipe, processor): Given| {
        if let Some(processor) = processor {
            processor::stay_on(processor);
        }
        for number in pipe.iter() {
            pipe.send(number).unwrap();
        }
    });
    (here, child.unwrap())
}

fn round_trip(criterion: &mut Criterion, name: &str, processor: Option<usize>) {
    let mut group = criterion.benchmark_group(name);
    let (pipe, child) = echo(processor);
    group.bench_function("pipe", |b| {
        b.iter(|| {
            pipe.send(black_box(7)).unwrap();
            pipe.recv().unwrap()
        });
    });
    drop(pipe);
    child.join().unwrap();
    if processor.is_none() {
        let spinning = SpinningPeer::fork();
        group.bench_function("shared_word", |b| {
            b.iter_custom(|rounds| spinning.round_trips(rounds as u32));
        });
    }
    let sleeping = SleepingPeer::fork();
    group.bench_function("futex", |b| {
        b.iter_custom(|rounds| sleeping.round_trips(rounds as u32));
    });
    let mut socket = SocketPeer::fork(size_of::<u64>(), size_of::<u64>());
    group.bench_function("socket", |b| b.iter(|| socket.call(&[1; 8])));
    group.finish();
}

/// Messages of one size go to another process, which counts them and says when it has all.
fn one_way(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pipe_one_way");
    let (here, there) = Pipe::<u64>::pair().unwrap();
    let child: Process = Process::spawn((there,), |(pipe,): (Pipe<u64>,)| {
        while let Ok(count) = pipe.recv() {
            (0..count).for_each(|at| assert_eq!(pipe.recv().unwrap(), at));
            pipe.send(count).unwrap();
        }
    })
    .unwrap();
    group.throughput(Throughput::Elements(1));
    group.bench_function("u64", |b| {
        b.iter_custom(|count| {
            let start = Instant::now();
            here.send(count).unwrap();
            (0..count).for_each(|at| here.send(at).unwrap());
            assert_eq!(here.recv().unwrap(), count);
            start.elapsed()
        });
    });
    drop(here);
    child.join().unwrap();
    for size in [1 << 10, 64 << 10, 1 << 20] {
        let (here, there) = Pipe::<u64>::pair().unwrap();
        let child: Process = Process::spawn((there, size), |(pipe, size): (Pipe<u64>, usize)| {
            let mut buffer = vec![1; size];
            while let Ok(count) = pipe.recv() {
                for _ in 0..count {
                    assert_eq!(pipe.recv_bytes_into(&mut buffer).unwrap(), size);
                }
                pipe.send(count).unwrap();
            }
        })
        .unwrap();
        let message = vec![1; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("bytes", size), |b| {
            b.iter_custom(|count| bytes_one_way(&here, &message, count));
        });
        drop(here);
        child.join().unwrap();
    }
    group.finish();
}

fn bytes_one_way(pipe: &Pipe<u64>, message: &[u8], count: u64) -> Duration {
    let start = Instant::now();
    pipe.send(count).unwrap();
    (0..count).for_each(|_| pipe.send_bytes(message).unwrap());
    assert_eq!(pipe.recv().unwrap(), count);
    start.elapsed()
}
