//! Descriptors beside the messages of a ring: they travel over its socket, in records of their own.
//!
//! A message that has descriptors is a *letter*; letters are counted from 0 on each side alike. The sender puts a letter's
//! descriptors into the socket, in records that carry its number, before it shows the letter in the ring, or the last part of it
//! where it has several. So whoever finds a whole letter in the ring finds its descriptors in the socket, or the sender is not
//! sound. Between these records stand doorbells, of one byte.
//!
//! Many values of a letter may hold the same descriptor. A record has each once, and says which one stands at which place, so
//! that neither side needs more of them than there are.
//!
//! | | then |
//! |---|---|
//! | the socket is full | the letter waits: its receiver takes records whenever it takes a letter or wakes up |
//! | the user has too many descriptors on their way (`ETOOMANYREFS`) | that letter has none, as where they were lost |
//! | the receiver may open no more descriptors | that letter has none, and a handle in it is an error; the next letters are whole |
//! | a letter is never taken | its descriptors are closed with the socket, or with what is kept here |
//! | the sender gives it up | its number is passed over, and what came of it is closed as that is known |
//! | the sender dies before the letter is shown | they are kept till the link is closed |

use crate::sys::poll;
use crate::sys::shared::SharedFd;
use crate::sys::socket::{self, DESCRIPTORS_MAX, Patience, TOO_MANY_ON_THEIR_WAY, is_gone};
use crate::sys::step::step;
use bytemuck::{Pod, Zeroable};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// How many records are kept for letters that have not been taken yet, before the rest is left in the socket.
const KEPT_MAX: usize = 1024;

/// How many places of a letter one record fills, with no more different descriptors than the kernel carries with it.
const PLACES_MAX: usize = 4096;

/// How many records are taken before the letter's own while it is looked for: more than any socket holds.
const BESIDE_MAX: usize = 1 << 14;

/// What a record with descriptors begins with. Behind it stands a byte for each place: which of them is there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
struct Label {
    letter: u64,
    count: u64,
}

const LABEL: usize = size_of::<Label>();

/// The first descriptors of a letter that fit in one record: each once, and which of them stands at which place.
fn next_record(descriptors: &[Arc<SharedFd>]) -> (Vec<BorrowedFd<'_>>, Vec<u8>) {
    let mut different: Vec<&Arc<SharedFd>> = Vec::new();
    let mut places = Vec::new();
    for one in descriptors.iter().take(PLACES_MAX) {
        let known = different.iter().rposition(|known| Arc::ptr_eq(known, one));
        let place = known.unwrap_or(different.len());
        if place == DESCRIPTORS_MAX {
            break;
        }
        if known.is_none() {
            different.push(one);
        }
        places.push(place as u8);
    }
    (
        different.into_iter().map(|one| one.as_fd()).collect(),
        places,
    )
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

    /// Gives up the letter of this number, of which some descriptors may have been sent, or all: the number is not used again.
    pub(crate) fn abandon(&mut self, letter: u64) {
        if self.letters == letter {
            self.letters = letter.wrapping_add(1);
        }
    }

    /// Sends what is left of a letter's descriptors, from `sent` on, which it counts; returns whether that was all of them.
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        descriptors: &[Arc<SharedFd>],
        sent: &mut usize,
    ) -> io::Result<bool> {
        while *sent < descriptors.len() {
            let (different, places) = next_record(&descriptors[*sent..]);
            let label = Label {
                letter: self.letters,
                count: places.len() as u64,
            };
            let mut record = bytemuck::bytes_of(&label).to_vec();
            record.extend_from_slice(&places);
            let mut result = socket::send(socket, &record, &different, Patience::Now);
            if result
                .as_ref()
                .is_err_and(|error| error.raw_os_error() == Some(TOO_MANY_ON_THEIR_WAY))
            {
                result = socket::send(socket, &record, &[], Patience::Now);
            }
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                // What the other side has shown is still to be had; whoever waits for it learns that it is gone.
                Err(error) if is_gone(&error) => {}
                result => result?,
            }
            step!("rights::sent_one");
            *sent += places.len();
        }
        let one = u64::from(!descriptors.is_empty());
        self.letters = self.letters.wrapping_add(one);
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
pub(crate) type Kept<D = Arc<SharedFd>> = (u64, Option<Vec<D>>);

/// The receiving side's count, and descriptors whose letters have not been taken yet.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    letters: u64,
    kept: VecDeque<Kept>,
    record: Vec<u8>,
}

