//! The sending side of a lane.
//!
//! Two locks. `state` is held for as long as it takes to put a frame, and never while anything is waited for. `turn` is
//! held by the one thread that waits for room, or sends a message in several frames or with descriptors; meanwhile
//! `is_taken` says that nobody else may put anything, so that messages neither mix nor overtake each other for ever.
//!
//! | step of a message with descriptors | if this process dies, or gives up, after it |
//! |---|---|
//! | its first frame is shown, where it has several, and with it the letter's number | a part of a message, which is cut, or ends with the lane; none of its descriptors is anywhere else |
//! | there is room for its last frame, or its only one | likewise; nothing has happened, where it has one |
//! | its descriptors are in the socket | they are closed with the socket, or passed over |
//! | its last frame is shown | a whole message |
//!
//! What is given up comes back to its user, and copies of its descriptors that are on their way would live on: those of a pipe's
//! end would hide from the other end that it is closed. So they are sent last, when there is room for the frame that follows them,
//! and no room is waited for after that. Only where the socket took some of them and not the rest in time, copies are left until
//! the letter is passed over, with its `CUT` or with the next letter.
//!
//! A message that was given up half-way owes a `CUT` frame, which is put in front of the next one, and its letter's number is
//! not used again.

use crate::deadline::Deadline;
use crate::pipe::failure::Failure;
use crate::pipe::frame::{Head, Opening, Part, piece, whole_max};
use crate::pipe::limit::Limit;
use crate::pipe::pace;
use crate::pipe::peer::Peer;
use crate::shm::{Corrupt, LONGEST_OF_SERVER, Lane, Lanes, Outgoing, Spin};
use crate::sys::poll;
use crate::sys::shared::SharedFd;
use crate::sys::socket::Patience;
use crate::sys::step::step;
use crate::wire::rights::{Heard, Inbox, Outbox};
use parking_lot::Mutex;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

/// What is sent: bytes, and the descriptors that ride along.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outbound<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) descriptors: &'a [Arc<SharedFd>],
}

/// The sending side, for any number of threads.
#[derive(Debug)]
pub(crate) struct Outlet {
    turn: Mutex<Spin>,
    /// `None` when it has moved away.
    state: Mutex<Option<Sending>>,
}

/// The sending side itself.
#[derive(Debug)]
pub(crate) struct Sending {
    memory: Arc<SharedFd>,
    lane: Lane,
    ring: Outgoing,
    outbox: Outbox,
    peer: Peer,
    is_taken: bool,
    owes_cut: bool,
}

/// What a sending side is made of when it arrives.
#[derive(Debug)]
pub(crate) struct SendingParts {
    pub(crate) memory: Arc<SharedFd>,
    pub(crate) socket: Arc<SharedFd>,
    pub(crate) event: Arc<SharedFd>,
    pub(crate) lane: Lane,
    pub(crate) tail: u64,
    pub(crate) sleep: u64,
    pub(crate) claim: u64,
    pub(crate) letters: u64,
    pub(crate) owes_cut: bool,
}

impl Outlet {
    pub(crate) fn new(sending: Sending) -> Outlet {
        Outlet {
            turn: Mutex::new(Spin::new(LONGEST_OF_SERVER)),
            state: Mutex::new(Some(sending)),
        }
    }

    /// Sends a message. It is there to be received when this returns.
    #[inline]
    pub(crate) fn send(&self, message: Outbound<'_>, limit: Limit) -> Result<(), Failure> {
        pace::note_sent();
        if message.descriptors.is_empty() {
            let mut state = self.state.lock();
            let sending = here(&mut state)?;
            let length = message.bytes.len();
            if !sending.is_taken && length <= whole_max(sending.ring.capacity()) {
                sending.check_peer()?;
                if sending.put(&Head::plain(length), message.bytes)? {
                    return Ok(());
                }
            }
        }
        self.send_in_turn(message, limit)
    }

    #[cold]
    fn send_in_turn(&self, message: Outbound<'_>, limit: Limit) -> Result<(), Failure> {
        let Some(mut turn) = limit.lock(&self.turn) else {
            return Err(out_of_time(limit));
        };
        let mut turn = Turn::take(self, &mut turn, limit)?;
        let length = message.bytes.len();
        let is_split = limit.deadline().is_some() && length > whole_max(turn.capacity);
        if !is_split {
            return turn.send_whole(message);
        }
        let opening = turn.opening(message)?;
        let (first, rest) = message.bytes.split_at(piece(turn.capacity));
        let head = Head {
            part: Part::First,
            length: first.len(),
            opening: Some(opening),
        };
        turn.put(&head, first)?;
        step!("pipe::send::first_shown");
        turn.send_rest(rest, message.descriptors).inspect_err(|_| {
            if let Some(sending) = &mut *self.state.lock() {
                sending.owes_cut = true;
                if opening.descriptors > 0 {
                    sending.outbox.abandon(opening.letter);
                }
            }
        })
    }

