//! The receiving side of a lane, for one thread at a time: from frames to messages.

use crate::pipe::failure::Failure;
use crate::pipe::frame::{Head, Opening, Part};
use crate::pipe::pace::Pace;
use crate::pipe::peer::Peer;
use crate::shm::{Corrupt, Incoming, Lane, Lanes};
use crate::sys::limits;
use crate::sys::poll::ring_event;
use crate::sys::shared::SharedFd;
use crate::sys::step::step;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

/// The most memory that is asked for at once on the word of a length alone.
const TRUSTED_LENGTH: u64 = 16 << 20;

/// How many frames of a long message are taken in before the time is looked at: more than fit in a ring.
const FRAMES_AT_ONCE: usize = 32;

/// The receiving side itself.
#[derive(Debug)]
pub(crate) struct Receiving {
    memory: Arc<SharedFd>,
    lane: Lane,
    ring: Incoming,
    pub(crate) pace: Pace,
    pub(crate) peer: Peer,
    /// A message of several frames, as far as it has come.
    long: Option<Long>,
    /// Of the message that was taken last: its number among those with descriptors, and how many it has.
    letter: Option<(u64, u64)>,
    /// The letter that is behind the last one that was given up.
    next_letter: u64,
    /// The other side sleeps for room that there is, and could not be rung at.
    owes_bell: bool,
}

/// What a receiving side is made of when it arrives.
#[derive(Debug)]
pub(crate) struct ReceivingParts {
    pub(crate) memory: Arc<SharedFd>,
    pub(crate) socket: Arc<SharedFd>,
    pub(crate) event: Arc<SharedFd>,
    pub(crate) lane: Lane,
    pub(crate) head: u64,
    pub(crate) sleep: u64,
    pub(crate) claim: u64,
    pub(crate) long: Option<Long>,
    pub(crate) owes_bell: bool,
}

/// A message that comes in several frames.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Long {
    total: u64,
    letter: u64,
    descriptors: u64,
    came: u64,
    /// What has come; nothing where there was no memory for it.
    bytes: Vec<u8>,
    has_no_memory: bool,
    is_whole: bool,
}

/// What is to be received next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Front {
    Nothing,
    /// A message that stands in the ring as one frame.
    Frame(Head),
    /// A message that came in several, all of it.
    Long,
}

impl Receiving {
    /// The receiving side of a lane, as it was made or as it has arrived.
    pub(crate) fn new(lanes: &Lanes, parts: ReceivingParts) -> io::Result<Receiving> {
        let (ring, sleeper) = lanes.reader(parts.lane, parts.head, parts.sleep, parts.claim)?;
        Ok(Receiving {
            memory: parts.memory,
            lane: parts.lane,
            pace: Pace::new(ring.capacity()),
            ring,
            peer: Peer::new(parts.socket, parts.event, sleeper),
            long: parts.long,
            letter: None,
            next_letter: 0,
            owes_bell: parts.owes_bell,
        })
    }

    /// What it takes to go on elsewhere.
    pub(crate) fn parts(&self) -> ReceivingParts {
        ReceivingParts {
            memory: Arc::clone(&self.memory),
            socket: Arc::clone(self.peer.socket()),
            event: Arc::clone(self.peer.event()),
            lane: self.lane,
            head: self.ring.position(),
            sleep: self.peer.sleeper.number(),
            claim: self.peer.sleeper.claim(),
            long: self.long.clone(),
            owes_bell: self.owes_bell,
        }
    }

    /// Whether the sender is to have a head start before it is looked whether there is more.
    #[inline]
    pub(crate) fn wants_head_start(&mut self) -> bool {
        self.ring.available() == 0
            && self.pace.has_run_out()
            && limits::processors() > 1
            && !self.ring.shares_processor()
    }

    /// Whether there is something in the ring, or what is there is corrupt, which [`front`](Receiving::front) then tells.
    #[inline]
    pub(crate) fn has_data(&mut self) -> bool {
        self.ring.look_for_data() != Ok(0)
    }

