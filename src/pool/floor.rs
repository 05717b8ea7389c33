//! The floor on which a pool's work is done: jobs, batches and calls, and which worker has what. It is moved by one
//! thread at a time, and never sleeps. What comes from the workers is taken in in `intake.rs`.
//!
//! Calls that are made one by one (`apply_async`) of one function are items of one job, a *stream*: they wait here, and
//! as many of them as the workers want become a batch together, so that ten thousand short calls are few messages.

use crate::error::{Result, TaskError, TaskErrorKind};
use crate::pool::call::{Call, Event, Raw};
use crate::pool::dispatch::{Action, Dispatcher, JobId, Piece, Terms};
use crate::pool::hired::Body;
use crate::pool::progress::Bar;
use crate::pool::protocol::{Permission, Share, to_worker};
use crate::pool::staff::{Slot, Staff};
use crate::pool::stats::{Books, PoolStats};
use crate::pool::trace::Span;
use crate::shm::Spin;
use crate::sys::clock;
use crate::sys::function::FunctionId;
use crate::wire::Header;
use crate::wire::batch::Batch;
use crate::wire::value::Packed;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How many workers are asked for before the first of them is waited for: descriptors on their way are limited.
const STARTS_AT_ONCE: usize = 8;
/// What a job may have on its way to the workers before no more is pulled from its input.
const BYTES_AHEAD: usize = 64 << 20;
/// How many calls one stream takes; then another one begins, so that what is kept for a stream is bounded.
const STREAM_ITEMS_MAX: usize = 1 << 16;

/// How a job's items are run, as its caller says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Settings {
    pub(crate) piece_items: Option<usize>,
    pub(crate) limit: Option<Duration>,
    pub(crate) retries: u32,
    pub(crate) retries_panics: bool,
    pub(crate) in_flight: Option<usize>,
    /// What its progress is shown under, if it is.
    pub(crate) label: Option<String>,
}

/// What is to be known of a job before it opens.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) function: FunctionId,
    pub(crate) captures: Option<Arc<Packed>>,
    pub(crate) settings: Settings,
    /// The function's name, for people.
    pub(crate) name: &'static str,
    /// How many items there will be, if that is known.
    pub(crate) total: Option<usize>,
    /// Whether its caller waits for all outcomes, and for none before the others.
    pub(crate) is_collected: bool,
}

/// Whether a caller has items to submit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Supply {
    None,
    /// As many as are wanted.
    OnDemand,
    /// So many, wanted or not.
    Ahead(usize),
}

/// What a caller does next.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Submit a batch of about so many items.
    Produce(usize),
    /// See what became of some.
    Events(Vec<Event>),
    /// There is nothing yet.
    Nothing,
}

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
    pub(crate) jobs: HashMap<JobId, Job>,
    /// The stream that takes a function's calls.
    pub(crate) streams: HashMap<FunctionId, JobId>,
    /// Streams with calls that have not been submitted.
    pub(crate) waiting: Vec<JobId>,
    pub(crate) next_batch: u64,
    /// Calls that are to be completed, outside the lock.
    pub(crate) finished: Vec<(Arc<Call>, Raw)>,
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
    pub(crate) batches: HashMap<u64, Pending>,
    pub(crate) bytes_ahead: usize,
    pub(crate) sink: Sink,
}

/// A batch of which some items have no outcome yet.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) batch: Arc<Batch>,
    pub(crate) left: usize,
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

/// Calls as items of one job.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// The item of the first entry; those before it are done.
    pub(crate) base: usize,
    pub(crate) entries: VecDeque<Entry>,
    /// How many of the entries, from the front, have been submitted.
    pub(crate) submitted: usize,
}

/// A call that is not done, or was cancelled; and its argument, until that is submitted.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) call: Option<Arc<Call>>,
    pub(crate) argument: Option<Batch>,
}

impl Stream {
    fn next_item(&self) -> usize {
        self.base + self.entries.len()
    }

    fn is_waiting(&self) -> bool {
        self.submitted < self.entries.len()
    }

    pub(crate) fn has(&self, item: usize) -> bool {
        let place = item.checked_sub(self.base);
        let entry = place.and_then(|place| self.entries.get(place));
        entry.is_some_and(|entry| entry.call.is_some())
    }

