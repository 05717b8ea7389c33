//! `Semaphore` and `BoundedSemaphore`: so many at a time, and no permit lost to who dies while waiting.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::many::scaled;
use common::victim::{Random, Victim};
use common::{each_method, each_method_alone, pool};
use multiprocess::{BoundedSemaphore, Process, Semaphore, Value};
use std::thread;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_millis(30);
/// When a call with a limit counts as hung.
const LATE: Duration = Duration::from_secs(2);

#[test]
fn permits_are_counted() {
    let semaphore = Semaphore::new(2).unwrap();
    semaphore.acquire();
    assert!(semaphore.try_acquire());
    assert_eq!(semaphore.value(), 0);
    assert!(!semaphore.try_acquire());
    for _ in 0..5 {
        semaphore.release().unwrap();
    }
    assert_eq!(semaphore.value(), 5, "it has no bound");
    assert!(semaphore.acquire_timeout(Duration::MAX));
}

#[test]
fn a_bounded_one_refuses_what_was_not_acquired() {
    let semaphore = BoundedSemaphore::new(2).unwrap();
    let error = semaphore.release().unwrap_err();
    assert!(error.to_string().contains("too many times"), "{error}");
    semaphore.acquire();
    semaphore.clone().release().unwrap();
    assert!(semaphore.release().is_err());
    assert_eq!(semaphore.value(), 2);
    assert!(BoundedSemaphore::new(0).unwrap().release().is_err());
}

#[test]
fn a_value_that_has_no_room_is_refused() {
    let most = i32::MAX as usize;
    assert!(Semaphore::new(most + 1).is_err());
    assert!(BoundedSemaphore::new(usize::MAX).is_err());
    let full = Semaphore::new(most).unwrap();
    assert!(full.release().is_err());
    assert_eq!(full.value(), most);
}

#[test]
fn a_wait_ends_with_its_limit() {
    let semaphore = Semaphore::new(0).unwrap();
    for limit in [Duration::ZERO, SOON] {
        let start = Instant::now();
        assert!(!semaphore.acquire_timeout(limit));
        assert!(start.elapsed() >= limit && start.elapsed() < limit + LATE);
    }
    semaphore.release().unwrap();
    assert!(semaphore.acquire_timeout(Duration::ZERO));
}

#[test]
fn it_says_what_it_is() {
    assert_eq!(
        format!("{:?}", Semaphore::new(3).unwrap()),
        "Semaphore { value: 3 }"
    );
    let bounded = BoundedSemaphore::new(1).unwrap();
    assert_eq!(
        format!("{bounded:?}"),
        "BoundedSemaphore { value: 1, initial: 1 }"
    );
    assert!(serde_json::to_string(&bounded).is_err());
}

each_method_alone!(
    never_more_than_three_of_ten_processes_are_inside,
    |method| {
        let semaphore = Semaphore::new(3).unwrap();
        let (inside, highest) = (Value::new(0_u32).unwrap(), Value::new(0_u32).unwrap());
        let processes: Vec<Process> = (0..10)
            .map(|_| {
                let shared = (semaphore.clone(), inside.clone(), highest.clone());
                let visit = |(semaphore, inside, highest): (Semaphore, Value<u32>, Value<u32>)| {
                    for _ in 0..scaled(300) {
                        semaphore.acquire();
                        highest.fetch_max(inside.fetch_add(1) + 1);
                        thread::yield_now();
                        // Whoever is the first stays until there is another: there is room for it.
                        while highest.get() < 2 {
                            thread::yield_now();
                        }
                        inside.fetch_sub(1);
                        semaphore.release().unwrap();
                    }
                };
                Process::builder()
                    .start_method(method)
                    .spawn(shared, visit)
                    .unwrap()
            })
            .collect();
        for process in processes {
            process.join().unwrap();
        }
        assert!((2..=3).contains(&highest.get()), "{highest:?} at a time");
        assert_eq!((inside.get(), semaphore.value()), (0, 3));
    }
);

