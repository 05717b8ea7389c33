//! `Barrier`: all or none, one leader a round, and an error instead of a hang.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::alone::{in_own_process, test_path};
use common::many::{Random, join_all, kill_and_wait, scaled, start, start_many};
use common::{LONG_LIMIT, clean, each_method, each_method_alone};
use multiprocess::{Barrier, Lock, Process, StartMethod};
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

/// When somebody counts as waiting for ever.
const SOON: Duration = Duration::from_secs(30);

fn await_waiting(barrier: &Barrier, count: usize) {
    let deadline = Instant::now() + SOON;
    while barrier.waiting() != count {
        assert!(Instant::now() < deadline, "{barrier:?}");
        thread::yield_now();
    }
}

each_method!(
    five_processes_go_in_step_with_one_leader_a_round,
    |method| {
        let barrier = Barrier::new(5).unwrap();
        let rounds = scaled(1_000);
        // How many rounds each has begun.
        let begun = Lock::new([0_u64; 5]).unwrap();
        let processes: Vec<Process<Vec<usize>>> = (0..5)
            .map(|party| {
                let arguments = (barrier.clone(), begun.clone(), party, rounds);
                start(
                    method,
                    arguments,
                    |(barrier, begun, party, rounds): (Barrier, Lock<[u64; 5]>, usize, u64)| {
                        (1..=rounds)
                            .map(|round| {
                                begun.lock().unwrap()[party] = round;
                                let result = barrier.wait().unwrap();
                                let begun = begun.lock().unwrap();
                                assert!(
                                    begun.iter().all(|one| (round..=round + 1).contains(one)),
                                    "{begun:?}"
                                );
                                assert_eq!(result.is_leader(), result.index() == 0);
                                result.index()
                            })
                            .collect()
                    },
                )
            })
            .collect();
        let indexes = join_all(processes);
        for round in 0..usize::try_from(rounds).unwrap() {
            let mut of_round: Vec<usize> = indexes.iter().map(|party| party[round]).collect();
            of_round.sort_unstable();
            assert_eq!(of_round, [0, 1, 2, 3, 4]);
        }
        assert_eq!((barrier.parties(), barrier.waiting()), (5, 0));
    }
);

each_method!(two_processes_meet_many_times, LONG_LIMIT, |method| {
    let barrier = Barrier::new(2).unwrap();
    let rounds = scaled(20_000);
    let processes = start_many(method, 2, &(barrier, rounds), |(barrier, rounds)| {
        (0..rounds)
            .filter(|_| barrier.wait().unwrap().is_leader())
            .count()
    });
    let led: usize = join_all(processes).into_iter().sum();
    assert_eq!(led as u64, rounds);
});

each_method!(a_time_that_is_over_breaks_it_for_all, |method| {
    let barrier = Barrier::new(4).unwrap();
    let waiting = start_many(method, 2, &barrier, |barrier: Barrier| {
        barrier.wait().unwrap_err().is_timeout()
    });
    await_waiting(&barrier, 2);
    let start_of_wait = Instant::now();
    let limit = Duration::from_millis(30);
    assert!(barrier.wait_timeout(limit).unwrap_err().is_timeout());
    assert!(start_of_wait.elapsed() >= limit);
    assert_eq!(join_all(waiting), [true, true]);
    assert!(barrier.is_broken() && barrier.wait().is_err());
    assert_eq!(barrier.waiting(), 0);
});

each_method!(an_abort_frees_all_and_a_reset_makes_it_whole, |method| {
    let barrier = Barrier::new(3).unwrap();
    let wait = |barrier: Barrier| match barrier.wait() {
        Ok(_) => "through".to_owned(),
        Err(error) => error.to_string(),
    };
    let waiting = start_many(method, 2, &barrier, wait);
    await_waiting(&barrier, 2);
    barrier.abort();
    assert_eq!(
        join_all(waiting),
        ["the barrier is broken: it was aborted"; 2]
    );

    barrier.reset();
    assert!(!barrier.is_broken());
    let waiting = start_many(method, 2, &barrier, wait);
    await_waiting(&barrier, 2);
    barrier.reset();
    assert_eq!(
        join_all(waiting),
        ["the barrier is broken: it was reset while a party waited"; 2]
    );

    let waiting = start_many(method, 2, &barrier, wait);
    assert!(barrier.wait_timeout(SOON).is_ok());
    assert_eq!(join_all(waiting), ["through"; 2]);
});

each_method!(
    a_party_that_is_killed_waiting_breaks_it_for_those_who_wait,
    |method| {
        let barrier = Barrier::new(4).unwrap();
        // In each place in the order of coming.
        for victim in 0..3 {
            let mut waiting: Vec<Process<bool>> = (1..=3)
                .map(|count| {
                    let process = start(method, barrier.clone(), |barrier: Barrier| {
                        barrier.wait().unwrap_err().is_death()
                    });
                    await_waiting(&barrier, count);
                    process
                })
                .collect();
            kill_and_wait(waiting.remove(victim));
            assert_eq!(join_all(waiting), [true, true]);
            assert!(barrier.wait().unwrap_err().is_death());
            barrier.reset();
        }
    }
);

