//! A word in shared memory that has no owner, and on which threads of any process sleep.
//!
//! ```text
//! +0   u32   what the kernel compares before it lets anybody sleep; only its bits 30 and 31 are used
//! +4   u32   a number that changes together with it: the two are one 64-bit word
//! +8   u64   a node of the kernel's list (`sys::held`)
//! ```
//!
//! Who changes the word to wake sleepers, and who sleeps, is [covered](Unowned::cover) meanwhile: if that thread dies, whatever
//! killed it, the kernel wakes one who sleeps. It does so because the lower 30 bits, where it would look for an owner,
//! are 0. So "a wake-up" is never in the hands of a dead thread alone: whoever is woken looks at the word, and wakes others
//! if there is reason to.

use crate::deadline::Deadline;
use crate::shm::Slot;
use crate::sys::futex;
use crate::sys::held::{Pending, Thread};
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::atomic::AtomicU64;

const NODE: usize = 8;
const LEN: usize = 16;

/// The word; clones are the same one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Slot", into = "Slot")]
pub(crate) struct Unowned {
    slot: Slot,
}

impl Unowned {
    /// A word of zeros.
    pub(crate) fn new() -> io::Result<Unowned> {
        Ok(Unowned {
            slot: Slot::allocate(LEN)?,
        })
    }

    /// Both halves: the lower one is what the kernel compares.
    #[inline]
    pub(crate) fn state(&self) -> &AtomicU64 {
        self.slot.mapping().word(self.slot.offset())
    }

    /// Until the result is dropped: if this thread dies, one who sleeps is woken. Nothing, where the kernel does not know
    /// of such lists.
    #[inline]
    pub(crate) fn cover(&self) -> Option<Pending<'_>> {
        let node = self.slot.mapping().word(self.slot.offset() + NODE);
        Thread::current().ok().map(|thread| thread.pend(node))
    }

    /// Sleeps if the lower half is that of `seen`. Returns false when the deadline has passed and nobody has woken this
    /// thread.
    pub(crate) fn sleep(&self, seen: u64, deadline: Deadline) -> bool {
        futex::wait(self.state(), lower(seen), deadline)
    }

    /// Wakes up to `count` who sleep; returns how many.
    pub(crate) fn wake(&self, count: i32) -> usize {
        futex::wake(self.state(), count)
    }
}

/// What the kernel compares.
#[allow(
    clippy::cast_possible_truncation,
    reason = "the lower half is what is wanted"
)]
fn lower(state: u64) -> u32 {
    state as u32
}

impl TryFrom<Slot> for Unowned {
    type Error = &'static str;

    fn try_from(slot: Slot) -> Result<Unowned, &'static str> {
        if slot.len() == LEN {
            Ok(Unowned { slot })
        } else {
            Err("a semaphore or event came that is none")
        }
    }
}

impl From<Unowned> for Slot {
    fn from(word: Unowned) -> Slot {
        word.slot
    }
}
