//! The receiving side of a lane.
//!
//! Two locks. `state` is held for as long as it takes to copy a message out, and never while anything is waited for.
//! `turn` is held by the one thread that waits, or takes a message with descriptors: **only it reads the socket**, so that
//! nobody takes a doorbell that was meant for another. Others may take messages from under the waiting one; it finds nothing
//! then, and waits on. A thread that does not want to wait and finds `turn` taken has nothing to do with the socket: what it
//! would find there is meant for the one who waits.
//!
//! If this process dies at any point, the other side's socket closes. What it had shown, and was not taken, is gone with
//! both sides.

use crate::deadline::Deadline;
use crate::pipe::failure::Failure;
use crate::pipe::incoming::{Front, Receiving};
use crate::pipe::limit::Limit;
use crate::pipe::pace;
use crate::pipe::watch::Watched;
use crate::shm::{Corrupt, LONGEST_OF_SERVER, Spin};
use crate::sys::poll;
use crate::sys::shared::SharedFd;
use crate::sys::socket::Patience;
use crate::sys::step::step;
use crate::wire::rights::{Heard, Inbox};
use parking_lot::Mutex;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// How often it is looked once more whether something came while the descriptor was being cleared.
const ROUNDS_TO_ARM: usize = 16;

/// The receiving side, for any number of threads.
#[derive(Debug)]
pub(crate) struct Inlet {
    turn: Mutex<Turn>,
    /// `None` when it has moved away.
    state: Mutex<Option<Receiving>>,
    watch: OnceLock<Watched>,
    /// Whether `watch` may say something else than it should, until somebody who has `turn` has looked.
    is_unsettled: AtomicBool,
}

#[derive(Debug)]
struct Turn {
    spin: Spin,
    inbox: Inbox,
}

impl Inlet {
    pub(crate) fn new(receiving: Receiving, inbox: Inbox) -> Inlet {
        Inlet {
            turn: Mutex::new(Turn {
                spin: Spin::new(LONGEST_OF_SERVER),
                inbox,
            }),
            state: Mutex::new(Some(receiving)),
            watch: OnceLock::new(),
            is_unsettled: AtomicBool::new(false),
        }
    }

    /// Waits for a message and runs `act` once, which may take it. Returns the descriptors of what it took as well.
    #[inline]
    pub(crate) fn receive<R>(
        &self,
        limit: Limit,
        mut act: impl FnMut(&mut Receiving, Front) -> Result<R, Failure>,
    ) -> Result<(R, Vec<Arc<SharedFd>>), Failure> {
        let result = match self.receive_at_once(limit, &mut act) {
            Err(Failure::NotNow) => {
                let result = self.receive_in_turn(limit, &mut act);
                // After the turn is over, and before `watch` is looked at. Pairs with the fence in `settle`.
                fence(Ordering::SeqCst);
                result
            }
            result => result.map(|value| (value, Vec::new())),
        };
        if self.watch.get().is_some() {
            self.settle();
        }
        result
    }

    #[inline]
    fn receive_at_once<R>(
        &self,
        limit: Limit,
        act: &mut impl FnMut(&mut Receiving, Front) -> Result<R, Failure>,
    ) -> Result<R, Failure> {
        let mut state = self.state.lock();
        let mut receiving = here(&mut state)?;
        let gives_head_start = limit.deadline().is_some() && receiving.wants_head_start();
        if gives_head_start {
            drop(state);
            pace::give_head_start();
            state = self.state.lock();
            receiving = here(&mut state)?;
        }
        let front = receiving.front()?;
        if gives_head_start && matches!(front, Front::Nothing) {
            receiving.pace.note_lost();
        }
        if matches!(front, Front::Nothing) || receiving.has_descriptors(front) {
            return Err(Failure::NotNow);
        }
        act(receiving, front)
    }

    #[inline(never)]
    fn receive_in_turn<R>(
        &self,
        limit: Limit,
        act: &mut impl FnMut(&mut Receiving, Front) -> Result<R, Failure>,
    ) -> Result<(R, Vec<Arc<SharedFd>>), Failure> {
        let out_of_time = || match limit {
            Limit::Now => Failure::NotNow,
            Limit::Until(_) => Failure::TimedOut,
        };
        let mut turn = limit.lock(&self.turn).ok_or_else(out_of_time)?;
        let mut has_waited = false;
        loop {
            {
                let mut state = self.state.lock();
                let receiving = here(&mut state)?;
                let mut front = turn.front(receiving)?;
                if matches!(front, Front::Nothing) && limit.deadline().is_none() {
                    if !receiving.is_closed()? {
                        return Err(Failure::NotNow);
                    }
                    // It may have shown something before it went.
                    front = turn.front(receiving)?;
                    if matches!(front, Front::Nothing) {
                        return Err(Failure::Closed);
                    }
                }
                if !matches!(front, Front::Nothing) {
                    let value = act(receiving, front)?;
                    step!("pipe::recv::taken_in_turn");
                    let letter = receiving.take_letter();
                    let descriptors = turn.inbox_of(receiving, letter)?;
                    step!("pipe::recv::has_descriptors");
                    return Ok((value, descriptors));
                }
            }
            let deadline = limit.deadline().ok_or(Failure::NotNow)?;
            // What came may be a part of a message, or may have been taken by another thread.
            if has_waited && deadline.has_passed() {
                return Err(Failure::TimedOut);
            }
            has_waited = true;
            self.wait(&mut turn, deadline)?;
        }
    }

