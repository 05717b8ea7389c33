//! How late the waits with a time limit come back when nobody ends them: printed, `cargo test --test lateness -- --nocapture`, and
//! held to a bound that a busy machine keeps.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use multiprocess::{
    Array, Barrier, BoundedSemaphore, Condition, Event, Lock, Pipe, Queue, RLock, Semaphore,
};
use std::thread;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_millis(20);
const ROUNDS: u32 = 20;
/// On an idle machine it is 50 milliseconds, which is for whoever reads what is printed.
const LATE: Duration = Duration::from_secs(10);

/// Waits some times, and tells how late the latest was. None is early.
fn assert_in_time(what: &str, mut wait: impl FnMut()) {
    let mut latest = Duration::ZERO;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        wait();
        let took = start.elapsed();
        assert!(took >= LIMIT, "{what} came back after {took:?}");
        latest = latest.max(took - LIMIT);
    }
    println!("{what}: at most {latest:?} late in {ROUNDS} waits of {LIMIT:?}");
    assert!(latest < LATE, "{what} was {latest:?} late");
}

/// Runs `wait` on another thread, which does not hold what this one holds.
fn elsewhere(wait: impl Fn() + Sync) {
    thread::scope(|scope| scope.spawn(&wait).join().unwrap());
}

#[test]
fn locks_that_are_held_are_waited_for_in_time() {
    let lock = Lock::new(0_u64).unwrap();
    let guard = lock.lock().unwrap();
    elsewhere(|| {
        assert_in_time("Lock", || {
            assert!(lock.lock_timeout(LIMIT).unwrap().is_none())
        })
    });
    drop(guard);

    let lock = RLock::new().unwrap();
    let guard = lock.lock().unwrap();
    elsewhere(|| {
        assert_in_time("RLock", || {
            assert!(lock.lock_timeout(LIMIT).unwrap().is_none())
        })
    });
    drop(guard);

    let array = Array::from_slice(&[1, 2]).unwrap();
    let guard = array.lock();
    elsewhere(|| assert_in_time("Array", || assert!(array.lock_timeout(LIMIT).is_none())));
    drop(guard);
}

#[test]
fn what_does_not_come_is_waited_for_in_time() {
    let semaphore = Semaphore::new(0).unwrap();
    assert_in_time("Semaphore", || assert!(!semaphore.acquire_timeout(LIMIT)));
    let bounded = BoundedSemaphore::new(1).unwrap();
    bounded.acquire();
    assert_in_time("BoundedSemaphore", || {
        assert!(!bounded.acquire_timeout(LIMIT))
    });
    let event = Event::new().unwrap();
    assert_in_time("Event", || assert!(!event.wait_timeout(LIMIT)));
    let (lock, condition) = (Lock::new(()).unwrap(), Condition::new().unwrap());
    assert_in_time("Condition", || {
        let (_guard, result) = condition.wait_timeout(lock.lock().unwrap(), LIMIT).unwrap();
        assert!(result.timed_out());
    });
    assert_in_time("Condition, while", || {
        let waited = condition.wait_timeout_while(lock.lock().unwrap(), LIMIT, |()| true);
        assert!(waited.unwrap().1.timed_out());
    });
    let barrier = Barrier::new(2).unwrap();
    assert_in_time("Barrier", || {
        assert!(barrier.wait_timeout(LIMIT).unwrap_err().is_timeout());
        barrier.reset();
    });
}

#[test]
fn messages_and_room_are_waited_for_in_time() {
    let (here, there) = Pipe::<u64>::pair().unwrap();
    assert_in_time("Pipe, receiving", || {
        assert!(there.recv_timeout(LIMIT).unwrap_err().is_timeout());
    });
    while here.try_send(1).is_ok() {}
    assert_in_time("Pipe, sending", || {
        assert!(here.send_timeout(1, LIMIT).unwrap_err().is_timeout());
    });
    let queue = Queue::<u64>::bounded(1).unwrap();
    assert_in_time("Queue, getting", || {
        assert!(queue.get_timeout(LIMIT).unwrap_err().is_timeout());
    });
    queue.put(1).unwrap();
    assert_in_time("Queue, joining", || {
        assert!(queue.join_timeout(LIMIT).unwrap_err().is_timeout());
    });
    assert_in_time("Queue, putting", || {
        assert!(queue.put_timeout(2, LIMIT).unwrap_err().is_timeout());
    });
}
