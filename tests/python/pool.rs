//! Pools: CPython's `_TestPool`, `_TestPoolWorkerErrors`, `_TestPoolWorkerLifetime`, `TestPoolNotLeakOnFailure`,
//! `TestInitializers`.

use crate::common::census::{poll, process};
use crate::common::meet::{Ear, Gate, pass, say};
use crate::common::{LIMIT, assert_serves, each_method, each_method_alone, pool};
use crate::{LONG, SHORT};
use multiprocess::{Pool, TaskError, TaskErrorKind, worker_state};
use serde::{Deserialize, Serialize, Serializer};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Instant;

fn square(x: i64) -> i64 {
    x * x
}

fn multiply((x, y): (i64, i64)) -> i64 {
    x * y
}

fn squares(end: i64) -> Vec<i64> {
    (0..end).map(square).collect()
}

/// What cannot be encoded.
#[derive(Debug, Deserialize)]
struct Unpicklable;

impl Serialize for Unpicklable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("it is not for travelling"))
    }
}

// CPython: _TestPool.test_apply
each_method!(apply, |method| {
    let pool = pool(method, 2);
    assert_eq!(pool.apply(5, square).unwrap(), 25);
    assert_eq!(pool.apply((5, 3), multiply).unwrap(), 15);
});

// CPython: _TestPool.test_map, test_map_chunksize
each_method!(map, |method| {
    let pool = pool(method, 4);
    assert_eq!(pool.map(0..10, square).unwrap(), squares(10));
    for size in [1, 20, 1000] {
        let job = pool.job().chunk_size(size);
        assert_eq!(job.map(0..100, square).unwrap(), squares(100));
    }
    // As there: no items, and pieces of one.
    assert_eq!(pool.job().chunk_size(1).map(0..0, square).unwrap(), []);
});

// CPython: _TestPool.test_starmap, test_starmap_async
each_method!(starmap, |method| {
    let pool = pool(method, 4);
    let pairs = || (0..100).map(|n| (n, n + 1));
    let products: Vec<i64> = pairs().map(multiply).collect();
    assert_eq!(pool.map(pairs(), multiply).unwrap(), products);
    assert_eq!(pool.map_async(pairs(), multiply).get().unwrap(), products);
});

// CPython: _TestPool.test_map_async, test_map_async_callbacks
each_method!(map_async_and_its_callbacks, |method| {
    let pool = pool(method, 2);
    assert_eq!(pool.map_async(0..10, square).get().unwrap(), squares(10));
    let (told, tell) = mpsc::channel();
    let heard = told.clone();
    let job = pool
        .job()
        .on_done(move |result: &Result<Vec<i64>, TaskError>| {
            heard.send(result.clone()).unwrap();
        });
    let _told = job.map_async([1, 2], square);
    assert_eq!(tell.recv_timeout(LONG).unwrap().unwrap(), [1, 4]);
    let job = pool
        .job()
        .on_done(move |result: &Result<Vec<i64>, TaskError>| {
            told.send(result.clone()).unwrap();
        });
    let _told = job.map_async([1, 2], |n: i64| if n == 2 { panic!("not two") } else { n });
    let error = tell.recv_timeout(LONG).unwrap().unwrap_err();
    assert_eq!(error.panic_message(), Some("not two"));
    // Each was called once.
    assert!(tell.recv_timeout(SHORT).is_err());
});

// CPython: _TestPool.test_map_unplicklable (issue 19425: it waited for ever)
each_method!(map_of_what_cannot_be_encoded, |method| {
    let pool = pool(method, 2);
    let error = pool.map([Unpicklable, Unpicklable], |_| ()).unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::ArgumentEncoding);
    assert_serves(&pool);
});

/// Numbers, and at one place a panic.
fn exception_throwing_generator(total: i64, at: i64) -> impl Iterator<Item = i64> {
    (0..total).inspect(move |&n| assert!(n != at, "somewhere in the middle"))
}

// CPython: _TestPool.test_map_handle_iterable_exception
each_method!(map_of_an_iterator_that_panics, |method| {
    let pool = pool(method, 2);
    for at in [-1, 1, 5] {
        let map = || pool.map(exception_throwing_generator(10, at), square);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(map));
        assert_eq!(result.is_ok(), at == -1);
    }
    assert_serves(&pool);
});