    /// Whether the other side could not run while this one spins.
    pub(crate) fn shares_processor(&self) -> bool {
        self.ring.shares_processor()
    }

    /// Whether the other side is gone. What it has shown before is still to be had.
    #[inline]
    pub(crate) fn is_closed(&mut self) -> io::Result<bool> {
        self.peer.is_gone(self.ring.peer_left())
    }

    /// The next message, if all of it is there. Takes in what has come of a long one.
    ///
    /// Whoever finds nothing may sleep, here or for the descriptor, or not look again before something comes. So where nothing
    /// is there, the other side has been rung at if it sleeps for room, or this is an error.
    #[inline]
    pub(crate) fn front(&mut self) -> Result<Front, Failure> {
        let front = self.look()?;
        if matches!(front, Front::Nothing) {
            self.ring_if_owed()?;
        }
        Ok(front)
    }

    #[inline]
    fn look(&mut self) -> Result<Front, Failure> {
        if self.long.is_none() {
            match Head::next(&mut self.ring)? {
                None => return Ok(Front::Nothing),
                Some(head) if head.part == Part::Whole => {
                    let opening = head.opening.unwrap_or_default();
                    if head.opening.is_some() && opening.total != head.length as u64 {
                        return Err(Corrupt.into());
                    }
                    return Ok(Front::Frame(head));
                }
                Some(_) => {}
            }
        }
        self.take_in()
    }

    fn take_in(&mut self) -> Result<Front, Failure> {
        // All that can be in the ring at once, and no more: the other side may put frames as fast as they are taken.
        for _ in 0..FRAMES_AT_ONCE {
            if self.long.as_ref().is_some_and(|long| long.is_whole) {
                return Ok(Front::Long);
            }
            let Some(head) = Head::next(&mut self.ring)? else {
                return Ok(Front::Nothing);
            };
            match (head.part, &mut self.long) {
                (Part::First, None) => {
                    let mut long = Long::new(head.opening.ok_or(Corrupt)?);
                    long.add(&head, &mut self.ring)?;
                    self.long = Some(long);
                }
                (Part::Middle | Part::Last, Some(long)) => long.add(&head, &mut self.ring)?,
                (Part::Cut, Some(long)) => {
                    head.discard(&mut self.ring);
                    if long.descriptors > 0 {
                        self.next_letter = long.letter.saturating_add(1);
                    }
                    self.long = None;
                }
                // The sender has given up what came before.
                (Part::Whole, None) => return self.look(),
                _ => return Err(Corrupt.into()),
            }
            step!("pipe::recv::part_copied");
            self.release();
        }
        let is_whole = self.long.as_ref().is_some_and(|long| long.is_whole);
        Ok(if is_whole {
            Front::Long
        } else {
            Front::Nothing
        })
    }

    /// The bytes of a message that is at the front.
    pub(crate) fn length(&self, front: Front) -> u64 {
        match (front, &self.long) {
            (Front::Frame(head), _) => head.length as u64,
            (Front::Long, Some(long)) => long.total,
            _ => 0,
        }
    }

    /// Whether descriptors ride along with the message at the front.
    #[inline]
    pub(crate) fn has_descriptors(&self, front: Front) -> bool {
        match front {
            Front::Nothing => false,
            Front::Frame(head) => head.opening.is_some(),
            Front::Long => self.long.as_ref().is_some_and(|long| long.descriptors > 0),
        }
    }

    /// Takes the message at the front; `out`, which is empty, becomes its bytes.
    #[inline]
    pub(crate) fn take(&mut self, front: Front, out: &mut Vec<u8>) -> Result<(), Failure> {
        let Front::Frame(head) = front else {
            *out = self.take_long()?;
            return Ok(());
        };
        let reserved = out.try_reserve_exact(head.length);
        self.set_letter(head.opening);
        if reserved.is_ok() {
            head.take(&mut self.ring, out);
        } else {
            head.discard(&mut self.ring);
        }
        step!("pipe::recv::copied");
        self.pace.note_taken(head.length);
        self.release();
        reserved.map_err(|_| Failure::NoMemory(head.length as u64))
    }

