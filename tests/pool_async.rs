//! Calls that go on while their caller does something else: waited for, asked for, awaited, cancelled, called back.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::census;
use common::fault::{self, fault_row};
use common::meet::{Ear, Gate, Log, note, pass, say};
use common::unsafely::in_fork;
use common::{
    LIMIT, LONG_LIMIT, assert_crash_by_signal, assert_serves, each_method, each_method_alone,
    kill_hard, polls_readable, pool,
};
use multiprocess::{AsyncResult, Event, TaskError, TaskErrorKind};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// A limit that no sound call reaches.
const SOON: Duration = Duration::from_secs(30);

each_method!(calls_under_way_are_answered_each_with_its_own, |method| {
    let pool = pool(method, 2);
    let numbers: Vec<_> = (0..1000_u64)
        .map(|number| pool.apply_async(number, |number| number * 3))
        .collect();
    let texts: Vec<_> = (0..1000)
        .map(|number| pool.apply_async(format!("{number}"), |text: String| text + "!"))
        .collect();
    for (number, call) in (0..).zip(numbers) {
        assert_eq!(call.get().unwrap(), number * 3);
    }
    for (number, call) in texts.into_iter().enumerate() {
        assert_eq!(call.get().unwrap(), format!("{number}!"));
    }
    assert_serves(&pool);
});

each_method!(a_map_under_way_keeps_the_order_of_its_input, |method| {
    let pool = pool(method, 2);
    let squares = pool.map_async(0..100_000_u64, |number| number * number);
    let lengths = pool.map_async((0..5000).map(|n: u32| n.to_string()), |text| text.len());
    let nothing = pool.map_async(Vec::<u32>::new(), |number| number);
    let large = pool.map_async((0..4_u8).map(|byte| vec![byte; 1 << 20]), |bytes| bytes);
    assert!(nothing.get().unwrap().is_empty());
    let lengths = lengths.get().unwrap();
    assert_eq!((lengths.len(), lengths[9], lengths[10]), (5000, 1, 2));
    assert!(
        squares
            .get()
            .unwrap()
            .into_iter()
            .eq((0..100_000).map(|n| n * n))
    );
    let large = large.get().unwrap();
    assert!((0..4_u8).all(|byte| large[usize::from(byte)] == vec![byte; 1 << 20]));
    assert_serves(&pool);
});

each_method!(a_failure_is_told_by_the_result_alone, |method| {
    let pool = pool(method, 2);
    let calls: Vec<_> = (0..50_u32)
        .map(|number| {
            pool.apply_async(number, |number| {
                match number % 5 {
                    2 => panic!("no {number}"),
                    3 => std::process::abort(),
                    _ => {}
                }
                number
            })
        })
        .collect();
    for (number, call) in (0..50).zip(calls) {
        match number % 5 {
            2 => {
                let error = call.get().unwrap_err();
                assert_eq!(error.panic_message(), Some(&*format!("no {number}")));
                assert_eq!((error.item(), error.attempts()), (None, 1));
            }
            3 => assert_crash_by_signal(&call.get().unwrap_err(), Signal::SIGABRT),
            _ => assert_eq!(call.get().unwrap(), number),
        }
    }
    let map = pool.map_async(0..8_u32, |number| {
        assert_ne!(number, 3);
        number
    });
    let error = map.get().unwrap_err();
    assert!(error.is_panic() && error.item() == Some(3));
    assert_serves(&pool);
});

