//! How `imap` and `map` treat their input and their failures: lazily, boundedly, and without harm to the pool.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::fault::{self, fault_row};
use common::meet::{Ear, Gate, pass, say};
use common::{assert_serves, each_method, pool};
use multiprocess::TaskErrorKind;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// More than any sensible number of items under way, less than what an eager implementation pulls.
const AHEAD_MAX: u64 = 10_000;

each_method!(imap_serves_an_endless_input, |method| {
    let pool = pool(method, 2);
    let pulled = Cell::new(0);
    let items = (0_u64..).inspect(|_| pulled.set(pulled.get() + 1));
    let results: Vec<u64> = pool
        .imap(items, |number| number * 2)
        .take(1000)
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        results,
        (0..1000).map(|number| number * 2).collect::<Vec<u64>>()
    );
    assert!(pulled.get() >= 1000);
    assert_serves(&pool);
});

each_method!(imap_pulls_few_items_ahead, |method| {
    let pool = pool(method, 2);
    let pulled = Cell::new(0);
    let items = (0_u64..).inspect(|_| pulled.set(pulled.get() + 1));
    let mut results = pool.job().chunk_size(1).imap(items, |number| number);
    for expected in 0..100 {
        assert_eq!(results.next().unwrap().unwrap(), expected);
    }
    assert!(
        (100..100 + AHEAD_MAX).contains(&pulled.get()),
        "pulled {} for 100 results",
        pulled.get()
    );
});

each_method!(imap_pulls_no_further_while_its_first_item_runs, |method| {
    let pool = pool(method, 2);
    let gate = Gate::new();
    let pulled = Cell::new(0);
    let items = (0_u64..10 * AHEAD_MAX).inspect(|&index| {
        pulled.set(index + 1);
        // Not reached if the results that wait behind item 0 are bounded.
        if index == 5 * AHEAD_MAX {
            gate.let_through(1);
        }
    });
    let mut results = pool
        .with(gate.path())
        .chunk_size(1)
        .imap(items, |gate: &PathBuf, number| {
            if number == 0 {
                pass(gate);
            }
            number
        });
    // Lets item 0 go at last. By then an unbounded implementation has pulled far more: the other worker is free.
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(std::time::Duration::from_secs(1));
            gate.let_through(1);
        });
        assert_eq!(results.next().unwrap().unwrap(), 0);
    });
    assert!(
        pulled.get() <= AHEAD_MAX,
        "pulled {} for the first result",
        pulled.get()
    );
});

each_method!(imap_unordered_pulls_few_items_ahead, |method| {
    let pool = pool(method, 2);
    let pulled = Cell::new(0);
    let items = (0_u64..).inspect(|_| pulled.set(pulled.get() + 1));
    let taken = pool
        .job()
        .chunk_size(1)
        .imap_unordered(items, |number| number)
        .take(100)
        .count();
    assert_eq!(taken, 100);
    assert!(
        (100..100 + AHEAD_MAX).contains(&pulled.get()),
        "pulled {} for 100 results",
        pulled.get()
    );
    assert_serves(&pool);
});

each_method!(imap_goes_on_after_a_failure, |method| {
    let pool = pool(method, 2);
    let results: Vec<_> = pool
        .imap(0..100_usize, |number| {
            if number % 10 == 7 {
                panic!("seven")
            } else {
                number
            }
        })
        .collect();
    assert_eq!(results.len(), 100);
    for (index, result) in results.into_iter().enumerate() {
        match result {
            Ok(number) => assert_eq!((number, index % 10 == 7), (index, false)),
            Err(error) => {
                assert_eq!(
                    (error.item(), error.panic_message()),
                    (Some(index), Some("seven"))
                );
                assert_eq!(index % 10, 7);
            }
        }
    }
    assert_serves(&pool);
});

