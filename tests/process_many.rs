//! Many processes, in a row and at once; which of them are alive; and what the kernel holds them to.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::alone::{in_own_process, test_path};
use common::census::{poll, process};
use common::meet::{Gate, pass};
use common::unsafely::keep_to_processor;
use common::{LIMIT, LONG_LIMIT, every_method_alone, pool};
use multiprocess::{Process, StartMethod, active_children, available_parallelism};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

fn builder(method: StartMethod) -> multiprocess::ProcessBuilder {
    Process::builder().start_method(method)
}

every_method_alone!(
    a_hundred_joined_and_a_hundred_terminated_end_as_they_should,
    LONG_LIMIT,
    |method| {
        let start = |n| {
            builder(method)
                .spawn(n, |n: i32| std::process::exit(n))
                .unwrap()
        };
        let exiting: Vec<Process<()>> = (0..100).map(start).collect();
        for (code, mut child) in (0..).zip(exiting) {
            assert_eq!(child.wait().unwrap().code(), Some(code));
        }
        let gate = Gate::new();
        let start = |_| {
            builder(method)
                .spawn(gate.path(), |gate| pass(&gate))
                .unwrap()
        };
        let waiting: Vec<Process> = (0..100).map(start).collect();
        waiting.iter().for_each(|child| child.terminate().unwrap());
        for mut child in waiting {
            assert_eq!(child.wait().unwrap().signal(), Some(15));
        }
    }
);

every_method_alone!(a_thousand_in_a_row_return, LONG_LIMIT, |method| {
    for round in 0..1000_u32 {
        let child = builder(method).spawn(round, |round| round + 1).unwrap();
        assert_eq!(child.join().unwrap(), round + 1);
    }
});

every_method_alone!(those_that_are_alive_are_known_by_name, |method| {
    assert!(active_children().is_empty());
    let gate = Gate::new();
    let start = |name: &str| {
        let builder = builder(method).name(name);
        builder.spawn(gate.path(), |gate| pass(&gate)).unwrap()
    };
    let (held, detached) = (start("held"), start("detached"));
    let pids = [held.pid(), detached.pid()];
    drop(detached);
    let names = || {
        let alive = active_children();
        let named = alive.iter().map(|one| (one.name().to_owned(), one.pid()));
        named.collect::<BTreeSet<(String, u32)>>()
    };
    let both = [
        ("held".to_owned(), pids[0]),
        ("detached".to_owned(), pids[1]),
    ];
    assert_eq!(names(), BTreeSet::from(both.clone()));
    let pool = pool(method, 2);
    let workers = BTreeSet::from_iter(pool.worker_pids());
    let all = BTreeSet::from_iter(names().into_iter().map(|(_, pid)| pid));
    assert_eq!(all, workers.union(&BTreeSet::from(pids)).copied().collect());
    drop(pool);
    held.kill().unwrap();
    held.join().unwrap_err();
    assert_eq!(names(), BTreeSet::from([both[1].clone()]));
    // A child has children of its own only.
    let none = builder(method).spawn((), |()| active_children().is_empty());
    assert!(none.unwrap().join().unwrap());
    gate.let_through(1);
    let left = poll(LIMIT, names, BTreeSet::is_empty);
    assert_eq!(left, BTreeSet::new());
});

every_method_alone!(the_kernel_shows_name_and_parent, |method| {
    let gate = Gate::new();
    let child = builder(method).name("resize the big pictures");
    let child = child.spawn(gate.path(), |gate| pass(&gate)).unwrap();
    let shown = || process(child.pid()).unwrap();
    let seen = poll(LIMIT, shown, |seen| {
        seen.command == "resize the big " && seen.state == 'S'
    });
    assert_eq!(
        (seen.command.as_str(), seen.state),
        ("resize the big ", 'S')
    );
    let parent = process(seen.parent).unwrap();
    let name = if method == StartMethod::Fork {
        "minder"
    } else {
        "forkserver"
    };
    assert_eq!(parent.command, name);
    gate.let_through(1);
    child.join().unwrap();
});

