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
//! | | [`died`](Dispatcher::died), and it was not | ready |
//! | ready or with a worker | [`close`](Dispatcher::close): nobody wants the job's outcomes any more | dropped, at once or when it is finished |
//!
//! **Sizes.** A piece is about [`PIECE_NANOS`] of work by what the job's items took so far; one item, as long as nothing is
//! known. A worker holds two pieces at least, and more while these are short, so that it never waits for the parent. What
//! turns out to be slow is no harm: a worker that has nothing takes half of what another one has not begun.
//!
//! **Deaths without a culprit** (a worker killed from outside between items, or while it started) cost an item nothing; but
//! an item at whose turn that has happened [`DEATHS_MAX`] times is charged after all, so that each job ends.

use std::collections::{BTreeMap, VecDeque};

/// The work in a piece, by what is known of the items.
const PIECE_NANOS: f64 = 400_000.0;
/// A worker that has less work than this is sent another piece, however many it has.
const BACKLOG_NANOS: f64 = 200_000.0;
/// The most pieces that are with one worker.
const PIECES_MAX: usize = 64;
/// A backlog that is shorter is not worth taking over.
const WORTH_TAKING_NANOS: f64 = 30_000.0;
/// How often a worker may die at an item's turn, without having begun it, before the item is charged.
const DEATHS_MAX: u32 = 4;

pub(crate) type JobId = u64;

/// Consecutive items of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) job: JobId,
    pub(crate) batch: u64,
    /// The first item's place in the batch, and in the job's input.
    pub(crate) start: usize,
    pub(crate) item: usize,
    pub(crate) count: usize,
    deaths: u32,
}

impl Piece {
    /// Cuts off the first `count` items.
    fn split_front(&mut self, count: usize) -> Piece {
        let front = Piece { count, ..*self };
        self.start += count;
        self.item += count;
        self.count -= count;
        self.deaths = 0;
        front
    }
}

/// What the driver is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Send the piece to the worker.
    Send { worker: usize, piece: Piece },
    /// Take back from the worker what it has not begun, all or half of it, and say how much that was
    /// ([`Dispatcher::revoked`]).
    Revoke { worker: usize, all: bool },
}

#[derive(Debug, Default)]
struct Worker {
    is_up: bool,
    pieces: VecDeque<Piece>,
    /// Items that were taken back and that it has not passed over yet; till then it gets no more.
    skips: usize,
}

#[derive(Debug)]
struct Job {
    ready: VecDeque<Piece>,
    nanos_per_item: Option<f64>,
    /// Items in a piece, if the caller has said.
    piece_items: Option<usize>,
    /// Whether all its items have been submitted.
    is_complete: bool,
}

/// The state of a pool's work.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    workers: Vec<Worker>,
    jobs: BTreeMap<JobId, Job>,
    next_job: JobId,
    /// The job that was served last: the next one comes first.
    served: JobId,
}

impl Dispatcher {
    pub(crate) fn new(workers: usize) -> Dispatcher {
        Dispatcher {
            workers: (0..workers).map(|_| Worker::default()).collect(),
            jobs: BTreeMap::new(),
            next_job: 1,
            served: 0,
        }
    }

