//! Handles inside whatever travels: arguments, results, items, captures, at any depth and in any number.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{LIMIT, alone, assert_serves, each_method_alone, kill_hard, pool, unsafely};
use multiprocess::{
    Closure, Pipe, Pool, Process, Receiver, Sender, SharedSlice, StartMethod, TaskError,
    TaskErrorKind,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

/// A handle in the middle of other things.
#[derive(Serialize, Deserialize, Clone)]
struct Nested {
    name: String,
    slices: BTreeMap<u32, Option<SharedSlice<u64>>>,
    last: (SharedSlice<u8>, u8),
}

fn slice(number: u64) -> SharedSlice<u64> {
    SharedSlice::from_slice(&[number, number + 1]).unwrap()
}

fn nested(number: u64) -> Nested {
    Nested {
        name: format!("number {number}"),
        slices: [
            (1, Some(slice(number))),
            (2, None),
            (3, Some(slice(number + 10))),
        ]
        .into(),
        last: (SharedSlice::from_slice(&[7, 8, 9]).unwrap(), 6),
    }
}

fn sum(nested: &Nested) -> u64 {
    let slices = nested.slices.values().flatten();
    let sum: u64 = slices.map(|slice| slice.iter().sum::<u64>()).sum();
    sum + nested
        .last
        .0
        .iter()
        .map(|&byte| u64::from(byte))
        .sum::<u64>()
        + u64::from(nested.last.1)
}

/// What [`nested`] of a number adds up to.
fn sum_of(number: u64) -> u64 {
    2 * number + 1 + 2 * (number + 10) + 1 + 7 + 8 + 9 + 6
}

each_method_alone!(arguments_and_results_of_a_process_have_handles, |method| {
    let child = Process::builder().start_method(method);
    let child = child.spawn((nested(5), 3), |(given, number): (Nested, u64)| {
        (sum(&given), given, nested(number))
    });
    let (told, back, made) = child.unwrap().join().unwrap();
    assert_eq!(
        (told, sum(&back), sum(&made)),
        (sum_of(5), sum_of(5), sum_of(3))
    );
    assert_eq!(back.name, "number 5");
});

each_method_alone!(items_results_and_captures_have_handles, |method| {
    let pool = pool(method, 2);
    for chunk in [1, 7] {
        let job = pool.with(nested(100)).chunk_size(chunk);
        let results = job.map((0..50).map(nested), |captured, item: Nested| {
            (sum(captured) + sum(&item), item, nested(1))
        });
        for ((told, item, made), number) in results.unwrap().into_iter().zip(0..) {
            assert_eq!(told, sum_of(100) + sum_of(number));
            assert_eq!((sum(&item), sum(&made)), (sum_of(number), sum_of(1)));
        }
    }
    let own = pool
        .apply(slice(1), |slice: SharedSlice<u64>| slice)
        .unwrap();
    assert_eq!(*own, [1, 2]);
    assert_serves(&pool);
});

each_method_alone!(a_closure_captures_handles, |method| {
    let pool = pool(method, 1);
    let closure = Closure::with(slice(4), |slice: &SharedSlice<u64>, n: u64| slice[0] + n);
    assert_eq!(
        pool.apply((closure.clone(), 2), |(f, n): (Closure<u64, u64>, u64)| f
            .call(n)),
        Ok(6)
    );
    let back = pool.apply(closure, |f: Closure<u64, u64>| f).unwrap();
    assert_eq!(back.call(5), 9);
});

each_method_alone!(one_value_has_300_handles, |method| {
    let many = || -> Vec<SharedSlice<u64>> { (0..300).map(slice).collect() };
    let check = |slices: &[SharedSlice<u64>]| {
        assert_eq!(slices.len(), 300);
        for (slice, number) in slices.iter().zip(0..) {
            assert_eq!(**slice, [number, number + 1]);
        }
    };
    let child = Process::builder().start_method(method);
    let child = child.spawn(many(), |slices: Vec<SharedSlice<u64>>| slices);
    check(&child.unwrap().join().unwrap());
    let pool = pool(method, 2);
    let back = pool
        .with(many())
        .map(vec![many(), many(), many()], |captured, item| {
            captured
                .iter()
                .zip(&item)
                .all(|(one, other)| **one == **other)
                .then_some(item)
        });
    back.unwrap()
        .iter()
        .for_each(|item| check(item.as_ref().unwrap()));
});

each_method_alone!(
    items_with_handles_outlive_the_workers_that_die_before_them,
    |method| {
        let pool = pool(method, 2);
        let results: Vec<_> = pool
            .job()
            .chunk_size(8)
            .imap(
                (0..40).map(|number| (number, nested(number))),
                |(number, item)| {
                    if number % 10 == 3 {
                        kill_hard(std::process::id());
                    }
                    sum(&item)
                },
            )
            .collect();
        for (number, result) in (0..40).zip(results) {
            match result {
                Ok(told) => assert_eq!(told, sum_of(number)),
                Err(error) => assert!(error.is_crash() && number % 10 == 3, "{number}: {error}"),
            }
        }
        assert_serves(&pool);
    }
);

each_method_alone!(handles_of_what_fails_or_is_dropped_are_closed, |method| {
    let pool = pool(method, 2);
    // The census after this body counts descriptors; those in workers end with them.
    let undecodable = pool.apply(nested(1), |_: Nested| -> u64 { panic!("no") });
    assert!(undecodable.unwrap_err().is_panic());
    let mut results = pool.imap((0..1000).map(nested), |item| item);
    assert_eq!(sum(&results.next().unwrap().unwrap()), sum_of(0));
    drop(results);
    let first = pool.job().map((0..100).map(nested), |item| {
        assert!(item.name != "number 9");
        item
    });
    assert!(first.is_err());
    assert_serves(&pool);
});

each_method_alone!(
    a_handle_that_there_is_no_descriptor_left_for_is_an_error_of_its_value,
    |method| {
        let pool = pool(method, 1);
        assert_serves(&pool);
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        // The lowest number that is free: what is open above it, whoever left that to this process, does not count.
        let lowest = std::fs::File::open("/dev/null").unwrap().as_raw_fd() as u64;
        setrlimit(Resource::RLIMIT_NOFILE, lowest + 4, hard).unwrap();
        let many = pool.apply(50, |count: u64| (0..count).map(slice).collect::<Vec<_>>());
        let one = pool.apply(1, slice).map(|slice| slice[0]);
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        let error = many.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("descriptors"), "{error}");
        assert_eq!(one, Ok(1));
        assert_serves(&pool);
    }
);