    /// Takes the side out, to send it elsewhere.
    pub(crate) fn depart(&self) -> Result<Sending, Failure> {
        let _turn = self.turn.try_lock().ok_or(Failure::InUse)?;
        let mut state = self.state.lock();
        here(&mut state)?;
        state.take().ok_or(Failure::Moved)
    }

    /// Puts a side back that was not sent after all.
    pub(crate) fn come_back(&self, mut sending: Sending) {
        sending.peer.sleeper.come_back();
        *self.state.lock() = Some(sending);
    }
}

/// The side, if it is here: it has not moved, and no copy that a fork made has been used since.
#[inline]
fn here(state: &mut Option<Sending>) -> Result<&mut Sending, Failure> {
    let sending = state.as_mut().ok_or(Failure::Moved)?;
    if sending.peer.sleeper.is_ours() {
        Ok(sending)
    } else {
        Err(Failure::Forked)
    }
}

fn out_of_time(limit: Limit) -> Failure {
    match limit {
        Limit::Now => Failure::NotNow,
        Limit::Until(_) => Failure::TimedOut,
    }
}

/// The one thread that may put frames. Dropped, it lets the others again.
struct Turn<'a> {
    outlet: &'a Outlet,
    spin: &'a mut Spin,
    limit: Limit,
    capacity: usize,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(sending) = &mut *self.outlet.state.lock() {
            sending.is_taken = false;
        }
    }
}

impl<'a> Turn<'a> {
    fn take(outlet: &'a Outlet, spin: &'a mut Spin, limit: Limit) -> Result<Turn<'a>, Failure> {
        let mut state = outlet.state.lock();
        let sending = here(&mut state)?;
        sending.is_taken = true;
        step!("pipe::send::turn");
        Ok(Turn {
            outlet,
            spin,
            limit,
            capacity: sending.ring.capacity(),
        })
    }

    /// What stands in front of a message. No other letter gets its number: whoever sends one has the turn.
    fn opening(&self, message: Outbound<'_>) -> Result<Opening, Failure> {
        let mut state = self.outlet.state.lock();
        Ok(Opening {
            total: message.bytes.len() as u64,
            letter: here(&mut state)?.outbox.letters(),
            descriptors: message.descriptors.len() as u64,
        })
    }

    /// Sends a message as one frame.
    fn send_whole(&mut self, message: Outbound<'_>) -> Result<(), Failure> {
        let mut head = Head::plain(message.bytes.len());
        if !message.descriptors.is_empty() {
            head.opening = Some(self.opening(message)?);
        }
        if head.size() > self.capacity {
            return Err(Failure::NeverFits(head.length));
        }
        self.put_last(&head, message.bytes, message.descriptors)
    }

    /// Sends the frames behind the first one.
    fn send_rest(&mut self, rest: &[u8], descriptors: &[Arc<SharedFd>]) -> Result<(), Failure> {
        let mut pieces = rest.chunks(piece(self.capacity)).peekable();
        while let Some(bytes) = pieces.next() {
            let (part, descriptors) = match pieces.peek() {
                Some(_) => (Part::Middle, &[][..]),
                None => (Part::Last, descriptors),
            };
            let head = Head {
                part,
                length: bytes.len(),
                opening: None,
            };
            self.put_last(&head, bytes, descriptors)?;
            step!("pipe::send::part_shown");
        }
        Ok(())
    }

    /// Puts a frame, and before that, when there is room for it, the descriptors of the message that it is the end of.
    fn put_last(
        &mut self,
        head: &Head,
        bytes: &[u8],
        descriptors: &[Arc<SharedFd>],
    ) -> Result<(), Failure> {
        if !descriptors.is_empty() {
            self.wait_for_room(head.size())?;
            step!("pipe::send::has_room");
            self.send_descriptors(descriptors)?;
            step!("pipe::send::letter");
        }
        self.put(head, bytes)
    }

    fn send_descriptors(&mut self, descriptors: &[Arc<SharedFd>]) -> Result<(), Failure> {
        let mut sent = 0;
        loop {
            let mut state = self.outlet.state.lock();
            let sending = here(&mut state)?;
            let letter = sending.outbox.letters();
            let socket = Arc::clone(sending.peer.socket());
            let failure = match sending.outbox.send(socket.as_fd(), descriptors, &mut sent) {
                Ok(true) => return Ok(()),
                Ok(false) => match self.limit.deadline() {
                    Some(deadline) if !deadline.has_passed() => {
                        drop(state);
                        poll::writable_until(socket.as_fd(), deadline)?;
                        continue;
                    }
                    _ => out_of_time(self.limit),
                },
                Err(error) => error.into(),
            };
            sending.outbox.abandon(letter);
            return Err(failure);
        }
    }

    fn put(&mut self, head: &Head, bytes: &[u8]) -> Result<(), Failure> {
        loop {
            {
                let mut state = self.outlet.state.lock();
                let sending = here(&mut state)?;
                sending.check_peer()?;
                if sending.put(head, bytes)? {
                    return Ok(());
                }
            }
            self.wait_for_room(head.size())?;
        }
    }

    /// Waits until there are `room` bytes of room; nobody else can take them.
    fn wait_for_room(&mut self, room: usize) -> Result<(), Failure> {
        if self.room()? >= room {
            return Ok(());
        }
        let Some(deadline) = self.limit.deadline() else {
            return Err(Failure::NotNow);
        };
        // While spinning, a little more than is needed is waited for: one frame of room at a time would have both sides
        // take turns at the same words.
        let plenty = room.max(self.capacity / 8);
        let outlet = self.outlet;
        let may_spin = !here(&mut outlet.state.lock())?.ring.shares_processor();
        if may_spin {
            self.spin.until(|| {
                let mut state = outlet.state.lock();
                let room = state.as_mut().map(Sending::room);
                room.is_none_or(|room| room.map_or(true, |room| room >= plenty))
            });
        }
        if self.room()? >= room {
            return Ok(());
        }
        let start = Instant::now();
        self.sleep_for_room(room, deadline)?;
        if may_spin {
            self.spin.learn(start.elapsed());
        }
        Ok(())
    }

    fn room(&self) -> Result<usize, Failure> {
        let mut state = self.outlet.state.lock();
        Ok(here(&mut state)?.room()?)
    }

    fn sleep_for_room(&self, room: usize, deadline: Deadline) -> Result<(), Failure> {
        loop {
            let socket = {
                let mut state = self.outlet.state.lock();
                let sending = here(&mut state)?;
                sending.peer.sleeper.announce(false, room);
                step!("pipe::send::says_asleep");
                if sending.room()? >= room {
                    sending.peer.sleeper.awake();
                    return Ok(());
                }
                Arc::clone(sending.peer.socket())
            };
            let heard = hear(&socket, deadline);
            step!("pipe::send::woken");
            let mut state = self.outlet.state.lock();
            let sending = here(&mut state)?;
            sending.peer.sleeper.awake();
            if heard? == Heard::Closed {
                return Err(Failure::Closed);
            }
            if sending.room()? >= room {
                return Ok(());
            }
            if deadline.has_passed() {
                return Err(Failure::TimedOut);
            }
        }
    }
}

