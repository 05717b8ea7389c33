//! Two byte rings between two processes, one in each direction, for a side that one thread at a time looks after.
//!
//! One memory file has a page that both may write, and for each side a page of words and a ring; how they are used stands
//! in `ring`. A side sleeps for both directions at once.

use crate::shm::ring::{Corrupt, Incoming, Note, Outgoing, PAGE, Sleeper, loan_words};
use crate::sys::memory::{Mapping, ReadOnlyMapping, SealedMemory};
use crate::sys::room::Room;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const MAGIC: u64 = 0x6d70_6c69_6e6b_0001;

// Words of the page that both write.
const MAGIC_WORD: usize = 0;
const CAPACITY_WORD: usize = 8;
const SHARED_WORD: usize = 128;

/// One side of the two rings.
#[derive(Debug)]
pub(crate) struct Duplex {
    common: Mapping,
    own: Arc<Mapping>,
    peer: Arc<ReadOnlyMapping>,
    outgoing: Outgoing,
    incoming: Incoming,
    sleeper: Sleeper,
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
        let (ours, theirs) = (PAGE + own * side, PAGE + peer * side);
        let own = Arc::new(memory.map(ours, side)?);
        let peer = Arc::new(memory.map_read_only(theirs, side)?);
        Ok(Duplex {
            common,
            outgoing: Outgoing::new(Arc::clone(&own), Arc::clone(&peer), capacity, 0),
            incoming: Incoming::new(Arc::clone(&own), Arc::clone(&peer), capacity, 0),
            sleeper: Sleeper::settled(Arc::clone(&own)),
            own,
            peer,
        })
    }

    pub(crate) fn capacity(&self) -> usize {
        self.outgoing.capacity()
    }

    /// A word that both sides may write.
    pub(crate) fn shared_word(&self) -> &AtomicU64 {
        self.common.word(SHARED_WORD)
    }

    /// A word of our side for the layer above.
    pub(crate) fn note(&self) -> Note {
        Note::new(&self.own)
    }

    /// The other's word for the layer above.
    pub(crate) fn peer_note(&self) -> u64 {
        Note::of_peer(&self.peer)
    }

    /// The other's second word.
    pub(crate) fn peer_moment(&self) -> u64 {
        Note::moment_of_peer(&self.peer)
    }

    /// Our word that says what we keep in a place for the other: see [`loan`](super::loan).
    pub(crate) fn held(&self, place: usize) -> &AtomicU64 {
        self.own.word(loan_words(place).0)
    }

    /// Says under which mark it came that is in a place; 0 for nothing.
    pub(crate) fn say_held(&self, place: usize, mark: u64) {
        self.held(place).store(mark, Ordering::Release);
    }

    /// Our word that counts how often we have named what the other keeps in a place.
    pub(crate) fn lent(&self, place: usize) -> &AtomicU64 {
        self.own.word(loan_words(place).1)
    }

    /// What the other says that it keeps in a place.
    pub(crate) fn held_by_peer(&self, place: usize) -> u64 {
        self.peer.load(loan_words(place).0, Ordering::Acquire)
    }

    /// How often the other says that it has named what we keep in a place.
    pub(crate) fn lent_by_peer(&self, place: usize) -> u64 {
        self.peer.load(loan_words(place).1, Ordering::Acquire)
    }

    /// As [`Outgoing::put`].
    #[inline]
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<usize, Corrupt> {
        self.outgoing.put(bytes)
    }

    /// As [`Outgoing::positions`].
    pub(crate) fn positions(&self) -> (u64, u64) {
        self.outgoing.positions()
    }

    /// As [`Outgoing::look_for_room`].
    #[inline]
    pub(crate) fn look_for_room(&mut self) -> Result<usize, Corrupt> {
        self.outgoing.look_for_room()
    }

    /// As [`Outgoing::show`].
    #[inline]
    pub(crate) fn show(&mut self) {
        self.outgoing.show();
    }

    /// As [`Outgoing::owes_bell`].
    #[inline]
    pub(crate) fn owes_bell(&mut self) -> bool {
        let owes = self.outgoing.owes_bell();
        if owes {
            self.sleeper.note_ring();
        }
        owes
    }

    /// As [`Incoming::look_for_data`].
    #[inline]
    pub(crate) fn look_for_data(&mut self) -> Result<usize, Corrupt> {
        self.incoming.look_for_data()
    }

    /// As [`Incoming::take`].
    #[inline]
    pub(crate) fn take(&mut self, len: usize, out: &mut Vec<u8>) -> usize {
        self.incoming.take(len, out)
    }

    /// As [`Incoming::take_to`].
    pub(crate) fn take_to(&mut self, len: usize, room: &mut dyn Room, at: usize) -> usize {
        self.incoming.take_to(len, room, at)
    }

    /// As [`Incoming::skip`]; returns how many.
    pub(crate) fn skip(&mut self, len: usize) -> usize {
        let len = self.incoming.available().min(len);
        self.incoming.skip(len);
        len
    }

    /// As [`Incoming::position`].
    pub(crate) fn taken(&self) -> u64 {
        self.incoming.position()
    }

    /// As [`Incoming::unreleased`].
    #[inline]
    pub(crate) fn unreleased(&self) -> usize {
        self.incoming.unreleased()
    }

    /// As [`Incoming::release`].
    #[inline]
    pub(crate) fn release(&mut self) -> bool {
        let owes = self.incoming.release();
        if owes {
            self.sleeper.note_ring();
        }
        owes
    }

    /// As [`Sleeper::announce`].
    pub(crate) fn announce_sleep(&mut self, data: bool, room: usize) {
        self.sleeper.announce(data, room);
    }

    /// As [`Sleeper::also_for_room`].
    pub(crate) fn also_sleep_for_room(&mut self, room: usize) {
        self.sleeper.also_for_room(room);
    }

    /// As [`Outgoing::peer_only_waits_for_data`].
    pub(crate) fn peer_only_waits_for_data(&self) -> bool {
        self.outgoing.peer_only_waits_for_data()
    }

    /// As [`Outgoing::peer_waits_for_room`].
    pub(crate) fn peer_waits_for_room(&self) -> bool {
        self.outgoing.peer_waits_for_room()
    }

    /// As [`Outgoing::peer_is_awake`].
    pub(crate) fn peer_is_awake(&self) -> bool {
        self.outgoing.peer_is_awake()
    }

    /// As [`Sleeper::note_processor`].
    pub(crate) fn note_processor(&self) {
        self.sleeper.note_processor();
    }

    /// As [`Sleeper::send_away`].
    pub(crate) fn send_away(&self) {
        self.sleeper.send_away();
    }

    /// As [`Sleeper::times_sent_away`].
    pub(crate) fn times_sent_away(&self) -> u64 {
        self.sleeper.times_sent_away()
    }

    /// As [`Incoming::sent_away`].
    pub(crate) fn sent_away(&self) -> u64 {
        self.incoming.sent_away()
    }

    /// As [`Incoming::shares_processor`].
    pub(crate) fn shares_processor(&self) -> bool {
        self.incoming.shares_processor()
    }

    /// As [`Incoming::rang`].
    pub(crate) fn rang(&self) -> u64 {
        self.incoming.rang()
    }

    /// As [`Sleeper::awake`].
    pub(crate) fn announce_awake(&mut self) {
        self.sleeper.awake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::ring::{HEAD, TAIL};

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
