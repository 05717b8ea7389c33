//! The rest of a `Queue`: what is in it, its end, its descriptor, and how it travels.

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::queue::core::Core;
use crate::queue::failure::{refused, told};
use crate::queue::handle::Queue;
use crate::sys::shared::SharedFd;
use crate::wire::handles::Descriptor;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

impl<T> Queue<T> {
    /// Returns how many values can be got now.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiprocess::Queue::new()?;
    /// queue.put(1)?;
    /// queue.put(2)?;
    /// assert_eq!(queue.len(), 2);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn len(&self) -> usize {
        usize::try_from(self.core.len()).unwrap_or(usize::MAX)
    }

    /// Returns whether there is no value to be got now.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(multiprocess::Queue::<u8>::new()?.is_empty());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.core.is_empty()
    }

    /// Returns whether it holds as many values as it may. A queue without a capacity is never full.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiprocess::Queue::bounded(1)?;
    /// queue.put(1)?;
    /// assert!(queue.is_full());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_full(&self) -> bool {
        !self.core.has_room()
    }

    /// Returns how many values it may hold; `None` if memory alone bounds it.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(multiprocess::Queue::<u8>::bounded(5)?.capacity(), Some(5));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn capacity(&self) -> Option<usize> {
        let capacity = self.core.capacity();
        (capacity != u64::MAX).then(|| usize::try_from(capacity).unwrap_or(usize::MAX))
    }

    /// Closes the queue for everybody: nothing is put any more, and what is in it can still be got.
    ///
    /// Who waits to put fails, and who waits to get fails when nothing is left. Never blocks; a queue that is closed stays so.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiprocess::Queue::new()?;
    /// queue.put(1)?;
    /// queue.clone().close();
    /// assert!(queue.put(2).is_err());
    /// assert_eq!(queue.get()?, 1);
    /// assert!(queue.get().unwrap_err().is_closed());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn close(&self) {
        self.core.close();
    }

    /// Returns whether it is closed.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiprocess::Queue::<u8>::new()?;
    /// assert!(!queue.is_closed());
    /// queue.close();
    /// assert!(queue.is_closed());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_closed(&self) -> bool {
        self.core.is_closed()
    }

    /// Tells that one of the values that were put is done with, which [`join`](Queue::join) waits for. Also of one that
    /// [`get`](Queue::get) could not decode; [`iter`](Queue::iter), which passes over those, tells of them itself.
    ///
    /// # Errors
    ///
    /// Where this was told as often as values were put.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiprocess::Queue::new()?;
    /// queue.put(1)?;
    /// queue.get()?;
    /// queue.task_done()?;
    /// assert!(queue.task_done().is_err());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn task_done(&self) -> Result<()> {
        const OPERATION: &str = "cannot tell that a value is done with";
        match self.core.finish() {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::refused(
                OPERATION,
                "this was told of every value that was put",
            )),
            Err(error) => Err(refused(OPERATION, error)),
        }
    }

    /// Waits until [`task_done`](Queue::task_done) was told of every value that was put.
    ///
    /// What a process has got that dies before it tells is never done with: where that can happen, use
    /// [`join_timeout`](Queue::join_timeout).
    ///
    /// # Errors
    ///
    /// Where the system refuses memory.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::{Process, Queue};
    ///
    /// let queue = Queue::new()?;
    /// let worker = Process::spawn(queue.clone(), |queue: Queue<u32>| {
    ///     for _number in queue.iter() {
    ///         queue.task_done().unwrap();
    ///     }
    /// })?;
    /// for number in 0..10 {
    ///     queue.put(number)?;
    /// }
    /// queue.join()?;
    /// assert!(queue.is_empty());
    /// queue.close();
    /// worker.join()?;
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn join(&self) -> Result<()> {
        self.join_by(Deadline::NEVER)
    }

    /// As [`join`](Queue::join), for no longer than `limit`.
    ///
    /// # Errors
    ///
    /// Where `limit` has passed before ([`Error::is_timeout`]); and where the system refuses memory.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = multiprocess::Queue::new()?;
    /// queue.put(1)?;
    /// assert!(queue.join_timeout(Duration::from_millis(5)).unwrap_err().is_timeout());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn join_timeout(&self, limit: Duration) -> Result<()> {
        self.join_by(Deadline::after(limit))
    }

    fn join_by(&self, deadline: Deadline) -> Result<()> {
        const OPERATION: &str = "cannot wait until a queue's values are done with";
        self.core
            .wait_until_done(deadline)
            .map_err(|failure| told(OPERATION, failure, Error::empty))
    }

    /// Whether [`get`](Queue::get) would end at once. Where it would not, the descriptor is not readable after this, as a
    /// rule: deaths can leave it so.
    #[allow(dead_code, reason = "for whoever waits for several sources")]
    pub(crate) fn is_ready(&self) -> bool {
        self.core.is_ready()
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("len", &self.len())
            .field("capacity", &self.capacity())
            .field("is_closed", &self.is_closed())
            .finish()
    }
}

/// The descriptor is readable when [`get`](Queue::get) would end at once, and, rarely, when it would not: another may have
/// been quicker. Do not read from it. From the first call of this on, in any process, putting and getting take a system
/// call each.
impl<T> AsFd for Queue<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.core.watched()
    }
}

impl<T> Serialize for Queue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.core.parts().map(Descriptor).serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Queue<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Queue<T>, D::Error> {
        let parts = <[Descriptor; 4]>::deserialize(deserializer)?;
        let parts: [Arc<SharedFd>; 4] = parts.map(|Descriptor(part)| part);
        let core = Core::adopt(parts)
            .map_err(|error| D::Error::custom(refused("cannot take a queue over", error)))?;
        Ok(Queue::of(core))
    }
}