// CPython: _TestPool.test_async
each_method!(apply_async, |method| {
    let pool = pool(method, 2);
    let gate = Gate::new();
    let mut result = pool.with(gate.path()).apply_async(7, |gate, n: i64| {
        pass(gate);
        n * n
    });
    assert!(!result.is_ready());
    gate.let_through(1);
    assert_eq!(result.get_timeout(LONG).unwrap().unwrap(), 49);
});

// CPython: _TestPool.test_async_timeout
each_method!(apply_async_and_a_time_limit, |method| {
    let pool = pool(method, 2);
    let gate = Gate::new();
    let wait = |gate: &PathBuf, n: i64| {
        pass(gate);
        n
    };
    let mut result = pool.with(gate.path()).apply_async(7, wait);
    let started = Instant::now();
    assert!(result.get_timeout(SHORT).is_none());
    assert!(started.elapsed() >= SHORT);
    gate.let_through(1);
    assert_eq!(result.get().unwrap(), 7);
});

// CPython: _TestPool.test_imap, test_imap_unordered
each_method!(imap, |method| {
    let pool = pool(method, 4);
    let came: Vec<i64> = pool.imap(0..10, square).map(Result::unwrap).collect();
    assert_eq!(came, squares(10));
    let mut results = pool.job().chunk_size(100).imap(0..1000, square);
    for n in 0..1000 {
        assert_eq!(results.next().unwrap().unwrap(), n * n);
    }
    assert!(results.next().is_none());
    let results = pool.job().chunk_size(100).imap_unordered(0..1000, square);
    let mut came: Vec<i64> = results.map(|result| result.1.unwrap()).collect();
    came.sort_unstable();
    assert_eq!(came, squares(1000));
});

// CPython: _TestPool.test_imap_handle_iterable_exception, test_imap_unordered_handle_iterable_exception
each_method!(imap_of_an_iterator_that_panics, |method| {
    let pool = pool(method, 2);
    for at in [1, 3, 7] {
        let walk = || {
            pool.imap(exception_throwing_generator(20, at), square)
                .count()
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(walk)).is_err());
        let walk = || {
            let items = exception_throwing_generator(20, at);
            pool.imap_unordered(items, square).count()
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(walk)).is_err());
    }
    assert_serves(&pool);
});

// CPython: _TestPool.test_make_pool
each_method!(make_pool, |method| {
    assert!(Pool::builder().workers(0).build().is_err());
    assert_eq!(pool(method, 3).workers(), 3);
});

// CPython: _TestPool.test_terminate, test_terminate (gh-55966): it does not wait for tasks under way
each_method_alone!(terminate, |method| {
    let pool = pool(method, 3);
    let gate = Gate::new();
    let result = pool.with(gate.path()).map_async(0..10_000, |gate, n: i64| {
        pass(gate);
        n
    });
    pool.terminate().unwrap();
    assert!(result.get().is_err());
});

// CPython: _TestPool.test_empty_iterable
each_method!(empty_iterable, |method| {
    let pool = pool(method, 1);
    assert_eq!(pool.map([], square).unwrap(), []);
    assert_eq!(pool.imap([], square).count(), 0);
    assert_eq!(pool.imap_unordered([], square).count(), 0);
    assert_eq!(pool.map_async([], square).get().unwrap(), []);
    pool.close();
    pool.join().unwrap();
});

// CPython: _TestPool.test_context, test_enter: a pool that goes out of scope is terminated, not only closed
each_method_alone!(a_pool_that_goes_out_of_scope, |method| {
    let pids = {
        let pool = pool(method, 2);
        assert_eq!(pool.map(0..10, square).unwrap(), squares(10));
        pool.worker_pids()
    };
    let gone = || {
        pids.iter()
            .all(|&pid| process(pid).is_none_or(|one| !one.lives()))
    };
    assert!(poll(LIMIT, gone, |gone| *gone));
});

// CPython: _TestPool.test_traceback, test_wrapped_exception
each_method!(traceback, |method| {
    let pool = pool(method, 1);
    let error = pool
        .apply(123, |n: u32| -> u32 { panic!("error {n}") })
        .unwrap_err();
    assert_eq!(error.kind(), TaskErrorKind::Panic);
    assert_eq!(error.panic_message(), Some("error 123"));
    // Where in the function, as the traceback of the process that ran it says.
    assert!(format!("{error}").contains("pool.rs"), "{error}");
});