each_method!(a_call_that_cannot_be_made_says_so_by_its_result, |method| {
    #[derive(serde::Deserialize)]
    struct Unwritable;
    impl serde::Serialize for Unwritable {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("not this one"))
        }
    }
    let pool = pool(method, 1);
    let error = pool.apply_async(Unwritable, |_| ()).get().unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::ArgumentEncoding);
    let error = pool.map_async([Unwritable], |_| ()).get().unwrap_err();
    assert_eq!(
        (error.kind(), error.item()),
        (TaskErrorKind::ArgumentEncoding, Some(0))
    );
    let error = pool
        .apply_async((), |()| Unwritable)
        .get()
        .map(|_| ())
        .unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::ResultEncoding);
    pool.close();
    assert_eq!(
        pool.apply_async(1, |n: u8| n).get().unwrap_err().kind(),
        TaskErrorKind::System
    );
    assert!(
        pool.map(0..3_u8, |n| n).is_err() && pool.imap(0..3_u8, |n| n).next().unwrap().is_err()
    );
});

each_method!(a_result_is_asked_for_without_waiting_for_it, |method| {
    let pool = pool(method, 1);
    let gate = Gate::new();
    let mut call = pool.apply_async(gate.path(), |gate| {
        pass(&gate);
        7
    });
    assert!(!call.is_ready());
    assert!(call.get_timeout(Duration::from_millis(20)).is_none());
    gate.let_through(1);
    assert_eq!(call.get_timeout(SOON).unwrap().unwrap(), 7);
    assert!(call.is_ready());
    let again = call.get_timeout(Duration::ZERO).unwrap().unwrap_err();
    assert!(again.to_string().contains("taken"), "{again}");
    assert!(call.get().is_err());
});

each_method!(a_result_is_awaited_under_tokio_and_by_block_on, |method| {
    let pool = pool(method, 2);
    let runtime = common::program::tokio();
    let sum = runtime.block_on(async {
        let calls: Vec<_> = (0..100_u64)
            .map(|n| pool.apply_async(n, |n| n + 1))
            .collect();
        let slow = pool.apply_async((), |()| thread::sleep(Duration::from_millis(50)));
        let mut sum = 0;
        for call in calls {
            sum += call.await.unwrap();
        }
        slow.await.unwrap();
        sum
    });
    assert_eq!(sum, 5050);
    let error = runtime.block_on(async {
        let endless = pool.apply_async((), |()| thread::sleep(Duration::from_secs(600)));
        tokio::time::sleep(Duration::from_millis(5)).await;
        endless.cancel();
        endless.await.unwrap_err()
    });
    assert!(error.is_cancelled());
    let both = futures::executor::block_on(async {
        let one = pool.apply_async(1, |n: u8| n);
        let map = pool.map_async([1_u8, 2], |n| n + 1);
        (one.await, map.await)
    });
    assert_eq!(both, (Ok(1), Ok(vec![2, 3])));
    assert_serves(&pool);
});

each_method_alone!(
    a_result_has_a_descriptor_that_is_readable_when_it_is_done,
    |method| {
        let readable = |call: &AsyncResult<u8>, millis: u64| {
            polls_readable(call, Duration::from_millis(millis))
        };
        let pool = pool(method, 1);
        let gate = Gate::new();
        let call = pool.apply_async(gate.path(), |gate| {
            pass(&gate);
            1
        });
        assert!(!readable(&call, 10));
        gate.let_through(1);
        assert!(readable(&call, 30_000) && readable(&call, 0));
        assert_eq!(call.get().unwrap(), 1);
        let call = pool.apply_async(2, |n: u8| n);
        while !call.is_ready() {
            thread::yield_now();
        }
        assert!(readable(&call, 0), "made when it was done already");
        assert_eq!(call.get().unwrap(), 2);
    }
);

fault_row!(
    a_call_that_runs_is_cancelled_by_the_end_of_its_worker,
    |method| {
        let pool = pool(method, 2);
        let mut ear = Ear::new();
        let gate = Gate::new();
        let endless = pool.apply_async(ear.path(), |ear| {
            say(&ear, std::process::id());
            thread::sleep(Duration::from_secs(600));
        });
        let victim = ear.hear_number();
        let other = pool.apply_async(gate.path(), |gate| {
            pass(&gate);
            std::process::id()
        });
        fault::strike_at(victim);
        endless.cancel();
        let error = endless.get().unwrap_err();
        fault::told(&error);
        assert_eq!(error.kind(), TaskErrorKind::Cancelled);
        assert!(
            !pool.worker_pids().contains(&victim),
            "its worker was replaced"
        );
        gate.let_through(1);
        let untouched = other.get().unwrap();
        assert_ne!(untouched, victim);
        assert!(
            pool.worker_pids().contains(&untouched),
            "no other worker was"
        );
        assert_serves(&pool);
    }
);

