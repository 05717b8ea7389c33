//! The processes that this one has started and that may be alive: for whoever asks, and to collect those that are its
//! children to the kernel.
//!
//! A process has one entry as long as it is held: by its handle, where the fork server has started it; where this
//! process has forked it, by its minder, which is collected here once it has ended. What the fork server has started and
//! nobody holds, the server knows.
//!
//! What was forked here and is no daemon is waited for at the end. Its *lifeline* tells when it has ended, though nobody holds it
//! and its minder was killed: a pipe of which it alone has the end for writing. This process keeps the other end only: what it
//! forks besides would hold the end for writing as well, and its own end would wait for that.

use crate::deadline::Deadline;
use crate::sys::fork;
use crate::sys::own::Own;
use crate::sys::pidfd::PidFd;
use crate::sys::poll::readable;
use parking_lot::Mutex;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

#[derive(Debug)]
struct Member {
    name: String,
    pid: u32,
    held: Held,
}

#[derive(Debug)]
enum Held {
    Handle(Weak<PidFd>),
    /// The pid may not be known yet; then it is 0.
    Minder {
        process: Arc<PidFd>,
        is_daemon: bool,
    },
}

#[derive(Debug, Default)]
struct Family {
    members: Vec<Member>,
    /// How many there were after the last look at all of them.
    kept: usize,
    /// Those of the non-daemons that were forked here.
    lifelines: Vec<OwnedFd>,
}

/// What a forked process finds of its parent's is none of its own.
static FAMILY: Own<Mutex<Family>> = Own::new(Mutex::default);

/// Gives the family of this process to `act`.
fn with_family<T>(act: impl FnOnce(&mut Family) -> T) -> T {
    act(&mut FAMILY.get().lock())
}

/// In a process that was forked by the only thread of its parent: lets go of what is the parent's.
pub(crate) fn forget_parents() {
    // Another thread may hold it nevertheless, of a process that the parent was forked from.
    if let Some(mut parents) = FAMILY.inherited().and_then(Mutex::try_lock) {
        *parents = Family::default();
    }
}

impl Family {
    fn add(&mut self, member: Member) {
        // So often that each start pays for a few looks on average, however many there are.
        if self.members.len() > 2 * self.kept + 16 {
            self.sweep();
        }
        self.members.push(member);
    }

    fn sweep(&mut self) {
        self.members.retain(|member| match &member.held {
            Held::Handle(process) => process.strong_count() > 0,
            Held::Minder { process, .. } => !fork::reap(process),
        });
        self.kept = self.members.len();
        let now = Deadline::after(Duration::ZERO);
        self.lifelines
            .retain(|one| !readable([one.as_fd()], now).is_ok_and(|[closed]| closed));
    }
}

/// Notes a process that runs and has a handle.
pub(crate) fn note(name: &str, pid: u32, process: &Arc<PidFd>) {
    with_family(|family| {
        family.add(Member {
            name: name.to_owned(),
            pid,
            held: Held::Handle(Arc::downgrade(process)),
        });
    });
}

/// Notes a process that is being forked, by its minder, and collects minders that have ended. One that has a lifeline is no
/// daemon.
pub(crate) fn note_minder(name: &str, lifeline: Option<OwnedFd>, minder: &Arc<PidFd>) {
    with_family(|family| {
        family.sweep();
        let is_daemon = lifeline.is_none();
        family.lifelines.extend(lifeline);
        family.add(Member {
            name: name.to_owned(),
            pid: 0,
            held: Held::Minder {
                process: Arc::clone(minder),
                is_daemon,
            },
        });
    });
}

/// Notes which process a minder looks after.
pub(crate) fn note_minded(minder: &Arc<PidFd>, pid: u32) {
    with_family(|family| {
        let is_it = |member: &&mut Member| match &member.held {
            Held::Minder { process, .. } => Arc::ptr_eq(process, minder),
            Held::Handle(_) => false,
        };
        if let Some(member) = family.members.iter_mut().find(is_it) {
            member.pid = pid;
        }
    });
}

/// Collects a minder that has told all that it had to tell, or was killed: it ends at once.
pub(crate) fn bury_minder(minder: &PidFd) {
    // Should somebody have stopped it, a later look collects it.
    let _ended = readable([minder.as_fd()], Deadline::after(Duration::from_secs(1)));
    with_family(Family::sweep);
}

/// Name and pid of each that is held and alive.
pub(crate) fn alive() -> Vec<(String, u32)> {
    with_family(|family| {
        family.sweep();
        let now = Deadline::after(Duration::ZERO);
        let is_alive = |member: &&Member| match &member.held {
            Held::Handle(process) => process.upgrade().is_some_and(|process| {
                !readable([process.as_fd()], now).is_ok_and(|[ended]| ended)
            }),
            Held::Minder { .. } => member.pid != 0,
        };
        let alive = family.members.iter().filter(is_alive);
        alive
            .map(|member| (member.name.clone(), member.pid))
            .collect()
    })
}

/// Takes the lifelines of the non-daemons that were forked here and may run.
pub(crate) fn take_lifelines() -> Vec<OwnedFd> {
    with_family(|family| std::mem::take(&mut family.lifelines))
}

/// Kills the daemons that were forked here, by their minders.
pub(crate) fn end_forked_daemons() {
    with_family(|family| {
        for member in &family.members {
            if let Held::Minder {
                process,
                is_daemon: true,
            } = &member.held
            {
                let _ended = process.kill();
            }
        }
    });
}
