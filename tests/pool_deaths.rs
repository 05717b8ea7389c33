//! Workers that die in other places than in item 3 of 8: idle, all of them, within chunks, with descriptors kept open.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::census::{process, wait_until_gone};
use common::fault::{self, fault_row};
use common::meet::{Ear, Log, note, say};
use common::unsafely::{exit_at_once, fork_idle_child, segfault};
use common::{assert_crash_by_exit, assert_crash_by_signal, assert_serves, kill_hard, pool};
use multiprocess::TaskErrorKind;
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

fault_row!(
    a_grandchild_that_keeps_every_descriptor_open_does_not_hide_a_death,
    |method| {
        let mut ear = Ear::new();
        let error = {
            let said = ear.path();
            let pool = pool(method, 2);
            let results: Vec<_> = pool
                .with(said)
                .imap(0..8_u32, |said, item| {
                    if item == 3 {
                        say(said, fork_idle_child());
                        fault::strike();
                        kill_hard(std::process::id());
                    }
                    item * 10
                })
                .inspect(fault::watch)
                .collect();
            assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 7);
            assert_serves(&pool);
            results.into_iter().find_map(Result::err).unwrap()
        };
        let grandchild = process(ear.hear_number()).unwrap();
        assert!(grandchild.lives());
        kill_hard(grandchild.pid);
        wait_until_gone(&grandchild);
        assert_eq!(error.item(), Some(3));
        assert_crash_by_signal(&error, Signal::SIGKILL);
    }
);

fault_row!(
    workers_that_die_idle_are_replaced_before_the_next_call,
    |method| {
        let pool = pool(method, 2);
        for round in 0..50_u32 {
            let pids = pool.worker_pids();
            fault::strike();
            for pid in pids {
                kill_hard(pid);
            }
            assert_eq!(pool.apply(round, |round| round + 1).unwrap(), round + 1);
            fault::answered("an answer");
            assert_serves(&pool);
        }
    }
);

fault_row!(
    workers_long_dead_are_replaced_before_the_next_call,
    |method| {
        let pool = pool(method, 2);
        for _ in 0..5 {
            for pid in pool.worker_pids() {
                let worker = process(pid).unwrap();
                kill_hard(pid);
                wait_until_gone(&worker);
            }
            // They are missed when somebody asks for them.
            fault::strike();
            assert_eq!(pool.apply(1, |one: u32| one).unwrap(), 1);
            fault::answered("an answer");
            assert_serves(&pool);
        }
    }
);

fault_row!(one_worker_that_dies_idle_is_replaced, |method| {
    let pool = pool(method, 2);
    let before = pool.worker_pids();
    fault::strike();
    kill_hard(before[0]);
    assert_eq!(pool.apply(1, |one: u32| one).unwrap(), 1);
    fault::answered("an answer");
    assert_serves(&pool);
    assert!(
        pool.worker_pids().contains(&before[1]),
        "the other worker is still the same"
    );
});

fault_row!(
    a_thousand_items_that_each_kill_their_worker_are_a_thousand_errors,
    common::LONG_LIMIT,
    |method| {
        let pool = pool(method, 2);
        let mut pids = BTreeSet::new();
        let results = pool.imap(0..1000_u32, |_| {
            fault::strike();
            kill_hard(std::process::id());
        });
        let mut count = 0;
        for (index, result) in results.inspect(fault::watch).enumerate() {
            let error = result.unwrap_err();
            assert_eq!(
                (error.item(), error.kind()),
                (Some(index), TaskErrorKind::Crash)
            );
            assert_eq!(error.exit_status().unwrap().signal(), Some(9));
            pids.insert(error.pid().unwrap());
            count += 1;
        }
        assert_eq!((count, pids.len()), (1000, 1000));
        assert_serves(&pool);
    }
);

fault_row!(
    a_crash_in_any_place_of_a_chunk_costs_that_item_alone,
    |method| {
        let pool = pool(method, 2);
        for size in [2, 4, 8, 100] {
            let log = Log::new();
            let results: Vec<_> = pool
                .with(log.path())
                .chunk_size(size)
                .imap(0..40_u32, |log: &PathBuf, item| {
                    note(log, item);
                    if item % 10 == 3 {
                        fault::strike();
                        kill_hard(std::process::id());
                    }
                    item * 10
                })
                .inspect(fault::watch)
                .collect();
            let failed: Vec<_> = results
                .iter()
                .filter_map(|result| result.as_ref().err()?.item())
                .collect();
            assert_eq!(
                (results.len(), failed),
                (40, vec![3, 13, 23, 33]),
                "chunks of {size}"
            );
            assert_eq!(log.notes(40), [1; 40], "chunks of {size}");
            assert_serves(&pool);
        }
    }
);

fault_row!(apply_and_map_report_a_crash_as_imap_does, |method| {
    let pool = pool(method, 2);
    let error = pool
        .apply(7, |code: i32| {
            if code == 7 {
                fault::strike();
                exit_at_once(code)
            }
        })
        .unwrap_err();
    fault::told(&error);
    assert_crash_by_exit(&error, 7);
    let error = pool
        .map(0..8_u32, |item| {
            if item == 3 {
                fault::strike();
                segfault()
            }
        })
        .unwrap_err();
    fault::told(&error);
    assert_crash_by_signal(&error, Signal::SIGSEGV);
    assert_eq!(error.item(), Some(3));
    assert_serves(&pool);
});
