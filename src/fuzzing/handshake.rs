//! What is said while a process starts: the variable, the greeting and the request behind it, and the news that come back,
//! all as anybody could send them who has the socket.

use crate::fuzzing::bytes::Bytes;
use crate::process::bootstrap::parse;
use crate::process::enter::Entrance;
use crate::process::request::{Hello, News, Role};
use crate::sys::descriptor::null_device;
use crate::sys::memory::SealedMemory;
use crate::sys::socket::{self, Patience, record_pair};
use crate::wire::codec;
use crate::wire::record::{self, Record};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const NONCE: [u8; 16] = [7; 16];

/// The largest record of which the fuzzer makes one.
const RECORD_MAX: usize = 8192;

/// Receives any bytes, with any descriptors, as the records of a start; what is no such record is refused.
pub fn handshake(input: &[u8]) {
    let mut bytes = Bytes::new(input);
    match bytes.byte() % 5 {
        0 => {
            if let Ok(text) = std::str::from_utf8(bytes.rest()) {
                if let Some((number, nonce)) = parse(text) {
                    let digits: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
                    let again = parse(&format!("{number}:{digits}"));
                    assert_eq!(again, Some((number, nonce)));
                }
            }
        }
        1 => greeting(receive::<Hello>(&mut bytes)),
        2 => drop(receive::<News>(&mut bytes)),
        3 => drop(receive::<Vec<(String, u32)>>(&mut bytes)),
        // A greeting that fits, with any role.
        _ => {
            let Ok(role) = codec::decode::<Role>(bytes.rest()) else {
                return;
            };
            let hello = Hello::new(NONCE, role);
            assert_eq!(hello.objection(NONCE), None);
            assert!(hello.objection([8; 16]).is_some());
            let back = round_trip(&hello);
            assert_eq!(back.head.objection(NONCE), None);
            greeting(Some(back));
        }
    }
}

/// What a fresh image does with a greeting, short of running it.
fn greeting(record: Option<Record<Hello>>) {
    let Some(Record {
        head,
        payload,
        descriptors,
    }) = record
    else {
        return;
    };
    let _objection = head.objection(NONCE);
    if let Role::Process(request) = head.role {
        let rest = Record {
            head: (),
            payload,
            descriptors,
        };
        let _entrance = Entrance::of(*request, rest);
    }
}

fn round_trip<T: Serialize + DeserializeOwned>(head: &T) -> Record<T> {
    let (here, there) = record_pair().unwrap();
    record::send(
        here.as_fd(),
        head,
        b"payload",
        &[here.as_fd()],
        Patience::Now,
    )
    .unwrap();
    let record = record::receive(there.as_fd(), Patience::Now)
        .unwrap()
        .unwrap();
    assert_eq!(
        (record.payload.as_slice(), record.descriptors.len()),
        (b"payload".as_slice(), 1)
    );
    record
}

/// One record of the input's bytes, with descriptors of its choice: memory with more of its bytes, a bag, anything.
fn receive<T: DeserializeOwned>(bytes: &mut Bytes<'_>) -> Option<Record<T>> {
    let (here, there) = record_pair().unwrap();
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    for _ in 0..bytes.below(4) {
        match bytes.byte() % 4 {
            0 => descriptors.push(null_device().unwrap()),
            1 => {
                let content = bytes.piece(usize::from(bytes.clone().byte()) * 2);
                let memory = SealedMemory::create(content.len().max(1)).unwrap();
                memory.map(0, memory.len()).unwrap().write(0, content);
                descriptors.push(memory.into());
            }
            kind => {
                let (filled, bag) = record_pair().unwrap();
                for _ in 0..bytes.below(4) {
                    let some = [filled.as_fd()];
                    let some = if bytes.byte() % 4 == 0 {
                        &some[..0]
                    } else {
                        &some[..]
                    };
                    socket::send(filled.as_fd(), b"+", some, Patience::Now).unwrap();
                }
                descriptors.push(bag);
                if kind == 3 {
                    descriptors.push(filled);
                }
            }
        }
    }
    let rest = bytes.rest();
    let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let sent = &rest[..rest.len().min(RECORD_MAX)];
    socket::send(here.as_fd(), sent, &borrowed, Patience::Now).ok()?;
    match record::receive::<T>(there.as_fd(), Patience::Now) {
        Ok(record) => record,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    }
}
