//! A descriptor that is readable when a lane has something to receive.
//!
//! Who sleeps is rung at only once for each sleep. So a lane whose descriptor somebody has asked for is always asleep, as far
//! as the sender can see, as long as nothing is there; that is called *armed* here. The descriptor is an `epoll` set of two:
//! the event by which the sender rings, and the socket, which becomes readable by the sender's end.
//!
//! | what is there | the event | readable |
//! |---|---|---|
//! | nothing | clear; the next sleep is announced | no |
//! | nothing, then a message comes | set by the sender | yes |
//! | messages, after one was taken | set by the receiving side itself | yes |
//! | nothing, the sender is gone | clear; the socket has ended | yes |
//! | nothing, and the sender sleeps for room and cannot be rung at | set by the receiving side itself | yes: whoever looks tries again |
//!
//! After each time that something was received, or nothing was found, the first, the third or the last row is made true again.
//!
//! It may be readable with nothing there, which is no row: a sender shows its message first and rings then, and if it is kept off
//! in between, the message is taken before the event is set. Whoever then looks and finds nothing clears it.
//!
//! While the end has moved away, the set holds neither: they belong to another process now. A descriptor of its own that is
//! always readable takes their place, so that whoever waits is told by receiving.

use crate::sys::poll::{Wake, Watch, clear_event, ring_event};
use crate::sys::shared::SharedFd;
use parking_lot::Mutex;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// The numbers of what is watched; nobody asks for them.
const SOCKET: u64 = 0;
const EVENT: u64 = 1;
const AWAY: u64 = 2;

#[derive(Debug)]
pub(crate) struct Watched {
    both: Watch,
    /// What is readable while the end has moved away.
    away: Mutex<Option<Wake>>,
}

impl Watched {
    /// Watches a lane's socket and event, if it has not moved.
    pub(crate) fn new(lane: Option<(&Arc<SharedFd>, &Arc<SharedFd>)>) -> io::Result<Watched> {
        let watched = Watched {
            both: Watch::new()?,
            away: Mutex::new(None),
        };
        match lane {
            Some((socket, event)) => watched.watch(socket, event)?,
            None => watched.tell_of_absence()?,
        }
        Ok(watched)
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.both.descriptor()
    }

    fn watch(&self, socket: &OwnedFd, event: &OwnedFd) -> io::Result<()> {
        self.both.add(socket.as_fd(), SOCKET)?;
        self.both.add(event.as_fd(), EVENT)
    }

    fn tell_of_absence(&self) -> io::Result<()> {
        let wake = Wake::new()?;
        wake.ring();
        self.both.add(wake.descriptor(), AWAY)?;
        *self.away.lock() = Some(wake);
        Ok(())
    }

    /// The lane moves away.
    pub(crate) fn leave(&self, socket: &OwnedFd, event: &OwnedFd) {
        self.both.remove(socket.as_fd());
        self.both.remove(event.as_fd());
        // Where the system refuses one more descriptor, who waits for this one already is not told.
        let _not_told = self.tell_of_absence();
    }

    /// The lane did not move after all.
    pub(crate) fn come_back(&self, socket: &OwnedFd, event: &OwnedFd) {
        if self.watch(socket, event).is_ok() {
            if let Some(away) = self.away.lock().take() {
                self.both.remove(away.descriptor());
            }
        }
    }

    /// Makes the event say that something is there.
    pub(crate) fn set(&self, event: &OwnedFd) {
        ring_event(event.as_fd());
    }

    /// Makes the event say nothing, whoever has set it.
    pub(crate) fn clear(&self, event: &OwnedFd) {
        clear_event(event.as_fd());
    }
}
