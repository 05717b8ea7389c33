//! Time limits: since when a worker's first item has been first, and which worker is to be looked at when.

use crate::pool::dispatch::piece::Overdue;
use crate::pool::dispatch::state::Dispatcher;

/// How long a worker may leave an item with a time limit unbegun, at least, before it is given up.
const STUCK_NANOS: u64 = 1_000_000_000;

impl Dispatcher {
    /// Another item of a worker has become its first.
    pub(crate) fn start_clock(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        worker.first_since = self.now;
        worker.deadline = worker.pieces.front().and_then(|front| {
            let limit = self.jobs.get(&front.job)?.terms.limit_nanos?;
            Some(self.now.saturating_add(limit))
        });
    }

    /// The next moment at which an item may be overdue.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        if self.limited == 0 {
            return None;
        }
        self.workers
            .iter()
            .filter_map(|worker| worker.deadline)
            .min()
    }

    /// A worker whose first item has taken too long, as [`tick`](Dispatcher::tick) told the time; `began` says when a
    /// worker began its first item, if it has. Whoever asks kills that worker.
    pub(crate) fn overdue(
        &mut self,
        mut began: impl FnMut(usize) -> Option<u64>,
    ) -> Option<(usize, Overdue)> {
        let now = self.now;
        for (index, worker) in self.workers.iter_mut().enumerate() {
            if worker.deadline.is_none_or(|deadline| deadline > now) {
                continue;
            }
            let limit = worker.pieces.front().and_then(|front| {
                let job = self.jobs.get(&front.job)?;
                job.terms.limit_nanos
            });
            let Some(limit) = limit else {
                worker.deadline = None;
                continue;
            };
            // What is written there is not believed beyond reason: it began after it became first, and not in the future.
            match began(index).map(|began| began.clamp(worker.first_since, now)) {
                Some(began) if began.saturating_add(limit) <= now => {
                    worker.deadline = None;
                    return Some((index, Overdue::Item));
                }
                Some(began) => {
                    worker.first_since = began;
                    worker.deadline = Some(began.saturating_add(limit));
                }
                None => {
                    let waited = now - worker.first_since;
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
