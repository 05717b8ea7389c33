//! What a hostile look once found broken in barriers, locks, queues and asynchronous calls.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::alone::{in_own_process, on_the_only_thread, test_path};
use common::{LIMIT, each_method, pool};
use multiprocess::{Barrier, Lock, Pool, Process, Queue, TaskError, scope};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::thread;
use std::time::Duration;

each_method!(who_comes_late_to_a_barrier_finds_the_dead, |method| {
    let barrier = Barrier::new(2).unwrap();
    for _ in 0..5 {
        barrier.reset();
        let waits = Process::builder().start_method(method);
        let mut dead: Process<bool> = waits
            .spawn(barrier.clone(), |barrier: Barrier| barrier.wait().is_ok())
            .unwrap();
        while barrier.waiting() == 0 {
            thread::yield_now();
        }
        dead.kill().unwrap();
        dead.wait().unwrap();
        // Whatever place a newcomer takes: dozens of threads would take each.
        for _ in 0..40 {
            let late = barrier.clone();
            let came = thread::spawn(move || late.wait_timeout(LIMIT))
                .join()
                .unwrap();
            assert!(came.unwrap_err().is_death());
        }
    }
});

#[test]
fn who_waits_at_a_barrier_is_told_of_resets_however_many() {
    for _ in 0..50 {
        let barrier = Barrier::new(2).unwrap();
        let waits = barrier.clone();
        let waiter = thread::spawn(move || waits.wait_timeout(LIMIT));
        while barrier.waiting() == 0 {
            thread::yield_now();
        }
        for _ in 0..256 {
            barrier.reset();
        }
        assert!(waiter.join().unwrap().is_err());
    }
}

#[test]
fn who_puts_without_handles_is_not_held_up_by_who_puts_with_some() {
    let queue = Queue::<Option<Queue<u8>>>::bounded(65).unwrap();
    let inner = Queue::<u8>::new().unwrap();
    queue.put(None).unwrap();
    for _ in 0..64 {
        queue.put(Some(inner.clone())).unwrap();
    }
    thread::scope(|scope| {
        scope.spawn(|| queue.put(Some(inner.clone())).unwrap());
        scope.spawn(|| queue.put_timeout(None, LIMIT).unwrap());
        // Only time tells that both wait.
        thread::sleep(Duration::from_millis(50));
        assert!(queue.get().unwrap().is_none());
        while !queue.is_full() {
            thread::yield_now();
        }
        assert!(queue.get().unwrap().is_some());
        while !queue.is_full() {
            thread::yield_now();
        }
    });
}

#[test]
fn a_queue_whose_file_must_be_small_loses_nothing() {
    let test = test_path(
        module_path!(),
        "a_queue_whose_file_must_be_small_loses_nothing",
    );
    in_own_process(&test, LIMIT, || {
        let (soft, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
        setrlimit(Resource::RLIMIT_FSIZE, 4 << 20, hard).unwrap();
        let queue = Queue::<Vec<u64>>::new().unwrap();
        for number in 0..3 {
            queue.put(vec![number; 100]).unwrap();
        }
        for number in 0..20_000 {
            queue.put(vec![number + 3; 100]).unwrap();
            assert_eq!(queue.get().unwrap(), vec![number; 100]);
        }
        setrlimit(Resource::RLIMIT_FSIZE, soft, hard).unwrap();
    });
}

#[test]
fn a_guard_that_a_scope_has_copied_changes_nothing() {
    let test = test_path(
        module_path!(),
        "a_guard_that_a_scope_has_copied_changes_nothing",
    );
    on_the_only_thread(&test, LIMIT, || {
        let lock = Lock::new([0_u64; 2]).unwrap();
        let (turn, next) = (Lock::new(0_u8).unwrap(), Lock::new(0_u8).unwrap());
        let mut guard = lock.lock().unwrap();
        *guard = [1, 1];
        scope(|s| {
            let (turn, next) = (&turn, &next);
            let child = s.spawn(move || {
                while *turn.lock().unwrap() == 0 {
                    thread::yield_now();
                }
                drop(guard);
                *next.lock().unwrap() = 1;
            });
            *lock.lock().unwrap() = [301, 301];
            *turn.lock().unwrap() = 1;
            child.join().unwrap();
        })
        .unwrap();
        assert_eq!(*next.lock().unwrap(), 1);
        assert_eq!(*lock.lock().unwrap(), [301, 301]);
    });
}

#[test]
fn what_a_scope_has_copied_keeps_its_place() {
    let test = test_path(module_path!(), "what_a_scope_has_copied_keeps_its_place");
    on_the_only_thread(&test, LIMIT, || {
        let beside = Lock::new(0_u64).unwrap();
        let lock = Lock::new(5_u64).unwrap();
        let told = scope(|s| {
            let beside = &beside;
            let child = s.spawn(move || {
                while *beside.lock().unwrap() == 0 {
                    thread::yield_now();
                }
                *lock.lock().unwrap()
            });
            let other = Lock::new(1000_u64).unwrap();
            *other.lock().unwrap() += 1;
            *beside.lock().unwrap() = 1;
            child.join()
        });
        assert_eq!(told.unwrap().unwrap(), 5);
    });
}

each_method!(what_comes_before_the_first_item_is_not_its_time, |method| {
    let pool = Pool::builder()
        .workers(1)
        .start_method(method)
        .initializer((), |()| thread::sleep(Duration::from_secs(4)))
        .build()
        .unwrap();
    let job = pool.job().timeout(Duration::from_secs(2));
    assert_eq!(job.map([1_u32, 2], |n| n).unwrap(), [1, 2]);
});

/// Panics when it is dropped on the pool's own thread.
#[derive(Serialize, Deserialize)]
struct Bomb(u8);

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(thread::current().name() != Some("pool"), "dropped");
    }
}

each_method!(a_result_whose_drop_panics_stops_no_other_call, |method| {
    let pool = pool(method, 1);
    let watched = pool.job().on_done(|_: &Result<Bomb, TaskError>| ());
    drop(watched.apply_async(1_u8, Bomb));
    let mut later = pool.apply_async(2_u32, |n: u32| n);
    assert_eq!(later.get_timeout(LIMIT).unwrap(), Ok(2));
    let mut last = pool.apply_async(3_u32, |n: u32| n);
    assert_eq!(last.get_timeout(LIMIT).unwrap(), Ok(3));
});
