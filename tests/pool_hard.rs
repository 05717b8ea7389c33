//! Hard cases of calls under way and of lazy input: callbacks that wait, wakers that end pools, threads that cancel, close,
//! join and drop at once, inputs that block.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::meet::{Ear, Gate, pass, say};
use common::{assert_serves, each_method, each_method_alone, pool};
use multiprocess::{AsyncResult, Pool, TaskErrorKind};
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, sleep};
use std::time::Duration;

const AGES: Duration = Duration::from_secs(600);

/// Counts how often it is woken.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll<R: 'static>(
    call: &mut AsyncResult<R>,
    waker: &Waker,
) -> Poll<Result<R, multiprocess::TaskError>> {
    Pin::new(call).poll(&mut Context::from_waker(waker))
}

each_method!(a_callback_may_wait_for_other_calls_of_its_pool, |method| {
    let pool = Arc::new(pool(method, 2));
    let caller = Arc::clone(&pool);
    let (sender, told) = mpsc::channel();
    let job = pool.job().on_done(move |result: &Result<u64, _>| {
        let number = *result.as_ref().unwrap();
        let next = caller.apply_async(number, |n| n + 100).get().unwrap();
        let map = caller.map_async(0..number, |n| n).get().unwrap();
        sender.send((number, next, map.len() as u64)).unwrap();
    });
    // They end about together, so that some wait to be completed while a callback waits.
    let calls: Vec<_> = (0..20_u64).map(|n| job.apply_async(n, |n| n)).collect();
    for (number, call) in (0..).zip(calls) {
        assert_eq!(call.get().unwrap(), number);
    }
    let mut told: Vec<_> = told.try_iter().collect();
    told.sort_unstable();
    assert!(told.into_iter().eq((0..20).map(|n| (n, n + 100, n))));
    assert_serves(&pool);
});

each_method!(a_callback_may_wait_for_a_while_and_cancel, |method| {
    let pool = Arc::new(pool(method, 2));
    let caller = Arc::clone(&pool);
    let (sender, told) = mpsc::channel();
    let job = pool.job().on_done(move |_: &Result<(), _>| {
        let mut endless = caller.apply_async((), |()| sleep(AGES));
        assert!(endless.get_timeout(Duration::from_millis(5)).is_none());
        endless.cancel();
        sender
            .send(endless.get().unwrap_err().is_cancelled())
            .unwrap();
    });
    job.apply_async((), |()| ()).get().unwrap();
    assert!(told.recv().unwrap());
    assert_serves(&pool);
});

each_method!(a_callback_may_wait_for_a_call_of_a_closed_pool, |method| {
    let pool = Arc::new(pool(method, 1));
    let caller = Arc::clone(&pool);
    let (sender, told) = mpsc::channel();
    let job = pool.job().on_done(move |_: &Result<(), _>| {
        caller.close();
        let refused = caller.apply_async(1_u8, |n| n).get().unwrap_err();
        sender.send(refused.kind()).unwrap();
    });
    job.apply_async((), |()| ()).get().unwrap();
    assert_eq!(told.recv().unwrap(), TaskErrorKind::System);
});

each_method!(
    callbacks_run_in_the_order_in_which_their_calls_end,
    |method| {
        let pool = pool(method, 1);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let job = pool
            .job()
            .on_done(move |result: &Result<u32, _>| kept.lock().unwrap().push(result.clone()));
        let calls: Vec<_> = (0..500_u32).map(|n| job.apply_async(n, |n| n)).collect();
        for call in calls {
            call.get().unwrap();
        }
        let seen = seen.lock().unwrap();
        assert!(seen.iter().map(|result| result.clone().unwrap()).eq(0..500));
    }
);

/// Panics when it is dropped, but in the process that made it.
#[derive(Serialize, Deserialize)]
struct Bomb(u32, u32);

impl Drop for Bomb {
    fn drop(&mut self) {
        assert_eq!(self.1, std::process::id(), "panics while dropped");
    }
}

/// Cannot be decoded when it is 1.
#[derive(Serialize)]
struct Fussy(u32);

impl<'de> Deserialize<'de> for Fussy {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u32::deserialize(deserializer)? {
            1 => Err(serde::de::Error::custom("it is illegible")),
            number => Ok(Fussy(number)),
        }
    }
}

each_method!(
    results_whose_destructors_panic_end_their_calls_all_the_same,
    |method| {
        let pool = pool(method, 1);
        let job = pool
            .job()
            .on_done(|results: &Result<Vec<(Bomb, Fussy)>, _>| assert!(results.is_err()));
        // The first result is dropped, with a panic, when the second cannot be decoded.
        let mut call = job.map_async(0..2_u32, |n| (Bomb(n, std::process::id()), Fussy(n)));
        let result = call.get_timeout(Duration::from_secs(30));
        assert!(result.expect("it ends").is_err());
        // Nobody takes this one: it is dropped on the pool's thread.
        drop(pool.apply_async(0_u32, |n| Bomb(n, std::process::id())));
        assert_serves(&pool);
        assert_eq!(pool.apply_async(7_u8, |n| n).get().unwrap(), 7);
    }
);

