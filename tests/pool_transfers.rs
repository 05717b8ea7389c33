//! Large values and death: workers that are killed in the middle of 200 MiB, in either direction, and values that queue up.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::census::{family, wait_until_gone};
use common::fault::{self, Aim, fault_row};
use common::meet::{Ear, Gate, pass, say};
use common::{LONG_LIMIT, assert_serves, each_method_alone, kill_hard, pool};
use multiprocess::{TaskError, TaskErrorKind};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const MIB: usize = 1 << 20;

/// What this process has in memory.
fn resident_bytes() -> usize {
    resident_bytes_of(std::process::id())
}

/// What a process has in memory; nothing when it is gone.
fn resident_bytes_of(pid: u32) -> usize {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).unwrap_or("0");
    pages.parse::<usize>().unwrap() * 4096
}

/// Kills this process from a thread of its own as soon as its memory has grown by this much. That is an event, but one
/// that only the memory tells of: how far a transfer has come.
fn die_when_grown_by(bytes: usize) {
    let before = resident_bytes();
    let mut aim = Aim::take();
    thread::spawn(move || {
        loop {
            if resident_bytes() > before + bytes {
                aim.strike();
                kill_hard(std::process::id());
            }
            thread::sleep(Duration::from_micros(100));
        }
    });
}

/// The results that are large for one item only.
fn result_of(item: u8) -> Vec<u8> {
    vec![item; if item == 3 { 200 * MIB } else { 10 }]
}

/// Whether the item numbered 3 of eight was hit, which was to be, while it was under way.
///
/// Whoever is to kill may be kept off its processor until all of it is through. Then nothing was shown, and the test goes on until it
/// is hit; that late death may befall another item, or nobody. Each other result must be as `is_right` has it.
fn is_hit<R>(
    results: impl Iterator<Item = Result<R, TaskError>>,
    is_right: impl Fn(u8, R) -> bool,
) -> bool {
    let (mut errors, mut count) = (Vec::new(), 0);
    for (item, result) in (0..).zip(results) {
        count += 1;
        match result {
            Ok(value) => assert!(is_right(item, value), "item {item}"),
            Err(error) => {
                if item == 3 {
                    fault::told(&error);
                }
                assert_eq!(
                    (error.item(), error.kind()),
                    (Some(usize::from(item)), TaskErrorKind::Crash)
                );
                assert_eq!(error.exit_status().unwrap().signal(), Some(9));
                errors.push(item);
            }
        }
    }
    assert_eq!(count, 8);
    let is_hit = errors.contains(&3);
    if is_hit {
        assert_eq!(errors, [3], "no other notices");
    } else {
        println!("through before the kill, which is item {errors:?}'s");
    }
    is_hit
}

fault_row!(
    a_worker_killed_while_it_sends_200_mib_is_a_crash,
    LONG_LIMIT,
    |method| {
        // From the moment that it begins to return them; encoding and sending 200 MiB should take longer than any of these.
        for mut delay in [0, 1, 5, 15].map(Duration::from_millis) {
            loop {
                let mut ear = Ear::new();
                let pool = pool(method, 2);
                let is_hit = thread::scope(|scope| {
                    let said = ear.path();
                    scope.spawn(move || {
                        let victim = ear.hear_number();
                        thread::sleep(delay);
                        fault::strike_at(victim);
                        kill_hard(victim);
                    });
                    let results = pool.with(said).imap(0..8_u8, |said: &PathBuf, item| {
                        if item != 3 {
                            return vec![item; 10];
                        }
                        let large = vec![item; 200 * MIB];
                        say(said, std::process::id());
                        large
                    });
                    is_hit(results, |item, bytes| bytes == result_of(item))
                });
                assert_serves(&pool);
                if is_hit {
                    break;
                }
                delay /= 2;
            }
        }
    }
);

fault_row!(
    a_worker_killed_by_its_own_thread_while_it_sends_200_mib_is_a_crash,
    LONG_LIMIT,
    |method| {
        loop {
            let pool = pool(method, 2);
            let results = pool.imap(0..8_u8, |item| {
                if item != 3 {
                    return vec![item; 10];
                }
                let large = vec![item; 200 * MIB];
                let mut aim = Aim::take();
                thread::spawn(move || {
                    aim.strike();
                    kill_hard(std::process::id());
                });
                large
            });
            if is_hit(results, |item, bytes| bytes == result_of(item)) {
                assert_serves(&pool);
                break;
            }
        }
    }
);

fault_row!(
    a_worker_killed_while_the_parent_sends_it_200_mib_is_a_crash,
    LONG_LIMIT,
    |method| {
        for grown in [8, 40, 150] {
            loop {
                let pool = pool(method, 2);
                // Both workers watch themselves: each is held until the other has begun.
                arm_both(&pool, Ear::new(), &Gate::new(), grown * MIB);
                let items = (0..8_u8).map(result_of);
                let job = pool.job().chunk_size(1);
                let results = job.imap(items, |bytes| (bytes[0], bytes.len()));
                // Once it is hit, it is not done over: who received part of it died of it.
                let is_hit = is_hit(results, |item, answer| {
                    answer == (item, result_of(item).len())
                });
                if is_hit {
                    assert_serves(&pool);
                    break;
                }
            }
        }
    }
);

