//! What can go wrong: [`Error`] on the system's side, [`TaskError`] in a function that ran elsewhere.

mod task;

pub use task::{TaskError, TaskErrorKind};

use std::fmt;
use std::io;

/// Names what the system refused: the operation, the object, and the cause.
///
/// # Examples
///
/// ```
/// let refused = multiprocess::Pool::builder().workers(0).build().unwrap_err();
/// assert_eq!(refused.to_string(), "cannot build a pool: it needs at least 1 worker");
/// ```
pub struct Error {
    operation: String,
    cause: Cause,
}

/// The result of a call that the system can refuse; a function's own failure is a [`TaskError`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
enum Cause {
    #[error("{0}")]
    Io(#[source] io::Error),
    #[error("{error} ({limit})")]
    Limit {
        #[source]
        error: io::Error,
        limit: String,
    },
    #[error("{0}")]
    Refused(String),
    #[error("it is closed")]
    Closed,
    #[error("it is full")]
    Full,
    #[error("it is empty")]
    Empty,
    #[error("the time limit has passed")]
    Timeout,
    #[error("{0}")]
    Task(#[source] TaskError),
}

impl Error {
    /// An operation that the operating system refused.
    pub(crate) fn io(operation: impl Into<String>, error: io::Error) -> Error {
        Error {
            operation: operation.into(),
            cause: Cause::Io(error),
        }
    }

    /// The same, with the resource limit that explains it.
    pub(crate) fn limit(
        operation: impl Into<String>,
        error: io::Error,
        limit: Option<String>,
    ) -> Error {
        match limit {
            Some(limit) => Error {
                operation: operation.into(),
                cause: Cause::Limit { error, limit },
            },
            None => Error::io(operation, error),
        }
    }

    /// An operation that this crate refuses, and why.
    pub(crate) fn refused(operation: impl Into<String>, why: impl Into<String>) -> Error {
        Error {
            operation: operation.into(),
            cause: Cause::Refused(why.into()),
        }
    }

    /// An operation on something that is closed, by this process or by another.
    pub(crate) fn closed(operation: impl Into<String>) -> Error {
        Error::because(operation, Cause::Closed)
    }

    /// An operation for which there is no room now.
    pub(crate) fn full(operation: impl Into<String>) -> Error {
        Error::because(operation, Cause::Full)
    }

    /// An operation for which nothing is there now.
    pub(crate) fn empty(operation: impl Into<String>) -> Error {
        Error::because(operation, Cause::Empty)
    }

    /// An operation whose time limit has passed.
    pub(crate) fn timeout(operation: impl Into<String>) -> Error {
        Error::because(operation, Cause::Timeout)
    }

    fn because(operation: impl Into<String>, cause: Cause) -> Error {
        Error {
            operation: operation.into(),
            cause,
        }
    }

    /// Returns whether what was to be used is closed and, where something was to be received, nothing is left in it.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiprocess::Queue::<u8>::bounded(1)?;
    /// queue.close();
    /// assert!(queue.get().unwrap_err().is_closed());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_closed(&self) -> bool {
        matches!(self.cause, Cause::Closed)
    }

    /// Returns whether there was no room at once; later there may be.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiprocess::Queue::<u8>::bounded(1)?;
    /// queue.put(1)?;
    /// assert!(queue.try_put(2).unwrap_err().error().is_full());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_full(&self) -> bool {
        matches!(self.cause, Cause::Full)
    }

