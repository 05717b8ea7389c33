//! A value that could not be handed over, with the reason.

use crate::error::Error;
use std::fmt;

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
    pub fn into_value(self) -> T {
        self.value
    }

    /// Returns why it was not sent.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// Returns whether the other side, or the queue, is closed: sending again is of no use.
    pub fn is_closed(&self) -> bool {
        self.error.is_closed()
    }

    /// Returns whether there was no room for it at once.
    pub fn is_full(&self) -> bool {
        self.error.is_full()
    }

    /// Returns whether the time limit passed before there was room for it.
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
        assert!(format!("{refused:?}").contains("it is full"));
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
