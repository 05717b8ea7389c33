//! Executing this program once more, in a new process.

use crate::sys::errno::retry;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal};
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

/// The running program, even where its file has been replaced or deleted.
const OURSELVES: &str = "/proc/self/exe";

/// What the new process starts with.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    /// The whole environment.
    pub(crate) environment: &'a [(OsString, OsString)],
    /// The one descriptor that it inherits beside the standard streams, under the same number.
    pub(crate) socket: BorrowedFd<'a>,
    /// Standard input, output and error, where they differ from ours.
    pub(crate) streams: Option<[BorrowedFd<'a>; 3]>,
}

/// Starts this program again, with its own arguments, every signal at its default and none blocked; returns the pid.
/// Does not copy this process, however large it is.
pub(crate) fn ourselves(start: &Start<'_>) -> io::Result<u32> {
    let arguments: Vec<CString> = std::env::args_os()
        .filter_map(|argument| CString::new(argument.as_bytes()).ok())
        .collect();
    let environment: Vec<CString> = start
        .environment
        .iter()
        .filter_map(|(name, value)| {
            let mut line = name.as_bytes().to_vec();
            line.push(b'=');
            line.extend_from_slice(value.as_bytes());
            CString::new(line).ok()
        })
        .collect();

    let mut actions = PosixSpawnFileActions::init()?;
    if let Some(streams) = start.streams {
        for (stream, number) in streams.iter().zip(0..) {
            actions.add_dup2(stream.as_raw_fd(), number)?;
        }
    }
    // A descriptor that is duplicated to its own number loses close-on-exec, in the child alone.
    let socket = start.socket.as_raw_fd();
    actions.add_dup2(socket, socket)?;

    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
    )?;
    attributes.set_sigmask(&SigSet::empty())?;
    let mut every = SigSet::all();
    every.remove(Signal::SIGKILL);
    every.remove(Signal::SIGSTOP);
    attributes.set_sigdefault(&every)?;

    let pid = retry(|| posix_spawn(OURSELVES, &actions, &attributes, &arguments, &environment))?;
    u32::try_from(pid.as_raw()).map_err(io::Error::other)
}
