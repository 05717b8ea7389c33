//! What the bare machine allows.

use std::hint::black_box;
use std::os::fd::AsFd;
use std::thread::sleep;
use std::time::Duration;

use crate::baseline::child::fork_and_wait;
use crate::baseline::ideal::{Halves, WarmMapping};
use crate::baseline::mutex::{RobustMutex, TwoCounters};
use crate::baseline::passing::{PassingPeer, memory_file};
use crate::baseline::ping::{SleepingPeer, SpinningPeer};
use crate::baseline::ring::RingPeer;
use crate::baseline::socket::SocketPeer;
use crate::baseline::work::square;
use crate::baseline::{allocator, ourselves};
use crate::ours::{BURNS, IDLE, LARGE_BYTES, LARGES, MILLION, NUMBERS, burn_units, resident};
use crate::sample::{Measure, Sample, all, each, told};

pub(crate) fn measure(job: &str) -> Option<Measure> {
    match job {
        "map_million" => map_million(),
        "map_100us" => map_100us(),
        "chunk1" | "apply" | "pipe_rtt" | "queue_rtt" | "barrier" => shared_word(),
        "apply_idle" => woken_up(),
        "pipe_rtt_one" => futex("pipe_rtt"),
        "map_8mib" => copied_once(),
        "first_pool" | "later_pool" | "spawn_exec" => told(ourselves::exec_and_wait),
        "spawn" | "crash" => each(fork_and_wait),
        "crash_replaced" => each(|| {
            fork_and_wait();
            fork_and_wait();
        }),
        "spawn_1gib" => {
            let memory = resident(1 << 30);
            each(move || {
                fork_and_wait();
                black_box(&memory);
            })
        }
        "pipe_u64" | "queue_11" => ring(8, 8192),
        "pipe_1k" => ring(1 << 10, 256),
        "pipe_1m" => ring(1 << 20, 4),
        "lock" => {
            let mutex = RobustMutex::new();
            each(move || mutex.count_one())
        }
        "lock_two" => {
            let counters = TwoCounters::fork();
            all(move |count| counters.count(count.div_ceil(2)))
        }
        "slice_over" => passed(0),
        "slice_read" => passed(NUMBERS as usize * 8),
        "probe" => probe(),
        "burn_units" => Some(Box::new(|_| Sample::value(burn_units() as f64))),
        _ => None,
    }
}

/// Both sides asleep whenever they wait.
pub(crate) fn futex(job: &str) -> Option<Measure> {
    (job == "pipe_rtt" || job == "queue_rtt").then(|| {
        let peer = SleepingPeer::fork();
        all(move |count| peer.round_trips(count as u32))
    })?
}

pub(crate) fn socket(job: &str) -> Option<Measure> {
    (job == "pipe_rtt" || job == "pipe_rtt_one").then(|| {
        let mut peer = SocketPeer::fork(8, 8);
        each(move || drop(peer.call(&[1; 8])))
    })?
}

fn map_million() -> Option<Measure> {
    let halves = Halves::fork(MILLION as usize);
    assert!(
        halves
            .square()
            .values
            .into_iter()
            .eq((0..MILLION).map(square))
    );
    Some(Box::new(move |count| {
        let mut woken = Duration::ZERO;
        let once = |_| {
            let squares = halves.square();
            woken += squares.woken;
            squares.ideal
        };
        let ideal = (0..count).map(once).sum();
        Sample::of(ideal, count).with("woken", woken.as_nanos() as f64 / count as f64)
    }))
}

fn map_100us() -> Option<Measure> {
    let halves = Halves::fork(0);
    let units = burn_units();
    told(move || halves.burn(BURNS, units))
}

fn shared_word() -> Option<Measure> {
    let peer = SpinningPeer::fork();
    all(move |count| peer.round_trips(count as u32))
}

fn woken_up() -> Option<Measure> {
    let peer = SleepingPeer::fork();
    peer.round_trips(1);
    told(move || {
        sleep(IDLE);
        peer.round_trips(1)
    })
}

fn copied_once() -> Option<Measure> {
    let mut mapping = WarmMapping::new(LARGE_BYTES);
    allocator::keep_freed_memory();
    told(move || {
        let items = vec![vec![1_u8; LARGE_BYTES]; LARGES];
        let start = std::time::Instant::now();
        let bytes: u64 = items.iter().map(|item| mapping.copy_in(item)).sum();
        let elapsed = start.elapsed();
        assert_eq!(bytes, (LARGE_BYTES * LARGES) as u64);
        elapsed
    })
}

fn ring(message_bytes: usize, count: usize) -> Option<Measure> {
    let mut peer = RingPeer::fork(message_bytes, count);
    all(move |count| peer.pass(count as u32))
}

fn passed(read: usize) -> Option<Measure> {
    let mut peer = PassingPeer::fork();
    let bytes: Vec<u8> = (0..NUMBERS).flat_map(u64::to_ne_bytes).collect();
    let file = memory_file(&bytes);
    let expected = (0..read as u64 / 8).sum::<u64>();
    each(move || assert_eq!(peer.pass(file.as_fd(), bytes.len(), read), expected))
}

/// How much two processes that only compute are kept waiting by others: whether the machine is idle.
fn probe() -> Option<Measure> {
    Some(Box::new(|items| {
        let halves = Halves::fork(0);
        let units = burn_units();
        let elapsed = halves.burn(items as usize, units);
        Sample::of(elapsed, items).with("kept_waiting", halves.kept_waiting())
    }))
}
