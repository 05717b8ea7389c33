//! The floor on which a pool's work is done: jobs, batches and calls, and which worker has what. It is moved by one
//! thread at a time, and never sleeps. Calls are in `calls.rs`, what goes to the workers in `feed.rs`, what comes from
//! them in `intake.rs`.

use crate::error::{Result, TaskError};
use crate::pool::call::{Call, Event, Finished};
use crate::pool::dispatch::{Action, Dispatcher, JobId, Terms};
use crate::pool::numbers::NumberMap;
use crate::pool::place::Slot;
use crate::pool::plan::{Plan, Supply, Turn};
use crate::pool::progress::Bar;
use crate::pool::staff::Staff;
use crate::pool::stats::{Books, PoolStats};
use crate::pool::stream::Stream;
use crate::pool::trace::Span;
use crate::sys::clock;
use crate::sys::function::FunctionId;
use crate::sys::room::Room;
use crate::wire::batch::Batch;
use std::sync::Arc;
use std::time::Duration;

/// How many workers are asked for before the first of them is waited for: descriptors on their way are limited.
const STARTS_AT_ONCE: usize = 8;
/// What is on its way of a job, for each worker, when no more is pulled from its input: where the user has set no number, and each
/// worker has two pieces or can take none. It is no sooner done for having more, and what was freed is soon too much for the allocator:
/// that gives it back, and the next job has to touch it anew, page by page.
const BYTES_ENOUGH_EACH: usize = 1 << 20;
/// The same for all workers, at least.
const BYTES_ENOUGH: usize = 4 << 20;
/// And in so many batches, at least: large items are another matter.
const BATCHES_ENOUGH: usize = 16;
/// What is on its way of a job when no more is pulled in any case, as long as each worker has one piece.
const BYTES_AHEAD: usize = 64 << 20;

/// What the last initializer that failed came to.
#[derive(Debug)]
pub(crate) enum Fitness {
    Fit,
    /// It failed while no job was open: the next one is told.
    Unfit(TaskError),
    /// It failed, and all jobs that were open were told: no worker is hired until another call.
    Told,
}

/// Why we kill a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doom {
    /// Its first item has taken too long.
    TimedOut,
    /// It does not begin its first item: that one is charged when it has been so with several.
    Stuck,
    /// An item that it has is not wanted any more: nobody is charged.
    Cancelled,
}

#[derive(Debug)]
pub(crate) struct Floor {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) staff: Staff,
    pub(crate) jobs: NumberMap<JobId, Job>,
    /// The stream that takes a function's calls.
    pub(crate) streams: NumberMap<FunctionId, JobId>,
    /// Streams with calls that have not been submitted.
    pub(crate) waiting: Vec<JobId>,
    pub(crate) next_batch: u64,
    /// Calls that are to be completed, outside the lock.
    pub(crate) finished: Vec<Finished>,
    pub(crate) fitness: Fitness,
    pub(crate) initial_deaths: u32,
    pub(crate) actions: Vec<Action>,
    pub(crate) books: Books,
}

#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) plan: Plan,
    pub(crate) bar: Bar,
    pub(crate) span: Span,
    pub(crate) batches: NumberMap<u64, Pending>,
    pub(crate) bytes_ahead: usize,
    pub(crate) sink: Sink,
    /// Where its results go without being copied a second time, if they are numbers and it is known how many there will be.
    pub(crate) room: Option<Box<dyn Room>>,
}

impl Job {
    /// Whether there is so much on its way, in batches of which a worker has many, that more would be of no use.
    fn has_enough_ahead(&self, workers: usize) -> bool {
        self.bytes_ahead >= BYTES_ENOUGH.max(workers * BYTES_ENOUGH_EACH)
            && self.batches.len() >= BATCHES_ENOUGH
    }
}

/// A batch of which some items have no outcome yet.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) batch: Arc<Batch>,
    pub(crate) bytes: usize,
    pub(crate) left: usize,
    /// When it was submitted, by the monotonic clock.
    pub(crate) since: u64,
}

