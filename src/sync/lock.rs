//! `Lock`: a value that one process or thread has at a time.
//!
//! The value stands in shared memory twice, with a number that tells which of the two counts. A guard has a copy of its
//! own, taken when the lock was, since nobody lends references into memory that others can write. Given up, a guard
//! writes a copy that was changed over the one that does not count, and then, by one store, has that one count. So a holder
//! that is killed at any instant leaves the value as it found it, or with all that it did, and never something in between.

use crate::deadline::Deadline;
use crate::error::Result;
use crate::shm::Slot;
use crate::sync::died::{Guard, OwnerDied, sealed};
use crate::sync::object::{self, Owner};
use crate::sys::part::Part;
use crate::sys::robust::Word;
use crate::sys::step::step;
use bytemuck::Pod;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

/// Which copy counts: 0 or 1.
const WHICH: usize = Word::LEN;
const COPIES: usize = WHICH + 8;

/// Holds a value in shared memory that one process or thread has at a time.
///
/// Clones, in this process and in others, are the same lock. It can be sent before and after the processes that use it were
/// started: in arguments, captures, results, through pipes and queues. Threads may use it likewise.
///
/// A guard derefs to the value. It is a copy, written back when the guard is dropped, so `T` should be small: numbers,
/// arrays of them, structs that derive [`bytemuck::Pod`], or nothing.
///
/// **A holder that dies keeps nobody waiting**: the next one gets [`OwnerDied`], with the guard in it. The value is then as
/// it was before the dead one took the lock, or with everything that it did; never half changed. A holder that panics is
/// one that died: what it had changed is not there.
///
/// Taking and giving up a lock that nobody else wants takes no system call. Who waits looks at it for a moment and then
/// sleeps. Nobody is served in order.
///
/// A thread that takes locks tells the kernel what it holds, in place of the C library. So robust mutexes of the C library
/// (`PTHREAD_MUTEX_ROBUST`) that such a thread holds when it dies are not handed on. Processes of different pid namespaces
/// must not share a lock: a thread's number means nothing in the other.
///
/// # Examples
///
/// ```
/// use multiprocess::{Lock, Process};
///
/// let total = Lock::new(0_u64)?;
/// let processes: Vec<Process> = (0..4)
///     .map(|_| {
///         Process::spawn(total.clone(), |total: Lock<u64>| {
///             for _ in 0..1000 {
///                 *total.lock().unwrap() += 1;
///             }
///         })
///     })
///     .collect::<Result<_, _>>()?;
/// for process in processes {
///     process.join()?;
/// }
/// assert_eq!(*total.lock()?, 4000);
/// # Ok::<(), multiprocess::Error>(())
/// ```
pub struct Lock<T: Pod = ()> {
    slot: Slot,
    holds: PhantomData<fn() -> T>,
}

/// Has the value of a [`Lock`] until it is dropped. It stays on the thread that took it.
///
/// # Examples
///
/// ```
/// let lock = multiprocess::Lock::new(1)?;
/// let mut guard = lock.lock()?;
/// *guard += 1;
/// drop(guard);
/// assert_eq!(*lock.lock()?, 2);
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[must_use = "the lock is given up when this is dropped"]
pub struct LockGuard<'a, T: Pod = ()> {
    lock: &'a Lock<T>,
    part: Part<'a>,
    value: T,
    /// Which copy counts.
    which: u64,
    is_changed: bool,
    /// Until somebody takes over what a dead holder left.
    is_broken: bool,
    was_panicking: bool,
    of_this_thread: PhantomData<*const ()>,
}

impl<T: Pod> Lock<T> {
    const STRIDE: usize = size_of::<T>().next_multiple_of(8);
    const LEN: usize = COPIES + 2 * Lock::<T>::STRIDE;

