//! Who does a pool's work, and when: any number of threads call, one of them leads.
//!
//! **Who drives.** Of the callers that wait for something, one *leads*: it takes in what the workers sent, for everybody,
//! feeds them, and sleeps until there is news. The others wait until the leader has something for them or stops leading,
//! and then one of them leads. A caller never holds the lock while it runs the user's code (iterators, serde) or sleeps.
//!
//! Nobody waits for an asynchronous call at first. So the first such call starts the pool's own thread, which ends with the
//! pool. It completes asynchronous calls, and leads while some are under way and nobody else does. It takes no signals.
//!
//! | who | under the lock | without it |
//! |---|---|---|
//! | opens a job, submits a batch, makes a call | queues it, sends what the rings take | pulls and encodes items |
//! | leads | receives, feeds, sends, kills, buries and replaces workers | sleeps until a doorbell, a death, a deadline, or another caller's [`Wake`] |
//! | waits while another leads | | sleeps on the condition variable `followers` |
//! | the pool's thread, while another leads or no call is under way | | sleeps on the condition variable `chores` |
//! | the pool's thread, when calls have ended | takes them | runs callbacks, wakes who waits for these calls |
//!
//! **What wakes a sleeping leader:** a worker that shows results (its link says that we sleep), a worker's end (its socket
//! closes, its pidfd is readable), the next time limit, and a caller that changed what the leader sleeps for. A caller that
//! gave work to a worker says in that worker's link that we sleep, in the leader's place, so that it need not wake it.
//!
//! **What wakes the pool's thread:** whoever stops leading while calls are under way; whoever leads and has taken in the end
//! of a call; whoever makes a call while nobody leads. If it leads itself, it sleeps as a leader does. A callback that waits
//! for another call of this pool would wait for its own thread: there, the wait goes on with that thread's work instead.

use crate::deadline::Deadline;
use crate::error::{Error, Result, TaskError, TaskErrorKind};
use crate::pool::call::{Call, Raw};
use crate::pool::dispatch::JobId;
use crate::pool::floor::{Floor, Plan, Supply, Turn};
use crate::pool::staff::Staff;
use crate::pool::stats::PoolStats;
use crate::shm::{LONGEST_OF_CLIENT, Spin};
use crate::sys::poll::{Wake, Watch};
use crate::sys::{clock, identity, limits, signal};
use crate::task::guard;
use crate::wire::batch::Batch;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// The number under which the wake-up descriptor is watched; workers have smaller ones.
const WAKE: u64 = u64::MAX;

/// How long workers may take to end by themselves when the pool is joined.
const GRACE: Duration = Duration::from_secs(5);

/// Whether a call waits for something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    Wait,
    /// Without spinning first: nobody waits for this one, and others want the lock.
    Sleep,
    Now,
}

thread_local! {
    /// Which pool's own thread this is, by the address of what it shares; 0 for none.
    static SERVED: Cell<usize> = const { Cell::new(0) };
}

/// A pool's workers and their work, for any number of threads. The pool has one; it ends when that is dropped.
#[derive(Debug)]
pub(crate) struct Driver {
    shared: Arc<Shared>,
}

/// What the pool, its thread and the handles of its calls share.
#[derive(Debug)]
pub(crate) struct Shared {
    core: Mutex<Core>,
    /// The process that built the pool. One that was forked from it has no part in it.
    owner: u32,
    followers: Condvar,
    chores: Condvar,
    /// What the pool's thread has taken to complete. Nobody else looks at it.
    completing: Mutex<VecDeque<(Arc<Call>, Raw)>>,
    wake: Wake,
    watch: Arc<Watch>,
}

#[derive(Debug)]
struct Core {
    floor: Floor,
    has_leader: bool,
    is_asleep: bool,
    /// The time limit that the leader, if it sleeps, wakes for.
    sleeps_until: Option<u64>,
    followers: usize,
    /// Asynchronous calls that have not been completed.
    calls: usize,
    thread: Option<JoinHandle<()>>,
    is_closed: bool,
    is_over: bool,
    spin: Spin,
    news: Vec<u64>,
}

