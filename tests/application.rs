//! The application itself is mistreated: killed, aborted, interrupted, its executable deleted. Nothing of it may be left.
//! The application is this test binary, executed again.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::alone::{
    Application, Ended, GONE_LIMIT, Running, act_and_method, copy_of_this_binary, role, role_of,
};
use common::census::{ProcessInfo, poll, process};
use common::fault::{self, every_fault_row, fault_row};
use common::meet::{Ear, Gate, pass, say};
use common::unsafely::{at_exit, end_by, plays_before_main};
use common::{LIMIT, assert_serves, pool};
use multiprocess::{Pool, Process, StartMethod};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// How many workers the application has.
const WORKERS: usize = 3;

plays_before_main!(application);

/// What the application does; in an ordinary test run, nothing. A role is an act and a start method.
#[test]
fn application() {
    let Some(role) = role() else { return };
    let (act, method) = act_and_method(&role);
    end_by(Signal::SIGINT);
    match act {
        "sleeps" => sleep_in_workers(&pool(method, WORKERS)),
        "idles" => {
            let pool = pool(method, WORKERS);
            assert_serves(&pool);
            say(&path("EAR"), line_of_pids(&pool));
            thread::sleep(Duration::from_secs(60));
        }
        "nests" => {
            let pool = pool(method, 1);
            let _ = pool.apply((path("EAR"), role.clone()), |(ear, role)| {
                let (_, method) = act_and_method(&role);
                sleep_in_workers_of(&pool_of_sleepers(method), &ear);
            });
            wait_for_the_end();
        }
        "aborts" => {
            sleep_elsewhere(method);
            wait_for_word();
            std::process::abort();
        }
        "panics" => {
            sleep_elsewhere(method);
            wait_for_word();
            panic!("the application's own panic");
        }
        "exits" => {
            sleep_elsewhere(method);
            wait_for_word();
            std::process::exit(5);
        }
        "exits slowly" => {
            // Handlers run in reverse: this one when the library's has run.
            at_exit(start_at_the_end);
            sleep_elsewhere(method);
            wait_for_word();
            std::process::exit(5);
        }
        "goes on" => {
            let early = pool(method, 2);
            assert_serves(&early);
            say(&path("EAR"), "ready");
            wait_for_word();
            start_anew(method);
            // A worker that died is replaced, too.
            assert!(
                early
                    .apply((), |()| std::process::exit(1))
                    .map(|(): ()| ())
                    .unwrap_err()
                    .is_crash()
            );
            assert_serves(&early);
        }
        "begins late" => {
            say(&path("EAR"), "ready");
            wait_for_word();
            start_anew(method);
        }
        _ => unreachable!("{act}"),
    }
}

extern "C" fn start_at_the_end() {
    let role = role().unwrap();
    let (_, method) = act_and_method(&role);
    let started = Process::builder().start_method(method).spawn((), |()| ());
    let line = match started {
        Ok(_) => "started at the end".to_owned(),
        Err(error) => error.to_string(),
    };
    // Not as a test prints, which is kept for a report.
    nix::unistd::write(std::io::stdout(), line.as_bytes()).unwrap();
}

/// As [`sleep_in_workers`], while this thread goes on. Where a second one would be in the way, the processes are no pool's.
fn sleep_elsewhere(method: StartMethod) {
    if method != StartMethod::Fork {
        thread::spawn(move || sleep_in_workers(&pool(method, WORKERS)));
        return;
    }
    let (ear, gate) = (path("EAR"), Gate::new());
    let sleep = |(ear, gate): (PathBuf, PathBuf)| {
        pass(&gate);
        say(&ear, "sleeping");
        thread::sleep(Duration::from_secs(60));
    };
    let start = |_| {
        let process = Process::builder().daemon(true).start_method(method);
        process.spawn((ear.clone(), gate.path()), sleep).unwrap()
    };
    let processes: Vec<Process> = (0..WORKERS).map(start).collect();
    let pids: Vec<String> = processes.iter().map(|one| one.pid().to_string()).collect();
    say(&ear, pids.join(" "));
    gate.let_through(WORKERS);
    std::mem::forget((processes, gate));
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env::var_os(name).unwrap())
}

