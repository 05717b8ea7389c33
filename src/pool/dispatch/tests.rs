//! The dispatcher under random schedules of work, deaths, time limits and cancelling: every item has exactly one outcome,
//! nobody idles while items wait, and deadlines are kept. A failing schedule is printed, and the seed, which can be given.

use super::*;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use std::collections::HashMap;

/// A worker as the dispatcher's promises describe it: it begins items in order, as far as it is permitted.
#[derive(Default)]
struct Model {
    is_up: bool,
    /// Items in the order sent, and how many of them are begun, permitted, and told.
    items: Vec<(JobId, usize)>,
    begun: usize,
    permitted: usize,
    told: usize,
    /// When it began the item that it is at.
    began: u64,
}

struct World {
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
    outcomes: HashMap<(JobId, usize), u32>,
    closed: Vec<JobId>,
    batches: u64,
}

impl World {
    fn new(workers: usize, items_max: Option<usize>) -> World {
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

    fn start(&mut self, worker: usize) {
        self.models[worker] = Model {
            is_up: true,
            ..Model::default()
        };
        self.dispatcher.up(worker);
    }

    fn open(&mut self, items: usize, piece_items: Option<usize>) {
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
            limit_nanos,
            retries,
        };
        let job = self.dispatcher.open(terms);
        self.terms.insert(job, terms);
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
        self.check_deadlines();
    }

    /// Time passes, and whoever takes too long is killed.
    fn pass(&mut self, nanos: u64) {
        self.now += nanos;
        self.dispatcher.tick(self.now);
        loop {
            let models = &self.models;
            let began = |worker: usize| {
                let model = &models[worker];
                (model.begun > model.told).then_some(model.began)
            };
            let Some((worker, overdue)) = self.dispatcher.overdue(began) else {
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
            let is_open = !self.closed.contains(&job);
            if let (true, Some(limit)) = (is_open, self.terms[&job].limit_nanos) {
                let next = self.dispatcher.next_deadline();
                assert!(
                    next.is_some_and(|next| next <= model.began + limit),
                    "worker {index} is not looked at in time"
                );
            }
        }
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

    fn begin(&mut self, worker: usize) {
        let model = &mut self.models[worker];
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

#[derive(Clone, Debug)]
enum Step {
    Begin(usize),
    Tell(usize, u64),
    Die(usize),
    Start(usize),
    Submit,
    Open(usize, Option<usize>, Option<u64>, u32),
    Close(u64),
    Pass(u64),
    Cancel(u64, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => (0..4usize).prop_map(Step::Begin),
        30 => (0..4usize, prop_oneof![Just(1u64), Just(1_000), Just(10_000_000)])
            .prop_map(|(worker, nanos)| Step::Tell(worker, nanos)),
        3 => (0..4usize).prop_map(Step::Die),
        3 => (0..4usize).prop_map(Step::Start),
        10 => Just(Step::Submit),
        2 => (0..300usize, prop::option::of(1..10usize), prop::option::of(1..2_000_000_000u64), 0..3u32)
            .prop_map(|(items, piece, limit, retries)| Step::Open(items, piece, limit, retries)),
        10 => prop_oneof![1..100_000u64, 1..3_000_000_000u64].prop_map(Step::Pass),
        3 => (1..6u64, 0..100usize).prop_map(|(job, item)| Step::Cancel(job, item)),
        1 => (1..6u64).prop_map(Step::Close),
    ]
}

/// How many schedules are tried in a run.
const SCHEDULES: u32 = 2000;

#[test]
fn every_item_has_exactly_one_outcome_nobody_idles_and_deadlines_are_kept() {
    let given = std::env::var("MULTIPROCESS_TEST_SEED").ok();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = given.map_or_else(
        || now.unwrap_or_default().as_nanos() as u64,
        |seed| seed.parse().unwrap(),
    );
    println!("MULTIPROCESS_TEST_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = ProptestConfig {
        cases: SCHEDULES,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let schedules = (
        1..4usize,
        prop::option::of(1..20usize),
        prop::collection::vec(step(), 0..400),
    );
    let outcome = TestRunner::new_with_rng(config, rng).run(&schedules, run_schedule);
    if let Err(failure) = outcome {
        panic!("MULTIPROCESS_TEST_SEED={seed}: {failure}");
    }
}

/// Runs a schedule, and then all that is left to its end. Who idles and what is overdue is checked after each step.
fn run_schedule(
    (workers, items_max, steps): (usize, Option<usize>, Vec<Step>),
) -> Result<(), TestCaseError> {
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
            prop_assert!(
                outcomes == expected || (expected == 0 && outcomes == 1),
                "item {} of job {} has {} outcomes",
                item,
                job,
                outcomes
            );
        }
    }
    Ok(())
}

#[test]
fn a_slow_item_does_not_hold_up_those_behind_it() {
    let mut world = World::new(2, None);
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
    let mut world = World::new(1, None);
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

#[test]
fn a_worker_lacks_items_only_while_it_would_be_given_some() {
    let mut dispatcher = Dispatcher::new(2);
    assert!(!dispatcher.lacks_items(), "none is there");
    dispatcher.up(0);
    assert!(dispatcher.lacks_items());
    let job = dispatcher.open(Terms::default());
    dispatcher.submit(job, 0, 0, 2);
    dispatcher.feed(&mut Vec::new());
    assert!(!dispatcher.lacks_items());
    // What it passes over comes first, however long that takes: nothing is sent before.
    dispatcher.revoked(0, 1);
    assert_eq!(
        dispatcher.finished(0, 1, 1).map(|piece| piece.count),
        Some(1)
    );
    assert!(!dispatcher.lacks_items());
    assert!(dispatcher.skipped(0, 1));
    dispatcher.close(job, &mut Vec::new());
    assert!(dispatcher.lacks_items());
}
