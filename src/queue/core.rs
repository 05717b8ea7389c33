//! A queue of bytes and descriptors between any number of processes.
//!
//! There are two sides, a monitor each: one process at a time puts, and one gets. What they share is two counts (see
//! `ledger`), and each step below leaves the queue sound if it is the last one of its process.
//!
//! | putting, inside the put side | died here |
//! |---|---|
//! | waits until there is room | the kernel wakes another |
//! | says how far it writes; writes the message behind the last one; sends its descriptors | it is not there: the next one writes over it, or who finds the queue empty gives its memory back |
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
//! taken off by who finds the queue empty and the event readable, inside both sides. Who closes ends the socket of the descriptors,
//! adds one, and closes: so whoever has taken off that one finds the socket ended, and closes the queue itself.

use crate::deadline::Deadline;
use crate::queue::ledger::{Corrupt, Ledger};
use crate::queue::letters::Letters;
use crate::queue::store::{NEAR, Store, Window};
use crate::shm::{LONGEST_OF_CLIENT, Spin};
use crate::sys::poll::{self, Counter};
use crate::sys::robust::{self, Inside, Monitor};
use crate::sys::shared::SharedFd;
use crate::sys::sparse::SparseFile;
use crate::sys::step::step;
use parking_lot::Mutex;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What stands in front of a message: its length, the count of its descriptors, its number if there are any.
pub(crate) const HEADER: usize = 24;
/// How long one that does not want to wait waits for another one who is about to be done.
pub(crate) const BUSY: Duration = Duration::from_millis(100);

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

/// One queue, as one process has it.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) store: Store,
    pub(crate) letters: Letters,
    pub(crate) event: Counter,
    pub(crate) capacity: u64,
    /// How many messages were put, as last seen here: a lower bound. Most of the time it saves a look at a line of memory
    /// that the other side writes.
    pub(crate) seen: AtomicU64,
    /// The base that was seen then, and a position that no message that was seen then reaches past. Like `seen`, these
    /// change inside the get side only.
    pub(crate) base: AtomicU64,
    pub(crate) limit: AtomicU64,
    /// Up to where memory had been written then.
    pub(crate) high: AtomicU64,
    pub(crate) put_window: Mutex<Window>,
    pub(crate) get_window: Mutex<Window>,
    pub(crate) spin_to_put: Mutex<Spin>,
    pub(crate) spin_to_get: Mutex<Spin>,
}

/// What a queue consists of, for sending it.
pub(crate) type Parts = [Arc<SharedFd>; 4];

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
        if !poll::is_nonblocking(event.as_fd()) {
            let why = "its event is none of a queue's";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        let store = Store::of(SparseFile::adopt(memory)?)?;
        let capacity = Ledger::of(store.near()).begun().ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "no queue is in this memory")
        })?;
        step!("queue::adopt::mapped");
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
            base: AtomicU64::new(0),
            limit: AtomicU64::new(0),
            high: AtomicU64::new(0),
            put_window: Mutex::default(),
            get_window: Mutex::default(),
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
    pub(crate) fn ledger(&self) -> Ledger<'_> {
        Ledger::of(self.store.near())
    }

    pub(crate) fn len(&self) -> u64 {
        self.ledger().len_at_once().min(self.capacity)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ledger().len() == 0
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.ledger().is_closed()
    }

    #[inline]
    pub(crate) fn has_room(&self) -> bool {
        // Unbounded: no look at the other side.
        self.capacity == u64::MAX || self.ledger().has_fewer_than(self.capacity)
    }

    /// Nothing is in the queue, and this is inside the put side: what comes next stands at the start, and what is far from
    /// there, also of messages that came to nothing, is given back.
    pub(crate) fn start_again(&self, tail: u64) {
        let ledger = self.ledger();
        ledger.set_base(tail);
        step!("queue::again::base");
        if ledger.high() > NEAR as u64 {
            self.store.give_all_back();
            step!("queue::again::given_back");
            ledger.set_high(NEAR as u64);
        }
    }

    /// Whether there is something to be got, or never will be again.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        let ledger = self.ledger();
        let got = ledger.got();
        self.seen.load(Ordering::Relaxed) > got || ledger.put() > got || ledger.is_closed()
    }

    /// Comes in when something is there.
    #[inline]
    pub(crate) fn enter_when<'a>(
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

    pub(crate) fn enter_now<'a>(
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
}
