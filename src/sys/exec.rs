//! Executing this program once more, in a new process.

use crate::sys::errno::check;
use crate::sys::fork::{Unseen, run_unseen};
use crate::sys::pidfd::PidFd;
use nix::errno::Errno;
use std::ffi::{CStr, CString, OsString, c_char};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

/// The running program, even where its file has been replaced or deleted.
const OURSELVES: &CStr = c"/proc/self/exe";

/// The number of the one descriptor that the new process inherits beside the standard streams.
pub(crate) const SOCKET: RawFd = 3;

/// What the new process starts with.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    /// The whole environment.
    pub(crate) environment: &'a [(OsString, OsString)],
    /// What it finds as [`SOCKET`]. Nothing else is open in it, whatever this process has without close-on-exec.
    pub(crate) socket: BorrowedFd<'a>,
}

/// Starts this program again as a child, with its own arguments, every signal at its default and none blocked; returns the
/// pid. Does not copy this process, however large it is.
pub(crate) fn ourselves(start: &Start<'_>) -> io::Result<u32> {
    let prepared = Prepared::new(start)?;
    u32::try_from(prepared.spawn()?).map_err(io::Error::other)
}

/// As [`ourselves`], but the new process is nobody's child here: no `waitpid` of this process sees it, and its end sends
/// no `SIGCHLD`.
///
/// A child that executes a program becomes an ordinary one to the kernel, whatever it was cloned as. So it is a
/// grandchild: the child between is unseen, starts it, opens its pidfd, which is safe as long as nobody else can have
/// collected it, and ends.
pub(crate) fn ourselves_apart(start: &Start<'_>) -> io::Result<PidFd> {
    let prepared = Prepared::new(start)?;
    let mut between = Between {
        prepared,
        outcome: Err(Errno::ECHILD),
    };
    run_unseen(&mut between)?;
    let number = between.outcome?;
    // SAFETY: the process between has opened it in the table of descriptors that it shared with this one, and nobody
    // else knows the number.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    PidFd::opened(descriptor)
}

/// What the process between does: it shares this process's memory and descriptors, and allocates nothing.
struct Between {
    prepared: Prepared,
    outcome: Result<i32, Errno>,
}

impl Unseen for Between {
    fn run(&mut self) {
        self.outcome = self.prepared.spawn().and_then(|pid| {
            // SAFETY: `pidfd_open` takes two integers and touches no memory of ours. It closes on exec.
            let opened = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) });
            if opened.is_err() {
                // SAFETY: `kill` takes any pid; this one has not been collected, so it is still that process.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            opened.map(|number| number as i32)
        });
    }
}

/// Everything that `posix_spawn` takes, so that calling it allocates nothing here.
struct Prepared {
    arguments: Lines,
    environment: Lines,
    actions: libc::posix_spawn_file_actions_t,
    attributes: libc::posix_spawnattr_t,
}

/// A list of texts as C has it: pointers to them, and a null one.
struct Lines {
    pointers: Vec<*mut c_char>,
    _texts: Vec<CString>,
}

impl Lines {
    fn new(texts: Vec<CString>) -> Lines {
        let mut pointers: Vec<*mut c_char> =
            texts.iter().map(|text| text.as_ptr().cast_mut()).collect();
        pointers.push(std::ptr::null_mut());
        Lines {
            pointers,
            _texts: texts,
        }
    }
}

impl Prepared {
    fn new(start: &Start<'_>) -> io::Result<Prepared> {
        let arguments = std::env::args_os()
            .filter_map(|argument| CString::new(argument.as_bytes()).ok())
            .collect();
        let environment = start
            .environment
            .iter()
            .filter_map(|(name, value)| {
                let mut line = name.as_bytes().to_vec();
                line.push(b'=');
                line.extend_from_slice(value.as_bytes());
                CString::new(line).ok()
            })
            .collect();
        let mut prepared = Prepared {
            arguments: Lines::new(arguments),
            environment: Lines::new(environment),
            actions: no_actions()?,
            attributes: no_attributes()?,
        };
        // In the child alone. One that has this number already loses close-on-exec by being duplicated to it.
        let socket = start.socket.as_raw_fd();
        // SAFETY: the actions are initialised.
        given(unsafe {
            libc::posix_spawn_file_actions_adddup2(&mut prepared.actions, socket, SOCKET)
        })?;
        prepared.close_from(SOCKET + 1)?;
        prepared.default_signals()?;
        Ok(prepared)
    }

