//! One direction of bytes between two processes: a ring that one writes and the other reads, and the words beside it.
//!
//! Each side has a page of words; the writer's is followed by the ring. **A side writes its own part alone and maps the
//! other's for reading**, so that a stray write of one process faults there instead of misleading the other.
//!
//! | word of a side | written by it when | read by the other |
//! |---|---|---|
//! | `TAIL` | bytes have been put into its ring; counts all that ever were | to see what is there |
//! | `HEAD` | bytes have been taken from the other's ring; counts likewise | to see what room there is |
//! | `ASLEEP` | it is about to sleep (even number of the sleep, and for what), or is awake (0 in the low bits) | after a `TAIL` or `HEAD`, to know whether to ring |
//! | `ROOM_WANTED` | with `ASLEEP` | to ring no sooner than that many bytes are free |
//! | `LEFT` | it has closed a copy of its socket; counts them | to know that the socket is worth a question |
//! | `PROCESSOR` | it rings, has woken or has changed it: where it runs, counted from 1 | to know whether to spin makes sense |
//! | `AWAY` | it wants the other to leave the processor that both are on; counts how often | when it is about to wait, and when it wakes |
//! | `RANG` | it rings: when | to know whether to spin would have |
//! | `CLAIM` | it has arrived, has come back unsent, or is used for the first time since a fork of its process: counts these | by nobody; copies of it, made by a fork or by sending one value several times, find that they are not it |
//! | `HELD`, `LENT` | it has, or names, what was sent before (see `loan`); one for each place | before it is named, or let go of |
//! | `NOTE`, `MOMENT` | as the layer above likes | likewise |
//!
//! **No wake-up is lost.** The sleeper stores `ASLEEP`, fences, and looks once more at the other's `TAIL` or `HEAD`. The
//! other exchanges that word and looks at `ASLEEP`, both sequentially consistent, which orders as a fence between them would. Of
//! two processes that both store, then fence, then load, at least one sees the other's store: either the sleeper sees the news and does not sleep, or the other sees the sleeper
//! and rings. It rings once for each number of a sleep and each reason, so a sleeper that is slow to wake is not rung at
//! again.
//!
//! **Nothing that is read is believed.** Positions only grow; the other's may be ahead of what was last seen by no more
//! than the ring holds, and not behind it. Anything else is [`Corrupt`], for good.
//!
//! **A side is one.** What it has put or taken stands in its process alone, so two that go on from there would overwrite, or both
//! take. Whoever becomes the side exchanges `CLAIM` for the next count, and has to know the one before, which goes along when
//! the side is sent. Of all copies that know the same count one can exchange it.
//!
//! **A death at any step** leaves the words as they are: bytes behind `TAIL` were never there, and the socket beside this
//! memory tells the survivor.

use crate::sys::clock;
use crate::sys::forks;
use crate::sys::identity;
use crate::sys::memory::{Mapping, ReadOnlyMapping};
use crate::sys::room::Room;
use crate::sys::step::step;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// What a side's words take up, and what the size of a ring is a multiple of.
pub(crate) const PAGE: usize = 4096;

// Words of a side, each on a line of its own so that the two processes do not contend for it. What changes as seldom as
// `ASLEEP` stands with it.
pub(crate) const TAIL: usize = 128;
pub(crate) const HEAD: usize = 256;
const ASLEEP: usize = 384;
const ROOM_WANTED: usize = 392;
const LEFT: usize = 400;
const PROCESSOR: usize = 408;
const CLAIM: usize = 416;
const RANG: usize = 424;
const AWAY: usize = 432;
const NOTE: usize = 512;
const MOMENT: usize = 520;
/// Where the words of [`loan`](super::loan) begin, of which there is a line each.
const HELD: usize = 1024;
const LENT: usize = 1152;
const RING: usize = PAGE;

const FOR_DATA: u64 = 1;
const FOR_ROOM: u64 = 2;
const REASONS: u64 = 3;
const NEXT_SLEEP: u64 = 4;

/// The other process has written what no sound one would.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other process has overwritten shared memory")]
pub(crate) struct Corrupt;

/// A word that this side writes and the other reads.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    side: Arc<Mapping>,
}

impl Note {
    pub(crate) fn new(side: &Arc<Mapping>) -> Note {
        Note {
            side: Arc::clone(side),
        }
    }

