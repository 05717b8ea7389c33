//! What comes from the workers: outcomes, and who is told of them or tried again.

use crate::error::TaskError;
use crate::pool::call::{Event, Finished, Raw};
use crate::pool::dispatch::{Dispatcher, JobId, Piece};
use crate::pool::floor::{Floor, Job, Sink};
use crate::pool::numbers::NumberMap;
use crate::pool::place::Slot;
use crate::pool::plan::Plan;
use crate::pool::protocol::{Permission, from_worker};
use crate::sys::clock;
use crate::sys::room::Room;
use crate::sys::step::step;
use crate::task::Received;
use crate::wire::batch::Lane;
use crate::wire::{Header, Host, Message, codec};

/// So many messages of one worker are taken in before the next worker's turn.
const MESSAGES_AT_ONCE: usize = 256;
/// After so many bytes of one worker, no message more is: what workers lack is sent in between, since nobody works meanwhile who has
/// done all that he had.
const BYTES_AT_ONCE: u64 = 256 * 1024;

impl Floor {
    /// Takes in what is there, buries who has ended, feeds; returns whether there was anything.
    pub(crate) fn pump(&mut self) -> bool {
        if self.dispatcher.has_limits() {
            self.dispatcher.tick(clock::monotonic_nanos());
        }
        let mut has_news = false;
        for index in 0..self.staff.slots().len() {
            has_news |= self.receive(index);
            if self.staff.slots()[index].has_ended() {
                // One that is given up may live, and show more without end.
                self.staff.kill(index);
                self.receive_all(index);
                self.bury(index, None);
                has_news = true;
            }
        }
        if self.dispatcher.has_limits() {
            has_news |= self.kill_overdue();
        }
        self.feed();
        has_news || self.staff.slots().iter().any(Slot::has_ended)
    }

    /// Takes in all that an ended worker has shown.
    pub(crate) fn receive_all(&mut self, index: usize) {
        while self.receive(index) {}
    }

    fn receive(&mut self, index: usize) -> bool {
        let mut has_news = false;
        // Whoever keeps up with this is left for the next round, so that the others have their turn.
        let (mut messages, mut bytes) = (0, 0);
        let mut now = None;
        while messages < MESSAGES_AT_ONCE && bytes < BYTES_AT_ONCE {
            let Some(worker) = self.staff.worker(index) else {
                break;
            };
            let mut desk = Desk {
                dispatcher: &self.dispatcher,
                jobs: &mut self.jobs,
                index,
                resolved: worker.resolved,
            };
            match worker.link.try_receive_for(&mut desk) {
                Ok(None) => break,
                Ok(Some(message)) => {
                    step!("pool::receive::taken");
                    has_news = true;
                    messages += 1;
                    bytes += message.header.length;
                    self.staff.settle();
                    let now = *now.get_or_insert_with(clock::monotonic_nanos);
                    if self.take_in(index, message, now).is_none() {
                        self.give_up(index);
                        return false;
                    }
                }
                Err(_) => {
                    self.give_up(index);
                    return false;
                }
            }
        }
        has_news
    }

    /// A worker has sent what no sound one would: nothing behind that counts, since it would be taken for what is missing.
    fn give_up(&mut self, index: usize) {
        if let Some(worker) = self.staff.worker(index) {
            worker.link.give_up();
        }
        self.staff.dismiss(index);
    }

    /// Takes in one message; `None` if no sound worker would send it now, or it is no use any more.
    fn take_in(&mut self, index: usize, message: Message, now: u64) -> Option<()> {
        let Message {
            header,
            body,
            is_hosted,
            descriptors,
        } = message;
        let [ticket, lane, nanos, _] = header.words;
        let count = header.count as usize;
        let worker = self.staff.worker(index)?;
        if ticket != worker.resolved {
            return None;
        }
        let pid = worker.pid();
        worker.resolved += count as u64;
        match header.kind {
            from_worker::RESULTS => {
                let lane = Lane::from_bits(u32::try_from(lane).ok()?)?;
                let front = self.dispatcher.front(index)?;
                if !is_hosted && self.has_room_for(front) {
                    // A sound worker's would have gone there.
                    return None;
                }
                let piece = self.dispatcher.finished(index, count, nanos)?;
                self.dispatcher.weigh(piece.job, count, header.length);
                self.enter_results(index, &piece, nanos, header.length, now);
                let received = if is_hosted {
                    Received::hosted(lane, count, pid)
                } else {
                    Received::new(lane, count, body, descriptors, pid)
                };
                self.tell(piece, Ok(received));
            }
            from_worker::FAILED => {
                let error: TaskError = codec::decode(&body).ok()?;
                let piece = self.dispatcher.finished(index, 1, nanos)?;
                self.books.workers[index].items += 1;
                let busy = &mut self.books.workers[index].busy_nanos;
                *busy = busy.saturating_add(nanos);
                let error = error.in_process(pid);
                let is_retried = error.is_panic() && self.retries_panics(piece.job);
                self.charge(piece, error, is_retried);
            }
            from_worker::SKIPPED => {
                if count == 0 || !self.dispatcher.skipped(index, count) {
                    return None;
                }
                if self.dispatcher.is_drained(index) {
                    let worker = self.staff.worker(index)?;
                    if worker.resolved != worker.sent {
                        return None;
                    }
                    Permission(worker.link.shared_word()).restart(worker.sent);
                    step!("pool::receive::restarted");
                }
            }
            from_worker::READY if count == 0 && !worker.is_ready => {
                worker.is_ready = true;
                self.initial_deaths = 0;
            }
            from_worker::UNFIT if count == 0 => {
                let error: TaskError = codec::decode(&body).ok()?;
                self.is_unfit(error.in_process(pid));
                return None;
            }
            _ => return None,
        }
        Some(())
    }

