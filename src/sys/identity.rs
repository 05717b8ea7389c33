//! What a process is to the kernel: its pid, name, parent, streams, directory, environment, and its end.

use crate::sys::errno::{check, retry};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::AsFd;

/// This process.
pub(crate) fn pid() -> u32 {
    std::process::id()
}

/// Whose rights a process has: its users, its groups, its further groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    users: [u32; 3],
    groups: [u32; 3],
    further: Vec<u32>,
}

impl Rights {
    /// Those of this thread; the C library sees to it that all threads have the same.
    pub(crate) fn now() -> io::Result<Rights> {
        let users = nix::unistd::getresuid()?;
        let groups = nix::unistd::getresgid()?;
        let further = further_groups()?;
        Ok(Rights {
            users: [users.real, users.effective, users.saved].map(nix::unistd::Uid::as_raw),
            groups: [groups.real, groups.effective, groups.saved].map(nix::unistd::Gid::as_raw),
            further,
        })
    }
}

/// Straight from the kernel: `nix` reads a file each time, to know how many there may be.
fn further_groups() -> io::Result<Vec<u32>> {
    loop {
        // SAFETY: without room the kernel says how many there are.
        let count =
            check(unsafe { libc::syscall(libc::SYS_getgroups, 0, std::ptr::null_mut::<u32>()) })?;
        let mut groups = vec![0u32; usize::try_from(count).unwrap_or(0)];
        if groups.is_empty() {
            return Ok(groups);
        }
        // SAFETY: there is room for as many as are asked for.
        let result =
            check(unsafe { libc::syscall(libc::SYS_getgroups, groups.len(), groups.as_mut_ptr()) });
        match result {
            // There are more by now.
            Err(Errno::EINVAL) => {}
            Err(errno) => return Err(errno.into()),
            Ok(count) => {
                groups.truncate(usize::try_from(count).unwrap_or(0));
                return Ok(groups);
            }
        }
    }
}

/// The process that made this one, or whoever adopted it.
pub(crate) fn parent_pid() -> u32 {
    std::os::unix::process::parent_id()
}

/// Names this thread, as `ps` and `top` show it: the kernel keeps 15 bytes.
pub(crate) fn name_thread(name: &str) -> io::Result<()> {
    let kept: Vec<u8> = name.bytes().filter(|&byte| byte != 0).take(15).collect();
    let kept = CString::new(kept)?;
    Ok(nix::sys::prctl::set_name(&kept)?)
}

/// The processor that this thread runs on now, counted from 1; 0 where that is not known.
pub(crate) fn processor() -> u64 {
    // SAFETY: it has no precondition.
    let processor = unsafe { libc::sched_getcpu() };
    u64::try_from(i64::from(processor) + 1).unwrap_or(0)
}

/// The process that has a thread of this number: its pid, and the name that the kernel has for it, of 15 bytes at most.
pub(crate) fn process_of_thread(tid: u32) -> Option<(u32, String)> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let pid = status
        .lines()
        .find_map(|line| line.strip_prefix("Tgid:"))?
        .trim()
        .parse()
        .ok()?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some((pid, name.trim_end().to_owned()))
}

/// Has the kernel kill this process when the thread that forked it ends; an error if that has happened already.
pub(crate) fn die_with_parent(parent: u32) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    if parent_pid() == parent {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the parent is gone",
        ))
    }
}

/// Takes back what [`die_with_parent`] has asked for.
pub(crate) fn outlive_parent() -> io::Result<()> {
    Ok(nix::sys::prctl::set_pdeathsig(None)?)
}

/// Makes the directory behind `directory` the current one.
pub(crate) fn change_directory(directory: impl AsFd) -> io::Result<()> {
    retry(|| nix::unistd::fchdir(&directory))
}

/// Makes `variables` the whole environment.
///
/// # Errors
///
/// Where this process has several threads: another one might be reading the environment.
pub(crate) fn replace_environment(variables: &[(OsString, OsString)]) -> io::Result<()> {
    require_single_thread()?;
    let old: Vec<OsString> = std::env::vars_os().map(|(name, _)| name).collect();
    for name in old.iter().filter(|name| is_valid_name(name)) {
        // SAFETY: this is the only thread, as just checked, so that nobody reads the environment meanwhile.
        unsafe { std::env::remove_var(name) };
    }
    add_to_environment(variables)
}

/// Sets `variables` beside those that are there.
///
/// # Errors
///
/// As [`replace_environment`].
pub(crate) fn add_to_environment(variables: &[(OsString, OsString)]) -> io::Result<()> {
    require_single_thread()?;
    for (name, value) in variables.iter().filter(|(name, _)| is_valid_name(name)) {
        // SAFETY: this is the only thread, as just checked, so that nobody reads the environment meanwhile.
        unsafe { std::env::set_var(name, value) };
    }
    Ok(())
}

/// Removes a variable.
///
/// # Errors
///
/// As [`replace_environment`].
pub(crate) fn remove_from_environment(name: &str) -> io::Result<()> {
    require_single_thread()?;
    // SAFETY: this is the only thread, as just checked, so that nobody reads the environment meanwhile.
    unsafe { std::env::remove_var(name) };
    Ok(())
}

