//! The state of a pool's work, and what callers do to it: jobs are opened, filled, cancelled and closed.

use crate::pool::dispatch::piece::{Action, JobId, Piece, Terms, piece_items};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

#[derive(Debug, Default)]
pub(crate) struct Worker {
    pub(crate) is_up: bool,
    pub(crate) pieces: VecDeque<Piece>,
    /// What the pieces were believed to take when they were sent. Kept beside them, since it is asked for at every turn.
    pub(crate) backlog_nanos: f64,
    /// Items that were taken back and that it has not passed over yet; till then it gets no more.
    pub(crate) skips: usize,
    /// Whether it is known to have begun all that it was sent. That stays so until it is sent more.
    pub(crate) has_begun_all: bool,
    /// From when on its first item takes longer than was believed: nothing is worth leaving with it then.
    pub(crate) late_from: Option<u64>,
    /// How many items it may still be given, where that is limited.
    pub(crate) may_take: Option<usize>,
    /// Since when its first item has been first, and when to look at it, if its job has a limit.
    pub(crate) first_since: Option<u64>,
    pub(crate) deadline: Option<u64>,
}

impl Worker {
    /// A piece is no more with it. Rounding does not add up: with the last piece, nothing is left.
    pub(crate) fn forget_work(&mut self, nanos: f64) {
        self.backlog_nanos = if self.pieces.is_empty() {
            0.0
        } else {
            self.backlog_nanos - nanos
        };
    }
}

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) ready: VecDeque<Piece>,
    pub(crate) terms: Terms,
    pub(crate) nanos_per_item: Option<f64>,
    /// What an item or its result has of bytes, rather more than less.
    pub(crate) bytes_per_item: f64,
    /// Whether all its items have been submitted.
    pub(crate) is_complete: bool,
    /// Whether no other job has been open since it was opened.
    pub(crate) is_alone: bool,
    /// Items that nobody wants any more and that are with a worker.
    pub(crate) cancelled: BTreeSet<usize>,
}

/// Several pieces are pulled at once, where they are of few items: so many at most, as long as they take no longer than this altogether,
/// and have no more bytes. Each batch costs what several pieces cost.
const PIECES_AT_ONCE: usize = 64;
const NANOS_AT_ONCE: f64 = 50_000.0;
const BYTES_AT_ONCE: f64 = 64.0 * 1024.0;

impl Job {
    /// How many pieces a batch has. More than one only where the user has set how many items are a piece, and nobody sees when they are
    /// pulled: all outcomes are awaited together, and all items are at hand.
    fn pieces_at_once(&self) -> usize {
        let (Some(items), Some(nanos), true) = (
            self.terms.piece_items,
            self.nanos_per_item,
            self.terms.is_collected && self.terms.is_at_hand,
        ) else {
            return 1;
        };
        let most = (NANOS_AT_ONCE / nanos).min(BYTES_AT_ONCE / self.bytes_per_item);
        (most as usize / items).clamp(1, PIECES_AT_ONCE)
    }

