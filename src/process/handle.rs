//! [`Process`]: a function that runs in a process of its own, and the handle on it.

use crate::deadline::Deadline;
use crate::error::{Error, Result, TaskError, TaskErrorKind};
use crate::process::child::Child;
use crate::process::launcher::{self, Order};
use crate::process::request::{Echo, StartMethod};
use crate::sys::pidfd::PidFd;
use crate::task::{Callable, Portable, Stateless, describe_call, require_no_captures};
use crate::wire::value;
use parking_lot::Mutex;
use std::any::type_name;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

/// Runs a function in a process of its own, and holds what it returns.
///
/// Dropping the handle detaches: the process runs on. If the function panics, the panic is printed there as usual,
/// the exit code is 101, and [`join`](Process::join) tells.
///
/// # Examples
///
/// ```
/// use multiprocess::Process;
///
/// let child = Process::spawn((20, 22), |(a, b): (i32, i32)| a + b)?;
/// assert_eq!(child.join()?, 42);
/// # Ok::<(), multiprocess::Error>(())
/// ```
pub struct Process<T = ()> {
    name: String,
    pid: u32,
    is_daemon: bool,
    child: Mutex<Child>,
    process: Arc<PidFd>,
    result: PhantomData<fn() -> T>,
}

/// Sets how a process is started; made by [`Process::builder`].
///
/// # Examples
///
/// ```
/// use multiprocess::Process;
///
/// let child = Process::builder()
///     .name("resize-3")
///     .env("LANG", "C")
///     .spawn((), |()| std::env::var("LANG").ok())?;
/// assert_eq!(child.name(), "resize-3");
/// assert_eq!(child.join()?.as_deref(), Some("C"));
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ProcessBuilder {
    name: Option<String>,
    is_daemon: bool,
    method: StartMethod,
    variables: Vec<(OsString, OsString)>,
    stack_size: Option<u64>,
}

/// Makes a type of one's own a process: its fields are what the process is given, its `run` what it does.
///
/// # Examples
///
/// ```
/// use multiprocess::{Process, Run};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Countdown {
///     from: u32,
/// }
///
/// impl Run for Countdown {
///     type Output = Vec<u32>;
///
///     fn run(self) -> Vec<u32> {
///         (1..=self.from).rev().collect()
///     }
/// }
///
/// let child = Process::builder().start(Countdown { from: 3 })?;
/// assert_eq!(child.join()?, [3, 2, 1]);
/// # Ok::<(), multiprocess::Error>(())
/// ```
pub trait Run: Portable {
    /// What the process returns.
    type Output: Portable;

    /// Does the process's work, in the process.
    fn run(self) -> Self::Output;
}

impl<T: Portable> Process<T> {
    /// Starts a process that runs `f` with `args`, and returns as soon as it exists.
    ///
    /// # Errors
    ///
    /// Where the arguments cannot be encoded, or the system refuses a process; the error names the limit.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::Process;
    ///
    /// let child = Process::spawn((20, 22), |(a, b): (i32, i32)| a + b)?;
    /// assert_eq!(child.join()?, 42);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn spawn<A, F>(args: A, f: F) -> Result<Process<T>>
    where
        A: Portable,
        F: Fn(A) -> T + Stateless,
    {
        ProcessBuilder::default().spawn(args, f)
    }

    /// Waits until the process has ended and returns what its function returned. Never waits for anything but that
    /// process.
    ///
    /// # Errors
    ///
    /// A [`TaskError`] that says what became of the function: it panicked, its process died under it, or the result could
    /// not be encoded there or decoded here.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::Process;
    ///
    /// let child = Process::spawn((), |()| if true { std::process::exit(7) } else { 1 })?;
    /// let error = child.join().unwrap_err();
    /// assert!(error.is_crash());
    /// assert_eq!(error.exit_status().and_then(|status| status.code()), Some(7));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn join(self) -> Result<T, TaskError> {
        let mut child = self.child.into_inner();
        if let Err(error) = child.wait(Deadline::NEVER) {
            let error = TaskError::new(TaskErrorKind::System, error.to_string());
            return Err(error.in_process(self.pid));
        }
        child.into_arrived().unpack()
    }
}

