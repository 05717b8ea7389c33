//! A two-way message link between two processes: shared memory carries the bytes, a socket carries the news.
//!
//! A message is a [`Header`] and a body, which go through the ring of [`Duplex`]; one that is larger than the ring streams
//! through it in pieces. The socket carries one byte when the other side sleeps and has to know (see `Duplex` for why no
//! such wake-up is lost), the descriptors of messages that have some (see `rights`; what a worker has already is named instead: see `loans`), and its
//! end when the other process is gone. Who waits therefore waits for one thing only.
//!
//! | a side dies | the other |
//! |---|---|
//! | before it has shown a whole message | gets the messages that were whole, then [`LinkError::Closed`] |
//! | asleep, or in the middle of taking one | finds the socket closed when it sleeps or rings |

use crate::deadline::Deadline;
use crate::shm::{Corrupt, Duplex, LONGEST_OF_SERVER, Note, Spin};
use crate::sys::clock;
use crate::sys::limits;
use crate::sys::memory::SealedMemory;
use crate::sys::poll;
use crate::sys::room::Room;
use crate::sys::shared::SharedFd;
use crate::sys::socket::{self, Patience, is_gone};
use crate::sys::step::step;
use crate::wire::loans::{Holder, KEPT_ASLEEP, Lender, Places, are_named, may_be_named};
use crate::wire::rights::{self, Heard, Inbox, Outbox};
use bytemuck::{Pod, Zeroable};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// What stands in front of each message's body.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub(crate) struct Header {
    /// Bytes of the body. Set when it is sent.
    pub(crate) length: u64,
    pub(crate) kind: u32,
    pub(crate) count: u32,
    pub(crate) words: [u64; 4],
    /// Descriptors that ride along. Set when it is sent.
    pub(crate) descriptors: u64,
    /// Where these are kept, or are to be. Set when it is sent.
    pub(crate) places: Places,
}

const HEADER: usize = size_of::<Header>();

/// The most that is asked of memory at once on the word of a length alone.
const TRUSTED_LENGTH: usize = 16 << 20;

/// How much of a message one call takes in, in rings: what a ring holds always, and not for ever where the other side puts in
/// as fast as we take out. In between, whoever waits looks at its clock and at the other links.
const RINGS_AT_ONCE: usize = 2;

/// A message as it was received.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) header: Header,
    pub(crate) body: Vec<u8>,
    /// Whether its body went to where a [`Host`] had room for it.
    pub(crate) is_hosted: bool,
    /// As many as the header says, or none, where this process could not open all of them.
    pub(crate) descriptors: Vec<Arc<SharedFd>>,
}

/// Who has room of its own for the bodies of some messages, so that these are copied once.
pub(crate) trait Host {
    /// Where the body of the message with this header goes: a room, and the place there of its first byte. It is asked again for
    /// each part of a body, and says the same, or `None` once it has no use for it any more.
    fn room_for(&mut self, header: &Header) -> Option<(&mut dyn Room, usize)>;
}

/// Nobody has any.
struct NoHost;

impl Host for NoHost {
    fn room_for(&mut self, _: &Header) -> Option<(&mut dyn Room, usize)> {
        None
    }
}

/// How much of a message was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    descriptors: usize,
    places: Places,
    pub(crate) bytes: usize,
}

impl Sent {
    /// Whether a message that was not sent as a whole lacks room in the socket, for its descriptors, and not in the ring.
    pub(crate) fn lacks_descriptors(&self, descriptors: &[Arc<SharedFd>]) -> bool {
        self.descriptors < descriptors.len()
    }
}

/// Why a link carries no more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("the other process is gone")]
    Closed,
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    #[error("no memory for a message of {0} bytes")]
    NoMemory(u64),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What the other process makes its side of a link from.
#[derive(Debug)]
pub(crate) struct LinkPeer {
    pub(crate) memory: OwnedFd,
    pub(crate) socket: OwnedFd,
}

