//! Many small objects in few shared segments, so that a lock costs 64 bytes and not a file.
//!
//! A process has one segment at a time in which it places new objects, one behind the other. A segment is handed to another
//! process as a whole, once; there it is found again by the kernel's identity of the file, however many objects of it
//! arrive, so that it has one address in each process. It lives as long as anybody holds an object in it.
//!
//! | a place | becomes |
//! |---|---|
//! | never used | taken, by [`Slot::allocate`] of the process that made the segment, and of no other |
//! | taken, known to this process only | free again when its last handle goes |
//! | taken, sent away or inherited by a fork | never free again: nobody knows who else still holds it |
//! | free | taken, after it was overwritten with zeros |
//!
//! A child that was forked has its parent's segments mapped, and makes a segment of its own for what it allocates.

use crate::sys::file::{Identity, identity};
use crate::sys::forks::Stretch;
use crate::sys::known::Known;
use crate::sys::memory::{Mapping, SealedMemory};
use crate::sys::part::{Kept, Part};
use crate::sys::shared::SharedFd;
use crate::sys::step::step;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// What each object starts at a multiple of: a cache line, so that no two share one.
const ALIGNMENT: usize = 64;
/// The size of a segment for small objects. Pages of it that nobody has touched take no memory.
const SEGMENT: usize = 1 << 20;
/// A larger object has a segment of its own.
const LARGEST_SMALL: usize = 16 << 10;

/// An object's place in shared memory; clones are the same place.
#[derive(Clone)]
pub(crate) struct Slot {
    place: Kept<Place>,
}

struct Place {
    segment: Arc<Segment>,
    offset: usize,
    len: usize,
    /// When it was taken, where it may be free again.
    taken: Option<Stretch>,
    has_travelled: AtomicBool,
}

impl AsRef<Mapping> for Place {
    fn as_ref(&self) -> &Mapping {
        &self.segment.mapping
    }
}

/// A memory file and where it is mapped.
#[derive(Debug)]
struct Segment {
    file: Arc<SharedFd>,
    identity: Identity,
    len: usize,
    mapping: Mapping,
}

/// The segments that are mapped in this process, by what the kernel calls them.
static SEGMENTS: Known<Segment> = Known::new();

/// Where new objects are placed. It keeps no segment alive: the last object in it does.
#[derive(Debug, Default)]
struct Arena {
    /// `None` before the first object.
    stretch: Option<Stretch>,
    segment: Weak<Segment>,
    next: usize,
    /// Free places, by their size.
    free: BTreeMap<usize, Vec<(Weak<Segment>, usize)>>,
}

static ARENA: Mutex<Arena> = Mutex::new(Arena {
    stretch: None,
    segment: Weak::new(),
    next: 0,
    free: BTreeMap::new(),
});

impl Slot {
    /// Takes a place of `len` bytes, all zero.
    pub(crate) fn allocate(len: usize) -> io::Result<Slot> {
        let size = len
            .max(1)
            .checked_next_multiple_of(ALIGNMENT)
            .ok_or(io::ErrorKind::InvalidInput)?;
        if size > LARGEST_SMALL {
            let segment = Segment::create(size)?;
            return Ok(Slot::at(segment, 0, len, None));
        }
        let stretch = Stretch::now();
        let (segment, offset) = ARENA.lock().take(size, stretch)?;
        Ok(Slot::at(segment, offset, len, Some(stretch)))
    }

