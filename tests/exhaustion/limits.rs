//! Limits of a user and of a group of processes: on how many there may be, and on what memory they have together.

use crate::common::alone::{in_own_process, on_the_only_thread, test_path};
use crate::common::unsafely::become_nobody;
use crate::common::{LIMIT, assert_serves, pool};
use multiprocess::{Process, StartMethod};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs;
use std::path::{Path, PathBuf};

/// The superuser may have as many as there are, so this one becomes somebody else.
fn start_one_too_many(method: StartMethod) {
    become_nobody();
    let start = || {
        let builder = Process::builder().start_method(method);
        builder.spawn(20, |n: i32| n + 1)
    };
    assert_eq!(start().unwrap().join().unwrap(), 21);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NPROC).unwrap();
    setrlimit(Resource::RLIMIT_NPROC, 1, hard).unwrap();
    for _ in 0..3 {
        let error = start().map(drop).unwrap_err().to_string();
        assert!(error.contains("RLIMIT_NPROC is 1"), "{error}");
    }
    setrlimit(Resource::RLIMIT_NPROC, soft, hard).unwrap();
    assert_eq!(start().unwrap().join().unwrap(), 21);
}

mod a_process_too_many_for_its_user {
    use super::*;

    #[test]
    fn fork_server() {
        let test = test_path(module_path!(), "fork_server");
        in_own_process(&test, LIMIT, || start_one_too_many(StartMethod::ForkServer));
    }

    #[test]
    fn spawn() {
        let test = test_path(module_path!(), "spawn");
        in_own_process(&test, LIMIT, || start_one_too_many(StartMethod::Spawn));
    }

    #[test]
    fn fork() {
        let test = test_path(module_path!(), "fork");
        on_the_only_thread(&test, LIMIT, || start_one_too_many(StartMethod::Fork));
    }
}

/// A group of processes that have little memory together; taken away when it is dropped.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// `None` where this process may make none.
    fn of(bytes: u64) -> Option<MemoryGroup> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path_of = |kind: &str| {
            own.lines()
                .filter_map(|line| line.split_once(':'))
                .find_map(|(_, rest)| rest.strip_prefix(kind)?.strip_prefix(':'))
        };
        let (root, limit, path) = match path_of("memory") {
            Some(path) => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", path),
            None => ("/sys/fs/cgroup", "memory.max", path_of("")?),
        };
        let name = format!("multiprocess-test-{}", std::process::id());
        let group = Path::new(root)
            .join(path.trim_start_matches('/'))
            .join(name);
        fs::create_dir(&group).ok()?;
        let group = MemoryGroup(group);
        fs::write(group.0.join(limit), bytes.to_string()).ok()?;
        Some(group)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_worker_whose_group_has_no_memory_left_is_a_crash() {
    let test = test_path(
        module_path!(),
        "a_worker_whose_group_has_no_memory_left_is_a_crash",
    );
    in_own_process(&test, LIMIT, || {
        let Some(group) = MemoryGroup::of(64 << 20) else {
            println!("skipped=1, since no group of processes can be made here");
            return;
        };
        let pool = pool(StartMethod::ForkServer, 2);
        let members = group.0.join("cgroup.procs");
        for _ in 0..3 {
            let job = pool.with(members.clone());
            let results = job.imap([10_usize, 200, 20], |members, mebibytes| {
                fs::write(members, std::process::id().to_string()).unwrap();
                let mut taken = vec![0_u8; mebibytes << 20];
                taken.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
                taken.len()
            });
            let crashed: Vec<bool> = results
                .map(|result| result.is_err_and(|error| error.is_crash()))
                .collect();
            assert_eq!(crashed, [false, true, false]);
            assert_serves(&pool);
        }
        pool.terminate().unwrap();
    });
}
