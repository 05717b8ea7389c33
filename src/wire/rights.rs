//! Descriptors beside the messages of a ring: they travel over its socket, in records of their own.
//!
//! A message that has descriptors is a *letter*; letters are counted from 0 on each side alike. The sender puts a letter's
//! descriptors into the socket, in records that carry its number, before it shows the letter in the ring. So whoever finds a
//! letter in the ring finds its descriptors in the socket, or the sender is not sound. Between these records stand
//! doorbells, of one byte.
//!
//! | | then |
//! |---|---|
//! | the socket is full | the letter waits: its receiver takes records whenever it takes a letter or wakes up |
//! | the receiver may open no more descriptors | that letter has none, and a handle in it is an error; the next letters are whole |
//! | a letter is never taken | its descriptors are closed with the socket, or with what is kept here |
//! | the sender dies before the letter is shown | they are kept till the link is closed |

use crate::sys::poll;
use crate::sys::socket::{self, DESCRIPTORS_MAX, Patience, is_gone};
use bytemuck::{Pod, Zeroable};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// How many records are kept for letters that have not been taken yet, before the rest is left in the socket.
const KEPT_MAX: usize = 1024;

/// What stands in a record with descriptors.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Label {
    letter: u64,
    count: u64,
}

/// The sending side's count.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    letters: u64,
}

impl Outbox {
    /// The side of which so many letters have been sent.
    pub(crate) fn resume(letters: u64) -> Outbox {
        Outbox { letters }
    }

    /// How many letters were sent; the number of the next one.
    pub(crate) fn letters(&self) -> u64 {
        self.letters
    }

    /// Gives up a letter of which some descriptors may have been sent: its number is not used again.
    pub(crate) fn abandon(&mut self) {
        self.letters += 1;
    }

    /// Sends what is left of a letter's descriptors, from `sent` on, which it counts; returns whether that was all of them.
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        descriptors: &[Arc<OwnedFd>],
        sent: &mut usize,
    ) -> io::Result<bool> {
        while *sent < descriptors.len() {
            let left = &descriptors[*sent..];
            let some = &left[..left.len().min(DESCRIPTORS_MAX)];
            let label = Label {
                letter: self.letters,
                count: some.len() as u64,
            };
            let borrowed: Vec<BorrowedFd<'_>> = some.iter().map(|one| one.as_fd()).collect();
            match socket::send(socket, bytemuck::bytes_of(&label), &borrowed, Patience::Now) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                // What the other side has shown is still to be had; whoever waits for it learns that it is gone.
                Err(error) if is_gone(&error) => {}
                result => result?,
            }
            *sent += some.len();
        }
        self.letters += u64::from(!descriptors.is_empty());
        Ok(true)
    }
}

/// What listening brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// A doorbell, or descriptors, which are kept for their letter.
    News,
    Nothing,
    Closed,
}

/// One record of a letter's descriptors; `None` where some of them were lost.
pub(crate) type Kept<D = OwnedFd> = (u64, Option<Vec<D>>);

/// The receiving side's count, and descriptors whose letters have not been taken yet.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    letters: u64,
    kept: VecDeque<Kept>,
}

impl Inbox {
    /// The side that has taken so many letters, and keeps these.
    pub(crate) fn resume(letters: u64, kept: Vec<Kept>) -> Inbox {
        Inbox {
            letters,
            kept: kept.into(),
        }
    }

    /// The number of the next letter, and what is kept.
    pub(crate) fn into_parts(self) -> (u64, Vec<Kept>) {
        (self.letters, self.kept.into())
    }

    /// Passes over the letters before `letter`, which were given up; what came of them is closed.
    pub(crate) fn pass_to(&mut self, letter: u64) {
        self.letters = self.letters.max(letter);
        let next = self.letters;
        self.kept.retain(|(letter, _)| *letter >= next);
    }

    /// Takes one record from the socket; with [`Patience::Wait`], blocks until there is one or the peer is gone.
    pub(crate) fn listen(
        &mut self,
        socket: BorrowedFd<'_>,
        patience: Patience,
    ) -> io::Result<Heard> {
        let mut label = Label::zeroed();
        let bytes = bytemuck::bytes_of_mut(&mut label);
        let received = match socket::receive_into(socket, bytes, patience) {
            // Where the peer left something unread, the kernel says so once, ahead of what the peer had sent.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                socket::receive_into(socket, bytes, patience)
            }
            received => received,
        };
        let part = match received {
            Ok(Some(part)) => part,
            Ok(None) => return Ok(Heard::Closed),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Heard::Nothing),
            Err(error) if is_gone(&error) => return Ok(Heard::Closed),
            Err(error) => return Err(error),
        };
        // Anything but a whole label is a doorbell, or as good as one; what came with it is closed.
        if part.len == size_of::<Label>() && !part.is_cut && label.letter >= self.letters {
            let is_whole = !part.lost_descriptors && part.descriptors.len() as u64 == label.count;
            let descriptors = is_whole.then_some(part.descriptors);
            self.kept.push_back((label.letter, descriptors));
        }
        Ok(Heard::News)
    }

    /// Takes all records that are there, as far as they can be kept.
    pub(crate) fn listen_to_all(&mut self, socket: BorrowedFd<'_>) -> io::Result<Heard> {
        while self.kept.len() < KEPT_MAX {
            match self.listen(socket, Patience::Now)? {
                Heard::News => {}
                end => return Ok(end),
            }
        }
        Ok(Heard::News)
    }

    /// Takes the descriptors of the next letter, which has `count`; none where some were lost. `None` where they are not
    /// there, though the letter is: its sender is not sound.
    pub(crate) fn take(
        &mut self,
        socket: BorrowedFd<'_>,
        count: usize,
    ) -> io::Result<Option<Vec<OwnedFd>>> {
        let mut descriptors = Vec::new();
        let mut is_lost = false;
        while descriptors.len() < count && !is_lost {
            match self.kept.pop_front() {
                Some((letter, some)) if letter == self.letters => match some {
                    Some(some) => descriptors.extend(some),
                    None => is_lost = true,
                },
                Some(_) => return Ok(None),
                None if self.listen(socket, Patience::Now)? == Heard::News => {}
                None => return Ok(None),
            }
        }
        if is_lost {
            descriptors.clear();
            self.kept.retain(|(letter, _)| *letter != self.letters);
        }
        // What may still come of this letter is closed as it comes.
        self.letters += 1;
        Ok((descriptors.len() <= count).then_some(descriptors))
    }
}

