//! `Array`: one at a time changes it, and a change is there as a whole or not at all.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::many::scaled;
use common::victim::{Random, Victim};
use common::{each_method, each_method_alone, pool};
use multiprocess::{Array, Process, Semaphore};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_millis(30);
/// When a call with a limit counts as hung.
const LATE: Duration = Duration::from_secs(2);

#[test]
fn it_holds_what_was_written() {
    let array: Array<u32> = Array::new(1000).unwrap();
    assert_eq!(*array.lock(), [0; 1000]);
    assert_eq!((array.len(), array.is_empty()), (1000, false));
    array.write(998, &[1, 2]);
    array.set(0, 7);
    assert_eq!(
        (array.get(999), array.get(1000), array.get(0)),
        (Some(2), None, Some(7))
    );
    let mut guard = array.lock();
    guard.sort_unstable_by(|a, b| b.cmp(a));
    drop(guard);
    assert_eq!(array.to_vec()[..4], [7, 2, 1, 0]);
    let odd = Array::from_slice(&[[1_u8, 2, 3]; 5]).unwrap();
    odd.write(1, &[[9; 3]; 2]);
    assert_eq!(
        *odd.lock(),
        [[1, 2, 3], [9; 3], [9; 3], [1, 2, 3], [1, 2, 3]]
    );
    let none: Array<u64> = Array::from_slice(&[]).unwrap();
    assert!(none.is_empty() && none.lock().is_empty() && none.get(0).is_none());
    assert!(Array::<u64>::new(usize::MAX).is_err());
    assert!(serde_json::to_string(&none).is_err());
}

#[test]
fn places_past_the_end_are_refused_and_the_lock_is_given_back() {
    let array = Array::from_slice(&[1_u16, 2, 3]).unwrap();
    let panics = |body: &dyn Fn()| catch_unwind(AssertUnwindSafe(body)).is_err();
    assert!(panics(&|| array.set(3, 0)));
    assert!(panics(&|| array.write(2, &[0, 0])));
    assert!(panics(&|| array.read(usize::MAX, &mut [0, 0])));
    assert!(panics(&|| array.lock()[3] = 0));
    assert_eq!(*array.lock(), [1, 2, 3]);
}

#[test]
fn one_holds_it_at_a_time() {
    let array = Array::from_slice(&[1_u8; 10]).unwrap();
    let guard = array.lock();
    assert!(array.try_lock().is_none());
    let start = Instant::now();
    assert!(array.lock_timeout(SOON).is_none());
    assert!(start.elapsed() >= SOON && start.elapsed() < SOON + LATE);
    assert!(
        catch_unwind(AssertUnwindSafe(|| array.get(0))).is_err(),
        "it would wait for itself"
    );
    drop(guard);
    assert!(array.try_lock().is_some() && array.lock_timeout(SOON).is_some());
}

#[test]
fn a_panic_with_the_lock_held_leaves_it_as_it_was() {
    let array = Array::from_slice(&[1_u64; 100]).unwrap();
    let failed = catch_unwind(AssertUnwindSafe(|| {
        let mut guard = array.lock();
        guard[..50].fill(2);
        panic!("half-way");
    }));
    assert!(failed.is_err());
    assert_eq!(*array.lock(), [1; 100]);
}

each_method_alone!(changes_of_all_processes_add_up, |method| {
    let array: Array<u64> = Array::new(50).unwrap();
    let all: Vec<Process> = (0..4)
        .map(|_| {
            let add = |array: Array<u64>| {
                for _ in 0..2000 {
                    array.lock().iter_mut().for_each(|value| *value += 1);
                }
            };
            Process::builder()
                .start_method(method)
                .spawn(array.clone(), add)
                .unwrap()
        })
        .collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2000 {
                let mut guard = array.lock();
                assert_eq!(*guard, [guard[0]; 50], "torn");
                guard.iter_mut().for_each(|value| *value += 1);
            }
        });
    });
    for process in all {
        process.join().unwrap();
    }
    assert_eq!(*array.lock(), [10_000; 50]);
});

each_method!(workers_fill_a_large_one_each_its_own_part, |method| {
    let array: Array<f32> = Array::new(1 << 20).unwrap();
    pool(method, 2)
        .with(array.clone())
        .map(0..64_usize, |array, part| {
            let values: Vec<f32> = (0..1 << 14).map(|n| (part << 14 | n) as f32).collect();
            array.write(part << 14, &values);
        })
        .unwrap();
    assert!(
        array
            .to_vec()
            .iter()
            .enumerate()
            .all(|(n, &value)| value == n as f32)
    );
});

each_method!(a_worker_makes_one_and_returns_it, |method| {
    let made = pool(method, 1).apply(3_i64, |n| Array::from_slice(&[n; 5]).unwrap());
    assert_eq!(*made.unwrap().lock(), [3; 5]);
});

each_method_alone!(
    a_process_that_dies_with_the_lock_held_leaves_it_as_it_was,
    |method| {
        let array = Array::from_slice(&[1_u64; 100]).unwrap();
        let held = Semaphore::new(0).unwrap();
        let holder = Process::builder().start_method(method).spawn(
            (array.clone(), held.clone()),
            |(array, held): (Array<u64>, Semaphore)| {
                let mut guard = array.lock();
                guard[..50].fill(2);
                held.release().unwrap();
                Semaphore::new(0).unwrap().acquire();
                drop(guard);
            },
        );
        let holder = holder.unwrap();
        held.acquire();
        assert!(array.try_lock().is_none());
        thread::scope(|scope| {
            let next = scope.spawn(|| array.to_vec());
            holder.kill().unwrap();
            assert_eq!(next.join().unwrap(), [1; 100]);
        });
        assert!(holder.join().unwrap_err().is_crash());
    }
);

#[test]
fn who_is_killed_at_any_instant_leaves_it_whole() {
    let test = "who_is_killed_at_any_instant_leaves_it_whole";
    common::alone::in_own_process(test, common::LIMIT, || {
        let array = Array::from_slice(&[0_u64; 500]).unwrap();
        let begun = Semaphore::new(0).unwrap();
        let mut random = Random::new();
        for _ in 0..scaled(1000) {
            let victim = Victim::new(|| {
                begun.release().unwrap();
                loop {
                    array.lock().iter_mut().for_each(|value| *value += 1);
                }
            });
            begun.acquire();
            random.pause(Duration::from_micros(200));
            victim.kill();
            let mut guard = array
                .lock_timeout(LATE * 5)
                .expect("nobody lives that holds it");
            assert_eq!(*guard, [guard[0]; 500], "torn");
            guard.iter_mut().for_each(|value| *value += 1);
        }
    });
}
