//! Memory that nobody can write any more: a memfd with every seal on it. So a slice of it may be lent, in any process.
//!
//! Reading it for the first time costs a process a page fault for each 64 KiB, and letting it go costs something for each 4
//! KiB: for 8 MiB four times as much as the reading. So what is long enough is kept in *large pages*, of 2 MiB: one fault
//! each, and no more memory than before. By itself the kernel gives a memfd none (`shmem_enabled` is `never` where nobody has
//! changed it), but it makes one of the small pages of a range when it is asked to (`MADV_COLLAPSE`, since Linux 6.1). It is
//! asked before the range is written, when nothing has to be copied: writing then is quicker as well. Where it refuses,
//! everything is as it would be with small pages.

use crate::sys::descriptor::above_streams;
use crate::sys::errno::retry;
use crate::sys::file::may_have;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use std::ffi::c_void;
use std::fs::File;
use std::io::{self, Seek};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

/// What a large page holds, on all but a few machines. On these the kernel refuses to make one of so little.
const LARGE: usize = 2 << 20;

/// As `<linux/mman.h>` has it; `libc` has it for some C libraries only.
const MADV_COLLAPSE: libc::c_int = 25;

/// How many large pages are asked for at a time: so few that one refusal ends it soon.
const AT_ONCE: usize = 32;

/// A memory file into which `len` bytes are still to be written, more or less, as a [`File`]. Until it is frozen nobody else
/// has it.
///
/// # Errors
///
/// Also where it would be larger than this process may make one.
pub(crate) fn draft(len: u64) -> io::Result<File> {
    may_have(len)?;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = above_streams(retry(|| memfd_create(c"multiprocess-slice", flags))?)?;
    let file = File::from(file);
    if let Ok(len) = usize::try_from(len) {
        // Without them it is as good, only slower.
        let _refused = ask_for_large_pages(&file, len / LARGE);
    }
    Ok(file)
}

/// Has the kernel take so many large pages for the start of an empty file, as far as it has them.
fn ask_for_large_pages(file: &File, count: usize) -> io::Result<()> {
    if count == 0 {
        return Ok(());
    }
    file.set_len((count * LARGE) as u64)?;
    for first in (0..count).step_by(AT_ONCE) {
        let pages = first..count.min(first + AT_ONCE);
        for page in pages.clone() {
            // The kernel makes none where there is nothing at all.
            file.write_at(&[0], (page * LARGE) as u64)?;
        }
        Region::map(file, first * LARGE, pages.len() * LARGE)?.collapse()?;
    }
    Ok(())
}

/// Has the kernel refuse any further change of what is in it, and of its size, which is as far as it was written.
pub(crate) fn freeze(mut draft: File) -> io::Result<OwnedFd> {
    let written = draft.stream_position()?;
    draft.set_len(written)?;
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

/// Whether it is a memory file that the kernel refuses to change, as [`freeze`] makes them.
pub(crate) fn is_frozen(file: impl AsFd) -> bool {
    has_all_seals(file).unwrap_or(false)
}

fn has_all_seals(file: impl AsFd) -> io::Result<bool> {
    let seals = retry(|| fcntl(&file, FcntlArg::F_GET_SEALS))?;
    Ok(SealFlag::from_bits_truncate(seals).contains(wanted()))
}

/// What is in a frozen memory file.
#[derive(Debug)]
pub(crate) struct Frozen {
    /// `None` where there is nothing in it: the kernel maps no empty range.
    region: Option<Region>,
}

impl Frozen {
    /// Maps a file, after checking that the kernel refuses to change it.
    pub(crate) fn map(file: impl AsFd) -> io::Result<Frozen> {
        if !has_all_seals(&file)? {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is not sealed against changes",
            ));
        }
        let size = retry(|| nix::sys::stat::fstat(&file))?.st_size;
        let len = usize::try_from(size).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let region = (len > 0).then(|| Region::map(file, 0, len)).transpose()?;
        Ok(Frozen { region })
    }

    /// The bytes, from the start of a page.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        let Some(region) = &self.region else {
            return &[];
        };
        // SAFETY: so many bytes from there are mapped for reading as long as `region` lives, and are no more than an `isize`
        // counts, since they are mapped. They never change: `map` has seen that the file is sealed against writing, growing
        // and shrinking; no seal can be taken off, and no writable mapping can have been there when the seal against writing
        // was put on. So neither can a page of it be missing.
        unsafe { std::slice::from_raw_parts(region.start.as_ptr().cast(), region.len) }
    }
}

/// A part of a file, mapped for reading. Its bytes are not lent here, since the file may be a draft.
#[derive(Debug)]
struct Region {
    start: NonNull<c_void>,
    len: usize,
}

// SAFETY: it is memory that is only read, and unmapped by whoever has it last, on whichever thread.
unsafe impl Send for Region {}

