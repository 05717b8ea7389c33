//! Anonymous memory that the bench and the processes it forks share.

use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::{Deref, Range};
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Marks what may be used by several processes at once through `&T`.
///
/// # Safety
///
/// The type consists of atomics, for which all zeroes is a value, and needs no drop.
pub(crate) unsafe trait Words {}

/// Owns words that are zero at first and shared with every child forked later.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    pages: Pages,
    words: PhantomData<T>,
}

impl<T: Words> Shared<T> {
    /// Maps them.
    pub(crate) fn new() -> Shared<T> {
        Shared {
            pages: Pages::new(size_of::<T>()),
            words: PhantomData,
        }
    }
}

impl<T: Words> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the pages are at least as large as a `T`, aligned beyond it, zeroed when mapped,
        // which is a value of a `T: Words`, live as long as `self`, and are changed by anyone
        // through atomics only.
        unsafe { self.pages.at.cast::<T>().as_ref() }
    }
}

/// Owns plain data that is zero at first, resident, and shared with every child forked later.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    pages: Pages,
    len: usize,
    items: PhantomData<T>,
}

impl<T: bytemuck::Pod> Buffer<T> {
    /// Maps room for `len` items and touches every page.
    pub(crate) fn new(len: usize) -> Buffer<T> {
        let buffer = Buffer {
            pages: Pages::new(len * size_of::<T>()),
            len,
            items: PhantomData,
        };
        // SAFETY: the range is what was just mapped, which nobody else has yet; zero bytes are a
        // value of a `T: Pod`.
        unsafe { buffer.pages.at.cast::<T>().write_bytes(0, len) };
        buffer
    }

    /// Lends a part of the items.
    ///
    /// # Safety
    ///
    /// Until the slice is let go, neither this nor another process touches that part.
    #[expect(
        clippy::mut_from_ref,
        reason = "who may touch which part when is agreed between processes, by the caller"
    )]
    pub(crate) unsafe fn part(&self, part: Range<usize>) -> &mut [T] {
        assert!(part.start <= part.end && part.end <= self.len);
        // SAFETY: `part.start` is within the mapping, which holds `self.len` items.
        let first = unsafe { self.pages.at.cast::<T>().add(part.start) };
        let mut slice = NonNull::slice_from_raw_parts(first, part.len());
        // SAFETY: the items are inside the mapping, aligned, initialised by `new`, live as long as
        // `self`, and the caller promises that nobody else touches them.
        unsafe { slice.as_mut() }
    }
}

/// Owns a shared anonymous mapping.
#[derive(Debug)]
struct Pages {
    at: NonNull<u8>,
    bytes: NonZeroUsize,
}

impl Pages {
    fn new(bytes: usize) -> Pages {
        // The kernel maps nothing of no length.
        let bytes = NonZeroUsize::new(bytes).unwrap_or(NonZeroUsize::MIN);
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory that is in
        // use.
        let at = unsafe { mmap_anonymous(None, bytes, access, MapFlags::MAP_SHARED) }.unwrap();
        Pages {
            at: at.cast(),
            bytes,
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: `at` and `bytes` are what was mapped, and whatever was lent from it has ended
        // with its owner's borrow.
        let _ = unsafe { munmap(self.at.cast(), self.bytes.get()) };
    }
}
