//! Two byte rings between two processes, and the words by which either says that it sleeps.
//!
//! One memory file has a page that both may write, and for each side a page of words and a ring of bytes. **A side
//! writes its own part alone and maps the other's for reading**, so that a stray write of one process faults there
//! instead of misleading the other.
//!
//! | word of a side | written by it when | read by the other |
//! |---|---|---|
//! | `TAIL` | bytes have been put into its ring; counts all that ever were | to see what is there |
//! | `HEAD` | bytes have been taken from the other's ring; counts likewise | to see what room there is |
//! | `ASLEEP` | it is about to sleep (even number of the sleep, and for what), or is awake (0 in the low bits) | after a `TAIL` or `HEAD`, to know whether to ring |
//! | `ROOM_WANTED` | with `ASLEEP` | to ring no sooner than that many bytes are free |
//! | `NOTE` | as the layer above likes | likewise |
//!
//! **No wake-up is lost.** The sleeper stores `ASLEEP`, fences, and looks once more at the other's `TAIL` or `HEAD`. The
//! other stores that word, fences, and looks at `ASLEEP`. Of two processes that both store, then fence, then load, at least
//! one sees the other's store: either the sleeper sees the news and does not sleep, or the other sees the sleeper
//! and rings. It rings once for each number of a sleep, so a sleeper that is slow to wake is not rung at again.
//!
//! **Nothing that is read is believed.** Positions only grow; the other's may be ahead of what was last seen by no more
//! than the ring holds, and not behind it. Anything else is [`Corrupt`], for good.
//!
//! **A death at any step** leaves the words as they are: bytes behind `TAIL` were never there, and the socket beside this
//! memory tells the survivor.

use crate::sys::memory::{Mapping, ReadOnlyMapping, SealedMemory};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

const PAGE: usize = 4096;
const MAGIC: u64 = 0x6d70_6c69_6e6b_0001;

// Words of a side, each on a line of its own so that the two processes do not contend for it.
const TAIL: usize = 128;
const HEAD: usize = 256;
const ASLEEP: usize = 384;
const ROOM_WANTED: usize = 392;
const NOTE: usize = 512;
const RING: usize = PAGE;

// Words of the page that both write.
const MAGIC_WORD: usize = 0;
const CAPACITY_WORD: usize = 8;
const SHARED_WORD: usize = 128;

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
    /// The word itself: what is stored here, with release ordering, the other side reads.
    #[inline]
    pub(crate) fn word(&self) -> &AtomicU64 {
        self.side.word(NOTE)
    }
}

/// One side of the two rings.
#[derive(Debug)]
pub(crate) struct Duplex {
    common: Mapping,
    own: Arc<Mapping>,
    peer: ReadOnlyMapping,
    capacity: u64,
    /// Bytes that we have put, and of these, what the other can see.
    tail: u64,
    tail_shown: u64,
    /// Whether something was shown and nobody has looked since whether the other sleeps for it.
    has_news: bool,
    /// Bytes that we have taken, and of these, what the other can see.
    head: u64,
    head_shown: u64,
    /// The other's words, as last seen and checked.
    peer_tail: u64,
    peer_head: u64,
    /// The number of our last sleep, and of the other's last that we rang at.
    sleep: u64,
    rung: u64,
}

impl Duplex {
    /// Makes rings of `capacity` bytes each way, a multiple of the page size, and takes the first side.
    pub(crate) fn create(capacity: usize) -> io::Result<(Duplex, SealedMemory)> {
        assert!(
            capacity > 0 && capacity % PAGE == 0,
            "a ring is whole pages"
        );
        let memory = SealedMemory::create(PAGE + 2 * (PAGE + capacity))?;
        let common = memory.map(0, PAGE)?;
        common
            .word(CAPACITY_WORD)
            .store(capacity as u64, Ordering::Relaxed);
        common.word(MAGIC_WORD).store(MAGIC, Ordering::Release);
        let duplex = Duplex::sided(&memory, common, capacity, 0, 1)?;
        Ok((duplex, memory))
    }

