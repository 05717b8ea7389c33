//! `Lock` and `RLock`: one at a time, whoever it is, and nobody waits for the dead.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::many::{Random, join_all, kill_and_wait, scaled, start, start_many};
use common::meet::{Ear, say};
use common::{LONG_LIMIT, each_method, each_method_alone};
use multiprocess::{Lock, LockGuard, OwnerDied, Pool, Process, RLock, RLockGuard, Value};
use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// When somebody counts as waiting for ever.
const SOON: Duration = Duration::from_secs(30);

each_method!(processes_that_count_lose_nothing, |method| {
    for processes in [2, 4, 16] {
        let each = scaled(20_000);
        let number = Lock::new(0_u64).unwrap();
        let counting = start_many(
            method,
            processes,
            &(number.clone(), each),
            |(number, each)| {
                for _ in 0..each {
                    *number.lock().unwrap() += 1;
                }
            },
        );
        join_all(counting);
        assert_eq!(*number.lock().unwrap(), each * processes as u64);
    }
});

each_method!(threads_and_processes_count_together, |method| {
    let number = Lock::new([0_u32; 3]).unwrap();
    let each = u32::try_from(scaled(20_000)).unwrap();
    let process = start(
        method,
        (number.clone(), each),
        |(number, each): (Lock<[u32; 3]>, u32)| {
            for _ in 0..each {
                let mut guard = number.lock().unwrap();
                *guard = guard.map(|part| part + 1);
            }
        },
    );
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..each {
                    let mut guard = number.lock().unwrap();
                    *guard = guard.map(|part| part + 1);
                }
            });
        }
    });
    process.join().unwrap();
    assert_eq!(*number.lock().unwrap(), [3 * each; 3]);
});

each_method!(
    the_next_after_a_holder_that_was_killed_is_told_and_finds_the_old_value,
    |method| {
        let mut ear = Ear::new();
        let lock = Lock::new(5_u64).unwrap();
        let holder = start(
            method,
            (lock.clone(), ear.path()),
            |(lock, ear): (Lock<u64>, PathBuf)| {
                let mut guard = lock.lock().unwrap();
                *guard = 6;
                say(&ear, "held");
                std::thread::park();
            },
        );
        ear.hear();
        assert!(lock.try_lock().unwrap().is_none());
        assert!(
            lock.lock_timeout(Duration::from_millis(20))
                .unwrap()
                .is_none()
        );
        let waiting = std::thread::spawn({
            let lock = lock.clone();
            move || lock.lock().is_err()
        });
        kill_and_wait(holder);
        assert!(waiting.join().unwrap());
        // It has passed the news on.
        assert!(format!("{lock:?}").contains("owner_died: true"));
        let died = lock.lock_timeout(SOON).unwrap_err();
        assert!(died.to_string().contains("died"));
        let guard = died.into_guard();
        assert_eq!(*guard, 5);
        drop(guard);
        assert_eq!(**lock.try_lock().unwrap().as_ref().unwrap(), 5);
    }
);

each_method!(a_holder_that_panics_is_one_that_died, |method| {
    let lock = Lock::new(1_u8).unwrap();
    let process = start(method, lock.clone(), |lock: Lock<u8>| {
        *lock.lock().unwrap() = 2;
        let mut guard = lock.lock().unwrap();
        *guard = 3;
        panic!("holding a lock");
    });
    assert!(process.join().map(|(): ()| ()).unwrap_err().is_panic());
    assert_eq!(*lock.lock().unwrap_err().into_guard(), 2);
});

each_method_alone!(
    holders_killed_at_any_instant_leave_a_whole_value,
    LONG_LIMIT,
    |method| {
        let lock = Lock::new([0_u64; 8]).unwrap();
        let mut random = Random::new();
        let counter = |lock: Lock<[u64; 8]>| {
            loop {
                let mut guard = match lock.lock_timeout(SOON) {
                    // It ends: its killer, who waits for the lock as well, fails.
                    Ok(None) => return,
                    Ok(Some(guard)) => guard,
                    Err(died) => died.into_guard(),
                };
                for part in guard.iter_mut() {
                    *part += 1;
                }
            }
        };
        let mut counting: Vec<_> = start_many(method, 3, &lock, counter);
        let mut deaths = 0;
        for _ in 0..scaled(150) {
            random.pause(Duration::from_micros(300));
            let one = usize::try_from(random.below(3)).unwrap();
            kill_and_wait(std::mem::replace(
                &mut counting[one],
                start(method, lock.clone(), counter),
            ));
            let guard = match lock.lock_timeout(SOON) {
                Ok(guard) => guard.expect("nobody hands the lock on"),
                Err(died) => {
                    deaths += 1;
                    died.into_guard()
                }
            };
            assert!(guard.iter().all(|part| *part == guard[0]), "{guard:?}");
        }
        counting.into_iter().for_each(kill_and_wait);
        eprintln!("{deaths} deaths were seen from here");
    }
);

