//! What a party is told: how it had come, or why the barrier is broken.

use crate::error::Error;

/// Tells a party, after the round, how it had come.
///
/// # Examples
///
/// ```
/// let result = multiprocess::Barrier::new(1)?.wait()?;
/// assert!(result.is_leader() && result.index() == 0);
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarrierWaitResult {
    pub(crate) index: usize,
}

impl BarrierWaitResult {
    /// Returns how many had come before it in this round: each from 0 up to the number of parties is there once.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(multiprocess::Barrier::new(1)?.wait()?.index(), 0);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns whether this is the one party of the round that is the leader: the one that came first.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(multiprocess::Barrier::new(1)?.wait()?.is_leader());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_leader(&self) -> bool {
        self.index == 0
    }
}

/// Says that a barrier was broken, before or while one waited.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let barrier = multiprocess::Barrier::new(2)?;
/// let error = barrier.wait_timeout(Duration::from_millis(1)).unwrap_err();
/// println!("{error}");
/// assert!(error.is_timeout());
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the barrier is broken: {cause}")]
pub struct BarrierError {
    pub(crate) cause: Broken,
}

impl BarrierError {
    /// Returns whether it was broken by a party whose time was over.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let barrier = multiprocess::Barrier::new(2)?;
    /// let error = barrier.wait_timeout(Duration::from_millis(1)).unwrap_err();
    /// assert!(error.is_timeout());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_timeout(&self) -> bool {
        self.cause == Broken::TimedOut
    }

    /// Returns whether it was broken by the death of a party that waited.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let barrier = multiprocess::Barrier::new(2)?;
    /// let error = barrier.wait_timeout(Duration::from_millis(1)).unwrap_err();
    /// assert!(!error.is_death());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_death(&self) -> bool {
        self.cause == Broken::Died
    }
}

impl From<BarrierError> for Error {
    fn from(broken: BarrierError) -> Error {
        Error::refused("cannot wait at a barrier", broken.to_string())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the time of a party was over")]
    TimedOut = 1,
    #[error("a party died while it waited")]
    Died = 2,
    #[error("it was aborted")]
    Aborted = 3,
    #[error("it was reset while a party waited")]
    Reset = 4,
}
