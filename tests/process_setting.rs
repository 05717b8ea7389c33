//! What surrounds a process: its name, what it inherits, and what becomes of it when the program ends. The programs here
//! are this test binary, executed again.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::alone::{Application, act_and_method, in_own_process, role, role_of, test_path};
use common::census::{ProcessInfo, idle, poll, process, wait_until_gone};
use common::fault::{self, every_fault_row, fault_row};
use common::meet::{Ear, Gate, pass, say};
use common::unsafely::{plays_before_main, set_environment};
use common::{LIMIT, every_method, every_method_alone, pid_of, pool};
use multiprocess::{Pipe, Process, StartMethod, current_process};
use nix::sys::signal::{Signal, kill};
use std::env;
use std::io::Read;
use std::path::PathBuf;

every_method_alone!(a_name_is_given_or_counted, |method| {
    let by_method = || Process::builder().start_method(method);
    let first = by_method()
        .spawn((), |()| current_process().name().to_owned())
        .unwrap();
    let second = by_method()
        .spawn((), |()| current_process().name().to_owned())
        .unwrap();
    let number = |name: &str| {
        name.strip_prefix("Process-")
            .unwrap()
            .parse::<u32>()
            .unwrap()
    };
    assert!(number(first.name()) >= 1);
    assert_eq!(number(second.name()), number(first.name()) + 1);
    for process in [first, second] {
        let name = process.name().to_owned();
        assert_eq!(process.join().unwrap(), name, "it knows its own name");
    }

    let given = by_method()
        .name("résumé of 7")
        .spawn((), |()| current_process().name().to_owned())
        .unwrap();
    assert_eq!(given.name(), "résumé of 7");
    assert_eq!(given.join().unwrap(), "résumé of 7");
});

/// What a process has open.
fn open_in(pid: u32) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = entries.map(|entry| std::fs::read_link(entry.unwrap().path()));
    links.filter_map(Result::ok).collect()
}

/// What this process has open, and what the fork server has.
fn open_here_and_above() -> Vec<PathBuf> {
    let mut all = open_in(std::process::id());
    all.extend(open_in(std::os::unix::process::parent_id()));
    all
}

/// Before the first process is started, so that all are looked at that could inherit it.
fn leave_a_pipe_open(method: StartMethod) {
    // Without close-on-exec, as that is which a shell has opened for the application.
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&writer);
    let pipe = std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
    assert!(open_in(std::process::id()).contains(&pipe));
    for is_daemon in [false, true] {
        let builder = Process::builder().start_method(method).daemon(is_daemon);
        let child = builder.spawn((), |()| open_here_and_above()).unwrap();
        let theirs = child.join().unwrap();
        assert!(!theirs.contains(&pipe), "{theirs:?}");
    }
    let theirs = pool(method, 1).apply((), |()| open_here_and_above());
    let theirs = theirs.unwrap();
    assert!(!theirs.contains(&pipe), "{theirs:?}");
    drop((reader, writer));
}

mod what_the_application_leaves_open_for_others_is_not_open_in_its_processes {
    use super::*;

    #[test]
    fn fork_server() {
        let test = test_path(module_path!(), "fork_server");
        in_own_process(&test, LIMIT, || leave_a_pipe_open(StartMethod::ForkServer));
    }

    #[test]
    fn spawn() {
        let test = test_path(module_path!(), "spawn");
        in_own_process(&test, LIMIT, || leave_a_pipe_open(StartMethod::Spawn));
    }
}

every_method_alone!(a_childs_child_is_counted_below_its_parent, |method| {
    let child = Process::builder()
        .start_method(method)
        .spawn((), |()| {
            let name = || {
                Process::spawn((), |()| current_process().name().to_owned())
                    .unwrap()
                    .join()
                    .unwrap()
            };
            (current_process().name().to_owned(), name(), name())
        })
        .unwrap();
    let (name, first, second) = child.join().unwrap();
    assert_eq!((first, second), (format!("{name}:1"), format!("{name}:2")));
});

every_method_alone!(it_knows_whether_it_is_a_daemon, |method| {
    for daemon in [true, false] {
        let process = Process::builder()
            .start_method(method)
            .daemon(daemon)
            .spawn((), |()| current_process().is_daemon())
            .unwrap();
        assert_eq!(process.is_daemon(), daemon);
        assert_eq!(process.join().unwrap(), daemon);
    }
    let process = Process::builder()
        .start_method(method)
        .spawn((), |()| ())
        .unwrap();
    assert!(!process.is_daemon());
    process.join().unwrap();
});

