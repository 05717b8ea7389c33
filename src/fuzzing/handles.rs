//! Values with handles inside, of every public type that has any, as another process could send them: the bytes are changed,
//! the descriptors are exchanged, and so are words in the memory that they share.

use crate::fuzzing::bytes::Bytes;
use crate::sys::descriptor::null_device;
use crate::sys::memory::{Mapping, SealedMemory};
use crate::sys::shared::SharedFd;
use crate::task::Portable;
use crate::wire::value::{pack, unpack};
use crate::{
    Array, Barrier, BoundedSemaphore, Condition, Event, Lock, Pipe, Queue, RLock, Receiver,
    Semaphore, Sender, SharedMemory, SharedSlice, Value,
};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Not at all: nobody else is there who could make it come.
const NOW: Duration = Duration::ZERO;

/// All of a memory file.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) mapping: Mapping,
    len: usize,
}

impl Memory {
    /// `None` where it is no memory of a fixed size.
    pub(crate) fn of(file: &Arc<SharedFd>) -> Option<Memory> {
        let memory = SealedMemory::adopt(file.try_clone().ok()?).ok()?;
        let len = memory.len();
        let mapping = memory.map(0, len).ok()?;
        Some(Memory { mapping, len })
    }

    /// Writes bytes into the ring of `capacity` bytes at `ring`, from position `at` on.
    pub(crate) fn write_around(&self, ring: usize, capacity: usize, at: usize, bytes: &[u8]) {
        for (place, byte) in bytes.iter().enumerate() {
            self.mapping.write(ring + (at + place) % capacity, &[*byte]);
        }
    }

    /// Changes one word of the first page or two, or of anywhere.
    fn strike(&self, bytes: &mut Bytes<'_>) {
        let words = self.len / 8;
        let place = [words.min(64), words.min(1024), words.min(1 << 16)][bytes.below(3)];
        let word = self.mapping.word(8 * bytes.below(place.max(1)));
        let before = word.load(Ordering::Relaxed);
        word.store(bytes.hostile_word(before), Ordering::Relaxed);
    }
}

/// Sends `value` to ourselves with what the input does to it on the way, and uses what arrives.
fn send<T: Portable>(value: T, bytes: &mut Bytes<'_>, use_it: fn(&T)) {
    let mut packed = Vec::new();
    let enclosed = pack(&value, &mut packed).unwrap();
    let mut descriptors = enclosed.depart();
    drop(value);
    let memory = descriptors.first().and_then(Memory::of);
    for _ in 0..bytes.below(8) {
        match bytes.byte() % 6 {
            // A word of the encoding.
            0 | 1 if packed.len() >= 8 => {
                let at = bytes.below(packed.len().min(4096) - 7);
                let mut word = [0; 8];
                word.copy_from_slice(&packed[at..at + 8]);
                let word = bytes.hostile_word(u64::from_le_bytes(word));
                packed[at..at + 8].copy_from_slice(&word.to_le_bytes());
            }
            2 => packed.truncate(bytes.below(packed.len().clamp(1, 4096))),
            3 if !descriptors.is_empty() => {
                let (one, other) = (
                    bytes.below(descriptors.len()),
                    bytes.below(descriptors.len()),
                );
                descriptors.swap(one, other);
            }
            4 if !descriptors.is_empty() => {
                let at = bytes.below(descriptors.len());
                descriptors[at] = SharedFd::of(match bytes.byte() % 3 {
                    0 => null_device().unwrap(),
                    1 => SealedMemory::create(4096).unwrap().into(),
                    _ => crate::sys::socket::record_pair().unwrap().0,
                });
            }
            _ => {
                if let Some(memory) = &memory {
                    memory.strike(bytes);
                }
            }
        }
    }
    match unpack::<T>(&packed, descriptors) {
        Ok(arrived) => {
            use_it(&arrived);
            for _ in 0..bytes.below(4) {
                if let Some(memory) = &memory {
                    memory.strike(bytes);
                }
                use_it(&arrived);
            }
            let _back = pack(&arrived, &mut Vec::new());
        }
        Err(why) => assert!(!why.is_empty()),
    }
}

