//! Queues: order, bounds, closing, deadlines, values of every size and with handles inside, in and between processes.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::census::memory_of_queues;
use common::meet::{Ear, Gate, pass, say};
use common::{LONG_LIMIT, each_method, each_method_alone, polls_readable, within};
use multiprocess::{Closure, Process, Queue, SharedSlice, StartMethod};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::env;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

/// What is long for a wait that should have ended at once.
const LONG: Duration = Duration::from_secs(20);
/// What is too short for a wait that should not end.
const SHORT: Duration = Duration::from_millis(20);

/// How many times as much as usual the larger tests do.
fn scale() -> u64 {
    env::var("MULTIPROCESS_TEST_SCALE").map_or(1, |scale| scale.parse().unwrap())
}

fn start<A, T, F>(method: StartMethod, args: A, f: F) -> Process<T>
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

fn is_readable<T>(queue: &Queue<T>) -> bool {
    polls_readable(queue, Duration::ZERO)
}

each_method_alone!(
    values_come_in_order_and_a_closed_queue_drains_before_it_ends,
    |method| {
        let queue = Queue::new().unwrap();
        let putter = start(method, queue.clone(), |queue: Queue<u64>| {
            for number in 0..1000 {
                queue.put(number).unwrap();
            }
            queue.close();
        });
        putter.join().unwrap();
        assert!(queue.is_closed());
        assert_eq!(queue.len(), 1000);
        let refused = queue.put(5).unwrap_err();
        assert!(refused.is_closed() && !refused.is_full());
        assert_eq!(refused.into_value(), 5);
        assert!(queue.try_put(6).unwrap_err().is_closed());
        assert!(queue.put_timeout(7, LONG).unwrap_err().is_closed());
        assert_eq!(
            queue.iter().collect::<Vec<_>>(),
            (0..1000).collect::<Vec<_>>()
        );
        for nothing in [queue.get(), queue.try_get(), queue.get_timeout(LONG)] {
            let nothing = nothing.unwrap_err();
            if !nothing.is_closed() {
                assert!(nothing.is_empty(), "{nothing}");
            }
        }
        assert!(queue.get().unwrap_err().is_closed());
    }
);

each_method!(
    a_full_queue_waits_for_room_and_not_past_a_deadline,
    |method| {
        let queue = Queue::bounded(3).unwrap();
        assert_eq!(
            (queue.capacity(), queue.len(), queue.is_empty()),
            (Some(3), 0, true)
        );
        for number in 0..3_u8 {
            assert!(!queue.is_full());
            queue.put(number).unwrap();
        }
        assert!(queue.is_full() && !queue.is_empty());
        assert!(queue.try_put(9).unwrap_err().is_full());
        let start_of_wait = Instant::now();
        let refused = queue.put_timeout(9, SHORT).unwrap_err();
        assert!(refused.is_timeout() && refused.into_value() == 9);
        assert!(start_of_wait.elapsed() >= SHORT);
        let getter = start(method, queue.clone(), |queue: Queue<u8>| {
            (0..6).map(|_| queue.get().unwrap()).collect::<Vec<u8>>()
        });
        for number in 3..6 {
            queue.put(number).unwrap();
        }
        assert_eq!(getter.join().unwrap(), [0, 1, 2, 3, 4, 5]);
        assert_eq!(queue.len(), 0);
        assert!(Queue::<u8>::bounded(0).is_err());
    }
);

each_method!(a_get_waits_for_a_value_and_not_past_a_deadline, |method| {
    let queue = Queue::<String>::new().unwrap();
    assert!(queue.try_get().unwrap_err().is_empty());
    let start_of_wait = Instant::now();
    let nothing = queue.get_timeout(SHORT).unwrap_err();
    assert!(nothing.is_timeout() && !nothing.is_empty() && !nothing.is_closed());
    assert!(start_of_wait.elapsed() >= SHORT);
    assert!(queue.get_timeout(Duration::ZERO).unwrap_err().is_timeout());
    let gate = Gate::new();
    let putter = start(
        method,
        (queue.clone(), gate.path()),
        |(queue, gate): (Queue<String>, PathBuf)| {
            pass(&gate);
            queue.put("late".to_string()).unwrap();
        },
    );
    let getter = thread::spawn({
        let queue = queue.clone();
        move || queue.get().unwrap()
    });
    gate.let_through(1);
    assert_eq!(getter.join().unwrap(), "late");
    putter.join().unwrap();
});

