//! Limits of a user and of a group of processes: on how many there may be, and on what memory they have together; and of a
//! process, on its address space.

use crate::common::alone::{in_own_process, mark, on_the_only_thread, test_path};
use crate::common::census::{self, Census};
use crate::common::unsafely::{become_nobody, limit_address_space};
use crate::common::{LIMIT, LONG_LIMIT, assert_serves, pool};
use multiprocess::{
    Array, Barrier, Event, Lock, Pipe, Pool, Process, Queue, SharedMemory, SharedSlice,
    StartMethod, Value,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

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

/// How many descriptors this process may have open, and its user on their way.
fn allow_descriptors(count: u64) {
    let (_soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, count, hard).unwrap();
}

#[test]
fn handles_wait_while_their_user_has_too_many_on_their_way() {
    let test = test_path(
        module_path!(),
        "handles_wait_while_their_user_has_too_many_on_their_way",
    );
    in_own_process(&test, LIMIT, || {
        // The superuser may have as many as there are.
        become_nobody();
        let queue = Queue::<(u32, Vec<Queue<u8>>)>::new().unwrap();
        let inner = vec![Queue::new().unwrap()];
        // More descriptors than one record carries.
        let many: Vec<Queue<u8>> = (0..75).map(|_| Queue::new().unwrap()).collect();
        allow_descriptors(64);
        for number in 0..3 {
            let refused = queue.put((number, many.clone())).unwrap_err().to_string();
            assert!(refused.contains("RLIMIT_NOFILE is 64"), "{refused}");
        }
        queue.put((7, inner.clone())).unwrap();
        let refused = queue.put_timeout((8, many), Duration::from_millis(20));
        assert!(refused.unwrap_err().is_timeout());
        // What was sent of it goes with the last value.
        assert_eq!(queue.get().unwrap().0, 7);
        let mut put = 0;
        let refused = loop {
            match queue.try_put((put, inner.clone())) {
                Ok(()) => put += 1,
                Err(refused) => break refused,
            }
        };
        assert!(refused.is_full(), "{refused}");
        assert!((4..=17).contains(&put), "{put}");
        thread::scope(|scope| {
            let putter = scope.spawn(|| {
                for number in put..put + 100 {
                    queue.put((number, inner.clone())).unwrap();
                }
            });
            for number in 0..put + 100 {
                assert_eq!(queue.get().unwrap().0, number);
            }
            putter.join().unwrap();
            // Who waits so hears of a close as well.
            while queue.try_put((0, inner.clone())).is_ok() {}
            let putter = scope.spawn(|| queue.put((1, inner.clone())).unwrap_err().is_closed());
            queue.close();
            assert!(putter.join().unwrap());
        });
    });
}

/// The server has no room for what a process is to be given: it refuses that, and what it has started before lives on.
fn ask_for_too_much(method: StartMethod) {
    let start = |len: usize| {
        let builder = Process::builder().start_method(method);
        builder.spawn(vec![1_u8; len], |bytes| bytes.len())
    };
    let mut beside: Process = Process::builder()
        .start_method(method)
        .daemon(true)
        .spawn((), |()| {
            loop {
                std::thread::park();
            }
        })
        .unwrap();
    let server = census::servers(&census::family(std::process::id(), mark().as_deref()))[0].pid;
    let pages = fs::read_to_string(format!("/proc/{server}/statm")).unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    let limit = (pages << 12) + (16 << 20);
    limit_address_space(server, limit);
    // Of the first there is room for one copy, and not for two.
    for len in [12 << 20, 64 << 20] {
        let error = start(len).map(drop).unwrap_err().to_string();
        let limit = format!("RLIMIT_AS is {limit}");
        assert!(error.contains(&limit), "{error}");
        assert_eq!(start(10).unwrap().join().unwrap(), 10);
    }
    assert!(beside.is_alive());
    beside.kill().unwrap();
    beside.wait().unwrap();
}

mod a_request_that_the_server_has_no_memory_for {
    use super::*;

    #[test]
    fn fork_server() {
        let test = test_path(module_path!(), "fork_server");
        in_own_process(&test, LIMIT, || ask_for_too_much(StartMethod::ForkServer));
    }

    #[test]
    fn spawn() {
        let test = test_path(module_path!(), "spawn");
        in_own_process(&test, LIMIT, || ask_for_too_much(StartMethod::Spawn));
    }
}

/// A group of processes that have little memory together; taken away when it is dropped.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// `None` where this process may make none, or where it could be swapped out instead.
    fn of(bytes: u64) -> Option<MemoryGroup> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path_of = |kind: &str| {
            own.lines()
                .filter_map(|line| line.split_once(':'))
                .find_map(|(_, rest)| rest.strip_prefix(kind)?.strip_prefix(':'))
        };
        // With what is swapped out: as a limit of both together, or of that alone.
        let (root, limit, with_swap, swap, path) = match path_of("memory") {
            Some(path) => (
                "/sys/fs/cgroup/memory",
                "memory.limit_in_bytes",
                "memory.memsw.limit_in_bytes",
                bytes,
                path,
            ),
            None => (
                "/sys/fs/cgroup",
                "memory.max",
                "memory.swap.max",
                0,
                path_of("")?,
            ),
        };
        let name = format!("multiprocess-test-{}", std::process::id());
        let group = Path::new(root)
            .join(path.trim_start_matches('/'))
            .join(name);
        fs::create_dir(&group).ok()?;
        let group = MemoryGroup(group);
        fs::write(group.0.join(limit), bytes.to_string()).ok()?;
        let is_swap_limited = fs::write(group.0.join(with_swap), swap.to_string()).is_ok();
        (is_swap_limited || !is_there_swap()).then_some(group)
    }
}

