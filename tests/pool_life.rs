//! How a pool begins and ends: what its workers do first, and closing, joining, terminating and dropping it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::census::{process, wait_until_gone};
use common::fault::{self, fault_row};
use common::meet::{Ear, Gate, Log, note, pass, say};
use common::unsafely::{fork_child, wait_for};
use common::{assert_serves, each_method, each_method_alone, kill_hard, pool};
use multiprocess::{Pool, PoolBuilder, TaskErrorKind, worker_state};
use nix::sys::signal::{Signal, kill};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

const AGES: Duration = Duration::from_secs(600);

fn builder(method: multiprocess::StartMethod, workers: usize) -> PoolBuilder {
    Pool::builder().workers(workers).start_method(method)
}

/// Runs two items that wait for each other, so that each of two workers has one.
fn run_on_both(pool: &Pool) {
    let (mut ear, gate) = (Ear::new(), Gate::new());
    let calls = [(); 2].map(|()| {
        pool.apply_async(
            (ear.path(), gate.path()),
            |(ear, gate): (PathBuf, PathBuf)| {
                say(&ear, "here");
                pass(&gate);
            },
        )
    });
    assert_eq!([ear.hear(), ear.hear()], ["here", "here"]);
    gate.let_through(2);
    assert!(calls.into_iter().all(|call| call.get().is_ok()));
}

each_method!(
    an_initializer_runs_once_in_each_worker_before_its_first_item,
    |method| {
        struct State {
            factor: u64,
            uses: Cell<u64>,
        }
        let log = Log::new();
        let pool = builder(method, 2)
            .initializer((log.path(), 7_u64), |(log, factor): (PathBuf, u64)| {
                note(&log, 0);
                State {
                    factor,
                    uses: Cell::new(0),
                }
            })
            .build()
            .unwrap();
        let results = pool
            .job()
            .chunk_size(3)
            .map(0..100_u64, |number| {
                let state = worker_state::<State>().unwrap();
                assert!(worker_state::<u8>().is_none(), "it is of one type");
                state.uses.set(state.uses.get() + 1);
                (number * state.factor, std::process::id(), state.uses.get())
            })
            .unwrap();
        assert!(
            results
                .iter()
                .map(|result| result.0)
                .eq((0..100).map(|number| number * 7))
        );
        for pid in pool.worker_pids() {
            let mut uses: Vec<u64> = results
                .iter()
                .filter(|result| result.1 == pid)
                .map(|r| r.2)
                .collect();
            // What is taken back from one worker runs later in another.
            uses.sort_unstable();
            assert!(uses.iter().copied().eq(1..=uses.len() as u64), "{uses:?}");
        }
        run_on_both(&pool);
        assert_eq!(log.notes(1)[0], 2);
        // One that takes another's place begins anew.
        kill_hard(pool.worker_pids()[0]);
        assert_serves(&pool);
        run_on_both(&pool);
        assert_eq!(log.notes(1)[0], 3);
        assert!(worker_state::<State>().is_none(), "this is no worker");
    }
);

/// Whether what an initializer fails of is gone.
fn is_mended(log: &Path) -> bool {
    log.with_extension("mended").exists()
}

/// Takes away what an initializer fails of: the pool serves from then on.
fn mend(log: &Log, pool: &Pool) {
    std::fs::write(log.path().with_extension("mended"), "").unwrap();
    // A worker that failed before, or is about to, may be told of yet. When both have served, none is left.
    let mut served = BTreeSet::new();
    while served.len() < pool.workers() {
        let pids = pool.job().chunk_size(1).map(0..8_u32, |_| {
            sleep(Duration::from_millis(1));
            std::process::id()
        });
        served.extend(pids.into_iter().flatten());
    }
    assert_serves(pool);
}

fault_row!(
    an_initializer_that_panics_is_an_error_of_the_next_call,
    |method| {
        let log = Log::new();
        let pool = builder(method, 2)
            .initializer(log.path(), |log: PathBuf| {
                note(&log, 0);
                if !is_mended(&log) {
                    fault::strike();
                    panic!("no licence");
                }
            })
            .build()
            .unwrap();
        for round in 1..4 {
            let error = pool.map(0..100_u32, |n| n).unwrap_err();
            fault::told(&error);
            assert_eq!(error.panic_message(), Some("no licence"));
            assert!(error.to_string().contains("initializer"), "{error}");
            let error = pool.apply_async((), |()| 1_u8).get().unwrap_err();
            assert_eq!(error.panic_message(), Some("no licence"));
            // At most every worker tries once for each call.
            assert!(
                log.notes(1)[0] <= 4 * round + 2,
                "{} in round {round}",
                log.notes(1)[0]
            );
        }
        let mut results = pool.imap(0..100_u32, |n| n);
        assert!(results.next().unwrap().is_err() && results.next().is_none());
        drop(results);
        mend(&log, &pool);
    }
);

fault_row!(
    an_initializer_that_kills_its_worker_is_an_error_of_the_next_call,
    |method| {
        let log = Log::new();
        let pool = builder(method, 2)
            .initializer(log.path(), |log: PathBuf| {
                note(&log, 0);
                if !is_mended(&log) {
                    fault::strike();
                    std::process::exit(9);
                }
            })
            .build()
            .unwrap();
        for _ in 0..3 {
            let error = pool.map(0..100_u32, |n| n).unwrap_err();
            fault::told(&error);
            assert_eq!(error.kind(), TaskErrorKind::Crash, "{error}");
            assert_eq!(error.exit_status().unwrap().code(), Some(9));
            assert!(error.to_string().contains("initializer"), "{error}");
        }
        assert!(
            log.notes(1)[0] < 40,
            "{} starts for three calls",
            log.notes(1)[0]
        );
        mend(&log, &pool);
    }
);