each_method!(threads_and_processes_wait_for_each_other, |method| {
    let (ping, pong) = (Semaphore::new(0).unwrap(), Semaphore::new(0).unwrap());
    let process = Process::builder().start_method(method).spawn(
        (ping.clone(), pong.clone()),
        |(ping, pong): (Semaphore, Semaphore)| {
            for _ in 0..1000 {
                ping.acquire();
                pong.release().unwrap();
            }
        },
    );
    for _ in 0..1000 {
        ping.release().unwrap();
        pong.acquire();
    }
    process.unwrap().join().unwrap();
});

each_method!(a_worker_makes_one_that_others_use, |method| {
    let pool = pool(method, 2);
    let made = pool
        .apply((), |()| BoundedSemaphore::new(1).unwrap())
        .unwrap();
    made.acquire();
    let refused = pool.apply(made.clone(), |made: BoundedSemaphore| made.try_acquire());
    assert!(!refused.unwrap());
    pool.apply(made.clone(), |made: BoundedSemaphore| {
        made.release().unwrap()
    })
    .unwrap();
    assert!(made.release().is_err());
});

/// Runs a body that forks this process, alone in a fresh one.
fn alone(test: &str, body: fn()) {
    common::alone::in_own_process(test, common::LIMIT, body);
}

#[test]
fn a_waiter_that_is_killed_takes_no_wake_up_with_it() {
    alone("a_waiter_that_is_killed_takes_no_wake_up_with_it", || {
        let mut random = Random::new();
        for _ in 0..scaled(1500) {
            let semaphore = Semaphore::new(0).unwrap();
            let victim = Victim::new(|| semaphore.acquire());
            // It is the first in the line, so that the wake-up is for it.
            victim.wait_until_asleep();
            thread::scope(|scope| {
                let survivor = scope.spawn(|| semaphore.acquire());
                random.pause(Duration::from_micros(60));
                semaphore.release().unwrap();
                random.pause(Duration::from_micros(60));
                victim.kill();
                // Either the victim had the permit, or it is free and the survivor is on its way: it would hang here.
                if semaphore.value() == 0 {
                    semaphore.release().unwrap();
                }
                survivor.join().unwrap();
            });
        }
    });
}

#[test]
fn who_is_killed_while_it_releases_leaves_nobody_asleep() {
    alone(
        "who_is_killed_while_it_releases_leaves_nobody_asleep",
        || {
            let mut random = Random::new();
            for _ in 0..scaled(1000) {
                let (semaphore, begun) = (Semaphore::new(0).unwrap(), Semaphore::new(0).unwrap());
                thread::scope(|scope| {
                    let waiters: Vec<_> = (0..2)
                        .map(|_| scope.spawn(|| semaphore.acquire()))
                        .collect();
                    let victim = Victim::new(|| {
                        begun.release().unwrap();
                        semaphore.release().unwrap();
                        semaphore.release().unwrap();
                    });
                    begun.acquire();
                    random.pause(Duration::from_micros(30));
                    victim.kill();
                    // What it has not released is released here; what it has must have woken somebody, or will.
                    let waiting = || {
                        waiters
                            .iter()
                            .filter(|waiter| !waiter.is_finished())
                            .count()
                    };
                    while waiting() > 0 {
                        if semaphore.value() == 0 {
                            semaphore.release().unwrap();
                        }
                        thread::yield_now();
                    }
                });
            }
        },
    );
}

#[test]
fn limits_are_kept_while_others_are_killed() {
    alone("limits_are_kept_while_others_are_killed", || {
        let semaphore = Semaphore::new(0).unwrap();
        let mut random = Random::new();
        for _ in 0..20 {
            let victims: Vec<Victim> = (0..5)
                .map(|_| Victim::new(|| semaphore.acquire()))
                .collect();
            thread::scope(|scope| {
                let waiter = scope.spawn(|| {
                    let start = Instant::now();
                    assert!(!semaphore.acquire_timeout(SOON));
                    start.elapsed()
                });
                for victim in victims {
                    random.pause(Duration::from_millis(2));
                    victim.kill();
                }
                let took = waiter.join().unwrap();
                assert!(took >= SOON && took < SOON + LATE, "{took:?}");
            });
        }
        assert_eq!(semaphore.value(), 0);
    });
}
