//! A queue of bytes and descriptors between any number of processes.
//!
//! There are two sides, a monitor each: one process at a time puts, and one gets. What they share is two counts (see
//! `ledger`), and each step below leaves the queue sound if it is the last one of its process.
//!
//! | putting, inside the put side | died here |
//! |---|---|
//! | waits until there is room | the kernel wakes another |
//! | writes the message behind the last one; sends its descriptors | it is not there: the next one writes over it |
//! | counts the event up, if the queue is watched | the event says one too many: see `settle` |
//! | with the get side's word pending: publishes the message | it is there; the kernel wakes one who waits for it |
//! | wakes one who waits for it; leaves | likewise |
//!
//! | getting, inside the get side | died here |
//! |---|---|
//! | waits until there is one | the kernel wakes another |
//! | copies it out; peeks at its descriptors | it is there: another one gets it |
//! | with the put side's word pending: takes it | it is gone, with the process that had it |
//! | wakes one who waits for room; takes its records, and one off the event; leaves | the next one passes over them |
//!
//! **Who waits is woken.** A side waits in its own monitor, with a condition that the other makes true, and announces; see
//! `sys::robust`. Closing is a condition of both, and who is woken by it passes it on when it leaves.
//!
//! **The order of the locks**: from the put side the get side may be entered and waited for; from the get side the put side
//! is entered only if it is free.
//!
//! **A queue that is watched** keeps its event's count at its length or above it. The first one who watches says so, then
//! adds the length it sees, and one for each side, where someone may be who did not know yet. What is too much is
//! taken off by who finds the queue empty and the event readable, inside both sides.

use crate::deadline::Deadline;
use crate::queue::ledger::{Corrupt, Ledger};
use crate::queue::letters::{LETTER_MAX, Letters, Missing, RECORDS_MAX, records_of};
use crate::queue::store::{NEAR, Store, Window};
use crate::shm::{LONGEST_OF_CLIENT, Spin};
use crate::sys::poll::Counter;
use crate::sys::robust::{self, Inside, Monitor};
use crate::sys::sparse::SparseFile;
use parking_lot::Mutex;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What stands in front of a message: its length, the count of its descriptors, its number if there are any.
const HEADER: usize = 24;
/// Up to this length a message is taken to the stack.
pub(crate) const SHORT: usize = 232;
/// A queue that is empty starts again when it has come so far.
const REWIND: u64 = 256 << 10;
/// A message that is longer than this is believed only if so much memory is there.
const DOUBTFUL: u64 = 64 << 20;
/// How long one that does not want to wait waits for another one who is about to be done.
const BUSY: Duration = Duration::from_millis(100);
/// How much too high an event can be made before it is not lowered at once any more.
const SETTLE_MAX: usize = 4096;

/// How long to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// Not at all.
    Now,
    Until(Deadline),
}

/// Why nothing was put or got.
#[derive(Debug)]
pub(crate) enum Failure {
    Closed,
    /// Full, or empty, now.
    NotNow,
    Timeout,
    Corrupt,
    TooManyDescriptors,
    DescriptorsGone,
    /// There is no room left in the file.
    NoRoom,
    Refused(io::Error),
}

impl From<Corrupt> for Failure {
    fn from(_: Corrupt) -> Failure {
        Failure::Corrupt
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Refused(error)
    }
}

/// The bytes of one message.
#[derive(Debug)]
pub(crate) enum Bytes {
    Short([u8; SHORT], usize),
    Long(Vec<u8>),
}

/// One message.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) bytes: Bytes,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// What this process remembers of the get side. Used inside it.
#[derive(Debug, Default)]
struct Reader {
    window: Window,
    /// The base that was seen with `seen`, and a position that the messages seen then do not reach past.
    base: u64,
    limit: u64,
}

/// One queue, as one process has it.
#[derive(Debug)]
pub(crate) struct Core {
    store: Store,
    letters: Letters,
    event: Counter,
    capacity: u64,
    /// How many messages were put, as last seen here: a lower bound. Most of the time it saves a look at a line of memory
    /// that the other side writes.
    seen: AtomicU64,
    writer: Mutex<Window>,
    reader: Mutex<Reader>,
    spin_to_put: Mutex<Spin>,
    spin_to_get: Mutex<Spin>,
}

/// What a queue consists of, for sending it.
pub(crate) type Parts = [Arc<OwnedFd>; 4];

impl Core {
    /// Makes a queue of at most `capacity` messages, which is not 0.
    pub(crate) fn create(capacity: u64) -> io::Result<Core> {
        let store = Store::create()?;
        Ledger::of(store.near()).begin(capacity);
        robust::prepare()?;
        Ok(Core::of(
            store,
            Letters::create()?,
            Counter::new()?,
            capacity,
        ))
    }

