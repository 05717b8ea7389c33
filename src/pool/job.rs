//! [`Job`]: a function over items, with all that can be said of how it is run. Its verbs stand in `verbs.rs`.

use crate::error::TaskError;
use crate::pool::driver::Driver;
use crate::pool::opened::Spec;
use crate::pool::plan::Settings;
use crate::pool::result::{Callback, NoCallback};
use crate::sys::function::FunctionId;
use crate::task::{Portable, pack_captures};
use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// Runs functions on a pool's workers, with captures and settings; made by [`Pool::with`](crate::Pool::with) and [`Pool::job`](crate::Pool::job).
///
/// With captures, the function takes a reference to them and the item; without, the item alone. The captures are
/// encoded once for each call and reach each worker once, however many items there are.
///
/// # Examples
///
/// ```
/// use multiprocess::Pool;
///
/// let pool = Pool::builder().workers(2).build()?;
/// let stop_words = vec!["the".to_owned(), "a".to_owned()];
/// let counts = pool
///     .with(stop_words)
///     .chunk_size(1)
///     .map(["the cat", "a dog and a bird"].map(String::from), |stop_words, line| {
///         line.split(' ').filter(|word| !stop_words.iter().any(|stop| stop == word)).count()
///     })?;
/// assert_eq!(counts, [1, 3]);
/// # Ok::<(), multiprocess::Error>(())
/// ```
pub struct Job<'pool, C, Takes = TakesCaptures, D = NoCallback> {
    pub(crate) driver: &'pool Driver,
    captures: C,
    settings: Settings,
    pub(crate) done: D,
    takes: PhantomData<Takes>,
}

/// Marks a [`Job`] whose function takes its captures and an item.
///
/// # Examples
///
/// ```
/// use multiprocess::{Job, TakesCaptures};
///
/// fn scaled(job: &Job<'_, f64, TakesCaptures>) -> Result<Vec<f64>, multiprocess::TaskError> {
///     job.map([1.0, 2.0], |factor, n| factor * n)
/// }
/// let pool = multiprocess::Pool::builder().workers(1).build()?;
/// assert_eq!(scaled(&pool.with(10.0))?, [10.0, 20.0]);
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Debug)]
pub struct TakesCaptures(());

/// Marks a [`Job`] whose function takes an item alone.
///
/// # Examples
///
/// ```
/// use multiprocess::{Job, TakesItem};
///
/// fn doubled(job: &Job<'_, (), TakesItem>) -> Result<Vec<u32>, multiprocess::TaskError> {
///     job.map([1, 2], |n| 2 * n)
/// }
/// let pool = multiprocess::Pool::builder().workers(1).build()?;
/// assert_eq!(doubled(&pool.job().chunk_size(1))?, [2, 4]);
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Debug)]
pub struct TakesItem(());