every_method_alone!(
    environment_and_folder_are_those_of_the_parent_at_the_time,
    |method| {
        let look = || {
            let process = Process::builder()
                .start_method(method)
                .spawn((), |()| {
                    (
                        env::var("MULTIPROCESS_TEST_WORD").ok(),
                        env::current_dir().unwrap(),
                    )
                })
                .unwrap();
            process.join().unwrap()
        };
        let start = env::current_dir().unwrap();
        assert_eq!(look(), (None, start.clone()));

        // The fork server runs already: what it has inherited is old by now.
        let elsewhere = tempfile::tempdir().unwrap();
        let elsewhere_path = elsewhere.path().canonicalize().unwrap();
        set_environment("MULTIPROCESS_TEST_WORD", "new äöü");
        env::set_current_dir(&elsewhere_path).unwrap();
        assert_eq!(look(), (Some("new äöü".to_owned()), elsewhere_path));

        set_environment("MULTIPROCESS_TEST_WORD", "");
        env::set_current_dir(&start).unwrap();
        assert_eq!(look(), (Some(String::new()), start));
    }
);

every_method_alone!(no_trace_of_the_start_is_in_its_environment, |method| {
    let names = |vars: env::Vars| vars.map(|(name, _)| name).collect::<Vec<String>>();
    let process = Process::builder()
        .start_method(method)
        .spawn((), |()| {
            env::vars().map(|(name, _)| name).collect::<Vec<String>>()
        })
        .unwrap();
    let (mut theirs, mut ours) = (process.join().unwrap(), names(env::vars()));
    theirs.sort_unstable();
    ours.sort_unstable();
    assert_eq!(theirs, ours);
});

every_method_alone!(signals_are_not_blocked_in_it, |method| {
    let process = Process::builder()
        .start_method(method)
        .spawn((), |()| {
            std::fs::read_to_string("/proc/self/status").unwrap()
        })
        .unwrap();
    let status = process.join().unwrap();
    let blocked = status
        .lines()
        .find_map(|line| line.strip_prefix("SigBlk:"))
        .unwrap();
    assert_eq!(
        u64::from_str_radix(blocked.trim(), 16).unwrap(),
        0,
        "{status}"
    );
});

plays_before_main!(application);

