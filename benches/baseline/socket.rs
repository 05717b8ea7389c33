//! Round trips over a bare Unix socket pair.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use super::child::Child;

/// A process that reads requests of one size and answers each with a reply of another.
#[derive(Debug)]
pub(crate) struct SocketPeer {
    socket: UnixStream,
    reply_bytes: usize,
    _child: Child,
}

impl SocketPeer {
    /// Forks the peer.
    pub(crate) fn fork(request_bytes: usize, reply_bytes: usize) -> SocketPeer {
        let (socket, theirs) = UnixStream::pair().unwrap();
        // The peer has its memory, touched, before it is forked: it must not allocate.
        let mut request = vec![1_u8; request_bytes];
        let reply = vec![1_u8; reply_bytes];
        // SAFETY: `answer` reads and writes on a socket, with memory that it is given.
        let child = unsafe {
            Child::fork(Some(theirs.as_fd()), || {
                answer(&theirs, &mut request, &reply)
            })
        };
        SocketPeer {
            socket,
            reply_bytes,
            _child: child,
        }
    }

    /// Sends `request`, which must have the size agreed on, and returns the reply.
    pub(crate) fn call(&mut self, request: &[u8]) -> Vec<u8> {
        self.socket.write_all(request).unwrap();
        let mut reply = vec![0; self.reply_bytes];
        self.socket.read_exact(&mut reply).unwrap();
        reply
    }
}

/// The peer's life, until the bench closes its end.
fn answer(mut socket: &UnixStream, request: &mut [u8], reply: &[u8]) {
    while socket.read_exact(request).is_ok() && socket.write_all(reply).is_ok() {}
}
