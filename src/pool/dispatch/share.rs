//! Who gets what next: pieces for workers that have little left, and half of what one has not begun for one that idles.

use crate::pool::dispatch::piece::{Action, Piece, UNKNOWN_NANOS, piece_items};
use crate::pool::dispatch::state::{Dispatcher, Worker};

/// A worker that has less work than this is sent another piece, however many it has.
const BACKLOG_NANOS: f64 = 200_000.0;
/// The most pieces that are with one worker.
const PIECES_MAX: usize = 256;
/// A backlog that is shorter is not worth taking over.
const WORTH_TAKING_NANOS: f64 = 30_000.0;

impl Dispatcher {
    /// Sends ready items to workers that have little left, and has idle workers take over from busy ones.
    pub(crate) fn feed(&mut self, actions: &mut Vec<Action>) {
        if self.items_max.is_some() {
            let is_done = |worker: &Worker| {
                worker.is_up
                    && worker.may_take == Some(0)
                    && worker.pieces.is_empty()
                    && worker.skips == 0
            };
            let done = (0..self.workers.len()).filter(|&index| is_done(&self.workers[index]));
            actions.extend(done.map(|worker| Action::Retire { worker }));
        }
        // First everyone gets one piece, then those whose pieces are short get more.
        for pieces_max in [1, 2, PIECES_MAX] {
            for index in 0..self.workers.len() {
                while self.wants(index, pieces_max) {
                    let items_max = self.workers[index].may_take.unwrap_or(usize::MAX);
                    let Some(piece) = self.next_piece(items_max) else {
                        if pieces_max == 1 {
                            self.take_over(actions);
                        }
                        return;
                    };
                    let worker = &mut self.workers[index];
                    worker.pieces.push_back(piece);
                    worker.backlog_nanos += piece.nanos;
                    worker.may_take = worker.may_take.map(|items| items - piece.count);
                    if self.limited > 0 && self.workers[index].pieces.len() == 1 {
                        self.start_clock(index);
                    }
                    actions.push(Action::Send {
                        worker: index,
                        piece,
                    });
                }
            }
        }
    }

    /// Whether a worker has nothing, could be given something, and there was nothing to give.
    pub(crate) fn lacks_items(&self) -> bool {
        (0..self.workers.len()).any(|index| self.wants(index, 1))
    }

    fn wants(&self, index: usize, pieces_max: usize) -> bool {
        let worker = &self.workers[index];
        worker.is_up
            && worker.skips == 0
            && worker.may_take != Some(0)
            && worker.pieces.len() < pieces_max
            && (worker.pieces.len() < 2 || worker.backlog_nanos < BACKLOG_NANOS)
    }

    /// The next piece of the job whose turn it is, of at most so many items.
    fn next_piece(&mut self, items_max: usize) -> Option<Piece> {
        let after = self.ready.range(self.served + 1..).next();
        let id = *after.or_else(|| self.ready.first())?;
        self.served = id;
        let workers = self.workers.len();
        let job = self.jobs.get_mut(&id)?;
        let nanos_per_item = job.nanos_per_item.unwrap_or(UNKNOWN_NANOS);
        let is_shared_out = job.terms.piece_items.is_none() && job.is_complete;
        let ready = if is_shared_out {
            job.ready.iter().map(|piece| piece.count).sum::<usize>()
        } else {
            0
        };
        let front = job.ready.front_mut()?;
        let mut count = job
            .terms
            .piece_items
            .unwrap_or_else(|| piece_items(job.nanos_per_item));
        if is_shared_out {
            // Towards the end, what is left is shared out.
            count = count.min(ready.div_ceil(workers));
        }
        let mut piece = front.split_front(count.clamp(1, front.count).min(items_max));
        piece.nanos = nanos_per_item * piece.count as f64;
        if front.count == 0 {
            job.ready.pop_front();
        }
        if job.ready.is_empty() {
            self.ready.remove(&id);
        }
        Some(piece)
    }

    /// Has the worker with the most that it has not begun give half of it up, if some worker has nothing.
    fn take_over(&self, actions: &mut Vec<Action>) {
        let idle = |worker: &Worker| worker.is_up && worker.pieces.is_empty() && worker.skips == 0;
        if !self.workers.iter().any(idle) {
            return;
        }
        let candidates = self.workers.iter().enumerate().filter(|(_, worker)| {
            let items: usize = worker.pieces.iter().map(|piece| piece.count).sum();
            worker.is_up && items > 1 && worker.backlog_nanos > WORTH_TAKING_NANOS
        });
        let most = candidates
            .max_by(|(_, one), (_, other)| one.backlog_nanos.total_cmp(&other.backlog_nanos));
        if let Some((worker, _)) = most {
            actions.push(Action::Revoke { worker, all: false });
        }
    }
}