/// Blocks until the socket takes another record, or the peer is gone.
pub(crate) fn wait_for_room(socket: BorrowedFd<'_>) -> io::Result<()> {
    poll::writable(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::descriptor::null_device;
    use crate::sys::socket::record_pair;

    fn descriptors(count: usize) -> Vec<Arc<OwnedFd>> {
        let device = Arc::new(null_device().unwrap());
        (0..count).map(|_| Arc::clone(&device)).collect()
    }

    fn send(outbox: &mut Outbox, socket: &OwnedFd, count: usize) {
        let mut sent = 0;
        assert!(
            outbox
                .send(socket.as_fd(), &descriptors(count), &mut sent)
                .unwrap()
        );
        assert_eq!(sent, count);
    }

    #[test]
    fn each_letter_gets_its_own_however_many() {
        let (here, there) = record_pair().unwrap();
        let (mut outbox, mut inbox) = (Outbox::default(), Inbox::default());
        let counts = [1, 300, DESCRIPTORS_MAX, 2];
        for count in counts {
            socket::ring(here.as_fd()).unwrap();
            send(&mut outbox, &here, count);
        }
        assert_eq!(inbox.listen_to_all(there.as_fd()).unwrap(), Heard::Nothing);
        for count in counts {
            let taken = inbox.take(there.as_fd(), count).unwrap().unwrap();
            assert_eq!(taken.len(), count);
        }
        assert!(inbox.take(there.as_fd(), 1).unwrap().is_none());
    }

    #[test]
    fn a_full_socket_takes_the_rest_later() {
        let (here, there) = record_pair().unwrap();
        let (mut outbox, mut inbox) = (Outbox::default(), Inbox::default());
        let mut letters = 0;
        let mut sent = 0;
        while outbox
            .send(here.as_fd(), &descriptors(2), &mut sent)
            .unwrap()
        {
            letters += 1;
            sent = 0;
        }
        assert!(letters > 10);
        for _ in 0..letters {
            assert_eq!(inbox.take(there.as_fd(), 2).unwrap().unwrap().len(), 2);
        }
        assert!(
            outbox
                .send(here.as_fd(), &descriptors(2), &mut sent)
                .unwrap()
        );
        assert_eq!(inbox.take(there.as_fd(), 2).unwrap().unwrap().len(), 2);
    }

    #[test]
    fn letters_whose_descriptors_were_lost_have_none_and_the_next_are_whole() {
        let (here, there) = record_pair().unwrap();
        let (mut outbox, mut inbox) = (Outbox::default(), Inbox::default());
        for count in [1, 1, 300, 2] {
            let wrong = Label {
                letter: outbox.letters,
                count: 9,
            };
            if count != 2 {
                let nothing = bytemuck::bytes_of(&wrong);
                socket::send(here.as_fd(), nothing, &[], Patience::Now).unwrap();
            }
            send(&mut outbox, &here, count);
        }
        inbox.listen_to_all(there.as_fd()).unwrap();
        for count in [1, 1, 300] {
            assert_eq!(inbox.take(there.as_fd(), count).unwrap().unwrap().len(), 0);
        }
        assert_eq!(inbox.take(there.as_fd(), 2).unwrap().unwrap().len(), 2);
    }

    #[test]
    fn records_that_make_no_sense_are_no_letters() {
        let (here, there) = record_pair().unwrap();
        let mut inbox = Inbox::default();
        let other = Label {
            letter: 7,
            count: 1,
        };
        let device = null_device().unwrap();
        for record in [
            b"x".as_slice(),
            &[1; 15],
            &[1; 40],
            bytemuck::bytes_of(&other),
        ] {
            let with = [device.as_fd()];
            socket::send(here.as_fd(), record, &with, Patience::Now).unwrap();
        }
        assert!(inbox.take(there.as_fd(), 1).unwrap().is_none());
        drop(here);
        assert_eq!(
            inbox.listen(there.as_fd(), Patience::Wait).unwrap(),
            Heard::Closed
        );
    }
}