/// Asserts that an end of a pipe did not arrive since it had arrived before.
fn assert_has_arrived_before(error: &TaskError) {
    assert_eq!(error.kind(), TaskErrorKind::ArgumentDecoding, "{error}");
    let words = error.to_string();
    assert!(words.contains("one process at a time"), "{words}");
}

/// Both ends of a lane.
fn lane() -> (Sender<u32>, Receiver<u32>) {
    let (here, there) = Pipe::<u32>::pair().unwrap();
    (there.split().0, here.split().1)
}

fn send(sender: &Sender<u32>, number: u32) {
    sender.send(number).unwrap();
}

each_method_alone!(of_workers_that_get_an_end_of_a_pipe_one_has_it, |method| {
    let pool = pool(method, 2);
    let (sender, receiver) = lane();
    // The items of a worker need not run in their order: each says which one it was there.
    thread_local! {
        static RUN: Cell<u32> = const { Cell::new(0) };
    }
    let outcomes: Vec<_> = pool
        .with(sender)
        .imap(0..1000, |sender, number| {
            send(sender, number);
            RUN.replace(RUN.get() + 1)
        })
        .collect();
    let mut sent = Vec::new();
    for (number, outcome) in (0..).zip(outcomes) {
        match outcome {
            Ok(nth) => sent.push((nth, number)),
            Err(error) => assert_has_arrived_before(&error),
        }
    }
    assert!(!sent.is_empty());
    assert_serves(&pool);
    drop(pool);
    sent.sort_unstable();
    assert!(
        receiver
            .iter()
            .eq(sent.into_iter().map(|(_, number)| number))
    );
});

