//! Descriptors that a worker has already, and that are not sent to it again: what a [`Link`](super::Link) does about them.
//!
//! A call with a `SharedSlice` costs a descriptor through a socket, twice as much as all the rest of the call; and as a rule it
//! is the same slice as the call before had. So the side that sends gives what it sends a *place* with the other, of which
//! there are [`PLACES`], and the other keeps it there, with what it has mapped of it: see `sys/shared.rs`. From then on the sender names the place. Each message says in its
//! header, in a byte for each of its first eight descriptors, what is to be kept and where, or where it is kept: so both sides
//! change their lists at the same message, and have the same ones. Whether the receiver still has what is in a place is asked
//! without a message: see `shm/loan.rs`.
//!
//! **Only what can never change** is kept, memory files with all seals; each side looks for these. Another copy of a pipe's
//! or a queue's descriptor would hide its end from those who wait for that.
//!
//! **Nothing is kept for its own sake.** What nobody else in the receiving process holds is let go of when that has slept for
//! [`KEPT_ASLEEP`] (what a thread of its own has held for longer: for as long again), and after a few messages that did not name
//! it. So the memory of a slice goes when its last user drops it, that much later at most, or when the worker has done what it is
//! doing; it is the same call as a rule that holds it there. What is mapped goes with its descriptor, which each slice of it
//! holds. It is not let go of at once when it sleeps: of calls one after the other, each of which finds it asleep, none could
//! name anything.
//!
//! | | then |
//! |---|---|
//! | the receiver could not open the descriptor | it never says that it has it: it is sent again |
//! | a message waits for room, or half of it is sent | what it names stays lent; it is not asked again |
//! | an item goes to another worker | its descriptors are with its batch; each link sends or names them by its own list |
//! | a worker dies | its link goes, and both lists with it |
//! | the sender drops what it sent | its place is free; what is in it there is named no more |
//! | what is named was never there | its sender is not sound, and the link is corrupt |

use crate::shm::Duplex;
use crate::shm::loan::{lend, let_go, take_back};
use crate::sys::frozen::is_frozen;
use crate::sys::shared::SharedFd;
use crate::sys::step::step;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How many descriptors one side keeps for the other; also how many of a message's may be named.
pub(crate) const PLACES: usize = 8;

/// In a byte of a header: what is in the place is named, not to be kept there.
const NAMED: u8 = 0x80;

/// After so many messages that did not name it something is let go of, if nobody else has it.
const UNUSED_MAX: u8 = 8;

/// For so long somebody who sleeps keeps what nobody else has: longer than callers take between two calls as a rule.
pub(crate) const KEPT_ASLEEP: Duration = Duration::from_millis(10);

/// What a header says of its first descriptors: for each 0, or a place counted from 1, which may be [`NAMED`].
pub(crate) type Places = [u8; PLACES];

/// Whether a message names its descriptors in place of bringing them.
pub(crate) fn are_named(places: Places) -> bool {
    places[0] & NAMED != 0
}

/// Whether so many descriptors are named for a message of this length, as both sides see it. In its body each takes eight bytes,
/// unless a handle is encoded by another serializer within; and a header that claims more is to cost no memory.
pub(crate) fn may_be_named(descriptors: u64, length: u64) -> bool {
    descriptors <= length / 8
}

/// What the other side was sent, as far as it was to keep it.
#[derive(Debug, Default)]
pub(crate) struct Lender {
    sent: [Option<Sent>; PLACES],
    marks: u64,
    /// The place that is taken next, if none is free.
    next: usize,
}

#[derive(Debug)]
struct Sent {
    /// It also keeps another one from having the same address.
    file: Weak<SharedFd>,
    mark: u64,
}

impl Sent {
    fn is(&self, file: &Arc<SharedFd>) -> bool {
        self.file.as_ptr() == Arc::as_ptr(file)
    }
}

impl Lender {
    /// Where the other side has all of these, if it does: it keeps them until the message with that has come.
    pub(crate) fn name(&mut self, ring: &Duplex, descriptors: &[Arc<SharedFd>]) -> Option<Places> {
        let (first, rest) = descriptors.split_at(descriptors.len().min(PLACES));
        let last = first.last()?;
        if rest.iter().any(|one| !Arc::ptr_eq(one, last)) {
            return None;
        }
        let mut places = Places::default();
        for (at, one) in first.iter().enumerate() {
            let found = self.place_of(one);
            if let Some(place) = found.filter(|&place| self.lend(ring, place)) {
                places[at] = NAMED | byte(place);
                continue;
            }
            for &named in &places[..at] {
                take_back(ring.lent(usize::from(named & !NAMED) - 1));
            }
            return None;
        }
        step!("loans::name::all");
        Some(places)
    }

    fn lend(&mut self, ring: &Duplex, place: usize) -> bool {
        let Some(sent) = &self.sent[place] else {
            return false;
        };
        let is_held = lend(ring.lent(place), || ring.held_by_peer(place), sent.mark);
        if !is_held {
            // Not there yet, or let go of. It is sent anew, under another mark.
            self.sent[place] = None;
        }
        is_held
    }

