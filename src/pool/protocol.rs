//! What a pool and its worker say to each other over their link.
//!
//! Each item that is sent to a worker has a *ticket*: its number on that link, counted from 0. Which tickets a worker may
//! begin stands in the link's shared word, as two 32-bit halves: the upper is where its permission ends, the lower where it
//! has got to. Both sides change it by compare-and-swap only:
//!
//! | who | changes | when |
//! |---|---|---|
//! | parent | raises the end | before it shows a chunk |
//! | worker | raises its place, up to the end | before it begins items |
//! | parent | lowers the end, not below the place | to take back items that were not begun |
//! | parent | sets both to the tickets sent | when the worker has passed over all that was taken back |
//!
//! The parent's note says up to which ticket it need not be woken for outcomes when it sleeps; a worker that waits for
//! something rings in any case. The worker's note says which ticket it has begun, plus 1; its second word, written before
//! that, when, if the item has a time limit.
//!
//! So an item that was taken back was never begun, whatever the moment; and a worker that finds no permission for an item
//! passes over it and says so.

use std::sync::atomic::{AtomicU64, Ordering};

/// Kinds of messages to a worker.
pub(crate) mod to_worker {
    /// Captures of a job: words are the job. The body is their encoding.
    pub(crate) const CAPTURES: u32 = 1;
    /// Items: words are the job, the first ticket, the lane, the function. The body is a batch's.
    pub(crate) const CHUNK: u32 = 2;
    /// A job's captures are not needed any more: words are the job.
    pub(crate) const FORGET: u32 = 3;
    /// As `CHUNK`, of a job with a time limit: items run one by one, and the worker's second word says when each began.
    pub(crate) const TIMED: u32 = 4;
    /// What to do before anything else: words are the memory limit, or 0, and the initializer, or 0. The body is the
    /// encoding of its arguments.
    pub(crate) const SETUP: u32 = 5;

    /// Whether a message has items.
    pub(crate) fn has_items(kind: u32) -> bool {
        matches!(kind, CHUNK | TIMED)
    }
}

/// Kinds of messages from a worker.
pub(crate) mod from_worker {
    /// Results: words are the first ticket, the lane, and the nanoseconds that the items took.
    pub(crate) const RESULTS: u32 = 1;
    /// One item failed: words are its ticket, 0, and nanoseconds. The body is its encoded `TaskError`.
    pub(crate) const FAILED: u32 = 2;
    /// Items were passed over: words are the first ticket.
    pub(crate) const SKIPPED: u32 = 3;
    /// The initializer has returned: words are the first ticket.
    pub(crate) const READY: u32 = 4;
    /// The initializer has failed: words likewise. The body is its encoded `TaskError`.
    pub(crate) const UNFIT: u32 = 5;
}

/// How much of what a worker has not begun is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    All,
    Half,
}

/// The permission word of a link.
#[derive(Debug)]
pub(crate) struct Permission<'a>(pub(crate) &'a AtomicU64);

impl Permission<'_> {
    /// Worker: claims up to `wanted` items from `ticket` on; returns how many it may begin.
    pub(crate) fn claim(&self, ticket: u64, wanted: usize) -> usize {
        let mut claimed = 0;
        self.change(|end, place| {
            claimed = 0;
            if place == ticket as u32 {
                let allowed = end.wrapping_sub(place);
                claimed = allowed.min(u32::try_from(wanted).unwrap_or(u32::MAX));
            }
            (end, place.wrapping_add(claimed))
        });
        claimed as usize
    }

    /// Parent: allows `count` items more.
    pub(crate) fn extend(&self, count: usize) {
        self.change(|end, place| (end.wrapping_add(count as u32), place));
    }

    /// Parent: takes back what was not begun, of `held` items that end at ticket `permitted`, but for the first
    /// `kept` of them: half of it, or all. Returns how many items that is; `None` if the word is nothing that a sound worker leaves there.
    ///
    /// This may be done again before the worker has passed over what was taken back first: it begins to only when its place
    /// is at the end, and then there is nothing left to take back.
    pub(crate) fn revoke(
        &self,
        permitted: u64,
        held: usize,
        kept: usize,
        share: Share,
    ) -> Option<usize> {
        let mut revoked = Some(0);
        self.change(|end, place| {
            let free = end.wrapping_sub(place);
            if end != permitted as u32 || free as usize > held {
                revoked = None;
                return (end, place);
            }
            let free = free.min((held - kept.min(held)) as u32);
            let taken = match share {
                Share::All => free,
                Share::Half => free.div_ceil(2),
            };
            revoked = Some(taken as usize);
            (end.wrapping_sub(taken), place)
        });
        revoked
    }

    /// Parent: starts anew at ticket `sent`, when the worker has nothing.
    pub(crate) fn restart(&self, sent: u64) {
        self.change(|_, _| (sent as u32, sent as u32));
    }

    fn change(&self, mut step: impl FnMut(u32, u32) -> (u32, u32)) {
        let mut old = self.0.load(Ordering::Acquire);
        loop {
            let (end, place) = step((old >> 32) as u32, old as u32);
            let new = u64::from(end) << 32 | u64::from(place);
            match self
                .0
                .compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return,
                Err(changed) => old = changed,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_begun_or_taken_back_and_never_both() {
        for round in 0..200u64 {
            let word = AtomicU64::new(0);
            // Near the wrap of 32 bits as well.
            let base = if round % 2 == 0 {
                0
            } else {
                u64::from(u32::MAX) - 20
            };
            Permission(&word).restart(base);
            Permission(&word).extend(1000);
            let (begun, taken) = std::thread::scope(|scope| {
                let worker = scope.spawn(|| {
                    let mut ticket = base;
                    loop {
                        let claimed = Permission(&word).claim(ticket, 3);
                        if claimed == 0 {
                            return ticket - base;
                        }
                        ticket += claimed as u64;
                    }
                });
                for _ in 0..round {
                    std::hint::spin_loop();
                }
                let taken = Permission(&word)
                    .revoke(
                        base + 1000,
                        1000,
                        9,
                        if round % 3 == 0 {
                            Share::All
                        } else {
                            Share::Half
                        },
                    )
                    .unwrap();
                (worker.join().unwrap(), taken as u64)
            });
            assert_eq!(begun + taken, 1000);
        }
    }

    #[test]
    fn a_word_that_makes_no_sense_is_told() {
        let word = AtomicU64::new(u64::MAX);
        assert_eq!(Permission(&word).revoke(10, 10, 0, Share::All), None);
        let word = AtomicU64::new(10 << 32);
        assert_eq!(Permission(&word).revoke(10, 5, 0, Share::All), None);
        assert_eq!(Permission(&word).claim(3, 5), 0);
    }
}