each_method!(imap_unordered_goes_on_after_a_failure, |method| {
    let pool = pool(method, 2);
    let mut failed = Vec::new();
    let mut fine = 0;
    for (index, result) in pool.imap_unordered(0..100_usize, |number| {
        if number % 10 == 7 {
            panic!("seven")
        } else {
            number
        }
    }) {
        match result {
            Ok(number) => fine += usize::from(number == index),
            Err(error) => {
                assert_eq!(error.item(), Some(index));
                failed.push(index);
            }
        }
    }
    failed.sort_unstable();
    assert_eq!(
        (fine, failed),
        (90, (0..10).map(|ten| ten * 10 + 7).collect())
    );
});

each_method!(imap_dropped_half_way_leaves_the_pool_usable, |method| {
    let pool = pool(method, 2);
    for taken in [0, 1, 2, 50, 999] {
        let mut results = pool.imap(0..1000_u32, |number| vec![number; 1000]);
        for expected in 0..taken {
            assert_eq!(results.next().unwrap().unwrap(), vec![expected; 1000]);
        }
        drop(results);
        assert_serves(&pool);
    }
    assert_serves(&pool);
});

each_method!(
    imap_dropped_with_large_results_unread_leaves_the_pool_usable,
    |method| {
        let pool = pool(method, 2);
        for _ in 0..5 {
            let mut results = pool.imap(0..20_u8, |fill| vec![fill; 16 << 20]);
            assert!(results.next().unwrap().unwrap() == vec![0; 16 << 20]);
            drop(results);
            assert_serves(&pool);
        }
    }
);

each_method!(a_pool_dropped_after_a_half_consumed_imap_ends, |method| {
    let pool = pool(method, 2);
    let mut results = pool.imap(0_u32.., |number| number);
    assert_eq!(results.next().unwrap().unwrap(), 0);
    drop(results);
    drop(pool);
});

each_method!(map_stops_at_the_first_failure, |method| {
    let pool = pool(method, 2);
    let pulled = Cell::new(0_u32);
    let items = (0..10_000_000).inspect(|_| pulled.set(pulled.get() + 1));
    let error = pool
        .map(
            items,
            |number| if number == 3 { panic!("three") } else { number },
        )
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.item(), error.panic_message()),
        (TaskErrorKind::Panic, Some(3), Some("three"))
    );
    assert!(pulled.get() < 10_000_000, "map went on after its failure");
    assert_serves(&pool);
});

/// A function that is known to be quick: many of its items are one message.
fn successor(number: u64) -> u64 {
    assert_ne!(number, u64::MAX, "the last one has none");
    number + 1
}

each_method!(what_a_slow_input_has_brought_is_not_held_back, |method| {
    let pool = pool(method, 2);
    pool.map(0..100_000, successor).unwrap();
    // Only time tells that an input is slow. How often was all that had come there, when it was asked for the next?
    let (received, complete) = (Cell::new(0), Cell::new(0));
    let items = || {
        received.set(0);
        (0..50).inspect(|&item| {
            complete.set(complete.get() + u32::from(received.get() == item));
            thread::sleep(Duration::from_millis(20));
        })
    };
    for result in pool.imap(items(), successor) {
        received.set(result.unwrap());
    }
    assert_eq!(received.get(), 50);
    for (_, result) in pool.imap_unordered(items(), successor) {
        result.unwrap();
        received.set(received.get() + 1);
    }
    assert_eq!(received.get(), 50);
    // The first one has nothing before it. A machine that is busy may be late with many.
    let complete = complete.get();
    assert!(complete > 20, "{complete} of 100 times");
});

each_method!(
    results_keep_up_with_an_input_of_some_milliseconds,
    |method| {
        let pool = pool(method, 2);
        pool.map(0..100_000, successor).unwrap();
        let (received, behind) = (Cell::new(0), Cell::new(0));
        let items = (0..200).inspect(|&item| {
            behind.set(behind.get().max(item - received.get()));
            // Only time tells that an input is slow.
            thread::sleep(Duration::from_millis(5));
        });
        for result in pool.imap(items, successor) {
            received.set(result.unwrap());
        }
        assert_eq!(received.get(), 200);
        // Two or three; a machine that is busy may be late.
        let behind = behind.get();
        assert!(behind < 25, "{behind} results waited for further items");
    }
);

