//! What goes to the workers: pieces, as the dispatcher decides, what is taken back, and that we sleep.

use crate::pool::crowding::Company;
use crate::pool::dispatch::{Action, Piece};
use crate::pool::floor::{Floor, Sink};
use crate::pool::hired::{Body, Worker};
use crate::pool::protocol::{Permission, Share, to_worker};
use crate::shm::Spin;
use crate::sys::step::step;
use crate::sys::{clock, limits};
use crate::wire::{Header, Link};
use std::sync::Arc;

impl Floor {
    /// Decides who gets what, and sends as much of it as the rings take.
    pub(crate) fn feed(&mut self) {
        if self.dispatcher.heeds_clock() {
            self.dispatcher.tick(clock::monotonic_nanos());
        }
        self.settle_dropped();
        let mut actions = std::mem::take(&mut self.actions);
        loop {
            let has_submitted = !self.waiting.is_empty() && self.submit_waiting();
            let slots = self.staff.slots();
            let is_handy = |index: usize| {
                let worker = slots[index].worker.as_ref();
                worker.is_some_and(|worker| worker.is_ready && worker.link.is_awake_elsewhere())
            };
            self.dispatcher.feed_handy(is_handy, &mut actions);
            self.dispatcher.feed(&mut actions);
            let may_go_on = has_submitted && !actions.is_empty();
            let has_taken_back = self.carry_out(&mut actions);
            if !has_taken_back && !may_go_on {
                break;
            }
        }
        self.actions = actions;
        if !self.dispatcher.has_workers() && !self.jobs.is_empty() {
            self.break_if_deserted();
        }
        self.staff.send_queued();
    }

    /// Submits calls that wait, as far as more are wanted; returns whether there were any.
    fn submit_waiting(&mut self) -> bool {
        let mut has_submitted = false;
        let mut waiting = std::mem::take(&mut self.waiting);
        let is_lacking = self.dispatcher.lacks_pieces();
        waiting.retain(|&id| {
            self.dispatcher.complete(id, false);
            let Some(items_max) = self.dispatcher.demand(id) else {
                return self.jobs.contains_key(&id);
            };
            let Some(Sink::Calls(stream)) = self.jobs.get_mut(&id).map(|job| &mut job.sink) else {
                return false;
            };
            if !is_lacking && stream.may_wait() {
                return true;
            }
            let taken = stream.take_arguments(items_max);
            let is_waiting = stream.is_waiting();
            // When none wait, those that are ready are shared out.
            self.dispatcher.complete(id, !is_waiting);
            if let Some((item, batch)) = taken {
                has_submitted = true;
                self.submit(id, item, batch);
            }
            is_waiting
        });
        waiting.append(&mut self.waiting);
        self.waiting = waiting;
        has_submitted
    }

    /// Does what the dispatcher has decided; returns whether there may be more to decide now.
    pub(crate) fn carry_out(&mut self, actions: &mut Vec<Action>) -> bool {
        let mut has_changed = false;
        for action in actions.drain(..) {
            match action {
                Action::Send { worker, piece } => self.send(worker, piece),
                // Whoever idles is fed before more is taken back.
                Action::Revoke { all: false, .. } if has_changed => {}
                Action::Revoke { worker, all } => has_changed |= self.revoke(worker, all),
                Action::Retire { worker } => {
                    self.retire(worker);
                    has_changed = true;
                }
            }
        }
        has_changed
    }

    fn send(&mut self, index: usize, piece: Piece) {
        let Some(job) = self.jobs.get_mut(&piece.job) else {
            return;
        };
        let Some(pending) = job.batches.get_mut(&piece.batch) else {
            return;
        };
        let batch = if piece.is_once {
            // Kept here, it would hide from the other end of a pipe that this one is gone.
            pending.take_batch()
        } else {
            Arc::clone(&pending.batch)
        };
        let Some(worker) = self.staff.worker(index) else {
            return;
        };
        if let Some(captures) = &job.plan.captures {
            if worker.known.insert(piece.job) {
                let words = [piece.job, 0, 0, 0];
                let header = Header {
                    kind: to_worker::CAPTURES,
                    words,
                    ..Header::default()
                };
                worker.queue(header, Body::Captures(Arc::clone(captures)));
            }
        }
        let lane = u64::from(batch.lane().to_bits());
        let words = [piece.job, worker.sent, lane, job.plan.function.to_bits()];
        let count = u32::try_from(piece.count).unwrap_or(u32::MAX);
        let kind = match job.plan.settings.limit {
            Some(_) => to_worker::TIMED,
            None => to_worker::CHUNK,
        };
        let header = Header {
            kind,
            count,
            words,
            ..Header::default()
        };
        let range = piece.start..piece.start + piece.count;
        self.books.workers[index].bytes_sent += batch.slice(range.clone()).len() as u64;
        worker.sent += piece.count as u64;
        Permission(worker.link.shared_word()).extend(piece.count);
        step!("pool::feed::permitted");
        worker.queue(header, Body::Items(batch, range));
    }