/// Waits for a doorbell. What else the other side may have put into the socket is closed: it has nothing to send this way.
fn hear(socket: &OwnedFd, deadline: Deadline) -> io::Result<Heard> {
    let mut inbox = Inbox::default();
    if deadline.remaining().is_none() {
        return inbox.listen(socket.as_fd(), Patience::Wait);
    }
    poll::readable([socket.as_fd()], deadline)?;
    inbox.listen(socket.as_fd(), Patience::Now)
}

impl Sending {
    /// The sending side of a lane, as it was made or as it has arrived.
    pub(crate) fn new(lanes: &Lanes, parts: SendingParts) -> io::Result<Sending> {
        let (ring, sleeper) = lanes.writer(parts.lane, parts.tail, parts.sleep, parts.claim)?;
        Ok(Sending {
            memory: parts.memory,
            lane: parts.lane,
            ring,
            outbox: Outbox::resume(parts.letters),
            peer: Peer::new(parts.socket, parts.event, sleeper),
            is_taken: false,
            owes_cut: parts.owes_cut,
        })
    }

    /// What it takes to go on elsewhere.
    pub(crate) fn parts(&self) -> SendingParts {
        let (tail, _) = self.ring.positions();
        SendingParts {
            memory: Arc::clone(&self.memory),
            socket: Arc::clone(self.peer.socket()),
            event: Arc::clone(self.peer.event()),
            lane: self.lane,
            tail,
            sleep: self.peer.sleeper.number(),
            claim: self.peer.sleeper.claim(),
            letters: self.outbox.letters(),
            owes_cut: self.owes_cut,
        }
    }

    #[inline]
    fn check_peer(&mut self) -> Result<(), Failure> {
        if self.peer.is_gone(self.ring.peer_left())? {
            return Err(Failure::Closed);
        }
        Ok(())
    }

    /// Puts a frame if there is room, and wakes the other side if it sleeps for it.
    #[inline]
    fn put(&mut self, head: &Head, bytes: &[u8]) -> Result<bool, Failure> {
        if self.owes_cut && self.room()? == 0 {
            return Ok(false);
        }
        if !head.put(&mut self.ring, bytes)? {
            return Ok(false);
        }
        step!("pipe::send::shown");
        if self.ring.owes_bell() {
            step!("pipe::send::owes_bell");
            self.peer.ring_for_data();
            step!("pipe::send::rung");
        }
        Ok(true)
    }

    /// The room for frames. None as long as there is not even room to say that the last message is given up.
    fn room(&mut self) -> Result<usize, Corrupt> {
        if self.owes_cut {
            let cut = Head {
                part: Part::Cut,
                ..Head::plain(0)
            };
            if !cut.put(&mut self.ring, &[])? {
                return Ok(0);
            }
            self.owes_cut = false;
        }
        self.ring.look_for_room()
    }
}
