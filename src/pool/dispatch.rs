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
//! **Sizes.** A piece is about [`PIECE_NANOS`] of work by what the job's items took so far; one item, as long as nothing is
//! known. A worker holds two pieces at least, and more while these are short, so that it never waits for the parent. What
//! turns out to be slow is no harm: a worker that has nothing takes half of what another one has not begun.
//!
//! **Time limits.** The clock of an item starts when it begins. A worker that works under a limit runs its items one by one
//! and writes down when it began the present one. Of the worker's first item the dispatcher knows since when it has been
//! first; it cannot have begun earlier. When the limit has passed since then, [`overdue`](Dispatcher::overdue) looks at
//! what the worker wrote: if the item has begun, the deadline is exact from then on; if not, it cannot be overdue before
//! the limit has passed once more. So no item is killed early, and each is looked at no later than its limit after it
//! began. A worker that does not even begin, for twice the limit and [`STUCK_NANOS`], is given up, at no item's cost.
//!
//! **Deaths without a culprit** (a worker killed from outside between items, or while it started) cost an item nothing; but
//! an item at whose turn that has happened [`DEATHS_MAX`] times is charged after all, so that each job ends.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// The work in a piece, by what is known of the items.
const PIECE_NANOS: f64 = 1_000_000.0;
/// A worker that has less work than this is sent another piece, however many it has.
const BACKLOG_NANOS: f64 = 200_000.0;
/// The most pieces that are with one worker.
const PIECES_MAX: usize = 256;
/// A backlog that is shorter is not worth taking over.
const WORTH_TAKING_NANOS: f64 = 30_000.0;
/// What an item is believed to take as long as nothing is known: long enough not to be followed by many.
const UNKNOWN_NANOS: f64 = 1e9;
/// How often a worker may die at an item's turn, without having begun it, before the item is charged.
const DEATHS_MAX: u32 = 4;
/// How long a worker may leave an item with a time limit unbegun, at least, before it is given up.
const STUCK_NANOS: u64 = 1_000_000_000;

pub(crate) type JobId = u64;

/// Consecutive items of one batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Piece {
    pub(crate) job: JobId,
    pub(crate) batch: u64,
    /// The first item's place in the batch, and in the job's input.
    pub(crate) start: usize,
    pub(crate) item: usize,
    pub(crate) count: usize,
    /// How often its first item was tried before.
    pub(crate) attempts: u32,
    deaths: u32,
    /// What it was believed to take when it was sent.
    nanos: f64,
}

impl Piece {
    /// Cuts off the first `count` items.
    fn split_front(&mut self, count: usize) -> Piece {
        let front = Piece { count, ..*self };
        self.start += count;
        self.item += count;
        self.count -= count;
        self.deaths = 0;
        self.attempts = 0;
        front
    }
}

/// What the driver is to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    /// Send the piece to the worker.
    Send { worker: usize, piece: Piece },
    /// Take back from the worker what it has not begun, all or half of it, and say how much that was
    /// ([`Dispatcher::revoked`]).
    Revoke { worker: usize, all: bool },
    /// It has done as many items as it may: have another one take its place.
    Retire { worker: usize },
}

/// How a worker came to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// By itself, or by somebody else's hand, at the item that is so many items from its next one.
    At(usize),
    /// Likewise, at no item.
    Between,
    /// We killed it, over the item that is so many items from its next one.
    KilledAt(usize),
    /// We killed it, and no item is to be charged.
    Killed,
}

/// What a job's items are to be handled by.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Terms {
    /// Which function: what its items took before is where the estimate starts.
    pub(crate) function: u64,
    /// Items in a piece; as many as seem best where nothing is said.
    pub(crate) piece_items: Option<usize>,
    /// Whether the caller waits for all outcomes, and for none before the others.
    pub(crate) is_collected: bool,
    /// How long an item may take.
    pub(crate) limit_nanos: Option<u64>,
    /// How often an item is tried again.
    pub(crate) retries: u32,
}

/// What is to be done about a worker whose first item may have taken too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// Its item's limit has passed.
    Item,
    /// It has not begun the item for very long.
    Stuck,
}

#[derive(Debug, Default)]
struct Worker {
    is_up: bool,
    pieces: VecDeque<Piece>,
    /// What the pieces were believed to take when they were sent. Kept beside them, since it is asked for at every turn.
    backlog_nanos: f64,
    /// Items that were taken back and that it has not passed over yet; till then it gets no more.
    skips: usize,
    /// How many items it may still be given, where that is limited.
    may_take: Option<usize>,
    /// Since when its first item has been first, and when to look at it, if its job has a limit.
    first_since: u64,
    deadline: Option<u64>,
}

impl Worker {
    /// A piece is no more with it. Rounding does not add up: with the last piece, nothing is left.
    fn forget_work(&mut self, nanos: f64) {
        self.backlog_nanos = if self.pieces.is_empty() {
            0.0
        } else {
            self.backlog_nanos - nanos
        };
    }
}

