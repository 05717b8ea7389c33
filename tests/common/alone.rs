//! This test binary, executed again: as a process that runs one test by itself, or as an application to be mistreated.

use super::census::{self, ProcessInfo};
use super::{pid_of, within};
use multiprocess::StartMethod;
use nix::sys::signal::{Signal, kill, killpg};
use std::env;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// In the environment of a process started here: what it is to be.
const ROLE: &str = "MULTIPROCESS_TEST_ROLE";

/// In the environment of a process started here and so of all that it starts: whose it is.
const MARK: &str = "MULTIPROCESS_TEST_MARK";

/// The role of a process that runs one test by itself.
const ALONE: &str = "alone";

/// How soon after an application's end all its processes must be gone.
pub(crate) const GONE_LIMIT: Duration = Duration::from_secs(5);

/// Names a test as libtest does, given its `module_path!()`.
pub(crate) fn test_path(module: &str, function: &str) -> String {
    match module.split_once("::") {
        Some((_crate, path)) => format!("{path}::{function}"),
        None => function.to_owned(),
    }
}

/// What this process was started to be; nothing in an ordinary test run.
pub(crate) fn role() -> Option<String> {
    env::var(ROLE).ok().filter(|role| role != ALONE)
}

/// The role of an application that does something by a start method.
pub(crate) fn role_of(act: &str, method: StartMethod) -> String {
    format!("{act} by {method:?}")
}

/// Takes apart what [`role_of`] made.
pub(crate) fn act_and_method(role: &str) -> (&str, StartMethod) {
    let (act, method) = role.split_once(" by ").unwrap();
    let methods = [
        StartMethod::ForkServer,
        StartMethod::Spawn,
        StartMethod::Fork,
    ];
    (
        act,
        methods
            .into_iter()
            .find(|one| format!("{one:?}") == method)
            .unwrap(),
    )
}

/// The mark that this process and all its descendants carry, when it was started from here.
pub(crate) fn mark() -> Option<String> {
    env::var(MARK).ok()
}

/// Runs `body` in a fresh process that does nothing else. `test` is the full name of the calling test. Fails when the body
/// fails or hangs, or when a process is left that it started.
pub(crate) fn in_own_process(test: &str, limit: Duration, body: impl FnOnce() + Send + 'static) {
    if env::var(ROLE).as_deref() == Ok(ALONE) {
        within(limit, body);
        return;
    }
    let ended = Application::new(test, ALONE)
        .start()
        .wait(super::scaled_limit(limit) + Duration::from_secs(5));
    let passed = ended.status.success() && ended.stdout.contains("1 passed");
    assert!(
        passed,
        "{test} by itself: {}\n{}\n{}",
        ended.status, ended.stdout, ended.stderr
    );
    // What it has measured, without what libtest says: that stands before the first line, too.
    for line in ended.stdout.lines() {
        if let Some(at) = line.find("fault row ") {
            println!("{}", &line[at..]);
        } else if line.contains('=') || line.contains(" us") {
            println!("{line}");
        }
    }
    ended.assert_nothing_left();
}

/// As [`in_own_process`], with `body` on the only thread of a process: libtest has threads, so it is forked from there.
pub(crate) fn on_the_only_thread(
    test: &str,
    limit: Duration,
    body: impl FnOnce() + Send + 'static,
) {
    in_own_process(test, limit, || {
        assert_eq!(super::unsafely::in_fork(body), 0, "see above");
    });
}

/// Plays the application before `main`, where there is no other thread yet, if its role is to fork.
pub(crate) fn play_before_main(play: fn()) {
    // An image that is to be the library's fork server or process has inherited the role, and must not play it as well.
    let mut names = env::vars_os().map(|(name, _)| name);
    let is_child = names.any(|name| name.as_encoded_bytes().starts_with(b"MULTIPROCESS_CHILD_"));
    if is_child || !role().is_some_and(|role| role.ends_with("by Fork")) {
        return;
    }
    let code = match std::panic::catch_unwind(play) {
        Ok(()) => {
            println!("1 passed");
            0
        }
        Err(_) => 101,
    };
    std::process::exit(code)
}

/// This test binary as an application that is yet to be started.
pub(crate) struct Application {
    command: Command,
    mark: String,
    folder: TempDir,
}

/// An application that runs; dropping it ends it and all its processes.
pub(crate) struct Running {
    child: Child,
    mark: String,
    folder: Option<TempDir>,
    stdout: File,
    stderr: File,
}

/// What became of an application.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    mark: String,
    folder: Option<TempDir>,
}

impl Application {
    /// Will run the test called `test`, which finds `role` in [`role()`].
    pub(crate) fn new(test: &str, role: &str) -> Application {
        Application::of(&env::current_exe().unwrap(), test, role)
    }

    /// As `new`, from a copy of this binary.
    pub(crate) fn of(executable: &Path, test: &str, role: &str) -> Application {
        let mut command = Command::new(executable);
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
        Application::with(command, role)
    }

