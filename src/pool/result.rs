//! [`AsyncResult`]: a call that goes on while its caller does something else; and what is run when it is done.

use crate::deadline::Deadline;
use crate::error::{TaskError, TaskErrorKind};
use crate::pool::call::{Call, Event, Finish, Kept, Raw};
use crate::pool::ordered::{Ordered, Outcome};
use crate::pool::shared::Shared;
use crate::sys::life::Life;
use crate::task::{Portable, guard};
use std::any::Any;
use std::fmt;
use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

/// Holds the result of a call that was made with [`Pool::apply_async`](crate::Pool::apply_async) or
/// [`Pool::map_async`](crate::Pool::map_async): it can be waited for, asked for, awaited or cancelled.
///
/// The call goes on whether anybody waits or not, also when this is dropped. It ends with its pool: dropping the pool
/// cancels it.
///
/// As a [`Future`] it works with any executor; it holds no thread while it waits. Awaiting it again after it was ready
/// gives an error.
///
/// # Examples
///
/// ```
/// let pool = multiprocess::Pool::builder().workers(2).build()?;
/// let sum = pool.apply_async((1, 2), |(a, b): (i32, i32)| a + b);
/// let squares = pool.map_async([1, 2, 3], |n: i32| n * n);
/// assert_eq!(squares.get()?, [1, 4, 9]);
/// assert_eq!(sum.get()?, 3);
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[must_use = "a call whose result is not asked for may fail unnoticed"]
pub struct AsyncResult<R> {
    call: Arc<Call>,
    decode: Decode<R>,
    place: Place,
    owner: Life,
}

/// How what came back becomes the result.
pub(crate) type Decode<R> = fn(Raw) -> Result<R, TaskError>;

/// Where a call is under way.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) pool: Weak<Shared>,
    pub(crate) job: u64,
    pub(crate) item: Option<usize>,
}

impl<R: 'static> AsyncResult<R> {
    pub(crate) fn new(call: Arc<Call>, decode: Decode<R>, place: Place) -> AsyncResult<R> {
        AsyncResult {
            call,
            decode,
            place,
            owner: Life::now(),
        }
    }

    /// Waits until the call is done and returns its result.
    ///
    /// # Errors
    ///
    /// What became of the function; that it was [cancelled](AsyncResult::cancel), or its pool dropped; or that the result
    /// has been taken already, by [`get_timeout`](AsyncResult::get_timeout) or as a future.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// let sum = pool.apply_async((1, 2), |(a, b): (u32, u32)| a + b);
    /// assert_eq!(sum.get()?, 3);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn get(self) -> Result<R, TaskError> {
        self.check_owner()?;
        if let Some(kept) = self.call.take() {
            return self.decode(kept);
        }
        self.wait(Deadline::NEVER);
        self.take()
    }

    /// Waits until the call is done, for at most `limit`, and returns its result; `None` if it is still under way.
    ///
    /// # Errors
    ///
    /// As [`get`](AsyncResult::get).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// let mut sum = pool.apply_async((1, 2), |(a, b): (u32, u32)| a + b);
    /// assert_eq!(sum.get_timeout(Duration::from_secs(60)), Some(Ok(3)));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn get_timeout(&mut self, limit: Duration) -> Option<Result<R, TaskError>> {
        if let Err(error) = self.check_owner() {
            return Some(Err(error));
        }
        self.wait(Deadline::after(limit)).then(|| self.take())
    }

    /// Waits until the call is done or `deadline` passes; returns whether it is done.
    fn wait(&self, deadline: Deadline) -> bool {
        if !self.call.is_ready() {
            if let Some(pool) = self.place.pool.upgrade() {
                pool.await_call(&self.call, deadline);
            }
        }
        self.call.wait(deadline)
    }

    /// Tells whether the call is done: then [`get`](AsyncResult::get) does not wait.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// let sum = pool.apply_async((1, 2), |(a, b): (u32, u32)| a + b);
    /// multiprocess::wait(&[&sum], None)?;
    /// assert!(sum.is_ready());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_ready(&self) -> bool {
        self.call.is_ready()
    }

    /// Cancels the call, unless it is done. What has not begun never runs; a worker that is at it is killed, and
    /// another takes its place. The result is then an error that [is that](TaskError::is_cancelled).
    ///
    /// Items of other calls are not touched, but for those that take less than a microsecond: several of these run
    /// together, and what the killed worker had not told yet of them runs again.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// let endless = pool.apply_async((), |()| loop { std::thread::park() });
    /// endless.cancel();
    /// assert!(endless.get().map(|(): ()| ()).unwrap_err().is_cancelled());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn cancel(&self) {
        if let Some(pool) = self.place.pool.upgrade() {
            pool.cancel(self.place.job, self.place.item);
        }
    }

    /// The descriptor behind [`AsFd`], which is made when it is first asked for.
    ///
    /// # Errors
    ///
    /// Where the system refuses one.
    pub(crate) fn descriptor(&self) -> std::io::Result<BorrowedFd<'_>> {
        self.call.descriptor()
    }

    fn take(&self) -> Result<R, TaskError> {
        match self.call.take() {
            Some(kept) => self.decode(kept),
            None => Err(system("its result has been taken already")),
        }
    }

    fn decode(&self, kept: Kept) -> Result<R, TaskError> {
        match kept {
            Kept::Encoded(raw) => (self.decode)(raw),
            Kept::Decoded(result) => match result.downcast() {
                Ok(result) => *result,
                Err(_) => Err(system("the result is of another type")),
            },
        }
    }

    /// A process that was forked from the caller's has nobody who would complete the call.
    fn check_owner(&self) -> Result<(), TaskError> {
        if self.owner == Life::now() || self.is_ready() {
            return Ok(());
        }
        Err(system(
            "the call was made by the process from which this one was forked",
        ))
    }
}

