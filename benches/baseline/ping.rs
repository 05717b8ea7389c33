//! Round trips between two processes on one shared word: both spin, or both sleep.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::child::Child;
use super::futex;
use super::processor;
use super::shared::{Shared, Words};

const IDLE: u32 = 0;
const READY: u32 = 1;
const PING: u32 = 2;
const PONG: u32 = 3;

/// A process that answers on a shared word that both sides spin on. It sleeps between two calls of
/// `round_trips`.
#[derive(Debug)]
pub(crate) struct SpinningPeer {
    words: Shared<SpinningWords>,
    _child: Child,
}

/// Each word has cache lines of its own.
#[derive(Debug)]
#[repr(C, align(128))]
struct SpinningWords {
    /// How many round trips are to be answered; the peer sleeps on it.
    rounds: Line,
    /// The processor that the bench runs on.
    taken: Line,
    word: Line,
}

#[derive(Debug)]
#[repr(align(128))]
struct Line(AtomicU32);

// SAFETY: atomics in lines of their own; nothing to drop.
unsafe impl Words for SpinningWords {}

impl SpinningPeer {
    /// Forks the peer.
    pub(crate) fn fork() -> SpinningPeer {
        let words = Shared::<SpinningWords>::new();
        // SAFETY: `answer_spinning` uses the shared words and system calls.
        let child = unsafe { Child::fork(None, || answer_spinning(&words)) };
        SpinningPeer {
            words,
            _child: child,
        }
    }

    /// Makes `rounds` round trips, at least one, and says how long they took together, once the
    /// peer was awake.
    pub(crate) fn round_trips(&self, rounds: u32) -> Duration {
        assert_ne!(rounds, IDLE, "the peer would sleep on");
        let SpinningWords {
            taken,
            word: Line(word),
            ..
        } = &*self.words;
        taken
            .0
            .store(processor::current() as u32, Ordering::Relaxed);
        // Publishes the processor, too. Pairs with the acquire in `answer_spinning`'s wait.
        futex::set_and_wake(&self.words.rounds.0, rounds);
        futex::spin_until(|| word.load(Ordering::Acquire) == READY);
        let start = Instant::now();
        for _ in 0..rounds {
            word.store(PING, Ordering::Release);
            // What is shared here is the word alone; the orderings are those that a real message
            // would need.
            futex::spin_until(|| word.load(Ordering::Acquire) == PONG);
        }
        start.elapsed()
    }
}

/// The peer's life: sleep until `rounds` is set, say ready, answer that many times.
fn answer_spinning(words: &SpinningWords) {
    let candidates = processor::allowed();
    loop {
        futex::wait_while(&words.rounds.0, IDLE);
        // Who is woken is often put where the waker runs, and two that spin there wait in turns.
        processor::keep_off(words.taken.0.load(Ordering::Relaxed) as usize, &candidates);
        let rounds = words.rounds.0.swap(IDLE, Ordering::Relaxed);
        words.word.0.store(READY, Ordering::Release);
        for _ in 0..rounds {
            futex::spin_until(|| words.word.0.load(Ordering::Acquire) == PING);
            words.word.0.store(PONG, Ordering::Release);
        }
    }
}

/// A process that answers on a futex, where whoever waits sleeps.
#[derive(Debug)]
pub(crate) struct SleepingPeer {
    word: Shared<SleepingWord>,
    _child: Child,
}

/// Counts the messages: at an even value the peer sleeps, at an odd one the bench.
#[derive(Debug)]
struct SleepingWord(AtomicU32);

// SAFETY: one atomic; nothing to drop.
unsafe impl Words for SleepingWord {}

impl SleepingPeer {
    /// Forks the peer.
    pub(crate) fn fork() -> SleepingPeer {
        let word = Shared::<SleepingWord>::new();
        // SAFETY: `answer_sleeping` uses the shared word and system calls.
        let child = unsafe { Child::fork(None, || answer_sleeping(&word.0)) };
        SleepingPeer {
            word,
            _child: child,
        }
    }

    /// Makes `rounds` round trips and says how long they took together.
    pub(crate) fn round_trips(&self, rounds: u32) -> Duration {
        let word = &self.word.0;
        let mut sent = word.load(Ordering::Relaxed).wrapping_add(1);
        let start = Instant::now();
        for _ in 0..rounds {
            futex::set_and_wake(word, sent);
            futex::wait_while(word, sent);
            sent = sent.wrapping_add(2);
        }
        start.elapsed()
    }
}

/// The peer's life: sleep while the count is even, make an odd one even.
fn answer_sleeping(word: &AtomicU32) {
    let mut seen = 0_u32;
    loop {
        futex::wait_while(word, seen);
        seen = seen.wrapping_add(2);
        futex::set_and_wake(word, seen);
    }
}
