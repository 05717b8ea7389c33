//! A party: it takes a seat, comes, and waits until its round is over.

use crate::deadline::Deadline;
use crate::shm::{LONGEST_OF_CLIENT, Spin};
use crate::sync::barrier::broken::{BarrierError, BarrierWaitResult, Broken};
use crate::sync::barrier::rounds::{
    COME, Rounds, armed, broken_by, cause_of, is_reset, next_round, round_of,
};
use crate::sys::atomic::Ordering;
use crate::sys::clock;
use crate::sys::futex::{self, WATCHED_MAX, Watched};
use crate::sys::limits;
use crate::sys::robust::{Held, pending_on, this_thread};
use crate::sys::step::step;
use std::cell::RefCell;
use std::time::Duration;

/// How long one sleeps that can sleep on one word only, before it looks itself.
const UNSEEN_MAX: Duration = Duration::from_secs(1);

thread_local! {
    static SPIN: RefCell<Spin> = RefCell::new(Spin::new(LONGEST_OF_CLIENT));
}

impl Rounds {
    pub(crate) fn wait_until(&self, deadline: Deadline) -> Result<BarrierWaitResult, BarrierError> {
        let seat = self.sit_down();
        step!("barrier::come::seated");
        let label = seat.as_ref().map(|(seat, _)| self.label(*seat));
        let mut pending = None;
        let (round, index) = loop {
            let seen = self.deciding().load(Ordering::Acquire);
            if is_reset(seen) {
                // Who resets it may have died before it could leave the round.
                self.leave_broken(round_of(seen));
                continue;
            }
            if let Some(cause) = cause_of(seen) {
                return Err(BarrierError { cause });
            }
            let base = if self.is_complete(seen) {
                next_round(seen)
            } else {
                seen
            };
            let round = round_of(base);
            // From its label on, one that dies counts as one that waits: the kernel is to wake one of those at once.
            if pending.as_ref().is_none_or(|(of, _)| *of != round) {
                drop(pending.take());
                let gate = pending_on(self.slot.mapping(), self.gate_offset(round));
                pending = Some((round, gate));
            }
            if let Some(label) = label {
                label.store(round + 1, Ordering::Release);
            }
            step!("barrier::come::labelled");
            let come = base & COME;
            if come + 1 >= self.parties as u64 && self.is_any_dead(round) {
                // Where that is not what is there any more, this one comes to what is.
                self.move_on(|now| (now == seen).then(|| broken_by(base, Broken::Died)));
                continue;
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
            step!("barrier::come::counted");
            if self.is_complete(base + 1) {
                self.open_gate(round);
                return Ok(BarrierWaitResult {
                    index: come as usize,
                });
            }
            break (round, come as usize);
        };
        step!("barrier::come::waits");
        self.wait_for_round(round, deadline)
            .map(|()| BarrierWaitResult { index })
    }

    /// Waits until the round is over in which this one came.
    fn wait_for_round(&self, round: u64, deadline: Deadline) -> Result<(), BarrierError> {
        if limits::processors() >= self.parties {
            SPIN.with_borrow_mut(|spin| spin.until(|| self.outcome(round).is_some()));
        }
        let (mut has_armed, mut slept_since) = (false, None);
        let outcome = loop {
            if let Some(outcome) = self.outcome(round) {
                break outcome;
            }
            has_armed = true;
            self.arm_gate(round);
            step!("barrier::wait::armed");
            // What comes after this look at the deciding word is not missed by the sleep, which has it unchanged.
            let seen = self.deciding().load(Ordering::Acquire);
            if self.outcome(round).is_some() {
                continue;
            }
            if self.is_any_dead(round) {
                self.break_round(round, Broken::Died);
                continue;
            }
            slept_since.get_or_insert_with(clock::monotonic_nanos);
            let is_in_time = self.sleep(round, seen, deadline);
            step!("barrier::wait::woken");
            if !is_in_time {
                self.break_round(round, Broken::TimedOut);
            }
        };
        step!("barrier::wait::over");
        if let Some(since) = slept_since {
            // A round that is slept through costs two wake-ups, and who comes late for the next one lets the others sleep in it.
            // Without a lesson from each sleep, those who once slept would go on so. Where a round broke, this one may have woken
            // itself.
            if outcome.is_ok() {
                SPIN.with_borrow_mut(|spin| spin.learn_of_wake(since, self.last_wake()));
            }
        }
        if has_armed {
            // Who ended the round may have died before it could wake the others, or may have done so before this one armed the gate
            // anew, for which another may have gone to sleep since.
            self.disarm_gate(round);
        }
        outcome.map_err(|cause| BarrierError { cause })
    }

    /// What became of the round in which one came, if it is over.
    fn outcome(&self, round: u64) -> Option<Result<(), Broken>> {
        let seen = self.deciding().load(Ordering::Acquire);
        let cause = if round_of(seen) != round {
            self.cause_noted(round)
        } else if self.is_complete(seen) {
            None
        } else {
            Some(cause_of(seen)?)
        };
        Some(cause.map_or(Ok(()), Err))
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
        // From another seat on for each, around: so that each is watched by somebody, where there are too many for one.
        let mut words = vec![gate, deciding];
        for past in 0..self.seats() {
            let seat = (start + past) % self.seats();
            if words.len() == WATCHED_MAX {
                break;
            }
            let word = self.word(seat);
            if self.label(seat).load(Ordering::Acquire) != round + 1 || word.holder() == Some(me) {
                continue;
            }
            step!("barrier::sleep::sees");
            match word.watch() {
                Some(watched) => words.push(watched),
                // It has died since it was looked last, and has woken nobody, as nobody slept.
                None if word.is_died() => return !deadline.has_passed(),
                None => {}
            }
        }
        futex::wait_for_any(&words, deadline).unwrap_or_else(|| {
            // On one word alone it is not told of all that it has to see.
            let soon = deadline.or_after(UNSEEN_MAX);
            futex::wait(self.gate(round), armed(round), soon) || !deadline.has_passed()
        })
    }

    /// Takes a seat. Each thread begins to look at another one. Where there is none (many waiters of rounds that were reset
    /// have not left yet), it waits without: only its death would not be noticed.
    pub(crate) fn sit_down(&self) -> Option<(usize, Held<'_>)> {
        let start = this_thread() as usize;
        (0..self.seats())
            .map(|past| (start + past) % self.seats())
            .find_map(|seat| {
                // A dead one's seat is what tells of its death, as long as its round is not over.
                let held = self.word(seat).try_acquire_unless(|| {
                    let label = self.label(seat).load(Ordering::Acquire);
                    let seen = self.deciding().load(Ordering::Acquire);
                    label > round_of(seen) + u64::from(self.is_complete(seen))
                })?;
                Some((seat, held))
            })
    }
}
