//! A value of which each process has its own, however it was forked.
//!
//! A fork copies what is in memory, locks as they are just then: one that another thread held stays locked in the child for good,
//! with something half done behind it. So nothing of the parent's is used in a child: who finds the parent's value makes a new
//! one, and the parent's is left where it is.
//!
//! | the place holds | in | next |
//! |---|---|---|
//! | nothing | a process that has not asked yet, nor any that it comes from | its own value, by any of its threads |
//! | the value of another life | a child that has not asked yet | its own value, by any of its threads |
//! | its own value | a process that has asked | for good |
//!
//! Nothing here waits. A value is never taken away, so that it can be lent for good.

use crate::sys::life::Life;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// See the file's own words.
#[derive(Debug)]
pub(crate) struct Own<T: Send + Sync + 'static> {
    place: AtomicPtr<Made<T>>,
    make: fn() -> T,
}

#[derive(Debug)]
struct Made<T> {
    life: Life,
    value: T,
}

impl<T: Send + Sync + 'static> Own<T> {
    /// Of each process it is what `make` makes.
    pub(crate) const fn new(make: fn() -> T) -> Own<T> {
        Own {
            place: AtomicPtr::new(ptr::null_mut()),
            make,
        }
    }

    /// That of this process.
    pub(crate) fn get(&self) -> &'static T {
        let life = Life::now();
        loop {
            let (found, made) = self.look();
            if let Some(made) = made.filter(|made| made.life == life) {
                return &made.value;
            }
            let value = (self.make)();
            let ours = Box::into_raw(Box::new(Made { life, value }));
            // Pairs with the acquire in `look`.
            let (published, failed) = (Ordering::AcqRel, Ordering::Relaxed);
            if let Err(_others) = self.place.compare_exchange(found, ours, published, failed) {
                // SAFETY: it was made just now, by a box, and nobody else has seen it.
                drop(unsafe { Box::from_raw(ours) });
            }
        }
    }

    /// That of the process that this one was forked from, as long as this one has none of its own. What is locked in it may stay so
    /// for good.
    pub(crate) fn inherited(&self) -> Option<&'static T> {
        let (_, made) = self.look();
        made.filter(|made| made.life != Life::now())
            .map(|made| &made.value)
    }

    /// What is in the place.
    fn look(&self) -> (*mut Made<T>, Option<&'static Made<T>>) {
        // Pairs with the release in `get`.
        let found = self.place.load(Ordering::Acquire);
        // SAFETY: a place holds null or what a box has made, in this process or in one that it was forked from, whose memory
        // this one has a copy of. From there it is never given back, and nobody has it to change it.
        (found, unsafe { found.as_ref() })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::sys::forks::apart;
    use std::sync::Mutex;
    use std::thread;

    static WORDS: Own<Mutex<Vec<u32>>> = Own::new(Mutex::default);

    #[test]
    fn all_threads_have_the_same_and_a_child_another_whoever_holds_its_parents() {
        let _apart = apart::forks();
        let threads: Vec<_> = (0..8)
            .map(|number| thread::spawn(move || WORDS.get().lock().unwrap().push(number)))
            .collect();
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
        let held = WORDS.get().lock().unwrap();
        assert_eq!(held.len(), 8);
        // SAFETY: the child reads, computes, allocates a little, which the C library sees to, and ends.
        let child = match unsafe { libc::fork() } {
            0 => {
                let is_locked = WORDS.inherited().is_some_and(|it| it.try_lock().is_err());
                let is_fresh = WORDS.get().try_lock().is_ok_and(|words| words.is_empty());
                let is_well = is_locked && is_fresh && WORDS.inherited().is_none();
                // SAFETY: it ends this process, and nothing else.
                unsafe { libc::_exit(if is_well { 0 } else { 1 }) }
            }
            child => child,
        };
        let mut status = -1;
        // SAFETY: the place for the status is valid for writing.
        let collected = unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!((collected, status), (child, 0));
        assert!(WORDS.inherited().is_none());
    }
}
