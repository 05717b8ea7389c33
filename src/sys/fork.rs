//! Forking this process, and what its children came to.

use crate::sys::errno::{check, retry};
use crate::sys::forks;
use crate::sys::identity;
use crate::sys::pidfd::PidFd;
use crate::sys::signal::AllBlocked;
use nix::errno::Errno;
use nix::unistd::ForkResult;
use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

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
    match fork_if_alone()? {
        Some(forked) => Ok(forked),
        None => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// As [`fork`]; `None` where other threads run in this process.
pub(crate) fn fork_if_alone() -> io::Result<Option<Forked>> {
    if !identity::has_single_thread()? {
        return Ok(None);
    }
    // SAFETY: this is the only thread, as just checked: no lock is held by another, so that the child may go on as any
    // process does.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => Ok(Some(Forked::Child)),
        ForkResult::Parent { child } => Ok(Some(Forked::Parent {
            child: u32::try_from(child.as_raw()).map_err(io::Error::other)?,
        })),
    }
}

/// Which of the two processes this is.
#[derive(Debug)]
pub(crate) enum ForkedUnseen {
    Parent { child: PidFd },
    Child,
}

/// Forks this process in such a way that it does not see the child: no `waitpid` that does not ask for it by name
/// collects it, and its end sends no signal. [`reap`] collects it, through the pidfd.
///
/// To the C library the child has its parent's thread id. It may fork, talk and end, and take no lock that other
/// processes share: what is to run a user's function is forked once more, by [`fork`].
///
/// # Errors
///
/// As [`fork`].
pub(crate) fn fork_unseen() -> io::Result<ForkedUnseen> {
    identity::require_single_thread()?;
    forks::note();
    let mut number: c_int = -1;
    let none = std::ptr::null_mut::<c_void>();
    // The exit signal would stand in the lowest byte: none.
    let flags = libc::CLONE_PIDFD as libc::c_ulong;
    // SAFETY: without `CLONE_VM` this copies the process, as `fork` does, and this is the only thread, as just checked.
    // The kernel writes the pidfd's number to `number`.
    match check(unsafe {
        libc::syscall(libc::SYS_clone, flags, none, &raw mut number, none, none)
    })? {
        0 => Ok(ForkedUnseen::Child),
        _ => {
            // SAFETY: the kernel has just opened this descriptor for us, close-on-exec.
            let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
            Ok(ForkedUnseen::Parent {
                child: PidFd::opened(descriptor)?,
            })
        }
    }
}

