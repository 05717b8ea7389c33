//! The pool's own thread, and the calls it is there for: started with the first of them, it completes them and leads
//! while some are under way and nobody else does.

use crate::deadline::Deadline;
use crate::error::{TaskError, TaskErrorKind};
use crate::pool::call::{Call, Raw};
use crate::pool::dispatch::JobId;
use crate::pool::lead::{Patience, until};
use crate::pool::plan::Plan;
use crate::pool::shared::{Core, Ended, Shared};
use crate::sys::{clock, limits, signal};
use crate::task::guard;
use crate::wire::batch::Batch;
use crate::wire::few::Single;
use parking_lot::{Condvar, MutexGuard};
use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::thread;

thread_local! {
    /// Which pool's own thread this is, by the address of what it shares; 0 for none.
    static SERVED: Cell<usize> = const { Cell::new(0) };
    /// How many callbacks on this thread wait for other calls, each in the one before.
    static NESTED: Cell<usize> = const { Cell::new(0) };
}

/// How deep callbacks are nested of which each waits for another call. In a deeper wait none is run but that of the call
/// which is waited for; the others are left to the waits further out.
const NESTED_MAX: usize = 16;

impl Shared {
    /// Makes an asynchronous call of one item; returns its job and item.
    pub(crate) fn call_one(
        self: &Arc<Self>,
        plan: Plan,
        argument: Single,
        call: Arc<Call>,
    ) -> Result<(JobId, usize), TaskError> {
        let _teller = self.diary.teller();
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
        let _teller = self.diary.teller();
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
        let _teller = self.diary.teller();
        let mut core = self.core.lock();
        self.need_thread(&mut core)?;
        core.floor.finish(call, Raw::Failed(error));
        self.after_call(&mut core);
        Ok(())
    }

    /// Has the pool's thread keep time limits while nobody leads.
    pub(crate) fn keep_limits(self: &Arc<Self>) -> Result<(), TaskError> {
        self.check_owner()?;
        let mut core = self.core.lock();
        self.need_thread(&mut core)
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
        while self.serve_once(None, Deadline::NEVER) {}
    }

    /// Does what is next for the pool's thread, or waits for it until `deadline`; returns whether there may be more.
    ///
    /// A callback may wait for another call, and then does this in its turn (see [`Shared::await_call`]), for `awaited`. So
    /// what is to be completed stands where the inner round finds it too, and each call leaves it before it is completed.
    fn serve_once(&self, awaited: Option<&Call>, deadline: Deadline) -> bool {
        let _teller = self.diary.teller();
        let mut core = self.core.lock();
        let finished = core.floor.take_finished();
        self.completing.lock().next.append(finished);
        if self.has_to_complete(awaited) {
            let count = MutexGuard::unlocked(&mut core, || self.complete_all(awaited));
            core.calls = core.calls.saturating_sub(count);
            self.notify_followers(&core);
        } else if core.is_over {
            return false;
        } else if core.calls == 0 || core.has_leader {
            self.wait_for_chores(&mut core, deadline);
        } else {
            self.lead(&mut core, Patience::Sleep, deadline);
        }
        true
    }

    /// Waits until there is something to do, or a time limit passes that nobody else keeps: then looks what is overdue.
    fn wait_for_chores(&self, core: &mut MutexGuard<'_, Core>, deadline: Deadline) {
        let next = core.floor.next_deadline();
        let has_passed = next.is_some_and(|next| next <= clock::monotonic_nanos());
        if has_passed && !core.has_leader {
            self.lead(core, Patience::Now, deadline);
            return;
        }
        // One that has passed is kept by whoever leads, who says so on leaving if another one is next.
        core.keeps_until = next.filter(|_| !has_passed);
        let until = until(core.keeps_until, deadline);
        wait_until(&self.chores, core, until);
        core.keeps_until = None;
    }

    /// Whether this round has calls to complete.
    fn has_to_complete(&self, awaited: Option<&Call>) -> bool {
        let ended = self.completing.lock();
        let is_put_off = || ended.put_off.iter().any(|(call, _)| is_same(call, awaited));
        let has_next = !ended.next.is_empty();
        has_next || (!ended.put_off.is_empty() && (NESTED.get() < NESTED_MAX || is_put_off()))
    }

    /// Completes what there is; returns how many calls that were.
    fn complete_all(&self, awaited: Option<&Call>) -> usize {
        let mut count = 0;
        while let Some((call, raw)) = self.next_to_complete(awaited) {
            // Wakers and destructors are the user's. The other calls are not to suffer.
            let _panic = guard(move || call.complete(raw));
            count += 1;
        }
        count
    }

    fn next_to_complete(&self, awaited: Option<&Call>) -> Option<(Arc<Call>, Raw)> {
        let mut ended = self.completing.lock();
        let Ended { put_off, next } = &mut *ended;
        if NESTED.get() < NESTED_MAX {
            return put_off.pop_front().or_else(|| next.next());
        }
        for (call, raw) in next.by_ref() {
            if !call.has_callback() || is_same(&call, awaited) {
                return Some((call, raw));
            }
            put_off.push_back((call, raw));
        }
        let place = put_off.iter().position(|(call, _)| is_same(call, awaited));
        put_off.remove(place?)
    }

    /// Has the pool's own thread, in a callback, go on with its work until `call` is done or `deadline` passes: nobody
    /// else would. Does nothing on any other thread.
    pub(crate) fn await_call(&self, call: &Call, deadline: Deadline) {
        if SERVED.get() != std::ptr::from_ref(self).addr() {
            return;
        }
        NESTED.set(NESTED.get() + 1);
        while !call.is_ready() && !deadline.has_passed() && self.serve_once(Some(call), deadline) {}
        NESTED.set(NESTED.get() - 1);
    }
}

fn is_same(call: &Arc<Call>, awaited: Option<&Call>) -> bool {
    awaited.is_some_and(|awaited| std::ptr::eq(Arc::as_ptr(call), awaited))
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
