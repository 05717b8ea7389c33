//! A crate outside this repository that depends on this one, as a user's does: built plainly, and built with everything that a
//! linker may do to it. Its programs do nothing but what `Pool::new()?.map(..)` needs: no set-up anywhere.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::LONG_LIMIT;
use common::alone::{Application, Ended};
use std::env;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const MANIFEST: &str = r#"
[workspace]
members = ["registers"]

[package]
name = "scratch"
version = "0.0.0"
edition = "2024"

[dependencies]
multiprocess = { path = "MULTIPROCESS" }
registers = { path = "registers" }

[profile.dev]
opt-level = 0

[profile.release]
lto = "fat"
codegen-units = 1
panic = "abort"
strip = true
"#;

const THREE_LINES: &str = r#"
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = multiprocess::Pool::new()?;
    println!("{:?}", pool.map(0..8_u32, |number| number * number)?);
    Ok(())
}
"#;

/// The pool by either method; a panic; what the constructors of another crate have left; and a plain process.
const MORE: &str = r#"
use multiprocess::{Pool, Process, StartMethod, TaskErrorKind};

static STARTED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

fn main() {
    // A worker never comes here.
    assert_eq!(STARTED.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
    println!("main of {}", std::process::id());
    assert_eq!(registers::registered(), registers::EXPECTED);
    for method in [StartMethod::ForkServer, StartMethod::Spawn] {
        let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
        let seen = pool.map(0..4_u32, |_| (registers::registered(), STARTED.load(std::sync::atomic::Ordering::SeqCst))).unwrap();
        for (registered, started) in seen {
            assert_eq!((registered, started), (registers::EXPECTED.map(str::to_owned).to_vec(), 0), "{method:?}");
        }

        let functions = [pool.apply(7, twice::<u8>).unwrap() as u64, pool.apply(7, twice::<u64>).unwrap(), pool.apply(7, same_code).unwrap()];
        assert_eq!(functions, [14, 14, 14]);
        let arguments = pool.apply((), |()| std::env::args().collect::<Vec<_>>()).unwrap();
        println!("{method:?} arguments: {arguments:?}");

        let results: Vec<_> = pool.imap(0..8_u32, |item| if item == 3 { panic!("item three") } else { item }).collect();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 7);
        let error = results[3].as_ref().unwrap_err();
        let kind = if cfg!(panic = "abort") { TaskErrorKind::Crash } else { TaskErrorKind::Panic };
        assert_eq!((error.kind(), error.item()), (kind, Some(3)), "{error}");
        assert_eq!(pool.map(0..8_u32, |item| item + 1).unwrap(), [1, 2, 3, 4, 5, 6, 7, 8]);

        let process = Process::builder().start_method(method).spawn((2_u32, "ab".to_owned()), |(times, text)| text.repeat(times as usize));
        assert_eq!(process.unwrap().join().unwrap(), "abab");
    }
    println!("all is well");
}

fn twice<T: Copy + std::ops::Add<Output = T>>(value: T) -> T {
    value + value
}

fn same_code(value: u64) -> u64 {
    value + value
}
"#;

/// A panic that nobody catches, in `main`, with workers at work.
const PANICS: &str = r#"
use multiprocess::Pool;

fn main() {
    let pool: &'static Pool = Box::leak(Box::new(Pool::builder().workers(2).build().unwrap()));
    println!("{:?}", pool.worker_pids());
    let (say, hear) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut results = pool.job().chunk_size(1).imap(0..8_u64, |item| std::thread::sleep(std::time::Duration::from_secs(item * 60)));
        results.next().unwrap().unwrap();
        say.send(()).unwrap();
        let _ = results.next();
        std::thread::park();
    });
    hear.recv().unwrap();
    panic!("the program's own panic");
}
"#;

/// Registers values before `main`, as the crates `inventory`, `linkme` and `ctor` do.
const REGISTERS: &str = r#"
use std::sync::Mutex;

static REGISTERED: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());

pub const EXPECTED: [&str; 3] = ["one", "three", "two"];

