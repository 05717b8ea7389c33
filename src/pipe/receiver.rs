//! The half of a pipe's end that receives.

use crate::error::Result;
use crate::pipe::failure::{Failure, unreceived};
use crate::pipe::incoming::{Front, Receiving};
use crate::pipe::inlet::Inlet;
use crate::pipe::limit::Limit;
use crate::pipe::travel;
use crate::sys::shared::SharedFd;
use crate::task::Portable;
use crate::wire::{plain, value};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// Receives from the other end of a pipe: one half of what [`Pipe::split`](crate::Pipe::split) makes of an end.
///
/// It lives in one process at a time: encoding it for a message, an argument or a result moves it there, or to the first of
/// several that are given it (see [`Pipe`](crate::Pipe)), with what has not been received yet. Any number of threads of that process may use it; each message goes to one of them.
///
/// # Waiting with others
///
/// The descriptor ([`AsFd`]) is readable while something is there to receive, and when the other end is gone; it works with
/// [`wait`](crate::wait()), `poll`, `epoll`, mio and tokio. It may be readable with nothing there, where a sender was late to
/// tell of a message that has been received already; the next [`try_recv`](Receiver::try_recv) or [`poll`](Receiver::poll) that
/// finds nothing ends that. From the first time that it is asked for, each message costs some system calls. With tokio:
///
/// ```
/// # async fn next(receiver: multiprocess::Receiver<u32>) -> Result<u32, Box<dyn std::error::Error>> {
/// # mod tokio { pub mod io { pub mod unix {
/// #     pub struct AsyncFd<T>(T); pub struct Guard;
/// #     impl Guard { pub fn clear_ready(&mut self) {} }
/// #     impl<T> AsyncFd<T> {
/// #         pub fn new(inner: T) -> std::io::Result<Self> { Ok(AsyncFd(inner)) }
/// #         pub async fn readable(&self) -> std::io::Result<Guard> { Ok(Guard) }
/// #         pub fn get_ref(&self) -> &T { &self.0 }
/// #     }
/// # } } }
/// let receiver = tokio::io::unix::AsyncFd::new(receiver)?;
/// loop {
///     let mut guard = receiver.readable().await?;
///     match receiver.get_ref().try_recv() {
///         Err(error) if error.is_empty() => guard.clear_ready(),
///         received => break Ok(received?),
///     }
/// }
/// # }
/// ```
///
/// # Examples
///
/// ```
/// use multiprocess::Pipe;
///
/// let (here, there) = Pipe::<String>::pair()?;
/// let (_, receiver) = there.split();
/// here.send("hello".into())?;
/// assert_eq!(receiver.recv()?, "hello");
/// assert!(receiver.try_recv().unwrap_err().is_empty());
/// drop(here);
/// assert!(receiver.recv().unwrap_err().is_closed());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Receiver<R> {
    inlet: Arc<Inlet>,
    receives: PhantomData<fn() -> R>,
}

impl<R> Receiver<R> {
    pub(crate) fn new(inlet: Inlet) -> Receiver<R> {
        Receiver {
            inlet: Arc::new(inlet),
            receives: PhantomData,
        }
    }

    /// Tells whether a message is there to receive, and waits for one no longer than `limit`. At the end, when the other
    /// end is gone and nothing is left, it is true as well: receiving does not block then either.
    ///
    /// # Errors
    ///
    /// Where this end has moved to another process, or the other process has overwritten shared memory.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (here, there) = multiprocess::Pipe::<u8>::pair()?;
    /// let (_, receiver) = there.split();
    /// assert!(!receiver.poll(Duration::ZERO)?);
    /// here.send(1)?;
    /// assert!(receiver.poll(Duration::from_secs(60))?);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn poll(&self, limit: Duration) -> Result<bool> {
        match self.inlet.receive(Limit::within(limit), |_, _| Ok(())) {
            Ok(_) | Err(Failure::Closed) => Ok(true),
            Err(Failure::NotNow | Failure::TimedOut) => Ok(false),
            Err(failure) => Err(failure.of_receiving()),
        }
    }

    /// Receives a message as the bytes that it was sent as, and waits for it.
    ///
    /// # Errors
    ///
    /// As [`recv`](Receiver::recv).
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiprocess::Pipe::<()>::pair()?;
    /// let (_, receiver) = there.split();
    /// here.send_bytes(b"bytes")?;
    /// assert_eq!(receiver.recv_bytes()?, b"bytes");
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn recv_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.take(&mut bytes, Limit::NEVER)?;
        Ok(bytes)
    }

    /// Receives a message into `buffer`, as the bytes that it was sent as, and waits for it. Returns their number.
    ///
    /// # Errors
    ///
    /// As [`recv`](Receiver::recv), and where the message is longer than the buffer: then it is kept, to be received again.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiprocess::Pipe::<()>::pair()?;
    /// let (_, receiver) = there.split();
    /// here.send_bytes(b"four")?;
    /// assert!(receiver.recv_bytes_into(&mut [0; 3]).is_err());
    /// let mut buffer = [0; 8];
    /// let len = receiver.recv_bytes_into(&mut buffer)?;
    /// assert_eq!(&buffer[..len], b"four");
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn recv_bytes_into(&self, buffer: &mut [u8]) -> Result<usize> {
        let take = |receiving: &mut Receiving, front: Front| receiving.take_into(front, buffer);
        let (length, _not_wanted) = self
            .inlet
            .receive(Limit::NEVER, take)
            .map_err(Failure::of_receiving)?;
        Ok(length)
    }

    /// Readable when something is to be received; see [`AsFd`].
    pub(crate) fn watched(&self) -> Result<BorrowedFd<'_>> {
        self.inlet
            .descriptor()
            .map_err(|error| Failure::Io(error).of_receiving())
    }

    fn take(&self, bytes: &mut Vec<u8>, limit: Limit) -> Result<Vec<Arc<SharedFd>>> {
        let take = |receiving: &mut Receiving, front: Front| receiving.take(front, bytes);
        match self.inlet.receive(limit, take) {
            Ok(((), descriptors)) => Ok(descriptors),
            Err(failure) => Err(failure.of_receiving()),
        }
    }
}