    /// Takes the call of an item; `None` if it is done, or was cancelled.
    pub(crate) fn take(&mut self, item: usize) -> Option<Arc<Call>> {
        let entry = self.entries.get_mut(item.checked_sub(self.base)?)?;
        entry.argument = None;
        let call = entry.call.take();
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.call.is_none())
        {
            self.entries.pop_front();
            self.base += 1;
            self.submitted = self.submitted.saturating_sub(1);
        }
        call
    }

    /// Takes up to `items_max` arguments that can travel together; returns the first one's item as well.
    fn take_arguments(&mut self, items_max: usize) -> Option<(usize, Batch)> {
        let is_cancelled = |entry: &Entry| entry.argument.is_none();
        while self.entries.get(self.submitted).is_some_and(is_cancelled) {
            self.submitted += 1;
        }
        let item = self.base + self.submitted;
        let (mut batches, mut bytes) = (Vec::new(), 0);
        while batches.len() < items_max && bytes < STREAM_BATCH_BYTES {
            let Some(entry) = self.entries.get_mut(self.submitted) else {
                break;
            };
            match (&entry.argument, batches.first()) {
                (None, _) => break,
                (Some(argument), Some(first)) if !argument.can_join(first) => break,
                _ => {}
            }
            batches.extend(entry.argument.take());
            bytes += batches.last().map_or(0, Batch::size);
            self.submitted += 1;
        }
        Some((item, Batch::join(batches)?))
    }
}

