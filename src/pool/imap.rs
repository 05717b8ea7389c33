//! [`Imap`] and [`ImapUnordered`]: results as an iterator, while items are pulled as they are wanted.

use crate::error::TaskError;
use crate::pool::attendance::{Attendance, UNATTENDED};
use crate::pool::call::Event;
use crate::pool::driver::Driver;
use crate::pool::lead::Patience;
use crate::pool::opened::{Input, Opened, Pulled, Spec, Unseen};
use crate::pool::ordered::{Ordered, Outcome};
use crate::pool::plan::{Supply, Turn};
use crate::pool::result::{Callback, Done};
use crate::pool::slowness::Slowness;
use crate::task::{Items, Portable};
use std::collections::VecDeque;
use std::fmt;
use std::time::Instant;

/// Iterates over the results of a job in the order of its items; made by [`Pool::imap`](crate::Pool::imap).
///
/// Items are pulled when results are: no more of them at a time than keep the workers busy. Dropping it drops what has not
/// been begun.
///
/// # Examples
///
/// ```
/// let pool = multiprocess::Pool::builder().workers(1).build()?;
/// let mut squares = pool.imap(1.., |n: u64| n * n);
/// assert_eq!(squares.next(), Some(Ok(1)));
/// assert_eq!(squares.next(), Some(Ok(4)));
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[must_use = "items are pulled as results are"]
pub struct Imap<'pool, R> {
    stream: Stream<'pool>,
    ordered: Ordered,
    /// What is told of each result before the caller has it.
    told: Option<Callback<R>>,
}

/// Iterates over the results of a job as they finish, each with its item's index; made by
/// [`Pool::imap_unordered`](crate::Pool::imap_unordered).
///
/// Items are pulled when results are: no more of them at a time than keep the workers busy. Dropping it drops what has not
/// been begun.
///
/// # Examples
///
/// ```
/// let pool = multiprocess::Pool::builder().workers(1).build()?;
/// let mut found = pool.imap_unordered([3, 0], |n: u32| 6 / n);
/// assert!(found.any(|(item, result)| item == 1 && result.is_err_and(|error| error.is_panic())));
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[must_use = "items are pulled as results are"]
pub struct ImapUnordered<'pool, R> {
    stream: Stream<'pool>,
    /// Outcomes that are there, by the index of the first item.
    there: VecDeque<(usize, Outcome)>,
    /// What is told of each result before the caller has it.
    told: Option<Callback<R>>,
}

/// The part that both have in common: items go in, outcomes come out.
struct Stream<'pool> {
    state: State<'pool>,
    is_ordered: bool,
    /// Items that were submitted, and those whose outcomes the caller has.
    submitted: usize,
    yielded: usize,
    attendance: Attendance,
    unseen: Unseen,
    /// Whether to look for outcomes before more items are pulled.
    looks_first: bool,
    slowness: Slowness,
}

enum State<'pool> {
    Open {
        job: Opened<'pool>,
        source: Box<dyn Source + 'pool>,
    },
    /// All items have been pulled.
    Exhausted {
        job: Opened<'pool>,
    },
    /// Nothing more will come, and that has still to be said: of this item, unless the caller asks in order.
    Refused {
        item: usize,
        error: TaskError,
    },
    Ended,
}

/// Items of whatever type, as batches.
trait Source {
    fn produce(
        &mut self,
        job: &Opened<'_>,
        items_max: usize,
    ) -> Option<Result<Pulled, (usize, TaskError)>>;
}

impl<I: Iterator<Item: Portable>> Source for Items<I> {
    fn produce(
        &mut self,
        job: &Opened<'_>,
        items_max: usize,
    ) -> Option<Result<Pulled, (usize, TaskError)>> {
        job.produce(self, items_max)
    }
}

