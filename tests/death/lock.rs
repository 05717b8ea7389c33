//! `Lock`, `RLock`, and the robust words under them: whoever takes, waits or gives up is killed at each step.
//!
//! What is promised: of a holder that died the next one is told, and nobody else; the value is as it was, or as it was to be;
//! nobody waits for the dead.

use crate::board::Arm;
use crate::case::Then::{Done, Held, HeldDone, Undone};
use crate::case::{
    Case, Row, SOON, at, deaths, each, go_on, kill_now, result_of, stopped, wait_until_asleep,
};
use multiprocess::{Lock, LockGuard, OwnerDied, RLock};
use std::panic::{self, AssertUnwindSafe};

pub(crate) const TABLES: &[&[Row]] = &[
    HOLDER,
    HOLDER_WITH_WAITERS,
    WAITER,
    PANICKING,
    HOLDER_OF_TWO,
    HOLDER_AGAIN,
    AMONG_DEAD,
];

type Numbers = [u64; 4];
type Taken<'a, T> = Result<Option<LockGuard<'a, T>>, OwnerDied<LockGuard<'a, T>>>;

/// The guard, and whether the holder before had died.
fn soon(lock: &Lock<Numbers>) -> (LockGuard<'_, Numbers>, bool) {
    let taken: Taken<'_, Numbers> = lock.lock_timeout(SOON);
    match taken {
        Ok(guard) => (guard.expect("nobody gives the lock up"), false),
        Err(died) => (died.into_guard(), true),
    }
}

fn expected(case: Case) -> Numbers {
    [u64::from(case.is_done()); 4]
}

fn assert_serves(case: Case, lock: &Lock<Numbers>) {
    *lock.lock().unwrap() = [5; 4];
    let other = case.other(lock.clone(), |lock: Lock<Numbers>| {
        let (mut guard, died) = soon(&lock);
        guard[0] += 1;
        died
    });
    assert!(!result_of(other));
    assert_eq!(*lock.lock().unwrap(), [6, 5, 5, 5]);
}

const HOLDER: &[Row] = &[
    at("word::try::pending", Undone),
    at("word::take::taken", Held),
    at("held::link::counted", Held),
    at("held::link::pointed", Held),
    at("word::take::linked", Held),
    at("lock::take::held", Held),
    at("lock::write::copied", Held),
    at("lock::write::switched", HeldDone),
    at("held::unlink::out", HeldDone),
    at("word::give::unlinked", HeldDone),
    at("word::give::given", Done),
];

deaths!(a_holder, HOLDER, |case| {
    let lock = Lock::new([0; 4]).unwrap();
    let holder = case.victim(lock.clone(), |lock: Lock<Numbers>| {
        *lock.lock().unwrap() = [1; 4];
    });
    case.assert_killed(holder);
    {
        let (guard, died) = soon(&lock);
        assert_eq!((*guard, died), (expected(case), case.is_held()));
    }
    assert_serves(case, &lock);
});

const HOLDER_WITH_WAITERS: &[Row] = &[
    at("lock::write::copied", Held),
    at("lock::write::switched", HeldDone),
    at("held::unlink::out", HeldDone),
    at("word::give::unlinked", HeldDone),
    at("word::give::given", Done),
    at("word::tell::told", Done),
];

deaths!(a_holder_while_others_wait, HOLDER_WITH_WAITERS, |case| {
    let lock = Lock::new([0; 4]).unwrap();
    let args = (case.arm(), lock.clone());
    let stop = Arm::stop(1, "lock::take::held");
    let holder = stopped(case, stop, args, |(arm, lock): (Arm, Lock<Numbers>)| {
        arm.me();
        *lock.lock().unwrap() = [1; 4];
    });
    let waiters = [(); 2].map(|()| {
        case.other(lock.clone(), |lock: Lock<Numbers>| {
            let (guard, died) = soon(&lock);
            (*guard, died)
        })
    });
    waiters.iter().for_each(wait_until_asleep);
    go_on(&holder);
    case.assert_killed(holder);
    let got = waiters.map(result_of);
    assert!(got.iter().all(|(value, _)| *value == expected(case)));
    let told = got.iter().filter(|(_, died)| *died).count();
    assert_eq!(told, usize::from(case.is_held()));
    assert_serves(case, &lock);
});

const WAITER: &[Row] = &[
    at("word::acquire::pending", Undone),
    at("word::sleep::marked", Undone),
    at("word::sleep::woken", Undone),
    each("word::take::taken", 1, Held),
    at("held::link::pointed", Held),
    at("word::take::linked", Held),
];

