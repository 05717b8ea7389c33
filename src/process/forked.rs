//! The start method `Fork`: a process that is forked here and now, and its minder.
//!
//! The application must be able to learn how the process ended, and must not be disturbed by it: a `waitpid(-1)` of its
//! own must not collect it, nor a `SIGCHLD` tell of it. The kernel offers that for a child whose exit signal is none; but the
//! C library's `fork` cannot make one, and a process that was made without the C library has the wrong thread id
//! there, which robust locks would write into shared memory. So there are two:
//!
//! | process | made by | it |
//! |---|---|---|
//! | minder | a bare system call, without an exit signal | forks the process, closes all but the status socket, tells of the start, waits for either to end, tells of the process's end, ends |
//! | process | `fork` of the C library | runs the function |
//!
//! To the application the minder is what the fork server is to others: the same news come from it, over the same kind of
//! socket. What if one of them dies?
//!
//! | who dies | then |
//! |---|---|
//! | the application | the kernel kills the minder of a daemon, and with that the daemon; another minder ends, and its process runs on |
//! | the minder | the kernel kills a daemon; another process runs on, and nobody will know how it ended, which `wait` says |
//! | nobody, but the application cannot take the news of the start in | it ends its side of the status socket; the minder kills the process, and ends |
//! | the process | the minder tells, and ends; the application collects it: whoever waits at once, else the next start or question |
//!
//! All three have one thread when they fork, so that nothing is held by a thread that is not there.

use crate::deadline::Deadline;
use crate::process::child::Starting;
use crate::process::current::Identity;
use crate::process::enter::{REFUSED, flush};
use crate::process::family;
use crate::process::request::{EndIs, News};
use crate::sys::descriptor;
use crate::sys::fork::{self, Forked, ForkedUnseen};
use crate::sys::identity::{self, exit_now};
use crate::sys::pidfd::PidFd;
use crate::sys::poll::{is_hung_up, readable};
use crate::sys::signal::{self, AllBlocked};
use crate::sys::socket::{self, Patience, is_gone};
use crate::sys::step::step;
use crate::wire::record;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;

/// Ends the process where it stands when dropped, so that not even a panic leads back into what the parent was doing.
struct NoWayBack;

impl Drop for NoWayBack {
    fn drop(&mut self) {
        exit_now(REFUSED)
    }
}

/// Forks a process that calls `run` with its end of the status socket, and exits with the code that it returns.
///
/// # Errors
///
/// Where other threads run here, or the system refuses.
pub(crate) fn start(identity: &Identity, run: impl FnOnce(OwnedFd) -> i32) -> io::Result<Starting> {
    if std::thread::panicking() {
        return Err(io::Error::other("this thread is panicking"));
    }
    fork::require_single_thread_soon()?;
    // One for each: this process lets go of the end for writing as soon as it has forked.
    let (lifeline, holds_on) = if identity.is_daemon {
        (None, None)
    } else {
        let (reader, writer) = socket::pipe()?;
        (Some(reader), Some(writer))
    };
    let (status, theirs) = socket::record_pair()?;
    let spare = descriptor::spare(&status)?;
    // What is still held here would be written by both.
    flush();
    identity::flush_c_streams();
    let application = identity::pid();
    let applications = PidFd::open(application)?;
    // No handler of the application's runs in the minder.
    let blocked = AllBlocked::for_this_thread()?;
    if let ForkedUnseen::Parent { child } = fork::fork_unseen()? {
        step!("fork::application::forked");
        let minder = Arc::new(child);
        family::note_minder(&identity.name, lifeline, &minder);
        return Ok(Starting::by_minder(
            identity.name.clone(),
            status,
            minder,
            spare,
        ));
    }
    let _no_way_back = NoWayBack;
    std::mem::forget(blocked);
    if identity.is_daemon && identity::die_with_parent(application).is_err() {
        exit_now(REFUSED)
    }
    // Else a child whose end the application ignores would be collected by nobody, and nothing known of it.
    signal::reset_all();
    step!("fork::minder::begun");
    let minder = identity::pid();
    match fork::fork() {
        Ok(Forked::Parent { child }) => mind(child, &theirs, &applications),
        Err(error) => {
            let news = News::refused("fork", &error);
            let _gone = record::send(theirs.as_fd(), &news, &[], &[], Patience::Now);
            exit_now(REFUSED)
        }
        Ok(Forked::Child) => {
            if identity.is_daemon && identity::die_with_parent(minder).is_err() {
                exit_now(REFUSED)
            }
            step!("fork::child::begun");
            drop((status, spare, applications, lifeline));
            // Held until the process ends, by whatever way.
            std::mem::forget(holds_on);
            exit_now(run(theirs))
        }
    }
}

/// What the minder does.
fn mind(child: u32, status: &OwnedFd, application: &PidFd) -> ! {
    let _unnamed = identity::name_thread("minder");
    let process = match PidFd::open(child) {
        Ok(process) => process,
        Err(error) => {
            // Nobody could be told of it, so it must not run.
            fork::kill_uncollected(child);
            let news = News::refused("pidfd_open", &error);
            let _gone = record::send(status.as_fd(), &news, &[], &[], Patience::Now);
            exit_now(REFUSED)
        }
    };
    step!("fork::minder::held");
    let news = News::Started {
        pid: child,
        end: EndIs::Told,
    };
    let told = record::send(
        status.as_fd(),
        &news,
        &[],
        &[process.as_fd()],
        Patience::Now,
    );
    if told.is_err_and(|error| !is_gone(&error)) {
        // It has filled the socket itself, or the system is short of something. Nobody would learn of it, so it must not
        // run on.
        let _ended = process.kill();
    }
    step!("fork::minder::told");
    // Whatever the application closes must be closed, though this process goes on.
    let needed = [status.as_fd(), process.as_fd(), application.as_fd()];
    descriptor::close_all_but(needed);
    let told = [process.as_fd(), application.as_fd(), status.as_fd()];
    if let Ok([false, false, true]) = readable(told, Deadline::NEVER) {
        // The application has let go of its handle, which closes the socket, or has ended its side of it alone: then it
        // could not take the news in and has no handle, and the process is not to run.
        if let Ok(false) = is_hung_up(status.as_fd()) {
            let _ended = process.kill();
        }
    }
    let waited_for = [process.as_fd(), application.as_fd()];
    if let Ok([false, true]) = readable(waited_for, Deadline::NEVER) {
        // Nobody is left to be told.
        exit_now(0)
    }
    if let Some(ended) = fork::wait_for(child) {
        step!("fork::minder::reaped");
        let news = News::Exited {
            status: ended.into_raw(),
        };
        let _gone = record::send(status.as_fd(), &news, &[], &[], Patience::Wait);
    }
    exit_now(0)
}
