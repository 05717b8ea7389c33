//! [`ProcessBuilder`]: how a process is described, and started.

use crate::error::{Error, Result, TaskError, TaskErrorKind};
use crate::process::handle::Process;
use crate::process::launcher::{self, Order};
use crate::process::request::{Echo, StartMethod};
use crate::sys::identity::is_valid_variable;
use crate::task::{Callable, Portable, Stateless, describe_call, require_no_captures};
use crate::wire::value;
use std::any::type_name;
use std::ffi::{OsStr, OsString};

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

    /// Sets a variable in the environment of the process alone. A name that is empty or holds `=`, and a zero byte in either, is an
    /// error when it is started.
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
        let is_bad = |(name, value): &&(OsString, OsString)| !is_valid_variable(name, value);
        if let Some((name, value)) = self.variables.iter().find(is_bad) {
            let why = format!("there can be no variable {name:?} with the value {value:?}");
            return Err(Error::refused("cannot start a process", why));
        }
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
        Ok(Process::of(name, self.is_daemon, child))
    }
}
