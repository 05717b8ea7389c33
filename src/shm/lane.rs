//! Two lanes in one memory file: rings in opposite directions whose four ends may each be in another process.
//!
//! | from | to | written by |
//! |---|---|---|
//! | 0 | a page | whoever makes them: what is here, and how large |
//! | lane 0 or 1 | a page | its reader: words of `ring` |
//! | | a page and the ring | its writer: words of `ring`, bytes |
//!
//! What an end has put or taken so far goes with it when it moves, as does the number of its last sleep: the other end
//! rings once for each number, so none may come twice. An end that is sent may arrive several times, where what was sent is read
//! several times: its claim goes along, and the first that arrives with it is the end.

use crate::shm::ring::{Incoming, Outgoing, PAGE, Sleeper};
use crate::sys::memory::{Mapping, SealedMemory};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const MAGIC: u64 = 0x6d70_6c61_6e65_0001;
const MAGIC_WORD: usize = 0;
const CAPACITY_WORD: usize = 8;

/// The largest ring.
const CAPACITY_MAX: usize = 1 << 30;

/// The furthest that an end can have got when it arrives. No pipe gets there; one that says so could count past the end of
/// the numbers.
const POSITION_MAX: u64 = 1 << 62;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Forth,
    Back,
}

/// The two lanes, as far as a process needs them to take an end.
#[derive(Debug)]
pub(crate) struct Lanes {
    memory: SealedMemory,
    capacity: usize,
}

impl Lanes {
    /// Makes lanes of `capacity` bytes each, rounded up to whole pages.
    pub(crate) fn create(capacity: usize) -> io::Result<Lanes> {
        if capacity > CAPACITY_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let capacity = capacity.max(1).next_multiple_of(PAGE);
        let memory = SealedMemory::create(PAGE + 2 * (2 * PAGE + capacity))?;
        let common = memory.map(0, PAGE)?;
        common
            .word(CAPACITY_WORD)
            .store(capacity as u64, Ordering::Relaxed);
        common.word(MAGIC_WORD).store(MAGIC, Ordering::Release);
        Ok(Lanes { memory, capacity })
    }

    /// Finds the lanes that another process made.
    pub(crate) fn attach(memory: SealedMemory) -> io::Result<Lanes> {
        let refused = || io::Error::new(io::ErrorKind::InvalidData, "no pipe is in this memory");
        let common = memory.map_read_only(0, PAGE)?;
        if common.load(MAGIC_WORD, Ordering::Acquire) != MAGIC {
            return Err(refused());
        }
        let capacity = usize::try_from(common.load(CAPACITY_WORD, Ordering::Relaxed))
            .ok()
            .filter(|capacity| (1..=CAPACITY_MAX).contains(capacity) && capacity % PAGE == 0)
            .ok_or_else(refused)?;
        if memory.len() != PAGE + 2 * (2 * PAGE + capacity) {
            return Err(refused());
        }
        Ok(Lanes { memory, capacity })
    }

    fn start(&self, lane: Lane) -> usize {
        match lane {
            Lane::Forth => PAGE,
            Lane::Back => PAGE + 2 * PAGE + self.capacity,
        }
    }

