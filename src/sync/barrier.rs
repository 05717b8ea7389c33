//! `Barrier`: parties wait for each other.
//!
//! **One word decides.** Its parts are the *round*, the *cause* why the barrier is broken (0: it is whole), and how many have
//! *come*.
//!
//! | state | means | becomes |
//! |---|---|---|
//! | round r, whole, fewer than all | so many wait | one more, by who comes; broken, by a deadline, a death or `abort` |
//! | round r, whole, all | round r is complete | round r + 1 with one, by who comes next |
//! | round r, broken | all who come or wait get an error | round r + 1, whole, with none, by `reset` |
//! | any | | round r + 1, whole, with none, by `reset` |
//!
//! So of the last one who comes, a deadline, a death and an abort, one comes first, and all agree on which. A waiter that is
//! slow to look may find a later round. If there was no reset since, which another word counts, its round was complete: there is
//! no other way out of one. Else `COMPLETED` tells: whoever moves on from a complete round writes there, at the
//! round's place in a ring, that it was. The numbers written there only grow, so a late writer does no harm. Who finds a
//! later number there, after a reset and dozens of rounds, is told of the reset.
//!
//! **Deaths.** Who comes first takes a *seat*, a robust word, and labels it with the round; it holds the word until it leaves.
//! A dead one's seat is `died`, with the label of the round in which it died.
//!
//! | it dies | the others |
//! |---|---|
//! | before it was counted, its seat labelled | as if it had waited: they get an error |
//! | waiting | who comes last, or is about to sleep, looks at the seats; who sleeps is woken by the kernel, see below |
//! | after the round was complete, before it left | its seat has the label of a round that is over: nothing |
//! | between ending the round, either way, and waking | the kernel wakes one on the gate, and each who has slept wakes all |
//!
//! **Sleeping.** Each round has a *gate*, one of a ring, that is armed by who wants to sleep and disarmed by who ends the round,
//! who then wakes all. Each stores, fences, and then looks at the other's word, so that one sees the other. A sleeper sleeps on
//! three things at once: the gate; the deciding word, so that nobody comes unseen between its look at the seats and its
//! sleep; and the seats of those that had come, so that nobody dies unseen. Those that come later have the gate
//! *pending*: if one of them dies, the kernel wakes one who sleeps there. Who is woken looks at the seats again.
//!
//! Before Linux 5.16 a thread can sleep on one word only: the gate. Then a death exactly between a waiter's last look at the
//! seats and its sleep, less than a microsecond, is found when the next one comes, or at the deadline.

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::shm::{LONGEST_OF_CLIENT, Slot, Spin};
use crate::sync::object;
use crate::sys::atomic::{AtomicU64, Ordering, fence};
use crate::sys::futex::{self, WATCHED_MAX, Watched};
use crate::sys::limits;
use crate::sys::robust::{Held, Word, pending_on, this_thread};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

const PARTIES_MAX: usize = 8000;
/// How many rounds back a slow waiter still learns what became of its own.
const COMPLETED_RING: u64 = if cfg!(all(test, loom)) { 2 } else { 64 };
const GATES: u64 = if cfg!(all(test, loom)) { 2 } else { 16 };

// Places.
const DECIDING: usize = 0;
const RESETS: usize = 8;
const COMPLETED: usize = 64;
const GATE: usize = COMPLETED + COMPLETED_RING as usize * 8;
const SEATS: usize = GATE + GATES as usize * Word::LEN;
/// A seat has a line of its own: a word, and the label behind it.
const SEAT: usize = 64;
const LABEL: usize = Word::LEN;

// The deciding word. Its 48 bits of rounds last a year, at ten million rounds a second.
const COME: u64 = (1 << 13) - 1;
const CAUSE_SHIFT: u32 = 13;
const CAUSE: u64 = 7 << CAUSE_SHIFT;
const ROUND_SHIFT: u32 = 16;

thread_local! {
    static SPIN: RefCell<Spin> = RefCell::new(Spin::new(LONGEST_OF_CLIENT));
}

