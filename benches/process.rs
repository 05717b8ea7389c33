//! What it costs to start a process and join it, beside the least that a process costs, and whether the size of who starts
//! it matters: side by side in one run.
//!
//! `cargo bench --bench process` takes under a minute and 5 GiB of memory; with `-- --test` it makes one small round that
//! checks results only.

#![allow(clippy::unwrap_used, reason = "a bench that cannot run is to stop")]

mod baseline;
#[allow(dead_code, reason = "the bench `bars` uses the rest")]
mod report;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use multiprocess::{Process, StartMethod};

use baseline::child::fork_and_wait;
use baseline::ourselves;
use report::{Bar, Line};

/// Says that this image is one of the parents, and how many MiB it is to hold.
const PARENT: &str = "--parent-of-mib";

fn main() {
    if ourselves::play_role() || play_parent() {
        return;
    }
    let has = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    if has("--list") {
        return;
    }
    // Like criterion's benches: measured is only what `cargo bench` started.
    let is_full = has("--bench") && !has("--test");
    let (rounds, starts, sizes) = if is_full {
        (25, 20, [10, 1024, 4096])
    } else {
        (1, 2, [10, 20, 40])
    };
    let mut lines = [
        Line::new("ForkServer; limit: fork", Bar::TimesLimit(2.5), move || {
            each(starts, || start(StartMethod::ForkServer))
        })
        .limit(move || each(starts, fork_and_wait)),
        Line::new("Spawn; limit: exec", Bar::TimesLimit(1.5), move || {
            each(starts, || start(StartMethod::Spawn))
        })
        .limit(move || {
            each(starts, || {
                ourselves::exec_and_wait();
            })
        }),
    ];
    report::measure(&mut lines, rounds);

    let [small, large, largest] = sizes.map(|mib| std::cell::RefCell::new(Parent::new(mib)));
    let from = |parent: &std::cell::RefCell<Parent>| parent.borrow_mut().measure(starts);
    let mut parents = [
        Line::new(
            "from 1 GiB; limit: from 10 MiB",
            Bar::TimesLimit(1.1),
            || from(&large),
        )
        .limit(|| from(&small)),
        Line::new(
            "from 4 GiB; limit: from 10 MiB",
            Bar::TimesLimit(1.1),
            || from(&largest),
        )
        .limit(|| from(&small)),
    ];
    report::measure(&mut parents, rounds);
    if is_full {
        println!("\nMedians of {rounds} interleaved rounds, fastest in brackets.\n");
        report::print(lines.iter().chain(&parents), false);
    } else {
        println!("\nEvery result was right. The sizes are small and the times mean nothing.");
    }
}

fn start(method: StartMethod) {
    let child = Process::builder()
        .start_method(method)
        .spawn(20, |n: u64| n + 1);
    assert_eq!(child.unwrap().join().unwrap(), 21);
}

/// How long one of them takes, on average, behind one that warms up.
fn each(times: u32, mut work: impl FnMut()) -> Duration {
    work();
    let start = Instant::now();
    for _ in 0..times {
        work();
    }
    start.elapsed() / times
}

/// A program of its own that holds much memory, and starts processes when it is told to.
struct Parent {
    process: Child,
    answers: BufReader<ChildStdout>,
}

impl Parent {
    fn new(mib: u32) -> Parent {
        let mut process = Command::new("/proc/self/exe")
            .args([PARENT, &mib.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let mut parent = Parent { process, answers };
        // It has its memory when it has answered.
        parent.measure(1);
        parent
    }

    fn measure(&mut self, starts: u32) -> Duration {
        writeln!(self.process.stdin.as_mut().unwrap(), "{starts}").unwrap();
        let mut nanos = String::new();
        self.answers.read_line(&mut nanos).unwrap();
        Duration::from_nanos(nanos.trim().parse().unwrap())
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().unwrap().success());
    }
}

/// Is one of the parents, if this process was started for that: then `main` is to return.
fn play_parent() -> bool {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some(PARENT) {
        return false;
    }
    let mib: usize = arguments.next().unwrap().parse().unwrap();
    let mut memory = vec![0u8; mib << 20];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    for line in std::io::stdin().lines() {
        let starts = line.unwrap().parse().unwrap();
        println!(
            "{}",
            each(starts, || start(StartMethod::ForkServer)).as_nanos()
        );
    }
    std::hint::black_box(&memory);
    true
}
