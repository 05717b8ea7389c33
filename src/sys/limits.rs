//! What the system allows: processors, and the resource limits that explain an error.

use crate::error::Error;
use crate::sys::errno::check;
use crate::sys::identity;
use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Pid, SysconfVar};
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The processors that this process may use: its affinity and its cgroup's quota, at least 1.
pub(crate) fn available_parallelism() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The same, asked once, for this process and those that are forked from it: for decisions that are made often.
pub(crate) fn processors() -> usize {
    match PROCESSORS.load(Ordering::Relaxed) {
        0 => {
            let count = available_parallelism();
            PROCESSORS.store(count, Ordering::Relaxed);
            count
        }
        known => known,
    }
}

/// 0 where nobody has asked yet.
static PROCESSORS: AtomicUsize = AtomicUsize::new(0);

/// The resource limit that can explain `error`, as `RLIMIT_NOFILE is 64`.
pub(crate) fn behind(error: &io::Error) -> Option<String> {
    let (resource, name) = match error.raw_os_error()? {
        libc::EMFILE | libc::ETOOMANYREFS => (Resource::RLIMIT_NOFILE, "RLIMIT_NOFILE"),
        libc::EAGAIN => (Resource::RLIMIT_NPROC, "RLIMIT_NPROC"),
        libc::EFBIG => (Resource::RLIMIT_FSIZE, "RLIMIT_FSIZE"),
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

/// An operation that the system refused, with the resource limit that can explain it.
pub(crate) fn explained(operation: impl Into<String>, error: io::Error) -> Error {
    let limit = behind(&error);
    Error::limit(operation, error, limit)
}

/// The error of a process that may open no more descriptors.
pub(crate) const TOO_MANY_OPEN: i32 = libc::EMFILE;

/// The error of a process that gets no more memory.
pub(crate) const OUT_OF_MEMORY: i32 = libc::ENOMEM;

/// The error of a file that may not be so large.
pub(crate) fn too_large_a_file() -> io::Error {
    io::Error::from_raw_os_error(libc::EFBIG)
}

/// How large a file may be that this process writes to. The kernel kills who writes past it, unless a signal is ignored.
pub(crate) fn file_size() -> u64 {
    getrlimit(Resource::RLIMIT_FSIZE).map_or(u64::MAX, |(soft, _)| soft)
}

/// Limits how many bytes of memory of its own this process may have (`RLIMIT_DATA`); what it shares or only reads does
/// not count. The limit is never raised again.
pub(crate) fn limit_memory(bytes: u64) -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_DATA)?;
    let bytes = bytes.min(hard);
    Ok(setrlimit(Resource::RLIMIT_DATA, bytes, bytes)?)
}

/// The longest message that one process takes in from another: half of the machine's memory, since sender and receiver each
/// have it once. A longer one would end the receiver.
pub(crate) fn longest_message() -> u64 {
    static LONGEST: OnceLock<u64> = OnceLock::new();
    *LONGEST.get_or_init(|| {
        let known = |variable| nix::unistd::sysconf(variable).ok().flatten();
        let pages = known(SysconfVar::_PHYS_PAGES);
        let bytes = pages
            .zip(known(SysconfVar::PAGE_SIZE))
            .and_then(|(pages, size)| {
                let (pages, size) = (u64::try_from(pages).ok()?, u64::try_from(size).ok()?);
                pages.checked_mul(size)
            });
        bytes.map_or(LONGEST_WHERE_UNKNOWN, |bytes| bytes / 2)
    })
}

/// The longest message where the system does not say how much memory there is.
const LONGEST_WHERE_UNKNOWN: u64 = 1 << 36;

/// Lets this process open as many descriptors as it may ever.
pub(crate) fn raise_descriptors() -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// What the kernel holds a process to, and what a child inherits: resource limits, processors, the mask of file modes.
///
/// [`Bounds::now`] has all of them; a difference has those that differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bounds {
    /// The number of each resource, its soft and its hard limit.
    resources: Vec<(u32, u64, u64)>,
    /// As the kernel has them: a bit for each.
    processors: Option<Vec<u8>>,
    file_mode_mask: Option<u32>,
}

