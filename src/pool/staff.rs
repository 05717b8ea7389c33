//! The worker processes of a pool: started, spoken to, watched, and buried.

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::pool::dispatch::JobId;
use crate::pool::protocol::to_worker;
use crate::pool::worker::describe_worker;
use crate::process::{self, Child, Echo, NotStarted, Order, StartMethod, Starting};
use crate::sys::limits;
use crate::sys::poll::Watch;
use crate::wire::batch::Batch;
use crate::wire::value::Packed;
use crate::wire::{Header, Link, LinkError, Sent};
use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitStatus;
use std::sync::Arc;

/// What a ring between a pool and a worker holds, each way.
const RING: usize = 2 << 20;

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
    /// Whether it failed because the server died, and not because the system refused.
    is_server_lost: bool,
}

/// A worker's place: when one has ended, another takes it.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) worker: Option<Worker>,
    /// Counts the workers that were here, so that late news of a former one are not taken for the present one's.
    generation: u32,
    has_ended: bool,
}

/// A worker process and what is on its way to it.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) link: Link,
    process: State,
    outgoing: VecDeque<Outgoing>,
    /// Tickets that were given out, and those whose items have their outcomes.
    pub(crate) sent: u64,
    pub(crate) resolved: u64,
    /// Jobs whose captures it has.
    pub(crate) known: HashSet<JobId>,
}

#[derive(Debug)]
enum State {
    Starting(Option<Starting>),
    Running(Child),
}

#[derive(Debug)]
struct Outgoing {
    header: Header,
    body: Body,
    sent: Sent,
    /// Where in the stream of bytes it began, once it has.
    start: u64,
}

/// The body of a message to a worker, shared with whoever may have to send it again.
#[derive(Debug)]
pub(crate) enum Body {
    Empty,
    Captures(Arc<Packed>),
    Items(Arc<Batch>, Range<usize>),
}

impl Body {
    fn bytes(&self) -> &[u8] {
        match self {
            Body::Empty => &[],
            Body::Captures(captures) => &captures.bytes,
            Body::Items(batch, range) => batch.slice(range.clone()),
        }
    }

    fn descriptors(&self) -> &[Arc<OwnedFd>] {
        match self {
            Body::Empty => &[],
            Body::Captures(captures) => &captures.descriptors,
            Body::Items(batch, range) => batch.descriptors(range.clone()),
        }
    }
}

/// How a worker ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) pid: u32,
    pub(crate) status: Option<ExitStatus>,
    /// How many items it had begun and finished without telling, before the one that it was at or was taking in; `None` if
    /// it was at none.
    pub(crate) begun: Option<usize>,
    /// Whether it could not be started, and that has happened too often in a row to try again at once.
    is_refused: bool,
    /// Whether it had finished any item.
    was_useful: bool,
}

impl End {
    /// Whether another one takes its place at once; one that ends before it is any use waits for the next job.
    pub(crate) fn is_worth_replacing(&self, had_items: bool) -> bool {
        !self.is_refused && (self.was_useful || had_items)
    }
}

/// How many workers are tried in a row for jobs that have none left.
const LAST_TRIES_MAX: usize = 6;

/// How many starts in a row may fail before that is final for the jobs that wait.
const STARTS_FAILED_MAX: usize = 3;

impl Worker {
    pub(crate) fn pid(&self) -> u32 {
        match &self.process {
            State::Running(child) => child.pid(),
            State::Starting(_) => 0,
        }
    }

    /// Waits until the process runs.
    fn settle(&mut self) -> Result<(), NotStarted> {
        if let State::Starting(starting) = &mut self.process {
            let Some(starting) = starting.take() else {
                let why = "it was refused before";
                return Err(NotStarted::Refused(Error::refused(
                    "cannot start a worker",
                    why,
                )));
            };
            self.process = State::Running(starting.wait()?);
        }
        Ok(())
    }

    fn is_settled(&self) -> bool {
        matches!(self.process, State::Running(_))
    }

    /// Puts a message behind those that wait for room.
    pub(crate) fn queue(&mut self, header: Header, body: Body) {
        self.outgoing.push_back(Outgoing {
            header,
            body,
            sent: Sent::default(),
            start: 0,
        });
    }

    /// How much room in the ring is waited for; 0 if nothing waits.
    pub(crate) fn room_wanted(&self) -> usize {
        match self.outgoing.front() {
            Some(front) => (front.body.bytes().len() + 1).min(RING / 2),
            None => 0,
        }
    }

    /// Whether it was in the middle of taking in the items that are next for it.
    fn was_receiving(&self) -> bool {
        let (_, taken) = self.link.positions();
        self.outgoing.front().is_some_and(|front| {
            let is_next = front.header.words[1] == self.resolved;
            front.header.kind == to_worker::CHUNK
                && is_next
                && front.sent.bytes > 0
                && taken > front.start
        })
    }

    /// How many of its next items end with those of a message that is being sent.
    pub(crate) fn items_in_transfer(&self) -> usize {
        match self.outgoing.front() {
            Some(front) if front.header.kind == to_worker::CHUNK && front.sent.bytes > 0 => {
                let end = front.header.words[1] + u64::from(front.header.count);
                end.saturating_sub(self.resolved) as usize
            }
            _ => 0,
        }
    }

