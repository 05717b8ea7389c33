//! How a message stands in the ring of a lane.
//!
//! A message is one frame, or several where it is larger than half the ring. A frame is a word, for some an [`Opening`], and
//! bytes, filled up to a multiple of 8 so that no word is cut by the end of the ring. **Frames are put and shown as a
//! whole**, so there is never a part of one to be seen: a frame that is longer than what is shown is corrupt.
//!
//! | frame | opening | next |
//! |---|---|---|
//! | `WHOLE` | only where descriptors ride along | `WHOLE`, `FIRST` |
//! | `FIRST` | always | `MIDDLE`, `LAST`, `CUT` |
//! | `MIDDLE` | never | `MIDDLE`, `LAST`, `CUT` |
//! | `LAST`, and with it the message is as long as its opening says | never | `WHOLE`, `FIRST` |
//! | `CUT`: the sender gave the message up | never | `WHOLE`, `FIRST` |
//!
//! A sender that dies leaves whole frames behind, and perhaps the beginning of a message, which is then no message.

use crate::shm::{Corrupt, Incoming, Outgoing};
use crate::sys::step::step;
use bytemuck::{Pod, Zeroable};

const WORD: usize = 8;

const HAS_OPENING: u64 = 1 << 40;
const PLACES: u32 = 32;

/// Which part of a message a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Part {
    Whole,
    First,
    Middle,
    Last,
    Cut,
}

/// What stands in front of a message that is long or has descriptors.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub(crate) struct Opening {
    /// Bytes of the message.
    pub(crate) total: u64,
    /// Its number among those with descriptors, and how many it has.
    pub(crate) letter: u64,
    pub(crate) descriptors: u64,
}

/// A frame without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) part: Part,
    pub(crate) length: usize,
    pub(crate) opening: Option<Opening>,
}

impl Head {
    /// A message that is nothing but its bytes.
    #[inline]
    pub(crate) fn plain(length: usize) -> Head {
        Head {
            part: Part::Whole,
            length,
            opening: None,
        }
    }

    #[inline]
    fn before(&self) -> usize {
        WORD + self.opening.map_or(0, |_| size_of::<Opening>())
    }

    /// What the frame takes up in the ring.
    #[inline]
    pub(crate) fn size(&self) -> usize {
        self.before() + self.length.next_multiple_of(WORD)
    }

    /// Puts the frame and shows it, if there is room; returns whether there was.
    #[inline]
    pub(crate) fn put(&self, ring: &mut Outgoing, bytes: &[u8]) -> Result<bool, Corrupt> {
        debug_assert_eq!(bytes.len(), self.length);
        let size = self.size();
        if ring.free() < size && ring.look_for_room()? < size {
            return Ok(false);
        }
        let opening = if self.opening.is_some() {
            HAS_OPENING
        } else {
            0
        };
        let word = self.length as u64 | (self.part as u64) << PLACES | opening;
        ring.put(&word.to_le_bytes())?;
        step!("pipe::frame::head");
        if let Some(opening) = &self.opening {
            ring.put(bytemuck::bytes_of(opening))?;
        }
        ring.put(bytes)?;
        step!("pipe::frame::body");
        ring.skip(size - self.before() - self.length);
        ring.show();
        Ok(true)
    }

    /// The frame that is to be taken next, of which everything is there; `None` where nothing is.
    #[inline]
    pub(crate) fn next(ring: &mut Incoming) -> Result<Option<Head>, Corrupt> {
        let mut available = ring.available();
        if available == 0 {
            available = ring.look_for_data()?;
            if available == 0 {
                return Ok(None);
            }
        }
        if available < WORD {
            return Err(Corrupt);
        }
        let mut word = [0; WORD];
        ring.peek(0, &mut word);
        let word = u64::from_le_bytes(word);
        let part = match (word & !HAS_OPENING) >> PLACES {
            0 => Part::Whole,
            1 => Part::First,
            2 => Part::Middle,
            3 => Part::Last,
            4 => Part::Cut,
            _ => return Err(Corrupt),
        };
        let mut head = Head {
            part,
            length: word as u32 as usize,
            opening: None,
        };
        if word & HAS_OPENING != 0 {
            let mut opening = Opening::zeroed();
            if available < WORD + size_of::<Opening>() {
                return Err(Corrupt);
            }
            ring.peek(WORD, bytemuck::bytes_of_mut(&mut opening));
            head.opening = Some(opening);
        }
        if head.size() > available {
            return Err(Corrupt);
        }
        Ok(Some(head))
    }

    /// Takes the frame, as it was found, and appends its bytes to `out`, which must have room for them.
    #[inline]
    pub(crate) fn take(&self, ring: &mut Incoming, out: &mut Vec<u8>) {
        ring.skip(self.before());
        ring.take(self.length, out);
        ring.skip(self.size() - self.before() - self.length);
    }

    /// Takes the frame, as it was found, and copies its bytes.
    #[inline]
    pub(crate) fn take_into(&self, ring: &mut Incoming, into: &mut [u8]) {
        ring.peek(self.before(), into);
        ring.skip(self.size());
    }

    /// Takes the frame, as it was found, and does away with it.
    pub(crate) fn discard(&self, ring: &mut Incoming) {
        ring.skip(self.size());
    }
}

/// The longest message that is one frame, in a ring of `capacity` bytes: what is longer is better read while it is written.
pub(crate) fn whole_max(capacity: usize) -> usize {
    capacity / 2
}

/// The bytes of each frame of a longer one.
pub(crate) fn piece(capacity: usize) -> usize {
    capacity / 8
}