impl Bounds {
    /// Those of this process; the processors are those of this thread.
    pub(crate) fn now() -> Bounds {
        let resources = (0..RESOURCES).filter_map(|number| {
            let limit = change_limit(number, None).ok()?;
            Some((number, limit.rlim_cur, limit.rlim_max))
        });
        Bounds {
            resources: resources.collect(),
            processors: processors_allowed().ok(),
            file_mode_mask: file_mode_mask(),
        }
    }

    /// Those of these that are not in `other` as well.
    pub(crate) fn beyond(&self, other: &Bounds) -> Bounds {
        let known = |limit: &&(u32, u64, u64)| !other.resources.contains(limit);
        Bounds {
            resources: self.resources.iter().filter(known).copied().collect(),
            processors: self
                .processors
                .clone()
                .filter(|_| self.processors != other.processors),
            file_mode_mask: self
                .file_mode_mask
                .filter(|_| self.file_mode_mask != other.file_mode_mask),
        }
    }

    /// The limit of how many processes the user may have, alone.
    pub(crate) fn of_processes(&self) -> Bounds {
        let is_it = |limit: &&(u32, u64, u64)| limit.0 == Resource::RLIMIT_NPROC as u32;
        Bounds {
            resources: self.resources.iter().filter(is_it).copied().collect(),
            ..Bounds::default()
        }
    }

    /// Holds this process to them, as far as it may be.
    pub(crate) fn impose(&self) {
        for &(number, soft, hard) in &self.resources {
            let wanted = |soft, hard| libc::rlimit64 {
                rlim_cur: soft,
                rlim_max: hard,
            };
            if change_limit(number, Some(wanted(soft, hard))).is_err() {
                // A hard limit that was lowered can be raised by few.
                if let Ok(now) = change_limit(number, None) {
                    let soft = soft.min(now.rlim_max);
                    let _refused = change_limit(number, Some(wanted(soft, now.rlim_max)));
                }
            }
        }
        if let Some(processors) = &self.processors {
            // SAFETY: the mask has the length that is given. It fails where none of them is there any more.
            unsafe { libc::sched_setaffinity(0, processors.len(), processors.as_ptr().cast()) };
            // What was counted before the fork is not so here.
            PROCESSORS.store(0, Ordering::Relaxed);
        }
        if let Some(mask) = self.file_mode_mask {
            // SAFETY: `umask` takes any mask.
            unsafe { libc::umask(mask) };
        }
    }
}

/// How many resources the kernel has limits for (`RLIM_NLIMITS`).
const RESOURCES: u32 = 16;

