//! A word that one thread of one process holds at a time, and that the kernel takes from it when it dies.
//!
//! A word takes 16 bytes of shared memory: 64 bits that change by compare-and-swap alone, then a node for the list of
//! [`held`](crate::sys::held). The low half is what the kernel knows: the holder's number, a bit [`WAITED`] that says "some
//! may sleep", a bit [`DIED`]. The high half is known to us alone: two bits, and a count of the changes that are not plain
//! taking and giving up, so that a state that has come back is told from one that has stayed.
//!
//! | state | low half | high half | means | sleepers |
//! |---|---|---|---|---|
//! | free | 0 | | nobody holds it | none |
//! | told | 0 | `KEEP` | nobody holds it; one sleeper has been woken, or is being | perhaps |
//! | idle | `WAITED` | | nobody holds it; some sleep in a [`Monitor`], and there was nothing for them | perhaps |
//! | held | number | | | none |
//! | contended | number, `WAITED` | | | perhaps |
//! | died | `DIED`, perhaps `WAITED` | | nobody holds it; its last holder died, or gave it up as broken | perhaps |
//!
//! | from | to | by | and then |
//! |---|---|---|---|
//! | free | held | anyone | |
//! | told, idle, died | contended | anyone | |
//! | held | contended | who is about to sleep | sleeps while it is contended by that number |
//! | held | free | the holder | |
//! | contended | told | the holder | wakes one; if there was none: told becomes free, unless it has changed |
//! | held, contended | died | the kernel | wakes one, if it was contended |
//! | held, contended | died | the holder that says so | wakes one |
//! | free, told | idle | who is about to sleep in a monitor, with nothing there | looks again; sleeps while it is idle |
//! | contended | idle | a monitor's holder, with nothing there | looks again |
//! | idle | told | who has brought something | as from contended |
//!
//! **Who sleeps is woken.** The claim: if a thread sleeps, the word is contended, died, idle or told. It cannot fall asleep
//! unless it is contended or idle at that instant, which the kernel checks. From contended and idle every way leads to
//! one of these again, with one exception: told becomes free after a call that woke nobody. While it is told, nobody can
//! fall asleep, and if it was anything else meanwhile, its count is another; so nobody sleeps then. Hence whoever takes
//! it, also a third who was not asleep at all, knows of the sleepers and wakes one when done. (Had the state in
//! between been plain free, as is usual, such a third would not know; and if the one woken were killed before it
//! ran, the others would sleep on.)
//!
//! **Dying at any step.** Taking and giving up is done with the word *pending*, and so is sleeping.
//!
//! | died | the kernel finds | and |
//! |---|---|---|
//! | before it took the word | pending, another's number | does nothing: that one wakes |
//! | likewise | pending, no number | wakes one: as if the dead had passed on what had woken it |
//! | between taking and linking, or while holding, or after unlinking | pending or listed, its number | marks it died, wakes one |
//! | after giving up, before waking | pending, no number | wakes one |
//! | likewise, taken by another since | pending, another's number | does nothing: it is contended, that one wakes |
//!
//! **What a monitor is for**: many wait until something is there, and one by one take it. Who waits inside gives the word up
//! and sleeps on it, as those do that wait to come in; so the same death rules hold for both. Who brings something
//! looks at the word *after* it is there: idle, it wakes one; contended, it leaves that to the holder, who looks again when it
//! leaves. Of the two, at least one sees what the other has done: each stores, fences, then loads. Sleepers of
//! both kinds are told apart by the kernel: when nothing is there, only one that wants to come in is woken, if `ENTERING`
//! says that there may be some. While the word is held this bit is in the low half, in place of `DIED`: so nobody falls
//! asleep to come in unless it is set at that instant.
//! Who sleeps until something is there looks once more when its time is over, and takes what it finds: the one that was woken
//! for it may be slow, or stopped. With nothing there that it could take, it passes on what may have been meant for it.
//! What a process brings that is killed before it can say so is found with the next thing that somebody brings, at the latest.
//!
//! **Bytes from elsewhere.** A process that writes here at random can have two threads hold the word, or none until a
//! deadline passes. It cannot make this process touch other memory, nor wait beyond its deadline.

mod state;
mod word;
mod waiting;
mod giving;
mod monitor;
#[cfg(test)]
#[cfg(not(loom))]
mod trial;

pub(crate) use monitor::{Inside, Monitor};
pub(crate) use word::{Held, Word, pending_on, prepare, this_thread};