/// Has both workers of a pool die when they have grown by that many bytes.
fn arm_both(pool: &multiprocess::Pool, mut ear: Ear, gate: &Gate, bytes: usize) {
    thread::scope(|scope| {
        let captures = (ear.path(), gate.path(), bytes);
        let arming = scope.spawn(|| {
            pool.with(captures)
                .chunk_size(1)
                .map(0..2_u8, |(ear, gate, bytes), _| {
                    say(ear, std::process::id());
                    pass(gate);
                    die_when_grown_by(*bytes);
                })
        });
        assert_ne!(ear.hear(), ear.hear());
        gate.let_through(2);
        arming.join().unwrap().unwrap();
    });
}

fault_row!(
    an_argument_whose_arrival_kills_every_worker_is_a_crash_in_the_end,
    LONG_LIMIT,
    |method| {
        const PATIENCE: usize = 30;
        let pool = pool(method, 2);
        loop {
            let (kills, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
            let is_hit = thread::scope(|scope| {
                // As the kernel does when memory runs out: whoever holds too much is killed, replacements like the first.
                scope.spawn(|| {
                    while !is_over.load(Ordering::SeqCst) && kills.load(Ordering::SeqCst) < PATIENCE
                    {
                        for process in family(std::process::id(), common::alone::mark().as_deref())
                        {
                            if process.lives() && resident_bytes_of(process.pid) > 80 * MIB {
                                fault::strike_at(process.pid);
                                kill_hard(process.pid);
                                wait_until_gone(&process);
                                kills.fetch_add(1, Ordering::SeqCst);
                            }
                        }
                        thread::sleep(Duration::from_micros(100));
                    }
                });
                let results = pool.imap((0..8_u8).map(result_of), |bytes| (bytes[0], bytes.len()));
                let is_hit = is_hit(results, |item, answer| {
                    answer == (item, result_of(item).len())
                });
                is_over.store(true, Ordering::SeqCst);
                let kills = kills.load(Ordering::SeqCst);
                assert!(
                    kills < PATIENCE,
                    "sent again and again, to {kills} workers that died of it"
                );
                is_hit
            });
            assert_serves(&pool);
            if is_hit {
                break;
            }
        }
    }
);

fault_row!(
    large_arguments_in_a_row_on_one_worker_are_all_served,
    LONG_LIMIT,
    |method| {
        let pool = pool(method, 1);
        fault::strike();
        let mut results = pool.imap((0..4_u8).map(|fill| vec![fill; 64 * MIB]), |bytes| bytes);
        // The first is read while two more are under way and their results are unread.
        assert!(results.next().unwrap().unwrap() == vec![0; 64 * MIB]);
        let rest: Vec<_> = results.map(Result::unwrap).collect();
        fault::answered("four times 64 MiB, there and back");
        assert_eq!(rest.len(), 3);
        assert!(
            (1..)
                .zip(&rest)
                .all(|(fill, bytes)| *bytes == vec![fill; 64 * MIB])
        );
        assert_serves(&pool);
    }
);

fault_row!(
    large_arguments_from_two_threads_to_one_worker_are_all_served,
    LONG_LIMIT,
    |method| {
        let pool = pool(method, 1);
        fault::strike();
        thread::scope(|scope| {
            for fill in 0..2_u8 {
                let pool = &pool;
                scope.spawn(move || {
                    let answer = pool.apply(vec![fill; 64 * MIB], |bytes| bytes).unwrap();
                    assert!(answer == vec![fill; 64 * MIB]);
                });
            }
        });
        fault::answered("64 MiB for two at once, there and back");
        assert_serves(&pool);
    }
);

each_method_alone!(
    a_chunk_of_large_arguments_and_results_does_not_block_itself,
    LONG_LIMIT,
    |method| {
        let pool = pool(method, 1);
        let items = (0..6_u8).map(|fill| vec![fill; 32 * MIB]);
        let results = pool.job().chunk_size(3).map(items, |bytes| bytes).unwrap();
        assert_eq!(results.len(), 6);
        assert!(
            (0..)
                .zip(&results)
                .all(|(fill, bytes)| *bytes == vec![fill; 32 * MIB])
        );
        assert_serves(&pool);
    }
);

each_method_alone!(memory_of_large_results_is_returned, LONG_LIMIT, |method| {
    let pool = pool(method, 2);
    let round = || {
        assert_eq!(
            pool.map(0..4_u8, |fill| vec![fill; 32 * MIB])
                .unwrap()
                .len(),
            4
        )
    };
    round();
    let before = resident_bytes();
    for _ in 0..10 {
        round();
    }
    let after = resident_bytes();
    // Ten rounds handle 1,280 MiB; what remains is what one round needed, give or take a result.
    assert!(
        after < before + 64 * MIB,
        "{before} bytes before, {after} after"
    );
});