    /// As `new`, for another program.
    pub(crate) fn with(mut command: Command, role: &str) -> Application {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let serial = STARTED.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_nanos();
        let mark = format!("{}-{serial}-{now}", std::process::id());
        command
            .env(ROLE, role)
            .env(MARK, &mark)
            .stdin(Stdio::null())
            .process_group(0);
        // Its temporary files, so that it can be seen what it leaves, and that what a killed one leaves is taken away.
        let folder = tempfile::tempdir().unwrap();
        command.env("TMPDIR", folder.path());
        Application {
            command,
            mark,
            folder,
        }
    }

    /// Passes something to the application by its environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<Path>) -> Application {
        self.command.env(name, value.as_ref());
        self
    }

    /// Has the application read what [`Running::write`] writes.
    pub(crate) fn piped_stdin(mut self) -> Application {
        self.command.stdin(Stdio::piped());
        self
    }

    /// Starts it in a process group of its own. Its output goes to files: what inherits them cannot hold up a reader.
    pub(crate) fn start(mut self) -> Running {
        let stdout = tempfile::tempfile().unwrap();
        let stderr = tempfile::tempfile().unwrap();
        self.command
            .stdout(stdout.try_clone().unwrap())
            .stderr(stderr.try_clone().unwrap());
        let child = self.command.spawn().unwrap();
        Running {
            child,
            mark: self.mark,
            folder: Some(self.folder),
            stdout,
            stderr,
        }
    }
}

impl Running {
    /// The application's pid.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Every process that the application started, and that those started, itself excluded.
    pub(crate) fn descendants(&self) -> Vec<ProcessInfo> {
        census::family(self.child.id(), Some(&self.mark))
    }

    /// Writes to the application's standard input.
    pub(crate) fn write(&mut self, text: &str) {
        self.child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    /// Ends the application's standard input.
    pub(crate) fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    /// Sends a signal to the application alone.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(pid_of(self.child.id()), signal).unwrap();
    }

    /// Sends a signal to the application's whole process group, as a terminal does.
    pub(crate) fn signal_group(&self, signal: Signal) {
        killpg(pid_of(self.child.id()), signal).unwrap();
    }

    /// Waits for the application to end; fails when it has not within `limit`.
    pub(crate) fn wait(mut self, limit: Duration) -> Ended {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > limit {
                let (stdout, stderr) = (text(&mut self.stdout), text(&mut self.stderr));
                let family = self.descendants();
                panic!(
                    "hangs: not ended after {limit:?}\nprocesses: {family:#?}\n{stdout}\n{stderr}"
                );
            }
            thread::sleep(Duration::from_millis(2));
        };
        let (stdout, stderr) = (text(&mut self.stdout), text(&mut self.stderr));
        // From here on `Ended` looks after what the application may have left.
        let mark = std::mem::take(&mut self.mark);
        let folder = self.folder.take();
        Ended {
            status,
            stdout,
            stderr,
            mark,
            folder,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.mark.is_empty() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            end_marked(&self.mark);
        }
    }
}

impl Ended {
    /// Fails when a process that the application started outlives it by more than [`GONE_LIMIT`].
    pub(crate) fn assert_nothing_left(&self) {
        let left = census::poll(GONE_LIMIT, || census::marked(&self.mark), Vec::is_empty);
        assert!(
            left.is_empty(),
            "{} left behind: {left:#?}\n{}\n{}",
            self.status,
            self.stdout,
            self.stderr
        );
    }

    /// Fails where it has left temporary files.
    pub(crate) fn assert_no_files_left(&self) {
        let folder = self.folder.as_ref().unwrap();
        let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
        assert!(files.is_empty(), "{files:?}");
    }

    /// The processes that the application started and that are alive.
    pub(crate) fn left(&self) -> Vec<ProcessInfo> {
        census::marked(&self.mark)
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        end_marked(&self.mark);
    }
}

/// Kills what carries a mark that this process gave.
fn end_marked(mark: &str) {
    for process in census::marked(mark) {
        let _ = kill(pid_of(process.pid), Signal::SIGKILL);
    }
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Copies this binary, so that the copy can be deleted or replaced.
pub(crate) fn copy_of_this_binary(directory: &Path) -> PathBuf {
    let copy = directory.join("application");
    // By another process: a descriptor for writing that a thread of this one happens to pass on to a child would make
    // the copy "busy", and it could not be executed.
    let status = Command::new("cp")
        .arg(env::current_exe().unwrap())
        .arg(&copy)
        .status()
        .unwrap();
    assert!(status.success());
    copy
}

/// The environment entry by which [`census::marked`] finds the processes of a mark.
pub(crate) fn environ_entry(mark: &str) -> Vec<u8> {
    format!("{MARK}={mark}").into_bytes()
}
