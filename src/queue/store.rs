//! The bytes of a queue's messages, at positions that only grow.
//!
//! A position is a place in the memory file: the base of the moment is its start, and behind its end it starts again. What
//! is small goes through mappings: one of the file's beginning, which is kept, and one window that each side moves
//! along when the queue grows beyond it. What is large, and what cannot be mapped, goes through system calls. Both see
//! the same memory.
//!
//! Memory behind the last message that was got is given back in steps, and all but the beginning when nothing is left.

use crate::queue::ledger::{Corrupt, PAGE};
use crate::sys::memory::Mapping;
use crate::sys::sparse::SparseFile;
use parking_lot::Mutex;
use std::io;

/// How large the file is, if this process may have one so large: more than any machine has memory for.
pub(crate) const FILE: usize = 1 << 40;
/// What is mapped at once, and kept when the queue is empty.
pub(crate) const NEAR: usize = 16 << 20;
/// What goes through a mapping is shorter than this.
const BULK: usize = 64 << 10;
/// A window, and how it is aligned. What is not bulk and begins in its first half lies in it.
const WINDOW: usize = 8 << 20;
const WINDOW_STEP: usize = 4 << 20;
/// Memory behind is given back in steps of so much.
const GIVE_BACK: u64 = 8 << 20;

/// A window on memory further away.
#[derive(Debug, Default)]
pub(crate) struct Window {
    start: usize,
    mapping: Option<Mapping>,
}

/// The memory file.
#[derive(Debug)]
pub(crate) struct Store {
    file: SparseFile,
    near: Mapping,
    near_len: usize,
    /// How many bytes of messages fit.
    room: u64,
}

impl Store {
    /// Makes the memory of a queue.
    pub(crate) fn create() -> io::Result<Store> {
        Store::of(SparseFile::create(FILE)?)
    }

    /// Takes the memory of a queue, which another process has made.
    pub(crate) fn of(file: SparseFile) -> io::Result<Store> {
        let near_len = file.len().min(PAGE + NEAR);
        if near_len < 2 * PAGE {
            return Err(io::Error::from_raw_os_error(crate::sys::errno::TOO_LARGE));
        }
        let near = file.map(0, near_len)?;
        let room = (file.len() - PAGE) as u64;
        Ok(Store {
            file,
            near,
            near_len,
            room,
        })
    }

    pub(crate) fn file(&self) -> &SparseFile {
        &self.file
    }

    /// The page with the words, and the beginning of the rest.
    #[inline]
    pub(crate) fn near(&self) -> &Mapping {
        &self.near
    }

    /// How far the last message may be behind the first: not so far that giving memory back could hit it.
    pub(crate) fn reach(&self) -> u64 {
        self.room - (2 * GIVE_BACK).min(self.room / 2)
    }

    /// Copies `bytes` to `at`, counted from the base.
    #[inline]
    pub(crate) fn write(&self, at: u64, bytes: &[u8], window: &Mutex<Window>) -> io::Result<()> {
        let (offset, first) = self.place(at, bytes.len());
        if first == bytes.len() && offset + first <= self.near_len && first < BULK {
            self.near.write(offset, bytes);
            return Ok(());
        }
        self.write_piece(offset, &bytes[..first], window)?;
        self.write_piece(PAGE, &bytes[first..], window)
    }

    /// Copies from `at`, counted from the base, to `out`.
    #[inline]
    pub(crate) fn read(&self, at: u64, out: &mut [u8], window: &Mutex<Window>) -> io::Result<()> {
        let (offset, first) = self.place(at, out.len());
        if first == out.len() && offset + first <= self.near_len {
            self.near.read(offset, out);
            return Ok(());
        }
        let mut copy = Vec::with_capacity(out.len());
        self.append(at, out.len(), &mut copy, window)?;
        out.copy_from_slice(&copy);
        Ok(())
    }

    /// Appends `len` bytes from `at`, counted from the base, to `out`, which has room for them.
    pub(crate) fn append(
        &self,
        at: u64,
        len: usize,
        out: &mut Vec<u8>,
        window: &Mutex<Window>,
    ) -> io::Result<()> {
        let (offset, first) = self.place(at, len);
        self.append_piece(offset, first, out, window)?;
        self.append_piece(PAGE, len - first, out, window)
    }

    /// Where it stands in the file, and how much of it before the file's end.
    #[inline]
    fn place(&self, at: u64, len: usize) -> (usize, usize) {
        let at = if at < self.room { at } else { at % self.room };
        let left = usize::try_from(self.room - at).unwrap_or(usize::MAX);
        (PAGE + at as usize, len.min(left))
    }