    /// Opens a job whose pieces have `piece_items` items, or as many as seem best.
    pub(crate) fn open(&mut self, piece_items: Option<usize>) -> JobId {
        let id = self.next_job;
        self.next_job += 1;
        let job = Job {
            ready: VecDeque::new(),
            nanos_per_item: None,
            piece_items,
            is_complete: false,
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
                deaths: 0,
            });
        }
    }

    /// No more items of this job will come.
    pub(crate) fn complete(&mut self, job: JobId) {
        if let Some(open) = self.jobs.get_mut(&job) {
            open.is_complete = true;
        }
    }

    /// How many items the next batch of `job` should have; `None` while enough are ready.
    pub(crate) fn demand(&self, job: JobId) -> Option<usize> {
        let open = self.jobs.get(&job)?;
        if open.is_complete || !open.ready.is_empty() {
            return None;
        }
        Some(
            open.piece_items
                .unwrap_or_else(|| piece_items(open.nanos_per_item)),
        )
    }

    /// How many items of `job` keep all workers busy.
    pub(crate) fn enough_items(&self, job: JobId) -> usize {
        let Some(open) = self.jobs.get(&job) else {
            return 0;
        };
        let piece = open
            .piece_items
            .unwrap_or_else(|| piece_items(open.nanos_per_item));
        piece.saturating_mul(3 * self.workers.len())
    }

    /// Drops a job. What workers have of it and not begun is taken back.
    pub(crate) fn close(&mut self, job: JobId, actions: &mut Vec<Action>) {
        self.jobs.remove(&job);
        for (index, worker) in self.workers.iter().enumerate() {
            let is_last_ours = worker.pieces.back().is_some_and(|piece| piece.job == job);
            if worker.skips == 0 && is_last_ours {
                actions.push(Action::Revoke {
                    worker: index,
                    all: true,
                });
            }
        }
    }

    /// A worker is there, and has nothing.
    pub(crate) fn up(&mut self, worker: usize) {
        self.workers[worker] = Worker {
            is_up: true,
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
        }
        if let Some(job) = self.jobs.get_mut(&done.job) {
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

    /// The last `count` items that were with a worker are taken back: it will pass over them.
    pub(crate) fn revoked(&mut self, worker: usize, count: usize) {
        self.workers[worker].skips += count;
        let mut left = count;
        while left > 0 {
            let Some(back) = self.workers[worker].pieces.back_mut() else {
                break;
            };
            let taken = left.min(back.count);
            let mut piece = *back;
            let mut kept = piece.split_front(back.count - taken);
            kept.deaths = back.deaths;
            if kept.count == 0 {
                piece.deaths = back.deaths;
                self.workers[worker].pieces.pop_back();
            } else {
                *back = kept;
            }
            left -= taken;
            self.put_back(piece);
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

    /// A worker has died, at the item that is `begun` items from its next one; `None` if it had not begun any. Returns the
    /// item that is charged, if one is. Its other items are ready again.
    pub(crate) fn died(&mut self, worker: usize, begun: Option<usize>) -> Option<Piece> {
        let mut pieces = std::mem::take(&mut self.workers[worker]).pieces;
        let mut charged = None;
        let mut before = begun.unwrap_or(usize::MAX);
        if begun.is_none() {
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
            job.ready.push_front(piece);
        }
    }

    /// Sends ready items to workers that have little left, and has idle workers take over from busy ones.
    pub(crate) fn feed(&mut self, actions: &mut Vec<Action>) {
        // First everyone gets one piece, then those whose pieces are short get more.
        for pieces_max in [1, 2, PIECES_MAX] {
            for index in 0..self.workers.len() {
                while self.wants(index, pieces_max) {
                    let Some(piece) = self.next_piece() else {
                        if pieces_max == 1 {
                            self.take_over(actions);
                        }
                        return;
                    };
                    self.workers[index].pieces.push_back(piece);
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
            && worker.pieces.len() < pieces_max
            && (worker.pieces.len() < 2 || self.backlog_nanos(worker) < BACKLOG_NANOS)
    }

    /// The work of a worker, as far as it can be told: infinite where nothing is known.
    fn backlog_nanos(&self, worker: &Worker) -> f64 {
        let nanos =
            |piece: &Piece| match self.jobs.get(&piece.job).and_then(|job| job.nanos_per_item) {
                Some(nanos) => nanos * piece.count as f64,
                None => f64::INFINITY,
            };
        worker.pieces.iter().map(nanos).sum()
    }

    /// The next piece of the job whose turn it is.
    fn next_piece(&mut self) -> Option<Piece> {
        let has_ready = |(_, job): &(&JobId, &Job)| !job.ready.is_empty();
        let after = self.jobs.range(self.served + 1..).find(has_ready);
        let (&id, _) = after.or_else(|| self.jobs.range(..=self.served).find(has_ready))?;
        self.served = id;
        let workers = self.workers.len();
        let job = self.jobs.get_mut(&id)?;
        let ready: usize = job.ready.iter().map(|piece| piece.count).sum();
        let front = job.ready.front_mut()?;
        let mut count = job
            .piece_items
            .unwrap_or_else(|| piece_items(job.nanos_per_item));
        if job.piece_items.is_none() && job.is_complete {
            // Towards the end, what is left is shared out.
            count = count.min(ready.div_ceil(workers));
        }
        let piece = front.split_front(count.clamp(1, front.count));
        if front.count == 0 {
            job.ready.pop_front();
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
            worker.is_up
                && worker.skips == 0
                && items > 1
                && self.backlog_nanos(worker) > WORTH_TAKING_NANOS
        });
        let most = candidates.max_by(|(_, one), (_, other)| {
            self.backlog_nanos(one)
                .total_cmp(&self.backlog_nanos(other))
        });
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
