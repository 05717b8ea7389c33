//! Records on a socket: a small encoded head, a payload of any size, and descriptors.
//!
//! What is too large for one record travels in a sealed memory file, by descriptor, so that sending never blocks on a
//! receiver that is busy, and a sender may end before anybody reads. More descriptors than the kernel carries with one record
//! travel in a *bag*: a socket that holds them, in records of its own, and that travels by descriptor itself.

use crate::sys::limits::{OUT_OF_MEMORY, TOO_MANY_OPEN};
use crate::sys::memory::SealedMemory;
use crate::sys::socket::{self, DESCRIPTORS_MAX, Patience, RECORD_MAX};
use crate::wire::codec;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What stands in front of a record: the length of the head, and where the rest is.
const PREFIX: usize = 9;
/// Marks in that last byte: head and payload are in a memory file; the descriptors are in a bag.
const IN_MEMORY: u8 = 1;
const IN_BAG: u8 = 2;

/// The most descriptors that travel without a bag: one place is the memory file's.
const LOOSE_MAX: usize = DESCRIPTORS_MAX - 1;

/// The largest record that goes through the socket itself. The kernel's default buffer holds several.
const INLINE_MAX: usize = RECORD_MAX / 2;

/// A record as it was received.
#[derive(Debug)]
pub(crate) struct Record<T> {
    pub(crate) head: T,
    pub(crate) payload: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// Sends one record. A peer that is gone is an error, as is a full socket where the caller has no patience.
pub(crate) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    head: &T,
    payload: &[u8],
    descriptors: &[BorrowedFd<'_>],
    patience: Patience,
) -> io::Result<()> {
    let mut bytes = vec![0; PREFIX];
    codec::encode(head, &mut bytes).map_err(io::Error::other)?;
    let head_len = bytes.len() - PREFIX;
    bytes[..8].copy_from_slice(&(head_len as u64).to_le_bytes());
    let bag = (descriptors.len() > LOOSE_MAX)
        .then(|| pack_bag(descriptors))
        .transpose()?;
    let (bagged, descriptors) = match &bag {
        Some(bag) => (IN_BAG, vec![bag.as_fd()]),
        None => (0, descriptors.to_vec()),
    };
    bytes[8] = bagged;
    let len = bytes.len() + payload.len();
    if len <= INLINE_MAX {
        bytes.extend_from_slice(payload);
        return socket::send(socket, &bytes, &descriptors, patience);
    }
    let memory = SealedMemory::create(len)?;
    {
        let mapping = memory.map(0, len)?;
        mapping.write(0, &bytes);
        mapping.write(bytes.len(), payload);
    }
    let mut marker = [0; PREFIX];
    marker[8] = IN_MEMORY | bagged;
    let mut all = vec![memory.as_fd()];
    all.extend(descriptors);
    socket::send(socket, &marker, &all, patience)
}

/// Puts descriptors into a socket whose other end is closed then.
fn pack_bag(descriptors: &[BorrowedFd<'_>]) -> io::Result<OwnedFd> {
    let (filled, bag) = socket::record_pair()?;
    for some in descriptors.chunks(DESCRIPTORS_MAX) {
        socket::send(filled.as_fd(), b"+", some, Patience::Now)?;
    }
    Ok(bag)
}

/// The most records that a bag holds: more than any process may have descriptors for.
const BAG_MAX: usize = 8192;

/// Takes everything out of a bag, into `descriptors`. Whoever keeps its other end could go on filling it, or leave it open: that
/// is no bag.
fn unpack_bag(bag: &OwnedFd, descriptors: &mut Vec<OwnedFd>) -> io::Result<()> {
    for _ in 0..BAG_MAX {
        match socket::receive(bag.as_fd(), Patience::Now) {
            Ok(None) => return Ok(()),
            Ok(Some((_, some))) if some.is_empty() => break,
            Ok(Some((_, some))) => descriptors.extend(some),
            Err(error) => match error.raw_os_error() {
                Some(TOO_MANY_OPEN | OUT_OF_MEMORY) => return Err(error),
                _ => break,
            },
        }
    }
    Err(torn())
}

/// Receives one record; `None` at the end.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    patience: Patience,
) -> io::Result<Option<Record<T>>> {
    match socket::receive(socket, patience)? {
        None => Ok(None),
        Some((bytes, descriptors)) => read(bytes, descriptors, &mut None).map(Some),
    }
}

/// As [`receive`], at once; where the record came and could not be taken in, since there are no descriptors or no memory left for
/// it, its first descriptor is put into `first`, if that one could be opened, so that its sender can be told.
pub(crate) fn receive_or_first<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    first: &mut Option<OwnedFd>,
) -> io::Result<Option<Record<T>>> {
    let Some((bytes, part)) = socket::receive_any(socket, Patience::Now)? else {
        return Ok(None);
    };
    if part.lost_descriptors {
        *first = part.descriptors.into_iter().next();
        return Err(io::Error::from_raw_os_error(TOO_MANY_OPEN));
    }
    if part.is_cut {
        return Err(torn());
    }
    read(bytes, part.descriptors, first).map(Some)
}