each_method!(closing_ends_every_wait_of_every_process, |method| {
    let mut ear = Ear::new();
    let full = Queue::bounded(1).unwrap();
    full.put(0_u32).unwrap();
    let empty = Queue::<u32>::new().unwrap();
    let waiters: Vec<Process<bool>> = (0..6)
        .map(|number: u32| {
            let args = (number, full.clone(), empty.clone(), ear.path());
            start(
                method,
                args,
                |(number, full, empty, ear): (u32, Queue<u32>, Queue<u32>, PathBuf)| {
                    say(&ear, "waits");
                    match number % 2 {
                        0 => full.put(number).unwrap_err().is_closed(),
                        _ => empty.get().unwrap_err().is_closed(),
                    }
                },
            )
        })
        .collect();
    for _ in &waiters {
        ear.hear();
    }
    // Most sleep by now; those who do not must see it just the same.
    thread::sleep(SHORT);
    let closer = start(
        method,
        (full.clone(), empty.clone()),
        |(full, empty): (Queue<u32>, Queue<u32>)| {
            full.close();
            empty.close();
        },
    );
    for waiter in waiters {
        assert!(waiter.join().unwrap());
    }
    closer.join().unwrap();
    assert_eq!(full.get().unwrap(), 0);
    assert!(full.get().unwrap_err().is_closed());
});

#[derive(Serialize, Deserialize, Debug, PartialEq)]
enum Odd {
    Fine(u8),
    Unwritable(Unwritable),
    Unreadable(Unreadable),
}

#[derive(Debug, PartialEq)]
struct Unwritable;

impl Serialize for Unwritable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("it will not be written"))
    }
}

impl<'de> Deserialize<'de> for Unwritable {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Unwritable)
    }
}

#[derive(Debug, PartialEq)]
struct Unreadable;

impl Serialize for Unreadable {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Unreadable {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("it will not be read"))
    }
}

#[test]
fn a_value_that_cannot_be_encoded_comes_back_and_the_queue_goes_on() {
    let queue = Queue::new().unwrap();
    let refused = queue.put(Odd::Unwritable(Unwritable)).unwrap_err();
    assert!(
        refused.to_string().contains("it will not be written"),
        "{refused}"
    );
    assert!(!refused.is_closed() && !refused.is_full() && !refused.is_timeout());
    assert_eq!(refused.into_value(), Odd::Unwritable(Unwritable));
    assert!(queue.is_empty());
    queue.put(Odd::Fine(1)).unwrap();
    assert_eq!(queue.get().unwrap(), Odd::Fine(1));
}

#[test]
fn a_value_that_cannot_be_decoded_is_one_error_and_the_queue_goes_on() {
    let queue = Queue::new().unwrap();
    for value in [
        Odd::Unreadable(Unreadable),
        Odd::Fine(1),
        Odd::Unreadable(Unreadable),
        Odd::Fine(2),
    ] {
        queue.put(value).unwrap();
    }
    let error = queue.get().unwrap_err();
    assert!(error.to_string().contains("it will not be read"), "{error}");
    assert!(!error.is_closed() && !error.is_empty());
    assert_eq!(queue.get().unwrap(), Odd::Fine(1));
    queue.close();
    assert_eq!(queue.iter().collect::<Vec<_>>(), [Odd::Fine(2)]);
}

#[test]
fn who_joins_does_not_wait_for_what_cannot_be_decoded() {
    let queue = Queue::new().unwrap();
    for value in [
        Odd::Fine(1),
        Odd::Unreadable(Unreadable),
        Odd::Fine(2),
        Odd::Unreadable(Unreadable),
    ] {
        queue.put(value).unwrap();
    }
    queue.close();
    for value in queue.iter() {
        assert!(matches!(value, Odd::Fine(_)));
        queue.task_done().unwrap();
    }
    queue.join_timeout(Duration::ZERO).unwrap();
    assert!(queue.task_done().is_err(), "told too often");
    // Who sees the error tells of it.
    let queue = Queue::new().unwrap();
    queue.put(Odd::Unreadable(Unreadable)).unwrap();
    assert!(queue.get().is_err());
    assert!(queue.join_timeout(Duration::ZERO).unwrap_err().is_timeout());
    queue.task_done().unwrap();
    queue.join_timeout(Duration::ZERO).unwrap();
}

