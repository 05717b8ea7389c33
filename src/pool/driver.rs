//! Moves messages and events between the dispatcher and the workers' links.
//!
//! **Who drives.** No thread of the pool's own does. Of the callers that wait for something, one *leads*: it takes in what
//! the workers sent, for everybody, feeds them, and sleeps until there is news. The others wait until the leader has
//! something for them or stops leading, and then one of them leads. A caller never holds the lock while it runs the user's
//! code (iterators, serde) or sleeps.
//!
//! | a caller | under the lock | without it |
//! |---|---|---|
//! | opens a job, submits a batch | queues it, sends what the rings take | pulls and encodes items |
//! | leads | receives, feeds, sends, buries and replaces workers | sleeps until a doorbell, a death, or another caller's [`Wake`] |
//! | waits while another leads | | sleeps on the condition variable |
//!
//! **What wakes a sleeping leader:** a worker that shows results (its link says that we sleep), a worker's end (its socket
//! closes, its pidfd is readable), and a caller that gave work to a worker meanwhile.

use crate::deadline::Deadline;
use crate::error::{Error, Result, TaskError, TaskErrorKind};
use crate::pool::dispatch::{Action, Dispatcher, JobId, Piece};
use crate::pool::protocol::{Permission, Share, from_worker, to_worker};
use crate::pool::staff::{Body, Slot, Staff};
use crate::shm::{LONGEST_OF_CLIENT, Spin};
use crate::sys::function::FunctionId;
use crate::sys::poll::{Wake, Watch};
use crate::sys::{identity, limits};
use crate::task::Received;
use crate::wire::batch::{Batch, Lane};
use crate::wire::value::Packed;
use crate::wire::{Header, Message, codec};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// The number under which the wake-up descriptor is watched; workers have smaller ones.
const WAKE: u64 = u64::MAX;

/// How many workers are asked for before the first of them is waited for: descriptors on their way are limited.
const STARTS_AT_ONCE: usize = 8;

/// How many messages of one worker are taken in before the next worker's turn.
const MESSAGES_AT_ONCE: usize = 256;

/// What became of items.
#[derive(Debug)]
pub(crate) enum Event {
    /// Results of consecutive items from `item` on.
    Results { item: usize, received: Received },
    /// One item has no result.
    Failed { item: usize, error: TaskError },
    /// No process is left to run what remains, and none can be had.
    Broken(TaskError),
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

/// Whether a call waits for something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    Wait,
    Now,
}

/// A pool's workers and their work, for any number of threads.
#[derive(Debug)]
pub(crate) struct Driver {
    core: Mutex<Core>,
    /// The process that built the pool. One that was forked from it has no part in it.
    owner: u32,
    followers: Condvar,
    wake: Wake,
    watch: Arc<Watch>,
}

#[derive(Debug)]
struct Core {
    dispatcher: Dispatcher,
    staff: Staff,
    jobs: HashMap<JobId, Job>,
    next_batch: u64,
    has_leader: bool,
    is_asleep: bool,
    followers: usize,
    spin: Spin,
    actions: Vec<Action>,
    news: Vec<u64>,
}

#[derive(Debug)]
struct Job {
    function: FunctionId,
    captures: Option<Arc<Packed>>,
    batches: HashMap<u64, (Arc<Batch>, usize)>,
    events: Vec<Event>,
}

impl Driver {
    /// Starts the workers and waits until they run.
    pub(crate) fn start(staff: Staff) -> Result<Driver> {
        let failed = |error| Error::io("cannot watch the workers of a pool", error);
        let wake = Wake::new().map_err(failed)?;
        let watch = staff.watch();
        watch.add(wake.descriptor(), WAKE).map_err(failed)?;
        let mut core = Core {
            dispatcher: Dispatcher::new(staff.slots().len()),
            staff,
            jobs: HashMap::new(),
            next_batch: 0,
            has_leader: false,
            is_asleep: false,
            followers: 0,
            spin: Spin::new(LONGEST_OF_CLIENT),
            actions: Vec::new(),
            news: Vec::new(),
        };
        for index in 0..core.staff.slots().len() {
            core.staff.hire(index)?;
            core.dispatcher.up(index);
            if index % STARTS_AT_ONCE == STARTS_AT_ONCE - 1 {
                core.staff.settle();
            }
        }
        core.staff.settle();
        // A server that died over some of them: these are asked for again. A refusal is final.
        for index in 0..core.staff.slots().len() {
            if core.staff.slots()[index].has_ended() && core.staff.was_server_lost() {
                core.staff.bury(index, 0);
                core.staff.hire(index)?;
                core.staff.settle();
            }
        }
        if core.staff.slots().iter().any(Slot::has_ended) {
            return Err(core.staff.take_refusal());
        }
        let core = Mutex::new(core);
        Ok(Driver {
            core,
            owner: identity::pid(),
            followers: Condvar::new(),
            wake,
            watch,
        })
    }

