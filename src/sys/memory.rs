//! Anonymous memory that processes share: a memfd whose size the kernel has sealed, and its mappings.
//!
//! Another process may write to a shared mapping at any time. So nothing here lends a reference into it, except to
//! atomics: bytes are copied in and out, and whoever reads them checks them.

use crate::sys::descriptor::above_streams;
use crate::sys::errno::retry;
use crate::sys::file::set_size;
use crate::sys::held;
use memmap2::{MmapOptions, MmapRaw};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A memory file of a fixed size: the kernel refuses to resize it, so a mapping of it can never fault.
#[derive(Debug)]
pub(crate) struct SealedMemory {
    file: OwnedFd,
    len: usize,
}

impl SealedMemory {
    /// Makes `len` bytes of zeros.
    pub(crate) fn create(len: usize) -> io::Result<SealedMemory> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = above_streams(retry(|| memfd_create(c"multiprocess", flags))?)?;
        set_size(&file, len)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        retry(|| fcntl(&file, FcntlArg::F_ADD_SEALS(seals)))?;
        Ok(SealedMemory { file, len })
    }

    /// Takes a descriptor that came from elsewhere, after checking that its size is sealed.
    pub(crate) fn adopt(file: OwnedFd) -> io::Result<SealedMemory> {
        let seals = retry(|| fcntl(&file, FcntlArg::F_GET_SEALS))?;
        let wanted = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
        if !SealFlag::from_bits_truncate(seals).contains(wanted) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "its size is not sealed",
            ));
        }
        let size = retry(|| nix::sys::stat::fstat(&file))?.st_size;
        let len = usize::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(SealedMemory { file, len })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Maps `len` bytes from `offset`, for reading and writing.
    pub(crate) fn map(&self, offset: usize, len: usize) -> io::Result<Mapping> {
        self.check(offset, len)?;
        Mapping::of(self.file.as_fd(), offset, len)
    }

    /// Maps `len` bytes from `offset`, for reading.
    pub(crate) fn map_read_only(&self, offset: usize, len: usize) -> io::Result<ReadOnlyMapping> {
        self.check(offset, len)?;
        let raw = MmapOptions::new()
            .offset(offset as u64)
            .len(len)
            .map_raw_read_only(self.file.as_raw_fd())?;
        Ok(ReadOnlyMapping { raw })
    }

    fn check(&self, offset: usize, len: usize) -> io::Result<()> {
        let end = offset.checked_add(len);
        if len == 0 || end.is_none_or(|end| end > self.len) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the memory file is too short",
            ));
        }
        Ok(())
    }
}

impl AsFd for SealedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl From<SealedMemory> for OwnedFd {
    fn from(memory: SealedMemory) -> OwnedFd {
        memory.file
    }
}

/// Shared memory that this process may write.
#[derive(Debug)]
pub(crate) struct Mapping {
    raw: ManuallyDrop<MmapRaw>,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // Whose guard of a word in here was forgotten holds it until its thread ends, when the kernel goes there.
        if !self.is_any_held(0, self.raw.len()) {
            // SAFETY: it is not used after this.
            unsafe { ManuallyDrop::drop(&mut self.raw) };
        }
    }
}

/// Shared memory that only others write; a stray write of ours would fault.
#[derive(Debug)]
pub(crate) struct ReadOnlyMapping {
    raw: MmapRaw,
}

impl Mapping {
    /// Maps a range that lies in the file, whose size is sealed, as the caller has seen.
    pub(in crate::sys) fn of(
        file: BorrowedFd<'_>,
        offset: usize,
        len: usize,
    ) -> io::Result<Mapping> {
        let raw = MmapOptions::new()
            .offset(offset as u64)
            .len(len)
            .map_raw(file.as_raw_fd())?;
        Ok(Mapping {
            raw: ManuallyDrop::new(raw),
        })
    }

    /// Appends `len` bytes from `offset` to `out`, which must have room: it does not grow.
    ///
    /// # Panics
    ///
    /// Where the range is out of the mapping, or the spare capacity of `out` too small.
    #[inline]
    pub(crate) fn append_to(&self, offset: usize, len: usize, out: &mut Vec<u8>) {
        append(&self.raw, offset, len, out);
    }

    /// Keeps it from processes that are forked from now on. They must let go of this value without a drop.
    pub(crate) fn keep_from_forks(&self) -> io::Result<()> {
        self.raw.advise(memmap2::Advice::DontFork)
    }

