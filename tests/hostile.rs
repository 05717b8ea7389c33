//! A peer that overwrites what it shares with us, at random, while we use it: errors and time limits are all that may
//! come of it; no panic, no hang, no crash, no memory without bound. `MULTIPROCESS_TEST_SEED` gives the bytes again, and
//! `MULTIPROCESS_HOSTILE_ROUNDS` is how many rounds each primitive has to live through.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::alone::{in_own_process, test_path};
use common::many::{Random, scaled, start};
use common::meet::{Ear, Gate, pass, say};
use common::{LONG_LIMIT, assert_serves, pool};
use multiprocess::{
    Array, Barrier, BoundedSemaphore, Condition, Event, Lock, Pipe, Portable, Queue, RLock,
    Semaphore, StartMethod, Value,
};
use std::env;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
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
    strikes: u64,
    bytes: u64,
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
                .read(true)
                .write(true)
                .open("/proc/self/mem")
                .unwrap(),
            places,
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            strikes: 0,
            bytes: 0,
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
        self.strikes += 1;
        self.bytes += bytes.len() as u64;
    }

    /// Writes into the header of a message of numbers that a worker has just shown, before it is read or after: not into the
    /// numbers. `None` while there is none.
    fn garble(&mut self, numbers: u64) -> Option<()> {
        const WORDS: u64 = 4096;
        const TAIL: u64 = 128;
        const HEADER: u64 = 64;
        let ring_of = |&(start, end): &(u64, u64)| (start, end - start - WORDS);
        let (start, ring) = self
            .places
            .iter()
            .map(ring_of)
            .max_by_key(|place| place.1)?;
        let mut tail = [0; 8];
        self.memory.read_exact_at(&mut tail, start + TAIL).ok()?;
        let tail = u64::from_ne_bytes(tail);
        let first = tail.checked_sub(HEADER + 8 * numbers)?;
        let place = (first + self.next() % HEADER / 8 * 8) % ring;
        let word =
            [0, 1, self.next() % 256, self.next()][usize::try_from(self.next() % 4).unwrap()];
        self.memory
            .write_all_at(&word.to_ne_bytes(), start + WORDS + place)
            .unwrap();
        Some(())
    }

    /// What it has done.
    fn done(&self) -> String {
        format!("{} {}", self.strikes, self.bytes)
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
    say(&ear, vandal.done());
    std::thread::park();
    drop(held);
}

/// How many rounds are asked for: so many, where nobody says how many.
fn rounds_of(usual: u64) -> u64 {
    let given = env::var("MULTIPROCESS_HOSTILE_ROUNDS").ok();
    given.map_or_else(|| scaled(usual), |rounds| rounds.parse().unwrap())
}

/// How long all of them may take.
fn limit() -> Duration {
    LONG_LIMIT.saturating_mul(1 + u32::try_from(rounds_of(0) / 1000).unwrap())
}

/// What all vandals together have done.
#[derive(Default)]
struct Tally {
    rounds: u64,
    strikes: u64,
    bytes: u64,
}

impl Tally {
    fn add(&mut self, rounds: u64, done: &str) {
        let (strikes, bytes) = done.split_once(' ').unwrap();
        self.rounds += rounds;
        self.strikes += strikes.parse::<u64>().unwrap();
        self.bytes += bytes.parse::<u64>().unwrap();
    }

    fn print(&self) {
        let Tally {
            rounds,
            strikes,
            bytes,
        } = self;
        let test = env::args().nth(2).unwrap_or_default();
        println!("hostile {test}: rounds={rounds} strikes={strikes} bytes={bytes}");
    }
}

/// Has objects that `make` makes used here and vandalised there, in so many rounds.
fn beside_a_vandal<T: Portable>(usual: u64, make: fn() -> (T, T), use_it: fn(&T, u64)) {
    let mut random = Random::new();
    let mut tally = Tally::default();
    for _ in 0..rounds_of(usual).div_ceil(ROUNDS) {
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
        tally.add(ROUNDS, &ear.hear());
        use_it(&ours, 0);
        peer.kill().unwrap();
        peer.wait().unwrap();
        use_it(&ours, 1);
    }
    tally.print();
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
            in_own_process(&test, limit(), || $body);
        }
    };
}

