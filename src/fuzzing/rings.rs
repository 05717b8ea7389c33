//! Rings, and the words beside them: with sound sides, which must carry bytes as a queue does and lose no wake-up, and with
//! words and positions that no sound process writes, of rings and of queues.

use crate::fuzzing::bytes::Bytes;
use crate::fuzzing::handles::Memory;
use crate::queue::Queue;
use crate::shm::{Corrupt, Duplex, Lane, Lanes};
use crate::sys::memory::SealedMemory;
use crate::sys::shared::SharedFd;
use crate::wire::value::pack;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const PAGE: usize = 4096;

/// How many operations one input has at most.
const STEPS_MAX: usize = 300;

/// Works on rings and queues step by step, and overwrites what steers them.
pub fn rings(input: &[u8]) {
    let mut bytes = Bytes::new(input);
    match bytes.byte() % 4 {
        0 => sound_sides(&mut bytes),
        1 => overwritten_sides(&mut bytes),
        2 => any_positions(&mut bytes),
        _ => overwritten_queue(&mut bytes),
    }
}

/// A side of a duplex, and what is on its way to it.
struct Side {
    ring: Duplex,
    shown: VecDeque<u8>,
    hidden: VecDeque<u8>,
    sleeps_for_data: bool,
}

fn pair(capacity: usize) -> (Duplex, Duplex, SealedMemory) {
    let (here, memory) = Duplex::create(capacity).unwrap();
    let there = Duplex::attach(&memory).unwrap();
    (here, there, memory)
}

fn sound_sides(bytes: &mut Bytes<'_>) {
    let capacity = PAGE * (1 + bytes.below(2));
    let (here, there, _memory) = pair(capacity);
    let side = |ring| Side {
        ring,
        shown: VecDeque::new(),
        hidden: VecDeque::new(),
        sleeps_for_data: false,
    };
    let mut sides = [side(here), side(there)];
    let mut next = 0_u8;
    for _ in 0..STEPS_MAX {
        if bytes.is_empty() {
            break;
        }
        let step = bytes.byte();
        let (one, rest) = sides.split_at_mut(1);
        let (from, to) = if step & 128 == 0 {
            (&mut one[0], &mut rest[0])
        } else {
            (&mut rest[0], &mut one[0])
        };
        match step % 7 {
            0 | 1 => {
                let data: Vec<u8> = (0..bytes.below(PAGE + 300))
                    .map(|_| {
                        next = next.wrapping_add(1);
                        next
                    })
                    .collect();
                let put = from.ring.put(&data).unwrap();
                next = next.wrapping_sub((data.len() - put) as u8);
                to.hidden.extend(&data[..put]);
                assert!(
                    to.hidden.len() + to.shown.len() <= capacity,
                    "more than fits"
                );
            }
            2 | 3 => {
                from.ring.show();
                let is_news = !to.hidden.is_empty();
                to.shown.append(&mut to.hidden);
                let rings = from.ring.owes_bell();
                if is_news {
                    assert_eq!(
                        rings, to.sleeps_for_data,
                        "a wake-up is lost, or one too many"
                    );
                    to.sleeps_for_data = false;
                } else {
                    assert!(!rings || to.sleeps_for_data, "rung for nothing");
                }
            }
            4 => {
                let available = from.ring.look_for_data().unwrap();
                assert_eq!(available, from.shown.len());
                let len = bytes.below(PAGE + 1);
                let mut out = Vec::with_capacity(len);
                let taken = from.ring.take(len, &mut out);
                assert_eq!(taken, len.min(available));
                assert!(
                    out.iter().copied().eq(from.shown.drain(..taken)),
                    "other bytes came out"
                );
            }
            5 => {
                let _rings = from.ring.release();
                assert_eq!(from.ring.unreleased(), 0);
            }
            _ => {
                from.ring.announce_awake();
                from.sleeps_for_data = false;
                if from.ring.look_for_data().unwrap() == 0 {
                    from.ring.announce_sleep(true, 0);
                    from.sleeps_for_data = true;
                }
            }
        }
    }
}

