//! [`PoolStats`]: what a pool's workers have done so far, and how long items of each function took.

use crate::pool::histogram::Histogram;
use crate::pool::numbers::NumberMap;
use crate::sys::function::FunctionId;
use std::time::Duration;

/// Tells what a pool has done since it was built; made by [`Pool::stats`](crate::Pool::stats).
///
/// # Examples
///
/// ```
/// let pool = multiprocess::Pool::builder().workers(2).build()?;
/// pool.map(0..100u64, |n| n * n)?;
/// let stats = pool.stats();
/// assert_eq!(stats.workers().iter().map(|worker| worker.items()).sum::<u64>(), 100);
/// let squares = &stats.functions()[0];
/// assert_eq!((squares.items(), squares.failures()), (100, 0));
/// assert!(squares.percentile(50.0) <= squares.percentile(99.0));
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct PoolStats {
    pub(crate) workers: Vec<WorkerStats>,
    pub(crate) functions: Vec<FunctionStats>,
}

impl PoolStats {
    /// Returns what was done in each worker's place, in the order of their names. A worker that takes another's place
    /// goes on counting there.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// pool.map(0..10, |n: u32| 10 - n)?;
    /// let stats = pool.stats();
    /// assert_eq!(stats.workers().len(), 1);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn workers(&self) -> &[WorkerStats] {
        &self.workers
    }

    /// Returns what is known of the items of each function, that with the most items first.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// pool.map(0..10, |n: u32| 10 - n)?;
    /// let stats = pool.stats();
    /// assert_eq!(stats.functions()[0].items(), 10);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn functions(&self) -> &[FunctionStats] {
        &self.functions
    }
}

/// Tells what was done in one worker's place.
///
/// # Examples
///
/// ```
/// let pool = multiprocess::Pool::builder().workers(1).build()?;
/// pool.map(0..10, |n: u32| 10 - n)?;
/// let stats = pool.stats();
/// let worker = &stats.workers()[0];
/// assert_eq!((worker.items(), worker.restarts()), (10, 0));
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerStats {
    pub(crate) items: u64,
    pub(crate) busy_nanos: u64,
    pub(crate) restarts: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
}

impl WorkerStats {
    /// Returns how many items have their outcomes from here; those that it died over are not among them.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// pool.map(0..10, |n: u32| 10 - n)?;
    /// let stats = pool.stats();
    /// assert_eq!(stats.workers()[0].items(), 10);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn items(&self) -> u64 {
        self.items
    }

    /// Returns how long these took.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// pool.apply(5, |millis| std::thread::sleep(std::time::Duration::from_millis(millis)))?;
    /// assert!(pool.stats().workers()[0].busy().as_millis() >= 4);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_nanos)
    }

    /// Returns how often another worker has taken the place.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// assert!(pool.apply((), |()| if true { std::process::abort() }).is_err());
    /// pool.apply((), |()| ())?;
    /// assert_eq!(pool.stats().workers()[0].restarts(), 1);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Returns how many bytes of items were sent to it.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// pool.map(0..10, |n: u32| 10 - n)?;
    /// let stats = pool.stats();
    /// assert!(stats.workers()[0].bytes_sent() >= 10 * 4);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn bytes_sent(&self) -> u64 {
        self.bytes_sent
    }

    /// Returns how many bytes of results came from it.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// pool.map(0..10, |n: u32| 10 - n)?;
    /// let stats = pool.stats();
    /// assert!(stats.workers()[0].bytes_received() >= 10 * 4);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn bytes_received(&self) -> u64 {
        self.bytes_received
    }
}

/// Tells how the items of one function went.
///
/// # Examples
///
/// ```
/// let pool = multiprocess::Pool::builder().workers(1).build()?;
/// pool.map(0..10, |n: u32| 10 - n)?;
/// let stats = pool.stats();
/// let function = &stats.functions()[0];
/// assert!(function.percentile(50.0) <= function.longest());
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FunctionStats {
    name: &'static str,
    failures: u64,
    retries: u64,
    times: Histogram,
    latencies: Histogram,
}

