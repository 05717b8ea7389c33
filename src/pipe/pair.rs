//! `Pipe`: one end of a pipe, both halves of it.

use crate::error::{Result, SendError};
use crate::pipe::incoming::{Receiving, ReceivingParts};
use crate::pipe::inlet::Inlet;
use crate::pipe::outlet::{Outlet, Sending, SendingParts};
use crate::pipe::receiver::Receiver;
use crate::pipe::sender::Sender;
use crate::shm::{Lane, Lanes};
use crate::sys::limits;
use crate::sys::poll::Wake;
use crate::sys::shared::SharedFd;
use crate::sys::socket;
use crate::task::Portable;
use crate::wire::rights::Inbox;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// What a pipe holds in each direction, if nothing else is said. It takes up memory as it is used.
const CAPACITY: usize = 4 << 20;

/// One end of a pipe between two processes: sends `S`, receives `R`.
///
/// Messages are received in the order in which they were sent, each as a whole or not at all, whoever dies when. An end
/// lives in one process at a time: encoding it for an argument, a result, or a message through another pipe moves it there,
/// with what has not been received yet. Any number of threads of that process may use it, and one that waits to receive
/// does not stop another from sending. Where several processes are given the same value, as the workers of a pool are given what
/// is captured and one is given an item again after a crash, the first that decodes it has the end, and for the others it cannot
/// be decoded; a [`Queue`](crate::Queue) can be in all of them.
///
/// When an end is dropped, or the process in which it lives dies, the other end receives what was sent, and then
/// [`is_closed`](crate::Error::is_closed). Where this process forks, by itself or for a [`scope`](crate::scope), both have a copy of
/// the end from then on: the first of the two that uses it has it, and for the other each use is an error.
///
/// # Examples
///
/// ```
/// use multiprocess::{Pipe, Process};
///
/// let (here, there) = Pipe::<u64, String>::pair()?;
/// let child: Process = Process::spawn((there,), |(pipe,): (Pipe<String, u64>,)| {
///     for n in pipe.iter() {
///         pipe.send("ab".repeat(n as usize)).unwrap();
///     }
/// })?;
/// here.send(3)?;
/// assert_eq!(here.recv()?, "ababab");
/// drop(here);
/// child.join()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
pub struct Pipe<S, R = S> {
    sender: Sender<S>,
    receiver: Receiver<R>,
}

impl<S, R> Pipe<S, R> {
    /// Makes a pipe and returns its two ends. It holds 4 MiB in each direction, taken up as they are used.
    ///
    /// # Errors
    ///
    /// Where the system refuses memory or descriptors (it takes 7); the error names the limit.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiprocess::Pipe::<u8>::pair()?;
    /// here.send(1)?;
    /// assert_eq!(there.recv()?, 1);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn pair() -> Result<(Pipe<S, R>, Pipe<R, S>)> {
        Self::pair_with_capacity(CAPACITY)
    }

    /// As [`pair`](Pipe::pair), holding `capacity_bytes` in each direction, rounded up to whole pages. Larger messages pass
    /// as well, as they are received.
    ///
    /// # Errors
    ///
    /// As [`pair`](Pipe::pair), and where that is more than 1 GiB.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiprocess::Pipe::<u64>::pair_with_capacity(4096)?;
    /// let sent = (0..).take_while(|&n| here.try_send(n).is_ok()).count();
    /// assert!(sent < 4096 / 8);
    /// assert_eq!(there.iter().take(sent).count(), sent);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn pair_with_capacity(capacity_bytes: usize) -> Result<(Pipe<S, R>, Pipe<R, S>)> {
        let ends = Lanes::create(capacity_bytes).and_then(|lanes| ends_of(&lanes));
        ends.map_err(|error| limits::explained("cannot make a pipe", error))
    }

    /// Takes the end apart into the half that sends and the half that receives. Each may go to a process of its own.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiprocess::Pipe::<u8>::pair()?;
    /// let (sender, receiver) = here.split();
    /// sender.send(1)?;
    /// there.send(there.recv()? + 1)?;
    /// assert_eq!(receiver.recv()?, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn split(self) -> (Sender<S>, Receiver<R>) {
        (self.sender, self.receiver)
    }

    /// As [`Sender::send_bytes`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiprocess::Pipe::<()>::pair()?;
    /// here.send_bytes(b"as they are")?;
    /// assert_eq!(there.recv_bytes()?, b"as they are");
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn send_bytes(&self, bytes: &[u8]) -> Result<()> {
        self.sender.send_bytes(bytes)
    }

    /// As [`Receiver::recv_bytes`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiprocess::Pipe::<()>::pair()?;
    /// here.send_bytes(b"as they are")?;
    /// assert_eq!(there.recv_bytes()?, b"as they are");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv_bytes(&self) -> Result<Vec<u8>> {
        self.receiver.recv_bytes()
    }

    /// As [`Receiver::recv_bytes_into`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiprocess::Pipe::<()>::pair()?;
    /// here.send_bytes(b"four")?;
    /// assert!(there.recv_bytes_into(&mut [0; 3]).is_err());
    /// let mut buffer = [0; 8];
    /// let len = there.recv_bytes_into(&mut buffer)?;
    /// assert_eq!(&buffer[..len], b"four");
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn recv_bytes_into(&self, buffer: &mut [u8]) -> Result<usize> {
        self.receiver.recv_bytes_into(buffer)
    }

    /// As [`Receiver::poll`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (here, there) = multiprocess::Pipe::<u8>::pair()?;
    /// assert!(!there.poll(Duration::ZERO)?);
    /// here.send(1)?;
    /// assert!(there.poll(Duration::from_secs(60))?);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn poll(&self, limit: Duration) -> Result<bool> {
        self.receiver.poll(limit)
    }

    pub(crate) fn receiver(&self) -> &Receiver<R> {
        &self.receiver
    }
}