#[derive(Debug)]
struct Job {
    ready: VecDeque<Piece>,
    terms: Terms,
    nanos_per_item: Option<f64>,
    /// Whether all its items have been submitted.
    is_complete: bool,
    /// Items that nobody wants any more and that are with a worker.
    cancelled: BTreeSet<usize>,
}

impl Job {
    /// Puts a piece in front of those that are ready, without the items that were cancelled.
    fn put_back(&mut self, mut piece: Piece) {
        let mut parts = Vec::new();
        for item in piece.item..piece.item + piece.count {
            if self.cancelled.remove(&item) {
                let before = piece.split_front(item - piece.item);
                piece.split_front(1);
                parts.push(before);
            }
            if self.cancelled.is_empty() {
                break;
            }
        }
        parts.push(piece);
        for part in parts.into_iter().rev().filter(|part| part.count > 0) {
            self.ready.push_front(part);
        }
    }
}

/// The state of a pool's work.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    workers: Vec<Worker>,
    jobs: BTreeMap<JobId, Job>,
    /// Those of them that have items ready.
    ready: BTreeSet<JobId>,
    /// What an item took in the last job of a function.
    known_nanos: HashMap<u64, f64>,
    next_job: JobId,
    /// The job that was served last: the next one comes first.
    served: JobId,
    /// How many items a worker may have before another one takes its place.
    items_max: Option<usize>,
    /// How many open jobs have time limits, and what the clock said last, in nanoseconds.
    limited: usize,
    now: u64,
}

impl Dispatcher {
    pub(crate) fn new(workers: usize) -> Dispatcher {
        Dispatcher {
            workers: (0..workers).map(|_| Worker::default()).collect(),
            jobs: BTreeMap::new(),
            ready: BTreeSet::new(),
            known_nanos: HashMap::new(),
            next_job: 1,
            served: 0,
            items_max: None,
            limited: 0,
            now: 0,
        }
    }

    /// Has each worker be replaced after so many items.
    pub(crate) fn limit_items(&mut self, items_max: usize) {
        self.items_max = Some(items_max.max(1));
    }

    /// Whether what the clock says matters to any job.
    pub(crate) fn has_limits(&self) -> bool {
        self.limited > 0
    }

    /// Tells what the clock says.
    pub(crate) fn tick(&mut self, now: u64) {
        self.now = self.now.max(now);
    }

    /// Opens a job.
    pub(crate) fn open(&mut self, terms: Terms) -> JobId {
        let id = self.next_job;
        self.next_job += 1;
        self.limited += usize::from(terms.limit_nanos.is_some());
        let known = self.known_nanos.get(&terms.function);
        let job = Job {
            ready: VecDeque::new(),
            // Doubled: too small a piece costs little, too large a one may wait for a slow item.
            nanos_per_item: known.map(|nanos| 2.0 * nanos),
            terms,
            is_complete: false,
            cancelled: BTreeSet::new(),
        };
        self.jobs.insert(id, job);
        id
    }

    /// Takes in a batch of a job's items.
    pub(crate) fn submit(&mut self, job: JobId, batch: u64, item: usize, count: usize) {
        if let Some(open) = self.jobs.get_mut(&job) {
            open.ready.push_back(Piece {
                job,
                batch,
                start: 0,
                item,
                count,
                attempts: 0,
                deaths: 0,
                nanos: 0.0,
            });
            self.ready.insert(job);
        }
    }

    /// Says whether no more items of this job will come.
    pub(crate) fn complete(&mut self, job: JobId, is_complete: bool) {
        if let Some(open) = self.jobs.get_mut(&job) {
            open.is_complete = is_complete;
        }
    }

    /// How many items the next batch of `job` should have; `None` while enough are ready.
    pub(crate) fn demand(&self, job: JobId) -> Option<usize> {
        let open = self.jobs.get(&job)?;
        if open.is_complete || !open.ready.is_empty() {
            return None;
        }
        Some(
            open.terms
                .piece_items
                .unwrap_or_else(|| piece_items(open.nanos_per_item)),
        )
    }

    /// How many items of `job` keep all workers busy.
    pub(crate) fn enough_items(&self, job: JobId) -> usize {
        let Some(open) = self.jobs.get(&job) else {
            return 0;
        };
        let piece = open
            .terms
            .piece_items
            .unwrap_or_else(|| piece_items(open.nanos_per_item));
        piece.saturating_mul(3 * self.workers.len())
    }

    /// Drops a job. What workers have of it and not begun is taken back.
    pub(crate) fn close(&mut self, job: JobId, actions: &mut Vec<Action>) {
        let Some(closed) = self.jobs.remove(&job) else {
            return;
        };
        self.ready.remove(&job);
        self.limited -= usize::from(closed.terms.limit_nanos.is_some());
        if let Some(nanos) = closed.nanos_per_item {
            self.known_nanos.insert(closed.terms.function, nanos);
        }
        for (index, worker) in self.workers.iter().enumerate() {
            let is_last_ours = worker.pieces.back().is_some_and(|piece| piece.job == job);
            if is_last_ours {
                actions.push(Action::Revoke {
                    worker: index,
                    all: true,
                });
            }
        }
    }

