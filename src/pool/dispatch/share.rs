//! Who gets what next: pieces for workers that have little left, and half of what one has not begun for one that idles.

use crate::pool::dispatch::piece::{Action, Piece, UNKNOWN_NANOS, piece_items};
use crate::pool::dispatch::state::{Dispatcher, Job, Worker};

/// A worker that has less work than this is sent another piece, however many it has.
const BACKLOG_NANOS: f64 = 200_000.0;
/// The same, where the caller is not to be woken more often than it has to.
const FAR_BACKLOG_NANOS: f64 = 8_000_000.0;
/// The most bytes of items, or of their results, that a worker is sent work with for that alone: they fit in its rings.
const FAR_BACKLOG_BYTES: f64 = 512.0 * 1024.0;
/// Less work than this is not left unheard of for longer than half of it, though there is nothing more to send: what came
/// of it is taken in meanwhile.
const WORTH_LEAVING_NANOS: f64 = 1_000_000.0;
/// The most pieces that are with one worker.
const PIECES_MAX: usize = 256;
/// Who has two pieces already is not sent less work than this, where what is left of a job is shared out: each piece is a
/// message.
const SHARE_NANOS: f64 = 5_000.0;
/// A backlog that is shorter is not worth waking another worker for, which takes about as long.
const WORTH_WAKING_NANOS: f64 = 30_000.0;
/// One that has no outcome for so long, while somebody idles, is at something that takes longer than was believed. Then what it has not
/// begun is worth it, however little that seems to be.
pub(crate) const LATE_NANOS: u64 = 1_000_000;

/// So many items are one piece where nobody waits for another: a worker that is handy may have all of them.
const HANDY_ITEMS: usize = if cfg!(any(test, fuzzing)) { 8 } else { 256 };

impl Job {
    /// How many of its items, or their results, fit in a worker's rings.
    fn far_items(&self) -> usize {
        (FAR_BACKLOG_BYTES / self.bytes_per_item) as usize
    }
}

impl Dispatcher {
    /// Sends ready items of the only job, if all outcomes are awaited together, to workers that are handy, where it is not worth waking
    /// another one for them. The others are shared out by [`feed`](Dispatcher::feed).
    pub(crate) fn feed_handy(
        &mut self,
        is_handy: impl Fn(usize) -> bool,
        actions: &mut Vec<Action>,
    ) {
        for index in 0..self.workers.len() {
            let mut may_have_more = self.may_be_handy(index) && is_handy(index);
            while may_have_more {
                may_have_more =
                    self.give(index, WORTH_WAKING_NANOS, actions) && self.may_be_handy(index);
            }
        }
    }

