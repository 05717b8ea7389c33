//! Messages of one size from one process to another through a ring in shared memory; both sides spin.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::child::Child;
use super::futex;
use super::processor;
use super::shared::{Buffer, Shared, Words};

/// A process that copies each message out of the ring. It sleeps between two calls of `pass`.
#[derive(Debug)]
pub(crate) struct RingPeer {
    words: Shared<RingWords>,
    slots: Buffer<u8>,
    count: u64,
    message: Vec<u8>,
    /// How many were written in all.
    written: u64,
    _child: Child,
}

#[derive(Debug)]
#[repr(C)]
struct RingWords {
    /// How many messages will come; the peer sleeps on it.
    coming: Line<AtomicU32>,
    /// The processor that the bench runs on.
    taken: Line<AtomicU32>,
    ready: Line<AtomicU32>,
    /// How many were written, and how many read.
    written: Line<AtomicU64>,
    read: Line<AtomicU64>,
}

/// Each word has cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Line<T>(T);

// SAFETY: atomics in lines of their own; nothing to drop.
unsafe impl Words for RingWords {}

impl RingPeer {
    /// Forks the peer, with a ring of so many messages of so many bytes.
    pub(crate) fn fork(message_bytes: usize, count: usize) -> RingPeer {
        let words = Shared::<RingWords>::new();
        let slots = Buffer::<u8>::new(message_bytes * count);
        let mut message = vec![1_u8; message_bytes];
        let count = count as u64;
        // SAFETY: `read_all` copies into memory that is there already, and uses shared memory and system calls.
        let child = unsafe { Child::fork(None, || read_all(&words, &slots, count, &mut message)) };
        RingPeer {
            words,
            slots,
            count,
            message,
            written: 0,
            _child: child,
        }
    }

    /// Passes `count` messages, at least one, and says how long that took, once the peer was awake.
    pub(crate) fn pass(&mut self, count: u32) -> Duration {
        assert_ne!(count, 0, "the peer would sleep on");
        let words = &*self.words;
        let here = processor::current() as u32;
        words.taken.0.store(here, Ordering::Relaxed);
        futex::set_and_wake(&words.coming.0, count);
        futex::spin_until(|| words.ready.0.swap(0, Ordering::Acquire) == 1);
        let start = Instant::now();
        let mut read = words.read.0.load(Ordering::Acquire);
        for _ in 0..count {
            if self.written - read == self.count {
                futex::spin_until(|| words.read.0.load(Ordering::Acquire) != read);
                read = words.read.0.load(Ordering::Acquire);
            }
            let slot = slot(self.written, self.count, self.message.len());
            // SAFETY: the peer has read what was there, and touches it again only once it is published.
            unsafe { self.slots.part(slot) }.copy_from_slice(&self.message);
            self.written += 1;
            // Publishes the message. Pairs with the acquire in `read_all`.
            words.written.0.store(self.written, Ordering::Release);
        }
        futex::spin_until(|| words.read.0.load(Ordering::Acquire) == self.written);
        start.elapsed()
    }
}

fn slot(number: u64, count: u64, bytes: usize) -> std::ops::Range<usize> {
    let first = (number % count) as usize * bytes;
    first..first + bytes
}

/// The peer's life: sleep until messages are announced, read as many.
fn read_all(words: &RingWords, slots: &Buffer<u8>, count: u64, message: &mut [u8]) {
    let candidates = processor::allowed();
    let (mut read, mut written) = (0, 0);
    loop {
        futex::wait_while(&words.coming.0, 0);
        processor::keep_off(words.taken.0.load(Ordering::Relaxed) as usize, &candidates);
        let coming = words.coming.0.swap(0, Ordering::Relaxed);
        words.ready.0.store(1, Ordering::Release);
        for _ in 0..coming {
            if read == written {
                futex::spin_until(|| words.written.0.load(Ordering::Acquire) != read);
                written = words.written.0.load(Ordering::Acquire);
            }
            // SAFETY: it is published, and the bench writes there again only once it is read.
            message.copy_from_slice(unsafe { slots.part(slot(read, count, message.len())) });
            black_box(&mut *message);
            read += 1;
            // Gives the room back. Pairs with the acquire in `pass`.
            words.read.0.store(read, Ordering::Release);
        }
    }
}