impl Driver {
    /// Starts the workers and waits until they run. Each is replaced after `items_max` items.
    pub(crate) fn start(staff: Staff, items_max: Option<usize>) -> Result<Driver> {
        let failed = |error| Error::io("cannot watch the workers of a pool", error);
        let wake = Wake::new().map_err(failed)?;
        let watch = staff.watch();
        watch.add(wake.descriptor(), WAKE).map_err(failed)?;
        let core = Core {
            floor: Floor::start(staff, items_max)?,
            has_leader: false,
            is_asleep: false,
            sleeps_until: None,
            followers: 0,
            calls: 0,
            thread: None,
            is_closed: false,
            is_over: false,
            spin: Spin::new(LONGEST_OF_CLIENT),
            news: Vec::new(),
        };
        let shared = Shared {
            core: Mutex::new(core),
            owner: identity::pid(),
            followers: Condvar::new(),
            chores: Condvar::new(),
            completing: Mutex::default(),
            wake,
            watch,
        };
        Ok(Driver {
            shared: Arc::new(shared),
        })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn workers(&self) -> usize {
        self.shared.core.lock().floor.workers()
    }

    /// The workers' pids, after those that have ended meanwhile have been replaced.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut core = self.shared.core.lock();
        if !core.has_leader && self.shared.owner == identity::pid() {
            core.floor.look_for_ends();
            self.shared.after_change(&mut core);
        }
        core.floor.staff().pids()
    }

    pub(crate) fn stats(&self) -> PoolStats {
        self.shared.core.lock().floor.stats()
    }

    /// Refuses calls from here on.
    pub(crate) fn close(&self) {
        if self.shared.owner == identity::pid() {
            self.shared.core.lock().is_closed = true;
        }
    }

    /// Refuses calls, waits until those under way are completed, and lets the workers end.
    pub(crate) fn join(&self) -> Result<()> {
        self.shared
            .check_owner()
            .map_err(|error| Error::refused("cannot join a pool", error.to_string()))?;
        let mut core = self.shared.core.lock();
        core.is_closed = true;
        if core.is_own_thread() {
            let why = "its own thread, which runs callbacks, cannot wait for itself";
            return Err(Error::refused("cannot join a pool", why));
        }
        while core.calls > 0 {
            core.followers += 1;
            self.shared.followers.wait(&mut core);
            core.followers -= 1;
        }
        core.floor.staff().dismiss_all(Deadline::after(GRACE));
        Ok(())
    }
}

impl Drop for Driver {
    /// Kills the workers and waits until they are gone; ends the calls that are under way.
    fn drop(&mut self) {
        let shared = &self.shared;
        if shared.owner != identity::pid() {
            return;
        }
        let mut core = shared.core.lock();
        core.is_closed = true;
        core.is_over = true;
        core.floor.end_calls();
        core.floor
            .staff()
            .dismiss_all(Deadline::after(Duration::ZERO));
        // A callback may drop the pool.
        let thread = core.thread.take();
        let thread = thread.filter(|thread| thread.thread().id() != thread::current().id());
        shared.rouse(&core);
        drop(core);
        if let Some(thread) = thread {
            // It catches what callbacks panic with; should it end by a panic, all that it had to do has been tried.
            let _panicked = thread.join();
        }
    }
}

impl Shared {
    fn check_owner(&self) -> Result<(), TaskError> {
        if self.owner == identity::pid() {
            return Ok(());
        }
        let why = format!(
            "the pool belongs to process {}, from which this one was forked",
            self.owner
        );
        Err(TaskError::new(TaskErrorKind::System, why))
    }