/// Where to put the answers, what to compute them of, and how.
type Requests = Queue<(Queue<u64>, SharedSlice<u64>, Closure<u64, u64>)>;

each_method_alone!(handles_travel_inside_values, |method| {
    let requests = Requests::new().unwrap();
    let server = start(method, requests.clone(), |requests: Requests| {
        for (answers, numbers, f) in requests.iter() {
            for number in numbers.iter() {
                answers.put(f.call(*number)).unwrap();
            }
            answers.close();
        }
    });
    for round in 0..20_u64 {
        let answers = Queue::new().unwrap();
        let numbers = SharedSlice::from_slice(&[round, 10, 20]).unwrap();
        requests
            .put((
                answers.clone(),
                numbers,
                Closure::with(round, |round, number| number * round),
            ))
            .unwrap();
        assert_eq!(
            answers.iter().collect::<Vec<_>>(),
            [round * round, 10 * round, 20 * round]
        );
    }
    requests.close();
    server.join().unwrap();
});

each_method_alone!(a_value_with_three_hundred_handles_travels, |method| {
    // Four descriptors each.
    let queues: Vec<Queue<u32>> = (0..75).map(|_| Queue::new().unwrap()).collect();
    let carrier = Queue::<Vec<Queue<u32>>>::new().unwrap();
    let far = start(
        method,
        carrier.clone(),
        |carrier: Queue<Vec<Queue<u32>>>| {
            for (number, queue) in (0..).zip(carrier.get().unwrap()) {
                queue.put(number).unwrap();
            }
        },
    );
    carrier.put(queues.clone()).unwrap();
    far.join().unwrap();
    let answers: Vec<u32> = queues.iter().map(|queue| queue.get().unwrap()).collect();
    assert_eq!(answers, (0..75).collect::<Vec<_>>());
    // What nobody gets is closed with the queue.
    carrier.put(queues).unwrap();
});

each_method_alone!(handles_wait_for_room_beside_the_queue, |method| {
    let carrier = Queue::<(u32, Queue<u8>)>::new().unwrap();
    let inner = Queue::new().unwrap();
    let mut put = 0;
    while carrier.try_put((put, inner.clone())).is_ok() {
        put += 1;
    }
    assert!(put > 10, "{put}");
    let late = carrier
        .put_timeout((put, inner.clone()), SHORT)
        .unwrap_err();
    assert!(late.is_timeout(), "{late}");
    let getter = start(
        method,
        carrier.clone(),
        |carrier: Queue<(u32, Queue<u8>)>| {
            carrier
                .iter()
                .map(|(number, _inner)| number)
                .collect::<Vec<u32>>()
        },
    );
    for number in put..put + 500 {
        carrier.put((number, inner.clone())).unwrap();
    }
    carrier.close();
    assert_eq!(getter.join().unwrap(), (0..put + 500).collect::<Vec<_>>());
});

#[test]
fn a_queue_has_no_form_for_others() {
    let error = serde_json::to_string(&Queue::<u8>::new().unwrap()).unwrap_err();
    assert!(
        error.to_string().contains("processes of this program only"),
        "{error}"
    );
}

each_method!(
    all_that_was_put_is_there_when_its_putter_has_ended,
    |method| {
        let queue = Queue::new().unwrap();
        let putter = start(method, queue.clone(), |queue: Queue<u64>| {
            for number in 0..200_000 {
                queue.put(number).unwrap();
            }
        });
        putter.join().unwrap();
        assert_eq!(queue.len(), 200_000);
        for number in 0..200_000 {
            assert_eq!(queue.try_get().unwrap(), number);
        }
        assert!(queue.is_empty());
    }
);

each_method!(join_waits_for_what_is_done_with, |method| {
    let queue = Queue::new().unwrap();
    queue.join().unwrap();
    assert!(queue.task_done().is_err());
    let workers: Vec<Process<u64>> = (0..2)
        .map(|_| {
            start(method, queue.clone(), |queue: Queue<u64>| {
                let mut done = 0;
                for _number in queue.iter() {
                    queue.task_done().unwrap();
                    done += 1;
                }
                done
            })
        })
        .collect();
    for number in 0..5000 {
        queue.put(number).unwrap();
        if number % 100 == 0 {
            queue.join().unwrap();
            assert!(queue.is_empty());
        }
    }
    queue.join_timeout(LONG).unwrap();
    assert!(queue.task_done().is_err(), "told too often");
    queue.put(0).unwrap();
    queue.close();
    let done: u64 = workers
        .into_iter()
        .map(|worker| worker.join().unwrap())
        .sum();
    assert_eq!(done, 5001);
    let open = Queue::new().unwrap();
    open.put(1_u8).unwrap();
    assert!(open.join_timeout(SHORT).unwrap_err().is_timeout());
    open.get().unwrap();
    assert!(open.join_timeout(SHORT).unwrap_err().is_timeout());
    open.task_done().unwrap();
    open.join().unwrap();
});

