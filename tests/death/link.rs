//! Links, which a pool and its workers have: either side is killed at each step.
//!
//! What is promised: a worker that dies costs the item that it was at, as a crash, and nothing else; the pool serves on. An
//! application that dies leaves no process.

use crate::board;
use crate::case::Then::{Either, Undone};
use crate::case::{Row, SOON, assert_nobody_left, at, deaths, each, method_of, name_of};
use crate::common::{assert_crash_by_signal, assert_serves, census};
use multiprocess::{Pool, Queue, SharedSlice, StartMethod, TaskError};
use nix::sys::signal::Signal;
use std::cell::Cell;
use std::time::Duration;

pub(crate) const TABLES: &[&[Row]] = &[
    WORKER,
    WORKER_WITH_MUCH,
    WORKER_WITH_HANDLES,
    WORKER_WITH_SLICES,
    BEGINNER,
    APPLICATION,
    APPLICATION_WITH_SLICES,
];

pub(crate) fn pool(method: StartMethod) -> Pool {
    Pool::builder()
        .workers(2)
        .start_method(method)
        .build()
        .unwrap()
}

/// Checks that all results but one at most are right, and that one is a crash, by SIGKILL, of who came to the step.
pub(crate) fn assert_one_crash_at_most<R: PartialEq + std::fmt::Debug>(
    results: impl Iterator<Item = Result<R, multiprocess::TaskError>>,
    expected: impl Fn(usize) -> R,
) -> u32 {
    let mut crashes = 0;
    for (number, result) in results.enumerate() {
        match result {
            Ok(value) => assert_eq!(value, expected(number)),
            Err(error) => {
                assert_crash_by_signal(&error, Signal::SIGKILL);
                crashes += 1;
            }
        }
    }
    assert!(crashes <= 1, "one death cost {crashes} items");
    crashes
}

/// Waits until somebody has died at the step, as it may a moment after the last result was there.
pub(crate) fn assert_reached() {
    let dead = census::poll(SOON, || board::dead(0), Option::is_some);
    assert!(dead.is_some(), "nobody came to that step");
}

const WORKER: &[Row] = &[
    each("link::recv::header", 2, Undone),
    each("link::recv::taken", 2, Undone),
    each("link::recv::whole", 2, Undone),
    each("link::send::header", 3, Either),
    each("link::send::body", 3, Either),
    each("ring::put::written", 2, Either),
    each("ring::put::shown", 2, Either),
    each("ring::take::copied", 2, Undone),
    each("ring::take::released", 2, Undone),
    at("ring::sleep::number_drafted", Undone),
    at("ring::sleep::announced", Undone),
    at("ring::sleep::awake", Undone),
    at("link::bell::owed", Either),
    at("link::wait::woken", Undone),
];

deaths!(a_worker, WORKER, |case| {
    let pool = pool(case.method);
    assert_serves(&pool);
    case.arm().anyone_else();
    let results = pool.imap(0..60_u64, |number| {
        std::thread::sleep(Duration::from_micros(200));
        number * 3
    });
    let crashes = Cell::new(assert_one_crash_at_most(results, |number| {
        number as u64 * 3
    }));
    // Somebody may have been busy all the while. At each call somebody sleeps, and is woken.
    let look = || {
        if board::dead(0).is_none() {
            let called = [pool.apply(7_u64, |number| number * 3)].into_iter();
            crashes.set(crashes.get() + assert_one_crash_at_most(called, |_| 21));
        }
        board::dead(0)
    };
    let dead = census::poll(SOON, look, Option::is_some);
    assert!(dead.is_some(), "nobody came to that step");
    assert!(crashes.get() <= 1, "one death cost two items");
    assert_serves(&pool);
});

const WORKER_WITH_MUCH: &[Row] = &[
    each("link::send::part", 3, Either),
    each("link::recv::taken", 3, Undone),
    each("ring::take::released", 3, Undone),
    each("link::bell::owed", 2, Either),
];

deaths!(a_worker_with_much, WORKER_WITH_MUCH, |case| {
    const LEN: usize = 6 << 20;
    let pool = pool(case.method);
    assert_serves(&pool);
    case.arm().anyone_else();
    let items: Vec<Vec<u8>> = (0..4).map(|byte| vec![byte; LEN]).collect();
    let results = pool.imap(items, |mut bytes| {
        bytes.reverse();
        bytes
    });
    assert_one_crash_at_most(results, |byte| vec![byte as u8; LEN]);
    assert_reached();
    assert_serves(&pool);
});