each_method!(calls_that_wait_are_cancelled_and_never_run, |method| {
    let pool = pool(method, 2);
    let (gate, log) = (Gate::new(), Log::new());
    let blockers: Vec<_> = (0..2)
        .map(|_| pool.apply_async(gate.path(), |gate| pass(&gate)))
        .collect();
    let calls: Vec<_> = (0..200_u32)
        .map(|item| {
            pool.apply_async((log.path(), item), |(log, item): (PathBuf, u32)| {
                note(&log, item);
                item
            })
        })
        .collect();
    for call in calls.iter().skip(1).step_by(2) {
        call.cancel();
        call.cancel();
    }
    gate.let_through(2);
    for blocker in blockers {
        blocker.get().unwrap();
    }
    for (item, call) in (0..).zip(calls) {
        match call.get() {
            Ok(number) => assert_eq!((number, item % 2), (item, 0)),
            Err(error) => assert!(error.is_cancelled() && item % 2 == 1, "{item}: {error}"),
        }
    }
    let expected: Vec<usize> = (0..200).map(|item| usize::from(item % 2 == 0)).collect();
    assert_eq!(log.notes(200), expected);
    assert_serves(&pool);
});

each_method!(
    cancelling_a_map_stops_what_runs_and_drops_the_rest,
    |method| {
        let pool = pool(method, 2);
        let mut ear = Ear::new();
        let workers = pool.worker_pids();
        let map = pool
            .with(ear.path())
            .map_async(0..100_u32, |ear: &PathBuf, item| {
                say(ear, item);
                thread::sleep(Duration::from_secs(600));
            });
        let begun: BTreeSet<u32> = (0..2).map(|_| ear.hear_number()).collect();
        assert_eq!(begun.len(), 2);
        map.cancel();
        assert!(map.get().unwrap_err().is_cancelled());
        assert_serves(&pool);
        let now = pool.worker_pids();
        assert!(
            workers.iter().all(|worker| !now.contains(worker)),
            "both were replaced"
        );
        // Nothing of it ran later.
        say(&ear.path(), "end");
        assert_eq!(ear.hear(), "end");
    }
);

each_method!(cancelling_what_is_done_changes_nothing, |method| {
    let pool = pool(method, 1);
    let call = pool.apply_async(5, |n: u8| n);
    while !call.is_ready() {
        thread::yield_now();
    }
    call.cancel();
    assert_eq!(call.get().unwrap(), 5);
});

each_method!(
    a_callback_runs_once_for_each_call_before_its_result_is_visible,
    |method| {
        let pool = pool(method, 2);
        let here = std::process::id();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let job = pool.job().on_done(move |result: &Result<u32, _>| {
            assert_eq!(std::process::id(), here);
            kept.lock().unwrap().push(result.clone().ok());
        });
        let calls: Vec<_> = (0..100_u32)
            .map(|number| {
                job.apply_async(
                    number,
                    |number| if number == 50 { panic!() } else { number },
                )
            })
            .collect();
        for (number, call) in (0..).zip(calls) {
            let result = call.get().ok();
            assert!(
                seen.lock().unwrap().contains(&result),
                "{number} is visible before its callback ran"
            );
        }
        assert_eq!(job.apply(7, |number: u32| number + 1000).unwrap(), 1007);
        let mut seen = std::mem::take(&mut *seen.lock().unwrap());
        seen.sort();
        let mut expected: Vec<Option<u32>> = (0..100).filter(|&n| n != 50).map(Some).collect();
        expected.extend([None, Some(1007)]);
        expected.sort();
        assert_eq!(seen, expected);

        let total = Arc::new(AtomicUsize::new(0));
        let sum = Arc::clone(&total);
        let job = pool.job().on_done(move |results: &Result<Vec<usize>, _>| {
            sum.fetch_add(
                results.as_ref().map_or(0, |all| all.iter().sum()),
                Ordering::SeqCst,
            );
        });
        assert_eq!(job.map_async(0..10_usize, |n| n).get().unwrap().len(), 10);
        assert_eq!(job.map(0..3_usize, |n| n).unwrap(), [0, 1, 2]);
        assert_eq!(total.load(Ordering::SeqCst), 48);
    }
);