/// What the applications below do; in an ordinary test run, nothing. Their roles end in the start method.
#[test]
fn application() {
    let Some(role) = role() else { return };
    let (act, method) = act_and_method(&role);
    let path = |name: &str| PathBuf::from(env::var_os(name).unwrap());
    let wait_at_gate = |(ear, gate): (PathBuf, PathBuf)| {
        say(&ear, std::process::id());
        pass(&gate);
        say(&ear, "non-daemon done");
    };
    match act {
        "talks" => {
            let process = Process::builder().start_method(method).spawn((), |()| {
                let mut said = String::new();
                std::io::stdin().read_to_string(&mut said).unwrap();
                println!("out: {said}");
                eprintln!("err: {said}");
                print!("unfinished line");
                said.len()
            });
            assert_eq!(process.unwrap().join().unwrap(), 5);
        }
        "panics" => {
            let process = Process::builder()
                .start_method(method)
                .spawn((), |()| panic!("the child's complaint"));
            assert!(
                process
                    .unwrap()
                    .join()
                    .map(|(): ()| ())
                    .unwrap_err()
                    .is_panic()
            );
        }
        "talks in parts" => {
            print!("the parent's part, ");
            let ends = Process::builder()
                .start_method(method)
                .spawn((), |()| print!("a child's part, "));
            ends.unwrap().join().unwrap();
            let panics = Process::builder().start_method(method).spawn((), |()| {
                print!("a part before a panic, ");
                panic!("enough");
            });
            assert!(panics.unwrap().join().map(|(): ()| ()).is_err());
            print!("the end");
        }
        "closes what it has" => {
            let mut process = Process::builder()
                .start_method(method)
                .spawn((), |()| {
                    nix::unistd::close(1).unwrap();
                    println!("to nobody");
                    print!("nor this");
                    7
                })
                .unwrap();
            assert_eq!(process.wait().unwrap().code(), Some(0));
            assert_eq!(process.join().unwrap(), 7);
        }
        "leaves a daemon" | "leaves a non-daemon" | "keeps a non-daemon" | "dies with both" => {
            if matches!(act, "leaves a daemon" | "dies with both") {
                let paths = (path("EAR"), path("GATE"));
                drop(Process::builder().start_method(method).daemon(true).spawn(
                    paths,
                    |(ear, gate): (PathBuf, PathBuf)| {
                        say(&ear, std::process::id());
                        pass(&gate);
                    },
                ));
            }
            if act != "leaves a daemon" {
                let paths = (path("EAR"), path("GATE"));
                let process = Process::builder()
                    .start_method(method)
                    .spawn(paths, wait_at_gate)
                    .unwrap();
                if act == "keeps a non-daemon" {
                    std::mem::forget(process);
                }
            }
            if act == "dies with both" {
                pass(&path("NEVER"));
            }
            // The program ends here, normally.
        }
        "ends when told" => {
            // So often that the next one is forked ahead.
            let add_one = |n: u32| n + 1;
            for n in 0..20 {
                let process = Process::builder().start_method(method).spawn(n, add_one);
                assert_eq!(process.unwrap().join().unwrap(), n + 1);
            }
            let daemon = Process::builder().start_method(method).daemon(true);
            drop(
                daemon
                    .spawn(path("GATE"), |gate: PathBuf| pass(&gate))
                    .unwrap(),
            );
            if method == StartMethod::ForkServer {
                // There is none where the kernel is too old.
                poll(LIMIT / 60, idle, |idle| !idle.is_empty());
            }
            say(&path("EAR"), "ready");
            std::io::stdin().read_line(&mut String::new()).unwrap();
        }
        "leaves a thread" => {
            let (out, into) = Pipe::<String>::pair().unwrap();
            let receive = |(ear, into): (PathBuf, Pipe<String>)| {
                say(&ear, std::process::id());
                say(&ear, into.recv().unwrap());
            };
            let start = Process::builder().start_method(method);
            drop(start.spawn((path("EAR"), into), receive).unwrap());
            let ear = path("EAR");
            std::thread::spawn(move || {
                let pool = pool(method, 2);
                let sleep = |ear: &PathBuf, _| {
                    say(ear, "an item");
                    // Till it is killed with its worker.
                    std::thread::sleep(LIMIT);
                };
                let ended = pool.with(ear.clone()).map(0..2, sleep);
                assert!(ended.is_err());
                out.send("from the thread".to_owned()).unwrap();
            });
            std::io::stdin().read_line(&mut String::new()).unwrap();
        }
        _ => unreachable!("{act}"),
    }
}

every_method!(
    standard_input_and_output_are_those_of_the_parent,
    |method| {
        let mut running = Application::new("application", &role_of("talks", method))
            .piped_stdin()
            .start();
        running.write("hello");
        running.close_stdin();
        let ended = running.wait(LIMIT);
        assert!(ended.status.success(), "{ended:?}");
        assert!(
            ended.stdout.contains("out: hello\n") && ended.stderr.contains("err: hello\n"),
            "{ended:?}"
        );
        assert!(
            ended.stdout.contains("unfinished line"),
            "what it printed is flushed: {ended:?}"
        );
        ended.assert_nothing_left();
    }
);

every_method!(what_is_printed_in_parts_is_there_once_each, |method| {
    let ended = Application::new("application", &role_of("talks in parts", method))
        .start()
        .wait(LIMIT);
    assert!(ended.status.success(), "{ended:?}");
    for part in [
        "the parent's part, ",
        "a child's part, ",
        "a part before a panic, ",
        "the end",
    ] {
        assert_eq!(ended.stdout.matches(part).count(), 1, "{part}: {ended:?}");
    }
    ended.assert_nothing_left();
});

every_method!(one_that_has_closed_its_output_ends_well, |method| {
    let ended = Application::new("application", &role_of("closes what it has", method))
        .start()
        .wait(LIMIT);
    assert!(ended.status.success(), "{ended:?}");
    ended.assert_nothing_left();
});

every_method!(a_panic_is_told_on_stderr_once, |method| {
    let ended = Application::new("application", &role_of("panics", method))
        .start()
        .wait(LIMIT);
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(
        ended.stderr.matches("the child's complaint").count(),
        1,
        "{ended:?}"
    );
    assert!(
        ended.stderr.contains("tests/process_setting.rs:"),
        "{ended:?}"
    );
    ended.assert_nothing_left();
});

