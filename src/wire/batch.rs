//! Several values of one type in one message, so that each can be found, counted and sent alone.

use crate::sys::shared::SharedFd;
use crate::wire::handles::Enclosed;
use crate::wire::plain::Raw;
use std::ops::Range;
use std::sync::Arc;

/// How the values stand in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Numbers of so many bytes, one behind the other.
    Numbers(u32),
    /// Each an encoding behind its length and the number of descriptors that ride along (8 bytes).
    Framed,
    /// One value, which is its own encoding.
    Whole,
}

impl Lane {
    const FRAMED: u32 = 0xffff_0001;
    const WHOLE: u32 = 0xffff_0002;

    pub(crate) fn to_bits(self) -> u32 {
        match self {
            Lane::Numbers(size) => size,
            Lane::Framed => Lane::FRAMED,
            Lane::Whole => Lane::WHOLE,
        }
    }

    pub(crate) fn from_bits(bits: u32) -> Option<Lane> {
        match bits {
            Lane::FRAMED => Some(Lane::Framed),
            Lane::WHOLE => Some(Lane::Whole),
            1..=16 => Some(Lane::Numbers(bits)),
            _ => None,
        }
    }
}

/// Values on their way, kept until whoever works on them has answered.
#[derive(Debug)]
pub(crate) struct Batch {
    lane: Lane,
    count: usize,
    body: Body,
    /// Where each framed value ends.
    ends: Vec<usize>,
    descriptors: Vec<Arc<SharedFd>>,
    /// Where those of each framed value end; empty where no value has any.
    descriptor_ends: Vec<usize>,
    has_moved: bool,
}

#[derive(Debug)]
enum Body {
    Bytes(Vec<u8>),
    Raw(Box<dyn Raw>),
}

/// Framed values that are being put together.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    pub(crate) bytes: Vec<u8>,
    ends: Vec<usize>,
    descriptors: Vec<Arc<SharedFd>>,
    descriptor_ends: Vec<usize>,
    has_moved: bool,
}

impl Frames {
    pub(crate) fn count(&self) -> usize {
        self.ends.len()
    }

    /// Appends a value, as `pack` appends its bytes; where that fails, nothing is left of it.
    pub(crate) fn push(
        &mut self,
        pack: impl FnOnce(&mut Vec<u8>) -> Result<Enclosed, String>,
    ) -> Result<(), String> {
        let start = begin_frame(&mut self.bytes);
        let framed = pack(&mut self.bytes).and_then(|enclosed| {
            let count = enclosed.descriptors().len();
            end_frame(&mut self.bytes, start, count)?;
            Ok(enclosed)
        });
        match framed {
            Ok(enclosed) => {
                self.enclose(enclosed);
                self.ends.push(self.bytes.len());
                Ok(())
            }
            Err(error) => {
                self.bytes.truncate(start);
                Err(error)
            }
        }
    }

    /// Whether a handle that is in one process at a time has moved in with a value: it can be sent once only.
    pub(crate) fn has_moved(&self) -> bool {
        self.has_moved
    }

    /// Takes the last value out.
    pub(crate) fn split_last(&mut self) -> Frames {
        let count = self.count().saturating_sub(1);
        let mut last = Frames {
            bytes: self.bytes.split_off(end_of(&self.ends, count)),
            has_moved: std::mem::take(&mut self.has_moved),
            ..Frames::default()
        };
        self.ends.truncate(count);
        last.ends.push(last.bytes.len());
        if self.descriptor_ends.len() > count {
            self.descriptor_ends.truncate(count);
            let kept = end_of(&self.descriptor_ends, count);
            last.descriptors = self.descriptors.split_off(kept);
            last.descriptor_ends.push(last.descriptors.len());
        }
        last
    }