each_method_alone!(
    an_end_of_a_pipe_that_a_worker_had_is_not_its_successors,
    |method| {
        let one_item_each = || {
            Pool::builder()
                .workers(1)
                .max_tasks_per_worker(1)
                .start_method(method)
        };
        let pool = one_item_each().build().unwrap();
        let (sender, receiver) = lane();
        let mut outcomes = pool.with(sender).imap(0..3, send);
        assert_eq!(outcomes.next(), Some(Ok(())));
        for outcome in outcomes {
            assert_has_arrived_before(&outcome.unwrap_err());
        }
        drop(pool);
        assert_eq!(receiver.iter().collect::<Vec<u32>>(), [0]);

        let (sender, receiver) = lane();
        let with_state =
            one_item_each().initializer(sender, |sender: Sender<u32>| send(&sender, 7));
        let pool = with_state.build().unwrap();
        assert_eq!(pool.apply(1, |number: u32| number), Ok(1));
        let error = pool.apply(2, |number: u32| number).unwrap_err();
        assert_has_arrived_before(&error);
        drop(pool);
        assert_eq!(receiver.iter().collect::<Vec<u32>>(), [7]);
    }
);

each_method_alone!(
    an_end_of_a_pipe_that_died_with_a_worker_does_not_arrive_again,
    |method| {
        let pool = pool(method, 1);
        let (sender, receiver) = lane();
        send(&sender, 1);
        send(&sender, 2);
        let job = pool.job().retries(1);
        let outcome = job.apply(receiver, |receiver: Receiver<u32>| -> u32 {
            assert_eq!(receiver.recv().unwrap(), 1);
            std::process::abort()
        });
        let error = outcome.unwrap_err();
        assert!(error.is_crash() && error.attempts() == 1, "{error}");
        assert!(sender.send(3).unwrap_err().is_closed());
        assert_serves(&pool);
    }
);

each_method_alone!(
    captures_that_fill_the_ring_to_its_last_byte_cost_no_worker,
    |method| {
        let pool = pool(method, 1);
        let workers = pool.worker_pids();
        // With the 56 bytes in front of it, just what the ring holds: no byte of the first item fits.
        let captures = vec![0_u8; (2 << 20) - 56];
        let job = pool.with(captures);
        let first = job.map(vec![slice(5); 6], |_, slice: SharedSlice<u64>| slice[0]);
        assert_eq!(first.unwrap(), [5; 6]);
        assert_eq!(pool.worker_pids(), workers);
    }
);

#[test]
fn a_handle_that_many_items_share_takes_one_descriptor() {
    let name = "a_handle_that_many_items_share_takes_one_descriptor";
    let test = alone::test_path(module_path!(), name);
    alone::in_own_process(&test, LIMIT, || {
        setrlimit(Resource::RLIMIT_NOFILE, 256, 256).unwrap();
        // The superuser may have any number of them on their way.
        if nix::unistd::geteuid().is_root() {
            unsafely::become_nobody();
        }
        for method in [StartMethod::ForkServer, StartMethod::Spawn] {
            let pool = pool(method, 2);
            let workers = pool.worker_pids();
            let shared = slice(5);
            let items = (0..2000).map(|number| (shared.clone(), number));
            let job = pool.job().chunk_size(500);
            let sums = job.map(items, |(slice, number): (SharedSlice<u64>, u64)| {
                slice[0] + number
            });
            assert_eq!(sums.unwrap(), (5..2005).collect::<Vec<u64>>());
            assert_eq!(pool.worker_pids(), workers);
        }
    });
}

#[test]
fn a_foreign_serializer_is_refused() {
    let error = serde_json::to_string(&nested(1)).unwrap_err();
    assert!(error.to_string().contains("handle"), "{error}");
}
