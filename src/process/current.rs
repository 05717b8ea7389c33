//! This process, as its own code sees it.

use crate::sys::{identity, limits};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicU64, Ordering};

/// The deepest nesting of processes that start processes.
pub(crate) const DEPTH_MAX: u32 = 16;

/// What a process is told about itself when it is started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) name: String,
    /// The place in the family: the second child of the first child has `[1, 2]`.
    pub(crate) path: Vec<u64>,
    pub(crate) is_daemon: bool,
    pub(crate) parent: Option<ParentProcess>,
}

/// Set once in each process; a process that is forked finds its parent's here and replaces it.
static IDENTITY: RwLock<Option<&'static Identity>> = RwLock::new(None);
static CHILDREN: AtomicU64 = AtomicU64::new(0);

/// What this process is; the first process of a program is its main process.
pub(crate) fn identity() -> &'static Identity {
    if let Some(identity) = *IDENTITY.read() {
        return identity;
    }
    IDENTITY.write().get_or_insert_with(|| {
        Box::leak(Box::new(Identity {
            name: "MainProcess".to_owned(),
            path: Vec::new(),
            is_daemon: false,
            parent: None,
        }))
    })
}

/// Takes the identity that this process was started with. Once, before its function runs.
pub(crate) fn assume(identity: Identity) {
    *IDENTITY.write() = Some(Box::leak(Box::new(identity)));
    CHILDREN.store(0, Ordering::Relaxed);
}

/// The identity of the next child: named after its place, unless it has a name.
pub(crate) fn next_child(name: Option<String>, is_daemon: bool) -> Identity {
    let number = CHILDREN.fetch_add(1, Ordering::Relaxed) + 1;
    let ours = identity();
    let mut path = ours.path.clone();
    path.push(number);
    let name = name.unwrap_or_else(|| {
        let path: Vec<String> = path.iter().map(u64::to_string).collect();
        format!("Process-{}", path.join(":"))
    });
    let parent = Some(ParentProcess {
        name: ours.name.clone(),
        pid: identity::pid(),
    });
    Identity {
        name,
        path,
        is_daemon,
        parent,
    }
}

/// Describes the process that asks; see [`current_process`].
///
/// # Examples
///
/// ```
/// let main = multiprocess::current_process();
/// assert_eq!((main.name(), main.pid()), ("MainProcess", std::process::id()));
/// ```
#[derive(Clone, Debug)]
pub struct CurrentProcess {
    identity: &'static Identity,
}

/// Describes the process that started the one that asks; see [`CurrentProcess::parent`].
///
/// # Examples
///
/// ```
/// use multiprocess::{Process, current_process};
///
/// let child = Process::spawn((), |()| current_process().parent())?;
/// let parent = child.join()?.unwrap();
/// assert_eq!((parent.name(), parent.pid()), ("MainProcess", std::process::id()));
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParentProcess {
    name: String,
    pid: u32,
}

/// Tells which process this code runs in.
///
/// # Examples
///
/// ```
/// use multiprocess::{Process, current_process};
///
/// let child = Process::builder().name("reader").spawn((), |()| {
///     (current_process().name().to_owned(), current_process().parent().map(|parent| parent.pid()))
/// })?;
/// assert_eq!(child.join()?, ("reader".to_owned(), Some(std::process::id())));
/// # Ok::<(), multiprocess::Error>(())
/// ```
pub fn current_process() -> CurrentProcess {
    CurrentProcess {
        identity: identity(),
    }
}

impl CurrentProcess {
    /// Returns the name: `MainProcess` for the first process of a program.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(multiprocess::current_process().name(), "MainProcess");
    /// ```
    pub fn name(&self) -> &str {
        &self.identity.name
    }

    /// Returns the process id.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(multiprocess::current_process().pid(), std::process::id());
    /// ```
    pub fn pid(&self) -> u32 {
        identity::pid()
    }

    /// Tells whether the process ends with the one that started it.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!multiprocess::current_process().is_daemon());
    /// ```
    pub fn is_daemon(&self) -> bool {
        self.identity.is_daemon
    }

    /// Returns the process that started this one; `None` in the first process of a program.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(multiprocess::current_process().parent(), None);
    /// ```
    pub fn parent(&self) -> Option<ParentProcess> {
        self.identity.parent.clone()
    }
}

impl ParentProcess {
    /// Returns its name.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::{Process, current_process};
    ///
    /// let child = Process::spawn((), |()| current_process().parent().map(|parent| parent.name().to_owned()))?;
    /// assert_eq!(child.join()?.as_deref(), Some("MainProcess"));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its process id, as of when this process was started.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::{Process, current_process};
    ///
    /// let child = Process::spawn((), |()| current_process().parent().map(|parent| parent.pid()))?;
    /// assert_eq!(child.join()?, Some(std::process::id()));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

/// Returns how many processes can run at once here: what the affinity of this process and the quota of its control
/// group leave, at least 1.
///
/// # Examples
///
/// ```
/// assert!(multiprocess::available_parallelism() >= 1);
/// ```
pub fn available_parallelism() -> usize {
    limits::available_parallelism()
}
