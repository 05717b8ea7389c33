//! Deadlocks of executors: CPython's `ExecutorDeadlockTest`. There the executor is then broken; here the item has failed, and
//! the pool goes on.

use crate::common::{assert_serves, each_method_alone, kill_hard, pool};
use multiprocess::{Pool, TaskError, TaskErrorKind};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What happens at a step of an item's way.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Crash,
    Exit,
    Error,
}

impl Fault {
    fn happen(self) -> &'static str {
        match self {
            Fault::Crash => {
                kill_hard(std::process::id());
                "not reached"
            }
            Fault::Exit => std::process::exit(1),
            Fault::Error => "it fails here",
        }
    }
}

/// A value to which something happens while it is encoded, or while it is decoded.
macro_rules! faulty {
    ($name:ident, $fault:expr, at_encode) => {
        #[derive(Debug, Deserialize)]
        struct $name;

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(S::Error::custom($fault.happen()))
            }
        }
    };
    ($name:ident, $fault:expr, at_decode) => {
        #[derive(Debug, Serialize)]
        struct $name;

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
                Err(D::Error::custom($fault.happen()))
            }
        }
    };
}

faulty!(ErrorAtPickle, Fault::Error, at_encode);
faulty!(CrashAtPickle, Fault::Crash, at_encode);
faulty!(ExitAtPickle, Fault::Exit, at_encode);
faulty!(ErrorAtUnpickle, Fault::Error, at_decode);
faulty!(CrashAtUnpickle, Fault::Crash, at_decode);
faulty!(ExitAtUnpickle, Fault::Exit, at_decode);

/// The item failed in this way, items beside it did not, and the pool serves.
#[track_caller]
fn assert_only<R: std::fmt::Debug>(pool: &Pool, result: Result<R, TaskError>, kind: TaskErrorKind) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert_serves(pool);
}

macro_rules! item_fails {
    ($name:ident, $argument:expr, $function:expr, $kind:ident) => {
        each_method_alone!($name, |method| {
            let pool = pool(method, 2);
            // One item that is under way meanwhile.
            let beside = pool.apply_async(20, |n: i32| {
                std::thread::sleep(crate::SHORT);
                n + 1
            });
            let result = pool.apply_async($argument, $function).get();
            assert_only(&pool, result, TaskErrorKind::$kind);
            assert_eq!(beside.get().unwrap(), 21);
        });
    };
}

// CPython: ExecutorDeadlockTest.test_error_at_task_pickle
item_fails!(
    error_at_task_pickle,
    ErrorAtPickle,
    |_| (),
    ArgumentEncoding
);
// CPython: test_exit_at_task_unpickle
item_fails!(exit_at_task_unpickle, ExitAtUnpickle, |_| (), Crash);
// CPython: test_error_at_task_unpickle
item_fails!(
    error_at_task_unpickle,
    ErrorAtUnpickle,
    |_| (),
    ArgumentDecoding
);
// CPython: test_crash_at_task_unpickle
item_fails!(crash_at_task_unpickle, CrashAtUnpickle, |_| (), Crash);
// CPython: test_crash_during_func_exec_on_worker
item_fails!(
    crash_during_func_exec,
    (),
    |()| Fault::Crash.happen().len(),
    Crash
);
// CPython: test_exit_during_func_exec_on_worker
item_fails!(
    exit_during_func_exec,
    (),
    |()| Fault::Exit.happen().len(),
    Crash
);
// CPython: test_error_during_func_exec_on_worker
item_fails!(
    error_during_func_exec,
    (),
    |()| -> u8 { panic!("{}", Fault::Error.happen()) },
    Panic
);
// CPython: test_crash_during_result_pickle_on_worker
item_fails!(crash_during_result_pickle, (), |()| CrashAtPickle, Crash);
// CPython: test_exit_during_result_pickle_on_worker
item_fails!(exit_during_result_pickle, (), |()| ExitAtPickle, Crash);
// CPython: test_error_during_result_pickle_on_worker
item_fails!(
    error_during_result_pickle,
    (),
    |()| ErrorAtPickle,
    ResultEncoding
);
// CPython: test_error_during_result_unpickle_in_result_handler
item_fails!(
    error_during_result_unpickle,
    (),
    |()| ErrorAtUnpickle,
    ResultDecoding
);

/// What panics while it is decoded, as an exit is an exception there.
#[derive(Debug, Serialize)]
struct PanicAtUnpickle;

impl<'de> Deserialize<'de> for PanicAtUnpickle {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("it leaves here")
    }
}

// CPython: test_exit_during_result_unpickle_in_result_handler
item_fails!(
    exit_during_result_unpickle,
    (),
    |()| PanicAtUnpickle,
    ResultDecoding
);

// CPython: test_shutdown_deadlock
each_method_alone!(shutdown_deadlock, |method| {
    let pool = pool(method, 2);
    let crash = pool.apply_async((), |()| kill_hard(std::process::id()));
    pool.close();
    pool.join().unwrap();
    assert!(crash.get().unwrap_err().is_crash());
});

// CPython: test_shutdown_deadlock_pickle (issue 39104): it is closed while what cannot be encoded is handed over
each_method_alone!(shutdown_deadlock_pickle, |method| {
    let pool = pool(method, 2);
    let failed = pool.apply_async(ErrorAtPickle, |_| ());
    pool.close();
    pool.join().unwrap();
    assert_eq!(
        failed.get().unwrap_err().kind(),
        TaskErrorKind::ArgumentEncoding
    );
});

// CPython: test_crash_big_data (gh-94777): workers die while large arguments wait to be written to them
each_method_alone!(crash_big_data, |method| {
    let pool = pool(method, 2);
    let results: Vec<_> = (0..4)
        .map(|_| {
            pool.apply_async(vec![b'a'; 32 << 20], |bytes: Vec<u8>| {
                kill_hard(std::process::id());
                bytes.len()
            })
        })
        .collect();
    for result in results {
        assert!(result.get().unwrap_err().is_crash());
    }
    assert_serves(&pool);
});

// CPython: test_gh105829_should_not_deadlock_if_wakeup_pipe_full: more calls than any pipe of wake-ups holds, at once
each_method_alone!(more_calls_than_a_pipe_of_wake_ups_holds, |method| {
    let pool = pool(method, 1);
    let results: Vec<_> = (0..20_000_u64)
        .map(|n| pool.apply_async(n, |n| n))
        .collect();
    for (n, result) in (0..).zip(results) {
        assert_eq!(result.get().unwrap(), n);
    }
});