    pub(crate) fn workers(&self) -> usize {
        self.core.lock().staff.slots().len()
    }

    /// The workers' pids, after those that have ended meanwhile have been replaced.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut core = self.core.lock();
        if !core.has_leader {
            for index in 0..core.staff.slots().len() {
                if core.staff.look_for_end(index) {
                    core.receive(index);
                    core.bury(index);
                }
            }
            core.hire_missing();
            core.staff.settle();
            core.feed();
        }
        core.staff.pids()
    }

    /// Opens a job.
    pub(crate) fn open(
        &self,
        function: FunctionId,
        captures: Option<Arc<Packed>>,
        piece_items: Option<usize>,
        is_collected: bool,
    ) -> Result<JobId, TaskError> {
        if self.owner != identity::pid() {
            let why = format!(
                "the pool belongs to process {}, from which this one was forked",
                self.owner
            );
            return Err(TaskError::new(TaskErrorKind::System, why));
        }
        let mut core = self.core.lock();
        core.hire_missing();
        core.staff.has_got_on();
        let id = core
            .dispatcher
            .open(function.to_bits(), piece_items, is_collected);
        let job = Job {
            function,
            captures,
            batches: HashMap::new(),
            events: Vec::new(),
        };
        core.jobs.insert(id, job);
        Ok(id)
    }

    /// Takes in a batch of a job's items and sends what the workers want of it.
    pub(crate) fn submit(&self, job: JobId, item: usize, batch: Batch) {
        let mut core = self.core.lock();
        let number = core.next_batch;
        core.next_batch += 1;
        let count = batch.count();
        if let Some(open) = core.jobs.get_mut(&job) {
            open.batches.insert(number, (Arc::new(batch), count));
        }
        core.dispatcher.submit(job, number, item, count);
        core.feed();
        self.wake_leader(&core);
    }

    /// No more items of this job will come.
    pub(crate) fn complete(&self, job: JobId) {
        self.core.lock().dispatcher.complete(job);
    }

    /// Drops a job, whatever is left of it.
    pub(crate) fn close(&self, job: JobId) {
        let mut core = self.core.lock();
        let had_captures = core
            .jobs
            .remove(&job)
            .is_some_and(|job| job.captures.is_some());
        let mut actions = Vec::new();
        core.dispatcher.close(job, &mut actions);
        core.carry_out(&mut actions);
        if had_captures {
            core.staff.forget(job);
        }
        core.feed();
        self.wake_leader(&core);
    }

    /// How many items of `job` keep all workers busy.
    pub(crate) fn enough_items(&self, job: JobId) -> usize {
        self.core.lock().dispatcher.enough_items(job)
    }

    /// Finds out what the caller of `job` does next, and leads if nobody does.
    pub(crate) fn turn(&self, job: JobId, may_produce: bool, patience: Patience) -> Turn {
        let mut core = self.core.lock();
        let mut has_led = false;
        loop {
            if let Some(turn) = core.turn_of(job, may_produce) {
                return turn;
            }
            if patience == Patience::Now && (has_led || core.has_leader) {
                return Turn::Nothing;
            }
            if core.has_leader {
                core.followers += 1;
                self.followers.wait(&mut core);
                core.followers -= 1;
                continue;
            }
            has_led = true;
            core.has_leader = true;
            if !core.pump() && patience == Patience::Wait {
                self.rest(&mut core);
            }
            core.has_leader = false;
            if core.followers > 0 {
                self.followers.notify_all();
            }
        }
    }

    /// Waits until there is news: spins if a processor is free for that, then sleeps.
    fn rest(&self, core: &mut MutexGuard<'_, Core>) {
        core.staff.settle();
        if core.dispatcher.busy_workers() < limits::processors() && core.spin_for_news() {
            return;
        }
        let mut news = std::mem::take(&mut core.news);
        news.clear();
        if !core.prepare_sleep() {
            core.is_asleep = true;
            let watch = &self.watch;
            let start = Instant::now();
            // It fails only where the set itself is gone; then the next round looks again.
            let _ready = MutexGuard::unlocked(core, || watch.wait(&mut news, Deadline::NEVER));
            core.is_asleep = false;
            core.spin.learn(start.elapsed());
        }
        core.wake_up();
        for &number in &news {
            if number == WAKE {
                self.wake.clear();
            } else {
                core.staff.hear(number);
            }
        }
        core.news = news;
    }

    /// Has a leader that sleeps look again: it may sleep for less than there is now.
    fn wake_leader(&self, core: &Core) {
        if core.is_asleep {
            self.wake.ring();
        }
    }
}

