//! What a pool, its thread and the handles of its calls share: the floor behind a lock, and what wakes whom.
//! Who drives it is told in `lead.rs`.

use crate::error::{TaskError, TaskErrorKind};
use crate::pool::call::{Call, Raw};
use crate::pool::dispatch::JobId;
use crate::pool::floor::Floor;
use crate::pool::plan::Plan;
use crate::shm::Spin;
use crate::sys::identity;
use crate::sys::poll::{Wake, Watch};
use crate::wire::batch::Batch;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

/// What the pool, its thread and the handles of its calls share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) core: Mutex<Core>,
    /// The process that built the pool. One that was forked from it has no part in it.
    pub(crate) owner: u32,
    pub(crate) followers: Condvar,
    pub(crate) chores: Condvar,
    /// What the pool's thread has taken to complete. Nobody else looks at it.
    pub(crate) completing: Mutex<VecDeque<(Arc<Call>, Raw)>>,
    pub(crate) wake: Wake,
    pub(crate) watch: Arc<Watch>,
}

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) floor: Floor,
    pub(crate) has_leader: bool,
    pub(crate) is_asleep: bool,
    /// The time limit that the leader, if it sleeps, wakes for.
    pub(crate) sleeps_until: Option<u64>,
    pub(crate) followers: usize,
    /// Asynchronous calls that have not been completed.
    pub(crate) calls: usize,
    pub(crate) thread: Option<JoinHandle<()>>,
    pub(crate) is_closed: bool,
    pub(crate) is_over: bool,
    pub(crate) spin: Spin,
    pub(crate) news: Vec<u64>,
}

impl Shared {
    pub(crate) fn check_owner(&self) -> Result<(), TaskError> {
        if self.owner == identity::pid() {
            return Ok(());
        }
        let why = format!(
            "the pool belongs to process {}, from which this one was forked",
            self.owner
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

    /// What the leader sleeps for may have changed: says so to the workers, or has it look again.
    pub(crate) fn after_change(&self, core: &mut Core) {
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
