//! A pool's work as the dispatcher's promises describe it, for its tests and for fuzzing: workers that begin, tell and die,
//! and after each step the checks that every item has one outcome, nobody idles while items wait, and deadlines are kept.

#![allow(clippy::unwrap_used, reason = "a failure is what is looked for")]

use super::share::LATE_NANOS;
use super::*;
use std::collections::HashMap;

/// A worker as the dispatcher's promises describe it: it begins items in order, as far as it is permitted.
#[derive(Debug, Default)]
struct Model {
    is_up: bool,
    /// Items in the order sent, and how many of them are begun, permitted, and told.
    items: Vec<(JobId, usize)>,
    begun: usize,
    permitted: usize,
    told: usize,
    /// When it began the item that it is at.
    began: u64,
    /// Since when it has been known to hold what an idle worker could do, without an outcome.
    left_since: Option<u64>,
    /// Whether it is taking in all that it has not begun, which is left with it then.
    is_taking: bool,
}

/// A dispatcher, and all that it deals with.
#[derive(Debug)]
pub(crate) struct World {
    now: u64,
    /// Time limits and retries of the jobs, and how often items of theirs were charged.
    terms: HashMap<JobId, Terms>,
    charges: HashMap<(JobId, usize), u32>,
    cancelled: Vec<(JobId, usize)>,
    dispatcher: Dispatcher,
    items_max: Option<usize>,
    models: Vec<Model>,
    /// Items of each open job that are still to be submitted, and outcomes by item.
    pending: HashMap<JobId, (usize, usize)>,
    pub(crate) outcomes: HashMap<(JobId, usize), u32>,
    closed: Vec<JobId>,
    batches: u64,
}

impl World {
    pub(crate) fn new(workers: usize, items_max: Option<usize>) -> World {
        let mut world = World {
            now: 1,
            terms: HashMap::new(),
            charges: HashMap::new(),
            cancelled: Vec::new(),
            dispatcher: Dispatcher::new(workers),
            items_max,
            models: (0..workers).map(|_| Model::default()).collect(),
            pending: HashMap::new(),
            outcomes: HashMap::new(),
            closed: Vec::new(),
            batches: 0,
        };
        if let Some(items_max) = items_max {
            world.dispatcher.limit_items(items_max);
        }
        for worker in 0..workers {
            world.start(worker);
        }
        world
    }

    pub(crate) fn start(&mut self, worker: usize) {
        self.models[worker] = Model {
            is_up: true,
            ..Model::default()
        };
        self.dispatcher.up(worker);
    }

    pub(crate) fn open(&mut self, items: usize, piece_items: Option<usize>) {
        self.open_with(items, piece_items, None, 0);
    }

    fn open_with(
        &mut self,
        items: usize,
        piece_items: Option<usize>,
        limit_nanos: Option<u64>,
        retries: u32,
    ) {
        let terms = Terms {
            function: 1,
            piece_items,
            is_collected: true,
            is_at_hand: items % 2 == 0,
            limit_nanos,
            retries,
        };
        let job = self.dispatcher.open(terms);
        self.terms.insert(job, terms);
        self.pending.insert(job, (0, items));
    }

    pub(crate) fn feed(&mut self) {
        loop {
            let mut actions = Vec::new();
            let now = self.now;
            let is_handy = |worker: usize| (now / 1_000 + worker as u64) % 2 == 0;
            self.dispatcher.feed_handy(is_handy, &mut actions);
            self.dispatcher.feed(&mut actions);
            if !self.carry_out(actions) {
                break;
            }
        }
        self.check_nobody_idles();
        self.check_deadlines();
        self.check_looks();
    }

    /// Time passes, and whoever takes too long is killed.
    fn pass(&mut self, nanos: u64) {
        self.now += nanos;
        self.dispatcher.tick(self.now);
        loop {
            let models = &self.models;
            let first = |worker: usize, now: u64| {
                let model = &models[worker];
                if model.begun <= model.told {
                    First::Unbegun
                } else if now % 7 == worker as u64 {
                    First::Unheard
                } else {
                    First::Begun(model.began)
                }
            };
            let Some((worker, overdue)) = self.dispatcher.overdue(first) else {
                break;
            };
            let model = &self.models[worker];
            let is_at_item = model.begun > model.told;
            if overdue == Overdue::Item {
                let (job, _) = model.items[model.told];
                let limit = self.terms[&job].limit_nanos.unwrap();
                assert!(
                    is_at_item && model.began + limit <= self.now,
                    "killed early"
                );
                self.kill(worker, Fate::KilledAt(0));
            } else {
                assert!(!is_at_item, "given up at work");
                self.kill(worker, Fate::Killed);
            }
            self.start(worker);
        }
    }

