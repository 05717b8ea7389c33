//! Large values and death: workers that are killed in the middle of 200 MiB, in either direction, and values that queue up.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::census::{family, wait_until_gone};
use common::fault::{self, fault_row};
use common::meet::{Ear, Gate, pass, say};
use common::{LONG_LIMIT, assert_serves, each_method_alone, kill_hard, pool};
use multiprocess::TaskErrorKind;
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
    thread::spawn(move || {
        loop {
            if resident_bytes() > before + bytes {
                fault::strike();
                kill_hard(std::process::id());
            }
            thread::sleep(Duration::from_micros(100));
        }
    });
}

fault_row!(
    a_worker_killed_while_it_sends_200_mib_is_a_crash,
    LONG_LIMIT,
    |method| {
        // From the moment that it begins to return them; encoding and sending 200 MiB takes far longer than any of these.
        for delay_ms in [0, 1, 5, 15] {
            let mut ear = Ear::new();
            let pool = pool(method, 2);
            thread::scope(|scope| {
                let said = ear.path();
                scope.spawn(move || {
                    let victim = ear.hear_number();
                    thread::sleep(Duration::from_millis(delay_ms));
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
                for (item, result) in (0..).zip(results) {
                    match result {
                        Ok(bytes) => assert!(
                            item != 3 && bytes == vec![item; 10],
                            "item {item}: {} bytes",
                            bytes.len()
                        ),
                        Err(error) => {
                            fault::told(&error);
                            assert_eq!(
                                (error.item(), error.kind(), item),
                                (Some(3), TaskErrorKind::Crash, 3)
                            );
                            assert_eq!(error.exit_status().unwrap().signal(), Some(9));
                        }
                    }
                }
            });
            assert_serves(&pool);
        }
    }
);

fault_row!(
    a_worker_killed_by_its_own_thread_while_it_sends_200_mib_is_a_crash,
    LONG_LIMIT,
    |method| {
        let pool = pool(method, 2);
        let results: Vec<_> = pool
            .imap(0..8_u8, |item| {
                if item != 3 {
                    return vec![item; 10];
                }
                let large = vec![item; 200 * MIB];
                thread::spawn(|| {
                    fault::strike();
                    kill_hard(std::process::id());
                });
                large
            })
            .inspect(fault::watch)
            .collect();
        assert_eq!(results.len(), 8);
        for (item, result) in (0..).zip(results) {
            match result {
                Ok(bytes) => assert!(
                    item != 3 && bytes == vec![item; 10],
                    "item {item}: {} bytes",
                    bytes.len()
                ),
                Err(error) => assert_eq!(
                    (error.item(), error.kind(), item),
                    (Some(3), TaskErrorKind::Crash, 3)
                ),
            }
        }
        assert_serves(&pool);
    }
);

fault_row!(
    a_worker_killed_while_the_parent_sends_it_200_mib_is_a_crash,
    LONG_LIMIT,
    |method| {
        for grown in [8, 40, 150] {
            let pool = pool(method, 2);
            let gate = Gate::new();
            let ear = Ear::new();
            let workers = pool.worker_pids();
            // Both workers watch themselves: each is held until the other has begun.
            arm_both(&pool, ear, &gate, grown * MIB);
            let items = (0..8_u8).map(|item| {
                if item == 3 {
                    vec![item; 200 * MIB]
                } else {
                    vec![item; 10]
                }
            });
            let results: Vec<_> = pool
                .job()
                .chunk_size(1)
                .imap(items, |bytes| (bytes[0], bytes.len()))
                .inspect(fault::watch)
                .collect();
            assert_eq!(results.len(), 8);
            for (item, result) in (0..).zip(results) {
                match result {
                    // Item 3 is not done over: who received part of it died of it.
                    Ok(answer) => {
                        assert_eq!(
                            answer,
                            (item, 10),
                            "{workers:?}, now {:?}",
                            pool.worker_pids()
                        );
                    }
                    Err(error) => {
                        assert_eq!(
                            (error.item(), error.kind(), item),
                            (Some(3), TaskErrorKind::Crash, 3)
                        );
                        assert_eq!(error.exit_status().unwrap().signal(), Some(9));
                    }
                }
            }
            assert_serves(&pool);
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
        let (kills, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
        thread::scope(|scope| {
            // As the kernel does when memory runs out: whoever holds too much is killed, replacements like the first.
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) && kills.load(Ordering::SeqCst) < PATIENCE {
                    for process in family(std::process::id(), common::alone::mark().as_deref()) {
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
            let items = (0..8_u8).map(|item| vec![item; if item == 3 { 200 * MIB } else { 10 }]);
            let results = pool.imap(items, |bytes| (bytes[0], bytes.len()));
            let results: Vec<_> = results.inspect(fault::watch).collect();
            is_over.store(true, Ordering::SeqCst);
            let kills = kills.load(Ordering::SeqCst);
            assert!(
                kills < PATIENCE,
                "sent again and again, to {kills} workers that died of it"
            );
            assert_eq!(results.len(), 8);
            for (item, result) in (0..).zip(results) {
                match result {
                    Ok(answer) => assert_eq!(answer, (item, 10), "{kills} kills"),
                    Err(error) => assert_eq!(
                        (error.item(), error.kind(), item),
                        (Some(3), TaskErrorKind::Crash, 3)
                    ),
                }
            }
        });
        assert_serves(&pool);
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
