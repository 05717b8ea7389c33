//! The ideal parallel map: two processes, everything already in memory that both share, nothing
//! encoded.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::child::Child;
use super::futex;
use super::processor;
use super::shared::{Buffer, Shared, Words};
use super::work::{burn, square};

const SQUARE: u32 = 1;
const BURN: u32 = 2;

/// Two processes that each work on one half, each on a processor of its own where there are two.
/// They meet by spinning on a shared count before and after, and sleep between two jobs.
///
/// They take the time themselves, from the meeting before to the meeting after: waking them is not
/// part of the limit.
#[derive(Debug)]
pub(crate) struct Halves {
    orders: Shared<Orders>,
    items: Buffer<u64>,
    len: usize,
    helpers: [Child; 2],
}

/// What came of one job of [`Halves::square`].
#[derive(Debug)]
pub(crate) struct Squares {
    pub(crate) values: Vec<u64>,
    /// What the copies and the work took: the limit.
    pub(crate) ideal: Duration,
    /// The same from the parent's beginning to its end: with the helpers' waking, and the parent's after them.
    pub(crate) woken: Duration,
}

/// What the helpers are to do, and what they say.
#[derive(Debug)]
#[repr(C, align(128))]
struct Orders {
    /// Number of the job; the helpers sleep on it.
    job: AtomicU32,
    /// Number of the last job that is done; the bench sleeps on it.
    done: AtomicU32,
    kind: AtomicU32,
    items: AtomicU64,
    units: AtomicU64,
    nanos: AtomicU64,
    /// How often a helper has come to a meeting.
    arrivals: AtomicU64,
}

// SAFETY: atomics only; nothing to drop.
unsafe impl Words for Orders {}

impl Halves {
    /// Forks the two helpers, which have room for `len` items.
    pub(crate) fn fork(len: usize) -> Halves {
        let orders = Shared::<Orders>::new();
        let items = Buffer::<u64>::new(len);
        let helpers = [0, 1].map(|half| {
            // SAFETY: `help` computes, reads the clock, and uses shared memory and system calls.
            unsafe { Child::fork(None, || help(half, &orders, &items)) }
        });
        Halves {
            orders,
            items,
            len,
            helpers,
        }
    }

    /// Squares `0..len`. The time is that of the parent's copy in, of the helpers' work and of the
    /// parent's copy out.
    pub(crate) fn square(&self) -> Squares {
        let begin = Instant::now();
        // SAFETY: the helpers touch the items during a job only, and none runs.
        let items = unsafe { self.items.part(0..self.len) };
        for (item, value) in items.iter_mut().zip(black_box(0)..) {
            *item = value;
        }
        let copied_in = begin.elapsed();

        let worked = self.run(SQUARE, self.len, 0);

        let start = Instant::now();
        // SAFETY: as above.
        let values = unsafe { self.items.part(0..self.len) }.to_vec();
        Squares {
            values,
            ideal: copied_in + worked + start.elapsed(),
            woken: begin.elapsed(),
        }
    }

    /// Has each helper burn `units` for every one of its half of `items`.
    pub(crate) fn burn(&self, items: usize, units: u64) -> Duration {
        self.run(BURN, items, units)
    }

    /// The part of their time that the helpers were kept waiting for a processor: next to nothing
    /// on a quiet machine. Where it is more, the slower half waits for strangers, and neither this
    /// is a limit nor are the times of anybody else to be compared.
    pub(crate) fn kept_waiting(&self) -> f64 {
        let mut ran = Duration::ZERO;
        let mut waited = Duration::ZERO;
        for helper in &self.helpers {
            let (more_ran, more_waited) = helper.ran_and_waited();
            ran += more_ran;
            waited += more_waited;
        }
        waited.as_secs_f64() / (ran + waited).as_secs_f64()
    }

    fn run(&self, kind: u32, items: usize, units: u64) -> Duration {
        let orders = &*self.orders;
        orders.kind.store(kind, Ordering::Relaxed);
        orders.items.store(items as u64, Ordering::Relaxed);
        orders.units.store(units, Ordering::Relaxed);
        let before = orders.job.load(Ordering::Relaxed);
        // Publishes the orders. Pairs with the acquire in `help`'s wait.
        futex::set_and_wake(&orders.job, before + 1);
        futex::wait_while(&orders.done, before);
        Duration::from_nanos(orders.nanos.load(Ordering::Relaxed))
    }
}

/// A helper's life: sleep until there is a job, meet the other, do one half, meet the other, say
/// how long it took.
fn help(half: usize, orders: &Orders, items: &Buffer<u64>) {
    processor::stay_on(half);
    let mut job = 0;
    let mut arrivals = 0;
    let mut meet = || {
        arrivals += 2;
        // Both sides acquire what the other released: the other's half is visible to who has met
        // it.
        orders.arrivals.fetch_add(1, Ordering::AcqRel);
        futex::spin_until(|| orders.arrivals.load(Ordering::Acquire) >= arrivals);
    };
    loop {
        futex::wait_while(&orders.job, job);
        job += 1;
        let len = orders.items.load(Ordering::Relaxed) as usize;
        let mine = if half == 0 { 0..len / 2 } else { len / 2..len };
        meet();
        let start = Instant::now();
        if orders.kind.load(Ordering::Relaxed) == SQUARE {
            // SAFETY: the other helper has the other half, and the bench sleeps until both are
            // done.
            for item in unsafe { items.part(mine) } {
                *item = square(*item);
            }
        } else {
            let units = orders.units.load(Ordering::Relaxed);
            for _ in mine {
                black_box(burn(black_box(units)));
            }
        }
        meet();
        if half == 0 {
            orders
                .nanos
                .store(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
            // Publishes the items and the time. Pairs with the acquire in `run`'s wait.
            futex::set_and_wake(&orders.done, job);
        }
    }
}

/// A warm shared mapping, into which items are copied one after the other.
#[derive(Debug)]
pub(crate) struct WarmMapping {
    bytes: Buffer<u8>,
    len: usize,
}

impl WarmMapping {
    /// Maps and touches `len` bytes.
    pub(crate) fn new(len: usize) -> WarmMapping {
        WarmMapping {
            bytes: Buffer::new(len),
            len,
        }
    }

    /// Copies `item`, which fits, over what was there.
    pub(crate) fn copy_in(&mut self, item: &[u8]) -> u64 {
        // SAFETY: no other process was given this mapping.
        let room = unsafe { self.bytes.part(0..self.len) };
        room[..item.len()].copy_from_slice(item);
        black_box(&room[..item.len()]).len() as u64
    }
}
