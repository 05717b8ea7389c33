//! `RLock`: a lock that its holder may take again.
//!
//! How often its holder has taken it stands in the holder's own memory: nobody else needs it. It is found there by the
//! address of the lock's word, which is one in each process, however many handles there are.

use crate::deadline::Deadline;
use crate::error::Result;
use crate::shm::Slot;
use crate::sync::died::{Guard, OwnerDied, sealed};
use crate::sync::object::{self, Owner};
use crate::sys::robust::{Held, Word};
use crate::sys::step::step;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::thread;
use std::time::Duration;

thread_local! {
    /// What is here and not held was the parent's, before a fork.
    static TAKEN: RefCell<AllTaken> = const { RefCell::new(AllTaken::NONE) };
}

/// How often a thread has taken each lock that it holds. It is there until the thread's very end, as guards may be: nothing has to be
/// dropped, since nothing is left in memory of its own where no lock is held.
struct AllTaken {
    one: Option<Taken>,
    others: ManuallyDrop<Vec<Taken>>,
}

#[derive(Clone, Copy)]
struct Taken {
    lock: usize,
    times: usize,
    is_broken: bool,
}

impl AllTaken {
    const NONE: AllTaken = AllTaken {
        one: None,
        others: ManuallyDrop::new(Vec::new()),
    };

    fn find(&mut self, lock: usize) -> Option<&mut Taken> {
        let mut all = self.one.iter_mut().chain(self.others.iter_mut());
        all.find(|one| one.lock == lock)
    }

    fn add(&mut self, taken: Taken) {
        self.remove(taken.lock);
        if self.one.is_none() {
            self.one = Some(taken);
        } else {
            self.others.push(taken);
        }
    }

    fn remove(&mut self, lock: usize) {
        if self.one.is_some_and(|one| one.lock == lock) {
            self.one = None;
        } else if !self.others.is_empty() {
            self.others.retain(|one| one.lock != lock);
            if self.others.is_empty() {
                *self.others = Vec::new();
            }
        }
    }
}

/// Is held by one thread of one process at a time, which may take it again; others get it when it has been given up as often.
///
/// It has no value: what it guards is elsewhere. In everything else it is as [`Lock`](crate::Lock): shared by processes and
/// threads, sent at any time, without a system call when nobody else wants it, and handed on as [`OwnerDied`] when its
/// holder dies.
///
/// # Examples
///
/// ```
/// use multiprocess::RLock;
///
/// fn outer(lock: &RLock) -> multiprocess::Result<u32> {
///     let _guard = lock.lock()?;
///     inner(lock)
/// }
/// fn inner(lock: &RLock) -> multiprocess::Result<u32> {
///     let _guard = lock.lock()?;
///     Ok(42)
/// }
/// assert_eq!(outer(&RLock::new()?)?, 42);
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Clone)]
pub struct RLock {
    slot: Slot,
}

/// Holds an [`RLock`] until it is dropped, and the others that this thread has of it as well. It stays on that thread.
///
/// # Examples
///
/// ```
/// let lock = multiprocess::RLock::new()?;
/// let outer = lock.lock()?;
/// let inner = lock.lock()?;
/// drop((inner, outer));
/// assert!(!lock.is_locked());
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[must_use = "the lock is given up when this is dropped"]
pub struct RLockGuard<'a> {
    lock: &'a RLock,
    was_panicking: bool,
    of_this_thread: PhantomData<*const ()>,
}

impl RLock {
    const LEN: usize = Word::LEN;