const WORKER_WITH_HANDLES: &[Row] = &[
    at("rights::kept_one", Undone),
    at("link::recv::descriptors", Undone),
    at("rights::sent_one", Either),
];

deaths!(a_worker_with_handles, WORKER_WITH_HANDLES, |case| {
    let pool = pool(case.method);
    assert_serves(&pool);
    case.arm().anyone_else();
    let queues: Vec<Queue<u32>> = (0..4).map(|_| Queue::new().unwrap()).collect();
    let results = pool.imap(queues.clone(), |queue: Queue<u32>| {
        queue.put(7).unwrap();
        queue
    });
    let results = results.map(|result| result.map(|queue| queue.get_timeout(SOON).unwrap()));
    assert_one_crash_at_most(results, |_| 7);
    assert_reached();
    assert_serves(&pool);
});

const WORKER_WITH_SLICES: &[Row] = &[
    each("loans::keep::said", 2, Undone),
    each("link::recv::named", 3, Undone),
    each("loan::let_go::said", 2, Either),
];

/// Two slices to the workers of a pool, over and over: sent, named, let go of.
fn pass_slices(pool: &Pool) -> impl Iterator<Item = Result<u64, TaskError>> {
    let slices = [3, 5].map(|by| SharedSlice::from_fn(1000, |at| by * at as u64).unwrap());
    let items = (0..100).map(move |at| slices[at % 2].clone());
    pool.job().chunk_size(1).imap(items, |slice| {
        std::thread::sleep(Duration::from_micros(100));
        slice[999]
    })
}

fn of_slice(number: usize) -> u64 {
    [2997, 4995][number % 2]
}

deaths!(a_worker_with_slices, WORKER_WITH_SLICES, |case| {
    let pool = pool(case.method);
    assert_serves(&pool);
    case.arm().anyone_else();
    assert_one_crash_at_most(pass_slices(&pool), of_slice);
    assert_reached();
    assert_serves(&pool);
    assert!(pass_slices(&pool).all(|result| result.is_ok()));
});

const BEGINNER: &[Row] = &[
    each("link::attach::adopted", 2, Undone),
    each("link::attach::mapped", 2, Undone),
    each("link::send::header", 2, Undone),
    each("ring::sleep::announced", 2, Undone),
];

deaths!(a_worker_that_begins, BEGINNER, |case| {
    case.arm().anyone_else();
    let pool = pool(case.method);
    let results = pool.imap(0..20_u32, |number| {
        std::thread::sleep(Duration::from_micros(200));
        number + 1
    });
    assert_one_crash_at_most(results, |number| number as u32 + 1);
    assert_reached();
    assert_serves(&pool);
});

const APPLICATION: &[Row] = &[
    each("link::send::header", 3, Undone),
    each("link::send::body", 3, Undone),
    each("ring::put::shown", 3, Undone),
    each("link::bell::owed", 2, Undone),
    each("link::recv::header", 2, Undone),
    each("link::recv::whole", 2, Undone),
    each("ring::take::released", 2, Undone),
    each("ring::sleep::announced", 2, Undone),
    each("ring::sleep::awake", 2, Undone),
];

deaths!(an_application, APPLICATION, |case| {
    let pids = Queue::new().unwrap();
    let application = case.victim(
        (pids.clone(), name_of(case.method)),
        |(pids, method): (Queue<Vec<u32>>, String)| {
            let pool = pool(method_of(&method));
            pids.put(pool.worker_pids()).unwrap();
            for _ in 0..3 {
                let results = pool.imap(0..100_u32, |number| {
                    std::thread::sleep(Duration::from_micros(100));
                    number
                });
                results.for_each(|result| assert!(result.unwrap() < 100));
            }
        },
    );
    case.assert_killed(application);
    assert_nobody_left(case);
});

const APPLICATION_WITH_SLICES: &[Row] = &[
    each("loan::lend::counted", 3, Undone),
    each("loans::name::all", 3, Undone),
];

deaths!(
    an_application_with_slices,
    APPLICATION_WITH_SLICES,
    |case| {
        let application = case.victim(name_of(case.method), |method: String| {
            let pool = pool(method_of(&method));
            for (number, result) in pass_slices(&pool).enumerate() {
                assert_eq!(result.unwrap(), of_slice(number));
            }
        });
        case.assert_killed(application);
        assert_nobody_left(case);
    }
);
