//! An asynchronous call while it is under way, and what became of it: written once, read once.
//!
//! | a call is | until | then it is |
//! |---|---|---|
//! | under way | the pool's thread [completes](Call::complete) it: whoever waits is woken | done |
//! | done | somebody takes the result | taken |
//!
//! A callback is run by the pool's thread before the call is done, so that whoever sees the result knows that the callback
//! has returned. The pool hands each call over to its thread exactly once.

use crate::deadline::Deadline;
use crate::error::TaskError;
use crate::sys::poll::Wake;
use crate::task::{Received, guard};
use parking_lot::{Condvar, Mutex};
use std::any::Any;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;
use std::task::Waker;
use std::time::Instant;

/// What became of items.
#[derive(Debug)]
pub(crate) enum Event {
    /// Results of consecutive items from `item` on.
    Results { item: usize, received: Received },
    /// One item has no result.
    Failed { item: usize, error: TaskError },
    /// No process is left to run what remains, and none can be had.
    Broken(TaskError),
}

/// What became of a call, still encoded.
#[derive(Debug)]
pub(crate) enum Raw {
    /// Of one item.
    One {
        item: usize,
        received: Received,
    },
    /// Of all items of a map, in any order.
    All(Vec<Event>),
    Failed(TaskError),
}

/// Decodes a result and runs the callback with it.
pub(crate) type Finish = Box<dyn FnOnce(Raw) -> Box<dyn Any + Send> + Send>;

/// What became of a call, as it is kept for whoever takes it.
pub(crate) enum Kept {
    Encoded(Raw),
    /// A `Result<R, TaskError>`, decoded for the callback.
    Decoded(Box<dyn Any + Send>),
}

enum Stage {
    UnderWay,
    Done(Kept),
    Taken,
}

/// A call, shared by the pool, which completes it, and its handle, which waits for it.
pub(crate) struct Call {
    state: Mutex<State>,
    is_done: Condvar,
    has_callback: bool,
    /// Readable when it is done; made for whoever waits for descriptors.
    bell: OnceLock<Wake>,
}

struct State {
    stage: Stage,
    finish: Option<Finish>,
    waker: Option<Waker>,
}

impl Call {
    pub(crate) fn new(finish: Option<Finish>) -> Call {
        Call {
            has_callback: finish.is_some(),
            state: Mutex::new(State {
                stage: Stage::UnderWay,
                finish,
                waker: None,
            }),
            is_done: Condvar::new(),
            bell: OnceLock::new(),
        }
    }

    pub(crate) fn has_callback(&self) -> bool {
        self.has_callback
    }

    /// Runs the callback, makes the result visible and wakes whoever waits. Called once, without any lock of the pool's.
    pub(crate) fn complete(&self, raw: Raw) {
        let finish = self.state.lock().finish.take();
        let kept = match finish {
            None => Kept::Encoded(raw),
            // Should a destructor of the user's panic there, whoever waits must not wait for ever.
            Some(finish) => match guard(|| finish(raw)) {
                Ok(result) => Kept::Decoded(result),
                Err(panic) => Kept::Encoded(Raw::Failed(panic)),
            },
        };
        let mut state = self.state.lock();
        state.stage = Stage::Done(kept);
        let waker = state.waker.take();
        drop(state);
        self.is_done.notify_all();
        // Pairs with `descriptor`, which looks at the stage after it has made the bell.
        if let Some(bell) = self.bell.get() {
            bell.ring();
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether it is done, or its result has been taken already.
    pub(crate) fn is_ready(&self) -> bool {
        !matches!(self.state.lock().stage, Stage::UnderWay)
    }

    /// Waits until it is done or `deadline` passes; returns whether it is done.
    pub(crate) fn wait(&self, deadline: Deadline) -> bool {
        let mut state = self.state.lock();
        while matches!(state.stage, Stage::UnderWay) {
            match deadline.remaining() {
                None => self.is_done.wait(&mut state),
                Some(left) if left.is_zero() => return false,
                Some(left) => {
                    let Some(end) = Instant::now().checked_add(left) else {
                        continue;
                    };
                    let _timed_out = self.is_done.wait_until(&mut state, end);
                }
            }
        }
        true
    }

    /// Takes the result, if it is there and nobody has taken it.
    pub(crate) fn take(&self) -> Option<Kept> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut state.stage, Stage::Taken) {
            Stage::Done(kept) => Some(kept),
            before => {
                state.stage = before;
                None
            }
        }
    }

    /// Has `waker` woken when it is done; returns whether it is done already.
    pub(crate) fn wake_later(&self, waker: &Waker) -> bool {
        let state = self.state.lock();
        if !matches!(state.stage, Stage::UnderWay) {
            return true;
        }
        let is_known = |known: &Waker| known.will_wake(waker);
        if state.waker.as_ref().is_some_and(is_known) {
            return false;
        }
        drop(state);
        // To copy a waker and to drop one runs code of the executor's, which may end a task, and with it a pool.
        let mut kept = Some(waker.clone());
        let mut state = self.state.lock();
        let is_done = !matches!(state.stage, Stage::UnderWay);
        if !is_done {
            std::mem::swap(&mut state.waker, &mut kept);
        }
        drop(state);
        drop(kept);
        is_done
    }

    /// A descriptor that is readable from when it is done.
    ///
    /// # Errors
    ///
    /// Where the system refuses one.
    pub(crate) fn descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        let bell = match self.bell.get() {
            Some(bell) => bell,
            None => {
                let made = Wake::new()?;
                self.bell.get_or_init(|| made)
            }
        };
        // Whoever completed it before the bell was there did not ring.
        if self.is_ready() {
            bell.ring();
        }
        Ok(bell.descriptor())
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("is_ready", &self.is_ready())
            .finish_non_exhaustive()
    }
}
