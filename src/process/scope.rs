//! [`scope`]: closures that borrow and capture anything, each in a forked process.

use crate::deadline::Deadline;
use crate::error::{Error, Result, TaskError, TaskErrorKind};
use crate::process::child::Child;
use crate::process::current;
use crate::process::enter;
use crate::process::launcher::fork_here;
use crate::process::request::Echo;
use crate::sys::fork::require_single_thread_soon;
use crate::sys::step::step;
use crate::task::{Portable, Returned, run_and_pack};
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

/// Starts processes that may borrow; given to the closure of [`scope`].
///
/// # Examples
///
/// ```
/// let words = ["two", "three"];
/// let lengths = multiprocess::scope(|s| words.map(|word| s.spawn(move || word.len()).join()));
/// // Refused where other threads run, as beside a test.
/// assert!(lengths.is_err() || lengths.is_ok_and(|lengths| lengths == [Ok(3), Ok(5)]));
/// ```
pub struct Scope<'scope, 'env: 'scope> {
    slots: RefCell<Vec<Rc<Slot>>>,
    scope: PhantomData<&'scope mut &'scope ()>,
    env: PhantomData<&'env mut &'env ()>,
}

/// A process of a [`scope`], and what its closure will return.
///
/// # Examples
///
/// ```
/// // Refused where other threads run, as beside a test.
/// let done = multiprocess::scope(|s| {
///     let child = s.spawn(|| 6 * 7);
///     assert_eq!(child.join(), Ok(42));
/// });
/// assert!(done.is_ok() || done.is_err_and(|error| error.to_string().contains("other threads run")));
/// ```
pub struct ScopedProcess<R> {
    name: String,
    pid: Option<u32>,
    slot: Rc<Slot>,
    result: PhantomData<fn() -> R>,
}

/// Runs closures that may borrow and capture anything, each in a process of its own, which is forked here and now: a process
/// has a copy of all that is in memory, so that nothing but the result is encoded.
///
/// What a closure changes, it changes in its copy. What is moved into it is dropped in both processes: here as soon as the
/// process runs, there when the closure has ended. So a value whose destructor reaches outside the process, as that of a
/// temporary folder does, is better borrowed.
///
/// Returns when `f` has returned and every process has ended, joined or not; also where `f` panics, whose panic then
/// goes on. The processes are daemons: however this one ends, they end with it.
///
/// # Errors
///
/// Where another thread runs in this process, which is why it is sound: what that thread holds would stay held in the copy for
/// ever. And where a process failed that was not joined: what became of it is told here, as it is by a panic of
/// [`std::thread::scope`].
///
/// # Examples
///
/// ```
/// // Test programs, of this documentation too, may run on a thread beside the main one, which is refused.
/// let text = String::from("to be or not to be");
/// let counted = multiprocess::scope(|s| {
///     let words = s.spawn(|| text.split(' ').count());
///     let letters = s.spawn(|| text.chars().filter(|letter| letter.is_alphabetic()).count());
///     Ok::<_, multiprocess::TaskError>((words.join()?, letters.join()?))
/// });
/// match counted {
///     Ok(counts) => assert_eq!(counts?, (6, 13)),
///     Err(refused) => assert!(refused.to_string().contains("other threads run")),
/// }
/// # Ok::<(), multiprocess::Error>(())
/// ```
pub fn scope<'env, T>(f: impl for<'s> FnOnce(&'s Scope<'s, 'env>) -> T) -> Result<T> {
    let operation = "cannot fork the processes of a scope";
    require_single_thread_soon().map_err(|error| Error::io(operation, error))?;
    let scope = Scope {
        slots: RefCell::new(Vec::new()),
        scope: PhantomData,
        env: PhantomData,
    };
    let all_ended = JoinAll(&scope.slots);
    let value = f(&scope);
    match all_ended.join() {
        None => Ok(value),
        Some(failure) => Err(failure),
    }
}

impl<'scope> Scope<'scope, '_> {
    /// Forks a process that runs `f`. That it could not be started is told by [`join`](ScopedProcess::join).
    ///
    /// # Examples
    ///
    /// ```
    /// // Refused where other threads run, as beside a test.
    /// let done = multiprocess::scope(|s| {
    ///     let child = s.spawn(|| std::process::id());
    ///     assert_ne!(child.join(), Ok(std::process::id()));
    /// });
    /// assert!(done.is_ok() || done.is_err_and(|error| error.to_string().contains("other threads run")));
    /// ```
    pub fn spawn<F, R>(&'scope self, f: F) -> ScopedProcess<R>
    where
        F: FnOnce() -> R + 'scope,
        R: Portable,
    {
        let identity = current::next_child(None, true);
        let name = identity.name.clone();
        let started = fork_here(identity, Echo::Printed, &[], |status| {
            enter::give_back(Returned(run_and_pack(f)), status)
        });
        step!("scope::spawn::forked");
        let started = started.and_then(|starting| starting.wait().map_err(Error::from));
        step!("scope::spawn::started");
        let pid = started.as_ref().ok().map(Child::pid);
        let slot = Rc::new(Slot(RefCell::new(Some(started))));
        self.slots.borrow_mut().push(slot.clone());
        ScopedProcess {
            name,
            pid,
            slot,
            result: PhantomData,
        }
    }
}