each_method_alone!(
    holders_killed_at_any_instant_hand_an_rlock_on,
    LONG_LIMIT,
    |method| {
        let lock = RLock::new().unwrap();
        let inside = Value::new(0_u32).unwrap();
        let both = (lock.clone(), inside.clone());
        let mut random = Random::new();
        let hold = |(lock, inside): (RLock, Value<u32>)| {
            loop {
                let outer = match lock.lock_timeout(SOON) {
                    Ok(None) => return,
                    Ok(Some(guard)) => guard,
                    Err(died) => died.into_guard(),
                };
                inside.set(std::process::id());
                // Who holds it already is told of nobody's death.
                drop(lock.lock().unwrap());
                assert_eq!(inside.get(), std::process::id());
                drop(outer);
            }
        };
        let mut holding: Vec<_> = start_many(method, 3, &both, hold);
        let mut deaths = 0;
        for _ in 0..scaled(150) {
            random.pause(Duration::from_micros(300));
            let one = usize::try_from(random.below(3)).unwrap();
            let another = start(method, both.clone(), hold);
            let one = std::mem::replace(&mut holding[one], another);
            assert!(one.is_alive(), "two were inside, or nobody handed it on");
            kill_and_wait(one);
            let guard = match lock.lock_timeout(SOON) {
                Ok(guard) => guard.expect("nobody hands the lock on"),
                Err(died) => {
                    deaths += 1;
                    died.into_guard()
                }
            };
            inside.set(std::process::id());
            drop(lock.lock().unwrap());
            assert_eq!(inside.get(), std::process::id());
            drop(guard);
        }
        holding.into_iter().for_each(kill_and_wait);
        eprintln!("{deaths} deaths were seen from here");
    }
);

each_method!(a_lock_travels_in_captures_items_and_results, |method| {
    let pool = Pool::builder()
        .workers(2)
        .start_method(method)
        .build()
        .unwrap();
    let made_there = pool
        .apply(7_u16, |value| Lock::new(value).unwrap())
        .unwrap();
    assert_eq!(*made_there.lock().unwrap(), 7);
    let total = Lock::new(0_u64).unwrap();
    let add = |total: &Lock<u64>, (other, number): (Lock<u16>, u64)| {
        *other.lock().unwrap() += 1;
        *total.lock().unwrap() += number;
    };
    let items = (0..100).map(|number| (made_there.clone(), number));
    pool.with(total.clone()).map(items, add).unwrap();
    assert_eq!(
        (*total.lock().unwrap(), *made_there.lock().unwrap()),
        (4950, 107)
    );
});

each_method!(a_limit_is_kept, |method| {
    let mut ear = Ear::new();
    let lock = RLock::new().unwrap();
    let plain = Lock::new(()).unwrap();
    let both = (lock.clone(), plain.clone(), ear.path());
    let holder = start(
        method,
        both,
        |(lock, plain, ear): (RLock, Lock, PathBuf)| {
            let _guards = (lock.lock().unwrap(), plain.lock().unwrap());
            say(&ear, "held");
            std::thread::park();
        },
    );
    ear.hear();
    for limit in [1, 30, 100].map(Duration::from_millis) {
        let start = Instant::now();
        assert!(lock.lock_timeout(limit).unwrap().is_none());
        assert!(plain.lock_timeout(limit).unwrap().is_none());
        assert!(start.elapsed() >= 2 * limit && start.elapsed() < SOON);
    }
    kill_and_wait(holder);
});