impl Pending {
    /// Gives the batch away, to be sent and not kept.
    pub(crate) fn take_batch(&mut self) -> Arc<Batch> {
        let nothing = Arc::new(Batch::empty(self.batch.lane()));
        std::mem::replace(&mut self.batch, nothing)
    }
}

/// Where outcomes go.
#[derive(Debug)]
pub(crate) enum Sink {
    /// To a caller that takes turns.
    Caller(Vec<Event>),
    /// Into one call, when all are there.
    Gathered {
        call: Arc<Call>,
        events: Vec<Event>,
        left: usize,
    },
    /// Each into its own call.
    Calls(Stream),
}

impl Floor {
    /// Starts the workers and waits until they run.
    pub(crate) fn start(staff: Staff, items_max: Option<usize>) -> Result<Floor> {
        let mut dispatcher = Dispatcher::new(staff.slots().len());
        if let Some(items_max) = items_max {
            dispatcher.limit_items(items_max);
        }
        let mut floor = Floor {
            dispatcher,
            books: Books::of_workers(staff.slots().len()),
            staff,
            jobs: NumberMap::default(),
            streams: NumberMap::default(),
            waiting: Vec::new(),
            next_batch: 0,
            finished: Vec::new(),
            fitness: Fitness::Fit,
            initial_deaths: 0,
            actions: Vec::new(),
        };
        for index in 0..floor.staff.slots().len() {
            floor.staff.hire(index)?;
            floor.dispatcher.up(index);
            if index % STARTS_AT_ONCE == STARTS_AT_ONCE - 1 {
                floor.staff.settle();
            }
        }
        floor.staff.settle();
        // What died over some of them had not begun: these are asked for again. A refusal is final.
        for index in 0..floor.staff.slots().len() {
            if floor.staff.slots()[index].has_ended() && floor.staff.slots()[index].is_unbegun {
                floor.staff.bury(index, 0);
                floor.staff.hire(index)?;
                floor.staff.settle();
            }
        }
        if floor.staff.slots().iter().any(Slot::has_ended) {
            return Err(floor.staff.take_refusal());
        }
        Ok(floor)
    }

    pub(crate) fn staff(&mut self) -> &mut Staff {
        &mut self.staff
    }

    /// Replaces workers that have ended meanwhile.
    pub(crate) fn look_for_ends(&mut self) {
        for index in 0..self.staff.slots().len() {
            if self.staff.look_for_end(index) {
                // As in `pump`.
                self.staff.kill(index);
                self.receive_all(index);
                self.bury(index, None);
            }
        }
        self.hire_missing();
        self.staff.settle();
        self.feed();
    }

    /// Opens a job for a caller that takes turns.
    pub(crate) fn open(
        &mut self,
        plan: Plan,
        room: Option<Box<dyn Room>>,
    ) -> Result<JobId, TaskError> {
        let id = self.open_for(plan, Sink::Caller(Vec::new()))?;
        if let Some(open) = self.jobs.get_mut(&id) {
            open.room = room;
        }
        Ok(id)
    }

