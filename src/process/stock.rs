//! How many processes a fork server forks ahead of need, and which of them it has offered.
//!
//! | what happens | then |
//! |---|---|
//! | a start for which none was there | two more are wanted, up to twice as many as can run at once, and [`MANY`]; not for the first few starts, which one pool may be all of |
//! | some have left, since nobody needed them | as many fewer are wanted |
//! | one is used, and fewer than half of those wanted are left | another is forked at once |
//! | one is used, and half are left | another is forked when nothing was asked for during [`QUIET`] |
//! | what they are born with changes | none is wanted, and starts are counted anew |
//! | none can be forked | none is wanted till the next start |
//!
//! They are forked one at a time, when there is nothing else to do. To fork takes a processor as long as a process takes to start, and
//! a pool that starts as many as there are processors has none to spare: it uses half of them, and the others are forked behind that.

use crate::deadline::Deadline;
use crate::process::request::Offer;
use crate::sys::limits;
use crate::sys::pidfd::PidFd;
use crate::sys::poll::readable;
use std::os::fd::AsFd;
use std::time::Duration;

/// For so many starts none are forked, at least, and where there are many processors, at most.
const FEW: usize = 2;
/// There are never more than this either: an offer is two descriptors on their way, of which a user may have as many as one
/// process of that user may open files, 64 say.
const MANY: usize = 8;

/// Longer than a pool takes to start; what comes one after the other, quicker than that, uses up the half and is forked for at once.
const QUIET: Duration = Duration::from_millis(1);

#[derive(Debug, Default)]
pub(crate) struct Stock {
    /// The application may have used them by now, or let them go.
    offered: Vec<(Offer, PidFd)>,
    /// How many were ever made.
    made: u64,
    wanted: usize,
    /// For how many starts none was there.
    missed: usize,
    /// Whether there may be too few.
    is_due: bool,
    /// The last request that changed what they are born with.
    after: u64,
    /// 0 until it is asked for.
    processors: usize,
}

impl Stock {
    /// None was there for a start.
    pub(crate) fn miss(&mut self) {
        let before = self.offered.len();
        self.offered.retain(|(_, process)| is_there(process));
        self.wanted = self.wanted.saturating_sub(before - self.offered.len());
        self.missed = self.missed.saturating_add(1);
        if self.missed > FEW && self.missed > self.processors().min(MANY) {
            let most = (2 * self.processors()).clamp(FEW, MANY);
            self.wanted = (self.wanted + 2).min(most);
            self.is_due = true;
        }
    }

    /// How many there are, which takes a while to find out. Not by `limits::processors`, which remembers it for what is forked
    /// here as well, and that may be kept to others.
    fn processors(&mut self) -> usize {
        if self.processors == 0 {
            self.processors = limits::available_parallelism();
        }
        self.processors
    }

    /// The application has used this one: its pid and its pidfd.
    pub(crate) fn take(&mut self, number: u64) -> Option<(u32, PidFd)> {
        let is_it = |(offer, _): &(Offer, PidFd)| offer.number == number;
        let at = self.offered.iter().position(is_it)?;
        self.is_due = true;
        let (offer, process) = self.offered.remove(at);
        Some((offer.pid, process))
    }

    /// What they are born with changes with this request: those that there are will not be used.
    pub(crate) fn turn_over(&mut self, request: u64) {
        *self = Stock {
            made: self.made,
            after: request,
            ..Stock::default()
        };
    }

    pub(crate) fn is_short(&self) -> bool {
        self.is_due && self.offered.len() < self.wanted
    }

    /// Until when requests are waited for before the next is forked.
    pub(crate) fn patience(&self) -> Deadline {
        self.pause().map_or(Deadline::NEVER, Deadline::after)
    }

    /// How long that is; `None` where none is to be forked.
    fn pause(&self) -> Option<Duration> {
        let is_half_left = 2 * self.offered.len() >= self.wanted;
        let pause = if is_half_left { QUIET } else { Duration::ZERO };
        self.is_short().then_some(pause)
    }

    /// None can be forked now.
    pub(crate) fn give_up(&mut self) {
        self.wanted = 0;
        self.is_due = false;
    }

    /// The offer of one that was forked just now.
    pub(crate) fn next(&mut self, pid: u32) -> Offer {
        self.made += 1;
        Offer {
            number: self.made,
            pid,
            after: self.after,
        }
    }

    /// It was offered.
    pub(crate) fn put(&mut self, offer: &Offer, process: PidFd) {
        self.offered.push((*offer, process));
    }

    /// In a forked process: closes what is held of them.
    pub(crate) fn close(&mut self) {
        self.offered.drain(..).for_each(drop);
    }
}

/// Whether a process may be alive.
pub(crate) fn is_there(process: &PidFd) -> bool {
    let now = Deadline::after(Duration::ZERO);
    !readable([process.as_fd()], now).is_ok_and(|[ended]| ended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::identity;

    fn ourselves() -> PidFd {
        PidFd::open(identity::pid()).unwrap()
    }

    fn offer(stock: &mut Stock) -> u64 {
        let offer = stock.next(7);
        stock.put(&offer, ourselves());
        offer.number
    }

    /// Whether it is forked at once, where one is lacking.
    fn is_urgent(stock: &Stock) -> bool {
        stock.pause() == Some(Duration::ZERO)
    }

    #[test]
    fn a_few_starts_want_none_and_further_ones_two_for_each_that_was_lacking() {
        let mut stock = Stock::default();
        let few = limits::available_parallelism().clamp(FEW, MANY);
        for _ in 0..few {
            stock.miss();
            assert!(!stock.is_short());
        }
        stock.miss();
        assert!(is_urgent(&stock));
        let first = offer(&mut stock);
        assert!(stock.is_short() && !is_urgent(&stock));
        let second = offer(&mut stock);
        assert!(!stock.is_short());
        assert_eq!(stock.take(first).unwrap().0, 7);
        assert!(stock.take(first).is_none());
        assert!(stock.is_short() && !is_urgent(&stock), "half are left");
        stock.take(second).unwrap();
        assert!(is_urgent(&stock));
        stock.give_up();
        assert!(!stock.is_short());
    }

    #[test]
    fn a_change_of_what_they_are_born_with_begins_anew_and_is_told_with_each_offer() {
        let mut stock = Stock::default();
        for _ in 0..=MANY.max(FEW) {
            stock.miss();
        }
        let number = offer(&mut stock);
        stock.turn_over(12);
        assert!(stock.take(number).is_none() && !stock.is_short());
        let next = stock.next(8);
        assert_eq!((next.after, next.number), (12, number + 1));
    }
}