impl<'pool, C, Takes> Job<'pool, C, Takes> {
    pub(crate) fn new(driver: &'pool Driver, captures: C) -> Job<'pool, C, Takes> {
        Job {
            driver,
            captures,
            settings: Settings::default(),
            done: NoCallback::NONE,
            takes: PhantomData,
        }
    }

    /// Has `callback` run in this process when a call of this job is done, exactly once for each call, before its result
    /// is visible: with the result of [`apply`](Job::apply) and [`apply_async`](Job::apply_async), with all results of
    /// [`map`](Job::map) and [`map_async`](Job::map_async), and with each one of [`imap`](Job::imap) and
    /// [`imap_unordered`](Job::imap_unordered) as it is handed out.
    ///
    /// Callbacks of asynchronous calls run on the pool's thread, one after the other, in the order in which the calls have
    /// ended: a slow one holds up the others. One that [gets](crate::AsyncResult::get) another result of the same pool has other
    /// callbacks run meanwhile; one that awaits such a result, or its own, waits for ever. A panic in one is printed and
    /// costs nothing else. Callbacks of the calls that wait run on the caller's thread.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    ///
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// let sums = Arc::new(Mutex::new(Vec::new()));
    /// let kept = Arc::clone(&sums);
    /// let sum = pool
    ///     .job()
    ///     .on_done(move |sum| kept.lock().unwrap().extend(sum.as_ref().ok().copied()))
    ///     .apply_async((1, 2), |(a, b): (u32, u32)| a + b);
    /// assert_eq!(sum.get()?, 3);
    /// assert_eq!(*sums.lock().unwrap(), [3]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn on_done<T, K>(self, callback: K) -> Job<'pool, C, Takes, Callback<T>>
    where
        T: Send + 'static,
        K: Fn(&Result<T, TaskError>) + Send + Sync + 'static,
    {
        Job {
            driver: self.driver,
            captures: self.captures,
            settings: self.settings,
            done: Callback::new(callback),
            takes: PhantomData,
        }
    }
}

impl<C, Takes, D> Job<'_, C, Takes, D> {
    /// Sets how many items travel to a worker at a time, at least 1. Without this the number adapts to how long the items
    /// take, which is faster in nearly all cases.
    ///
    /// With 1, an item that has an outcome never runs again after a later one has killed their worker.
    ///
    /// An input that waits for what an earlier item does, before it gives the next one, may wait for ever where both are to travel
    /// together: it needs 1.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// assert_eq!(pool.job().chunk_size(1).map([1, 2], |n: i32| n + 1)?, [2, 3]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn chunk_size(mut self, items: usize) -> Self {
        self.settings.piece_items = Some(items.max(1));
        self
    }

    /// Sets how long each item may take. Its clock starts when the item begins in a worker, not while it waits. When the
    /// time has passed, the worker is killed, another takes its place, and the item's error
    /// [is a timeout](TaskError::is_timeout); no other item notices.
    ///
    /// The time is watched also while nobody waits for a result. What the result takes to arrive is not the item's time. An item
    /// that has begun keeps its limit when its job fails or is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// let results: Vec<_> = pool
    ///     .job()
    ///     .timeout(Duration::from_secs(2))
    ///     .imap([0, 600_000, 1], |millis| std::thread::sleep(Duration::from_millis(millis)))
    ///     .collect();
    /// assert!(results[0].is_ok() && results[2].is_ok());
    /// assert!(results[1].as_ref().unwrap_err().is_timeout());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn timeout(mut self, per_item: Duration) -> Self {
        self.settings.limit = Some(per_item);
        self
    }

    /// Tries an item again, up to so many times, after its worker has died or its time has passed; never after a panic,
    /// unless [`retry_panics`](Job::retry_panics) is asked for. [`TaskError::attempts`] counts.
    ///
    /// An item that holds an end of a pipe is not tried again: the end has died with the worker.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// let error = pool.job().retries(2).apply((), |()| std::process::abort()).map(|(): ()| ()).unwrap_err();
    /// assert!(error.is_crash());
    /// assert_eq!(error.attempts(), 3);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn retries(mut self, times: u32) -> Self {
        self.settings.retries = times;
        self
    }

    /// Has [`retries`](Job::retries) count for panics as well.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// let error = pool.job().retries(2).retry_panics().apply(0, |n: u32| 1 / n).unwrap_err();
    /// assert!(error.is_panic() && error.attempts() == 3);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn retry_panics(mut self) -> Self {
        self.settings.retries_panics = true;
        self
    }

    /// Sets how many items are pulled from the input ahead of the results that the caller has, at least 1. Without this
    /// it is what keeps the workers busy.
    ///
    /// In either case no more is pulled while 64 MiB of items are on their way and every worker has one.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::cell::Cell;
    ///
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// let pulled = Cell::new(0);
    /// let endless = std::iter::repeat_with(|| pulled.replace(pulled.get() + 1));
    /// let mut doubled = pool.job().in_flight(8).imap(endless, |n: u64| 2 * n);
    /// assert_eq!(doubled.next(), Some(Ok(0)));
    /// assert_eq!(pulled.get(), 8);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn in_flight(mut self, items: usize) -> Self {
        self.settings.in_flight = Some(items.max(1));
        self
    }

    /// Shows on standard error, under `label`, how each call of this job gets on: items done and in all, rate, time left and
    /// failures. Where standard error is no terminal, nothing is shown. The number in all is shown when it is known: at
    /// once where the input knows its length, else when its last item has been pulled.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// let lengths = pool.job().progress("words").map(["one", "three"].map(String::from), |word| word.len())?;
    /// assert_eq!(lengths, [3, 5]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    #[cfg(feature = "progress")]
    pub fn progress(mut self, label: impl Into<String>) -> Self {
        self.settings.label = Some(label.into());
        self
    }
}

impl<C: Portable, D> Job<'_, C, TakesCaptures, D> {
    pub(crate) fn spec<F>(&self, function: Option<FunctionId>) -> Spec {
        let captures = pack_captures(&self.captures).map(|packed| Some(Arc::new(packed)));
        Spec {
            function,
            captures,
            settings: self.settings.clone(),
            name: type_name::<F>(),
        }
    }
}

impl<D> Job<'_, (), TakesItem, D> {
    pub(crate) fn spec<F>(&self, function: Option<FunctionId>) -> Spec {
        Spec {
            function,
            captures: Ok(None),
            settings: self.settings.clone(),
            name: type_name::<F>(),
        }
    }
}

impl<C: fmt::Debug, Takes, D> fmt::Debug for Job<'_, C, Takes, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("captures", &self.captures)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