/// Has a fixed number of parties wait for each other, round after round.
///
/// Clones, in this process and in others, are the same barrier; it can be sent at any time. A party is a thread of any
/// process; it need not be the same one in each round.
///
/// A party that waits and dies, or whose time is over, *breaks* the barrier: everybody who waits gets a [`BarrierError`] at
/// once, and so does everybody who comes, until [`Barrier::reset`].
///
/// Where there are as many processors as parties, who waits looks for the others for some microseconds before it sleeps.
///
/// # Examples
///
/// ```
/// use multiprocess::{Barrier, Process};
///
/// let barrier = Barrier::new(3)?;
/// let processes: Vec<Process<bool>> = (0..3)
///     .map(|_| Process::spawn(barrier.clone(), |barrier: Barrier| barrier.wait().unwrap().is_leader()))
///     .collect::<Result<_, _>>()?;
/// let leaders = processes.into_iter().filter_map(|process| process.join().ok()).filter(|&led| led);
/// assert_eq!(leaders.count(), 1);
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Clone)]
pub struct Barrier {
    slot: Slot,
    parties: usize,
}

/// Tells a party, after the round, how it had come.
///
/// # Examples
///
/// ```
/// let result = multiprocess::Barrier::new(1)?.wait()?;
/// assert!(result.is_leader() && result.index() == 0);
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarrierWaitResult {
    index: usize,
}

impl BarrierWaitResult {
    /// Returns how many had come before it in this round: each from 0 up to the number of parties is there once.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(multiprocess::Barrier::new(1)?.wait()?.index(), 0);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns whether this is the one party of the round that is the leader: the one that came first.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(multiprocess::Barrier::new(1)?.wait()?.is_leader());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_leader(&self) -> bool {
        self.index == 0
    }
}

/// Says that a barrier was broken, before or while one waited.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// let barrier = multiprocess::Barrier::new(2)?;
/// let error = barrier.wait_timeout(Duration::from_millis(1)).unwrap_err();
/// println!("{error}");
/// assert!(error.is_timeout());
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the barrier is broken: {cause}")]
pub struct BarrierError {
    cause: Broken,
}

impl BarrierError {
    /// Returns whether it was broken by a party whose time was over.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let barrier = multiprocess::Barrier::new(2)?;
    /// let error = barrier.wait_timeout(Duration::from_millis(1)).unwrap_err();
    /// assert!(error.is_timeout());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_timeout(&self) -> bool {
        self.cause == Broken::TimedOut
    }

    /// Returns whether it was broken by the death of a party that waited.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let barrier = multiprocess::Barrier::new(2)?;
    /// let error = barrier.wait_timeout(Duration::from_millis(1)).unwrap_err();
    /// assert!(!error.is_death());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_death(&self) -> bool {
        self.cause == Broken::Died
    }
}

impl From<BarrierError> for Error {
    fn from(broken: BarrierError) -> Error {
        Error::refused("cannot wait at a barrier", broken.to_string())
    }
}

/// A round in which one has come, and how many resets there had been before it came.
#[derive(Clone, Copy, Debug)]
struct Coming {
    round: u64,
    resets: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Broken {
    #[error("the time of a party was over")]
    TimedOut = 1,
    #[error("a party died while it waited")]
    Died = 2,
    #[error("it was aborted")]
    Aborted = 3,
    #[error("it was reset while a party waited")]
    Reset = 4,
}

impl Barrier {
    /// Makes a barrier at which nobody waits.
    ///
    /// # Errors
    ///
    /// Where `parties` is 0 or more than 8,000; where the system has no memory or no descriptor left.
    ///
    /// # Examples
    ///
    /// ```
    /// let barrier = multiprocess::Barrier::new(1)?;
    /// assert!(barrier.wait()?.is_leader());
    /// assert!(multiprocess::Barrier::new(0).is_err());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn new(parties: usize) -> Result<Barrier> {
        if parties == 0 || parties > PARTIES_MAX {
            return Err(Error::refused(
                "cannot make a barrier",
                format!("it needs 1 to {PARTIES_MAX} parties, and not {parties}"),
            ));
        }
        Ok(Barrier {
            slot: object::allocate("barrier", Barrier::len(parties))?,
            parties,
        })
    }

