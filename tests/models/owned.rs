//! Locks, monitors, conditions and barriers: what knows who holds it.

use crate::deadline::Deadline;
use crate::kernel::{Bounds, WHOLE, explore, start, start_doomed, with_each_death};
use crate::memory::Mapping;
use crate::sync::barrier::Barrier;
use crate::sync::condition::Condition;
use crate::sync::lock::Lock;
use crate::sys::robust::{Monitor, Word};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

const SOME_TIME: Duration = Duration::from_secs(1);

/// A word at 0; what is begun inside is counted at 16, what is ended at 24.
fn pass(memory: &Mapping, deadline: Deadline) -> bool {
    let Some(held) = Word::at(memory, 0).acquire(deadline) else {
        return false;
    };
    let (begun, ended) = (memory.word(16), memory.word(24));
    if held.owner_died() {
        ended.store(begun.load(Relaxed), Relaxed);
    }
    assert_eq!(begun.load(Relaxed), ended.load(Relaxed), "two are inside");
    begun.store(begun.load(Relaxed) + 1, Relaxed);
    ended.store(ended.load(Relaxed) + 1, Relaxed);
    true
}

#[test]
fn a_word_is_held_by_one_at_a_time_and_handed_on() {
    explore(WHOLE, || {
        let memory = Arc::new(Mapping::new(32));
        let others = [2, 3].map(|tid| {
            let memory = Arc::clone(&memory);
            start(tid, move || pass(&memory, Deadline::NEVER))
        });
        assert!(pass(&memory, Deadline::NEVER));
        let _ = others.map(|other| assert!(other.join().unwrap()));
        assert_eq!(memory.word(24).load(Relaxed), 3);
    });
}

#[test]
fn one_that_gives_up_waiting_for_a_word_takes_no_wake_up_with_it() {
    explore(WHOLE, || {
        let memory = Arc::new(Mapping::new(32));
        let (one, other) = (Arc::clone(&memory), Arc::clone(&memory));
        let hasty = start(2, move || pass(&one, Deadline::after(SOME_TIME)));
        let patient = start(3, move || pass(&other, Deadline::NEVER));
        assert!(pass(&memory, Deadline::NEVER) && patient.join().unwrap());
        let passed = 2 + u64::from(hasty.join().unwrap());
        assert_eq!(memory.word(24).load(Relaxed), passed);
    });
}

#[test]
fn a_word_is_handed_on_whenever_one_dies() {
    with_each_death(WHOLE, |at| {
        let memory = Arc::new(Mapping::new(32));
        let (one, other) = (Arc::clone(&memory), Arc::clone(&memory));
        let doomed = start_doomed(2, at, move || pass(&one, Deadline::NEVER));
        let patient = start(3, move || pass(&other, Deadline::NEVER));
        assert!(pass(&memory, Deadline::NEVER) && patient.join().unwrap());
        doomed.join().unwrap();
    });
}

/// A monitor at 0; things are brought at 16, and taken at 24.
fn is_there(memory: &Mapping) -> bool {
    memory.word(16).load(Acquire) > memory.word(24).load(Acquire)
}

fn bring(memory: &Mapping) {
    Monitor::at(memory, 0).announce(|| memory.word(16).fetch_add(1, Release));
}

fn take(memory: &Mapping, deadline: Deadline) -> bool {
    let mut inside = Monitor::at(memory, 0).enter(deadline);
    while let Some(now) = inside {
        if is_there(memory) {
            let taken = memory.word(24);
            taken.store(taken.load(Relaxed) + 1, Release);
            now.leave(|| is_there(memory));
            return true;
        }
        inside = now.wait(|| is_there(memory), deadline);
    }
    false
}

#[test]
fn each_thing_that_is_brought_to_a_monitor_finds_a_sleeper() {
    explore(WHOLE, || {
        let memory = Arc::new(Mapping::new(32));
        let others = [2, 3].map(|tid| {
            let memory = Arc::clone(&memory);
            start(tid, move || take(&memory, Deadline::NEVER))
        });
        bring(&memory);
        bring(&memory);
        let _ = others.map(|other| assert!(other.join().unwrap()));
    });
}

