//! Getting a message: the get side's steps. The argument stands in `core`.

use crate::queue::core::{Core, Failure, HEADER, Limit};
use crate::queue::ledger::Corrupt;
use crate::queue::letters::Missing;
use crate::queue::store::NEAR;
use crate::sys::step::step;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{Ordering, fence};

/// Up to this length a message is taken to the stack.
pub(crate) const SHORT: usize = 128;
/// A message that is longer than this is believed only if so much memory is there.
const DOUBTFUL: u64 = 64 << 20;

/// Where the bytes of one message are.
#[derive(Debug)]
pub(crate) enum Bytes {
    /// As many, in the buffer of who gets it.
    Short(usize),
    Long(Vec<u8>),
}

/// One message.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) bytes: Bytes,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Core {
    /// Gets one message; its bytes are put into `short` if they fit.
    pub(crate) fn get(&self, short: &mut [u8; SHORT], limit: Limit) -> Result<Message, Failure> {
        let ledger = self.ledger();
        let is_there = || self.has_news();
        if !is_there() && (ledger.is_lettered() || ledger.high() > NEAR as u64) {
            // What a putter that died has left in the socket is closed before this one sleeps, and its memory given back.
            self.settle_if_needed();
        }
        let entered = self.enter_when(ledger.get_side(), is_there, &self.spin_to_get, limit);
        let inside = match entered {
            Ok(inside) => inside,
            Err(failure) => {
                let is_empty = matches!(failure, Failure::NotNow | Failure::Timeout);
                if is_empty {
                    self.settle_if_needed();
                }
                return Err(failure);
            }
        };
        step!("queue::get::inside");
        let message = self.take(short);
        inside.leave(is_there);
        step!("queue::get::left");
        if ledger.is_lettered() {
            self.make_room_if_last();
        }
        if matches!(message, Err(Failure::Closed)) {
            self.pass_closing_on();
        }
        message
    }

    /// After a message was taken: if it was the last one, what the socket still holds is of putters that died, and nobody may
    /// come to get any more, who would take it out. A putter that waits for room in the socket would wait for ever.
    ///
    /// That putter looks, after it has left the put side and before it sleeps, whether the queue is empty. This one makes it
    /// empty, and then tries to enter the put side. So one of the two sees the other.
    #[cold]
    fn make_room_if_last(&self) {
        // Pairs with the one in `put`.
        fence(Ordering::SeqCst);
        if self.ledger().len() == 0 {
            self.settle_if_needed();
        }
    }

    /// Takes the first message. Inside the get side.
    #[inline]
    fn take(&self, short: &mut [u8; SHORT]) -> Result<Message, Failure> {
        let ledger = self.ledger();
        let got = ledger.got();
        if self.seen.load(Ordering::Relaxed) <= got {
            self.look(got)?;
        }
        let base = self.base.load(Ordering::Relaxed);
        let head = ledger.head(got);
        let at = head.checked_sub(base).ok_or(Corrupt)?;
        let mut header = [0; HEADER];
        self.store.read(at, &mut header, &self.get_window)?;
        let [len, count, letter] = bytemuck::cast::<[u8; HEADER], [u64; 3]>(header);
        let next = self.end_of_message(head, len, self.limit.load(Ordering::Relaxed))?;
        let body = at + HEADER as u64;
        let bytes = if len <= SHORT as u64 {
            self.store
                .read(body, &mut short[..len as usize], &self.get_window)?;
            Bytes::Short(len as usize)
        } else {
            Bytes::Long(self.copy_out(body, len as usize)?)
        };
        step!("queue::get::copied");
        let descriptors = self.descriptors_of(letter, count)?;
        step!("queue::get::peeked");
        self.give_back(head, at + (next - head), base);
        if self.capacity == u64::MAX {
            // Nobody waits for room.
            ledger.take(got, next);
        } else {
            ledger.put_side().announce(|| {
                step!("queue::get::pending");
                ledger.take(got, next);
                step!("queue::get::taken");
            });
        }
        step!("queue::get::announced");
        self.start_again_if_empty(got);
        if count > 0 {
            self.letters.discard(letter);
            step!("queue::get::discarded");
        }
        if ledger.watched() > 0 {
            self.event.take();
            step!("queue::get::event");
        }
        match descriptors {
            Some(descriptors) => Ok(Message { bytes, descriptors }),
            None => Err(Failure::DescriptorsGone),
        }
    }

    /// Looks how many messages were put, of which message `got` is to be one.
    fn look(&self, got: u64) -> Result<(), Failure> {
        let ledger = self.ledger();
        let put = ledger.put();
        if put <= got {
            let is_sound = put == got && ledger.is_closed();
            return Err(if is_sound {
                Failure::Closed
            } else {
                Failure::Corrupt
            });
        }
        self.base.store(ledger.base(), Ordering::Relaxed);
        self.limit.store(ledger.highest_tail(), Ordering::Relaxed);
        self.high.store(ledger.high(), Ordering::Relaxed);
        self.seen.store(put, Ordering::Relaxed);
        Ok(())
    }

    /// Where the next message stands, if one of that length can be here.
    #[inline]
    fn end_of_message(&self, head: u64, len: u64, limit: u64) -> Result<u64, Failure> {
        let next = (HEADER as u64)
            .checked_add(len)
            .and_then(|taken| taken.checked_next_multiple_of(8))
            .and_then(|taken| head.checked_add(taken))
            .ok_or(Corrupt)?;
        if next > limit || len > self.store.reach() {
            return Err(Failure::Corrupt);
        }
        if len > DOUBTFUL && self.store.file().memory()? < len {
            return Err(Failure::Corrupt);
        }
        Ok(next)
    }

    fn copy_out(&self, at: u64, len: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(len)
            .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        self.store.append(at, len, &mut bytes, &self.get_window)?;
        Ok(bytes)
    }

    /// `None` if they are gone, and the message is to be taken without them.
    #[inline]
    fn descriptors_of(&self, letter: u64, count: u64) -> Result<Option<Vec<OwnedFd>>, Failure> {
        if count == 0 {
            return Ok(Some(Vec::new()));
        }
        let count = usize::try_from(count).map_err(|_| Corrupt)?;
        match self.letters.peek(letter, count) {
            Ok(descriptors) => Ok(Some(descriptors)),
            Err(Missing::Gone) => Ok(None),
            Err(Missing::Refused(error)) => Err(Failure::Refused(error)),
        }
    }

    /// Gives back the memory behind the message at `head`, if that is much. Inside the get side and before the message is
    /// taken: the base cannot change till then.
    #[inline]
    fn give_back(&self, head: u64, end: u64, base: u64) {
        if end <= NEAR as u64 / 2 {
            return;
        }
        let ledger = self.ledger();
        let behind = self.store.give_back(ledger.punched(), base, head);
        if let Ok(Some(punched)) = behind {
            step!("queue::get::given_back");
            ledger.set_punched(punched);
        }
    }

    /// Gives all memory but the beginning back, if the message that was just taken was the last and something was written
    /// behind it: a message, or what came to nothing.
    #[inline]
    fn start_again_if_empty(&self, got: u64) {
        let ledger = self.ledger();
        let taken = got.wrapping_add(1);
        // Most of the time more was seen already, or little was written, and the other side's line is left alone. What has come to
        // nothing since then is given back by whoever tried to put it, or finds nothing next.
        if self.seen.load(Ordering::Relaxed) != taken
            || self.high.load(Ordering::Relaxed) <= NEAR as u64
            || ledger.put() != taken
        {
            return;
        }
        // Where somebody is putting right now, there is something in it again, or he sees to it. Pairs with the one in `put`.
        fence(Ordering::SeqCst);
        if let Some(putting) = ledger.put_side().try_enter() {
            step!("queue::get::putting_too");
            let put = ledger.put();
            if ledger.got() == put {
                self.start_again(ledger.tail(put));
            }
            putting.leave(|| self.has_room() || ledger.is_closed());
        }
    }
}