impl Inbox {
    /// The side that has taken so many letters, and keeps these.
    pub(crate) fn resume(letters: u64, kept: Vec<Kept>) -> Inbox {
        Inbox {
            letters,
            kept: kept.into(),
            record: Vec::new(),
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
        self.record.resize(LABEL + PLACES_MAX, 0);
        let received = match socket::receive_into(socket, &mut self.record, patience) {
            // Where the peer left something unread, the kernel says so once, ahead of what the peer had sent.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                socket::receive_into(socket, &mut self.record, patience)
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
        // Anything but a whole label with its places is a doorbell, or as good as one; what came with it is closed.
        let Some((label, places)) = self.record[..part.len].split_at_checked(LABEL) else {
            return Ok(Heard::News);
        };
        let label: Label = bytemuck::pod_read_unaligned(label);
        let is_label = !part.is_cut && !places.is_empty() && places.len() as u64 == label.count;
        if is_label && label.letter >= self.letters {
            let different: Vec<Arc<SharedFd>> =
                part.descriptors.into_iter().map(SharedFd::of).collect();
            let descriptors = places
                .iter()
                .map(|&place| different.get(usize::from(place)).cloned());
            let descriptors = (!part.lost_descriptors)
                .then(|| descriptors.collect())
                .flatten();
            self.kept.push_back((label.letter, descriptors));
            step!("rights::kept_one");
        }
        Ok(Heard::News)
    }

    /// Takes the records that are there, as far as they can be kept, and no more of them at a time than that: a peer that goes
    /// on ringing must not keep us here.
    pub(crate) fn listen_to_all(&mut self, socket: BorrowedFd<'_>) -> io::Result<Heard> {
        for _ in self.kept.len()..KEPT_MAX {
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
    ) -> io::Result<Option<Vec<Arc<SharedFd>>>> {
        let mut descriptors = Vec::new();
        let mut is_lost = false;
        let mut beside = 0..BESIDE_MAX;
        while descriptors.len() < count && !is_lost {
            match self.kept.pop_front() {
                Some((letter, some)) if letter == self.letters => match some {
                    Some(some) => descriptors.extend(some),
                    None => is_lost = true,
                },
                Some(_) => return Ok(None),
                None if beside.next().is_some()
                    && self.listen(socket, Patience::Now)? == Heard::News => {}
                None => return Ok(None),
            }
        }
        if is_lost {
            descriptors.clear();
            self.kept.retain(|(letter, _)| *letter != self.letters);
        }
        // What may still come of this letter is closed as it comes.
        self.letters = self.letters.wrapping_add(1);
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
    use std::os::fd::OwnedFd;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn descriptors(count: usize) -> Vec<Arc<SharedFd>> {
        let device = null_device().unwrap();
        let another = |_| SharedFd::of(device.try_clone().unwrap());
        (0..count).map(another).collect()
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
    fn what_many_values_share_travels_once() {
        let (here, there) = record_pair().unwrap();
        let (mut outbox, mut inbox) = (Outbox::default(), Inbox::default());
        let some = descriptors(3);
        let count = 2 * PLACES_MAX + 5;
        let all: Vec<_> = (0..count).map(|at| Arc::clone(&some[at % 3])).collect();
        assert!(outbox.send(here.as_fd(), &all, &mut 0).unwrap());
        let taken = inbox.take(there.as_fd(), count).unwrap().unwrap();
        assert_eq!(taken.len(), count);
        for record in taken.chunks(PLACES_MAX) {
            for (at, one) in record.iter().enumerate().skip(3) {
                assert!(Arc::ptr_eq(one, &record[at - 3]) && !Arc::ptr_eq(one, &record[at - 1]));
            }
        }
    }

    #[test]
    fn a_peer_that_goes_on_ringing_is_not_listened_to_for_ever() {
        let (here, there) = record_pair().unwrap();
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        // A full socket is as good as rung at.
                        socket::ring(here.as_fd()).unwrap();
                    }
                });
            }
            let mut inbox = Inbox::default();
            for _ in 0..3 {
                inbox.listen_to_all(there.as_fd()).unwrap();
                assert!(inbox.take(there.as_fd(), 1).unwrap().is_none());
            }
            is_over.store(true, Ordering::Relaxed);
        });
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
            let label = Label {
                letter: outbox.letters,
                count: 1,
            };
            let mut without = bytemuck::bytes_of(&label).to_vec();
            without.push(0);
            if count != 2 {
                socket::send(here.as_fd(), &without, &[], Patience::Now).unwrap();
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
