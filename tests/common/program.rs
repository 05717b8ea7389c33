//! What a test program leaves: nothing. What it has is counted when the loader has started it, and once more when it exits:
//! no test has to ask for it, and none can forget it. A program that leaves something says what, and fails.
//!
//! It holds for each program of `cargo test`, however many tests ran in it, and for each process in which a test runs by
//! itself or an application plays its part, unless it is killed; but what goes with an application may stay to its end. What
//! the library has started, or was forked, is no program.

use super::alone;
use super::census::{self, Census};
use super::unsafely::{at_exit, exit_at_once, set_environment};
use std::env;
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// In the environment of all that a program of `cargo test` starts, at whatever depth: whose it is.
pub(crate) const PROGRAM: &str = "MULTIPROCESS_TEST_PROGRAM";

/// The exit code of a program that leaves something.
const LEAVES_SOMETHING: i32 = 102;

struct Program {
    pid: u32,
    /// What only its processes have in their environment.
    entry: Vec<u8>,
    /// Whether nobody has made its folder for it, so that nobody else will take it away.
    owns_folder: bool,
    folder: PathBuf,
    before: Census,
}

static BEGUN: OnceLock<Program> = OnceLock::new();

/// Counts, and has it counted again at exit. Called before `main`, on the only thread.
pub(crate) fn begin() {
    let mut names = env::vars_os().map(|(name, _)| name);
    if names.any(|name| name.as_encoded_bytes().starts_with(b"MULTIPROCESS_CHILD_")) {
        return;
    }
    let pid = std::process::id();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mark = format!("{pid}-{}", now.as_nanos());
    let (owns_folder, folder, entry) = match alone::mark() {
        // Who has started it has made the folder, and takes it away, even if this process is killed.
        Some(mark) => (false, env::temp_dir(), alone::environ_entry(&mark)),
        None => {
            let folder = env::temp_dir().join(format!("multiprocess-test-{mark}"));
            fs::create_dir(&folder).unwrap();
            set_environment("TMPDIR", folder.to_str().unwrap());
            set_environment(PROGRAM, &mark);
            let entry = format!("{PROGRAM}={mark}").into_bytes();
            (true, folder, entry)
        }
    };
    let program = Program {
        pid,
        before: Census::of(&folder, Some(&entry)),
        entry,
        owns_folder,
        folder,
    };
    if BEGUN.set(program).is_ok() {
        // Handlers run in reverse, so that the library's, which ends processes, has run before.
        at_exit(end);
    }
}

/// A runtime of tokio, on this thread. It keeps a pair of sockets for the life of the program, which is nobody's leak here.
pub(crate) fn tokio() -> tokio::runtime::Runtime {
    HAS_TOKIO.store(true, Ordering::Relaxed);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

static HAS_TOKIO: AtomicBool = AtomicBool::new(false);

extern "C" fn end() {
    let Some(program) = BEGUN.get() else { return };
    if program.pid != std::process::id() {
        return;
    }
    // An application may end in the middle of anything; who has started it takes its files away. Where another thread ends the
    // program, the main one and what it holds are still there.
    let is_application = alone::role().is_some();
    let is_main = nix::unistd::gettid() == nix::unistd::getpid();
    let look = || {
        let mut now = Census::of(&program.folder, Some(&program.entry));
        now.bury_the_dead();
        if HAS_TOKIO.load(Ordering::Relaxed) {
            now.look_away_from_sockets(2);
        }
        if is_application {
            now.look_away_from_files();
        }
        if is_application || !is_main {
            now.look_away_from_this_process();
        }
        now
    };
    let is_good = |now: &Census| now.added_to(&program.before).is_empty();
    let now = census::poll(census::SETTLE_LIMIT, look, is_good);
    let left = now.added_to(&program.before);
    if program.owns_folder {
        let _gone_before = fs::remove_dir_all(&program.folder);
    }
    if !left.is_empty() {
        eprintln!("this program leaves:\n{}", left.join("\n"));
        exit_at_once(LEAVES_SOMETHING);
    }
}
