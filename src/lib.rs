//! Runs functions in other processes, as easily as on threads: a pool in which a crash costs one item, with no set-up.
//!
//! ```
//! use multiprocess::Pool;
//!
//! let pool = Pool::new()?;
//! let lines = ["to be or not to be", "that is the question"].map(String::from);
//! let words = pool.map(lines, |line| line.split(' ').count())?;
//! assert_eq!(words, [6, 4]);
//! # Ok::<(), multiprocess::Error>(())
//! ```
//!
//! There is no `init()` to call, no attribute and no macro: it works in `main`, in tests, doc tests and benches alike. A worker
//! is the same program, started once more; it is told which function to run by the function's place in the executable.
//!
//! | to | use |
//! |---|---|
//! | run a function on many items | [`Pool::map`], [`Pool::imap`], [`Pool::imap_unordered`] |
//! | give it something beside each item | [`Pool::with`] |
//! | run one call elsewhere | [`Pool::apply`] |
//! | do something else meanwhile, or await it | [`Pool::apply_async`], [`Pool::map_async`] |
//! | limit its time, try it again, cancel it | [`Job::timeout`], [`Job::retries`], [`AsyncResult::cancel`] |
//! | prepare each worker | [`PoolBuilder::initializer`], [`worker_state`] |
//! | run a function in a process of its own | [`Process::spawn`], [`Process::builder`], [`Run`] |
//! | run closures that borrow what is here | [`scope`] |
//! | send a function with its captures | [`Closure`] |
//! | read large data in place, in every process | [`SharedSlice`] |
//! | share a number, or other plain data, that changes | [`Value`], [`Array`] |
//! | let so many through at a time | [`Semaphore`], [`BoundedSemaphore`] |
//! | wait until something has happened | [`Event`] |
//! | share bytes with programs in other languages | [`SharedMemory`] |
//! | pass values between processes, many to many | [`Queue`] |
//! | let one process at a time do something | [`Lock`], [`RLock`] |
//! | wait for each other, or for a change | [`Barrier`], [`Condition`] |
//! | learn what became of a function | [`TaskError`] |
//!
//! A function that runs elsewhere captures nothing ([`Stateless`]); what it takes and returns is written and read by serde
//! ([`Portable`]).
//!
//! Linux only (x86-64 and aarch64, kernel 5.10 or newer).

mod deadline;
mod error;
mod sys;
mod shm;
mod wire;
mod task;
mod sync;
mod pipe;
mod shared;
mod queue;
mod process;
mod pool;
mod wait;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;

pub use error::{Error, Result, SendError, TaskError, TaskErrorKind};
pub use pipe::{Pipe, Receiver, Sender};
pub use pool::{
    AsyncResult, Callback, Done, FunctionStats, Imap, ImapUnordered, Job, NoCallback, Pool,
    PoolBuilder, PoolStats, TakesCaptures, TakesItem, WorkerStats,
};
pub use process::{
    ChildInfo, CurrentProcess, ParentProcess, Process, ProcessBuilder, Run, Scope, ScopedProcess,
    StartMethod, active_children, available_parallelism, current_process, scope,
};
pub use queue::Queue;
pub use shared::{Array, ArrayGuard, Integer, SharedMemory, SharedSlice, Value};
pub use sync::{
    Barrier, BarrierError, BarrierWaitResult, BoundedSemaphore, Condition, Event, Guard, Lock,
    LockGuard, OwnerDied, RLock, RLockGuard, Semaphore, WaitTimeoutResult,
};
pub use task::{Closure, Portable, Stateless, worker_state};
pub use wait::{Waitable, wait};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/GUIDE.md")]
struct Guide;

#[cfg(doctest)]
#[doc = include_str!("../docs/FROM_PYTHON.md")]
struct FromPython;

#[cfg(doctest)]
#[doc = include_str!("../docs/START_METHODS.md")]
struct StartMethods;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_share_or_hand_over_may_be() {
        fn shared<T: Send + Sync>() {}
        shared::<Pool>();
        shared::<Process<u8>>();
        shared::<Closure<u8, u8>>();
        shared::<Semaphore>();
        shared::<BoundedSemaphore>();
        shared::<Event>();
        shared::<Value<u8>>();
        shared::<Array<u8>>();
        shared::<SharedSlice<f32>>();
        shared::<SharedMemory>();
        shared::<Queue<std::cell::Cell<u8>>>();
        shared::<Lock<u8>>();
        shared::<RLock>();
        shared::<Condition>();
        shared::<Barrier>();
        shared::<Error>();
        shared::<TaskError>();
        shared::<AsyncResult<std::rc::Rc<u8>>>();
    }
}
