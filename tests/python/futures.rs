//! Calls under way: `concurrent.futures`' `FutureTests`, `WaitTests`, `AsCompletedTests`, `ExecutorShutdownTest`, as far as they
//! are not asked elsewhere.

use crate::common::meet::{Gate, pass};
use crate::common::{each_method, each_method_alone, pool};
use crate::{LONG, SHORT};
use multiprocess::{AsyncResult, Pool, Portable, TaskError, Waitable, wait};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// A call that is not over before the gate lets it through.
fn behind(gate: &Gate, pool: &Pool, number: u32) -> AsyncResult<u32> {
    pool.with(gate.path()).apply_async(number, |gate, number| {
        pass(gate);
        number
    })
}

/// The places of those that are done, of all of them.
fn done<R: Portable>(calls: &[AsyncResult<R>], limit: Duration) -> Vec<usize> {
    let sources: Vec<&dyn Waitable> = calls.iter().map(|call| call as _).collect();
    wait(&sources, Some(limit)).unwrap()
}

// CPython: AsCompletedTests.test_no_timeout, WaitTests.test_first_completed
each_method!(as_completed, |method| {
    let (gate, pool) = (Gate::new(), pool(method, 2));
    let mut calls = vec![behind(&gate, &pool, 0)];
    calls.extend((1..4).map(|number| pool.apply_async(number, |number: u32| number)));
    let mut answers = Vec::new();
    while calls.len() > 1 {
        let ready = done(&calls, LONG);
        assert!(!ready.is_empty() && !ready.contains(&0));
        for place in ready.into_iter().rev() {
            answers.push(calls.swap_remove(place).get().unwrap());
        }
    }
    gate.let_through(1);
    assert_eq!(done(&calls, LONG), [0]);
    answers.extend(calls.into_iter().map(|call| call.get().unwrap()));
    assert_eq!(answers.pop(), Some(0));
    answers.sort_unstable();
    assert_eq!(answers, [1, 2, 3]);
});

// CPython: AsCompletedTests.test_future_times_out, test_correct_timeout_exception_msg, WaitTests.test_timeout
each_method!(a_wait_that_is_over_names_what_is_done, |method| {
    let (gate, pool) = (Gate::new(), pool(method, 2));
    let mut quick = pool.apply_async(7, |n: u32| n);
    let slow = behind(&gate, &pool, 1);
    let started = Instant::now();
    assert!(wait(&[&slow], Some(SHORT)).unwrap().is_empty());
    assert!(started.elapsed() >= SHORT);
    assert_eq!(wait(&[&slow, &quick], Some(LONG)).unwrap(), [1]);
    assert_eq!(quick.get_timeout(LONG).unwrap().unwrap(), 7);
    gate.let_through(1);
    assert_eq!(slow.get().unwrap(), 1);
});

// CPython: AsCompletedTests.test_duplicate_futures, WaitTests.test_20369
each_method!(one_result_twice_is_named_twice, |method| {
    let pool = pool(method, 1);
    let call = pool.apply_async((), |()| 1_u8);
    assert_eq!(wait(&[&call, &call], Some(LONG)).unwrap(), [0, 1]);
    assert_eq!(call.get().unwrap(), 1);
});

// CPython: WaitTests.test_first_completed_some_already_completed
each_method!(what_is_done_already_ends_a_wait_at_once, |method| {
    let (gate, pool) = (Gate::new(), pool(method, 2));
    let calls = [
        behind(&gate, &pool, 1),
        pool.apply_async(2, |number: u32| number),
    ];
    assert_eq!(done(&calls, LONG), [1]);
    // Without a limit it would wait for the other, if it waited at all.
    assert_eq!(done(&calls, Duration::ZERO), [1]);
    gate.let_through(1);
    assert_eq!(calls.map(|call| call.get().unwrap()), [1, 2]);
});

// CPython: WaitTests.test_all_completed
each_method!(all_completed, |method| {
    let pool = pool(method, 2);
    let calls: Vec<_> = (0..20_u32)
        .map(|number| pool.apply_async(number, |number| assert!(number != 7)))
        .collect();
    let ended: Vec<bool> = calls.into_iter().map(|call| call.get().is_ok()).collect();
    let expected: Vec<bool> = (0..20).map(|number| number != 7).collect();
    assert_eq!(ended, expected);
});

// CPython: FutureTests.test_done_callback_with_cancel
each_method!(the_callback_of_a_call_that_is_cancelled, |method| {
    let pool = pool(method, 1);
    let (tell, told) = mpsc::channel();
    let job = pool.job().on_done(move |result: &Result<(), TaskError>| {
        let is_cancelled = result.as_ref().is_err_and(TaskError::is_cancelled);
        tell.send(is_cancelled).unwrap();
    });
    let gate = Gate::new();
    let call = job.apply_async(gate.path(), |gate: std::path::PathBuf| pass(&gate));
    call.cancel();
    assert!(told.recv_timeout(LONG).unwrap());
    assert!(call.get().unwrap_err().is_cancelled());
    assert!(told.recv_timeout(SHORT).is_err());
});

// CPython: FutureTests.test_repr, test_done, test_running, test_cancelled
each_method!(it_is_ready_when_it_has_ended, |method| {
    let (gate, pool) = (Gate::new(), pool(method, 1));
    let mut calls = [
        behind(&gate, &pool, 1),
        pool.apply_async(2, |_: u32| panic!("never mind")),
        behind(&gate, &pool, 3),
    ];
    for call in &calls {
        assert!(!call.is_ready());
        assert!(format!("{call:?}").contains("is_ready: false"));
    }
    calls[2].cancel();
    gate.let_through(1);
    for call in &mut calls {
        assert!(wait(&[&*call], Some(LONG)).unwrap() == [0] && call.is_ready());
        assert!(format!("{call:?}").contains("is_ready: true"));
    }
    let [first, second, third] = calls.map(AsyncResult::get);
    assert_eq!(first.unwrap(), 1);
    assert_eq!(second.unwrap_err().panic_message(), Some("never mind"));
    assert!(third.unwrap_err().is_cancelled());
});

// CPython: FutureTests.test_result_with_cancel, test_exception_with_success: a thread waits already when it happens
each_method!(who_waits_for_a_result_learns_how_it_ended, |method| {
    let (gate, pool) = (Gate::new(), pool(method, 1));
    let failing = pool.with(gate.path()).apply_async((), |gate, ()| {
        pass(gate);
        panic!("too late");
    });
    let waiting = behind(&gate, &pool, 2);
    let (begun, begins) = mpsc::channel();
    let waiter = std::thread::spawn(move || {
        begun.send(()).unwrap();
        let failed: Result<(), TaskError> = failing.get();
        failed
    });
    begins.recv_timeout(LONG).unwrap();
    assert!(!waiter.is_finished());
    waiting.cancel();
    assert!(waiting.get().unwrap_err().is_cancelled());
    gate.let_through(1);
    let failed = waiter.join().unwrap().unwrap_err();
    assert_eq!(failed.panic_message(), Some("too late"));
});

// CPython: ExecutorShutdownTest.test_hang_issue12364
each_method_alone!(many_calls_under_way_when_the_pool_is_closed, |method| {
    let pool = pool(method, 2);
    let calls: Vec<_> = (0..50)
        .map(|_| pool.apply_async((), |()| std::thread::sleep(SHORT / 50)))
        .collect();
    pool.close();
    pool.join().unwrap();
    for mut call in calls {
        assert!(call.is_ready());
        call.get_timeout(Duration::ZERO).unwrap().unwrap();
    }
});
