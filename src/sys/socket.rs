//! Unix socket pairs: bytes or records, and descriptors that ride along.

use crate::sys::descriptor::above_streams;
use crate::sys::errno::retry;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, SockaddrLike, UnixAddr,
    getsockname, getsockopt, sendmsg, socketpair, sockopt,
};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The most descriptors that the kernel carries with one record (`SCM_MAX_FD`).
pub(crate) const DESCRIPTORS_MAX: usize = 253;

/// The error of a user who has more descriptors on their way through sockets than may be open.
pub(crate) const TOO_MANY_ON_THEIR_WAY: i32 = libc::ETOOMANYREFS;

/// The largest record that is sent: well under the kernel's smallest default send buffer, and small enough that a fresh
/// process touches few pages for it.
pub(crate) const RECORD_MAX: usize = 16 * 1024;

/// Makes a pair that keeps the boundaries of records.
pub(crate) fn record_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (kind, flags) = (SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
    let (one, other) = socketpair(AddressFamily::Unix, kind, None, flags)?;
    Ok((above_streams(one)?, above_streams(other)?))
}

/// Makes a pipe: its end for reading, which closes when every copy of the other, for writing, has.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    Ok((above_streams(reader)?, above_streams(writer)?))
}

/// Says that nothing more is sent here, whoever else holds the socket: a process that was forked, for one.
pub(crate) fn end_sending(socket: BorrowedFd<'_>) {
    // It fails where the peer is gone, who then need not be told.
    let _gone = nix::sys::socket::shutdown(socket.as_raw_fd(), nix::sys::socket::Shutdown::Write);
}

/// Ends a socket in both directions, whoever else holds it: what was sent before can still be received at the other end.
pub(crate) fn end(socket: BorrowedFd<'_>) {
    // It fails where the peer is gone.
    let _gone = nix::sys::socket::shutdown(socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
}

/// Whether the kernel sends now or says that it would block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    Wait,
    Now,
}

impl Patience {
    fn flags(self) -> MsgFlags {
        match self {
            Patience::Wait => MsgFlags::MSG_NOSIGNAL,
            Patience::Now => MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
        }
    }
}

/// Sends one record with `descriptors`; a peer that is gone is an error, never a signal.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    record: &[u8],
    descriptors: &[BorrowedFd<'_>],
    patience: Patience,
) -> io::Result<()> {
    if descriptors.len() > DESCRIPTORS_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too many descriptors at once",
        ));
    }
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let parts = [IoSlice::new(record)];
    let sent =
        retry(|| sendmsg::<()>(socket.as_raw_fd(), &parts, control, patience.flags(), None))?;
    if sent == record.len() {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::WriteZero,
            "a record was sent in part",
        ))
    }
}

/// Receives one record of up to [`RECORD_MAX`] bytes with its descriptors; `None` at the end.
///
/// # Errors
///
/// `EMFILE` where this process may open no more descriptors, so that not all of the record's came; those that did are
/// closed. `InvalidData` where the record is longer than any of ours.
pub(crate) fn receive(
    socket: BorrowedFd<'_>,
    patience: Patience,
) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let Some((record, part)) = receive_any(socket, patience)? else {
        return Ok(None);
    };
    if part.lost_descriptors {
        return Err(nix::errno::Errno::EMFILE.into());
    }
    if part.is_cut {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a record came in part",
        ));
    }
    Ok(Some((record, part.descriptors)))
}

/// Receives one record of up to [`RECORD_MAX`] bytes, as far as it came; `None` at the end. Of the memory for it only what
/// is filled in is touched: in a process that was just forked each page costs.
pub(crate) fn receive_any(
    socket: BorrowedFd<'_>,
    patience: Patience,
) -> io::Result<Option<(Vec<u8>, Part)>> {
    let mut record = Vec::with_capacity(RECORD_MAX);
    let Some(part) = receive_as(socket, record.spare_capacity_mut(), patience.flags())? else {
        return Ok(None);
    };
    // SAFETY: the kernel has filled in so many bytes, for which there was room.
    unsafe { record.set_len(part.len) };
    Ok(Some((record, part)))
}

