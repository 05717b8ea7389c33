//! Locks and friends: CPython's `_TestLock`, `_TestSemaphore`, `_TestCondition`, `_TestEvent`.

use crate::common::meet::{Ear, say};
use crate::common::{each_method, every_method};
use crate::{LONG, SHORT};
use multiprocess::{
    BoundedSemaphore, Condition, Event, Lock, Process, RLock, Semaphore, StartMethod,
};
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn builder(method: StartMethod) -> multiprocess::ProcessBuilder {
    Process::builder().start_method(method).daemon(true)
}

// CPython: _TestLock.test_lock and test_lock_context. A release without a lock cannot be written: the guard is gone.
every_method!(lock, |method| {
    let lock = Lock::new(()).unwrap();
    let guard = lock.lock().unwrap();
    assert!(lock.is_locked());
    let child = builder(method).spawn(lock.clone(), |lock| lock.try_lock().unwrap().is_some());
    assert!(!child.unwrap().join().unwrap());
    drop(guard);
    assert!(!lock.is_locked());
    let child = builder(method).spawn(lock.clone(), |lock| lock.try_lock().unwrap().is_some());
    assert!(child.unwrap().join().unwrap());
});

// CPython (3.14): _TestLock.test_lock_locked_2processes, test_rlock_locked_2processes
every_method!(locked_by_another_process, |method| {
    let lock = Lock::new(0_u8).unwrap();
    let again = RLock::new().unwrap();
    let held = Event::new().unwrap();
    let enough = Event::new().unwrap();
    let arguments = (lock.clone(), again.clone(), held.clone(), enough.clone());
    let child = builder(method).spawn(arguments, |(lock, again, held, enough)| {
        let _guard = lock.lock().unwrap();
        let _again = again.lock().unwrap();
        held.set();
        enough.wait();
    });
    held.wait();
    assert!(lock.is_locked() && again.is_locked());
    assert!(lock.try_lock().unwrap().is_none());
    assert!(again.lock_timeout(SHORT).unwrap().is_none());
    enough.set();
    child.unwrap().join().unwrap();
    assert!(!lock.is_locked() && !again.is_locked());
});

// CPython: _TestLock.test_rlock
every_method!(rlock, |method| {
    let lock = RLock::new().unwrap();
    let guards: Vec<_> = (0..3).map(|_| lock.lock().unwrap()).collect();
    for guard in guards {
        let child = builder(method).spawn(lock.clone(), |lock| lock.try_lock().unwrap().is_some());
        assert!(!child.unwrap().join().unwrap());
        drop(guard);
    }
    let child = builder(method).spawn(lock.clone(), |lock| lock.try_lock().unwrap().is_some());
    assert!(child.unwrap().join().unwrap());
});

// CPython: _TestSemaphore.test_semaphore
#[test]
fn semaphore() {
    let semaphore = Semaphore::new(2).unwrap();
    assert_eq!(semaphore.value(), 2);
    semaphore.acquire();
    assert_eq!(semaphore.value(), 1);
    semaphore.acquire();
    assert_eq!(semaphore.value(), 0);
    assert!(!semaphore.try_acquire());
    for value in 1..=4 {
        semaphore.release().unwrap();
        assert_eq!(semaphore.value(), value);
    }
}

// CPython: _TestSemaphore.test_bounded_semaphore
#[test]
fn bounded_semaphore() {
    let semaphore = BoundedSemaphore::new(2).unwrap();
    semaphore.acquire();
    semaphore.acquire();
    assert!(!semaphore.try_acquire());
    for value in 1..=2 {
        semaphore.release().unwrap();
        assert_eq!(semaphore.value(), value);
    }
    semaphore.release().unwrap_err();
    assert_eq!(semaphore.value(), 2);
}

// CPython: _TestSemaphore.test_timeout
#[test]
fn semaphore_timeout() {
    let semaphore = Semaphore::new(0).unwrap();
    assert!(!semaphore.try_acquire());
    assert!(!semaphore.acquire_timeout(Duration::ZERO));
    let started = Instant::now();
    assert!(!semaphore.acquire_timeout(SHORT));
    assert!(started.elapsed() >= SHORT);
}

/// A condition with its lock, which counts who waits, and who has gone on.
type Meeting = (Lock<[u32; 3]>, Condition);
const WAITING: usize = 0;
const WOKEN: usize = 1;
const TICKETS: usize = 2;

fn meeting() -> Meeting {
    (Lock::new([0; 3]).unwrap(), Condition::new().unwrap())
}

/// Sleeps once, until a ticket is there, and says so.
fn sleep_once(((lock, condition), ear): (Meeting, PathBuf)) {
    let mut counts = lock.lock().unwrap();
    counts[WAITING] += 1;
    say(&ear, "waits");
    let mut counts = condition
        .wait_while(counts, |counts| counts[TICKETS] == 0)
        .unwrap();
    counts[TICKETS] -= 1;
    counts[WAITING] -= 1;
    counts[WOKEN] += 1;
    drop(counts);
    say(&ear, "woken");
}

/// Gives out tickets.
fn give(meeting: &Meeting, tickets: u32) {
    meeting.0.lock().unwrap()[TICKETS] += tickets;
}