    /// The word itself: what is stored here, with release ordering, the other side reads.
    #[inline]
    pub(crate) fn word(&self) -> &AtomicU64 {
        self.side.word(NOTE)
    }

    /// A second word, beside the first: what is stored here before the first is seen with it.
    #[inline]
    pub(crate) fn moment(&self) -> &AtomicU64 {
        self.side.word(MOMENT)
    }

    /// The other's second word.
    pub(crate) fn moment_of_peer(peer: &ReadOnlyMapping) -> u64 {
        peer.load(MOMENT, Ordering::Acquire)
    }

    /// The other's word.
    pub(crate) fn of_peer(peer: &ReadOnlyMapping) -> u64 {
        peer.load(NOTE, Ordering::Acquire)
    }
}

/// How many places there are for what one side keeps for the other.
const PLACES: usize = 8;

/// The word that says what a side keeps in a place, and the one that counts how often it has named what the other keeps
/// there.
///
/// # Panics
///
/// Where there is no such place.
#[inline]
pub(crate) fn loan_words(place: usize) -> (usize, usize) {
    assert!(place < PLACES, "there is no such place");
    (HELD + 8 * place, LENT + 8 * place)
}

/// A place in a ring that is behind its end by less than its length.
#[inline]
fn around(at: usize, capacity: u64) -> usize {
    let capacity = capacity as usize;
    if at >= capacity { at - capacity } else { at }
}

/// How many copies of its socket the other has closed.
#[inline]
fn left(peer: &ReadOnlyMapping) -> u64 {
    peer.load(LEFT, Ordering::Acquire)
}

/// Whether the other last rang or woke on this very processor: while one spins there, it could not go on. One that never did is
/// not worth the question where we are.
#[inline]
fn shares_processor(peer: &ReadOnlyMapping) -> bool {
    let theirs = peer.load(PROCESSOR, Ordering::Relaxed);
    theirs != 0 && theirs == identity::processor()
}

/// The writing side of a ring.
#[derive(Debug)]
pub(crate) struct Outgoing {
    own: Arc<Mapping>,
    peer: Arc<ReadOnlyMapping>,
    capacity: u64,
    /// Bytes that we have put, and of these, what the other can see.
    tail: u64,
    tail_shown: u64,
    /// Where in the ring the next byte goes: `tail` modulo the capacity, without a division for each message.
    at: usize,
    /// Whether something was shown and nobody has looked since whether the other sleeps for it.
    has_news: bool,
    /// What the other had taken when last looked at, and checked.
    peer_head: u64,
    /// The number of the other's last sleep that we rang at.
    rung: u64,
}

impl Outgoing {
    /// The ring of `capacity` bytes behind the words in `own`, in which `tail` bytes have been put and shown before.
    pub(crate) fn new(
        own: Arc<Mapping>,
        peer: Arc<ReadOnlyMapping>,
        capacity: usize,
        tail: u64,
    ) -> Outgoing {
        Outgoing {
            own,
            peer,
            capacity: capacity as u64,
            tail,
            tail_shown: tail,
            at: (tail % capacity as u64) as usize,
            has_news: false,
            peer_head: tail.saturating_sub(capacity as u64),
            rung: 0,
        }
    }

    #[inline]
    pub(crate) fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Puts as many of `bytes` as there is room for; the other sees them after [`show`](Outgoing::show).
    #[inline]
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<usize, Corrupt> {
        if self.free() < bytes.len() {
            self.look_for_room()?;
        }
        let len = self.free().min(bytes.len());
        let first = len.min(self.capacity as usize - self.at);
        self.own.write(RING + self.at, &bytes[..first]);
        if first < len {
            self.own.write(RING, &bytes[first..len]);
        }
        self.advance(len);
        Ok(len)
    }

    /// Leaves out `len` bytes, for which there must be room: the other finds anything there.
    #[inline]
    pub(crate) fn skip(&mut self, len: usize) {
        self.advance(len.min(self.free()));
    }

    #[inline]
    fn advance(&mut self, len: usize) {
        self.tail += len as u64;
        self.at = around(self.at + len, self.capacity);
    }

    /// Bytes that could be put when the other's words were last looked at.
    #[inline]
    pub(crate) fn free(&self) -> usize {
        (self.capacity - (self.tail - self.peer_head)) as usize
    }

    /// Bytes that were put in all, and of these, what the other says that it has taken.
    pub(crate) fn positions(&self) -> (u64, u64) {
        (self.tail, self.peer.load(HEAD, Ordering::Acquire))
    }

