//! Bytes that are kept twice, so that whoever dies while it writes them leaves them as they were.
//!
//! ```text
//! +0    a word that one holds at a time (`sys::robust`)
//! +16   version: its lowest bit tells which copy counts
//! +64   one copy, padded to 64 bytes
//! ...   the other copy
//! ```
//!
//! | who | does | died before the next step |
//! |---|---|---|
//! | writes, and holds the word | writes the copy that does not count | nobody reads what it wrote |
//! | | raises the version | all of it is there |
//! | writes a part in place, and holds the word | writes into the copy that counts, word by word | some of the words are new |
//! | reads without the word | reads the version, the copy that counts, the version again | |
//!
//! A reader that finds the version changed starts again: only the writer after the next one writes where it reads, and that one
//! has raised the version before.

use crate::deadline::Deadline;
use crate::shm::{Slot, words};
use crate::sys::robust::{Held, Word};
use crate::sys::step::step;
use std::sync::atomic::{AtomicU64, Ordering, fence};

const VERSION: usize = 16;
const COPIES: usize = 64;
/// How often a reader starts again before it keeps writers out.
const TRIES: u32 = 100;

/// Bytes that are kept twice, at a place in shared memory.
#[derive(Clone, Copy)]
pub(crate) struct Twin<'a> {
    slot: &'a Slot,
    size: usize,
}

/// The right to write, and to read what does not change meanwhile.
pub(crate) struct Locked<'a> {
    twin: Twin<'a>,
    _held: Held<'a>,
}

impl<'a> Twin<'a> {
    /// How long a place for `size` bytes is; `None` where there is no such length.
    pub(crate) const fn room_for(size: usize) -> Option<usize> {
        let Some(padded) = size.checked_next_multiple_of(64) else {
            return None;
        };
        match padded.checked_mul(2) {
            Some(both) => both.checked_add(COPIES),
            None => None,
        }
    }

    /// The twin of `size` bytes at a place that is as long as [`Twin::room_for`] says.
    #[inline]
    pub(crate) fn at(slot: &'a Slot, size: usize) -> Twin<'a> {
        Twin { slot, size }
    }

    /// Reads the bytes as one writer left them; returns their version. Waits for nobody, as long as writers leave some time
    /// between them.
    pub(crate) fn load(self, out: &mut [u8]) -> u64 {
        for _ in 0..TRIES {
            let version = self.version().load(Ordering::Acquire);
            words::load(self.copy(version), 0, out);
            // Pairs with the fence in `publish`: whoever has seen one of its words sees the version before it, at least.
            fence(Ordering::Acquire);
            if self.version().load(Ordering::Relaxed) == version {
                return version;
            }
        }
        match self.lock(Deadline::NEVER) {
            Some(locked) => {
                locked.read(0, out);
                locked.version()
            }
            None => 0,
        }
    }

    /// Keeps other writers out; `None` when the deadline passes before.
    #[inline]
    pub(crate) fn lock(self, deadline: Deadline) -> Option<Locked<'a>> {
        // What one that died was writing does not count, so that it does not matter.
        let held = self.word().acquire(deadline)?;
        step!("twin::lock::held");
        Some(Locked {
            twin: self,
            _held: held,
        })
    }

    /// As [`Twin::lock`], at once or not at all.
    #[inline]
    pub(crate) fn try_lock(self) -> Option<Locked<'a>> {
        let held = self.word().try_acquire()?;
        Some(Locked {
            twin: self,
            _held: held,
        })
    }

    /// Whether this thread keeps others out already.
    pub(crate) fn is_locked_by_this_thread(self) -> bool {
        self.word().is_held_by_this_thread()
    }

    #[inline]
    fn word(self) -> Word<'a> {
        Word::at(self.slot.mapping(), self.slot.offset())
    }

    #[inline]
    fn version(self) -> &'a AtomicU64 {
        self.slot.mapping().word(self.slot.offset() + VERSION)
    }

    /// The copy that counts in this version.
    #[inline]
    fn copy(self, version: u64) -> &'a [AtomicU64] {
        let padded = self.size.next_multiple_of(64);
        let start = self.slot.offset() + COPIES + if version % 2 == 0 { 0 } else { padded };
        self.slot.mapping().words(start, padded / 8)
    }
}

impl Locked<'_> {
    pub(crate) fn is_held_by_this_thread(&self) -> bool {
        self.twin.is_locked_by_this_thread()
    }

    pub(crate) fn version(&self) -> u64 {
        self.twin.version().load(Ordering::Relaxed)
    }

    /// Copies from the byte at `at` to `out`.
    ///
    /// # Panics
    ///
    /// Where there are fewer.
    pub(crate) fn read(&self, at: usize, out: &mut [u8]) {
        words::load(self.twin.copy(self.version()), at, out);
    }

    /// Replaces all bytes, at once.
    pub(crate) fn publish(&self, bytes: &[u8]) {
        let next = self.version().wrapping_add(1);
        // Pairs with the fence in `load`.
        fence(Ordering::Release);
        words::store(self.twin.copy(next), 0, bytes);
        step!("twin::publish::copied");
        self.twin.version().store(next, Ordering::Release);
        step!("twin::publish::raised");
    }

    /// Writes some bytes in place. Only for twins that nobody reads without the lock.
    ///
    /// # Panics
    ///
    /// Where there is no room.
    pub(crate) fn write(&self, at: usize, bytes: &[u8]) {
        words::store(self.twin.copy(self.version()), at, bytes);
        step!("twin::write::written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_what_one_writer_wrote() {
        let slot = Slot::allocate(Twin::room_for(200).unwrap()).unwrap();
        let twin = Twin::at(&slot, 200);
        std::thread::scope(|scope| {
            for writer in 1..3_u8 {
                scope.spawn(move || {
                    for round in 0..2000_u16 {
                        let [byte, _] = round.to_le_bytes();
                        let locked = twin.lock(Deadline::NEVER).unwrap();
                        locked.publish(&[byte.wrapping_mul(writer); 200]);
                    }
                });
            }
            scope.spawn(move || {
                for _ in 0..5000 {
                    let mut bytes = [0; 200];
                    twin.load(&mut bytes);
                    assert_eq!(bytes, [bytes[0]; 200]);
                }
            });
        });
    }

    #[test]
    fn what_was_not_finished_does_not_count() {
        let slot = Slot::allocate(Twin::room_for(16).unwrap()).unwrap();
        let twin = Twin::at(&slot, 16);
        twin.lock(Deadline::NEVER).unwrap().publish(&[1; 16]);
        // As a writer does that dies half-way.
        words::store(twin.copy(0), 0, &[2; 9]);
        let mut bytes = [0; 16];
        assert_eq!(twin.load(&mut bytes), 1);
        assert_eq!(bytes, [1; 16]);
    }
}
