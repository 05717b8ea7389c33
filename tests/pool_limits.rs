//! Bounds that a job or a pool sets: time for each item, attempts, items ahead, memory and items of a worker.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::fault::{self, fault_row};
use common::meet::{Ear, Log, note, say};
use common::{
    LONG_LIMIT, assert_crash_by_signal, assert_serves, each_method, each_method_alone, pool,
};
use multiprocess::{Pool, TaskErrorKind, Value};
use nix::sys::signal::{Signal, kill};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::thread::{self, sleep};
use std::time::Duration;

const AGES: Duration = Duration::from_secs(600);
/// What an item of these tests may take, where that is limited: so long that those which are quick never need it. Its time is up
/// before it is a fault.
const ITEM_LIMIT: Duration = Duration::from_secs(2);

fault_row!(an_item_that_never_ends_is_a_timeout, |method| {
    let pool = pool(method, 2);
    let workers = pool.worker_pids();
    let log = Log::new();
    let mut results: Vec<_> = pool
        .with(log.path())
        .timeout(ITEM_LIMIT)
        .imap(0..8_u32, |log: &PathBuf, item| {
            note(log, item);
            if item == 3 {
                fault::strike_in(ITEM_LIMIT);
                sleep(AGES);
            }
            item * 10
        })
        .inspect(fault::watch)
        .collect();
    let error = results.remove(3).unwrap_err();
    let others: Vec<u32> = results.into_iter().map(Result::unwrap).collect();
    assert_eq!(others, [0, 10, 20, 40, 50, 60, 70]);
    assert_eq!(
        (error.kind(), error.item()),
        (TaskErrorKind::Timeout, Some(3))
    );
    assert!(error.is_timeout() && error.attempts() == 1);
    assert_eq!(log.notes(8), [1; 8], "every item runs exactly once");
    let status = error.exit_status().unwrap();
    assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{status}");
    let victim = error.pid().unwrap();
    let now = pool.worker_pids();
    assert!(
        workers.contains(&victim) && !now.contains(&victim),
        "its worker was replaced"
    );
    assert!(
        workers.iter().any(|worker| now.contains(worker)),
        "the other was not"
    );
    assert_serves(&pool);
});

each_method!(the_clock_of_an_item_starts_when_it_begins, |method| {
    // Eight items of 400 ms on one worker wait for each other longer than the limit of each.
    let pool = pool(method, 1);
    let job = pool.job().timeout(ITEM_LIMIT);
    let slow = |_: u32| sleep(Duration::from_millis(400));
    assert_eq!(job.map(0..8, slow).unwrap().len(), 8);
    assert!(job.map_async(0..8, slow).get().is_ok());
    assert_eq!(job.chunk_size(8).map(0..8, slow).unwrap().len(), 8);
});

each_method!(
    asynchronous_calls_are_watched_while_nobody_waits,
    |method| {
        let pool = pool(method, 2);
        let mut ear = Ear::new();
        let job = pool.job().timeout(ITEM_LIMIT);
        let stuck = job.apply_async(ear.path(), |ear| {
            say(&ear, std::process::id());
            sleep(AGES);
        });
        let victim = ear.hear_number();
        let map = job.map_async([0_u64, 600_000, 0], |millis| {
            sleep(Duration::from_millis(millis))
        });
        assert!(map.get().unwrap_err().is_timeout());
        let error = stuck.get().unwrap_err();
        assert!(error.is_timeout());
        assert_eq!((error.item(), error.pid()), (None, Some(victim)));
        assert_serves(&pool);
    }
);

fault_row!(every_item_may_time_out, |method| {
    const LIMIT: Duration = Duration::from_millis(500);
    let pool = pool(method, 2);
    let job = pool.job().timeout(LIMIT);
    let endless = |_| {
        fault::strike_in(LIMIT);
        sleep(AGES);
    };
    let results: Vec<_> = job.imap(0..20_u32, endless).inspect(fault::watch).collect();
    for (item, result) in results.into_iter().enumerate() {
        let error = result.unwrap_err();
        assert_eq!(
            (error.kind(), error.item()),
            (TaskErrorKind::Timeout, Some(item))
        );
    }
    assert_serves(&pool);
});

fault_row!(a_worker_that_is_stopped_in_an_item_times_out, |method| {
    let pool = pool(method, 2);
    let results: Vec<_> = pool
        .job()
        .timeout(ITEM_LIMIT)
        .imap(0..8_u32, |item| {
            if item == 3 {
                fault::strike_in(ITEM_LIMIT);
                kill(nix::unistd::Pid::this(), Signal::SIGSTOP).unwrap();
            }
            item
        })
        .inspect(fault::watch)
        .collect();
    assert!(results[3].as_ref().unwrap_err().is_timeout());
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 7);
    assert_serves(&pool);
});

