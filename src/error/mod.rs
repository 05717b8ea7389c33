//! What can go wrong: [`Error`] on the system's side, [`TaskError`] in a function that ran elsewhere.

mod task;
mod send;

pub use send::SendError;
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
    pub fn is_closed(&self) -> bool {
        matches!(self.cause, Cause::Closed)
    }

    /// Returns whether there was no room at once; later there may be.
    pub fn is_full(&self) -> bool {
        matches!(self.cause, Cause::Full)
    }

    /// Returns whether nothing was there at once; later there may be.
    pub fn is_empty(&self) -> bool {
        matches!(self.cause, Cause::Empty)
    }

    /// Returns whether the time limit of the call has passed; nothing has happened.
    pub fn is_timeout(&self) -> bool {
        matches!(self.cause, Cause::Timeout)
    }

    /// Returns the error number of the system call that failed, as of `errno(3)`.
    pub fn raw_os_error(&self) -> Option<i32> {
        match &self.cause {
            Cause::Io(error) | Cause::Limit { error, .. } => error.raw_os_error(),
            _ => None,
        }
    }

    /// Returns what became of the function, if that is what this error is about.
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
