//! Waiting for whichever comes first, of things of different kinds.

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::pipe::{Pipe, Receiver};
use crate::pool::AsyncResult;
use crate::process::Process;
use crate::queue::Queue;
use crate::sys::limits;
use crate::sys::poll::any_readable;
use crate::task::Portable;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Marks what [`wait`] can wait for: pipes, queues, processes, calls that have not returned yet.
///
/// | of | is ready when |
/// |---|---|
/// | [`Pipe`], [`Receiver`] | a message is there to receive, or the other end is gone |
/// | [`Queue`] | a message is there to get, or it is closed |
/// | [`Process`] | it has ended |
/// | [`AsyncResult`] | the call has its outcome |
///
/// It is sealed: no other type can have it. What has a descriptor of its own is waited for with `poll` or an executor, of
/// which these types can be part as well ([`AsFd`]).
pub trait Waitable: sealed::Source {}

mod sealed {
    use crate::error::Result;
    use std::os::fd::BorrowedFd;

    /// What `wait` asks of a source.
    pub trait Source {
        /// Whether it is ready now.
        fn is_ready(&self) -> Result<bool>;

        /// What is readable from when it is ready, or sooner, until it has been asked again.
        fn news(&self) -> Result<BorrowedFd<'_>>;
    }
}

use sealed::Source;

/// Waits until any of `sources` is ready, and returns the places of all that are, in ascending order; an empty vector where
/// `limit` has passed before. `None` waits for ever, also where there is nothing to wait for.
///
/// Receives nothing and takes nothing: what is ready is ready again in the next call, until something is done about it.
///
/// # Errors
///
/// Where a source cannot be waited for: the process may open no more descriptors (each pipe takes one, once), or the other
/// process has overwritten shared memory.
///
/// # Examples
///
/// ```
/// use multiprocess::{Pipe, Process, wait};
///
/// let (here, there) = Pipe::<String>::pair()?;
/// let child: Process = Process::spawn((there,), |(pipe,): (Pipe<String>,)| {
///     pipe.send("almost done".into()).unwrap();
///     pipe.recv().unwrap();
/// })?;
/// assert_eq!(wait(&[&child, &here], None)?, [1]);
/// assert_eq!(here.recv()?, "almost done");
/// here.send("well done".into())?;
/// assert!(wait(&[&child], None)? == [0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn wait(sources: &[&dyn Waitable], limit: Option<Duration>) -> Result<Vec<usize>> {
    let deadline = limit.map_or(Deadline::NEVER, Deadline::after);
    let mut news: Vec<BorrowedFd<'_>> = Vec::new();
    loop {
        let mut ready = Vec::new();
        for (place, source) in sources.iter().enumerate() {
            if source.is_ready()? {
                ready.push(place);
            }
        }
        if !ready.is_empty() || deadline.has_passed() {
            return Ok(ready);
        }
        if news.is_empty() && !sources.is_empty() {
            for source in sources {
                news.push(source.news()?);
            }
            // From now on each says when it becomes ready; what became so before is found in another round.
            continue;
        }
        any_readable(&news, deadline).map_err(|error| Error::io("cannot wait", error))?;
    }
}

impl<R> Source for Receiver<R> {
    fn is_ready(&self) -> Result<bool> {
        self.poll(Duration::ZERO)
    }

    fn news(&self) -> Result<BorrowedFd<'_>> {
        self.watched()
    }
}

impl<R> Waitable for Receiver<R> {}

impl<S, R> Source for Pipe<S, R> {
    fn is_ready(&self) -> Result<bool> {
        self.receiver().is_ready()
    }

    fn news(&self) -> Result<BorrowedFd<'_>> {
        self.receiver().watched()
    }
}

impl<S, R> Waitable for Pipe<S, R> {}

impl<T> Source for Queue<T> {
    fn is_ready(&self) -> Result<bool> {
        Ok(Queue::is_ready(self))
    }

    fn news(&self) -> Result<BorrowedFd<'_>> {
        Ok(self.as_fd())
    }
}

impl<T> Waitable for Queue<T> {}

impl<R: Portable> Source for AsyncResult<R> {
    fn is_ready(&self) -> Result<bool> {
        Ok(AsyncResult::is_ready(self))
    }

    fn news(&self) -> Result<BorrowedFd<'_>> {
        self.descriptor()
            .map_err(|error| limits::explained("cannot wait for a call", error))
    }
}

impl<R: Portable> Waitable for AsyncResult<R> {}

impl<T> Source for Process<T> {
    fn is_ready(&self) -> Result<bool> {
        Ok(!self.is_alive())
    }

    fn news(&self) -> Result<BorrowedFd<'_>> {
        Ok(self.as_fd())
    }
}

impl<T> Waitable for Process<T> {}