    pub(crate) fn open_for(&mut self, plan: Plan, sink: Sink) -> Result<JobId, TaskError> {
        if let Fitness::Unfit(error) = std::mem::replace(&mut self.fitness, Fitness::Fit) {
            return Err(error);
        }
        self.hire_missing();
        self.staff.has_got_on();
        let terms = Terms {
            function: plan.function.to_bits(),
            piece_items: plan.settings.piece_items,
            is_collected: plan.is_collected,
            is_at_hand: plan.is_at_hand,
            limit_nanos: plan
                .settings
                .limit
                .map(|limit| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX).max(1)),
            retries: plan.settings.retries,
        };
        let id = self.dispatcher.open(terms);
        let job = Job {
            bar: Bar::new(plan.settings.label.as_deref(), plan.total),
            span: Span::of_job(self.staff.diary(), id, plan.name),
            plan,
            batches: NumberMap::default(),
            bytes_ahead: 0,
            sink,
            room: None,
        };
        self.jobs.insert(id, job);
        Ok(id)
    }

    /// Takes in a batch of a job's items.
    pub(crate) fn submit(&mut self, job: JobId, item: usize, batch: Batch) {
        let number = self.next_batch;
        self.next_batch += 1;
        let (left, bytes, has_moved) = (batch.count(), batch.size(), batch.has_moved());
        self.dispatcher.weigh(job, left, bytes as u64);
        if let Some(open) = self.jobs.get_mut(&job) {
            open.bytes_ahead += bytes;
            open.bar.submitted(left);
            let pending = Pending {
                batch: Arc::new(batch),
                bytes,
                left,
                since: clock::monotonic_nanos(),
            };
            open.batches.insert(number, pending);
        }
        if has_moved {
            self.dispatcher.submit_once(job, number, item);
        } else {
            self.dispatcher.submit(job, number, item, left);
        }
    }

    /// No more items of this job will come.
    pub(crate) fn complete(&mut self, job: JobId) {
        self.dispatcher.complete(job, true);
        if let Some(open) = self.jobs.get_mut(&job) {
            open.bar.is_complete();
        }
    }

    /// What the workers have done so far.
    pub(crate) fn stats(&self) -> PoolStats {
        self.books.stats()
    }

    /// Drops a job, whatever is left of it.
    pub(crate) fn close(&mut self, job: JobId) {
        let Some(closed) = self.jobs.remove(&job) else {
            return;
        };
        if self.streams.get(&closed.plan.function) == Some(&job) {
            self.streams.remove(&closed.plan.function);
        }
        let mut actions = Vec::new();
        self.dispatcher.close(job, &mut actions);
        self.carry_out(&mut actions);
        if closed.plan.captures.is_some() {
            self.staff.forget(job);
        }
    }

    /// How many items of `job` keep all workers busy.
    pub(crate) fn enough_items(&self, job: JobId) -> usize {
        self.dispatcher.enough_items(job)
    }

    /// What an item of `job` takes, as far as is known.
    pub(crate) fn item_takes(&self, job: JobId) -> Duration {
        let nanos = self.dispatcher.nanos_per_item(job).unwrap_or(0.0);
        Duration::from_nanos(nanos as u64)
    }

    /// What the caller of `job` does next, if there is anything.
    pub(crate) fn turn_of(&mut self, job: JobId, supply: Supply) -> Option<Turn> {
        let open = self.jobs.get_mut(&job)?;
        let has_enough = open.has_enough_ahead(self.staff.slots().len());
        let wanted = match supply {
            // Large items do not pile up; but no worker lacks one for that.
            _ if open.bytes_ahead >= BYTES_AHEAD && !self.dispatcher.lacks_items() => None,
            Supply::None => None,
            Supply::OnDemand if has_enough && !self.dispatcher.lacks_pieces() => None,
            Supply::OnDemand => self.dispatcher.demand(job),
            Supply::Ahead(items) => Some(items),
        };
        if let Some(items) = wanted {
            return Some(Turn::Produce(items));
        }
        match &mut open.sink {
            Sink::Caller(events) if !events.is_empty() => {
                Some(Turn::Events(std::mem::take(events)))
            }
            _ => None,
        }
    }

    /// Whether every processor is busy with the workers' items, or with passing over them, of so many.
    pub(crate) fn keeps_busy(&self, processors: usize) -> bool {
        self.dispatcher.busy_workers() >= processors
    }

    /// When to look for items that have taken too long, by the monotonic clock.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.dispatcher.next_deadline()
    }

    /// When whoever leads and sleeps is to wake though there is no news.
    pub(crate) fn next_wake(&mut self) -> Option<u64> {
        let look = self.next_look();
        self.next_deadline().into_iter().chain(look).min()
    }

    /// When whoever sleeps until there is news is to feed without any, by the monotonic clock: a worker may be at something long, and
    /// hold what another one could do.
    fn next_look(&mut self) -> Option<u64> {
        if !self.dispatcher.leaves_some() {
            return None;
        }
        self.dispatcher.tick(clock::monotonic_nanos());
        let slots = self.staff.slots();
        let is_taking = |index: usize, held| {
            let worker = slots[index].worker.as_ref();
            worker.is_none_or(|worker| worker.items_in_transfer() >= held)
        };
        self.dispatcher.next_look(is_taking)
    }
}