each_method!(
    a_recursive_lock_is_given_up_as_often_as_it_was_taken,
    |method| {
        let lock = RLock::new().unwrap();
        let is_free = |lock: &RLock| {
            let asked = start(method, lock.clone(), |lock: RLock| {
                lock.try_lock().unwrap().is_some()
            });
            asked.join().unwrap()
        };
        let one = lock.lock().unwrap();
        let two = lock.lock_timeout(SOON).unwrap().unwrap();
        let other = lock.clone();
        let three = other.try_lock().unwrap().unwrap();
        assert!(
            format!("{lock:?}").contains("taken_by_this_thread: 3"),
            "{lock:?}"
        );
        // In any order.
        drop(one);
        assert!(!is_free(&lock));
        drop(three);
        assert!(!is_free(&lock));
        drop(two);
        assert!(is_free(&lock));
    }
);

each_method!(the_death_of_a_recursive_holder_is_told, |method| {
    let mut ear = Ear::new();
    let lock = RLock::new().unwrap();
    let holder = start(
        method,
        (lock.clone(), ear.path()),
        |(lock, ear): (RLock, PathBuf)| {
            let _guards = (lock.lock().unwrap(), lock.lock().unwrap());
            say(&ear, "held");
            std::thread::park();
        },
    );
    ear.hear();
    kill_and_wait(holder);
    // Not taken over, it is told again.
    drop(lock.lock().unwrap_err());
    drop(lock.lock().unwrap_err().into_guard());
    assert!(lock.lock().is_ok());
});

each_method!(what_is_printed_names_the_holder, |method| {
    let mut ear = Ear::new();
    let lock = Lock::new(()).unwrap();
    assert_eq!(
        format!("{lock:?}"),
        "Lock { owner: None, owner_died: false }"
    );
    let holder = multiprocess::Process::builder()
        .name("holder-7")
        .start_method(method)
        .spawn(
            (lock.clone(), ear.path()),
            |(lock, ear): (Lock, PathBuf)| {
                let _guard = lock.lock().unwrap();
                say(&ear, "held");
                std::thread::park();
            },
        )
        .unwrap();
    ear.hear();
    let printed = format!("{lock:?}");
    let expected = format!("owner: holder-7 (pid {})", holder.pid());
    assert!(printed.contains(&expected), "{printed}");
    kill_and_wait(holder);
});

#[test]
fn locks_are_given_up_in_any_order() {
    let locks: Vec<Lock<u8>> = (0..20).map(|_| Lock::new(0).unwrap()).collect();
    let mut guards: Vec<_> = locks.iter().map(|lock| lock.lock().unwrap()).collect();
    for at in [3, 16, 0, 8, 8] {
        *guards[at] += 1;
        drop(guards.remove(at));
    }
    guards.clear();
    assert!(locks.iter().all(|lock| lock.try_lock().unwrap().is_some()));
}

#[test]
fn a_thread_that_would_wait_for_itself_is_told() {
    let lock = Lock::new(()).unwrap();
    let _guard = lock.lock().unwrap();
    assert!(lock.try_lock().unwrap().is_none());
    let again = std::panic::AssertUnwindSafe(|| lock.lock().is_ok());
    assert!(std::panic::catch_unwind(again).is_err());
}

#[test]
fn a_guard_that_is_forgotten_is_held_until_its_thread_ends() {
    // Elsewhere, since its memory stays until the process ends.
    let process = Process::spawn((), |()| {
        let lock = Lock::new(3_u8).unwrap();
        let other = lock.clone();
        std::thread::spawn(move || std::mem::forget(other.lock().unwrap()))
            .join()
            .unwrap();
        let guard = lock.lock_timeout(SOON).map(drop);
        assert!(guard.is_err());
        // One whose every handle is gone, and then others in the same memory.
        let gone = Lock::new(1_u64).unwrap();
        std::mem::forget(gone.lock().unwrap());
        drop(gone);
        let others: Vec<Lock<u64>> = (0..10).map(|n| Lock::new(n).unwrap()).collect();
        let mut others = others.iter();
        assert!(others.all(|other| other.try_lock().unwrap().is_some()));
    });
    process.unwrap().join().unwrap();
}

#[test]
fn a_foreign_serializer_is_refused() {
    assert!(serde_json::to_string(&Lock::new(1_u8).unwrap()).is_err());
    assert!(serde_json::to_string(&RLock::new().unwrap()).is_err());
}

