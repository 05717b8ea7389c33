//! What it costs to hand 8 MiB to another process that are in shared memory already, and to read them there: as a
//! `SharedSlice` through a pool of one worker, and as a bare descriptor over a bare socket. Then what values and semaphores
//! cost that nobody else wants.

#![allow(clippy::unwrap_used, reason = "a bench that cannot run is to stop")]

mod baseline;

use std::hint::black_box;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::Criterion;
use multiprocess::{Array, Event, Pool, Semaphore, SharedSlice, Value};

use baseline::passing::{PassingPeer, memory_file};

/// So many slices that a worker to which they go in turn has none of them from the time before.
const MANY: usize = 16;

/// 8 MiB of them.
const NUMBERS: usize = 1 << 20;
const BYTES: usize = NUMBERS * 8;

fn main() {
    if baseline::ourselves::play_role() {
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    hand_over(&mut criterion);
    alone(&mut criterion);
    criterion.final_summary();
}

/// "again" is a hand-over to a process that had the slice for the call before. What is the pool's own share is "nothing".
fn hand_over(criterion: &mut Criterion) {
    let mut peer = PassingPeer::fork();
    let numbers: Vec<u64> = (0..NUMBERS as u64).collect();
    let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_ne_bytes()).collect();
    let file = memory_file(&bytes);
    let slices: Vec<_> = (0..MANY)
        .map(|_| SharedSlice::from_slice(&numbers).unwrap())
        .collect();
    let slice = &slices[0];
    let mut turns = slices.iter().cycle();
    let mut next = || turns.next().unwrap().clone();
    let pool = Pool::builder().workers(1).build().unwrap();
    let sum: u64 = numbers.iter().sum();
    assert_eq!(pool.apply(slice.clone(), sum_of).unwrap(), sum);
    assert_eq!(peer.pass(file.as_fd(), BYTES, BYTES), sum);

    let mut group = criterion.benchmark_group("8_mib");
    group.bench_function("nothing", |b| {
        b.iter(|| pool.apply(black_box(7_u64), |n| n).unwrap());
    });
    group.bench_function("handed_over", |b| {
        b.iter(|| pool.apply(next(), |slice| slice.len()).unwrap());
    });
    group.bench_function("descriptor_passed", |b| {
        b.iter(|| peer.pass(file.as_fd(), BYTES, 0));
    });
    group.bench_function("read_through", |b| {
        b.iter(|| pool.apply(next(), sum_of).unwrap());
    });
    group.bench_function("descriptor_read_through", |b| {
        b.iter(|| peer.pass(file.as_fd(), BYTES, BYTES));
    });
    group.bench_function("handed_over_again", |b| {
        b.iter(|| pool.apply(slice.clone(), |slice| slice.len()).unwrap());
    });
    group.bench_function("read_through_again", |b| {
        b.iter(|| pool.apply(slice.clone(), sum_of).unwrap());
    });
    group.finish();
}

fn sum_of(slice: SharedSlice<u64>) -> u64 {
    slice.iter().sum()
}

/// One thread, nobody else.
fn alone(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("alone");
    let atomic = AtomicU64::new(0);
    group.bench_function("atomic_fetch_add", |b| {
        b.iter(|| atomic.fetch_add(black_box(1), Ordering::SeqCst));
    });
    let value = Value::new(0_u64).unwrap();
    group.bench_function("value_fetch_add", |b| {
        b.iter(|| value.fetch_add(black_box(1)))
    });
    group.bench_function("value_update", |b| {
        b.iter(|| value.update(|n| n + black_box(1)))
    });
    let block = Value::new([0_u64; 8]).unwrap();
    group.bench_function("value_of_64_bytes_get", |b| b.iter(|| block.get()));
    group.bench_function("value_of_64_bytes_update", |b| {
        b.iter(|| block.update(|block| block.map(|n| n + black_box(1))));
    });
    let semaphore = Semaphore::new(1).unwrap();
    group.bench_function("semaphore", |b| {
        b.iter(|| {
            semaphore.acquire();
            semaphore.release().unwrap();
        });
    });
    let event = Event::new().unwrap();
    group.bench_function("event_set", |b| b.iter(|| event.set()));
    group.bench_function("event_is_set", |b| b.iter(|| event.is_set()));
    let array: Array<u64> = Array::new(NUMBERS).unwrap();
    array.lock().fill(1);
    group.bench_function("array_get", |b| b.iter(|| array.get(black_box(5))));
    group.bench_function("array_of_8_mib_lock", |b| b.iter(|| array.lock()[5]));
    group.bench_function("array_of_8_mib_change", |b| b.iter(|| array.lock()[5] += 1));
    group.finish();
}
