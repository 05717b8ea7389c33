//! A word among threads and processes, which die at any instant.

use super::*;
use crate::sys::forks::apart;
use crate::sys::memory::SealedMemory;
use crate::sys::robust::trial::{Random, assert_ends_well, forked, kill_hard, memory, soon};
use nix::unistd::Pid;
use std::mem;
use std::time::Duration;

#[test]
fn what_one_holds_another_does_not_get_until_it_is_given_up() {
    let memory = memory();
    let word = Word::at(&memory, 64);
    let held = word.acquire(Deadline::NEVER).unwrap();
    assert!(!held.owner_died() && word.is_held_by_this_thread());
    assert_eq!(word.holder(), Some(this_thread()));
    assert!(word.try_acquire().is_none());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let deadline = Deadline::after(Duration::from_millis(30));
            assert!(word.acquire(deadline).is_none() && !word.is_held_by_this_thread());
        });
    });
    drop(held);
    assert_eq!(word.holder(), None);
    let _again = word.try_acquire().unwrap();
    drop(_again);
    assert_eq!(
        word.word.load(Ordering::Relaxed) & !COUNT,
        0,
        "plainly free"
    );
}

#[test]
fn threads_exclude_each_other() {
    let memory = memory();
    let word = Word::at(&memory, 64);
    let count = memory.word(128);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50_000 {
                    let _held = word.acquire(soon()).unwrap();
                    count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(count.load(Ordering::Relaxed), 200_000);
    assert_eq!(
        word.word.load(Ordering::Relaxed) & !COUNT,
        0,
        "plainly free"
    );
}

#[test]
fn a_thread_that_ends_holding_is_found_to_have_died() {
    let memory = memory();
    let (word, other) = (Word::at(&memory, 64), Word::at(&memory, 128));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            mem::forget(word.acquire(Deadline::NEVER).unwrap());
            drop(other.acquire(Deadline::NEVER).unwrap());
        });
    });
    // The thread itself may end a little after its closure.
    let held = word.acquire(soon()).unwrap();
    assert!(held.owner_died() && !other.is_died());
    held.give_up_as_died();
    let held = word.acquire(soon()).unwrap();
    assert!(held.owner_died());
    drop(held);
    assert!(!word.acquire(soon()).unwrap().owner_died());
}

#[test]
fn of_many_words_a_dead_process_loses_those_that_it_held() {
    let apart = apart::forks();
    let memory = memory();
    for kept_out in 0..5 {
        let words: Vec<_> = (0..5).map(|n| Word::at(&memory, n * 64)).collect();
        let child = forked(&apart, || {
            let mut all: Vec<_> = words
                .iter()
                .map(|word| Some(word.acquire(Deadline::NEVER).unwrap()))
                .collect();
            all[kept_out] = None;
            mem::forget(all);
            0
        });
        assert_ends_well(child);
        for (n, word) in words.into_iter().enumerate() {
            let held = word.acquire(soon()).unwrap();
            assert_eq!(held.owner_died(), n != kept_out);
        }
    }
}

#[test]
fn a_fork_holds_nothing_of_its_parents() {
    let apart = apart::forks();
    let memory = memory();
    let word = Word::at(&memory, 64);
    let mut held = word.acquire(Deadline::NEVER);
    let child = forked(&apart, || {
        let parent = word.holder();
        if word.is_held_by_this_thread() || word.try_acquire().is_some() {
            return 1;
        }
        drop(held.take());
        let is_still_the_parents = word.holder() == parent && parent != Some(this_thread());
        let own = Word::at(&memory, 128).acquire(Deadline::NEVER);
        mem::forget(own);
        i32::from(!is_still_the_parents)
    });
    assert_ends_well(child);
    assert!(Word::at(&memory, 128).acquire(soon()).unwrap().owner_died());
    assert_eq!(word.holder(), Some(this_thread()));
    assert!(held.is_some());
}

#[test]
fn a_mapping_with_a_forgotten_guard_stays_mapped() {
    let one = memory();
    mem::forget(Word::at(&one, 64).acquire(Deadline::NEVER));
    let at = one.word(64) as *const AtomicU64;
    drop(one);
    // SAFETY: it is still mapped, which is what is tested; and an atomic.
    assert_ne!(unsafe { &*at }.load(Ordering::Relaxed), 0);
}

#[test]
fn more_words_than_the_kernel_walks_are_refused() {
    let memory = SealedMemory::create(HELD_MAX * 16 + 16).unwrap();
    let memory = memory.map(0, memory.len()).unwrap();
    let mut held: Vec<_> = (0..HELD_MAX)
        .map(|n| Word::at(&memory, n * 16).acquire(Deadline::NEVER).unwrap())
        .collect();
    let last = Word::at(&memory, HELD_MAX * 16);
    let refused = std::panic::catch_unwind(|| last.try_acquire().is_some());
    assert!(refused.is_err());
    held.remove(HELD_MAX / 2);
    assert!(last.try_acquire().is_some());
}

#[test]
fn holders_and_sleepers_killed_at_any_instant_keep_nobody_waiting() {
    let apart = apart::forks();
    let memory = memory();
    let word = Word::at(&memory, 64);
    let (taken, finished) = (memory.word(128), memory.word(192));
    let mut random = Random::new();
    let worker = || {
        loop {
            let Some(held) = word.acquire(soon()) else {
                return 7;
            };
            if held.owner_died() {
                finished.store(taken.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            taken.store(taken.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            std::hint::black_box(&held);
            finished.store(finished.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
    };
    let mut children: Vec<Pid> = (0..4).map(|_| forked(&apart, worker)).collect();
    for _ in 0..500 {
        random.pause(Duration::from_micros(400));
        let one = usize::try_from(random.below(4)).unwrap();
        kill_hard(children[one]);
        children[one] = forked(&apart, worker);
        let held = word.acquire(soon()).expect("nobody hands the word on");
        let equal = taken.load(Ordering::Relaxed) == finished.load(Ordering::Relaxed);
        assert!(equal || held.owner_died(), "two held it at a time");
        if !equal {
            finished.store(taken.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
    children.into_iter().for_each(kill_hard);
    assert!(word.acquire(soon()).is_some());
}
