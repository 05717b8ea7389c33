//! Why an operation on one side of a lane failed.

use crate::shm::Corrupt;
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
    #[error("another thread of this process waits on it")]
    InUse,
    #[error("a message of {0} bytes never fits into the pipe as a whole")]
    NeverFits(usize),
    #[error("a message of {message} bytes is longer than the buffer of {buffer}; it is kept")]
    LongerThanBuffer { message: u64, buffer: usize },
    #[error("no memory for a message of {0} bytes; it is lost")]
    NoMemory(u64),
    #[error("a message came without the descriptors of its handles: this process may open no more; it is lost")]
    LostDescriptors,
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    #[error(transparent)]
    Io(#[from] io::Error),
}