    /// Whether the results of a piece go to a room.
    fn has_room_for(&self, piece: &Piece) -> bool {
        let room = self.jobs.get(&piece.job).and_then(|job| job.room.as_ref());
        room.is_some_and(|room| piece.item * room.number_size() < room.len())
    }

    /// Writes down what a worker has done.
    fn enter_results(&mut self, index: usize, piece: &Piece, nanos: u64, bytes: u64, now: u64) {
        let worker = &mut self.books.workers[index];
        worker.items += piece.count as u64;
        worker.busy_nanos = worker.busy_nanos.saturating_add(nanos);
        worker.bytes_received += bytes;
        if let Some(job) = self.jobs.get_mut(&piece.job) {
            let Plan { function, name, .. } = job.plan;
            let latencies = self.books.done(function, name, piece.count as u64, nanos);
            if let Sink::Calls(stream) = &job.sink {
                for since in stream.since(piece.item..piece.item + piece.count) {
                    latencies.enter(now.saturating_sub(since), 1);
                }
            } else if let Some(pending) = job.batches.get(&piece.batch) {
                latencies.enter(now.saturating_sub(pending.since), piece.count as u64);
            }
            job.bar.done(piece.count);
        }
    }

    fn retries_panics(&self, job: JobId) -> bool {
        let settings = self.jobs.get(&job).map(|job| &job.plan.settings);
        settings.is_some_and(|settings| settings.retries_panics)
    }

    /// An item has failed: it is tried again, if it may be, or its failure is told.
    pub(crate) fn charge(&mut self, piece: Piece, error: TaskError, may_retry: bool) {
        let attempts = piece.attempts + 1;
        let is_retried = may_retry && self.is_wanted(&piece) && self.dispatcher.retry(piece);
        if let Some(job) = self.jobs.get_mut(&piece.job) {
            let Plan { function, name, .. } = job.plan;
            if is_retried {
                self.books.retried(function, name);
                job.span.retried(piece.item, attempts, error.pid());
            } else {
                self.books.failed(function, name);
                job.bar.failed();
                job.span.failed(piece.item, &error);
            }
        }
        if !is_retried {
            let error = error.at_item(Some(piece.item)).after_attempts(attempts);
            self.tell(piece, Err(error));
        }
    }

    /// Lets go of items that were cancelled, and that nobody has or gets any more.
    pub(crate) fn settle_dropped(&mut self) {
        for piece in self.dispatcher.take_dropped() {
            if let Some(job) = self.jobs.get_mut(&piece.job) {
                job.settle_items(&piece);
            }
        }
    }

    /// Whether anybody waits for the outcome of an item.
    fn is_wanted(&self, piece: &Piece) -> bool {
        match self.jobs.get(&piece.job).map(|job| &job.sink) {
            None => false,
            Some(Sink::Caller(_) | Sink::Gathered { .. }) => true,
            Some(Sink::Calls(stream)) => stream.has(piece.item),
        }
    }

