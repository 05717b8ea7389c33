//! A part of shared memory that was looked up once, for what is used so often that looking it up would count.

use crate::sys::memory::Mapping;
use std::fmt;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A part of a mapping, which is borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    start: NonNull<u8>,
    len: usize,
    of: PhantomData<&'a Mapping>,
}

/// A part of a mapping, with what keeps that mapped. To get from one to the other takes one load.
pub(crate) struct Kept<K> {
    start: NonNull<u8>,
    len: usize,
    keeper: Arc<K>,
}

// SAFETY: all that it gives access to are the keeper and, by shared reference, the mapping of it: it may go where these may.
unsafe impl<K: Send + Sync> Send for Kept<K> {}
// SAFETY: as above.
unsafe impl<K: Send + Sync> Sync for Kept<K> {}

impl<K: AsRef<Mapping>> Kept<K> {
    /// The `len` bytes from `offset` on of the keeper's mapping.
    ///
    /// # Panics
    ///
    /// Where they are out of range, or `offset` is not a multiple of 8.
    pub(crate) fn of(keeper: Arc<K>, offset: usize, len: usize) -> Kept<K> {
        // Lent by what the `Arc` keeps where it is: the loan can last as long as that, since nobody can change it meanwhile.
        let mapping: &Mapping = K::as_ref(&keeper);
        Kept {
            start: mapping.place(offset, len),
            len,
            keeper,
        }
    }

    pub(crate) fn keeper(&self) -> &K {
        &self.keeper
    }

    /// Its first `len` bytes.
    ///
    /// # Panics
    ///
    /// Where it has less.
    #[inline]
    pub(crate) fn part(&self, len: usize) -> Part<'_> {
        assert!(len <= self.len, "no such part of a mapping");
        Part {
            start: self.start,
            len,
            of: PhantomData,
        }
    }
}

impl<K> Clone for Kept<K> {
    fn clone(&self) -> Self {
        Kept {
            start: self.start,
            len: self.len,
            keeper: Arc::clone(&self.keeper),
        }
    }
}

impl<K> fmt::Debug for Kept<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept")
            .field("start", &self.start)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl<'a> Part<'a> {
    /// As [`Mapping::word`].
    ///
    /// # Panics
    ///
    /// As there.
    #[inline]
    pub(crate) fn word(self, offset: usize) -> &'a AtomicU64 {
        assert!(
            offset % 8 == 0 && offset < self.len && self.len - offset >= 8,
            "no word at this offset"
        );
        // SAFETY: it is in the part, as just checked, and so in the mapping.
        let word = unsafe { self.start.add(offset) };
        // SAFETY: as in `Mapping::word`: the part starts at a multiple of 8, too, and the mapping is borrowed for `'a`.
        unsafe { AtomicU64::from_ptr(word.as_ptr().cast()) }
    }

    /// As [`Mapping::read`].
    ///
    /// # Panics
    ///
    /// As there.
    #[inline]
    pub(crate) fn read(self, offset: usize, out: &mut [u8]) {
        assert!(
            offset <= self.len && out.len() <= self.len - offset,
            "read past the end of a part"
        );
        // SAFETY: it is in the part, as just checked.
        let source = unsafe { self.start.add(offset) };
        // SAFETY: as in `Mapping::read`.
        unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), out.as_mut_ptr(), out.len()) };
    }

    /// As [`Mapping::write`].
    ///
    /// # Panics
    ///
    /// As there.
    #[inline]
    pub(crate) fn write(self, offset: usize, bytes: &[u8]) {
        assert!(
            offset <= self.len && bytes.len() <= self.len - offset,
            "write past the end of a part"
        );
        // SAFETY: it is in the part, as just checked.
        let target = unsafe { self.start.add(offset) };
        // SAFETY: as in `Mapping::write`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target.as_ptr(), bytes.len()) };
    }
}