/// One side of a link. It serves one thread at a time.
#[derive(Debug)]
pub(crate) struct Link {
    ring: Duplex,
    socket: OwnedFd,
    spin: Spin,
    incoming: Option<Message>,
    /// How much of a body that is hosted has been taken.
    hosted: usize,
    header: Vec<u8>,
    is_corrupt: bool,
    outbox: Outbox,
    inbox: Inbox,
    /// The side that has made the link lends, and the one that it was handed to keeps: that one has a thread that takes what
    /// comes, and so lets go of it in time.
    lender: Option<Lender>,
    holder: Option<Holder>,
    /// How often the other side has asked this one to leave a processor, as far as this one has looked.
    asked_away: u64,
}

impl Link {
    /// Makes a link whose rings hold `capacity` bytes each way.
    pub(crate) fn pair(capacity: usize) -> io::Result<(Link, LinkPeer)> {
        let (ring, memory) = Duplex::create(capacity)?;
        let (socket, peer) = socket::record_pair()?;
        Ok((
            Link {
                lender: Some(Lender::default()),
                ..Link::new(ring, socket)
            },
            LinkPeer {
                memory: memory.into(),
                socket: peer,
            },
        ))
    }

    /// Takes the side that another process has handed over.
    pub(crate) fn attach(peer: LinkPeer) -> io::Result<Link> {
        let memory = SealedMemory::adopt(peer.memory)?;
        step!("link::attach::adopted");
        let ring = Duplex::attach(&memory)?;
        step!("link::attach::mapped");
        Ok(Link {
            holder: Some(Holder::default()),
            ..Link::new(ring, peer.socket)
        })
    }

    fn new(ring: Duplex, socket: OwnedFd) -> Link {
        Link {
            ring,
            socket,
            spin: Spin::new(LONGEST_OF_SERVER),
            incoming: None,
            hosted: 0,
            header: Vec::with_capacity(HEADER),
            is_corrupt: false,
            outbox: Outbox::default(),
            inbox: Inbox::default(),
            lender: None,
            holder: None,
            asked_away: 0,
        }
    }

    /// A word that both sides may write, for the layer above.
    pub(crate) fn shared_word(&self) -> &AtomicU64 {
        self.ring.shared_word()
    }

    /// A word of this side for the layer above.
    pub(crate) fn note(&self) -> Note {
        self.ring.note()
    }

    /// The other side's word for the layer above.
    pub(crate) fn peer_note(&self) -> u64 {
        self.ring.peer_note()
    }

    /// The other side's second word.
    pub(crate) fn peer_moment(&self) -> u64 {
        self.ring.peer_moment()
    }

    /// How many bytes were put in all, and how many of these the other side says that it has taken.
    pub(crate) fn positions(&self) -> (u64, u64) {
        self.ring.positions()
    }

