//! Putting a message: the put side's steps. The argument stands in `core`.

use crate::deadline::Deadline;
use crate::queue::core::{BUSY, Core, Failure, HEADER, Limit};
use crate::queue::ledger::Corrupt;
use crate::queue::letters::LETTER_MAX;
use crate::queue::store::NEAR;
use crate::sys::shared::SharedFd;
use crate::sys::socket::{self, TOO_MANY_ON_THEIR_WAY};
use crate::sys::step::step;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::thread;
use std::time::Duration;

/// A queue that is empty starts again when it has come so far.
const REWIND: u64 = 256 << 10;
/// How long to wait where nobody tells when it is to be tried again.
const PAUSE: Duration = Duration::from_millis(5);

/// Why a message is to be put later: its descriptors cannot be sent now.
#[derive(Clone, Copy, Debug)]
enum Later {
    /// The socket is full.
    SocketFull,
    /// The user has as many on their way, through whichever sockets, as this process may have open.
    TooManyOnTheirWay,
}

impl Core {
    /// Puts one message.
    pub(crate) fn put(
        &self,
        bytes: &[u8],
        descriptors: &[Arc<SharedFd>],
        limit: Limit,
    ) -> Result<(), Failure> {
        if descriptors.len() > LETTER_MAX {
            return Err(Failure::TooManyDescriptors);
        }
        let ledger = self.ledger();
        let is_there = || self.has_room() || ledger.is_closed();
        loop {
            let inside = self.enter_when(ledger.put_side(), is_there, &self.spin_to_put, limit)?;
            step!("queue::put::inside");
            let placed = if ledger.is_closed() {
                Err(Failure::Closed)
            } else {
                self.place(bytes, descriptors)
            };
            step!("queue::put::placed");
            inside.leave(is_there);
            step!("queue::put::left");
            let failure = match (placed, limit) {
                (Ok(None), _) => return Ok(()),
                (Err(failure), _) => failure,
                (Ok(Some(_)), Limit::Now) => Failure::NotNow,
                (Ok(Some(_)), Limit::Until(deadline)) if deadline.has_passed() => Failure::Timeout,
                (Ok(Some(later)), Limit::Until(deadline)) => {
                    self.wait_for_letters(later, deadline)?;
                    continue;
                }
            };
            // Whoever got the last message may have found this one inside, and left what it has written to it. Pairs with the
            // ones in `make_room_if_last` and `start_again_if_empty`.
            fence(Ordering::SeqCst);
            self.settle_if_needed();
            return Err(failure);
        }
    }

    /// Waits until it may be possible to send descriptors. Outside.
    fn wait_for_letters(&self, later: Later, deadline: Deadline) -> Result<(), Failure> {
        // Pairs with the one in `make_room_if_last`.
        fence(Ordering::SeqCst);
        if self.ledger().len() == 0 {
            // Whoever got the last message may have found this one inside the put side: then it makes room itself.
            return Ok(());
        }
        step!("queue::put::waits_for_letters");
        match later {
            // It is full of what others have put. The kernel wakes who waits for it, whoever takes records out; and so does
            // closing.
            Later::SocketFull => self.letters.wait_for_room(deadline)?,
            // There may be room in the socket; and of other sockets nobody tells. Closing is seen at the next attempt.
            Later::TooManyOnTheirWay => {
                thread::sleep(deadline.or_after(PAUSE).remaining().unwrap_or(PAUSE));
            }
        }
        Ok(())
    }

