//! What is told beside messages: that a queue is closed, what is done with, and that its descriptor is readable.

use crate::deadline::Deadline;
use crate::queue::core::{Core, Failure};
use crate::queue::store::NEAR;
use crate::sys::robust;
use crate::sys::step::step;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// How much too high an event can be made before it is not lowered at once any more.
const SETTLE_MAX: usize = 4096;

impl Core {
    /// Closes the queue, for everybody.
    pub(crate) fn close(&self) {
        let ledger = self.ledger();
        // First: whoever puts descriptors after this goes on with closing, if we are killed, and so does who takes off the event
        // what is added now.
        self.letters.end();
        step!("queue::close::letters_ended");
        self.event.add(1);
        step!("queue::close::event");
        let close = || {
            ledger.close();
            step!("queue::close::closed");
        };
        if robust::prepare().is_err() {
            // Without memory for this thread: who sleeps already is woken by the next one who comes.
            return ledger.close();
        }
        // Inside one side, and with the other's word pending: if we are killed, the kernel wakes one on each, who passes it
        // on. Who holds a side up for long is not waited for.
        if let Some(putting) = ledger.put_side().try_enter() {
            step!("queue::close::inside_put");
            ledger.get_side().announce(close);
            putting.leave(|| true);
        } else if let Some(getting) = ledger.get_side().try_enter() {
            step!("queue::close::inside_get");
            ledger.put_side().announce(close);
            getting.leave(|| true);
        } else {
            step!("queue::close::inside_neither");
            ledger.get_side().announce(close);
        }
        step!("queue::close::left");
        self.pass_closing_on();
        step!("queue::close::passed_on");
        self.settle_if_needed();
    }

    /// Does what follows from closing. Whoever closed may have died before it.
    pub(crate) fn pass_closing_on(&self) {
        // Again: what was there before may have been taken off by one who was killed before it put it back.
        self.event.add(1);
        self.ledger().put_side().announce(|| ());
    }

    /// One message more is done with; returns false if all were.
    pub(crate) fn finish(&self) -> io::Result<bool> {
        robust::prepare()?;
        let ledger = self.ledger();
        let finish = || {
            let is_one = ledger.finish();
            step!("queue::done::last");
            is_one
        };
        Ok(ledger.finish_one_of_many() || ledger.done_side().announce(finish))
    }

    /// Waits until all messages are done with.
    pub(crate) fn wait_until_done(&self, deadline: Deadline) -> Result<(), Failure> {
        robust::prepare()?;
        let ledger = self.ledger();
        let is_there = || ledger.is_all_done();
        if is_there() {
            return Ok(());
        }
        let mut inside = ledger.done_side().enter(deadline).ok_or(Failure::Timeout)?;
        step!("queue::done::inside");
        while !is_there() {
            inside = inside.wait(is_there, deadline).ok_or(Failure::Timeout)?;
        }
        inside.leave(is_there);
        Ok(())
    }