fault_row!(
    crashes_and_timeouts_are_tried_again_and_panics_are_not,
    |method| {
        let pool = pool(method, 2);
        let log = Log::new();
        let job = pool.with(log.path()).retries(2);
        let results: Vec<_> = job
            .imap(0..3_u32, |log: &PathBuf, item| {
                note(log, item);
                if item < 2 {
                    fault::strike();
                }
                match item {
                    0 => std::process::abort(),
                    1 => panic!("not again"),
                    _ => item,
                }
            })
            .inspect(fault::watch)
            .collect();
        let timed_out = pool
            .with(log.path())
            .retries(2)
            .timeout(ITEM_LIMIT)
            .apply(3, |log: &PathBuf, item: u32| {
                note(log, item);
                fault::strike_in(ITEM_LIMIT);
                sleep(AGES);
            })
            .unwrap_err();
        fault::told(&timed_out);
        let (crash, panic) = (
            results[0].as_ref().unwrap_err(),
            results[1].as_ref().unwrap_err(),
        );
        assert_crash_by_signal(crash, Signal::SIGABRT);
        assert!(timed_out.is_timeout() && panic.is_panic());
        let attempts = [crash, panic, &timed_out].map(|error| error.attempts());
        assert_eq!(attempts, [3, 1, 3]);
        assert!(crash.to_string().contains("attempt 3"));
        assert_eq!(log.notes(4), [3, 1, 1, 3]);
        assert_serves(&pool);
    }
);

each_method!(
    an_item_that_succeeds_when_it_is_tried_again_is_a_success,
    |method| {
        let pool = pool(method, 2);
        let log = Log::new();
        let unreliable = |log: &PathBuf, item: u32| {
            note(log, item);
            let tried = std::fs::read_to_string(log).unwrap();
            let times = tried
                .lines()
                .filter(|line| *line == item.to_string())
                .count();
            if item % 3 == 0 && times < 3 {
                std::process::exit(1);
            }
            item
        };
        let job = pool.with(log.path()).retries(2);
        assert_eq!(
            job.map(0..10_u32, unreliable).unwrap(),
            (0..10).collect::<Vec<_>>()
        );
        assert_eq!(log.notes(10), [3, 1, 1, 3, 1, 1, 3, 1, 1, 3]);
        let log = Log::new();
        let job = pool.with(log.path()).retries(2);
        assert_eq!(job.apply_async(3, unreliable).get().unwrap(), 3);
        let log = Log::new();
        let job = pool.with(log.path()).retries(1).retry_panics();
        let error = job
            .apply(5, |log: &PathBuf, item: u32| {
                note(log, item);
                panic!("always")
            })
            .map(|(): ()| ())
            .unwrap_err();
        assert_eq!((error.attempts(), log.notes(6)[5]), (2, 2));
    }
);

each_method!(
    exactly_as_many_items_are_pulled_ahead_as_may_be_in_flight,
    |method| {
        let pool = pool(method, 2);
        for bound in [1, 2, 7, 100] {
            let pulled = Cell::new(0_usize);
            let input = (0_u64..).inspect(|_| pulled.set(pulled.get() + 1));
            let mut ordered = pool.job().in_flight(bound).imap(input, |number| number * 2);
            for taken in 0..50_usize {
                assert_eq!(ordered.next().unwrap().unwrap(), taken as u64 * 2);
                assert!(
                    pulled.get() <= taken + bound,
                    "{} pulled, {taken} taken",
                    pulled.get()
                );
                if taken == 0 {
                    assert_eq!(pulled.get(), bound);
                }
            }
            drop(ordered);
            let pulled = Cell::new(0_usize);
            let input = (0_u64..)
                .map(|n| n.to_string())
                .inspect(|_| pulled.set(pulled.get() + 1));
            let unordered = pool
                .job()
                .in_flight(bound)
                .imap_unordered(input, |text| text.len());
            for (taken, (_, result)) in unordered.take(50).enumerate() {
                result.unwrap();
                assert!(
                    pulled.get() <= taken + bound,
                    "{} pulled, {taken} taken",
                    pulled.get()
                );
            }
        }
        let doubled = pool.job().in_flight(3).map(0..1000_u64, |n| 2 * n).unwrap();
        assert!(doubled.into_iter().eq((0..1000).map(|n| 2 * n)));
        assert_serves(&pool);
    }
);

