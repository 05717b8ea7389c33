//! `Condition`: whoever waits or notifies is killed at each step.
//!
//! What is promised: who notifies passes over the dead; a waiter that was notified goes on, whoever dies.

use crate::case::Then::{Done, Either, Held, Undone};
use crate::case::{Case, Row, SOON, at, deaths, each, result_of, wait_until_asleep};
use multiprocess::{Condition, Lock, LockGuard, Process};

pub(crate) const TABLES: &[&[Row]] = &[WAITER, WAITER_ALONE, NOTIFIER, NOTIFIER_OF_ALL];

type Both = (Lock<u32>, Condition);

fn both() -> Both {
    (Lock::new(0).unwrap(), Condition::new().unwrap())
}

/// The guard, and whether the holder before had died.
fn soon(lock: &Lock<u32>) -> (LockGuard<'_, u32>, bool) {
    match lock.lock_timeout(SOON) {
        Ok(guard) => (guard.expect("nobody gives the lock up"), false),
        Err(died) => (died.into_guard(), true),
    }
}

/// A process that waits once; it returns whether it was notified.
fn waiter(case: Case, both: &Both) -> Process<bool> {
    let waiter = case.other(both.clone(), |(lock, condition): Both| {
        let (guard, _) = soon(&lock);
        match condition.wait_timeout(guard, SOON) {
            Ok((_guard, result)) => !result.timed_out(),
            Err(died) => {
                drop(died.into_guard());
                true
            }
        }
    });
    wait_until_asleep(&waiter);
    waiter
}

fn assert_serves(case: Case, both: &Both) {
    drop(soon(&both.0));
    let waiters = [(); 2].map(|()| waiter(case, both));
    assert!(!soon(&both.0).1);
    both.1.notify_one();
    both.1.notify_one();
    assert_eq!(waiters.map(result_of), [true, true]);
    assert_eq!(format!("{:?}", both.1), "Condition { waiting: 0 }");
}

const WAITER: &[Row] = &[
    at("condition::sit::taken", Held),
    at("condition::sit::numbered", Held),
    at("condition::sit::waiting", Held),
    at("condition::wait::given", Undone),
    at("condition::wait::woken", Either),
    at("condition::leave::emptied", Either),
];

deaths!(who_waits_before_another, WAITER, |case| {
    let both = both();
    let victim = case.victim(both.clone(), |(lock, condition): Both| {
        let (guard, _) = soon(&lock);
        drop(condition.wait(guard).unwrap());
    });
    wait_until_asleep(&victim);
    let other = waiter(case, &both);
    drop(soon(&both.0));
    both.1.notify_one();
    case.assert_killed(victim);
    if case.row.then == Either {
        // It was notified, and has taken that with it, or not.
        both.1.notify_one();
    }
    assert!(result_of(other), "who notifies does not pass over the dead");
    assert_serves(case, &both);
});

const WAITER_ALONE: &[Row] = &[
    at("condition::sit::taken", Held),
    at("condition::sit::numbered", Held),
    at("condition::sit::waiting", Held),
    at("condition::wait::given", Undone),
];

deaths!(who_waits_alone, WAITER_ALONE, |case| {
    let both = both();
    let victim = case.victim(both.clone(), |(lock, condition): Both| {
        let (mut guard, _) = soon(&lock);
        *guard = 7;
        drop(condition.wait(guard).unwrap());
    });
    case.assert_killed(victim);
    let (guard, died) = soon(&both.0);
    assert_eq!(
        (*guard, died),
        (if case.is_held() { 0 } else { 7 }, case.is_held())
    );
    drop(guard);
    both.1.notify_all();
    assert_serves(case, &both);
});

const NOTIFIER: &[Row] = &[
    at("condition::notify::notified", Done),
    at("condition::notify::woken", Done),
];

deaths!(who_notifies_one, NOTIFIER, |case| {
    let both = both();
    let other = waiter(case, &both);
    let victim = case.victim(both.clone(), |(_, condition): Both| condition.notify_one());
    case.assert_killed(victim);
    assert!(result_of(other));
    assert_serves(case, &both);
});

const NOTIFIER_OF_ALL: &[Row] = &[
    each("condition::notify::notified", 3, Either),
    each("condition::notify::woken", 3, Either),
];

deaths!(who_notifies_all, NOTIFIER_OF_ALL, |case| {
    let both = both();
    let others = [(); 3].map(|()| waiter(case, &both));
    let victim = case.victim(both.clone(), |(_, condition): Both| condition.notify_all());
    case.assert_killed(victim);
    // So many have been notified; the others are yet to be.
    let left = 3 - case.nth;
    (0..left).for_each(|_| both.1.notify_one());
    assert_eq!(others.map(result_of), [true; 3]);
    assert_serves(case, &both);
});