impl<'pool> Stream<'pool> {
    fn new<I>(driver: &'pool Driver, spec: Spec, items: I, is_ordered: bool) -> Stream<'pool>
    where
        I: Iterator<Item: Portable> + 'pool,
    {
        let items = Items::new(items);
        let opened = Opened::open(driver, spec, false, Input::of(&items), None);
        let state = match opened.and_then(Opened::kept) {
            Ok(job) => State::Open {
                job,
                source: Box::new(items),
            },
            Err(error) => State::Refused { item: 0, error },
        };
        Stream {
            state,
            is_ordered,
            submitted: 0,
            yielded: 0,
            attendance: Attendance::now(),
            unseen: Unseen::default(),
            looks_first: false,
            slowness: Slowness::default(),
        }
    }

    /// Whether every item has been pulled and its outcome is with the caller.
    fn is_done(&self) -> bool {
        match self.state {
            State::Open { .. } | State::Refused { .. } => false,
            State::Exhausted { .. } => self.yielded == self.submitted,
            State::Ended => true,
        }
    }

    /// Submits what the workers want and takes in what they have sent. Waits, if asked to, until there is an outcome. Where the
    /// iterator is slow, what is there already does not wait for what the workers want.
    fn attend(&mut self, patience: Patience, take: impl FnMut(usize, Outcome)) {
        self.attendance = Attendance::now();
        self.take_turns(patience, take);
        if self.slowness.expected() > UNATTENDED {
            // What the input took is not the time of whoever takes outcomes.
            self.attendance = Attendance::now();
        }
    }

    fn take_turns(&mut self, patience: Patience, mut take: impl FnMut(usize, Outcome)) {
        loop {
            let turn = match &self.state {
                State::Open { job, .. } if self.looks_first && self.submitted > self.yielded => {
                    self.unseen.clear();
                    let turn = if patience == Patience::Now {
                        job.turn(Supply::None, patience)
                    } else {
                        let start = Instant::now();
                        let turn = job.look(self.slowness.grace());
                        self.slowness.spend(start.elapsed());
                        turn
                    };
                    let has_none = matches!(turn, Turn::Nothing);
                    self.looks_first = match patience {
                        // Whoever waits may look for longer.
                        Patience::Now => has_none || self.slowness.has_grace(),
                        _ => !has_none && self.slowness.has_grace(),
                    };
                    if has_none && patience != Patience::Now {
                        continue;
                    }
                    turn
                }
                State::Open { job, .. } => {
                    let ahead = self.submitted - self.yielded;
                    job.turn(job.bounded_supply(ahead), patience)
                }
                State::Exhausted { job } => job.turn(Supply::None, patience),
                State::Refused { .. } => {
                    // Asked for when nothing else is there.
                    if patience == Patience::Now {
                        return;
                    }
                    let state = std::mem::replace(&mut self.state, State::Ended);
                    if let State::Refused { item, error } = state {
                        self.submitted += 1;
                        let item = if self.is_ordered { self.yielded } else { item };
                        take(item, Outcome::Failed(error));
                    }
                    return;
                }
                State::Ended => return,
            };
            match turn {
                Turn::Nothing => return,
                Turn::Produce(items_max) => {
                    if self.produce(items_max, &mut take) {
                        return;
                    }
                }
                Turn::Events(events) => {
                    self.take_in(events, &mut take);
                    return;
                }
            }
        }
    }

    /// Submits a batch; returns whether that alone ends the wait.
    fn produce(&mut self, items_max: usize, take: &mut impl FnMut(usize, Outcome)) -> bool {
        // Taken out while the user's iterator runs: if that panics, the stream has ended.
        let State::Open { job, mut source } = std::mem::replace(&mut self.state, State::Ended)
        else {
            return false;
        };
        let items_max = if self.slowness.is_slow() {
            // What is pulled is not to wait for what may not come.
            items_max.min(job.piece_items())
        } else {
            items_max
        };
        match source.produce(&job, items_max) {
            Some(Ok(pulled)) => {
                self.submitted += pulled.count;
                self.slowness.learn(pulled, || job.item_takes());
                self.looks_first = self.unseen.is_enough(pulled) || self.slowness.has_grace();
                self.state = State::Open { job, source };
                false
            }
            Some(Err((item, error))) => {
                self.submitted += 1;
                self.looks_first = true;
                self.state = State::Open { job, source };
                take(item, Outcome::Failed(error));
                true
            }
            None => {
                self.state = State::Exhausted { job };
                self.is_done()
            }
        }
    }

    fn take_in(&mut self, events: Vec<Event>, take: &mut impl FnMut(usize, Outcome)) {
        for event in events {
            match event {
                Event::Results { item, received } => take(item, Outcome::Results(received)),
                Event::Failed { item, error } => take(item, Outcome::Failed(error)),
                Event::Broken { item, error } => {
                    // The caller is told once, behind what is there already.
                    let item = item.unwrap_or(self.submitted);
                    self.state = State::Refused { item, error };
                    return;
                }
            }
        }
    }

    /// Looks after workers that have been left alone for long; whether outcomes are there to be handed out says `has_some`.
    fn attend_in_between(&mut self, has_some: bool, take: impl FnMut(usize, Outcome)) {
        let away = self.attendance.away();
        if let State::Open { job, .. } = &self.state {
            // Who takes outcomes more slowly than the input gives items asks for these in between: the workers are not to idle. Not
            // where they are done with each item long before the next one comes.
            let (grace, expected) = (self.slowness.grace(), self.slowness.expected());
            self.looks_first = if has_some {
                away < expected || (!grace.is_zero() && job.item_takes() <= grace)
            } else {
                self.looks_first || expected > UNATTENDED
            };
        }
        self.attend(Patience::Now, take);
    }
}

impl<'pool, R: Portable> Imap<'pool, R> {
    pub(crate) fn new<I>(
        driver: &'pool Driver,
        spec: Spec,
        items: I,
        done: &impl Done<R>,
    ) -> Imap<'pool, R>
    where
        I: Iterator<Item: Portable> + 'pool,
    {
        let told = done.callback();
        let stream = Stream::new(driver, spec, items, true);
        Imap {
            stream,
            ordered: Ordered::default(),
            told,
        }
    }
}

impl<R: Portable> Iterator for Imap<'_, R> {
    type Item = Result<R, TaskError>;

