//! Surroundings in which a hostile look once found the crate broken: streams, limits, rights, threads, peers.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::census::{family, poll, process};
use common::fault::{self, fault_row};
use common::meet::{Gate, pass};
use common::{LIMIT, alone, assert_serves, each_method_alone, kill_hard, pool, unsafely};
use multiprocess::{Pool, Process, SharedSlice, StartMethod, TaskErrorKind};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::time::TimeValLike;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fs::{self, Permissions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Duration;

each_method_alone!(with_all_streams_closed_it_serves, |method| {
    let output = std::io::stdout().as_fd().try_clone_to_owned().unwrap();
    let errors = std::io::stderr().as_fd().try_clone_to_owned().unwrap();
    for number in 0..3 {
        nix::unistd::close(number).unwrap();
    }
    let pool = pool(method, 2);
    assert_serves(&pool);
    let child = Process::builder().start_method(method).spawn((), |()| {
        println!("to nobody");
        eprintln!("to nobody");
        7
    });
    let result = child.map(|child| child.join());
    drop(pool);
    // The census counts descriptors: their number is to be as it was.
    std::mem::forget(fs::File::open("/dev/null").unwrap());
    nix::unistd::dup2_stdout(output).unwrap();
    nix::unistd::dup2_stderr(errors).unwrap();
    assert_eq!(result.unwrap().unwrap(), 7);
});

each_method_alone!(
    a_process_that_fills_every_socket_it_has_stops_no_other,
    |method| {
        let start = || Process::builder().start_method(method);
        let beside = start().spawn((), |()| std::thread::sleep(Duration::from_millis(300)));
        // It may be at it before the server has told that it runs; then it is killed.
        let wedged = start().daemon(true).spawn((), |()| {
            unsafely::fill_sockets();
            std::process::exit(7)
        });
        let wedged: Option<Process<()>> = wedged.ok();
        if let Some(wedged) = &wedged {
            // Nobody reads its socket meanwhile, so that the server finds it full when the process has ended.
            poll(LIMIT, || process(wedged.pid()), Option::is_none);
        }
        assert_eq!(start().spawn(5, |n: i32| n).unwrap().join().unwrap(), 5);
        if let Some(Err(error)) = wedged.map(Process::join) {
            assert!(error.is_crash(), "{error}");
            let status = error.exit_status();
            assert!(
                status.is_none_or(|status| status.code() == Some(7)),
                "{error}"
            );
        }
        beside.unwrap().join().unwrap();
    }
);

each_method_alone!(
    a_dead_worker_whose_socket_a_fork_holds_open_costs_no_processor_time,
    |method| {
        let pool = pool(method, 2);
        assert_serves(&pool);
        let holder = unsafely::fork_idle_child();
        let [first, _] = pool.worker_pids()[..] else {
            panic!("two workers")
        };
        kill_hard(first);
        assert_serves(&pool);
        let spent = || {
            let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
            (usage.user_time() + usage.system_time()).num_milliseconds()
        };
        let before = spent();
        let waited = pool.apply((), |()| std::thread::sleep(Duration::from_secs(1)));
        let spent = spent() - before;
        kill_hard(holder);
        common::unsafely::wait_for(common::pid_of(holder));
        waited.unwrap();
        assert!(spent < 500, "{spent} ms of processor time to wait for 1 s");
    }
);

each_method_alone!(
    a_result_that_there_is_no_descriptor_left_to_send_is_told,
    |method| {
        // One that is large travels in a memory file.
        let child = Process::builder().start_method(method).spawn((), |()| {
            while let Ok(file) = fs::File::open("/dev/null") {
                std::mem::forget(file);
            }
            vec![1_u8; 1 << 20]
        });
        let error = child.unwrap().join().unwrap_err();
        assert_eq!(error.kind(), TaskErrorKind::System, "{error}");
        assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}");
    }
);

