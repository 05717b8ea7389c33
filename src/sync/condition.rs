//! `Condition`: who waits is woken by who has changed something.
//!
//! Each waiter takes a *seat*: a robust word, which it holds while it waits, so that a dead waiter is known; a number, in the
//! order in which they came; and a state, on which it sleeps.
//!
//! | state | changed by | to |
//! |---|---|---|
//! | `EMPTY` | who takes the seat, holding its word | `WAITING` |
//! | `WAITING` | who notifies | `NOTIFIED`, and wakes it |
//! | `WAITING` | its waiter, when its deadline has passed | `EMPTY` |
//! | `NOTIFIED` | its waiter | `EMPTY` |
//!
//! Each step from `WAITING` is one compare-and-swap: of a notification and a deadline, one comes first. So a notification wakes
//! one waiter, neither none nor two: the one that has waited longest. A waiter takes its seat while it holds the lock, so
//! whoever has the lock after it finds it waiting.
//!
//! | a waiter dies | its seat | so |
//! |---|---|---|
//! | waiting | died, `WAITING` | who notifies passes over it |
//! | just as it is notified | died, `NOTIFIED` | who notifies looks once more, takes it back, and notifies another |
//! | later | died, `NOTIFIED` | the next one who takes the seat passes the notification on |
//!
//! Who notifies may die at any step: a waiter that it has notified and not woken yet is woken by the kernel, to which that
//! seat's state is *pending*.

use crate::deadline::Deadline;
use crate::error::Result;
use crate::shm::Slot;
use crate::sync::died::OwnerDied;
use crate::sync::lock::LockGuard;
use crate::sync::object;
use crate::sys::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::sys::futex;
use crate::sys::limits;
use crate::sys::robust::{Held, Word, pending_on};
use bytemuck::Pod;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::hint::spin_loop;
use std::thread;
use std::time::Duration;

/// How many can wait at a time and be told apart.
const SEATS: usize = if cfg!(all(test, loom)) { 3 } else { 340 };

// Words of the whole.
const NEXT_NUMBER: usize = 0;
/// Seats from this one on have never been taken.
const FRESH: usize = 8;
const FIRST: usize = 16;

// Words of a seat.
const NUMBER: usize = Word::LEN;
/// A futex, and room for a node, which the kernel's account of it asks for.
const STATE: usize = NUMBER + 8;
const SEAT: usize = STATE + Word::LEN + 8;

const LEN: usize = FIRST + SEATS * SEAT;

// No state has a bit that the kernel takes for part of a thread's number.
const EMPTY: u32 = 0;
const WAITING: u32 = 1 << 31;
const NOTIFIED: u32 = 1 << 30;

/// How often a waiter looks before it sleeps.
const LOOKS: u32 = 200;

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
    slot: Slot,
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

/// A seat that this thread has taken.
struct Seat<'a> {
    held: Option<Held<'a>>,
    state: &'a AtomicU32,
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
            slot: object::allocate("condition", LEN)?,
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
        // Each turn ends a wait; more turns than seats are needed only where another process writes nonsense.
        for _ in 0..2 * SEATS {
            let waiting = self.seats().filter(|&seat| self.waits(seat));
            let Some(first) = waiting.min_by_key(|&seat| self.number(seat).load(Ordering::Relaxed))
            else {
                return;
            };
            if self.notify(first) {
                return;
            }
        }
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
        for seat in self.seats() {
            if self.waits(seat) {
                self.notify(seat);
            }
        }
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
        let seat = self.sit_down();
        drop(guard);
        let timed_out = match seat {
            Some(seat) => !seat.sleep(deadline),
            None => {
                thread::yield_now();
                false
            }
        };
        (lock.lock(), WaitTimeoutResult { timed_out })
    }

    /// Takes a seat, if there is one: the first that is free, so that few have to be looked at.
    fn sit_down(&self) -> Option<Seat<'_>> {
        let (seat, held) = (0..SEATS).find_map(|seat| {
            let held = self.word(seat).try_acquire()?;
            Some((seat, held))
        })?;
        let state = self.state(seat);
        if state.swap(EMPTY, Ordering::AcqRel) == NOTIFIED {
            // The one before died here, with a notification that is another's then.
            self.notify_one();
        }
        let number = self.at(NEXT_NUMBER).fetch_add(1, Ordering::Relaxed);
        self.number(seat).store(number, Ordering::Relaxed);
        // Release: with the number. Pairs with the acquire in `waits`.
        state.store(WAITING, Ordering::Release);
        self.at(FRESH).fetch_max(seat as u64 + 1, Ordering::Release);
        Some(Seat {
            held: Some(held),
            state,
        })
    }

    /// Whether somebody waits there who is alive.
    fn waits(&self, seat: usize) -> bool {
        self.state(seat).load(Ordering::Acquire) == WAITING && self.word(seat).holder().is_some()
    }

    /// Ends the wait there; false if it has ended by itself, or its waiter is dead.
    fn notify(&self, seat: usize) -> bool {
        let state = self.state(seat);
        let _pending = pending_on(self.slot.mapping(), self.offset(seat) + STATE);
        // Release: what was changed before is seen by the one that wakes. Pairs with the acquire in `Seat::sleep`.
        let is_first = state
            .compare_exchange(WAITING, NOTIFIED, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if !is_first {
            return false;
        }
        futex::wake(state, 1);
        // Whoever takes a dead one's seat meanwhile finds the notification there, and passes it on.
        let comes_back = || {
            state
                .compare_exchange(NOTIFIED, EMPTY, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
        };
        !(self.word(seat).is_died() && comes_back())
    }

    /// Those that have ever been taken.
    fn seats(&self) -> std::ops::Range<usize> {
        let fresh = self.at(FRESH).load(Ordering::Acquire);
        0..usize::try_from(fresh).map_or(SEATS, |fresh| fresh.min(SEATS))
    }

    fn at(&self, offset: usize) -> &AtomicU64 {
        self.slot.mapping().word(self.slot.offset() + offset)
    }

    fn offset(&self, seat: usize) -> usize {
        self.slot.offset() + FIRST + seat * SEAT
    }

    fn word(&self, seat: usize) -> Word<'_> {
        Word::at(self.slot.mapping(), self.offset(seat))
    }

    fn number(&self, seat: usize) -> &AtomicU64 {
        self.slot.mapping().word(self.offset(seat) + NUMBER)
    }

    fn state(&self, seat: usize) -> &AtomicU32 {
        self.slot.mapping().word32(self.offset(seat) + STATE)
    }
}

impl Seat<'_> {
    /// Returns whether a notification came before the deadline.
    fn sleep(self, deadline: Deadline) -> bool {
        let is_over = || self.state.load(Ordering::Acquire) != WAITING;
        let looks = if limits::processors() > 1 { LOOKS } else { 0 };
        for _ in 0..looks {
            if is_over() {
                return true;
            }
            spin_loop();
        }
        while !is_over() {
            if !futex::wait(self.state, WAITING, deadline) {
                let gave_up = self.state.compare_exchange(
                    WAITING,
                    EMPTY,
                    Ordering::AcqRel,
                    Ordering::Acquire,
                );
                return gave_up.is_err();
            }
        }
        true
    }
}

impl Drop for Seat<'_> {
    /// Stands up.
    fn drop(&mut self) {
        self.state.store(EMPTY, Ordering::Release);
        self.held = None;
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.seats().filter(|&seat| self.waits(seat)).count();
        f.debug_struct("Condition")
            .field("waiting", &waiting)
            .finish()
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.slot.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Condition {
            slot: object::arrive(deserializer, LEN)?,
        })
    }
}
