//! The first page of a queue's memory: how many messages were put and got, and where the next ones are.
//!
//! Each side has a monitor, and words that change only inside it. `k` messages were put in all, and `g` were got; each
//! count is the one store by which a message is there, or is gone.
//!
//! | word | changes inside | means |
//! |---|---|---|
//! | `PUT` | the put side | `k`, and whether the queue is closed: one word, so that nothing is put after that |
//! | `TAILS[k % 2]` | | where message `k` will stand. The other one is written before `k` grows: a draft |
//! | `BASE` | the put side, while `k = g` | the position that stands at the start of the memory |
//! | `LETTERS` | the put side | numbers for messages with descriptors, also for those that came to nothing |
//! | `HIGH` | the put side | up to where memory may have been written since it was last given back: raised before it is |
//! | `GOT`, `HEADS[g % 2]` | the get side | likewise: where message `g` stands |
//! | `PUNCHED` | the get side | up to which position memory has been given back |
//! | `EMPTIED` | both sides | what `LETTERS` was when the socket was last emptied |
//! | `DONE` | anywhere, by compare-and-swap | how many messages are done with |
//! | `WATCHED`, `LETTERED` | anywhere; they only grow | how far it is watched; whether descriptors were ever put |
//!
//! A death between two of these stores leaves a draft, which the next one overwrites. So there is nothing to be repaired.
//!
//! `BASE` is read inside the get side after `k > g` was seen there. It was written before that `k`, and cannot change
//! as long as `k > g`, which only the reader itself can end.
//!
//! Nothing that is read here is believed: counts and positions are compared, and used with checked arithmetic.

use crate::sys::memory::Mapping;
use crate::sys::robust::Monitor;
use crate::sys::step::step;
use std::sync::atomic::{AtomicU64, Ordering};

/// What this page takes; the messages stand behind it.
pub(crate) const PAGE: usize = 4096;

const MAGIC: u64 = 0x6d70_7175_6575_0001;

const MAGIC_WORD: usize = 0;
const CAPACITY: usize = 8;
const WATCHED: usize = 16;
const LETTERED: usize = 24;

/// How often it is looked for an instant at which both counts are known.
const LOOKS: u32 = 64;

/// In `PUT`: nothing is put any more.
const CLOSED: u64 = 1 << 63;

// Each side in two neighbouring lines of its own, so that the two contend for as little as can be.
const PUT_SIDE: usize = 128;
const PUT: usize = 144;
const TAILS: usize = 152;
const BASE: usize = 168;
const LETTERS: usize = 176;
const HIGH: usize = 184;

const GET_SIDE: usize = 256;
const GOT: usize = 272;
const HEADS: usize = 280;
const PUNCHED: usize = 296;

const DONE_SIDE: usize = 384;
const DONE: usize = 400;

const EMPTIED: usize = 304;

/// Another process has written what no sound one would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Corrupt;

/// The words of one queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ledger<'a> {
    page: &'a Mapping,
}

impl<'a> Ledger<'a> {
    /// The words at the start of `page`, which is no shorter than [`PAGE`].
    #[inline]
    pub(crate) fn of(page: &'a Mapping) -> Ledger<'a> {
        Ledger { page }
    }

    /// Begins a queue of at most `capacity` messages.
    pub(crate) fn begin(self, capacity: u64) {
        self.word(CAPACITY).store(capacity, Ordering::Relaxed);
        self.word(MAGIC_WORD).store(MAGIC, Ordering::Release);
    }

    /// The capacity of the queue that another process began here; `None` if there is none.
    pub(crate) fn begun(self) -> Option<u64> {
        let is_queue = self.word(MAGIC_WORD).load(Ordering::Acquire) == MAGIC;
        let capacity = self.word(CAPACITY).load(Ordering::Relaxed);
        (is_queue && capacity > 0).then_some(capacity)
    }

    #[inline]
    fn word(self, offset: usize) -> &'a AtomicU64 {
        self.page.word(offset)
    }