    /// Takes the message at the front into a buffer that is long enough; returns its length.
    pub(crate) fn take_into(&mut self, front: Front, buffer: &mut [u8]) -> Result<usize, Failure> {
        let message = self.length(front);
        let too_long = Failure::LongerThanBuffer {
            message,
            buffer: buffer.len(),
        };
        let length = usize::try_from(message).unwrap_or(usize::MAX);
        let Some(buffer) = buffer.get_mut(..length) else {
            return Err(too_long);
        };
        if let Front::Frame(head) = front {
            self.set_letter(head.opening);
            head.take_into(&mut self.ring, buffer);
            step!("pipe::recv::copied_into");
            self.pace.note_taken(length);
            self.release();
        } else {
            let bytes = self.take_long()?;
            buffer
                .get_mut(..bytes.len())
                .ok_or(Corrupt)?
                .copy_from_slice(&bytes);
        }
        Ok(length)
    }

    fn take_long(&mut self) -> Result<Vec<u8>, Failure> {
        let Some(long) = self.long.take() else {
            return Err(Failure::NotNow);
        };
        self.letter = (long.descriptors > 0).then_some((long.letter, long.descriptors));
        if long.has_no_memory {
            return Err(Failure::NoMemory(long.total));
        }
        Ok(long.bytes)
    }

    #[inline]
    fn set_letter(&mut self, opening: Option<Opening>) {
        self.letter = opening.map(|opening| (opening.letter, opening.descriptors));
    }

    /// Which descriptors belong to the message that was taken last: the number of the letter, and how many.
    pub(crate) fn take_letter(&mut self) -> Option<(u64, u64)> {
        self.letter.take()
    }

    /// Up to which letter those that have not come were given up.
    pub(crate) fn next_letter(&self) -> u64 {
        self.next_letter
    }

    #[inline]
    fn release(&mut self) {
        if self.ring.release() {
            step!("pipe::recv::owes_bell");
            self.owes_bell = true;
        }
        if self.owes_bell {
            // Where the system has no memory for it just now, the message that was taken is not to be lost for that.
            if self.ring_if_owed().is_err() {
                // Who sleeps on this side looks once more, and rings or learns that it cannot.
                ring_event(self.peer.event().as_fd());
            }
        }
    }

    /// Rings for room, if that could not be done before. Whoever is about to sleep must know that it is done: the other
    /// side may sleep as well.
    #[inline]
    pub(crate) fn ring_if_owed(&mut self) -> io::Result<()> {
        if self.owes_bell {
            self.peer.ring_for_room()?;
            step!("pipe::recv::rung");
            self.owes_bell = false;
        }
        Ok(())
    }
}

impl Long {
    fn new(opening: Opening) -> Long {
        Long {
            total: opening.total,
            letter: opening.letter,
            descriptors: opening.descriptors,
            came: 0,
            bytes: Vec::new(),
            has_no_memory: false,
            is_whole: false,
        }
    }

    fn add(&mut self, head: &Head, ring: &mut Incoming) -> Result<(), Corrupt> {
        let left = self.total.checked_sub(self.came).ok_or(Corrupt)?;
        let length = head.length as u64;
        if length > left || (head.part == Part::Last) != (length == left) {
            return Err(Corrupt);
        }
        let spare = self.bytes.capacity() - self.bytes.len();
        if spare < head.length && !self.has_no_memory {
            // At most as much again as is there, beyond what may be trusted.
            let more = left.min(TRUSTED_LENGTH.max(self.came)).max(length);
            let more = usize::try_from(more).unwrap_or(usize::MAX);
            if self.bytes.try_reserve_exact(more).is_err() {
                self.has_no_memory = true;
                self.bytes = Vec::new();
            }
        }
        if self.has_no_memory {
            head.discard(ring);
        } else {
            head.take(ring, &mut self.bytes);
        }
        self.came += length;
        self.is_whole = head.part == Part::Last;
        Ok(())
    }
}