    /// Whoever is at an item with a limit is looked at no later than when that has passed.
    fn check_deadlines(&self) {
        for (index, model) in self.models.iter().enumerate() {
            if !model.is_up || model.begun == model.told {
                continue;
            }
            let (job, _) = model.items[model.told];
            if let Some(limit) = self.terms[&job].limit_nanos {
                let next = self.dispatcher.next_deadline();
                let mut until = model.began + limit;
                if self.now % 7 == index as u64 {
                    // It was not judged.
                    until = until.max(self.now);
                }
                assert!(
                    next.is_some_and(|next| next <= until),
                    "worker {index} is not looked at in time"
                );
            }
        }
    }

    /// When whoever sleeps now looks again though nothing is heard.
    fn next_look(&mut self) -> Option<u64> {
        self.dispatcher.tick(self.now);
        let models = &self.models;
        let is_idle = self.dispatcher.leaves_some();
        is_idle
            .then(|| {
                let is_taking = |index: usize, _| models[index].is_taking;
                self.dispatcher.next_look(is_taking)
            })
            .flatten()
    }

    /// While somebody idles, what a worker has not begun is left with it for `LATE_NANOS` at most, if it does not get on.
    fn check_looks(&mut self) {
        let next = self.next_look();
        let now = self.now;
        let is_idle = |index: usize| self.models[index].is_up && !self.dispatcher.is_busy(index);
        if !(0..self.models.len()).any(is_idle) {
            return;
        }
        for model in &mut self.models {
            let may_give_up = model.permitted - model.told > 1 && model.permitted > model.begun;
            if !may_give_up || model.is_taking {
                continue;
            }
            let since = *model.left_since.get_or_insert(now);
            assert!(now < since + LATE_NANOS, "a worker idles for long");
            assert!(next.is_some_and(|next| next <= since + LATE_NANOS));
        }
    }

    /// Where nothing happens any more, nobody looks for ever.
    fn look_until_in_vain(&mut self) {
        for _ in 0..100 {
            let Some(next) = self.next_look() else {
                return;
            };
            self.pass(next - self.now);
            self.feed();
        }
        panic!("it is looked for ever");
    }

    /// We kill a worker, after it has given up what it had not begun.
    fn kill(&mut self, worker: usize, fate: Fate) {
        self.carry_out(vec![Action::Revoke { worker, all: true }]);
        let model = std::mem::take(&mut self.models[worker]);
        let charged = self.dispatcher.died(worker, fate);
        assert_eq!(charged.is_some(), fate == Fate::KilledAt(0));
        if let Some(piece) = charged {
            assert_eq!((piece.job, piece.item), model.items[model.told]);
            self.charge(piece);
        }
    }

    fn charge(&mut self, piece: Piece) {
        assert_eq!(piece.count, 1);
        let charges = self.charges.entry((piece.job, piece.item)).or_default();
        *charges += 1;
        assert_eq!(piece.attempts + 1, *charges, "attempts are counted");
        let retries = self.terms[&piece.job].retries;
        let is_open = !self.closed.contains(&piece.job);
        assert!(*charges <= retries + 1);
        let charges = *charges;
        let is_tried_again = self.dispatcher.retry(piece);
        assert_eq!(is_tried_again, is_open && charges <= retries);
        if !is_tried_again && is_open {
            self.done(piece.job, piece.item);
        }
    }

