//! A mutex of the C library that processes share and that survives its holder.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::child::Child;
use super::futex::spin_until;
use super::shared::{Shared, Words};

/// What the two processes share. All zeroes is not a mutex yet: [`RobustMutex::new`] makes it one.
struct Page {
    mutex: UnsafeCell<MaybeUninit<libc::pthread_mutex_t>>,
    count: AtomicU64,
    ready: AtomicU64,
    /// How often each process is to count; a new round has another number.
    rounds: [AtomicU64; 2],
    /// Of a round, in nanoseconds, and 1 more, so that it is not 0.
    elapsed: [AtomicU64; 2],
}

// SAFETY: the mutex is made for being used by several processes at once, through calls of the C library only; all else are
// atomics. It needs no drop.
unsafe impl Words for Page {}

/// Owns a robust, process-shared mutex and a number that it guards.
pub(crate) struct RobustMutex {
    page: Shared<Page>,
}

impl RobustMutex {
    /// Makes one in fresh shared memory.
    pub(crate) fn new() -> RobustMutex {
        let page: Shared<Page> = Shared::new();
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: room for attributes.
        unsafe { libc::pthread_mutexattr_init(attributes.as_mut_ptr()) };
        // SAFETY: they were just made.
        unsafe {
            libc::pthread_mutexattr_setpshared(
                attributes.as_mut_ptr(),
                libc::PTHREAD_PROCESS_SHARED,
            )
        };
        // SAFETY: as above.
        unsafe {
            libc::pthread_mutexattr_setrobust(attributes.as_mut_ptr(), libc::PTHREAD_MUTEX_ROBUST)
        };
        // SAFETY: room for a mutex, which nobody uses yet.
        let failed =
            unsafe { libc::pthread_mutex_init(page.mutex.get().cast(), attributes.as_ptr()) };
        assert_eq!(failed, 0);
        RobustMutex { page }
    }

    /// Counts one, with the mutex.
    #[inline]
    pub(crate) fn count_one(&self) {
        let mutex = self.page.mutex.get().cast();
        // SAFETY: a mutex that `new` has made.
        let failed = unsafe { libc::pthread_mutex_lock(mutex) };
        assert_eq!(failed, 0);
        let count = &self.page.count;
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        // SAFETY: this thread holds it.
        unsafe { libc::pthread_mutex_unlock(mutex) };
    }
}

/// Two processes that count with one mutex.
pub(crate) struct TwoCounters {
    _children: [Child; 2],
    mutex: &'static RobustMutex,
}

impl TwoCounters {
    /// Starts them.
    pub(crate) fn fork() -> TwoCounters {
        let mutex: &'static RobustMutex = Box::leak(Box::new(RobustMutex::new()));
        let child = |which: usize| {
            // SAFETY: it reads the clock, touches shared memory and calls the C library's mutex, which allocates nothing.
            unsafe { Child::fork(None, move || mutex.serve(which)) }
        };
        let children = [child(0), child(1)];
        TwoCounters {
            _children: children,
            mutex,
        }
    }

    /// Has each count so often, and says how long the slower one took.
    pub(crate) fn count(&self, each: u64) -> Duration {
        let page = &self.mutex.page;
        page.ready.store(0, Ordering::Relaxed);
        for which in [0, 1] {
            page.elapsed[which].store(0, Ordering::Relaxed);
            page.rounds[which].store(each, Ordering::Release);
        }
        let nanos = [0, 1].map(|which| {
            while page.elapsed[which].load(Ordering::Acquire) == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
            page.elapsed[which].load(Ordering::Acquire) - 1
        });
        Duration::from_nanos(nanos[0].max(nanos[1]))
    }
}

impl RobustMutex {
    fn serve(&self, which: usize) {
        let page = &self.page;
        loop {
            // Asleep between the rounds: the others are measured then.
            while page.rounds[which].load(Ordering::Acquire) == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
            let each = page.rounds[which].swap(0, Ordering::Acquire);
            page.ready.fetch_add(1, Ordering::AcqRel);
            spin_until(|| page.ready.load(Ordering::Acquire) == 2);
            let start = Instant::now();
            for _ in 0..each {
                self.count_one();
            }
            let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX - 1);
            page.elapsed[which].store(nanos + 1, Ordering::Release);
        }
    }
}