    fn check_open(&self) -> Result<MutexGuard<'_, Core>, TaskError> {
        self.check_owner()?;
        let core = self.core.lock();
        if core.is_closed {
            let why = "the pool is closed";
            return Err(TaskError::new(TaskErrorKind::System, why));
        }
        Ok(core)
    }

    /// Opens a job.
    pub(crate) fn open(&self, plan: Plan) -> Result<JobId, TaskError> {
        let mut core = self.check_open()?;
        let id = core.floor.open(plan)?;
        self.after_change(&mut core);
        Ok(id)
    }

    /// Takes in a batch of a job's items and sends what the workers want of it.
    pub(crate) fn submit(&self, job: JobId, item: usize, batch: Batch) {
        let mut core = self.core.lock();
        core.floor.submit(job, item, batch);
        core.floor.feed();
        self.after_change(&mut core);
    }

    /// No more items of this job will come.
    pub(crate) fn complete(&self, job: JobId) {
        self.core.lock().floor.complete(job);
    }

    /// Drops a job, whatever is left of it.
    pub(crate) fn close(&self, job: JobId) {
        let mut core = self.core.lock();
        core.floor.close(job);
        core.floor.feed();
        self.after_change(&mut core);
    }

    /// How many items of `job` keep all workers busy.
    pub(crate) fn enough_items(&self, job: JobId) -> usize {
        self.core.lock().floor.enough_items(job)
    }

    /// Makes an asynchronous call of one item; returns its job and item.
    pub(crate) fn call_one(
        self: &Arc<Self>,
        plan: Plan,
        argument: Batch,
        call: Arc<Call>,
    ) -> Result<(JobId, usize), TaskError> {
        let mut core = self.check_open()?;
        self.need_thread(&mut core)?;
        let made = core.floor.call_one(plan, argument, call)?;
        self.after_call(&mut core);
        Ok(made)
    }

    /// Makes an asynchronous call of many items; returns its job.
    pub(crate) fn call_all(
        self: &Arc<Self>,
        plan: Plan,
        batches: Vec<(usize, Batch)>,
        call: Arc<Call>,
    ) -> Result<JobId, TaskError> {
        let mut core = self.check_open()?;
        self.need_thread(&mut core)?;
        let made = core.floor.call_all(plan, batches, call)?;
        self.after_call(&mut core);
        Ok(made)
    }

    /// Has the pool's thread complete a call that could not be made.
    pub(crate) fn refuse_call(
        self: &Arc<Self>,
        call: Arc<Call>,
        error: TaskError,
    ) -> Result<(), TaskError> {
        self.check_owner()?;
        let mut core = self.core.lock();
        self.need_thread(&mut core)?;
        core.floor.finish(call, Raw::Failed(error));
        self.after_call(&mut core);
        Ok(())
    }

    /// Ends a call: who works on it is killed.
    pub(crate) fn cancel(&self, job: JobId, item: Option<usize>) {
        if self.check_owner().is_err() {
            return;
        }
        let mut core = self.core.lock();
        if !core.is_over {
            core.floor.cancel(job, item);
            self.after_change(&mut core);
        }
    }

    /// A call was made: somebody has to lead.
    fn after_call(&self, core: &mut Core) {
        core.calls += 1;
        if !core.has_leader {
            self.chores.notify_one();
        }
        self.after_change(core);
    }

    /// Starts the pool's thread, if it does not run yet.
    fn need_thread(self: &Arc<Self>, core: &mut Core) -> Result<(), TaskError> {
        if core.thread.is_some() || core.is_over {
            return Ok(());
        }
        let shared = Arc::clone(self);
        let failed = |error: io::Error| {
            let limit = limits::behind(&error).map_or(String::new(), |limit| format!(" ({limit})"));
            let why = format!("cannot start the thread of a pool: {error}{limit}");
            TaskError::new(TaskErrorKind::System, why)
        };
        let builder = thread::Builder::new().name("pool".to_owned());
        // The application's handlers run on the application's threads.
        let started = signal::with_all_blocked(|| builder.spawn(move || shared.serve()));
        core.thread = Some(started.and_then(|started| started).map_err(failed)?);
        Ok(())
    }

    /// What the pool's thread does, until the pool is over.
    fn serve(&self) {
        SERVED.set(std::ptr::from_ref(self).addr());
        while self.serve_once(Deadline::NEVER) {}
    }

    /// Does what is next for the pool's thread, or waits for it until `deadline`; returns whether there may be more.
    ///
    /// A callback may wait for another call, and then does this in its turn (see [`Shared::await_call`]). So what is to be
    /// completed stands where the inner round finds it too, and each call leaves it before it is completed.
    fn serve_once(&self, deadline: Deadline) -> bool {
        let mut core = self.core.lock();
        let finished = core.floor.take_finished();
        let mut completing = self.completing.lock();
        completing.extend(finished);
        let has_some = !completing.is_empty();
        drop(completing);
        if has_some {
            let count = MutexGuard::unlocked(&mut core, || self.complete_all());
            core.calls = core.calls.saturating_sub(count);
            self.notify_followers(&core);
        } else if core.is_over {
            return false;
        } else if core.calls == 0 || core.has_leader {
            wait_until(&self.chores, &mut core, deadline);
        } else {
            self.lead(&mut core, Patience::Sleep, deadline);
        }
        true
    }

    /// Completes what there is; returns how many calls that were.
    fn complete_all(&self) -> usize {
        let mut count = 0;
        while let Some((call, raw)) = self.next_to_complete() {
            // Wakers and destructors are the user's. The other calls are not to suffer.
            let _panic = guard(move || call.complete(raw));
            count += 1;
        }
        count
    }

    fn next_to_complete(&self) -> Option<(Arc<Call>, Raw)> {
        self.completing.lock().pop_front()
    }

    /// Has the pool's own thread, in a callback, go on with its work until `call` is done or `deadline` passes: nobody
    /// else would. Does nothing on any other thread.
    pub(crate) fn await_call(&self, call: &Call, deadline: Deadline) {
        if SERVED.get() != std::ptr::from_ref(self).addr() {
            return;
        }
        while !call.is_ready() && !deadline.has_passed() && self.serve_once(deadline) {}
    }

    /// Finds out what the caller of `job` does next, and leads if nobody does.
    pub(crate) fn turn(&self, job: JobId, supply: Supply, patience: Patience) -> Turn {
        let mut core = self.core.lock();
        let mut has_led = false;
        loop {
            if let Some(turn) = core.floor.turn_of(job, supply) {
                break if has_led {
                    self.hand_over(&core, turn)
                } else {
                    turn
                };
            }
            if patience == Patience::Now && (has_led || core.has_leader) {
                break self.hand_over(&core, Turn::Nothing);
            }
            if core.has_leader {
                core.followers += 1;
                self.followers.wait(&mut core);
                core.followers -= 1;
                continue;
            }
            has_led = true;
            self.lead(&mut core, patience, Deadline::NEVER);
        }
    }

    /// Leads for one round, in which it sleeps until `limit` at most.
    fn lead(&self, core: &mut MutexGuard<'_, Core>, patience: Patience, limit: Deadline) {
        core.has_leader = true;
        let has_news = core.floor.pump();
        if core.floor.has_finished() {
            self.chores.notify_one();
        }
        if !has_news && patience != Patience::Now {
            self.rest(core, patience, limit);
        }
        core.has_leader = false;
        self.notify_followers(core);
        // Whoever was woken needs the lock, and news may come faster than this thread would ever give it up.
        MutexGuard::bump(core);
    }

    /// Leaves the lead to the pool's thread, if there is anything that it has to lead for.
    fn hand_over(&self, core: &Core, turn: Turn) -> Turn {
        if core.calls > 0 && !core.has_leader {
            self.chores.notify_one();
        }
        turn
    }

    fn notify_followers(&self, core: &Core) {
        if core.followers > 0 {
            self.followers.notify_all();
        }
    }

    /// Waits until there is news: spins if a processor is free for that, then sleeps.
    fn rest(&self, core: &mut MutexGuard<'_, Core>, patience: Patience, limit: Deadline) {
        core.floor.staff().settle();
        let Core { floor, spin, .. } = &mut **core;
        let may_spin = patience == Patience::Wait && !floor.keeps_busy(limits::processors());
        if may_spin && floor.spin_for_news(spin) {
            return;
        }
        let mut news = std::mem::take(&mut core.news);
        news.clear();
        // The pool's thread has these to complete; whoever else leads has woken it, and gives up the lock by sleeping.
        let has_chores = patience == Patience::Sleep && core.floor.has_finished();
        if !core.floor.announce_sleep() && !has_chores && !core.is_over {
            core.is_asleep = true;
            core.sleeps_until = core.floor.next_deadline();
            let deadline = until(core.sleeps_until, limit);
            let watch = &self.watch;
            let start = Instant::now();
            // It fails only where the set itself is gone; then the next round looks again.
            let _ready = MutexGuard::unlocked(core, || watch.wait(&mut news, deadline));
            core.is_asleep = false;
            core.spin.learn(start.elapsed());
        }
        core.floor.wake_up();
        for &number in &news {
            if number == WAKE {
                self.wake.clear();
            } else {
                core.floor.staff().hear(number);
            }
        }
        core.news = news;
    }

    /// What the leader sleeps for may have changed: says so to the workers, or has it look again.
    fn after_change(&self, core: &mut Core) {
        if core.floor.has_finished() {
            self.rouse(core);
            return;
        }
        if !core.is_asleep {
            return;
        }
        let next = core.floor.next_deadline();
        let is_sooner = match (next, core.sleeps_until) {
            (Some(next), Some(until)) => next < until,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if core.floor.announce_sleep() || is_sooner {
            self.wake.ring();
        }
    }

    /// Has the pool's thread look at what there is, whether it leads or not.
    fn rouse(&self, core: &Core) {
        self.chores.notify_one();
        if core.is_asleep {
            self.wake.ring();
        }
    }
}

impl Core {
    fn is_own_thread(&self) -> bool {
        let own = self.thread.as_ref().map(|thread| thread.thread().id());
        own == Some(thread::current().id())
    }
}

/// Waits for a notification until the deadline passes.
fn wait_until(condition: &Condvar, core: &mut MutexGuard<'_, Core>, deadline: Deadline) {
    match deadline.remaining() {
        None => condition.wait(core),
        Some(left) => {
            let _timed_out = condition.wait_for(core, left);
        }
    }
}

/// A moment of the monotonic clock, or `limit` if that is sooner.
fn until(moment: Option<u64>, limit: Deadline) -> Deadline {
    match moment {
        None => limit,
        Some(moment) => {
            let left = moment.saturating_sub(clock::monotonic_nanos());
            limit.or_after(Duration::from_nanos(left))
        }
    }
}