/// Reads what was received. The memory comes last: it is the largest, and who lacks that has the descriptors.
fn read<T: DeserializeOwned>(
    mut bytes: Vec<u8>,
    mut descriptors: Vec<OwnedFd>,
    first: &mut Option<OwnedFd>,
) -> io::Result<Record<T>> {
    let marks = bytes.get(8).copied().ok_or_else(torn)?;
    let memory = if marks & IN_MEMORY != 0 {
        if descriptors.is_empty() {
            return Err(torn());
        }
        Some(descriptors.remove(0))
    } else {
        None
    };
    if marks & IN_BAG != 0 {
        let bag = descriptors.pop().ok_or_else(torn)?;
        if let Err(error) = unpack_bag(&bag, &mut descriptors) {
            *first = descriptors.into_iter().next();
            return Err(error);
        }
    }
    if let Some(memory) = memory {
        bytes = match read_memory(memory) {
            Ok(bytes) => bytes,
            Err(error) => {
                *first = descriptors.into_iter().next();
                return Err(error);
            }
        };
    }
    let (len, rest) = bytes.split_first_chunk::<8>().ok_or_else(torn)?;
    let len = usize::try_from(u64::from_le_bytes(*len)).map_err(|_| torn())?;
    let head = rest
        .get(1..)
        .and_then(|rest| rest.get(..len))
        .ok_or_else(torn)?;
    let head = codec::decode(head)
        .map_err(|why| io::Error::new(io::ErrorKind::InvalidData, format!("a record: {why}")))?;
    bytes.drain(..PREFIX + len);
    Ok(Record {
        head,
        payload: bytes,
        descriptors,
    })
}

fn read_memory(file: OwnedFd) -> io::Result<Vec<u8>> {
    let memory = SealedMemory::adopt(file)?;
    let mapping = memory.map_read_only(0, memory.len())?;
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(memory.len())
        .map_err(|_| io::Error::from_raw_os_error(OUT_OF_MEMORY))?;
    mapping.append_to(0, memory.len(), &mut bytes);
    Ok(bytes)
}

fn torn() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a record is torn")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_every_size_arrive_though_nobody_reads_meanwhile() {
        let (here, there) = socket::record_pair().unwrap();
        let sizes = [0, 1, INLINE_MAX - 100, INLINE_MAX, RECORD_MAX, 10 << 20];
        for size in sizes {
            let payload = vec![7u8; size];
            send(
                here.as_fd(),
                &("head", size),
                &payload,
                &[here.as_fd()],
                Patience::Now,
            )
            .unwrap();
        }
        for size in sizes {
            let record: Record<(String, usize)> =
                receive(there.as_fd(), Patience::Now).unwrap().unwrap();
            assert_eq!(record.head, ("head".to_owned(), size));
            assert!(record.payload == vec![7u8; size]);
            assert_eq!(record.descriptors.len(), 1);
        }
        drop(here);
        assert!(
            receive::<u8>(there.as_fd(), Patience::Wait)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn more_descriptors_than_the_kernel_carries_at_once_arrive_in_order() {
        let (here, there) = socket::record_pair().unwrap();
        let devices = [here.as_fd(), there.as_fd()];
        let inode = |one: BorrowedFd<'_>| {
            let file = std::fs::File::from(one.try_clone_to_owned().unwrap());
            std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap())
        };
        for (count, size) in [(LOOSE_MAX, 1), (LOOSE_MAX + 1, 1), (600, 10 << 20)] {
            let descriptors: Vec<BorrowedFd<'_>> = (0..count)
                .map(|at| devices[usize::from(at % 7 == 0)])
                .collect();
            let payload = vec![1; size];
            send(here.as_fd(), &count, &payload, &descriptors, Patience::Now).unwrap();
            let record: Record<usize> = receive(there.as_fd(), Patience::Now).unwrap().unwrap();
            assert_eq!((record.head, record.payload.len()), (count, size));
            let came: Vec<u64> = record
                .descriptors
                .iter()
                .map(|one| inode(one.as_fd()))
                .collect();
            let sent: Vec<u64> = descriptors.into_iter().map(inode).collect();
            assert_eq!(came, sent);
        }
    }

    #[test]
    fn a_bag_that_is_still_being_filled_is_an_error() {
        let (here, there) = socket::record_pair().unwrap();
        let (filled, bag) = socket::record_pair().unwrap();
        let mut marker = [0; PREFIX];
        marker[8] = IN_BAG;
        let send_bag =
            || socket::send(here.as_fd(), &marker, &[bag.as_fd()], Patience::Now).unwrap();
        send_bag();
        let error = receive::<()>(there.as_fd(), Patience::Now).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        // Records without descriptors could be put there for ever.
        socket::send(filled.as_fd(), b"+", &[], Patience::Now).unwrap();
        send_bag();
        let error = receive::<()>(there.as_fd(), Patience::Now).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn bytes_that_are_no_record_are_an_error() {
        let (here, there) = socket::record_pair().unwrap();
        for bytes in [
            b"x".as_slice(),
            &[255; 20],
            &[0, 0, 0, 0, 0, 0, 0, 0, 1],
            &[9; 9],
        ] {
            socket::send(here.as_fd(), bytes, &[], Patience::Now).unwrap();
            assert!(receive::<u64>(there.as_fd(), Patience::Now).is_err());
        }
    }
}
