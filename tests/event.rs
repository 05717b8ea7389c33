//! `Event`: who waits goes when it is set, whoever dies meanwhile.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::many::scaled;
use common::victim::{Random, Victim};
use common::{each_method, each_method_alone, pool};
use multiprocess::{Event, Process, Semaphore, Value};
use std::thread;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_millis(30);
/// When a call with a limit counts as hung.
const LATE: Duration = Duration::from_secs(2);

#[test]
fn it_is_set_and_cleared() {
    let event = Event::new().unwrap();
    assert!(!event.is_set());
    event.set();
    event.set();
    assert!(event.is_set() && event.wait_timeout(Duration::ZERO));
    event.wait();
    event.clear();
    event.clear();
    assert!(!event.is_set() && !event.wait_timeout(Duration::ZERO));
    assert_eq!(format!("{event:?}"), "Event { is_set: false }");
    assert!(serde_json::to_string(&event).is_err());
}

#[test]
fn a_wait_ends_with_its_limit() {
    let event = Event::new().unwrap();
    let start = Instant::now();
    assert!(!event.wait_timeout(SOON));
    assert!(start.elapsed() >= SOON && start.elapsed() < SOON + LATE);
}

#[test]
fn who_slept_goes_even_if_it_is_cleared_at_once() {
    for _ in 0..200 {
        let event = Event::new().unwrap();
        let seen = thread::scope(|scope| {
            let waiter = scope.spawn(|| event.wait_timeout(LATE));
            // Whether it sleeps already: nobody knows; so it is set and cleared until it has gone.
            while !waiter.is_finished() {
                event.set();
                event.clear();
                thread::yield_now();
            }
            waiter.join().unwrap()
        });
        assert!(seen);
    }
}

each_method_alone!(all_who_wait_go, |method| {
    let (event, gone) = (Event::new().unwrap(), Value::new(0_u32).unwrap());
    let here = Semaphore::new(0).unwrap();
    let wait = |(here, event, gone): (Semaphore, Event, Value<u32>)| {
        here.release().unwrap();
        event.wait();
        gone.fetch_add(1);
    };
    let processes: Vec<Process> = (0..8)
        .map(|_| {
            let shared = (here.clone(), event.clone(), gone.clone());
            Process::builder()
                .start_method(method)
                .spawn(shared, wait)
                .unwrap()
        })
        .collect();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| wait((here.clone(), event.clone(), gone.clone())));
        }
        for _ in 0..12 {
            here.acquire();
        }
        assert_eq!(gone.get(), 0);
        event.set();
    });
    for process in processes {
        process.join().unwrap();
    }
    assert_eq!(gone.get(), 12);
});

each_method!(a_process_sets_what_this_one_waits_for, |method| {
    let pool = pool(method, 1);
    for _ in 0..200 {
        let event = Event::new().unwrap();
        pool.apply(event.clone(), |event: Event| event.set())
            .unwrap();
        event.wait();
    }
    let made = pool.apply((), |()| Event::new().unwrap()).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| made.wait());
        pool.apply(made.clone(), |made: Event| made.set()).unwrap();
    });
});

fn alone(test: &str, body: fn()) {
    common::alone::in_own_process(test, common::LIMIT, body);
}

#[test]
fn who_is_killed_while_it_sets_leaves_nobody_asleep() {
    alone("who_is_killed_while_it_sets_leaves_nobody_asleep", || {
        let mut random = Random::new();
        let mut set_by_victim = 0;
        let mut longest = Duration::from_micros(20);
        for _ in 0..scaled(1500) {
            let (event, begun) = (Event::new().unwrap(), Semaphore::new(0).unwrap());
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| event.wait());
                }
                let victim = Victim::new(|| {
                    begun.release().unwrap();
                    event.set();
                });
                begun.acquire();
                random.pause(longest);
                victim.kill();
                // If it is set all three must go, although who set it may not have woken anybody: this would hang.
                if event.is_set() {
                    set_by_victim += 1;
                } else {
                    event.set();
                }
                if set_by_victim == 0 {
                    // It may have to wait till it is given the processor on which this thread is.
                    longest = (longest + longest / 100).min(Duration::from_millis(10));
                }
            });
        }
        assert!(set_by_victim > 0, "none got so far: this shows nothing");
    });
}

#[test]
fn waiters_that_are_killed_disturb_nobody() {
    alone("waiters_that_are_killed_disturb_nobody", || {
        let mut random = Random::new();
        for _ in 0..scaled(300) {
            let event = Event::new().unwrap();
            let victims: Vec<Victim> = (0..3).map(|_| Victim::new(|| event.wait())).collect();
            thread::scope(|scope| {
                scope.spawn(|| event.wait());
                let limited = scope.spawn(|| event.wait_timeout(LATE * 10));
                random.pause(Duration::from_micros(200));
                event.set();
                for victim in victims {
                    victim.kill();
                }
                assert!(limited.join().unwrap());
            });
        }
    });
}