    /// Waits for the next item's outcome. A failure is that item's alone: the next call goes on behind it.
    fn next(&mut self) -> Option<Self::Item> {
        let Imap {
            stream,
            ordered,
            told,
        } = self;
        let has_some = ordered.has_next();
        if stream.attendance.is_due(has_some) {
            stream.attend_in_between(has_some, |item, outcome| {
                ordered.put(item, outcome);
            });
        }
        loop {
            if let Some(result) = ordered.next() {
                stream.yielded += 1;
                if let Some(told) = told {
                    told.call(&result);
                }
                return Some(result);
            }
            if stream.is_done() {
                return None;
            }
            stream.attend(Patience::Wait, |item, outcome| ordered.put(item, outcome));
        }
    }
}

impl<'pool, R: Portable> ImapUnordered<'pool, R> {
    pub(crate) fn new<I>(
        driver: &'pool Driver,
        spec: Spec,
        items: I,
        done: &impl Done<R>,
    ) -> ImapUnordered<'pool, R>
    where
        I: Iterator<Item: Portable> + 'pool,
    {
        let told = done.callback();
        let stream = Stream::new(driver, spec, items, false);
        ImapUnordered {
            stream,
            there: VecDeque::new(),
            told,
        }
    }

    fn next_there(&mut self) -> Option<(usize, Result<R, TaskError>)> {
        let (item, outcome) = self.there.front_mut()?;
        let at = *item;
        let result = match outcome {
            Outcome::Results(received) => {
                let result = received.next(at);
                *item += 1;
                if received.left() == 0 {
                    self.there.pop_front();
                }
                result
            }
            Outcome::Failed(error) => {
                let error = error.clone();
                self.there.pop_front();
                Err(error)
            }
        };
        self.stream.yielded += 1;
        if let Some(told) = &self.told {
            told.call(&result);
        }
        Some((at, result))
    }
}

impl<R: Portable> Iterator for ImapUnordered<'_, R> {
    type Item = (usize, Result<R, TaskError>);

    /// Waits for an outcome. A failure is its item's alone: the next call goes on.
    fn next(&mut self) -> Option<Self::Item> {
        let has_some = !self.there.is_empty();
        if self.stream.attendance.is_due(has_some) {
            let ImapUnordered { stream, there, .. } = self;
            stream.attend_in_between(has_some, |item, outcome| {
                there.push_back((item, outcome));
            });
        }
        loop {
            if let Some(there) = self.next_there() {
                return Some(there);
            }
            if self.stream.is_done() {
                return None;
            }
            let ImapUnordered { stream, there, .. } = self;
            stream.attend(Patience::Wait, |item, outcome| {
                there.push_back((item, outcome))
            });
        }
    }
}

impl fmt::Debug for Stream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("submitted", &self.submitted)
            .field("yielded", &self.yielded)
            .finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for Imap<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imap")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

impl<R> fmt::Debug for ImapUnordered<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImapUnordered")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}
