//! Forking this process, and what its children came to.

use crate::sys::errno::retry;
use crate::sys::identity;
use nix::errno::Errno;
use nix::unistd::ForkResult;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Which of the two processes this is.
#[derive(Debug)]
pub(crate) enum Forked {
    Parent { child: u32 },
    Child,
}

/// Forks this process.
///
/// # Errors
///
/// Where other threads run in this process: what they hold would stay held in the child for ever.
pub(crate) fn fork() -> io::Result<Forked> {
    identity::require_single_thread()?;
    // SAFETY: this is the only thread, as just checked: no lock is held by another, so that the child may go on as any
    // process does.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => Ok(Forked::Child),
        ForkResult::Parent { child } => Ok(Forked::Parent {
            child: u32::try_from(child.as_raw()).map_err(io::Error::other)?,
        }),
    }
}

/// Collects one child that has ended: its pid and status. `None` if none has.
pub(crate) fn reap_any() -> io::Result<Option<(u32, ExitStatus)>> {
    let mut status = 0;
    // SAFETY: `status` is valid for writing.
    let result = retry(|| Errno::result(unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) }));
    match result {
        Ok(0) => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        Err(error) => Err(error),
        Ok(pid) => Ok(Some((
            u32::try_from(pid).map_err(io::Error::other)?,
            ExitStatus::from_raw(status),
        ))),
    }
}

/// Collects the child `pid` if it has ended, so that no zombie stays; anything else is left alone.
pub(crate) fn reap(pid: u32) {
    let Ok(pid) = libc::pid_t::try_from(pid) else {
        return;
    };
    let mut status = 0;
    // SAFETY: `status` is valid for writing.
    unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) };
}

/// Waits for the child `pid`, which is about to end, and collects it.
pub(crate) fn reap_when_ended(pid: u32) {
    let Ok(pid) = libc::pid_t::try_from(pid) else {
        return;
    };
    let mut status = 0;
    let _collected_elsewhere = retry(|| {
        // SAFETY: `status` is valid for writing.
        Errno::result(unsafe { libc::waitpid(pid, &mut status, 0) })
    });
}

/// Kills the child `pid`, which has not been collected, so that the pid is still its own.
pub(crate) fn kill_uncollected(pid: u32) {
    if let Ok(pid) = libc::pid_t::try_from(pid) {
        // SAFETY: `kill` takes any pid and signal.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}
