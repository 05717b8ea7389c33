//! How a receiver keeps out of the way of who streams to it.
//!
//! A receiver that is quicker than the sender finds one message at each look, and to look is to take from the sender's processor the
//! lines that it writes next: each message then costs both several trips of a line between processors. So one to whom messages
//! stream, and who has taken all that it saw, does not look again at once. It gives the sender a head start, for as long as it
//! takes to write several, and takes these together.
//!
//! | what it took since it last had nothing | what it does when it has nothing again |
//! |---|---|
//! | two messages or more | gives a head start, now and the next times, [`CREDIT`] in all |
//! | one | gives one, if it has credit left |
//! | [`ENOUGH`] bytes, or a good part of the ring | looks at once: it is the slower one, or the looks cost little |
//! | any, and has sent something itself | looks at once: the other waits for that, and a head start would be lost |
//! | any, not long after a head start in which nothing came | looks at once: nobody streams |
//!
//! Who asks and is answered in turn does not wait here, but for one head start in many where a question is two messages and the answer
//! goes another way. Messages of several frames do not count. A head start holds no lock and writes no word: whoever dies
//! meanwhile is noticed by the look that follows.

use std::cell::Cell;
use std::hint::spin_loop;
use std::time::{Duration, Instant};

/// In which several messages of a kilobyte can be written.
const HEAD_START: Duration = Duration::from_micros(1);
/// How many head starts in which one message came it takes until no more are given; and how often none is given after one in which
/// nothing came.
const CREDIT: i8 = 16;
/// Bytes that are worth a look.
const ENOUGH: usize = 16 << 10;

thread_local! {
    static SENT: Cell<u64> = const { Cell::new(0) };
}

/// This thread sends a message.
#[inline]
pub(crate) fn note_sent() {
    SENT.set(SENT.get().wrapping_add(1));
}

/// What one receiver knows of those who send to it.
#[derive(Debug)]
pub(crate) struct Pace {
    enough: usize,
    messages: usize,
    bytes: usize,
    /// Below 0 while none is given.
    credit: i8,
    sent: u64,
}

impl Pace {
    /// Of nobody, yet; with a ring of `capacity` bytes.
    pub(crate) fn new(capacity: usize) -> Pace {
        Pace {
            enough: ENOUGH.min(capacity / 8),
            messages: 0,
            bytes: 0,
            credit: 0,
            sent: 0,
        }
    }

    /// A message has been taken.
    #[inline]
    pub(crate) fn note_taken(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes;
    }

    /// There is nothing left of what was seen; returns whether to give a head start before the next look.
    #[inline]
    pub(crate) fn has_run_out(&mut self) -> bool {
        if self.messages == 0 {
            return false;
        }
        self.credit = match self.credit {
            ..0 => self.credit + 1,
            _ if self.messages > 1 => CREDIT,
            _ => (self.credit - 1).max(0),
        };
        let sent = SENT.get();
        let gives = self.credit > 0 && self.bytes < self.enough && self.sent == sent;
        (self.messages, self.bytes, self.sent) = (0, 0, sent);
        gives
    }

    /// Nothing came in a head start. Who streams has always written something by then.
    #[cold]
    pub(crate) fn note_lost(&mut self) {
        self.credit = -CREDIT;
    }
}

/// Lets whoever sends write several messages.
pub(crate) fn give_head_start() {
    let start = Instant::now();
    while start.elapsed() < HEAD_START {
        spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(pace: &mut Pace, messages: usize) -> bool {
        for _ in 0..messages {
            pace.note_taken(8);
        }
        pace.has_run_out()
    }

    #[test]
    fn who_is_streamed_to_gives_a_head_start_until_nothing_streams_any_more() {
        let mut pace = Pace::new(1 << 20);
        assert!(!take(&mut pace, 1));
        assert!(take(&mut pace, 2));
        let given = (0..100).filter(|_| take(&mut pace, 1)).count();
        assert_eq!(given, CREDIT as usize - 1);
        assert!(!take(&mut pace, 0));
    }

    #[test]
    fn who_answers_gives_none() {
        let mut pace = Pace::new(1 << 20);
        assert!(take(&mut pace, 2));
        note_sent();
        assert!(!take(&mut pace, 2));
        assert!(take(&mut pace, 2));
    }

    #[test]
    fn a_head_start_in_which_nothing_came_is_not_given_again_soon() {
        let mut pace = Pace::new(1 << 20);
        let (mut given, rounds) = (0, 1700);
        for _ in 0..rounds {
            if take(&mut pace, 2) {
                given += 1;
                pace.note_lost();
            }
        }
        assert_eq!(given, rounds / (CREDIT as usize + 1));
    }

    #[test]
    fn what_is_enough_is_looked_for_at_once() {
        let mut pace = Pace::new(1024);
        assert!(take(&mut pace, 15));
        assert!(!take(&mut pace, 16));
    }
}
