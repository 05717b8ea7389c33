//! `Condition`: who waits is woken by who has changed something.

use crate::deadline::Deadline;
use crate::error::Result;
use crate::sync::condition::seats::{LEN, Seats};
use crate::sync::died::OwnerDied;
use crate::sync::lock::LockGuard;
use crate::sync::object;
use crate::sys::step::step;
use bytemuck::Pod;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::thread;
use std::time::Duration;

/// Lets those who hold a [`Lock`](crate::Lock) wait until others, who have changed something, notify them.
///
/// Clones, in this process and in others, are the same condition; it can be sent at any time. Its waiters may use any lock,
/// as a rule all of them the same.
///
/// A notification wakes exactly one waiter, the one that has waited longest, also when its time runs out at that moment. A
/// waiter that is killed keeps nobody waiting, neither those who notify nor the other waiters: it is passed over.
/// Without a waiter, a notification is nothing.
///
/// Up to 340 can wait at a time; further ones do not wait, and look again.
///
/// # Examples
///
/// ```
/// use multiprocess::{Condition, Lock, Process};
///
/// let (ready, condition) = (Lock::new(0_u32)?, Condition::new()?);
/// let process = Process::spawn((ready.clone(), condition.clone()), |(ready, condition): (Lock<u32>, Condition)| {
///     *ready.lock().unwrap() = 7;
///     condition.notify_one();
/// })?;
/// let guard = condition.wait_while(ready.lock()?, |ready| *ready == 0)?;
/// assert_eq!(*guard, 7);
/// process.join()?;
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Clone)]
pub struct Condition {
    seats: Seats,
}

/// Tells whether a wait ended because its time was over; see [`Condition::wait_timeout`].
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let (lock, condition) = (multiprocess::Lock::new(())?, multiprocess::Condition::new()?);
/// let (_guard, result) = condition.wait_timeout(lock.lock()?, Duration::from_millis(1))?;
/// assert!(result.timed_out());
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult {
    timed_out: bool,
}

impl WaitTimeoutResult {
    /// Returns whether the time was over, and no notification came before.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (lock, condition) = (multiprocess::Lock::new(())?, multiprocess::Condition::new()?);
    /// let (_guard, result) = condition.wait_timeout(lock.lock()?, Duration::from_millis(1))?;
    /// assert!(result.timed_out());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn timed_out(&self) -> bool {
        self.timed_out
    }
}

impl Condition {
    /// Makes a condition for which nobody waits.
    ///
    /// # Errors
    ///
    /// Where the system has no memory or no descriptor left.
    ///
    /// # Examples
    ///
    /// ```
    /// let condition = multiprocess::Condition::new()?;
    /// condition.notify_all();
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn new() -> Result<Condition> {
        Ok(Condition {
            seats: Seats::allocate()?,
        })
    }