/// Checks that this process has one thread, as [`identity::require_single_thread`] does, but gives threads that end a moment: to
/// the kernel they are there until it has put them away, and it tells nobody when that is.
///
/// One that has been joined is *exiting*: it runs no code of this program any more, and is gone as soon as it gets a processor, which
/// is waited for. They count till then, since whoever forks looks at the same number, and so that nothing hangs on what the kernel
/// says of each: that decides only how long is waited. One that still runs, its destructors perhaps, has [`RUNNING_MAX`].
pub(crate) fn require_single_thread_soon() -> io::Result<()> {
    let start = Instant::now();
    loop {
        let Err(error) = identity::require_single_thread() else {
            return Ok(());
        };
        let longest = if identity::do_others_exit() {
            EXITING_MAX
        } else {
            RUNNING_MAX
        };
        if start.elapsed() > longest {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

const RUNNING_MAX: Duration = Duration::from_millis(20);
/// Something in the kernel may hold up a thread that exits: a file that it closes, a debugger.
const EXITING_MAX: Duration = Duration::from_secs(10);

/// What a process does that lives for a moment, in the memory and with the descriptors of this one, while the thread that
/// started it waits. It must not allocate, lock or panic.
pub(crate) trait Unseen {
    fn run(&mut self);
}

/// Has `task` run in a child that shares everything with this process, that no `waitpid` sees, and that has ended when this
/// returns. What the task starts is then nobody's child here.
pub(crate) fn run_unseen<T: Unseen>(task: &mut T) -> io::Result<()> {
    clone_unseen(task, 0, &mut -1)
}

/// As [`run_unseen`], with further flags for the system call, which may fill in `number`.
fn clone_unseen<T: Unseen>(task: &mut T, further: c_int, number: &mut c_int) -> io::Result<()> {
    extern "C" fn enter<T: Unseen>(task: *mut c_void) -> c_int {
        // SAFETY: the pointer is the task's, which this process alone uses: the thread that lent it waits.
        let task = unsafe { &mut *task.cast::<T>() };
        task.run();
        UNSEEN
    }

    // Its handlers would run in both processes at once.
    let _blocked = AllBlocked::for_this_thread()?;
    let mut stack = vec![0u128; STACK_WORDS];
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES | further;
    let number: *mut c_int = number;
    let task: *mut T = task;
    let top = stack.as_mut_ptr_range().end;
    // SAFETY: the stack grows down from its aligned end and is the child's alone. `CLONE_VFORK` has this thread wait until
    // the child has ended, so that stack and task outlive it; by the trait's contract it leaves no lock held.
    // `number` is valid for writing, should the kernel have a pidfd's to tell.
    let result = Errno::result(unsafe {
        libc::clone(enter::<T>, top.cast(), flags, task.cast::<c_void>(), number)
    });
    let pid = result?;
    let mut status = 0;
    // Whoever waits with `__WALL` may have collected it.
    let _collected_elsewhere = retry(|| {
        // SAFETY: `status` is valid for writing. The pid is not used again before it is collected.
        Errno::result(unsafe { libc::waitpid(pid, &mut status, libc::__WALL) })
    });
    Ok(())
}

/// The exit code of a child that runs unseen; not 0, which a kernel that knows nothing might tell.
const UNSEEN: c_int = 7;

/// Whether the kernel keeps how a process ended that was collected, for whoever holds its pidfd: from Linux 6.15 on. It is
/// tried with a process that ends at once.
pub(crate) fn kernel_keeps_ends() -> bool {
    struct Nothing;
    impl Unseen for Nothing {
        fn run(&mut self) {}
    }
    let mut number = -1;
    if clone_unseen(&mut Nothing, libc::CLONE_PIDFD, &mut number).is_err() {
        return false;
    }
    // SAFETY: the kernel has just opened this descriptor for us, close-on-exec.
    let process = PidFd::adopt(unsafe { OwnedFd::from_raw_fd(number) });
    process.exit_status().and_then(|status| status.code()) == Some(UNSEEN)
}

/// 64 KiB.
const STACK_WORDS: usize = 64 * 1024 / size_of::<u128>();

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

/// Collects the process if it is a child of this one and has ended, so that no zombie stays; returns whether nothing is left
/// to collect. Never another one that has its pid by now.
pub(crate) fn reap(process: &PidFd) -> bool {
    // SAFETY: all zeros are a valid `siginfo_t`.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let number = process.as_fd().as_raw_fd().unsigned_abs();
    let options = libc::WEXITED | libc::WNOHANG | libc::__WALL;
    let result = retry(|| {
        // SAFETY: `info` is valid for writing.
        Errno::result(unsafe { libc::waitid(libc::P_PIDFD, number, &mut info, options) })
    });
    match result {
        // SAFETY: `waitid` has filled it in, or left the zeros, where the process still runs.
        Ok(_) => unsafe { info.si_pid() != 0 },
        Err(_) => true,
    }
}

/// Waits for the child `pid` and collects it. `None` if somebody else has.
pub(crate) fn wait_for(pid: u32) -> Option<ExitStatus> {
    let pid = libc::pid_t::try_from(pid).ok()?;
    let mut status = 0;
    // SAFETY: `status` is valid for writing.
    let result = retry(|| Errno::result(unsafe { libc::waitpid(pid, &mut status, libc::__WALL) }));
    result.ok().map(|_| ExitStatus::from_raw(status))
}

/// Kills the child `pid`, which has not been collected, so that the pid is still its own.
pub(crate) fn kill_uncollected(pid: u32) {
    if let Ok(pid) = libc::pid_t::try_from(pid) {
        // SAFETY: `kill` takes any pid and signal.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::forks::apart;

    struct Answer(u32, u32);

    impl Unseen for Answer {
        fn run(&mut self) {
            *self = Answer(identity::pid(), identity::parent_pid());
        }
    }

    #[test]
    fn an_unseen_child_runs_in_this_memory_and_is_gone_when_it_has() {
        let _apart = apart::forks();
        let mut answer = Answer(0, 0);
        run_unseen(&mut answer).unwrap();
        assert_ne!(answer.0, identity::pid());
        assert_eq!(answer.1, identity::pid());
        assert!(!std::path::Path::new(&format!("/proc/{}", answer.0)).exists());
    }
}