    /// Readable when there is a doorbell or the other process is gone.
    pub(crate) fn news(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Puts what fits of a message, of which `sent` has been put before, and counts it there; returns whether it is
    /// whole. The other side sees it after [`flush`](Link::flush), or as soon as the ring is full.
    pub(crate) fn try_send(
        &mut self,
        header: &Header,
        body: &[u8],
        descriptors: &[Arc<SharedFd>],
        sent: &mut Sent,
    ) -> Result<bool, LinkError> {
        // Once only: a letter whose descriptors are on their way has been counted, even if the ring took nothing of it.
        if sent.descriptors < descriptors.len()
            && !self.send_descriptors(descriptors, body.len(), sent)?
        {
            self.flush()?;
            return Ok(false);
        }
        let header = Header {
            length: body.len() as u64,
            descriptors: descriptors.len() as u64,
            places: sent.places,
            ..*header
        };
        if sent.bytes < HEADER {
            sent.bytes += self.ring.put(&bytemuck::bytes_of(&header)[sent.bytes..])?;
            step!("link::send::header");
        }
        if sent.bytes >= HEADER {
            sent.bytes += self.ring.put(&body[sent.bytes - HEADER..])?;
            step!("link::send::body");
        }
        let left = HEADER + body.len() - sent.bytes;
        let is_whole = left == 0;
        if !is_whole {
            step!("link::send::part");
            // Before the other side sees a message begin: who waits for data alone will not end it.
            self.ring
                .also_sleep_for_room(left.min(self.ring.capacity() / 2));
            self.flush()?;
        }
        Ok(is_whole)
    }

    /// Names or sends what is left of a message's descriptors; returns whether that was all of them.
    fn send_descriptors(
        &mut self,
        descriptors: &[Arc<SharedFd>],
        length: usize,
        sent: &mut Sent,
    ) -> Result<bool, LinkError> {
        if sent.descriptors == 0 && may_be_named(descriptors.len() as u64, length as u64) {
            let lender = self.lender.as_mut();
            if let Some(places) = lender.and_then(|lender| lender.name(&self.ring, descriptors)) {
                sent.places = places;
                sent.descriptors = descriptors.len();
                return Ok(true);
            }
        }
        let socket = self.socket.as_fd();
        let is_sent = self
            .outbox
            .send(socket, descriptors, &mut sent.descriptors)?;
        if let Some(lender) = self.lender.as_mut().filter(|_| is_sent) {
            sent.places = lender.place(descriptors);
        }
        Ok(is_sent)
    }

    /// Makes what was put visible, and wakes the other side if it sleeps for that.
    pub(crate) fn flush(&mut self) -> Result<(), LinkError> {
        self.ring.show();
        if self.ring.owes_bell() {
            self.ring_bell()
        } else {
            Ok(())
        }
    }

    /// Makes what was put visible, and lets the other side sleep: the next [`flush`](Link::flush) wakes it.
    pub(crate) fn flush_silently(&mut self) {
        self.ring.show();
    }

    /// Sends a message, and waits for room as long as there is none.
    pub(crate) fn send(
        &mut self,
        header: &Header,
        body: &[u8],
        descriptors: &[Arc<SharedFd>],
    ) -> Result<(), LinkError> {
        let mut sent = Sent::default();
        while !self.try_send(header, body, descriptors, &mut sent)? {
            if sent.lacks_descriptors(descriptors) {
                rights::wait_for_room(self.socket.as_fd())?;
                continue;
            }
            let left = HEADER + body.len() - sent.bytes;
            self.wait(false, left.min(self.ring.capacity() / 2))?;
        }
        Ok(())
    }

    /// Takes the next message if it is there as a whole. Of one that is longer than a few rings it takes a part, though more
    /// may be there: [`has_data`](Link::has_data) tells.
    pub(crate) fn try_receive(&mut self) -> Result<Option<Message>, LinkError> {
        self.try_receive_for(&mut NoHost)
    }

    /// As [`try_receive`](Link::try_receive), where `host` has room for some bodies: it is always the same one.
    pub(crate) fn try_receive_for(
        &mut self,
        host: &mut impl Host,
    ) -> Result<Option<Message>, LinkError> {
        if self.is_corrupt {
            return Err(Corrupt.into());
        }
        let mut allowed = RINGS_AT_ONCE * self.ring.capacity();
        loop {
            if allowed == 0 || self.ring.look_for_data()? == 0 {
                return Ok(None);
            }
            let Some(message) = &mut self.incoming else {
                self.ring.take(HEADER - self.header.len(), &mut self.header);
                if self.header.len() == HEADER {
                    let header: Header = bytemuck::pod_read_unaligned(&self.header);
                    self.header.clear();
                    step!("link::recv::header");
                    if header.length > limits::longest_message() {
                        self.is_corrupt = true;
                        return Err(LinkError::NoMemory(header.length));
                    }
                    let message = Message {
                        header,
                        body: Vec::new(),
                        is_hosted: header.descriptors == 0 && host.room_for(&header).is_some(),
                        descriptors: self.take_descriptors(&header)?,
                    };
                    if header.length == 0 {
                        self.give_room_back()?;
                        return Ok(Some(message));
                    }
                    self.incoming = Some(message);
                    if header.length >= self.ring.capacity() as u64 / 8 {
                        // From here on the other side knows that we are taking it in.
                        self.give_room_back()?;
                    }
                }
                continue;
            };
            let length = message.header.length;
            let missing = usize::try_from(length)
                .map_err(|_| LinkError::NoMemory(length))?
                .saturating_sub(message.body.len() + self.hosted);
            let taken = if message.is_hosted {
                let most = missing.min(allowed);
                let taken = match host.room_for(&message.header) {
                    Some((room, at)) => self.ring.take_to(most, room, at + self.hosted),
                    None => self.ring.skip(most),
                };
                self.hosted += taken;
                taken
            } else {
                let spare = message.body.capacity() - message.body.len();
                if spare == 0 {
                    // Memory is asked for as bytes arrive: at most as much again as is there, beyond what may be trusted.
                    let more = missing.min(TRUSTED_LENGTH.max(message.body.len()));
                    message
                        .body
                        .try_reserve_exact(more)
                        .map_err(|_| LinkError::NoMemory(length))?;
                }
                let room = missing.min(message.body.capacity() - message.body.len());
                self.ring.take(room.min(allowed), &mut message.body)
            };
            step!("link::recv::taken");
            allowed -= taken;
            if taken == missing {
                self.hosted = 0;
                let message = self.incoming.take();
                self.give_room_back()?;
                step!("link::recv::whole");
                return Ok(message);
            }
            if self.ring.unreleased() >= self.ring.capacity() / 8 {
                self.give_room_back()?;
            }
        }
    }

    /// Takes the descriptors of a message with this header.
    fn take_descriptors(&mut self, header: &Header) -> Result<Vec<Arc<SharedFd>>, LinkError> {
        let mut taken = Some(Vec::new());
        if header.descriptors > 0 {
            let count = usize::try_from(header.descriptors).map_err(|_| Corrupt)?;
            if are_named(header.places) {
                let is_possible = may_be_named(header.descriptors, header.length);
                let holder = self.holder.as_mut().filter(|_| is_possible);
                taken = holder.and_then(|holder| holder.borrow(header.places, count));
                step!("link::recv::named");
            } else {
                taken = self.inbox.take(self.socket.as_fd(), count)?;
                step!("link::recv::descriptors");
                if let (Some(holder), Some(taken)) = (&mut self.holder, &taken) {
                    holder.keep(&self.ring, taken, header.places);
                }
            }
        }
        if let Some(holder) = &mut self.holder {
            holder.pass(&self.ring);
        }
        self.is_corrupt = taken.is_none();
        Ok(taken.ok_or(Corrupt)?)
    }

    /// Takes the next message, and waits for it.
    pub(crate) fn receive(&mut self) -> Result<Message, LinkError> {
        loop {
            if let Some(message) = self.try_receive()? {
                return Ok(message);
            }
            self.wait(true, 0)?;
        }
    }

    /// Whether the other side is awake, on another processor than this one, as far as is known.
    pub(crate) fn is_awake_elsewhere(&self) -> bool {
        self.ring.peer_is_awake() && !self.ring.shares_processor()
    }

    /// Whether the other side can hardly go on while this one spins.
    pub(crate) fn shares_processor(&self) -> bool {
        self.ring.shares_processor()
    }

    /// Whether something is there to receive, or what is there is corrupt, which receiving then tells.
    pub(crate) fn has_data(&mut self) -> bool {
        self.ring.look_for_data() != Ok(0)
    }

    /// How many bytes have been taken in all.
    pub(crate) fn taken(&self) -> u64 {
        self.ring.taken()
    }

    /// Whether the other side is in the middle of sending: a message has been taken in part, or waits for room.
    pub(crate) fn is_receiving(&self) -> bool {
        self.is_within_message() || self.ring.peer_waits_for_room()
    }

    fn is_within_message(&self) -> bool {
        self.incoming.is_some() || !self.header.is_empty()
    }

    /// Takes nothing more from the other side, which has gone wrong.
    pub(crate) fn give_up(&mut self) {
        self.is_corrupt = true;
    }

    /// Blocks until there is data, if that is asked for, or `room` bytes of room, if that is not 0: one of the two.
    fn wait(&mut self, data: bool, room: usize) -> Result<(), LinkError> {
        self.flush()?;
        self.give_room_back()?;
        if is_ready(&mut self.ring, data, room) {
            return Ok(());
        }
        self.leave_if_asked();
        let ring = &mut self.ring;
        // Where the other side needs this processor, it could not go on meanwhile.
        let may_spin = !ring.shares_processor();
        let start = clock::monotonic_nanos();
        if may_spin && self.spin.until(|| is_ready(ring, data, room)) {
            return Ok(());
        }
        while !self.prepare_sleep(data, room) {
            self.let_go_after_a_while();
            let heard = self.inbox.listen(self.socket.as_fd(), Patience::Wait)?;
            step!("link::wait::woken");
            if heard == Heard::Closed {
                self.wake_up();
                // What the other side showed before it went is still to be had.
                return if data && self.has_data() {
                    Ok(())
                } else {
                    Err(LinkError::Closed)
                };
            }
        }
        self.wake_up();
        self.leave_if_asked();
        self.ring.note_processor();
        if !self.ring.shares_processor() {
            let waited = self.ring.rang().saturating_sub(start);
            self.spin.learn_exactly(Duration::from_nanos(waited));
        }
        Ok(())
    }

    /// Where something is held for the other side: sleeps for as long as the next message as a rule takes, and lets go of it if
    /// none has come. What this process uses itself is looked at again, more and more seldom.
    fn let_go_after_a_while(&mut self) {
        let Some(holder) = &mut self.holder else {
            return;
        };
        let mut pause = KEPT_ASLEEP;
        while holder.holds() {
            // Where it is refused, whoever listens next is told why.
            let has_news = poll::readable([self.socket.as_fd()], Deadline::after(pause));
            if !matches!(has_news, Ok([false])) {
                return;
            }
            holder.rest(&self.ring);
            pause = pause.saturating_mul(2);
        }
    }

    /// Leaves this processor, if the other side is there and wants that. The side that has made the link goes nowhere, whatever stands
    /// there: its thread is the application's.
    fn leave_if_asked(&mut self) {
        let asked = self.ring.sent_away();
        if self.holder.is_none() || asked == self.asked_away {
            return;
        }
        self.asked_away = asked;
        if self.ring.shares_processor() && limits::leave_processor() {
            self.ring.note_processor();
            // The next message is worth waiting for here: who wakes from there is put together with who is woken.
            self.spin.learn_exactly(Duration::ZERO);
        }
    }

    /// Asks the other side to leave the processor that this thread is on, when it waits next or wakes.
    pub(crate) fn send_away(&self) {
        self.ring.send_away();
    }

    /// How often the other side was asked to.
    pub(crate) fn times_sent_away(&self) -> u64 {
        self.ring.times_sent_away()
    }

    /// Says that this side is about to sleep, for data, for `room` bytes of room, or either; returns whether there is no
    /// need to. After the sleep, or instead of it, call [`wake_up`](Link::wake_up).
    pub(crate) fn prepare_sleep(&mut self, data: bool, room: usize) -> bool {
        self.ring.announce_sleep(data, room);
        if is_ready(&mut self.ring, data, room) {
            return true;
        }
        // In the middle of a message, while the other side waits for us and has nothing more to send: the length that it
        // said is not the message's.
        self.is_corrupt = data
            && room == 0
            && self.is_within_message()
            && self.ring.peer_only_waits_for_data()
            && self.ring.look_for_data() == Ok(0);
        self.is_corrupt
    }

    /// Says that this side is awake.
    pub(crate) fn wake_up(&mut self) {
        self.ring.announce_awake();
    }

    /// Takes the doorbells that are there, so that [`news`](Link::news) tells of later ones only.
    pub(crate) fn hear(&mut self) -> Result<(), LinkError> {
        match self.inbox.listen_to_all(self.socket.as_fd())? {
            Heard::Closed => Err(LinkError::Closed),
            Heard::News | Heard::Nothing => Ok(()),
        }
    }

    fn give_room_back(&mut self) -> Result<(), LinkError> {
        if self.ring.release() {
            self.ring_bell()
        } else {
            Ok(())
        }
    }

    /// Wakes the other side. One that is gone is noticed by whoever waits for it, once its last messages are read.
    fn ring_bell(&self) -> Result<(), LinkError> {
        step!("link::bell::owed");
        match socket::ring(self.socket.as_fd()) {
            Err(error) if is_gone(&error) => Ok(()),
            result => Ok(result?),
        }
    }
}

/// Whether there is what is waited for. Corrupt words count: whoever then looks for it is told.
fn is_ready(ring: &mut Duplex, data: bool, room: usize) -> bool {
    (data && ring.look_for_data() != Ok(0))
        || (room > 0 && ring.look_for_room().map_or(true, |free| free >= room))
}

#[cfg(test)]
mod tests;