impl<R: Portable> ScopedProcess<R> {
    /// Waits until the process has ended and returns what its closure returned.
    ///
    /// # Errors
    ///
    /// What became of it: it could not be started, it panicked, its process died under it, or the result could not be
    /// encoded there or decoded here.
    ///
    /// # Examples
    ///
    /// ```
    /// // Refused where other threads run, as beside a test.
    /// let done = multiprocess::scope(|s| {
    ///     let child = s.spawn(|| std::process::exit(2));
    ///     assert!(child.join().map(|(): ()| ()).unwrap_err().is_crash());
    /// });
    /// assert!(done.is_ok() || done.is_err_and(|error| error.to_string().contains("other threads run")));
    /// ```
    pub fn join(self) -> Result<R, TaskError> {
        let system = |why: String| TaskError::new(TaskErrorKind::System, why);
        match self.slot.0.take() {
            None => Err(system("its failure was told by its scope".to_owned())),
            Some(Err(error)) => Err(system(error.to_string())),
            Some(Ok(mut child)) => {
                let ended = child.wait(Deadline::NEVER);
                step!("scope::join::ended");
                ended.map_err(|error| system(error.to_string()))?;
                child.into_arrived().unpack()
            }
        }
    }
}

impl<R> ScopedProcess<R> {
    /// Returns the name: `Process-N`, or `Process-N:M` for the M-th child of the N-th.
    ///
    /// # Examples
    ///
    /// ```
    /// // Refused where other threads run, as beside a test.
    /// let done = multiprocess::scope(|s| {
    ///     let child = s.spawn(|| ());
    ///     assert!(child.name().starts_with("Process-"));
    /// });
    /// assert!(done.is_ok() || done.is_err_and(|error| error.to_string().contains("other threads run")));
    /// ```
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the process id; `None` where the process could not be started.
    ///
    /// # Examples
    ///
    /// ```
    /// // Refused where other threads run, as beside a test.
    /// let done = multiprocess::scope(|s| {
    ///     let child = s.spawn(|| std::process::id());
    ///     let pid = child.pid();
    ///     assert_eq!(child.join().ok(), pid);
    /// });
    /// assert!(done.is_ok() || done.is_err_and(|error| error.to_string().contains("other threads run")));
    /// ```
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Tells whether the process is still running.
    ///
    /// # Examples
    ///
    /// ```
    /// // Refused where other threads run, as beside a test.
    /// let done = multiprocess::scope(|s| {
    ///     let child = s.spawn(|| loop { std::thread::park() });
    ///     assert!(child.is_alive());
    ///     child.kill().unwrap();
    ///     assert!(child.join().map(|(): ()| ()).is_err());
    /// });
    /// assert!(done.is_ok() || done.is_err_and(|error| error.to_string().contains("other threads run")));
    /// ```
    pub fn is_alive(&self) -> bool {
        matches!(&*self.slot.0.borrow(), Some(Ok(child)) if !child.has_ended())
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
    /// // Refused where other threads run, as beside a test.
    /// let done = multiprocess::scope(|s| {
    ///     let child = s.spawn(|| loop { std::thread::park() });
    ///     child.kill().unwrap();
    ///     assert!(child.join().map(|(): ()| ()).unwrap_err().is_crash());
    /// });
    /// assert!(done.is_ok() || done.is_err_and(|error| error.to_string().contains("other threads run")));
    /// ```
    pub fn kill(&self) -> Result<()> {
        match &*self.slot.0.borrow() {
            Some(Ok(child)) => child
                .process()
                .kill()
                .map_err(|error| Error::io(format!("cannot kill process {:?}", self.name), error)),
            _ => Ok(()),
        }
    }
}

/// A process that its handle and its scope look after; empty once it has been joined.
#[derive(Debug)]
struct Slot(RefCell<Option<Result<Child>>>);

impl Slot {
    /// Waits until it has ended, if nobody has joined it; returns what it failed with.
    fn end(&self) -> Option<Error> {
        let mut slot = self.0.borrow_mut();
        match slot.take()? {
            Err(error) => Some(error),
            Ok(mut child) => {
                if let Err(error) = child.wait(Deadline::NEVER) {
                    return Some(Error::io("cannot wait for a process of a scope", error));
                }
                if child.has_failed() {
                    return child.into_arrived().0.err().map(Error::from);
                }
                step!("scope::end::one_ended");
                // A handle that has left the scope may still want it.
                *slot = Some(Ok(child));
                None
            }
        }
    }
}

/// Joins what nobody has joined, in any case.
struct JoinAll<'a>(&'a RefCell<Vec<Rc<Slot>>>);

impl JoinAll<'_> {
    /// Waits for all; returns what the first failed with.
    fn join(&self) -> Option<Error> {
        let slots = self.0.take();
        let mut failures: Vec<Error> = slots
            .iter()
            .filter_map(|slot| slot.end())
            .inspect(|_| step!("scope::end::one_failed"))
            .collect();
        (!failures.is_empty()).then(|| failures.swap_remove(0))
    }
}

impl Drop for JoinAll<'_> {
    fn drop(&mut self) {
        // Told already, or the panic that goes on tells enough.
        let _failure = self.join();
    }
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let started = self.slots.borrow().len();
        f.debug_struct("Scope").field("started", &started).finish()
    }
}

impl<R> fmt::Debug for ScopedProcess<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedProcess")
            .field("name", &self.name)
            .field("pid", &self.pid)
            .field("alive", &self.is_alive())
            .finish()
    }
}