impl<S: Portable, R> Pipe<S, R> {
    /// As [`Sender::send`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiprocess::Pipe::<String>::pair()?;
    /// here.send("hello".into())?;
    /// assert_eq!(there.recv()?, "hello");
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn send(&self, value: S) -> Result<(), SendError<S>> {
        self.sender.send(value)
    }

    /// As [`Sender::try_send`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, _there) = multiprocess::Pipe::<u64>::pair()?;
    /// while here.try_send(1).is_ok() {}
    /// assert!(here.try_send(1).unwrap_err().is_full());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn try_send(&self, value: S) -> Result<(), SendError<S>> {
        self.sender.try_send(value)
    }

    /// As [`Sender::send_timeout`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (here, _there) = multiprocess::Pipe::<u64>::pair()?;
    /// while here.try_send(1).is_ok() {}
    /// assert!(here.send_timeout(1, Duration::from_millis(1)).unwrap_err().is_timeout());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn send_timeout(&self, value: S, limit: Duration) -> Result<(), SendError<S>> {
        self.sender.send_timeout(value, limit)
    }
}

impl<S, R: Portable> Pipe<S, R> {
    /// As [`Receiver::recv`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiprocess::Pipe::<u8>::pair()?;
    /// here.send(1)?;
    /// drop(here);
    /// assert_eq!(there.recv()?, 1);
    /// assert!(there.recv().unwrap_err().is_closed());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn recv(&self) -> Result<R> {
        self.receiver.recv()
    }

    /// As [`Receiver::try_recv`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Examples
    ///
    /// ```
    /// let (_here, there) = multiprocess::Pipe::<u8>::pair()?;
    /// assert!(there.try_recv().unwrap_err().is_empty());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn try_recv(&self) -> Result<R> {
        self.receiver.try_recv()
    }

    /// As [`Receiver::recv_timeout`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let (_here, there) = multiprocess::Pipe::<u8>::pair()?;
    /// assert!(there.recv_timeout(Duration::from_millis(1)).unwrap_err().is_timeout());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn recv_timeout(&self, limit: Duration) -> Result<R> {
        self.receiver.recv_timeout(limit)
    }

    /// As [`Receiver::iter`].
    ///
    /// # Examples
    ///
    /// ```
    /// let (here, there) = multiprocess::Pipe::<u8>::pair()?;
    /// here.send(1)?;
    /// here.send(2)?;
    /// drop(here);
    /// assert_eq!(there.iter().collect::<Vec<_>>(), [1, 2]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn iter(&self) -> impl Iterator<Item = R> + '_ {
        self.receiver.iter()
    }
}

/// Makes an end at each side of fresh lanes.
fn ends_of<S, R>(lanes: &Lanes) -> io::Result<(Pipe<S, R>, Pipe<R, S>)> {
    let memory = SharedFd::of(lanes.memory()?);
    let (forth, forth_reader) = socket::record_pair()?;
    let (back, back_reader) = socket::record_pair()?;
    let side = |lane: Lane, writer: OwnedFd, reader: OwnedFd| -> io::Result<(Outlet, Inlet)> {
        let event = SharedFd::of(Wake::new()?.into());
        let sending = SendingParts {
            memory: Arc::clone(&memory),
            socket: SharedFd::of(writer),
            event: Arc::clone(&event),
            lane,
            tail: 0,
            sleep: 0,
            claim: 0,
            letters: 0,
            owes_cut: false,
        };
        let receiving = ReceivingParts {
            memory: Arc::clone(&memory),
            socket: SharedFd::of(reader),
            event,
            lane,
            head: 0,
            sleep: 0,
            claim: 0,
            long: None,
            owes_bell: false,
        };
        Ok((
            Outlet::new(Sending::new(lanes, sending)?),
            Inlet::new(Receiving::new(lanes, receiving)?, Inbox::default()),
        ))
    };
    let (here_outlet, there_inlet) = side(Lane::Forth, forth, forth_reader)?;
    let (there_outlet, here_inlet) = side(Lane::Back, back, back_reader)?;
    let here = Pipe {
        sender: Sender::new(here_outlet),
        receiver: Receiver::new(here_inlet),
    };
    let there = Pipe {
        sender: Sender::new(there_outlet),
        receiver: Receiver::new(there_inlet),
    };
    Ok((here, there))
}