    /// Where the other side is to keep these, which were just sent.
    pub(crate) fn place(&mut self, descriptors: &[Arc<SharedFd>]) -> Places {
        let mut places = Places::default();
        for (at, one) in descriptors.iter().take(PLACES).enumerate() {
            let is_repeated = descriptors[..at].iter().any(|it| Arc::ptr_eq(it, one));
            if is_repeated || !is_frozen(one) {
                continue;
            }
            let place = self.place_for(one);
            self.marks += 1;
            self.sent[place] = Some(Sent {
                file: Arc::downgrade(one),
                mark: self.marks,
            });
            places[at] = byte(place);
        }
        places
    }

    pub(crate) fn place_of(&self, file: &Arc<SharedFd>) -> Option<usize> {
        self.sent
            .iter()
            .position(|sent| sent.as_ref().is_some_and(|sent| sent.is(file)))
    }

    /// Its own place, a free one, or one whose content goes.
    fn place_for(&mut self, file: &Arc<SharedFd>) -> usize {
        let is_free = |sent: &Option<Sent>| {
            sent.as_ref()
                .is_none_or(|sent| sent.file.strong_count() == 0)
        };
        self.place_of(file)
            .or_else(|| self.sent.iter().position(is_free))
            .unwrap_or_else(|| {
                self.next = (self.next + 1) % PLACES;
                self.next
            })
    }
}

fn byte(place: usize) -> u8 {
    place as u8 + 1
}

/// What this side keeps of what it was sent.
#[derive(Debug, Default)]
pub(crate) struct Holder {
    kept: [Option<Kept>; PLACES],
    count: usize,
    /// How often what was in each place was named.
    borrowed: [u64; PLACES],
    marks: u64,
}

#[derive(Debug)]
struct Kept {
    file: Arc<SharedFd>,
    mark: u64,
    unused: u8,
}

impl Holder {
    /// Keeps what the header of a message says of its descriptors, which came, or were lost.
    pub(crate) fn keep(&mut self, ring: &Duplex, descriptors: &[Arc<SharedFd>], places: Places) {
        for (at, place) in places.into_iter().enumerate() {
            let place = usize::from(place).wrapping_sub(1);
            if place >= PLACES {
                continue;
            }
            // Counted also where nothing came, as the other side has counted it.
            self.marks = self.marks.wrapping_add(1);
            self.drop_from(ring, place);
            let Some(file) = descriptors.get(at).filter(|file| is_frozen(file)) else {
                continue;
            };
            self.kept[place] = Some(Kept {
                file: Arc::clone(file),
                mark: self.marks,
                unused: 0,
            });
            self.count += 1;
            ring.say_held(place, self.marks);
            step!("loans::keep::said");
        }
    }

    fn drop_from(&mut self, ring: &Duplex, place: usize) {
        if self.kept[place].take().is_some() {
            self.count -= 1;
            ring.say_held(place, 0);
        }
    }

    /// The `count` descriptors that a message names; `None` if it names what is not here.
    pub(crate) fn borrow(&mut self, places: Places, count: usize) -> Option<Vec<Arc<SharedFd>>> {
        let mut descriptors = Vec::with_capacity(count);
        for &place in places.iter().take(count) {
            let place = usize::from(place & !NAMED).wrapping_sub(1);
            let kept = self.kept.get_mut(place)?.as_mut()?;
            kept.unused = 0;
            self.borrowed[place] = self.borrowed[place].wrapping_add(1);
            descriptors.push(Arc::clone(&kept.file));
        }
        // The others are as the last one.
        let last = Arc::clone(descriptors.last()?);
        descriptors.resize(count, last);
        Some(descriptors)
    }

    /// A message has come that may have named none of it: lets go of what nobody else has, and none has named for long.
    #[inline]
    pub(crate) fn pass(&mut self, ring: &Duplex) {
        if self.count > 0 {
            self.let_go(ring, UNUSED_MAX);
        }
    }

    /// Whether anything is kept.
    pub(crate) fn holds(&self) -> bool {
        self.count > 0
    }

    /// This side has slept for a while: lets go of what nobody else has.
    pub(crate) fn rest(&mut self, ring: &Duplex) {
        if self.count > 0 {
            self.let_go(ring, 0);
        }
    }

    fn let_go(&mut self, ring: &Duplex, unused: u8) {
        for (place, slot) in self.kept.iter_mut().enumerate() {
            let Some(kept) = slot else { continue };
            kept.unused = kept.unused.saturating_add(1);
            // A thread that finds meanwhile what is mapped by it has a reference of its own: it needs ours no more.
            if kept.unused <= unused || Arc::strong_count(&kept.file) > 1 {
                continue;
            }
            let (held, lent) = (ring.held(place), || ring.lent_by_peer(place));
            if let_go(held, lent, kept.mark, self.borrowed[place]) {
                *slot = None;
                self.count -= 1;
            }
        }
    }
}