    #[inline]
    pub(crate) fn put_side(self) -> Monitor<'a> {
        Monitor::at(self.page, PUT_SIDE)
    }

    #[inline]
    pub(crate) fn get_side(self) -> Monitor<'a> {
        Monitor::at(self.page, GET_SIDE)
    }

    #[inline]
    pub(crate) fn done_side(self) -> Monitor<'a> {
        Monitor::at(self.page, DONE_SIDE)
    }

    #[inline]
    pub(crate) fn is_closed(self) -> bool {
        self.word(PUT).load(Ordering::Acquire) & CLOSED != 0
    }

    pub(crate) fn close(self) {
        self.word(PUT).fetch_or(CLOSED, Ordering::SeqCst);
    }

    /// How far the queue is on its way to be watched by its descriptor: 0, 1, and 2 when it is.
    #[inline]
    pub(crate) fn watched(self) -> u64 {
        self.word(WATCHED).load(Ordering::SeqCst)
    }

    pub(crate) fn set_watched(self, stage: u64) {
        self.word(WATCHED).fetch_max(stage, Ordering::SeqCst);
    }

    /// How many messages were put. Pairs with [`publish`](Ledger::publish).
    #[inline]
    pub(crate) fn put(self) -> u64 {
        self.word(PUT).load(Ordering::Acquire) & !CLOSED
    }

    /// How many messages were got. Pairs with [`take`](Ledger::take).
    #[inline]
    pub(crate) fn got(self) -> u64 {
        self.word(GOT).load(Ordering::Acquire)
    }

    /// How many messages there are to be got. If others put and get between the two looks, it may be more than there ever were;
    /// but where it is 0, there were none at one instant, and where it is not, there was one.
    #[inline]
    pub(crate) fn len(self) -> u64 {
        let got = self.got();
        self.put().saturating_sub(got)
    }

    /// Whether there are fewer than `count` to be got, which is as many as there ever are: at one instant there were, or were not.
    ///
    /// If it says so, either none was got between the two looks, and it was so at the first one; or one was, and it was so right
    /// after that. If it does not, there were as many at the second look.
    #[inline]
    pub(crate) fn has_fewer_than(self, count: u64) -> bool {
        let put = self.put();
        put.saturating_sub(self.got()) < count
    }

    /// How many messages there were to be got at one instant; if others are too quick for that, no more than there were.
    pub(crate) fn len_at_once(self) -> u64 {
        let mut got = self.got();
        let mut least = 0;
        for _ in 0..LOOKS {
            let put = self.put();
            let got_by_then = got;
            got = self.got();
            least = put.saturating_sub(got);
            if got == got_by_then {
                break;
            }
        }
        least
    }

    /// Where message `put` will stand.
    #[inline]
    pub(crate) fn tail(self, put: u64) -> u64 {
        self.word(TAILS + 8 * (put % 2) as usize)
            .load(Ordering::Relaxed)
    }

    /// A position that no message that was put before reaches past.
    #[inline]
    pub(crate) fn highest_tail(self) -> u64 {
        self.tail(0).max(self.tail(1))
    }

    /// Where message `got` stands.
    #[inline]
    pub(crate) fn head(self, got: u64) -> u64 {
        self.word(HEADS + 8 * (got % 2) as usize)
            .load(Ordering::Relaxed)
    }

    /// A position that no message that is still to be got stands before.
    pub(crate) fn lowest_head(self) -> u64 {
        self.head(0).min(self.head(1))
    }

    /// Message `put` is there, and the next one will stand at `tail`; returns false, and it is not, if the queue was
    /// closed.
    #[inline]
    pub(crate) fn publish(self, put: u64, tail: u64) -> bool {
        let next = put.wrapping_add(1) & !CLOSED;
        self.word(TAILS + 8 * (next % 2) as usize)
            .store(tail, Ordering::Relaxed);
        step!("queue::ledger::tail_drafted");
        // Release: whoever sees the count sees the message. Pairs with `put`.
        self.word(PUT)
            .compare_exchange(put, next, Ordering::Release, Ordering::Relaxed)
            .is_ok()
    }

    /// Message `got` is taken, and the next one stands at `head`.
    #[inline]
    pub(crate) fn take(self, got: u64, head: u64) {
        let next = got.wrapping_add(1);
        self.word(HEADS + 8 * (next % 2) as usize)
            .store(head, Ordering::Relaxed);
        step!("queue::ledger::head_drafted");
        // Release: the message was copied out before its room is used again. Pairs with `got`.
        self.word(GOT).store(next, Ordering::Release);
    }

    #[inline]
    pub(crate) fn base(self) -> u64 {
        self.word(BASE).load(Ordering::Relaxed)
    }

    pub(crate) fn set_base(self, base: u64) {
        self.word(BASE).store(base, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn high(self) -> u64 {
        self.word(HIGH).load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn set_high(self, high: u64) {
        self.word(HIGH).store(high, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn punched(self) -> u64 {
        self.word(PUNCHED).load(Ordering::Relaxed)
    }

    pub(crate) fn set_punched(self, punched: u64) {
        self.word(PUNCHED).store(punched, Ordering::Relaxed);
    }

    /// A number that no other message with descriptors has or had.
    pub(crate) fn next_letter(self) -> u64 {
        let letter = self.word(LETTERS).load(Ordering::Relaxed).wrapping_add(1);
        self.word(LETTERS).store(letter, Ordering::Relaxed);
        letter
    }

    /// Whether the socket may hold descriptors of messages that did not come, or are gone: numbers were given since it was
    /// last emptied.
    pub(crate) fn is_littered(self) -> bool {
        self.word(LETTERS).load(Ordering::Relaxed) != self.word(EMPTIED).load(Ordering::Relaxed)
    }

    /// The socket has been emptied, inside both sides.
    pub(crate) fn set_emptied(self) {
        let letters = self.word(LETTERS).load(Ordering::Relaxed);
        self.word(EMPTIED).store(letters, Ordering::Relaxed);
    }

    /// Whether descriptors were ever put.
    #[inline]
    pub(crate) fn is_lettered(self) -> bool {
        self.word(LETTERED).load(Ordering::SeqCst) != 0
    }

    pub(crate) fn set_lettered(self) {
        self.word(LETTERED).store(1, Ordering::SeqCst);
    }

    /// Whether all that was put is done with.
    pub(crate) fn is_all_done(self) -> bool {
        self.word(DONE).load(Ordering::Acquire) >= self.put()
    }

    /// One more is done with, and it is not the last one: then it returns false, and does nothing.
    pub(crate) fn finish_one_of_many(self) -> bool {
        self.count_done(|done, put| done.saturating_add(1) < put)
    }

    /// One more is done with; returns false if all were already.
    pub(crate) fn finish(self) -> bool {
        self.count_done(|done, put| done < put)
    }

    /// Compares with what was put by then: had that been looked at before, others could have put, got and been done with more
    /// meanwhile, and one that is owed would seem to be one too many.
    fn count_done(self, is_right: impl Fn(u64, u64) -> bool) -> bool {
        self.word(DONE)
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |done| {
                is_right(done, self.put()).then(|| done + 1)
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::SealedMemory;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    #[test]
    fn who_looks_while_others_put_and_get_sees_no_more_than_there_ever_were() {
        let memory = SealedMemory::create(PAGE).unwrap();
        let page = memory.map(0, PAGE).unwrap();
        let ledger = Ledger::of(&page);
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                // Between none and one, and never at more.
                for number in 0.. {
                    ledger.publish(number, 0);
                    ledger.take(number, 0);
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
            let is_wrong = |_: &u32| !ledger.has_fewer_than(2) || ledger.len_at_once() > 1;
            let wrong = (0..2_000_000).filter(is_wrong).count();
            is_over.store(true, Ordering::Relaxed);
            assert_eq!(wrong, 0);
        });
    }

    #[test]
    fn counts_that_stand_still_are_told_as_they_are() {
        let memory = SealedMemory::create(PAGE).unwrap();
        let page = memory.map(0, PAGE).unwrap();
        let ledger = Ledger::of(&page);
        ledger.publish(0, 0);
        assert!(!ledger.has_fewer_than(1) && ledger.has_fewer_than(2));
        assert_eq!((ledger.len(), ledger.len_at_once()), (1, 1));
        // What another process writes there can be less than none.
        ledger.take(5, 0);
        assert_eq!((ledger.len(), ledger.len_at_once()), (0, 0));
        assert!(ledger.has_fewer_than(1));
    }
}
