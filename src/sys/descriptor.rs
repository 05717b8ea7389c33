//! Descriptors and the numbers that they have.

use crate::sys::errno::retry;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Moves a descriptor out of the numbers of the standard streams, where one of these was closed: what is printed must not
/// end up in it.
pub(crate) fn above_streams(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    if descriptor.as_raw_fd() > 2 {
        return Ok(descriptor);
    }
    let number =
        retry(|| nix::fcntl::fcntl(&descriptor, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(3)))?;
    // SAFETY: the kernel has just opened this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// One more descriptor, to be closed when another one is about to come that must find room.
pub(crate) fn spare(of: &OwnedFd) -> io::Result<OwnedFd> {
    of.try_clone()
}

/// The standard input, output and error of this process, as far as they are open.
pub(crate) fn streams() -> [Option<BorrowedFd<'static>>; 3] {
    [0, 1, 2].map(|number| {
        // SAFETY: the number is not -1. The standard streams stay open as long as the process lives, or their number is
        // taken by another file: whichever it is, it is only passed to the kernel here, at once.
        let stream = unsafe { BorrowedFd::borrow_raw(number) };
        nix::fcntl::fcntl(stream, nix::fcntl::FcntlArg::F_GETFD)
            .ok()
            .map(|_| stream)
    })
}

/// Makes `streams` the standard input, output and error.
pub(crate) fn replace_streams(streams: [BorrowedFd<'_>; 3]) -> io::Result<()> {
    retry(|| nix::unistd::dup2_stdin(streams[0]))?;
    retry(|| nix::unistd::dup2_stdout(streams[1]))?;
    retry(|| nix::unistd::dup2_stderr(streams[2]))
}

/// Closes every descriptor but `kept`, whoever in this process holds it.
///
/// For a process that does nothing more but with those and that ends without destructors.
pub(crate) fn close_all_but<const N: usize>(kept: [BorrowedFd<'_>; N]) {
    let mut numbers = kept.map(|kept| kept.as_raw_fd().unsigned_abs());
    numbers.sort_unstable();
    let mut first = 0;
    for number in numbers {
        if first < number {
            close_between(first, number - 1);
        }
        first = number + 1;
    }
    close_between(first, libc::c_uint::MAX);
}

fn close_between(first: libc::c_uint, last: libc::c_uint) {
    // SAFETY: it takes any numbers. By the contract above nobody uses what they stand for any more.
    unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

/// Opens the null device in the place of each standard stream that is closed, as `std`'s start-up does.
pub(crate) fn fill_streams() -> io::Result<()> {
    if streams().iter().all(Option::is_some) {
        return Ok(());
    }
    let null = above_streams(null_device()?)?;
    let [input, output, error] = streams().map(|stream| stream.unwrap_or(null.as_fd()));
    replace_streams([input, output, error])
}

/// The null device, for reading and writing.
pub(crate) fn null_device() -> io::Result<OwnedFd> {
    Ok(std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?
        .into())
}

/// The current directory, as a place and not for reading, which it may not allow.
pub(crate) fn current_directory() -> io::Result<OwnedFd> {
    use nix::fcntl::OFlag;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    above_streams(retry(|| {
        nix::fcntl::open(c".", flags, nix::sys::stat::Mode::empty())
    })?)
}
