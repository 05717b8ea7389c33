//! What the system allows: processors, and the resource limits that explain an error.

use nix::sys::resource::{Resource, getrlimit};
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
        libc::EMFILE => (Resource::RLIMIT_NOFILE, "RLIMIT_NOFILE"),
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
