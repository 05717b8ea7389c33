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

use std::collections::{BTreeMap, HashMap, VecDeque};

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
}

#[derive(Debug, Default)]
struct Worker {
    is_up: bool,
    pieces: VecDeque<Piece>,
    /// What the pieces were believed to take when they were sent. Kept beside them, since it is asked for at every turn.
    backlog_nanos: f64,
    /// Items that were taken back and that it has not passed over yet; till then it gets no more.
    skips: usize,
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
    function: u64,
    nanos_per_item: Option<f64>,
    /// Items in a piece, if the caller has said.
    piece_items: Option<usize>,
    /// Whether all its items have been submitted.
    is_complete: bool,
    /// Whether its caller waits for all outcomes, and for none before the others.
    is_collected: bool,
}

/// The state of a pool's work.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    workers: Vec<Worker>,
    jobs: BTreeMap<JobId, Job>,
    /// What an item took in the last job of a function.
    known_nanos: HashMap<u64, f64>,
    next_job: JobId,
    /// The job that was served last: the next one comes first.
    served: JobId,
}

impl Dispatcher {
    pub(crate) fn new(workers: usize) -> Dispatcher {
        Dispatcher {
            workers: (0..workers).map(|_| Worker::default()).collect(),
            jobs: BTreeMap::new(),
            known_nanos: HashMap::new(),
            next_job: 1,
            served: 0,
        }
    }