impl<T> Process<T> {
    /// Returns the name: as given, or `Process-N`, or `Process-N:M` for the M-th child of the N-th.
    ///
    /// # Examples
    ///
    /// ```
    /// let child = multiprocess::Process::builder().name("reader").spawn((), |()| ())?;
    /// assert_eq!(child.name(), "reader");
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the process id.
    ///
    /// # Examples
    ///
    /// ```
    /// let child = multiprocess::Process::spawn((), |()| std::process::id())?;
    /// let pid = child.pid();
    /// assert_eq!(child.join()?, pid);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Tells whether the process is still running.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut child = multiprocess::Process::<()>::spawn((), |()| loop { std::thread::park() })?;
    /// assert!(child.is_alive());
    /// child.kill()?;
    /// child.wait()?;
    /// assert!(!child.is_alive());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_alive(&self) -> bool {
        !self.child.lock().has_ended()
    }

    /// Tells whether the process ends with this one.
    ///
    /// # Examples
    ///
    /// ```
    /// let child = multiprocess::Process::builder().daemon(true).spawn((), |()| ())?;
    /// assert!(child.is_daemon());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_daemon(&self) -> bool {
        self.is_daemon
    }

    /// Returns how the process ended; `None` while it runs, and where nobody is left who knows.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut child = multiprocess::Process::<()>::spawn((), |()| std::process::exit(3))?;
    /// child.wait()?;
    /// assert_eq!(child.exit_status().and_then(|status| status.code()), Some(3));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn exit_status(&self) -> Option<ExitStatus> {
        let mut child = self.child.lock();
        child.look();
        child.exit_status()
    }

    /// Waits until the process has ended, and says how. A second call returns the same at once.
    ///
    /// # Errors
    ///
    /// Where nobody is left who knows how it ended: the fork server was killed before it could report.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut child = multiprocess::Process::<()>::spawn((), |()| ())?;
    /// assert!(child.wait()?.success());
    /// assert!(child.wait()?.success());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn wait(&mut self) -> Result<ExitStatus> {
        match self.wait_until(Deadline::NEVER)? {
            Some(status) => Ok(status),
            None => Err(self.lost()),
        }
    }

    /// Waits until the process has ended, but no longer than `limit`; `None` if it still runs.
    ///
    /// # Errors
    ///
    /// As [`wait`](Process::wait).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let mut child = multiprocess::Process::<()>::spawn((), |()| loop { std::thread::park() })?;
    /// assert_eq!(child.wait_timeout(Duration::from_millis(1))?, None);
    /// child.kill()?;
    /// assert!(child.wait_timeout(Duration::from_secs(60))?.is_some());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn wait_timeout(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        self.wait_until(Deadline::after(limit))
    }

    /// Asks the process to end (`SIGTERM`). Does nothing to one that has ended, and never hits another.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::unix::process::ExitStatusExt;
    ///
    /// let mut child = multiprocess::Process::<()>::spawn((), |()| loop { std::thread::park() })?;
    /// child.terminate()?;
    /// assert_eq!(child.wait()?.signal(), Some(15));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn terminate(&self) -> Result<()> {
        self.process
            .terminate()
            .map_err(|error| self.failed("terminate", error))
    }

    /// Interrupts the process, as Ctrl-C does (`SIGINT`). Does nothing to one that has ended, and never hits another.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::unix::process::ExitStatusExt;
    ///
    /// let mut child = multiprocess::Process::<()>::spawn((), |()| loop { std::thread::park() })?;
    /// child.interrupt()?;
    /// assert_eq!(child.wait()?.signal(), Some(2));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn interrupt(&self) -> Result<()> {
        self.process
            .interrupt()
            .map_err(|error| self.failed("interrupt", error))
    }

    /// Ends the process at once (`SIGKILL`). Does nothing to one that has ended, and never hits another.
    ///
    /// # Errors
    ///
    /// Where the kernel refuses.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::unix::process::ExitStatusExt;
    ///
    /// let mut child = multiprocess::Process::<()>::spawn((), |()| loop { std::thread::park() })?;
    /// child.kill()?;
    /// assert_eq!(child.wait()?.signal(), Some(9));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn kill(&self) -> Result<()> {
        self.process
            .kill()
            .map_err(|error| self.failed("kill", error))
    }

    fn wait_until(&mut self, deadline: Deadline) -> Result<Option<ExitStatus>> {
        let child = self.child.get_mut();
        match child.wait(deadline) {
            Ok(true) => match child.exit_status() {
                Some(status) => Ok(Some(status)),
                None => Err(self.lost()),
            },
            Ok(false) => Ok(None),
            Err(error) => Err(self.failed("wait for", error)),
        }
    }

    fn failed(&self, verb: &str, error: std::io::Error) -> Error {
        Error::io(
            format!("cannot {verb} process {:?} (pid {})", self.name, self.pid),
            error,
        )
    }

    fn lost(&self) -> Error {
        Error::refused(
            format!(
                "cannot tell how process {:?} (pid {}) ended",
                self.name, self.pid
            ),
            "nobody is left to tell: the fork server was killed, or the process has filled the socket of its news",
        )
    }
}

impl Process {
    /// Starts to describe a process.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::Process;
    ///
    /// let child = Process::builder().name("square").daemon(true).spawn(7, |n: u32| n * n)?;
    /// assert_eq!(child.join()?, 49);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn builder() -> ProcessBuilder {
        ProcessBuilder::default()
    }
}

