//! Time limits: since when a worker's first item has been first, and which worker is to be looked at when.

use crate::pool::dispatch::piece::{First, Overdue};
use crate::pool::dispatch::state::Dispatcher;

/// How long a worker may leave an item with a time limit unbegun, at least, before it is given up.
const STUCK_NANOS: u64 = 1_000_000_000;

impl Dispatcher {
    /// A worker that had nothing is sent an item, which it cannot have begun before now.
    pub(crate) fn start_clock(&mut self, index: usize) {
        let limit = self.limit_of_first(index);
        let worker = &mut self.workers[index];
        worker.first_since = None;
        worker.deadline = limit.map(|limit| self.now.saturating_add(limit));
    }

    /// The item before has its outcome, and the next one has become a worker's first: it may have begun long ago, if nobody
    /// has looked meanwhile. So it is looked at once.
    pub(crate) fn go_on_clock(&mut self, index: usize) {
        let limit = self.limit_of_first(index);
        let worker = &mut self.workers[index];
        worker.first_since = None;
        worker.deadline = limit.map(|_| self.now);
    }

    /// The time limit of a worker's first item, if it has one.
    fn limit_of_first(&self, index: usize) -> Option<u64> {
        self.workers[index].pieces.front()?.limit_nanos
    }

    /// The next moment at which an item may be overdue.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.workers
            .iter()
            .filter_map(|worker| worker.deadline)
            .min()
    }

    /// A worker whose first item has taken too long, as [`tick`](Dispatcher::tick) told the time; `first` says what is known of
    /// a worker's first item at that time. Whoever asks kills that worker.
    pub(crate) fn overdue(
        &mut self,
        mut first: impl FnMut(usize, u64) -> First,
    ) -> Option<(usize, Overdue)> {
        let now = self.now;
        for (index, worker) in self.workers.iter_mut().enumerate() {
            if worker.deadline.is_none_or(|deadline| deadline > now) {
                continue;
            }
            let Some(limit) = worker.pieces.front().and_then(|front| front.limit_nanos) else {
                worker.deadline = None;
                continue;
            };
            // It began after the item before had ended, of which we may have heard later. A worker that writes what is not so
            // harms the item that it has.
            match first(index, now) {
                First::Unheard => worker.deadline = Some(now),
                First::Begun(began) => {
                    let began = began.min(now);
                    if began.saturating_add(limit) <= now {
                        worker.deadline = None;
                        return Some((index, Overdue::Item));
                    }
                    worker.first_since = Some(began);
                    worker.deadline = Some(began.saturating_add(limit));
                }
                First::Unbegun => {
                    // Before this it was not looked at, and who knows what it waited for.
                    let waited = now - *worker.first_since.get_or_insert(now);
                    if waited >= limit.saturating_mul(2) && waited >= STUCK_NANOS {
                        worker.deadline = None;
                        return Some((index, Overdue::Stuck));
                    }
                    worker.deadline = Some(now.saturating_add(limit));
                }
            }
        }
        None
    }
}
