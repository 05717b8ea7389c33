//! One pool and many users: threads, interleaved jobs, pools inside workers, and far more workers than processors.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::fault::{self, fault_row};
use common::meet::{Gate, pass};
use common::{assert_serves, each_method, each_method_alone, pool};
use multiprocess::{Pool, Process, Queue, StartMethod};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

each_method!(many_threads_use_one_pool_with_different_jobs, |method| {
    let pool = pool(method, 2);
    let start = Barrier::new(9);
    thread::scope(|scope| {
        for thread in 0..3_u64 {
            let (pool, start) = (&pool, &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..20 {
                    let numbers = pool
                        .with(thread)
                        .map(round..round + 50, |thread, number: u64| {
                            thread * 1000 + number
                        })
                        .unwrap();
                    assert_eq!(
                        numbers,
                        (round..round + 50)
                            .map(|number| thread * 1000 + number)
                            .collect::<Vec<u64>>()
                    );
                }
            });
            scope.spawn(move || {
                start.wait();
                for round in 0..20 {
                    let texts = (0..50).map(|number| format!("{thread}:{round}:{number}"));
                    let lengths = pool
                        .imap(texts.clone(), |text| text.len())
                        .map(Result::unwrap);
                    assert!(lengths.eq(texts.map(|text| text.len())));
                }
            });
            scope.spawn(move || {
                start.wait();
                for round in 0..100_u64 {
                    assert_eq!(
                        pool.apply((thread, round), |(a, b)| a * b).unwrap(),
                        thread * round
                    );
                }
            });
        }
    });
    assert_serves(&pool);
});

fault_row!(many_threads_use_one_pool_and_one_queue, |method| {
    const THREADS: u64 = 8;
    let (pool, queue) = (pool(method, 2), Queue::bounded(20).unwrap());
    fault::strike();
    let (sum, product) = thread::scope(|scope| {
        let getters: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| queue.iter().sum::<u64>()))
            .collect();
        let callers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (pool, queue) = (&pool, queue.clone());
                scope.spawn(move || {
                    let job = pool.with(queue.clone());
                    // The workers put as well as this thread does.
                    let put = |queue: &Queue<u64>, number| queue.put(number).unwrap();
                    for round in 0..10 {
                        job.map(0..50_u64, put).unwrap();
                        queue.put(round).unwrap();
                    }
                    pool.apply(thread, |thread| thread + 1).unwrap()
                })
            })
            .collect();
        let product: u64 = callers.into_iter().map(|one| one.join().unwrap()).product();
        queue.close();
        let sum: u64 = getters.into_iter().map(|one| one.join().unwrap()).sum();
        (sum, product)
    });
    fault::answered("all that eight threads wanted");
    let of_each_thread = 10 * (0..50).sum::<u64>() + (0..10).sum::<u64>();
    assert_eq!(sum, THREADS * of_each_thread);
    assert_eq!(product, (1..=THREADS).product::<u64>());
    assert_serves(&pool);
});

each_method!(
    threads_with_failing_jobs_do_not_disturb_each_other,
    |method| {
        let pool = pool(method, 2);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..50 {
                    let error = pool
                        .map(0..20_u32, |number| {
                            if number == 11 {
                                panic!("eleven")
                            } else {
                                number
                            }
                        })
                        .unwrap_err();
                    assert_eq!(error.item(), Some(11));
                }
            });
            scope.spawn(|| {
                for _ in 0..20 {
                    let error = pool
                        .apply((), |()| std::process::exit(3))
                        .map(|(): ()| ())
                        .unwrap_err();
                    assert!(error.is_crash());
                }
            });
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        // A crash is charged to the item that was running, so to none of these.
                        assert_eq!(
                            pool.map(0..20_u32, |number| number + 1).unwrap(),
                            (1..21).collect::<Vec<u32>>()
                        );
                    }
                });
            }
        });
        assert_serves(&pool);
    }
);

each_method!(
    a_pool_serves_others_while_an_imap_is_half_consumed,
    |method| {
        let pool = pool(method, 2);
        let mut results = pool.imap(0..5000_u32, |number| number + 1);
        assert_eq!(results.next().unwrap().unwrap(), 1);
        thread::scope(|scope| {
            scope.spawn(|| assert_serves(&pool)).join().unwrap();
        });
        assert_eq!(results.next().unwrap().unwrap(), 2);
        // This thread may do so, too.
        assert_serves(&pool);
        assert_eq!(
            results.map(Result::unwrap).collect::<Vec<u32>>(),
            (3..=5000).collect::<Vec<u32>>()
        );
    }
);

each_method!(
    a_pool_serves_others_while_large_results_wait_to_be_read,
    |method| {
        let pool = pool(method, 2);
        let mut results = pool.imap(0..12_u8, |fill| vec![fill; 8 << 20]);
        assert!(results.next().unwrap().unwrap() == vec![0; 8 << 20]);
        assert_serves(&pool);
        thread::scope(|scope| {
            scope.spawn(|| assert_serves(&pool)).join().unwrap();
        });
        for (fill, result) in (1..).zip(results) {
            assert!(result.unwrap() == vec![fill; 8 << 20]);
        }
    }
);

