//! A pool's workers and their work, as the pool owns them: started, closed, joined and ended.

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::pool::crowding::Crowding;
use crate::pool::floor::Floor;
use crate::pool::lead::WAKE;
use crate::pool::shared::{Core, Shared};
use crate::pool::staff::Staff;
use crate::pool::stats::{Books, PoolStats};
use crate::shm::{LONGEST_OF_CLIENT, Spin};
use crate::sys::life::Life;
use crate::sys::limits;
use crate::sys::poll::Wake;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// How long workers may take to end by themselves when the pool is joined.
const GRACE: Duration = Duration::from_secs(5);

/// A pool's workers and their work, for any number of threads. The pool has one; it ends when that is dropped.
#[derive(Debug)]
pub(crate) struct Driver {
    shared: Arc<Shared>,
}

impl Driver {
    /// Starts the workers and waits until they run. Each is replaced after `items_max` items.
    pub(crate) fn start(staff: Staff, items_max: Option<usize>) -> Result<Driver> {
        let failed = |error| limits::explained("cannot watch the workers of a pool", error);
        let wake = Wake::new().map_err(failed)?;
        let watch = staff.watch();
        let diary = Arc::clone(staff.diary());
        let workers = staff.slots().len();
        let _teller = diary.teller();
        watch.add(wake.descriptor(), WAKE).map_err(failed)?;
        let core = Core {
            floor: Floor::start(staff, items_max)?,
            has_leader: false,
            is_asleep: false,
            sleeps_until: None,
            keeps_until: None,
            followers: 0,
            calls: 0,
            thread: None,
            is_closed: false,
            is_over: false,
            spin: Spin::new(LONGEST_OF_CLIENT),
            crowding: Crowding::new(),
            news: Vec::new(),
        };
        let shared = Shared {
            core: Mutex::new(core),
            owner: Life::now(),
            workers,
            followers: Condvar::new(),
            chores: Condvar::new(),
            completing: Mutex::default(),
            wake,
            watch,
            diary: Arc::clone(&diary),
        };
        Ok(Driver {
            shared: Arc::new(shared),
        })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn workers(&self) -> usize {
        self.shared.workers
    }

    /// The workers' pids, after those that have ended meanwhile have been replaced. A process that was forked from the pool's has none.
    pub(crate) fn pids(&self) -> Vec<u32> {
        if !self.shared.is_owner() {
            return Vec::new();
        }
        let _teller = self.shared.diary.teller();
        let mut core = self.shared.core.lock();
        if !core.has_leader {
            core.floor.look_for_ends();
            self.shared.after_change(&mut core);
        }
        core.floor.staff().pids()
    }

    pub(crate) fn stats(&self) -> PoolStats {
        if !self.shared.is_owner() {
            return Books::of_workers(self.shared.workers).stats();
        }
        self.shared.core.lock().floor.stats()
    }

    /// Refuses calls from here on.
    pub(crate) fn close(&self) {
        if self.shared.is_owner() {
            self.shared.core.lock().is_closed = true;
        }
    }

    /// Refuses calls, waits until those under way are completed, and lets the workers end.
    pub(crate) fn join(&self) -> Result<()> {
        self.shared
            .check_owner()
            .map_err(|error| Error::refused("cannot join a pool", error.to_string()))?;
        let _teller = self.shared.diary.teller();
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
        if !shared.is_owner() {
            return;
        }
        let _teller = shared.diary.teller();
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
