//! `Queue`: the messages of a [`Core`] as values.

use crate::deadline::Deadline;
use crate::error::{Error, Result, SendError};
use crate::queue::core::{Core, Failure, Limit};
use crate::queue::failure::{GET, PUT, of_getting, of_putting, refused};
use crate::queue::get::{Bytes, Message, SHORT};
use crate::sys::shared::SharedFd;
use crate::task::Portable;
use crate::wire::{plain, value};
use std::cell::Cell;
use std::iter;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// A buffer that has grown larger than this is not kept.
const KEPT_MAX: usize = 64 << 10;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Passes values from any number of processes to any number of processes, first in, first out.
///
/// A queue is a handle: clones of it, and what becomes of it in another process that it was sent to, are the same queue. It
/// lives as long as any of them. Each value goes to one getter. The values of one putter come in the order in which it
/// put them, and when [`put`](Queue::put) has returned, the value is in the queue, whatever becomes of the process
/// that put it. There is no thread behind it.
///
/// **When a process dies** at any moment, also by SIGKILL, the queue stays sound, and nobody else waits longer for it. A value that
/// it was putting is in the queue as a whole or not at all; a value that it was getting is with it, or goes to another.
///
/// **Memory** is taken for what is in the queue, and given back; when the queue is empty, some MiB are kept at most. What a
/// process that was killed had written of a value is given back by the next one that puts, or finds the queue empty. A
/// value may be larger than that: up to what memory there is.
///
/// A value may hold handles: queues, closures, shared slices, other things that live in several processes, up to 4,096
/// descriptors in one value. The kernel carries them beside the queue, in a buffer of some thousands; where that is full, putting
/// such a value waits as for a full queue. So it does where the user has more on their way, through sockets of any kind, than a
/// process may have open (`RLIMIT_NOFILE`); that is an error if nothing is in the queue.
///
/// A queue takes four descriptors in each process that has it.
///
/// # Examples
///
/// ```
/// use multiprocess::{Process, Queue};
///
/// let queue = Queue::new()?;
/// let child = Process::spawn(queue.clone(), |queue: Queue<String>| {
///     queue.put("hello".to_string()).unwrap();
///     queue.put("from there".to_string()).unwrap();
///     queue.close();
/// })?;
/// let words: Vec<String> = queue.iter().collect();
/// assert_eq!(words, ["hello", "from there"]);
/// child.join()?;
/// # Ok::<(), multiprocess::Error>(())
/// ```
pub struct Queue<T> {
    pub(crate) core: Arc<Core>,
    values: PhantomData<fn(T) -> T>,
}

/// What came of getting.
enum Got<T> {
    Value(T),
    /// A message was taken, and is no value.
    Unreadable(Error),
    Nothing(Error),
}

