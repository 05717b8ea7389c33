//! Pools: a worker, or the application, is killed at each step between an item and its outcome; the application also where it
//! shares out, takes back, sleeps, and ends workers.
//!
//! What is promised: as in `link`; and an item that was not begun, or whose outcome was shown, is no crash.

use crate::case::Then::{Either, Held, Undone};
use crate::case::{Case, Row, assert_nobody_left, at, deaths, each, method_of, name_of};
use crate::common::{assert_serves, kill_hard};
use crate::link::{assert_one_crash_at_most, assert_reached, pool};
use multiprocess::{Event, Pool, Queue};
use std::time::Duration;

pub(crate) const TABLES: &[&[Row]] = &[
    WORKER,
    WORKER_WITH_TEXTS,
    WORKER_WITH_NUMBERS,
    WORKER_WITH_CAPTURES,
    BEGINNER,
    APPLICATION,
    DRIVER,
];

fn assert_crashes(case: Case, crashes: u32) {
    match case.row.then {
        Undone => assert_eq!(
            crashes, 0,
            "an item that was not begun, or was told of, is a crash"
        ),
        Held => assert_eq!(crashes, 1, "an item that was begun was run once more"),
        _ => {}
    }
}

const WORKER: &[Row] = &[
    each("worker::take::claimed", 3, Undone),
    each("worker::work::marked_number", 3, Held),
    each("worker::work::run", 3, Held),
    each("worker::tell::put", 3, Held),
    each("worker::tell::shown", 3, Undone),
];

deaths!(a_worker, WORKER, |case| {
    let pool = pool(case.method);
    assert_serves(&pool);
    case.arm().anyone_else();
    let results = pool.imap(0..60_u64, |number| {
        std::thread::sleep(Duration::from_micros(200));
        number * 3
    });
    let crashes = assert_one_crash_at_most(results, |number| number as u64 * 3);
    assert_reached();
    assert_crashes(case, crashes);
    assert_serves(&pool);
});

const WORKER_WITH_TEXTS: &[Row] = &[
    each("worker::work::marked", 3, Held),
    each("worker::work::run", 3, Held),
    each("worker::tell::shown", 3, Undone),
];

deaths!(a_worker_with_texts, WORKER_WITH_TEXTS, |case| {
    let pool = pool(case.method);
    assert_serves(&pool);
    case.arm().anyone_else();
    let texts = (0..60).map(|number| number.to_string());
    let results = pool.imap(texts, |text| {
        std::thread::sleep(Duration::from_micros(200));
        text + "!"
    });
    let crashes = assert_one_crash_at_most(results, |number| format!("{number}!"));
    assert_reached();
    assert_crashes(case, crashes);
    assert_serves(&pool);
});

/// Results that go to their place in the vector as they come: none is lost, and none stands in another's place.
const WORKER_WITH_NUMBERS: &[Row] = &[
    each("worker::take::claimed", 3, Undone),
    each("worker::work::marked_number", 3, Held),
    each("worker::work::run", 3, Held),
    each("worker::tell::put", 3, Held),
    each("worker::tell::shown", 3, Undone),
    each("link::send::header", 3, Either),
    each("link::send::body", 3, Either),
    each("ring::put::written", 3, Either),
    each("ring::put::shown", 3, Either),
];

deaths!(
    a_worker_whose_numbers_have_a_place,
    WORKER_WITH_NUMBERS,
    |case| {
        let pool = pool(case.method);
        assert_serves(&pool);
        case.arm().anyone_else();
        // Of 320 kB, which is enough for them to be given one; whoever is charged with the death is run once more.
        let numbers = pool
            .job()
            .retries(1)
            .map(0..40_000_u64, |number| number * 3);
        let expected = (0..40_000_u64).map(|number| number * 3);
        assert!(numbers.unwrap().into_iter().eq(expected));
        assert_reached();
        assert_serves(&pool);
    }
);

const WORKER_WITH_CAPTURES: &[Row] = &[each("worker::captures::kept", 2, Undone)];

