//! A file behind a descriptor: which one it is, and how large.

use crate::sys::errno::retry;
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
    Ok(Identity {
        device: status.st_dev,
        inode: status.st_ino,
    })
}