    /// Returns whether nothing was there at once; later there may be.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiprocess::Queue::<u8>::bounded(1)?;
    /// assert!(queue.try_get().unwrap_err().is_empty());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        matches!(self.cause, Cause::Empty)
    }

    /// Returns whether the time limit of the call has passed; nothing has happened.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = multiprocess::Queue::<u8>::bounded(1)?;
    /// assert!(queue.get_timeout(Duration::from_millis(1)).unwrap_err().is_timeout());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_timeout(&self) -> bool {
        matches!(self.cause, Cause::Timeout)
    }

    /// Returns the error number of the system call that failed, as of `errno(3)`.
    ///
    /// # Examples
    ///
    /// ```
    /// let error = multiprocess::SharedMemory::open("there is none of this name").unwrap_err();
    /// assert_eq!(error.raw_os_error(), Some(2)); // ENOENT
    /// ```
    pub fn raw_os_error(&self) -> Option<i32> {
        match &self.cause {
            Cause::Io(error) | Cause::Limit { error, .. } => error.raw_os_error(),
            _ => None,
        }
    }

    /// Returns what became of the function, if that is what this error is about.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::{Error, Process, TaskError};
    ///
    /// let child: Process = Process::spawn((), |()| panic!("no more"))?;
    /// let error = Error::from(child.join().unwrap_err());
    /// assert!(error.task_error().is_some_and(TaskError::is_panic));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn task_error(&self) -> Option<&TaskError> {
        match &self.cause {
            Cause::Task(error) => Some(error),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.operation.is_empty() {
            write!(f, "{}", self.cause)
        } else {
            write!(f, "{}: {}", self.operation, self.cause)
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("operation", &self.operation)
            .field("cause", &self.cause)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Io(error) | Cause::Limit { error, .. } => Some(error),
            Cause::Task(error) => Some(error),
            _ => None,
        }
    }
}

impl From<TaskError> for Error {
    fn from(error: TaskError) -> Error {
        Error {
            operation: String::new(),
            cause: Cause::Task(error),
        }
    }
}

/// Tells why a value was not sent or put, and gives it back.
///
/// It becomes an [`Error`] with `?`; the value is dropped then.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), multiprocess::Error> {
/// let queue = multiprocess::Queue::bounded(1)?;
/// queue.put(String::from("one"))?;
/// let refused = queue.try_put(String::from("two")).unwrap_err();
/// assert!(refused.is_full());
/// assert_eq!(refused.into_value(), "two");
/// # Ok(())
/// # }
/// ```
pub struct SendError<T> {
    error: Error,
    value: T,
}

impl<T> SendError<T> {
    pub(crate) fn new(error: Error, value: T) -> SendError<T> {
        SendError { error, value }
    }

    /// Gives the value back.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiprocess::Queue::<u8>::bounded(1)?;
    /// queue.close();
    /// assert_eq!(queue.put(7).unwrap_err().into_value(), 7);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn into_value(self) -> T {
        self.value
    }

    /// Returns why it was not sent.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiprocess::Queue::<u8>::bounded(1)?;
    /// queue.close();
    /// assert!(queue.put(7).unwrap_err().error().to_string().contains("closed"));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// Returns whether the other side, or the queue, is closed: sending again is of no use.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiprocess::Queue::<u8>::bounded(1)?;
    /// queue.close();
    /// assert!(queue.put(7).unwrap_err().is_closed());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_closed(&self) -> bool {
        self.error.is_closed()
    }

    /// Returns whether there was no room for it at once.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiprocess::Queue::<u8>::bounded(1)?;
    /// queue.put(1)?;
    /// assert!(queue.try_put(2).unwrap_err().is_full());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_full(&self) -> bool {
        self.error.is_full()
    }

    /// Returns whether the time limit passed before there was room for it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = multiprocess::Queue::<u8>::bounded(1)?;
    /// queue.put(1)?;
    /// assert!(queue.put_timeout(2, Duration::from_millis(1)).unwrap_err().is_timeout());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_timeout(&self) -> bool {
        self.error.is_timeout()
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError")
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl<T: 'static> std::error::Error for SendError<T> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

impl<T> From<SendError<T>> for Error {
    fn from(refused: SendError<T>) -> Error {
        refused.error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Plain(u8);

    #[test]
    fn the_value_comes_back_whatever_its_type() {
        let refused = SendError::new(Error::full("cannot put"), Plain(3));
        assert!(refused.is_full() && !refused.is_closed() && !refused.is_timeout());
        assert_eq!(refused.to_string(), "cannot put: it is full");
        assert!(format!("{refused:?}").contains("Full"));
        let as_error: &dyn std::error::Error = &refused;
        assert!(as_error.source().is_none());
        assert_eq!(refused.into_value().0, 3);
    }

    #[test]
    fn it_becomes_an_error_of_the_same_kind() {
        let error: Error = SendError::new(Error::closed("cannot send"), Plain(0)).into();
        assert!(error.is_closed() && !error.is_full());
    }
}