    fn write_piece(&self, offset: usize, bytes: &[u8], window: &Mutex<Window>) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mapped = self.mapped(offset, bytes.len(), window, |mapping, start| {
            mapping.write(offset - start, bytes);
        });
        match mapped {
            Some(()) => Ok(()),
            None => self.file.write_at(offset, bytes),
        }
    }

    fn append_piece(
        &self,
        offset: usize,
        len: usize,
        out: &mut Vec<u8>,
        window: &Mutex<Window>,
    ) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        let mapped = self.mapped(offset, len, window, |mapping, start| {
            mapping.append_to(offset - start, len, out);
        });
        match mapped {
            Some(()) => Ok(()),
            None => self.file.append_to(offset, len, out),
        }
    }

    /// Runs `copy` on the mapping that holds a piece, given where that starts; `None` where a system call serves better, or
    /// must.
    fn mapped(
        &self,
        offset: usize,
        len: usize,
        window: &Mutex<Window>,
        copy: impl FnOnce(&Mapping, usize),
    ) -> Option<()> {
        if len >= BULK {
            return None;
        }
        let end = offset.checked_add(len)?;
        if end <= self.near_len {
            copy(&self.near, 0);
            return Some(());
        }
        // Where another thread of this process is on the same side, somebody has written over the monitor's word.
        let mut window = window.try_lock()?;
        let is_inside = offset >= window.start && end <= window.start + WINDOW;
        if window.mapping.is_none() || !is_inside {
            let start = offset / WINDOW_STEP * WINDOW_STEP;
            let window_len = WINDOW.min(self.file.len() - start);
            window.mapping = None;
            window.mapping = self.file.map(start, window_len).ok();
            window.start = start;
        }
        copy(window.mapping.as_ref()?, window.start);
        Some(())
    }

    /// Gives back the memory between two positions, the second of which a message still to be got stands at or behind.
    /// Returns up to where, if that was worth doing.
    pub(crate) fn give_back(
        &self,
        punched: u64,
        base: u64,
        head: u64,
    ) -> Result<Option<u64>, Corrupt> {
        let from = punched.max(base);
        let behind = head.checked_sub(from).ok_or(Corrupt)?;
        // Where the file is so small that it is used again before, what is behind may be in use.
        if behind < GIVE_BACK || self.room < 4 * GIVE_BACK {
            return Ok(None);
        }
        let (start, first) = self.place(from - base, usize::try_from(behind).unwrap_or(usize::MAX));
        // A refusal costs memory, and nothing else.
        let _kept = self.file.punch(start, start + first);
        if behind > first as u64 {
            let rest = usize::try_from(behind - first as u64).unwrap_or(usize::MAX);
            let _kept = self.file.punch(PAGE, PAGE.saturating_add(rest));
        }
        // Of the last page the first part only is behind.
        Ok(Some(head - (head - base) % PAGE as u64))
    }

    /// Gives back all memory but the beginning: nobody has a message in it.
    pub(crate) fn give_all_back(&self) {
        let _kept = self.file.punch(PAGE + NEAR, self.file.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Store {
        Store::of(SparseFile::create(PAGE + 64 * 1024).unwrap()).unwrap()
    }

    fn round_trip(store: &Store, at: u64, len: usize) {
        let bytes: Vec<u8> = (0..len)
            .map(|byte| (byte * 7 + at as usize) as u8)
            .collect();
        let (here, there) = (Mutex::default(), Mutex::default());
        store.write(at, &bytes, &here).unwrap();
        let mut out = Vec::with_capacity(len);
        store.append(at, len, &mut out, &there).unwrap();
        assert_eq!(out, bytes, "{len} bytes at {at}");
        let mut copy = vec![0; len];
        store.read(at, &mut copy, &there).unwrap();
        assert_eq!(copy, bytes, "{len} bytes at {at}");
    }

    #[test]
    fn bytes_come_out_as_they_went_in_wherever_they_stand() {
        let store = Store::create().unwrap();
        let edges = [0, NEAR, 2 * WINDOW_STEP + NEAR, 100 << 20, FILE - PAGE];
        for edge in edges {
            for before in [0, 1, 24, 100, 70_000] {
                for len in [1, 24, 200, BULK - 1, BULK, 200_000] {
                    round_trip(&store, (edge as u64).saturating_sub(before), len);
                }
            }
        }
    }

    #[test]
    fn behind_the_end_it_starts_again() {
        let store = small();
        for at in [0, 64 * 1024 - 1, 64 * 1024, 64 * 1024 * 1000 - 9] {
            round_trip(&store, at, 100);
            round_trip(&store, at, 60_000);
        }
    }

    #[test]
    fn memory_behind_is_given_back_in_steps() {
        let store = Store::create().unwrap();
        let bytes = vec![1; 20 << 20];
        store.write(0, &bytes, &Mutex::default()).unwrap();
        let full = store.file.memory().unwrap();
        assert_eq!(store.give_back(0, 0, GIVE_BACK - 1), Ok(None));
        assert_eq!(store.give_back(0, 0, 20 << 20), Ok(Some(20 << 20)));
        assert!(store.file.memory().unwrap() < full / 10);
        assert_eq!(store.give_back(10, 0, 9), Err(Corrupt));
    }
}