each_method!(
    a_thread_is_served_while_another_waits_for_a_long_item,
    |method| {
        let gate = Gate::new();
        let pool = pool(method, 2);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| pool.apply(gate.path(), |gate| pass(&gate)));
            // The other worker is free for these.
            for number in 0..100_u32 {
                assert_eq!(pool.apply(number, |number| number + 1).unwrap(), number + 1);
            }
            gate.let_through(1);
            waiting.join().unwrap().unwrap();
        });
    }
);

each_method!(a_pool_may_be_shared_behind_an_arc, |method| {
    let pool = Arc::new(pool(method, 2));
    let threads: Vec<_> = (0..4_u32)
        .map(|thread| {
            let pool = Arc::clone(&pool);
            thread::spawn(move || {
                pool.map(0..10_u32, |number| number + 1).unwrap().len() as u32 + thread
            })
        })
        .collect();
    drop(pool);
    let sums: Vec<u32> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    assert_eq!(sums, [10, 11, 12, 13]);
});

each_method!(two_pools_at_once_do_not_mix, |method| {
    let (one, other) = (pool(method, 2), pool(method, 2));
    let ones: BTreeSet<u32> = one
        .map(0..50, |_: u32| std::process::id())
        .unwrap()
        .into_iter()
        .collect();
    let others: BTreeSet<u32> = other
        .map(0..50, |_: u32| std::process::id())
        .unwrap()
        .into_iter()
        .collect();
    assert!(ones.is_disjoint(&others));
    drop(one);
    assert_serves(&other);
});

each_method_alone!(a_worker_may_have_a_pool_of_its_own, |method| {
    fn sum_in_a_pool(method: StartMethod, upto: u32) -> u32 {
        pool(method, 2)
            .map(0..upto, |number| number * 2)
            .unwrap()
            .into_iter()
            .sum()
    }
    let pool = pool(method, 2);
    let sums = match method {
        StartMethod::Spawn => {
            pool.map([10, 20, 30], |upto| sum_in_a_pool(StartMethod::Spawn, upto))
        }
        _ => pool.map([10, 20, 30], |upto| {
            sum_in_a_pool(StartMethod::ForkServer, upto)
        }),
    };
    assert_eq!(sums.unwrap(), [90, 380, 870]);
    // And one that lives as long as the worker does.
    let pids = pool.map(0..4, |_: u32| {
        let inner = Box::leak(Box::new(Pool::builder().workers(1).build().unwrap()));
        inner.apply((), |()| std::process::id()).unwrap()
    });
    assert_eq!(
        pids.unwrap().into_iter().collect::<BTreeSet<u32>>().len(),
        4
    );
});

each_method_alone!(a_worker_may_start_processes, |method| {
    let pool = pool(method, 2);
    let answers = pool.map(0..4_u32, |number| {
        Process::spawn(number, |number| number * 3)
            .unwrap()
            .join()
            .unwrap()
    });
    assert_eq!(answers.unwrap(), [0, 3, 6, 9]);
});

each_method_alone!(two_hundred_workers_map_a_thousand_items, |method| {
    let pool = pool(method, 200);
    let workers: BTreeSet<u32> = pool.worker_pids().into_iter().collect();
    assert_eq!(workers.len(), 200);
    let results = pool
        .map(0..1000_u32, |number| (std::process::id(), number + 1))
        .unwrap();
    assert_eq!(results.len(), 1000);
    for (number, (pid, successor)) in (0..).zip(results) {
        assert_eq!(successor, number + 1);
        assert!(workers.contains(&pid));
    }
});

each_method_alone!(a_pool_that_never_worked_leaves_nothing, |method| {
    drop(pool(method, 8));
});

fault_row!(pools_made_on_threads_that_end_live_on, |method| {
    let pools: Vec<Pool> = (0..4)
        .map(|_| thread::spawn(move || pool(method, 2)).join().unwrap())
        .collect();
    for pool in &pools {
        fault::strike();
        assert_eq!(pool.apply(1, |one: u32| one), Ok(1));
        fault::answered("an answer");
        assert_serves(pool);
    }
});

each_method_alone!(
    large_items_of_one_thread_cost_no_worker_while_another_waits,
    |method| {
        let pool = pool(method, 1);
        let workers = pool.worker_pids();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            // No processor is free for the thread that leads when it is woken.
            for _ in 0..6 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            let long = scope.spawn(|| {
                (0..200)
                    .try_for_each(|_| pool.apply((), |()| thread::sleep(Duration::from_millis(3))))
            });
            let large = scope.spawn(|| {
                (0..100).try_for_each(|round| {
                    let item = vec![1_u8; (3 << 20) + round * 1000];
                    pool.apply(item, |item: Vec<u8>| assert!(!item.is_empty()))
                })
            });
            let (long, large) = (long.join(), large.join());
            is_over.store(true, Ordering::Relaxed);
            assert_eq!((long.unwrap(), large.unwrap()), (Ok(()), Ok(())));
        });
        assert_eq!(pool.worker_pids(), workers);
    }
);
