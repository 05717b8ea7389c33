//! Bytes where messages should stand: framed values of a batch, and frames in the ring of a pipe and of a pool's link.

use crate::fuzzing::bytes::Bytes;
use crate::fuzzing::handles::Memory;
use crate::pipe::Pipe;
use crate::sys::room::{Numbers, Room};
use crate::sys::shared::SharedFd;
use crate::wire::batch::{Batch, Frames, Lane, split_frame};
use crate::wire::handles::Enclosed;
use crate::wire::value::pack;
use crate::wire::{Header, Host, Link, LinkPeer};
use std::os::fd::AsFd;
use std::time::Duration;

const PAGE: usize = 4096;

/// Where a side's words have the count of what it has put, and where its ring begins: see `shm/ring.rs`.
const TAIL: usize = 128;

/// Puts any bytes where frames should be; receiving gives messages or an error, and ends.
pub fn frames(input: &[u8]) {
    let mut bytes = Bytes::new(input);
    match bytes.byte() % 4 {
        0 => batch_of_any_bytes(bytes.rest()),
        1 => batch_of_values(bytes.rest()),
        2 => pipe(&mut bytes),
        _ => link(&mut bytes),
    }
}

fn batch_of_any_bytes(mut bytes: &[u8]) {
    let mut left = bytes.len();
    while let Some((value, _descriptors)) = split_frame(&mut bytes) {
        assert_eq!(bytes.len() + value.len() + 8, left, "bytes were lost");
        left = bytes.len();
    }
    assert_eq!(bytes.len(), left, "a part of a frame was taken");
    if let Some(word) = bytes.first_chunk::<4>() {
        let bits = u32::from_le_bytes(*word);
        assert!(Lane::from_bits(bits).is_none_or(|lane| lane.to_bits() == bits));
    }
}

fn batch_of_values(input: &[u8]) {
    let mut frames = Frames::default();
    let values: Vec<&[u8]> = input.split(|&byte| byte == b'|').collect();
    for value in &values {
        let pushed = frames.push(|out| {
            out.extend_from_slice(value);
            Ok(Enclosed::default())
        });
        pushed.unwrap();
    }
    let batch = Batch::framed(frames);
    for start in 0..values.len() {
        let mut rest = batch.slice(start..values.len());
        for value in &values[start..] {
            assert_eq!(split_frame(&mut rest), Some((*value, 0)));
        }
        assert_eq!(split_frame(&mut rest), None);
    }
}

/// Pieces of the input are shown, one after the other, in the ring from which a pipe's end receives.
fn pipe(bytes: &mut Bytes<'_>) {
    let (here, there) = Pipe::<Vec<u8>>::pair_with_capacity(PAGE).unwrap();
    let mut packed = Vec::new();
    let enclosed = pack(&there, &mut packed).unwrap();
    // The writer's page of a lane stands behind its reader's.
    let Some(memory) = Memory::of(&enclosed.descriptors()[0]) else {
        return;
    };
    let lanes = [PAGE + PAGE, PAGE + 2 * PAGE + PAGE + PAGE];
    let mut put = 0_u64;
    while !bytes.is_empty() {
        let how = bytes.byte();
        let piece = bytes.piece(usize::from(bytes.clone().byte()) * 8);
        for lane in lanes {
            memory.write_around(lane + PAGE, PAGE, put as usize, piece);
        }
        put += if how & 64 == 0 {
            piece.len().next_multiple_of(8) as u64
        } else {
            piece.len() as u64
        };
        for lane in lanes {
            memory
                .mapping
                .word(lane + TAIL)
                .store(put, std::sync::atomic::Ordering::SeqCst);
        }
        let received = match how % 3 {
            0 => here.try_recv().map(drop),
            1 => here.poll(Duration::ZERO).map(drop),
            _ => here.recv_timeout(Duration::ZERO).map(drop),
        };
        let Err(error) = received else { continue };
        assert!(!error.to_string().is_empty());
    }
    drop(enclosed);
}

/// Has room for every other kind of message, as far as it reaches, until it has had enough of them.
struct Guest {
    room: Numbers<u8>,
    patience: u8,
}

impl Host for Guest {
    fn room_for(&mut self, header: &Header) -> Option<(&mut dyn Room, usize)> {
        let at = (header.kind / 2) as usize % PAGE;
        let fits = header.kind % 2 == 1 && header.length <= (self.room.len() - at) as u64;
        self.patience = self.patience.saturating_sub(u8::from(fits));
        (fits && self.patience > 0).then_some((&mut self.room, at))
    }
}

/// Likewise in the ring from which a pool receives what its worker says.
fn link(bytes: &mut Bytes<'_>) {
    let (mut link, LinkPeer { memory, socket }) = Link::pair(PAGE).unwrap();
    let memory = Memory::of(&SharedFd::of(memory)).unwrap();
    let theirs = PAGE + PAGE + PAGE;
    let mut guest = Guest {
        room: Numbers::new(2 * PAGE).unwrap(),
        patience: bytes.clone().byte(),
    };
    let mut put = 0_u64;
    while !bytes.is_empty() {
        let piece = bytes.piece(1 + usize::from(bytes.clone().byte()) * 8);
        memory.write_around(theirs + PAGE, PAGE, put as usize, piece);
        put += piece.len() as u64;
        memory
            .mapping
            .word(theirs + TAIL)
            .store(put, std::sync::atomic::Ordering::SeqCst);
        match link.try_receive_for(&mut guest) {
            Ok(Some(message)) => {
                let expected = if message.is_hosted {
                    0
                } else {
                    message.header.length
                };
                assert_eq!(message.body.len() as u64, expected);
            }
            Ok(None) => {}
            Err(error) => {
                assert!(!error.to_string().is_empty());
                // What is corrupt once stays so, or comes to nothing.
                let _again = link.try_receive();
                break;
            }
        }
        let _heard = link.hear();
    }
    assert!(socket.as_fd().try_clone_to_owned().is_ok());
}