#[test]
fn an_owners_death_is_an_error_of_this_crate_too() {
    fn take(lock: &Lock<u8>) -> multiprocess::Result<u8> {
        Ok(*lock.lock()?)
    }
    let lock = Lock::new(1_u8).unwrap();
    let panicking = lock.clone();
    let thread = std::thread::spawn(move || {
        let _guard = panicking.lock().unwrap();
        panic!("holding a lock");
    });
    thread.join().unwrap_err();
    assert!(
        take(&lock)
            .unwrap_err()
            .to_string()
            .starts_with("cannot take a lock: ")
    );
    assert_eq!(*lock.lock().unwrap_or_else(OwnerDied::into_guard), 1);
    assert_eq!(take(&lock).unwrap(), 1);
}

/// Something that a thread drops at its very end, after all that was first used later.
struct AtTheEnd<T>(Option<T>, fn(&mut Option<T>));

impl<T> Drop for AtTheEnd<T> {
    fn drop(&mut self) {
        (self.1)(&mut self.0);
    }
}

fn rlock() -> &'static RLock {
    static LOCK: OnceLock<RLock> = OnceLock::new();
    LOCK.get_or_init(|| RLock::new().unwrap())
}

fn lock_of_a_number() -> &'static Lock<u32> {
    static LOCK: OnceLock<Lock<u32>> = OnceLock::new();
    LOCK.get_or_init(|| Lock::new(1).unwrap())
}

fn at_the_end_of_a_thread(body: impl FnOnce() + Send + 'static) {
    std::thread::spawn(body).join().unwrap();
}

#[test]
fn a_guard_that_its_thread_drops_at_its_very_end_is_given_up() {
    thread_local! {
        static OF_RLOCK: RefCell<AtTheEnd<RLockGuard<'static>>> =
            const { RefCell::new(AtTheEnd(None, |guard| drop(guard.take()))) };
        static OF_LOCK: RefCell<AtTheEnd<LockGuard<'static, u32>>> =
            const { RefCell::new(AtTheEnd(None, |guard| drop(guard.take()))) };
    }
    // Elsewhere, since what is static stays until the process ends.
    let process = Process::spawn((), |()| {
        at_the_end_of_a_thread(|| {
            OF_RLOCK.with_borrow_mut(|kept| kept.0 = Some(rlock().lock().unwrap()));
            OF_LOCK.with_borrow_mut(|kept| {
                let mut guard = lock_of_a_number().lock().unwrap();
                *guard = 7;
                kept.0 = Some(guard);
            });
        });
        assert!(rlock().lock_timeout(SOON).unwrap().is_some());
        let guard = lock_of_a_number().lock_timeout(SOON).unwrap();
        assert_eq!(guard.as_deref(), Some(&7));
    });
    process.unwrap().join().unwrap();
}

#[test]
fn a_forgotten_guard_is_told_of_though_its_thread_takes_more_at_its_very_end() {
    thread_local! {
        static LATE: RefCell<AtTheEnd<Lock<u8>>> = const {
            RefCell::new(AtTheEnd(None, |other| {
                *other.as_ref().unwrap().lock().unwrap() += 1;
            }))
        };
    }
    // Elsewhere, since its memory stays until the process ends.
    let process = Process::spawn((), |()| {
        let (lock, other) = (Lock::new(3_u8).unwrap(), Lock::new(1_u8).unwrap());
        let (forgotten, late) = (lock.clone(), other.clone());
        at_the_end_of_a_thread(move || {
            LATE.with_borrow_mut(|kept| kept.0 = Some(late));
            std::mem::forget(forgotten.lock().unwrap());
        });
        assert!(lock.lock_timeout(SOON).is_err());
        assert_eq!(*other.lock().unwrap(), 2);
    });
    process.unwrap().join().unwrap();
}

#[test]
fn an_rlock_can_be_taken_at_the_very_end_of_a_thread_that_had_it_before() {
    thread_local! {
        static LATE: RefCell<AtTheEnd<()>> = const {
            RefCell::new(AtTheEnd(None, |_| {
                let outer = rlock().lock().unwrap();
                let inner = rlock().lock().unwrap();
                drop(inner);
                assert!(std::thread::scope(|scope| {
                    let others = scope.spawn(|| rlock().try_lock().unwrap().is_none());
                    others.join().unwrap()
                }));
                drop(outer);
            }))
        };
    }
    // Elsewhere, since a panic at the end of a thread ends its process.
    let process = Process::spawn((), |()| {
        at_the_end_of_a_thread(|| {
            LATE.with_borrow_mut(|kept| kept.0 = None);
            drop(rlock().lock().unwrap());
        });
        assert!(rlock().lock_timeout(SOON).unwrap().is_some());
    });
    process.unwrap().join().unwrap();
}