fn use_sender(sender: &Sender<Vec<u8>>) {
    let _ = sender.try_send(vec![1; 20]);
    let _ = sender.send_timeout(vec![2; 6000], NOW);
}

fn use_receiver(receiver: &Receiver<Vec<u8>>) {
    let _ = receiver.poll(NOW);
    let _ = receiver.try_recv();
    let _ = receiver.recv_timeout(NOW);
}

/// Has a value with handles arrive after the input has changed it; it is refused, or can be used, and nothing hangs.
pub fn handles(input: &[u8]) {
    let mut bytes = Bytes::new(input);
    let bytes = &mut bytes;
    match bytes.byte() % 16 {
        0 => send(Lock::new([1_u64; 3]).unwrap(), bytes, |lock| {
            let _ = (lock.is_locked(), lock.try_lock().is_ok());
        }),
        1 => send(RLock::new().unwrap(), bytes, |lock| {
            let _ = lock.try_lock().is_ok();
        }),
        2 => send(Semaphore::new(3).unwrap(), bytes, |semaphore| {
            let _ = (
                semaphore.try_acquire(),
                semaphore.release(),
                semaphore.value(),
            );
        }),
        3 => send(BoundedSemaphore::new(3).unwrap(), bytes, |semaphore| {
            let _ = (
                semaphore.try_acquire(),
                semaphore.release(),
                semaphore.value(),
            );
        }),
        4 => send(Event::new().unwrap(), bytes, |event| {
            let _ = (event.wait_timeout(NOW), event.is_set());
            event.set();
            event.clear();
        }),
        5 => send(Condition::new().unwrap(), bytes, |condition| {
            condition.notify_one();
            condition.notify_all();
        }),
        6 => send(Barrier::new(2).unwrap(), bytes, |barrier| {
            let _ = (barrier.wait_timeout(NOW).is_ok(), barrier.waiting());
            barrier.reset();
            let _ = (barrier.is_broken(), barrier.parties());
        }),
        7 => send(Value::new(5_u64).unwrap(), bytes, |value| {
            let _ = value.get();
        }),
        8 => send(Array::<u32>::new(9).unwrap(), bytes, |array| {
            let _ = array.len();
        }),
        9 => send(
            SharedSlice::from_slice(&[1.5_f32; 40]).unwrap(),
            bytes,
            |slice| {
                let _sum: f32 = slice.iter().sum();
            },
        ),
        10 => {
            let name = format!(
                "fuzzed-{}-{:?}",
                std::process::id(),
                std::thread::current().id()
            );
            let _owner = SharedMemory::create(&name, 64).unwrap();
            send(SharedMemory::open(&name).unwrap(), bytes, |memory| {
                let _ = memory.len();
            });
        }
        11 => send(Queue::<Vec<u8>>::bounded(2).unwrap(), bytes, |queue| {
            let _ = (queue.len(), queue.is_full(), queue.capacity());
        }),
        12 => send(pipe().split().0, bytes, use_sender),
        13 => send(pipe().split().1, bytes, use_receiver),
        14 => {
            // Both ends are here, and one of them has sent already.
            let (here, there) = Pipe::<Vec<u8>>::pair_with_capacity(4096).unwrap();
            there.send(vec![3; 10]).unwrap();
            let (sender, receiver) = here.split();
            let (other_sender, other_receiver) = there.split();
            send(receiver, bytes, use_receiver);
            send(sender, bytes, use_sender);
            use_receiver(&other_receiver);
            use_sender(&other_sender);
        }
        _ => {
            let queue = Queue::<Vec<u8>>::new().unwrap();
            queue.put(vec![1; 20]).unwrap();
            send((queue, Event::new().unwrap()), bytes, |(queue, event)| {
                let _ = (queue.len(), event.is_set());
            });
        }
    }
}

fn pipe() -> Pipe<Vec<u8>> {
    Pipe::pair_with_capacity(4096).unwrap().0
}