#[test]
fn those_who_are_done_at_the_same_time_are_counted_while_more_is_put() {
    let queue = Queue::new().unwrap();
    let done: u64 = thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let told = |_: u64| queue.task_done().unwrap();
                    queue.iter().map(told).count() as u64
                })
            })
            .collect();
        for number in 0..200_000 {
            queue.put(number).unwrap();
            if number % 8 == 0 {
                thread::yield_now();
            }
        }
        queue.close();
        workers.into_iter().map(|one| one.join().unwrap()).sum()
    });
    assert_eq!(done, 200_000);
    queue.join_timeout(LONG).unwrap();
}

each_method!(
    its_descriptor_is_readable_while_there_is_something_to_get,
    |method| {
        let queue = Queue::new().unwrap();
        queue.put(1_u8).unwrap();
        assert!(is_readable(&queue));
        queue.get().unwrap();
        assert!(queue.try_get().is_err());
        assert!(!is_readable(&queue));
        let far = start(method, queue.clone(), |queue: Queue<u8>| {
            for number in 0..3 {
                queue.put(number).unwrap();
            }
        });
        assert!(polls_readable(&queue, LONG));
        far.join().unwrap();
        for number in 0..3 {
            assert!(is_readable(&queue));
            assert_eq!(queue.get().unwrap(), number);
        }
        assert!(!is_readable(&queue));
        let closer = start(method, queue.clone(), |queue: Queue<u8>| queue.close());
        assert!(polls_readable(&queue, LONG));
        closer.join().unwrap();
        for _ in 0..5 {
            assert!(queue.try_get().is_err());
            assert!(is_readable(&queue), "a closed queue has news for ever");
        }
        let closed = Queue::<u8>::new().unwrap();
        closed.close();
        assert!(is_readable(&closed));
    }
);

each_method_alone!(memory_is_given_back_after_a_burst, |method| {
    let queue = Queue::new().unwrap();
    let putter = start(method, queue.clone(), |queue: Queue<Vec<u8>>| {
        for number in 0..200 {
            queue.put(vec![number; 1 << 20]).unwrap();
        }
    });
    putter.join().unwrap();
    assert!(memory_of_queues() > 200 << 20);
    for number in 0..200 {
        assert_eq!(queue.get().unwrap(), vec![number; 1 << 20]);
        assert!(
            memory_of_queues() < (216 - u64::from(number)) << 20,
            "it is given back on the way"
        );
    }
    assert!(
        memory_of_queues() <= 17 << 20,
        "{} are left",
        memory_of_queues()
    );
    queue.put(vec![1; 30 << 20]).unwrap();
    assert_eq!(queue.get().unwrap().len(), 30 << 20);
    assert!(
        memory_of_queues() <= 17 << 20,
        "{} are left",
        memory_of_queues()
    );
});

each_method_alone!(
    what_was_written_of_a_value_that_was_not_put_is_given_back,
    |method| {
        let queue = Queue::new().unwrap();
        let far = start(
            method,
            queue.clone(),
            |queue: Queue<(Vec<u8>, Option<Queue<u8>>)>| {
                let inner = Queue::new().unwrap();
                while queue.try_put((Vec::new(), Some(inner.clone()))).is_ok() {}
                // All of it is written before it turns out that there is no room for the handle.
                let refused = queue.try_put((vec![1; 64 << 20], Some(inner)));
                assert!(refused.unwrap_err().is_full());
            },
        );
        far.join().unwrap();
        assert!(memory_of_queues() > 64 << 20);
        for _ in 0..queue.len() {
            assert!(queue.get().unwrap().0.is_empty());
        }
        assert!(
            memory_of_queues() <= 17 << 20,
            "{} are left",
            memory_of_queues()
        );
    }
);

