//! Processes by descriptor: a pid that was given to another process meanwhile is never hit.

use crate::sys::descriptor::above_streams;
use crate::sys::errno::{check, retry};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

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

    /// How it ended, as the kernel keeps that for whoever holds it (from Linux 6.15 on); `None` before somebody has collected
    /// it, and where the kernel does not keep it.
    pub(crate) fn exit_status(&self) -> Option<ExitStatus> {
        let mut info = Info {
            mask: Info::EXIT,
            ..Info::default()
        };
        let number = self.descriptor.as_raw_fd();
        // SAFETY: the request's number says how large the structure is that it fills in, and this one has that size.
        let result =
            retry(|| Errno::result(unsafe { libc::ioctl(number, Info::GET, &raw mut info) }));
        let is_told = result.is_ok() && info.mask & Info::EXIT != 0;
        is_told.then(|| ExitStatus::from_raw(info.exit_code))
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

/// `struct pidfd_info`, as its first version has it.
#[repr(C)]
#[derive(Debug, Default)]
struct Info {
    /// What is asked for, and then, what is there.
    mask: u64,
    control_group: u64,
    /// The ids of the process, its users and its groups.
    ids: [u32; 11],
    exit_code: i32,
}

impl Info {
    /// `PIDFD_INFO_EXIT`.
    const EXIT: u64 = 1 << 3;
    /// `PIDFD_GET_INFO`: reads and writes a structure of this size; the eleventh of its kind.
    const GET: libc::Ioctl =
        (3 << 30 | (size_of::<Info>() as u32) << 16 | 0xff << 8 | 11) as libc::Ioctl;
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
