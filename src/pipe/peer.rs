//! The other side of a lane: how it is woken, and whether it is still there, without a system call for each message.
//!
//! Who sleeps for a message is woken by an event, which costs the kernel less than a socket does; who sleeps for room, by the
//! socket. A sleeper waits for its socket in any case, by which it hears that the other side is gone.
//!
//! Only the socket knows: the kernel closes it, whatever the other side died of. To ask it costs more than to send a short
//! message. So it is asked when the other side's count of closed sockets has changed, and else not more often than every few
//! microseconds. A side that closes its socket counts after that, so whoever sees the count finds the socket closed; one
//! that was killed is noticed by the first operation after these microseconds. The count alone proves nothing: a copy that
//! a fork made may be in use.

use crate::shm::Sleeper;
use crate::sys::poll::{is_hung_up, ring_event};
use crate::sys::shared::SharedFd;
use crate::sys::socket;
use crate::sys::step::step;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Shorter than any process takes to die, so that nobody can have learnt of a death that is not noticed here.
const ASKED_EVERY: Duration = Duration::from_micros(10);

/// One side's socket, the words by which it sleeps and leaves, and what is known of the other side.
#[derive(Debug)]
pub(crate) struct Peer {
    // Dropped in this order: the socket is closed before it is said so.
    socket: Arc<SharedFd>,
    /// By which the lane's receiving side is woken.
    event: Arc<SharedFd>,
    pub(crate) sleeper: Leaver,
    left: u64,
    asked: Option<Instant>,
    is_gone: bool,
}

impl Peer {
    pub(crate) fn new(socket: Arc<SharedFd>, event: Arc<SharedFd>, sleeper: Sleeper) -> Peer {
        Peer {
            socket,
            event,
            sleeper: Leaver(sleeper),
            left: 0,
            asked: None,
            is_gone: false,
        }
    }

    pub(crate) fn socket(&self) -> &Arc<SharedFd> {
        &self.socket
    }

    pub(crate) fn event(&self) -> &Arc<SharedFd> {
        &self.event
    }

    /// Whether the other side, which says that it has closed `left` sockets, is gone.
    #[inline]
    pub(crate) fn is_gone(&mut self, left: u64) -> io::Result<bool> {
        if self.is_gone || (left == self.left && self.was_asked_lately()) {
            return Ok(self.is_gone);
        }
        self.ask(left)
    }

    #[cold]
    fn ask(&mut self, left: u64) -> io::Result<bool> {
        self.is_gone = is_hung_up(self.socket.as_fd())?;
        self.left = left;
        self.asked = Some(Instant::now());
        Ok(self.is_gone)
    }

    #[inline]
    fn was_asked_lately(&self) -> bool {
        self.asked
            .is_some_and(|asked| asked.elapsed() < ASKED_EVERY)
    }

    /// Wakes the receiving side.
    pub(crate) fn ring_for_data(&self) {
        self.sleeper.note_ring();
        ring_event(self.event.as_fd());
    }

    /// Wakes the sending side. One that is gone is noticed by whoever waits for it.
    pub(crate) fn ring_for_room(&self) -> io::Result<()> {
        self.sleeper.note_ring();
        match socket::ring(self.socket.as_fd()) {
            Err(error) if socket::is_gone(&error) => Ok(()),
            result => result,
        }
    }
}

/// Says, when dropped, that a socket has been closed.
#[derive(Debug)]
pub(crate) struct Leaver(Sleeper);

impl Drop for Leaver {
    fn drop(&mut self) {
        step!("pipe::close::socket_closed");
        self.0.leave();
        step!("pipe::close::told");
    }
}

impl Deref for Leaver {
    type Target = Sleeper;

    fn deref(&self) -> &Sleeper {
        &self.0
    }
}

impl DerefMut for Leaver {
    fn deref_mut(&mut self) -> &mut Sleeper {
        &mut self.0
    }
}