impl Core {
    fn turn_of(&mut self, job: JobId, may_produce: bool) -> Option<Turn> {
        if may_produce {
            if let Some(items) = self.dispatcher.demand(job) {
                return Some(Turn::Produce(items));
            }
        }
        let events = &mut self.jobs.get_mut(&job)?.events;
        (!events.is_empty()).then(|| Turn::Events(std::mem::take(events)))
    }

    /// Takes in what is there, buries who has ended, feeds; returns whether there was anything.
    fn pump(&mut self) -> bool {
        let mut has_news = false;
        for index in 0..self.staff.slots().len() {
            has_news |= self.receive(index);
            if self.staff.slots()[index].has_ended() {
                self.bury(index);
                has_news = true;
            }
        }
        self.feed();
        has_news || self.staff.slots().iter().any(Slot::has_ended)
    }

    fn receive(&mut self, index: usize) -> bool {
        let mut has_news = false;
        // Whoever keeps up with this is left for the next round, so that the others have their turn.
        let mut messages = 0..MESSAGES_AT_ONCE;
        while let (Some(worker), Some(_)) = (self.staff.worker(index), messages.next()) {
            match worker.link.try_receive() {
                Ok(None) => break,
                Ok(Some(message)) => {
                    has_news = true;
                    self.staff.settle();
                    if self.take_in(index, message).is_none() {
                        self.staff.dismiss(index);
                        break;
                    }
                }
                Err(_) => {
                    self.staff.dismiss(index);
                    break;
                }
            }
        }
        has_news
    }

