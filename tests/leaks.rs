//! After very many calls, a process holds what it held before: descriptors, threads, children, mappings.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::census::{Census, IDLE, poll, process};
use common::{LIMIT, LONG_LIMIT, assert_serves, every_method_alone, kill_hard};
use multiprocess::{Pool, Process, StartMethod};
use std::fs;

/// Mappings that may come and go without being leaks: the allocator keeps and splits arenas, and a thread that is gone
/// may leave its stack in a cache. A mapping leaked with every call, pool or process would be hundreds.
const MAPPINGS_TOLERANCE: usize = 12;

fn mappings() -> usize {
    fs::read_to_string("/proc/self/maps")
        .unwrap()
        .lines()
        .count()
}

/// Makes a pool of two workers that are there.
fn pool(method: StartMethod) -> Pool {
    let pool = common::pool(method, 2);
    assert_manned(&pool);
    pool
}

/// Waits until each worker is alive and at work: one that is on its way yet, or was forked ahead of need and has not heard what
/// it is to be, is in no count.
fn assert_manned(pool: &Pool) {
    let is_at_work = |pid| process(pid).is_some_and(|one| one.lives() && one.command != IDLE);
    let is_manned = || pool.worker_pids().into_iter().all(is_at_work);
    assert!(poll(LIMIT, is_manned, |manned| *manned));
}

/// Runs `rounds` after a first few, and compares.
fn assert_steady(warm_up: usize, rounds: usize, round: impl Fn()) {
    (0..warm_up).for_each(|_| round());
    let (before, mappings_before) = (Census::now(), mappings());
    (0..rounds).for_each(|_| round());
    before.assert_nothing_added();
    let mappings_after = mappings();
    assert!(
        mappings_after <= mappings_before + MAPPINGS_TOLERANCE,
        "mappings: {mappings_before} before, {mappings_after} after"
    );
}

every_method_alone!(ten_thousand_maps_leave_nothing, LONG_LIMIT, |method| {
    let pool = pool(method);
    assert_steady(100, 10_000, || {
        assert_eq!(
            pool.map(0..4_u32, |number| number + 1).unwrap(),
            [1, 2, 3, 4]
        )
    });
});

every_method_alone!(
    ten_thousand_applies_with_captures_leave_nothing,
    LONG_LIMIT,
    |method| {
        let pool = pool(method);
        assert_steady(100, 10_000, || {
            assert_eq!(
                pool.with("a".to_owned())
                    .apply(2, |text, times: usize| text.repeat(times))
                    .unwrap(),
                "aa"
            );
        });
    }
);

every_method_alone!(two_hundred_pools_leave_nothing, LONG_LIMIT, |method| {
    assert_steady(3, 200, || {
        let pool = pool(method);
        assert_eq!(
            pool.map(0..4_u32, |number| number + 1).unwrap(),
            [1, 2, 3, 4]
        );
    });
});

every_method_alone!(
    three_hundred_processes_leave_nothing,
    LONG_LIMIT,
    |method| {
        assert_steady(3, 300, || {
            let process = Process::builder()
                .start_method(method)
                .spawn(vec![1_u8; 100_000], |bytes| bytes)
                .unwrap();
            assert_eq!(process.join().unwrap().len(), 100_000);
        });
    }
);

every_method_alone!(
    two_hundred_detached_processes_leave_nothing,
    LONG_LIMIT,
    |method| {
        assert_steady(3, 200, || {
            drop(
                Process::builder()
                    .start_method(method)
                    .spawn((), |()| ())
                    .unwrap(),
            )
        });
    }
);

every_method_alone!(three_hundred_crashes_leave_nothing, LONG_LIMIT, |method| {
    let pool = pool(method);
    assert_steady(10, 300, || {
        assert!(
            pool.apply((), |()| kill_hard(std::process::id()))
                .unwrap_err()
                .is_crash()
        );
        assert_manned(&pool);
    });
    assert_serves(&pool);
});

every_method_alone!(
    a_thousand_dropped_imaps_leave_nothing,
    LONG_LIMIT,
    |method| {
        let pool = pool(method);
        assert_steady(10, 1000, || {
            let mut results = pool.imap(0..100_u32, |number| vec![number; 100]);
            assert_eq!(results.next().unwrap().unwrap(), [0; 100]);
        });
        assert_serves(&pool);
    }
);

every_method_alone!(a_thousand_panics_leave_nothing, LONG_LIMIT, |method| {
    let pool = pool(method);
    assert_steady(10, 1000, || {
        assert!(
            pool.apply((), |()| panic!("again"))
                .map(|(): ()| ())
                .unwrap_err()
                .is_panic()
        )
    });
});