    /// The value is on its way from here on.
    fn enclose(&mut self, enclosed: Enclosed) {
        self.has_moved |= enclosed.has_moved();
        let more = enclosed.depart();
        if more.is_empty() && self.descriptor_ends.is_empty() {
            return;
        }
        self.descriptor_ends.resize(self.ends.len(), 0);
        if self.descriptors.is_empty() {
            self.descriptors = more;
        } else {
            self.descriptors.extend(more);
        }
        self.descriptor_ends.push(self.descriptors.len());
    }

    pub(crate) fn descriptors(&self) -> &[Arc<SharedFd>] {
        &self.descriptors
    }
}

impl Batch {
    /// Numbers that are kept as the vector they are.
    pub(crate) fn numbers(size: usize, count: usize, numbers: Box<dyn Raw>) -> Batch {
        Batch {
            lane: Lane::Numbers(size as u32),
            count,
            body: Body::Raw(numbers),
            ends: Vec::new(),
            descriptors: Vec::new(),
            descriptor_ends: Vec::new(),
            has_moved: false,
        }
    }

    /// One value that is its own encoding.
    pub(crate) fn whole(value: Box<dyn Raw>) -> Batch {
        Batch {
            lane: Lane::Whole,
            count: 1,
            body: Body::Raw(value),
            ends: Vec::new(),
            descriptors: Vec::new(),
            descriptor_ends: Vec::new(),
            has_moved: false,
        }
    }

    /// Framed values.
    pub(crate) fn framed(frames: Frames) -> Batch {
        Batch {
            lane: Lane::Framed,
            count: frames.count(),
            body: Body::Bytes(frames.bytes),
            ends: frames.ends,
            descriptors: frames.descriptors,
            descriptor_ends: frames.descriptor_ends,
            has_moved: frames.has_moved,
        }
    }

    /// No values yet, of a lane on which there may be several.
    pub(crate) fn empty(lane: Lane) -> Batch {
        Batch {
            lane,
            count: 0,
            body: Body::Bytes(Vec::new()),
            ends: Vec::new(),
            descriptors: Vec::new(),
            descriptor_ends: Vec::new(),
            has_moved: false,
        }
    }

    /// Appends a value without descriptors.
    pub(crate) fn append_bytes(&mut self, value: &[u8]) {
        let mut bytes = self.take_bytes();
        bytes.extend_from_slice(value);
        if self.lane == Lane::Framed {
            self.ends.push(bytes.len());
        }
        self.body = Body::Bytes(bytes);
        if !self.descriptor_ends.is_empty() {
            self.descriptor_ends.push(self.descriptors.len());
        }
        self.count += 1;
    }

    /// Puts the values of another batch, of the same lane, behind these.
    pub(crate) fn append_batch(&mut self, batch: Batch) {
        let mut bytes = self.take_bytes();
        let start = bytes.len();
        bytes.extend_from_slice(batch.slice(0..batch.count));
        self.body = Body::Bytes(bytes);
        self.ends.extend(batch.ends.iter().map(|end| start + end));
        if !batch.descriptors.is_empty() || !self.descriptor_ends.is_empty() {
            let before = self.descriptors.len();
            self.descriptor_ends.resize(self.count, before);
            let ends = (1..=batch.count).map(|count| before + batch.descriptors(0..count).len());
            self.descriptor_ends.extend(ends);
            self.descriptors.extend(batch.descriptors);
        }
        self.count += batch.count;
    }

    /// The bytes, to be put back when others stand behind them.
    fn take_bytes(&mut self) -> Vec<u8> {
        match std::mem::replace(&mut self.body, Body::Bytes(Vec::new())) {
            Body::Bytes(bytes) => bytes,
            Body::Raw(raw) => raw.bytes().to_vec(),
        }
    }

    /// How many bytes the values have.
    pub(crate) fn size(&self) -> usize {
        match &self.body {
            Body::Bytes(bytes) => bytes.len(),
            Body::Raw(raw) => raw.bytes().len(),
        }
    }

    pub(crate) fn lane(&self) -> Lane {
        self.lane
    }

