//! A worker process that was hired, its link, and what is on its way to it.

use crate::error::Error;
use crate::pool::dispatch::{First, JobId};
use crate::pool::protocol::to_worker;
use crate::process::{Child, NotStarted, Starting};
use crate::sys::shared::SharedFd;
use crate::sys::step::step;
use crate::wire::batch::Batch;
use crate::wire::value::Packed;
use crate::wire::{Header, Link, LinkError, Sent};
use std::collections::{HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a ring between a pool and a worker holds, each way.
pub(crate) const RING: usize = 2 << 20;

/// A worker process and what is on its way to it.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) link: Link,
    pub(crate) process: State,
    outgoing: VecDeque<Outgoing>,
    /// Tickets that were given out, and those whose items have their outcomes.
    pub(crate) sent: u64,
    pub(crate) resolved: u64,
    /// Jobs whose captures it has.
    pub(crate) known: HashSet<JobId>,
    /// Whether it was told that we sleep until it has something.
    pub(crate) is_announced: bool,
    /// Whether its socket is watched for room as well.
    pub(crate) is_watched_for_room: bool,
    /// Whether it has done all that comes before its first item.
    pub(crate) is_ready: bool,
    /// Whether it was asked of a process that was forked ahead of need.
    pub(crate) is_spare: bool,
    /// How many bytes of it had been taken, and how many it had taken, when its first item was last looked at.
    taken: u64,
    got: u64,
}

#[derive(Debug)]
pub(crate) enum State {
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

    fn descriptors(&self) -> &[Arc<SharedFd>] {
        match self {
            Body::Empty => &[],
            Body::Captures(captures) => &captures.descriptors,
            Body::Items(batch, range) => batch.descriptors(range.clone()),
        }
    }
}

impl Worker {
    /// A worker that was asked for; it can be sent to at once.
    pub(crate) fn new(link: Link, starting: Starting, is_ready: bool) -> Worker {
        Worker {
            link,
            is_spare: starting.is_spare(),
            process: State::Starting(Some(starting)),
            outgoing: VecDeque::new(),
            sent: 0,
            resolved: 0,
            known: HashSet::new(),
            is_announced: false,
            is_watched_for_room: false,
            is_ready,
            taken: 0,
            got: 0,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        match &self.process {
            State::Running(child) => child.pid(),
            State::Starting(_) => 0,
        }
    }

    /// Waits until the process runs.
    pub(crate) fn settle(&mut self) -> Result<(), NotStarted> {
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

    pub(crate) fn is_settled(&self) -> bool {
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

    /// Whether the next message waits for room in the socket, where its descriptors go first.
    pub(crate) fn waits_for_socket(&self) -> bool {
        self.outgoing
            .front()
            .is_some_and(|front| front.sent.lacks_descriptors(front.body.descriptors()))
    }

    /// How much room in the ring is waited for; 0 if nothing waits for that.
    pub(crate) fn room_wanted(&self) -> usize {
        match self.outgoing.front() {
            // There is room in the ring, as likely as not, and it is of no use.
            Some(_) if self.waits_for_socket() => 0,
            Some(front) => (front.body.bytes().len() + 1).min(RING / 2),
            None => 0,
        }
    }

    /// Whether it was in the middle of taking in the items that are next for it.
    pub(crate) fn was_receiving(&self) -> bool {
        self.in_transfer()
            .is_some_and(|header| header.words[1] == self.resolved)
    }

    /// How many of its next items end with those that it is taking in. What is on its way to it while it is at another item does not
    /// count, though a part of that may be in the ring: it passes over these when its turn comes, and the rest is sent to it
    /// like any other.
    pub(crate) fn items_in_transfer(&self) -> usize {
        self.in_transfer().map_or(0, |header| {
            let end = header.words[1] + u64::from(header.count);
            end.saturating_sub(self.resolved) as usize
        })
    }

    /// The message with items of which it has taken a part, while there was no room yet for all of it.
    fn in_transfer(&self) -> Option<&Header> {
        let (_, taken) = self.link.positions();
        let front = self.outgoing.front()?;
        let has_begun = front.sent.bytes > 0 && taken > front.start;
        (to_worker::has_items(front.header.kind) && has_begun).then_some(&front.header)
    }

    pub(crate) fn send_queued(&mut self) -> Result<(), LinkError> {
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
                step!("pool::send::part");
                break;
            }
            step!("pool::send::put");
            self.outgoing.pop_front();
        }
        self.link.flush()
    }

    /// Which of its next items it was at, and had begun; `None` if it makes no sense or there is none.
    pub(crate) fn begun(&self, held: usize) -> Option<usize> {
        // A mark is the ticket + 1; what makes no sense is no mark.
        let ticket = self.link.peer_note().checked_sub(1)?;
        let begun = usize::try_from(ticket.checked_sub(self.resolved)?).ok()?;
        (begun < held).then_some(begun)
    }

    /// What is known now of its next item, which has a time limit.
    pub(crate) fn first(&mut self, now: u64) -> First {
        let taken = self.link.taken();
        let has_come_on = std::mem::replace(&mut self.taken, taken) != taken;
        if self.link.has_data() {
            return First::Unheard;
        }
        // What comes before its first item is not that item's time. Nor is what its outcome takes to arrive, as long as more of it has
        // come whenever we look: it had to wait for room while we did not.
        if !self.is_ready || (has_come_on && self.link.is_receiving()) {
            return First::Begun(now);
        }
        let (_, got) = self.link.positions();
        let has_got_on = std::mem::replace(&mut self.got, got) != got;
        if self.link.peer_note() == self.resolved + 1 {
            First::Begun(self.link.peer_moment())
        } else if matches!(self.process, State::Starting(_))
            || (has_got_on && !self.outgoing.is_empty())
        {
            // It waits for us: for its start, or for all of its item.
            First::Begun(now)
        } else {
            First::Unbegun
        }
    }

    /// Says that we sleep until it has something, or room for what waits, and up to which of its items we need not be
    /// woken; returns whether there is no need to sleep.
    pub(crate) fn announce_sleep(&mut self, unhurried: usize) -> bool {
        self.is_announced = true;
        let room = self.room_wanted();
        let until = self.resolved + unhurried as u64;
        self.link.note().word().store(until, Ordering::Release);
        self.link.prepare_sleep(true, room)
    }
}