impl<S, R> AsFd for Pipe<S, R> {
    /// As that of [`Receiver`].
    ///
    /// # Panics
    ///
    /// As there.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

impl<S, R> AsRawFd for Pipe<S, R> {
    /// As [`as_fd`](Pipe::as_fd).
    fn as_raw_fd(&self) -> RawFd {
        self.receiver.as_raw_fd()
    }
}

impl<S, R> fmt::Debug for Pipe<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipe::frame::Head;
    use crate::sys::descriptor::null_device;
    use crate::sys::memory::SealedMemory;
    use std::sync::atomic::Ordering;
    use std::thread;

    const PAGE: usize = 4096;
    const SHORT: Duration = Duration::from_millis(1);

    /// Numbers that look random.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }
    }

    /// Does what can be done with an end, until the other is gone or `rounds` are over; returns how much of it failed.
    fn use_in_every_way(pipe: &Pipe<Vec<u64>>, rounds: u64) -> u64 {
        let mut failed = 0;
        for round in 0..rounds {
            let message = vec![round; [1, 0, 60, 300, 1_500][round as usize % 5]];
            let bytes = [round as u8; 100];
            failed += u64::from(pipe.send_timeout(message.clone(), SHORT).is_err());
            failed += u64::from(pipe.try_send(message).is_err());
            failed += u64::from(pipe.try_recv().is_err());
            failed += u64::from(pipe.recv_timeout(SHORT).is_err());
            if pipe.poll(Duration::ZERO).is_ok_and(|is_there| is_there) && round % 2 == 0 {
                failed += u64::from(pipe.recv_bytes_into(&mut bytes.clone()).is_err());
            }
        }
        failed
    }

    #[test]
    fn words_and_bytes_that_are_overwritten_under_use_are_errors_and_nothing_worse() {
        let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 | 1;
        eprintln!("seed {seed}");
        let mut random = Random(seed);
        let mut failed = 0;
        for _ in 0..30 {
            let lanes = Lanes::create(PAGE).unwrap();
            let memory = SealedMemory::adopt(lanes.memory().unwrap()).unwrap();
            let all = memory.map(0, memory.len()).unwrap();
            let (here, there) = ends_of::<Vec<u64>, Vec<u64>>(&lanes).unwrap();
            failed += thread::scope(|scope| {
                let ends = [here, there];
                let users = ends.map(|end| scope.spawn(move || use_in_every_way(&end, 40)));
                for _ in 0..400 {
                    // Half of it hits words that mean something.
                    let word = match random.next() % 2 {
                        0 => random.next() as usize % (memory.len() / 8) * 8,
                        _ => {
                            let page = 1 + random.next() as usize % (memory.len() / PAGE - 1);
                            let words = [128, 256, 384, 392, 400, 408];
                            page * PAGE + words[random.next() as usize % words.len()]
                        }
                    };
                    let value = match random.next() % 4 {
                        0 => random.next(),
                        1 => random.next() % 10_000,
                        2 => u64::MAX - random.next() % 10_000,
                        _ => random.next() << 32,
                    };
                    all.word(word).store(value, Ordering::Relaxed);
                    thread::yield_now();
                }
                users.map(|user| user.join().unwrap()).iter().sum::<u64>()
            });
        }
        assert!(failed > 0, "nothing was hit");
    }

    #[test]
    fn a_message_is_not_lost_when_its_sender_cannot_be_rung_at() {
        let lanes = Lanes::create(PAGE).unwrap();
        let (mut ring, mut sleeper) = lanes.writer(Lane::Forth, 0, 0, 0).unwrap();
        for byte in 0..2 {
            let bytes = [byte; 2000];
            assert!(Head::plain(2000).put(&mut ring, &bytes).unwrap());
        }
        sleeper.announce(false, 1000);
        // No bell can be sent into this.
        let device = SharedFd::of(null_device().unwrap());
        let parts = ReceivingParts {
            memory: SharedFd::of(lanes.memory().unwrap()),
            socket: Arc::clone(&device),
            event: SharedFd::of(Wake::new().unwrap().into()),
            lane: Lane::Forth,
            head: 0,
            sleep: 0,
            claim: 0,
            long: None,
            owes_bell: false,
        };
        let mut receiving = Receiving::new(&lanes, parts).unwrap();
        for byte in 0..2 {
            let mut taken = [9; 2000];
            let front = receiving.front().unwrap();
            assert_eq!(receiving.take_into(front, &mut taken).unwrap(), 2000);
            assert_eq!(taken, [byte; 2000]);
        }
        let refused = receiving.ring_if_owed();
        assert!(refused.is_err(), "the sender sleeps on, and nobody is told");
    }

    #[test]
    fn ends_are_shared_and_handed_over_by_threads_whatever_they_carry() {
        fn both<T: Send + Sync>() {}
        both::<Pipe<std::rc::Rc<u8>>>();
        both::<Sender<*const u8>>();
        both::<Receiver<std::cell::Cell<u8>>>();
    }
}