impl FunctionStats {
    /// Returns the function's name, as the compiler says it.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// pool.map(0..10, |n: u32| 10 - n)?;
    /// let stats = pool.stats();
    /// assert!(stats.functions()[0].name().contains("closure"));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns how many items have ended well.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// pool.map(0..10, |n: u32| 10 - n)?;
    /// let stats = pool.stats();
    /// assert_eq!(stats.functions()[0].items(), 10);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn items(&self) -> u64 {
        self.times.total()
    }

    /// Returns how many have failed, after all attempts.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// let results = pool.imap([1, 0], |n: u32| 1 / n);
    /// assert_eq!(results.filter(Result::is_err).count(), 1);
    /// assert_eq!(pool.stats().functions()[0].failures(), 1);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// Returns how many attempts were made beyond the first.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// let job = pool.job().retries(2).retry_panics();
    /// assert!(job.apply(0, |n: u32| 1 / n).is_err());
    /// assert_eq!(pool.stats().functions()[0].retries(), 2);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn retries(&self) -> u64 {
        self.retries
    }

    /// Returns the time within which `percent` of the items that ended well were done, in a worker and without the ways
    /// there and back. It is at most an eighth too large. Items that are too short to be timed one by one count with
    /// their mean.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// pool.map(0..10, |n: u32| 10 - n)?;
    /// let stats = pool.stats();
    /// let function = &stats.functions()[0];
    /// assert!(function.percentile(50.0) <= function.percentile(99.9));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn percentile(&self, percent: f64) -> Duration {
        self.times.percentile(percent)
    }

    /// Returns the time within which `percent` of the items that ended well were back, from when they were given to the
    /// pool: they waited, went to a worker, were done there, perhaps again, and came back. For `apply` and `apply_async` that is
    /// the call; an item of a `map` waits for those before it. It is at most an eighth too large.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// for n in 1..100 {
    ///     pool.apply(n, |n: u32| 100 / n)?;
    /// }
    /// let stats = pool.stats();
    /// let function = &stats.functions()[0];
    /// let [median, high, highest] = [50.0, 99.0, 99.9].map(|percent| function.latency(percent));
    /// assert!(function.percentile(50.0) <= median && median <= high && high <= highest);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn latency(&self, percent: f64) -> Duration {
        self.latencies.percentile(percent)
    }

    /// Returns the longest time of an item that ended well.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// pool.map(0..10, |n: u32| 10 - n)?;
    /// let stats = pool.stats();
    /// let function = &stats.functions()[0];
    /// assert!(function.longest() >= function.percentile(50.0));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn longest(&self) -> Duration {
        self.times.longest()
    }
}

/// The books of a pool.
#[derive(Debug, Default)]
pub(crate) struct Books {
    pub(crate) workers: Vec<WorkerStats>,
    functions: NumberMap<FunctionId, FunctionStats>,
}

impl Books {
    pub(crate) fn of_workers(workers: usize) -> Books {
        Books {
            workers: vec![WorkerStats::default(); workers],
            functions: NumberMap::default(),
        }
    }

    fn function(&mut self, id: FunctionId, name: &'static str) -> &mut FunctionStats {
        self.functions.entry(id).or_insert_with(|| FunctionStats {
            name,
            failures: 0,
            retries: 0,
            times: Histogram::new(),
            latencies: Histogram::new(),
        })
    }

    /// Some items have ended well, and took so long together. Returns where it is entered how long they were under way.
    pub(crate) fn done(
        &mut self,
        id: FunctionId,
        name: &'static str,
        items: u64,
        nanos: u64,
    ) -> &mut Histogram {
        let function = self.function(id, name);
        function.times.enter(nanos / items.max(1), items);
        &mut function.latencies
    }

    pub(crate) fn failed(&mut self, id: FunctionId, name: &'static str) {
        self.function(id, name).failures += 1;
    }

    pub(crate) fn retried(&mut self, id: FunctionId, name: &'static str) {
        self.function(id, name).retries += 1;
    }

    pub(crate) fn stats(&self) -> PoolStats {
        let mut functions: Vec<FunctionStats> = self.functions.values().cloned().collect();
        functions.sort_by_key(|function| std::cmp::Reverse(function.items() + function.failures));
        PoolStats {
            workers: self.workers.clone(),
            functions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_count_items() {
        let mut books = Books::of_workers(1);
        let id = FunctionId::from_bits(1);
        books.done(id, "f", 90, 90 * 100).enter(5_000, 90);
        books.done(id, "f", 10, 10 * 10_000);
        books.failed(id, "f");
        let stats = books.stats();
        let function = &stats.functions()[0];
        assert_eq!((function.items(), function.failures()), (100, 1));
        assert!((100..=112).contains(&(function.percentile(90.0).as_nanos() as u64)));
        assert_eq!(function.percentile(91.0), Duration::from_nanos(10_000));
        assert_eq!(function.longest(), Duration::from_nanos(10_000));
        assert_eq!(function.latency(99.9), Duration::from_nanos(5_000));
    }
}