/// A stream's batch is closed when it has this many bytes.
const STREAM_BATCH_BYTES: usize = 256 * 1024;

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
            jobs: HashMap::new(),
            streams: HashMap::new(),
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
        // A server that died over some of them: these are asked for again. A refusal is final.
        for index in 0..floor.staff.slots().len() {
            if floor.staff.slots()[index].has_ended() && floor.staff.was_server_lost() {
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

    pub(crate) fn workers(&self) -> usize {
        self.staff.slots().len()
    }

    /// Replaces workers that have ended meanwhile.
    pub(crate) fn look_for_ends(&mut self) {
        for index in 0..self.staff.slots().len() {
            if self.staff.look_for_end(index) {
                self.receive_all(index);
                self.bury(index, None);
            }
        }
        self.hire_missing();
        self.staff.settle();
        self.feed();
    }

    /// Opens a job for a caller that takes turns.
    pub(crate) fn open(&mut self, plan: Plan) -> Result<JobId, TaskError> {
        self.open_for(plan, Sink::Caller(Vec::new()))
    }

    fn open_for(&mut self, plan: Plan, sink: Sink) -> Result<JobId, TaskError> {
        if let Fitness::Unfit(error) = std::mem::replace(&mut self.fitness, Fitness::Fit) {
            return Err(error);
        }
        self.hire_missing();
        self.staff.has_got_on();
        let terms = Terms {
            function: plan.function.to_bits(),
            piece_items: plan.settings.piece_items,
            is_collected: plan.is_collected,
            limit_nanos: plan
                .settings
                .limit
                .map(|limit| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX)),
            retries: plan.settings.retries,
        };
        let id = self.dispatcher.open(terms);
        let job = Job {
            bar: Bar::new(plan.settings.label.as_deref(), plan.total),
            span: Span::of_job(id, plan.name),
            plan,
            batches: HashMap::new(),
            bytes_ahead: 0,
            sink,
        };
        self.jobs.insert(id, job);
        Ok(id)
    }

    /// Takes in a batch of a job's items.
    pub(crate) fn submit(&mut self, job: JobId, item: usize, batch: Batch) {
        let number = self.next_batch;
        self.next_batch += 1;
        let left = batch.count();
        if let Some(open) = self.jobs.get_mut(&job) {
            open.bytes_ahead += batch.size();
            open.bar.submitted(left);
            let batch = Arc::new(batch);
            open.batches.insert(number, Pending { batch, left });
        }
        self.dispatcher.submit(job, number, item, left);
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

    /// Takes in one call; returns its job and item.
    pub(crate) fn call_one(
        &mut self,
        plan: Plan,
        argument: Batch,
        call: Arc<Call>,
    ) -> Result<(JobId, usize), TaskError> {
        let function = plan.function;
        let may_share = plan.captures.is_none() && plan.settings == Settings::default();
        let known = self.streams.get(&function).filter(|_| may_share).copied();
        let id = match known {
            Some(id) => id,
            None => {
                let id = self.open_for(plan, Sink::Calls(Stream::default()))?;
                if may_share {
                    self.streams.insert(function, id);
                }
                id
            }
        };
        let mut item = 0;
        if let Some(Sink::Calls(stream)) = self.jobs.get_mut(&id).map(|job| &mut job.sink) {
            item = stream.next_item();
            if !stream.is_waiting() {
                self.waiting.push(id);
            }
            stream.entries.push_back(Entry {
                call: Some(call),
                argument: Some(argument),
            });
        }
        if item + 1 >= STREAM_ITEMS_MAX && may_share {
            self.streams.remove(&function);
        }
        self.feed();
        Ok((id, item))
    }

    /// Takes in a map as one call; returns its job.
    pub(crate) fn call_all(
        &mut self,
        plan: Plan,
        batches: Vec<(usize, Batch)>,
        call: Arc<Call>,
    ) -> Result<JobId, TaskError> {
        let left = batches.iter().map(|(_, batch)| batch.count()).sum();
        if left == 0 {
            self.finished.push((call, Raw::All(Vec::new())));
            return Ok(0);
        }
        let sink = Sink::Gathered {
            call,
            events: Vec::new(),
            left,
        };
        let id = self.open_for(plan, sink)?;
        for (item, batch) in batches {
            self.submit(id, item, batch);
        }
        self.complete(id);
        self.feed();
        Ok(id)
    }

    /// Ends a call, or a whole job of one: what was not begun is dropped, and who works on it is killed.
    pub(crate) fn cancel(&mut self, job: JobId, item: Option<usize>) {
        let error = || Raw::Failed(TaskError::new(TaskErrorKind::Cancelled, ""));
        let Some(open) = self.jobs.get_mut(&job) else {
            return;
        };
        let mut actions = Vec::new();
        let (call, is_over) = match (&mut open.sink, item) {
            (Sink::Caller(_), _) => return,
            (Sink::Gathered { call, .. }, _) => (Arc::clone(call), true),
            (Sink::Calls(stream), item) => {
                let Some(call) = item.and_then(|item| stream.take(item)) else {
                    return;
                };
                (call, stream.entries.is_empty())
            }
        };
        self.finished.push((call, error()));
        if let Some(item) = item {
            self.dispatcher.cancel(job, item, &mut actions);
        }
        self.carry_out(&mut actions);
        if is_over {
            self.close(job);
        }
        for index in 0..self.staff.slots().len() {
            if self.dispatcher.holds(index, job, item) {
                self.revoke(index, true);
            }
            // What it does not give up, it has begun.
            if self.dispatcher.holds(index, job, item) {
                self.kill(index, Doom::Cancelled);
            }
        }
        self.feed();
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

    /// Ends all calls that are under way, as the pool ends.
    pub(crate) fn end_calls(&mut self) {
        let jobs: Vec<JobId> = self.jobs.keys().copied().collect();
        for job in jobs {
            let error = TaskError::new(TaskErrorKind::Cancelled, "");
            self.break_job(job, &error);
        }
    }

    /// Has a call be completed.
    pub(crate) fn finish(&mut self, call: Arc<Call>, raw: Raw) {
        self.finished.push((call, raw));
    }

    /// Calls that are to be completed without the lock.
    pub(crate) fn take_finished(&mut self) -> Vec<(Arc<Call>, Raw)> {
        std::mem::take(&mut self.finished)
    }

    pub(crate) fn has_finished(&self) -> bool {
        !self.finished.is_empty()
    }

    /// How many items of `job` keep all workers busy.
    pub(crate) fn enough_items(&self, job: JobId) -> usize {
        self.dispatcher.enough_items(job)
    }

    /// What the caller of `job` does next, if there is anything.
    pub(crate) fn turn_of(&mut self, job: JobId, supply: Supply) -> Option<Turn> {
        let open = self.jobs.get_mut(&job)?;
        let wanted = match supply {
            // Large items do not pile up; but no worker lacks one for that.
            _ if open.bytes_ahead >= BYTES_AHEAD
                && self.dispatcher.busy_workers() == self.staff.slots().len() =>
            {
                None
            }
            Supply::None => None,
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

    /// Whether every processor is busy with the workers' items, of so many.
    pub(crate) fn keeps_busy(&self, processors: usize) -> bool {
        self.dispatcher.busy_workers() >= processors
    }

    /// When to look for items that have taken too long, by the monotonic clock.
    pub(crate) fn next_deadline(&self) -> Option<u64> {
        self.dispatcher.next_deadline()
    }

    /// Decides who gets what, and sends as much of it as the rings take.
    pub(crate) fn feed(&mut self) {
        if self.dispatcher.has_limits() {
            self.dispatcher.tick(clock::monotonic_nanos());
        }
        let mut actions = std::mem::take(&mut self.actions);
        loop {
            let has_submitted = !self.waiting.is_empty() && self.submit_waiting();
            self.dispatcher.feed(&mut actions);
            let may_go_on = has_submitted && !actions.is_empty();
            let has_taken_back = self.carry_out(&mut actions);
            if !has_taken_back && !may_go_on {
                break;
            }
        }
        self.actions = actions;
        if !self.dispatcher.has_workers() && !self.jobs.is_empty() {
            self.break_if_deserted();
        }
        self.staff.send_queued();
    }

    /// Submits calls that wait, as far as more are wanted; returns whether there were any.
    fn submit_waiting(&mut self) -> bool {
        let mut has_submitted = false;
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|&id| {
            self.dispatcher.complete(id, false);
            let Some(items_max) = self.dispatcher.demand(id) else {
                return self.jobs.contains_key(&id);
            };
            let Some(Sink::Calls(stream)) = self.jobs.get_mut(&id).map(|job| &mut job.sink) else {
                return false;
            };
            let taken = stream.take_arguments(items_max);
            let is_waiting = stream.is_waiting();
            // When none wait, those that are ready are shared out.
            self.dispatcher.complete(id, !is_waiting);
            if let Some((item, batch)) = taken {
                has_submitted = true;
                self.submit(id, item, batch);
            }
            is_waiting
        });
        waiting.append(&mut self.waiting);
        self.waiting = waiting;
        has_submitted
    }

    /// Does what the dispatcher has decided; returns whether there may be more to decide now.
    fn carry_out(&mut self, actions: &mut Vec<Action>) -> bool {
        let mut has_changed = false;
        for action in actions.drain(..) {
            match action {
                Action::Send { worker, piece } => self.send(worker, piece),
                Action::Revoke { worker, all } => has_changed |= self.revoke(worker, all),
                Action::Retire { worker } => {
                    self.retire(worker);
                    has_changed = true;
                }
            }
        }
        has_changed
    }

    fn send(&mut self, index: usize, piece: Piece) {
        let Some(job) = self.jobs.get(&piece.job) else {
            return;
        };
        let Some(Pending { batch, .. }) = job.batches.get(&piece.batch) else {
            return;
        };
        let Some(worker) = self.staff.worker(index) else {
            return;
        };
        if let Some(captures) = &job.plan.captures {
            if worker.known.insert(piece.job) {
                let words = [piece.job, 0, 0, 0];
                let header = Header {
                    kind: to_worker::CAPTURES,
                    words,
                    ..Header::default()
                };
                worker.queue(header, Body::Captures(Arc::clone(captures)));
            }
        }
        let lane = u64::from(batch.lane().to_bits());
        let words = [piece.job, worker.sent, lane, job.plan.function.to_bits()];
        let count = u32::try_from(piece.count).unwrap_or(u32::MAX);
        let kind = match job.plan.settings.limit {
            Some(_) => to_worker::TIMED,
            None => to_worker::CHUNK,
        };
        let header = Header {
            kind,
            count,
            words,
            ..Header::default()
        };
        let range = piece.start..piece.start + piece.count;
        self.books.workers[index].bytes_sent += batch.slice(range.clone()).len() as u64;
        worker.sent += piece.count as u64;
        Permission(worker.link.shared_word()).extend(piece.count);
        worker.queue(header, Body::Items(Arc::clone(batch), range));
    }

    /// Takes back what a worker has not begun; returns whether that was anything.
    pub(crate) fn revoke(&mut self, index: usize, all: bool) -> bool {
        let held = self.dispatcher.items_with(index);
        let skips = self.dispatcher.skips(index) as u64;
        let Some(worker) = self.staff.worker(index) else {
            return false;
        };
        let permitted = worker.sent - skips;
        let share = if all {
            Share::All
        } else {
            Share::Half {
                kept: worker.items_in_transfer(),
            }
        };
        match Permission(worker.link.shared_word()).revoke(permitted, held, share) {
            None => {
                self.staff.dismiss(index);
                false
            }
            Some(0) => false,
            Some(count) => {
                self.dispatcher.revoked(index, count);
                true
            }
        }
    }

    /// Spins until a worker that has items has shown something; returns whether one has.
    pub(crate) fn spin_for_news(&mut self, spin: &mut Spin) -> bool {
        let Floor {
            staff, dispatcher, ..
        } = self;
        let slots = staff.slots_mut();
        spin.until(|| {
            slots.iter_mut().enumerate().any(|(index, slot)| {
                dispatcher.is_busy(index)
                    && slot
                        .worker
                        .as_mut()
                        .is_some_and(|worker| worker.link.has_data())
            })
        })
    }

    /// Tells the workers that have something to do, and have not been told, that we sleep; returns whether there is no
    /// need to sleep.
    pub(crate) fn announce_sleep(&mut self) -> bool {
        let Floor {
            staff, dispatcher, ..
        } = self;
        let mut is_ready = false;
        for index in 0..staff.slots().len() {
            is_ready |= staff.watch_for_room(index);
        }
        for (index, slot) in staff.slots_mut().iter_mut().enumerate() {
            let Some(worker) = &mut slot.worker else {
                continue;
            };
            let waits_for_room = worker.room_wanted() > 0;
            if worker.is_announced {
                // What waits for room came after we began to sleep.
                is_ready |= waits_for_room;
            } else if dispatcher.is_busy(index) || waits_for_room {
                is_ready |= worker.announce_sleep(dispatcher.unhurried_items(index));
            }
        }
        is_ready
    }

    /// Tells the workers that we are awake.
    pub(crate) fn wake_up(&mut self) {
        for slot in self.staff.slots_mut() {
            if let Some(worker) = &mut slot.worker {
                worker.is_announced = false;
                worker.link.wake_up();
            }
        }
    }
}