    /// Takes back what a worker has not begun; returns whether that was anything.
    pub(crate) fn revoke(&mut self, index: usize, all: bool) -> bool {
        let held = self.dispatcher.items_with(index);
        let skips = self.dispatcher.skips(index) as u64;
        let kept = self.dispatcher.items_for_good(index);
        let Some(worker) = self.staff.worker(index) else {
            return false;
        };
        let permitted = worker.sent - skips;
        // Where half is wanted, what it is taking in already is left with it.
        let (share, kept) = if all {
            (Share::All, kept)
        } else {
            (Share::Half, kept.max(worker.items_in_transfer()))
        };
        match Permission(worker.link.shared_word()).revoke(permitted, held, kept, share) {
            None => {
                self.staff.dismiss(index);
                false
            }
            // It takes in what it has not begun.
            Some(0) if kept >= held => false,
            Some(0) => {
                self.dispatcher.revoked(index, 0);
                false
            }
            Some(count) => {
                step!("pool::feed::taken_back");
                self.dispatcher.revoked(index, count);
                true
            }
        }
    }

    /// Where those run that have items, as far as is known.
    pub(crate) fn company(&self) -> Company {
        let mut links = self.busy_workers().map(|worker| &worker.link).peekable();
        if links.peek().is_none() {
            Company::None
        } else if links.all(Link::shares_processor) {
            Company::Here
        } else {
            Company::Elsewhere
        }
    }

    /// The workers that have items.
    fn busy_workers(&self) -> impl Iterator<Item = &Worker> {
        let slots = self.staff.slots().iter().enumerate();
        slots.filter_map(|(index, slot)| {
            let worker = slot.worker.as_ref()?;
            self.dispatcher.is_busy(index).then_some(worker)
        })
    }

    /// Asks one of the workers that have items to go to another processor: the one that was asked least often, as one that is at a
    /// long item does not hear it.
    pub(crate) fn send_one_away(&self) {
        let workers = self.busy_workers();
        if let Some(worker) = workers.min_by_key(|worker| worker.link.times_sent_away()) {
            if !limits::has_filter_of_calls(worker.pid()) {
                worker.link.send_away();
            }
        }
    }

    /// Whether a worker that has items has shown something.
    pub(crate) fn has_news(&mut self) -> bool {
        let mut slots = self.staff.slots_mut().iter_mut().enumerate();
        slots.any(|(index, slot)| {
            let worker = slot.worker.as_mut();
            let worker = worker.filter(|_| self.dispatcher.is_busy(index));
            worker.is_some_and(|worker| worker.link.has_data())
        })
    }

    /// Spins until a worker that has items has shown something; returns whether one has.
    pub(crate) fn spin_for_news(&mut self, spin: &mut Spin) -> bool {
        spin.until(|| self.has_news())
    }

    /// Tells the workers that have something to do, and have not been told, that we sleep; returns whether there is no
    /// need to sleep.
    pub(crate) fn announce_sleep(&mut self) -> bool {
        let Floor {
            staff, dispatcher, ..
        } = self;
        let mut is_ready = false;
        for index in 0..staff.slots().len() {
            is_ready |= staff.watch_for_room(index);
        }
        for (index, slot) in staff.slots_mut().iter_mut().enumerate() {
            let Some(worker) = &mut slot.worker else {
                continue;
            };
            let waits_for_room = worker.room_wanted() > 0;
            if worker.is_announced {
                // What waits for room came after we began to sleep.
                is_ready |= waits_for_room;
            } else if dispatcher.is_busy(index) || waits_for_room {
                is_ready |= worker.announce_sleep(dispatcher.unhurried_items(index));
            }
        }
        is_ready
    }

    /// Tells the workers that we are awake.
    pub(crate) fn wake_up(&mut self) {
        for slot in self.staff.slots_mut() {
            if let Some(worker) = &mut slot.worker {
                worker.is_announced = false;
                worker.link.wake_up();
            }
        }
    }
}