fn overwritten_sides(bytes: &mut Bytes<'_>) {
    let (mut here, mut there, memory) = pair(PAGE);
    let memory = Memory::of(&SharedFd::of(memory.into())).unwrap();
    let mut out = Vec::with_capacity(2 * PAGE);
    for _ in 0..STEPS_MAX {
        if bytes.is_empty() {
            break;
        }
        let step = bytes.byte();
        let side = if step & 128 == 0 {
            &mut here
        } else {
            &mut there
        };
        match step % 6 {
            0 => drop(side.put(&[7; PAGE + 100][..bytes.below(PAGE + 100)])),
            1 => {
                side.show();
                let _rings = side.owes_bell();
            }
            2 => {
                if let Ok(available) = side.look_for_data() {
                    assert!(available <= PAGE);
                    out.clear();
                    let len = bytes.below(PAGE + 1);
                    assert_eq!(side.take(len, &mut out), len.min(available));
                }
                let _rings = side.release();
            }
            3 => drop::<Result<usize, Corrupt>>(side.look_for_room()),
            4 => side.announce_sleep(step & 64 == 0, bytes.below(PAGE)),
            _ => {
                let start = PAGE + bytes.below(2) * 2 * PAGE;
                let word = memory.mapping.word(start + 8 * bytes.below(80));
                word.store(
                    bytes.hostile_word(word.load(Ordering::Relaxed)),
                    Ordering::Relaxed,
                );
            }
        }
    }
}

/// Ends that arrive and say that they have got anywhere.
fn any_positions(bytes: &mut Bytes<'_>) {
    let lanes = Lanes::create(PAGE).unwrap();
    let memory = Memory::of(&SharedFd::of(lanes.memory().unwrap())).unwrap();
    let (tail, head) = (bytes.hostile_word(0), bytes.hostile_word(0));
    let writer = lanes.writer(Lane::Forth, tail, bytes.word(), 0);
    let reader = lanes.reader(Lane::Forth, head, bytes.word(), 0);
    let (Ok((mut writer, mut puts)), Ok((mut reader, mut gets))) = (writer, reader) else {
        return;
    };
    let mut out = Vec::with_capacity(2 * PAGE);
    for _ in 0..STEPS_MAX {
        if bytes.is_empty() {
            break;
        }
        match bytes.byte() % 8 {
            0 => {
                if writer.look_for_room().is_ok() {
                    assert!(writer.free() <= PAGE);
                }
            }
            1 => drop(writer.put(&[7; PAGE + 100][..bytes.below(PAGE + 100)])),
            2 => {
                writer.skip(bytes.below(PAGE));
                writer.show();
                let _rings = writer.owes_bell();
            }
            3 => {
                if reader.look_for_data().is_ok() {
                    assert!(reader.available() <= PAGE);
                    out.clear();
                    reader.take(bytes.below(PAGE), &mut out);
                }
            }
            4 => {
                reader.skip(bytes.below(PAGE));
                let _rings = reader.release();
            }
            5 => puts.announce(false, bytes.below(PAGE)),
            6 => gets.announce(true, 0),
            _ => {
                let word = memory.mapping.word(PAGE + 8 * bytes.below(2 * PAGE / 8));
                word.store(
                    bytes.hostile_word(word.load(Ordering::Relaxed)),
                    Ordering::Relaxed,
                );
            }
        }
    }
}

/// The words of a queue but for those that say who is inside: that somebody else is, is waited for.
fn overwritten_queue(bytes: &mut Bytes<'_>) {
    const MONITORS: [std::ops::Range<usize>; 3] = [128..144, 256..272, 384..400];
    let queue = if bytes.byte() % 2 == 0 {
        Queue::<Vec<u8>>::bounded(3).unwrap()
    } else {
        Queue::<Vec<u8>>::new().unwrap()
    };
    let enclosed = pack(&queue, &mut Vec::new()).unwrap();
    let Some(memory) = queue_memory(&enclosed.descriptors()[0]) else {
        return;
    };
    for _ in 0..STEPS_MAX / 10 {
        if bytes.is_empty() {
            break;
        }
        match bytes.byte() % 8 {
            0 | 1 => drop(queue.try_put(vec![1; bytes.below(PAGE)])),
            2 | 3 => drop(queue.try_get()),
            4 => drop(queue.task_done()),
            5 => drop((queue.len(), queue.is_full(), queue.is_empty())),
            _ => {
                let at = 8 * bytes.below(64);
                if !MONITORS.iter().any(|monitor| monitor.contains(&at)) {
                    let word = memory.word(at);
                    word.store(
                        bytes.hostile_word(word.load(Ordering::Relaxed)),
                        Ordering::Relaxed,
                    );
                }
            }
        }
    }
}

fn queue_memory(file: &Arc<SharedFd>) -> Option<crate::sys::memory::Mapping> {
    let file = crate::sys::sparse::SparseFile::adopt(Arc::clone(file)).ok()?;
    file.map(0, PAGE).ok()
}