each_method_alone!(
    a_queue_that_never_is_empty_takes_memory_for_what_is_in_it,
    |method| {
        let queue = Queue::new().unwrap();
        let getter = start(method, queue.clone(), |queue: Queue<Vec<u8>>| {
            queue.iter().map(|bytes| bytes.len() as u64).sum::<u64>()
        });
        let kept = Queue::new().unwrap();
        for number in 0..30_u8 {
            kept.put(vec![number; 1 << 20]).unwrap();
        }
        for number in 30..200_u8 {
            kept.put(vec![number; 1 << 20]).unwrap();
            assert_eq!(kept.get().unwrap(), vec![number - 30; 1 << 20]);
            assert!(memory_of_queues() < 60 << 20);
            queue.put(vec![0; 1000]).unwrap();
        }
        queue.close();
        assert_eq!(getter.join().unwrap(), 170_000);
    }
);

each_method_alone!(a_gibibyte_travels_in_one_value, LONG_LIMIT, |method| {
    let queue = Queue::new().unwrap();
    let putter = start(method, queue.clone(), |queue: Queue<Vec<u8>>| {
        let mut bytes = vec![7; 1 << 30];
        bytes[(1 << 30) - 1] = 9;
        queue.put(bytes).unwrap();
    });
    putter.join().unwrap();
    let bytes = queue.get().unwrap();
    assert_eq!(
        (bytes.len(), bytes[12345], bytes[(1 << 30) - 1]),
        (1 << 30, 7, 9)
    );
    assert!(memory_of_queues() <= 17 << 20);
});

each_method_alone!(
    little_address_space_and_small_files_are_enough_or_an_error,
    |method| {
        let queue = Queue::new().unwrap();
        let far = start(method, queue.clone(), |queue: Queue<Vec<u8>>| {
            use nix::sys::resource::{Resource, setrlimit};
            // Beyond what a child has mapped, there is room for a few MiB only.
            let pages: u64 = std::fs::read_to_string("/proc/self/statm")
                .unwrap()
                .split(' ')
                .next()
                .unwrap()
                .parse()
                .unwrap();
            let limit = pages * 4096 + (12 << 20);
            setrlimit(Resource::RLIMIT_AS, limit, limit).unwrap();
            for number in 0..40 {
                queue.put(vec![number; 1 << 20]).unwrap();
                for small in 0..100 {
                    queue.put(vec![small; 100]).unwrap();
                }
            }
            setrlimit(Resource::RLIMIT_FSIZE, 8 << 20, 8 << 20).unwrap();
            let refused = queue.put(vec![1; 1 << 20]).unwrap_err();
            assert!(refused.to_string().contains("RLIMIT_FSIZE"), "{refused}");
            let small = Queue::<u8>::new().unwrap_err();
            assert!(small.to_string().contains("RLIMIT_AS"), "{small}");
        });
        far.join().unwrap();
        for number in 0..40_u8 {
            assert_eq!(queue.get().unwrap(), vec![number; 1 << 20]);
            for small in 0..100_u8 {
                assert_eq!(queue.get().unwrap(), vec![small; 100]);
            }
        }
        assert!(queue.is_empty());
    }
);

each_method_alone!(a_reader_that_sleeps_long_uses_no_processor, |method| {
    let queue = Queue::<u8>::new().unwrap();
    let reader = start(method, queue.clone(), |queue: Queue<u8>| {
        let used = || {
            use nix::sys::resource::{UsageWho, getrusage};
            let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
            let time = usage.user_time() + usage.system_time();
            Duration::from_micros(
                u64::try_from(time.tv_sec()).unwrap() * 1_000_000
                    + u64::try_from(time.tv_usec()).unwrap(),
            )
        };
        let before = used();
        assert!(
            queue
                .get_timeout(Duration::from_secs(2))
                .unwrap_err()
                .is_timeout()
        );
        used() - before
    });
    let used = reader.join().unwrap();
    assert!(used < Duration::from_millis(20), "{used:?} of 2 s");
});

