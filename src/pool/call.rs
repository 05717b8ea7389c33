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
use crate::task::{Encoded, Received, guard};
use parking_lot::{Condvar, Mutex};
use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Instant;

/// What became of items.
#[derive(Debug)]
pub(crate) enum Event {
    /// Results of consecutive items from `item` on.
    Results { item: usize, received: Received },
    /// One item has no result.
    Failed { item: usize, error: TaskError },
    /// No process is left to run what remains, and none can be had. The first item of what remains, if any does.
    Broken {
        item: Option<usize>,
        error: TaskError,
    },
}

/// What became of a call, still encoded.
#[derive(Debug)]
pub(crate) enum Raw {
    /// Of one item.
    One(Encoded),
    /// Of all items of a map, in any order.
    All(Vec<Event>),
    Failed(TaskError),
}

/// Calls that have ended, as they are handed to the pool's thread: what came for several at once is taken apart there, where
/// nobody waits for the pool's lock.
#[derive(Debug)]
pub(crate) enum Finished {
    One(Arc<Call>, Raw),
    Many(Box<Many>),
}

/// Calls of consecutive items, and their results.
#[derive(Debug)]
pub(crate) struct Many {
    /// `None` for each that was cancelled.
    calls: std::vec::IntoIter<Option<Arc<Call>>>,
    received: Received,
}

impl Finished {
    /// Of the calls of consecutive items; `None` for each that nobody waits for any more.
    pub(crate) fn of(calls: Vec<Option<Arc<Call>>>, received: Received) -> Finished {
        let calls = calls.into_iter();
        Finished::Many(Box::new(Many { calls, received }))
    }
}

/// Calls that have ended and have not been completed, in the order in which they are.
#[derive(Debug, Default)]
pub(crate) struct Waiting(VecDeque<Finished>);

impl Waiting {
    pub(crate) fn append(&mut self, finished: Vec<Finished>) {
        self.0.extend(finished);
    }

    /// Whether there is none. One that was cancelled may be taken for one that is there.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Iterator for Waiting {
    type Item = (Arc<Call>, Raw);

    fn next(&mut self) -> Option<(Arc<Call>, Raw)> {
        while let Some(Finished::Many(many)) = self.0.front_mut() {
            for call in many.calls.by_ref() {
                let result = many.received.split_front();
                if let Some(call) = call {
                    return Some((call, Raw::One(result)));
                }
            }
            self.0.pop_front();
        }
        match self.0.pop_front()? {
            Finished::One(call, raw) => Some((call, raw)),
            Finished::Many(_) => None,
        }
    }
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
        let finish = self.has_callback.then(|| self.state.lock().finish.take());
        let kept = match finish.flatten() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::TaskErrorKind;
    use crate::wire::batch::Lane;

    #[test]
    fn calls_that_ended_together_have_each_its_own_result_in_their_order() {
        let calls: Vec<_> = (0..4).map(|_| Arc::new(Call::new(None))).collect();
        let bytes = [1_u16, 2, 3].iter().flat_map(|n| n.to_ne_bytes()).collect();
        let received = Received::new(Lane::Numbers(2), 3, bytes, Vec::new(), 1);
        // The one in the middle was cancelled.
        let together = vec![
            Some(Arc::clone(&calls[0])),
            None,
            Some(Arc::clone(&calls[1])),
        ];
        let failed = Raw::Failed(TaskError::new(TaskErrorKind::System, ""));
        let mut waiting = Waiting::default();
        waiting.append(vec![
            Finished::of(together, received),
            Finished::of(vec![None], Received::nothing()),
            Finished::One(Arc::clone(&calls[2]), failed),
        ]);
        let mut ended = Vec::new();
        for (call, raw) in waiting.by_ref() {
            let place = calls.iter().position(|known| Arc::ptr_eq(known, &call));
            ended.push((
                place.unwrap(),
                match raw {
                    Raw::One(result) => Some(result.decode::<u16>().unwrap()),
                    _ => None,
                },
            ));
        }
        assert_eq!(ended, [(0, Some(1)), (1, Some(3)), (2, None)]);
        assert!(waiting.is_empty());
    }
}