#[test]
fn takers_that_give_up_or_die_leave_things_to_the_others() {
    explore(WHOLE, || {
        let memory = Arc::new(Mapping::new(32));
        let (one, other) = (Arc::clone(&memory), Arc::clone(&memory));
        let hasty = start(2, move || take(&one, Deadline::after(SOME_TIME)));
        let patient = start(3, move || take(&other, Deadline::NEVER));
        bring(&memory);
        if hasty.join().unwrap() {
            bring(&memory);
        }
        assert!(patient.join().unwrap());
    });
    with_each_death(WHOLE, |at| {
        let memory = Arc::new(Mapping::new(32));
        let (one, other) = (Arc::clone(&memory), Arc::clone(&memory));
        let doomed = start_doomed(2, at, move || take(&one, Deadline::NEVER));
        let patient = start(3, move || take(&other, Deadline::NEVER));
        bring(&memory);
        bring(&memory);
        doomed.join().unwrap();
        assert!(patient.join().unwrap());
    });
}

type Tokens = (Arc<Lock<u64>>, Condition);

fn tokens() -> Tokens {
    (Arc::new(Lock::new(0).unwrap()), Condition::new().unwrap())
}

fn add_one((lock, condition): &Tokens) {
    *lock.lock().unwrap_or_else(|died| died.into_guard()) += 1;
    condition.notify_one();
}

fn take_one((lock, condition): &Tokens) {
    let mut guard = lock.lock().unwrap_or_else(|died| died.into_guard());
    while *guard == 0 {
        guard = condition
            .wait(guard)
            .unwrap_or_else(|died| died.into_guard());
    }
    *guard -= 1;
}

fn take_one_in_time((lock, condition): &Tokens) -> bool {
    let guard = lock.lock().unwrap_or_else(|died| died.into_guard());
    let waited = condition.wait_timeout_while(guard, SOME_TIME, |count| *count == 0);
    let (mut guard, result) = waited.unwrap();
    if !result.timed_out() {
        *guard -= 1;
    }
    !result.timed_out()
}

#[test]
fn a_notification_wakes_another_when_ones_time_is_over() {
    explore(WHOLE, || {
        let tokens = tokens();
        let (one, other) = (tokens.clone(), tokens.clone());
        let patient = start(2, move || take_one(&one));
        let hasty = start(3, move || take_one_in_time(&other));
        add_one(&tokens);
        if hasty.join().unwrap() {
            add_one(&tokens);
        }
        patient.join().unwrap();
    });
}

#[test]
fn all_are_notified() {
    explore(WHOLE, || {
        let tokens = tokens();
        let waiters = [2, 3].map(|tid| {
            let tokens = tokens.clone();
            start(tid, move || {
                drop(
                    tokens
                        .1
                        .wait_while(tokens.0.lock().unwrap(), |count| *count == 0)
                        .unwrap(),
                )
            })
        });
        *tokens.0.lock().unwrap() = 1;
        tokens.1.notify_all();
        let _ = waiters.map(|waiter| waiter.join().unwrap());
    });
}

#[test]
fn a_waiter_that_dies_keeps_no_notification() {
    // With two preemptions it has more than 20,000 orders at each step; with one it comes through, in 12,000 at most.
    let one = Bounds {
        preemptions: 1,
        ..WHOLE
    };
    with_each_death(one, |at| {
        let tokens = tokens();
        let (one, other) = (tokens.clone(), tokens.clone());
        let doomed = start_doomed(2, at, move || take_one_in_time(&one));
        let patient = start(3, move || take_one(&other));
        add_one(&tokens);
        doomed.join().unwrap();
        // Either it is there still, and the notification is the other's; or the dead, or the other, has taken it.
        if *tokens.0.lock().unwrap_or_else(|died| died.into_guard()) == 0 {
            add_one(&tokens);
        }
        patient.join().unwrap();
    });
}

#[test]
fn parties_go_round_by_round_with_one_leader_each() {
    explore(WHOLE, || {
        let barrier = Barrier::new(2).unwrap();
        let rounds = |barrier: &Barrier| [0, 1].map(|_| barrier.wait().unwrap().is_leader());
        let other = barrier.clone();
        let other = start(2, move || rounds(&other));
        let mine = rounds(&barrier);
        let theirs = other.join().unwrap();
        assert!(
            mine[0] != theirs[0] && mine[1] != theirs[1],
            "one leader in each round"
        );
    });
}

