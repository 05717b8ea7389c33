//! Deaths of workers: who is killed, who is charged, who takes the place, and what is told where nobody can.

use crate::error::{TaskError, TaskErrorKind};
use crate::pool::call::{Event, Finished, Raw};
use crate::pool::dispatch::{Fate, First, JobId, Overdue};
use crate::pool::floor::{Doom, Fitness, Floor, Sink};

/// How many workers in a row may die before their initializer has returned.
const INITIAL_DEATHS_MAX: u32 = 3;

impl Floor {
    /// Kills workers whose items have taken too long; returns whether there were any.
    pub(crate) fn kill_overdue(&mut self) -> bool {
        let mut has_killed = false;
        loop {
            let Floor {
                dispatcher, staff, ..
            } = self;
            let first = |index, now| {
                let worker = staff.worker(index);
                worker.map_or(First::Unbegun, |worker| worker.first(now))
            };
            let overdue = dispatcher.overdue(first);
            let Some((index, overdue)) = overdue else {
                return has_killed;
            };
            has_killed = true;
            self.kill(
                index,
                match overdue {
                    Overdue::Item => Doom::TimedOut,
                    Overdue::Stuck => Doom::Stuck,
                },
            );
        }
    }

    /// Kills a worker. What it has not begun is taken back first, so that it begins nothing else meanwhile; what it has
    /// shown before its end counts.
    pub(crate) fn kill(&mut self, index: usize, doom: Doom) {
        let doom = match doom {
            Doom::Stuck if !self.dispatcher.stuck(index) => Doom::Cancelled,
            doom => doom,
        };
        if doom != Doom::Stuck {
            self.revoke(index, true);
        }
        let ticket = self.staff.worker(index).map(|worker| worker.resolved);
        self.staff.kill(index);
        self.receive_all(index);
        let now = self.staff.worker(index).map(|worker| worker.resolved);
        // It may have finished the item just in time.
        let doom = if now == ticket { doom } else { Doom::Cancelled };
        self.bury(index, Some(doom));
    }

    /// Has another worker take the place of one that has done what it may.
    pub(crate) fn retire(&mut self, index: usize) {
        if self.staff.bury(index, 0).is_some() {
            self.dispatcher.died(index, Fate::Killed);
            self.hire(index);
        }
    }

    /// Finds out how a worker ended, charges the item that it was at, and has another take its place.
    pub(crate) fn bury(&mut self, index: usize, doom: Option<Doom>) {
        let held = self.dispatcher.items_with(index);
        let Some(end) = self.staff.bury(index, held) else {
            return;
        };
        let fate = match (doom, end.begun) {
            (None, Some(begun)) => Fate::At(begun),
            (None, None) | (Some(Doom::Stuck), _) => Fate::Between,
            (Some(Doom::TimedOut), Some(0)) => Fate::KilledAt(0),
            (Some(_), _) => Fate::Killed,
        };
        let charged = self.dispatcher.died(index, fate);
        if let Some(piece) = charged {
            let error = match doom {
                Some(_) => TaskError::new(TaskErrorKind::Timeout, "").with_status(end.status),
                None => TaskError::crash(end.status),
            };
            if end.pid == 0 {
                // What was sent to it for good is lost with it.
                let error = TaskError::new(TaskErrorKind::System, self.staff.refusal());
                self.charge(piece, error, false);
            } else {
                self.charge(piece, error.in_process(end.pid), true);
                // The job gets on, if only by failures.
                self.staff.has_got_on();
            }
        }
        if !end.was_ready && end.pid != 0 && doom.is_none() {
            self.initial_deaths += 1;
            if self.initial_deaths >= INITIAL_DEATHS_MAX && matches!(self.fitness, Fitness::Fit) {
                self.initial_deaths = 0;
                self.is_unfit(TaskError::crash(end.status).in_process(end.pid));
            }
        }
        let is_needed = doom.is_some() || held > 0 || charged.is_some();
        if end.is_worth_replacing(is_needed) && matches!(self.fitness, Fitness::Fit) {
            self.hire(index);
        }
        self.break_if_deserted();
    }

    /// An initializer has failed: the jobs that are open are told, or the next one that opens. No worker is hired until then.
    pub(crate) fn is_unfit(&mut self, error: TaskError) {
        let error = error.in_initializer();
        self.fitness = if self.jobs.is_empty() {
            Fitness::Unfit(error)
        } else {
            self.break_jobs(&error);
            Fitness::Told
        };
    }

    pub(crate) fn hire_missing(&mut self) {
        for index in 0..self.staff.slots().len() {
            if self.staff.slots()[index].worker.is_none() {
                self.hire(index);
            }
        }
    }

    fn hire(&mut self, index: usize) {
        if self.staff.hire(index).is_ok() {
            self.books.workers[index].restarts += 1;
            self.dispatcher.up(index);
        }
    }

    /// Where no worker is left and none can be had, every job is told.
    pub(crate) fn break_if_deserted(&mut self) {
        let is_fit = matches!(self.fitness, Fitness::Fit);
        if self.dispatcher.has_workers() || self.jobs.is_empty() || !is_fit {
            return;
        }
        if self.staff.may_try_again() {
            self.hire(0);
            if self.dispatcher.has_workers() {
                return;
            }
        }
        let error = TaskError::new(TaskErrorKind::System, self.staff.refusal());
        self.break_jobs(&error);
    }

    fn break_jobs(&mut self, error: &TaskError) {
        let jobs: Vec<JobId> = self.jobs.keys().copied().collect();
        for job in jobs {
            self.break_job(job, error);
        }
    }

    /// Tells a job that nothing more will come.
    pub(crate) fn break_job(&mut self, id: JobId, error: &TaskError) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        match &mut job.sink {
            Sink::Caller(events) => {
                let is_told = matches!(events.last(), Some(Event::Broken { .. }));
                if !is_told && !self.dispatcher.is_done(id) {
                    let (item, error) = (self.dispatcher.first_open(id), error.clone());
                    events.push(Event::Broken { item, error });
                }
                return;
            }
            Sink::Gathered { call, .. } => {
                let call = call.clone();
                self.finish(call, Raw::Failed(error.clone()));
            }
            Sink::Calls(stream) => {
                let calls = stream.entries.drain(..).filter_map(|entry| entry.call);
                let failed = calls.map(|call| Finished::One(call, Raw::Failed(error.clone())));
                self.finished.extend(failed);
            }
        }
        self.close(id);
    }
}
