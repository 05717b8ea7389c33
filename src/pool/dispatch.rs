//! Who works on what: a pure state machine. It does no I/O and reads no clock.
//!
//! A job's items come in batches; a *piece* is a run of consecutive items of one batch. Each item is at every moment in
//! exactly one place, and only the events named here move it:
//!
//! | an item is | until | then it is |
//! |---|---|---|
//! | ready: in its job's queue | [`feed`](Dispatcher::feed) or `feed_handy` sends it to a worker that has little left | with that worker |
//! | with a worker, in the order in which that one works | [`finished`](Dispatcher::finished): it has its outcome | done |
//! | | [`revoked`](Dispatcher::revoked): the worker had not begun it, and gave it up to one that idles | ready |
//! | | [`died`](Dispatcher::died), and it was the one being worked on | done: charged with the death |
//! | | the same, and its job retries | ready once more, with one attempt more behind it |
//! | | [`died`](Dispatcher::died), and it was not, or we killed the worker over another item | ready |
//! | ready or with a worker | [`close`](Dispatcher::close), [`cancel`](Dispatcher::cancel): nobody wants its outcome any more | dropped, at once or when it is finished |
//!
//! **Sizes.** A piece is about `PIECE_NANOS` of work by what the job's items took so far; one item, as long as nothing is
//! known. A worker holds two pieces at least, and more while these are short, so that it never waits for the parent. What
//! turns out to be slow is no harm: a worker that has nothing takes half of what another one has not begun, if that is
//! `WORTH_WAKING_NANOS` of work by what is known then.
//!
//! **Late.** What is less than that is left where it is, and its worker may be at an item that never ends, or that waits for one of those
//! behind it. So whoever sleeps while a worker idles and another one may hold what it has not begun looks again after `LATE_NANOS`
//! ([`next_look`](Dispatcher::next_look)): a worker that has had no outcome since then is late, and gives half up whatever that is.
//! So does the next one, if that one has nothing to give. Whoever has nothing has begun all, and is not asked again until it is
//! sent more: so the looks end, in a pool that idles and in one that is busy.
//!
//! **Ahead.** While a job is the only one and its caller waits for all outcomes, a worker holds up to `FAR_BACKLOG_NANOS` of
//! work, and the caller is woken when half of that is done: on few processors each time takes one from a worker. Pieces stay as
//! small as they are, so nobody idles while an input fills a larger one. Once another job has come, what is held ahead
//! is taken back, and the job that it is of is treated like any other.
//!
//! **Handy.** A worker that is awake, and on another processor than the caller, is sent ready items until it has `WORTH_WAKING_NANOS`
//! of work, by [`feed_handy`](Dispatcher::feed_handy), before any other is woken for them: the kernel would wake that one on the caller's processor, as
//! likely as not, where it takes the caller's time. That is so for a job of many items whose batches take less time than it takes to wake
//! somebody. Short pieces, of which one may wait for another, and pieces of a size that the user has set go to one worker
//! after the other, as ever.
//!
//! **Time limits.** The clock of an item starts when it begins. A worker that works under a limit runs its items one by one
//! and writes down when it began the present one. [`overdue`](Dispatcher::overdue) looks at what it wrote: when the outcome of the
//! item before is heard of, which may be long after this one began; when the limit has passed since an idle worker was sent it;
//! and again when the limit has passed since somebody looked and it had not begun. If it has begun, the deadline is exact from then
//! on. So no item is killed early, and none late, as long as somebody hears of outcomes and deadlines: each is looked at no
//! later than its limit after it began, unless an outcome is on its way just then. A worker that does not even begin, though it has been sent
//! all of the item, for twice the limit and `STUCK_NANOS`, is given up; the item is charged when `DEATHS_MAX` were so over it.
//!
//! **Deaths without a culprit** (a worker killed from outside between items, or while it started) cost an item nothing; but
//! an item at whose turn that has happened `DEATHS_MAX` times is charged after all, so that each job ends.

mod piece;
mod state;
mod clock;
mod outcome;
mod share;

pub(crate) use piece::{Action, Fate, First, JobId, Overdue, Piece, Terms};
pub(crate) use state::Dispatcher;

#[cfg(any(test, fuzzing))]
pub(crate) mod world;
#[cfg(test)]
mod tests;