    /// Tells a job, if it is still open, what became of the items of `piece`.
    fn tell(&mut self, piece: Piece, outcome: Result<Received, TaskError>) {
        let Some(job) = self.jobs.get_mut(&piece.job) else {
            return;
        };
        job.settle_items(&piece);
        let item = piece.item;
        let event = match outcome {
            Ok(received) => Event::Results { item, received },
            Err(error) => Event::Failed { item, error },
        };
        match &mut job.sink {
            Sink::Caller(events) => events.push(event),
            Sink::Gathered { call, events, left } => {
                *left = left.saturating_sub(piece.count);
                let raw = match event {
                    Event::Failed { error, .. } => Raw::Failed(error),
                    event => {
                        events.push(event);
                        if *left > 0 {
                            return;
                        }
                        Raw::All(std::mem::take(events))
                    }
                };
                self.finished.push(Finished::One(call.clone(), raw));
                self.close(piece.job);
            }
            Sink::Calls(stream) => {
                match event {
                    Event::Results { mut received, .. } if piece.count == 1 => {
                        if let Some(call) = stream.take(item) {
                            let raw = Raw::One(received.split_front());
                            self.finished.push(Finished::One(call, raw));
                        }
                    }
                    Event::Results { received, .. } => {
                        let calls = stream.take_all(item..item + piece.count);
                        self.finished.push(Finished::of(calls, received));
                    }
                    Event::Failed { error, .. } | Event::Broken { error, .. } => {
                        if let Some(call) = stream.take(item) {
                            let error = error.at_item(None);
                            self.finished.push(Finished::One(call, Raw::Failed(error)));
                        }
                    }
                }
                if stream.entries.is_empty() {
                    self.close(piece.job);
                }
            }
        }
    }
}

/// Who knows where results go, while one worker's messages are taken in.
struct Desk<'a> {
    dispatcher: &'a Dispatcher,
    jobs: &'a mut NumberMap<JobId, Job>,
    index: usize,
    /// The ticket of the worker's next outcome.
    resolved: u64,
}

impl Host for Desk<'_> {
    fn room_for(&mut self, header: &Header) -> Option<(&mut dyn Room, usize)> {
        let [ticket, lane, ..] = header.words;
        let is_next = header.kind == from_worker::RESULTS && ticket == self.resolved;
        let piece = self.dispatcher.front(self.index).filter(|_| is_next)?;
        let room = self.jobs.get_mut(&piece.job)?.room.as_deref_mut()?;
        let (size, count) = (room.number_size(), header.count as usize);
        let is_piece = lane == u64::from(Lane::Numbers(size as u32).to_bits())
            && count <= piece.count
            && header.length == (count * size) as u64
            && (piece.item + count) * size <= room.len();
        is_piece.then_some((room, piece.item * size))
    }
}

