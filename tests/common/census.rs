//! What a process holds: descriptors, threads, processes, mappings of shared memory, names of it, temporary files. Taken
//! before and after, nothing may be added.

use super::alone;
use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How long leftovers may take to go: a killed process is not gone when `kill` returns.
pub(crate) const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// What this process holds at one moment. Right only in a process where nothing else runs: see `in_own_process`.
#[derive(Debug, Clone)]
pub(crate) struct Census {
    descriptors: BTreeMap<u32, String>,
    threads: BTreeMap<u32, String>,
    processes: Vec<ProcessInfo>,
    /// Mappings of shared memory: those which a thread or the allocator makes come and go.
    mappings: Vec<String>,
    shared_memory: BTreeSet<String>,
    files: BTreeSet<String>,
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
        let entry = alone::mark().map(|mark| alone::environ_entry(&mark));
        Census::of(&env::temp_dir(), entry.as_deref())
    }

    /// Counts the processes that have this entry in their environment, and the files in this folder.
    pub(crate) fn of(folder: &Path, entry: Option<&[u8]>) -> Census {
        Census {
            descriptors: descriptors(),
            threads: threads(),
            processes: in_use(relatives(std::process::id(), entry)),
            mappings: mappings(),
            shared_memory: shared_memory(),
            files: names_in(folder),
        }
    }

    /// Leaves out those who are dead, and wait for this process to collect them.
    pub(crate) fn bury_the_dead(&mut self) {
        self.processes.retain(ProcessInfo::lives);
    }

    /// Leaves out the files, where somebody else takes them away.
    pub(crate) fn look_away_from_files(&mut self) {
        self.files.clear();
    }

    /// Leaves out so many sockets.
    pub(crate) fn look_away_from_sockets(&mut self, count: usize) {
        let is_socket = |(_, target): &(&u32, &String)| target.starts_with("socket:");
        let sockets = self.descriptors.iter().filter(is_socket);
        let numbers: Vec<u32> = sockets.map(|(number, _)| *number).take(count).collect();
        for number in numbers {
            self.descriptors.remove(&number);
        }
    }

    /// Leaves out what goes with this process.
    pub(crate) fn look_away_from_this_process(&mut self) {
        self.descriptors.clear();
        self.threads.clear();
        self.mappings.clear();
    }

    /// Fails when there is more now than there was, and that does not go away.
    pub(crate) fn assert_nothing_added(&self) {
        let now = poll(SETTLE_LIMIT, Census::now, |now| {
            now.added_to(self).is_empty()
        });
        let added = now.added_to(self);
        assert!(
            added.is_empty(),
            "left over: {added:#?}\nbefore: {self:#?}\nafter: {now:#?}"
        );
    }

    /// What there is of which there was not as much before.
    pub(crate) fn added_to(&self, before: &Census) -> Vec<String> {
        let mut added = Vec::new();
        let mut more = |what: &str, now: usize, before: usize, all: &dyn std::fmt::Debug| {
            if now > before {
                added.push(format!("{what}: {before}, now {now}: {all:?}"));
            }
        };
        let (old, new) = (&before.descriptors, &self.descriptors);
        more("descriptors", new.len(), old.len(), new);
        let (old, new) = (&before.threads, &self.threads);
        more("threads", new.len(), old.len(), new);
        let (old, new) = (&before.processes, &self.processes);
        more("processes", new.len(), old.len(), new);
        let (old, new) = (&before.mappings, &self.mappings);
        more("shared mappings", new.len(), old.len(), new);
        let new: Vec<_> = self
            .shared_memory
            .difference(&before.shared_memory)
            .collect();
        more("new names in /dev/shm", new.len(), 0, &new);
        let new: Vec<_> = self.files.difference(&before.files).collect();
        more("new temporary files", new.len(), 0, &new);
        added
    }
}

