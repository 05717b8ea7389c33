//! How fast a pool of two workers is, each job next to what it could cost at best and to threads.

#![allow(clippy::unwrap_used, reason = "a bench that cannot run is to stop")]

mod baseline;

use std::hint::black_box;
use std::thread::sleep;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, SamplingMode, Throughput};
use multiprocess::Pool;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

use baseline::ideal::{Halves, WarmMapping};
use baseline::ping::{SleepingPeer, SpinningPeer};
use baseline::work::{burn, square, units_for};
use baseline::{allocator, ourselves};

fn main() {
    if ourselves::play_role() {
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    map_million_u64(&mut criterion);
    map_100us(&mut criterion);
    map_chunk1(&mut criterion);
    apply(&mut criterion);
    apply_when_idle(&mut criterion);
    // Last, as it changes the allocator.
    map_8mib(&mut criterion);
    criterion.final_summary();
}

fn two_workers() -> Pool {
    Pool::builder().workers(2).build().unwrap()
}

fn two_threads() -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(2).build().unwrap()
}

/// Almost nothing to compute: what a pool spends on moving items is nearly all.
fn map_million_u64(criterion: &mut Criterion) {
    const LEN: u64 = 1_000_000;
    let halves = Halves::fork(LEN as usize);
    let pool = two_workers();
    let threads = two_threads();
    assert!(
        pool.map(0..LEN, square)
            .unwrap()
            .into_iter()
            .eq((0..LEN).map(square))
    );

    let mut group = criterion.benchmark_group("map_million_u64");
    group.throughput(Throughput::Elements(LEN));
    group.bench_function("pool", |b| {
        b.iter(|| pool.map(0..black_box(LEN), square).unwrap())
    });
    group.bench_function("limit", |b| {
        b.iter_custom(|rounds| (0..rounds).map(|_| halves.square().ideal).sum())
    });
    group.bench_function("rayon", |b| {
        b.iter(|| {
            threads.install(|| {
                (0..black_box(LEN))
                    .into_par_iter()
                    .map(square)
                    .collect::<Vec<_>>()
            })
        });
    });
    group.bench_function("serial", |b| {
        b.iter(|| (0..black_box(LEN)).map(square).collect::<Vec<_>>())
    });
    group.finish();
}

/// Items worth a process: what a pool spends should not be seen.
fn map_100us(criterion: &mut Criterion) {
    const LEN: usize = 2_000;
    let halves = Halves::fork(0);
    let pool = two_workers();
    let threads = two_threads();
    let units = units_for(Duration::from_micros(100));
    let items = vec![units; LEN];
    assert_eq!(
        pool.map(items.clone(), burn).unwrap(),
        vec![burn(units); LEN]
    );

    let mut group = criterion.benchmark_group("map_100us");
    group
        .throughput(Throughput::Elements(LEN as u64))
        .sampling_mode(SamplingMode::Flat);
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(5));
    group.bench_function("pool", |b| {
        b.iter(|| pool.map(items.iter().copied(), burn).unwrap())
    });
    group.bench_function("limit", |b| {
        b.iter_custom(|rounds| (0..rounds).map(|_| halves.burn(LEN, units)).sum())
    });
    group.bench_function("rayon", |b| {
        b.iter(|| threads.install(|| items.par_iter().copied().map(burn).collect::<Vec<_>>()));
    });
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(2));
    group.bench_function("serial", |b| {
        b.iter(|| items.iter().copied().map(burn).collect::<Vec<_>>())
    });
    group.finish();
}

/// One message each way for every item.
fn map_chunk1(criterion: &mut Criterion) {
    const LEN: u64 = 10_000;
    let spinning = SpinningPeer::fork();
    let pool = two_workers();
    assert!(
        pool.job()
            .chunk_size(1)
            .map(0..LEN, square)
            .unwrap()
            .into_iter()
            .eq((0..LEN).map(square))
    );

    let mut group = criterion.benchmark_group("map_chunk1");
    group.throughput(Throughput::Elements(LEN));
    group.bench_function("pool", |b| {
        b.iter(|| {
            pool.job()
                .chunk_size(1)
                .map(0..black_box(LEN), square)
                .unwrap()
        })
    });
    group.bench_function("limit", |b| {
        b.iter_custom(|rounds| (0..rounds).map(|_| spinning.round_trips(LEN as u32)).sum());
    });
    group.finish();
}

/// One call after the other, while nobody has had the time to fall asleep.
fn apply(criterion: &mut Criterion) {
    let spinning = SpinningPeer::fork();
    let pool = two_workers();
    let threads = two_threads();
    assert_eq!(pool.apply(3, square).unwrap(), 9);

    let mut group = criterion.benchmark_group("apply");
    group.bench_function("pool", |b| {
        b.iter(|| pool.apply(black_box(3), square).unwrap())
    });
    group.bench_function("limit", |b| {
        b.iter_custom(|rounds| spinning.round_trips(u32::try_from(rounds).unwrap()))
    });
    group.bench_function("rayon", |b| {
        b.iter(|| threads.install(|| square(black_box(3))))
    });
    group.finish();
}

/// One call after a second in which everybody slept.
fn apply_when_idle(criterion: &mut Criterion) {
    const IDLE: Duration = Duration::from_secs(1);
    let sleeping = SleepingPeer::fork();
    let pool = two_workers();
    assert_eq!(pool.apply(3, square).unwrap(), 9);

    let mut group = criterion.benchmark_group("apply_when_idle");
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(12));
    group.bench_function("pool", |b| {
        b.iter_custom(|rounds| {
            let call = |_| {
                sleep(IDLE);
                let start = Instant::now();
                black_box(pool.apply(black_box(3), square).unwrap());
                start.elapsed()
            };
            (0..rounds).map(call).sum()
        });
    });
    group.bench_function("limit", |b| {
        b.iter_custom(|rounds| {
            let call = |_| {
                sleep(IDLE);
                sleeping.round_trips(1)
            };
            (0..rounds).map(call).sum()
        });
    });
    group.finish();
}

/// Items so large that moving their bytes is all there is. The limit copies each of the same items
/// once.
fn map_8mib(criterion: &mut Criterion) {
    const LEN: usize = 200;
    const BYTES: usize = 8 << 20;
    let pool = two_workers();
    let mut mapping = WarmMapping::new(BYTES);
    allocator::keep_freed_memory();
    let items = || vec![vec![1_u8; BYTES]; LEN];
    let length = |item: Vec<u8>| item.len() as u64;
    assert_eq!(pool.map(items(), length).unwrap(), [BYTES as u64; LEN]);

    let mut group = criterion.benchmark_group("map_8mib");
    group
        .throughput(Throughput::Bytes((LEN * BYTES) as u64))
        .sampling_mode(SamplingMode::Flat);
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(5));
    group.bench_function("pool", |b| {
        b.iter_batched(
            items,
            |items| pool.map(items, length).unwrap(),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("limit", |b| {
        let mut copy_each =
            |items: Vec<Vec<u8>>| items.iter().map(|item| mapping.copy_in(item)).sum::<u64>();
        b.iter_batched(items, &mut copy_each, BatchSize::PerIteration);
    });
    group.finish();
}
