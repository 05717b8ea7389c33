//! The descriptors of a queue's messages: they ride in a socket pair, of which everybody has both ends.
//!
//! A message with descriptors has a number that no other had. Whoever puts it sends the descriptors first, in records that
//! carry the number, and publishes the message then. Whoever gets it *peeks* at the records, which makes copies of the
//! descriptors; then the message is taken; then the records are.
//!
//! | died | leaves | which |
//! |---|---|---|
//! | putting, before it was published; or had to put it later, or not at all | records of a message that does not come | are passed over by the next one with descriptors, and taken out by who finds the queue empty |
//! | getting, before the message was taken | all as it was; perhaps the peeks half-way, which each one rewinds | |
//! | getting, after that | records of a message that is gone | are passed over likewise |
//!
//! Numbers tell: what comes before the records of the message at hand is of one that is gone. One side puts and one gets at a
//! time, so records stand in the order of their messages.

use crate::deadline::Deadline;
use crate::sys::poll;
use crate::sys::shared::SharedFd;
use crate::sys::socket::{self, DESCRIPTORS_MAX, Part, Patience};
use crate::sys::step::step;
use bytemuck::{Pod, Zeroable};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// The most descriptors that one message has.
pub(crate) const LETTER_MAX: usize = 4096;

/// What stands in a record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Label {
    letter: u64,
    count: u64,
}

/// Why descriptors are not to be had.
#[derive(Debug)]
pub(crate) enum Missing {
    /// They are not in the socket: the message's sender was not sound, or another one has taken them.
    Gone,
    /// They are, but this process may open no more, or the system refuses.
    Refused(io::Error),
}

/// The two ends.
#[derive(Debug)]
pub(crate) struct Letters {
    way_in: Arc<SharedFd>,
    way_out: Arc<SharedFd>,
}

impl Letters {
    pub(crate) fn create() -> io::Result<Letters> {
        let (way_in, way_out) = socket::record_pair()?;
        Ok(Letters::of(SharedFd::of(way_in), SharedFd::of(way_out)))
    }

    /// Takes the ends that came from elsewhere, whatever they are.
    pub(crate) fn of(way_in: Arc<SharedFd>, way_out: Arc<SharedFd>) -> Letters {
        Letters { way_in, way_out }
    }

    pub(crate) fn ends(&self) -> [&Arc<SharedFd>; 2] {
        [&self.way_in, &self.way_out]
    }

    /// Sends what is left of a message's descriptors, from `sent` on, which it counts. Inside the put side.
    pub(crate) fn send(
        &self,
        letter: u64,
        descriptors: &[Arc<SharedFd>],
        sent: &mut usize,
    ) -> io::Result<()> {
        while *sent < descriptors.len() {
            let left = &descriptors[*sent..];
            let some = &left[..left.len().min(DESCRIPTORS_MAX)];
            let label = Label {
                letter,
                count: some.len() as u64,
            };
            let borrowed: Vec<BorrowedFd<'_>> = some.iter().map(|one| one.as_fd()).collect();
            let record = bytemuck::bytes_of(&label);
            socket::send(self.way_in.as_fd(), record, &borrowed, Patience::Now)?;
            step!("queue::letters::sent_one");
            *sent += some.len();
        }
        Ok(())
    }

    /// Waits until the socket has taken enough out to take records again, until it has ended, or until the deadline.
    pub(crate) fn wait_for_room(&self, deadline: Deadline) -> io::Result<()> {
        poll::writable_until(self.way_in.as_fd(), deadline)
    }

    /// Ends the socket, for every process: nothing is sent any more, and who waits for room is woken. What is in it stays.
    pub(crate) fn end(&self) {
        socket::end(self.way_in.as_fd());
    }

    /// Whether somebody has ended the socket.
    pub(crate) fn are_ended(&self) -> bool {
        poll::is_hung_up(self.way_in.as_fd()).unwrap_or(false)
    }

    /// Empties the socket. Inside both sides, with no message to be got.
    pub(crate) fn empty(&self) {
        self.discard_while(|_| true);
    }