// SAFETY: as above; a shared reference gives nothing but reads.
unsafe impl Sync for Region {}

impl Region {
    /// Maps `len` bytes, at an address where large pages can be mapped as such, if there may be some.
    fn map(file: impl AsFd, offset: usize, len: usize) -> io::Result<Region> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        let size = NonZeroUsize::new(len).ok_or_else(invalid)?;
        let from = libc::off_t::try_from(offset).map_err(|_| invalid())?;
        let place = if len < LARGE { None } else { free_place(len) };
        // Private, since kernels before 6.7 refuse any shared mapping of a sealed file. Nothing is copied: the pages are
        // those of the file as long as nobody writes them, and through this nobody can.
        let (access, flags) = (ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE);
        // SAFETY: nothing that is mapped is replaced: without `MAP_FIXED` the kernel takes the address for a wish, and
        // chooses another one where it is not free.
        let start = unsafe { mmap(place, size, access, flags, file, from) }?;
        Ok(Region { start, len })
    }

    /// Has the kernel put the part of the file that is mapped here into large pages.
    fn collapse(&self) -> io::Result<()> {
        // SAFETY: it is a mapping of ours, as a whole; what is in it stays the same.
        let done = unsafe { libc::madvise(self.start.as_ptr(), self.len, MADV_COLLAPSE) };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // It is refused where this process has as many mappings as it may have, and the kernel has made one of this and of its
        // neighbour: then it stays mapped, and no harm is done.
        // SAFETY: it was mapped by `map`, and nothing lends its bytes for longer than it lives.
        let _refused = unsafe { munmap(self.start, self.len) };
    }
}

/// An address from which so many bytes were free a moment ago, at which large pages can start.
fn free_place(len: usize) -> Option<NonZeroUsize> {
    let size = NonZeroUsize::new(len.checked_add(LARGE)?)?;
    let (access, flags) = (
        ProtFlags::PROT_NONE,
        MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE,
    );
    // SAFETY: the kernel chooses the address, so that nothing is replaced.
    let start = unsafe { mmap_anonymous(None, size, access, flags) }.ok()?;
    // SAFETY: it was mapped just now, and nobody else knows of it.
    unsafe { munmap(start, size.get()) }.ok()?;
    NonZeroUsize::new(start.addr().get().checked_next_multiple_of(LARGE)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::resource::{UsageWho, getrusage};
    use std::io::Write;
    use std::os::unix::fs::FileExt;

    #[test]
    fn what_is_frozen_is_read_and_cannot_be_written() {
        let mut file = draft(0).unwrap();
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
        let frozen = freeze(draft(0).unwrap()).unwrap();
        assert_eq!(Frozen::map(frozen).unwrap().bytes(), b"");
    }

    #[test]
    fn a_file_without_all_three_seals_is_refused() {
        use SealFlag as S;
        let all = wanted();
        for left_out in [S::F_SEAL_WRITE, S::F_SEAL_GROW, S::F_SEAL_SHRINK] {
            let mut file = draft(0).unwrap();
            file.write_all(&[1; 100]).unwrap();
            fcntl(&file, FcntlArg::F_ADD_SEALS(all.difference(left_out))).unwrap();
            assert!(Frozen::map(&file).is_err(), "{left_out:?}");
        }
        assert!(Frozen::map(File::open("/dev/null").unwrap()).is_err());
    }

    #[test]
    fn what_is_long_is_the_same_in_large_pages_and_ends_where_it_was_written() {
        let bytes: Vec<u8> = (0..2 * LARGE + 5000).map(|at| (at % 251) as u8).collect();
        for (expected, written) in [
            (bytes.len(), bytes.len()),
            (5 * LARGE, bytes.len()),
            (0, LARGE),
            (LARGE, 3),
        ] {
            let mut file = draft(expected as u64).unwrap();
            file.write_all(&bytes[..written]).unwrap();
            let frozen = freeze(file).unwrap();
            assert_eq!(Frozen::map(&frozen).unwrap().bytes(), &bytes[..written]);
        }
    }

    /// How many page faults it costs this thread to look at each page.
    fn faults(bytes: &[u8]) -> i64 {
        let count = || {
            let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
            usage.minor_page_faults()
        };
        let before = count();
        assert!(bytes.iter().step_by(4096).all(|&byte| byte == 0));
        count() - before
    }

    #[test]
    fn a_large_page_is_one_fault_where_the_kernel_gives_some() {
        let mut file = draft(0).unwrap();
        if let Err(error) = ask_for_large_pages(&file, 3) {
            println!("the kernel gives none: {error}");
            return;
        }
        file.seek(io::SeekFrom::End(0)).unwrap();
        let frozen = freeze(file).unwrap();
        // Another thread may take the place that was free: then it is mapped elsewhere, in small pages.
        let few = |_| faults(Frozen::map(&frozen).unwrap().bytes()) < 10;
        assert!((0..20).any(few));
    }
}
