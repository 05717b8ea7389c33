//! The barrier in shared memory: the word that decides, the gates of its rounds, the seats of those that come.

use crate::error::Result;
use crate::shm::{Slot, note_wake};
use crate::sync::barrier::broken::Broken;
use crate::sync::object;
use crate::sys::atomic::{AtomicU64, Ordering, fence};
use crate::sys::futex;
use crate::sys::part::Part;
use crate::sys::robust::{Word, pending_on};
use crate::sys::step::step;
use std::cmp::Ordering as Ordinal;

pub(crate) const PARTIES_MAX: usize = 8000;
/// How many rounds back a slow waiter surely learns what became of its own.
const BROKEN_RING: u64 = if cfg!(all(test, loom)) { 2 } else { 64 };
const GATES: u64 = if cfg!(all(test, loom)) { 2 } else { 16 };

// Places.
const DECIDING: usize = 0;
const WAKE: usize = 8;
const BROKEN: usize = 64;
const GATE: usize = BROKEN + BROKEN_RING as usize * 8;
const SEATS: usize = GATE + GATES as usize * Word::LEN;
/// A seat has a line of its own: a word, and the label behind it.
const SEAT: usize = 64;
const LABEL: usize = Word::LEN;

// The deciding word. Its 48 bits of rounds last a year, at ten million rounds a second.
pub(crate) const COME: u64 = (1 << 13) - 1;
const CAUSE_SHIFT: u32 = 13;
pub(crate) const CAUSE: u64 = 7 << CAUSE_SHIFT;
const ROUND_SHIFT: u32 = 16;

/// A barrier's place in shared memory.
#[derive(Clone)]
pub(crate) struct Rounds {
    pub(crate) slot: Slot,
    pub(crate) parties: usize,
}

impl Rounds {
    pub(crate) fn allocate(parties: usize) -> Result<Rounds> {
        let slot = object::allocate("barrier", Rounds::len(parties))?;
        Ok(Rounds { slot, parties })
    }

    /// The rounds that have come from elsewhere, if that can be.
    pub(crate) fn of(parties: u64, slot: Slot) -> Option<Rounds> {
        let parties = usize::try_from(parties)
            .ok()
            .filter(|parties| (1..=PARTIES_MAX).contains(parties))
            .filter(|&parties| slot.len() == Rounds::len(parties))?;
        Some(Rounds { slot, parties })
    }

    /// Changes the deciding word as `next` says, and ends the round that it breaks or leaves. Returns what the word was.
    pub(crate) fn move_on(&self, next: impl Fn(u64) -> Option<u64>) -> u64 {
        loop {
            let seen = self.deciding().load(Ordering::Acquire);
            let Some(to) = next(seen) else { return seen };
            let round = round_of(seen);
            if round_of(to) != round {
                self.note(seen);
            }
            let _pending = pending_on(self.slot.mapping(), self.gate_offset(round));
            let changed =
                self.deciding()
                    .compare_exchange(seen, to, Ordering::AcqRel, Ordering::Relaxed);
            if changed.is_ok() {
                step!("barrier::move::changed");
                self.open_gate(round);
                return seen;
            }
        }
    }

    /// Breaks that round, unless it is over.
    pub(crate) fn break_round(&self, round: u64, cause: Broken) {
        self.move_on(|seen| {
            let goes_on = round_of(seen) == round && seen & CAUSE == 0;
            (goes_on && !self.is_complete(seen)).then_some(broken_by(seen, cause))
        });
    }

    /// Leaves that round if it is broken, for the next one, which is whole.
    pub(crate) fn leave_broken(&self, round: u64) {
        self.move_on(|seen| {
            (round_of(seen) == round && seen & CAUSE != 0).then_some(next_round(seen))
        });
    }

    /// Before a round is left: notes that it broke, if it did, and why. Nothing else happens to a broken round than that it is left. One
    /// in which nobody had come is nobody's to learn about, and takes no place from others.
    fn note(&self, seen: u64) {
        if seen & CAUSE != 0 && seen & COME != 0 {
            self.broken(round_of(seen))
                .fetch_max(seen, Ordering::AcqRel);
            step!("barrier::move::noted");
        }
    }

    /// Why a round broke that has been left; nothing, if it was complete.
    pub(crate) fn cause_noted(&self, round: u64) -> Option<Broken> {
        let noted = self.broken(round).load(Ordering::Acquire);
        match round_of(noted).cmp(&round) {
            Ordinal::Less => None,
            Ordinal::Equal => cause_of(noted),
            // One broke that came dozens of rounds later, and was left, by a reset.
            Ordinal::Greater => Some(Broken::Reset),
        }
    }

    pub(crate) fn arm_gate(&self, round: u64) {
        self.gate(round)
            .store(u64::from(armed(round)), Ordering::Release);
        // Pairs with the fence in `open_gate`.
        fence(Ordering::SeqCst);
    }

