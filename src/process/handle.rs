//! [`Process`]: a function that runs in a process of its own, and the handle on it.

use crate::deadline::Deadline;
use crate::error::{Error, Result, TaskError, TaskErrorKind};
use crate::process::child::Child;
use crate::sys::pidfd::PidFd;
use crate::task::Portable;
use parking_lot::Mutex;
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

impl<T: Portable> Process<T> {
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
        if let Err(error) = child.wait_for_return() {
            let error = TaskError::new(TaskErrorKind::System, error.to_string());
            return Err(error.in_process(self.pid));
        }
        child.into_arrived().unpack()
    }
}

impl<T> Process<T> {
    /// The handle on a process that runs.
    pub(crate) fn of(name: String, is_daemon: bool, child: Child) -> Process<T> {
        let process = Arc::clone(child.process());
        Process {
            pid: child.pid(),
            is_daemon,
            child: Mutex::new(child),
            process,
            result: PhantomData,
            name,
        }
    }

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