    /// Copies the descriptors of a message, which stay in the socket. Inside the get side.
    pub(crate) fn peek(&self, letter: u64, count: usize) -> Result<Vec<OwnedFd>, Missing> {
        if count > LETTER_MAX {
            return Err(Missing::Gone);
        }
        let mut descriptors = Vec::with_capacity(count);
        socket::rewind_peeks(self.way_out.as_fd()).map_err(Missing::Refused)?;
        while descriptors.len() < count {
            let (label, part) = self.peek_one()?;
            match label {
                Some(label) if label.letter == letter => {
                    if part.lost_descriptors {
                        return Err(Missing::Refused(too_many_open()));
                    }
                    let is_whole = part.descriptors.len() as u64 == label.count;
                    if !is_whole || label.count == 0 {
                        return Err(Missing::Gone);
                    }
                    descriptors.extend(part.descriptors);
                    step!("queue::letters::peeked_one");
                }
                Some(label) if label.letter > letter => return Err(Missing::Gone),
                _ if descriptors.is_empty() => {
                    drop(part);
                    self.drop_one();
                    socket::rewind_peeks(self.way_out.as_fd()).map_err(Missing::Refused)?;
                }
                _ => return Err(Missing::Gone),
            }
        }
        if descriptors.len() == count {
            Ok(descriptors)
        } else {
            Err(Missing::Gone)
        }
    }

    /// Takes the records away that belong to a message, or to earlier ones. Inside the get side.
    pub(crate) fn discard(&self, letter: u64) {
        self.discard_while(|label| label.is_none_or(|label| label.letter <= letter));
    }

    /// Takes the records away that belong to any other message, which none that is still to be got is. Inside both sides.
    pub(crate) fn discard_others(&self, letter: u64) {
        self.discard_while(|label| label.is_none_or(|label| label.letter != letter));
    }

    fn discard_while(&self, is_unwanted: impl Fn(Option<Label>) -> bool) {
        // More than there can be in a socket.
        for _ in 0..100_000 {
            if socket::rewind_peeks(self.way_out.as_fd()).is_err() {
                return;
            }
            match self.peek_one() {
                Ok((label, _part)) if is_unwanted(label) => self.drop_one(),
                _ => return,
            }
        }
    }

    /// Looks at one record. What is no label of ours is told as none.
    fn peek_one(&self) -> Result<(Option<Label>, Part), Missing> {
        let mut label = Label::zeroed();
        let bytes = bytemuck::bytes_of_mut(&mut label);
        match socket::peek_into(self.way_out.as_fd(), bytes) {
            Ok(Some(part)) => {
                let is_label = part.len == size_of::<Label>() && !part.is_cut;
                Ok((is_label.then_some(label), part))
            }
            Ok(None) => Err(Missing::Gone),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Missing::Gone),
            Err(error) => Err(Missing::Refused(error)),
        }
    }

    fn drop_one(&self) {
        let _closed = socket::receive_into(self.way_out.as_fd(), &mut [0; 16], Patience::Now);
        step!("queue::letters::dropped_one");
    }
}

fn too_many_open() -> io::Error {
    io::Error::from_raw_os_error(crate::sys::errno::TOO_MANY_OPEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::descriptor::null_device;

    fn devices(count: usize) -> Vec<Arc<SharedFd>> {
        let device = SharedFd::of(null_device().unwrap());
        vec![device; count]
    }

    fn send(letters: &Letters, letter: u64, count: usize) {
        letters.send(letter, &devices(count), &mut 0).unwrap();
    }

    #[test]
    fn a_peek_takes_nothing_away_however_many_records_it_sees() {
        let letters = Letters::create().unwrap();
        send(&letters, 1, 600);
        send(&letters, 2, 1);
        for _ in 0..2 {
            assert_eq!(letters.peek(1, 600).unwrap().len(), 600);
        }
        letters.discard(1);
        assert_eq!(letters.peek(2, 1).unwrap().len(), 1);
        letters.discard(2);
        assert!(matches!(letters.peek(3, 1), Err(Missing::Gone)));
    }

    #[test]
    fn what_the_dead_have_left_is_passed_over() {
        let letters = Letters::create().unwrap();
        send(&letters, 1, 300);
        socket::send(letters.way_in.as_fd(), b"noise", &[], Patience::Now).unwrap();
        send(&letters, 4, 254);
        send(&letters, 7, 2);
        assert_eq!(letters.peek(4, 254).unwrap().len(), 254);
        assert!(matches!(letters.peek(5, 1), Err(Missing::Gone)));
        assert_eq!(letters.peek(7, 2).unwrap().len(), 2);
    }

    #[test]
    fn records_that_do_not_fit_the_message_are_no_descriptors_of_it() {
        let letters = Letters::create().unwrap();
        send(&letters, 3, 2);
        assert!(matches!(letters.peek(3, 1), Err(Missing::Gone)));
        assert!(matches!(letters.peek(3, 3), Err(Missing::Gone)));
        assert!(matches!(letters.peek(3, usize::MAX), Err(Missing::Gone)));
        letters.discard_others(9);
        assert!(matches!(letters.peek(3, 2), Err(Missing::Gone)));
    }
}