    /// Whether some thread of this process holds a word that stands in this part, as [`held`] knows it.
    pub(crate) fn is_any_held(&self, offset: usize, len: usize) -> bool {
        let start = self.raw.as_ptr().addr() + offset;
        held::is_any_within(start..start + len)
    }

    /// Where the `len` bytes from `offset` on start, for [`Part`](crate::sys::part::Part).
    ///
    /// # Panics
    ///
    /// Where they are out of range, or `offset` is not a multiple of 8.
    #[inline]
    pub(in crate::sys) fn place(&self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(
            offset % 8 == 0 && in_range(&self.raw, offset, len),
            "no such part of a mapping"
        );
        // SAFETY: `offset` is in the mapping, as just checked.
        let start = unsafe { self.raw.as_mut_ptr().add(offset) };
        // SAFETY: a mapping does not start at 0.
        unsafe { NonNull::new_unchecked(start) }
    }

    /// The aligned 64-bit word at `offset`.
    ///
    /// # Panics
    ///
    /// Where `offset` is out of range or not a multiple of 8: offsets are ours, never read from shared memory.
    #[inline]
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        word_of(&self.raw, offset)
    }

    /// The aligned 32-bit word at `offset`.
    ///
    /// # Panics
    ///
    /// As [`Mapping::word`], where `offset` is not a multiple of 4.
    #[inline]
    pub(crate) fn word32(&self, offset: usize) -> &AtomicU32 {
        word32_of(&self.raw, offset)
    }

    /// The `count` aligned 64-bit words from `offset` on.
    ///
    /// # Panics
    ///
    /// As [`Mapping::word`].
    #[inline]
    pub(crate) fn words(&self, offset: usize, count: usize) -> &[AtomicU64] {
        let len = count.checked_mul(8);
        assert!(
            offset % 8 == 0 && len.is_some_and(|len| in_range(&self.raw, offset, len)),
            "no words at this offset"
        );
        // SAFETY: `offset` is in the mapping, as just checked.
        let first = unsafe { self.raw.as_mut_ptr().add(offset) };
        // SAFETY: `count` words from there are in the mapping, as just checked, and each is as in `word_of`.
        unsafe { std::slice::from_raw_parts(first.cast_const().cast(), count) }
    }

    /// Copies from `offset` to `out`.
    ///
    /// # Panics
    ///
    /// Where so much is not there.
    #[inline]
    pub(crate) fn read(&self, offset: usize, out: &mut [u8]) {
        assert!(
            in_range(&self.raw, offset, out.len()),
            "read past the end of a mapping"
        );
        // SAFETY: `offset` is in the mapping, as just checked.
        let source = unsafe { self.raw.as_ptr().add(offset) };
        // SAFETY: `source` is readable for `out.len()` bytes as long as `self` lives, its file is sealed against
        // shrinking, and `out` is ordinary memory that cannot overlap it. Another process may write the source
        // meanwhile: any bytes may come out, all of them valid as `u8`.
        unsafe { std::ptr::copy_nonoverlapping(source, out.as_mut_ptr(), out.len()) };
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Panics
    ///
    /// Where they do not fit.
    #[inline]
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(
            in_range(&self.raw, offset, bytes.len()),
            "write past the end of a mapping"
        );
        // SAFETY: `offset` is in the mapping, as just checked.
        let target = unsafe { self.raw.as_mut_ptr().add(offset) };
        // SAFETY: `target` has room for `bytes.len()` bytes, is mapped for writing as long as `self` lives, its file is
        // sealed against shrinking, and `bytes` is ordinary memory that cannot overlap it. Another process may read or
        // write the same bytes; no reference to them exists in this one.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
    }
}

impl ReadOnlyMapping {
    /// Reads the aligned 64-bit word at `offset`.
    ///
    /// # Panics
    ///
    /// As [`Mapping::word`].
    #[inline]
    pub(crate) fn load(&self, offset: usize, ordering: Ordering) -> u64 {
        word_of(&self.raw, offset).load(ordering)
    }

    /// Copies bytes from `offset` into `into`.
    ///
    /// # Panics
    ///
    /// Where the range is out of the mapping.
    #[inline]
    pub(crate) fn read(&self, offset: usize, into: &mut [u8]) {
        assert!(
            in_range(&self.raw, offset, into.len()),
            "read past the end of a mapping"
        );
        // SAFETY: `offset` is in the mapping, as just checked.
        let source = unsafe { self.raw.as_ptr().add(offset) };
        // SAFETY: as in the function `read` below; `into` is ordinary memory of ours alone that cannot overlap the mapping.
        unsafe { std::ptr::copy_nonoverlapping(source, into.as_mut_ptr(), into.len()) };
    }