each_method!(of_two_wakers_the_one_that_polled_last_is_woken, |method| {
    let pool = pool(method, 1);
    let gate = Gate::new();
    let mut call = pool.apply_async(gate.path(), |gate| pass(&gate));
    let (first, second) = (Arc::new(Counter::default()), Arc::new(Counter::default()));
    let wakers = [
        Waker::from(Arc::clone(&first)),
        Waker::from(Arc::clone(&second)),
    ];
    for waker in [&wakers[0], &wakers[1], &wakers[0], &wakers[1]] {
        assert!(poll(&mut call, waker).is_pending());
    }
    // A future that is dropped before it is done; its waker is woken or not, and nothing else.
    let mut dropped = pool.apply_async(gate.path(), |gate| pass(&gate));
    assert!(poll(&mut dropped, &wakers[0]).is_pending());
    drop(dropped);
    let last = pool.apply_async((), |()| ());
    gate.let_through(1);
    while !call.is_ready() {
        thread::yield_now();
    }
    assert_eq!(first.0.load(Ordering::SeqCst), 0);
    assert_eq!(poll(&mut call, &wakers[0]), Poll::Ready(Ok(())));
    gate.let_through(1);
    last.get().unwrap();
    assert_eq!(second.0.load(Ordering::SeqCst), 1);
    assert!(first.0.load(Ordering::SeqCst) <= 1);
    assert_serves(&pool);
});

/// A waker that holds what it wakes for: here a pool.
struct Holder {
    _pool: Pool,
}

impl Wake for Holder {
    fn wake(self: Arc<Self>) {}
}

each_method_alone!(
    a_waker_that_is_replaced_may_end_the_pool_of_its_call,
    |method| {
        let pool = pool(method, 1);
        let mut call = pool.apply_async((), |()| sleep(AGES));
        let holder = Waker::from(Arc::new(Holder { _pool: pool }));
        assert!(poll(&mut call, &holder).is_pending());
        drop(holder);
        let other = Waker::from(Arc::new(Counter::default()));
        let _pending_or_cancelled = poll(&mut call, &other);
        assert!(call.get().unwrap_err().is_cancelled());
    }
);

each_method_alone!(
    calls_that_threads_cancel_while_the_pool_is_dropped_all_end,
    |method| {
        for round in 0..10 {
            let pool = pool(method, 2);
            let calls: Vec<_> = (0..200_u32)
                .map(|n| {
                    pool.job().retries(1).apply_async(n, |n| {
                        if n % 3 == 0 {
                            sleep(AGES);
                        }
                        n
                    })
                })
                .collect();
            let map = pool.map_async(0..100_u32, |_| sleep(AGES));
            thread::scope(|scope| {
                for thread in 0..4 {
                    let (calls, map) = (&calls, &map);
                    scope.spawn(move || {
                        for call in calls.iter().skip(thread).step_by(4) {
                            call.cancel();
                        }
                        map.cancel();
                    });
                }
                if round % 2 == 0 {
                    scope.spawn(move || pool.terminate().unwrap());
                } else {
                    scope.spawn(move || pool.join().unwrap());
                }
            });
            assert!(map.get().unwrap_err().is_cancelled());
            for (number, call) in (0..).zip(calls) {
                match call.get() {
                    Ok(n) => assert_eq!(n, number),
                    Err(error) => assert!(error.is_cancelled(), "{error}"),
                }
            }
        }
    }
);

each_method_alone!(
    threads_that_wait_for_results_are_woken_when_the_pool_is_dropped,
    |method| {
        let pool = pool(method, 2);
        let mut ear = Ear::new();
        let running: Vec<_> = (0..2)
            .map(|_| {
                pool.apply_async(ear.path(), |ear| {
                    say(&ear, "begun");
                    sleep(AGES);
                })
            })
            .collect();
        let waiting: Vec<_> = (0..6)
            .map(|_| pool.apply_async((), |()| sleep(AGES)))
            .collect();
        assert_eq!([ear.hear(), ear.hear()], ["begun", "begun"]);
        thread::scope(|scope| {
            for call in running.into_iter().chain(waiting) {
                scope.spawn(move || assert!(call.get().unwrap_err().is_cancelled()));
            }
            drop(pool);
        });
    }
);