    /// Writes a message and publishes it; or says why that is to be done later. Inside the put side.
    #[inline]
    fn place(&self, bytes: &[u8], descriptors: &[Arc<SharedFd>]) -> Result<Option<Later>, Failure> {
        let ledger = self.ledger();
        let put = ledger.put();
        let tail = ledger.tail(put);
        let base = self.rewound(put, tail)?;
        let at = tail.checked_sub(base).ok_or(Corrupt)?;
        let taken = (HEADER as u64 + bytes.len() as u64).next_multiple_of(8);
        let next = tail.checked_add(taken).ok_or(Corrupt)?;
        // The first message stands at the base or behind it.
        if next - base > self.store.reach() {
            let span = next.checked_sub(ledger.lowest_head()).ok_or(Corrupt)?;
            if span > self.store.reach() {
                return Err(Failure::NoRoom);
            }
        }
        if at + taken > ledger.high() {
            // First: what comes to nothing half-way is given back with the rest.
            ledger.set_high(at + taken);
        }
        self.store
            .write(at + HEADER as u64, bytes, &self.put_window)?;
        step!("queue::put::body");
        let letter = if descriptors.is_empty() {
            0
        } else {
            // As late as can be: what the socket holds of a message that does not come stays there for a while.
            match self.send_letter(descriptors)? {
                Ok(letter) => letter,
                Err(later) => return Ok(Some(later)),
            }
        };
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&(bytes.len() as u64).to_ne_bytes());
        header[8..16].copy_from_slice(&(descriptors.len() as u64).to_ne_bytes());
        header[16..].copy_from_slice(&letter.to_ne_bytes());
        self.store.write(at, &header, &self.put_window)?;
        step!("queue::put::header");
        if ledger.watched() > 0 {
            self.event.add(1);
            step!("queue::put::event");
        }
        let publish = || {
            step!("queue::put::pending");
            let is_published = ledger.publish(put, next);
            step!("queue::put::published");
            is_published
        };
        if ledger.get_side().announce(publish) {
            Ok(None)
        } else {
            // It was closed meanwhile; else another process has written over the count.
            Err(if ledger.is_closed() {
                Failure::Closed
            } else {
                Failure::Corrupt
            })
        }
    }

    /// The base for the next message: where the queue is empty, and has come far or may have memory that is far away, that is
    /// where the message will stand.
    #[inline]
    fn rewound(&self, put: u64, tail: u64) -> Result<u64, Corrupt> {
        let ledger = self.ledger();
        let base = ledger.base();
        let is_near = tail.checked_sub(base).ok_or(Corrupt)? < REWIND;
        if (is_near && ledger.high() <= NEAR as u64) || ledger.got() != put {
            return Ok(base);
        }
        self.start_again(tail);
        Ok(tail)
    }

    /// Sends descriptors and returns their number, if no others have to be got first.
    fn send_letter(&self, descriptors: &[Arc<SharedFd>]) -> Result<Result<u64, Later>, Failure> {
        let ledger = self.ledger();
        ledger.set_lettered();
        let letter = ledger.next_letter();
        step!("queue::put::numbered");
        let mut sent = 0;
        match self.try_letter(letter, descriptors, &mut sent)? {
            None => return Ok(Ok(letter)),
            Some(later) if ledger.len() > 0 => return Ok(Err(later)),
            Some(_) => {}
        }
        // All but our own is left over from processes that have died.
        let deadline = Deadline::after(BUSY);
        let getting = ledger.get_side().enter(deadline).ok_or(Failure::Timeout)?;
        step!("queue::put::getting_too");
        self.letters.discard_others(letter);
        step!("queue::put::others_discarded");
        getting.leave(|| self.has_news());
        match self.try_letter(letter, descriptors, &mut sent)? {
            None => Ok(Ok(letter)),
            Some(Later::SocketFull) => Err(Failure::TooManyDescriptors),
            // They are in other sockets, or it is this value alone: nobody here can tell when that will change.
            Some(Later::TooManyOnTheirWay) => {
                Err(io::Error::from_raw_os_error(TOO_MANY_ON_THEIR_WAY).into())
            }
        }
    }

    /// Sends what is left of it; returns what hinders that for now.
    fn try_letter(
        &self,
        letter: u64,
        descriptors: &[Arc<SharedFd>],
        sent: &mut usize,
    ) -> Result<Option<Later>, Failure> {
        match self.letters.send(letter, descriptors, sent) {
            Ok(()) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Some(Later::SocketFull)),
            Err(error) if error.raw_os_error() == Some(TOO_MANY_ON_THEIR_WAY) => {
                Ok(Some(Later::TooManyOnTheirWay))
            }
            Err(error) if socket::is_gone(&error) => {
                // Who closes ends the socket first, and may have been killed after it.
                self.close();
                Err(Failure::Closed)
            }
            Err(error) => Err(error.into()),
        }
    }
}
