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
use crate::error::Result;
use crate::shm::Slot;
use crate::sync::object::{allocate, arrive};
use crate::sys::atomic::AtomicU64;
use crate::sys::futex;
use crate::sys::held::{Pending, Thread};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const NODE: usize = 8;
const LEN: usize = 16;

/// The word; clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Unowned {
    slot: Slot,
}

impl Unowned {
    /// A word of zeros, for `what`, which an error names.
    pub(crate) fn new(what: &str) -> Result<Unowned> {
        Ok(Unowned {
            slot: allocate(what, LEN)?,
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

impl Serialize for Unowned {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.slot.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Unowned {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Unowned {
            slot: arrive(deserializer, LEN)?,
        })
    }
}
