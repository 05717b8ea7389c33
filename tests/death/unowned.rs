//! `Semaphore` and `Event`: whoever waits or wakes is killed at each step.
//!
//! What is promised: a permit that a dead process had is gone; one that it gave is there; who waits for something that is there
//! is woken, whoever dies.

use crate::case::Then::{Done, Undone};
use crate::case::{Case, Row, SOON, at, deaths, kill_now, result_of, wait_until_asleep};
use multiprocess::{Event, Process, Semaphore};

pub(crate) const TABLES: &[&[Row]] = &[
    TAKER,
    SLEEPING_TAKER,
    GIVER,
    GIVER_AMONG_DEAD,
    SETTER,
    EVENT_WAITER,
    CLEARER,
];

fn taker(case: Case, semaphore: &Semaphore) -> Process<bool> {
    let taker = case.other(semaphore.clone(), |semaphore: Semaphore| {
        semaphore.acquire_timeout(SOON)
    });
    wait_until_asleep(&taker);
    taker
}

fn assert_serves(case: Case, semaphore: &Semaphore) {
    while semaphore.try_acquire() {}
    let takers = [(); 2].map(|()| taker(case, semaphore));
    semaphore.release().unwrap();
    semaphore.release().unwrap();
    assert_eq!(takers.map(result_of), [true, true]);
    assert_eq!(semaphore.value(), 0);
}

const TAKER: &[Row] = &[at("permits::try::looked", Done)];

deaths!(who_takes_a_permit, TAKER, |case| {
    let semaphore = Semaphore::new(2).unwrap();
    let victim = case.victim(semaphore.clone(), |semaphore: Semaphore| {
        semaphore.acquire()
    });
    case.assert_killed(victim);
    assert_eq!(semaphore.value(), 1);
    assert_serves(case, &semaphore);
});

const SLEEPING_TAKER: &[Row] = &[
    at("permits::take::covered", Undone),
    at("permits::take::marked", Undone),
    at("permits::take::woken", Undone),
    at("permits::take::taken", Done),
];

deaths!(who_waits_for_a_permit, SLEEPING_TAKER, |case| {
    let semaphore = Semaphore::new(0).unwrap();
    let victim = case.victim(semaphore.clone(), |semaphore: Semaphore| {
        semaphore.acquire()
    });
    wait_until_asleep(&victim);
    let other = taker(case, &semaphore);
    semaphore.release().unwrap();
    case.assert_killed(victim);
    if case.is_done() {
        semaphore.release().unwrap();
    }
    assert!(result_of(other));
    assert_eq!(semaphore.value(), 0);
    assert_serves(case, &semaphore);
});

const GIVER: &[Row] = &[
    at("permits::give::covered", Undone),
    at("permits::give::given", Done),
];

deaths!(who_gives_a_permit, GIVER, |case| {
    let semaphore = Semaphore::new(0).unwrap();
    let other = taker(case, &semaphore);
    let victim = case.victim(semaphore.clone(), |semaphore: Semaphore| {
        semaphore.release().unwrap();
    });
    case.assert_killed(victim);
    if !case.is_done() {
        semaphore.release().unwrap();
    }
    assert!(result_of(other));
    assert_eq!(semaphore.value(), 0);
    assert_serves(case, &semaphore);
});

const GIVER_AMONG_DEAD: &[Row] = &[
    at("permits::give::given", Done),
    at("permits::ring::nobody", Done),
    at("permits::ring::cleared", Done),
];

deaths!(who_gives_a_permit_to_the_dead, GIVER_AMONG_DEAD, |case| {
    let semaphore = Semaphore::new(0).unwrap();
    let dead = taker(case, &semaphore);
    kill_now(dead);
    let victim = case.victim(semaphore.clone(), |semaphore: Semaphore| {
        semaphore.release().unwrap();
    });
    case.assert_killed(victim);
    assert_eq!(semaphore.value(), 1);
    assert_serves(case, &semaphore);
});

fn waiter(case: Case, event: &Event) -> Process<bool> {
    let waiter = case.other(event.clone(), |event: Event| event.wait_timeout(SOON));
    wait_until_asleep(&waiter);
    waiter
}

fn assert_event_serves(case: Case, event: &Event) {
    event.clear();
    assert!(!event.is_set());
    let waiters = [(); 2].map(|()| waiter(case, event));
    event.set();
    assert_eq!(waiters.map(result_of), [true, true]);
}

const SETTER: &[Row] = &[
    at("event::set::covered", Undone),
    at("event::set::set", Done),
    at("event::set::woken", Done),
];

deaths!(who_sets_an_event, SETTER, |case| {
    let event = Event::new().unwrap();
    let waiters = [(); 3].map(|()| waiter(case, &event));
    let victim = case.victim(event.clone(), |event: Event| event.set());
    case.assert_killed(victim);
    assert_eq!(event.is_set(), case.is_done());
    if !case.is_done() {
        event.set();
    }
    assert_eq!(waiters.map(result_of), [true; 3]);
    assert_event_serves(case, &event);
});

const EVENT_WAITER: &[Row] = &[
    at("event::wait::covered", Undone),
    at("event::wait::woken", Undone),
];

deaths!(who_waits_for_an_event, EVENT_WAITER, |case| {
    let event = Event::new().unwrap();
    let victim = case.victim(event.clone(), |event: Event| event.wait());
    wait_until_asleep(&victim);
    let others = [(); 2].map(|()| waiter(case, &event));
    event.set();
    case.assert_killed(victim);
    assert_eq!(others.map(result_of), [true, true]);
    assert_event_serves(case, &event);
});

const CLEARER: &[Row] = &[at("event::clear::cleared", Done)];

deaths!(who_clears_an_event, CLEARER, |case| {
    let event = Event::new().unwrap();
    event.set();
    let victim = case.victim(event.clone(), |event: Event| event.clear());
    case.assert_killed(victim);
    assert!(!event.is_set());
    assert_event_serves(case, &event);
});
