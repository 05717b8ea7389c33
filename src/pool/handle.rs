//! [`Pool`] itself: what is run in it, and how it ends.

use crate::error::{Result, TaskError};
use crate::pool::driver::Driver;
use crate::pool::imap::{Imap, ImapUnordered};
use crate::pool::job::{Job, TakesItem};
use crate::pool::result::AsyncResult;
use crate::pool::stats::PoolStats;
use crate::task::{Portable, Stateless};
use std::fmt;

///
/// An item that panics, crashes its worker, or cannot be encoded or decoded is an error of that item alone. A worker that
/// dies is replaced, and the pool serves the next call. Any number of threads may use one pool at once. The caller's own
/// thread does the pool's work while it waits: the pool starts a thread of its own only for asynchronous calls, and for time
/// limits of items whose caller runs something else meanwhile, with the first of them.
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
    pub(crate) driver: Driver,
}

impl Pool {
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
    /// not there, and in `items`; goes on after a failure. Items are pulled as results are taken, so an endless input is no problem.
    /// One that takes 10 ms or more for an item is asked for the next one when what it gave before has been handed out, if that takes no
    /// longer than an eighth of the time that it took; of many items that it gives at once, those first ones (64 at most) that are done
    /// within 20 ms. With [`in_flight`](crate::Job::in_flight) so many are pulled first in any case.
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
    /// none is there, and in `items`, as [`imap`](Pool::imap) does; goes on after a failure.
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
    /// An end of a [`Pipe`](crate::Pipe) in them lives in the first worker that runs an item with it; in each other, and in one
    /// that takes that worker's place, the items fail, since their captures cannot be decoded.
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
    /// Workers end by themselves, so that what their [initializer](crate::PoolBuilder::initializer) returned is dropped; one that
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

    /// Returns what the workers have done so far: nothing for a process that was forked from the pool's.
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

    /// Returns the workers' process ids. They change when a worker dies and another takes its place. A process that was forked from the
    /// pool's has no workers.
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

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("workers", &self.workers())
            .finish_non_exhaustive()
    }
}
