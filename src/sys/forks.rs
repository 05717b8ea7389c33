//! Notices forks, also those that the application makes by itself.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

static FORKS: AtomicU64 = AtomicU64::new(0);

/// A stretch of this process's life without a fork. After one, parent and child are each in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pid: u32,
    forks: u64,
}

impl Stretch {
    /// The one that begins with the process or its last fork. What went past the C library is noticed by the child, from
    /// its pid, and not by the parent.
    pub(crate) fn now() -> Stretch {
        let forks = count();
        Stretch {
            pid: std::process::id(),
            forks,
        }
    }
}

/// How many forks there were in this process's past, as far as they were made by the C library or by us since this was first
/// asked. Costs no system call.
#[inline]
pub(crate) fn count() -> u64 {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // SAFETY: `on_fork` touches one atomic only, which is allowed between fork and exec. Where there is no memory
        // to register it, forks are noticed by the pid alone.
        let _without_memory = unsafe { libc::pthread_atfork(None, Some(on_fork), Some(on_fork)) };
    });
    FORKS.load(Ordering::Relaxed)
}

/// A fork that goes past the C library is about to be made.
pub(crate) fn note() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

unsafe extern "C" fn on_fork() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// Keeps the tests that fork from those that this would disturb, since all are threads of one process: a fork ends the stretch
/// of all of them, and the child has a copy of every descriptor, so that nothing is the last that a test closes.
#[cfg(test)]
pub(crate) mod apart {
    use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

    static APART: RwLock<()> = RwLock::new(());

    /// As long as this is there its holder may have children that it has forked.
    pub(crate) struct Forks {
        _alone: RwLockWriteGuard<'static, ()>,
    }

    pub(crate) fn forks() -> Forks {
        Forks {
            _alone: APART.write(),
        }
    }

    /// As long as what this returns is there nobody forks, and nobody has a child. It is not asked for twice by one thread.
    pub(crate) fn no_forks() -> RwLockReadGuard<'static, ()> {
        APART.read()
    }
}
