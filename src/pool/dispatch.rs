//! Who works on what: a pure state machine. It does no I/O and reads no clock.
//!
//! A job's items come in batches; a *piece* is a run of consecutive items of one batch. Each item is at every moment in
//! exactly one place, and only the events named here move it:
//!
//! | an item is | until | then it is |
//! |---|---|---|
//! | ready: in its job's queue | [`feed`](Dispatcher::feed) sends it to a worker that has little left | with that worker |
//! | with a worker, in the order in which that one works | [`finished`](Dispatcher::finished): it has its outcome | done |
//! | | [`revoked`](Dispatcher::revoked): the worker had not begun it, and gave it up to one that idles | ready |
//! | | [`died`](Dispatcher::died), and it was the one being worked on | done: charged with the death |
//! | | the same, and its job retries | ready once more, with one attempt more behind it |
//! | | [`died`](Dispatcher::died), and it was not, or we killed the worker over another item | ready |
//! | ready or with a worker | [`close`](Dispatcher::close), [`cancel`](Dispatcher::cancel): nobody wants its outcome any more | dropped, at once or when it is finished |
//!
//! **Sizes.** A piece is about `PIECE_NANOS` of work by what the job's items took so far; one item, as long as nothing is
//! known. A worker holds two pieces at least, and more while these are short, so that it never waits for the parent. What
//! turns out to be slow is no harm: a worker that has nothing takes half of what another one has not begun.
//!
//! **Time limits.** The clock of an item starts when it begins. A worker that works under a limit runs its items one by one
//! and writes down when it began the present one. Of the worker's first item the dispatcher knows since when it has been
//! first; it cannot have begun earlier. When the limit has passed since then, [`overdue`](Dispatcher::overdue) looks at
//! what the worker wrote: if the item has begun, the deadline is exact from then on; if not, it cannot be overdue before
//! the limit has passed once more. So no item is killed early, and each is looked at no later than its limit after it
//! began. A worker that does not even begin, for twice the limit and `STUCK_NANOS`, is given up, at no item's cost.
//!
//! **Deaths without a culprit** (a worker killed from outside between items, or while it started) cost an item nothing; but
//! an item at whose turn that has happened `DEATHS_MAX` times is charged after all, so that each job ends.

mod piece;
mod state;
mod clock;
mod outcome;
mod share;

pub(crate) use piece::{Action, Fate, JobId, Overdue, Piece, Terms};
pub(crate) use state::Dispatcher;

#[cfg(any(test, fuzzing))]
pub(crate) mod world;
#[cfg(test)]
mod tests;