each_method!(
    what_came_at_once_does_not_wait_for_what_comes_later,
    |method| {
        let pool = pool(method, 2);
        pool.map(0..100_000, successor).unwrap();
        let (received, complete) = (Cell::new(0), Cell::new(0));
        // As lines from a terminal or a network: three, and for a long while no other.
        let items = (0..30).inspect(|&item| {
            if item % 3 == 0 {
                complete.set(complete.get() + u32::from(received.get() == item));
                thread::sleep(Duration::from_millis(200));
            }
        });
        for result in pool.imap(items, successor) {
            received.set(result.unwrap());
        }
        assert_eq!(received.get(), 30);
        let complete = complete.get();
        assert!(
            complete > 3,
            "{complete} of 10 times all that had come was there"
        );
    }
);

each_method!(
    map_of_a_slow_input_without_end_stops_at_a_failure,
    |method| {
        let pool = pool(method, 2);
        pool.map(0..100_000, successor).unwrap();
        let pulled = Cell::new(0);
        let items = (0..).map(|item| {
            // Only time tells that an input is slow.
            thread::sleep(Duration::from_millis(5));
            pulled.set(pulled.get() + 1);
            if item == 3 { u64::MAX } else { item }
        });
        let error = pool.map(items, successor).unwrap_err();
        assert_eq!(
            (error.kind(), error.item()),
            (TaskErrorKind::Panic, Some(3))
        );
        let pulled = pulled.get();
        assert!(pulled < 1000, "{pulled} items were pulled");
        assert_serves(&pool);
    }
);

each_method!(
    an_input_of_unknown_length_may_wait_for_what_an_item_does,
    |method| {
        let pool = pool(method, 2);
        let ear = RefCell::new(Ear::new());
        let path = ear.borrow().path();
        let items = (0..500_u64).filter(|&item| {
            // The one before has been submitted, but what if it waited for this one to travel with?
            if item % 10 == 0 && item > 0 {
                assert_eq!(u64::from(ear.borrow_mut().hear_number()), item - 1);
            }
            true
        });
        let job = pool.with(path).chunk_size(1);
        let results = job.map(items, |path, item| {
            if item % 10 == 9 {
                say(path, item);
            }
            item
        });
        assert_eq!(results.unwrap(), (0..500).collect::<Vec<u64>>());
    }
);

fault_row!(an_input_that_panics_here_panics_here, |method| {
    let pool = pool(method, 2);
    for at in [0, 1, 5, 5000] {
        let items = || {
            (0..10_000_u32).inspect(move |&index| {
                if index == at {
                    fault::strike();
                    panic!("the input's own panic");
                }
            })
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| pool.map(items(), |number| number)));
        fault::answered("the panic");
        let payload = outcome.unwrap_err();
        assert!(
            payload
                .downcast_ref::<&str>()
                .unwrap()
                .contains("the input's own panic")
        );
        assert_serves(&pool);

        let outcome = catch_unwind(AssertUnwindSafe(|| {
            pool.imap(items(), |number| number).count()
        }));
        fault::answered("the panic");
        assert!(outcome.is_err());
        assert_serves(&pool);

        let outcome = catch_unwind(AssertUnwindSafe(|| {
            pool.imap_unordered(items(), |number| number).count()
        }));
        fault::answered("the panic");
        assert!(outcome.is_err());
        assert_serves(&pool);
    }
});