    /// Waits until there is something in the ring, or perhaps is.
    fn wait(&self, turn: &mut Turn, deadline: Deadline) -> Result<(), Failure> {
        let may_spin = !here(&mut self.state.lock())?.shares_processor();
        let has_data = || self.state.lock().as_mut().is_none_or(Receiving::has_data);
        if may_spin && turn.spin.until(has_data) {
            return Ok(());
        }
        let start = Instant::now();
        let (socket, event) = {
            let mut state = self.state.lock();
            let receiving = here(&mut state)?;
            receiving.ring_if_owed()?;
            receiving.peer.sleeper.announce(true, 0);
            step!("pipe::recv::says_asleep");
            if receiving.has_data() {
                receiving.peer.sleeper.awake();
                return Ok(());
            }
            let peer = &receiving.peer;
            (Arc::clone(peer.socket()), Arc::clone(peer.event()))
        };
        let heard = turn.hear(&socket, &event, deadline);
        step!("pipe::recv::woken");
        let mut state = self.state.lock();
        let receiving = here(&mut state)?;
        receiving.peer.sleeper.awake();
        if may_spin {
            turn.spin.learn(start.elapsed());
        }
        match heard? {
            Heard::News => Ok(()),
            // What it showed before it went is still to be had.
            Heard::Closed if receiving.has_data() => Ok(()),
            Heard::Closed => Err(Failure::Closed),
            Heard::Nothing if deadline.has_passed() => Err(Failure::TimedOut),
            Heard::Nothing => Ok(()),
        }
    }