    /// Waits until all parties have come.
    ///
    /// # Errors
    ///
    /// Where the barrier is broken, or is broken while this one waits.
    ///
    /// # Examples
    ///
    /// ```
    /// let barrier = multiprocess::Barrier::new(2)?;
    /// let other = barrier.clone();
    /// let thread = std::thread::spawn(move || other.wait().unwrap().index());
    /// assert_eq!(barrier.wait()?.index() + thread.join().unwrap(), 1);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn wait(&self) -> Result<BarrierWaitResult, BarrierError> {
        self.wait_until(Deadline::NEVER)
    }

    /// As [`Barrier::wait`], no longer than `limit`: then the barrier is broken, for all.
    ///
    /// # Errors
    ///
    /// As [`Barrier::wait`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let barrier = multiprocess::Barrier::new(2)?;
    /// let error = barrier.wait_timeout(Duration::from_millis(10)).unwrap_err();
    /// assert!(error.is_timeout() && barrier.is_broken());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn wait_timeout(&self, limit: Duration) -> Result<BarrierWaitResult, BarrierError> {
        self.wait_until(Deadline::after(limit))
    }

    /// Breaks the barrier: who waits, and who comes, gets an error, until it is reset.
    ///
    /// # Examples
    ///
    /// ```
    /// let barrier = multiprocess::Barrier::new(2)?;
    /// barrier.abort();
    /// assert!(barrier.is_broken() && barrier.wait().is_err());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn abort(&self) {
        let cause = (Broken::Aborted as u64) << CAUSE_SHIFT;
        self.move_on(|seen| {
            if self.is_complete(seen) {
                Some(next_round(seen) | cause)
            } else if seen & CAUSE == 0 {
                Some(seen & !COME | cause)
            } else {
                None
            }
        });
    }

    /// Makes the barrier whole, with nobody waiting: who waits gets an error.
    ///
    /// # Examples
    ///
    /// ```
    /// let barrier = multiprocess::Barrier::new(1)?;
    /// barrier.abort();
    /// barrier.reset();
    /// assert!(barrier.wait().is_ok());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn reset(&self) {
        // Before the round is left: who finds it left finds this as well.
        self.at(RESETS).fetch_add(1, Ordering::AcqRel);
        self.move_on(|seen| Some(next_round(seen)));
    }

    /// Returns how many parties a round needs.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(multiprocess::Barrier::new(3)?.parties(), 3);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn parties(&self) -> usize {
        self.parties
    }

    /// Returns how many parties waited a moment ago.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(multiprocess::Barrier::new(3)?.waiting(), 0);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn waiting(&self) -> usize {
        let seen = self.deciding().load(Ordering::Acquire);
        if seen & CAUSE != 0 || self.is_complete(seen) {
            0
        } else {
            (seen & COME) as usize
        }
    }

    /// Returns whether the barrier was broken a moment ago.
    ///
    /// # Examples
    ///
    /// ```
    /// assert!(!multiprocess::Barrier::new(3)?.is_broken());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn is_broken(&self) -> bool {
        self.deciding().load(Ordering::Acquire) & CAUSE != 0
    }

    fn wait_until(&self, deadline: Deadline) -> Result<BarrierWaitResult, BarrierError> {
        let seat = self.sit_down();
        let label = seat.as_ref().map(|(seat, _)| self.label(*seat));
        let (coming, index) = loop {
            let resets = self.at(RESETS).load(Ordering::Acquire);
            let seen = self.deciding().load(Ordering::Acquire);
            if let Some(cause) = cause_of(seen) {
                return Err(BarrierError { cause });
            }
            let base = if self.is_complete(seen) {
                self.note_completed(round_of(seen));
                next_round(seen)
            } else {
                seen
            };
            let round = round_of(base);
            if let Some(label) = label {
                label.store(round + 1, Ordering::Release);
            }
            let come = base & COME;
            let _pending = pending_on(self.slot.mapping(), self.gate_offset(round));
            if come + 1 >= self.parties as u64 && self.is_any_dead(round) {
                self.break_round(round, Broken::Died);
                return Err(BarrierError {
                    cause: Broken::Died,
                });
            }
            // Release, acquire: what each party did before is seen by all after.
            let has_come = self.deciding().compare_exchange(
                seen,
                base + 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            if has_come.is_err() {
                continue;
            }
            if self.is_complete(base + 1) {
                self.open_gate(round);
                return Ok(BarrierWaitResult {
                    index: come as usize,
                });
            }
            break (Coming { round, resets }, come as usize);
        };
        self.wait_for_round(coming, deadline)
            .map(|()| BarrierWaitResult { index })
    }

    /// Waits until the round is over in which this one came.
    fn wait_for_round(&self, coming: Coming, deadline: Deadline) -> Result<(), BarrierError> {
        let Coming { round, .. } = coming;
        let _pending = pending_on(self.slot.mapping(), self.gate_offset(round));
        if limits::processors() >= self.parties {
            SPIN.with_borrow_mut(|spin| spin.until(|| self.outcome(coming).is_some()));
        }
        let mut has_slept = false;
        let outcome = loop {
            if let Some(outcome) = self.outcome(coming) {
                break outcome;
            }
            self.arm_gate(round);
            // What comes after this look at the deciding word is not missed by the sleep, which has it unchanged.
            let seen = self.deciding().load(Ordering::Acquire);
            if self.outcome(coming).is_some() {
                continue;
            }
            if self.is_any_dead(round) {
                self.break_round(round, Broken::Died);
                continue;
            }
            has_slept = true;
            if !self.sleep(round, seen, deadline) {
                self.break_round(round, Broken::TimedOut);
            }
        };
        if has_slept {
            // Who ended the round may have died before it could wake the others.
            futex::wake(self.gate(round), i32::MAX);
        }
        outcome.map_err(|cause| BarrierError { cause })
    }

    /// What became of the round in which one came, if it is over.
    fn outcome(&self, coming: Coming) -> Option<Result<(), Broken>> {
        let seen = self.deciding().load(Ordering::Acquire);
        let Coming { round, resets } = coming;
        if round_of(seen) == round {
            if let Some(cause) = cause_of(seen) {
                return Some(Err(cause));
            }
            return self.is_complete(seen).then_some(Ok(()));
        }
        // Without a reset, a round is left only when it is complete.
        let is_complete = self.at(RESETS).load(Ordering::Acquire) == resets
            || self.completed(round).load(Ordering::Acquire) == round + 1;
        Some(if is_complete {
            Ok(())
        } else {
            Err(Broken::Reset)
        })
    }

    /// Sleeps until the round may be over, or somebody of it may have died. False when the deadline has passed.
    fn sleep(&self, round: u64, seen: u64, deadline: Deadline) -> bool {
        let gate = Watched {
            word: self.gate(round),
            low: armed(round),
        };
        let deciding = Watched {
            word: self.deciding(),
            low: (seen & u64::from(u32::MAX)) as u32,
        };
        let me = this_thread();
        let start = me as usize % self.seats();
        // From the next seat on, around: so that each is watched by somebody, where there are too many for one.
        let others = (1..self.seats())
            .map(|past| (start + past) % self.seats())
            .filter(|&seat| self.label(seat).load(Ordering::Acquire) == round + 1)
            .map(|seat| self.word(seat))
            .filter(|word| word.holder() != Some(me))
            .filter_map(Word::watch);
        let words: Vec<Watched<'_>> = [gate, deciding]
            .into_iter()
            .chain(others)
            .take(WATCHED_MAX)
            .collect();
        futex::wait_for_any(&words, deadline)
            .unwrap_or_else(|| futex::wait(self.gate(round), armed(round), deadline))
    }

    /// Changes the deciding word as `next` says, and ends the round that it leaves.
    fn move_on(&self, next: impl Fn(u64) -> Option<u64>) {
        loop {
            let seen = self.deciding().load(Ordering::Acquire);
            let Some(to) = next(seen) else { return };
            let round = round_of(seen);
            if self.is_complete(seen) {
                self.note_completed(round);
            }
            let _pending = pending_on(self.slot.mapping(), self.gate_offset(round));
            let changed =
                self.deciding()
                    .compare_exchange(seen, to, Ordering::AcqRel, Ordering::Relaxed);
            if changed.is_ok() {
                return self.open_gate(round);
            }
        }
    }

    /// Breaks that round, unless it is over.
    fn break_round(&self, round: u64, cause: Broken) {
        self.move_on(|seen| {
            let goes_on = round_of(seen) == round && seen & CAUSE == 0;
            (goes_on && !self.is_complete(seen))
                .then_some(seen & !COME | (cause as u64) << CAUSE_SHIFT)
        });
    }

    fn note_completed(&self, round: u64) {
        self.completed(round).fetch_max(round + 1, Ordering::AcqRel);
    }

    fn arm_gate(&self, round: u64) {
        self.gate(round)
            .store(u64::from(armed(round)), Ordering::Release);
        // Pairs with the fence in `open_gate`.
        fence(Ordering::SeqCst);
    }

    /// After a round has ended: wakes all who sleep for it.
    fn open_gate(&self, round: u64) {
        // Pairs with the fence in `arm_gate`.
        fence(Ordering::SeqCst);
        let gate = self.gate(round);
        if gate.load(Ordering::Relaxed) != 0 {
            gate.store(0, Ordering::Release);
            futex::wake(gate, i32::MAX);
        }
    }

    /// Takes a seat. Each thread begins to look at another one. Where there is none (many waiters of rounds that were reset
    /// have not left yet), it waits without: only its death would not be noticed.
    fn sit_down(&self) -> Option<(usize, Held<'_>)> {
        let start = this_thread() as usize;
        (0..self.seats())
            .map(|past| (start + past) % self.seats())
            .find_map(|seat| {
                // A dead one's seat is what tells of its death, as long as its round is not over.
                let word = self.word(seat);
                let round = round_of(self.deciding().load(Ordering::Acquire));
                let is_of_round = || self.label(seat).load(Ordering::Acquire) > round;
                if word.is_died() && is_of_round() {
                    return None;
                }
                let held = word.try_acquire()?;
                if held.owner_died() && is_of_round() {
                    // It has died between these two looks.
                    self.break_round(round, Broken::Died);
                }
                Some((seat, held))
            })
    }

    /// Whether one who had come for that round is dead.
    fn is_any_dead(&self, round: u64) -> bool {
        (0..self.seats()).any(|seat| {
            self.word(seat).is_died() && self.label(seat).load(Ordering::Acquire) == round + 1
        })
    }

    fn is_complete(&self, seen: u64) -> bool {
        seen & CAUSE == 0 && seen & COME >= self.parties as u64
    }

    /// Enough for a round, for those that are leaving the one before, and for some that were slow.
    fn seats_of(parties: usize) -> usize {
        if cfg!(all(test, loom)) {
            return parties + 1; // Each is looked at so often that more of them make a model endless.
        }
        2 * parties + 8
    }

    fn len(parties: usize) -> usize {
        SEATS + Barrier::seats_of(parties) * SEAT
    }

    fn seats(&self) -> usize {
        Barrier::seats_of(self.parties)
    }

    fn at(&self, offset: usize) -> &AtomicU64 {
        self.slot.mapping().word(self.slot.offset() + offset)
    }

    fn deciding(&self) -> &AtomicU64 {
        self.at(DECIDING)
    }

    fn completed(&self, round: u64) -> &AtomicU64 {
        self.at(COMPLETED + (round % COMPLETED_RING) as usize * 8)
    }

    fn gate_offset(&self, round: u64) -> usize {
        self.slot.offset() + GATE + (round % GATES) as usize * Word::LEN
    }

    fn gate(&self, round: u64) -> &AtomicU64 {
        self.slot.mapping().word(self.gate_offset(round))
    }

    fn word(&self, seat: usize) -> Word<'_> {
        let offset = self.slot.offset() + SEATS + seat * SEAT;
        Word::at(self.slot.mapping(), offset)
    }

    fn label(&self, seat: usize) -> &AtomicU64 {
        self.at(SEATS + seat * SEAT + LABEL)
    }
}

