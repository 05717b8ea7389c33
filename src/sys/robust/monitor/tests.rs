//! A monitor among threads and processes, which die at any instant.

use super::*;
use crate::sys::atomic::AtomicU64;
use crate::sys::forks::apart;
use crate::sys::robust::trial::{Random, forked, kill_hard, memory, soon};
use nix::unistd::Pid;
use std::time::Duration;

/// Things are brought by counting up `brought`, and taken by counting up `taken` inside.
struct Things<'a> {
    monitor: Monitor<'a>,
    brought: &'a AtomicU64,
    taken: &'a AtomicU64,
}

impl Things<'_> {
    fn are_there(&self) -> bool {
        self.brought.load(Ordering::Acquire) > self.taken.load(Ordering::Acquire)
    }

    fn bring(&self) {
        self.monitor
            .announce(|| self.brought.fetch_add(1, Ordering::Release));
    }

    /// Takes one; false when the deadline has passed.
    fn take(&self, deadline: Deadline) -> bool {
        let mut inside = self.monitor.enter(deadline);
        loop {
            match inside {
                None => return false,
                Some(inside) if self.are_there() => {
                    self.taken
                        .store(self.taken.load(Ordering::Relaxed) + 1, Ordering::Release);
                    inside.leave(|| self.are_there());
                    return true;
                }
                Some(alone) => inside = alone.wait(|| self.are_there(), deadline),
            }
        }
    }
}

fn things(memory: &Mapping) -> Things<'_> {
    Things {
        monitor: Monitor::at(memory, 64),
        brought: memory.word(128),
        taken: memory.word(192),
    }
}

#[test]
fn what_is_brought_to_a_monitor_is_taken_once() {
    const EACH: u64 = 30_000;
    let memory = memory();
    let things = things(&memory);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| (0..EACH).for_each(|_| assert!(things.take(soon()))));
            scope.spawn(|| (0..EACH).for_each(|_| things.bring()));
        }
    });
    assert_eq!(things.taken.load(Ordering::Relaxed), 3 * EACH);
    assert!(!things.take(Deadline::after(Duration::from_millis(10))));
}

#[test]
fn one_at_a_time_is_brought_and_each_finds_a_sleeper() {
    let memory = memory();
    let things = things(&memory);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| (0..2_000).for_each(|_| assert!(things.take(soon()))));
        }
        for number in 1..=6_000 {
            things.bring();
            while things.taken.load(Ordering::Acquire) < number {
                std::thread::yield_now();
            }
        }
    });
}

#[test]
fn who_only_wants_to_come_in_does_not_wait_for_things() {
    let memory = memory();
    let things = things(&memory);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| assert!(things.take(soon())));
        }
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    let inside = things.monitor.enter(soon()).unwrap();
                    inside.leave(|| things.are_there());
                }
            });
        }
        for _ in 0..5_000 {
            let inside = things.monitor.enter(soon()).unwrap();
            inside.leave(|| things.are_there());
        }
        things.bring();
        things.bring();
    });
}

#[test]
fn sleepers_whose_deadlines_pass_swallow_no_wake_up() {
    let memory = memory();
    let things = things(&memory);
    let mut random = Random::new();
    std::thread::scope(|scope| {
        for seed in 0..3 {
            let things = &things;
            let mut random = Random(random.below(1 << 40) + seed);
            scope.spawn(move || {
                let mut taken = 0;
                while taken < 1_000 {
                    let limit = Duration::from_micros(random.below(60));
                    taken += u32::from(things.take(Deadline::after(limit)));
                }
            });
        }
        scope.spawn(|| (0..1_000).for_each(|_| assert!(things.take(soon()))));
        for _ in 0..4_000 {
            random.pause(Duration::from_micros(30));
            things.bring();
        }
    });
    assert_eq!(things.taken.load(Ordering::Relaxed), 4_000);
}

#[test]
fn one_whose_time_is_over_takes_what_the_one_that_was_woken_has_not_come_for() {
    let memory = memory();
    let things = things(&memory);
    let word = things.monitor.word.word;
    std::thread::scope(|scope| {
        let taker = scope.spawn(|| things.take(Deadline::after(Duration::from_millis(300))));
        let idle = loop {
            let seen = word.load(Ordering::Relaxed);
            if seen & LOW == WAITED {
                break seen;
            }
            std::thread::yield_now();
        };
        things.brought.fetch_add(1, Ordering::Release);
        // As it is when another one has been woken for it, who does not run.
        let told = things.monitor.word.change(idle, idle & COUNT | KEEP);
        assert!(told.is_some());
        assert!(taker.join().unwrap());
    });
    assert!(!things.are_there());
    // And that one finds nothing.
    assert!(!things.take(Deadline::after(Duration::ZERO)));
}

#[test]
fn takers_killed_at_any_instant_take_no_wake_up_with_them() {
    let apart = apart::forks();
    let memory = memory();
    let things = things(&memory);
    let mut random = Random::new();
    let taker = || {
        loop {
            if !things.take(soon()) {
                return 7;
            }
        }
    };
    let mut children: Vec<Pid> = (0..3).map(|_| forked(&apart, taker)).collect();
    for _ in 0..500 {
        things.bring();
        random.pause(Duration::from_micros(150));
        let one = usize::try_from(random.below(3)).unwrap();
        kill_hard(children[one]);
        children[one] = forked(&apart, taker);
        // All is taken without anything else being brought.
        let deadline = soon();
        while things.are_there() {
            assert!(
                deadline.remaining().is_none_or(|left| !left.is_zero()),
                "a thing stays"
            );
            std::thread::yield_now();
        }
    }
    children.into_iter().for_each(kill_hard);
}