each_method_alone!(
    a_process_that_floods_its_own_socket_keeps_nobody_longer_than_the_limit,
    |method| {
        let gate = Gate::new();
        let flood = |gate: PathBuf| {
            pass(&gate);
            unsafely::flood_sockets()
        };
        let child = Process::builder().start_method(method);
        let mut child: Process<()> = child.spawn(gate.path(), flood).unwrap();
        // Before it was told to run, what it floods would be what tells that.
        gate.let_through(1);
        for _ in 0..5 {
            let limit = Duration::from_millis(100);
            assert!(child.wait_timeout(limit).unwrap().is_none());
        }
        assert!(child.is_alive());
        child.kill().unwrap();
        // It is heard no more. How it ended is known where the kernel keeps that, and nobody need tell it.
        match child.wait() {
            Ok(status) => assert_eq!(status.signal(), Some(9)),
            Err(error) => assert!(error.to_string().contains("filled the socket"), "{error}"),
        }
        assert!(!child.is_alive());
        assert!(child.join().unwrap_err().is_crash());
    }
);

each_method_alone!(
    a_result_that_there_is_no_descriptor_left_to_receive_is_told,
    |method| {
        // One that is large travels in a memory file.
        let gate = Gate::new();
        let child = Process::builder().start_method(method);
        let large = |gate: PathBuf| {
            pass(&gate);
            vec![1_u8; 1 << 20]
        };
        let mut child = child.spawn(gate.path(), large).unwrap();
        // Had it been done before it was told to run, its result would have come with that.
        gate.let_through(1);
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 100, hard).unwrap();
        let mut taken = Vec::new();
        while let Ok(file) = fs::File::open("/dev/null") {
            taken.push(file);
        }
        let ended = child.wait();
        drop(taken);
        assert!(ended.unwrap().success());
        let error = child.join().unwrap_err();
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        assert_eq!(error.kind(), TaskErrorKind::System, "{error}");
        assert!(
            error.to_string().contains("RLIMIT_NOFILE is 100"),
            "{error}"
        );
    }
);

#[test]
fn a_server_that_may_open_no_more_refuses_and_lives_on() {
    let name = "a_server_that_may_open_no_more_refuses_and_lives_on";
    let test = alone::test_path(module_path!(), name);
    alone::in_own_process(&test, LIMIT, || {
        // The server takes what the hard limit allows, and needs a descriptor for each process that runs.
        setrlimit(Resource::RLIMIT_NOFILE, 40, 40).unwrap();
        let servers = || -> Vec<u32> {
            let family = family(std::process::id(), alone::mark().as_deref());
            let servers = common::census::servers(&family);
            servers.iter().map(|server| server.pid).collect()
        };
        for method in [StartMethod::ForkServer, StartMethod::Spawn] {
            let start = || Process::builder().start_method(method);
            assert_eq!(start().spawn(1, |n: i32| n).unwrap().join().unwrap(), 1);
            // A process that was forked just now has its name still.
            let [server] = servers()[..] else {
                panic!("one server")
            };
            let mut refused = None;
            for _ in 0..60 {
                let sleeper = start().daemon(true).spawn((), |()| {
                    loop {
                        std::thread::park();
                    }
                });
                let sleeper: multiprocess::Result<Process<()>> = sleeper;
                if let Err(error) = sleeper {
                    refused = Some(error.to_string());
                    break;
                }
            }
            let refused = refused.expect("more processes than descriptors");
            assert!(refused.contains("RLIMIT_NOFILE is 40"), "{refused}");
            assert!(servers().contains(&server));
            let sleepers = multiprocess::active_children();
            assert!(sleepers.len() > 10, "{sleepers:?}");
            sleepers.iter().for_each(|one| kill_hard(one.pid()));
            poll(LIMIT, multiprocess::active_children, Vec::is_empty);
            assert_eq!(start().spawn(2, |n: i32| n).unwrap().join().unwrap(), 2);
            assert!(servers().contains(&server));
        }
    });
}