each_method_alone!(
    a_pool_that_is_closed_while_threads_call_answers_or_refuses_each,
    |method| {
        let pool = pool(method, 2);
        let (served, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for thread in 0..6_u64 {
                let (pool, served, refused) = (&pool, &served, &refused);
                scope.spawn(move || {
                    loop {
                        let result = match thread % 3 {
                            0 => pool.apply(thread, |n| n),
                            1 => pool.apply_async(thread, |n| n).get(),
                            _ => pool.map([thread; 9], |n| n).map(|all| all[8]),
                        };
                        match result {
                            Ok(n) => assert_eq!(n, thread),
                            Err(error) => {
                                assert!(error.to_string().contains("closed"), "{error}");
                                refused.fetch_add(1, Ordering::SeqCst);
                                return;
                            }
                        }
                        served.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            while served.load(Ordering::SeqCst) < 100 {
                thread::yield_now();
            }
            pool.close();
        });
        assert_eq!(refused.load(Ordering::SeqCst), 6);
        pool.join().unwrap();
    }
);

each_method_alone!(
    a_callback_that_joins_its_own_pool_is_told_that_it_cannot,
    |method| {
        let pool = Arc::new(Mutex::new(Some(pool(method, 1))));
        let kept = Arc::clone(&pool);
        let (sender, told) = mpsc::channel();
        let call = {
            let guard = pool.lock().unwrap();
            let job = guard
                .as_ref()
                .unwrap()
                .job()
                .on_done(move |_: &Result<(), _>| {
                    let pool = kept.lock().unwrap().take().unwrap();
                    sender.send(pool.join().unwrap_err().to_string()).unwrap();
                });
            job.apply_async((), |()| ())
        };
        assert!(told.recv().unwrap().contains("itself"));
        call.get().unwrap();
    }
);

each_method!(
    exactly_one_more_item_is_pulled_for_each_result_that_is_taken,
    |method| {
        const BOUND: usize = 5;
        let pool = pool(method, 1);
        let gate = Gate::new();
        let (sender, pulled) = mpsc::channel();
        let input = (0_usize..).inspect(move |&n| sender.send(n).unwrap());
        let mut results =
            pool.with(gate.path())
                .in_flight(BOUND)
                .imap(input, |gate: &PathBuf, n| {
                    pass(gate);
                    n
                });
        thread::scope(|scope| {
            let gate = &gate;
            let pulled = &mut { pulled };
            // Nothing ends before the bound has been pulled.
            let mut taken = 0;
            let opener = {
                let pulled = std::mem::replace(pulled, mpsc::channel().1);
                scope.spawn(move || {
                    for n in 0..BOUND {
                        assert_eq!(pulled.recv().unwrap(), n);
                    }
                    // That no more comes is what only time can tell.
                    let none = pulled.recv_timeout(Duration::from_millis(50));
                    assert!(none.is_err(), "{none:?} is beyond the bound");
                    gate.let_through(1);
                    pulled
                })
            };
            assert_eq!(results.next().unwrap().unwrap(), taken);
            let pulled = opener.join().unwrap();
            assert!(
                pulled.try_recv().is_err(),
                "nothing was pulled for a result that is there"
            );
            gate.let_through(200);
            while taken < 99 {
                taken += 1;
                assert_eq!(results.next().unwrap().unwrap(), taken);
                let last = pulled.try_iter().last();
                assert!(
                    last.is_none_or(|last| last < taken + BOUND),
                    "{last:?} of {taken}"
                );
            }
        });
        gate.let_through(BOUND);
        drop(results);
        assert_serves(&pool);
    }
);

each_method!(an_input_that_blocks_holds_up_nobody_else, |method| {
    let pool = pool(method, 2);
    let (sender, items) = mpsc::channel::<u64>();
    thread::scope(|scope| {
        let lazy = scope.spawn(|| pool.map(items, |n| n + 1).unwrap());
        for round in 0..20 {
            // Its next item comes of calls that others make meanwhile.
            let item = pool.apply(round, |n: u64| n * 2).unwrap();
            assert_eq!(pool.apply_async(item, |n| n).get().unwrap(), item);
            assert_eq!(
                pool.imap(0..50_u64, |n| n).filter_map(Result::ok).count(),
                50
            );
            sender.send(item).unwrap();
        }
        drop(sender);
        let expected: Vec<u64> = (0..20).map(|n| 2 * n + 1).collect();
        assert_eq!(lazy.join().unwrap(), expected);
    });
});

each_method!(
    an_endless_input_of_large_items_is_pulled_no_further_than_their_bytes_allow,
    |method| {
        let pool = pool(method, 1);
        let gate = Gate::new();
        let (sender, pulled) = mpsc::channel();
        let input = (0_usize..).map(move |n| {
            sender.send(n).unwrap();
            vec![n as u8; 8 << 20]
        });
        let mut results =
            pool.with(gate.path())
                .in_flight(100_000)
                .imap(input, |gate: &PathBuf, bytes| {
                    pass(gate);
                    bytes.len()
                });
        let (count, _pulled) = thread::scope(|scope| {
            let gate = &gate;
            let counter = scope.spawn(move || {
                let mut count = 0;
                // That no more comes is what only time can tell.
                while pulled.recv_timeout(Duration::from_millis(500)).is_ok() {
                    count += 1;
                }
                gate.let_through(1);
                (count, pulled)
            });
            assert_eq!(results.next().unwrap().unwrap(), 8 << 20);
            counter.join().unwrap()
        });
        println!("{count} items of 8 MiB were pulled while none ended");
        assert!((3..=64 / 8 + 1).contains(&count), "{count} items of 8 MiB");
        gate.let_through(20);
        drop(results);
        assert_serves(&pool);
    }
);