    /// Refuses an end that has got further than any.
    fn check(position: u64) -> io::Result<()> {
        if position > POSITION_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "an end of a pipe says that more went through it than ever can",
            ));
        }
        Ok(())
    }

    /// The end that arrives with a claim, if none has yet.
    fn arrive(own: &Arc<Mapping>, sleep: u64, claim: u64) -> io::Result<Sleeper> {
        Sleeper::arrive(Arc::clone(own), sleep, claim).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::AlreadyExists,
                "this end of a pipe has arrived in a process already, and an end lives in one process at a time (a `Queue` can be \
                 in several)",
            )
        })
    }

    /// The writing end of a lane, where `tail` bytes have been put before, the last sleep had the number `sleep`, and the end
    /// had `claim` where it was before.
    pub(crate) fn writer(
        &self,
        lane: Lane,
        tail: u64,
        sleep: u64,
        claim: u64,
    ) -> io::Result<(Outgoing, Sleeper)> {
        Self::check(tail)?;
        let start = self.start(lane);
        let own = Arc::new(self.memory.map(start + PAGE, PAGE + self.capacity)?);
        let peer = Arc::new(self.memory.map_read_only(start, PAGE)?);
        let sleeper = Self::arrive(&own, sleep, claim)?;
        Ok((Outgoing::new(own, peer, self.capacity, tail), sleeper))
    }

    /// The reading end of a lane, where `head` bytes have been taken before, the last sleep had the number `sleep`, and the end
    /// had `claim` where it was before.
    pub(crate) fn reader(
        &self,
        lane: Lane,
        head: u64,
        sleep: u64,
        claim: u64,
    ) -> io::Result<(Incoming, Sleeper)> {
        Self::check(head)?;
        let start = self.start(lane);
        let own = Arc::new(self.memory.map(start, PAGE)?);
        let len = PAGE + self.capacity;
        let peer = Arc::new(self.memory.map_read_only(start + PAGE, len)?);
        let sleeper = Self::arrive(&own, sleep, claim)?;
        Ok((Incoming::new(own, peer, self.capacity, head), sleeper))
    }

    /// The memory itself, which whoever gets an end needs.
    pub(crate) fn memory(&self) -> io::Result<OwnedFd> {
        self.memory.as_fd().try_clone_to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lanes_do_not_touch_and_an_end_goes_on_where_it_was() {
        let lanes = Lanes::create(1).unwrap();
        let mut out = Vec::with_capacity(PAGE);
        for lane in [Lane::Forth, Lane::Back] {
            let (mut writer, _) = lanes.writer(lane, 0, 0, 0).unwrap();
            assert_eq!(writer.put(&[7; 5000]).unwrap(), PAGE);
            writer.show();
            let (mut reader, _) = lanes.reader(lane, 0, 0, 0).unwrap();
            assert_eq!(reader.look_for_data().unwrap(), PAGE);
            assert_eq!(reader.take(10, &mut out), 10);
            reader.release();
            let (mut again, _) = lanes.reader(lane, reader.position(), 4, 1).unwrap();
            assert_eq!(again.look_for_data().unwrap(), PAGE - 10);
            let (mut writer, _) = lanes.writer(lane, PAGE as u64, 0, 1).unwrap();
            assert_eq!(writer.put(&[7; 20]).unwrap(), 10);
        }
    }

    #[test]
    fn an_end_that_claims_to_be_near_the_last_position_is_refused() {
        let lanes = Lanes::create(PAGE).unwrap();
        for position in [u64::MAX, u64::MAX - 10, 1 << 63] {
            assert!(lanes.writer(Lane::Forth, position, 0, 0).is_err());
            assert!(lanes.reader(Lane::Forth, position, 0, 0).is_err());
        }
        // Where it is believed, it goes on counting from there.
        let (mut writer, _) = lanes.writer(Lane::Forth, POSITION_MAX, 0, 0).unwrap();
        let head = lanes.memory.map(lanes.start(Lane::Forth), PAGE).unwrap();
        head.word(crate::shm::ring::HEAD)
            .store(POSITION_MAX, Ordering::Relaxed);
        assert_eq!(writer.put(&[7; 20]).unwrap(), 20);
    }

    #[test]
    fn of_an_end_that_arrives_several_times_one_is_the_end() {
        let lanes = Lanes::create(PAGE).unwrap();
        let refused = |end: io::Result<Sleeper>| {
            let error = end.unwrap_err();
            assert!(
                error.to_string().contains("one process at a time"),
                "{error}"
            );
        };
        let writer = |claim| lanes.writer(Lane::Forth, 0, 0, claim).map(|(_, end)| end);
        let reader = |claim| lanes.reader(Lane::Forth, 0, 0, claim).map(|(_, end)| end);
        let (puts, mut gets) = (writer(0).unwrap(), reader(0).unwrap());
        refused(writer(0));
        refused(reader(0));
        refused(reader(u64::MAX));
        // It moves on, and every copy of what it was before is late.
        let _puts = writer(puts.claim()).unwrap();
        refused(writer(puts.claim()));
        // It comes back, and what is left of it on the way is late.
        let sent_with = gets.claim();
        gets.come_back();
        assert!(gets.is_ours());
        refused(reader(sent_with));
        // It arrives though whoever sent it believes that it did not.
        let mut arrived = reader(gets.claim()).unwrap();
        gets.come_back();
        assert!(arrived.is_ours() && !gets.is_ours());
    }

    #[test]
    fn memory_without_lanes_is_refused() {
        assert!(Lanes::attach(SealedMemory::create(PAGE).unwrap()).is_err());
        assert!(Lanes::create(CAPACITY_MAX + 1).is_err());
        let lanes = Lanes::create(PAGE).unwrap();
        let common = lanes.memory.map(0, PAGE).unwrap();
        for bad in [0, 1, 2 * PAGE as u64, u64::MAX] {
            common.word(CAPACITY_WORD).store(bad, Ordering::Relaxed);
            let memory = SealedMemory::adopt(
                std::os::fd::AsFd::as_fd(&lanes.memory)
                    .try_clone_to_owned()
                    .unwrap(),
            );
            assert!(Lanes::attach(memory.unwrap()).is_err());
        }
    }
}
