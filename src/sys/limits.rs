//! What the system allows: processors, and the resource limits that explain an error.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;
use std::sync::OnceLock;

/// The processors that this process may use: its affinity and its cgroup's quota, at least 1.
pub(crate) fn available_parallelism() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The same, asked once for each process image: for decisions that are made often.
pub(crate) fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(available_parallelism)
}

/// The resource limit that can explain `error`, as `RLIMIT_NOFILE is 64`.
pub(crate) fn behind(error: &io::Error) -> Option<String> {
    let (resource, name) = match error.raw_os_error()? {
        libc::EMFILE | libc::ETOOMANYREFS => (Resource::RLIMIT_NOFILE, "RLIMIT_NOFILE"),
        libc::EAGAIN => (Resource::RLIMIT_NPROC, "RLIMIT_NPROC"),
        libc::ENOMEM => (Resource::RLIMIT_AS, "RLIMIT_AS"),
        _ => return None,
    };
    let (soft, _) = getrlimit(resource).ok()?;
    if soft == nix::sys::resource::RLIM_INFINITY {
        Some(format!("{name} is unlimited"))
    } else {
        Some(format!("{name} is {soft}"))
    }
}

/// Limits how many bytes of memory of its own this process may have (`RLIMIT_DATA`); what it shares or only reads does
/// not count. The limit is never raised again.
pub(crate) fn limit_memory(bytes: u64) -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_DATA)?;
    let bytes = bytes.min(hard);
    Ok(setrlimit(Resource::RLIMIT_DATA, bytes, bytes)?)
}

/// Lets this process open as many descriptors as it may ever; returns what it could before.
pub(crate) fn raise_descriptors() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(soft)
}

/// Sets how many descriptors this process may open, as it was before [`raise_descriptors`].
pub(crate) fn restore_descriptors(soft: u64) -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard), hard)?)
}
