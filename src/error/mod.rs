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
            Cause::Refused(_) => None,
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
