//! The worker processes of a pool: started, spoken to, watched, and buried.

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::pool::dispatch::JobId;
use crate::pool::hired::{Body, RING, State, Worker};
use crate::pool::place::{End, Setup, Slot};
use crate::pool::protocol::to_worker;
use crate::pool::trace::Diary;
use crate::pool::worker::describe_worker;
use crate::process::{self, Echo, NotStarted, Order, Spares, StartMethod};
use crate::sys::limits;
use crate::sys::poll::Watch;
use crate::sys::socket;
use crate::sys::step::step;
use crate::wire::{Header, Link};
use std::os::fd::AsFd;
use std::sync::Arc;

/// All workers of a pool.
#[derive(Debug)]
pub(crate) struct Staff {
    slots: Vec<Slot>,
    name: String,
    method: StartMethod,
    watch: Arc<Watch>,
    /// Why the last start failed, and how many have in a row.
    refusal: Option<Error>,
    starts_failed: usize,
    /// How often in a row a worker was tried for jobs that had none left.
    last_tries: usize,
    /// What every worker does first.
    setup: Option<Setup>,
    /// Not where one has died over a start, till something has got on.
    spares: Spares,
    /// What is to be told of all this.
    diary: Arc<Diary>,
}

/// How many workers are tried in a row for jobs that have none left.
const LAST_TRIES_MAX: usize = 6;

/// How many starts in a row may fail before that is final for the jobs that wait.
const STARTS_FAILED_MAX: usize = 3;

impl Staff {
    pub(crate) fn new(
        workers: usize,
        name: String,
        method: StartMethod,
        setup: Option<Setup>,
    ) -> Result<Staff> {
        let watch =
            Watch::new().map_err(|error| limits::explained("cannot build a pool", error))?;
        Ok(Staff {
            slots: (0..workers).map(|_| Slot::default()).collect(),
            name,
            method,
            watch: Arc::new(watch),
            refusal: None,
            starts_failed: 0,
            last_tries: 0,
            setup,
            spares: Spares::Welcome,
            diary: Arc::default(),
        })
    }

    pub(crate) fn watch(&self) -> Arc<Watch> {
        Arc::clone(&self.watch)
    }

    pub(crate) fn diary(&self) -> &Arc<Diary> {
        &self.diary
    }

    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(crate) fn slots_mut(&mut self) -> &mut [Slot] {
        &mut self.slots
    }

    pub(crate) fn worker(&mut self, index: usize) -> Option<&mut Worker> {
        self.slots[index].worker.as_mut()
    }