/// What one record brought.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) len: usize,
    pub(crate) descriptors: Vec<OwnedFd>,
    /// Whether the record was longer than there was room for.
    pub(crate) is_cut: bool,
    /// Whether it had more descriptors than this process may open.
    pub(crate) lost_descriptors: bool,
}

/// Receives one record into `record`; `None` at the end.
pub(crate) fn receive_into(
    socket: BorrowedFd<'_>,
    record: &mut [u8],
    patience: Patience,
) -> io::Result<Option<Part>> {
    receive_as(socket, uninit(record), patience.flags())
}

/// The bytes as a place to be filled in.
fn uninit(bytes: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    let (start, len) = (bytes.as_mut_ptr(), bytes.len());
    // SAFETY: these are the bytes, borrowed for as long. Nothing but the kernel writes there, and it writes whole bytes.
    unsafe { std::slice::from_raw_parts_mut(start.cast(), len) }
}

/// As [`receive_into`], at once and without taking the record away: it and its descriptors are to be had again. After
/// [`rewind_peeks`], each call looks at the record behind the last.
pub(crate) fn peek_into(socket: BorrowedFd<'_>, record: &mut [u8]) -> io::Result<Option<Part>> {
    receive_as(
        socket,
        uninit(record),
        Patience::Now.flags() | MsgFlags::MSG_PEEK,
    )
}

/// Has [`peek_into`] look at the first record next. This is a property of the socket, in whichever process.
pub(crate) fn rewind_peeks(socket: BorrowedFd<'_>) -> io::Result<()> {
    let first: libc::c_int = 0;
    // SAFETY: the option's value is one `int`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEEK_OFF,
            (&raw const first).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    nix::errno::Errno::result(result)?;
    Ok(())
}

fn receive_as(
    socket: BorrowedFd<'_>,
    record: &mut [MaybeUninit<u8>],
    flags: MsgFlags,
) -> io::Result<Option<Part>> {
    // Words, so that it is aligned for the headers that the kernel writes there.
    let mut control = [0u64; CONTROL_WORDS];
    let mut part = libc::iovec {
        iov_base: record.as_mut_ptr().cast(),
        iov_len: record.len(),
    };
    // SAFETY: all zeros are a valid, empty `msghdr`.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    let flags = flags.bits() | libc::MSG_CMSG_CLOEXEC;
    let received = retry(|| {
        message.msg_controllen = size_of_val(&control) as _;
        // SAFETY: the message points to one buffer and one control buffer with their lengths, all of which outlive the
        // call.
        nix::errno::Errno::result(unsafe {
            libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags)
        })
    })?;
    // Whatever else is wrong with the record: these are ours now, and are closed when they are not wanted.
    let descriptors = descriptors_of(&message);
    if received == 0 {
        return Ok(None);
    }
    let count = descriptors.len();
    let descriptors: Vec<OwnedFd> = descriptors
        .into_iter()
        .filter_map(|descriptor| above_streams(descriptor).ok())
        .collect();
    Ok(Some(Part {
        len: received as usize,
        is_cut: message.msg_flags & libc::MSG_TRUNC != 0,
        lost_descriptors: message.msg_flags & libc::MSG_CTRUNC != 0 || descriptors.len() < count,
        descriptors,
    }))
}

/// Room for the most descriptors that one record carries.
const CONTROL_WORDS: usize = (DESCRIPTORS_MAX * size_of::<RawFd>() + 64).div_ceil(8);

