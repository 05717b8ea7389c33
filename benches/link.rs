//! What a round trip between two processes costs by the size of what travels: through a pool of one
//! worker, and over a bare socket.

#![allow(clippy::unwrap_used, reason = "a bench that cannot run is to stop")]

mod baseline;

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use multiprocess::Pool;

use baseline::socket::SocketPeer;

const SIZES: [usize; 4] = [8, 1 << 10, 64 << 10, 1 << 20];
/// What travels in the other direction.
const SMALL: usize = size_of::<u64>();

fn main() {
    if baseline::ourselves::play_role() {
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    there(&mut criterion);
    and_back(&mut criterion);
    criterion.final_summary();
}

/// The bytes go to the other process, and their number comes back.
fn there(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("round_trip_there");
    for size in SIZES {
        let mut socket = SocketPeer::fork(size, SMALL);
        let pool = Pool::builder().workers(1).build().unwrap();
        assert_eq!(
            pool.apply(vec![1_u8; size], |bytes| bytes.len() as u64)
                .unwrap(),
            size as u64
        );
        let batch = if size > 1 << 10 {
            BatchSize::LargeInput
        } else {
            BatchSize::SmallInput
        };

        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("pool", size), |b| {
            b.iter_batched(
                || vec![1_u8; size],
                |bytes| pool.apply(bytes, |bytes| bytes.len() as u64).unwrap(),
                batch,
            );
        });
        group.bench_function(BenchmarkId::new("socket", size), |b| {
            b.iter_batched(|| vec![1_u8; size], |bytes| socket.call(&bytes), batch);
        });
    }
    group.finish();
}

/// A number goes to the other process, and that many bytes come back.
fn and_back(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("round_trip_and_back");
    for size in SIZES {
        let mut socket = SocketPeer::fork(SMALL, size);
        let pool = Pool::builder().workers(1).build().unwrap();
        assert_eq!(
            pool.apply(size, |size| vec![0_u8; size]).unwrap(),
            vec![0; size]
        );

        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("pool", size), |b| {
            b.iter(|| {
                pool.apply(black_box(size), |size| vec![0_u8; size])
                    .unwrap()
            });
        });
        group.bench_function(BenchmarkId::new("socket", size), |b| {
            b.iter(|| socket.call(&[1; SMALL]))
        });
    }
    group.finish();
}