deaths!(
    a_worker_that_is_given_captures,
    WORKER_WITH_CAPTURES,
    |case| {
        let pool = pool(case.method);
        assert_serves(&pool);
        case.arm().anyone_else();
        let with = pool.with(vec![3_u64; 1000]);
        let results = with.imap(0..60_u64, |factors, number| {
            std::thread::sleep(Duration::from_micros(200));
            factors[7] * number
        });
        let crashes = assert_one_crash_at_most(results, |number| number as u64 * 3);
        assert_reached();
        assert_crashes(case, crashes);
        assert_serves(&pool);
    }
);

const BEGINNER: &[Row] = &[each("worker::setup::done", 2, Either)];

deaths!(a_worker_that_is_set_up, BEGINNER, |case| {
    case.arm().anyone_else();
    let pool = Pool::builder()
        .workers(2)
        .start_method(case.method)
        .initializer(7_u32, |number| number)
        .build()
        .unwrap();
    let results = pool.imap(0..60_u64, |number| {
        std::thread::sleep(Duration::from_micros(200));
        number * 3
    });
    assert_one_crash_at_most(results, |number| number as u64 * 3);
    assert_reached();
    assert_serves(&pool);
});

const APPLICATION: &[Row] = &[
    each("pool::hire::asked", 2, Undone),
    each("pool::hire::watched", 2, Undone),
    each("pool::send::put", 2, Undone),
    at("pool::send::part", Undone),
    at("pool::bury::ended", Undone),
    each("pool::dismiss::closed", 2, Undone),
];

deaths!(an_application, APPLICATION, |case| {
    let application = case.victim(name_of(case.method), |method: String| {
        let pool = pool(method_of(&method));
        let results = pool.imap(0..20_u32, |number| {
            if number == 10 {
                kill_hard(std::process::id());
            }
            number
        });
        assert_eq!(results.filter(Result::is_err).count(), 1);
        let much = pool.imap(vec![vec![7_u8; 6 << 20]; 2], |bytes| bytes.len());
        assert!(much.into_iter().all(|result| result.is_ok()));
        drop(pool);
    });
    case.assert_killed(application);
    assert_nobody_left(case);
});

const DRIVER: &[Row] = &[
    each("pool::feed::permitted", 3, Undone),
    at("pool::feed::taken_back", Undone),
    each("pool::receive::taken", 3, Undone),
    at("pool::receive::restarted", Undone),
    each("pool::sleep::announced", 2, Undone),
    each("pool::sleep::woken", 2, Undone),
    at("pool::kill::killed", Undone),
    at("pool::dismiss::killed", Undone),
];

// Whatever it was about to do, its workers go with it, and no item has run twice.
deaths!(an_application_that_drives, DRIVER, |case| {
    let runs = Queue::<u32>::new().unwrap();
    let arguments = (name_of(case.method), runs.clone());
    let application = case.victim(arguments, |(method, runs): (String, Queue<u32>)| {
        let pool = pool(method_of(&method));
        // Behind the first item stand some that the other worker takes over.
        let some = pool.with(runs).imap(0..40_u32, |runs, number| {
            if number == 0 {
                std::thread::sleep(Duration::from_millis(100));
            }
            runs.put(number).unwrap();
        });
        assert!(some.into_iter().all(|result| result.is_ok()));
        let mut late = pool
            .job()
            .timeout(Duration::from_millis(20))
            .imap([7_u32, 8], |_| loop_for_ever());
        assert!(late.all(|result| result.is_err_and(|error| error.is_timeout())));
        // It is dropped while an item runs: one that has not begun would need no kill.
        let begun = Event::new().unwrap();
        let _running = pool.with(begun.clone()).apply_async((), |begun, ()| {
            begun.set();
            loop_for_ever();
        });
        begun.wait();
    });
    case.assert_killed(application);
    assert_nobody_left(case);
    let mut ran: Vec<u32> = std::iter::from_fn(|| runs.try_get().ok()).collect();
    let all = ran.len();
    ran.sort_unstable();
    ran.dedup();
    assert_eq!(ran.len(), all, "an item ran twice");
    assert_serves(&pool(case.method));
});

fn loop_for_ever() {
    loop {
        std::thread::park();
    }
}
