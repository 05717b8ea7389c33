//! `Semaphore` and `BoundedSemaphore`: so many at a time, in all processes together.

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::sync::permits::{PERMITS_MAX, Permits};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Lets so many through at a time, of all threads of all processes that have a handle of it.
///
/// Nobody owns a permit: any thread of any process may [`release`](Semaphore::release), with or without having acquired. So
/// a process that dies after it has acquired takes that permit with it. One that dies while it waits takes nothing: its
/// wake-up, if it had one, goes to another.
///
/// Clones, in this process and in others, are the same semaphore. It may be sent before it is used and while it is used.
///
/// # Examples
///
/// ```
/// use multiprocess::{Pool, Semaphore};
///
/// let at_a_time = Semaphore::new(2)?;
/// let pool = Pool::builder().workers(4).build()?;
/// pool.with(at_a_time.clone()).map(0..8, |at_a_time, _file: i32| {
///     at_a_time.acquire();
///     // No more than two are here.
///     at_a_time.release().expect("there is room");
/// })?;
/// assert_eq!(at_a_time.value(), 2);
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Clone, Serialize, Deserialize)]
pub struct Semaphore {
    permits: Permits,
}

/// A [`Semaphore`] that refuses a [`release`](BoundedSemaphore::release) more than there were acquisitions.
///
/// # Examples
///
/// ```
/// let one = multiprocess::BoundedSemaphore::new(1)?;
/// one.acquire();
/// assert!(!one.try_acquire());
/// one.release()?;
/// assert!(one.release().is_err());
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Clone, Serialize, Deserialize)]
pub struct BoundedSemaphore {
    permits: Permits,
    initial: usize,
}

fn permits(value: usize) -> Result<Permits> {
    if value > PERMITS_MAX {
        let operation = format!("cannot make a semaphore of {value}");
        let why = format!("it has no room for more than {PERMITS_MAX}");
        return Err(Error::refused(operation, why));
    }
    Permits::new(value)
}

impl Semaphore {
    /// Makes a semaphore with `value` permits, which may be 0.
    ///
    /// # Errors
    ///
    /// Where `value` is above 2,147,483,647; where the system has no memory or no descriptor left.
    ///
    /// # Examples
    ///
    /// ```
    /// let two = multiprocess::Semaphore::new(2)?;
    /// assert_eq!(two.value(), 2);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn new(value: usize) -> Result<Semaphore> {
        Ok(Semaphore {
            permits: permits(value)?,
        })
    }

    /// Takes a permit; blocks as long as there is none.
    ///
    /// # Examples
    ///
    /// ```
    /// let two = multiprocess::Semaphore::new(2)?;
    /// two.acquire();
    /// assert_eq!(two.value(), 1);
    /// two.release()?;
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    #[inline]
    pub fn acquire(&self) {
        self.permits.take(Deadline::NEVER);
    }

    /// Takes a permit if there is one; returns whether.
    ///
    /// # Examples
    ///
    /// ```
    /// let two = multiprocess::Semaphore::new(2)?;
    /// assert!(two.try_acquire() && two.try_acquire() && !two.try_acquire());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    #[inline]
    #[must_use = "without a permit one may not go on"]
    pub fn try_acquire(&self) -> bool {
        self.permits.try_take()
    }

    /// Takes a permit; blocks for no longer than `limit`. Returns whether it has one.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let none = multiprocess::Semaphore::new(0)?;
    /// assert!(!none.acquire_timeout(Duration::from_millis(1)));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    #[inline]
    #[must_use = "without a permit one may not go on"]
    pub fn acquire_timeout(&self, limit: Duration) -> bool {
        self.try_acquire() || self.permits.take(Deadline::after(limit))
    }

    /// Adds a permit, and wakes one who waits for it. Never blocks.
    ///
    /// # Errors
    ///
    /// Where there are 2,147,483,647 already.
    ///
    /// # Examples
    ///
    /// ```
    /// let signals = multiprocess::Semaphore::new(0)?;
    /// signals.release()?;
    /// assert!(signals.try_acquire());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    #[inline]
    pub fn release(&self) -> Result<()> {
        release(&self.permits, PERMITS_MAX)
    }

    /// Returns how many permits there are. Others may take or add some at any time.
    ///
    /// # Examples
    ///
    /// ```
    /// let two = multiprocess::Semaphore::new(2)?;
    /// two.acquire();
    /// assert_eq!(two.value(), 1);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn value(&self) -> usize {
        self.permits.free()
    }
}

impl BoundedSemaphore {
    /// Makes a semaphore with `value` permits, and never more.
    ///
    /// # Errors
    ///
    /// As [`Semaphore::new`].
    ///
    /// # Examples
    ///
    /// ```
    /// let two = multiprocess::BoundedSemaphore::new(2)?;
    /// assert_eq!(two.value(), 2);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn new(value: usize) -> Result<BoundedSemaphore> {
        Ok(BoundedSemaphore {
            permits: permits(value)?,
            initial: value,
        })
    }

    /// Takes a permit; blocks as long as there is none.
    ///
    /// # Examples
    ///
    /// ```
    /// let two = multiprocess::BoundedSemaphore::new(2)?;
    /// two.acquire();
    /// assert_eq!(two.value(), 1);
    /// two.release()?;
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    #[inline]
    pub fn acquire(&self) {
        self.permits.take(Deadline::NEVER);
    }

    /// Takes a permit if there is one; returns whether.
    ///
    /// # Examples
    ///
    /// ```
    /// let two = multiprocess::BoundedSemaphore::new(2)?;
    /// assert!(two.try_acquire() && two.try_acquire() && !two.try_acquire());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    #[inline]
    #[must_use = "without a permit one may not go on"]
    pub fn try_acquire(&self) -> bool {
        self.permits.try_take()
    }

    /// Takes a permit; blocks for no longer than `limit`. Returns whether it has one.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let none = multiprocess::BoundedSemaphore::new(0)?;
    /// assert!(!none.acquire_timeout(Duration::from_millis(1)));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    #[inline]
    #[must_use = "without a permit one may not go on"]
    pub fn acquire_timeout(&self, limit: Duration) -> bool {
        self.try_acquire() || self.permits.take(Deadline::after(limit))
    }

    /// Gives a permit back, and wakes one who waits for it. Never blocks.
    ///
    /// # Errors
    ///
    /// Where all permits are there already: somebody has released without having acquired.
    ///
    /// # Examples
    ///
    /// ```
    /// let one = multiprocess::BoundedSemaphore::new(1)?;
    /// one.acquire();
    /// one.release()?;
    /// assert!(one.release().is_err());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    #[inline]
    pub fn release(&self) -> Result<()> {
        release(&self.permits, self.initial)
    }

    /// Returns how many permits there are. Others may take or give back some at any time.
    ///
    /// # Examples
    ///
    /// ```
    /// let two = multiprocess::BoundedSemaphore::new(2)?;
    /// two.acquire();
    /// assert_eq!(two.value(), 1);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn value(&self) -> usize {
        self.permits.free()
    }
}

#[inline]
fn release(permits: &Permits, limit: usize) -> Result<()> {
    if permits.give(limit) {
        return Ok(());
    }
    let why = format!("all its {limit} permits are there: it was released too many times");
    Err(Error::refused("cannot release a semaphore", why))
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Semaphore")
            .field("value", &self.value())
            .finish()
    }
}

impl fmt::Debug for BoundedSemaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundedSemaphore")
            .field("value", &self.value())
            .field("initial", &self.initial)
            .finish()
    }
}
