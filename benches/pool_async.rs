//! What calls under way, crashes and idle workers of a pool cost: each beside its limit or what a user would pick instead.
//! Prints medians; with `--test`, everything runs once.

#![allow(clippy::unwrap_used, reason = "a bench that cannot run is to stop")]

use multiprocess::{Pool, Process};
use std::collections::BTreeSet;
use std::fs;
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How many calls are under way at once.
const CALLS: u64 = 10_000;
/// How many rounds the medians are of.
const ROUNDS: usize = 15;

fn main() {
    let is_test = std::env::args().any(|argument| argument == "--test");
    let rounds = if is_test { 1 } else { ROUNDS };
    let pool = Pool::builder().workers(2).build().unwrap();
    let threads = rayon::ThreadPoolBuilder::new()
        .num_threads(2)
        .build()
        .unwrap();
    pool.apply_async(1_u64, |n| n).get().unwrap();

    report("apply_async, 10,000 under way, each", rounds, || {
        calls(&pool)
    });
    report("  rayon `spawn` with a channel for each", rounds, || {
        spawned(&threads)
    });
    report("a crash, until its error is at the caller", rounds, || {
        crash(&pool).0
    });
    report(
        "a crash, until both workers have served again",
        rounds,
        || crash(&pool).1,
    );
    report(
        "  a process of its own that crashes, until that is known",
        rounds,
        || {
            let start = Instant::now();
            let child = Process::spawn((), |()| std::process::abort()).unwrap();
            assert!(child.join().map(|(): ()| ()).unwrap_err().is_crash());
            start.elapsed()
        },
    );
    idle_worker();
}

/// Prints the median of some rounds, and the least.
fn report(name: &str, rounds: usize, mut round: impl FnMut() -> Duration) {
    let mut times: Vec<Duration> = (0..rounds).map(|_| round()).collect();
    times.sort_unstable();
    let median = times[times.len() / 2];
    println!("{name}: {median:?}, least {:?}", times[0]);
}

/// From the first call to the last result, for each call.
fn calls(pool: &Pool) -> Duration {
    let start = Instant::now();
    let calls: Vec<_> = (0..CALLS).map(|n| pool.apply_async(n, |n| n + 1)).collect();
    for (number, call) in (0..).zip(calls) {
        assert_eq!(call.get().unwrap(), number + 1);
    }
    start.elapsed() / CALLS as u32
}

fn spawned(threads: &rayon::ThreadPool) -> Duration {
    let start = Instant::now();
    let calls: Vec<_> = (0..CALLS)
        .map(|n| {
            let (sender, result) = mpsc::sync_channel(1);
            threads.spawn(move || sender.send(n + 1).unwrap());
            result
        })
        .collect();
    for (number, call) in (0..).zip(calls) {
        assert_eq!(call.recv().unwrap(), number + 1);
    }
    start.elapsed() / CALLS as u32
}

/// From the call that crashes: until its error is here, and until both workers have served.
fn crash(pool: &Pool) -> (Duration, Duration) {
    let victim = |(): ()| {
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
    };
    let start = Instant::now();
    let error = pool.apply((), victim).unwrap_err();
    let told = start.elapsed();
    assert!(error.is_crash());
    // Until every worker that there is now, the replacement among them, has answered.
    let mut answered = BTreeSet::new();
    while answered.len() < 2 {
        let calls = [(); 8].map(|()| pool.apply_async((), |()| std::process::id()));
        answered.extend(calls.into_iter().map(|call| call.get().unwrap()));
    }
    assert!(!answered.contains(&error.pid().unwrap()));
    (told, start.elapsed())
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// What no other process shares with this one, in KiB.
fn private_kib(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let lines = rollup.lines().filter(|line| line.starts_with("Private_"));
    let values = lines.filter(|line| !line.starts_with("Private_Hugetlb"));
    values
        .map(|line| {
            line.split_whitespace()
                .nth(1)
                .unwrap()
                .parse::<u64>()
                .unwrap()
        })
        .sum()
}

/// Descriptors in the parent, and memory of the worker, beside those of a process that does nothing.
fn idle_worker() {
    let before = descriptors();
    let pool = Pool::builder().workers(10).build().unwrap();
    let added = descriptors() - before;
    println!("descriptors of a pool of 10 workers: {added}, of which 2 are the pool's");
    let memory: Vec<u64> = pool.worker_pids().into_iter().map(private_kib).collect();
    println!("private memory of an idle worker: {} KiB", memory[0]);
    pool.map(0..1000_u64, |n| n + 1).unwrap();
    let memory: Vec<u64> = pool.worker_pids().into_iter().map(private_kib).collect();
    println!("  and after a short map: {} KiB", memory[0]);
    let nothing = Process::builder()
        .daemon(true)
        .spawn((), |()| std::thread::sleep(Duration::from_secs(600)))
        .unwrap();
    println!(
        "  a process that sleeps: {} KiB",
        private_kib(nothing.pid())
    );
    nothing.kill().unwrap();
}
