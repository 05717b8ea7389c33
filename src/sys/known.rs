//! The memory files that are mapped in this process, so that each is mapped once, however often it arrives.

use crate::sys::file::Identity;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Weak};

/// Finds what is mapped by what the kernel calls its file. It keeps nothing alive.
#[derive(Debug)]
pub(crate) struct Known<T> {
    by_file: Mutex<BTreeMap<Identity, Weak<T>>>,
}

impl<T> Known<T> {
    pub(crate) const fn new() -> Known<T> {
        Known {
            by_file: Mutex::new(BTreeMap::new()),
        }
    }

    /// What is mapped of this file, if it is.
    pub(crate) fn find(&self, file: Identity) -> Option<Arc<T>> {
        self.by_file.lock().get(&file).and_then(Weak::upgrade)
    }

    /// What is mapped of this file, or else what `map` makes of it.
    pub(crate) fn find_or(
        &self,
        file: Identity,
        map: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<Arc<T>> {
        match self.find(file) {
            Some(known) => Ok(known),
            None => Ok(self.enter(file, Arc::new(map()?), |_| ())),
        }
    }

    /// Makes this known, after `prepare`; or else finds what another thread was quicker with.
    pub(crate) fn enter(&self, file: Identity, fresh: Arc<T>, prepare: impl FnOnce(&T)) -> Arc<T> {
        // What is not needed goes after the lock: its end takes that.
        let mut by_file = self.by_file.lock();
        if let Some(quicker) = by_file.get(&file).and_then(Weak::upgrade) {
            return quicker;
        }
        prepare(&fresh);
        by_file.insert(file, Arc::downgrade(&fresh));
        drop(by_file);
        fresh
    }

    /// To be called by what is mapped, at its end.
    pub(crate) fn forget(&self, file: Identity) {
        let mut by_file = self.by_file.lock();
        let is_gone = |known: &Weak<T>| known.strong_count() == 0;
        // Another thread may have mapped it anew meanwhile.
        if by_file.get(&file).is_some_and(is_gone) {
            by_file.remove(&file);
        }
    }

    #[cfg(test)]
    pub(crate) fn has(&self, file: Identity) -> bool {
        self.by_file.lock().contains_key(&file)
    }
}