    /// Puts a piece in front of those that are ready, without the items that were cancelled, which are `dropped`.
    pub(crate) fn put_back(&mut self, mut piece: Piece, dropped: &mut Vec<Piece>) {
        let mut parts = Vec::new();
        for item in piece.item..piece.item + piece.count {
            if self.cancelled.remove(&item) {
                let before = piece.split_front(item - piece.item);
                dropped.push(piece.split_front(1));
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
    pub(crate) workers: Vec<Worker>,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    /// Those of them that have items ready.
    pub(crate) ready: BTreeSet<JobId>,
    /// What an item took in the last job of a function.
    pub(crate) known_nanos: HashMap<u64, f64>,
    pub(crate) next_job: JobId,
    /// The job that was served last: the next one comes first.
    pub(crate) served: JobId,
    /// How many items a worker may have before another one takes its place.
    pub(crate) items_max: Option<usize>,
    /// Items that were cancelled, and that nobody has or gets any more.
    pub(crate) dropped: Vec<Piece>,
    /// How many open jobs have time limits, and what the clock said last, in nanoseconds.
    pub(crate) limited: usize,
    pub(crate) now: u64,
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
            dropped: Vec::new(),
            limited: 0,
            now: 0,
        }
    }

    /// Has each worker be replaced after so many items.
    pub(crate) fn limit_items(&mut self, items_max: usize) {
        self.items_max = Some(items_max.max(1));
    }

    /// Whether what the clock says matters to any job, or to any item that a job has left behind.
    pub(crate) fn has_limits(&self) -> bool {
        self.limited > 0 || self.workers.iter().any(|worker| worker.deadline.is_some())
    }

    /// Whether what the clock says matters to who is fed.
    pub(crate) fn heeds_clock(&self) -> bool {
        self.has_limits() || self.workers.iter().any(|worker| worker.late_from.is_some())
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
        let is_alone = self.jobs.is_empty();
        self.jobs.values_mut().for_each(|job| job.is_alone = false);
        let job = Job {
            ready: VecDeque::new(),
            // Doubled: too small a piece costs little, too large a one may wait for a slow item.
            nanos_per_item: known.map(|nanos| 2.0 * nanos),
            terms,
            bytes_per_item: 1.0,
            is_complete: false,
            is_alone,
            cancelled: BTreeSet::new(),
        };
        self.jobs.insert(id, job);
        id
    }

    /// Takes in a batch of a job's items.
    pub(crate) fn submit(&mut self, job: JobId, batch: u64, item: usize, count: usize) {
        self.submit_piece(job, batch, item, count, false);
    }

    /// Takes in a batch of one item that can be sent once only: what it holds moves with it.
    pub(crate) fn submit_once(&mut self, job: JobId, batch: u64, item: usize) {
        self.submit_piece(job, batch, item, 1, true);
    }

    fn submit_piece(&mut self, job: JobId, batch: u64, item: usize, count: usize, is_once: bool) {
        if let Some(open) = self.jobs.get_mut(&job) {
            open.ready.push_back(Piece {
                job,
                batch,
                start: 0,
                item,
                count,
                is_once,
                attempts: 0,
                deaths: 0,
                nanos: 0.0,
                limit_nanos: open.terms.limit_nanos,
            });
            self.ready.insert(job);
        }
    }

    /// Items that were cancelled, and that nobody has or gets any more, since this was asked last.
    pub(crate) fn take_dropped(&mut self) -> Vec<Piece> {
        std::mem::take(&mut self.dropped)
    }

    /// The first item of a job that was submitted and has no outcome yet.
    pub(crate) fn first_open(&self, job: JobId) -> Option<usize> {
        let ready = self.jobs.get(&job).map(|open| open.ready.iter());
        let with_workers = self.workers.iter().flat_map(|worker| &worker.pieces);
        let all = ready.into_iter().flatten().chain(with_workers);
        all.filter(|piece| piece.job == job)
            .map(|piece| piece.item)
            .min()
    }

    /// Tells what so many of a job's items, or of their results, have of bytes.
    pub(crate) fn weigh(&mut self, job: JobId, count: usize, bytes: u64) {
        if let Some(open) = self.jobs.get_mut(&job) {
            let sample = bytes as f64 / count.max(1) as f64;
            // Large ones count at once; small ones are believed little by little.
            let learned = open.bytes_per_item * 0.875 + sample * 0.125;
            open.bytes_per_item = sample.max(learned);
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
        let piece = open
            .terms
            .piece_items
            .unwrap_or_else(|| piece_items(open.nanos_per_item));
        Some(piece.saturating_mul(open.pieces_at_once()))
    }

    /// What an item of `job` takes, as far as is known.
    pub(crate) fn nanos_per_item(&self, job: JobId) -> Option<f64> {
        self.jobs.get(&job)?.nanos_per_item
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
                open.put_back(piece, &mut self.dropped);
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

    /// How many workers have items, or taken-back ones to pass over: for either they need a processor.
    pub(crate) fn busy_workers(&self) -> usize {
        (0..self.workers.len())
            .filter(|&index| self.is_busy(index))
            .count()
    }

    /// The piece that a worker's next outcomes are of.
    pub(crate) fn front(&self, worker: usize) -> Option<&Piece> {
        self.workers[worker].pieces.front()
    }

    /// Items that are with a worker and have no outcome yet.
    pub(crate) fn items_with(&self, worker: usize) -> usize {
        self.workers[worker]
            .pieces
            .iter()
            .map(|piece| piece.count)
            .sum()
    }

    /// How many of the items that are with a worker cannot be taken back: what can be sent once only, as long as it is wanted, is the
    /// first that it has.
    pub(crate) fn items_for_good(&self, worker: usize) -> usize {
        let is_wanted = |front: &Piece| {
            let job = self.jobs.get(&front.job);
            job.is_some_and(|job| !job.cancelled.contains(&front.item))
        };
        let front = self.front(worker).filter(|front| front.is_once);
        usize::from(front.is_some_and(is_wanted))
    }

    /// Whether all items of a job were submitted and have their outcomes.
    pub(crate) fn is_done(&self, job: JobId) -> bool {
        let is_complete = self.jobs.get(&job).is_some_and(|open| open.is_complete);
        is_complete && self.first_open(job).is_none()
    }

    /// Items that were taken back from a worker and that it has not passed over yet.
    pub(crate) fn skips(&self, worker: usize) -> usize {
        self.workers[worker].skips
    }
}
