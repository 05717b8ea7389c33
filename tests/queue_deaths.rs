//! Queues whose users are killed at random instants: every message is accounted for.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::census::memory_of_queues;
use common::meet::{Ear, say};
use common::{LONG_LIMIT, each_method_alone, pid_of, polls_readable};
use multiprocess::{Process, Queue, StartMethod};
use nix::sys::signal::{Signal, kill};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How many times as much as usual these tests do.
fn scale() -> u64 {
    env::var("MULTIPROCESS_TEST_SCALE").map_or(1, |scale| scale.parse().unwrap())
}

/// Numbers from a seed, which is printed and can be given.
struct Random(u64);

impl Random {
    fn new() -> Random {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let fresh = now.as_nanos() as u64 | 1;
        let seed = env::var("MULTIPROCESS_TEST_SEED").map_or(fresh, |seed| seed.parse().unwrap());
        println!("MULTIPROCESS_TEST_SEED={seed}");
        Random(seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// One message: whose it is, which one, and bytes that show whether it is whole. Some have handles inside.
#[derive(Debug, Serialize, Deserialize)]
struct Parcel {
    putter: u64,
    number: u64,
    bytes: Vec<u8>,
    handles: Vec<Queue<u64>>,
}

type Parcels = Queue<Parcel>;

fn fill(putter: u64, number: u64) -> Vec<u8> {
    let random = (putter << 20 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 17;
    let len = match random % 64 {
        0 => 300_000,
        1..8 => random % 20_000,
        _ => random % 100,
    };
    vec![random as u8; usize::try_from(len).unwrap()]
}

/// Appends a pair of numbers. One write of so few bytes is done or not, whoever is killed in it.
fn note(path: &Path, pair: (u64, u64)) {
    let mut log = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    let words = [pair.0.to_le_bytes(), pair.1.to_le_bytes()].concat();
    log.write_all(&words).unwrap();
}

fn notes(path: &Path) -> Vec<(u64, u64)> {
    let bytes = fs::read(path).unwrap_or_default();
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    bytes
        .chunks_exact(16)
        .map(|pair| (word(&pair[..8]), word(&pair[8..])))
        .collect()
}

fn start<A, F, T>(method: StartMethod, args: A, f: F) -> Process<T>
where
    A: multiprocess::Portable,
    T: multiprocess::Portable,
    F: Fn(A) -> T + Copy + 'static,
{
    Process::builder()
        .start_method(method)
        .spawn(args, f)
        .unwrap()
}

/// Puts for ever, and notes what it has put. `handles` queues are in some of the messages.
fn putter(
    method: StartMethod,
    queue: &Parcels,
    id: u64,
    handles: usize,
    log: &Path,
) -> Process<()> {
    let args = (queue.clone(), id, handles, log.to_owned());
    start(
        method,
        args,
        |(queue, putter, handles, log): (Parcels, u64, usize, PathBuf)| {
            let others: Vec<Queue<u64>> = (0..handles).map(|_| Queue::new().unwrap()).collect();
            for number in 0.. {
                let parcel = Parcel {
                    putter,
                    number,
                    bytes: fill(putter, number),
                    handles: if number % 4 == 0 {
                        others.clone()
                    } else {
                        Vec::new()
                    },
                };
                if queue.put(parcel).is_err() {
                    return;
                }
                note(&log, (putter, number));
            }
        },
    )
}

/// Gets until the queue is closed, and notes what it has got.
fn getter(method: StartMethod, queue: &Parcels, log: &Path) -> Process<()> {
    let args = (queue.clone(), log.to_owned());
    start(method, args, |(queue, log): (Parcels, PathBuf)| {
        loop {
            let parcel = match queue.get() {
                Ok(parcel) => parcel,
                Err(error) if error.is_closed() => return,
                Err(error) => panic!("{error}"),
            };
            assert_eq!(parcel.bytes, fill(parcel.putter, parcel.number), "torn");
            for (number, handle) in (0..).zip(&parcel.handles) {
                handle.put(number).unwrap();
            }
            note(&log, (parcel.putter, parcel.number));
        }
    })
}

/// Kills putters, getters or both `kills` times at random instants, and accounts for every message.
fn kill_and_count(
    method: StartMethod,
    queue: &Parcels,
    kills: u64,
    whom: [u64; 2],
    handles: usize,
) {
    let mut random = Random::new();
    let directory = tempfile::tempdir().unwrap();
    let (put_log, got_log) = (directory.path().join("put"), directory.path().join("got"));
    let mut putters: Vec<Process<()>> = Vec::new();
    let mut getters: Vec<Process<()>> = Vec::new();
    let mut id = 0;
    let [mut putters_killed, mut getters_killed] = [0, 0];
    for _ in 0..kills {
        while putters.len() < 2 {
            putters.push(putter(method, queue, id, handles, &put_log));
            id += 1;
        }
        while getters.len() < 2 {
            getters.push(getter(method, queue, &got_log));
        }
        // The instant is to be any: some die before they begin, most in the middle of it.
        thread::sleep(Duration::from_micros(random.below(4000)));
        let (victims, killed) = if random.below(whom[0] + whom[1]) < whom[0] {
            (&mut putters, &mut putters_killed)
        } else {
            (&mut getters, &mut getters_killed)
        };
        let mut victim = victims.remove(usize::try_from(random.below(2)).unwrap());
        victim.kill().unwrap();
        victim.wait().unwrap();
        *killed += 1;
    }
    // They make their queues before they put, which may take longer than all the killing. Of the last ones nobody is killed
    // before enough was put.
    let is_enough = || notes(&put_log).len() as u64 > kills / 2;
    while !is_enough() && putters.iter().chain(&getters).all(Process::is_alive) {
        thread::sleep(Duration::from_millis(1));
    }
    for mut putter in putters {
        putter.kill().unwrap();
        putter.wait().unwrap();
        putters_killed += 1;
    }
    queue.close();
    for getter in getters {
        getter.join().unwrap();
    }
    assert!(queue.get().unwrap_err().is_closed());

    let put: BTreeSet<(u64, u64)> = notes(&put_log).into_iter().collect();
    let got_in_order = notes(&got_log);
    let got: BTreeSet<(u64, u64)> = got_in_order.iter().copied().collect();
    let taken_along = put.difference(&got).count() as u64;
    let not_noted = got.difference(&put).count() as u64;
    println!(
        "{putters_killed} putters and {getters_killed} getters killed: {} messages put, {} got, {taken_along} went with a \
         getter that was killed, {not_noted} came of a put whose putter was killed before it returned, {} doubled",
        put.len(),
        got.len(),
        got_in_order.len() - got.len(),
    );
    assert_eq!(got.len(), got_in_order.len(), "doubled");
    assert!(taken_along <= getters_killed, "lost");
    assert!(not_noted <= putters_killed, "from nowhere");
    assert!(put.len() as u64 > kills / 2, "one of the last ones failed");
}

each_method_alone!(
    putters_that_are_killed_lose_nothing_that_was_put,
    SCALED_LIMIT,
    |method| {
        kill_and_count(method, &Queue::new().unwrap(), 100 * scale(), [1, 0], 0);
    }
);

each_method_alone!(
    getters_that_are_killed_take_no_more_than_one_message_each,
    SCALED_LIMIT,
    |method| {
        kill_and_count(
            method,
            &Queue::bounded(20).unwrap(),
            100 * scale(),
            [0, 1],
            0,
        );
    }
);

each_method_alone!(
    both_are_killed_around_a_queue_with_little_room,
    SCALED_LIMIT,
    |method| {
        kill_and_count(
            method,
            &Queue::bounded(2).unwrap(),
            100 * scale(),
            [1, 1],
            0,
        );
    }
);

each_method_alone!(both_are_killed_around_handles, SCALED_LIMIT, |method| {
    // 260 descriptors: more than one record.
    kill_and_count(
        method,
        &Queue::bounded(4).unwrap(),
        20 * scale(),
        [1, 1],
        65,
    );
    kill_and_count(method, &Queue::new().unwrap(), 20 * scale(), [1, 1], 1);
});

/// [`common::LONG_LIMIT`] is too short for these when they are scaled up.
const SCALED_LIMIT: Duration = Duration::from_secs(7200);

each_method_alone!(
    what_deaths_leave_on_the_descriptor_is_settled,
    SCALED_LIMIT,
    |method| {
        let queue = Queue::<u64>::new().unwrap();
        let is_readable = || polls_readable(&queue, Duration::ZERO);
        let mut random = Random::new();
        for _ in 0..30 * scale() {
            let mut users: Vec<Process<()>> = (0..2)
                .map(|putter| {
                    start(
                        method,
                        (queue.clone(), putter),
                        |(queue, putter): (Queue<u64>, u64)| {
                            for number in 0.. {
                                let _perhaps = if putter == 0 {
                                    queue.put(number).is_ok()
                                } else {
                                    queue.get().is_ok()
                                };
                            }
                        },
                    )
                })
                .collect();
            thread::sleep(Duration::from_micros(random.below(4000)));
            for user in &mut users {
                user.kill().unwrap();
                user.wait().unwrap();
            }
            while !queue.is_empty() {
                assert!(is_readable());
                queue.get().unwrap();
            }
            assert!(queue.try_get().unwrap_err().is_empty());
            assert!(!is_readable());
        }
        queue.put(1).unwrap();
        assert!(is_readable());
    }
);

each_method_alone!(
    a_process_killed_half_way_through_a_large_put_leaves_nothing,
    LONG_LIMIT,
    |method| {
        let mut random = Random::new();
        let mut ear = Ear::new();
        let queue = Queue::<Vec<u8>>::new().unwrap();
        let mut absent = 0;
        for round in 0..10 * scale() {
            let mut putter = start(
                method,
                (queue.clone(), ear.path()),
                |(queue, ear): (Queue<Vec<u8>>, PathBuf)| {
                    let large = vec![7; 64 << 20];
                    say(&ear, "puts");
                    queue.put(large).unwrap();
                    say(&ear, "has put");
                },
            );
            ear.hear();
            // Putting takes some ten milliseconds.
            thread::sleep(Duration::from_micros(random.below(30_000)));
            if round % 2 == 0 {
                // Stopped in the middle, it keeps nobody waiting past a deadline.
                let _ended = kill(pid_of(putter.pid()), Signal::SIGSTOP);
                let start_of_wait = Instant::now();
                let _either = queue.put_timeout(vec![1], Duration::from_millis(10));
                let _either = queue.try_put(vec![1]);
                let _either = queue.get_timeout(Duration::from_millis(10));
                let _either = queue.try_get();
                assert!(start_of_wait.elapsed() < Duration::from_secs(20));
            }
            putter.kill().unwrap();
            putter.wait().unwrap();
            queue.put(vec![2; 100]).unwrap();
            let mut seen = Vec::new();
            while let Ok(bytes) = queue.try_get() {
                seen.push((bytes.len(), bytes.iter().all(|byte| *byte == bytes[0])));
            }
            assert!(seen.contains(&(100, true)));
            assert!(
                seen.iter()
                    .all(|one| [(1, true), (100, true), (64 << 20, true)].contains(one)),
                "{seen:?}"
            );
            absent += u64::from(!seen.contains(&(64 << 20, true)));
            let left = memory_of_queues();
            assert!(left <= 17 << 20, "{left} bytes of memory are left");
        }
        println!(
            "{absent} of {} large messages are absent, the others whole",
            10 * scale()
        );
    }
);

each_method_alone!(
    a_message_goes_to_another_when_those_who_wait_are_killed,
    |method| {
        let mut random = Random::new();
        let mut ear = Ear::new();
        let queue = Queue::<u64>::new().unwrap();
        for round in 0..30 * scale() {
            let mut waiters: Vec<Process<()>> = (0..3)
                .map(|_| {
                    start(
                        method,
                        (queue.clone(), ear.path()),
                        |(queue, ear): (Queue<u64>, PathBuf)| {
                            say(&ear, "waits");
                            queue.get().unwrap();
                        },
                    )
                })
                .collect();
            for _ in 0..3 {
                ear.hear();
            }
            thread::sleep(Duration::from_micros(random.below(500)));
            // One is dead before the messages come. One is killed when the first may have woken it, and may take it along.
            waiters[0].kill().unwrap();
            waiters[0].wait().unwrap();
            queue.put(round).unwrap();
            waiters[1].kill().unwrap();
            queue.put(round).unwrap();
            for waiter in &mut waiters {
                waiter.wait().unwrap();
            }
            assert!(queue.len() <= 1);
            let _left = queue.try_get();
            assert!(queue.is_empty());
        }
    }
);

each_method_alone!(
    who_waits_to_put_is_told_of_a_close_that_was_killed,
    SCALED_LIMIT,
    |method| {
        let mut random = Random::new();
        let mut ear = Ear::new();
        let mut closed = 0;
        for _ in 0..20 * scale() {
            let queue = Queue::<u64>::bounded(1).unwrap();
            queue.put(1).unwrap();
            let putter = start(method, queue.clone(), |queue: Queue<u64>| {
                queue.put(2).unwrap_err().is_closed()
            });
            let mut closer = start(
                method,
                (queue.clone(), ear.path()),
                |(queue, ear): (Queue<u64>, PathBuf)| {
                    say(&ear, "closes");
                    queue.close();
                },
            );
            ear.hear();
            thread::sleep(Duration::from_micros(random.below(60)));
            closer.kill().unwrap();
            closer.wait().unwrap();
            if queue.is_closed() {
                closed += 1;
            } else {
                queue.close();
            }
            assert!(putter.join().unwrap());
        }
        println!("{closed} of {} were closed by who was killed", 20 * scale());
    }
);
