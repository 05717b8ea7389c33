//! How a [`Pool`] is built.

use crate::error::{Error, Result, TaskError};
use crate::pool::driver::Driver;
use crate::pool::handle::Pool;
use crate::pool::place::Setup;
use crate::pool::staff::Staff;
use crate::process::{StartMethod, available_parallelism};
use crate::sys::function::FunctionId;
use crate::task::{Portable, Stateless, describe_initializer, pack_captures, require_no_captures};
use crate::wire::value::Packed;
use std::sync::Arc;

/// Sets how a pool is built; made by [`Pool::builder`].
///
/// # Examples
///
/// ```
/// let pool = multiprocess::Pool::builder().workers(2).name("resize").build()?;
/// assert_eq!(pool.workers(), 2);
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PoolBuilder {
    workers: Option<usize>,
    name: String,
    method: StartMethod,
    initializer: Option<Initializer>,
    items_max: Option<usize>,
    memory_limit: Option<u64>,
}

/// A function that each worker runs first, with its arguments; or why these cannot be sent.
#[derive(Clone, Debug)]
struct Initializer {
    function: Option<FunctionId>,
    arguments: Result<Arc<Packed>, TaskError>,
}

impl Pool {
    /// Starts a pool with one worker for each processor that this process may use, and waits until they run.
    ///
    /// # Errors
    ///
    /// Where the system refuses a process or memory; the error names the limit.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::new()?;
    /// assert_eq!(pool.workers(), multiprocess::available_parallelism());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn new() -> Result<Pool> {
        Pool::builder().build()
    }

    /// Starts to describe a pool.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(2).name("resize").build()?;
    /// assert_eq!(pool.workers(), 2);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn builder() -> PoolBuilder {
        PoolBuilder {
            workers: None,
            name: "PoolWorker".to_owned(),
            method: StartMethod::default(),
            initializer: None,
            items_max: None,
            memory_limit: None,
        }
    }
}

impl PoolBuilder {
    /// Sets the number of workers, at least 1.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// assert_eq!(pool.worker_pids().len(), 2);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn workers(mut self, workers: usize) -> PoolBuilder {
        self.workers = Some(workers);
        self
    }

    /// Names the workers: `name-1`, `name-2`, ..; the kernel shows the first 15 bytes in `ps` and `top`.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::{Pool, current_process};
    ///
    /// let pool = Pool::builder().workers(1).name("resize").build()?;
    /// assert_eq!(pool.apply((), |()| current_process().name().to_owned())?, "resize-1");
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> PoolBuilder {
        self.name = name.into();
        self
    }

    /// Sets how the workers come to be.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::{Pool, StartMethod};
    ///
    /// let pool = Pool::builder().workers(1).start_method(StartMethod::Spawn).build()?;
    /// assert_eq!(pool.apply(1, |n: u32| n + 1)?, 2);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn start_method(mut self, method: StartMethod) -> PoolBuilder {
        self.method = method;
        self
    }

    /// Has each worker run `f` with `args` before its first item, and keep what it returns: functions that run there get it
    /// from [`worker_state`](crate::worker_state). A worker that takes another's place does so as well.
    ///
    /// If it panics, or its worker dies over it three times in a row, all calls that are under way fail with that error,
    /// or the next one if none is. Workers are then tried again with the call behind that.
    ///
    /// An end of a [`Pipe`](crate::Pipe) in `args` lives in the first worker that runs `f`; for each other worker it is an error,
    /// like a panic of `f`.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::{Pool, worker_state};
    ///
    /// let pool = Pool::builder().workers(2).initializer(3, |factor: u64| factor * 10).build()?;
    /// let tens = pool.map([1, 2], |n: u64| n * *worker_state::<u64>().unwrap())?;
    /// assert_eq!(tens, [30, 60]);
    ///
    /// let pool = Pool::builder().workers(2).initializer((), |()| panic!("no licence")).build()?;
    /// let error = pool.apply(1, |n: u64| n).unwrap_err();
    /// assert_eq!(error.panic_message(), Some("no licence"));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn initializer<A, S, F>(mut self, args: A, f: F) -> PoolBuilder
    where
        A: Portable,
        S: 'static,
        F: Fn(A) -> S + Stateless,
    {
        require_no_captures(&f);
        self.initializer = Some(Initializer {
            function: describe_initializer(f),
            arguments: pack_captures(&args).map(Arc::new),
        });
        self
    }

    /// Has another worker take the place of each one that has done `items` items, at least 1: for functions that leak.
    /// No item is lost by that.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::collections::HashSet;
    ///
    /// let pool = multiprocess::Pool::builder().workers(1).max_tasks_per_worker(2).build()?;
    /// let pids: HashSet<u32> = pool.map(0..6, |_: u32| std::process::id())?.into_iter().collect();
    /// assert_eq!(pids.len(), 3);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn max_tasks_per_worker(mut self, items: usize) -> PoolBuilder {
        self.items_max = Some(items);
        self
    }

    /// Limits the memory of each worker (`RLIMIT_DATA`): its heap and what else it has for itself, about 2 MiB from the
    /// start; not what it shares with others. An item that allocates past it ends its worker, as Rust does where there is
    /// no memory, and is a crash; the worker is replaced.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).memory_limit(64 << 20).build()?;
    /// let error = pool.apply(1 << 30, |bytes: usize| vec![1_u8; bytes].len()).unwrap_err();
    /// assert!(error.is_crash());
    /// assert_eq!(pool.apply(1 << 20, |bytes: usize| vec![1_u8; bytes].len())?, 1 << 20);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn memory_limit(mut self, bytes: u64) -> PoolBuilder {
        self.memory_limit = Some(bytes.max(1));
        self
    }

    /// Starts the pool and waits until its workers run. Does not wait for their initializers.
    ///
    /// # Errors
    ///
    /// Where no worker was asked for, or one that does no item, the initializer's arguments cannot be encoded, or the system refuses a process or memory; the error names the limit.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// assert_eq!(pool.apply(1, |n: u32| n + 1)?, 2);
    /// assert!(multiprocess::Pool::builder().workers(0).build().is_err());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn build(self) -> Result<Pool> {
        let workers = self.workers.unwrap_or_else(available_parallelism);
        if workers == 0 {
            return Err(Error::refused(
                "cannot build a pool",
                "it needs at least 1 worker",
            ));
        }
        if self.items_max == Some(0) {
            return Err(Error::refused(
                "cannot build a pool",
                "a worker has to do at least 1 item",
            ));
        }
        let initializer = self.initializer.map(Initializer::ready).transpose()?;
        let needs_setup = initializer.is_some() || self.memory_limit.is_some();
        let setup = needs_setup.then_some(Setup {
            memory_limit: self.memory_limit,
            initializer,
        });
        let staff = Staff::new(workers, self.name, self.method, setup)?;
        Ok(Pool {
            driver: Driver::start(staff, self.items_max)?,
        })
    }
}

impl Initializer {
    fn ready(self) -> Result<(FunctionId, Arc<Packed>)> {
        let refused = |why: String| Error::refused("cannot build a pool: its initializer", why);
        let function = self.function.ok_or_else(|| {
            refused(
                "its code is not in the main executable, which is what a worker executes"
                    .to_owned(),
            )
        })?;
        let arguments = self.arguments.map_err(|error| refused(error.to_string()))?;
        Ok((function, arguments))
    }
}