fault_row!(
    an_item_is_ended_in_time_though_nobody_asks_for_the_next_one,
    |method| {
        let pool = pool(method, 1);
        let workers = pool.worker_pids();
        let job = pool.job().timeout(ITEM_LIMIT).chunk_size(1);
        let mut results = job.imap([0_u64, 600, 0, 600], |seconds| {
            if seconds > 0 {
                fault::strike_in(ITEM_LIMIT);
            }
            sleep(Duration::from_secs(seconds))
        });
        assert_eq!(results.next().unwrap(), Ok(()));
        // The caller does something else; nobody leads. A worker that was waited for is known to the kernel no more.
        let is_there = |pid: u32| std::fs::exists(format!("/proc/{pid}")).unwrap();
        while is_there(workers[0]) {
            sleep(Duration::from_millis(5));
        }
        fault::answered("its worker is gone");
        let outcomes: Vec<_> = results
            .inspect(fault::watch)
            .map(|result| result.map_err(|error| error.is_timeout()))
            .collect();
        assert_eq!(outcomes, [Err(true), Ok(()), Err(true)]);
        assert_serves(&pool);
    }
);

each_method_alone!(large_items_do_not_pile_up, LONG_LIMIT, |method| {
    let pool = pool(method, 2);
    // What is done waits for its turn behind an item that takes longer, and is small.
    let done = Value::new(0_usize).unwrap();
    let input = (0..64_u8).map(|byte| vec![byte; 16 << 20]);
    let input = input.inspect(|bytes| {
        // 64 MiB of them, and one for each worker that has none.
        let (pulled, done) = (usize::from(bytes[0]), done.get());
        assert!(pulled < done + 4 + 2, "{pulled} pulled, {done} done");
    });
    let job = pool.with(done.clone()).in_flight(1000);
    let results = job.imap(input, |done, bytes| {
        sleep(Duration::from_millis(if bytes[0] == 0 { 500 } else { 5 }));
        done.fetch_add(1);
        bytes.len()
    });
    assert!(results.map(Result::unwrap).eq([16 << 20; 64]));
    assert_serves(&pool);
});

fault_row!(
    an_item_that_allocates_past_its_workers_memory_is_a_crash,
    |method| {
        let pool = Pool::builder()
            .workers(2)
            .start_method(method)
            .memory_limit(64 << 20)
            .build()
            .unwrap();
        let results: Vec<_> = pool
            .imap(0..8_usize, |item| {
                if item == 3 {
                    fault::strike();
                }
                let bytes = if item == 3 { 1 << 30 } else { 16 << 20 };
                vec![1_u8; bytes].len() / bytes
            })
            .inspect(fault::watch)
            .collect();
        let error = results[3].as_ref().unwrap_err();
        assert_crash_by_signal(error, Signal::SIGABRT);
        assert_eq!(results.iter().filter(|result| **result == Ok(1)).count(), 7);
        // An argument that does not fit is one as well.
        let error = pool
            .apply(vec![0_u8; 200 << 20], |bytes| bytes.len())
            .unwrap_err();
        assert!(error.is_crash(), "{error}");
        assert_serves(&pool);
    }
);

each_method!(
    a_worker_is_replaced_after_as_many_items_as_it_may_do,
    |method| {
        let pool = Pool::builder()
            .workers(2)
            .start_method(method)
            .max_tasks_per_worker(5)
            .build()
            .unwrap();
        let pids = pool.map(0..103_u32, |_| std::process::id()).unwrap();
        assert_eq!(pids.len(), 103);
        let workers: BTreeSet<u32> = pids.iter().copied().collect();
        for worker in &workers {
            let items = pids.iter().filter(|pid| *pid == worker).count();
            assert!(items <= 5, "{items} items of one worker");
        }
        let numbers = pool
            .job()
            .chunk_size(40)
            .map(0..200_u64, |n| n + 1)
            .unwrap();
        assert!(numbers.into_iter().eq(1..201));
        let calls: Vec<_> = (0..50_u64).map(|n| pool.apply_async(n, |n| n)).collect();
        assert!(calls.into_iter().map(|call| call.get().unwrap()).eq(0..50));
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let lazy = pool.imap(0..40_u64, |n| n * n).map(Result::unwrap);
                    assert!(lazy.eq((0..40).map(|n| n * n)));
                });
            }
        });
        assert_eq!(pool.worker_pids().len(), 2);
    }
);