    fn send_queued(&mut self) -> Result<(), LinkError> {
        if self.outgoing.is_empty() {
            return Ok(());
        }
        while let Some(front) = self.outgoing.front_mut() {
            if front.sent.bytes == 0 {
                (front.start, _) = self.link.positions();
            }
            let (bytes, descriptors) = (front.body.bytes(), front.body.descriptors());
            let link = &mut self.link;
            if !link.try_send(&front.header, bytes, descriptors, &mut front.sent)? {
                break;
            }
            self.outgoing.pop_front();
        }
        self.link.flush()
    }
}

impl Slot {
    /// Whether its worker is known to have ended, or is no use any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended && self.worker.is_some()
    }
}

impl Staff {
    pub(crate) fn new(workers: usize, name: String, method: StartMethod) -> Result<Staff> {
        let watch = Watch::new().map_err(|error| Error::io("cannot build a pool", error))?;
        Ok(Staff {
            slots: (0..workers).map(|_| Slot::default()).collect(),
            name,
            method,
            watch: Arc::new(watch),
            refusal: None,
            starts_failed: 0,
            last_tries: 0,
            is_server_lost: false,
        })
    }

    pub(crate) fn watch(&self) -> Arc<Watch> {
        Arc::clone(&self.watch)
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
        let failed = |error| {
            let limit = limits::behind(&error);
            Error::limit(format!("cannot start worker {name:?}"), error, limit)
        };
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
        let starting = process::start(order, &[], &[peer.memory.as_fd(), peer.socket.as_fd()])?;
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        slot.has_ended = false;
        let number = number_of(slot.generation, index, News::Doorbell);
        self.watch.add(link.news(), number).map_err(failed)?;
        slot.worker = Some(Worker {
            link,
            process: State::Starting(Some(starting)),
            outgoing: VecDeque::new(),
            sent: 0,
            resolved: 0,
            known: HashSet::new(),
        });
        Ok(())
    }

    /// Whether the last start that failed did so because the server died.
    pub(crate) fn was_server_lost(&self) -> bool {
        self.is_server_lost
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
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(worker) = &mut slot.worker else {
                continue;
            };
            if worker.is_settled() || slot.has_ended {
                continue;
            }
            match worker.settle() {
                Err(error) => {
                    self.is_server_lost = matches!(error, NotStarted::ServerDied(_));
                    self.refusal = Some(error.into());
                    slot.has_ended = true;
                }
                Ok(()) => {
                    if let State::Running(child) = &worker.process {
                        let number = number_of(slot.generation, index, News::End);
                        slot.has_ended |= self.watch.add(child.process().as_fd(), number).is_err();
                    }
                }
            }
        }
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
    }

    /// Counts a start that failed; returns whether no other is tried for now.
    fn fail_start(&mut self) -> bool {
        self.starts_failed += 1;
        let is_final = self.starts_failed >= STARTS_FAILED_MAX;
        if is_final {
            self.starts_failed = 0;
        }
        is_final
    }

    /// Kills a worker if it has not ended, and finds out how it ended; `held` items were with it.
    pub(crate) fn bury(&mut self, index: usize, held: usize) -> Option<End> {
        let mut worker = self.slots[index].worker.take()?;
        self.slots[index].has_ended = false;
        self.watch.remove(worker.link.news());
        if matches!(worker.process, State::Starting(Some(_))) {
            if let Err(error) = worker.settle() {
                self.refusal = Some(error.into());
            }
        }
        if let State::Running(child) = &worker.process {
            self.watch.remove(child.process().as_fd());
        }
        // A mark is the ticket + 1; what makes no sense is no mark.
        let mark = worker.link.peer_note();
        let begun = mark
            .checked_sub(1)
            .and_then(|ticket| ticket.checked_sub(worker.resolved))
            .and_then(|begun| usize::try_from(begun).ok())
            .filter(|&begun| begun < held)
            .or_else(|| (held > 0 && worker.was_receiving()).then_some(0));
        let was_useful = worker.resolved > 0;
        if was_useful {
            self.starts_failed = 0;
            self.has_got_on();
        }
        let pid = worker.pid();
        let status = match worker.process {
            State::Starting(_) => None,
            State::Running(mut child) => {
                let _ended = child.process().kill();
                let _lost = child.wait(Deadline::NEVER);
                child.exit_status()
            }
        };
        Some(End {
            pid,
            status,
            begun,
            is_refused: pid == 0 && self.fail_start(),
            was_useful,
        })
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

    /// Kills all workers and waits until they are gone.
    pub(crate) fn dismiss_all(&mut self) {
        let mut children = Vec::new();
        for worker in self.slots.iter_mut().filter_map(|slot| slot.worker.take()) {
            let Worker { link, process, .. } = worker;
            drop(link);
            if let State::Running(child) = process {
                let _ended = child.process().kill();
                children.push(child);
            } else if let State::Starting(Some(starting)) = process {
                if let Ok(child) = starting.wait() {
                    let _ended = child.process().kill();
                    children.push(child);
                }
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
