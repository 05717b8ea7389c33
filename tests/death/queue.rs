//! Queues: a putter, a getter, whoever closes, watches or tidies up is killed at each step.
//!
//! What is promised: a message is there as a whole, or was never put; what a getter had taken is gone with it, and nothing
//! else; nobody waits for the dead.

use crate::case::Then::{After, Before, Done, Either, Undone};
use crate::case::{Row, SOON, at, deaths, each, result_of, wait_until_asleep};
use crate::common::census::memory_of_queues;
use multiprocess::{Portable, Queue};
use std::time::{Duration, Instant};

pub(crate) const TABLES: &[&[Row]] = &[
    PUTTER,
    LARGE_PUTTER,
    HUGE_PUTTER,
    PUTTER_TO_SLEEPER,
    GETTER,
    GETTER_THAT_MAKES_ROOM,
    GETTER_OF_MUCH,
];

pub(crate) fn empty() -> Queue<u32> {
    Queue::new().unwrap()
}

pub(crate) fn with(values: &[u32]) -> Queue<u32> {
    let queue = empty();
    for &value in values {
        queue.put(value).unwrap();
    }
    queue
}

pub(crate) fn soon<T: Portable>(queue: &Queue<T>) -> T {
    queue.get_timeout(SOON).unwrap()
}

pub(crate) fn assert_serves(queue: &Queue<u32>) {
    for number in 90..93 {
        queue.put_timeout(number, SOON).unwrap();
        assert_eq!(soon(queue), number);
    }
    assert!(queue.is_empty() && queue.try_get().unwrap_err().is_empty());
}

const PUTTER: &[Row] = &[
    each("queue::put::inside", 2, Before),
    each("queue::put::body", 2, Before),
    each("queue::put::header", 2, Before),
    each("queue::put::pending", 2, Before),
    each("queue::ledger::tail_drafted", 2, Before),
    each("queue::put::published", 2, After),
    each("queue::put::placed", 2, After),
    each("queue::put::left", 2, After),
];

deaths!(a_putter, PUTTER, |case| {
    let queue = with(&[1]);
    let putter = case.victim(queue.clone(), |queue: Queue<u32>| {
        queue.put(2).unwrap();
        queue.put(3).unwrap();
    });
    case.assert_killed(putter);
    assert_eq!(soon(&queue), 1);
    let done = case.done().unwrap();
    for number in 2..2 + done {
        assert_eq!(queue.try_get().unwrap(), number);
    }
    assert_serves(&queue);
});

const LARGE_PUTTER: &[Row] = &[
    at("queue::put::inside", Undone),
    at("queue::put::body", Undone),
    at("queue::put::header", Undone),
    at("queue::put::pending", Undone),
    at("queue::put::published", Done),
    at("queue::put::left", Done),
    at("queue::again::base", Undone),
];

deaths!(a_putter_of_much, LARGE_PUTTER, |case| {
    const LEN: usize = 400_000;
    let queue = Queue::new().unwrap();
    // So far that the next one starts again.
    queue.put(vec![1_u8; LEN]).unwrap();
    assert_eq!(queue.get().unwrap().len(), LEN);
    let putter = case.victim(queue.clone(), |queue: Queue<Vec<u8>>| {
        queue.put(vec![2; LEN]).unwrap();
    });
    case.assert_killed(putter);
    if case.is_done() {
        assert_eq!(queue.try_get().unwrap(), vec![2; LEN]);
    }
    assert!(queue.try_get().unwrap_err().is_empty());
    queue.put_timeout(vec![3; 2 * LEN], SOON).unwrap();
    assert_eq!(soon(&queue), vec![3; 2 * LEN]);
});

const HUGE_PUTTER: &[Row] = &[
    at("queue::put::body", Undone),
    at("queue::put::header", Undone),
    at("queue::put::pending", Undone),
    at("queue::put::published", Done),
    at("queue::put::left", Done),
];

deaths!(a_putter_of_more_than_is_kept, HUGE_PUTTER, |case| {
    const LEN: usize = 40 << 20;
    // Who comes next gets, waits to, or puts: there is nothing left of it in any case.
    let nexts: [fn(&Queue<Vec<u8>>); 3] = [
        |queue| assert!(queue.try_get().is_err()),
        |queue| assert!(queue.get_timeout(Duration::ZERO).is_err()),
        |queue| {
            queue.put_timeout(vec![3], SOON).unwrap();
            assert_eq!(soon(queue), [3]);
        },
    ];
    for next in nexts {
        let queue = Queue::new().unwrap();
        let putter = case.victim(queue.clone(), |queue: Queue<Vec<u8>>| {
            queue.put(vec![2; LEN]).unwrap();
        });
        case.assert_killed(putter);
        assert!(memory_of_queues() > LEN as u64);
        if case.is_done() {
            assert_eq!(queue.try_get().unwrap(), vec![2; LEN]);
        }
        next(&queue);
        let left = memory_of_queues();
        assert!(left <= 17 << 20, "{left} bytes of memory are left");
    }
});

