//! Memory that nobody can write any more: a memfd with every seal on it. So a slice of it may be lent, in any process.

use crate::sys::descriptor::above_streams;
use crate::sys::errno::retry;
use memmap2::{Mmap, MmapOptions};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A memory file that is still to be written, as a [`File`]. Until it is frozen nobody else has it.
pub(crate) fn draft() -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = above_streams(retry(|| memfd_create(c"multiprocess-slice", flags))?)?;
    Ok(file.into())
}

/// Has the kernel refuse any further change of what is in it, and of its size.
pub(crate) fn freeze(draft: File) -> io::Result<OwnedFd> {
    let file: OwnedFd = draft.into();
    retry(|| {
        fcntl(
            &file,
            FcntlArg::F_ADD_SEALS(wanted() | SealFlag::F_SEAL_SEAL),
        )
    })?;
    Ok(file)
}

fn wanted() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE
}

/// What is in a frozen memory file.
#[derive(Debug)]
pub(crate) struct Frozen {
    /// `None` where there is nothing in it: the kernel maps no empty range.
    map: Option<Mmap>,
}

impl Frozen {
    /// Maps a file, after checking that the kernel refuses to change it.
    pub(crate) fn map(file: impl AsFd) -> io::Result<Frozen> {
        let seals = SealFlag::from_bits_truncate(retry(|| fcntl(&file, FcntlArg::F_GET_SEALS))?);
        if !seals.contains(wanted()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is not sealed against changes",
            ));
        }
        let size = retry(|| nix::sys::stat::fstat(&file))?.st_size;
        let len = usize::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        if len == 0 {
            return Ok(Frozen { map: None });
        }
        let mut options = MmapOptions::new();
        options.len(len);
        // Private, since kernels before 6.7 refuse any shared mapping of such a file. Nothing is copied: the pages are
        // those of the file as long as nobody writes them, and nobody can.
        // SAFETY: the bytes never change: the file is sealed against writing, growing and shrinking, no seal can be taken
        // off, and no writable mapping can have been there when the seal against writing was put on. So neither can a page
        // of it be missing.
        let map = unsafe { options.map_copy_read_only(file.as_fd().as_raw_fd()) }?;
        Ok(Frozen { map: Some(map) })
    }

    /// The bytes, from the start of a page.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    #[test]
    fn what_is_frozen_is_read_and_cannot_be_written() {
        let mut file = draft().unwrap();
        file.write_all(b"hello").unwrap();
        let frozen = freeze(file).unwrap();
        let map = Frozen::map(&frozen).unwrap();
        let file = File::from(frozen);
        assert!(file.write_at(b"j", 0).is_err());
        assert!(file.set_len(0).is_err() && file.set_len(10).is_err());
        assert_eq!(map.bytes(), b"hello");
    }

    #[test]
    fn nothing_is_a_slice_as_well() {
        let frozen = freeze(draft().unwrap()).unwrap();
        assert_eq!(Frozen::map(frozen).unwrap().bytes(), b"");
    }

    #[test]
    fn a_file_without_all_three_seals_is_refused() {
        use SealFlag as S;
        let all = wanted();
        for left_out in [S::F_SEAL_WRITE, S::F_SEAL_GROW, S::F_SEAL_SHRINK] {
            let mut file = draft().unwrap();
            file.write_all(&[1; 100]).unwrap();
            fcntl(&file, FcntlArg::F_ADD_SEALS(all.difference(left_out))).unwrap();
            assert!(Frozen::map(&file).is_err(), "{left_out:?}");
        }
        assert!(Frozen::map(File::open("/dev/null").unwrap()).is_err());
    }
}
