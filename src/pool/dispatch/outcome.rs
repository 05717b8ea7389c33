//! What becomes of items that are with a worker: they finish, are taken back, or their worker dies.

use crate::pool::dispatch::piece::{Fate, Piece};
use crate::pool::dispatch::state::Dispatcher;

/// How often a worker may die at an item's turn, without having begun it, before the item is charged.
const DEATHS_MAX: u32 = 4;

impl Dispatcher {
    /// The next `count` items of a worker have their outcomes; returns them, if they are one piece's.
    pub(crate) fn finished(&mut self, worker: usize, count: usize, nanos: u64) -> Option<Piece> {
        let pieces = &mut self.workers[worker].pieces;
        let front = pieces.front_mut()?;
        if count == 0 || count > front.count {
            return None;
        }
        let done = front.split_front(count);
        if front.count == 0 {
            pieces.pop_front();
            self.workers[worker].forget_work(done.nanos);
        }
        self.workers[worker].late_from = None;
        self.go_on_clock(worker);
        if let Some(job) = self.jobs.get_mut(&done.job) {
            for item in done.item..done.item + done.count {
                if job.cancelled.is_empty() {
                    break;
                }
                job.cancelled.remove(&item);
            }
            let sample = nanos.clamp(1, 1 << 50) as f64 / count as f64;
            job.nanos_per_item = Some(match job.nanos_per_item {
                None => sample,
                Some(known) => {
                    let weight = (count as f64 / (count as f64 + 8.0)).max(0.125);
                    known + (sample - known) * weight
                }
            });
        }
        Some(done)
    }

    /// Tries an item again that has failed, if its job says so and it has not been tried too often.
    pub(crate) fn retry(&mut self, piece: Piece) -> bool {
        let may_retry = self
            .jobs
            .get(&piece.job)
            .is_some_and(|job| piece.attempts < job.terms.retries && !piece.is_once);
        if may_retry {
            self.put_back(Piece {
                attempts: piece.attempts + 1,
                deaths: 0,
                ..piece
            });
        }
        may_retry
    }

    /// The last `count` items that were with a worker are taken back: it will pass over them. If there are none, it has begun all.
    pub(crate) fn revoked(&mut self, worker: usize, count: usize) {
        self.workers[worker].has_begun_all = count == 0;
        self.workers[worker].skips += count;
        if let Some(may_take) = &mut self.workers[worker].may_take {
            *may_take += count;
        }
        let mut left = count;
        while left > 0 {
            let Some(back) = self.workers[worker].pieces.back_mut() else {
                break;
            };
            let taken = left.min(back.count);
            let mut piece = *back;
            let mut kept = piece.split_front(back.count - taken);
            (kept.deaths, kept.attempts) = (back.deaths, back.attempts);
            if kept.count == 0 {
                (piece.deaths, piece.attempts) = (back.deaths, back.attempts);
                self.workers[worker].pieces.pop_back();
                self.workers[worker].forget_work(piece.nanos);
            } else {
                *back = kept;
            }
            left -= taken;
            self.put_back(piece);
        }
        if self.workers[worker].pieces.is_empty() {
            self.workers[worker].deadline = None;
            self.workers[worker].late_from = None;
        }
    }

    /// A worker has passed over `count` items that were taken back; `false` if it had none.
    pub(crate) fn skipped(&mut self, worker: usize, count: usize) -> bool {
        let worker = &mut self.workers[worker];
        match worker.skips.checked_sub(count) {
            Some(left) => {
                worker.skips = left;
                true
            }
            None => false,
        }
    }

    /// A worker does not begin its first item. Returns whether that one is to be charged for it: then it stays where it is.
    pub(crate) fn stuck(&mut self, worker: usize) -> bool {
        let Some(front) = self.workers[worker].pieces.front_mut() else {
            return false;
        };
        if front.deaths + 1 >= DEATHS_MAX {
            return true;
        }
        front.deaths += 1;
        false
    }

    /// Whether a worker has passed over all that was taken back and has nothing else.
    pub(crate) fn is_drained(&self, worker: usize) -> bool {
        !self.is_busy(worker)
    }

    /// A worker has died. Returns the item that is charged, if one is. Its other items are ready again. An item that can be sent once
    /// only is charged whether it was begun or not, if it is wanted.
    pub(crate) fn died(&mut self, worker: usize, fate: Fate) -> Option<Piece> {
        let mut pieces = std::mem::take(&mut self.workers[worker]).pieces;
        let mut charged = None;
        let mut before = match fate {
            Fate::At(begun) | Fate::KilledAt(begun) => begun,
            Fate::Between | Fate::Killed => usize::MAX,
        };
        if pieces.front().is_some_and(|front| front.is_once) {
            // What stands behind it was not begun.
            before = usize::MAX;
            charged = pieces.pop_front();
            let jobs = &mut self.jobs;
            let unwanted = charged.take_if(|front| {
                let job = jobs.get_mut(&front.job);
                job.is_some_and(|job| job.cancelled.remove(&front.item))
            });
            self.dropped.extend(unwanted);
        } else if fate == Fate::Between {
            if let Some(front) = pieces.front_mut() {
                front.deaths += 1;
                if front.deaths >= DEATHS_MAX {
                    before = 0;
                }
            }
        }
        // From behind, so that what is put back first stands last.
        let mut back = Vec::new();
        for mut piece in pieces {
            if charged.is_none() && before < piece.count {
                if before > 0 {
                    back.push(piece.split_front(before));
                }
                charged = Some(piece.split_front(1));
            } else {
                before = before.saturating_sub(piece.count);
            }
            if piece.count > 0 {
                back.push(piece);
            }
        }
        for piece in back.into_iter().rev() {
            self.put_back(piece);
        }
        charged
    }

    fn put_back(&mut self, piece: Piece) {
        if let Some(job) = self.jobs.get_mut(&piece.job) {
            job.put_back(piece, &mut self.dropped);
            if !job.ready.is_empty() {
                self.ready.insert(piece.job);
            }
        }
    }
}
