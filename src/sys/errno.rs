//! Error numbers, and calls that are repeated when a signal interrupts them.

use nix::errno::Errno;
use std::io;

/// A file is larger than this process may have one.
pub(crate) const TOO_LARGE: i32 = libc::EFBIG;
/// This process has as many descriptors open as it may.
pub(crate) const TOO_MANY_OPEN: i32 = libc::EMFILE;

/// Repeats `call` as long as a signal interrupts it, so that `EINTR` is never seen above.
pub(crate) fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(value) => return Ok(value),
        }
    }
}

/// The result of a bare system call: the value, or `errno`.
pub(crate) fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    Errno::result(result)
}