    /// Takes the second side of rings that another process made.
    pub(crate) fn attach(memory: &SealedMemory) -> io::Result<Duplex> {
        let common = memory.map(0, PAGE)?;
        let magic = common.word(MAGIC_WORD).load(Ordering::Acquire);
        let capacity = usize::try_from(common.word(CAPACITY_WORD).load(Ordering::Relaxed)).ok();
        let expected = capacity.and_then(|capacity| {
            let side = capacity.checked_add(PAGE)?;
            side.checked_mul(2)?.checked_add(PAGE)
        });
        match capacity {
            Some(capacity)
                if magic == MAGIC
                    && capacity > 0
                    && capacity % PAGE == 0
                    && expected == Some(memory.len()) =>
            {
                Duplex::sided(memory, common, capacity, 1, 0)
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "no link is in this memory",
            )),
        }
    }

    fn sided(
        memory: &SealedMemory,
        common: Mapping,
        capacity: usize,
        own: usize,
        peer: usize,
    ) -> io::Result<Duplex> {
        let side = PAGE + capacity;
        Ok(Duplex {
            common,
            own: Arc::new(memory.map(PAGE + own * side, side)?),
            peer: memory.map_read_only(PAGE + peer * side, side)?,
            capacity: capacity as u64,
            tail: 0,
            tail_shown: 0,
            has_news: false,
            head: 0,
            head_shown: 0,
            peer_tail: 0,
            peer_head: 0,
            sleep: 0,
            rung: 0,
        })
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// A word that both sides may write.
    pub(crate) fn shared_word(&self) -> &AtomicU64 {
        self.common.word(SHARED_WORD)
    }

    /// A word of our side for the layer above.
    pub(crate) fn note(&self) -> Note {
        Note {
            side: Arc::clone(&self.own),
        }
    }

    /// The other's word for the layer above.
    pub(crate) fn peer_note(&self) -> u64 {
        self.peer.load(NOTE, Ordering::Acquire)
    }

    /// Puts as many of `bytes` as there is room for; the other sees them after [`show`](Duplex::show).
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<usize, Corrupt> {
        if self.free() < bytes.len() as u64 {
            self.look_for_room()?;
        }
        let len = self.free().min(bytes.len() as u64) as usize;
        let start = (self.tail % self.capacity) as usize;
        let first = len.min(self.capacity as usize - start);
        self.own.write(RING + start, &bytes[..first]);
        if first < len {
            self.own.write(RING, &bytes[first..len]);
        }
        self.tail += len as u64;
        Ok(len)
    }

    fn free(&self) -> u64 {
        self.capacity - (self.tail - self.peer_head)
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
        Ok(self.free() as usize)
    }

    /// Makes all that was put visible. If the other sleeps for it, it has to be rung at ([`owes_bell`](Duplex::owes_bell)).
    pub(crate) fn show(&mut self) {
        if self.tail == self.tail_shown {
            return;
        }
        self.tail_shown = self.tail;
        self.has_news = true;
        // Publishes the bytes above. Pairs with the acquire in `look_for_data`.
        self.own.word(TAIL).store(self.tail, Ordering::Release);
        // Pairs with the fence in `announce_sleep`.
        fence(Ordering::SeqCst);
    }

    /// Whether the other sleeps for what was shown and has not been rung at for it. Whoever asks rings.
    pub(crate) fn owes_bell(&mut self) -> bool {
        std::mem::take(&mut self.has_news) && self.must_ring(FOR_DATA)
    }

    /// Bytes that can be taken now.
    pub(crate) fn look_for_data(&mut self) -> Result<usize, Corrupt> {
        let tail = self.peer.load(TAIL, Ordering::Acquire);
        if tail < self.peer_tail || tail - self.head > self.capacity {
            return Err(Corrupt);
        }
        self.peer_tail = tail;
        Ok((tail - self.head) as usize)
    }

    /// Takes up to `len` bytes, of those last looked for, and appends them to `out`, which must have room for them.
    pub(crate) fn take(&mut self, len: usize, out: &mut Vec<u8>) -> usize {
        let len = (self.peer_tail - self.head).min(len as u64) as usize;
        let start = (self.head % self.capacity) as usize;
        let first = len.min(self.capacity as usize - start);
        self.peer.append_to(RING + start, first, out);
        if first < len {
            self.peer.append_to(RING, len - first, out);
        }
        self.head += len as u64;
        len
    }

    /// Bytes that were taken and that the other still believes to fill the ring.
    pub(crate) fn unreleased(&self) -> usize {
        (self.head - self.head_shown) as usize
    }

    /// Gives the room of what was taken back; returns whether the other sleeps for it and has to be rung at.
    pub(crate) fn release(&mut self) -> bool {
        if self.head == self.head_shown {
            return false;
        }
        self.head_shown = self.head;
        // The bytes have been copied out. Pairs with the acquire in `look_for_room`.
        self.own.word(HEAD).store(self.head, Ordering::Release);
        // Pairs with the fence in `announce_sleep`.
        fence(Ordering::SeqCst);
        self.must_ring(FOR_ROOM)
    }

    fn must_ring(&mut self, reason: u64) -> bool {
        let asleep = self.peer.load(ASLEEP, Ordering::Acquire);
        if asleep & reason == 0 || asleep & !REASONS == self.rung {
            return false;
        }
        if reason == FOR_ROOM {
            let used = self
                .peer
                .load(TAIL, Ordering::Acquire)
                .saturating_sub(self.head);
            let wanted = self.peer.load(ROOM_WANTED, Ordering::Relaxed);
            if self.capacity.saturating_sub(used) < wanted.min(self.capacity) {
                return false;
            }
        }
        self.rung = asleep & !REASONS;
        true
    }

    /// Says that we sleep, for data, for `room` bytes if that is not 0, or for both. After this, and before sleeping, look
    /// once more: what came before the other could see this is not rung for.
    pub(crate) fn announce_sleep(&mut self, data: bool, room: usize) {
        self.sleep += NEXT_SLEEP;
        let for_data = if data { FOR_DATA } else { 0 };
        let for_room = if room > 0 { FOR_ROOM } else { 0 };
        self.own
            .word(ROOM_WANTED)
            .store(room as u64, Ordering::Relaxed);
        self.own
            .word(ASLEEP)
            .store(self.sleep | for_data | for_room, Ordering::Release);
        // Pairs with the fences in `show` and `release`.
        fence(Ordering::SeqCst);
    }

    /// Where one thread of this side sleeps for data and another has begun a message that there is no room for: says that
    /// `room` bytes are waited for as well. What is shown after this is seen after it.
    pub(crate) fn also_sleep_for_room(&mut self, room: usize) {
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

    /// Whether the other sleeps until it is sent something, and has nothing to send itself.
    pub(crate) fn peer_only_waits_for_data(&self) -> bool {
        self.peer.load(ASLEEP, Ordering::Acquire) & REASONS == FOR_DATA
    }

    /// Says that we are awake.
    pub(crate) fn announce_awake(&mut self) {
        self.own.word(ASLEEP).store(self.sleep, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(capacity: usize) -> (Duplex, Duplex, SealedMemory) {
        let (here, memory) = Duplex::create(capacity).unwrap();
        let there = Duplex::attach(&memory).unwrap();
        (here, there, memory)
    }

    fn shown(side: &mut Duplex) -> bool {
        side.show();
        side.owes_bell()
    }

    fn take_all(side: &mut Duplex) -> Vec<u8> {
        let len = side.look_for_data().unwrap();
        let mut out = Vec::with_capacity(len);
        side.take(len, &mut out);
        out
    }

    #[test]
    fn bytes_come_out_as_they_went_in_over_the_end_of_the_ring() {
        let (mut here, mut there, _memory) = pair(PAGE);
        let mut next = 0u8;
        let mut expected = 0u8;
        for len in (1..200).map(|round| round * 37 % 4096 + 1) {
            let bytes: Vec<u8> = (0..len)
                .map(|_| {
                    next = next.wrapping_add(1);
                    next
                })
                .collect();
            let mut put = 0;
            while put < bytes.len() {
                put += here.put(&bytes[put..]).unwrap();
                here.show();
                for byte in take_all(&mut there) {
                    expected = expected.wrapping_add(1);
                    assert_eq!(byte, expected);
                }
                there.release();
            }
        }
        assert_eq!(next, expected);
    }

    #[test]
    fn a_full_ring_takes_no_more_until_room_is_released() {
        let (mut here, mut there, _memory) = pair(PAGE);
        assert_eq!(here.put(&[1; 5000]).unwrap(), PAGE);
        assert_eq!(here.put(&[1]).unwrap(), 0);
        assert_eq!(there.look_for_data().unwrap(), 0);
        here.show();
        assert_eq!(take_all(&mut there).len(), PAGE);
        assert_eq!(here.put(&[1]).unwrap(), 0);
        there.release();
        assert_eq!(here.put(&[1; 5000]).unwrap(), PAGE);
    }

    #[test]
    fn a_sleeper_is_rung_at_once_for_each_sleep_and_only_for_what_it_sleeps_for() {
        let (mut here, mut there, _memory) = pair(PAGE);
        here.put(b"x").unwrap();
        assert!(!shown(&mut here), "nobody sleeps");
        there.announce_sleep(true, 0);
        here.put(b"x").unwrap();
        assert!(shown(&mut here));
        here.put(b"x").unwrap();
        assert!(!shown(&mut here), "it was rung at already");
        there.announce_awake();
        there.announce_sleep(false, PAGE);
        here.put(b"x").unwrap();
        assert!(!shown(&mut here), "it sleeps for room");
        there.announce_awake();
        there.announce_sleep(true, 0);
        here.put(b"x").unwrap();
        assert!(shown(&mut here), "another sleep");
    }

    #[test]
    fn a_sleeper_for_room_is_rung_at_when_there_is_enough() {
        let (mut here, mut there, _memory) = pair(PAGE);
        here.put(&[0; PAGE]).unwrap();
        here.show();
        here.announce_sleep(false, PAGE / 2);
        there.look_for_data().unwrap();
        there.take(PAGE / 2 - 1, &mut Vec::with_capacity(PAGE));
        assert!(!there.release());
        there.take(1, &mut Vec::with_capacity(PAGE));
        assert!(there.release());
    }

    #[test]
    fn positions_that_no_sound_process_writes_are_corrupt() {
        for bad in [1, 8, u64::MAX, u64::MAX - 5, 4097] {
            let (mut here, there, _memory) = pair(PAGE);
            there.own.word(HEAD).store(bad, Ordering::Release);
            assert_eq!(here.look_for_room(), Err(Corrupt), "head {bad}");
        }
        for bad in [4097, u64::MAX] {
            let (mut here, there, _memory) = pair(PAGE);
            there.own.word(TAIL).store(bad, Ordering::Release);
            assert_eq!(here.look_for_data(), Err(Corrupt), "tail {bad}");
        }
        let (mut here, mut there, _memory) = pair(PAGE);
        there.put(b"abc").unwrap();
        there.show();
        assert_eq!(take_all(&mut here), b"abc");
        there.own.word(TAIL).store(2, Ordering::Release);
        assert_eq!(here.look_for_data(), Err(Corrupt), "a tail that went back");
    }

    #[test]
    fn memory_without_a_link_is_refused() {
        assert!(Duplex::attach(&SealedMemory::create(PAGE).unwrap()).is_err());
        let (_here, _there, memory) = pair(PAGE);
        let common = memory.map(0, PAGE).unwrap();
        common
            .word(CAPACITY_WORD)
            .store(u64::MAX, Ordering::Relaxed);
        assert!(Duplex::attach(&memory).is_err());
    }
}