fn system(why: &str) -> TaskError {
    TaskError::new(TaskErrorKind::System, why)
}

impl<R: 'static> Future for AsyncResult<R> {
    type Output = Result<R, TaskError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Err(error) = self.check_owner() {
            return Poll::Ready(Err(error));
        }
        if self.call.wake_later(context.waker()) {
            Poll::Ready(self.take())
        } else {
            Poll::Pending
        }
    }
}

/// Readable from when the call is done, for good.
///
/// # Panics
///
/// Where the system has no descriptor left; it is made when it is first asked for.
impl<R> AsFd for AsyncResult<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.call.descriptor() {
            Ok(descriptor) => descriptor,
            Err(error) => panic!("cannot make a descriptor for a call: {error}"),
        }
    }
}

impl<R> fmt::Debug for AsyncResult<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncResult")
            .field("is_ready", &self.call.is_ready())
            .finish_non_exhaustive()
    }
}

/// The result of one item.
pub(crate) fn decode_one<R: Portable>(raw: Raw) -> Result<R, TaskError> {
    match raw {
        Raw::One(encoded) => encoded.decode(),
        Raw::Failed(error) => Err(error),
        Raw::All(_) => Err(system("the worker's message is torn")),
    }
}

/// The results of all items, in the order of the input.
pub(crate) fn decode_all<R: Portable>(raw: Raw) -> Result<Vec<R>, TaskError> {
    let events = match raw {
        Raw::All(events) => events,
        Raw::Failed(error) => return Err(error),
        Raw::One(_) => return Err(system("the worker's message is torn")),
    };
    let mut ordered = Ordered::default();
    for event in events {
        match event {
            Event::Results { item, received } => ordered.put(item, Outcome::Results(received)),
            Event::Failed { error, .. } | Event::Broken { error, .. } => return Err(error),
        }
    }
    let mut results = Vec::new();
    ordered.append_to(&mut results)?;
    Ok(results)
}

/// What is done with the result of a call before its caller has it: see [`Job::on_done`](crate::Job::on_done).
#[allow(private_interfaces, reason = "sealed: nobody outside calls it")]
pub trait Done<T>: Sealed {
    #[doc(hidden)]
    fn finish(&self, decode: fn(Raw) -> Result<T, TaskError>) -> Option<Finish>;

    #[doc(hidden)]
    fn tell(&self, result: &Result<T, TaskError>);

    #[doc(hidden)]
    fn callback(&self) -> Option<Callback<T>>;
}

/// Marks a [`Job`](crate::Job) without a callback.
#[derive(Clone, Copy, Debug)]
pub struct NoCallback(());

/// Marks a [`Job`](crate::Job) with a callback for results that are a `T`.
pub struct Callback<T> {
    callback: Arc<Told<T>>,
}

type Told<T> = dyn Fn(&Result<T, TaskError>) + Send + Sync;

/// Keeps [`Done`] from being implemented elsewhere.
pub trait Sealed {}

impl Sealed for NoCallback {}
impl<T> Sealed for Callback<T> {}

impl NoCallback {
    pub(crate) const NONE: NoCallback = NoCallback(());
}

impl<T> Callback<T> {
    pub(crate) fn new<K>(callback: K) -> Callback<T>
    where
        K: Fn(&Result<T, TaskError>) + Send + Sync + 'static,
    {
        Callback {
            callback: Arc::new(callback),
        }
    }

    pub(crate) fn call(&self, result: &Result<T, TaskError>) {
        (self.callback)(result);
    }
}

#[allow(private_interfaces, reason = "as in the trait")]
impl<T> Done<T> for NoCallback {
    fn finish(&self, _decode: fn(Raw) -> Result<T, TaskError>) -> Option<Finish> {
        None
    }

    fn tell(&self, _result: &Result<T, TaskError>) {}

    fn callback(&self) -> Option<Callback<T>> {
        None
    }
}

#[allow(private_interfaces, reason = "as in the trait")]
impl<T: Send + 'static> Done<T> for Callback<T> {
    fn finish(&self, decode: fn(Raw) -> Result<T, TaskError>) -> Option<Finish> {
        let callback = Arc::clone(&self.callback);
        Some(Box::new(move |raw| {
            let result = decode(raw);
            // It has been printed, as any panic on a thread; the other calls are not to suffer.
            let _panic = guard(|| callback(&result));
            Box::new(result) as Box<dyn Any + Send>
        }))
    }

    fn tell(&self, result: &Result<T, TaskError>) {
        self.call(result);
    }

    fn callback(&self) -> Option<Callback<T>> {
        Some(Callback {
            callback: Arc::clone(&self.callback),
        })
    }
}

impl<T> fmt::Debug for Callback<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callback").finish_non_exhaustive()
    }
}
