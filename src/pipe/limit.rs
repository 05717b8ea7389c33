//! How long an operation may wait.

use crate::deadline::Deadline;
use parking_lot::{Mutex, MutexGuard};
use std::time::Duration;

/// Not at all, or until an instant.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    Now,
    Until(Deadline),
}

impl Limit {
    /// Waits for ever.
    pub(crate) const NEVER: Limit = Limit::Until(Deadline::NEVER);

    /// Waits no longer than `limit`.
    pub(crate) fn within(limit: Duration) -> Limit {
        if limit.is_zero() {
            Limit::Now
        } else {
            Limit::Until(Deadline::after(limit))
        }
    }

    /// The instant, where something is waited for at all.
    pub(crate) fn deadline(self) -> Option<Deadline> {
        match self {
            Limit::Now => None,
            Limit::Until(deadline) => Some(deadline),
        }
    }

    /// Takes a lock that another thread may hold while it waits; `None` where it was not to be had in time.
    pub(crate) fn lock<T>(self, lock: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        match self {
            Limit::Now => lock.try_lock(),
            Limit::Until(deadline) => match deadline.remaining() {
                None => Some(lock.lock()),
                Some(left) => lock.try_lock_for(left),
            },
        }
    }
}