    /// Opens a job whose pieces have `piece_items` items, or as many as seem best. `is_collected` says that its caller waits
    /// for all outcomes, and for none before the others.
    /// What items of the same `function` took before is where the estimate starts.
    pub(crate) fn open(
        &mut self,
        function: u64,
        piece_items: Option<usize>,
        is_collected: bool,
    ) -> JobId {
        let id = self.next_job;
        self.next_job += 1;
        let job = Job {
            ready: VecDeque::new(),
            function,
            // Doubled: too small a piece costs little, too large a one may wait for a slow item.
            nanos_per_item: self.known_nanos.get(&function).map(|nanos| 2.0 * nanos),
            piece_items,
            is_complete: false,
            is_collected,
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
                nanos: 0.0,
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
        if let Some(Job {
            function,
            nanos_per_item: Some(nanos),
            ..
        }) = self.jobs.remove(&job)
        {
            self.known_nanos.insert(function, nanos);
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

    /// Items that were taken back from a worker and that it has not passed over yet.
    pub(crate) fn skips(&self, worker: usize) -> usize {
        self.workers[worker].skips
    }

    /// How many of a worker's next outcomes nobody has to be woken for: half of what it holds, if these are collected.
    pub(crate) fn unhurried_items(&self, worker: usize) -> usize {
        let pieces = &self.workers[worker].pieces;
        let is_collected =
            |piece: &Piece| self.jobs.get(&piece.job).is_none_or(|job| job.is_collected);
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
                self.workers[worker].forget_work(piece.nanos);
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
                    self.workers[index].backlog_nanos += piece.nanos;
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
            && (worker.pieces.len() < 2 || worker.backlog_nanos < BACKLOG_NANOS)
    }

    /// The next piece of the job whose turn it is.
    fn next_piece(&mut self) -> Option<Piece> {
        let has_ready = |(_, job): &(&JobId, &Job)| !job.ready.is_empty();
        let after = self.jobs.range(self.served + 1..).find(has_ready);
        let (&id, _) = after.or_else(|| self.jobs.range(..=self.served).find(has_ready))?;
        self.served = id;
        let workers = self.workers.len();
        let job = self.jobs.get_mut(&id)?;
        let nanos_per_item = job.nanos_per_item.unwrap_or(UNKNOWN_NANOS);
        let is_shared_out = job.piece_items.is_none() && job.is_complete;
        let ready = if is_shared_out {
            job.ready.iter().map(|piece| piece.count).sum::<usize>()
        } else {
            0
        };
        let front = job.ready.front_mut()?;
        let mut count = job
            .piece_items
            .unwrap_or_else(|| piece_items(job.nanos_per_item));
        if is_shared_out {
            // Towards the end, what is left is shared out.
            count = count.min(ready.div_ceil(workers));
        }
        let mut piece = front.split_front(count.clamp(1, front.count));
        piece.nanos = nanos_per_item * piece.count as f64;
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A worker as the dispatcher's promises describe it: it begins items in order, as far as it is permitted.
    #[derive(Default)]
    struct Model {
        is_up: bool,
        /// Items in the order sent, and how many of them are begun, permitted, and told.
        items: Vec<(JobId, usize)>,
        begun: usize,
        permitted: usize,
        told: usize,
    }

    struct World {
        dispatcher: Dispatcher,
        models: Vec<Model>,
        /// Items of each open job that are still to be submitted, and outcomes by item.
        pending: HashMap<JobId, (usize, usize)>,
        outcomes: HashMap<(JobId, usize), u32>,
        closed: Vec<JobId>,
        batches: u64,
    }

    impl World {
        fn new(workers: usize) -> World {
            let mut world = World {
                dispatcher: Dispatcher::new(workers),
                models: (0..workers).map(|_| Model::default()).collect(),
                pending: HashMap::new(),
                outcomes: HashMap::new(),
                closed: Vec::new(),
                batches: 0,
            };
            for worker in 0..workers {
                world.start(worker);
            }
            world
        }

        fn start(&mut self, worker: usize) {
            self.models[worker] = Model {
                is_up: true,
                ..Model::default()
            };
            self.dispatcher.up(worker);
        }

        fn open(&mut self, items: usize, piece_items: Option<usize>) {
            let job = self.dispatcher.open(1, piece_items, true);
            self.pending.insert(job, (0, items));
        }

        fn feed(&mut self) {
            loop {
                let mut actions = Vec::new();
                self.dispatcher.feed(&mut actions);
                if !self.carry_out(actions) {
                    break;
                }
            }
            self.check_nobody_idles();
        }

        fn carry_out(&mut self, actions: Vec<Action>) -> bool {
            let mut has_taken_back = false;
            for action in actions {
                match action {
                    Action::Send { worker, piece } => {
                        let model = &mut self.models[worker];
                        assert!(model.is_up, "sent to a worker that is gone");
                        let items = piece.item..piece.item + piece.count;
                        model.items.extend(items.map(|item| (piece.job, item)));
                        assert_eq!(
                            model.permitted,
                            model.items.len() - piece.count,
                            "sent past a gap"
                        );
                        model.permitted += piece.count;
                    }
                    Action::Revoke { worker, all } => {
                        let model = &mut self.models[worker];
                        let free = model.permitted - model.begun;
                        let taken = if all { free } else { free.div_ceil(2) };
                        if taken > 0 {
                            model.permitted -= taken;
                            self.dispatcher.revoked(worker, taken);
                            has_taken_back = true;
                        }
                    }
                }
            }
            has_taken_back
        }

        fn check_nobody_idles(&self) {
            let idle =
                |(index, model): (usize, &Model)| model.is_up && !self.dispatcher.is_busy(index);
            if self.models.iter().enumerate().any(idle) {
                let ready = self
                    .dispatcher
                    .jobs
                    .values()
                    .any(|job| !job.ready.is_empty());
                assert!(!ready, "a worker idles while items wait");
            }
        }

        fn submit(&mut self) {
            let jobs: Vec<JobId> = self.pending.keys().copied().collect();
            for job in jobs {
                let Some(&(next, end)) = self.pending.get(&job) else {
                    continue;
                };
                let Some(wanted) = self.dispatcher.demand(job) else {
                    continue;
                };
                if next == end {
                    self.dispatcher.complete(job);
                    self.pending.remove(&job);
                    continue;
                }
                let count = wanted.clamp(1, end - next).min(50);
                self.dispatcher.submit(job, self.batches, next, count);
                self.batches += 1;
                self.pending.insert(job, (next + count, end));
            }
        }

        fn done(&mut self, job: JobId, item: usize) {
            let outcomes = self.outcomes.entry((job, item)).or_default();
            *outcomes += 1;
            assert_eq!(*outcomes, 1, "item {item} of job {job} has two outcomes");
        }

        fn begin(&mut self, worker: usize) {
            let model = &mut self.models[worker];
            if model.is_up && model.begun < model.permitted && model.begun == model.told {
                model.begun += 1;
            }
        }

        fn tell(&mut self, worker: usize, nanos: u64) {
            let model = &mut self.models[worker];
            if !model.is_up {
                return;
            }
            if model.told < model.begun {
                let (job, item) = model.items[model.told];
                model.told += 1;
                let piece = self.dispatcher.finished(worker, 1, nanos).unwrap();
                assert_eq!((piece.job, piece.item, piece.count), (job, item, 1));
                if !self.closed.contains(&job) {
                    self.done(job, item);
                }
            } else if model.told == model.permitted && model.permitted < model.items.len() {
                let skipped = model.items.len() - model.permitted;
                model.items.truncate(model.permitted);
                assert!(self.dispatcher.skipped(worker, skipped));
                assert!(self.dispatcher.is_drained(worker));
            }
        }

        fn die(&mut self, worker: usize) {
            let model = std::mem::take(&mut self.models[worker]);
            if !model.is_up {
                return;
            }
            let begun = (model.begun > model.told).then_some(0);
            if let Some(piece) = self.dispatcher.died(worker, begun) {
                if begun.is_some() {
                    assert_eq!((piece.job, piece.item), model.items[model.told]);
                }
                assert_eq!(piece.count, 1);
                if !self.closed.contains(&piece.job) {
                    self.done(piece.job, piece.item);
                }
            } else {
                assert!(begun.is_none(), "a death at an item was charged to nobody");
            }
        }

        fn close(&mut self, job: JobId) {
            self.closed.push(job);
            self.pending.remove(&job);
            let mut actions = Vec::new();
            self.dispatcher.close(job, &mut actions);
            self.carry_out(actions);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Begin(usize),
        Tell(usize, u64),
        Die(usize),
        Start(usize),
        Submit,
        Open(usize, Option<usize>),
        Close(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            30 => (0..4usize).prop_map(Step::Begin),
            30 => (0..4usize, prop_oneof![Just(1u64), Just(1_000), Just(10_000_000)])
                .prop_map(|(worker, nanos)| Step::Tell(worker, nanos)),
            3 => (0..4usize).prop_map(Step::Die),
            3 => (0..4usize).prop_map(Step::Start),
            10 => Just(Step::Submit),
            2 => (0..300usize, prop::option::of(1..10usize))
                .prop_map(|(items, piece)| Step::Open(items, piece)),
            1 => (1..6u64).prop_map(Step::Close),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        #[test]
        fn every_item_has_exactly_one_outcome(
            workers in 1..4usize,
            steps in prop::collection::vec(step(), 0..400),
        ) {
            let mut world = World::new(workers);
            world.open(100, None);
            let mut totals = HashMap::from([(1, 100)]);
            for step in steps {
                match step {
                    Step::Begin(worker) => world.begin(worker % workers),
                    Step::Tell(worker, nanos) => world.tell(worker % workers, nanos),
                    Step::Die(worker) => world.die(worker % workers),
                    Step::Start(worker) if !world.models[worker % workers].is_up => {
                        world.start(worker % workers);
                    }
                    Step::Start(_) => {}
                    Step::Submit => world.submit(),
                    Step::Open(items, piece) => {
                        world.open(items, piece);
                        totals.insert(world.dispatcher.next_job - 1, items);
                    }
                    Step::Close(job) => world.close(job),
                }
                world.feed();
            }
            // From here on nothing goes wrong any more, and everything ends.
            for worker in 0..workers {
                if !world.models[worker].is_up {
                    world.start(worker);
                }
            }
            for _ in 0..100_000 {
                world.submit();
                world.feed();
                for worker in 0..workers {
                    world.begin(worker);
                    world.tell(worker, 1_000);
                }
                let is_idle = (0..workers).all(|worker| !world.dispatcher.is_busy(worker));
                if world.pending.is_empty() && is_idle {
                    break;
                }
            }
            for (job, items) in totals {
                for item in 0..items {
                    let outcomes = world.outcomes.get(&(job, item)).copied().unwrap_or(0);
                    let expected = u32::from(!world.closed.contains(&job));
                    prop_assert!(
                        outcomes == expected || (expected == 0 && outcomes == 1),
                        "item {} of job {} has {} outcomes", item, job, outcomes
                    );
                }
            }
        }
    }

    #[test]
    fn a_slow_item_does_not_hold_up_those_behind_it() {
        let mut world = World::new(2);
        world.open(40, Some(20));
        world.submit();
        world.feed();
        world.submit();
        world.feed();
        // One worker is stuck in its first item; the other ends up with all the rest.
        world.begin(0);
        for _ in 0..2_000 {
            world.begin(1);
            world.tell(1, 1_000_000);
            world.submit();
            world.feed();
        }
        assert_eq!(world.outcomes.len(), 39);
    }

    #[test]
    fn an_item_whose_worker_always_dies_before_it_begins_is_charged_in_the_end() {
        let mut world = World::new(1);
        world.open(2, Some(1));
        let mut deaths = 0;
        while world.outcomes.len() < 2 {
            world.submit();
            world.feed();
            world.die(0);
            world.start(0);
            deaths += 1;
            assert!(deaths < 100);
        }
    }
}
