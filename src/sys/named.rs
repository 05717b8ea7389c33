//! Shared memory that has a name. Everybody who knows it may resize the file, so it is read and written by system calls: a
//! mapping would fault where the file has become shorter, a call fails.

use crate::sys::descriptor::above_streams;
use crate::sys::errno::retry;
use crate::sys::file::{self, Identity, may_have, set_size};
use nix::fcntl::OFlag;
use nix::sys::mman::{shm_open, shm_unlink};
use nix::sys::stat::{Mode, SFlag};
use nix::sys::uio::{pread, pwrite};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Makes `len` bytes of zeros under a name that nobody has, for this user only.
pub(crate) fn create(name: &str, len: usize) -> io::Result<OwnedFd> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL;
    may_have(len as u64)?;
    let file = open_with(name, flags)?;
    let made = above_streams(file).and_then(|file| set_size(&file, len).map(|()| file));
    made.inspect_err(|_| {
        // Ours, and nobody has been told of it.
        let _stays_then = unlink(name);
    })
}

/// Opens what has this name, for reading and writing.
pub(crate) fn open(name: &str) -> io::Result<OwnedFd> {
    above_streams(open_with(name, OFlag::empty())?)
}

fn open_with(name: &str, flags: OFlag) -> io::Result<OwnedFd> {
    let path = path(name);
    let flags = flags | OFlag::O_RDWR | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    retry(|| shm_open(path.as_str(), flags, mode))
}

/// Where the C library keeps what has a name.
const FOLDER: &str = "/dev/shm";

/// Which file has this name. It takes no descriptor, as a rule: a process that may open no more can tell, and take the name away.
pub(crate) fn identity(name: &str) -> io::Result<Identity> {
    match file::identity_at(&format!("{FOLDER}{}", path(name))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => file::identity(open(name)?),
        found => found,
    }
}

/// Takes the name away; who has the file open keeps it.
pub(crate) fn unlink(name: &str) -> io::Result<()> {
    retry(|| shm_unlink(path(name).as_str()))
}

fn path(name: &str) -> String {
    format!("/{name}")
}

/// How large the file is now.
///
/// # Errors
///
/// Also where it is no file of memory or disk, but something whose reading may block.
pub(crate) fn len(file: impl AsFd) -> io::Result<usize> {
    let status = retry(|| nix::sys::stat::fstat(&file))?;
    let kind = SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits());
    if kind != SFlag::S_IFREG {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is no regular file",
        ));
    }
    usize::try_from(status.st_size).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}

/// Fills `out` with what stands at `offset`.
///
/// # Errors
///
/// Also where the file ends before.
pub(crate) fn read_at(file: impl AsFd, mut offset: usize, mut out: &mut [u8]) -> io::Result<()> {
    while !out.is_empty() {
        let at = position(offset)?;
        match retry(|| pread(&file, out, at))? {
            0 => return Err(cut_short()),
            count => {
                out = &mut out[count..];
                offset += count;
            }
        }
    }
    Ok(())
}

/// Writes `bytes` at `offset`, which does not make the file longer.
///
/// # Errors
///
/// Also where the file ends before.
pub(crate) fn write_at(file: impl AsFd, mut offset: usize, mut bytes: &[u8]) -> io::Result<()> {
    let end = offset.checked_add(bytes.len());
    if end.is_none_or(|end| len(&file).is_ok_and(|len| len < end)) {
        return Err(cut_short());
    }
    while !bytes.is_empty() {
        let at = position(offset)?;
        match retry(|| pwrite(&file, bytes, at))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => {
                bytes = &bytes[count..];
                offset += count;
            }
        }
    }
    Ok(())
}

fn position(offset: usize) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "somebody has made it shorter")
}