fn pool_of_sleepers(method: StartMethod) -> Pool {
    pool(method, WORKERS)
}

fn line_of_pids(pool: &Pool) -> String {
    pool.worker_pids()
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Says the pids of the workers, then has each sleep for a minute.
fn sleep_in_workers(pool: &Pool) {
    sleep_in_workers_of(pool, &path("EAR"));
}

fn sleep_in_workers_of(pool: &Pool, ear: &Path) {
    say(ear, line_of_pids(pool));
    let _ = pool
        .with(ear.to_owned())
        .chunk_size(1)
        .map(0..2 * WORKERS, |ear: &PathBuf, _| {
            say(ear, "sleeping");
            thread::sleep(Duration::from_secs(60));
        });
    wait_for_the_end();
}

/// Its workers may end a moment before the application does; it says nothing about that.
fn wait_for_the_end() -> ! {
    loop {
        thread::park();
    }
}

fn wait_for_word() {
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// Starts a process and a pool, and says so.
fn start_anew(method: StartMethod) {
    assert_eq!(process_says_hello(method), "hello");
    say(&path("EAR"), "a process");
    assert_serves(&pool(method, 2));
    say(&path("EAR"), "a pool");
}

fn process_says_hello(method: StartMethod) -> String {
    Process::builder()
        .start_method(method)
        .spawn((), |()| "hello".to_owned())
        .unwrap()
        .join()
        .unwrap()
}

/// An application whose workers all run their items.
struct Busy {
    running: Running,
    /// All that it has started.
    family: Vec<ProcessInfo>,
}

impl Busy {
    fn start(act: &str, method: StartMethod) -> Busy {
        let mut ear = Ear::new();
        let running = Application::new("application", &role_of(act, method))
            .env("EAR", ear.path())
            .piped_stdin()
            .start();
        let workers: BTreeSet<u32> = ear
            .hear()
            .split(' ')
            .map(|pid| pid.parse().unwrap())
            .collect();
        assert_eq!(workers.len(), WORKERS);
        if act != "idles" {
            (0..WORKERS).for_each(|_| assert_eq!(ear.hear(), "sleeping"));
        }
        let family = running.descendants();
        let pids: BTreeSet<u32> = family.iter().map(|process| process.pid).collect();
        assert!(workers.is_subset(&pids), "workers {workers:?} of {pids:?}");
        Busy { running, family }
    }

    /// After something was done to the application: it ends, and within moments so has all that it started.
    fn end(self) -> Ended {
        let ended = self.running.wait(GONE_LIMIT);
        fault::answered("its end");
        let left = poll(
            GONE_LIMIT,
            || {
                self.family
                    .iter()
                    .filter(|process| !process.is_gone())
                    .count()
            },
            |left| *left == 0,
        );
        fault::over("nothing is left");
        let left_by_name: Vec<_> = self
            .family
            .iter()
            .filter(|member| !member.is_gone())
            .map(|member| process(member.pid))
            .collect();
        assert_eq!(left, 0, "left behind: {left_by_name:#?}\n{ended:?}");
        ended.assert_nothing_left();
        ended
    }
}

/// Counts what panics print, wherever they happen.
fn panics_told(ended: &Ended) -> usize {
    ended.stderr.matches("panicked at").count()
}

every_fault_row!(killed_while_workers_work_it_leaves_nothing, |method| {
    let busy = Busy::start("sleeps", method);
    fault::strike();
    busy.running.signal(Signal::SIGKILL);
    assert_eq!(busy.end().status.signal(), Some(9));
});

every_fault_row!(killed_while_workers_idle_it_leaves_nothing, |method| {
    let busy = Busy::start("idles", method);
    fault::strike();
    busy.running.signal(Signal::SIGKILL);
    assert_eq!(busy.end().status.signal(), Some(9));
});

every_fault_row!(
    killed_while_pools_inside_workers_work_it_leaves_nothing,
    |method| {
        let busy = Busy::start("nests", method);
        fault::strike();
        busy.running.signal(Signal::SIGKILL);
        assert_eq!(busy.end().status.signal(), Some(9));
    }
);

every_fault_row!(terminated_while_workers_work_it_leaves_nothing, |method| {
    let busy = Busy::start("sleeps", method);
    fault::strike();
    busy.running.signal(Signal::SIGTERM);
    let ended = busy.end();
    assert_eq!(ended.status.signal(), Some(15));
    assert_eq!(panics_told(&ended), 0, "{ended:?}");
});

every_fault_row!(aborted_while_workers_work_it_leaves_nothing, |method| {
    let mut busy = Busy::start("aborts", method);
    fault::strike();
    busy.running.write("now\n");
    assert_eq!(busy.end().status.signal(), Some(6));
});

every_fault_row!(panicked_while_workers_work_it_leaves_nothing, |method| {
    let mut busy = Busy::start("panics", method);
    fault::strike();
    busy.running.write("now\n");
    let ended = busy.end();
    assert_eq!(ended.status.code(), Some(101));
    assert_eq!(panics_told(&ended), 1, "its own only: {ended:?}");
});

every_fault_row!(exited_while_workers_work_it_leaves_nothing, |method| {
    let mut busy = Busy::start("exits", method);
    fault::strike();
    busy.running.write("now\n");
    assert_eq!(busy.end().status.code(), Some(5));
});

fault_row!(
    exited_while_a_handler_starts_processes_it_leaves_nothing,
    |method| {
        let mut busy = Busy::start("exits slowly", method);
        fault::strike();
        busy.running.write("now\n");
        let ended = busy.end();
        assert_eq!(ended.status.code(), Some(5));
        let why = "the program has come to its end";
        assert!(ended.stdout.contains(why), "{}", ended.stdout);
    }
);

every_fault_row!(
    interrupted_with_its_whole_group_it_ends_at_once_and_quietly,
    |method| {
        let busy = Busy::start("sleeps", method);
        fault::strike();
        busy.running.signal_group(Signal::SIGINT);
        let ended = busy.end();
        assert_eq!(ended.status.signal(), Some(2));
        assert_eq!(ended.stderr, "", "no storm of traces from the workers");
    }
);

every_fault_row!(
    interrupted_while_idle_with_its_whole_group_it_ends_at_once_and_quietly,
    |method| {
        let busy = Busy::start("idles", method);
        fault::strike();
        busy.running.signal_group(Signal::SIGINT);
        let ended = busy.end();
        assert_eq!(ended.status.signal(), Some(2));
        assert_eq!(ended.stderr, "");
    }
);

/// Starts the application from a copy, does something to the copy, and has the application start more processes.
fn with_changed_executable(act: &str, method: StartMethod, change: fn(&Path)) {
    let directory = tempfile::tempdir().unwrap();
    let executable = copy_of_this_binary(directory.path());
    let mut ear = Ear::new();
    let role = role_of(act, method);
    let mut running = Application::of(&executable, "application", &role)
        .env("EAR", ear.path())
        .piped_stdin()
        .start();
    assert_eq!(ear.hear(), "ready");
    fault::strike();
    change(&executable);
    running.write("now\n");
    assert_eq!(ear.hear(), "a process");
    fault::answered("a new process");
    assert_eq!(ear.hear(), "a pool");
    fault::over("all of a new pool's workers serve");
    let ended = running.wait(LIMIT);
    assert!(
        ended.status.success() && ended.stdout.contains("1 passed"),
        "{ended:?}"
    );
    ended.assert_nothing_left();
}

fn replace(executable: &Path) {
    let other = executable.with_extension("new");
    fs::copy("/bin/false", &other).unwrap();
    fs::rename(other, executable).unwrap();
}

every_fault_row!(
    with_its_executable_deleted_it_still_starts_processes,
    |method| {
        for act in ["goes on", "begins late"] {
            with_changed_executable(act, method, |executable| {
                fs::remove_file(executable).unwrap()
            });
        }
    }
);

every_fault_row!(
    with_its_executable_replaced_it_still_starts_processes,
    |method| {
        for act in ["goes on", "begins late"] {
            with_changed_executable(act, method, replace);
        }
    }
);

every_fault_row!(with_its_folder_gone_it_still_starts_processes, |method| {
    for act in ["goes on", "begins late"] {
        with_changed_executable(act, method, |executable| {
            fs::remove_dir_all(executable.parent().unwrap()).unwrap()
        });
    }
});