    /// As [`Frames::has_moved`]; such a value has a batch of its own.
    pub(crate) fn has_moved(&self) -> bool {
        self.has_moved
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The bytes of the values in `range`.
    ///
    /// # Panics
    ///
    /// Where there are no such values.
    pub(crate) fn slice(&self, range: Range<usize>) -> &[u8] {
        assert!(
            range.start <= range.end && range.end <= self.count,
            "no such values in a batch"
        );
        let bytes = match &self.body {
            Body::Bytes(bytes) => bytes.as_slice(),
            Body::Raw(raw) => raw.bytes(),
        };
        match self.lane {
            Lane::Numbers(size) => &bytes[range.start * size as usize..range.end * size as usize],
            Lane::Whole => bytes,
            Lane::Framed => &bytes[end_of(&self.ends, range.start)..end_of(&self.ends, range.end)],
        }
    }

    /// What rides along with the values in `range`.
    ///
    /// # Panics
    ///
    /// Where there are no such values.
    pub(crate) fn descriptors(&self, range: Range<usize>) -> &[Arc<SharedFd>] {
        if self.descriptor_ends.is_empty() {
            return &[];
        }
        let ends = &self.descriptor_ends;
        &self.descriptors[end_of(ends, range.start)..end_of(ends, range.end)]
    }
}

/// Where the first `count` values end.
fn end_of(ends: &[usize], count: usize) -> usize {
    if count == 0 { 0 } else { ends[count - 1] }
}

/// How many bits of a frame's first word are its length; the others are the number of descriptors.
const LENGTH_BITS: u32 = 48;

/// Begins a framed value at the end of `bytes`; [`end_frame`] ends it.
fn begin_frame(bytes: &mut Vec<u8>) -> usize {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; 8]);
    start
}

/// Writes the length of the framed value that began at `start`, and how many descriptors ride along.
fn end_frame(bytes: &mut [u8], start: usize, descriptors: usize) -> Result<(), String> {
    let len = (bytes.len() - start - 8) as u64;
    if descriptors > usize::from(u16::MAX) || len >> LENGTH_BITS != 0 {
        return Err("it holds more than 65,535 handles".to_owned());
    }
    let word = len | (descriptors as u64) << LENGTH_BITS;
    bytes[start..start + 8].copy_from_slice(&word.to_le_bytes());
    Ok(())
}