    /// Drops one item of a job. If it is with a worker, that one is to give up all that it has not begun; then
    /// [`holds`](Dispatcher::holds) tells whether it had begun this one.
    pub(crate) fn cancel(&mut self, job: JobId, item: usize, actions: &mut Vec<Action>) {
        let holder = (0..self.workers.len()).find(|&index| self.holds(index, job, Some(item)));
        let Some(open) = self.jobs.get_mut(&job) else {
            return;
        };
        open.cancelled.insert(item);
        if let Some(worker) = holder {
            actions.push(Action::Revoke { worker, all: true });
            return;
        }
        let is_in = |piece: &Piece| (piece.item..piece.item + piece.count).contains(&item);
        if let Some(place) = open.ready.iter().position(is_in) {
            let behind = open.ready.split_off(place + 1);
            if let Some(piece) = open.ready.pop_back() {
                // From behind, as `put_back` puts to the front.
                let before = std::mem::replace(&mut open.ready, behind);
                open.put_back(piece);
                for piece in before.into_iter().rev() {
                    open.ready.push_front(piece);
                }
            }
        }
        open.cancelled.remove(&item);
        if open.ready.is_empty() {
            self.ready.remove(&job);
        }
    }

    /// Whether a worker has the item, or any of the job.
    pub(crate) fn holds(&self, worker: usize, job: JobId, item: Option<usize>) -> bool {
        let is_it = |piece: &Piece| {
            piece.job == job
                && item.is_none_or(|item| (piece.item..piece.item + piece.count).contains(&item))
        };
        self.workers[worker].pieces.iter().any(is_it)
    }

    /// A worker is there, and has nothing.
    pub(crate) fn up(&mut self, worker: usize) {
        self.workers[worker] = Worker {
            is_up: true,
            may_take: self.items_max,
            ..Worker::default()
        };
    }

    /// Whether any worker is there.
    pub(crate) fn has_workers(&self) -> bool {
        self.workers.iter().any(|worker| worker.is_up)
    }

    /// Whether a worker has items, or taken-back ones to pass over.
    pub(crate) fn is_busy(&self, worker: usize) -> bool {
        let worker = &self.workers[worker];
        !worker.pieces.is_empty() || worker.skips > 0
    }

    /// How many workers have items.
    pub(crate) fn busy_workers(&self) -> usize {
        self.workers
            .iter()
            .filter(|worker| !worker.pieces.is_empty())
            .count()
    }

    /// Items that are with a worker and have no outcome yet.
    pub(crate) fn items_with(&self, worker: usize) -> usize {
        self.workers[worker]
            .pieces
            .iter()
            .map(|piece| piece.count)
            .sum()
    }

    /// Items that were taken back from a worker and that it has not passed over yet.
    pub(crate) fn skips(&self, worker: usize) -> usize {
        self.workers[worker].skips
    }

    /// How many of a worker's next outcomes nobody has to be woken for: half of what it holds, if these are collected.
    pub(crate) fn unhurried_items(&self, worker: usize) -> usize {
        let pieces = &self.workers[worker].pieces;
        let is_collected = |piece: &Piece| {
            self.jobs
                .get(&piece.job)
                .is_none_or(|job| job.terms.is_collected)
        };
        if pieces.iter().all(is_collected) {
            self.items_with(worker) / 2
        } else {
            0
        }
    }

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
        if self.limited > 0 {
            self.start_clock(worker);
        }
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

    /// Another item of a worker has become its first.
    fn start_clock(&mut self, index: usize) {
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

    /// Tries an item again that has failed, if its job says so and it has not been tried too often.
    pub(crate) fn retry(&mut self, piece: Piece) -> bool {
        let may_retry = self
            .jobs
            .get(&piece.job)
            .is_some_and(|job| piece.attempts < job.terms.retries);
        if may_retry {
            self.put_back(Piece {
                attempts: piece.attempts + 1,
                deaths: 0,
                ..piece
            });
        }
        may_retry
    }

    /// The last `count` items that were with a worker are taken back: it will pass over them.
    pub(crate) fn revoked(&mut self, worker: usize, count: usize) {
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

    /// Whether a worker has passed over all that was taken back and has nothing else.
    pub(crate) fn is_drained(&self, worker: usize) -> bool {
        !self.is_busy(worker)
    }

    /// A worker has died. Returns the item that is charged, if one is. Its other items are ready again.
    pub(crate) fn died(&mut self, worker: usize, fate: Fate) -> Option<Piece> {
        let mut pieces = std::mem::take(&mut self.workers[worker]).pieces;
        let mut charged = None;
        let mut before = match fate {
            Fate::At(begun) | Fate::KilledAt(begun) => begun,
            Fate::Between | Fate::Killed => usize::MAX,
        };
        if fate == Fate::Between {
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
            job.put_back(piece);
            if !job.ready.is_empty() {
                self.ready.insert(piece.job);
            }
        }
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

/// How many items make a piece.
fn piece_items(nanos_per_item: Option<f64>) -> usize {
    match nanos_per_item {
        None => 1,
        Some(nanos) => (PIECE_NANOS / nanos.max(0.1)).max(1.0) as usize,
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) mod world;
#[cfg(test)]
mod tests;