impl ProcessBuilder {
    /// Names the process; the kernel shows the first 15 bytes in `ps` and `top`.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::{Process, current_process};
    ///
    /// let child = Process::builder().name("reader").spawn((), |()| current_process().name().to_owned())?;
    /// assert_eq!(child.join()?, "reader");
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> ProcessBuilder {
        self.name = Some(name.into());
        self
    }

    /// Sets whether the process ends with this one, however this one ends.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::{Process, current_process};
    ///
    /// let child = Process::builder().daemon(true).spawn((), |()| current_process().is_daemon())?;
    /// assert!(child.join()?);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn daemon(mut self, daemon: bool) -> ProcessBuilder {
        self.is_daemon = daemon;
        self
    }

    /// Sets how the process comes to be.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::{Process, StartMethod};
    ///
    /// let child = Process::builder().start_method(StartMethod::Spawn).spawn(4, |n: u32| n + 1)?;
    /// assert_eq!(child.join()?, 5);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn start_method(mut self, method: StartMethod) -> ProcessBuilder {
        self.method = method;
        self
    }

    /// Sets a variable in the environment of the process alone.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::Process;
    ///
    /// let child = Process::builder().env("LEVEL", "3").spawn((), |()| std::env::var("LEVEL").ok())?;
    /// assert_eq!(child.join()?.as_deref(), Some("3"));
    /// assert!(std::env::var("LEVEL").is_err());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> ProcessBuilder {
        self.variables
            .push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the size in bytes of the stack that the function runs on. It then runs on a thread of its own.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::Process;
    ///
    /// fn depth(n: u64) -> u64 {
    ///     if n == 0 { 0 } else { 1 + std::hint::black_box(depth(n - 1)) }
    /// }
    /// let child = Process::builder().stack_size(256 << 20).spawn(100_000, depth)?;
    /// assert_eq!(child.join()?, 100_000);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn stack_size(mut self, bytes: usize) -> ProcessBuilder {
        self.stack_size = Some(bytes as u64);
        self
    }

    /// Starts a process that runs `f` with `args`, and returns as soon as it exists.
    ///
    /// # Errors
    ///
    /// As [`Process::spawn`].
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::Process;
    ///
    /// let child = Process::builder().name("sum").spawn(vec![1, 2, 3], |all: Vec<u32>| all.iter().sum::<u32>())?;
    /// assert_eq!(child.join()?, 6);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn spawn<A, T, F>(self, args: A, f: F) -> Result<Process<T>>
    where
        A: Portable,
        T: Portable,
        F: Fn(A) -> T + Stateless,
    {
        require_no_captures(&f);
        self.launch(&args, describe_call(f))
    }

    /// Starts a process of a type of one's own.
    ///
    /// # Errors
    ///
    /// As [`Process::spawn`].
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::{Process, Run};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Greeter {
    ///     whom: String,
    /// }
    ///
    /// impl Run for Greeter {
    ///     type Output = String;
    ///
    ///     fn run(self) -> String {
    ///         format!("hello, {}", self.whom)
    ///     }
    /// }
    ///
    /// let child = Process::builder().name("greeter").start(Greeter { whom: "you".into() })?;
    /// assert_eq!(child.join()?, "hello, you");
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn start<R: Run>(self, process: R) -> Result<Process<R::Output>> {
        self.launch(&process, describe_call(|process: R| process.run()))
    }

    fn launch<A: Portable, T>(self, args: &A, function: Callable) -> Result<Process<T>> {
        let mut arguments = Vec::new();
        let enclosed = value::pack(args, &mut arguments).map_err(|why| {
            TaskError::of_type(TaskErrorKind::ArgumentEncoding, type_name::<A>(), why)
        })?;
        let order = Order {
            name: self.name,
            is_daemon: self.is_daemon,
            method: self.method,
            echo: Echo::Printed,
            function,
            variables: self.variables,
            stack_size: self.stack_size,
        };
        let (name, child) = launcher::start_and_wait(&order, &arguments, enclosed.descriptors())?;
        enclosed.depart();
        let process = Arc::clone(child.process());
        Ok(Process {
            pid: child.pid(),
            is_daemon: self.is_daemon,
            child: Mutex::new(child),
            process,
            result: PhantomData,
            name,
        })
    }
}

impl<T> AsFd for Process<T> {
    /// Borrows a descriptor that is readable when the process has ended, for `poll` and its kin.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

impl<T> fmt::Debug for Process<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Process");
        shown
            .field("name", &self.name)
            .field("pid", &self.pid)
            .field("daemon", &self.is_daemon);
        match self.exit_status() {
            Some(status) => shown.field("ended", &status),
            None => shown.field("alive", &self.is_alive()),
        };
        shown.finish()
    }
}
