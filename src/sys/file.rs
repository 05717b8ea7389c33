//! A file behind a descriptor: which one it is, and how large it may become.

use crate::sys::errno::retry;
use crate::sys::limits;
use std::io;
use std::os::fd::AsFd;

/// The kernel's own name for a file, however many descriptors it has: no other has it as long as one is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

/// Which file it is.
pub(crate) fn identity(file: impl AsFd) -> io::Result<Identity> {
    let status = retry(|| nix::sys::stat::fstat(&file))?;
    Ok(identity_of(&status))
}

/// Which file stands at a path, which is not opened for it: that needs no descriptor.
pub(crate) fn identity_at(path: &str) -> io::Result<Identity> {
    let status = retry(|| nix::sys::stat::lstat(path))?;
    Ok(identity_of(&status))
}

fn identity_of(status: &nix::sys::stat::FileStat) -> Identity {
    Identity {
        device: status.st_dev,
        inode: status.st_ino,
    }
}

/// Gives a file of memory its size.
///
/// # Errors
///
/// Also where it would be larger than this process may make one.
pub(crate) fn set_size(file: impl AsFd, len: usize) -> io::Result<()> {
    may_have(len as u64)?;
    let size =
        libc::off_t::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    retry(|| nix::unistd::ftruncate(&file, size))
}

/// Refuses a size that this process may not give a file. Asked before: the kernel would not only refuse, but send a signal
/// that kills.
pub(crate) fn may_have(len: u64) -> io::Result<()> {
    if len > limits::file_size() {
        return Err(limits::too_large_a_file());
    }
    Ok(())
}
