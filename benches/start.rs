//! What starting costs: a program's first pool, a later one, a process; next to a bare fork, an
//! executed program and a thread.

#![allow(clippy::unwrap_used, reason = "a bench that cannot run is to stop")]

mod baseline;

use std::thread;
use std::time::Duration;

use criterion::{Criterion, SamplingMode};
use multiprocess::{Pool, Process, StartMethod};

use baseline::child::fork_and_wait;
use baseline::ourselves;
use baseline::work::square;

fn main() {
    if ourselves::play_role() {
        return;
    }
    let mut criterion = Criterion::default().configure_from_args();
    first_pool(&mut criterion);
    later_pool(&mut criterion);
    process(&mut criterion);
    large_parent(&mut criterion);
    criterion.final_summary();
}

/// From the first line of a program until its first pool of two workers has answered two calls.
/// Each sample is a program of its own.
fn first_pool(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("first_pool");
    group.sampling_mode(SamplingMode::Flat).sample_size(30);
    group.bench_function("pool", |b| {
        b.iter_custom(|rounds| (0..rounds).map(|_| ourselves::first_pool()).sum())
    });
    group.bench_function("exec", |b| b.iter(ourselves::exec_and_wait));
    group.finish();
}

/// The same where there has been a pool before, until the answers and until the end.
fn later_pool(criterion: &mut Criterion) {
    ourselves::pool_of_two_answers_twice();

    let mut group = criterion.benchmark_group("later_pool");
    group.sample_size(50);
    group.bench_function("pool", |b| {
        b.iter_custom(|rounds| {
            (0..rounds)
                .map(|_| ourselves::pool_of_two_answers_twice())
                .sum()
        });
    });
    group.bench_function("pool_and_its_end", |b| {
        b.iter(|| {
            let pool = Pool::builder().workers(2).build().unwrap();
            [
                pool.apply(3, square).unwrap(),
                pool.apply(4, square).unwrap(),
            ]
        });
    });
    group.finish();
}

/// A process that does nothing, until it is joined.
fn process(criterion: &mut Criterion) {
    assert_eq!(Process::spawn(3, square).unwrap().join().unwrap(), 9);

    let mut group = criterion.benchmark_group("process");
    group
        .sample_size(50)
        .measurement_time(Duration::from_secs(3));
    group.bench_function("fork_server", |b| b.iter(|| start(StartMethod::ForkServer)));
    group.bench_function("spawn", |b| b.iter(|| start(StartMethod::Spawn)));
    group.bench_function("fork", |b| b.iter(fork_and_wait));
    group.bench_function("exec", |b| b.iter(ourselves::exec_and_wait));
    group.bench_function("thread", |b| {
        b.iter(|| thread::spawn(|| ()).join().unwrap())
    });
    group.finish();
}

/// The same from a program that holds much memory; a bare fork copies its page tables.
fn large_parent(criterion: &mut Criterion) {
    let is_trial = std::env::args().any(|argument| argument == "--test");
    let sizes: &[usize] = if is_trial { &[10] } else { &[10, 1024, 4096] };
    let mut group = criterion.benchmark_group("parent_of_mib");
    group
        .sample_size(50)
        .measurement_time(Duration::from_secs(3));
    for &size in sizes {
        let mut memory = vec![0u8; size << 20];
        memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        group.bench_function(format!("{size}/fork_server"), |b| {
            b.iter(|| start(StartMethod::ForkServer));
        });
        group.bench_function(format!("{size}/fork"), |b| b.iter(fork_and_wait));
        std::hint::black_box(&memory);
    }
    group.finish();
}

fn start(method: StartMethod) {
    Process::builder()
        .start_method(method)
        .spawn((), |()| ())
        .unwrap()
        .join()
        .unwrap();
}
