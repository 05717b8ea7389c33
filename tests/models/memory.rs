//! Shared memory as words that loom knows. What a dead thread still does, as it unwinds, changes nothing.

use crate::kernel::step;
use loom::sync::atomic::AtomicU64 as Word;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use loom::sync::atomic::fence;
pub(crate) use std::sync::atomic::Ordering;

/// 64 bits, and those in front of them, whose node they may be.
#[derive(Debug)]
pub(crate) struct AtomicU64 {
    pub(crate) cell: Arc<Word>,
    pub(crate) before: Option<Arc<Word>>,
}

/// The low half of 64 bits, of which the other one stays 0.
#[derive(Debug)]
pub(crate) struct AtomicU32 {
    pub(crate) cell: Arc<Word>,
}

macro_rules! operations {
    ($name:ident, $int:ty) => {
        impl $name {
            pub(crate) fn load(&self, order: Ordering) -> $int {
                if step() {
                    self.cell.load(order) as $int
                } else {
                    0
                }
            }
            pub(crate) fn store(&self, value: $int, order: Ordering) {
                if step() {
                    self.cell.store(u64::from(value), order);
                }
            }
            pub(crate) fn swap(&self, value: $int, order: Ordering) -> $int {
                if step() {
                    self.cell.swap(u64::from(value), order) as $int
                } else {
                    0
                }
            }
            pub(crate) fn compare_exchange(
                &self,
                seen: $int,
                to: $int,
                yes: Ordering,
                no: Ordering,
            ) -> Result<$int, $int> {
                if !step() {
                    return Err(0);
                }
                let done = self
                    .cell
                    .compare_exchange(u64::from(seen), u64::from(to), yes, no);
                done.map(|was| was as $int).map_err(|is| is as $int)
            }
        }
    };
}
operations!(AtomicU64, u64);
operations!(AtomicU32, u32);

impl AtomicU64 {
    pub(crate) fn compare_exchange_weak(
        &self,
        seen: u64,
        to: u64,
        yes: Ordering,
        no: Ordering,
    ) -> Result<u64, u64> {
        self.compare_exchange(seen, to, yes, no)
    }
    pub(crate) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        if step() {
            self.cell.fetch_add(value, order)
        } else {
            0
        }
    }
    pub(crate) fn as_ptr(&self) -> *const Word {
        Arc::as_ptr(&self.cell)
    }
    pub(crate) fn fetch_and(&self, value: u64, order: Ordering) -> u64 {
        if step() {
            self.cell.fetch_and(value, order)
        } else {
            0
        }
    }
    pub(crate) fn fetch_or(&self, value: u64, order: Ordering) -> u64 {
        if step() {
            self.cell.fetch_or(value, order)
        } else {
            0
        }
    }
    pub(crate) fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
        if step() {
            self.cell.fetch_max(value, order)
        } else {
            0
        }
    }
    pub(crate) fn fetch_update(
        &self,
        yes: Ordering,
        no: Ordering,
        next: impl FnMut(u64) -> Option<u64>,
    ) -> Result<u64, u64> {
        if step() {
            self.cell.fetch_update(yes, no, next)
        } else {
            Err(0)
        }
    }
}

#[derive(Debug)]
pub(crate) struct Mapping {
    words: Vec<AtomicU64>,
    halves: Vec<AtomicU32>,
}

impl Mapping {
    pub(crate) fn new(len: usize) -> Mapping {
        let cells: Vec<Arc<Word>> = (0..len.div_ceil(8))
            .map(|_| Arc::new(Word::new(0)))
            .collect();
        let before = |at: usize| at.checked_sub(1).map(|at| Arc::clone(&cells[at]));
        let word = |at: usize| AtomicU64 {
            cell: Arc::clone(&cells[at]),
            before: before(at),
        };
        Mapping {
            words: (0..cells.len()).map(word).collect(),
            halves: cells
                .iter()
                .map(|cell| AtomicU32 {
                    cell: Arc::clone(cell),
                })
                .collect(),
        }
    }
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        assert_eq!(offset % 8, 0);
        &self.words[offset / 8]
    }
    pub(crate) fn word32(&self, offset: usize) -> &AtomicU32 {
        assert_eq!(offset % 8, 0);
        &self.halves[offset / 8]
    }
    pub(crate) fn part(&self, offset: usize, _len: usize) -> Part<'_> {
        Part {
            mapping: self,
            start: offset,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    mapping: &'a Mapping,
    start: usize,
}

impl<'a> Part<'a> {
    pub(crate) fn word(self, offset: usize) -> &'a AtomicU64 {
        self.mapping.word(self.start + offset)
    }
    /// Bytes are words that are read without any order: whoever does not own them reads old ones.
    pub(crate) fn read(self, offset: usize, out: &mut [u8]) {
        for (part, at) in out.chunks_mut(8).zip((offset..).step_by(8)) {
            let word = self.word(at).load(Ordering::Relaxed).to_ne_bytes();
            part.copy_from_slice(&word[..part.len()]);
        }
    }
    pub(crate) fn write(self, offset: usize, bytes: &[u8]) {
        for (part, at) in bytes.chunks(8).zip((offset..).step_by(8)) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.word(at)
                .store(u64::from_ne_bytes(word), Ordering::Relaxed);
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Slot(Arc<Mapping>, usize);

impl Slot {
    pub(crate) fn mapping(&self) -> &Mapping {
        &self.0
    }
    pub(crate) fn offset(&self) -> usize {
        0
    }
    pub(crate) fn part(&self, len: usize) -> Part<'_> {
        self.0.part(0, len)
    }
    pub(crate) fn len(&self) -> usize {
        self.1
    }
}

impl Serialize for Slot {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("nothing travels in a model"))
    }
}

impl<'de> Deserialize<'de> for Slot {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Slot, D::Error> {
        Err(serde::de::Error::custom("nothing travels in a model"))
    }
}

/// In a model nobody spins: it is the same as looking once more.
pub(crate) struct Spin;
pub(crate) const LONGEST_OF_CLIENT: Duration = Duration::ZERO;

impl Spin {
    pub(crate) fn new(_longest: Duration) -> Spin {
        Spin
    }
    pub(crate) fn until(&mut self, mut is_done: impl FnMut() -> bool) -> bool {
        is_done()
    }
    pub(crate) fn learn_of_wake(&mut self, _since: u64, _words: [&AtomicU64; 2]) {}
}

pub(crate) fn note_wake(_words: [&AtomicU64; 2]) {}

pub(crate) mod object {
    use super::{Arc, Mapping, Slot};
    use crate::error::Result;
    use serde::{Deserialize, Deserializer};

    pub(crate) fn allocate(_what: &str, len: usize) -> Result<Slot> {
        Ok(Slot(Arc::new(Mapping::new(len)), len))
    }
    pub(crate) fn arrive<'de, D: Deserializer<'de>>(
        from: D,
        _len: usize,
    ) -> std::result::Result<Slot, D::Error> {
        Slot::deserialize(from)
    }
    #[derive(Debug)]
    pub(crate) struct Owner(pub(crate) Option<u32>);
}
