//! More threads than elsewhere, more deaths than one, and locks that are taken twice.

use crate::deadline::Deadline;
use crate::kernel::{
    Bounds, WHOLE, die_here, explore, futex, start, start_doomed, with_each_death,
};
use crate::memory::Mapping;
use crate::sync::condition::{Condition, Seats};
use crate::sync::lock::Lock;
use crate::sync::rlock::RLock;
use crate::sys::robust::Word;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// For models whose orders nobody has seen the end of: they have passed for these only.
const MANY: Bounds = Bounds {
    preemptions: 2,
    orders: 5_000,
};

/// Lets the others get as far as this stage.
fn reach(stages: &Mapping, stage: u64) {
    stages.word(0).store(stage, Release);
    futex::wake(stages.word(0), i32::MAX);
}

fn await_stage(stages: &Mapping, stage: u64) {
    loop {
        let seen = stages.word(0).load(Acquire);
        if seen >= stage {
            return;
        }
        futex::wait(stages.word(0), seen as u32, Deadline::NEVER);
    }
}

/// One is notified and dies in its seat; whoever takes that seat dies at each step; the one after it must do.
#[test]
fn a_notification_survives_its_waiter_and_the_one_who_passes_it_on() {
    with_each_death(WHOLE, |at| {
        let seats = Seats::allocate().unwrap();
        let stages = Arc::new(Mapping::new(8));
        let (first, patient, next) = (seats.clone(), seats.clone(), seats.clone());
        let (one, two) = (Arc::clone(&stages), Arc::clone(&stages));
        let notified = start_doomed(2, usize::MAX, move || {
            let _seat = first.sit_down().unwrap();
            reach(&one, 1);
            await_stage(&one, 2);
            // It has waited longest, so it notifies itself.
            first.notify_one();
            die_here()
        });
        let patient = start(3, move || {
            await_stage(&two, 1);
            let seat = patient.sit_down().unwrap();
            reach(&two, 2);
            assert!(seat.sleep(Deadline::NEVER));
        });
        assert!(notified.join().unwrap().is_none());
        let passer = start_doomed(4, at, move || drop(next.sit_down()));
        passer.join().unwrap();
        drop(seats.sit_down());
        patient.join().unwrap();
    });
}

/// Three wait and one of them dies at each step: as many things as there are others left reach them.
#[test]
fn of_three_waiters_one_dies_and_the_others_are_notified() {
    with_each_death(MANY, |at| {
        let (lock, condition) = (
            Arc::new(Lock::new(0_u64).unwrap()),
            Condition::new().unwrap(),
        );
        let (lock, condition) = (&lock, &condition);
        let waiter = || {
            let (lock, condition) = (Arc::clone(lock), condition.clone());
            move || {
                let guard = lock.lock().unwrap_or_else(|died| died.into_guard());
                let waited = condition.wait_while(guard, |go| *go == 0);
                drop(waited.unwrap_or_else(|died| died.into_guard()));
            }
        };
        let doomed = start_doomed(2, at, waiter());
        let others = [start(3, waiter()), start(4, waiter())];
        *lock.lock().unwrap_or_else(|died| died.into_guard()) = 1;
        condition.notify_all();
        doomed.join().unwrap();
        let _ = others.map(|other| other.join().unwrap());
    });
}

/// A word at 0; what is begun inside is counted at 16, what is ended at 24.
fn count(memory: &Mapping) {
    let (begun, ended) = (memory.word(16), memory.word(24));
    assert_eq!(begun.load(Relaxed), ended.load(Relaxed), "two are inside");
    begun.store(begun.load(Relaxed) + 1, Relaxed);
    ended.store(ended.load(Relaxed) + 1, Relaxed);
}

#[test]
fn a_word_is_handed_on_among_four_whenever_one_dies() {
    with_each_death(MANY, |at| {
        let memory = Arc::new(Mapping::new(32));
        let pass = || {
            let memory = Arc::clone(&memory);
            move || {
                let held = Word::at(&memory, 0).acquire(Deadline::NEVER).unwrap();
                if held.owner_died() {
                    memory
                        .word(24)
                        .store(memory.word(16).load(Relaxed), Relaxed);
                }
                count(&memory);
            }
        };
        let doomed = start_doomed(2, at, pass());
        let others = [start(3, pass()), start(4, pass())];
        pass()();
        doomed.join().unwrap();
        let _ = others.map(|other| other.join().unwrap());
    });
}

/// Takes the lock twice, and counts inside.
fn pass_twice(lock: &RLock, memory: &Mapping) {
    let outer = lock.lock().unwrap_or_else(|died| {
        memory
            .word(24)
            .store(memory.word(16).load(Relaxed), Relaxed);
        died.into_guard()
    });
    let inner = lock.lock().unwrap();
    count(memory);
    drop(outer);
    count(memory);
    drop(inner);
}

#[test]
fn a_recursive_lock_is_held_until_it_was_given_up_as_often_as_taken() {
    explore(WHOLE, || {
        let (lock, memory) = (RLock::new().unwrap(), Arc::new(Mapping::new(32)));
        let others = [2, 3].map(|tid| {
            let (lock, memory) = (lock.clone(), Arc::clone(&memory));
            start(tid, move || pass_twice(&lock, &memory))
        });
        pass_twice(&lock, &memory);
        let _ = others.map(|other| other.join().unwrap());
        assert!(!lock.is_locked());
        assert_eq!(memory.word(24).load(Relaxed), 6);
    });
}

#[test]
fn a_recursive_lock_is_handed_on_whenever_its_holder_dies() {
    with_each_death(WHOLE, |at| {
        let (lock, memory) = (RLock::new().unwrap(), Arc::new(Mapping::new(32)));
        let pass = || {
            let (lock, memory) = (lock.clone(), Arc::clone(&memory));
            move || pass_twice(&lock, &memory)
        };
        let doomed = start_doomed(2, at, pass());
        let other = start(3, pass());
        pass()();
        doomed.join().unwrap();
        other.join().unwrap();
    });
}