hostile!(a_pipe, {
    beside_a_vandal(
        1000,
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
    beside_a_vandal(1000, || twice(Queue::<Vec<u8>>::new().unwrap()), use_queue);
});

hostile!(a_bounded_queue, {
    beside_a_vandal(
        250,
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
        250,
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
        1000,
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
    beside_a_vandal(1000, make, |(semaphore, bounded, event), _| {
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

thread_local! {
    /// Too large to lie beside the condition: whoever waits takes it back without a limit, as one must, so that a peer who
    /// could write it could hold it for ever.
    static OURS: Lock<[u64; 8192]> = Lock::new([0; 8192]).unwrap();
}

hostile!(a_condition, {
    beside_a_vandal(
        1000,
        || twice(Condition::new().unwrap()),
        |condition, _| {
            OURS.with(|ours| {
                let guard = ours.lock().unwrap();
                condition.notify_one();
                let _ = condition.wait_timeout(guard, BRIEFLY).unwrap();
            });
            condition.notify_all();
        },
    );
});

hostile!(a_barrier, {
    beside_a_vandal(
        1000,
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

// What takes a lock without a limit is left out: a peer may rightly hold that for ever.
hostile!(values_and_an_array, {
    let make = || {
        let (number, numbers) = (Value::new(7_u64).unwrap(), Value::new([1_u64; 16]).unwrap());
        twice((number, numbers, Array::from_slice(&[1_u32; 500]).unwrap()))
    };
    beside_a_vandal(1000, make, |(number, numbers, array), round| {
        number.set(round);
        number.fetch_add(1);
        std::hint::black_box((number.get(), numbers.get()));
        if let Some(mut guard) = array.lock_timeout(BRIEFLY) {
            guard[0] = guard[499].wrapping_add(1);
        }
        drop(array.try_lock());
    });
});

// Each item vandalises its worker's link. Its result may be any; what counts is that each has one, and the pool lives.
hostile!(a_link_of_a_pool, {
    let mut random = Random::new();
    let mut tally = Tally::default();
    let pool = pool(StartMethod::ForkServer, 2);
    for _ in 0..rounds_of(400).div_ceil(40) {
        let seeds: Vec<u64> = (0..40).map(|_| random.below(u64::MAX)).collect();
        let strikes: u64 = seeds.iter().map(|seed| 1 + seed % 10).sum();
        let results = pool
            .job()
            .timeout(Duration::from_millis(500))
            .imap(seeds, |seed| {
                let mut vandal = Vandal::new(seed);
                for _ in 0..1 + seed % 10 {
                    vandal.strike();
                }
                vec![7_u8; usize::try_from(seed % 3000).unwrap()]
            });
        assert_eq!(results.count(), 40);
        tally.add(40, &format!("{strikes} 0"));
    }
    tally.print();
    assert_serves(&pool);
    assert_little_memory_was_used();
});

/// How many numbers are in each message, and in a map.
const NUMBERS: usize = 64;
const COUNT: u64 = 600 * NUMBERS as u64;

// A thread in each worker garbles headers of messages that are on their way. Whatever comes of a map, it comes, though no item has
// a time limit; and no results are taken for those of other items.
hostile!(numbers_of_a_map, {
    static BESIDE: std::sync::Once = std::sync::Once::new();
    let mut tally = Tally::default();
    let (mut whole, mut failed) = (0, 0);
    for _ in 0..rounds_of(100).div_ceil(5) {
        let pool = pool(StartMethod::ForkServer, 2);
        for round in 0..5 {
            let results = pool.job().chunk_size(NUMBERS).map(0..COUNT, |number| {
                BESIDE.call_once(|| {
                    let mut vandal = Vandal::new(u64::from(std::process::id()));
                    std::thread::spawn(move || {
                        for _ in 0..500 {
                            let _none_yet = vandal.garble(NUMBERS as u64);
                        }
                    });
                });
                number
            });
            match results {
                Ok(results) => {
                    assert!(results.into_iter().eq(0..COUNT), "map {round}");
                    whole += 1;
                }
                Err(_) => failed += 1,
            }
        }
        // Whoever garbles comes to an end, and the pool has not.
        while pool.map(0..100_000_u64, |number| 2 * number).is_err() {}
        tally.add(5, "500 4000");
    }
    tally.print();
    println!("maps with results: {whole}, without: {failed}");
});