/// Whether memory can be swapped out, into a file or a partition.
fn is_there_swap() -> bool {
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    swaps.lines().count() > 1
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
            println!("skipped=1, since no group of processes that has so little can be made here");
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

/// What no object fits in that takes memory of its own.
const SMALL_FILES: u64 = 64 << 10;

#[test]
fn a_file_that_may_not_be_so_large_is_an_error_and_no_signal() {
    let test = test_path(
        module_path!(),
        "a_file_that_may_not_be_so_large_is_an_error_and_no_signal",
    );
    in_own_process(&test, LIMIT, || {
        assert_serves(&pool(StartMethod::ForkServer, 1));
        let before = Census::now();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("numbers");
        fs::write(&file, vec![1; BYTES]).unwrap();
        let name = format!("multiprocess-test-large-{}", std::process::id());
        let (soft, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
        setrlimit(Resource::RLIMIT_FSIZE, SMALL_FILES, hard).unwrap();
        let refused = [
            Lock::new(7).map(drop),
            Array::<u8>::new(BYTES).map(drop),
            Pipe::<u8>::pair().map(drop),
            SharedSlice::from_slice(&[1_u8; BYTES]).map(drop),
            SharedSlice::from_fn(BYTES, |n| n as u8).map(drop),
            SharedSlice::<u8>::from_file(&file).map(drop),
            // It does not say how long it is.
            SharedSlice::<u8>::from_file("/dev/zero").map(drop),
            SharedMemory::create(&name, BYTES).map(drop),
            Pool::builder().workers(1).build().map(drop),
        ];
        let small = SharedSlice::from_slice(&[1_u8; 100]).unwrap();
        setrlimit(Resource::RLIMIT_FSIZE, soft, hard).unwrap();
        for (at, outcome) in refused.into_iter().enumerate() {
            let error = outcome.unwrap_err().to_string();
            let limit = format!("RLIMIT_FSIZE is {SMALL_FILES}");
            assert!(error.contains(&limit), "{at}: {error}");
        }
        assert_eq!(small.len(), 100);
        assert!(!Path::new("/dev/shm").join(&name).exists());
        assert_serves(&pool(StartMethod::ForkServer, 1));
        drop((small, folder));
        before.assert_nothing_added();
    });
}

/// How much more address space each time there is.
const MORE: u64 = 64 << 10;

/// What is put into what holds bytes: too much for what is mapped already.
const BYTES: usize = 1 << 20;

fn mapped() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
}

/// Does `operation` with no address space left, with a little more, and so on, until there is enough. Each time but the last
/// ones it is an error, and afterwards, with enough, it is done, and nothing is left.
fn in_little_address_space(name: &str, operation: impl Fn() -> Result<(), String>) {
    operation().unwrap();
    let before = Census::now();
    let (soft, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
    let (mut refused, mut done) = (0, 0);
    while done < 3 {
        let room = MORE * (refused + done);
        assert!(room < 1 << 30, "{name}: never enough");
        setrlimit(Resource::RLIMIT_AS, mapped() + room, hard).unwrap();
        let outcome = operation();
        setrlimit(Resource::RLIMIT_AS, soft, hard).unwrap();
        match outcome {
            Ok(()) => done += 1,
            Err(why) => {
                assert!(why.contains("annot"), "{name}, with {room} bytes: {why}");
                refused += 1;
            }
        }
        operation().unwrap_or_else(|why| panic!("{name}, after {room} bytes: {why}"));
        before.assert_nothing_added();
    }
    println!("{name}: refused={refused}");
    assert!(refused > 0, "{name}: nothing was too little");
}

#[test]
fn too_little_address_space_for_an_object_is_an_error() {
    let test = test_path(
        module_path!(),
        "too_little_address_space_for_an_object_is_an_error",
    );
    in_own_process(&test, LONG_LIMIT, || {
        // What the allocator has is enough for all that is no shared memory: without any, a program is ended, as by any `Box`.
        let pieces: Vec<Vec<u8>> = (0..4000).map(|_| vec![1; 1 << 10]).collect();
        let last = vec![1_u8; 1 << 10];
        drop(pieces);
        fn said(error: impl std::fmt::Display) -> String {
            error.to_string()
        }
        in_little_address_space("lock", || Lock::new(7).map(drop).map_err(said));
        in_little_address_space("event", || Event::new().map(drop).map_err(said));
        in_little_address_space("barrier", || Barrier::new(2).map(drop).map_err(said));
        in_little_address_space("value", || Value::new([7_u64; 8]).map(drop).map_err(said));
        in_little_address_space("array", || Array::<u8>::new(BYTES).map(drop).map_err(said));
        in_little_address_space("slice", || {
            let slice = SharedSlice::from_fn(BYTES, |n| n as u8).map_err(said)?;
            assert_eq!(slice[300], 44);
            Ok(())
        });
        drop(last);
    });
}
