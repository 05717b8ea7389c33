//! The half of a pipe's end that sends.

use crate::error::{Result, SendError};
use crate::pipe::failure::{Failure, unsent};
use crate::pipe::limit::Limit;
use crate::pipe::outlet::{Outbound, Outlet};
use crate::pipe::travel;
use crate::task::Portable;
use crate::wire::{plain, value};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// Sends to the other end of a pipe: one half of what [`Pipe::split`](crate::Pipe::split) makes of an end.
///
/// It lives in one process at a time: encoding it for a message, an argument or a result moves it there, or to the first of
/// several that are given it (see [`Pipe`](crate::Pipe)). Any number of threads of that process may use it. A message is received as a whole or not at all, whoever dies when.
///
/// # Examples
///
/// ```
/// use multiprocess::{Pipe, Process, Sender};
///
/// let (here, there) = Pipe::<u32>::pair()?;
/// let (sender, _) = there.split();
/// let child: Process = Process::spawn((sender,), |(sender,): (Sender<u32>,)| {
///     for n in 0..3 {
///         sender.send(n).unwrap();
///     }
/// })?;
/// assert_eq!(here.iter().collect::<Vec<u32>>(), [0, 1, 2]);
/// child.join()?;
/// # Ok::<(), multiprocess::Error>(())
/// ```
pub struct Sender<S> {
    outlet: Arc<Outlet>,
    sends: PhantomData<fn(S)>,
}

impl<S> Sender<S> {
    pub(crate) fn new(outlet: Outlet) -> Sender<S> {
        Sender {
            outlet: Arc::new(outlet),
            sends: PhantomData,
        }
    }

    /// Sends bytes as a message, and blocks while there is no room for them. They are received by
    /// [`recv_bytes`](crate::Receiver::recv_bytes).
    ///
    /// # Errors
    ///
    /// [`is_closed`](crate::Error::is_closed) where the other end is closed or its process has died; and where this end has moved
    /// to another process.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiprocess::Pipe::<()>::pair()?;
    /// let (sender, _receiver) = here.split();
    /// sender.send_bytes(b"bytes")?;
    /// assert_eq!(there.recv_bytes()?, b"bytes");
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn send_bytes(&self, bytes: &[u8]) -> Result<()> {
        let message = Outbound {
            bytes,
            descriptors: &[],
        };
        self.outlet
            .send(message, Limit::NEVER)
            .map_err(Failure::of_sending)
    }
}

impl<S: Portable> Sender<S> {
    /// Sends a value, and blocks while there is no room for it. When this returns, it is there to be received, even if this
    /// process dies at once.
    ///
    /// Two ends that send more to each other than a pipe holds, and receive nothing meanwhile, wait for each other.
    ///
    /// # Errors
    ///
    /// [`is_closed`](crate::Error::is_closed) where the other end is closed or its process has died; and where the value cannot be
    /// encoded, or this end has moved to another process. The value comes back in the error.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiprocess::Pipe::<u8>::pair()?;
    /// let (sender, _receiver) = here.split();
    /// sender.send(1)?;
    /// assert_eq!(there.recv()?, 1);
    /// drop(there);
    /// let refused = sender.send(2).unwrap_err();
    /// assert!(refused.is_closed() && refused.into_value() == 2);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn send(&self, value: S) -> Result<(), SendError<S>> {
        self.send_within(value, Limit::NEVER)
    }

    /// Sends a value if there is room for it now. A message that is larger than what the pipe
    /// holds is never sent so.
    ///
    /// # Errors
    ///
    /// As [`send`](Sender::send), and [`is_full`](crate::Error::is_full) where there is no room, or another thread waits for it.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiprocess::Pipe::<u8>::pair()?;
    /// let (sender, _receiver) = here.split();
    /// sender.try_send(1)?;
    /// assert_eq!(there.recv()?, 1);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn try_send(&self, value: S) -> Result<(), SendError<S>> {
        self.send_within(value, Limit::Now)
    }

    /// Sends a value, and blocks no longer than `limit` while there is no room for it. A large message of which a part was
    /// sent when the time is over is not received.
    ///
    /// # Errors
    ///
    /// As [`send`](Sender::send), and [`is_timeout`](crate::Error::is_timeout).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (here, there) = multiprocess::Pipe::<u8>::pair()?;
    /// let (sender, _receiver) = here.split();
    /// sender.send_timeout(1, Duration::from_secs(60))?;
    /// assert_eq!(there.recv()?, 1);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn send_timeout(&self, value: S, limit: Duration) -> Result<(), SendError<S>> {
        match self.send_within(value, Limit::within(limit)) {
            Err(refused) if refused.is_full() => {
                let error = Failure::TimedOut.of_sending();
                Err(SendError::new(error, refused.into_value()))
            }
            result => result,
        }
    }

    #[inline]
    fn send_within(&self, value: S, limit: Limit) -> Result<(), SendError<S>> {
        match self.send_ref(&value, limit) {
            Ok(()) => Ok(()),
            Err(error) => Err(SendError::new(error, value)),
        }
    }

    #[inline]
    fn send_ref(&self, value: &S, limit: Limit) -> Result<()> {
        let plain = plain::number_bytes(value).or_else(|| plain::raw_bytes(value));
        if let Some(bytes) = plain {
            let message = Outbound {
                bytes,
                descriptors: &[],
            };
            return self
                .outlet
                .send(message, limit)
                .map_err(Failure::of_sending);
        }
        let mut bytes = SCRATCH.take();
        bytes.clear();
        // What the user's own `Serialize` does happens here, before anything of the pipe is locked.
        let result = match value::pack(value, &mut bytes) {
            Err(why) => Err(unsent(why)),
            Ok(enclosed) => {
                let message = Outbound {
                    bytes: &bytes,
                    descriptors: enclosed.descriptors(),
                };
                let sent = self.outlet.send(message, limit);
                if sent.is_ok() {
                    // If not, handles that had moved are given back as this is dropped.
                    enclosed.depart();
                }
                sent.map_err(Failure::of_sending)
            }
        };
        if bytes.capacity() <= SCRATCH_MAX {
            SCRATCH.set(bytes);
        }
        result
    }
}

thread_local! {
    /// Where short messages are encoded. Whoever uses it takes it away meanwhile.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What a thread keeps for that.
const SCRATCH_MAX: usize = 64 << 10;

impl<S> fmt::Debug for Sender<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<S> Serialize for Sender<S> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        travel::send_away(&self.outlet, serializer)
    }
}

impl<'de, S> Deserialize<'de> for Sender<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        travel::arriving_outlet(deserializer).map(Sender::new)
    }
}
