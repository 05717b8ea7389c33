//! What a pool, its thread and the handles of its calls share: the floor behind a lock, and what wakes whom.
//! Who drives it is told in `lead.rs`.

use crate::error::{TaskError, TaskErrorKind};
use crate::pool::call::{Call, Raw, Waiting};
use crate::pool::crowding::Crowding;
use crate::pool::dispatch::JobId;
use crate::pool::floor::Floor;
use crate::pool::plan::Plan;
use crate::pool::trace::Diary;
use crate::shm::Spin;
use crate::sys::life::Life;
use crate::sys::poll::{Wake, Watch};
use crate::sys::room::Room;
use crate::wire::batch::Batch;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What the pool, its thread and the handles of its calls share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) core: Mutex<Core>,
    /// The process that built the pool. One that was forked from it has no part in it: there, nothing behind the lock is looked at, which
    /// another thread may have held at the fork, and nothing that the workers read is written.
    pub(crate) owner: Life,
    /// How many workers there are.
    pub(crate) workers: usize,
    pub(crate) followers: Condvar,
    pub(crate) chores: Condvar,
    /// What the pool's thread has taken to complete. Nobody else looks at it.
    pub(crate) completing: Mutex<Ended>,
    pub(crate) wake: Wake,
    pub(crate) watch: Arc<Watch>,
    pub(crate) diary: Arc<Diary>,
}

/// Calls that have ended, with what became of them, in the order in which they are completed.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    /// Whose callbacks are left to a wait further out, since as many as may be nested are.
    pub(crate) put_off: VecDeque<(Arc<Call>, Raw)>,
    pub(crate) next: Waiting,
}

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) floor: Floor,
    pub(crate) has_leader: bool,
    pub(crate) is_asleep: bool,
    /// What the leader, if it sleeps, wakes for though there is no news: a time limit, or a worker that may be at something long.
    pub(crate) sleeps_until: Option<u64>,
    /// The time limit that the pool's thread, if it waits for others to lead, wakes for.
    pub(crate) keeps_until: Option<u64>,
    pub(crate) followers: usize,
    /// Asynchronous calls that have not been completed.
    pub(crate) calls: usize,
    pub(crate) thread: Option<JoinHandle<()>>,
    pub(crate) is_closed: bool,
    pub(crate) is_over: bool,
    pub(crate) spin: Spin,
    pub(crate) crowding: Crowding,
    pub(crate) news: Vec<u64>,
}

impl Shared {
    /// Whether this is the process that built the pool.
    pub(crate) fn is_owner(&self) -> bool {
        self.owner == Life::now()
    }

    pub(crate) fn check_owner(&self) -> Result<(), TaskError> {
        if self.is_owner() {
            return Ok(());
        }
        let why = format!(
            "the pool belongs to process {}, from which this one was forked",
            self.owner.pid()
        );
        Err(TaskError::new(TaskErrorKind::System, why))
    }

    pub(crate) fn check_open(&self) -> Result<MutexGuard<'_, Core>, TaskError> {
        self.check_owner()?;
        let core = self.core.lock();
        if core.is_closed {
            let why = "the pool is closed";
            return Err(TaskError::new(TaskErrorKind::System, why));
        }
        Ok(core)
    }

    /// Opens a job.
    pub(crate) fn open(&self, plan: Plan, room: Option<Box<dyn Room>>) -> Result<JobId, TaskError> {
        let _teller = self.diary.teller();
        let mut core = self.check_open()?;
        let id = core.floor.open(plan, room)?;
        self.after_change(&mut core);
        Ok(id)
    }

    /// Takes the room of a job, with the results that came there.
    pub(crate) fn take_room(&self, job: JobId) -> Result<Option<Box<dyn Room>>, TaskError> {
        self.check_owner()?;
        let mut core = self.core.lock();
        let open = core.floor.jobs.get_mut(&job);
        Ok(open.and_then(|open| open.room.take()))
    }

    /// Takes in a batch of a job's items and sends what the workers want of it. In a process that was forked meanwhile it does nothing:
    /// the next [`turn`](Shared::turn) says so.
    pub(crate) fn submit(&self, job: JobId, item: usize, batch: Batch) {
        if !self.is_owner() {
            return;
        }
        let _teller = self.diary.teller();
        let mut core = self.core.lock();
        core.floor.submit(job, item, batch);
        core.floor.feed();
        self.after_change(&mut core);
    }

    /// No more items of this job will come.
    pub(crate) fn complete(&self, job: JobId) {
        if self.is_owner() {
            self.core.lock().floor.complete(job);
        }
    }

    /// Drops a job, whatever is left of it. Not the copy of one, in a process that was forked: the workers are at the job itself.
    pub(crate) fn close(&self, job: JobId) {
        if !self.is_owner() {
            return;
        }
        let _teller = self.diary.teller();
        let mut core = self.core.lock();
        let open = core.floor.jobs.get_mut(&job);
        let room = open.and_then(|open| open.room.take());
        core.floor.close(job);
        core.floor.feed();
        self.after_change(&mut core);
        drop(core);
        // It may be large, and takes a while to be freed.
        drop(room);
    }

    /// How many items of `job` keep all workers busy.
    pub(crate) fn enough_items(&self, job: JobId) -> usize {
        if !self.is_owner() {
            return 0;
        }
        self.core.lock().floor.enough_items(job)
    }

    /// What an item of `job` takes, as far as is known.
    pub(crate) fn item_takes(&self, job: JobId) -> Duration {
        if !self.is_owner() {
            return Duration::ZERO;
        }
        self.core.lock().floor.item_takes(job)
    }

    /// Ends a call: who works on it is killed.
    pub(crate) fn cancel(&self, job: JobId, item: Option<usize>) {
        if self.check_owner().is_err() {
            return;
        }
        let _teller = self.diary.teller();
        let mut core = self.core.lock();
        if !core.is_over {
            core.floor.cancel(job, item);
            self.after_change(&mut core);
        }
    }

    /// What the leader sleeps for may have changed: says so to the workers, or has it look again.
    pub(crate) fn after_change(&self, core: &mut Core) {
        if core.floor.has_finished() {
            self.rouse(core);
            return;
        }
        self.find_keeper(core);
        if !core.is_asleep {
            return;
        }
        let is_sooner = is_sooner(core.floor.next_wake(), core.sleeps_until);
        if core.floor.announce_sleep() || is_sooner {
            self.wake.ring();
        }
    }

    /// Where nobody leads, the pool's thread keeps the time limits: has it look again, if it would do so too late.
    pub(crate) fn find_keeper(&self, core: &Core) {
        let is_kept = core.has_leader || core.thread.is_none();
        if !is_kept && is_sooner(core.floor.next_deadline(), core.keeps_until) {
            self.chores.notify_one();
        }
    }

    /// Has the pool's thread look at what there is, whether it leads or not.
    pub(crate) fn rouse(&self, core: &Core) {
        self.chores.notify_one();
        if core.is_asleep {
            self.wake.ring();
        }
    }
}

impl Core {
    pub(crate) fn is_own_thread(&self) -> bool {
        let own = self.thread.as_ref().map(|thread| thread.thread().id());
        own == Some(thread::current().id())
    }
}

/// Whether something is to happen before the moment that somebody wakes for.
fn is_sooner(next: Option<u64>, until: Option<u64>) -> bool {
    match (next, until) {
        (Some(next), Some(until)) => next < until,
        (Some(_), None) => true,
        (None, _) => false,
    }
}
