//! Semaphores and events: what has no owner.

use crate::deadline::Deadline;
use crate::kernel::{WHOLE, explore, start, start_doomed, with_each_death};
use crate::memory::Mapping;
use crate::sync::event::Event;
use crate::sync::permits::Permits;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

const SOME_TIME: Duration = Duration::from_secs(1);

#[test]
fn no_more_come_in_than_there_are_permits() {
    explore(WHOLE, || {
        let permits = Permits::new(1).unwrap();
        let count = Arc::new(Mapping::new(8));
        let enter = move || {
            assert!(permits.take(Deadline::NEVER));
            let word = count.word(0);
            word.store(word.load(Relaxed) + 1, Relaxed);
            assert!(permits.give(1));
            count.word(0).load(Relaxed)
        };
        let others = [start(2, enter.clone()), start(3, enter.clone())];
        enter();
        let _ = others.map(|other| other.join().unwrap());
    });
}

#[test]
fn one_that_gives_up_takes_no_permit_and_no_wake_up_with_it() {
    explore(WHOLE, || {
        let permits = Permits::new(0).unwrap();
        let (patient, hasty) = (permits.clone(), permits.clone());
        let patient = start(2, move || patient.take(Deadline::NEVER));
        let hasty = start(3, move || hasty.take(Deadline::after(SOME_TIME)));
        permits.give(9);
        if hasty.join().unwrap() {
            permits.give(9);
        }
        assert!(patient.join().unwrap());
        assert_eq!(permits.free(), 0);
    });
}

#[test]
fn one_that_dies_as_it_takes_a_permit_keeps_nobody_waiting() {
    with_each_death(WHOLE, |at| {
        let permits = Permits::new(0).unwrap();
        let (patient, doomed) = (permits.clone(), permits.clone());
        let patient = start(2, move || patient.take(Deadline::NEVER));
        let doomed = start_doomed(3, at, move || doomed.take(Deadline::NEVER));
        permits.give(9);
        permits.give(9);
        doomed.join().unwrap();
        assert!(patient.join().unwrap());
    });
}

#[test]
fn one_that_dies_as_it_gives_a_permit_back_keeps_nobody_waiting() {
    with_each_death(WHOLE, |at| {
        let permits = Permits::new(0).unwrap();
        let (patient, doomed) = (permits.clone(), permits.clone());
        let patient = start(2, move || patient.take(Deadline::NEVER));
        let doomed = start_doomed(3, at, move || doomed.give(9));
        doomed.join().unwrap();
        // If it has given it and nobody has it, somebody has been woken.
        if permits.free() == 0 {
            permits.give(9);
        }
        assert!(patient.join().unwrap());
    });
}

#[test]
fn an_event_that_is_set_wakes_all_also_while_it_is_cleared() {
    explore(WHOLE, || {
        let event = Event::new().unwrap();
        let (one, other) = (event.clone(), event.clone());
        let waiter = start(2, move || one.wait());
        let clearer = start(3, move || other.clear());
        event.set();
        clearer.join().unwrap();
        if !event.is_set() {
            event.set();
        }
        waiter.join().unwrap();
    });
    explore(WHOLE, || {
        let event = Event::new().unwrap();
        let waiters = [2, 3].map(|tid| {
            let event = event.clone();
            start(tid, move || event.wait())
        });
        event.set();
        let _ = waiters.map(|waiter| waiter.join().unwrap());
    });
}

#[test]
fn one_that_dies_as_it_sets_an_event_keeps_nobody_waiting() {
    with_each_death(WHOLE, |at| {
        let event = Event::new().unwrap();
        let waiters = [2, 3].map(|tid| {
            let event = event.clone();
            start(tid, move || event.wait())
        });
        let doomed = event.clone();
        start_doomed(4, at, move || doomed.set()).join().unwrap();
        if !event.is_set() {
            event.set();
        }
        let _ = waiters.map(|waiter| waiter.join().unwrap());
    });
}