deaths!(who_waits_for_a_lock, WAITER, |case| {
    let lock = Lock::new([0; 4]).unwrap();
    let guard = lock.lock().unwrap();
    let waiter = case.victim(lock.clone(), |lock: Lock<Numbers>| {
        *lock.lock().unwrap() = [1; 4];
    });
    wait_until_asleep(&waiter);
    let other = case.other(lock.clone(), |lock: Lock<Numbers>| {
        let (guard, died) = soon(&lock);
        (*guard, died)
    });
    wait_until_asleep(&other);
    drop(guard);
    case.assert_killed(waiter);
    let (value, was_told) = result_of(other);
    // Whoever of the two came after the other.
    let (guard, died) = soon(&lock);
    assert_eq!(
        u8::from(was_told) + u8::from(died),
        u8::from(case.is_held())
    );
    assert_eq!((value, *guard), ([0; 4], [0; 4]));
    drop(guard);
    assert_serves(case, &lock);
});

const PANICKING: &[Row] = &[
    at("word::give::unlinked", Held),
    at("word::broken::given", Held),
];

deaths!(a_holder_that_panics, PANICKING, |case| {
    let lock = Lock::new([0; 4]).unwrap();
    let args = (case.arm(), lock.clone());
    let stop = Arm::stop(1, "lock::take::held");
    let holder = stopped(case, stop, args, |(arm, lock): (Arm, Lock<Numbers>)| {
        arm.me();
        let _panicked = panic::catch_unwind(AssertUnwindSafe(|| {
            let mut guard = lock.lock().unwrap();
            *guard = [1; 4];
            panic!("as is wanted");
        }));
    });
    let waiter = case.other(lock.clone(), |lock: Lock<Numbers>| {
        let (guard, died) = soon(&lock);
        (*guard, died)
    });
    wait_until_asleep(&waiter);
    go_on(&holder);
    case.assert_killed(holder);
    assert_eq!(result_of(waiter), ([0; 4], true));
    assert_serves(case, &lock);
});

const HOLDER_OF_TWO: &[Row] = &[
    each("held::link::counted", 2, Held),
    each("word::take::linked", 2, Held),
    at("held::unlink::inner_out", Held),
    each("word::give::unlinked", 2, Held),
    each("word::give::given", 2, Held),
];

deaths!(a_holder_of_two, HOLDER_OF_TWO, |case| {
    let locks = [(); 2].map(|()| Lock::new([0; 4]).unwrap());
    let holder = case.victim(locks.clone(), |[first, second]: [Lock<Numbers>; 2]| {
        let outer = first.lock().unwrap();
        let _inner = second.lock().unwrap();
        // Not in the order in which the kernel has them.
        drop(outer);
    });
    case.assert_killed(holder);
    let told = locks.each_ref().map(|lock| soon(lock).1);
    let is_second = case.nth == 2;
    let expected = match case.row.step {
        "held::link::counted" | "word::take::linked" => [true, is_second],
        "word::give::given" => [false, !is_second],
        _ => [!is_second, true],
    };
    assert_eq!(told, expected);
    locks.iter().for_each(|lock| assert_serves(case, lock));
});

const HOLDER_AGAIN: &[Row] = &[
    at("rlock::take::held", Held),
    at("rlock::take::again", Held),
    each("rlock::give::counted", 2, Held),
    at("word::give::unlinked", Held),
    at("word::give::given", Undone),
];

deaths!(who_holds_a_lock_again, HOLDER_AGAIN, |case| {
    let lock = RLock::new().unwrap();
    let holder = case.victim(lock.clone(), |lock: RLock| {
        let _outer = lock.lock().unwrap();
        let _inner = lock.lock().unwrap();
    });
    case.assert_killed(holder);
    let died = match lock.lock_timeout(SOON) {
        Ok(guard) => {
            drop(guard.expect("nobody gives the lock up"));
            false
        }
        Err(died) => {
            drop(died.into_guard());
            true
        }
    };
    assert_eq!(died, case.is_held());
    let other = case.other(lock.clone(), |lock: RLock| {
        lock.try_lock().unwrap().is_some()
    });
    assert!(result_of(other));
});

const AMONG_DEAD: &[Row] = &[at("word::tell::told", Done), at("word::tell::nobody", Done)];

deaths!(a_holder_whose_waiter_is_dead, AMONG_DEAD, |case| {
    let lock = Lock::new([0; 4]).unwrap();
    let args = (case.arm(), lock.clone());
    let stop = Arm::stop(1, "lock::take::held");
    let holder = stopped(case, stop, args, |(arm, lock): (Arm, Lock<Numbers>)| {
        arm.me();
        *lock.lock().unwrap() = [1; 4];
    });
    let waiter = case.other(lock.clone(), |lock: Lock<Numbers>| soon(&lock).1);
    wait_until_asleep(&waiter);
    kill_now(waiter);
    go_on(&holder);
    case.assert_killed(holder);
    {
        let (guard, died) = soon(&lock);
        assert_eq!((*guard, died), ([1; 4], false));
    }
    assert_serves(case, &lock);
});