// CPython: _TestPool.test_map_no_failfast. There a map comes back when all items have ended, also where an early one has failed;
// here at once, and what has begun runs to its end
each_method!(map_no_failfast, |method| {
    let pool = pool(method, 2);
    let (mut ear, gate) = (Ear::new(), Gate::new());
    let job = pool.with((ear.path(), gate.path()));
    let error = job.map([0, 1], |(ear, gate): &(PathBuf, PathBuf), n: i64| {
        if n == 0 {
            // What has not begun when an item fails does not begin then.
            pass(gate);
            panic!("at once");
        }
        say(gate, "");
        std::thread::sleep(SHORT);
        say(ear, "the other has ended");
    });
    assert_eq!(error.unwrap_err().panic_message(), Some("at once"));
    assert_eq!(ear.hear(), "the other has ended");
});

// CPython: _TestPoolWorkerErrors.test_async_error_callback, test_unpickleable_result
each_method!(a_result_that_cannot_be_encoded, |method| {
    let pool = pool(method, 2);
    // There 20 times, since a worker could be lost each time.
    for _ in 0..20 {
        let (told, tell) = mpsc::channel();
        let job = pool
            .job()
            .on_done(move |result: &Result<Unpicklable, TaskError>| {
                told.send(result.as_ref().map(drop).map_err(TaskError::clone))
                    .unwrap();
            });
        let result = job.apply_async((), |()| Unpicklable);
        let error = result.get().unwrap_err();
        assert_eq!(error.kind(), TaskErrorKind::ResultEncoding);
        let told = tell.recv_timeout(LONG).unwrap().unwrap_err();
        assert_eq!(told.kind(), TaskErrorKind::ResultEncoding);
    }
    assert_serves(&pool);
});

// CPython: _TestPoolWorkerLifetime.test_pool_worker_lifetime
each_method_alone!(worker_lifetime, |method| {
    let builder = Pool::builder().workers(3).start_method(method);
    let pool = builder.max_tasks_per_worker(10).build().unwrap();
    let before = pool.worker_pids();
    assert_eq!(before.len(), 3);
    let results: Vec<_> = (0..100).map(|n| pool.apply_async(n, square)).collect();
    for (n, result) in (0..).zip(results) {
        assert_eq!(result.get().unwrap(), square(n));
    }
    // A hundred items are more than the first three could do.
    let replaced = || before.iter().any(|pid| !pool.worker_pids().contains(pid));
    assert!(poll(LIMIT, replaced, |replaced| *replaced));
    assert_eq!(pool.worker_pids().len(), 3);
    pool.close();
    pool.join().unwrap();
});

// CPython: _TestPoolWorkerLifetime.test_pool_worker_lifetime_early_close (issue 10332)
each_method_alone!(worker_lifetime_early_close, |method| {
    let builder = Pool::builder().workers(3).start_method(method);
    let pool = builder.max_tasks_per_worker(1).build().unwrap();
    let results: Vec<_> = (0..6).map(|n| pool.apply_async(n, square)).collect();
    pool.close();
    pool.join().unwrap();
    for (n, result) in (0..).zip(results) {
        assert_eq!(result.get().unwrap(), square(n));
    }
});

// CPython: _TestPoolWorkerLifetime.test_pool_maxtasksperchild_invalid
each_method!(maxtasksperchild_of_none_is_refused, |method| {
    let builder = Pool::builder().workers(1).start_method(method);
    assert!(builder.max_tasks_per_worker(0).build().is_err());
});

// CPython: TestPoolNotLeakOnFailure.test_release_unused_processes: the census finds no process of a pool that failed
each_method_alone!(release_unused_processes, |method| {
    let builder = Pool::builder().workers(5).start_method(method);
    let built = builder
        .initializer((), |()| panic!("no pool today"))
        .build();
    if let Ok(pool) = built {
        assert!(pool.apply(1, square).is_err());
    }
});

// CPython: TestInitializers.test_pool_initializer
each_method!(pool_initializer, |method| {
    let builder = Pool::builder().workers(1).start_method(method);
    let pool = builder.initializer(1_i64, |n: i64| n + 41).build().unwrap();
    let state = pool.apply((), |()| *worker_state::<i64>().unwrap());
    assert_eq!(state.unwrap(), 42);
    pool.close();
    pool.join().unwrap();
});