#[test]
fn what_a_refused_request_has_told_is_told_again() {
    let name = "what_a_refused_request_has_told_is_told_again";
    let test = alone::test_path(module_path!(), name);
    alone::in_own_process(&test, LIMIT, || {
        setrlimit(Resource::RLIMIT_NOFILE, 40, 40).unwrap();
        for method in [StartMethod::ForkServer, StartMethod::Spawn] {
            let start = || Process::builder().start_method(method).daemon(true);
            let forever = |_: Vec<SharedSlice<u8>>| loop {
                std::thread::park();
            };
            // More than there is room for, and then all that there is.
            let slices = (0..15).map(|number| SharedSlice::from_slice(&[number; 1 << 16]).unwrap());
            let slices: Vec<SharedSlice<u8>> = slices.collect();
            for _ in 0..16 {
                let _runs: Process<()> = start().spawn(Vec::new(), forever).unwrap();
            }
            let told = format!("by {method:?}");
            unsafely::set_environment("TOLD", &told);
            let refused = start().spawn(slices, forever).map(|_: Process<()>| ());
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("the server"), "{refused}");
            let sleepers = multiprocess::active_children();
            sleepers.iter().for_each(|one| kill_hard(one.pid()));
            poll(LIMIT, multiprocess::active_children, Vec::is_empty);
            let seen = start().spawn((), |()| std::env::var("TOLD").unwrap());
            assert_eq!(seen.unwrap().join().unwrap(), told);
        }
    });
}

#[test]
fn who_has_given_up_rights_starts_nothing_that_has_them() {
    let name = "who_has_given_up_rights_starts_nothing_that_has_them";
    let test = alone::test_path(module_path!(), name);
    alone::in_own_process(&test, LIMIT, || {
        let user = || nix::unistd::geteuid().as_raw();
        let start = |method| Process::builder().start_method(method).daemon(true);
        let methods = [StartMethod::ForkServer, StartMethod::Spawn];
        let forever = |()| loop {
            std::thread::park();
        };
        let before: Vec<Process<()>> = methods
            .iter()
            .map(|&method| start(method).spawn((), forever).unwrap())
            .collect();
        let was_root = nix::unistd::geteuid().is_root();
        if was_root {
            unsafely::become_nobody();
        }
        for method in methods {
            let child = start(method).spawn((), |()| nix::unistd::geteuid().as_raw());
            assert_eq!(child.unwrap().join().unwrap(), user());
        }
        assert_eq!(multiprocess::active_children().len(), 2);
        if was_root {
            // It may not be signalled any more, and ends with the program.
            assert!(before.iter().all(|child| child.kill().is_err()));
        }
        assert!(before.iter().all(Process::is_alive));
    });
}

/// Encodes as a length, and wants to be decoded as that many bytes.
struct Lie(u64);

impl Serialize for Lie {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Lie {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Lie, D::Error> {
        String::deserialize(deserializer).map(|text| Lie(text.len() as u64))
    }
}

each_method_alone!(a_length_that_is_not_there_asks_for_no_memory, |method| {
    let pool = pool(method, 1);
    assert_serves(&pool);
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    let (soft, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
    // An allocation of more than this aborts the process.
    setrlimit(Resource::RLIMIT_AS, (pages << 12) + (256 << 20), hard).unwrap();
    let told: Vec<_> = [1 << 30, 1 << 33, 1 << 62]
        .into_iter()
        .map(|length| pool.apply(length, Lie))
        .collect();
    setrlimit(Resource::RLIMIT_AS, soft, hard).unwrap();
    for result in told {
        let error = result.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), TaskErrorKind::ResultDecoding);
    }
    assert_serves(&pool);
});

#[test]
fn a_directory_that_may_be_entered_and_not_read_is_the_processes_too() {
    let name = "a_directory_that_may_be_entered_and_not_read_is_the_processes_too";
    let test = alone::test_path(module_path!(), name);
    alone::in_own_process(&test, LIMIT, || {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(&inner, Permissions::from_mode(0o111)).unwrap();
        // In a fork, since who gives up the rights of the superuser could not take the directory away.
        let code = unsafely::in_fork(|| {
            // The superuser may read everything.
            if nix::unistd::geteuid().is_root() {
                unsafely::become_nobody();
            }
            std::env::set_current_dir(&inner).unwrap();
            assert!(fs::read_dir(".").is_err(), "nothing is tested");
            for method in [StartMethod::ForkServer, StartMethod::Spawn] {
                let child = Process::builder().start_method(method);
                let there = child.spawn((), |()| fs::metadata(".").map(|it| inode(&it)).ok());
                let here = fs::metadata(".").map(|it| inode(&it)).ok();
                assert_eq!(there.unwrap().join().unwrap(), here);
                assert!(here.is_some());
            }
        });
        assert_eq!(code, 0, "see above");
        fs::set_permissions(&inner, Permissions::from_mode(0o711)).unwrap();
    });
}