/// Lets a process and a thread wait.
fn sleepers(method: StartMethod, meeting: &Meeting, ear: &mut Ear, pairs: usize) {
    for _ in 0..pairs {
        let arguments = (meeting.clone(), ear.path());
        drop(builder(method).spawn(arguments, sleep_once).unwrap());
    }
    for _ in 0..pairs {
        assert_eq!(ear.hear(), "waits");
    }
    for _ in 0..pairs {
        let (meeting, path) = (meeting.clone(), ear.path());
        std::thread::spawn(move || sleep_once((meeting, path)));
        assert_eq!(ear.hear(), "waits");
    }
    assert_eq!(meeting.0.lock().unwrap()[WAITING], 2 * pairs as u32);
}

fn woken(meeting: &Meeting) -> u32 {
    meeting.0.lock().unwrap()[WOKEN]
}

// CPython: _TestCondition.test_notify
each_method!(notify, |method| {
    let mut ear = Ear::new();
    let meeting = meeting();
    sleepers(method, &meeting, &mut ear, 1);
    assert_eq!(woken(&meeting), 0);
    for count in 1..=2 {
        give(&meeting, 1);
        meeting.1.notify_one();
        assert_eq!(ear.hear(), "woken");
        assert_eq!(woken(&meeting), count);
    }
    // With nobody left it does nothing.
    meeting.1.notify_one();
    assert_eq!(meeting.0.lock().unwrap()[..], [0, 2, 0]);
});

// CPython: _TestCondition.test_notify_all
each_method!(notify_all, |method| {
    let mut ear = Ear::new();
    let meeting = meeting();
    sleepers(method, &meeting, &mut ear, 3);
    give(&meeting, 6);
    meeting.1.notify_all();
    for _ in 0..6 {
        assert_eq!(ear.hear(), "woken");
    }
    assert_eq!(meeting.0.lock().unwrap()[..], [0, 6, 0]);
});

// CPython: _TestCondition.test_notify_n: so many calls of `notify_one` wake so many.
each_method!(notify_n, |method| {
    let mut ear = Ear::new();
    let meeting = meeting();
    sleepers(method, &meeting, &mut ear, 3);
    for (notices, total) in [(1, 1), (2, 3), (3, 6)] {
        give(&meeting, notices);
        for _ in 0..notices {
            meeting.1.notify_one();
        }
        for _ in 0..notices {
            assert_eq!(ear.hear(), "woken");
        }
        assert_eq!(woken(&meeting), total);
    }
});

// CPython: _TestCondition.test_timeout, test_waitfor_timeout
#[test]
fn condition_timeout() {
    let (lock, condition) = meeting();
    let started = Instant::now();
    let guard = lock.lock().unwrap();
    let (guard, result) = condition.wait_timeout(guard, SHORT).unwrap();
    assert!(result.timed_out());
    assert!(started.elapsed() >= SHORT);
    assert!(lock.is_locked());
    let waits = condition.wait_timeout_while(guard, SHORT, |counts| counts[TICKETS] == 0);
    let (guard, result) = waits.unwrap();
    assert!(result.timed_out());
    assert_eq!(guard[TICKETS], 0);
}

// CPython: _TestCondition.test_waitfor
every_method!(waitfor, |method| {
    let (lock, condition) = (Lock::new(-1_i32).unwrap(), Condition::new().unwrap());
    let guard = lock.lock().unwrap();
    let arguments = (lock.clone(), condition.clone());
    let child = builder(method).spawn(arguments, |(lock, condition)| {
        for _ in 0..4 {
            *lock.lock().unwrap() += 1;
            condition.notify_one();
        }
        let guard = lock.lock().unwrap();
        let reached = condition.wait_timeout_while(guard, LONG, |state| *state != 4);
        assert!(!reached.unwrap().1.timed_out());
    });
    let child = child.unwrap();
    let mut guard = condition.wait_while(guard, |state| *state != 3).unwrap();
    *guard += 1;
    drop(guard);
    condition.notify_one();
    child.join().unwrap();
});

// CPython: _TestCondition.test_wait_result
every_method!(wait_result, |method| {
    let (lock, condition) = (Lock::new(()).unwrap(), Condition::new().unwrap());
    let guard = lock.lock().unwrap();
    let (guard, result) = condition.wait_timeout(guard, Duration::ZERO).unwrap();
    assert!(result.timed_out());
    let arguments = (lock.clone(), condition.clone());
    let child = builder(method).spawn(arguments, |(lock, condition)| {
        drop(lock.lock().unwrap());
        condition.notify_one();
    });
    let (guard, result) = condition.wait_timeout(guard, LONG).unwrap();
    assert!(!result.timed_out());
    drop(guard);
    child.unwrap().join().unwrap();
});

// CPython: _TestEvent.test_event
every_method!(event, |method| {
    let event = Event::new().unwrap();
    assert!(!event.is_set());
    assert!(!event.wait_timeout(Duration::ZERO));
    let started = Instant::now();
    assert!(!event.wait_timeout(SHORT));
    assert!(started.elapsed() >= SHORT);
    for _ in 0..2 {
        event.set();
        assert!(event.is_set());
        event.wait();
        assert!(event.wait_timeout(Duration::ZERO));
    }
    event.clear();
    assert!(!event.is_set());
    let child = builder(method).spawn(event.clone(), |event| event.set());
    assert!(event.wait_timeout(LONG));
    child.unwrap().join().unwrap();
});

// CPython: _TestEvent.test_repr
#[test]
fn event_repr() {
    let event = Event::new().unwrap();
    let (unset, set) = (format!("{event:?}"), {
        event.set();
        format!("{event:?}")
    });
    assert_ne!(unset, set);
    event.clear();
    assert_eq!(format!("{event:?}"), unset);
}