    /// Makes a lock that nobody holds.
    ///
    /// # Errors
    ///
    /// Where the system has no memory or no descriptor left.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiprocess::RLock::new()?;
    /// let (_one, _two) = (lock.lock()?, lock.lock()?);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn new() -> Result<RLock> {
        Ok(RLock {
            slot: object::allocate("recursive lock", RLock::LEN)?,
        })
    }

    /// Takes the lock, waiting as long as another thread or process holds it.
    ///
    /// # Errors
    ///
    /// [`OwnerDied`], which has the guard, where the last holder died or panicked.
    ///
    /// # Panics
    ///
    /// Where this thread holds more than 2,000 locks.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiprocess::RLock::new()?;
    /// let guard = lock.lock()?;
    /// assert!(lock.is_locked());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn lock(&self) -> Result<RLockGuard<'_>, OwnerDied<RLockGuard<'_>>> {
        loop {
            if let Some(guard) = self.take(Deadline::NEVER)? {
                return Ok(guard);
            }
        }
    }

    /// Takes the lock if no other thread or process holds it: `None` if one does.
    ///
    /// # Errors
    ///
    /// As [`RLock::lock`].
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiprocess::RLock::new()?;
    /// let guard = lock.lock()?;
    /// assert!(lock.try_lock()?.is_some());
    /// let other = lock.clone();
    /// std::thread::spawn(move || assert!(other.try_lock().unwrap().is_none())).join().unwrap();
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn try_lock(&self) -> Result<Option<RLockGuard<'_>>, OwnerDied<RLockGuard<'_>>> {
        self.take(Deadline::after(Duration::ZERO))
    }

    /// Takes the lock, waiting no longer than `limit`: `None` if another one held it all the time.
    ///
    /// # Errors
    ///
    /// As [`RLock::lock`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let lock = multiprocess::RLock::new()?;
    /// assert!(lock.lock_timeout(Duration::from_millis(10))?.is_some());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn lock_timeout(
        &self,
        limit: Duration,
    ) -> Result<Option<RLockGuard<'_>>, OwnerDied<RLockGuard<'_>>> {
        self.take(Deadline::after(limit))
    }

    /// Returns whether somebody held the lock a moment ago.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!multiprocess::RLock::new()?.is_locked());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_locked(&self) -> bool {
        self.word().holder().is_some()
    }

    fn take(
        &self,
        deadline: Deadline,
    ) -> Result<Option<RLockGuard<'_>>, OwnerDied<RLockGuard<'_>>> {
        let guard = RLockGuard {
            lock: self,
            was_panicking: thread::panicking(),
            of_this_thread: PhantomData,
        };
        if self.word().is_held_by_this_thread() {
            self.with_taken(|taken| taken.times += 1);
            step!("rlock::take::again");
            return Ok(Some(guard));
        }
        let Some(held) = self.word().acquire(deadline) else {
            mem::forget(guard);
            return Ok(None);
        };
        let is_broken = held.owner_died();
        step!("rlock::take::held");
        self.keep(held, is_broken);
        if is_broken {
            Err(OwnerDied::new(guard))
        } else {
            Ok(Some(guard))
        }
    }

    /// Notes that this thread has taken it once; the guards give it up.
    fn keep(&self, held: Held<'_>, is_broken: bool) {
        let taken = Taken {
            lock: self.address(),
            times: 1,
            is_broken,
        };
        TAKEN.with_borrow_mut(|all| all.add(taken));
        mem::forget(held);
    }

    /// How often this thread has taken it, to be changed.
    fn with_taken<R>(&self, change: impl FnOnce(&mut Taken) -> R) -> Option<R> {
        let lock = self.address();
        TAKEN.with_borrow_mut(|all| all.find(lock).map(change))
    }

    /// It is given up.
    fn forget_taken(&self) {
        let lock = self.address();
        TAKEN.with_borrow_mut(|all| all.remove(lock));
    }

    fn address(&self) -> usize {
        let word = self.slot.mapping().word(self.slot.offset());
        word.as_ptr().addr()
    }

    fn word(&self) -> Word<'_> {
        Word::at(self.slot.mapping(), self.slot.offset())
    }
}

impl Drop for RLockGuard<'_> {
    fn drop(&mut self) {
        let word = self.lock.word();
        if !word.is_held_by_this_thread() {
            return; // A copy that a fork has made of its parent's.
        }
        let panics = thread::panicking() && !self.was_panicking;
        let left = self.lock.with_taken(|taken| {
            taken.is_broken |= panics;
            taken.times = taken.times.saturating_sub(1);
            *taken
        });
        step!("rlock::give::counted");
        if left.is_some_and(|taken| taken.times > 0) {
            return;
        }
        self.lock.forget_taken();
        if left.is_some_and(|taken| taken.is_broken) {
            word.release_as_died();
        } else {
            word.release();
        }
    }
}

impl Guard for RLockGuard<'_> {}

impl sealed::Sealed for RLockGuard<'_> {
    fn recover(&mut self) {
        self.lock.with_taken(|taken| taken.is_broken = false);
    }
}

impl fmt::Debug for RLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word();
        let times = if word.is_held_by_this_thread() {
            self.with_taken(|taken| taken.times)
        } else {
            None
        };
        f.debug_struct("RLock")
            .field("owner", &Owner(word.holder()))
            .field("owner_died", &word.is_died())
            .field("taken_by_this_thread", &times.unwrap_or(0))
            .finish()
    }
}

impl fmt::Debug for RLockGuard<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RLockGuard")
            .field("lock", self.lock)
            .finish_non_exhaustive()
    }
}

impl Serialize for RLock {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.slot.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RLock {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(RLock {
            slot: object::arrive(deserializer, RLock::LEN)?,
        })
    }
}