    /// The descriptor that is readable when something is there to be got, from now on.
    pub(crate) fn watched(&self) -> BorrowedFd<'_> {
        let ledger = self.ledger();
        if ledger.watched() < 2 {
            ledger.set_watched(1);
            step!("queue::watch::begun");
            self.event.add(ledger.len().saturating_add(2).min(1 << 62));
            step!("queue::watch::added");
            ledger.set_watched(2);
            // So that it is not readable at first when nothing is there.
            let _settled = self.is_ready();
        }
        self.event.handle().as_fd()
    }

    /// Whether a get would end at once. Where it would not, the descriptor is not readable after this, as a rule.
    pub(crate) fn is_ready(&self) -> bool {
        if self.has_news() {
            return true;
        }
        self.settle_if_needed();
        // Perhaps it was closed by that.
        self.has_news()
    }

    /// Where deaths may have left something, settles it; see there.
    pub(crate) fn settle_if_needed(&self) {
        let ledger = self.ledger();
        let may_need = ledger.watched() > 0
            || (ledger.is_lettered() && ledger.is_littered())
            || ledger.high() > NEAR as u64;
        if may_need && robust::prepare().is_ok() {
            self.settle();
        }
    }

    /// Takes off what the event says too much, closes descriptors of messages that did not come, and gives back the memory that
    /// they took, if nothing is in the queue. Where it takes off what one has added who closes, it goes on with that.
    #[cold]
    pub(crate) fn settle(&self) {
        let ledger = self.ledger();
        let Some(getting) = ledger.get_side().try_enter() else {
            return;
        };
        step!("queue::settle::getting");
        if let Some(putting) = ledger.put_side().try_enter() {
            step!("queue::settle::putting_too");
            if ledger.len() == 0 && ledger.is_lettered() && ledger.is_littered() {
                self.letters.empty();
                step!("queue::settle::emptied");
                ledger.set_emptied();
            }
            let put = ledger.put();
            if ledger.got() == put && ledger.high() > NEAR as u64 {
                self.start_again(ledger.tail(put));
            }
            if ledger.watched() > 0 && ledger.len() == 0 && !ledger.is_closed() {
                let mut taken = 0;
                while taken < SETTLE_MAX && self.event.take() {
                    taken += 1;
                }
                step!("queue::settle::lowered");
                if taken > 0 && (self.letters.are_ended() || ledger.is_closed()) {
                    // Who closes ends the socket first, and adds to the event then. If that was taken off here, nobody would be
                    // told by it of what follows, and who closes may be killed when nothing but that is left to be done.
                    self.event.add(1);
                    step!("queue::settle::goes_on_closing");
                    ledger.close();
                    step!("queue::settle::closed");
                }
            }
            putting.leave(|| self.has_room() || ledger.is_closed());
        }
        getting.leave(|| self.has_news());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::core::Limit;
    use crate::queue::get::SHORT;
    use crate::sys::forks::apart;
    use crate::sys::poll::is_hung_up;
    use crate::sys::shared::SharedFd;
    use crate::sys::socket::record_pair;
    use std::os::fd::OwnedFd;
    use std::thread;
    use std::time::Duration;

    /// What a putter leaves that is killed before it publishes.
    fn die_while_putting(core: &Core, descriptor: OwnedFd) {
        let ledger = core.ledger();
        let putting = ledger.put_side().try_enter().unwrap();
        ledger.set_lettered();
        let letter = ledger.next_letter();
        let descriptors = [SharedFd::of(descriptor)];
        core.letters.send(letter, &descriptors, &mut 0).unwrap();
        putting.leave(|| true);
    }

    #[test]
    fn descriptors_of_a_message_that_did_not_come_are_closed_by_who_finds_or_leaves_nothing() {
        let _apart = apart::no_forks();
        robust::prepare().unwrap();
        let core = Core::create(u64::MAX).unwrap();
        let limits = [
            Limit::Now,
            Limit::Until(Deadline::after(Duration::from_millis(1))),
        ];
        for limit in limits {
            let (kept, given) = record_pair().unwrap();
            die_while_putting(&core, given);
            assert!(!is_hung_up(kept.as_fd()).unwrap());
            assert!(core.get(&mut [0; SHORT], limit).is_err());
            assert!(is_hung_up(kept.as_fd()).unwrap());
        }
        // The last message that is there is enough.
        let (kept, given) = record_pair().unwrap();
        core.put(b"x", &[], Limit::Now).unwrap();
        die_while_putting(&core, given);
        assert!(!is_hung_up(kept.as_fd()).unwrap());
        assert!(core.get(&mut [0; SHORT], Limit::Now).is_ok());
        assert!(is_hung_up(kept.as_fd()).unwrap());
        let (kept, given) = record_pair().unwrap();
        die_while_putting(&core, given);
        core.close();
        assert!(is_hung_up(kept.as_fd()).unwrap());
    }

    #[test]
    fn who_puts_descriptors_goes_on_with_closing_that_was_begun() {
        let core = Core::create(u64::MAX).unwrap();
        core.letters.end();
        core.put(b"x", &[], Limit::Now).unwrap();
        let (_kept, given) = record_pair().unwrap();
        let refused = core.put(b"y", &[SharedFd::of(given)], Limit::Now);
        assert!(matches!(refused, Err(Failure::Closed)), "{refused:?}");
        assert!(core.is_closed() && core.len() == 1);
    }

    #[test]
    fn who_waits_for_room_for_descriptors_is_woken_by_a_get_and_by_closing() {
        let core = Core::create(u64::MAX).unwrap();
        let descriptors = [SharedFd::of(record_pair().unwrap().0)];
        while core.put(b"x", &descriptors, Limit::Now).is_ok() {}
        let put = || core.put(b"y", &descriptors, Limit::Until(Deadline::NEVER));
        thread::scope(|scope| {
            let putter = scope.spawn(put);
            while !putter.is_finished() {
                // All may have been got before it begins.
                match core.get(&mut [0; SHORT], Limit::Now) {
                    Ok(_) | Err(Failure::NotNow) => thread::yield_now(),
                    Err(failure) => panic!("{failure:?}"),
                }
            }
            putter.join().unwrap().unwrap();
            while core.put(b"x", &descriptors, Limit::Now).is_ok() {}
            let putter = scope.spawn(put);
            core.close();
            assert!(matches!(putter.join().unwrap(), Err(Failure::Closed)));
        });
    }

    #[test]
    fn room_that_only_the_dead_take_up_is_made_by_who_gets_the_last_message() {
        robust::prepare().unwrap();
        let core = Core::create(u64::MAX).unwrap();
        let descriptors = [SharedFd::of(record_pair().unwrap().0)];
        core.put(b"x", &[], Limit::Now).unwrap();
        let ledger = core.ledger();
        ledger.set_lettered();
        while core
            .letters
            .send(ledger.next_letter(), &descriptors, &mut 0)
            .is_ok()
        {}
        // Others have it wait: there is a message, and who gets that takes out what is before it.
        let put = core.put(b"y", &descriptors, Limit::Now);
        assert!(matches!(put, Err(Failure::NotNow)), "{put:?}");
        core.get(&mut [0; SHORT], Limit::Now).unwrap();
        // Nobody gets again, but the socket has room.
        core.letters
            .send(ledger.next_letter(), &descriptors, &mut 0)
            .unwrap();
    }
}
