//! A memory file passed over a bare Unix socket, mapped and perhaps read by who receives it.

use std::io::Read;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::child::Child;

/// A process that maps what it receives, says the sum of its first numbers, and lets it go.
#[derive(Debug)]
pub(crate) struct PassingPeer {
    socket: UnixStream,
    _child: Child,
}

impl PassingPeer {
    /// Forks the peer.
    pub(crate) fn fork() -> PassingPeer {
        let (socket, theirs) = UnixStream::pair().unwrap();
        // SAFETY: `answer` makes system calls and reads what it has mapped.
        let child = unsafe { Child::fork(Some(theirs.as_fd()), || answer(&theirs)) };
        PassingPeer {
            socket,
            _child: child,
        }
    }

    /// Passes a file of `len` bytes, of which `read` are to be read; returns the sum of the numbers in them.
    pub(crate) fn pass(&mut self, file: BorrowedFd<'_>, len: usize, read: usize) -> u64 {
        let request = [len.to_ne_bytes(), read.to_ne_bytes()].concat();
        let bytes = [std::io::IoSlice::new(&request)];
        let rights = [file.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&rights)];
        let socket = self.socket.as_raw_fd();
        sendmsg::<()>(socket, &bytes, &rights, MsgFlags::empty(), None).unwrap();
        let mut sum = [0; 8];
        self.socket.read_exact(&mut sum).unwrap();
        u64::from_ne_bytes(sum)
    }
}

/// Makes a memory file of these bytes.
pub(crate) fn memory_file(bytes: &[u8]) -> OwnedFd {
    let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
    let mut file = std::fs::File::from(nix::sys::memfd::memfd_create(c"bench", flags).unwrap());
    file.write_all(bytes).unwrap();
    file.into()
}

/// The peer's life, until the bench closes its end.
fn answer(mut socket: &UnixStream) {
    while let Some((file, len, read)) = receive(socket) {
        // SAFETY: maps a file that was received just now, at an address that the kernel chooses.
        let map = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file,
                0,
            )
        };
        if map == libc::MAP_FAILED {
            return;
        }
        // SAFETY: so much was mapped, and nobody writes it.
        let numbers = unsafe { std::slice::from_raw_parts(map.cast::<u64>(), read / 8) };
        let sum: u64 = numbers.iter().sum();
        // SAFETY: what was mapped and opened here is not used any more.
        unsafe {
            libc::munmap(map, len);
            libc::close(file);
        }
        if socket.write_all(&sum.to_ne_bytes()).is_err() {
            return;
        }
    }
}

/// A descriptor and two numbers, without allocating.
fn receive(socket: &UnixStream) -> Option<(i32, usize, usize)> {
    let mut request = [0_usize; 2];
    let mut control = [0_u64; 8];
    let mut bytes = libc::iovec {
        iov_base: request.as_mut_ptr().cast(),
        iov_len: 16,
    };
    // SAFETY: zeros are an empty message header.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut bytes;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = 64;
    // SAFETY: the header points to buffers of the sizes that it says.
    let count = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, 0) };
    if count != 16 {
        return None;
    }
    // SAFETY: the kernel has filled in the header.
    let first = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    if first.is_null() {
        return None;
    }
    // SAFETY: it is no null, and stands in `control`; the only message that comes here has one descriptor.
    let file = unsafe { libc::CMSG_DATA(first).cast::<i32>().read_unaligned() };
    Some((file, request[0], request[1]))
}