/// Whether there can be such a variable.
pub(crate) fn is_valid_variable(name: &std::ffi::OsStr, value: &std::ffi::OsStr) -> bool {
    use std::os::unix::ffi::OsStrExt;
    is_valid_name(name) && !value.as_bytes().contains(&0)
}

/// Whether `std` takes it as a variable's name, without a panic.
fn is_valid_name(name: &std::ffi::OsStr) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let bytes = name.as_bytes();
    !bytes.is_empty() && !bytes.contains(&b'=') && !bytes.contains(&0)
}

/// Whether this process has one thread, by the links of the folder that the kernel keeps for its threads.
pub(crate) fn has_single_thread() -> io::Result<bool> {
    let links = retry(|| nix::sys::stat::stat(c"/proc/self/task"))?.st_nlink;
    Ok(links == 3)
}

/// Whether there are other threads, none of which runs code of this process any more: all are about to be gone. Good for a guess:
/// threads come and go meanwhile.
pub(crate) fn do_others_exit() -> bool {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else {
        return false;
    };
    let this = nix::unistd::gettid().to_string();
    let mut has_others = false;
    for thread in threads {
        let Ok(thread) = thread else { return false };
        if thread.file_name() == *this {
            continue;
        }
        match std::fs::read(thread.path().join("stat")) {
            Ok(stat) if is_exiting(&stat) => {}
            Err(error) if has_no_such_thread(&error) => {}
            _ => return false,
        }
        has_others = true;
    }
    has_others
}

/// Whether a thread ends, of which the kernel says this. A first thread that has ended before the others stays, as a zombie:
/// for that one it is no use to wait.
fn is_exiting(stat: &[u8]) -> bool {
    // `PF_EXITING` of the kernel, which it sets before anybody can have joined the thread.
    const EXITING: u32 = 4;
    // Behind the name, which may be any bytes: the state, five numbers, the flags.
    let after_name = stat.rsplit(|&byte| byte == b')').next();
    let Some(Ok(fields)) = after_name.map(std::str::from_utf8) else {
        return false;
    };
    let mut fields = fields.split_whitespace();
    let is_zombie = fields.next() == Some("Z");
    let flags = fields.nth(5).and_then(|flags| flags.parse::<u32>().ok());
    !is_zombie && flags.is_some_and(|flags| flags & EXITING != 0)
}

fn has_no_such_thread(error: &io::Error) -> bool {
    [libc::ENOENT, libc::ESRCH].contains(&error.raw_os_error().unwrap_or_default())
}

/// Checks that this process has one thread.
pub(crate) fn require_single_thread() -> io::Result<()> {
    if has_single_thread()? {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            "other threads run in this process",
        ))
    }
}

/// Has `handler` run when the process exits normally. It must not panic: that would abort.
pub(crate) fn at_exit(handler: extern "C" fn()) -> io::Result<()> {
    // SAFETY: the handler is a function of this image, which stays as long as the process.
    match unsafe { libc::atexit(handler) } {
        0 => Ok(()),
        _ => Err(io::ErrorKind::OutOfMemory.into()),
    }
}

/// Ends the process here: no destructors, no flushing.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` takes any code and does not return.
    unsafe { libc::_exit(code) }
}

/// Writes out what C code of this process has printed and the C library still holds.
pub(crate) fn flush_c_streams() {
    // SAFETY: a null pointer means every stream that is open for writing.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

/// 16 bytes that nobody can guess.
pub(crate) fn nonce() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    let filled = retry(|| {
        // SAFETY: the buffer has the length that is given.
        nix::errno::Errno::result(unsafe {
            libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0)
        })
    })?;
    if filled == 16 {
        Ok(bytes)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Whether the kernel runs this program with more rights than its caller has (set-user-id, capabilities).
pub(crate) fn is_privileged_image() -> bool {
    // SAFETY: `getauxval` reads the auxiliary vector and takes any key.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_exits_by_its_flags_whatever_its_name_is() {
        let stat = |state: &str, flags: u32| {
            let mut stat = b"7 (a) b\xc3) ".to_vec();
            stat.extend(format!("{state} 1 2 3 4 -1 {flags} 5 6").bytes());
            stat
        };
        assert!(is_exiting(&stat("S", 0x40_0044)));
        assert!(!is_exiting(&stat("S", 0x40_0040)));
        assert!(!is_exiting(&stat("Z", 0x40_0044)));
        assert!(!is_exiting(b"7 (a"));
    }

    #[test]
    fn a_thread_that_waits_does_not_exit_even_with_a_name_that_is_cut_within_a_letter() {
        let (say, heard) = std::sync::mpsc::channel();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let waits = std::thread::spawn(move || {
            name_thread("fourteen lettr\u{e9}").unwrap();
            say.send(()).unwrap();
            gone.recv().unwrap_err();
        });
        heard.recv().unwrap();
        assert!(!do_others_exit());
        drop(go);
        waits.join().unwrap();
    }
}
