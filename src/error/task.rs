//! What became of a user's function in another process.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Says what became of a function that ran in another process.
///
/// It can travel: a function may return it from one process to the next.
///
/// # Examples
///
/// ```
/// use multiprocess::Pool;
///
/// let pool = Pool::builder().workers(1).build()?;
/// let error = pool.map([1, 2, 3], |n: i32| if n == 2 { panic!("no twos") } else { n }).unwrap_err();
/// assert!(error.is_panic());
/// assert_eq!(error.panic_message(), Some("no twos"));
/// assert_eq!(error.item(), Some(1));
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskError(Box<Account>);

/// The kinds of [`TaskError`].
///
/// # Examples
///
/// ```
/// use multiprocess::{Process, TaskErrorKind};
///
/// let child: Process = Process::spawn((), |()| std::process::abort())?;
/// match child.join() {
///     Err(error) if error.kind() == TaskErrorKind::Crash => println!("{error}"),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TaskErrorKind {
    /// The function panicked; its worker lives on.
    Panic,
    /// The process died under the function: a signal, an exit, an abort, the OOM killer.
    Crash,
    /// Its time limit passed; it was killed.
    Timeout,
    /// It was cancelled before it had ended.
    Cancelled,
    /// The argument could not be encoded here, so the function never ran.
    ArgumentEncoding,
    /// The argument could not be decoded there, so the function never ran.
    ArgumentDecoding,
    /// The function returned, but there its result could not be encoded.
    ResultEncoding,
    /// The function returned, but here its result could not be decoded.
    ResultDecoding,
    /// No process could be had to run it, or the system failed otherwise.
    System,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Account {
    kind: TaskErrorKind,
    message: String,
    location: Option<String>,
    backtrace: Option<String>,
    type_name: Option<String>,
    status: Option<i32>,
    pid: Option<u32>,
    item: Option<u64>,
    attempts: u32,
    is_initial: bool,
}