/// What an armed gate is: no bit that the kernel takes for part of a thread's number, and another one when the ring of gates
/// has come round.
fn armed(round: u64) -> u32 {
    if (round / GATES) % 2 == 0 {
        1 << 31
    } else {
        1 << 30
    }
}

fn round_of(deciding: u64) -> u64 {
    deciding >> ROUND_SHIFT
}

fn next_round(seen: u64) -> u64 {
    round_of(seen).wrapping_add(1) << ROUND_SHIFT
}

fn cause_of(seen: u64) -> Option<Broken> {
    match (seen & CAUSE) >> CAUSE_SHIFT {
        0 => None,
        1 => Some(Broken::TimedOut),
        2 => Some(Broken::Died),
        3 => Some(Broken::Aborted),
        _ => Some(Broken::Reset),
    }
}

impl fmt::Debug for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Barrier")
            .field("parties", &self.parties)
            .field("waiting", &self.waiting())
            .field("broken", &cause_of(self.deciding().load(Ordering::Relaxed)))
            .finish()
    }
}

impl Serialize for Barrier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.parties as u64, &self.slot).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Barrier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (parties, slot) = <(u64, Slot)>::deserialize(deserializer)?;
        let parties = usize::try_from(parties)
            .ok()
            .filter(|parties| (1..=PARTIES_MAX).contains(parties))
            .filter(|&parties| slot.len() == Barrier::len(parties))
            .ok_or_else(|| D::Error::custom("shared memory came that is no barrier"))?;
        Ok(Barrier { slot, parties })
    }
}