    /// Asks for a worker in the place `index`. It can be sent to at once, though it may not run yet.
    pub(crate) fn hire(&mut self, index: usize) -> Result<()> {
        match self.try_hire(index) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.refusal = Some(Error::refused("", error.to_string()));
                Err(error)
            }
        }
    }

    fn try_hire(&mut self, index: usize) -> Result<()> {
        let name = format!("{}-{}", self.name, index + 1);
        let failed = |error| limits::explained(format!("cannot start worker {name:?}"), error);
        let (link, peer) = Link::pair(RING).map_err(failed)?;
        let order = Order {
            name: Some(name.clone()),
            is_daemon: true,
            method: self.method,
            echo: Echo::Silent,
            function: describe_worker(),
            variables: Vec::new(),
            stack_size: None,
        };
        self.diary.worker_starts(&name);
        let descriptors = [peer.memory.as_fd(), peer.socket.as_fd()];
        let starting = process::start(self.spares, order, &[], &descriptors)?;
        step!("pool::hire::asked");
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        slot.has_ended = false;
        slot.is_unbegun = false;
        let number = number_of(slot.generation, index, News::Doorbell);
        self.watch.add(link.news(), number).map_err(failed)?;
        let mut worker = Worker::new(link, starting, self.setup.is_none());
        if let Some(setup) = &self.setup {
            setup.send(&mut worker);
        }
        slot.worker = Some(worker);
        step!("pool::hire::watched");
        Ok(())
    }

    /// Why the last start failed, for the caller who asked for it.
    pub(crate) fn take_refusal(&mut self) -> Error {
        let unknown = || Error::refused("cannot start a worker", "it ended at once");
        self.refusal.take().unwrap_or_else(unknown)
    }

    /// What is said where no worker can be had.
    pub(crate) fn refusal(&self) -> String {
        match &self.refusal {
            Some(error) => error.to_string(),
            None => "no worker is left".to_owned(),
        }
    }

    /// Waits until every worker runs that was asked for; one that was refused has ended.
    pub(crate) fn settle(&mut self) {
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            let is_awaited = |worker: &Worker| !worker.is_settled() && !slot.has_ended;
            if slot.worker.as_ref().is_some_and(is_awaited) && self.settle_one(index) {
                self.watch_end(index);
            }
        }
    }

    /// Waits until the worker in this place runs, and notes why it does not; returns whether it does.
    fn settle_one(&mut self, index: usize) -> bool {
        let slot = &mut self.slots[index];
        let Some(worker) = &mut slot.worker else {
            return false;
        };
        if !matches!(worker.process, State::Starting(Some(_))) {
            return worker.is_settled();
        }
        let Err(error) = worker.settle() else {
            return true;
        };
        slot.has_ended = true;
        slot.is_unbegun = matches!(error, NotStarted::Unbegun(_));
        if slot.is_unbegun {
            self.spares = Spares::Unwanted;
        }
        self.refusal = Some(error.into());
        false
    }

    fn watch_end(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let process = slot.worker.as_ref().map(|worker| &worker.process);
        if let Some(State::Running(child)) = process {
            let number = number_of(slot.generation, index, News::End);
            slot.has_ended |= self.watch.add(child.process().as_fd(), number).is_err();
        }
    }

    /// Has a worker's socket watched for room as well, while something waits for that, and for nothing longer: where there is
    /// room, the wait would end at once. Returns whether that failed.
    pub(crate) fn watch_for_room(&mut self, index: usize) -> bool {
        let slot = &mut self.slots[index];
        let Some(worker) = &mut slot.worker else {
            return false;
        };
        let waits = worker.waits_for_socket();
        if waits == worker.is_watched_for_room {
            return false;
        }
        let number = number_of(slot.generation, index, News::Doorbell);
        let watched = self.watch.also_for_room(worker.link.news(), number, waits);
        worker.is_watched_for_room = watched.is_ok() && waits;
        waits && watched.is_err()
    }

    /// Takes in news of the descriptor with this number: a doorbell, or the end of a worker.
    pub(crate) fn hear(&mut self, number: u64) {
        let index = (number as u32 >> 1) as usize;
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let Some(worker) = &mut slot.worker else {
            return;
        };
        if number == number_of(slot.generation, index, News::Doorbell) {
            slot.has_ended |= worker.link.hear().is_err();
        } else if number == number_of(slot.generation, index, News::End) {
            // Its socket may be open still: a process that it has forked holds the other end.
            slot.has_ended = true;
        }
    }

    /// Whether the process has ended, as far as the kernel knows.
    pub(crate) fn look_for_end(&mut self, index: usize) -> bool {
        let slot = &mut self.slots[index];
        if let Some(Worker {
            link,
            process: State::Running(child),
            ..
        }) = &mut slot.worker
        {
            slot.has_ended |= link.hear().is_err() || child.has_ended();
        }
        slot.has_ended()
    }

    /// Gives a worker up that is no use any more: it is buried next.
    pub(crate) fn dismiss(&mut self, index: usize) {
        self.slots[index].has_ended = true;
    }

    /// Whether one more worker is tried for jobs that have none left: workers that die before they are any use must not be
    /// tried for ever.
    pub(crate) fn may_try_again(&mut self) -> bool {
        self.last_tries += 1;
        self.last_tries <= LAST_TRIES_MAX
    }

    /// Some item has its outcome: what is tried next is tried with fresh patience.
    pub(crate) fn has_got_on(&mut self) {
        self.last_tries = 0;
        self.spares = Spares::Welcome;
    }

    /// Counts a start that failed; returns whether no other is tried for now. A spare that has left a moment too soon does not
    /// count: no other is used then.
    fn fail_start(&mut self, was_spare: bool) -> bool {
        self.starts_failed += usize::from(!was_spare);
        let is_final = self.starts_failed >= STARTS_FAILED_MAX;
        if is_final {
            self.starts_failed = 0;
        }
        is_final
    }

    /// Kills a worker if it has not ended, and finds out how it ended; `held` items were with it.
    pub(crate) fn bury(&mut self, index: usize, held: usize) -> Option<End> {
        let _runs = self.settle_one(index);
        let slot = &mut self.slots[index];
        let mut worker = slot.worker.take()?;
        slot.has_ended = false;
        let is_unbegun = slot.is_unbegun;
        self.watch.remove(worker.link.news());
        if let State::Running(child) = &worker.process {
            self.watch.remove(child.process().as_fd());
        }
        let begun = worker
            .begun(held)
            .or_else(|| (held > 0 && worker.was_receiving()).then_some(0));
        let was_useful = worker.resolved > 0;
        if was_useful {
            self.starts_failed = 0;
            self.has_got_on();
        }
        let pid = worker.pid();
        let status = match &mut worker.process {
            State::Starting(_) => None,
            State::Running(child) => {
                let _ended = child.process().kill();
                let _lost = child.wait(Deadline::NEVER);
                child.exit_status()
            }
        };
        step!("pool::bury::ended");
        let name = format!("{}-{}", self.name, index + 1);
        self.diary.worker_ended(&name, pid, status);
        Some(End {
            pid,
            status,
            begun,
            is_refused: pid == 0 && self.fail_start(is_unbegun && worker.is_spare),
            was_useful,
            was_ready: worker.is_ready,
        })
    }

    /// Kills a worker that runs, and waits until it is gone: what it has shown till then can be received.
    pub(crate) fn kill(&mut self, index: usize) {
        if self.slots[index].worker.is_none() {
            return;
        }
        self.slots[index].has_ended = true;
        if !self.settle_one(index) {
            return;
        }
        let process = self.slots[index].worker.as_mut();
        if let Some(State::Running(child)) = process.map(|worker| &mut worker.process) {
            let _ended = child.process().kill();
            step!("pool::kill::killed");
            let _lost = child.wait(Deadline::NEVER);
        }
    }

    /// Has every worker that knows the captures of `job` drop them.
    pub(crate) fn forget(&mut self, job: JobId) {
        for worker in self
            .slots
            .iter_mut()
            .filter_map(|slot| slot.worker.as_mut())
        {
            if worker.known.remove(&job) {
                let words = [job, 0, 0, 0];
                let kind = to_worker::FORGET;
                worker.queue(
                    Header {
                        kind,
                        words,
                        ..Header::default()
                    },
                    Body::Empty,
                );
            }
        }
    }

    /// Sends what waits for room, as far as there is any.
    pub(crate) fn send_queued(&mut self) {
        for slot in &mut self.slots {
            if let Some(worker) = &mut slot.worker {
                slot.has_ended |= worker.send_queued().is_err();
            }
        }
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.slots
            .iter()
            .filter_map(|slot| slot.worker.as_ref())
            .filter(|worker| worker.is_settled())
            .map(Worker::pid)
            .collect()
    }

    /// Has all workers end, lets them do so by themselves until `grace` passes, and waits until they are gone.
    pub(crate) fn dismiss_all(&mut self, grace: Deadline) {
        let mut children = Vec::new();
        for worker in self.slots.iter_mut().filter_map(|slot| slot.worker.take()) {
            let Worker { link, process, .. } = worker;
            self.watch.remove(link.news());
            // It ends when its link does, also where a copy of this process has it still.
            socket::end(link.news());
            drop(link);
            step!("pool::dismiss::closed");
            let child = match process {
                State::Running(child) => Some(child),
                State::Starting(starting) => starting.and_then(|starting| starting.wait().ok()),
            };
            if let Some(child) = child {
                self.watch.remove(child.process().as_fd());
                children.push(child);
            }
        }
        for child in &mut children {
            let has_ended = child.wait(grace);
            if !matches!(has_ended, Ok(true)) {
                let _ended = child.process().kill();
                step!("pool::dismiss::killed");
            }
        }
        for mut child in children {
            let _lost = child.wait(Deadline::NEVER);
        }
    }
}

/// What a watched descriptor of a worker tells of.
#[derive(Clone, Copy, Debug)]
enum News {
    Doorbell = 0,
    End = 1,
}

/// The number under which a descriptor of a worker is watched.
fn number_of(generation: u32, index: usize, news: News) -> u64 {
    u64::from(generation) << 32 | (index as u64) << 1 | news as u64
}