extern "C" fn register_one() {
    REGISTERED.lock().unwrap().push("one");
}

extern "C" fn register_two() {
    REGISTERED.lock().unwrap().push("two");
}

extern "C" fn register_three() {
    REGISTERED.lock().unwrap().push("three");
}

#[used]
#[unsafe(link_section = ".init_array")]
static ONE: extern "C" fn() = register_one;

#[used]
#[unsafe(link_section = ".init_array")]
static TWO: extern "C" fn() = register_two;

#[used]
#[unsafe(link_section = ".init_array.00050")]
static THREE: extern "C" fn() = register_three;

/// What was registered in this process, sorted; each once, however it started.
pub fn registered() -> Vec<String> {
    let mut names: Vec<String> = REGISTERED.lock().unwrap().iter().map(|&name| name.to_owned()).collect();
    names.sort_unstable();
    names
}
"#;

/// The scratch crate and its target folder, both in a temporary folder.
struct Scratch {
    folder: TempDir,
}

impl Scratch {
    fn new() -> Scratch {
        let folder = tempfile::tempdir().unwrap();
        let ours = Path::new(env!("CARGO_MANIFEST_DIR"));
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "Cargo.toml",
            &MANIFEST.replace("MULTIPROCESS", ours.to_str().unwrap()),
        );
        write("src/bin/three_lines.rs", THREE_LINES);
        write("src/bin/more.rs", MORE);
        write("src/bin/panics.rs", PANICS);
        write(
            "registers/Cargo.toml",
            "[package]\nname = \"registers\"\nversion = \"0.0.0\"\nedition = \"2024\"\n",
        );
        write("registers/src/lib.rs", REGISTERS);
        // The versions that are here already: the build is offline.
        fs::copy(ours.join("Cargo.lock"), folder.path().join("Cargo.lock")).unwrap();
        Scratch { folder }
    }

    /// Builds all programs and returns where they are.
    fn build(&self, arguments: &[&str], profile: &str) -> PathBuf {
        let target = self.folder.path().join("target");
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .args(["build", "--offline", "--bins"])
            .args(arguments)
            .current_dir(self.folder.path());
        cargo
            .env("CARGO_TARGET_DIR", &target)
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        let output = cargo.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        target.join(profile)
    }
}

/// Runs one of the programs; fails when it leaves a process behind.
fn run(programs: &Path, name: &str) -> Ended {
    let ended = Application::with(Command::new(programs.join(name)), "scratch")
        .start()
        .wait(LONG_LIMIT);
    ended.assert_nothing_left();
    ended
}

/// What all builds must do.
fn assert_programs_work(programs: &Path) {
    let ended = run(programs, "three_lines");
    assert_eq!(
        (ended.status.code(), ended.stdout.as_str()),
        (Some(0), "[0, 1, 4, 9, 16, 25, 36, 49]\n"),
        "{ended:?}"
    );
    assert_eq!(ended.stderr, "");
    let ended = run(programs, "more");
    assert!(
        ended.status.success() && ended.stdout.contains("all is well"),
        "{ended:?}"
    );
    assert_eq!(
        ended.stdout.matches("main of").count(),
        1,
        "workers never enter main: {ended:?}"
    );
}

#[test]
fn a_crate_outside_works_unoptimized() {
    let scratch = Scratch::new();
    let programs = scratch.build(&[], "debug");
    assert_programs_work(&programs);
    let ended = run(&programs, "panics");
    assert_eq!(ended.status.code(), Some(101), "{ended:?}");
    assert_eq!(ended.stderr.matches("panicked at").count(), 1, "{ended:?}");
}

#[test]
fn a_crate_outside_works_with_fat_lto_and_panics_that_abort() {
    let scratch = Scratch::new();
    let programs = scratch.build(&["--release"], "release");
    assert_programs_work(&programs);
    let ended = run(&programs, "panics");
    assert_eq!(ended.status.signal(), Some(6), "{ended:?}");
    assert_eq!(ended.stderr.matches("panicked at").count(), 1, "{ended:?}");
}