const PUTTER_TO_SLEEPER: &[Row] = &[
    at("queue::put::inside", Undone),
    at("queue::put::pending", Undone),
    at("queue::ledger::tail_drafted", Undone),
    at("queue::put::published", Done),
    at("queue::put::placed", Done),
    at("queue::put::left", Done),
];

deaths!(a_putter_while_others_wait, PUTTER_TO_SLEEPER, |case| {
    let queue = empty();
    let getters = [(); 2].map(|()| {
        case.other(queue.clone(), |queue: Queue<u32>| {
            queue.get_timeout(SOON).unwrap()
        })
    });
    getters.iter().for_each(wait_until_asleep);
    let putter = case.victim(queue.clone(), |queue: Queue<u32>| queue.put(1).unwrap());
    case.assert_killed(putter);
    let mut missing = 2;
    if case.is_done() {
        // With nobody coming to help.
        let started = Instant::now();
        while getters.iter().all(|getter| getter.is_alive()) {
            assert!(started.elapsed() < SOON, "nobody is woken");
            std::thread::sleep(Duration::from_millis(1));
        }
        missing = 1;
    }
    for number in 2..2 + missing {
        queue.put_timeout(number, SOON).unwrap();
    }
    let mut got = getters.map(result_of);
    got.sort_unstable();
    assert_eq!(got, if case.is_done() { [1, 2] } else { [2, 3] });
    assert_serves(&queue);
});

const GETTER: &[Row] = &[
    each("queue::get::inside", 2, Before),
    each("queue::get::copied", 2, Before),
    each("queue::get::peeked", 2, Before),
    each("queue::ledger::head_drafted", 2, Before),
    each("queue::get::announced", 2, After),
    each("queue::get::left", 2, After),
];

deaths!(a_getter, GETTER, |case| {
    let queue = with(&[0, 1, 2]);
    let getter = case.victim(queue.clone(), |queue: Queue<u32>| {
        queue.get().unwrap();
        queue.get().unwrap();
    });
    case.assert_killed(getter);
    for number in case.done().unwrap()..3 {
        assert_eq!(queue.try_get().unwrap(), number);
    }
    assert_serves(&queue);
});

const GETTER_THAT_MAKES_ROOM: &[Row] = &[
    at("queue::get::inside", Undone),
    at("queue::get::pending", Undone),
    at("queue::get::taken", Done),
    at("queue::get::announced", Done),
    at("queue::get::left", Done),
];

deaths!(
    a_getter_while_others_wait_for_room,
    GETTER_THAT_MAKES_ROOM,
    |case| {
        let queue = Queue::bounded(1).unwrap();
        queue.put(1).unwrap();
        let putter = case.other(queue.clone(), |queue: Queue<u32>| {
            queue.put_timeout(2, SOON).unwrap();
        });
        wait_until_asleep(&putter);
        let getter = case.victim(queue.clone(), |queue: Queue<u32>| queue.get().unwrap());
        case.assert_killed(getter);
        if !case.is_done() {
            assert_eq!(soon(&queue), 1);
        }
        result_of(putter);
        assert_eq!(soon(&queue), 2);
        assert_serves(&queue);
    }
);

const GETTER_OF_MUCH: &[Row] = &[
    each("queue::get::given_back", 2, After),
    at("queue::get::putting_too", Either),
    at("queue::again::base", Either),
    at("queue::again::given_back", Either),
];

deaths!(a_getter_of_much, GETTER_OF_MUCH, |case| {
    const LEN: usize = 9 << 20;
    let queue = Queue::new().unwrap();
    for byte in 0..3_u8 {
        queue.put(vec![byte; LEN]).unwrap();
    }
    let getter = case.victim(queue.clone(), |queue: Queue<Vec<u8>>| {
        for _ in 0..3 {
            queue.get().unwrap();
        }
    });
    case.assert_killed(getter);
    // Behind the message at hand memory is given back before it is taken; after the last one was taken, all of it is.
    let first = case.done().unwrap_or(3);
    for byte in first..3 {
        assert_eq!(soon(&queue), vec![byte as u8; LEN]);
    }
    assert!(queue.try_get().unwrap_err().is_empty());
    for byte in 3..5 {
        queue.put_timeout(vec![byte; LEN], SOON).unwrap();
        assert_eq!(soon(&queue), vec![byte; LEN]);
    }
});
