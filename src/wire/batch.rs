//! Several values of one type in one message, so that each can be found, counted and sent alone.

use crate::wire::plain::Raw;
use std::ops::Range;

/// How the values stand in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Numbers of so many bytes, one behind the other.
    Numbers(u32),
    /// Each an encoding behind its length (8 bytes).
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
}

#[derive(Debug)]
enum Body {
    Bytes(Vec<u8>),
    Raw(Box<dyn Raw>),
}

impl Batch {
    /// Numbers that are kept as the vector they are.
    pub(crate) fn numbers(size: usize, count: usize, numbers: Box<dyn Raw>) -> Batch {
        Batch {
            lane: Lane::Numbers(size as u32),
            count,
            body: Body::Raw(numbers),
            ends: Vec::new(),
        }
    }

    /// One value that is its own encoding.
    pub(crate) fn whole(value: Box<dyn Raw>) -> Batch {
        Batch {
            lane: Lane::Whole,
            count: 1,
            body: Body::Raw(value),
            ends: Vec::new(),
        }
    }

    /// Framed values, with where each ends.
    pub(crate) fn framed(bytes: Vec<u8>, ends: Vec<usize>) -> Batch {
        Batch {
            lane: Lane::Framed,
            count: ends.len(),
            body: Body::Bytes(bytes),
            ends,
        }
    }

    pub(crate) fn lane(&self) -> Lane {
        self.lane
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
            Lane::Framed => {
                let end_of = |count: usize| if count == 0 { 0 } else { self.ends[count - 1] };
                &bytes[end_of(range.start)..end_of(range.end)]
            }
        }
    }
}

/// Begins a framed value at the end of `bytes`; [`end_frame`] ends it.
pub(crate) fn begin_frame(bytes: &mut Vec<u8>) -> usize {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; 8]);
    start
}

/// Writes the length of the framed value that began at `start`.
pub(crate) fn end_frame(bytes: &mut [u8], start: usize) {
    let len = (bytes.len() - start - 8) as u64;
    bytes[start..start + 8].copy_from_slice(&len.to_le_bytes());
}

/// Takes the first framed value off `bytes`; `None` where there is no whole one.
pub(crate) fn split_frame<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = bytes.split_first_chunk::<8>()?;
    let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
    let (value, rest) = rest.split_at_checked(len)?;
    *bytes = rest;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_batch_is_found_in_every_lane() {
        let numbers = Batch::numbers(2, 3, Box::new(vec![1u16, 2, 3]));
        assert_eq!(numbers.slice(1..3).len(), 4);
        assert_eq!(numbers.slice(3..3), b"");

        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for value in [b"a".as_slice(), b"", b"bcd"] {
            let start = begin_frame(&mut bytes);
            bytes.extend_from_slice(value);
            end_frame(&mut bytes, start);
            ends.push(bytes.len());
        }
        let framed = Batch::framed(bytes, ends);
        let mut part = framed.slice(1..3);
        assert_eq!(split_frame(&mut part), Some(b"".as_slice()));
        assert_eq!(split_frame(&mut part), Some(b"bcd".as_slice()));
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
