//! `OwnerDied`: what the next one gets after a holder that died.

use crate::error::Error;
use std::fmt;

/// Says that the last holder of a lock died while it held it, or panicked, or passed the news on; and carries the guard: the
/// lock is held now, by whoever has this.
///
/// [`OwnerDied::into_guard`] takes it over as it is. Dropped instead, by `?` for example, the lock is given up and the next
/// one gets the same news.
///
/// # Examples
///
/// ```
/// use multiprocess::{Lock, OwnerDied, Process};
///
/// let lock = Lock::new(7_u32)?;
/// let process = Process::spawn(lock.clone(), |lock: Lock<u32>| {
///     let mut guard = lock.lock().unwrap();
///     *guard = 8;
///     std::process::abort()
/// })?;
/// process.join().map(|(): ()| ()).unwrap_err();
///
/// let guard = lock.lock().unwrap_or_else(OwnerDied::into_guard);
/// assert_eq!(*guard, 7, "what it had not finished is not there");
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[must_use = "the lock is held, and is given up as it is when this is dropped"]
pub struct OwnerDied<G: Guard> {
    guard: G,
}

/// Marks the guards that an [`OwnerDied`] can carry. It is not for others to implement.
pub trait Guard: sealed::Sealed {}

pub(crate) mod sealed {
    //! What keeps `Guard` to this crate.

    /// A guard that is given up as broken until it is said to be sound.
    pub trait Sealed {
        /// From now on it is given up as any other.
        fn recover(&mut self);
    }
}

impl<G: Guard> OwnerDied<G> {
    pub(crate) fn new(guard: G) -> OwnerDied<G> {
        OwnerDied { guard }
    }

    /// Takes the lock over, as it is; from now on all is as before that death.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::{Lock, Process};
    ///
    /// let lock = Lock::new(1_u32)?;
    /// let child: Process = Process::spawn(lock.clone(), |lock: Lock<u32>| {
    ///     let _guard = lock.lock();
    ///     std::process::abort()
    /// })?;
    /// assert!(child.join().is_err());
    /// let guard = lock.lock().unwrap_or_else(|died| died.into_guard());
    /// assert_eq!(*guard, 1);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn into_guard(self) -> G {
        let mut guard = self.guard;
        guard.recover();
        guard
    }
}

impl<G: Guard> fmt::Debug for OwnerDied<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnerDied").finish_non_exhaustive()
    }
}

impl<G: Guard> fmt::Display for OwnerDied<G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the last holder of the lock died, or panicked, while it held it")
    }
}

impl<G: Guard> std::error::Error for OwnerDied<G> {}

impl<G: Guard> From<OwnerDied<G>> for Error {
    fn from(died: OwnerDied<G>) -> Error {
        Error::refused("cannot take a lock", died.to_string())
    }
}
