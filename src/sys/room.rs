//! Room for numbers whose bytes come in any order, and are copied once: from shared memory to where they stay.
//!
//! What was written is kept as ranges of bytes, and only what was written as a whole is ever lent as numbers. So it does not
//! matter for soundness what another process says of the bytes, or who forgets to send some.

use crate::sys::memory::ReadOnlyMapping;
use bytemuck::AnyBitPattern;
use std::any::Any;
use std::collections::TryReserveError;
use std::fmt;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Room for numbers of some type.
pub(crate) trait Room: fmt::Debug + Send {
    /// The size of one number.
    fn number_size(&self) -> usize;

    /// How many bytes there is room for.
    fn len(&self) -> usize;

    /// Copies bytes from `offset` of `source` to all of `range`.
    ///
    /// # Panics
    ///
    /// Where there are fewer, or no room for them.
    fn fill(&mut self, range: Range<usize>, source: &ReadOnlyMapping, offset: usize);

    /// The room as what it is: [`Numbers`] of its type.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

/// Room for a vector of numbers, the values of which are written byte by byte.
#[derive(Debug)]
pub(crate) struct Numbers<S> {
    /// Of length 0: they stand in its spare room.
    values: Vec<S>,
    len: usize,
    written: Written,
}

impl<S: AnyBitPattern> Numbers<S> {
    /// Room for `len` numbers.
    ///
    /// # Errors
    ///
    /// Where there is no memory for them.
    pub(crate) fn new(len: usize) -> Result<Numbers<S>, TryReserveError> {
        let mut values = Vec::new();
        values.try_reserve_exact(len)?;
        Ok(Numbers {
            values,
            len,
            written: Written::default(),
        })
    }

    fn bytes(&mut self) -> &mut [MaybeUninit<u8>] {
        let spare = &mut self.values.spare_capacity_mut()[..self.len];
        let (start, len) = (spare.as_mut_ptr(), size_of_val(spare));
        // SAFETY: it is the same memory, borrowed for as long. Whatever is written there byte by byte, nobody reads as a number
        // before `into_vec` has seen that all of its bytes were.
        unsafe { std::slice::from_raw_parts_mut(start.cast(), len) }
    }

    /// The first `len` numbers; `None` if not all of these were written.
    pub(crate) fn into_vec(mut self, len: usize) -> Option<Vec<S>> {
        if len > self.len || !self.written.covers(len * size_of::<S>()) {
            return None;
        }
        // SAFETY: the vector has room for so many, and every byte of them was written, each of which may be any.
        unsafe { self.values.set_len(len) };
        if len < self.len {
            self.values.shrink_to_fit();
        }
        Some(self.values)
    }
}

impl<S: AnyBitPattern + fmt::Debug + Send> Room for Numbers<S> {
    fn number_size(&self) -> usize {
        size_of::<S>()
    }

    fn len(&self) -> usize {
        self.len * size_of::<S>()
    }

    fn fill(&mut self, range: Range<usize>, source: &ReadOnlyMapping, offset: usize) {
        source.read_to(offset, &mut self.bytes()[range.clone()]);
        self.written.add(range);
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Which bytes were written: ranges in order, with something between any two.
#[derive(Debug, Default)]
struct Written(Vec<Range<usize>>);

impl Written {
    fn add(&mut self, range: Range<usize>) {
        let touched = self.0.partition_point(|one| one.end < range.start)
            ..self.0.partition_point(|one| one.start <= range.end);
        match self.0.get_mut(touched.clone()) {
            Some([one]) => {
                one.start = one.start.min(range.start);
                one.end = one.end.max(range.end);
            }
            Some([first, .., last]) => {
                let all = first.start.min(range.start)..last.end.max(range.end);
                drop(self.0.splice(touched, [all]));
            }
            _ => self.0.insert(touched.start, range),
        }
    }

    /// Whether the first `len` bytes were written.
    fn covers(&self, len: usize) -> bool {
        len == 0
            || self
                .0
                .first()
                .is_some_and(|first| first.start == 0 && first.end >= len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::SealedMemory;
    use proptest::prelude::*;

    /// The bytes 0, 1, 2 and so on.
    fn source() -> ReadOnlyMapping {
        let memory = SealedMemory::create(4096).unwrap();
        let bytes: Vec<u8> = (0..4096).map(|at| at as u8).collect();
        memory.map(0, 4096).unwrap().write(0, &bytes);
        memory.map_read_only(0, 4096).unwrap()
    }

    #[test]
    fn numbers_are_those_whose_bytes_came_in_whichever_order() {
        let source = source();
        let mut room = Numbers::<u16>::new(8).unwrap();
        assert_eq!((room.number_size(), Room::len(&room)), (2, 16));
        for range in [11..16, 0..3, 5..11, 4..5, 3..4, 2..12] {
            room.fill(range.clone(), &source, range.start);
        }
        let expected: Vec<u16> = (0..8)
            .map(|n| u16::from_ne_bytes([2 * n, 2 * n + 1]))
            .collect();
        assert_eq!(room.into_vec(8).unwrap(), expected);
    }

    #[test]
    fn what_was_not_written_is_never_lent() {
        let source = source();
        let room = |ranges: &[(usize, usize)]| {
            let mut room = Numbers::<u32>::new(4).unwrap();
            for &(start, end) in ranges {
                room.fill(start..end, &source, 0);
            }
            room
        };
        assert!(room(&[]).into_vec(1).is_none());
        assert!(room(&[]).into_vec(0).unwrap().is_empty());
        assert!(room(&[(1, 16)]).into_vec(4).is_none());
        assert!(room(&[(0, 7), (8, 16)]).into_vec(2).is_none());
        assert_eq!(room(&[(0, 7), (8, 16)]).into_vec(1).unwrap().len(), 1);
        assert!(room(&[(0, 16)]).into_vec(5).is_none());
    }

    proptest! {
        #[test]
        fn what_is_lent_is_what_was_written_last(fills: Vec<(u8, u8, u16)>, len in 0..64_usize) {
            let source = source();
            let mut room = Numbers::<u32>::new(64).unwrap();
            let mut model = [None; 256];
            for (start, count, offset) in fills {
                let start = usize::from(start);
                let range = start..(start + usize::from(count)).min(256);
                let offset = usize::from(offset) % 2048;
                room.fill(range.clone(), &source, offset);
                for (at, byte) in range.zip(offset..) {
                    model[at] = Some(byte as u8);
                }
            }
            let expected: Option<Vec<u8>> = model[..4 * len].iter().copied().collect();
            let lent = room.into_vec(len);
            prop_assert_eq!(lent.map(|numbers| bytemuck::cast_slice(&numbers).to_vec()), expected);
        }
    }

    #[test]
    #[should_panic(expected = "range end index 17 out of range")]
    fn there_is_no_room_behind_the_end() {
        let mut room = Numbers::<u32>::new(4).unwrap();
        room.fill(10..17, &source(), 0);
    }

    proptest! {
        #[test]
        fn ranges_are_kept_as_one_would_mark_each_byte(ranges: Vec<(u8, u8)>) {
            let mut written = Written::default();
            let mut marks = [false; 512];
            for (start, len) in ranges {
                let range = usize::from(start)..usize::from(start) + usize::from(len) + 1;
                written.add(range.clone());
                marks[range].fill(true);
            }
            for (one, next) in written.0.iter().zip(&written.0[1.min(written.0.len())..]) {
                prop_assert!(one.end < next.start);
            }
            let kept: Vec<bool> = (0..512).map(|at| written.0.iter().any(|range| range.contains(&at))).collect();
            prop_assert_eq!(kept, marks);
        }
    }
}