    /// After a round has ended: wakes all who sleep for it.
    pub(crate) fn open_gate(&self, round: u64) {
        // Pairs with the fence in `arm_gate`.
        fence(Ordering::SeqCst);
        let gate = self.gate(round);
        let seen = gate.load(Ordering::Relaxed);
        if seen != 0 {
            note_wake(self.last_wake());
            // Unless the ring has come round meanwhile, and others have armed it for a later round.
            let _ = gate.compare_exchange(seen, 0, Ordering::AcqRel, Ordering::Relaxed);
            step!("barrier::gate::open");
            futex::wake(gate, i32::MAX);
            step!("barrier::gate::woken");
        }
    }

    /// Who armed the gate leaves, after the round has ended: nobody is to sleep there for it any more. Who has armed it for a later
    /// round, once the ring has come round, is woken and arms it anew.
    pub(crate) fn disarm_gate(&self, round: u64) {
        let gate = self.gate(round);
        let is_armed = u64::from(armed(round));
        if gate.load(Ordering::Relaxed) == is_armed {
            let _ = gate.compare_exchange(is_armed, 0, Ordering::AcqRel, Ordering::Relaxed);
        }
        futex::wake(gate, i32::MAX);
    }

    /// What is known of the last time that sleepers were woken.
    pub(crate) fn last_wake(&self) -> [&AtomicU64; 2] {
        [self.at(WAKE), self.at(WAKE + 8)]
    }

    /// Whether one who had come for that round is dead.
    pub(crate) fn is_any_dead(&self, round: u64) -> bool {
        // Every last one of a round looks at all of them: what they are parts of is looked up once.
        let part = self.part();
        (0..self.seats()).any(|seat| {
            // In this order: who takes a dead one's seat does so before it labels it anew.
            self.label(seat).load(Ordering::Acquire) == round + 1
                && Word::of(part, SEATS + seat * SEAT).is_died()
        })
    }

    pub(crate) fn is_complete(&self, seen: u64) -> bool {
        seen & CAUSE == 0 && seen & COME >= self.parties as u64
    }

    /// Enough for a round, for those that are leaving the one before, and for some that were slow.
    pub(crate) fn seats_of(parties: usize) -> usize {
        if cfg!(all(test, loom)) {
            return parties + 1; // Each is looked at so often that more of them make a model endless.
        }
        2 * parties + 8
    }

    pub(crate) fn len(parties: usize) -> usize {
        SEATS + Rounds::seats_of(parties) * SEAT
    }

    pub(crate) fn seats(&self) -> usize {
        Rounds::seats_of(self.parties)
    }

    fn part(&self) -> Part<'_> {
        self.slot.part(Rounds::len(self.parties))
    }

    pub(crate) fn at(&self, offset: usize) -> &AtomicU64 {
        self.part().word(offset)
    }

    pub(crate) fn deciding(&self) -> &AtomicU64 {
        self.at(DECIDING)
    }

    fn broken(&self, round: u64) -> &AtomicU64 {
        self.at(BROKEN + (round % BROKEN_RING) as usize * 8)
    }

    pub(crate) fn gate_offset(&self, round: u64) -> usize {
        self.slot.offset() + GATE + (round % GATES) as usize * Word::LEN
    }

    pub(crate) fn gate(&self, round: u64) -> &AtomicU64 {
        self.at(GATE + (round % GATES) as usize * Word::LEN)
    }

    pub(crate) fn word(&self, seat: usize) -> Word<'_> {
        Word::of(self.part(), SEATS + seat * SEAT)
    }

    pub(crate) fn label(&self, seat: usize) -> &AtomicU64 {
        self.at(SEATS + seat * SEAT + LABEL)
    }
}

/// What an armed gate is: no bit that the kernel takes for part of a thread's number, and another one when the ring of gates
/// has come round.
pub(crate) fn armed(round: u64) -> u32 {
    if (round / GATES) % 2 == 0 {
        1 << 31
    } else {
        1 << 30
    }
}

pub(crate) fn round_of(deciding: u64) -> u64 {
    deciding >> ROUND_SHIFT
}

/// The deciding word of a round, broken, with as many as had come.
pub(crate) fn broken_by(seen: u64, cause: Broken) -> u64 {
    seen & !CAUSE | (cause as u64) << CAUSE_SHIFT
}

pub(crate) fn next_round(seen: u64) -> u64 {
    round_of(seen).wrapping_add(1) << ROUND_SHIFT
}

/// Whether a reset has broken the round, which who comes is to leave.
pub(crate) fn is_reset(deciding: u64) -> bool {
    cause_of(deciding) == Some(Broken::Reset)
}

pub(crate) fn cause_of(seen: u64) -> Option<Broken> {
    match (seen & CAUSE) >> CAUSE_SHIFT {
        0 => None,
        1 => Some(Broken::TimedOut),
        2 => Some(Broken::Died),
        3 => Some(Broken::Aborted),
        _ => Some(Broken::Reset),
    }
}