    /// Gives the lock up, waits for a notification, and takes the lock again.
    ///
    /// What was waited for may be gone by then: look again, or use [`Condition::wait_while`].
    ///
    /// # Errors
    ///
    /// [`OwnerDied`], where the lock's last holder died meanwhile: this one has it, as after [`Lock::lock`](crate::Lock::lock).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::{Condition, Lock};
    /// use std::thread;
    ///
    /// let (lock, condition) = (Lock::new(0_u8)?, Condition::new()?);
    /// let mut guard = lock.lock()?;
    /// let other = (lock.clone(), condition.clone());
    /// let thread = thread::spawn(move || {
    ///     *other.0.lock().unwrap() = 1;
    ///     other.1.notify_one();
    /// });
    /// while *guard == 0 {
    ///     guard = condition.wait(guard)?;
    /// }
    /// # drop(guard);
    /// # thread.join().unwrap();
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn wait<'a, T: Pod>(
        &self,
        guard: LockGuard<'a, T>,
    ) -> Result<LockGuard<'a, T>, OwnerDied<LockGuard<'a, T>>> {
        self.wait_until(guard, Deadline::NEVER).0
    }

    /// Waits as long as `condition` says so of the lock's value, which it may change.
    ///
    /// # Errors
    ///
    /// As [`Condition::wait`].
    ///
    /// # Examples
    ///
    /// See [`Condition`].
    pub fn wait_while<'a, T: Pod>(
        &self,
        mut guard: LockGuard<'a, T>,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> Result<LockGuard<'a, T>, OwnerDied<LockGuard<'a, T>>> {
        while condition(&mut guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// As [`Condition::wait`], no longer than `limit`, and however long it takes to get the lock again.
    ///
    /// # Errors
    ///
    /// As [`Condition::wait`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (lock, condition) = (multiprocess::Lock::new(())?, multiprocess::Condition::new()?);
    /// let (guard, result) = condition.wait_timeout(lock.lock()?, Duration::from_millis(10))?;
    /// assert!(result.timed_out());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn wait_timeout<'a, T: Pod>(
        &self,
        guard: LockGuard<'a, T>,
        limit: Duration,
    ) -> Result<(LockGuard<'a, T>, WaitTimeoutResult), OwnerDied<LockGuard<'a, T>>> {
        let (guard, result) = self.wait_until(guard, Deadline::after(limit));
        guard.map(|guard| (guard, result))
    }

    /// As [`Condition::wait_while`], no longer than `limit`. The time was over only if `condition` still says so.
    ///
    /// # Errors
    ///
    /// As [`Condition::wait`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (lock, condition) = (multiprocess::Lock::new(3_u8)?, multiprocess::Condition::new()?);
    /// let limit = Duration::from_secs(60);
    /// let (guard, result) = condition.wait_timeout_while(lock.lock()?, limit, |value| *value == 0)?;
    /// assert!(!result.timed_out() && *guard == 3);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn wait_timeout_while<'a, T: Pod>(
        &self,
        mut guard: LockGuard<'a, T>,
        limit: Duration,
        mut condition: impl FnMut(&mut T) -> bool,
    ) -> Result<(LockGuard<'a, T>, WaitTimeoutResult), OwnerDied<LockGuard<'a, T>>> {
        let deadline = Deadline::after(limit);
        loop {
            if !condition(&mut guard) {
                return Ok((guard, WaitTimeoutResult { timed_out: false }));
            }
            if deadline.remaining().is_some_and(|left| left.is_zero()) {
                return Ok((guard, WaitTimeoutResult { timed_out: true }));
            }
            guard = self.wait_until(guard, deadline).0?;
        }
    }

    /// Wakes the one that has waited longest, if anybody waits. It need not hold the lock.
    ///
    /// # Examples
    ///
    /// ```
    /// multiprocess::Condition::new()?.notify_one();
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn notify_one(&self) {
        self.seats.notify_one();
    }

    /// Wakes all that wait. It need not hold the lock.
    ///
    /// # Examples
    ///
    /// ```
    /// multiprocess::Condition::new()?.notify_all();
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn notify_all(&self) {
        self.seats.notify_all();
    }

    fn wait_until<'a, T: Pod>(
        &self,
        guard: LockGuard<'a, T>,
        deadline: Deadline,
    ) -> (
        Result<LockGuard<'a, T>, OwnerDied<LockGuard<'a, T>>>,
        WaitTimeoutResult,
    ) {
        let lock = guard.lock();
        let seat = self.seats.sit_down();
        drop(guard);
        step!("condition::wait::given");
        let timed_out = match seat {
            Some(seat) => !seat.sleep(deadline),
            None => {
                thread::yield_now();
                false
            }
        };
        (lock.lock(), WaitTimeoutResult { timed_out })
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condition")
            .field("waiting", &self.seats.waiting())
            .finish()
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.seats.slot.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Condition {
            seats: Seats {
                slot: object::arrive(deserializer, LEN)?,
            },
        })
    }
}