    /// Bytes that can be put now.
    pub(crate) fn look_for_room(&mut self) -> Result<usize, Corrupt> {
        let head = self.peer.load(HEAD, Ordering::Acquire);
        if head < self.peer_head || head > self.tail_shown {
            return Err(Corrupt);
        }
        self.peer_head = head;
        Ok(self.free())
    }

    /// Makes all that was put visible. If the other sleeps for it, it has to be rung at
    /// ([`owes_bell`](Outgoing::owes_bell)).
    #[inline]
    pub(crate) fn show(&mut self) {
        if self.tail == self.tail_shown {
            return;
        }
        self.tail_shown = self.tail;
        self.has_news = true;
        // Publishes the bytes above. Pairs with the acquire in `look_for_data`, and, before the load in `owes_bell`, with the
        // fence in `Sleeper::announce`. One exchange costs less than a store and a fence.
        step!("ring::put::written");
        self.own.word(TAIL).swap(self.tail, Ordering::SeqCst);
        step!("ring::put::shown");
    }

    /// Whether the other sleeps for what was shown and has not been rung at for it. Whoever asks rings.
    #[inline]
    pub(crate) fn owes_bell(&mut self) -> bool {
        if !std::mem::take(&mut self.has_news) {
            return false;
        }
        let asleep = self.peer.load(ASLEEP, Ordering::SeqCst);
        if asleep & FOR_DATA == 0 || asleep & !REASONS == self.rung {
            return false;
        }
        self.rung = asleep & !REASONS;
        true
    }

    /// Whether the other has slept, and does not now.
    pub(crate) fn peer_is_awake(&self) -> bool {
        self.peer.load(ASLEEP, Ordering::Relaxed) & REASONS == 0
            && self.peer.load(PROCESSOR, Ordering::Relaxed) != 0
    }

    /// Whether the other sleeps until it is sent something, and has nothing to send itself.
    pub(crate) fn peer_only_waits_for_data(&self) -> bool {
        self.peer.load(ASLEEP, Ordering::Acquire) & REASONS == FOR_DATA
    }

    /// Whether the other sleeps until there is room for what it sends.
    pub(crate) fn peer_waits_for_room(&self) -> bool {
        self.peer.load(ASLEEP, Ordering::Acquire) & FOR_ROOM != 0
    }

    /// How many copies of its socket the other has closed.
    #[inline]
    pub(crate) fn peer_left(&self) -> u64 {
        left(&self.peer)
    }

    /// Whether the other last rang on this very processor: while one spins there, it could not go on.
    pub(crate) fn shares_processor(&self) -> bool {
        shares_processor(&self.peer)
    }
}

/// The reading side of a ring.
#[derive(Debug)]
pub(crate) struct Incoming {
    own: Arc<Mapping>,
    peer: Arc<ReadOnlyMapping>,
    capacity: u64,
    /// Bytes that we have taken, and of these, what the other can see.
    head: u64,
    head_shown: u64,
    /// Where in the ring the next byte is: `head` modulo the capacity.
    at: usize,
    /// What the other had put when last looked at, and checked.
    peer_tail: u64,
    /// The number of the other's last sleep that we rang at.
    rung: u64,
}

impl Incoming {
    /// The ring of `capacity` bytes behind the words in `peer`, from which `head` bytes have been taken and released before.
    pub(crate) fn new(
        own: Arc<Mapping>,
        peer: Arc<ReadOnlyMapping>,
        capacity: usize,
        head: u64,
    ) -> Incoming {
        Incoming {
            own,
            peer,
            capacity: capacity as u64,
            head,
            head_shown: head,
            at: (head % capacity as u64) as usize,
            peer_tail: head,
            rung: 0,
        }
    }

    /// Bytes that can be taken now.
    #[inline]
    pub(crate) fn look_for_data(&mut self) -> Result<usize, Corrupt> {
        let tail = self.peer.load(TAIL, Ordering::Acquire);
        if tail < self.peer_tail || tail - self.head > self.capacity {
            return Err(Corrupt);
        }
        self.peer_tail = tail;
        Ok((tail - self.head) as usize)
    }

    /// How many bytes fit.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Bytes that could be taken when the other's words were last looked at.
    #[inline]
    pub(crate) fn available(&self) -> usize {
        (self.peer_tail - self.head) as usize
    }