every_method!(a_daemon_is_ended_with_the_program, |method| {
    let (mut ear, gate) = (Ear::new(), Gate::new());
    let role = role_of("leaves a daemon", method);
    let running = Application::new("application", &role)
        .env("EAR", ear.path())
        .env("GATE", gate.path())
        .start();
    let ended = running.wait(LIMIT);
    assert!(ended.status.success(), "{ended:?}");
    ended.assert_nothing_left();
    // It may have been ended before it said anything.
    say(&ear.path(), 0);
    let _ = ear.hear_number();
});

every_method!(
    a_non_daemon_is_waited_for_at_the_end_of_the_program,
    |method| {
        assert_waits_for_non_daemon(&role_of("keeps a non-daemon", method));
    }
);

every_method!(
    a_detached_non_daemon_is_waited_for_at_the_end_of_the_program,
    |method| {
        assert_waits_for_non_daemon(&role_of("leaves a non-daemon", method));
    }
);

fn assert_waits_for_non_daemon(role: &str) {
    let (mut ear, gate) = (Ear::new(), Gate::new());
    let running = Application::new("application", role)
        .env("EAR", ear.path())
        .env("GATE", gate.path())
        .start();
    let child = process(ear.hear_number()).unwrap();
    let parent = process(running.pid()).unwrap();
    // An absence cannot be met on an event: for a moment, neither ends.
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(!child.is_gone(), "the process ended");
    assert!(!parent.is_gone(), "the program did not wait");
    gate.let_through(1);
    let ended = running.wait(LIMIT);
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(ear.hear(), "non-daemon done");
    ended.assert_nothing_left();
}

fault_row!(
    a_non_daemon_that_waits_for_a_thread_of_a_program_that_ends_hears_of_it,
    |method| {
        let mut ear = Ear::new();
        let mut running = Application::new("application", &role_of("leaves a thread", method))
            .env("EAR", ear.path())
            .piped_stdin()
            .start();
        let mut said: Vec<String> = (0..3).map(|_| ear.hear()).collect();
        said.sort();
        assert_eq!(said[1..], ["an item", "an item"]);
        // The workers end now, and that thread replaces them.
        fault::strike();
        running.write("now\n");
        assert_eq!(ear.hear(), "from the thread");
        fault::answered("a word of the thread");
        let ended = running.wait(LIMIT);
        fault::over("its end");
        assert!(ended.status.success(), "{ended:?}");
        ended.assert_nothing_left();
    }
);

every_fault_row!(
    servers_that_are_stopped_do_not_hold_up_the_end_of_the_program,
    |method| {
        let (mut ear, gate) = (Ear::new(), Gate::new());
        let mut running = Application::new("application", &role_of("ends when told", method))
            .env("EAR", ear.path())
            .env("GATE", gate.path())
            .piped_stdin()
            .start();
        assert_eq!(ear.hear(), "ready");
        fault::strike();
        let serves =
            |one: &ProcessInfo| one.command.starts_with("forkserver") || one.command == "minder";
        for one in running.descendants().iter().filter(|one| serves(one)) {
            kill(pid_of(one.pid), Signal::SIGSTOP).unwrap();
        }
        running.write("now\n");
        let ended = running.wait(LIMIT);
        fault::answered("its end");
        assert!(ended.status.success(), "{ended:?}");
        ended.assert_nothing_left();
        fault::over("nothing is left");
    }
);

every_method!(
    a_non_daemon_runs_on_when_the_program_is_killed_and_a_daemon_does_not,
    |method| {
        let (mut ear, gate, never) = (Ear::new(), Gate::new(), Gate::new());
        let running = Application::new("application", &role_of("dies with both", method))
            .env("EAR", ear.path())
            .env("GATE", gate.path())
            .env("NEVER", never.path())
            .start();
        let children: [ProcessInfo; 2] =
            [ear.hear_number(), ear.hear_number()].map(|pid| process(pid).unwrap());
        running.signal(Signal::SIGKILL);
        let ended = running.wait(LIMIT);
        assert_eq!(ended.status.code(), None);
        // One of the two goes, and with it everything else but the other.
        let left = poll(LIMIT, || ended.left(), |left| left.len() <= 1);
        assert_eq!(left.len(), 1, "{left:#?}");
        assert!(
            children.iter().any(|child| child.pid == left[0].pid),
            "{left:#?} of {children:#?}"
        );
        gate.let_through(1);
        assert_eq!(ear.hear(), "non-daemon done");
        wait_until_gone(&left[0]);
        ended.assert_nothing_left();
    }
);