impl<R: Portable> Receiver<R> {
    /// Receives a value, and waits for it.
    ///
    /// # Errors
    ///
    /// [`is_closed`](crate::Error::is_closed) where the other end is closed or its process has died, and all that it had sent has
    /// been received. Where a message is no value of this type, or its handles could not be opened here; that message is
    /// gone then, and the next ones are received. And where this end has moved to another process.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiprocess::Pipe::<u8>::pair()?;
    /// let (_, receiver) = there.split();
    /// here.send(1)?;
    /// assert_eq!(receiver.recv()?, 1);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn recv(&self) -> Result<R> {
        self.recv_within(Limit::NEVER)
    }

    /// Receives a value if one is there.
    ///
    /// # Errors
    ///
    /// As [`recv`](Receiver::recv), and [`is_empty`](crate::Error::is_empty) where none is there.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiprocess::Pipe::<u8>::pair()?;
    /// let (_, receiver) = there.split();
    /// assert!(receiver.try_recv().unwrap_err().is_empty());
    /// here.send(1)?;
    /// assert_eq!(receiver.try_recv()?, 1);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn try_recv(&self) -> Result<R> {
        self.recv_within(Limit::Now)
    }

    /// Receives a value, and waits for it no longer than `limit`.
    ///
    /// # Errors
    ///
    /// As [`recv`](Receiver::recv), and [`is_timeout`](crate::Error::is_timeout).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (here, there) = multiprocess::Pipe::<u8>::pair()?;
    /// let (_, receiver) = there.split();
    /// assert!(receiver.recv_timeout(Duration::from_millis(1)).unwrap_err().is_timeout());
    /// here.send(1)?;
    /// assert_eq!(receiver.recv_timeout(Duration::from_secs(60))?, 1);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn recv_timeout(&self, limit: Duration) -> Result<R> {
        match self.recv_within(Limit::within(limit)) {
            Err(error) if error.is_empty() => Err(Failure::TimedOut.of_receiving()),
            result => result,
        }
    }

    /// Iterates over what is received, and waits for each value. It ends where [`recv`](Receiver::recv) would fail: when the
    /// other end is gone, or at a message that is no value of this type.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiprocess::Pipe::<u8>::pair()?;
    /// let (_, receiver) = there.split();
    /// here.send(1)?;
    /// here.send(2)?;
    /// drop(here);
    /// assert_eq!(receiver.iter().sum::<u8>(), 3);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = R> + '_ {
        std::iter::from_fn(|| self.recv().ok())
    }

    #[inline]
    fn recv_within(&self, limit: Limit) -> Result<R> {
        // The user's own `Deserialize` runs when nothing of the pipe is locked any more.
        if plain::is_raw::<R>() {
            let mut bytes = Vec::new();
            let descriptors = self.take(&mut bytes, limit)?;
            return value::unpack_owned(bytes, descriptors).map_err(unreceived);
        }
        if let Some(size) = plain::number_size::<R>() {
            return self.recv_number(size, limit);
        }
        let mut bytes = SCRATCH.take();
        bytes.clear();
        let value = self
            .take(&mut bytes, limit)
            .and_then(|descriptors| value::unpack(&bytes, descriptors).map_err(unreceived));
        if bytes.capacity() <= SCRATCH_MAX {
            SCRATCH.set(bytes);
        }
        value
    }

    /// Receives a number, which is its own encoding, without a buffer on the way.
    #[inline]
    fn recv_number(&self, size: usize, limit: Limit) -> Result<R> {
        let mut short = [0; NUMBER_MAX];
        let mut other = None;
        let take = |receiving: &mut Receiving, front: Front| {
            if receiving.length(front) == size as u64 {
                return receiving.take_into(front, &mut short[..size]).map(drop);
            }
            receiving.take(front, other.insert(Vec::new()))
        };
        self.inlet
            .receive(limit, take)
            .map_err(Failure::of_receiving)?;
        let number = match other {
            None => plain::number_from(&short[..size]),
            Some(_) => None,
        };
        number.ok_or_else(|| unreceived("a message is no number of this type".into()))
    }
}

/// The bytes of the longest number.
const NUMBER_MAX: usize = 16;

thread_local! {
    /// Where short messages wait to be decoded. Whoever uses it takes it away meanwhile.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What a thread keeps for that.
const SCRATCH_MAX: usize = 64 << 10;

impl<R> AsFd for Receiver<R> {
    /// Readable while something is there to receive, or when the other end is gone; rarely with nothing there, until that is
    /// looked for.
    ///
    /// # Panics
    ///
    /// The first time, where this process may open no more descriptors: it takes one.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.watched() {
            Ok(descriptor) => descriptor,
            Err(error) => panic!("{error}"),
        }
    }
}

impl<R> AsRawFd for Receiver<R> {
    /// As [`as_fd`](Receiver::as_fd).
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl<R> fmt::Debug for Receiver<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

impl<R> Serialize for Receiver<R> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        travel::receive_elsewhere(&self.inlet, serializer)
    }
}

impl<'de, R> Deserialize<'de> for Receiver<R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        travel::arriving_inlet(deserializer).map(Receiver::new)
    }
}