impl<T: Portable> Queue<T> {
    /// Makes a queue that holds as much as there is memory for.
    ///
    /// # Errors
    ///
    /// Where the system refuses memory or descriptors; the error names the limit.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiprocess::Queue::new()?;
    /// queue.put(7)?;
    /// assert_eq!(queue.get()?, 7);
    /// assert_eq!(queue.capacity(), None);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn new() -> Result<Queue<T>> {
        Queue::with_capacity(u64::MAX)
    }

    /// Makes a queue that holds at most `capacity` values; [`put`](Queue::put) waits while it is full.
    ///
    /// # Errors
    ///
    /// Where `capacity` is 0; and as [`Queue::new`].
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiprocess::Queue::bounded(1)?;
    /// queue.put("first".to_string())?;
    /// assert!(queue.is_full());
    /// assert!(queue.try_put("second".to_string()).unwrap_err().is_full());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn bounded(capacity: usize) -> Result<Queue<T>> {
        if capacity == 0 {
            return Err(Error::refused(
                "cannot make a queue",
                "it needs room for at least 1 value",
            ));
        }
        // No queue ever has so many in it that the highest number would be missed.
        Queue::with_capacity((capacity as u64).min(u64::MAX - 1))
    }

    fn with_capacity(capacity: u64) -> Result<Queue<T>> {
        let core = Core::create(capacity).map_err(|error| refused("cannot make a queue", error))?;
        Ok(Queue::of(core))
    }

    /// Puts a value at the end, and waits while the queue is full.
    ///
    /// # Errors
    ///
    /// The value comes back, and nothing is in the queue, where the queue is closed ([`SendError::is_closed`]), where the
    /// value cannot be encoded, and where the system refuses memory.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiprocess::Queue::new()?;
    /// queue.put(vec![1.5, 2.5])?;
    /// queue.close();
    /// let refused = queue.put(vec![3.5]).unwrap_err();
    /// assert!(refused.is_closed());
    /// assert_eq!(refused.into_value(), [3.5]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn put(&self, value: T) -> Result<(), SendError<T>> {
        self.put_within(value, Limit::Until(Deadline::NEVER))
    }

    /// Puts a value at the end if there is room at once.
    ///
    /// Blocks for a tenth of a second at most, where another process is just putting something large.
    ///
    /// # Errors
    ///
    /// As [`Queue::put`]; and where the queue is full ([`SendError::is_full`]).
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiprocess::Queue::bounded(2)?;
    /// assert!(queue.try_put(1).is_ok() && queue.try_put(2).is_ok());
    /// assert_eq!(queue.try_put(3).unwrap_err().into_value(), 3);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn try_put(&self, value: T) -> Result<(), SendError<T>> {
        self.put_within(value, Limit::Now)
    }

    /// Puts a value at the end, and waits no longer than `limit` while the queue is full.
    ///
    /// # Errors
    ///
    /// As [`Queue::put`]; and where `limit` has passed before there was room ([`SendError::is_timeout`]).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = multiprocess::Queue::bounded(1)?;
    /// queue.put(1)?;
    /// let refused = queue.put_timeout(2, Duration::from_millis(5)).unwrap_err();
    /// assert!(refused.is_timeout());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn put_timeout(&self, value: T, limit: Duration) -> Result<(), SendError<T>> {
        self.put_within(value, Limit::Until(Deadline::after(limit)))
    }

    /// Takes the first value, and waits while there is none.
    ///
    /// A process that dies while it waits here takes nothing with it.
    ///
    /// # Errors
    ///
    /// Where the queue is closed and empty ([`Error::is_closed`]). Where the first value cannot be decoded; it is gone
    /// then, and the next one is the first; [`task_done`](Queue::task_done) is owed for it as for any other. Where the system
    /// refuses memory or descriptors for it; it stays the first then.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiprocess::Queue::new()?;
    /// queue.put('a')?;
    /// queue.close();
    /// assert_eq!(queue.get()?, 'a');
    /// assert!(queue.get().unwrap_err().is_closed());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn get(&self) -> Result<T> {
        self.get_within(Limit::Until(Deadline::NEVER)).into_result()
    }

    /// Takes the first value if there is one.
    ///
    /// Blocks for a tenth of a second at most, where another process is just getting something large.
    ///
    /// # Errors
    ///
    /// As [`Queue::get`]; and where there is none ([`Error::is_empty`]).
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiprocess::Queue::<u8>::new()?;
    /// assert!(queue.try_get().unwrap_err().is_empty());
    /// queue.put(1)?;
    /// assert_eq!(queue.try_get()?, 1);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn try_get(&self) -> Result<T> {
        self.get_within(Limit::Now).into_result()
    }

    /// Takes the first value, and waits no longer than `limit` while there is none.
    ///
    /// # Errors
    ///
    /// As [`Queue::get`]; and where `limit` has passed before there was one ([`Error::is_timeout`]).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let queue = multiprocess::Queue::<u8>::new()?;
    /// let nothing = queue.get_timeout(Duration::from_millis(5)).unwrap_err();
    /// assert!(nothing.is_timeout());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn get_timeout(&self, limit: Duration) -> Result<T> {
        self.get_within(Limit::Until(Deadline::after(limit)))
            .into_result()
    }

    /// Takes values, and waits for more, until the queue is closed and empty.
    ///
    /// A value that cannot be decoded is passed over, and counts as done with: [`task_done`](Queue::task_done) is owed for
    /// what comes out here, and [`Queue::get`] tells of the others. What else hinders ends the iteration.
    ///
    /// # Examples
    ///
    /// ```
    /// let queue = multiprocess::Queue::new()?;
    /// for number in 0..3 {
    ///     queue.put(number)?;
    /// }
    /// queue.close();
    /// assert_eq!(queue.iter().sum::<i32>(), 3);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = T> + '_ {
        iter::from_fn(|| {
            loop {
                match self.get_within(Limit::Until(Deadline::NEVER)) {
                    Got::Value(value) => return Some(value),
                    Got::Unreadable(_) => {
                        // Nobody else can tell: who iterates does not see it.
                        let _told = self.core.finish();
                    }
                    Got::Nothing(_) => return None,
                }
            }
        })
    }

    fn put_within(&self, value: T, limit: Limit) -> Result<(), SendError<T>> {
        let plain = plain::number_bytes(&value).or_else(|| plain::raw_bytes(&value));
        let result = match plain {
            Some(bytes) => self.core.put(bytes, &[], limit).map_err(of_putting),
            None => self.put_encoded(&value, limit),
        };
        result.map_err(|error| SendError::new(error, value))
    }

    fn put_encoded(&self, value: &T, limit: Limit) -> Result<()> {
        let mut buffer = BUFFER.take();
        buffer.clear();
        let result = value::pack(value, &mut buffer)
            .map_err(|why| Error::refused(PUT, format!("a value cannot be encoded: {why}")))
            .and_then(|enclosed| {
                self.core
                    .put(&buffer, enclosed.descriptors(), limit)
                    .map_err(of_putting)?;
                let _sent = enclosed.depart();
                Ok(())
            });
        if buffer.capacity() <= KEPT_MAX {
            BUFFER.set(buffer);
        }
        result
    }

    fn get_within(&self, limit: Limit) -> Got<T> {
        let mut short = [0; SHORT];
        match self.core.get(&mut short, limit) {
            Ok(Message { bytes, descriptors }) => {
                let descriptors = descriptors.into_iter().map(SharedFd::of).collect();
                let value = match bytes {
                    Bytes::Short(len) => match plain::number_from(&short[..len]) {
                        Some(number) => return Got::Value(number),
                        None => value::unpack(&short[..len], descriptors),
                    },
                    Bytes::Long(bytes) => value::unpack_owned(bytes, descriptors),
                };
                match value {
                    Ok(value) => Got::Value(value),
                    Err(why) => Got::Unreadable(Error::refused(
                        GET,
                        format!("a value cannot be decoded: {why}"),
                    )),
                }
            }
            Err(failure) => {
                let is_unreadable = matches!(failure, Failure::DescriptorsGone);
                let error = of_getting(failure);
                if is_unreadable {
                    Got::Unreadable(error)
                } else {
                    Got::Nothing(error)
                }
            }
        }
    }
}

impl<T> Got<T> {
    fn into_result(self) -> Result<T> {
        match self {
            Got::Value(value) => Ok(value),
            Got::Unreadable(error) | Got::Nothing(error) => Err(error),
        }
    }
}

impl<T> Queue<T> {
    pub(crate) fn of(core: Core) -> Queue<T> {
        Queue {
            core: Arc::new(core),
            values: PhantomData,
        }
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Queue<T> {
        Queue {
            core: Arc::clone(&self.core),
            values: PhantomData,
        }
    }
}