/// Returns the limit that holds, and sets another.
fn change_limit(number: u32, to: Option<libc::rlimit64>) -> io::Result<libc::rlimit64> {
    let mut before = libc::rlimit64 {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let to = to
        .as_ref()
        .map_or(std::ptr::null(), std::ptr::from_ref::<libc::rlimit64>);
    // SAFETY: `to` is null or a limit that outlives the call; `before` is valid for writing.
    Errno::result(unsafe { libc::prlimit64(0, number as _, to, &mut before) })?;
    Ok(before)
}

/// The processors that this thread may run on, as the kernel has them.
fn processors_allowed() -> io::Result<Vec<u8>> {
    // More than any machine has; whole words, as the kernel wants it.
    let mut mask = vec![0u8; 1024];
    // SAFETY: the mask has the length that is given, and any bytes are a mask.
    let written = check(unsafe {
        libc::syscall(
            libc::SYS_sched_getaffinity,
            0,
            mask.len(),
            mask.as_mut_ptr(),
        )
    })?;
    mask.truncate(usize::try_from(written).unwrap_or(0));
    Ok(mask)
}

/// Has this thread go on on another processor of those that it may run on, from where the kernel may move it as before; returns
/// whether it has.
///
/// What it may run on is written back as it was read: a change by others in between is kept where it is seen, and may be lost within
/// a few microseconds. The kernel takes it as chosen from then on (6.2 and later): processors that the thread's group gets
/// later are not for this one.
pub(crate) fn leave_processor() -> bool {
    let Ok(allowed) = sched_getaffinity(THIS) else {
        return false;
    };
    let Some(others) = keep_off(identity::processor(), allowed) else {
        return false;
    };
    if sched_getaffinity(THIS) == Ok(others) {
        // It fails only where none of them is there any more, and the kernel has chosen others.
        let _refused = sched_setaffinity(THIS, &allowed);
    }
    true
}

/// Has this thread run on those of `allowed` alone that are not this one, counted from 1; returns which these are, if there are
/// any. Machines with more than 1,024 processors are not asked.
fn keep_off(processor: u64, allowed: CpuSet) -> Option<CpuSet> {
    let mut others = allowed;
    let processor = usize::try_from(processor).ok()?.checked_sub(1)?;
    others.unset(processor).ok()?;
    // Refused where there are none.
    sched_setaffinity(THIS, &others).ok()?;
    Some(others)
}

/// This thread, for calls that take the number of one.
const THIS: Pid = Pid::from_raw(0);

/// Whether something decides which system calls a process may make, and may kill it for others; or that is not known.
pub(crate) fn has_filter_of_calls(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    !status.is_ok_and(|status| is_free(&status))
}

fn is_free(status: &str) -> bool {
    status.lines().any(|line| line == "Seccomp:\t0")
}

/// Which modes a new file of this process does not get. There is no call that tells it without setting it.
fn file_mode_mask() -> Option<u32> {
    if identity::require_single_thread().is_ok() {
        // SAFETY: `umask` takes any mask. No other thread makes a file meanwhile: there is none.
        let mask = unsafe { libc::umask(0o077) };
        // SAFETY: as above.
        unsafe { libc::umask(mask) };
        return Some(mask);
    }
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(mask.trim(), 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_a_processor_is_elsewhere_and_may_run_where_it_might_before() {
        std::thread::spawn(|| {
            let allowed = sched_getaffinity(THIS).unwrap();
            let is_allowed = |&processor: &usize| allowed.is_set(processor).unwrap();
            let has_others = (0..CpuSet::count()).filter(is_allowed).count() > 1;
            let before = identity::processor();
            let others = keep_off(before, allowed);
            assert_eq!(others.is_some(), has_others);
            if others.is_some() {
                assert_ne!(identity::processor(), before);
                sched_setaffinity(THIS, &allowed).unwrap();
                assert!(leave_processor());
            }
            assert_eq!(sched_getaffinity(THIS), Ok(allowed));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn who_may_run_on_one_processor_stays_there() {
        std::thread::spawn(|| {
            let allowed = sched_getaffinity(THIS).unwrap();
            let first = (0..CpuSet::count()).find(|&processor| allowed.is_set(processor).unwrap());
            let mut one = CpuSet::new();
            one.set(first.unwrap()).unwrap();
            sched_setaffinity(THIS, &one).unwrap();
            assert!(!leave_processor());
            assert_eq!(sched_getaffinity(THIS), Ok(one));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_filter_of_system_calls_is_seen_where_the_kernel_tells_of_it() {
        assert!(is_free(
            "NoNewPrivs:\t0\nSeccomp:\t0\nSeccomp_filters:\t0\n"
        ));
        assert!(!is_free(
            "NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n"
        ));
        assert!(!is_free("NoNewPrivs:\t0\n"));
        assert!(has_filter_of_calls(0), "there is no such process");
    }

    #[test]
    fn the_bounds_of_a_process_are_whole_and_differ_by_what_is_changed() {
        let now = Bounds::now();
        assert_eq!(now.resources.len(), RESOURCES as usize);
        assert!(now.processors.is_some() && now.file_mode_mask.is_some());
        assert_eq!(now.beyond(&now), Bounds::default());
        let mut other = now.clone();
        other.resources[7].1 += 1;
        other.file_mode_mask = now.file_mode_mask.map(|mask| mask ^ 0o100);
        let beyond = now.beyond(&other);
        assert_eq!(beyond.resources, [now.resources[7]]);
        assert_eq!(beyond.file_mode_mask, now.file_mode_mask);
        assert_eq!(beyond.processors, None);
    }
}
