//! A peer that overwrites what it shares with us, at random, while we use it: errors and time limits are all that may
//! come of it; no panic, no hang, no crash, no memory without bound. `MULTIPROCESS_TEST_SEED` gives the bytes again.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::alone::{in_own_process, test_path};
use common::many::{Random, scaled, start};
use common::meet::{Ear, Gate, pass, say};
use common::{LONG_LIMIT, assert_serves, pool};
use multiprocess::{
    Barrier, BoundedSemaphore, Condition, Event, Lock, Pipe, Portable, Queue, RLock, Semaphore,
    StartMethod,
};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

/// How long any call may wait here.
const BRIEFLY: Duration = Duration::from_millis(2);

/// Rounds with one object, after which a new one is made: a broken one may rightly stay broken.
const ROUNDS: u64 = 50;

/// Writes into whatever memory of the library's this process may write.
struct Vandal {
    memory: File,
    places: Vec<(u64, u64)>,
    state: u64,
}

impl Vandal {
    fn new(seed: u64) -> Vandal {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let place = |line: &str| {
            if !line.contains(" rw-s ") || !line.contains("memfd:multiprocess") {
                return None;
            }
            let (start, end) = line.split(' ').next()?.split_once('-')?;
            let number = |text| u64::from_str_radix(text, 16).ok();
            Some((number(start)?, number(end)?))
        };
        let places: Vec<_> = maps.lines().filter_map(place).collect();
        assert!(!places.is_empty(), "nothing to write to:\n{maps}");
        Vandal {
            memory: OpenOptions::new()
                .write(true)
                .open("/proc/self/mem")
                .unwrap(),
            places,
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    /// One to 32 aligned words, mostly near the start of a mapping, where the words are that steer; zeros, ones, small
    /// numbers and any.
    fn strike(&mut self) {
        let which = usize::try_from(self.next() % 64).unwrap() % self.places.len();
        let (start, end) = self.places[which];
        let reach = [256, 4096, end - start][usize::try_from(self.next() % 3).unwrap()];
        let place = start + (self.next() % reach.min(end - start)) / 8 * 8;
        let words = 1 + self.next() % 32;
        let kind = self.next() % 4;
        let mut bytes = Vec::new();
        for _ in 0..words.min((end - place) / 8) {
            let word = match kind {
                0 => 0,
                1 => u64::MAX,
                2 => self.next() % 256,
                _ => self.next(),
            };
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        self.memory.write_all_at(&bytes, place).unwrap();
    }
}

/// What the peer does: each time that it is let through, some strikes.
fn vandalise<T>((held, seed, gate, ear): (T, u64, PathBuf, PathBuf)) {
    let mut vandal = Vandal::new(seed);
    say(&ear, "ready");
    for _ in 0..ROUNDS {
        pass(&gate);
        for _ in 0..1 + vandal.next() % 20 {
            vandal.strike();
        }
    }
    say(&ear, "done");
    std::thread::park();
    drop(held);
}

/// Has objects that `make` makes used here and vandalised there, in so many rounds.
fn beside_a_vandal<T: Portable>(objects: u64, make: fn() -> (T, T), use_it: fn(&T, u64)) {
    let mut random = Random::new();
    for _ in 0..scaled(objects) {
        let seed = random.below(u64::MAX);
        let (ours, theirs) = make();
        let (gate, mut ear) = (Gate::new(), Ear::new());
        let arguments = (theirs, seed, gate.path(), ear.path());
        let mut peer = start(StartMethod::ForkServer, arguments, vandalise::<T>);
        assert_eq!(ear.hear(), "ready");
        for round in 0..ROUNDS {
            gate.let_through(1);
            use_it(&ours, round);
        }
        assert_eq!(ear.hear(), "done");
        use_it(&ours, 0);
        peer.kill().unwrap();
        peer.wait().unwrap();
        use_it(&ours, 1);
    }
    assert_little_memory_was_used();
}

fn assert_little_memory_was_used() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: u64 = most
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    assert!(kib < 1 << 20, "{kib} KiB were taken");
}

/// Both hold the same.
fn twice<T: Clone>(object: T) -> (T, T) {
    (object.clone(), object)
}

/// Makes a test that runs in a process of its own.
macro_rules! hostile {
    ($name:ident, $body:block) => {
        #[test]
        fn $name() {
            let test = test_path(module_path!(), stringify!($name));
            in_own_process(&test, LONG_LIMIT, || $body);
        }
    };
}

hostile!(a_pipe, {
    beside_a_vandal(
        20,
        || Pipe::<Vec<u8>>::pair().unwrap(),
        |pipe, round| {
            let size = usize::try_from(round * 97 % 5000).unwrap();
            let _ = pipe.send_timeout(vec![1; size], BRIEFLY);
            let _ = pipe.recv_timeout(BRIEFLY);
            let _ = pipe.poll(Duration::ZERO);
            let _ = pipe.try_recv();
        },
    );
});

hostile!(a_queue, {
    beside_a_vandal(20, || twice(Queue::<Vec<u8>>::new().unwrap()), use_queue);
});

hostile!(a_bounded_queue, {
    beside_a_vandal(
        5,
        || twice(Queue::<Vec<u8>>::bounded(3).unwrap()),
        use_queue,
    );
});

fn use_queue(queue: &Queue<Vec<u8>>, round: u64) {
    let size = usize::try_from(round * 97 % 5000).unwrap();
    let _ = queue.put_timeout(vec![1; size], BRIEFLY);
    let _ = queue.try_put(vec![2; 3]);
    let _ = queue.get_timeout(BRIEFLY);
    let _ = queue.try_get();
    let _ = (queue.len(), queue.is_full(), queue.is_empty());
    let _ = queue.task_done();
    let _ = queue.join_timeout(BRIEFLY);
}

hostile!(a_lock, {
    beside_a_vandal(
        5,
        || twice(Lock::new([1_u64; 4]).unwrap()),
        |lock, round| {
            if let Ok(Some(mut guard)) = lock.lock_timeout(BRIEFLY) {
                guard[0] = round;
            }
            match lock.try_lock() {
                Ok(guard) => drop(guard),
                Err(died) => drop(died.into_guard()),
            }
            let _ = lock.is_locked();
        },
    );
});

hostile!(an_rlock, {
    beside_a_vandal(
        20,
        || twice(RLock::new().unwrap()),
        |lock, _| {
            let outer = lock.lock_timeout(BRIEFLY);
            let inner = lock.try_lock();
            drop(inner);
            drop(outer);
        },
    );
});

hostile!(semaphores_and_an_event, {
    let make = || {
        let semaphore = Semaphore::new(1).unwrap();
        let bounded = BoundedSemaphore::new(2).unwrap();
        twice((semaphore, bounded, Event::new().unwrap()))
    };
    beside_a_vandal(20, make, |(semaphore, bounded, event), _| {
        let _ = semaphore.acquire_timeout(BRIEFLY);
        let _ = semaphore.release();
        let _ = bounded.acquire_timeout(BRIEFLY);
        let _ = bounded.release();
        let _ = (semaphore.value(), bounded.value());
        event.set();
        let _ = event.wait_timeout(BRIEFLY);
        event.clear();
        let _ = event.wait_timeout(BRIEFLY);
    });
});

/// Too large to lie beside the condition: whoever waits takes it back without a limit, as one must, so that a peer who
/// could write it could hold it for ever.
static OURS: LazyLock<Lock<[u64; 8192]>> = LazyLock::new(|| Lock::new([0; 8192]).unwrap());

hostile!(a_condition, {
    beside_a_vandal(
        20,
        || twice(Condition::new().unwrap()),
        |condition, _| {
            let guard = OURS.lock().unwrap();
            condition.notify_one();
            let _ = condition.wait_timeout(guard, BRIEFLY).unwrap();
            condition.notify_all();
        },
    );
});

hostile!(a_barrier, {
    beside_a_vandal(
        20,
        || twice(Barrier::new(2).unwrap()),
        |barrier, round| {
            let _ = barrier.wait_timeout(BRIEFLY);
            let _ = (barrier.waiting(), barrier.is_broken(), barrier.parties());
            if round % 2 == 0 {
                barrier.reset();
            } else {
                barrier.abort();
            }
        },
    );
});

// Each item vandalises its worker's link. Its result may be any; what counts is that each has one, and the pool lives.
hostile!(a_link_of_a_pool, {
    let mut random = Random::new();
    let pool = pool(StartMethod::ForkServer, 2);
    for _ in 0..scaled(10) {
        let seeds: Vec<u64> = (0..40).map(|_| random.below(u64::MAX)).collect();
        let strikes = pool
            .job()
            .timeout(Duration::from_millis(500))
            .imap(seeds, |seed| {
                let mut vandal = Vandal::new(seed);
                for _ in 0..1 + seed % 10 {
                    vandal.strike();
                }
                vec![7_u8; usize::try_from(seed % 3000).unwrap()]
            });
        assert_eq!(strikes.count(), 40);
    }
    assert_serves(&pool);
    assert_little_memory_was_used();
});
