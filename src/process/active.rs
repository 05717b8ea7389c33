//! Which children are alive, whoever holds them.

use crate::process::{family, launcher};

/// Describes a process that this one has started; see [`active_children`].
///
/// # Examples
///
/// ```
/// use multiprocess::{Process, active_children};
///
/// let child: Process = Process::builder().name("listed").spawn((), |()| loop { std::thread::park() })?;
/// let found = active_children().into_iter().find(|one| one.name() == "listed").unwrap();
/// assert_eq!(found.pid(), child.pid());
/// child.kill()?;
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildInfo {
    name: String,
    pid: u32,
}

impl ChildInfo {
    /// Returns its name.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::{Process, active_children};
    ///
    /// let child: Process = Process::builder().name("named").spawn((), |()| loop { std::thread::park() })?;
    /// let found = active_children().into_iter().find(|one| one.pid() == child.pid()).unwrap();
    /// assert_eq!(found.name(), "named");
    /// child.kill()?;
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its process id. By the time that it is used, the process may have ended.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::{Process, active_children};
    ///
    /// let child: Process = Process::builder().name("counted").spawn((), |()| loop { std::thread::park() })?;
    /// let found = active_children().into_iter().find(|one| one.name() == "counted").unwrap();
    /// assert_eq!(found.pid(), child.pid());
    /// child.kill()?;
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

/// Tells which processes that this one has started are alive: also those whose handle was dropped, and the workers of pools.
///
/// It asks the fork server, and so takes a round trip to it; the handles need not be kept for it, and a process costs
/// this one no descriptor once its handle is gone (with [`StartMethod::Fork`](crate::StartMethod::Fork), one as long as it
/// runs). Those that a fork server had started which was killed are known as long as they have a handle.
///
/// # Examples
///
/// ```
/// use multiprocess::{Process, active_children};
///
/// let child = Process::builder().name("sleeper").spawn((), |()| loop { std::thread::park() })?;
/// let alive = active_children();
/// assert!(alive.iter().any(|one| one.name() == "sleeper" && one.pid() == child.pid()));
///
/// child.kill()?;
/// let ended: Result<(), _> = child.join();
/// assert!(ended.is_err() && active_children().is_empty());
/// # Ok::<(), multiprocess::Error>(())
/// ```
pub fn active_children() -> Vec<ChildInfo> {
    let mut alive: Vec<ChildInfo> = Vec::new();
    for (name, pid) in launcher::ask_who_lives().into_iter().chain(family::alive()) {
        if alive.iter().all(|known| known.pid != pid) {
            alive.push(ChildInfo { name, pid });
        }
    }
    alive.sort_by_key(|child| child.pid);
    alive
}