    /// Closes, in the child, all descriptors from `first` on.
    fn close_from(&mut self, first: RawFd) -> io::Result<()> {
        if let Some(close_from) = library_close_from() {
            // SAFETY: the actions are initialised.
            return given(unsafe { close_from(&mut self.actions, first) });
        }
        // Then those that are open now; what another thread opens meanwhile it should open for itself alone. To close what is not
        // open there is no error. One that is above what this process may open now is refused, and left open.
        for entry in std::fs::read_dir("/proc/self/fd")? {
            let number = entry?.file_name().to_str().and_then(|it| it.parse().ok());
            if let Some(number) = number.filter(|&number: &RawFd| number >= first) {
                // SAFETY: the actions are initialised.
                let result =
                    unsafe { libc::posix_spawn_file_actions_addclose(&mut self.actions, number) };
                if result != libc::EBADF {
                    given(result)?;
                }
            }
        }
        Ok(())
    }

    fn default_signals(&mut self) -> io::Result<()> {
        let flags = libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETSIGMASK;
        let mut signals = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigfillset` initialises the set.
        unsafe { libc::sigfillset(signals.as_mut_ptr()) };
        // SAFETY: just initialised.
        let mut signals = unsafe { signals.assume_init() };
        // SAFETY: the attributes are initialised.
        given(unsafe { libc::posix_spawnattr_setflags(&mut self.attributes, flags as _) })?;
        // SAFETY: the attributes and the set are initialised.
        given(unsafe { libc::posix_spawnattr_setsigdefault(&mut self.attributes, &signals) })?;
        // SAFETY: the set is initialised.
        unsafe { libc::sigemptyset(&mut signals) };
        // SAFETY: the attributes and the set are initialised.
        given(unsafe { libc::posix_spawnattr_setsigmask(&mut self.attributes, &signals) })
    }

    fn spawn(&self) -> Result<libc::pid_t, Errno> {
        let mut pid = 0;
        loop {
            // SAFETY: actions and attributes are initialised; both lists end in a null pointer, and their texts live in
            // this value.
            let errno = unsafe {
                libc::posix_spawn(
                    &mut pid,
                    OURSELVES.as_ptr(),
                    &self.actions,
                    &self.attributes,
                    self.arguments.pointers.as_ptr(),
                    self.environment.pointers.as_ptr(),
                )
            };
            match Errno::from_raw(errno) {
                _ if errno == 0 => return Ok(pid),
                Errno::EINTR => {}
                errno => return Err(errno),
            }
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // SAFETY: initialised when this value was made, and not used again.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.actions) };
        // SAFETY: as above.
        unsafe { libc::posix_spawnattr_destroy(&mut self.attributes) };
    }
}

/// Adds to the actions that all descriptors from a number on are closed.
type CloseFrom =
    unsafe extern "C" fn(*mut libc::posix_spawn_file_actions_t, libc::c_int) -> libc::c_int;

/// The C library's own, which is there from glibc 2.34 on: so it is looked up and not linked.
fn library_close_from() -> Option<CloseFrom> {
    let name = c"posix_spawn_file_actions_addclosefrom_np";
    // SAFETY: the name ends in a null byte.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: where a library has a function of this name, it is of this type.
    Some(unsafe { std::mem::transmute::<*mut libc::c_void, CloseFrom>(found) })
}

fn no_actions() -> io::Result<libc::posix_spawn_file_actions_t> {
    let mut actions = MaybeUninit::uninit();
    // SAFETY: the place is valid for writing.
    given(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
    // SAFETY: just initialised.
    Ok(unsafe { actions.assume_init() })
}

fn no_attributes() -> io::Result<libc::posix_spawnattr_t> {
    let mut attributes = MaybeUninit::uninit();
    // SAFETY: the place is valid for writing.
    given(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
    // SAFETY: just initialised.
    Ok(unsafe { attributes.assume_init() })
}

/// The outcome of a call that returns the error's number.
fn given(errno: libc::c_int) -> io::Result<()> {
    match errno {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}
