//! What a process holds: descriptors, threads, processes, names in shared memory. Taken before and after, nothing may be added.

use super::alone;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// How long leftovers may take to go: a killed process is not gone when `kill` returns.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// What this process holds at one moment. Right only in a process where nothing else runs: see `in_own_process`.
#[derive(Debug, Clone)]
pub(crate) struct Census {
    descriptors: BTreeMap<u32, String>,
    threads: usize,
    processes: Vec<ProcessInfo>,
    shared_memory: BTreeSet<String>,
}

/// A process as `/proc/<pid>/stat` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProcessInfo {
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) state: char,
    pub(crate) command: String,
    /// In clock ticks since boot; with the pid it names a process for good.
    pub(crate) started: u64,
}

impl Census {
    /// Counts now.
    pub(crate) fn now() -> Census {
        // Takes note of those that have ended meanwhile.
        let _alive = multiprocess::active_children();
        Census {
            descriptors: descriptors(),
            threads: fs::read_dir("/proc/self/task").unwrap().count(),
            processes: family(std::process::id(), alone::mark().as_deref()),
            shared_memory: shared_memory(),
        }
    }

    /// Fails when there is more now than there was, and that does not go away.
    pub(crate) fn assert_nothing_added(&self) {
        let now = poll(SETTLE_LIMIT, Census::now, |now| !now.exceeds(self));
        assert!(
            !now.exceeds(self),
            "left over; before: {self:#?}\nafter: {now:#?}"
        );
    }

    fn exceeds(&self, before: &Census) -> bool {
        self.descriptors.len() > before.descriptors.len()
            || self.threads > before.threads
            || self.processes.len() > before.processes.len()
            || !self.shared_memory.is_subset(&before.shared_memory)
    }
}

/// The names in `/dev/shm` that could be of this crate. Named semaphores, which it has none of, are other programs'.
fn shared_memory() -> BTreeSet<String> {
    let mut names = names_in("/dev/shm");
    names.retain(|name| !name.starts_with("sem."));
    names
}

/// The open descriptors and what they are of.
pub(crate) fn descriptors() -> BTreeMap<u32, String> {
    let mut open = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd").unwrap() {
        let entry = entry.unwrap();
        // The descriptor that the listing itself is read from is closed by the time of `read_link`, or shows this folder.
        if let Ok(target) = fs::read_link(entry.path()) {
            let target = target.display().to_string();
            if !target.ends_with(&format!("/proc/{}/fd", std::process::id())) {
                open.insert(entry.file_name().to_str().unwrap().parse().unwrap(), target);
            }
        }
    }
    open
}

/// Every process that has `root` as an ancestor, zombies included, or that carries the mark; `root` excluded.
pub(crate) fn family(root: u32, mark: Option<&str>) -> Vec<ProcessInfo> {
    let all = processes();
    let parents: BTreeMap<u32, u32> = all
        .iter()
        .map(|process| (process.pid, process.parent))
        .collect();
    let descends = |mut pid: u32| {
        while let Some(&parent) = parents.get(&pid) {
            if parent == root {
                return true;
            }
            pid = parent;
        }
        false
    };
    let belongs = |pid: u32| descends(pid) || mark.is_some_and(|mark| carries(pid, mark));
    all.into_iter()
        .filter(|process| process.pid != root && belongs(process.pid))
        .collect()
}

/// The living processes that carry a mark, wherever they were reparented to.
pub(crate) fn marked(mark: &str) -> Vec<ProcessInfo> {
    processes()
        .into_iter()
        .filter(|process| process.lives() && carries(process.pid, mark))
        .collect()
}

impl ProcessInfo {
    /// Whether it was alive when it was listed. A dead process that its new parent has not collected yet is not.
    pub(crate) fn lives(&self) -> bool {
        !matches!(self.state, 'Z' | 'X')
    }

    /// Whether it has died since.
    pub(crate) fn is_gone(&self) -> bool {
        !process(self.pid).is_some_and(|now| now.started == self.started && now.lives())
    }
}

/// Looks until `is_good` or until `limit` has passed, and returns what it saw last.
pub(crate) fn poll<T>(limit: Duration, look: impl Fn() -> T, is_good: impl Fn(&T) -> bool) -> T {
    let started = Instant::now();
    loop {
        let seen = look();
        if is_good(&seen) || started.elapsed() > limit {
            return seen;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until a process is dead, collected or not.
pub(crate) fn wait_until_gone(process: &ProcessInfo) {
    assert!(
        poll(SETTLE_LIMIT, || process.is_gone(), |gone| *gone),
        "still there: {process:?}"
    );
}

/// A process by its pid.
pub(crate) fn process(pid: u32) -> Option<ProcessInfo> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = tail.split_whitespace().collect();
    Some(ProcessInfo {
        pid,
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
        command: head.split_once('(')?.1.to_owned(),
    })
}

fn processes() -> Vec<ProcessInfo> {
    names_in("/proc")
        .iter()
        .filter_map(|name| process(name.parse().ok()?))
        .collect()
}

fn carries(pid: u32, mark: &str) -> bool {
    let Ok(environ) = fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    environ
        .split(|&byte| byte == 0)
        .any(|entry| entry == alone::environ_entry(mark))
}

fn names_in(directory: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}