    /// Whether there is something that a worker gets if it is handy.
    fn may_be_handy(&self, index: usize) -> bool {
        let mut jobs = self.jobs.iter();
        let (Some((id, job)), None) = (jobs.next(), jobs.next()) else {
            return false;
        };
        let (Some(front), Some(nanos)) = (job.ready.front(), job.nanos_per_item) else {
            return false;
        };
        let worker = &self.workers[index];
        let is_of_this_job = |piece: &Piece| piece.job == *id;
        // Of a few that are ready, one may wait for another: each worker gets some.
        front.count >= HANDY_ITEMS
            && piece_items(job.nanos_per_item) >= HANDY_ITEMS
            && job.terms.is_collected
            && job.terms.piece_items.is_none()
            && self.may_take(index)
            && worker.pieces.len() < PIECES_MAX
            && worker.pieces.iter().all(is_of_this_job)
            && self.work_with(worker) + nanos * front.count as f64 <= WORTH_WAKING_NANOS
    }

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
        if self.jobs.len() > 1 && !self.ready.is_empty() {
            self.make_room(actions);
        }
        // First everyone gets one piece, then another one. Those whose pieces are short get more, and one after the other: where
        // the caller has no processor to spare, it is better off with fewer workers that are busy.
        for (pieces_max, least_nanos) in [(1, 0.0), (2, 0.0), (PIECES_MAX, SHARE_NANOS)] {
            for index in 0..self.workers.len() {
                while self.wants(index, pieces_max) {
                    if !self.give(index, least_nanos, actions) {
                        if pieces_max == 1 {
                            self.take_over(actions);
                        }
                        return;
                    }
                }
            }
        }
        while let Some(index) = self.next_for_more() {
            if !self.give(index, SHARE_NANOS, actions) {
                return;
            }
        }
    }

    /// The worker that has least, if it is to have more than it needs, so that the caller is woken less often: where there
    /// is one job, no other one came meanwhile, and its caller waits for all outcomes.
    fn next_for_more(&self) -> Option<usize> {
        let (_, job) = self.jobs.first_key_value()?;
        if !job.is_alone || !job.terms.is_collected || job.ready.is_empty() {
            return None;
        }
        let items_max = job.far_items();
        let may_have_more = |&index: &usize| {
            let worker = &self.workers[index];
            self.may_take(index)
                && worker.pieces.len() < PIECES_MAX
                && worker.backlog_nanos < FAR_BACKLOG_NANOS
                && self.items_with(index) < items_max
        };
        let backlog = |index: &usize| self.workers[*index].backlog_nanos;
        (0..self.workers.len())
            .filter(may_have_more)
            .min_by(|one, other| backlog(one).total_cmp(&backlog(other)))
    }

    /// Has workers that hold more than they need give it up: another job has come, whose items are not to wait behind that.
    fn make_room(&self, actions: &mut Vec<Action>) {
        let has_more = |worker: &Worker| {
            let last = worker.pieces.back().filter(|_| worker.pieces.len() > 2);
            worker.skips == 0
                && last.is_some_and(|last| worker.backlog_nanos - last.nanos >= BACKLOG_NANOS)
        };
        let far = (0..self.workers.len()).filter(|&index| has_more(&self.workers[index]));
        actions.extend(far.map(|worker| Action::Revoke { worker, all: true }));
    }

    /// Sends a worker the next piece; returns whether there was one for it. What is left of a job is not shared out in pieces of
    /// less work than `least_nanos`.
    fn give(&mut self, index: usize, least_nanos: f64, actions: &mut Vec<Action>) -> bool {
        let worker = &self.workers[index];
        let items_max = worker.may_take.unwrap_or(usize::MAX);
        let Some(piece) = self.next_piece(items_max, least_nanos, worker.pieces.is_empty()) else {
            return false;
        };
        let worker = &mut self.workers[index];
        worker.has_begun_all = false;
        worker.pieces.push_back(piece);
        worker.backlog_nanos += piece.nanos;
        worker.may_take = worker.may_take.map(|items| items - piece.count);
        if self.workers[index].pieces.len() == 1 {
            self.start_clock(index);
        }
        actions.push(Action::Send {
            worker: index,
            piece,
        });
        true
    }

    /// Whether a worker has nothing, could be given something, and there was nothing to give.
    pub(crate) fn lacks_items(&self) -> bool {
        (0..self.workers.len()).any(|index| self.wants(index, 1))
    }

    /// Whether a worker could be given something and has one piece at most: it may have done that before anybody hears of it.
    pub(crate) fn lacks_pieces(&self) -> bool {
        (0..self.workers.len()).any(|index| self.wants(index, 2))
    }

    fn wants(&self, index: usize, pieces_max: usize) -> bool {
        let worker = &self.workers[index];
        self.may_take(index)
            && worker.pieces.len() < pieces_max
            && (worker.pieces.len() < 2 || worker.backlog_nanos < BACKLOG_NANOS)
    }

    fn may_take(&self, index: usize) -> bool {
        let worker = &self.workers[index];
        worker.is_up && worker.skips == 0 && worker.may_take != Some(0)
    }

    /// The next piece of the job whose turn it is, of at most so many items; for a worker that has none, or has some.
    fn next_piece(&mut self, items_max: usize, least_nanos: f64, has_none: bool) -> Option<Piece> {
        let after = self.ready.range(self.served + 1..).next();
        let id = *after.or_else(|| self.ready.first())?;
        let front = self.jobs.get(&id)?.ready.front()?;
        if front.is_once && !has_none {
            return None;
        }
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
            let least = (least_nanos / nanos_per_item.max(0.1)) as usize;
            count = count.min(ready.div_ceil(workers).max(least));
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

    /// Has a worker give up half of what it has not begun, if some worker has nothing: the one with the most, and if that has begun all of
    /// it, the next one.
    fn take_over(&self, actions: &mut Vec<Action>) {
        if !self.has_idle_workers() {
            return;
        }
        let candidates = (0..self.workers.len()).filter_map(|index| {
            let worker = &self.workers[index];
            let work = self.work_with(worker);
            let is_late = worker.late_from.is_some_and(|from| from <= self.now);
            let is_one = self.may_give_up(index) && (is_late || work > WORTH_WAKING_NANOS);
            is_one.then_some((index, work))
        });
        let mut candidates: Vec<(usize, f64)> = candidates.collect();
        candidates.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        let halves = candidates
            .into_iter()
            .map(|(worker, _)| Action::Revoke { worker, all: false });
        actions.extend(halves);
    }

    /// Whether a worker may have items that it has not begun, beside the one that it is at.
    fn may_give_up(&self, index: usize) -> bool {
        let worker = &self.workers[index];
        worker.is_up && !worker.has_begun_all && self.items_with(index) > 1
    }

    /// Whether a worker has nothing, and another one may have more than it is at: what was believed to be too little to be taken over.
    pub(crate) fn leaves_some(&self) -> bool {
        self.ready.is_empty()
            && self.has_idle_workers()
            && (0..self.workers.len()).any(|index| self.may_give_up(index))
    }

    /// When to feed again though nothing is heard till then, if the dispatcher [`leaves_some`](Dispatcher::leaves_some): a worker may be
    /// late. `is_taking` says which worker is in the middle of taking in the last of its items: it is heard of when that is over.
    ///
    /// No state is looked at twice: a worker that is late and gives nothing up has begun all that it has, or is taking it in.
    pub(crate) fn next_look(&mut self, is_taking: impl Fn(usize, usize) -> bool) -> Option<u64> {
        let mut next = None;
        for index in 0..self.workers.len() {
            if !self.may_give_up(index) || is_taking(index, self.items_with(index)) {
                continue;
            }
            let late_from = &mut self.workers[index].late_from;
            // A moment that has passed since `feed` was told the time has the next one follow: nobody is to look without a pause.
            let to_come = late_from.filter(|&from| from > self.now);
            let from = to_come.unwrap_or(self.now.saturating_add(LATE_NANOS));
            *late_from = Some(from);
            next = next.into_iter().chain([from]).min();
        }
        next
    }

    fn has_idle_workers(&self) -> bool {
        let idle = |worker: &Worker| worker.is_up && worker.pieces.is_empty() && worker.skips == 0;
        self.workers.iter().any(idle)
    }

    /// What a worker's pieces take, by what was believed when they were sent, or by what is known now, whichever is more.
    fn work_with(&self, worker: &Worker) -> f64 {
        let nanos = |piece: &Piece| {
            let job = self.jobs.get(&piece.job);
            let known = job.and_then(|job| job.nanos_per_item);
            known
                .map_or(0.0, |nanos| nanos * piece.count as f64)
                .max(piece.nanos)
        };
        worker.pieces.iter().map(nanos).sum()
    }

    /// How many of a worker's next outcomes nobody has to be woken for, if all that it holds is collected: half of what it
    /// holds, so that it is sent more in time; most of it, if there is nothing more to send; and none, if somebody could take it over.
    pub(crate) fn unhurried_items(&self, index: usize) -> usize {
        let worker = &self.workers[index];
        let mut is_last = self.ready.is_empty() && worker.backlog_nanos >= WORTH_LEAVING_NANOS;
        let held = self.items_with(index);
        if self.ready.is_empty() && self.has_idle_workers() {
            // What it has was believed to be too little to be taken over. Its next outcome may tell otherwise.
            return 0;
        }
        for piece in &worker.pieces {
            let Some(job) = self.jobs.get(&piece.job) else {
                continue;
            };
            // Behind items that have no time limit, one that has is looked at when it is the first.
            let is_limited_later = piece.limit_nanos.is_some() && worker.deadline.is_none();
            if !job.terms.is_collected || is_limited_later {
                return 0;
            }
            is_last &= job.is_complete && held <= job.far_items();
        }
        if is_last {
            held - held.div_ceil(8)
        } else {
            held / 2
        }
    }
}