fn inode(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[test]
fn where_a_thread_runs_before_main_processes_have_the_present_environment() {
    let name = "where_a_thread_runs_before_main_processes_have_the_present_environment";
    let test = alone::test_path(module_path!(), name);
    alone::in_own_process(&test, LIMIT, || {
        unsafely::set_environment(unsafely::THREAD_BEFORE_MAIN, "1");
        for value in ["one", "two"] {
            unsafely::set_environment("MULTIPROCESS_TEST_VALUE", value);
            for method in [StartMethod::ForkServer, StartMethod::Spawn] {
                let child = Process::builder().start_method(method).env("BESIDE", "own");
                let there = child.spawn((), |()| {
                    let threads = fs::read_dir("/proc/self/task").unwrap().count();
                    let value = std::env::var("MULTIPROCESS_TEST_VALUE").ok();
                    (threads, value, std::env::var("BESIDE").ok())
                });
                let (threads, there, beside) = there.unwrap().join().unwrap();
                assert!(threads > 1, "nothing is tested");
                assert_eq!(there.as_deref(), Some(value));
                assert_eq!(beside.as_deref(), Some("own"));
            }
        }
        assert_serves(&pool(StartMethod::ForkServer, 2));
    });
}

#[test]
fn a_constructor_that_starts_a_process_does_so_once() {
    let name = "a_constructor_that_starts_a_process_does_so_once";
    let test = alone::test_path(module_path!(), name);
    if alone::role().is_some() {
        let child = Process::builder().start_method(StartMethod::Spawn);
        assert_eq!(child.spawn(1, |n: i32| n).unwrap().join().unwrap(), 1);
        return;
    }
    let application = alone::Application::new(&test, "application");
    let ended = application
        .env(unsafely::PROCESS_BEFORE_MAIN, "1")
        .start()
        .wait(LIMIT);
    assert!(ended.status.success(), "{}\n{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("before main: 21"), "{}", ended.stdout);
    ended.assert_nothing_left();
}

#[test]
fn a_constructor_behind_the_librarys_that_starts_a_process_does_so_once() {
    let name = "a_constructor_behind_the_librarys_that_starts_a_process_does_so_once";
    let test = alone::test_path(module_path!(), name);
    if alone::role().is_some() {
        let child = Process::builder().start_method(StartMethod::Spawn);
        assert_eq!(child.spawn(1, |n: i32| n).unwrap().join().unwrap(), 1);
        // What is forked from an image that serves may start some.
        let child = Process::spawn((), |()| Process::spawn(2, |n: i32| n).unwrap().join());
        assert_eq!(child.unwrap().join().unwrap().unwrap(), 2);
        return;
    }
    let application = alone::Application::new(&test, "application");
    let ended = application
        .env(unsafely::PROCESS_BEHIND, "1")
        .start()
        .wait(LIMIT);
    assert!(ended.status.success(), "{}\n{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("behind: 21"), "{}", ended.stdout);
    assert!(
        ended
            .stdout
            .contains("a constructor of the program starts it"),
        "{}",
        ended.stdout
    );
    assert!(!ended.stdout.contains("without end"), "{}", ended.stdout);
    ended.assert_nothing_left();
}

fault_row!(a_pool_that_is_refused_says_which_limit_it_was, |method| {
    let served = pool(method, 2);
    // What it needs for asynchronous calls is there.
    served.apply_async((), |()| ()).get().unwrap();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // The lowest number that is free: what is open above it, whoever left that to this process, does not count.
    let lowest = fs::File::open("/dev/null").unwrap().as_raw_fd() as u64;
    let mut refusals = 0;
    // At each number of free descriptors another step is the first that has none.
    for free in 0..16 {
        setrlimit(Resource::RLIMIT_NOFILE, lowest + free, hard).unwrap();
        fault::strike();
        let built = Pool::builder().workers(2).start_method(method).build();
        if built.is_err() {
            fault::answered("error");
            assert_serves(&served);
        }
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        if let Err(error) = built {
            refusals += 1;
            let limit = format!("RLIMIT_NOFILE is {}", lowest + free);
            assert!(error.to_string().contains(&limit), "{free} free: {error}");
        }
    }
    assert!(refusals > 3, "{refusals}");
    assert_serves(&pool(method, 2));
});

#[test]
fn where_no_more_processes_may_run_that_limit_is_named() {
    let name = "where_no_more_processes_may_run_that_limit_is_named";
    let test = alone::test_path(module_path!(), name);
    alone::in_own_process(&test, LIMIT, || {
        // It does not hold for the superuser.
        if nix::unistd::geteuid().is_root() {
            unsafely::become_nobody();
        }
        let (_, hard) = getrlimit(Resource::RLIMIT_NPROC).unwrap();
        for method in [StartMethod::ForkServer, StartMethod::Spawn] {
            fault::row(name, method, || {
                let served = pool(method, 1);
                assert_serves(&served);
                setrlimit(Resource::RLIMIT_NPROC, 2, hard).unwrap();
                // The server was born under the former limit, and is held to that.
                for server in family(std::process::id(), alone::mark().as_deref()) {
                    if server.command == "forkserver" {
                        kill_hard(server.pid);
                        poll(LIMIT, || server.is_gone(), |gone| *gone);
                    }
                }
                fault::strike();
                let refused = Pool::builder().workers(8).start_method(method).build();
                fault::answered("error");
                let error = refused.unwrap_err().to_string();
                assert!(error.contains("RLIMIT_NPROC is 2"), "{error}");
                // Its worker went with the server that was killed, and is replaced where there is room.
                setrlimit(Resource::RLIMIT_NPROC, hard, hard).unwrap();
                assert_serves(&served);
            });
        }
    });
}

fault_row!(where_memory_is_refused_that_limit_is_named, |method| {
    let served = pool(method, 1);
    // What it needs for asynchronous calls is there.
    served.apply_async((), |()| ()).get().unwrap();
    let pages = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    let (soft, hard) = getrlimit(Resource::RLIMIT_AS).unwrap();
    let limit = (pages << 12) + (3 << 20);
    setrlimit(Resource::RLIMIT_AS, limit, hard).unwrap();
    fault::strike();
    let built = Pool::builder().workers(2).start_method(method).build();
    fault::answered("error");
    assert_serves(&served);
    setrlimit(Resource::RLIMIT_AS, soft, hard).unwrap();
    let error = built.unwrap_err().to_string();
    assert!(error.contains(&format!("RLIMIT_AS is {limit}")), "{error}");
    assert_serves(&pool(method, 2));
});

/// The processors that this thread may run on.
fn allowed() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap();
    (0..CpuSet::count())
        .filter(|&processor| set.is_set(processor).unwrap())
        .collect()
}

fn run_on(processors: &[usize]) {
    let mut set = CpuSet::new();
    for &processor in processors {
        set.set(processor).unwrap();
    }
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}

each_method_alone!(
    a_worker_that_is_sent_off_its_callers_processor_may_run_where_it_might_before,
    |method| {
        let pool = Pool::builder()
            .workers(1)
            .start_method(method)
            .build()
            .unwrap();
        let before = allowed();
        assert_eq!(pool.apply((), |()| allowed()).unwrap(), before);
        let here = before[0];
        run_on(&[here]);
        let put_there = |here: usize| {
            let before = allowed();
            run_on(&[here]);
            run_on(&before);
        };
        for _ in 0..10 {
            pool.apply(here, put_there).unwrap();
            for _ in 0..200 {
                assert_eq!(pool.apply((), |()| allowed()).unwrap(), before);
            }
        }
        run_on(&before);
    }
);
