//! Why an operation on one side of a lane failed.

use crate::error::Error;
use crate::shm::Corrupt;
use crate::sys::limits;
use std::io;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// There is no room, or no message.
    #[error("not now")]
    NotNow,
    #[error("the time limit has passed")]
    TimedOut,
    #[error("the other end is closed")]
    Closed,
    #[error("the pipe's end has moved to another process")]
    Moved,
    #[error("the pipe's end is used by another process, which has it from a fork or was sent it")]
    Forked,
    #[error("another thread of this process waits on it")]
    InUse,
    #[error("a message of {0} bytes never fits into the pipe as a whole")]
    NeverFits(usize),
    #[error("a message of {message} bytes is longer than the buffer of {buffer}; it is kept")]
    LongerThanBuffer { message: u64, buffer: usize },
    #[error("no memory for a message of {0} bytes; it is lost")]
    NoMemory(u64),
    #[error(
        "a message came without the descriptors of its handles: this process may open no more; it is lost"
    )]
    LostDescriptors,
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Failure {
    /// As the user sees it, of one who sends.
    pub(crate) fn of_sending(self) -> Error {
        match self {
            Failure::NotNow => Error::full(SEND),
            other => other.of(SEND),
        }
    }

    /// As the user sees it, of one who receives.
    pub(crate) fn of_receiving(self) -> Error {
        match self {
            Failure::NotNow => Error::empty(RECEIVE),
            other => other.of(RECEIVE),
        }
    }

    fn of(self, operation: &str) -> Error {
        match self {
            Failure::Closed => Error::closed(operation),
            Failure::TimedOut => Error::timeout(operation),
            Failure::Io(error) => limits::explained(operation, error),
            other => Error::refused(operation, other.to_string()),
        }
    }
}

/// A value that could not be encoded.
pub(crate) fn unsent(why: String) -> Error {
    Error::refused(SEND, why)
}

/// A message that is no value of the type that was wanted.
pub(crate) fn unreceived(why: String) -> Error {
    Error::refused(RECEIVE, why)
}

const SEND: &str = "cannot send to a pipe";
const RECEIVE: &str = "cannot receive from a pipe";