    /// How many bytes were taken in all.
    pub(crate) fn position(&self) -> u64 {
        self.head
    }

    /// Copies the bytes that stand `ahead` of those to be taken next; they are not taken. As many must be available.
    #[inline]
    pub(crate) fn peek(&self, ahead: usize, into: &mut [u8]) {
        let start = around(self.at + ahead, self.capacity);
        let first = into.len().min(self.capacity as usize - start);
        let (one, other) = into.split_at_mut(first);
        self.peer.read(RING + start, one);
        if !other.is_empty() {
            self.peer.read(RING, other);
        }
    }

    /// Takes up to `len` bytes, of those last looked for, and appends them to `out`, which must have room for them.
    #[inline]
    pub(crate) fn take(&mut self, len: usize, out: &mut Vec<u8>) -> usize {
        let len = self.available().min(len);
        let first = len.min(self.capacity as usize - self.at);
        self.peer.append_to(RING + self.at, first, out);
        if first < len {
            self.peer.append_to(RING, len - first, out);
        }
        self.advance(len);
        len
    }

    /// Takes up to `len` bytes, of those last looked for, to where there is room for them, from the byte at `at` on.
    ///
    /// # Panics
    ///
    /// Where there is not so much room.
    pub(crate) fn take_to(&mut self, len: usize, room: &mut dyn Room, at: usize) -> usize {
        let len = self.available().min(len);
        let first = len.min(self.capacity as usize - self.at);
        room.fill(at..at + first, &self.peer, RING + self.at);
        if first < len {
            room.fill(at + first..at + len, &self.peer, RING);
        }
        self.advance(len);
        len
    }

    /// Takes up to `len` bytes, of those last looked for, and does away with them.
    #[inline]
    pub(crate) fn skip(&mut self, len: usize) {
        self.advance(self.available().min(len));
    }

    #[inline]
    fn advance(&mut self, len: usize) {
        self.head += len as u64;
        self.at = around(self.at + len, self.capacity);
    }

    /// Bytes that were taken and that the other still believes to fill the ring.
    pub(crate) fn unreleased(&self) -> usize {
        (self.head - self.head_shown) as usize
    }

    /// Gives the room of what was taken back; returns whether the other sleeps for it and has to be rung at.
    #[inline]
    pub(crate) fn release(&mut self) -> bool {
        if self.head == self.head_shown {
            return false;
        }
        self.head_shown = self.head;
        // The bytes have been copied out. Pairs with the acquire in `look_for_room`, and, before the load of `ASLEEP`, with
        // the fence in `Sleeper::announce`.
        step!("ring::take::copied");
        self.own.word(HEAD).swap(self.head, Ordering::SeqCst);
        step!("ring::take::released");
        let asleep = self.peer.load(ASLEEP, Ordering::SeqCst);
        if asleep & FOR_ROOM == 0 || asleep & !REASONS == self.rung {
            return false;
        }
        let tail = self.peer.load(TAIL, Ordering::Acquire);
        let used = tail.saturating_sub(self.head);
        let wanted = self.peer.load(ROOM_WANTED, Ordering::Relaxed);
        if self.capacity.saturating_sub(used) < wanted.min(self.capacity) {
            return false;
        }
        self.rung = asleep & !REASONS;
        true
    }

    /// How many copies of its socket the other has closed.
    #[inline]
    pub(crate) fn peer_left(&self) -> u64 {
        left(&self.peer)
    }

    /// Whether the other last rang on this very processor: while one spins there, it could not go on.
    pub(crate) fn shares_processor(&self) -> bool {
        shares_processor(&self.peer)
    }

    /// How often the other has asked us to leave the processor that both are on.
    pub(crate) fn sent_away(&self) -> u64 {
        self.peer.load(AWAY, Ordering::Acquire)
    }

    /// When the other last rang, by the monotonic clock, if what it says is to be believed.
    pub(crate) fn rang(&self) -> u64 {
        self.peer.load(RANG, Ordering::Relaxed)
    }
}

/// By which a side says that it sleeps.
#[derive(Debug)]
pub(crate) struct Sleeper {
    own: Arc<Mapping>,
    number: u64,
    /// What `CLAIM` was when this became the side, and how many forks there had been.
    claim: u64,
    forks: u64,
}

/// In place of the number of forks, where it is not known yet whether this is the side.
const UNKNOWN: u64 = u64::MAX;