    /// Takes in one message; `None` if no sound worker would send it now.
    fn take_in(&mut self, index: usize, message: Message) -> Option<()> {
        let Message {
            header,
            body,
            descriptors,
        } = message;
        let [ticket, lane, nanos, _] = header.words;
        let count = header.count as usize;
        let worker = self.staff.worker(index)?;
        if ticket != worker.resolved {
            return None;
        }
        let pid = worker.pid();
        worker.resolved += count as u64;
        match header.kind {
            from_worker::RESULTS => {
                let lane = Lane::from_bits(u32::try_from(lane).ok()?)?;
                let piece = self.dispatcher.finished(index, count, nanos)?;
                let received = Received::new(lane, count, body, descriptors, pid);
                self.tell(piece, |item| Event::Results { item, received });
            }
            from_worker::FAILED => {
                let error: TaskError = codec::decode(&body).ok()?;
                let piece = self.dispatcher.finished(index, 1, nanos)?;
                let told = |item| {
                    let error = error.in_process(pid).at_item(Some(item));
                    Event::Failed { item, error }
                };
                self.tell(piece, told);
            }
            from_worker::SKIPPED => {
                if count == 0 || !self.dispatcher.skipped(index, count) {
                    return None;
                }
                if self.dispatcher.is_drained(index) {
                    let worker = self.staff.worker(index)?;
                    if worker.resolved != worker.sent {
                        return None;
                    }
                    Permission(worker.link.shared_word()).restart(worker.sent);
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// Tells a job, if it is still open, what became of the items of `piece`.
    fn tell(&mut self, piece: Piece, event: impl FnOnce(usize) -> Event) {
        let Some(job) = self.jobs.get_mut(&piece.job) else {
            return;
        };
        if let Some((_, left)) = job.batches.get_mut(&piece.batch) {
            *left = left.saturating_sub(piece.count);
            if *left == 0 {
                job.batches.remove(&piece.batch);
            }
        }
        job.events.push(event(piece.item));
    }

    /// Finds out how a worker ended, charges the item that it was at, and has another take its place.
    fn bury(&mut self, index: usize) {
        let held = self.dispatcher.items_with(index);
        let Some(end) = self.staff.bury(index, held) else {
            return;
        };
        let charged = self.dispatcher.died(index, end.begun);
        if let Some(piece) = charged {
            let told = |item| {
                let error = TaskError::crash(end.status).at_item(Some(item));
                Event::Failed {
                    item,
                    error: error.in_process(end.pid),
                }
            };
            self.tell(piece, told);
            // The job gets on, if only by failures.
            self.staff.has_got_on();
        }
        if end.is_worth_replacing(held > 0 || charged.is_some()) {
            self.hire(index);
        }
        self.break_if_deserted();
    }

    fn hire_missing(&mut self) {
        for index in 0..self.staff.slots().len() {
            if self.staff.slots()[index].worker.is_none() {
                self.hire(index);
            }
        }
    }

    fn hire(&mut self, index: usize) {
        if self.staff.hire(index).is_ok() {
            self.dispatcher.up(index);
        }
    }

    /// Where no worker is left and none can be had, every job is told.
    fn break_if_deserted(&mut self) {
        if self.dispatcher.has_workers() || self.jobs.is_empty() {
            return;
        }
        if self.staff.may_try_again() {
            self.hire(0);
            if self.dispatcher.has_workers() {
                return;
            }
        }
        let why = self.staff.refusal();
        for job in self.jobs.values_mut() {
            if matches!(job.events.last(), Some(Event::Broken(_))) {
                continue;
            }
            job.events.push(Event::Broken(TaskError::new(
                TaskErrorKind::System,
                why.clone(),
            )));
        }
    }

    /// Decides who gets what, and sends as much of it as the rings take.
    fn feed(&mut self) {
        let mut actions = std::mem::take(&mut self.actions);
        loop {
            self.dispatcher.feed(&mut actions);
            let has_taken_back = self.carry_out(&mut actions);
            if !has_taken_back {
                break;
            }
        }
        self.actions = actions;
        if !self.dispatcher.has_workers() && !self.jobs.is_empty() {
            self.break_if_deserted();
        }
        self.staff.send_queued();
    }

    /// Does what the dispatcher has decided; returns whether anything was taken back from a worker.
    fn carry_out(&mut self, actions: &mut Vec<Action>) -> bool {
        let mut has_taken_back = false;
        for action in actions.drain(..) {
            match action {
                Action::Send { worker, piece } => self.send(worker, piece),
                Action::Revoke { worker, all } => has_taken_back |= self.revoke(worker, all),
            }
        }
        has_taken_back
    }

    fn send(&mut self, index: usize, piece: Piece) {
        let Some(job) = self.jobs.get(&piece.job) else {
            return;
        };
        let Some((batch, _)) = job.batches.get(&piece.batch) else {
            return;
        };
        let Some(worker) = self.staff.worker(index) else {
            return;
        };
        if let Some(captures) = &job.captures {
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
        let words = [piece.job, worker.sent, lane, job.function.to_bits()];
        let count = u32::try_from(piece.count).unwrap_or(u32::MAX);
        let header = Header {
            kind: to_worker::CHUNK,
            count,
            words,
            ..Header::default()
        };
        let range = piece.start..piece.start + piece.count;
        worker.sent += piece.count as u64;
        Permission(worker.link.shared_word()).extend(piece.count);
        worker.queue(header, Body::Items(Arc::clone(batch), range));
    }

    /// Takes back what a worker has not begun; returns whether that was anything.
    fn revoke(&mut self, index: usize, all: bool) -> bool {
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

    fn spin_for_news(&mut self) -> bool {
        let Core {
            spin,
            staff,
            dispatcher,
            ..
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

    /// Tells the workers that have something to do that we sleep, and up to which item we need not be woken; returns whether
    /// there is no need to sleep.
    fn prepare_sleep(&mut self) -> bool {
        let mut is_ready = false;
        for (index, slot) in self.staff.slots_mut().iter_mut().enumerate() {
            if let Some(worker) = &mut slot.worker {
                let room = worker.room_wanted();
                if self.dispatcher.is_busy(index) || room > 0 {
                    let unhurried = self.dispatcher.unhurried_items(index) as u64;
                    worker
                        .link
                        .note()
                        .word()
                        .store(worker.resolved + unhurried, Ordering::Release);
                    is_ready |= worker.link.prepare_sleep(true, room);
                }
            }
        }
        is_ready
    }

    fn wake_up(&mut self) {
        for worker in self
            .staff
            .slots_mut()
            .iter_mut()
            .filter_map(|slot| slot.worker.as_mut())
        {
            worker.link.wake_up();
        }
    }
}

impl Drop for Driver {
    /// Kills the workers and waits until they are gone.
    fn drop(&mut self) {
        if self.owner == identity::pid() {
            self.core.get_mut().staff.dismiss_all();
        }
    }
}