#[test]
fn a_partys_deadline_an_abort_and_a_death_break_the_barrier_for_all() {
    explore(WHOLE, || {
        let barrier = Barrier::new(2).unwrap();
        let other = barrier.clone();
        let other = start(2, move || other.wait_timeout(SOME_TIME).is_ok());
        let mine = barrier.wait().is_ok();
        assert_eq!(mine, other.join().unwrap());
    });
    explore(WHOLE, || {
        let barrier = Barrier::new(2).unwrap();
        let (one, two) = (barrier.clone(), barrier.clone());
        let waiters = [
            start(2, move || one.wait().is_ok()),
            start(3, move || two.wait().is_ok()),
        ];
        barrier.abort();
        let [one, two] = waiters.map(|waiter| waiter.join().unwrap());
        assert_eq!(one, two);
    });
    with_each_death(WHOLE, |at| {
        let barrier = Barrier::new(2).unwrap();
        let other = barrier.clone();
        let doomed = start_doomed(2, at, move || other.wait().is_ok());
        let mine = start(3, {
            let barrier = barrier.clone();
            move || barrier.wait().is_ok()
        });
        // Where it died before it came, only this ends the other's wait; alone, since that round is over, it has a limit.
        if doomed.join().unwrap().is_none() && barrier.waiting() < 2 {
            let _ = barrier.wait_timeout(SOME_TIME);
        }
        mine.join().unwrap();
    });
}

/// There are many steps at which to die, and little for the others to do.
const SHORT: Bounds = Bounds {
    preemptions: 2,
    orders: 4_000,
};

#[test]
fn one_that_falls_asleep_as_another_dies_is_told_without_a_third() {
    with_each_death(SHORT, |at| {
        let barrier = Barrier::new(3).unwrap();
        let other = barrier.clone();
        let doomed = start_doomed(2, at, move || other.wait_timeout(SOME_TIME).is_ok());
        let mine = start(3, {
            let barrier = barrier.clone();
            move || barrier.wait().is_ok()
        });
        // Where it died before it came, only this ends the other's wait.
        let has_died = doomed.join().unwrap().is_none();
        if has_died && barrier.waiting() < 2 && !barrier.is_broken() {
            let _ = barrier.wait_timeout(SOME_TIME);
        }
        assert!(!mine.join().unwrap());
    });
}

#[test]
fn a_reset_is_told_to_all_of_a_round_or_to_none() {
    explore(WHOLE, || {
        let barrier = Barrier::new(2).unwrap();
        let (one, two) = (barrier.clone(), barrier.clone());
        let waiters = [
            start(2, move || one.wait_timeout(SOME_TIME).is_ok()),
            start(3, move || two.wait_timeout(SOME_TIME).is_ok()),
        ];
        barrier.reset();
        let [one, two] = waiters.map(|waiter| waiter.join().unwrap());
        assert_eq!(one, two);
    });
    with_each_death(WHOLE, |at| {
        let barrier = Barrier::new(2).unwrap();
        let other = barrier.clone();
        let early = start(2, move || other.wait_timeout(SOME_TIME).is_ok());
        let other = barrier.clone();
        let doomed = start_doomed(3, at, move || other.reset());
        assert!(!early.join().unwrap(), "nobody else came");
        doomed.join().unwrap();
        // A deadline that was over after a reset has broken the barrier anew.
        if !barrier.is_broken() {
            let other = barrier.clone();
            let other = start(4, move || other.wait().is_ok());
            assert!(barrier.wait().is_ok());
            assert!(other.join().unwrap());
        }
    });
    with_each_death(WHOLE, |at| {
        let barrier = Barrier::new(2).unwrap();
        let other = barrier.clone();
        let early = start(2, move || other.wait_timeout(SOME_TIME).is_ok());
        let other = barrier.clone();
        let doomed = start_doomed(3, at, move || other.reset());
        barrier.abort();
        doomed.join().unwrap();
        assert!(!early.join().unwrap(), "nobody else came");
        // Aborted after it was reset, or before.
        barrier.abort();
        assert!(barrier.is_broken());
        barrier.reset();
        assert!(!barrier.is_broken());
    });
}