/// Takes the descriptors that came with a message that the kernel has just filled in.
fn descriptors_of(message: &libc::msghdr) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    // SAFETY: `recvmsg` has left a valid control buffer of `msg_controllen` bytes there.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: the macro returns null or a header that lies in the control buffer.
        let part = unsafe { &*header };
        if part.cmsg_level == libc::SOL_SOCKET && part.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: the data of a valid header follow it.
            let data = unsafe { libc::CMSG_DATA(header) };
            // SAFETY: this computes a length and touches no memory.
            let before = unsafe { libc::CMSG_LEN(0) } as usize;
            let count = (part.cmsg_len as usize).saturating_sub(before) / size_of::<RawFd>();
            for at in 0..count {
                // SAFETY: the header's length says that so many descriptors follow it.
                let place = unsafe { data.cast::<RawFd>().add(at) };
                // SAFETY: as above; control data need not be aligned for them.
                let number = unsafe { place.read_unaligned() };
                // SAFETY: the kernel has just installed this descriptor for us, and nobody else knows it.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
        // SAFETY: the message is unchanged since `recvmsg`, and the header is one of its own.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    descriptors
}

/// What a doorbell is: a record of one byte.
const BELL: &[u8] = b"!";

/// Sends one byte if that can be done at once. A full buffer is as good: the peer has news to read.
pub(crate) fn ring(socket: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    match retry(|| nix::sys::socket::send(socket.as_raw_fd(), BELL, flags)) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        result => result.map(drop),
    }
}

/// Whether an error of a socket says that its peer is gone.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotConnected};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionRefused | ConnectionReset | NotConnected
    )
}

/// Takes over the inherited descriptor `number` if it is a Unix socket that a process of our own user made.
pub(crate) fn adopt_inherited(number: i32) -> io::Result<OwnedFd> {
    let refused = |why| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    if number <= 2 {
        return refused("it is a standard stream");
    }
    let address = retry(|| getsockname::<UnixAddr>(number))?;
    if address.family() != Some(AddressFamily::Unix) {
        return refused("it is no Unix socket");
    }
    // SAFETY: the number is open, as `getsockname` has just shown, and it stays so while it is borrowed here: this runs
    // before `main`, once, and nothing else knows the number.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let peer = retry(|| getsockopt(&borrowed, sockopt::PeerCredentials))?;
    if peer.uid() != nix::unistd::geteuid().as_raw() {
        return refused("it belongs to another user");
    }
    retry(|| {
        nix::fcntl::fcntl(
            borrowed,
            nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC),
        )
    })?;
    // SAFETY: as above: the number is open, and it was inherited for us to own.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::forks::apart;
    use std::os::fd::AsFd;

    #[test]
    fn a_record_arrives_whole_with_its_descriptors() {
        let (here, there) = record_pair().unwrap();
        let extra = record_pair().unwrap();
        send(
            here.as_fd(),
            b"one",
            &[extra.0.as_fd(), extra.1.as_fd()],
            Patience::Now,
        )
        .unwrap();
        send(here.as_fd(), b"two", &[], Patience::Now).unwrap();
        let (first, descriptors) = receive(there.as_fd(), Patience::Now).unwrap().unwrap();
        assert_eq!(
            (first.as_slice(), descriptors.len()),
            (b"one".as_slice(), 2)
        );
        let (second, none) = receive(there.as_fd(), Patience::Now).unwrap().unwrap();
        assert_eq!((second.as_slice(), none.len()), (b"two".as_slice(), 0));
        drop(here);
        assert!(receive(there.as_fd(), Patience::Wait).unwrap().is_none());
    }

    #[test]
    fn a_bell_to_a_peer_that_is_gone_is_an_error_and_no_signal() {
        let _apart = apart::no_forks();
        let (here, there) = record_pair().unwrap();
        ring(here.as_fd()).unwrap();
        let mut bell = [0; 8];
        let part = receive_into(there.as_fd(), &mut bell, Patience::Now).unwrap();
        assert_eq!(part.map(|part| part.len), Some(1));
        let nothing = receive_into(there.as_fd(), &mut bell, Patience::Now).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        drop(there);
        assert!(ring(here.as_fd()).is_err());
    }

    #[test]
    fn a_descriptor_that_is_no_socket_of_ours_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(adopt_inherited(file.as_raw_fd()).is_err());
        assert!(adopt_inherited(0).is_err());
    }
}