each_method!(an_input_may_use_the_same_pool, |method| {
    let pool = pool(method, 2);
    let items = (0..50_u32).map(|number| pool.apply(number, |number| number + 1).unwrap());
    assert_eq!(
        pool.map(items, |number| number * 2).unwrap(),
        (1..=50).map(|number| number * 2).collect::<Vec<u32>>()
    );

    let items = (0..50_u32).map(|number| pool.map(0..number, |number| number).unwrap().len());
    let results: Vec<usize> = pool
        .imap(items, |number| number * 2)
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        results,
        (0..50).map(|number| number * 2).collect::<Vec<usize>>()
    );
});

each_method!(
    an_imap_may_be_the_input_of_a_map_of_the_same_pool,
    |method| {
        let pool = pool(method, 2);
        let inner = pool
            .imap(0..500_u64, |number| number + 1)
            .map(Result::unwrap);
        assert_eq!(
            pool.map(inner, |number| number * 2).unwrap(),
            (1..=500).map(|number| number * 2).collect::<Vec<u64>>()
        );
    }
);

each_method!(the_input_is_dropped_with_the_results, |method| {
    let pool = pool(method, 2);
    let held = std::rc::Rc::new(());
    let inside = held.clone();
    let mut results = pool.imap(
        (0..1000_u32).inspect(move |_| drop(inside.clone())),
        |number| number,
    );
    assert_eq!(results.next().unwrap().unwrap(), 0);
    drop(results);
    assert_eq!(std::rc::Rc::strong_count(&held), 1);
});

each_method!(a_callback_has_each_result_before_the_caller, |method| {
    let pool = pool(method, 2);
    let (tell, told) = std::sync::mpsc::channel();
    let job = pool
        .job()
        .on_done(move |result: &Result<u32, _>| tell.send(result.clone()).unwrap());
    let square = |n: u32| if n == 3 { panic!("no threes") } else { n * n };
    for result in job.imap(0..10, square) {
        assert_eq!(told.try_recv(), Ok(result));
    }
    for (_, result) in job.imap_unordered(0..10, square) {
        assert_eq!(told.try_recv(), Ok(result));
    }
    assert!(told.try_recv().is_err());
    let with_ten = pool.with(10).on_done(|_: &Result<u32, _>| ());
    let sums: Result<Vec<u32>, _> = with_ten.imap([1, 2], |ten: &u32, n| ten + n).collect();
    assert_eq!(sums.unwrap(), [11, 12]);
});

each_method!(
    a_pool_that_breaks_is_told_of_an_item_that_had_no_result,
    |method| {
        // So many that whoever takes the killed worker's place is sent some.
        const ITEMS: u32 = 1_000_000;
        let (folder, gate) = (tempfile::tempdir().unwrap(), Gate::new());
        let is_broken = folder.path().join("is-broken");
        let pool = multiprocess::Pool::builder()
            .workers(2)
            .start_method(method)
            .initializer(is_broken.clone(), |is_broken: PathBuf| {
                assert!(!is_broken.exists(), "no licence");
            })
            .build()
            .unwrap();
        let work = |gate: &PathBuf, item: u32| {
            if item == 0 {
                pass(gate);
            }
            std::process::id()
        };
        let job = pool.with(gate.path()).chunk_size(1);
        let mut results = job.imap_unordered(0..ITEMS, work);
        let mut seen = std::collections::BTreeSet::new();
        let mut worker = 0;
        for _ in 0..5 {
            let (item, pid) = results.next().unwrap();
            assert!(seen.insert(item));
            worker = pid.unwrap();
        }
        std::fs::write(&is_broken, "").unwrap();
        common::kill_hard(worker);
        let mut failed = None;
        for (item, result) in results.by_ref() {
            assert!(
                seen.insert(item) && item < ITEMS as usize,
                "{item} was told of before"
            );
            // The item that the killed worker was at is a crash.
            if let Some(error) = result.err().filter(|error| !error.is_crash()) {
                assert_eq!(error.panic_message(), Some("no licence"));
                failed = Some(item);
                break;
            }
        }
        assert!(failed.is_some() && results.next().is_none());
        gate.let_through(1);
    }
);
