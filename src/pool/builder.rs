//! [`Pool`] itself, and how one is built.

use crate::error::{Error, Result, TaskError};
use crate::pool::driver::Driver;
use crate::pool::imap::{Imap, ImapUnordered};
use crate::pool::job::{Job, TakesItem};
use crate::pool::result::AsyncResult;
use crate::pool::staff::{Setup, Staff};
use crate::pool::stats::PoolStats;
use crate::process::{StartMethod, available_parallelism};
use crate::sys::function::FunctionId;
use crate::task::{Portable, Stateless, describe_initializer, pack_captures, require_no_captures};
use crate::wire::value::Packed;
use std::fmt;
use std::sync::Arc;

/// Runs functions on many items in worker processes, whatever some of these do to them.
///
/// An item that panics, crashes its worker, or cannot be encoded or decoded is an error of that item alone. A worker that
/// dies is replaced, and the pool serves the next call. Any number of threads may use one pool at once. The caller's own
/// thread does the pool's work while it waits: the pool starts a thread of its own only for asynchronous calls, with the
/// first of them.
///
/// Dropping a pool kills its workers and waits until they are gone, as [`terminate`](Pool::terminate) does; if the program
/// dies in any other way, they die with it.
///
/// # Examples
///
/// ```
/// use multiprocess::Pool;
///
/// let pool = Pool::new()?;
/// let lines = ["one", "three"].map(String::from);
/// assert_eq!(pool.map(lines, |line| line.len())?, [3, 5]);
/// # Ok::<(), multiprocess::Error>(())
/// ```
pub struct Pool {
    driver: Driver,
}

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

    /// Runs `f` on each item and returns the results in the order of the items. Blocks until all are there, or one item
    /// has failed: then what has not been begun is dropped.
    ///
    /// # Errors
    ///
    /// The [`TaskError`] of the first item that is known to have failed. [`imap`](Pool::imap) goes on instead.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// assert_eq!(pool.map([(1, 2), (3, 4)], |(a, b)| a + b)?, [3, 7]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn map<I, R, F>(&self, items: I, f: F) -> Result<Vec<R>, TaskError>
    where
        I: IntoIterator<Item: Portable>,
        R: Portable,
        F: Fn(I::Item) -> R + Stateless,
    {
        self.job().map(items, f)
    }

    /// Runs `f` on each item and iterates over the outcomes in the order of the items. Blocks only while the next one is
    /// not there; goes on after a failure. Items are pulled as results are taken, so an endless input is no problem.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// let results: Vec<_> = pool.imap(0.., |n: u32| 100 / (n % 3)).take(4).collect();
    /// assert!(results[0].as_ref().is_err_and(|error| error.is_panic()));
    /// assert_eq!(results[1..3], [Ok(100), Ok(50)]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn imap<'items, I, R, F>(&'items self, items: I, f: F) -> Imap<'items, R>
    where
        I: IntoIterator<Item: Portable, IntoIter: 'items>,
        R: Portable,
        F: Fn(I::Item) -> R + Stateless,
    {
        self.job().imap(items, f)
    }

    /// Runs `f` on each item and iterates over the outcomes as they finish, each with its item's index. Blocks only while
    /// none is there; goes on after a failure.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// let mut squares = vec![0; 5];
    /// for (item, result) in pool.imap_unordered(0..5u64, |n| n * n) {
    ///     squares[item] = result?;
    /// }
    /// assert_eq!(squares, [0, 1, 4, 9, 16]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn imap_unordered<'items, I, R, F>(&'items self, items: I, f: F) -> ImapUnordered<'items, R>
    where
        I: IntoIterator<Item: Portable, IntoIter: 'items>,
        R: Portable,
        F: Fn(I::Item) -> R + Stateless,
    {
        self.job().imap_unordered(items, f)
    }

    /// Runs `f` once, with `args`, and waits for its result.
    ///
    /// # Errors
    ///
    /// A [`TaskError`] that says what became of the function.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// assert_eq!(pool.apply((6, 7), |(a, b): (u32, u32)| a * b)?, 42);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn apply<A, R, F>(&self, args: A, f: F) -> Result<R, TaskError>
    where
        A: Portable,
        R: Portable,
        F: Fn(A) -> R + Stateless,
    {
        self.job().apply(args, f)
    }

    /// Has `f` run once, with `args`, and returns at once: the result is waited for, asked for or awaited later. Any number
    /// of calls may be under way; they take memory, but no descriptors and no threads. Whatever fails, also at once, is
    /// told by the result.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// let calls: Vec<_> = (0..100).map(|n| pool.apply_async(n, |n: u64| n * n)).collect();
    /// for (n, call) in (0..).zip(calls) {
    ///     assert_eq!(call.get()?, n * n);
    /// }
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn apply_async<A, R, F>(&self, args: A, f: F) -> AsyncResult<R>
    where
        A: Portable,
        R: Portable,
        F: Fn(A) -> R + Stateless,
    {
        self.job().apply_async(args, f)
    }

    /// Has `f` run on each item and returns when all items have been pulled and encoded: the results are waited for, asked
    /// for or awaited later. They come in the order of the items; after the first failure, what has not been begun is
    /// dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// let lengths = pool.map_async(["one", "three"].map(String::from), |word| word.len());
    /// assert_eq!(lengths.get()?, [3, 5]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn map_async<I, R, F>(&self, items: I, f: F) -> AsyncResult<Vec<R>>
    where
        I: IntoIterator<Item: Portable>,
        R: Portable,
        F: Fn(I::Item) -> R + Stateless,
    {
        self.job().map_async(items, f)
    }

    /// Describes a job whose function takes `captures` beside each item. They are encoded once for each call and reach
    /// each worker once.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// let offset = 10;
    /// assert_eq!(pool.with(offset).map([1, 2], |offset, n: i32| offset + n)?, [11, 12]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn with<C: Portable>(&self, captures: C) -> Job<'_, C> {
        Job::new(&self.driver, captures)
    }

    /// Describes a job whose function takes each item alone.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// assert_eq!(pool.job().chunk_size(1).map([1, 2], |n: i32| n + 1)?, [2, 3]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn job(&self) -> Job<'_, (), TakesItem> {
        Job::new(&self.driver, ())
    }

    /// Takes no more calls: from here on each is an error. Those under way go on.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// let sum = pool.apply_async((1, 2), |(a, b): (u32, u32)| a + b);
    /// pool.close();
    /// assert!(pool.apply((), |()| 1).is_err());
    /// pool.join()?;
    /// assert_eq!(sum.get()?, 3);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn close(&self) {
        self.driver.close();
    }

    /// Waits until the calls under way are done and the workers have ended. No [`close`](Pool::close) is needed before:
    /// nobody is left who could make a call.
    ///
    /// Workers end by themselves, so that what their [initializer](PoolBuilder::initializer) returned is dropped; one that
    /// has not ended after five seconds is killed. Blocks as long as calls run: [`terminate`](Pool::terminate) does not.
    ///
    /// # Errors
    ///
    /// Where a callback on the pool's own thread joins its own pool, or a process that was forked from the pool's: the pool
    /// is then dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// let sum = pool.apply_async((1, 2), |(a, b): (u32, u32)| a + b);
    /// pool.join()?;
    /// assert_eq!(sum.get()?, 3);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn join(self) -> Result<()> {
        self.driver.join()
    }

    /// Kills the workers and waits until they are gone. Calls under way are [cancelled](TaskError::is_cancelled).
    ///
    /// # Errors
    ///
    /// None at present.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// let endless = pool.apply_async((), |()| loop { std::thread::park() });
    /// pool.terminate()?;
    /// assert!(endless.get().map(|(): ()| ()).unwrap_err().is_cancelled());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn terminate(self) -> Result<()> {
        drop(self);
        Ok(())
    }

    /// Returns how many workers there are.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// assert_eq!(pool.workers(), 2);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn workers(&self) -> usize {
        self.driver.workers()
    }

    /// Returns what the workers have done so far.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// pool.map(0..10, |n: u32| n)?;
    /// assert_eq!(pool.stats().workers()[0].items(), 10);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn stats(&self) -> PoolStats {
        self.driver.stats()
    }

    /// Returns the workers' process ids. They change when a worker dies and another takes its place.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// let pid = pool.apply((), |()| std::process::id())?;
    /// assert_eq!(pool.worker_pids(), [pid]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn worker_pids(&self) -> Vec<u32> {
        self.driver.pids()
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
        self.items_max = Some(items.max(1));
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
    /// Where no worker was asked for, the initializer's arguments cannot be encoded, or the system refuses a process or memory; the error names the limit.
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

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("workers", &self.workers())
            .finish_non_exhaustive()
    }
}