/// What nobody takes meanwhile is in the rings, and its workers' marks tell of later items.
fn those_who_were_in_time_live(pool: &Pool, items: u8, bytes: usize) {
    let workers = pool.worker_pids();
    let job = pool.with(bytes).timeout(ITEM_LIMIT);
    let job = job.chunk_size(usize::from(items));
    let mut results = job.imap(0..items, |bytes: &usize, item| vec![item; *bytes]);
    let first = results.next().unwrap().unwrap();
    assert_eq!(first, vec![0; bytes]);
    sleep(3 * ITEM_LIMIT);
    for item in 1..items {
        let result = results.next().unwrap();
        assert_eq!(result.unwrap(), vec![item; bytes], "item {item}");
    }
    assert!(results.next().is_none());
    assert_eq!(pool.worker_pids(), workers, "no worker was killed");
}

each_method!(
    who_was_in_time_is_not_killed_for_who_did_not_look,
    |method| {
        those_who_were_in_time_live(&pool(method, 1), 4, 300 << 10);
    }
);

each_method!(
    who_waits_for_room_is_not_killed_for_who_did_not_look,
    |method| {
        those_who_were_in_time_live(&pool(method, 1), 4, 20 << 20);
    }
);

/// A worker at an item that never ends, of a job that nobody has any more.
fn left_behind(pool: &Pool) -> u32 {
    let mut ear = Ear::new();
    let job = pool.with(ear.path()).timeout(ITEM_LIMIT).chunk_size(2);
    let mut results = job.imap(0..2_u32, |ear: &PathBuf, item| {
        if item == 1 {
            say(ear, std::process::id());
            sleep(AGES);
        }
    });
    assert!(results.next().unwrap().is_ok());
    ear.hear_number()
}

each_method!(an_item_has_its_limit_though_its_job_was_dropped, |method| {
    let pool = pool(method, 1);
    let victim = left_behind(&pool);
    assert_serves(&pool);
    assert_ne!(pool.worker_pids(), [victim]);
    // Also if nobody wants anything meanwhile.
    let victim = left_behind(&pool);
    sleep(3 * ITEM_LIMIT);
    assert_ne!(pool.worker_pids(), [victim]);
    // Also if the next call has no limit itself.
    left_behind(&pool);
    assert!(pool.apply(1, |n: i32| n + 1).is_ok());
});

each_method!(an_item_has_its_limit_though_its_job_has_failed, |method| {
    let pool = pool(method, 1);
    let job = pool.job().timeout(ITEM_LIMIT).chunk_size(2);
    let failed = job.map(0..2_u32, |item| {
        if item == 0 {
            // Without a word, which takes its time where a trace is printed.
            std::panic::resume_unwind(Box::new("it fails"));
        }
        sleep(AGES);
    });
    assert!(failed.unwrap_err().is_panic());
    assert_serves(&pool);
});

each_method!(a_limit_is_kept_behind_items_that_have_none, |method| {
    let pool = pool(method, 1);
    let mut ear = Ear::new();
    let mut unlimited =
        pool.with(ear.path())
            .chunk_size(2)
            .imap(0..2_u32, |ear: &PathBuf, item| {
                if item == 1 {
                    say(ear, std::process::id());
                    sleep(Duration::from_millis(500));
                }
            });
    assert!(unlimited.next().unwrap().is_ok());
    ear.hear_number();
    drop(unlimited);
    let job = pool.job().timeout(ITEM_LIMIT).chunk_size(3);
    let endless = |_| sleep(AGES);
    assert!(job.map(0..3_u32, endless).unwrap_err().is_timeout());
    assert_serves(&pool);
});

each_method!(
    who_is_still_sent_its_item_is_not_killed_for_not_beginning,
    |method| {
        let pool = pool(method, 1);
        assert_serves(&pool);
        let workers = pool.worker_pids();
        let job = pool.job().timeout(Duration::from_secs(1)).chunk_size(1);
        // Nobody leads while the caller is elsewhere: a ring of it goes to the worker whenever the pool's thread looks.
        let items = (0..3_u8).map(|item| vec![item; 40 << 20]);
        let mut results = job.imap(items, |item: Vec<u8>| item[0]);
        assert_eq!(results.next().unwrap().unwrap(), 0);
        sleep(Duration::from_secs(6));
        let others: Vec<u8> = results.map(Result::unwrap).collect();
        assert_eq!(others, [1, 2]);
        assert_eq!(pool.worker_pids(), workers, "no worker was killed");
    }
);