each_method!(an_initializer_whose_arguments_fail_says_so, |method| {
    #[derive(serde::Deserialize)]
    struct Unwritable;
    impl serde::Serialize for Unwritable {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("not this one"))
        }
    }
    let error = builder(method, 1)
        .initializer(Unwritable, |_| ())
        .build()
        .unwrap_err();
    assert!(error.to_string().contains("not this one"), "{error}");
});

each_method_alone!(
    a_closed_pool_takes_no_more_calls_and_ends_those_it_has,
    |method| {
        let pool = pool(method, 2);
        let gate = Gate::new();
        let calls: Vec<_> = (0..6_u32)
            .map(|item| {
                pool.apply_async((gate.path(), item), |(gate, item): (PathBuf, u32)| {
                    pass(&gate);
                    item
                })
            })
            .collect();
        pool.close();
        pool.close();
        assert!(
            pool.apply((), |()| ())
                .unwrap_err()
                .to_string()
                .contains("closed")
        );
        assert!(pool.apply_async((), |()| ()).get().is_err());
        gate.let_through(6);
        pool.join().unwrap();
        for (item, call) in (0..).zip(calls) {
            assert!(call.is_ready());
            assert_eq!(call.get().unwrap(), item);
        }
    }
);

each_method_alone!(joining_lets_workers_end_by_themselves, |method| {
    struct Farewell(PathBuf);
    impl Drop for Farewell {
        fn drop(&mut self) {
            say(&self.0, "farewell");
        }
    }
    let mut ear = Ear::new();
    let pool = builder(method, 2)
        .initializer(ear.path(), |ear| RefCell::new(Farewell(ear)))
        .build()
        .unwrap();
    assert_serves(&pool);
    // Both have been initialized when both have run an item.
    let gate = Gate::new();
    let calls: Vec<_> = (0..2)
        .map(|_| pool.apply_async(gate.path(), |gate| pass(&gate)))
        .collect();
    gate.let_through(2);
    pool.join().unwrap();
    assert_eq!([ear.hear(), ear.hear()], ["farewell", "farewell"]);
    assert!(calls.into_iter().all(|call| call.get().is_ok()));
});

each_method_alone!(
    terminating_kills_what_runs_and_cancels_what_waits,
    |method| {
        let pool = pool(method, 2);
        let mut ear = Ear::new();
        let workers: Vec<_> = pool
            .worker_pids()
            .into_iter()
            .map(|pid| process(pid).unwrap())
            .collect();
        let running = pool.apply_async(ear.path(), |ear| {
            say(&ear, "begun");
            sleep(AGES);
        });
        let map = pool.map_async(0..100_u32, |_| sleep(AGES));
        let waiting: Vec<_> = (0..10_u8)
            .map(|n| pool.apply_async(n, |_| sleep(AGES)))
            .collect();
        assert_eq!(ear.hear(), "begun");
        pool.terminate().unwrap();
        workers.iter().for_each(wait_until_gone);
        assert!(running.get().unwrap_err().is_cancelled());
        assert!(map.get().unwrap_err().is_cancelled());
        for call in waiting {
            assert!(call.is_ready());
            call.cancel();
            assert!(call.get().unwrap_err().is_cancelled());
        }
    }
);

each_method_alone!(dropping_a_pool_terminates_it, |method| {
    let endless = {
        let pool = pool(method, 1);
        pool.apply_async((), |()| sleep(AGES))
    };
    assert!(endless.get().unwrap_err().is_cancelled());
});

each_method!(
    a_pool_in_a_worker_of_a_pool_makes_asynchronous_calls,
    |method| {
        let outer = pool(method, 2);
        let by_spawn = method == multiprocess::StartMethod::Spawn;
        let sums = outer
            .with(by_spawn)
            .map(0..4_u64, |by_spawn, number| {
                let method = if *by_spawn {
                    multiprocess::StartMethod::Spawn
                } else {
                    multiprocess::StartMethod::ForkServer
                };
                let inner = pool(method, 1);
                let calls: Vec<_> = (0..10_u64)
                    .map(|n| inner.apply_async(n, |n| n + 1))
                    .collect();
                let limited = inner.job().timeout(Duration::from_millis(20));
                assert!(
                    limited
                        .apply((), |()| sleep(AGES))
                        .unwrap_err()
                        .is_timeout()
                );
                number
                    + calls
                        .into_iter()
                        .map(|call| call.get().unwrap())
                        .sum::<u64>()
            })
            .unwrap();
        assert_eq!(sums, [55, 56, 57, 58]);
    }
);

/// Notes, when it is dropped, that it was.
struct Noted(PathBuf);

impl Drop for Noted {
    fn drop(&mut self) {
        note(&self.0, 0);
    }
}

each_method_alone!(
    joining_ends_the_workers_though_a_forked_copy_of_the_program_lives,
    |method| {
        let log = Log::new();
        let pool = builder(method, 2)
            .initializer(log.path(), Noted)
            .build()
            .unwrap();
        run_on_both(&pool);
        let copy = fork_child(|| sleep(AGES));
        pool.close();
        pool.join().unwrap();
        assert_eq!(log.notes(1), [2], "each has dropped what it had");
        kill(copy, Signal::SIGKILL).unwrap();
        wait_for(copy);
    }
);
