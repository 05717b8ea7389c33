//! What hindered a queue, as an [`Error`].

use crate::error::Error;
use crate::queue::core::Failure;
use crate::sys::limits;
use std::io;

pub(crate) const PUT: &str = "cannot put into a queue";
pub(crate) const GET: &str = "cannot get from a queue";

pub(crate) fn of_putting(failure: Failure) -> Error {
    told(PUT, failure, Error::full)
}

pub(crate) fn of_getting(failure: Failure) -> Error {
    told(GET, failure, Error::empty)
}

pub(crate) fn told(
    operation: &'static str,
    failure: Failure,
    not_now: fn(&'static str) -> Error,
) -> Error {
    match failure {
        Failure::Closed => Error::closed(operation),
        Failure::NotNow => not_now(operation),
        Failure::Timeout => Error::timeout(operation),
        Failure::Corrupt => Error::refused(operation, "a process has overwritten its memory"),
        Failure::TooManyDescriptors => {
            Error::refused(operation, "the value has too many handles in it")
        }
        Failure::DescriptorsGone => Error::refused(
            operation,
            "a value came without the descriptors of its handles",
        ),
        Failure::NoRoom => Error::refused(operation, "the file that holds it may not be larger"),
        Failure::Refused(error) => refused(operation, error),
    }
}

pub(crate) fn refused(operation: &'static str, error: io::Error) -> Error {
    limits::explained(operation, error)
}