    /// Copies from `offset` to all of `out`.
    ///
    /// # Panics
    ///
    /// Where so much is not there.
    #[inline]
    pub(crate) fn read_to(&self, offset: usize, out: &mut [MaybeUninit<u8>]) {
        read(&self.raw, offset, out);
    }

    /// Appends `len` bytes from `offset` to `out`, which must have room: it does not grow.
    ///
    /// # Panics
    ///
    /// Where the range is out of the mapping, or the spare capacity of `out` too small.
    #[inline]
    pub(crate) fn append_to(&self, offset: usize, len: usize, out: &mut Vec<u8>) {
        append(&self.raw, offset, len, out);
    }
}

#[inline]
fn read(raw: &MmapRaw, offset: usize, out: &mut [MaybeUninit<u8>]) {
    assert!(
        in_range(raw, offset, out.len()),
        "read past the end of a mapping"
    );
    // SAFETY: `offset` is in the mapping, as just checked.
    let source = unsafe { raw.as_ptr().add(offset) };
    // SAFETY: `source` is readable for `out.len()` bytes as long as `raw` lives, and its file is sealed against
    // shrinking; `out` is ordinary memory that cannot overlap it. Another process may write the source meanwhile: any
    // bytes may come out, all of them valid as `u8`.
    unsafe { std::ptr::copy_nonoverlapping(source, out.as_mut_ptr().cast(), out.len()) };
}

#[inline]
fn append(raw: &MmapRaw, offset: usize, len: usize, out: &mut Vec<u8>) {
    read(raw, offset, &mut out.spare_capacity_mut()[..len]);
    let filled = out.len() + len;
    // SAFETY: the `len` bytes behind the old length are the ones just written, within the capacity.
    unsafe { out.set_len(filled) };
}

#[inline]
fn in_range(raw: &MmapRaw, offset: usize, len: usize) -> bool {
    offset.checked_add(len).is_some_and(|end| end <= raw.len())
}

#[inline]
fn word_of(raw: &MmapRaw, offset: usize) -> &AtomicU64 {
    assert!(
        offset % 8 == 0 && in_range(raw, offset, 8),
        "no word at this offset"
    );
    // SAFETY: `offset` is in the mapping, as just checked.
    let word = unsafe { raw.as_mut_ptr().add(offset) };
    // SAFETY: mappings start on a page and `offset` is a multiple of 8, so the word is aligned; it is mapped as long as
    // `raw` is borrowed; every process reads and writes it as an atomic only, and through a mapping for reading it is
    // loaded only (`ReadOnlyMapping` has no other use of it), which faults on no 64-bit platform.
    unsafe { AtomicU64::from_ptr(word.cast()) }
}

#[inline]
fn word32_of(raw: &MmapRaw, offset: usize) -> &AtomicU32 {
    assert!(
        offset % 4 == 0 && in_range(raw, offset, 4),
        "no word at this offset"
    );
    // SAFETY: `offset` is in the mapping, as just checked.
    let word = unsafe { raw.as_mut_ptr().add(offset) };
    // SAFETY: as in `word_of`, for a multiple of 4.
    unsafe { AtomicU32::from_ptr(word.cast()) }
}

#[cfg(test)]
mod tests {
    use super::SealedMemory;
    use std::os::fd::OwnedFd;
    use std::sync::atomic::Ordering;

    #[test]
    fn what_one_mapping_writes_another_reads() {
        let memory = SealedMemory::create(8192).unwrap();
        let ours = memory.map(4096, 4096).unwrap();
        let theirs = memory.map_read_only(0, 8192).unwrap();
        ours.write(8, b"hello");
        ours.word(0).store(7, Ordering::Release);
        assert_eq!(theirs.load(4096, Ordering::Acquire), 7);
        let mut out = Vec::with_capacity(5);
        theirs.append_to(4096 + 8, 5, &mut out);
        assert_eq!(out, b"hello");
    }

    #[test]
    fn a_file_whose_size_is_not_sealed_is_refused() {
        let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
        assert!(SealedMemory::adopt(file).is_err());
        let sealed = SealedMemory::create(4096).unwrap();
        let again = SealedMemory::adopt(sealed.into()).unwrap();
        assert_eq!(again.len(), 4096);
        assert!(again.map(0, 4097).is_err());
    }

    #[test]
    #[should_panic(expected = "write past the end")]
    fn a_write_past_the_end_is_refused() {
        SealedMemory::create(4096)
            .unwrap()
            .map(0, 4096)
            .unwrap()
            .write(4095, b"ab");
    }
}