    /// Takes a queue that another process has made.
    pub(crate) fn adopt(parts: Parts) -> io::Result<Core> {
        let [memory, way_in, way_out, event] = parts;
        let store = Store::of(SparseFile::adopt(memory)?)?;
        let capacity = Ledger::of(store.near()).begun().ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "no queue is in this memory")
        })?;
        let letters = Letters::of(way_in, way_out);
        Ok(Core::of(store, letters, Counter::adopt(event), capacity))
    }

    fn of(store: Store, letters: Letters, event: Counter, capacity: u64) -> Core {
        Core {
            store,
            letters,
            event,
            capacity,
            seen: AtomicU64::new(0),
            writer: Mutex::default(),
            reader: Mutex::default(),
            spin_to_put: Mutex::new(Spin::new(LONGEST_OF_CLIENT)),
            spin_to_get: Mutex::new(Spin::new(LONGEST_OF_CLIENT)),
        }
    }

    pub(crate) fn parts(&self) -> Parts {
        let [way_in, way_out] = self.letters.ends();
        [
            self.store.file().handle(),
            way_in,
            way_out,
            self.event.handle(),
        ]
        .map(Arc::clone)
    }

    #[inline]
    fn ledger(&self) -> Ledger<'_> {
        Ledger::of(self.store.near())
    }

    pub(crate) fn len(&self) -> u64 {
        self.ledger().len().min(self.capacity)
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.ledger().is_closed()
    }

    /// Puts one message.
    pub(crate) fn put(
        &self,
        bytes: &[u8],
        descriptors: &[Arc<OwnedFd>],
        limit: Limit,
    ) -> Result<(), Failure> {
        if descriptors.len() > LETTER_MAX {
            return Err(Failure::TooManyDescriptors);
        }
        let ledger = self.ledger();
        let records = records_of(descriptors.len());
        let is_there = || self.has_room_for(records) || ledger.is_closed();
        let side = ledger.put_side();
        let mut inside = self.enter_when(side, is_there, &self.spin_to_put, limit)?;
        loop {
            let placed = if ledger.is_closed() {
                Err(Failure::Closed)
            } else {
                self.place(bytes, descriptors)
            };
            match placed {
                Ok(true) => break,
                // The socket is full of what others have put: until some of it is got, there is no room.
                Ok(false) => {
                    let Limit::Until(deadline) = limit else {
                        inside.leave(is_there);
                        return Err(Failure::NotNow);
                    };
                    let got = ledger.got();
                    let is_there = || ledger.got() != got || ledger.is_closed();
                    inside = inside.wait(is_there, deadline).ok_or(Failure::Timeout)?;
                }
                Err(failure) => {
                    inside.leave(is_there);
                    return Err(failure);
                }
            }
        }
        inside.leave(is_there);
        Ok(())
    }

    #[inline]
    fn has_room_for(&self, records: u64) -> bool {
        let ledger = self.ledger();
        // Unbounded, and most of the time: no look at the other side.
        let has_room = self.capacity == u64::MAX || ledger.len() < self.capacity;
        has_room && (records == 0 || ledger.records() + records <= RECORDS_MAX || ledger.len() == 0)
    }

    /// Writes a message and publishes it; returns false if its descriptors do not fit in the socket. Inside the put side.
    #[inline]
    fn place(&self, bytes: &[u8], descriptors: &[Arc<OwnedFd>]) -> Result<bool, Failure> {
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
        let letter = if descriptors.is_empty() {
            0
        } else {
            match self.send_letter(descriptors)? {
                Some(letter) => letter,
                None => return Ok(false),
            }
        };
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(&(bytes.len() as u64).to_ne_bytes());
        header[8..16].copy_from_slice(&(descriptors.len() as u64).to_ne_bytes());
        header[16..].copy_from_slice(&letter.to_ne_bytes());
        // Where another thread of this process is here as well, somebody has written over the monitor's word.
        let mut kept = self.writer.try_lock();
        let mut other = Window::default();
        let window = kept.as_deref_mut().unwrap_or(&mut other);
        self.store.write(at, &header, window)?;
        self.store.write(at + HEADER as u64, bytes, window)?;
        drop(kept);
        if at + taken > ledger.high() {
            ledger.set_high(at + taken);
        }
        if !descriptors.is_empty() {
            ledger.add_records(records_of(descriptors.len()));
        }
        if ledger.watched() > 0 {
            self.event.add(1);
        }
        if ledger.get_side().announce(|| ledger.publish(put, next)) {
            Ok(true)
        } else {
            Err(Failure::Closed)
        }
    }

    /// The base for the next message: where the queue is empty and has come far, that is where the message will stand.
    #[inline]
    fn rewound(&self, put: u64, tail: u64) -> Result<u64, Corrupt> {
        let ledger = self.ledger();
        let base = ledger.base();
        if tail.checked_sub(base).ok_or(Corrupt)? < REWIND || ledger.got() != put {
            return Ok(base);
        }
        self.start_again(tail);
        Ok(tail)
    }

    /// Nothing is in the queue, and this is inside the put side: what comes next stands at the start.
    fn start_again(&self, tail: u64) {
        let ledger = self.ledger();
        ledger.set_base(tail);
        if ledger.high() > NEAR as u64 {
            self.store.give_all_back();
            ledger.set_high(NEAR as u64);
        }
    }

    /// Sends descriptors and returns their number; `None` if others have to be got first.
    fn send_letter(&self, descriptors: &[Arc<OwnedFd>]) -> Result<Option<u64>, Failure> {
        let ledger = self.ledger();
        ledger.set_lettered();
        let letter = ledger.next_letter();
        let mut sent = 0;
        let is_full = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        match self.letters.send(letter, descriptors, &mut sent) {
            Err(error) if is_full(&error) => {}
            result => return Ok(result.map(|()| Some(letter))?),
        }
        if ledger.len() > 0 {
            return Ok(None);
        }
        // All but our own is left over from processes that have died.
        let deadline = Deadline::after(BUSY);
        let getting = ledger.get_side().enter(deadline).ok_or(Failure::Timeout)?;
        self.letters.discard_others(letter);
        ledger.reset_records();
        getting.leave(|| self.has_news());
        match self.letters.send(letter, descriptors, &mut sent) {
            Err(error) if is_full(&error) => Err(Failure::TooManyDescriptors),
            result => Ok(result.map(|()| Some(letter))?),
        }
    }

    /// Whether there is something to be got, or never will be again.
    #[inline]
    fn has_news(&self) -> bool {
        let ledger = self.ledger();
        let got = ledger.got();
        self.seen.load(Ordering::Relaxed) > got || ledger.put() > got || ledger.is_closed()
    }

    /// Gets one message.
    pub(crate) fn get(&self, limit: Limit) -> Result<Message, Failure> {
        let ledger = self.ledger();
        let is_there = || self.has_news();
        let entered = self.enter_when(ledger.get_side(), is_there, &self.spin_to_get, limit);
        let inside = match entered {
            Ok(inside) => inside,
            Err(failure) => {
                if ledger.watched() > 0 {
                    self.settle();
                }
                return Err(failure);
            }
        };
        let message = {
            // As in `place`.
            let mut kept = self.reader.try_lock();
            let mut other = Reader::default();
            let is_kept = kept.is_some();
            let reader = kept.as_deref_mut().unwrap_or(&mut other);
            self.take(reader, is_kept)
        };
        inside.leave(is_there);
        if matches!(message, Err(Failure::Closed)) {
            self.pass_closing_on();
        }
        message
    }

    /// Takes the first message. Inside the get side.
    #[inline]
    fn take(&self, reader: &mut Reader, is_kept: bool) -> Result<Message, Failure> {
        let ledger = self.ledger();
        let got = ledger.got();
        if !is_kept || self.seen.load(Ordering::Relaxed) <= got {
            let put = ledger.put();
            if put <= got {
                let is_sound = put == got && ledger.is_closed();
                return Err(if is_sound {
                    Failure::Closed
                } else {
                    Failure::Corrupt
                });
            }
            reader.base = ledger.base();
            reader.limit = ledger.highest_tail();
            if is_kept {
                self.seen.store(put, Ordering::Relaxed);
            }
        }
        let head = ledger.head(got);
        let at = head.checked_sub(reader.base).ok_or(Corrupt)?;
        let mut header = [0; HEADER];
        self.store.read(at, &mut header, &mut reader.window)?;
        let [len, count, letter] = bytemuck::cast::<[u8; HEADER], [u64; 3]>(header);
        let next = self.end_of_message(head, len, reader.limit)?;
        let body = at + HEADER as u64;
        let bytes = self.copy_out(body, len as usize, &mut reader.window)?;
        let descriptors = self.descriptors_of(letter, count)?;
        let end = at + (next - head);
        self.give_back(head, end, reader);
        if self.capacity == u64::MAX && !ledger.is_lettered() {
            // Nobody waits for room.
            ledger.take(got, next);
        } else {
            ledger.put_side().announce(|| ledger.take(got, next));
        }
        self.start_again_if_empty(got, end);
        if count > 0 {
            self.letters.discard(letter);
            ledger.remove_records(records_of(count as usize));
        }
        if ledger.watched() > 0 {
            self.event.take();
        }
        match descriptors {
            Some(descriptors) => Ok(Message { bytes, descriptors }),
            None => Err(Failure::DescriptorsGone),
        }
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

    #[inline]
    fn copy_out(&self, at: u64, len: usize, window: &mut Window) -> Result<Bytes, Failure> {
        if len <= SHORT {
            let mut short = [0; SHORT];
            self.store.read(at, &mut short[..len], window)?;
            return Ok(Bytes::Short(short, len));
        }
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(len)
            .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        self.store.append(at, len, &mut bytes, window)?;
        Ok(Bytes::Long(bytes))
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
    fn give_back(&self, head: u64, end: u64, reader: &Reader) {
        if end <= NEAR as u64 / 2 {
            return;
        }
        let ledger = self.ledger();
        let behind = self.store.give_back(ledger.punched(), reader.base, head);
        if let Ok(Some(punched)) = behind {
            ledger.set_punched(punched);
        }
    }

    /// Gives all memory but the beginning back, if the message that was just taken was the last and stood behind it.
    #[inline]
    fn start_again_if_empty(&self, got: u64, end: u64) {
        let ledger = self.ledger();
        if end <= NEAR as u64 || ledger.put() != got.wrapping_add(1) {
            return;
        }
        // Where somebody is putting right now, there is something in it again, or he sees to it.
        if let Some(putting) = ledger.put_side().try_enter() {
            let put = ledger.put();
            if ledger.got() == put {
                self.start_again(ledger.tail(put));
            }
            putting.leave(|| self.has_room_for(0) || ledger.is_closed());
        }
    }

    /// Closes the queue, for everybody.
    pub(crate) fn close(&self) {
        let ledger = self.ledger();
        self.event.add(1);
        if robust::prepare().is_err() {
            // Without memory for this thread: who sleeps already is woken by the next one who comes.
            return ledger.close();
        }
        ledger.get_side().announce(|| ledger.close());
        self.pass_closing_on();
    }

    /// Does what follows from closing. Whoever closed may have died before it.
    fn pass_closing_on(&self) {
        // Again: what was there before may have been taken off by `settle`.
        self.event.add(1);
        self.ledger().put_side().announce(|| ());
    }

    /// Comes in when something is there.
    #[inline]
    fn enter_when<'a>(
        &self,
        side: Monitor<'a>,
        is_there: impl Fn() -> bool,
        spin: &Mutex<Spin>,
        limit: Limit,
    ) -> Result<Inside<'a>, Failure> {
        robust::prepare()?;
        let Limit::Until(deadline) = limit else {
            return self.enter_now(side, is_there);
        };
        if !is_there() {
            if let Some(mut spin) = spin.try_lock() {
                spin.until(&is_there);
            }
        }
        let mut inside = side.enter(deadline).ok_or(Failure::Timeout)?;
        while !is_there() {
            let start = Instant::now();
            inside = inside.wait(&is_there, deadline).ok_or(Failure::Timeout)?;
            if let Some(mut spin) = spin.try_lock() {
                spin.learn(start.elapsed());
            }
        }
        Ok(inside)
    }

    fn enter_now<'a>(
        &self,
        side: Monitor<'a>,
        is_there: impl Fn() -> bool,
    ) -> Result<Inside<'a>, Failure> {
        if !is_there() {
            return Err(Failure::NotNow);
        }
        let entered = side
            .try_enter()
            .or_else(|| side.enter(Deadline::after(BUSY)));
        let inside = entered.ok_or(Failure::NotNow)?;
        if !is_there() {
            inside.leave(is_there);
            return Err(Failure::NotNow);
        }
        Ok(inside)
    }

    /// One message more is done with; returns false if all were.
    pub(crate) fn finish(&self) -> io::Result<bool> {
        robust::prepare()?;
        let ledger = self.ledger();
        Ok(ledger.finish_one_of_many() || ledger.done_side().announce(|| ledger.finish()))
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
            self.event.add(ledger.len().saturating_add(2).min(1 << 62));
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
        if self.ledger().watched() > 0 && robust::prepare().is_ok() {
            self.settle();
        }
        false
    }

    /// Takes off what the event says too much, if nothing is in the queue.
    #[cold]
    fn settle(&self) {
        let ledger = self.ledger();
        let Some(getting) = ledger.get_side().try_enter() else {
            return;
        };
        if let Some(putting) = ledger.put_side().try_enter() {
            if ledger.len() == 0 && !ledger.is_closed() {
                let mut taken = 0;
                while taken < SETTLE_MAX && self.event.take() {
                    taken += 1;
                }
                if ledger.is_closed() {
                    self.event.add(1);
                }
            }
            putting.leave(|| self.has_room_for(0) || ledger.is_closed());
        }
        getting.leave(|| self.has_news());
    }
}