    /// Readable when there is something to receive, or the other side is gone.
    pub(crate) fn descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        if self.watch.get().is_none() {
            let state = self.state.lock();
            let watched = match &*state {
                Some(receiving) => {
                    let peer = &receiving.peer;
                    Watched::new(Some((peer.socket(), peer.event())))?
                }
                None => Watched::new(None)?,
            };
            // Another thread may have been quicker; then this one's is not needed.
            let _not_needed = self.watch.set(watched);
        }
        self.settle();
        match self.watch.get() {
            Some(watched) => Ok(watched.descriptor()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Makes the descriptor say what is so; see `watch`. Whoever has `turn` looks after it once more when it is over.
    fn settle(&self) {
        self.is_unsettled.store(true, Ordering::SeqCst);
        // Pairs with the fence in `receive`: either we get the turn, or its holder sees that it has to settle.
        fence(Ordering::SeqCst);
        while self.is_unsettled.load(Ordering::SeqCst) {
            let Some(mut turn) = self.turn.try_lock() else {
                return;
            };
            self.is_unsettled.store(false, Ordering::SeqCst);
            self.arm(&mut turn);
        }
    }

    fn arm(&self, turn: &mut Turn) {
        let Some(watched) = self.watch.get() else {
            return;
        };
        let mut state = self.state.lock();
        let Ok(receiving) = here(&mut state) else {
            return;
        };
        let (socket, event) = {
            let peer = &receiving.peer;
            (Arc::clone(peer.socket()), Arc::clone(peer.event()))
        };
        let mut is_armed = false;
        // A peer that goes on sending parts of a long message must not keep us here.
        for _ in 0..ROUNDS_TO_ARM {
            let had_data = receiving.has_data();
            if !matches!(turn.front(receiving), Ok(Front::Nothing)) {
                return watched.set(&event);
            }
            if is_armed && !had_data {
                return;
            }
            receiving.peer.sleeper.announce(true, 0);
            step!("pipe::watch::armed");
            // What is cleared here belongs to earlier sleeps, or to what the next round finds in the ring. A sender that was woken
            // for an earlier sleep may still be about to ring: then this is done again by who looks and finds nothing.
            watched.clear(&event);
            if turn.inbox.listen_to_all(socket.as_fd()).is_err() {
                return watched.set(&event);
            }
            is_armed = true;
        }
        // It may be readable with nothing to receive: whoever looks has this done again.
        watched.set(&event);
    }

    /// Takes the side out, to send it elsewhere.
    pub(crate) fn depart(&self) -> Result<(Receiving, Inbox), Failure> {
        let mut turn = self.turn.try_lock().ok_or(Failure::InUse)?;
        let mut receiving = {
            let mut state = self.state.lock();
            here(&mut state)?;
            state.take().ok_or(Failure::Moved)?
        };
        step!("pipe::travel::inlet_out");
        if let Some(watched) = self.watch.get() {
            watched.leave(receiving.peer.socket(), receiving.peer.event());
            receiving.peer.sleeper.awake();
        }
        turn.inbox.pass_to(receiving.next_letter());
        Ok((receiving, std::mem::take(&mut turn.inbox)))
    }

    /// Puts a side back that was not sent after all.
    pub(crate) fn come_back(&self, mut receiving: Receiving, inbox: Inbox) {
        receiving.peer.sleeper.come_back();
        {
            let mut turn = self.turn.lock();
            if let Some(watched) = self.watch.get() {
                watched.come_back(receiving.peer.socket(), receiving.peer.event());
            }
            turn.inbox = inbox;
            *self.state.lock() = Some(receiving);
        }
        if self.watch.get().is_some() {
            self.settle();
        }
    }
}

/// The side, if it is here: it has not moved, and no copy that a fork made has been used since.
#[inline]
fn here(state: &mut Option<Receiving>) -> Result<&mut Receiving, Failure> {
    let receiving = state.as_mut().ok_or(Failure::Moved)?;
    if receiving.peer.sleeper.is_ours() {
        Ok(receiving)
    } else {
        Err(Failure::Forked)
    }
}

impl Turn {
    /// As that of the receiving side, and closes what came of a letter that was given up.
    fn front(&mut self, receiving: &mut Receiving) -> Result<Front, Failure> {
        let front = receiving.front()?;
        self.inbox.pass_to(receiving.next_letter());
        Ok(front)
    }

    fn hear(&mut self, socket: &OwnedFd, event: &OwnedFd, deadline: Deadline) -> io::Result<Heard> {
        let (socket, event) = (socket.as_fd(), event.as_fd());
        let [rung, has_news] = poll::readable([event, socket], deadline)?;
        if rung {
            poll::clear_event(event);
        }
        if has_news {
            return self.inbox.listen(socket, Patience::Now);
        }
        Ok(if rung { Heard::News } else { Heard::Nothing })
    }

    /// The descriptors of a letter that was taken.
    fn inbox_of(
        &mut self,
        receiving: &Receiving,
        letter: Option<(u64, u64)>,
    ) -> Result<Vec<Arc<SharedFd>>, Failure> {
        let Some((letter, count)) = letter else {
            return Ok(Vec::new());
        };
        let count = usize::try_from(count).map_err(|_| Corrupt)?;
        self.inbox.pass_to(letter);
        let socket = receiving.peer.socket();
        match self.inbox.take(socket.as_fd(), count)? {
            Some(descriptors) if descriptors.len() == count => Ok(descriptors),
            Some(_) => Err(Failure::LostDescriptors),
            None => Err(Corrupt.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe::frame::{Head, Opening, Part};
    use crate::pipe::incoming::ReceivingParts;
    use crate::shm::{Lane, Lanes};
    use crate::sys::poll::Wake;
    use crate::sys::socket::record_pair;
    use crate::wire::rights::Outbox;
    use std::net::UdpSocket;
    use std::time::Duration;

    const PAGE: usize = 4096;

    /// The receiving side of fresh lanes.
    fn receiving(lanes: &Lanes, socket: OwnedFd) -> Receiving {
        let parts = ReceivingParts {
            memory: SharedFd::of(lanes.memory().unwrap()),
            socket: SharedFd::of(socket),
            event: SharedFd::of(Wake::new().unwrap().into()),
            lane: Lane::Forth,
            head: 0,
            sleep: 0,
            claim: 0,
            long: None,
            owes_bell: false,
        };
        Receiving::new(lanes, parts).unwrap()
    }

    /// The receiving side of a full lane whose sender sleeps for room, and whose bell has nowhere to go until `connect` says
    /// where.
    struct Unrung {
        lanes: Lanes,
        receiving: Receiving,
        bell: UdpSocket,
        sender: UdpSocket,
    }

    impl Unrung {
        fn new() -> Unrung {
            let lanes = Lanes::create(PAGE).unwrap();
            let (mut ring, mut sleeper) = lanes.writer(Lane::Forth, 0, 0, 0).unwrap();
            for byte in 0..2 {
                assert!(Head::plain(2000).put(&mut ring, &[byte; 2000]).unwrap());
            }
            sleeper.announce(false, 1000);
            let [bell, sender] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
            let receiving = receiving(&lanes, bell.try_clone().unwrap().into());
            Unrung {
                lanes,
                receiving,
                bell,
                sender,
            }
        }

        fn connect(bell: &UdpSocket, sender: &UdpSocket) {
            bell.connect(sender.local_addr().unwrap()).unwrap();
        }

        fn is_rung(sender: &UdpSocket) -> bool {
            // It is sent already, and the kernel may be late to hand it over.
            let limit = Some(Duration::from_secs(60));
            sender.set_read_timeout(limit).unwrap();
            sender.recv(&mut [0; 10]).is_ok()
        }
    }

    fn take_one(inlet: &Inlet) -> Result<usize, Failure> {
        let take = |receiving: &mut Receiving, front| receiving.take_into(front, &mut [0; 2000]);
        inlet.receive(Limit::Now, take).map(|(length, _)| length)
    }

    fn is_readable(descriptor: BorrowedFd<'_>) -> bool {
        poll::readable([descriptor], Deadline::after(Duration::ZERO)).unwrap() == [true]
    }

    #[test]
    fn what_came_of_a_letter_that_was_given_up_is_closed_with_the_cut() {
        let lanes = Lanes::create(PAGE).unwrap();
        let (mut ring, _) = lanes.writer(Lane::Forth, 0, 0, 0).unwrap();
        let (there, here) = record_pair().unwrap();
        let (sent, left) = record_pair().unwrap();
        let frame = |part, opening| Head {
            part,
            length: 8,
            opening,
        };
        let opening = Opening {
            total: 100,
            letter: 0,
            descriptors: 2,
        };
        let first = frame(Part::First, Some(opening));
        assert!(first.put(&mut ring, &[0; 8]).unwrap());
        let some = [SharedFd::of(sent)];
        let mut outbox = Outbox::default();
        assert!(outbox.send(there.as_fd(), &some, &mut 0).unwrap());
        drop(some);
        let inlet = Inlet::new(receiving(&lanes, here), Inbox::default());
        // It takes in what there is.
        let watched = inlet.descriptor().unwrap();
        assert!(!is_readable(watched) && !poll::is_hung_up(left.as_fd()).unwrap());
        assert!(frame(Part::Cut, None).put(&mut ring, &[0; 8]).unwrap());
        assert!(matches!(take_one(&inlet), Err(Failure::NotNow)));
        assert!(poll::is_hung_up(left.as_fd()).unwrap());
    }

    #[test]
    fn who_finds_nothing_has_rung_at_a_sender_that_sleeps_for_room() {
        let Unrung {
            receiving,
            bell,
            sender,
            ..
        } = Unrung::new();
        let inlet = Inlet::new(receiving, Inbox::default());
        for _ in 0..2 {
            assert_eq!(take_one(&inlet).unwrap(), 2000);
        }
        assert!(matches!(take_one(&inlet), Err(Failure::Io(_))));
        Unrung::connect(&bell, &sender);
        assert!(matches!(take_one(&inlet), Err(Failure::NotNow)));
        assert!(Unrung::is_rung(&sender));
    }

    #[test]
    fn who_watches_is_told_that_a_sender_that_sleeps_cannot_be_rung_at() {
        let Unrung {
            receiving,
            bell,
            sender,
            ..
        } = Unrung::new();
        let event = Arc::clone(receiving.peer.event());
        let inlet = Inlet::new(receiving, Inbox::default());
        for _ in 0..2 {
            assert_eq!(take_one(&inlet).unwrap(), 2000);
        }
        assert!(is_readable(event.as_fd()), "another thread may sleep");
        let watched = inlet.descriptor().unwrap();
        assert!(is_readable(watched));
        Unrung::connect(&bell, &sender);
        assert!(matches!(take_one(&inlet), Err(Failure::NotNow)));
        assert!(Unrung::is_rung(&sender) && !is_readable(watched));
    }

    #[test]
    fn a_bell_that_is_owed_is_sent_where_the_end_has_moved_to() {
        let Unrung {
            lanes,
            mut receiving,
            bell,
            sender,
        } = Unrung::new();
        for _ in 0..2 {
            let front = receiving.front().unwrap();
            receiving.take_into(front, &mut [0; 2000]).unwrap();
        }
        let mut receiving = Receiving::new(&lanes, receiving.parts()).unwrap();
        Unrung::connect(&bell, &sender);
        assert!(matches!(receiving.front(), Ok(Front::Nothing)));
        assert!(Unrung::is_rung(&sender));
    }
}
