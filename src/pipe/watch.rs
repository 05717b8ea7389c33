//! A descriptor that is readable when a lane has something to receive.
//!
//! Doorbells are rung only at who sleeps, and only once for each sleep. So a lane whose descriptor somebody has asked for is
//! always asleep, as far as the sender can see, as long as nothing is there; that is called *armed* here. The descriptor is
//! an `epoll` set of two: the socket, which becomes readable by a doorbell or the sender's end, and an event of our own.
//!
//! | what is there | the event | doorbells in the socket | readable |
//! |---|---|---|---|
//! | nothing | clear | none, and the next one is announced | no |
//! | nothing, then a message comes | clear | one | yes |
//! | one or more messages, after one was taken | set | any | yes |
//! | nothing, the sender is gone | clear | none, the socket has ended | yes |
//!
//! After each time that something was received, or nothing was found, the first or the third row is made true again.

use crate::sys::poll::{Wake, Watch};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

const SOCKET: u64 = 0;
const EVENT: u64 = 1;

#[derive(Debug)]
pub(crate) struct Watched {
    both: Watch,
    event: Wake,
    is_set: AtomicBool,
}

impl Watched {
    pub(crate) fn new() -> io::Result<Watched> {
        let both = Watch::new()?;
        let event = Wake::new()?;
        both.add(event.descriptor(), EVENT)?;
        Ok(Watched {
            both,
            event,
            is_set: AtomicBool::new(false),
        })
    }

    pub(crate) fn add(&self, socket: &OwnedFd) -> io::Result<()> {
        self.both.add(socket.as_fd(), SOCKET)
    }

    pub(crate) fn remove(&self, socket: &OwnedFd) {
        self.both.remove(socket.as_fd());
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.both.descriptor()
    }

    /// Makes the event say that something is there.
    pub(crate) fn set(&self) {
        if !self.is_set.swap(true, Ordering::Relaxed) {
            self.event.ring();
        }
    }

    /// Makes the event say nothing.
    pub(crate) fn clear(&self) {
        if self.is_set.swap(false, Ordering::Relaxed) {
            self.event.clear();
        }
    }
}
