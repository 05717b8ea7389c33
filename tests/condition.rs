//! `Condition`: a notification wakes one, all wake all, and the dead keep nobody waiting.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::many::{Random, join_all, kill_and_wait, scaled, start, start_many};
use common::{LONG_LIMIT, each_method, each_method_alone};
use multiprocess::{Condition, Lock, Process, StartMethod};
use std::time::{Duration, Instant};

/// When somebody counts as waiting for ever.
const SOON: Duration = Duration::from_secs(30);

/// A place of which those who wait are counted, and those who were woken.
type Counts = (Lock<[u32; 2]>, Condition, Condition);
const WAITING: usize = 0;
const WOKEN: usize = 1;

fn counts() -> Counts {
    let news = Condition::new().unwrap();
    (Lock::new([0; 2]).unwrap(), Condition::new().unwrap(), news)
}

/// Waits for one notification, and tells when it waits and when it has been woken.
fn wait_once((counts, condition, news): Counts) {
    let mut guard = counts.lock().unwrap();
    guard[WAITING] += 1;
    news.notify_all();
    guard = condition.wait(guard).unwrap();
    guard[WOKEN] += 1;
    news.notify_all();
}

fn await_count((counts, _, news): &Counts, which: usize, count: u32) {
    let guard = counts.lock().unwrap();
    let (guard, result) = news
        .wait_timeout_while(guard, SOON, |counts| counts[which] < count)
        .unwrap();
    assert!(!result.timed_out(), "{guard:?}");
    assert_eq!(guard[which], count, "{guard:?}");
}

each_method!(each_notification_wakes_one, |method| {
    for _ in 0..scaled(5) {
        let counts = counts();
        let waiting = start_many(method, 5, &counts, wait_once);
        await_count(&counts, WAITING, 5);
        for woken in 1..=5 {
            counts.1.notify_one();
            await_count(&counts, WOKEN, woken);
        }
        join_all(waiting);
    }
});

each_method!(all_are_woken_at_once, |method| {
    let counts = counts();
    counts.1.notify_all();
    let waiting = start_many(method, 5, &counts, wait_once);
    await_count(&counts, WAITING, 5);
    assert!(format!("{:?}", counts.1).contains("waiting: 5"));
    counts.1.notify_all();
    await_count(&counts, WOKEN, 5);
    join_all(waiting);
});

each_method!(one_that_is_killed_waiting_is_passed_over, |method| {
    let counts = counts();
    let first = start(method, counts.clone(), wait_once);
    await_count(&counts, WAITING, 1);
    let second = start(method, counts.clone(), wait_once);
    await_count(&counts, WAITING, 2);
    kill_and_wait(first);
    let before = Instant::now();
    counts.1.notify_one();
    await_count(&counts, WOKEN, 1);
    second.join().unwrap();
    counts.1.notify_one();
    counts.1.notify_all();
    assert!(before.elapsed() < SOON);
});

each_method_alone!(
    waiters_killed_at_any_instant_hold_up_nobody,
    LONG_LIMIT,
    |method| {
        let (lock, condition) = (Lock::new(0_u64).unwrap(), Condition::new().unwrap());
        let mut random = Random::new();
        let take = |(lock, condition): (Lock<u64>, Condition)| {
            loop {
                let guard = match lock.lock() {
                    Ok(guard) => guard,
                    Err(died) => died.into_guard(),
                };
                match condition.wait_timeout_while(guard, SOON, |things| *things == 0) {
                    Ok((_, result)) if result.timed_out() => return,
                    Ok((mut guard, _)) => *guard -= 1,
                    Err(died) => drop(died.into_guard()),
                }
            }
        };
        let both = (lock.clone(), condition.clone());
        let mut taking: Vec<Process> = start_many(method, 3, &both, take);
        for round in 0..scaled(100) {
            {
                let mut guard = lock
                    .lock()
                    .unwrap_or_else(multiprocess::OwnerDied::into_guard);
                *guard += 3;
            }
            condition.notify_all();
            random.pause(Duration::from_micros(300));
            let one = usize::try_from(random.below(3)).unwrap();
            kill_and_wait(std::mem::replace(
                &mut taking[one],
                start(method, both.clone(), take),
            ));
            condition.notify_all();
            let deadline = Instant::now() + SOON;
            while *lock
                .lock()
                .unwrap_or_else(multiprocess::OwnerDied::into_guard)
                > 0
            {
                assert!(
                    Instant::now() < deadline,
                    "round {round}: nobody takes what is there"
                );
                std::thread::yield_now();
            }
        }
        taking.into_iter().for_each(kill_and_wait);
    }
);

/// A buffer of eight: how many were put in and taken out, and what they are.
type Buffer = (Lock<[u64; 10]>, Condition, Condition);
const PUT: usize = 8;
const TAKEN: usize = 9;