every_method_alone!(ps_shows_them_to_whoever_looks, |method| {
    let gate = Gate::new();
    let named = |name: &str| {
        let child = builder(method).name(name);
        child.spawn(gate.path(), |gate| pass(&gate)).unwrap()
    };
    let children = [named("resize"), named("upload")];
    let ps = |pid: u32| {
        let columns = ["-o", "pid=,ppid=,comm=", "-p"];
        let shown = Command::new("ps")
            .args(columns)
            .arg(pid.to_string())
            .output();
        shown
            .ok()
            .map(|shown| String::from_utf8(shown.stdout).unwrap())
    };
    if ps(std::process::id()).is_none() {
        eprintln!("skipped: there is no `ps`");
    } else {
        for (child, name) in children.iter().zip(["resize", "upload"]) {
            let is_named = |row: &String| row.split_whitespace().nth(2) == Some(name);
            let row = poll(LIMIT, || ps(child.pid()).unwrap(), is_named);
            let fields: Vec<&str> = row.split_whitespace().collect();
            assert_eq!((fields[0], fields[2]), (&*child.pid().to_string(), name));
            let parent = ps(fields[1].parse().unwrap()).unwrap();
            let expected = if method == StartMethod::Fork {
                "minder"
            } else {
                "forkserver"
            };
            assert!(parent.trim_end().ends_with(expected), "{parent}");
            print!("ps={row}");
        }
    }
    gate.let_through(2);
    children.into_iter().for_each(|child| child.join().unwrap());
});

every_method_alone!(
    limits_processors_and_file_modes_are_those_of_the_moment,
    |method| {
        let seen = || {
            let child = builder(method).spawn((), |()| {
                let mode = umask(Mode::empty()).bits();
                let (soft, _) = getrlimit(Resource::RLIMIT_CORE).unwrap();
                let (files, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
                (mode, soft, files, available_parallelism())
            });
            child.unwrap().join().unwrap()
        };
        let (_, hard) = getrlimit(Resource::RLIMIT_CORE).unwrap();
        let (files, files_hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let mask = umask(Mode::from_bits_truncate(0o022));
        assert_eq!(
            seen(),
            (
                0o022,
                getrlimit(Resource::RLIMIT_CORE).unwrap().0,
                files,
                available_parallelism()
            )
        );
        umask(Mode::from_bits_truncate(0o027));
        setrlimit(Resource::RLIMIT_CORE, 0, hard).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, files - 1, files_hard).unwrap();
        keep_to_processor(0);
        assert_eq!(seen(), (0o027, 0, files - 1, 1));
        setrlimit(Resource::RLIMIT_NOFILE, files, files_hard).unwrap();
        umask(Mode::from_bits_truncate(0o077));
        assert_eq!(seen(), (0o077, 0, files, 1));
        umask(mask);
    }
);

every_method_alone!(
    where_descriptors_run_out_the_limit_is_named_and_nothing_runs,
    |method| {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 100, hard).unwrap();
        let (mut refused, mut served) = (0, 0);
        for left in 0..14 {
            let mut taken = Vec::new();
            while let Ok(file) = File::open("/dev/null") {
                taken.push(file);
            }
            taken.truncate(taken.len() - left);
            let started = builder(method).spawn(7, |n: i32| n);
            let joined = started.map(Process::join);
            drop(taken);
            match joined {
                Ok(Ok(7)) => served += 1,
                Ok(other) => panic!("with {left} left: {other:?}"),
                Err(error) => {
                    refused += 1;
                    assert!(
                        error.to_string().contains("RLIMIT_NOFILE is 100"),
                        "{error}"
                    );
                    let alive = poll(LIMIT, active_children, Vec::is_empty);
                    assert!(alive.is_empty(), "with {left} left: {alive:?}");
                }
            }
        }
        assert!(
            refused > 0 && served > 0,
            "{refused} refused, {served} served"
        );
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    }
);

/// The median of a few starts.
fn time_to_start() -> Duration {
    let mut times: Vec<Duration> = (0..21)
        .map(|_| {
            let started = Instant::now();
            Process::spawn((), |()| ()).unwrap().join().unwrap();
            started.elapsed()
        })
        .collect();
    times.sort();
    times[times.len() / 2]
}

#[test]
fn a_large_application_starts_processes_as_fast_as_a_small_one() {
    let test = test_path(
        module_path!(),
        "a_large_application_starts_processes_as_fast_as_a_small_one",
    );
    in_own_process(&test, LIMIT, || {
        let small = time_to_start();
        let mut memory = vec![0u8; 1 << 30];
        memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        let large = time_to_start();
        // A fork of it would take tens of milliseconds. The machine may be busy, now more than before.
        assert!(
            large < small * 4 + Duration::from_millis(5),
            "{small:?} small, {large:?} with {} MiB",
            std::hint::black_box(memory).len() >> 20
        );
    });
}
