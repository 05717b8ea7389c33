//! `Condition`: who waits is woken by who has changed something.
//!
//! Each waiter takes a *seat*: a robust word, which it holds while it waits, so that a dead waiter is known; a number, in the
//! order in which they came; and a state, on which it sleeps.
//!
//! | state | changed by | to |
//! |---|---|---|
//! | `EMPTY` | who takes the seat, holding its word | `WAITING` |
//! | `WAITING` | who notifies | `NOTIFIED`, and wakes it |
//! | `WAITING` | its waiter, when its deadline has passed | `EMPTY` |
//! | `NOTIFIED` | its waiter | `EMPTY` |
//! | `NOTIFIED` | who has notified, and sees that the waiter is dead | `EMPTY`; notifies another |
//! | `NOTIFIED` | who takes the seat of a dead waiter | `PASSING`; notifies another |
//! | `PASSING` | who takes the seat, after it has notified another | `EMPTY` |
//!
//! Each step from `WAITING` is one compare-and-swap: of a notification and a deadline, one comes first. So a notification wakes
//! one waiter, neither none nor two: the one that has waited longest. A waiter takes its seat while it holds the lock, so
//! whoever has the lock after it finds it waiting.
//!
//! | a waiter dies | its seat | so |
//! |---|---|---|
//! | waiting | died, `WAITING` | who notifies passes over it |
//! | just as it is notified | died, `NOTIFIED` | who notifies looks once more, takes it back, and notifies another |
//! | later | died, `NOTIFIED` | the next one who takes the seat passes the notification on |
//! | and that one dies before it is done | died, `PASSING` | the one after it passes the notification on, perhaps a second time |
//!
//! Who notifies may die at any step: a waiter that it has notified and not woken yet is woken by the kernel, to which that
//! seat's state is *pending*.

mod seats;
mod handle;

#[cfg(all(test, loom))]
pub(crate) use seats::Seats;

pub use handle::{Condition, WaitTimeoutResult};