impl Job {
    /// Some items of a batch have their outcomes.
    fn settle_items(&mut self, piece: &Piece) {
        if let Some(pending) = self.batches.get_mut(&piece.batch) {
            pending.left = pending.left.saturating_sub(piece.count);
            if pending.left == 0 {
                self.bytes_ahead -= pending.bytes.min(self.bytes_ahead);
                self.batches.remove(&piece.batch);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::dispatch::Terms;
    use crate::pool::plan::Settings;
    use crate::pool::progress::Bar;
    use crate::pool::trace::{Diary, Span};
    use crate::sys::function::FunctionId;
    use crate::wire::{Link, Sent, plain};
    use std::sync::Arc;

    /// What a desk looks at: worker 0 of two has one piece, and the outcome of its first item has the ticket 7.
    struct World {
        dispatcher: Dispatcher,
        jobs: NumberMap<JobId, Job>,
        job: JobId,
        index: usize,
        resolved: u64,
    }

    /// A piece of `count` items from item 4 on, of a job that has room for `len` numbers.
    fn desk_world(count: usize, len: usize) -> World {
        let mut dispatcher = Dispatcher::new(2);
        dispatcher.up(0);
        let job = dispatcher.open(Terms {
            piece_items: Some(count),
            is_collected: true,
            ..Terms::default()
        });
        dispatcher.submit(job, 0, 4, count);
        dispatcher.feed(&mut Vec::new());
        let plan = Plan {
            function: FunctionId::from_bits(1),
            captures: None,
            settings: Settings::default(),
            name: "double",
            total: None,
            is_at_hand: false,
            is_collected: true,
        };
        let open = Job {
            bar: Bar::default(),
            span: Span::of_job(&Arc::new(Diary::default()), job, plan.name),
            plan,
            batches: NumberMap::default(),
            bytes_ahead: 0,
            sink: Sink::Caller(Vec::new()),
            room: plain::room_for::<u32>(len),
        };
        World {
            dispatcher,
            jobs: [(job, open)].into_iter().collect(),
            job,
            index: 0,
            resolved: 7,
        }
    }

    impl World {
        fn desk(&mut self) -> Desk<'_> {
            Desk {
                dispatcher: &self.dispatcher,
                jobs: &mut self.jobs,
                index: self.index,
                resolved: self.resolved,
            }
        }

        /// Where the body of the message with this header goes.
        fn place(&mut self, header: Header) -> Option<usize> {
            self.desk().room_for(&header).map(|(_, place)| place)
        }
    }

    /// The header of so many results, as a sound worker sends it.
    fn results(ticket: u64, count: u32) -> Header {
        let lane = u64::from(Lane::Numbers(4).to_bits());
        Header {
            length: 4 * u64::from(count),
            kind: from_worker::RESULTS,
            count,
            words: [ticket, lane, 0, 0],
            ..Header::default()
        }
    }

    #[test]
    fn what_is_next_and_fits_its_piece_has_room() {
        let mut world = desk_world(10, 15);
        for count in [10, 3] {
            assert_eq!(world.place(results(7, count)), Some(16));
        }
        world.dispatcher.finished(0, 3, 1).unwrap();
        world.resolved = 10;
        assert_eq!(world.place(results(10, 7)), Some(28));
        assert_eq!(world.place(results(10, 8)), None);
    }

    #[test]
    fn nothing_else_has_room() {
        // There would be room for an eleventh.
        let mut world = desk_world(10, 15);
        let sound = results(7, 10);
        for kind in [
            0,
            from_worker::FAILED,
            from_worker::SKIPPED,
            from_worker::READY,
            from_worker::UNFIT,
        ] {
            assert_eq!(world.place(Header { kind, ..sound }), None, "kind {kind}");
        }
        for ticket in [6, 8] {
            assert_eq!(world.place(results(ticket, 10)), None, "ticket {ticket}");
        }
        let other_lanes = [Lane::Numbers(8), Lane::Framed, Lane::Whole];
        let bits = other_lanes.map(|lane| u64::from(lane.to_bits()));
        for lane in bits.into_iter().chain([sound.words[1] | 1 << 32]) {
            let words = [7, lane, 0, 0];
            assert_eq!(world.place(Header { words, ..sound }), None, "lane {lane}");
        }
        for count in [11, u32::MAX] {
            assert_eq!(world.place(results(7, count)), None, "{count} results");
        }
        for length in [39, 41, u64::MAX] {
            let header = Header { length, ..sound };
            assert_eq!(world.place(header), None, "{length} bytes");
        }
        assert_eq!(world.place(sound), Some(16), "so it was none of these");
    }

    #[test]
    fn where_there_is_no_room_or_no_piece_nothing_has_room() {
        let mut world = desk_world(10, 13);
        assert_eq!(world.place(results(7, 10)), None, "it is one too short");
        assert_eq!(world.place(results(7, 9)), Some(16));
        world.index = 1;
        assert_eq!(world.place(results(7, 9)), None, "that one has no piece");

        let mut world = desk_world(10, 14);
        world.jobs.get_mut(&world.job).unwrap().room = None;
        assert_eq!(world.place(results(7, 10)), None, "the job has no room");
        world.jobs.clear();
        assert_eq!(world.place(results(7, 10)), None, "the job has ended");

        let mut world = desk_world(10, 14);
        world.dispatcher.finished(0, 10, 1).unwrap();
        world.resolved = 17;
        for count in [10, 1] {
            assert_eq!(world.place(results(17, count)), None, "all have come");
        }
    }

    #[test]
    fn a_body_whose_job_has_ended_is_passed_over() {
        let (mut parent, peer) = Link::pair(64 * 1024).unwrap();
        let mut worker = Link::attach(peer).unwrap();
        let mut world = desk_world(100_000, 100_004);
        let header = results(7, 100_000);
        let body = vec![1; 400_000];
        let mut sent = Sent::default();
        while !worker.try_send(&header, &body, &[], &mut sent).unwrap() {
            let received = parent.try_receive_for(&mut world.desk()).unwrap();
            assert!(received.is_none());
            world.jobs.remove(&world.job);
        }
        assert!(world.jobs.is_empty(), "it ended in between");
        let next = Header {
            kind: from_worker::FAILED,
            ..header
        };
        let mut sent = Sent::default();
        assert!(
            worker
                .try_send(&next, b"nine byte", &[], &mut sent)
                .unwrap()
        );
        worker.flush().unwrap();
        let mut desk = world.desk();
        let hosted = parent.try_receive_for(&mut desk).unwrap().unwrap();
        assert_eq!(hosted.header, header);
        assert!(hosted.is_hosted && hosted.body.is_empty());
        let other = parent.try_receive_for(&mut desk).unwrap().unwrap();
        assert_eq!(other.body, b"nine byte");
        assert!(!other.is_hosted);
    }
}