/// A message whose bytes tell whose it is, which one, and whether it is whole.
fn message(putter: u64, number: u64) -> Vec<u8> {
    let random = (putter << 32 | number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let random = random ^ random >> 29;
    let len = match random % 1000 {
        0 if random >> 20 & 31 == 0 => 8 << 20,
        0..20 => (random >> 20) % 100_000,
        20..200 => (random >> 20) % 2000,
        _ => (random >> 20) % 64,
    };
    let mut bytes = vec![(random >> 40) as u8; usize::try_from(len).unwrap()];
    let mark = [putter, number, checksum(&bytes)];
    bytes.extend(mark.iter().flat_map(|word| word.to_le_bytes()));
    bytes
}

/// Whose it is, and which one.
fn read(mut bytes: Vec<u8>) -> (u64, u64) {
    let mark = bytes.split_off(bytes.len() - 24);
    let word = |at: usize| u64::from_le_bytes(mark[at..at + 8].try_into().unwrap());
    assert_eq!(word(16), checksum(&bytes), "torn");
    (word(0), word(8))
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(bytes.len() as u64, |sum, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        (sum.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x517c_c1b7_2722_0a95)
    })
}

const PUTTERS: u64 = 8;

fn many_to_many(method: StartMethod, queue: &Queue<Vec<u8>>) {
    let each = 2_500 * scale();
    let getters: Vec<Process<Vec<Vec<u64>>>> = (0..8)
        .map(|_| {
            start(method, queue.clone(), |queue: Queue<Vec<u8>>| {
                let mut got = vec![Vec::new(); usize::try_from(PUTTERS).unwrap()];
                for bytes in queue.iter() {
                    let (putter, number) = read(bytes);
                    got[usize::try_from(putter).unwrap()].push(number);
                }
                got
            })
        })
        .collect();
    let putters: Vec<Process<()>> = (0..PUTTERS)
        .map(|putter| {
            start(
                method,
                (queue.clone(), putter, each),
                |(queue, putter, each): (Queue<Vec<u8>>, u64, u64)| {
                    for number in 0..each {
                        queue.put(message(putter, number)).unwrap();
                    }
                },
            )
        })
        .collect();
    for putter in putters {
        putter.join().unwrap();
    }
    queue.close();
    let got: Vec<Vec<Vec<u64>>> = getters
        .into_iter()
        .map(|getter| getter.join().unwrap())
        .collect();
    let mut total = 0;
    for putter in 0..usize::try_from(PUTTERS).unwrap() {
        for getter in &got {
            assert!(getter[putter].is_sorted(), "out of order");
        }
        let mut numbers: Vec<u64> = got
            .iter()
            .flat_map(|getter| getter[putter].iter().copied())
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..each).collect::<Vec<_>>());
        total += numbers.len();
    }
    println!("{total} messages, each exactly once, in order for each putter");
}

/// As [`each_method_alone`] is too short for, when it is scaled up.
const SCALED_LIMIT: Duration = Duration::from_secs(3600);

each_method_alone!(
    many_processes_put_and_many_get_each_value_exactly_once_and_in_order,
    SCALED_LIMIT,
    |method| {
        many_to_many(method, &Queue::new().unwrap());
    }
);

each_method_alone!(
    many_processes_and_little_room_lose_nothing_either,
    SCALED_LIMIT,
    |method| {
        many_to_many(method, &Queue::bounded(3).unwrap());
    }
);

#[test]
fn many_threads_of_one_process_share_it() {
    within(LONG_LIMIT, || {
        let queue = Queue::bounded(50).unwrap();
        let total: u64 = thread::scope(|scope| {
            let getters: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| queue.iter().sum::<u64>()))
                .collect();
            let putters: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        for number in 0..20_000_u64 {
                            queue.put(number).unwrap();
                        }
                    })
                })
                .collect();
            for putter in putters {
                putter.join().unwrap();
            }
            queue.close();
            getters
                .into_iter()
                .map(|getter| getter.join().unwrap())
                .sum()
        });
        assert_eq!(total, 4 * (0..20_000).sum::<u64>());
    });
}

each_method_alone!(
    a_queue_takes_four_descriptors_and_a_clone_takes_none,
    |method| {
        let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = count();
        let queue = Queue::<u8>::bounded(4).unwrap();
        assert_eq!(count(), before + 4);
        let clone = queue.clone();
        assert_eq!(clone.as_fd().as_raw_fd(), queue.as_fd().as_raw_fd());
        assert_eq!(count(), before + 4);
        let far = start(method, queue, |queue: Queue<u8>| queue.capacity());
        assert_eq!(far.join().unwrap(), Some(4));
        drop(clone);
        assert_eq!(count(), before);
    }
);