each_method!(who_comes_last_finds_a_death, |method| {
    let barrier = Barrier::new(2).unwrap();
    let waiting = start(method, barrier.clone(), |barrier: Barrier| {
        barrier.wait().is_ok()
    });
    await_waiting(&barrier, 1);
    kill_and_wait(waiting);
    assert!(barrier.wait_timeout(SOON).unwrap_err().is_death());
});

each_method_alone!(
    parties_killed_at_any_instant_hang_nobody,
    LONG_LIMIT,
    |method| {
        let mut random = Random::new();
        let go_on = |barrier: Barrier| {
            loop {
                if let Err(error) = barrier.wait_timeout(SOON) {
                    return error.is_timeout();
                }
            }
        };
        let mut deaths = 0;
        for _ in 0..scaled(60) {
            let parties = 2 + usize::try_from(random.below(3)).unwrap();
            let barrier = Barrier::new(parties).unwrap();
            let mut going = start_many(method, parties, &barrier, go_on);
            random.pause(Duration::from_millis(3));
            kill_and_wait(going.remove(usize::try_from(random.below(2)).unwrap()));
            // Killed between two rounds, it was not waiting: the others wait for somebody who never comes, as they must.
            let deadline = Instant::now() + SOON;
            while !barrier.is_broken() && barrier.waiting() < parties - 1 {
                assert!(Instant::now() < deadline, "{barrier:?}");
                thread::yield_now();
            }
            deaths += u32::from(barrier.is_broken());
            barrier.abort();
            assert!(join_all(going).into_iter().all(|timed_out| !timed_out));
        }
        eprintln!("{deaths} broken by the death itself");
    }
);

fn kill_while_others_come_and_fall_asleep(method: StartMethod, times: u64) {
    let mut random = Random::new();
    // One more than come, so that nobody is the last.
    let barrier = Barrier::new(4).unwrap();
    for _ in 0..times {
        let wait = |barrier: Barrier| barrier.wait_timeout(SOON).unwrap_err().is_death();
        let victim = start(method, barrier.clone(), wait);
        await_waiting(&barrier, 1);
        let others = start_many(method, 2, &barrier, wait);
        random.pause(Duration::from_millis(2));
        kill_and_wait(victim);
        assert_eq!(join_all(others), [true, true]);
        barrier.reset();
    }
}

each_method_alone!(
    a_death_while_others_come_and_fall_asleep_is_missed_by_nobody,
    LONG_LIMIT,
    |method| {
        kill_while_others_come_and_fall_asleep(method, scaled(80));
    }
);

#[test]
fn who_can_sleep_on_one_word_only_misses_no_death_and_no_round() {
    let name = "who_can_sleep_on_one_word_only_misses_no_death_and_no_round";
    in_own_process(&test_path(module_path!(), name), LONG_LIMIT, || {
        common::unsafely::sleep_on_one_word_only();
        clean(StartMethod::ForkServer, meet_and_die_on_one_word);
        clean(StartMethod::Spawn, meet_and_die_on_one_word);
    });
}

fn meet_and_die_on_one_word(method: StartMethod) {
    let status = start(method, (), |()| {
        std::fs::read_to_string("/proc/self/status").unwrap()
    });
    let status = status.join().unwrap();
    assert!(
        status.contains("Seccomp:\t2"),
        "nothing is refused: {status}"
    );
    kill_while_others_come_and_fall_asleep(method, scaled(40));
    // More parties than processors, so that they sleep.
    let barrier = Barrier::new(3).unwrap();
    let rounds = scaled(1_000);
    let processes = start_many(method, 3, &(barrier, rounds), |(barrier, rounds)| {
        (0..rounds)
            .filter(|_| barrier.wait_timeout(SOON).unwrap().is_leader())
            .count()
    });
    let led: usize = join_all(processes).into_iter().sum();
    assert_eq!(led as u64, rounds);
}

#[test]
fn threads_meet_as_well() {
    let barrier = Barrier::new(8).unwrap();
    let leaders: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    (0..200)
                        .filter(|_| barrier.wait().unwrap().is_leader())
                        .count()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(leaders, 200);
}

#[test]
fn more_threads_than_parties_go_through_in_groups() {
    let barrier = Barrier::new(3).unwrap();
    let comings = std::sync::atomic::AtomicU32::new(900);
    let come = || {
        let one = comings.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
        one.is_ok()
            .then(|| barrier.wait_timeout(SOON).unwrap().is_leader())
    };
    let leaders: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..9)
            .map(|_| scope.spawn(|| std::iter::from_fn(come).filter(|&led| led).count()))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(leaders, 300);
}

#[test]
fn resets_and_aborts_at_any_instant_free_all() {
    let barrier = Barrier::new(3).unwrap();
    thread::scope(|scope| {
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let error = barrier.wait_timeout(SOON).unwrap_err();
                        assert!(!error.is_timeout(), "{error}");
                    }
                })
            })
            .collect();
        let mut random = Random::new();
        while !waiters.iter().all(|waiter| waiter.is_finished()) {
            if random.below(2) == 0 {
                barrier.abort();
            }
            barrier.reset();
            random.pause(Duration::from_micros(30));
        }
    });
}

#[test]
fn a_barrier_of_one_is_passed_at_once_and_one_of_none_is_refused() {
    let barrier = Barrier::new(1).unwrap();
    assert!((0..1000).all(|_| barrier.wait().unwrap().index() == 0));
    for parties in [0, usize::MAX] {
        assert!(Barrier::new(parties).is_err());
    }
}