    /// Finds the place that another process has named: `len` bytes at `offset` of `file`, which may be any file.
    pub(crate) fn adopt(file: &Arc<SharedFd>, offset: u64, len: u64) -> io::Result<Slot> {
        let segment = Segment::of(file)?;
        step!("arena::adopt::mapped");
        let found = usize::try_from(offset).ok().zip(usize::try_from(len).ok());
        let fits = |&(offset, len): &(usize, usize)| {
            offset % ALIGNMENT == 0
                && offset
                    .checked_add(len)
                    .is_some_and(|end| end <= segment.len)
        };
        let (offset, len) = found.filter(fits).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "there is no such place in its memory",
            )
        })?;
        Ok(Slot::at(segment, offset, len, None))
    }

    fn at(segment: Arc<Segment>, offset: usize, len: usize, taken: Option<Stretch>) -> Slot {
        let place = Arc::new(Place {
            segment,
            offset,
            len,
            taken,
            has_travelled: AtomicBool::new(false),
        });
        Slot {
            place: Kept::of(place, offset, len),
        }
    }

    /// The memory that holds it, at [`Slot::offset`].
    #[inline]
    pub(crate) fn mapping(&self) -> &Mapping {
        &self.place.keeper().segment.mapping
    }

    /// Where it starts in [`Slot::mapping`]: a multiple of 64.
    #[inline]
    pub(crate) fn offset(&self) -> usize {
        self.place.keeper().offset
    }

    /// Its first `len` bytes, which are found with one load.
    ///
    /// # Panics
    ///
    /// Where it has less.
    #[inline]
    pub(crate) fn part(&self, len: usize) -> Part<'_> {
        self.place.part(len)
    }

    /// How many bytes are its own.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.place.keeper().len
    }

    /// The memory file, which is about to be sent, so that the place is not free again in this process's lifetime.
    pub(crate) fn file_for_sending(&self) -> Arc<SharedFd> {
        self.place
            .keeper()
            .has_travelled
            .store(true, Ordering::Relaxed);
        Arc::clone(&self.place.keeper().segment.file)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("segment", &self.place.keeper().segment.identity)
            .field("offset", &self.offset())
            .field("len", &self.len())
            .finish()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(taken) = self.taken else { return };
        if *self.has_travelled.get_mut() || taken != Stretch::now() {
            return;
        }
        // Whose guard was forgotten holds a word here until its thread ends, when the kernel goes there.
        if self.segment.mapping.is_any_held(self.offset, self.len) {
            return;
        }
        let mut arena = ARENA.lock();
        if arena.stretch == Some(taken) {
            let size = self.len.max(1).next_multiple_of(ALIGNMENT);
            let place = (Arc::downgrade(&self.segment), self.offset);
            arena.free.entry(size).or_default().push(place);
        }
    }
}

impl Arena {
    fn take(&mut self, size: usize, stretch: Stretch) -> io::Result<(Arc<Segment>, usize)> {
        if self.stretch != Some(stretch) {
            // A fork is between: its child may not place anything where its parent does, nor the parent use again what
            // the child has inherited.
            *self = Arena {
                stretch: Some(stretch),
                ..Arena::default()
            };
        }
        if let Some((segment, offset)) = self.take_free(size) {
            segment.mapping.write(offset, &[0; LARGEST_SMALL][..size]);
            return Ok((segment, offset));
        }
        let segment = match self.segment.upgrade() {
            Some(segment) if SEGMENT - self.next >= size => segment,
            _ => self.begin_segment()?,
        };
        let offset = self.next;
        self.next += size;
        Ok((segment, offset))
    }

    fn take_free(&mut self, size: usize) -> Option<(Arc<Segment>, usize)> {
        let places = self.free.get_mut(&size)?;
        while let Some((segment, offset)) = places.pop() {
            if let Some(segment) = segment.upgrade() {
                return Some((segment, offset));
            }
        }
        None
    }

    fn begin_segment(&mut self) -> io::Result<Arc<Segment>> {
        let segment = Segment::create(SEGMENT)?;
        step!("arena::begin::made");
        self.segment = Arc::downgrade(&segment);
        self.next = 0;
        for places in self.free.values_mut() {
            places.retain(|(segment, _)| segment.strong_count() > 0);
        }
        self.free.retain(|_, places| !places.is_empty());
        Ok(segment)
    }
}

impl Segment {
    fn create(len: usize) -> io::Result<Arc<Segment>> {
        let file: OwnedFd = SealedMemory::create(len)?.into();
        Segment::of(&SharedFd::of(file))
    }

    /// The segment that a descriptor from elsewhere leads to. The seals of one that is known have been looked at, and
    /// cannot be broken.
    fn of(file: &Arc<SharedFd>) -> io::Result<Arc<Segment>> {
        SEGMENTS.find_or(identity(file)?, || Segment::map(file))
    }