/// The threads of this process, and what they are called.
fn threads() -> BTreeMap<u32, String> {
    let named = |thread: String| {
        let name = fs::read_to_string(format!("/proc/self/task/{thread}/comm"));
        // It may have ended just now.
        Some((thread.parse().unwrap(), name.ok()?.trim().to_owned()))
    };
    names_in(Path::new("/proc/self/task"))
        .into_iter()
        .filter_map(named)
        .collect()
}

/// The mappings of shared memory in this process: of files that are in memory only, with a name or without. A test may keep other
/// files mapped.
fn mappings() -> Vec<String> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let is_shared = |line: &&str| {
        let flags = line.split(' ').nth(1).unwrap_or_default();
        flags.ends_with('s') && (line.contains("/memfd:") || line.contains("/dev/shm/"))
    };
    maps.lines().filter(is_shared).map(str::to_owned).collect()
}

/// The names in `/dev/shm` that the tests give: the crate gives none by itself. All others are other programs'.
fn shared_memory() -> BTreeSet<String> {
    let mut names = names_in(Path::new("/dev/shm"));
    names.retain(|name| name.starts_with("multiprocess"));
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

/// The memory that the file takes in which a queue's messages are: of all memory files of this process, the largest.
pub(crate) fn memory_of_queues() -> u64 {
    use std::os::unix::fs::MetadataExt;
    let is_queue = |(_, target): &(u32, String)| target.contains("multiprocess-queue");
    let memory = |(number, _)| {
        let file = fs::metadata(format!("/proc/self/fd/{number}"));
        file.map_or(0, |file| file.blocks() * 512)
    };
    let files = descriptors().into_iter().filter(is_queue);
    files.map(memory).max().unwrap()
}

/// What `ps` shows of a process that was forked ahead of need, and is nothing yet.
pub(crate) const IDLE: &str = "forkserver-idle";

/// Without those that were forked ahead of need, which come and go.
fn in_use(mut processes: Vec<ProcessInfo>) -> Vec<ProcessInfo> {
    processes.retain(|one| one.command != IDLE || !one.lives());
    processes
}

/// The fork servers among some processes, and none that was forked by one just now and has its name still.
pub(crate) fn servers(family: &[ProcessInfo]) -> Vec<ProcessInfo> {
    let is_server = |one: &&ProcessInfo| one.command == "forkserver" && one.lives();
    let all: BTreeSet<u32> = family.iter().filter(is_server).map(|one| one.pid).collect();
    let servers = family.iter().filter(is_server);
    servers
        .filter(|one| !all.contains(&one.parent))
        .cloned()
        .collect()
}

/// The processes that were forked ahead of need and wait.
pub(crate) fn idle() -> Vec<ProcessInfo> {
    let mut family = family(std::process::id(), alone::mark().as_deref());
    family.retain(|one| one.command == IDLE && one.lives());
    family
}

/// Every process that has `root` as an ancestor, zombies included, or that carries the mark; `root` excluded.
pub(crate) fn family(root: u32, mark: Option<&str>) -> Vec<ProcessInfo> {
    let entry = mark.map(alone::environ_entry);
    relatives(root, entry.as_deref())
}

/// Likewise, with what stands in the environment of its processes.
fn relatives(root: u32, entry: Option<&[u8]>) -> Vec<ProcessInfo> {
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
    let belongs = |pid: u32| descends(pid) || entry.is_some_and(|entry| carries(pid, entry));
    all.into_iter()
        .filter(|process| process.pid != root && belongs(process.pid))
        .collect()
}

/// The living processes that carry a mark, wherever they were reparented to.
pub(crate) fn marked(mark: &str) -> Vec<ProcessInfo> {
    let entry = alone::environ_entry(mark);
    processes()
        .into_iter()
        .filter(|process| process.lives() && carries(process.pid, &entry))
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
    names_in(Path::new("/proc"))
        .iter()
        .filter_map(|name| process(name.parse().ok()?))
        .collect()
}

fn carries(pid: u32, wanted: &[u8]) -> bool {
    let Ok(environ) = fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    environ
        .split(|&byte| byte == 0)
        .any(|entry| entry == wanted)
}

fn names_in(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}