/// Takes the first framed value off `bytes`, with the number of its descriptors; `None` where there is no whole one.
pub(crate) fn split_frame<'a>(bytes: &mut &'a [u8]) -> Option<(&'a [u8], usize)> {
    let (word, rest) = bytes.split_first_chunk::<8>()?;
    let word = u64::from_le_bytes(*word);
    let len = usize::try_from(word & ((1 << LENGTH_BITS) - 1)).ok()?;
    let (value, rest) = rest.split_at_checked(len)?;
    *bytes = rest;
    Some((value, (word >> LENGTH_BITS) as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec;
    use crate::wire::handles::{self, Descriptor};

    fn push(frames: &mut Frames, value: &[u8], descriptors: &[Descriptor]) {
        let packed = frames.push(|out| {
            out.extend_from_slice(value);
            handles::collect(|| codec::encode(&descriptors, &mut Vec::new()))
        });
        packed.unwrap();
    }

    #[test]
    fn descriptors_are_found_with_their_values() {
        let one = || Descriptor::from(crate::sys::descriptor::null_device().unwrap());
        let mut frames = Frames::default();
        push(&mut frames, b"a", &[]);
        push(&mut frames, b"b", &[one(), one()]);
        push(&mut frames, b"c", &[]);
        push(&mut frames, b"d", &[one()]);
        let failed = frames.push(|out| {
            out.push(1);
            Err("no".to_owned())
        });
        assert!(failed.is_err());
        let batch = Batch::framed(frames);
        assert_eq!(batch.descriptors(0..1).len(), 0);
        assert_eq!(batch.descriptors(1..2).len(), 2);
        assert_eq!(batch.descriptors(2..4).len(), 1);
        let mut part = batch.slice(1..4);
        let counts = [b"b", b"c", b"d"].map(|value| {
            let (bytes, count) = split_frame(&mut part).unwrap();
            assert_eq!(bytes, value);
            count
        });
        assert_eq!(counts, [2, 0, 1]);
    }

    /// All values in one batch, those without descriptors by their bytes alone.
    fn in_one(batches: Vec<Batch>) -> Batch {
        let mut joined = Batch::empty(batches[0].lane());
        for batch in batches {
            if batch.descriptors(0..batch.count()).is_empty() && batch.count() == 1 {
                joined.append_bytes(batch.slice(0..1));
            } else {
                joined.append_batch(batch);
            }
        }
        joined
    }

    #[test]
    fn joined_batches_are_as_one_that_was_made_at_once() {
        let one = || Descriptor::from(crate::sys::descriptor::null_device().unwrap());
        let single = |value: &[u8], descriptors: &[Descriptor]| {
            let mut frames = Frames::default();
            push(&mut frames, value, descriptors);
            Batch::framed(frames)
        };
        let batches = vec![
            single(b"a", &[]),
            single(b"bc", &[one(), one()]),
            single(b"", &[]),
            single(b"d", &[one()]),
        ];
        let joined = in_one(batches);
        assert_eq!((joined.count(), joined.lane()), (4, Lane::Framed));
        let counts = [0..1, 1..2, 2..3, 3..4, 0..4].map(|range| joined.descriptors(range).len());
        assert_eq!(counts, [0, 2, 0, 1, 3]);
        let mut part = joined.slice(1..4);
        assert_eq!(split_frame(&mut part), Some((b"bc".as_slice(), 2)));
        assert_eq!(split_frame(&mut part), Some((b"".as_slice(), 0)));
        assert_eq!(split_frame(&mut part), Some((b"d".as_slice(), 1)));

        let number = |number: u16| Batch::numbers(2, 1, Box::new(vec![number]));
        let joined = in_one(vec![number(1), number(2), number(3)]);
        assert_eq!((joined.count(), joined.size()), (3, 6));
        assert_eq!(joined.slice(1..2), 2_u16.to_ne_bytes());
    }

    #[test]
    fn a_part_of_a_batch_is_found_in_every_lane() {
        let numbers = Batch::numbers(2, 3, Box::new(vec![1u16, 2, 3]));
        assert_eq!(numbers.slice(1..3).len(), 4);
        assert_eq!(numbers.slice(3..3), b"");

        let mut frames = Frames::default();
        for value in [b"a".as_slice(), b"", b"bcd"] {
            push(&mut frames, value, &[]);
        }
        let framed = Batch::framed(frames);
        let mut part = framed.slice(1..3);
        assert_eq!(split_frame(&mut part), Some((b"".as_slice(), 0)));
        assert_eq!(split_frame(&mut part), Some((b"bcd".as_slice(), 0)));
        assert_eq!(split_frame(&mut part), None);

        let whole = Batch::whole(Box::new("text".to_owned()));
        assert_eq!((whole.slice(0..1), whole.count()), (b"text".as_slice(), 1));
    }

    #[test]
    fn a_frame_that_claims_too_much_is_none() {
        let mut bytes: &[u8] = &[9, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(split_frame(&mut bytes), None);
        let mut bytes: &[u8] = &[255; 12];
        assert_eq!(split_frame(&mut bytes), None);
    }

    #[test]
    fn a_lane_survives_its_bits() {
        for lane in [Lane::Numbers(8), Lane::Framed, Lane::Whole] {
            assert_eq!(Lane::from_bits(lane.to_bits()), Some(lane));
        }
        assert_eq!(Lane::from_bits(0), None);
        assert_eq!(Lane::from_bits(17), None);
    }
}
