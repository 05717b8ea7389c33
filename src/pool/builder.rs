//! [`Pool`] itself, and how one is built.

use crate::error::{Error, Result, TaskError};
use crate::pool::driver::Driver;
use crate::pool::imap::{Imap, ImapUnordered};
use crate::pool::job::{Job, TakesItem};
use crate::pool::staff::Staff;
use crate::process::{StartMethod, available_parallelism};
use crate::task::{Portable, Stateless};
use std::fmt;

/// Runs functions on many items in worker processes, whatever some of these do to them.
///
/// An item that panics, crashes its worker, or cannot be encoded or decoded is an error of that item alone. A worker that
/// dies is replaced, and the pool serves the next call. The caller's own thread does the pool's work while it waits:
/// no other is started. Any number of threads may use one pool at once.
///
/// Dropping a pool kills its workers and waits until they are gone; if the program dies in any other way, they die with it.
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
}

impl Pool {
    /// Starts a pool with one worker for each processor that this process may use, and waits until they run.
    ///
    /// # Errors
    ///
    /// Where the system refuses a process or memory; the error names the limit.
    pub fn new() -> Result<Pool> {
        Pool::builder().build()
    }

    /// Starts to describe a pool.
    pub fn builder() -> PoolBuilder {
        PoolBuilder {
            workers: None,
            name: "PoolWorker".to_owned(),
            method: StartMethod::default(),
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

    /// Returns how many workers there are.
    pub fn workers(&self) -> usize {
        self.driver.workers()
    }

    /// Returns the workers' process ids. They change when a worker dies and another takes its place.
    pub fn worker_pids(&self) -> Vec<u32> {
        self.driver.pids()
    }
}

impl PoolBuilder {
    /// Sets the number of workers, at least 1.
    pub fn workers(mut self, workers: usize) -> PoolBuilder {
        self.workers = Some(workers);
        self
    }

    /// Names the workers: `name-1`, `name-2`, ..; the kernel shows the first 15 bytes in `ps` and `top`.
    pub fn name(mut self, name: impl Into<String>) -> PoolBuilder {
        self.name = name.into();
        self
    }

    /// Sets how the workers come to be.
    pub fn start_method(mut self, method: StartMethod) -> PoolBuilder {
        self.method = method;
        self
    }

    /// Starts the pool and waits until its workers run.
    ///
    /// # Errors
    ///
    /// Where no worker was asked for, or the system refuses a process or memory; the error names the limit.
    pub fn build(self) -> Result<Pool> {
        let workers = self.workers.unwrap_or_else(available_parallelism);
        if workers == 0 {
            return Err(Error::refused(
                "cannot build a pool",
                "it needs at least 1 worker",
            ));
        }
        let staff = Staff::new(workers, self.name, self.method)?;
        Ok(Pool {
            driver: Driver::start(staff)?,
        })
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("workers", &self.workers())
            .finish_non_exhaustive()
    }
}
