//! How far a fork server has come: a word that it alone writes, and that its application reads when it has died.
//!
//! A request that a dying server has not taken in can be made again to the next one. One that it has taken in must not: the
//! process may have begun, and would begin twice. No message could tell the two apart, since a server that is killed sends
//! none; a word in shared memory outlives it. Requests are numbered in the order in which they are sent, from 1.
//!
//! | the server was killed | the word | then |
//! |---|---|---|
//! | before it took the request in, or before it marked it | is less than the request's number | nothing was started: it is asked for again |
//! | after it marked it, which it does before it starts anything | is at least that number | an error: nobody knows whether it has begun |
//!
//! What the server forks does not have the word.

use crate::sys::memory::{Mapping, ReadOnlyMapping, SealedMemory};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

const BYTES: usize = size_of::<u64>();

/// The application's side.
#[derive(Debug)]
pub(crate) struct Taken {
    memory: ReadOnlyMapping,
}

impl Taken {
    /// Makes the word; returns the file for the server as well.
    pub(crate) fn open() -> io::Result<(Taken, OwnedFd)> {
        let file = SealedMemory::create(BYTES)?;
        let memory = file.map_read_only(0, BYTES)?;
        Ok((Taken { memory }, file.into()))
    }

    /// Whether the server has marked the request, so that its process may have begun.
    pub(crate) fn has(&self, request: u64) -> bool {
        // Pairs with the release in `Ledger::mark`.
        self.memory.load(0, Ordering::Acquire) >= request
    }
}

/// The server's side.
#[derive(Debug)]
pub(crate) struct Ledger {
    memory: Mapping,
}

impl Ledger {
    pub(crate) fn adopt(file: OwnedFd) -> io::Result<Ledger> {
        let memory = SealedMemory::adopt(file)?.map(0, BYTES)?;
        memory.keep_from_forks()?;
        Ok(Ledger { memory })
    }

    /// Marks a request, before anything is started for it.
    pub(crate) fn mark(&self, request: u64) {
        // Pairs with the acquire in `Taken::has`.
        self.memory.word(0).store(request, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_marked_may_have_begun_and_nothing_behind_it() {
        let (taken, file) = Taken::open().unwrap();
        assert!(!taken.has(1));
        let ledger = Ledger::adopt(file).unwrap();
        ledger.mark(1);
        ledger.mark(2);
        assert!(taken.has(1) && taken.has(2) && !taken.has(3));
    }
}
