//! The examples: each is run, and what it prints and how it ends is checked.
//!
//! Cargo builds them before it runs all tests. Where one test file is asked for it does not: `cargo build --examples` first.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

#[path = "../examples/my_func.rs"]
mod my_func;

use common::LIMIT;
use common::alone::Application;
use std::env;
use std::process::Command;

/// Runs an example to its end, which must be a success and leave neither a process nor a file behind; returns the lines that it printed.
fn run(name: &str) -> Vec<String> {
    let test = env::current_exe().unwrap();
    let executable = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(
        executable.exists(),
        "{} is not there: run `cargo build --examples`, or `cargo test`, which builds them",
        executable.display()
    );
    let ended = Application::with(Command::new(executable), name)
        .start()
        .wait(LIMIT);
    assert!(ended.status.success(), "{name}: {ended:#?}");
    assert_eq!(ended.stderr, "", "{name}");
    ended.assert_nothing_left();
    ended.assert_no_files_left();
    ended.stdout.lines().map(str::to_owned).collect()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

fn my_func_lines(i: u32) -> Vec<String> {
    let numbers = (0..=i).map(|j| format!("output from my_func is: {j}"));
    [format!("calling my_func from process no. {i}")]
        .into_iter()
        .chain(numbers)
        .collect()
}

#[test]
fn my_func_prints_0_to_i_here_and_in_a_process() {
    assert_eq!(
        run("my_func"),
        [my_func_lines(5), my_func_lines(5)].concat()
    );
}

#[test]
fn spawning_processes_runs_six_one_after_the_other() {
    let expected: Vec<String> = (0..6).flat_map(my_func_lines).collect();
    assert_eq!(run("spawning_processes"), expected);
}

#[test]
fn spawning_processes_namespace_gives_each_its_argument() {
    let lines = run("spawning_processes_namespace");
    let called: Vec<String> = [1, 2, 4, 8].map(my_func_lines).concat();
    assert_eq!(sorted(lines), sorted(called));
}

#[test]
fn naming_processes_knows_the_given_name_and_makes_the_other() {
    let lines = run("naming_processes");
    let started = "started \"my_func process\" and \"Process-2\"".to_owned();
    assert!(lines.contains(&started), "{lines:#?}");
    for name in ["my_func process", "Process-2"] {
        let place = |line| {
            lines
                .iter()
                .position(|one| *one == format!("{line} process name = {name}"))
        };
        assert!(
            place("starting").unwrap() < place("exiting").unwrap(),
            "{lines:#?}"
        );
    }
    assert_eq!(lines.len(), 5);
}

#[test]
fn process_in_subclass_runs_the_types_own_run() {
    let expected = [
        "called run method in process: Process-1",
        "1 to 10: 55",
        "called run method in process: Process-2",
        "1 to 100: 5050",
        "called run method in process: Process-3",
        "1 to 1000: 500500",
    ];
    assert_eq!(run("process_in_subclass"), expected);
}

#[test]
fn process_pool_squares_0_to_99_in_order() {
    let squares: Vec<u32> = (0..100).map(|data| data * data).collect();
    assert_eq!(run("process_pool"), [format!("pool: {squares:?}")]);
}

#[test]
fn killing_processes_shows_each_state_and_the_signal() {
    let lines = run("killing_processes");
    assert!(lines[0].starts_with("process before start: ") && lines[0].contains("foo"));
    assert_eq!(lines[1], "process running: alive: true");
    assert!(lines[2].starts_with("process terminated: alive: "));
    assert_eq!(lines[3], "process joined: alive: false");
    assert_eq!(lines[4], "process exit status: signal: 15 (SIGTERM)");
    assert_eq!(lines.len(), 5);
}

/// Whether the lines of one process are there, all and in order, whatever stands between them.
fn has_in_order(lines: &[String], expected: &[String]) -> bool {
    let mut rest = lines.iter();
    expected.iter().all(|line| rest.any(|one| one == line))
}

/// What a process of the background examples prints while it counts.
fn counting(name: &str, numbers: std::ops::Range<u32>) -> Vec<String> {
    let counted = numbers.map(|i| format!("{name} ---> {i}"));
    [format!("starting {name}")]
        .into_iter()
        .chain(counted)
        .collect()
}

#[test]
fn run_background_processes_no_daemon_waits_for_both() {
    let lines = run("run_background_processes_no_daemon");
    for (name, numbers) in [
        ("background_process", 0..5),
        ("NO_background_process", 5..10),
    ] {
        let mut expected = counting(name, numbers);
        expected.push(format!("exiting {name}"));
        assert!(has_in_order(&lines, &expected), "{lines:#?}");
    }
    assert!(lines.contains(&"end of main".to_owned()));
    assert_eq!(lines.len(), 15);
}

#[test]
fn crash_isolation_loses_one_item_and_goes_on() {
    let lines = run("crash_isolation");
    assert!(
        lines[0].starts_with("alone: signal: 11 (SIGSEGV)"),
        "{lines:#?}"
    );
    let bytes = format!("{} bytes", env::var("PATH").unwrap().len());
    for line in [1, 2, 3, 5] {
        assert_eq!(lines[line], format!("\"PATH\": {bytes}"));
    }
    assert!(
        lines[4].starts_with("\"NO_SUCH_VARIABLE\": ") && lines[4].contains("SIGSEGV"),
        "{lines:#?}"
    );
    assert_eq!(lines[6], format!("the same pool, afterwards: {bytes}"));
    assert_eq!(lines.len(), 7);
}

#[test]
fn process_barrier_holds_who_comes_first() {
    let lines = run("process_barrier");
    let time = |process: &str, event: &str| -> f64 {
        let at = lines
            .iter()
            .position(|line| line.starts_with(&format!("process {process} ")))
            .unwrap();
        let mut of_process = lines[at + 1..at + 3]
            .iter()
            .filter_map(|line| line.trim().strip_prefix(event));
        of_process
            .next()
            .unwrap()
            .trim()
            .strip_prefix("at ")
            .unwrap()
            .trim_end_matches(" s")
            .parse()
            .unwrap()
    };
    let came = time("p1", "came").max(time("p2", "came"));
    let went_on = time("p1", "went on").min(time("p2", "went on"));
    assert!(came <= went_on, "{lines:#?}");
    for process in ["p3", "p4"] {
        assert!(
            time(process, "came") <= time(process, "went on"),
            "{lines:#?}"
        );
    }
    assert_eq!(lines.len(), 12);
}

#[test]
fn timeouts_end_the_inputs_that_never_end() {
    let lines = run("timeouts");
    let steps = [
        Some(0),
        Some(1),
        Some(4),
        Some(2),
        None,
        Some(5),
        None,
        Some(3),
        None,
        None,
    ];
    for (n, (line, steps)) in (1..).zip(lines.iter().zip(steps)) {
        match steps {
            Some(steps) => assert_eq!(*line, format!("{n}: {steps} steps")),
            None => assert!(
                line.starts_with(&format!("{n}: item {}: its time limit passed", n - 1)),
                "{line}"
            ),
        }
    }
    assert!(lines[10].ends_with(" ms in all"), "{lines:#?}");
    assert_eq!(lines[11], "the pool serves on: 20 steps");
}

#[test]
fn async_pool_awaits_joins_and_cancels() {
    let expected = [
        "squares: [0, 1, 4, 9, 16, 25]",
        "the timer ticked meanwhile: true",
        "together: 9 and 16",
        "too slow: true",
    ];
    assert_eq!(run("async_pool"), expected);
}

#[test]
fn progress_is_shown_by_tenths_and_failures_by_item() {
    let lines = run("progress");
    let tenths = (1..=10).map(|tenth| format!("{} of 200 done", tenth * 20));
    let mut expected: Vec<String> = tenths.collect();
    expected.push("sum: 19602".to_owned());
    assert_eq!(lines[..11], expected);
    assert!(
        lines[11].starts_with("failed: item 99: ") && lines[11].contains("item 99 is broken"),
        "{lines:#?}"
    );
    assert!(
        lines[12].starts_with("failed: item 199: ") && lines[12].contains("item 199 is broken"),
        "{lines:#?}"
    );
    assert_eq!(lines.len(), 13);
}

#[test]
fn daemon_ends_with_the_program() {
    let expected = [
        "starting: daemon",
        "starting: non-daemon",
        "exiting: non-daemon",
    ];
    assert_eq!(run("daemon"), expected);
}

#[test]
fn run_background_processes_cuts_the_daemon_off() {
    let lines = run("run_background_processes");
    let mut expected = counting("NO_background_process", 5..10);
    expected.push("exiting NO_background_process".to_owned());
    assert!(has_in_order(&lines, &expected), "{lines:#?}");
    assert!(
        has_in_order(&lines, &counting("background_process", 0..1)),
        "{lines:#?}"
    );
    assert!(
        !lines.contains(&"exiting background_process".to_owned()),
        "{lines:#?}"
    );
}

#[test]
fn communicating_with_pipe_prints_the_squares_and_the_end() {
    let mut expected: Vec<String> = (0..10).map(|item| (item * item).to_string()).collect();
    expected.push("end".to_owned());
    assert_eq!(run("communicating_with_pipe"), expected);
}

#[test]
fn shared_array_is_filled_by_all_workers() {
    let expected = [
        "input: 8 MiB, shared by all",
        "first: [0.5, 1.0, 1.0, 1.0]",
        "all 1 inside: true",
    ];
    assert_eq!(run("shared_array"), expected);
}

#[test]
fn communicating_with_queue_consumes_what_was_produced() {
    let lines = run("communicating_with_queue");
    let said = |words: &str| -> Vec<u64> {
        let numbers = lines.iter().filter_map(|line| line.strip_prefix(words));
        numbers.map(|number| number.parse().unwrap()).collect()
    };
    let (put, got) = (
        said("process producer: puts "),
        said("process consumer: got "),
    );
    assert_eq!((put.len(), &put), (10, &got), "{lines:#?}");
    assert!(put.iter().all(|&number| number < 256));
    for number in 0..10 {
        let place = |words: &str| {
            let mut said = lines
                .iter()
                .enumerate()
                .filter(|(_, line)| line.starts_with(words));
            said.nth(number).unwrap().0
        };
        assert!(
            place("process producer") < place("process consumer"),
            "{lines:#?}"
        );
    }
    assert_eq!(lines.last().unwrap(), "the queue is closed and empty");
    assert_eq!(lines.len(), 21);
}

#[test]
fn pipeline_keeps_the_order_and_lets_nobody_run_ahead() {
    let lines = run("pipeline");
    for (item, line) in lines[..100].iter().enumerate() {
        assert_eq!(*line, format!("{item} squared is {}", item * item));
    }
    let words: Vec<&str> = lines[100].split(' ').collect();
    assert_eq!(
        (words[..2].join(" "), words[3..].join(" ")),
        ("at most".into(), "of 100 items at once".into())
    );
    let most: u64 = words[2].parse().unwrap();
    assert!((1..=11).contains(&most), "{most}");
    assert_eq!(lines.len(), 101);
}
