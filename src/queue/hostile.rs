//! Queues whose memory is overwritten at random while they are used: errors and timeouts, and nothing else.

#![allow(clippy::unwrap_used, reason = "tests")]

use crate::queue::core::Core;
use crate::queue::handle::Queue;
use proptest::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_millis(3);
/// No call takes longer, on a busy machine and with all that it may wait for.
const LONG: Duration = Duration::from_secs(20);

/// All words that processes share, and some bytes of messages.
const WORDS: u64 = 4096 / 8 + 64;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// What an attacker, or a stray pointer, would write.
    fn word(&mut self, before: u64) -> u64 {
        match self.next() % 8 {
            0 => self.next(),
            1 => self.next() % 64,
            2 => u64::MAX - self.next() % 64,
            3 => before ^ 1 << (self.next() % 64),
            4 => before.wrapping_add(self.next() % 4096),
            5 => before.wrapping_sub(self.next() % 4096),
            6 => 0,
            _ => before.wrapping_add(1),
        }
    }
}

type Value = (Vec<u8>, Option<Queue<u8>>);

fn timed<R>(call: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = call();
    assert!(start.elapsed() < LONG, "took {:?}", start.elapsed());
    result
}

fn use_for_a_while(queue: &Queue<Value>, number: u64, is_over: &AtomicBool) {
    let mut random = Random(number + 1);
    let inner = Queue::new().unwrap();
    while !is_over.load(Ordering::Relaxed) {
        let len = random.next() % 3000;
        let handle = (random.next() % 8 == 0).then(|| inner.clone());
        match random.next() % 12 {
            0..4 => drop(timed(|| {
                queue.put_timeout((vec![1; len as usize], handle), LIMIT)
            })),
            4 => drop(timed(|| queue.try_put((Vec::new(), handle)))),
            5..9 => drop(timed(|| queue.get_timeout(LIMIT))),
            9 => drop(timed(|| queue.try_get())),
            10 => drop(timed(|| queue.join_timeout(LIMIT))),
            _ => {
                let _told = queue.task_done();
                let _seen = (queue.len(), queue.is_full(), queue.is_ready());
            }
        }
    }
}

fn overwrite(core: &Core, random: &mut Random) {
    let offset = 8 * (random.next() % WORDS) as usize;
    // Half of the time one of those that are in use.
    let offset = if random.next() % 2 == 0 {
        offset % 640
    } else {
        offset
    };
    let word = core.store.near().word(offset);
    let before = word.load(Ordering::Relaxed);
    word.store(random.word(before), Ordering::Relaxed);
}

fn assert_survives(seed: u64, capacity: Option<usize>, is_watched: bool) {
    let queue: Queue<Value> = match capacity {
        Some(capacity) => Queue::bounded(capacity).unwrap(),
        None => Queue::new().unwrap(),
    };
    if is_watched {
        let _watched = queue.core.watched();
    }
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..4 {
            let (queue, is_over) = (&queue, &is_over);
            scope.spawn(move || use_for_a_while(queue, seed.wrapping_add(number), is_over));
        }
        let mut random = Random(seed | 1);
        for _ in 0..200 {
            overwrite(&queue.core, &mut random);
            thread::yield_now();
            let _either = timed(|| queue.get_timeout(Duration::from_micros(100)));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    timed(|| queue.close());
    let _adopted = Core::adopt(queue.core.parts());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn whatever_is_written_there_calls_end_by_their_deadline(
        seed: u64,
        capacity in proptest::option::of(1..20_usize),
        is_watched: bool,
    ) {
        assert_survives(seed, capacity, is_watched);
    }
}
