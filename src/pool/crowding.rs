//! When a worker is sent to another processor.
//!
//! The kernel wakes a process near to the one that wakes it: on the very processor, as a rule, if that one is about to sleep and
//! no other counts as idle. In a virtual machine none may: one that is halted is one that the host has taken away, to the
//! kernel's eyes. So a caller and its worker come to be on one processor, and stay there for as long as they ask and answer
//! in turn, while another idles; neither can spin, and each call costs four changes between them. A caller that finds again
//! and again that all who work for it are on its own processor therefore sends one of them away.
//!
//! | the caller | the worker |
//! |---|---|
//! | raises the word `AWAY` of its side of the link | |
//! | stays awake for a few waits, and leaves its processor to the worker by `sched_yield` | before it sleeps, or when it wakes, sees the word: goes elsewhere, notes where that is, and spins |
//! | sees where the worker is, and spins as always | |
//!
//! Were the caller asleep when the worker rings from where it went, it would be woken there too.
//!
//! Where the other processors are busy with something else, all that does not help, and costs the worker a wait for its turn there.
//! So each time makes the caller twice as patient, and as many waits in which it spun and was answered make it as impatient as
//! at first. A wait that takes long is not worth it. Nor is it done where a system call more may be the death of a worker
//! (see `has_filter_of_calls`), nor by the pool's own thread, which never spins. Either side may die, or take no notice, at any step:
//! then the caller sleeps as before.

use std::time::Duration;

/// How many waits in a row in which all are on one processor it takes at first.
const FIRST: u32 = 4;
/// The most it takes: with 10 us for each, once in half a second or more.
const MOST: u32 = 1 << 16;
/// A wait that takes as long is not to be made shorter by a few microseconds.
const LONG: Duration = Duration::from_micros(200);
/// For how many waits the caller stays awake for a worker that it has sent away.
const AWAKE: u32 = 4;

/// Where those run who work for a caller, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Company {
    /// Nobody works.
    None,
    /// All on the caller's processor.
    Here,
    /// One at least on another.
    Elsewhere,
}

/// What a caller does that waits for news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    Sleep,
    Spin,
    /// Spins, and leaves its processor to whoever wants it.
    Yield,
    /// Sends one of the workers away, and does as in `Yield`.
    SendAway,
}

/// How long a caller and its workers have been on one processor.
#[derive(Debug)]
pub(crate) struct Crowding {
    together: u32,
    apart: u32,
    patience: u32,
    /// For how many waits more it stays awake.
    awake: u32,
}

impl Crowding {
    pub(crate) fn new() -> Crowding {
        Crowding {
            together: 0,
            apart: 0,
            patience: FIRST,
            awake: 0,
        }
    }

    /// Takes in where the workers are in this wait.
    pub(crate) fn advise(&mut self, company: Company) -> Advice {
        match company {
            Company::None => Advice::Sleep,
            Company::Elsewhere => {
                self.together = 0;
                self.awake = 0;
                Advice::Spin
            }
            Company::Here if self.awake > 0 => {
                self.awake -= 1;
                Advice::Yield
            }
            Company::Here => {
                self.apart = 0;
                self.together += 1;
                if self.together < self.patience {
                    return Advice::Sleep;
                }
                self.together = 0;
                self.patience = (self.patience * 2).min(MOST);
                self.awake = AWAKE;
                Advice::SendAway
            }
        }
    }

    /// The caller has spun, and was answered.
    pub(crate) fn pays(&mut self) {
        self.apart = self.apart.saturating_add(1);
        if self.apart >= self.patience {
            self.patience = FIRST;
        }
    }

    /// The caller has slept for so long.
    pub(crate) fn slept(&mut self, slept: Duration) {
        if slept >= LONG {
            self.together = 0;
        }
    }

    /// Nothing came while the caller stayed awake for a worker that it had sent away.
    pub(crate) fn give_up(&mut self) {
        self.awake = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many crowded waits pass until one is sent away.
    fn patience(crowding: &mut Crowding) -> u32 {
        crowding.give_up();
        let sleeps = |_: &u32| crowding.advise(Company::Here) == Advice::Sleep;
        1 + (0..).take_while(sleeps).count() as u32
    }

    #[test]
    fn each_time_takes_twice_as_long_as_the_one_before() {
        let mut crowding = Crowding::new();
        for expected in [FIRST, 2 * FIRST, 4 * FIRST] {
            assert_eq!(patience(&mut crowding), expected);
        }
        for _ in 0..20 {
            patience(&mut crowding);
        }
        assert_eq!(patience(&mut crowding), MOST);
    }

    #[test]
    fn who_was_answered_by_another_processor_for_as_long_is_as_impatient_as_at_first() {
        let mut crowding = Crowding::new();
        assert_eq!(patience(&mut crowding), FIRST);
        // Elsewhere, but not to be had.
        for _ in 0..100 {
            assert_eq!(crowding.advise(Company::Elsewhere), Advice::Spin);
        }
        for _ in 1..2 * FIRST {
            crowding.pays();
        }
        assert_eq!(patience(&mut crowding), 2 * FIRST);
        for _ in 0..4 * FIRST {
            crowding.pays();
        }
        assert_eq!(patience(&mut crowding), FIRST);
    }

    #[test]
    fn waits_that_are_not_in_a_row_do_not_count() {
        let mut crowding = Crowding::new();
        for _ in 0..100 {
            for _ in 1..FIRST {
                assert_eq!(crowding.advise(Company::Here), Advice::Sleep);
            }
            assert_eq!(crowding.advise(Company::Elsewhere), Advice::Spin);
        }
        for _ in 0..100 {
            for _ in 1..FIRST {
                assert_eq!(crowding.advise(Company::Here), Advice::Sleep);
            }
            crowding.slept(LONG);
        }
    }

    #[test]
    fn who_has_sent_one_away_stays_awake_until_it_is_gone_or_for_a_few_waits() {
        let mut crowding = Crowding::new();
        patience(&mut crowding);
        for _ in 0..AWAKE {
            assert_eq!(crowding.advise(Company::Here), Advice::Yield);
        }
        assert_eq!(crowding.advise(Company::Here), Advice::Sleep);
        patience(&mut crowding);
        assert_eq!(crowding.advise(Company::Elsewhere), Advice::Spin);
        assert_eq!(crowding.advise(Company::Here), Advice::Sleep);
    }
}
