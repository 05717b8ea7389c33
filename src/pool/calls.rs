//! Asynchronous calls on the floor: made, cancelled, and handed out when they have ended.

use crate::error::{TaskError, TaskErrorKind};
use crate::pool::call::{Call, Finished, Raw};
use crate::pool::dispatch::JobId;
use crate::pool::floor::{Doom, Floor, Sink};
use crate::pool::plan::{Plan, Settings};
use crate::pool::stream::{Entry, Stream};
use crate::sys::clock;
use crate::wire::batch::Batch;
use crate::wire::few::Single;
use std::sync::Arc;

/// How many calls one stream takes; then another one begins, so that what is kept for a stream is bounded.
const STREAM_ITEMS_MAX: usize = 1 << 16;

impl Floor {
    /// Takes in one call; returns its job and item.
    pub(crate) fn call_one(
        &mut self,
        plan: Plan,
        argument: Single,
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
        let (mut item, mut may_wait) = (0, false);
        if let Some(Sink::Calls(stream)) = self.jobs.get_mut(&id).map(|job| &mut job.sink) {
            item = stream.next_item();
            if !stream.is_waiting() {
                self.waiting.push(id);
            }
            stream.entries.push_back(Entry {
                call: Some(call),
                argument: Some(argument),
                since: clock::monotonic_nanos(),
            });
            may_wait = stream.may_wait();
        }
        if item + 1 >= STREAM_ITEMS_MAX && may_share {
            self.streams.remove(&function);
        }
        if !may_wait || self.dispatcher.lacks_pieces() {
            self.feed();
        }
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
            self.finish(call, Raw::All(Vec::new()));
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
        self.finish(call, error());
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
        self.finished.push(Finished::One(call, raw));
    }

    /// Calls that are to be completed without the lock.
    pub(crate) fn take_finished(&mut self) -> Vec<Finished> {
        std::mem::take(&mut self.finished)
    }

    pub(crate) fn has_finished(&self) -> bool {
        !self.finished.is_empty()
    }
}