impl Sleeper {
    /// A side that is made here and never moves.
    pub(crate) fn settled(own: Arc<Mapping>) -> Sleeper {
        Sleeper {
            own,
            number: 0,
            claim: 0,
            forks: forks::count(),
        }
    }

    /// A side that arrives, whose last sleep had `number` and which had `claim` where it was before; both are 0 for one that was
    /// nowhere. `None` where another copy of it has arrived already.
    pub(crate) fn arrive(own: Arc<Mapping>, number: u64, claim: u64) -> Option<Sleeper> {
        let mut sleeper = Sleeper {
            own,
            number,
            claim,
            forks: UNKNOWN,
        };
        sleeper.claim_it().then_some(sleeper)
    }

    /// What `CLAIM` was when this became the side.
    pub(crate) fn claim(&self) -> u64 {
        self.claim
    }

    /// The side was sent, and is here again since that failed. What is left of it on the way does not arrive any more; should it
    /// have arrived all the same, the side is there, and not here.
    pub(crate) fn come_back(&mut self) {
        self.forks = UNKNOWN;
        self.claim_it();
    }

    /// Whether this is the side, and not a copy of it. After a fork, the first of the two that asks is.
    #[inline]
    pub(crate) fn is_ours(&mut self) -> bool {
        forks::count() == self.forks || self.claim_it()
    }

    #[cold]
    fn claim_it(&mut self) -> bool {
        let forks = forks::count();
        let next = self.claim.wrapping_add(1);
        let word = self.own.word(CLAIM);
        // All copies have seen the same count, and one of them can change it.
        let is_ours = word
            .compare_exchange(self.claim, next, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok();
        if is_ours {
            self.claim = next;
            self.forks = forks;
        }
        is_ours
    }

    /// The number of the last sleep.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Says that we sleep, for data, for `room` bytes if that is not 0, or for both. After this, and before sleeping, look
    /// once more: what came before the other could see this is not rung for.
    pub(crate) fn announce(&mut self, data: bool, room: usize) {
        self.number = self.number.wrapping_add(NEXT_SLEEP);
        let for_data = if data { FOR_DATA } else { 0 };
        let for_room = if room > 0 { FOR_ROOM } else { 0 };
        self.own
            .word(ROOM_WANTED)
            .store(room as u64, Ordering::Relaxed);
        step!("ring::sleep::number_drafted");
        self.own
            .word(ASLEEP)
            .store(self.number | for_data | for_room, Ordering::Release);
        // Pairs with the fences in `Outgoing::show` and `Incoming::release`.
        fence(Ordering::SeqCst);
        step!("ring::sleep::announced");
    }

    /// Where one thread of this side sleeps for data and another has begun a message that there is no room for: says that
    /// `room` bytes are waited for as well. What is shown after this is seen after it.
    pub(crate) fn also_for_room(&mut self, room: usize) {
        let asleep = self.own.word(ASLEEP).load(Ordering::Relaxed);
        if asleep & REASONS == FOR_DATA {
            self.own
                .word(ROOM_WANTED)
                .store(room as u64, Ordering::Relaxed);
            self.own
                .word(ASLEEP)
                .store(asleep | FOR_ROOM, Ordering::Release);
        }
    }

    /// Says that we are awake.
    pub(crate) fn awake(&mut self) {
        self.own.word(ASLEEP).store(self.number, Ordering::Release);
        step!("ring::sleep::awake");
    }

    /// Says where we run.
    pub(crate) fn note_processor(&self) {
        let processor = identity::processor();
        self.own.word(PROCESSOR).store(processor, Ordering::Relaxed);
    }

    /// Says where we run, and when this is, to one whom we are about to wake.
    pub(crate) fn note_ring(&self) {
        self.note_processor();
        let now = clock::monotonic_nanos();
        self.own.word(RANG).store(now, Ordering::Relaxed);
    }

    /// Asks the other to leave the processor that this thread is on.
    pub(crate) fn send_away(&self) {
        self.note_processor();
        // Who sees it sees which processor that is.
        self.own.word(AWAY).fetch_add(1, Ordering::Release);
    }

    /// How often we have asked for that.
    pub(crate) fn times_sent_away(&self) -> u64 {
        self.own.word(AWAY).load(Ordering::Relaxed)
    }

    /// Says that a copy of our socket has been closed.
    pub(crate) fn leave(&self) {
        self.own.word(LEFT).fetch_add(1, Ordering::Release);
    }
}