    /// Makes a lock that nobody holds.
    ///
    /// # Errors
    ///
    /// Where the system has no memory or no descriptor left.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::Lock;
    ///
    /// let lock = Lock::new([1.5_f32, 2.5])?;
    /// lock.lock()?[1] = 3.5;
    /// assert_eq!(*lock.lock()?, [1.5, 3.5]);
    /// let plain = Lock::new(())?;
    /// assert!(plain.try_lock()?.is_some());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn new(value: T) -> Result<Lock<T>> {
        let lock = Lock {
            slot: object::allocate("lock", Lock::<T>::LEN)?,
            holds: PhantomData,
        };
        write(lock.part(), 0, &value);
        Ok(lock)
    }

    /// Takes the lock, waiting as long as another one holds it.
    ///
    /// # Errors
    ///
    /// [`OwnerDied`], which has the guard, where the last holder died or panicked.
    ///
    /// # Panics
    ///
    /// Where this thread holds the lock already, and would wait for itself. Where it holds more than 2,000 locks.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiprocess::Lock::new(1_u8)?;
    /// *lock.lock()? += 1;
    /// assert_eq!(*lock.lock()?, 2);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    // Always, here and in the drop of the guard: called, it would hand the guard over in memory, field by field, from where its
    // caller takes several at once. The processor waits for that longer than all the rest takes.
    #[inline(always)]
    pub fn lock(&self) -> Result<LockGuard<'_, T>, OwnerDied<LockGuard<'_, T>>> {
        let part = self.part();
        let is_taken = Word::of(part, 0).take_plainly();
        let owner_died = !is_taken && self.acquire_slowly();
        self.guard(part, owner_died)
    }

    /// Takes the lock if nobody holds it: `None` if somebody does, this thread included.
    ///
    /// # Errors
    ///
    /// As [`Lock::lock`].
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiprocess::Lock::new(())?;
    /// let guard = lock.lock()?;
    /// assert!(lock.try_lock()?.is_none());
    /// drop(guard);
    /// assert!(lock.try_lock()?.is_some());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    #[inline]
    pub fn try_lock(&self) -> Result<Option<LockGuard<'_, T>>, OwnerDied<LockGuard<'_, T>>> {
        let part = self.part();
        Word::of(part, 0)
            .try_acquire()
            .map(|held| self.guard(part, held.keep()))
            .transpose()
    }

    /// Takes the lock, waiting no longer than `limit`: `None` if another one held it all the time.
    ///
    /// # Errors
    ///
    /// As [`Lock::lock`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let lock = multiprocess::Lock::new(())?;
    /// let guard = lock.lock()?;
    /// assert!(lock.lock_timeout(Duration::from_millis(10))?.is_none());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn lock_timeout(
        &self,
        limit: Duration,
    ) -> Result<Option<LockGuard<'_, T>>, OwnerDied<LockGuard<'_, T>>> {
        let part = self.part();
        Word::of(part, 0)
            .acquire(Deadline::after(limit))
            .map(|held| self.guard(part, held.keep()))
            .transpose()
    }

    /// Returns whether somebody held the lock a moment ago.
    ///
    /// # Examples
    ///
    /// ```
    /// let lock = multiprocess::Lock::new(())?;
    /// assert!(!lock.is_locked());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_locked(&self) -> bool {
        self.word().holder().is_some()
    }

    #[inline]
    fn part(&self) -> Part<'_> {
        self.slot.part(Lock::<T>::LEN)
    }

    fn word(&self) -> Word<'_> {
        Word::of(self.part(), 0)
    }

    /// Returns whether the last holder died.
    #[cold]
    fn acquire_slowly(&self) -> bool {
        assert!(
            !self.word().is_held_by_this_thread(),
            "this thread holds the lock already: it would wait for itself"
        );
        loop {
            if let Some(held) = self.word().acquire(Deadline::NEVER) {
                return held.keep();
            }
        }
    }

    /// The guard of the lock, which was taken.
    #[inline(always)]
    fn guard<'a>(
        &'a self,
        part: Part<'a>,
        is_broken: bool,
    ) -> Result<LockGuard<'a, T>, OwnerDied<LockGuard<'a, T>>> {
        let which = which::<T>(part);
        step!("lock::take::held");
        let mut value = T::zeroed();
        part.read(copy::<T>(which), bytemuck::bytes_of_mut(&mut value));
        let guard = LockGuard {
            lock: self,
            part,
            value,
            which,
            is_changed: false,
            is_broken,
            was_panicking: thread::panicking(),
            of_this_thread: PhantomData,
        };
        if is_broken {
            Err(OwnerDied::new(guard))
        } else {
            Ok(guard)
        }
    }
}

#[inline]
fn which<T>(part: Part<'_>) -> u64 {
    if size_of::<T>() == 0 {
        return 0;
    }
    part.word(WHICH).load(Ordering::Relaxed) & 1
}

/// Has `value` count, in the place of the copy that does not.
#[inline]
fn write<T: Pod>(part: Part<'_>, which: u64, value: &T) {
    if size_of::<T>() == 0 {
        return;
    }
    let other = 1 - which;
    part.write(copy::<T>(other), bytemuck::bytes_of(value));
    step!("lock::write::copied");
    // Release: not before the bytes, for whoever finds this thread dead here.
    part.word(WHICH).store(other, Ordering::Release);
    step!("lock::write::switched");
}

#[inline]
fn copy<T: Pod>(which: u64) -> usize {
    COPIES + if which == 0 { 0 } else { Lock::<T>::STRIDE }
}

impl<'a, T: Pod> LockGuard<'a, T> {
    /// The lock that it is of.
    pub(crate) fn lock(&self) -> &'a Lock<T> {
        self.lock
    }
}

impl<T: Pod> Deref for LockGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Pod> DerefMut for LockGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.is_changed = true;
        &mut self.value
    }
}

impl<T: Pod> Drop for LockGuard<'_, T> {
    #[inline(always)]
    fn drop(&mut self) {
        let is_sound = !self.is_broken && (!thread::panicking() || self.was_panicking);
        let word = Word::of(self.part, 0);
        let change = || {
            if self.is_changed {
                write(self.part, self.which, &self.value);
            }
        };
        // What is given up slowly gets a copy: a guard whose address is taken here would be kept in memory everywhere.
        if !is_sound {
            word.release_as_died();
        } else if !word.release_last(change) {
            let change = self.is_changed.then_some(self.value);
            release_any(word, self.part, self.which, change);
        }
    }
}

/// Gives up a lock that is not what this thread took last.
#[cold]
fn release_any<T: Pod>(word: Word<'_>, part: Part<'_>, which: u64, change: Option<T>) {
    // A copy that a fork has made is its parent's.
    if let Some(value) = change.filter(|_| word.is_held_by_this_thread()) {
        write(part, which, &value);
    }
    word.release();
}

impl<T: Pod> Guard for LockGuard<'_, T> {}

impl<T: Pod> sealed::Sealed for LockGuard<'_, T> {
    fn recover(&mut self) {
        self.is_broken = false;
    }
}

impl<T: Pod> Clone for Lock<T> {
    /// Makes another handle on the same lock.
    fn clone(&self) -> Self {
        Lock {
            slot: self.slot.clone(),
            holds: PhantomData,
        }
    }
}

impl<T: Pod> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock")
            .field("owner", &Owner(self.word().holder()))
            .field("owner_died", &self.word().is_died())
            .finish()
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for LockGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T: Pod + fmt::Display> fmt::Display for LockGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T: Pod> Serialize for Lock<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.slot.serialize(serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for Lock<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Lock {
            slot: object::arrive(deserializer, Lock::<T>::LEN)?,
            holds: PhantomData,
        })
    }
}