each_method!(
    callbacks_that_each_wait_for_a_call_are_nested_to_a_bound,
    |method| {
        thread_local! {
            static DEPTH: Cell<usize> = const { Cell::new(0) };
        }
        let pool = Arc::new(pool(method, 1));
        let (used, deepest) = (Arc::clone(&pool), Arc::new(AtomicUsize::new(0)));
        let seen = Arc::clone(&deepest);
        let job = pool.job().on_done(move |result: &Result<u32, TaskError>| {
            DEPTH.set(DEPTH.get() + 1);
            seen.fetch_max(DEPTH.get(), Ordering::Relaxed);
            let number = *result.as_ref().unwrap();
            // Its own call has no callback, and can be completed at any depth.
            assert_eq!(
                used.apply_async(number, |n: u32| n + 1).get(),
                Ok(number + 1)
            );
            DEPTH.set(DEPTH.get() - 1);
        });
        let calls: Vec<_> = (0..5000_u32).map(|n| job.apply_async(n, |n| n)).collect();
        for (number, call) in (0..).zip(calls) {
            assert_eq!(call.get(), Ok(number));
        }
        let deepest = deepest.load(Ordering::Relaxed);
        println!("callbacks were nested {deepest} deep");
        assert!((1..=17).contains(&deepest), "{deepest}");
    }
);

each_method!(
    a_callback_that_is_waited_for_is_run_at_any_depth,
    |method| {
        // The callback of each call waits for the call made after it, so that forty of them are one in the other; those of
        // others in between wait till there is room.
        const CALLS: usize = 40;
        let pool = pool(method, 1);
        let gate = Event::new().unwrap();
        let first = pool
            .with(gate.clone())
            .apply_async((), |gate, ()| gate.wait());
        let calls: Arc<Mutex<BTreeMap<usize, AsyncResult<usize>>>> = Arc::default();
        let mut others = Vec::new();
        for number in 0..CALLS {
            let later = Arc::clone(&calls);
            let job = pool.job().on_done(move |_: &Result<usize, TaskError>| {
                let next = later.lock().unwrap().remove(&(number + 1));
                assert!(next.is_none_or(|next| next.get() == Ok(number + 1)));
            });
            let call = job.apply_async(number, |n: usize| n);
            calls.lock().unwrap().insert(number, call);
            let other = pool.job().on_done(|_: &Result<usize, TaskError>| ());
            others.push(other.apply_async(number, |n: usize| n));
        }
        let outermost = calls.lock().unwrap().remove(&0).unwrap();
        gate.set();
        first.get().unwrap();
        assert_eq!(outermost.get(), Ok(0));
        for (number, other) in others.into_iter().enumerate() {
            assert_eq!(other.get(), Ok(number));
        }
        assert!(calls.lock().unwrap().is_empty());
    }
);

