//! The pool's own thread, and the calls it is there for: started with the first of them, it completes them and leads
//! while some are under way and nobody else does.

use crate::deadline::Deadline;
use crate::error::{TaskError, TaskErrorKind};
use crate::pool::call::{Call, Raw};
use crate::pool::dispatch::JobId;
use crate::pool::lead::Patience;
use crate::pool::plan::Plan;
use crate::pool::shared::{Core, Shared};
use crate::sys::{limits, signal};
use crate::task::guard;
use crate::wire::batch::Batch;
use parking_lot::{Condvar, MutexGuard};
use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::thread;

thread_local! {
    /// Which pool's own thread this is, by the address of what it shares; 0 for none.
    static SERVED: Cell<usize> = const { Cell::new(0) };
}

impl Shared {
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
