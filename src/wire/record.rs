//! Records on a socket: a small encoded head, a payload of any size, and descriptors.
//!
//! What is too large for one record travels in a sealed memory file, by descriptor, so that sending never blocks on a
//! receiver that is busy, and a sender may end before anybody reads.

use crate::sys::memory::SealedMemory;
use crate::sys::socket::{self, Patience, RECORD_MAX};
use crate::wire::codec;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What stands in front of a record: the length of the head, and whether the rest is in a memory file.
const PREFIX: usize = 9;

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
    let len = bytes.len() + payload.len();
    if len <= INLINE_MAX {
        bytes.extend_from_slice(payload);
        return socket::send(socket, &bytes, descriptors, patience);
    }
    let memory = SealedMemory::create(len)?;
    {
        let mapping = memory.map(0, len)?;
        mapping.write(0, &bytes);
        mapping.write(bytes.len(), payload);
    }
    let mut marker = [0; PREFIX];
    marker[8] = 1;
    let mut all = vec![memory.as_fd()];
    all.extend_from_slice(descriptors);
    socket::send(socket, &marker, &all, patience)
}

/// Receives one record; `None` at the end.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
    patience: Patience,
) -> io::Result<Option<Record<T>>> {
    let Some((mut bytes, mut descriptors)) = socket::receive(socket, patience)? else {
        return Ok(None);
    };
    if bytes.get(8) == Some(&1) {
        if descriptors.is_empty() {
            return Err(torn());
        }
        bytes = read_memory(descriptors.remove(0))?;
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
    Ok(Some(Record {
        head,
        payload: bytes,
        descriptors,
    }))
}

fn read_memory(file: OwnedFd) -> io::Result<Vec<u8>> {
    let memory = SealedMemory::adopt(file)?;
    let mapping = memory.map_read_only(0, memory.len())?;
    let mut bytes = Vec::new();
    bytes
        .try_reserve_exact(memory.len())
        .map_err(|_| io::ErrorKind::OutOfMemory)?;
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