    fn map(file: &Arc<SharedFd>) -> io::Result<Segment> {
        let memory = SealedMemory::adopt(file.try_clone()?)?;
        let len = memory.len();
        Ok(Segment {
            identity: identity(file)?,
            len,
            mapping: memory.map(0, len)?,
            file: Arc::clone(file),
        })
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        SEGMENTS.forget(self.identity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::forks::apart;

    fn sent(slot: &Slot) -> (Arc<SharedFd>, u64, u64) {
        let copy = slot.file_for_sending().try_clone().unwrap();
        (SharedFd::of(copy), slot.offset() as u64, slot.len() as u64)
    }

    fn bytes(slot: &Slot) -> Vec<u8> {
        let mut bytes = vec![1; slot.len()];
        slot.mapping().read(slot.offset(), &mut bytes);
        bytes
    }

    #[test]
    fn objects_have_places_of_their_own_and_start_as_zeros() {
        let _apart = apart::no_forks();
        let slots: Vec<Slot> = (0..40_000).map(|_| Slot::allocate(24).unwrap()).collect();
        for (slot, number) in slots.iter().zip(1..) {
            assert_eq!(
                slot.mapping()
                    .word(slot.offset())
                    .swap(number, Ordering::Relaxed),
                0
            );
        }
        for (slot, number) in slots.iter().zip(1..) {
            assert_eq!(
                slot.mapping().word(slot.offset()).load(Ordering::Relaxed),
                number
            );
        }
        let files: std::collections::BTreeSet<Identity> = slots
            .iter()
            .map(|slot| slot.place.keeper().segment.identity)
            .collect();
        assert!(files.len() <= 5, "{} files for 40,000 objects", files.len());
    }

    #[test]
    fn what_never_left_is_taken_again_and_is_zeros() {
        let _apart = apart::no_forks();
        // Of a size that no other test uses: they share the arena.
        let _keeps_the_segment = Slot::allocate(64).unwrap();
        let first = Slot::allocate(5000).unwrap();
        first.mapping().write(first.offset(), &[7; 5000]);
        let (segment, offset) = (Arc::clone(&first.place.keeper().segment), first.offset());
        let clone = first.clone();
        drop(first);
        let other = Slot::allocate(5000).unwrap();
        assert!(!Arc::ptr_eq(&other.place.keeper().segment, &segment) || other.offset() != offset);
        drop(clone);
        let again = Slot::allocate(5000).unwrap();
        assert!(Arc::ptr_eq(&again.place.keeper().segment, &segment) && again.offset() == offset);
        assert_eq!(bytes(&again), vec![0; 5000]);
    }

    #[test]
    fn what_has_left_is_not_taken_again() {
        let _keeps_the_segment = Slot::allocate(64).unwrap();
        let first = Slot::allocate(6000).unwrap();
        let (segment, offset) = (Arc::clone(&first.place.keeper().segment), first.offset());
        let _theirs = sent(&first);
        drop(first);
        let next = Slot::allocate(6000).unwrap();
        assert!(!Arc::ptr_eq(&next.place.keeper().segment, &segment) || next.offset() != offset);
    }

    #[test]
    fn a_place_that_arrives_is_the_same_memory_and_mapped_once() {
        for len in [10, LARGEST_SMALL + 1] {
            let slot = Slot::allocate(len).unwrap();
            let (file, offset, size) = sent(&slot);
            let there = Slot::adopt(&file, offset, size).unwrap();
            assert!(Arc::ptr_eq(
                &there.place.keeper().segment,
                &slot.place.keeper().segment
            ));
            assert_eq!((there.offset(), there.len()), (slot.offset(), len));
        }
    }

    #[test]
    fn a_segment_goes_with_the_last_object_in_it() {
        let slot = Slot::allocate(LARGEST_SMALL * 2).unwrap();
        let identity = slot.place.keeper().segment.identity;
        let (file, offset, len) = sent(&slot);
        drop(slot);
        assert!(!SEGMENTS.has(identity));
        let there = Slot::adopt(&file, offset, len).unwrap();
        assert_eq!(there.place.keeper().segment.identity, identity);
    }

    #[test]
    fn a_place_that_is_none_is_an_error() {
        let slot = Slot::allocate(100).unwrap();
        let (file, offset, _) = sent(&slot);
        for (offset, len) in [
            (offset + 8, 8),
            (offset, SEGMENT as u64 + 1),
            (u64::MAX - 63, 64),
            (0, u64::MAX),
            (SEGMENT as u64, 1),
        ] {
            assert!(Slot::adopt(&file, offset, len).is_err());
        }
        let null: Arc<SharedFd> = SharedFd::of(std::fs::File::open("/dev/null").unwrap().into());
        assert!(Slot::adopt(&null, 0, 8).is_err());
        assert!(Slot::allocate(usize::MAX).is_err());
    }
}
