//! A memory file that is far larger than what is ever in it: memory is taken where something is written, and given back.

use crate::sys::descriptor::above_streams;
use crate::sys::errno::retry;
use crate::sys::file::{may_have, set_size};
use crate::sys::limits;
use crate::sys::memory::Mapping;
use crate::sys::shared::SharedFd;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

/// A memory file of a fixed size, mostly holes.
#[derive(Debug)]
pub(crate) struct SparseFile {
    file: Arc<SharedFd>,
    len: usize,
}

impl SparseFile {
    /// Makes a file of `len` bytes or, where this process may have none so large, of as many as it may.
    pub(crate) fn create(len: usize) -> io::Result<SparseFile> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = above_streams(retry(|| memfd_create(c"multiprocess-queue", flags))?)?;
        let allowed = usize::try_from(limits::file_size()).unwrap_or(usize::MAX);
        let len = len.min(allowed) / 4096 * 4096;
        set_size(&file, len)?;
        retry(|| {
            fcntl(
                &file,
                FcntlArg::F_ADD_SEALS(seals() | SealFlag::F_SEAL_SEAL),
            )
        })?;
        let file = SharedFd::of(file);
        Ok(SparseFile { file, len })
    }

    /// Takes a descriptor that came from elsewhere, after checking that its size is sealed.
    pub(crate) fn adopt(file: Arc<SharedFd>) -> io::Result<SparseFile> {
        let found = retry(|| fcntl(&file, FcntlArg::F_GET_SEALS))?;
        if !SealFlag::from_bits_truncate(found).contains(seals()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "its size is not sealed",
            ));
        }
        let size = retry(|| nix::sys::stat::fstat(&file))?.st_size;
        let len = usize::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(SparseFile { file, len })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The descriptor, for sending it.
    pub(crate) fn handle(&self) -> &Arc<SharedFd> {
        &self.file
    }

    /// Maps `len` bytes from `offset`, a multiple of the page size.
    pub(crate) fn map(&self, offset: usize, len: usize) -> io::Result<Mapping> {
        self.check(offset, len)?;
        Mapping::of(self.file.as_fd(), offset, len)
    }

    /// Writes `bytes` at `offset`, through no mapping: where memory is refused, that is an error and no signal.
    pub(crate) fn write_at(&self, mut offset: usize, mut bytes: &[u8]) -> io::Result<()> {
        self.check(offset, bytes.len())?;
        may_have((offset + bytes.len()) as u64)?;
        while !bytes.is_empty() {
            let position = offset as libc::off_t;
            let written = retry(|| nix::sys::uio::pwrite(&self.file, bytes, position))?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset += written;
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Appends `len` bytes from `offset` to `out`, which must have room: it does not grow.
    ///
    /// # Panics
    ///
    /// Where the spare capacity of `out` is too small.
    pub(crate) fn append_to(&self, offset: usize, len: usize, out: &mut Vec<u8>) -> io::Result<()> {
        self.check(offset, len)?;
        let mut done = 0;
        while done < len {
            let left = len - done;
            let spare = &mut out.spare_capacity_mut()[..left];
            let position = (offset + done) as libc::off_t;
            let read = retry(|| {
                // SAFETY: `spare` is ordinary memory of exactly `left` bytes; the kernel writes no more than that there.
                nix::errno::Errno::result(unsafe {
                    libc::pread(
                        self.file.as_raw_fd(),
                        spare.as_mut_ptr().cast(),
                        left,
                        position,
                    )
                })
            })? as usize;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let filled = out.len() + read;
            // SAFETY: the kernel has filled the `read` bytes behind the old length, which lie within the capacity.
            unsafe { out.set_len(filled) };
            done += read;
        }
        Ok(())
    }

    /// Gives the memory of all whole pages from `start` to `end` back; they are zeros then.
    pub(crate) fn punch(&self, start: usize, end: usize) -> io::Result<()> {
        let first = start.next_multiple_of(4096);
        let last = end.min(self.len) / 4096 * 4096;
        if first >= last {
            return Ok(());
        }
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let (offset, len) = (first as libc::off_t, (last - first) as libc::off_t);
        retry(|| fallocate(&self.file, flags, offset, len))
    }

    /// How much memory it takes.
    pub(crate) fn memory(&self) -> io::Result<u64> {
        let status = retry(|| nix::sys::stat::fstat(&self.file))?;
        Ok(u64::try_from(status.st_blocks).unwrap_or(0) * 512)
    }

    fn check(&self, offset: usize, len: usize) -> io::Result<()> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the memory file is too short",
            ));
        }
        Ok(())
    }
}

fn seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_far_away_takes_little_memory_and_gives_it_back() {
        let file = SparseFile::create(1 << 40).unwrap();
        let far = (1 << 39) + 123;
        file.write_at(far, b"far away").unwrap();
        assert!(file.memory().unwrap() <= 64 << 10);
        let mut out = Vec::with_capacity(8);
        file.append_to(far, 8, &mut out).unwrap();
        assert_eq!(out, b"far away");
        let window = file.map(1 << 39, 4096).unwrap();
        let mut seen = [0; 8];
        window.read(123, &mut seen);
        assert_eq!(&seen, b"far away");
        file.punch(1 << 39, (1 << 39) + 4096).unwrap();
        assert_eq!(file.memory().unwrap(), 0);
        window.read(123, &mut seen);
        assert_eq!(seen, [0; 8]);
    }

    #[test]
    fn what_lies_outside_is_refused() {
        let file = SparseFile::create(8192).unwrap();
        assert!(file.write_at(8190, b"abc").is_err());
        assert!(file.write_at(usize::MAX, b"abc").is_err());
        assert!(file.append_to(8192, 1, &mut Vec::with_capacity(1)).is_err());
        assert!(file.map(4096, 8192).is_err());
        let open = SharedFd::of(std::fs::File::open("/dev/null").unwrap().into());
        assert!(SparseFile::adopt(open).is_err());
    }
}