fn produce_and_consume(method: StartMethod, producers: u64, items: u64) {
    let buffer: Buffer = (
        Lock::new([0; 10]).unwrap(),
        Condition::new().unwrap(),
        Condition::new().unwrap(),
    );
    let each = items / producers;
    let put = |((lock, not_empty, not_full), first, each): (Buffer, u64, u64)| {
        for item in first..first + each {
            let guard = lock.lock().unwrap();
            let is_full = |state: &mut [u64; 10]| state[PUT] - state[TAKEN] == 8;
            let mut state = not_full.wait_while(guard, is_full).unwrap();
            let place = usize::try_from(state[PUT] % 8).unwrap();
            state[place] = item;
            state[PUT] += 1;
            drop(state);
            not_empty.notify_one();
        }
    };
    let take = |((lock, not_empty, not_full), each): (Buffer, u64)| {
        let mut sum = 0;
        for _ in 0..each {
            let guard = lock.lock().unwrap();
            let is_empty = |state: &mut [u64; 10]| state[PUT] == state[TAKEN];
            let mut state = not_empty.wait_while(guard, is_empty).unwrap();
            sum += state[usize::try_from(state[TAKEN] % 8).unwrap()];
            state[TAKEN] += 1;
            drop(state);
            not_full.notify_one();
        }
        sum
    };
    let putting: Vec<_> = (0..producers)
        .map(|n| start(method, (buffer.clone(), n * each, each), put))
        .collect();
    let taking = start_many(
        method,
        usize::try_from(producers).unwrap(),
        &(buffer, each),
        take,
    );
    join_all(putting);
    let sum: u64 = join_all(taking).into_iter().sum();
    let items = each * producers;
    assert_eq!(sum, items * (items - 1) / 2);
}

each_method!(producers_and_consumers_lose_no_wake_up, |method| {
    produce_and_consume(method, 1, scaled(20_000));
    produce_and_consume(method, 3, scaled(20_000));
});

each_method!(
    a_notification_that_races_with_a_time_that_runs_out_goes_to_one,
    |method| {
        // Things to take, and how many were taken.
        let (lock, condition) = (Lock::new([0_u64; 2]).unwrap(), Condition::new().unwrap());
        let total = scaled(3_000);
        let impatient = start_many(
            method,
            2,
            &(lock.clone(), condition.clone(), total),
            |(lock, condition, total)| {
                let mut random = Random::new();
                loop {
                    let limit = Duration::from_micros(random.below(80));
                    let mut guard: multiprocess::LockGuard<[u64; 2]> = lock.lock().unwrap();
                    if guard[0] == 0 {
                        let (again, result) = condition.wait_timeout(guard, limit).unwrap();
                        guard = again;
                        // Who was notified finds something, as nobody else takes what was brought for it.
                        if result.timed_out() && guard[0] == 0 && guard[1] < total {
                            continue;
                        }
                    }
                    if guard[1] == total {
                        return;
                    }
                    if guard[0] > 0 {
                        guard[0] -= 1;
                        guard[1] += 1;
                    }
                }
            },
        );
        // This one sleeps for as long as it takes: a notification that was lost would leave it asleep.
        let patient = start(
            method,
            (lock.clone(), condition.clone(), total),
            |(lock, condition, total): (Lock<[u64; 2]>, Condition, u64)| {
                loop {
                    let guard = lock.lock().unwrap();
                    let nothing = |state: &mut [u64; 2]| state[0] == 0 && state[1] < total;
                    let mut guard = condition.wait_while(guard, nothing).unwrap();
                    if guard[1] == total {
                        return;
                    }
                    guard[0] -= 1;
                    guard[1] += 1;
                }
            },
        );
        let mut random = Random::new();
        for _ in 0..total {
            lock.lock().unwrap()[0] += 1;
            condition.notify_one();
            random.pause(Duration::from_micros(30));
        }
        let deadline = Instant::now() + SOON;
        while lock.lock().unwrap()[1] < total {
            assert!(
                Instant::now() < deadline,
                "something is there and nobody takes it"
            );
            std::thread::yield_now();
        }
        condition.notify_all();
        join_all(impatient);
        patient.join().unwrap();
    }
);

each_method!(a_wait_tells_whether_its_time_was_over, |method| {
    let (lock, condition) = (Lock::new(false as u8).unwrap(), Condition::new().unwrap());
    let limit = Duration::from_millis(30);
    let start_of_wait = Instant::now();
    let (guard, result) = condition.wait_timeout(lock.lock().unwrap(), limit).unwrap();
    assert!(result.timed_out() && start_of_wait.elapsed() >= limit);
    let both = (lock.clone(), condition.clone());
    let process = start(method, both, |(lock, condition): (Lock<u8>, Condition)| {
        *lock.lock().unwrap() = 1;
        condition.notify_one();
    });
    let (guard, result) = condition
        .wait_timeout_while(guard, SOON, |is_set| *is_set == 0)
        .unwrap();
    assert!(!result.timed_out() && *guard == 1);
    drop(guard);
    process.join().unwrap();
});

each_method!(
    who_was_killed_with_the_lock_is_told_to_the_waiter,
    |method| {
        let (lock, condition) = (Lock::new(4_u8).unwrap(), Condition::new().unwrap());
        let both = (lock.clone(), condition.clone());
        let guard = lock.lock().unwrap();
        let process = start(method, both, |(lock, condition): (Lock<u8>, Condition)| {
            let mut guard = lock.lock().unwrap();
            *guard = 5;
            condition.notify_one();
            std::process::abort()
        });
        let died = condition.wait(guard).unwrap_err();
        assert_eq!(*died.into_guard(), 4);
        assert!(process.join().map(|(): ()| ()).unwrap_err().is_crash());
    }
);