    fn cancel(&mut self, job: JobId, item: usize) {
        let is_submitted = self.pending.get(&job).is_none_or(|&(next, _)| item < next);
        let is_done = self.outcomes.contains_key(&(job, item));
        if is_done || !is_submitted || self.closed.contains(&job) || !self.terms.contains_key(&job)
        {
            return;
        }
        self.cancelled.push((job, item));
        let mut actions = Vec::new();
        self.dispatcher.cancel(job, item, &mut actions);
        self.carry_out(actions);
        for worker in 0..self.models.len() {
            if self.dispatcher.holds(worker, job, Some(item)) {
                self.kill(worker, Fate::Killed);
                self.start(worker);
            }
        }
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
                Action::Retire { worker } => {
                    let model = &self.models[worker];
                    assert_eq!(Some(model.told), self.items_max, "replaced too soon");
                    assert_eq!(model.items.len(), model.told, "replaced at work");
                    self.die(worker);
                    self.start(worker);
                    has_taken_back = true;
                }
                Action::Revoke { worker, all } => {
                    let model = &mut self.models[worker];
                    if !all && (has_taken_back || model.is_taking) {
                        continue;
                    }
                    let free = model.permitted - model.begun;
                    let taken = if all { free } else { free.div_ceil(2) };
                    model.permitted -= taken;
                    if model.permitted == model.told {
                        // What it is sent next it has not had before.
                        model.left_since = None;
                    }
                    self.dispatcher.revoked(worker, taken);
                    has_taken_back |= taken > 0;
                }
            }
        }
        has_taken_back
    }

    fn check_nobody_idles(&self) {
        let idle = |(index, model): (usize, &Model)| model.is_up && !self.dispatcher.is_busy(index);
        if self.models.iter().enumerate().any(idle) {
            let ready = self
                .dispatcher
                .jobs
                .values()
                .any(|job| !job.ready.is_empty());
            assert!(!ready, "a worker idles while items wait");
        }
    }

    pub(crate) fn submit(&mut self) {
        let jobs: Vec<JobId> = self.pending.keys().copied().collect();
        for job in jobs {
            let Some(&(next, end)) = self.pending.get(&job) else {
                continue;
            };
            let Some(wanted) = self.dispatcher.demand(job) else {
                continue;
            };
            if next == end {
                self.dispatcher.complete(job, true);
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
        let is_cancelled = self.cancelled.contains(&(job, item));
        assert!(
            !is_cancelled,
            "item {item} of job {job} ran after it was cancelled"
        );
        let outcomes = self.outcomes.entry((job, item)).or_default();
        *outcomes += 1;
        assert_eq!(*outcomes, 1, "item {item} of job {job} has two outcomes");
    }

    /// A worker begins to take in what it has, or that is over.
    fn take(&mut self, worker: usize) {
        let model = &mut self.models[worker];
        model.is_taking =
            !model.is_taking && model.begun == model.told && model.permitted > model.begun;
        model.left_since = None;
    }

    pub(crate) fn begin(&mut self, worker: usize) {
        let model = &mut self.models[worker];
        if model.is_taking {
            return;
        }
        if model.is_up && model.begun < model.permitted && model.begun == model.told {
            model.begun += 1;
            model.began = self.now;
            let begun = model.begun;
            assert!(
                self.items_max.is_none_or(|most| begun <= most),
                "replaced too late"
            );
        }
    }

    pub(crate) fn tell(&mut self, worker: usize, nanos: u64) {
        let model = &mut self.models[worker];
        if !model.is_up {
            return;
        }
        if model.told < model.begun {
            let (job, item) = model.items[model.told];
            model.told += 1;
            model.left_since = None;
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

    pub(crate) fn die(&mut self, worker: usize) {
        let model = std::mem::take(&mut self.models[worker]);
        if !model.is_up {
            return;
        }
        let begun = (model.begun > model.told).then_some(0);
        let fate = begun.map_or(Fate::Between, Fate::At);
        if let Some(piece) = self.dispatcher.died(worker, fate) {
            if begun.is_some() {
                assert_eq!((piece.job, piece.item), model.items[model.told]);
            }
            self.charge(piece);
        } else {
            assert!(begun.is_none(), "a death at an item was charged to nobody");
        }
    }

    fn close(&mut self, job: JobId) {
        if !self.terms.contains_key(&job) {
            return;
        }
        self.closed.push(job);
        self.pending.remove(&job);
        let mut actions = Vec::new();
        self.dispatcher.close(job, &mut actions);
        self.carry_out(actions);
    }
}

/// What happens next.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Begin(usize),
    Tell(usize, u64),
    Die(usize),
    Start(usize),
    Submit,
    Open(usize, Option<usize>, Option<u64>, u32),
    Close(u64),
    Pass(u64),
    Cancel(u64, usize),
    Take(usize),
}

/// Runs a schedule, and then all that is left to its end. Who idles and what is overdue is checked after each step.
pub(crate) fn run_schedule(workers: usize, items_max: Option<usize>, steps: Vec<Step>) {
    let mut world = World::new(workers, items_max);
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
            Step::Pass(nanos) => world.pass(nanos),
            Step::Cancel(job, item) => world.cancel(job, item),
            Step::Take(worker) => world.take(worker % workers),
            Step::Open(items, piece, limit, retries) => {
                world.open_with(items, piece, limit, retries);
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
    world.feed();
    world.look_until_in_vain();
    world
        .models
        .iter_mut()
        .for_each(|model| model.is_taking = false);
    for _ in 0..100_000 {
        world.submit();
        world.feed();
        for worker in 0..workers {
            world.begin(worker);
            world.tell(worker, 1_000);
        }
        let is_idle = (0..workers).all(|worker| !world.dispatcher.is_busy(worker));
        // A worker that has just passed over what was taken back is idle, though that is ready to be sent again.
        if world.pending.is_empty() && is_idle && world.dispatcher.ready.is_empty() {
            break;
        }
    }
    for (job, items) in totals {
        for item in 0..items {
            let outcomes = world.outcomes.get(&(job, item)).copied().unwrap_or(0);
            let is_wanted = !world.closed.contains(&job) && !world.cancelled.contains(&(job, item));
            let expected = u32::from(is_wanted);
            assert!(
                outcomes == expected || (expected == 0 && outcomes == 1),
                "item {} of job {} has {} outcomes",
                item,
                job,
                outcomes
            );
        }
    }
}
