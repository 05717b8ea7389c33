//! Processes by descriptor: a pid that was given to another process meanwhile is never hit.

use crate::sys::descriptor::above_streams;
use crate::sys::errno::{check, retry};
use nix::sys::signal::Signal;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A process, held by its pidfd: readable when it has ended.
#[derive(Debug)]
pub(crate) struct PidFd {
    descriptor: OwnedFd,
}

impl PidFd {
    /// Opens the process `pid`. Only its parent, before it has waited for it, or the process itself knows that this
    /// still means the same process.
    pub(crate) fn open(pid: u32) -> io::Result<PidFd> {
        // SAFETY: `pidfd_open` takes two integers and touches no memory of ours.
        let result = retry(|| check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) }))?;
        let number = i32::try_from(result).map_err(io::Error::other)?;
        // SAFETY: the kernel has just opened this descriptor for us, close-on-exec.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        PidFd::opened(descriptor)
    }

    /// Takes a pidfd that was just opened, whatever number it has.
    pub(crate) fn opened(descriptor: OwnedFd) -> io::Result<PidFd> {
        Ok(PidFd {
            descriptor: above_streams(descriptor)?,
        })
    }

    /// Takes a descriptor that is a pidfd; where it is none, signals through it fail.
    pub(crate) fn adopt(descriptor: OwnedFd) -> PidFd {
        PidFd { descriptor }
    }

    /// Sends `signal`; a process that has ended is left alone, and that is no error.
    fn signal(&self, signal: Signal) -> io::Result<()> {
        let number = self.descriptor.as_raw_fd();
        let result = retry(|| {
            // SAFETY: `pidfd_send_signal` takes integers and, here, no `siginfo_t`.
            check(unsafe {
                libc::syscall(
                    libc::SYS_pidfd_send_signal,
                    number,
                    signal as libc::c_int,
                    std::ptr::null::<libc::siginfo_t>(),
                    0,
                )
            })
        });
        match result {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result.map(drop),
        }
    }

    /// Asks the process to end (`SIGTERM`).
    pub(crate) fn terminate(&self) -> io::Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// Interrupts the process, as Ctrl-C does (`SIGINT`).
    pub(crate) fn interrupt(&self) -> io::Result<()> {
        self.signal(Signal::SIGINT)
    }

    /// Has the process go on, if it was stopped (`SIGCONT`).
    pub(crate) fn resume(&self) -> io::Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Ends the process at once (`SIGKILL`).
    pub(crate) fn kill(&self) -> io::Result<()> {
        self.signal(Signal::SIGKILL)
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl From<PidFd> for OwnedFd {
    fn from(process: PidFd) -> OwnedFd {
        process.descriptor
    }
}