each_method!(callbacks_may_panic_make_calls_and_drop_the_pool, |method| {
    let pool = Arc::new(pool(method, 2));
    let (sender, results) = mpsc::channel();
    let panics = pool
        .job()
        .on_done(|_: &Result<(), _>| panic!("in a callback"));
    assert!(panics.apply_async((), |()| ()).get().is_ok());
    let caller = Arc::clone(&pool);
    let again = sender.clone();
    let calls = pool.job().on_done(move |result: &Result<u32, _>| {
        let next = caller.apply_async(*result.as_ref().unwrap(), |n| n + 1);
        again.send(next).unwrap();
    });
    assert_eq!(calls.apply_async(1, |n: u32| n).get().unwrap(), 1);
    assert_eq!(results.recv().unwrap().get().unwrap(), 2);
    drop(calls);

    let last = Mutex::new(Some(Arc::clone(&pool)));
    let cancelled = pool.job().on_done(|result: &Result<(), _>| {
        assert!(result.as_ref().unwrap_err().is_cancelled());
    });
    let endless = cancelled.apply_async((), |()| thread::sleep(Duration::from_secs(600)));
    let dropping = pool
        .job()
        .on_done(move |_: &Result<(), _>| drop(last.lock().unwrap().take()));
    let gate = Gate::new();
    let call = dropping.apply_async(gate.path(), |gate| pass(&gate));
    drop((cancelled, panics, dropping));
    drop(pool);
    gate.let_through(1);
    call.get().unwrap();
    assert!(endless.get().unwrap_err().is_cancelled());
});

fault_row!(
    ten_thousand_calls_under_way_take_few_descriptors,
    LONG_LIMIT,
    |method| {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
        let pool = pool(method, 2);
        let gate = Gate::new();
        let blockers: Vec<_> = (0..2)
            .map(|_| pool.apply_async(gate.path(), |gate| pass(&gate)))
            .collect();
        let calls: Vec<_> = (0..10_000_u64)
            .map(|n| pool.apply_async(n, |n| n + 1))
            .collect();
        let apart: Vec<_> = (0..1000_u64)
            .map(|n| pool.with(n).apply_async(n, |captured, n| captured + n))
            .collect();
        fault::strike();
        gate.let_through(2);
        for (number, call) in (0..).zip(calls) {
            assert_eq!(call.get().unwrap(), number + 1);
        }
        for (number, call) in (0..).zip(apart) {
            assert_eq!(call.get().unwrap(), 2 * number);
        }
        fault::answered("11,000 results");
        drop(blockers);
        assert_serves(&pool);
    }
);

fn resident_kib() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

each_method_alone!(
    a_hundred_thousand_calls_under_way_take_bounded_memory,
    LONG_LIMIT,
    |method| {
        let pool = pool(method, 2);
        let gate = Gate::new();
        let blockers: Vec<_> = (0..2)
            .map(|_| pool.apply_async(gate.path(), |gate| pass(&gate)))
            .collect();
        let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
        let (before, memory) = (descriptors(), resident_kib());
        let calls: Vec<_> = (0..100_000_u64)
            .map(|n| pool.apply_async(n, |n| n + 1))
            .collect();
        let now = descriptors();
        println!("descriptors = {before} before 100,000 calls, {now} with them under way");
        assert_eq!(now, before);
        let grown = resident_kib().saturating_sub(memory);
        println!(
            "memory = {} bytes for each of 100,000 calls",
            grown * 1024 / 100_000
        );
        assert!(grown < 256 * 1024, "{grown} KiB");
        gate.let_through(2);
        let start = Instant::now();
        for (number, call) in (0..).zip(calls) {
            assert_eq!(call.get().unwrap(), number + 1);
        }
        println!("answered = {:?}", start.elapsed());
        drop(blockers);
    }
);