impl TaskError {
    /// Tells whether the function panicked. The worker lives on.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::Process;
    ///
    /// let child = Process::spawn((), |()| if true { panic!("no more") })?;
    /// assert!(child.join().unwrap_err().is_panic());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_panic(&self) -> bool {
        self.0.kind == TaskErrorKind::Panic
    }

    /// Tells whether the process died under the function: a signal, an exit, an abort, the OOM killer.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::Process;
    ///
    /// let child = Process::spawn((), |()| if true { std::process::exit(7) })?;
    /// assert!(child.join().unwrap_err().is_crash());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_crash(&self) -> bool {
        self.0.kind == TaskErrorKind::Crash
    }

    /// Tells whether the time limit passed and the process was killed for it.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// let error = pool.job().timeout(Duration::from_millis(50)).apply((), |()| loop { std::thread::park() });
    /// assert!(error.map(|(): ()| ()).unwrap_err().is_timeout());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_timeout(&self) -> bool {
        self.0.kind == TaskErrorKind::Timeout
    }

    /// Tells whether the call was cancelled before it had ended.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// let call = pool.apply_async((), |()| loop { std::thread::park() });
    /// call.cancel();
    /// assert!(call.get().map(|(): ()| ()).unwrap_err().is_cancelled());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_cancelled(&self) -> bool {
        self.0.kind == TaskErrorKind::Cancelled
    }

    /// Returns the kind, for a `match`.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::{Process, TaskErrorKind};
    ///
    /// let child = Process::spawn((), |()| if true { panic!("no more") })?;
    /// assert_eq!(child.join().unwrap_err().kind(), TaskErrorKind::Panic);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn kind(&self) -> TaskErrorKind {
        self.0.kind
    }

    /// Returns the message of a panic; `None` for other kinds.
    ///
    /// A payload that is no string has the message that the standard library prints for it.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::Process;
    ///
    /// let child = Process::spawn((), |()| if true { panic!("no more") })?;
    /// assert_eq!(child.join().unwrap_err().panic_message(), Some("no more"));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn panic_message(&self) -> Option<&str> {
        self.is_panic().then_some(self.0.message.as_str())
    }

    /// Returns where a panic happened, as `file:line:column`.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::Process;
    ///
    /// let child = Process::spawn((), |()| if true { panic!("no more") })?;
    /// assert!(child.join().unwrap_err().location().is_some_and(|place| place.contains(".rs:")));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn location(&self) -> Option<&str> {
        self.0.location.as_deref()
    }

    /// Returns the backtrace of a panic, if `RUST_BACKTRACE` asked for one.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::Process;
    ///
    /// let child = Process::spawn((), |()| if true { panic!("no more") })?;
    /// let error = child.join().unwrap_err();
    /// if let Some(backtrace) = error.backtrace() {
    ///     println!("{backtrace}");
    /// }
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn backtrace(&self) -> Option<&str> {
        self.0.backtrace.as_deref()
    }

    /// Returns the exit status of the process that died, as far as it is known: of a crash, of one that was killed as its time limit
    /// had passed, and of a [`Process`](crate::Process) whose function panicked (101).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::Process;
    ///
    /// let child = Process::spawn((), |()| if true { std::process::exit(7) })?;
    /// assert_eq!(child.join().unwrap_err().exit_status().and_then(|status| status.code()), Some(7));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.0.status.map(ExitStatus::from_raw)
    }

    /// Returns the process that ran the function, if one did.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::Process;
    ///
    /// let child = Process::spawn((), |()| if true { std::process::exit(7) })?;
    /// let pid = child.pid();
    /// assert_eq!(child.join().unwrap_err().pid(), Some(pid));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn pid(&self) -> Option<u32> {
        self.0.pid
    }

    /// Returns the index in the input of a map, from 0; `None` where there is no such input.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// let error = pool.map([4, 2, 0], |n: u32| 8 / n).unwrap_err();
    /// assert_eq!(error.item(), Some(2));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn item(&self) -> Option<usize> {
        self.0.item.and_then(|item| usize::try_from(item).ok())
    }

    /// Returns how often the function was tried: 1, if its job does not say `retries`.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(1).build()?;
    /// let error = pool.job().retries(1).apply((), |()| if true { std::process::abort() }).unwrap_err();
    /// assert_eq!(error.attempts(), 2);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// A failure of `kind`; the message is what is said of it.
    pub(crate) fn new(kind: TaskErrorKind, message: impl Into<String>) -> TaskError {
        TaskError(Box::new(Account {
            kind,
            message: message.into(),
            location: None,
            backtrace: None,
            type_name: None,
            status: None,
            pid: None,
            item: None,
            attempts: 1,
            is_initial: false,
        }))
    }

    /// A process that died under the function.
    pub(crate) fn crash(status: Option<ExitStatus>) -> TaskError {
        TaskError::new(TaskErrorKind::Crash, "").with_status(status)
    }

    /// The process that it is about has ended so, as far as that is known.
    pub(crate) fn with_status(mut self, status: Option<ExitStatus>) -> TaskError {
        self.0.status = status.map(ExitStatusExt::into_raw);
        self
    }

    /// A value of the type named could not be encoded or decoded.
    pub(crate) fn of_type(
        kind: TaskErrorKind,
        type_name: &str,
        why: impl Into<String>,
    ) -> TaskError {
        let mut error = TaskError::new(kind, why);
        error.0.type_name = Some(type_name.to_owned());
        error
    }

    pub(crate) fn at_location(
        mut self,
        location: Option<String>,
        backtrace: Option<String>,
    ) -> TaskError {
        self.0.location = location;
        self.0.backtrace = backtrace;
        self
    }

    pub(crate) fn in_process(mut self, pid: u32) -> TaskError {
        self.0.pid = Some(pid);
        self
    }

    /// The same, of the initializer of a pool's workers.
    pub(crate) fn in_initializer(mut self) -> TaskError {
        self.0.is_initial = true;
        self
    }

    pub(crate) fn after_attempts(mut self, attempts: u32) -> TaskError {
        self.0.attempts = attempts;
        self
    }

    pub(crate) fn at_item(mut self, item: Option<usize>) -> TaskError {
        self.0.item = item.map(|item| item as u64);
        self
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let account = &*self.0;
        if let Some(item) = account.item {
            write!(f, "item {item}: ")?;
        }
        if account.is_initial {
            write!(f, "the initializer of a worker failed: ")?;
        }
        let type_name = account.type_name.as_deref().unwrap_or("value");
        // One line, whatever was said.
        let message = account.message.replace(['\r', '\n'], " ");
        match account.kind {
            TaskErrorKind::Panic => {
                write!(f, "the function panicked")?;
                if let Some(location) = &account.location {
                    write!(f, " at {location}")?;
                }
                write!(f, ": {message}")?;
            }
            TaskErrorKind::Crash => {
                write!(f, "the process died under the function: ")?;
                match self.exit_status() {
                    Some(status) => write!(f, "{status}")?,
                    None => write!(f, "its exit status is not known")?,
                }
            }
            TaskErrorKind::Timeout => write!(f, "its time limit passed, and it was killed")?,
            TaskErrorKind::Cancelled => write!(f, "it was cancelled")?,
            TaskErrorKind::ArgumentEncoding => {
                write!(
                    f,
                    "its argument of type `{type_name}` cannot be encoded: {message}"
                )?;
            }
            TaskErrorKind::ArgumentDecoding => {
                write!(
                    f,
                    "its argument of type `{type_name}` cannot be decoded there: {message}"
                )?;
            }
            TaskErrorKind::ResultEncoding => {
                write!(
                    f,
                    "its result of type `{type_name}` cannot be encoded: {message}"
                )?;
            }
            TaskErrorKind::ResultDecoding => {
                write!(
                    f,
                    "its result of type `{type_name}` cannot be decoded here: {message}"
                )?;
            }
            TaskErrorKind::System => write!(f, "it could not be run: {message}")?,
        }
        if let Some(pid) = account.pid {
            write!(f, " (process {pid})")?;
        }
        if account.attempts > 1 {
            write!(f, " (attempt {})", account.attempts)?;
        }
        Ok(())
    }
}

impl fmt::Debug for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskError({self})")?;
        match &self.0.backtrace {
            Some(backtrace) => write!(f, "\n{backtrace}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for TaskError {}