fault_row!(
    workers_that_die_while_calls_are_under_way_cost_one_call_each,
    |method| {
        let pool = pool(method, 2);
        let mut ear = Ear::new();
        let calls: Vec<_> = (0..40_u32)
            .map(|item| {
                pool.apply_async((ear.path(), item), |(ear, item): (PathBuf, u32)| {
                    if item % 10 == 0 {
                        say(&ear, std::process::id());
                        thread::sleep(Duration::from_secs(600));
                    }
                    item
                })
            })
            .collect();
        for _ in 0..4 {
            let victim = ear.hear_number();
            fault::strike_at(victim);
            kill_hard(victim);
        }
        for (item, call) in (0..).zip(calls) {
            match call.get() {
                Ok(number) => assert_eq!(number, item),
                Err(error) => {
                    fault::told(&error);
                    assert_eq!(item % 10, 0);
                    assert_crash_by_signal(&error, Signal::SIGKILL);
                }
            }
        }
        assert_serves(&pool);
    }
);

each_method!(
    threads_that_wait_and_calls_under_way_share_a_pool,
    |method| {
        let pool = pool(method, 2);
        thread::scope(|scope| {
            for thread in 0..3_u64 {
                let pool = &pool;
                scope.spawn(move || {
                    for round in 0..100 {
                        let call = pool.apply_async((thread, round), |(a, b)| a * b);
                        let map = pool.map_async(0..round, |n: u64| n);
                        assert_eq!(pool.apply(round, |n: u64| n + 1).unwrap(), round + 1);
                        assert_eq!(call.get().unwrap(), thread * round);
                        assert_eq!(map.get().unwrap().len() as u64, round);
                    }
                });
                scope.spawn(move || {
                    for round in 0..50 {
                        assert_eq!(pool.map(0..100_u64, |n| n).unwrap().len(), 100);
                        let lazy = pool.imap(0..round, |n: u64| n).map(Result::unwrap);
                        assert!(lazy.eq(0..round));
                    }
                });
            }
        });
        assert_serves(&pool);
    }
);

each_method_alone!(
    a_thread_is_started_by_the_first_asynchronous_call_and_ends_with_the_pool,
    |method| {
        let threads = || fs::read_dir("/proc/self/task").unwrap().count();
        let before = threads();
        let pool = pool(method, 2);
        assert_serves(&pool);
        assert_eq!(threads(), before, "calls that wait start none");
        assert_eq!(pool.apply_async(1, |n: u8| n).get().unwrap(), 1);
        assert_eq!(pool.apply_async(2, |n: u8| n).get().unwrap(), 2);
        assert_eq!(threads(), before + 1);
        let names: Vec<String> = fs::read_dir("/proc/self/task")
            .unwrap()
            .map(|task| task.unwrap().path())
            .filter(|task| fs::read_to_string(task.join("comm")).unwrap().trim() == "pool")
            .map(|task| fs::read_to_string(task.join("status")).unwrap())
            .collect();
        let blocked = names[0]
            .lines()
            .find(|line| line.starts_with("SigBlk:"))
            .unwrap();
        let mask = u64::from_str_radix(blocked.split_whitespace().nth(1).unwrap(), 16).unwrap();
        assert_ne!(
            mask & 1 << (Signal::SIGUSR1 as u32 - 1),
            0,
            "it takes no signals"
        );
        drop(pool);
        // A thread that has been joined is there until the kernel has put it away.
        let after = census::poll(LIMIT, threads, |now| *now == before);
        assert_eq!(after, before);
    }
);

each_method_alone!(
    a_fork_of_the_application_has_no_part_in_its_calls,
    |method| {
        let pool = pool(method, 1);
        let gate = Gate::new();
        let call = pool.apply_async(gate.path(), |gate| {
            pass(&gate);
            3
        });
        let forked = in_fork(|| {
            let mut pool_call = pool.apply_async(1, |n: u8| n);
            assert!(pool_call.get_timeout(SOON).unwrap().is_err());
            call.cancel();
            assert!(!call.is_ready());
        });
        assert_eq!(forked, 0);
        gate.let_through(1);
        assert_eq!(call.get().unwrap(), 3);
        assert_serves(&pool);
    }
);
