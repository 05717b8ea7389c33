//! `Barrier`: parties wait for each other.
//!
//! **One word decides.** Its parts are the *round*, the *cause* why the barrier is broken (0: it is whole), and how many have
//! *come*.
//!
//! | state | means | becomes |
//! |---|---|---|
//! | round r, whole, fewer than all | so many wait | one more, by who comes; broken, by a deadline, a death, `abort`, or `reset` |
//! | round r, whole, none | nobody waits | as above; by `reset` round r + 1, whole, with none, so that who died as it came is of a round that is over |
//! | round r, whole, all | round r is complete | round r + 1 with one, by who comes next; round r + 1, broken, by `abort` or a death; round r + 2, whole, with none, by `reset` |
//! | round r, broken | all who come or wait get an error | round r + 1, whole, with none, by `reset` |
//! | round r, broken by `reset` | all who waited get an error | round r + 1, whole, with none, by whoever resets, or comes; round r + 1, broken, by `abort` |
//!
//! So of the last one who comes, a deadline, a death, an abort and a reset, one comes first, and all agree on which. A waiter that
//! is slow to look may find a later round. If its own was complete, nothing else is written: rounds follow each other, and each
//! further word is a line that goes from one processor to another. What is noted is the round that broke, in `BROKEN`, at the
//! round's place in a ring, before it is left; nothing else can happen to it by then, so that it does not matter who does
//! so, and how many. That is why a reset breaks a round in which some wait before it leaves it; if it dies between these two, the next
//! that comes leaves it. The numbers noted only grow, so a late writer does no harm. Who finds a later number there, of a round that
//! came dozens later, in which some waited and which was reset, is told of that reset.
//!
//! **Deaths.** Who comes first takes a *seat*, a robust word, and labels it with the round; it holds the word until it leaves.
//! A dead one's seat is `died`, with the label of the round in which it died.
//!
//! | it dies | the others |
//! |---|---|
//! | before it was counted, its seat labelled | as if it had waited: they get an error, at the latest when the next one comes |
//! | waiting | who comes last, or is about to sleep, looks at the seats; who sleeps is woken by the kernel, see below |
//! | after the round was complete, before it left | its seat has the label of a round that is over: nothing, and others take it |
//! | between ending the round, either way, and waking | the kernel wakes one on the gate, and each who has armed it wakes all |
//!
//! **Sleeping.** Each round has a *gate*, one of a ring, that is armed by who wants to sleep and disarmed by who ends the round,
//! who then wakes all. Each stores, fences, and then looks at the other's word, so that one sees the other. Who armed it disarms it and wakes all
//! as well when it leaves: it may have armed the gate after the round had ended, and another that is late may sleep at it for that. A sleeper sleeps on
//! three things at once: the gate; the deciding word, so that nobody comes unseen between its look at the seats and its
//! sleep; and the seats of those that had come, so that nobody dies unseen: who has died since that look does not let it sleep. All have the gate
//! *pending*, from before their label is there until they leave: if one of them dies, the kernel wakes one who sleeps there. Who is woken looks at the seats again.
//!
//! Before Linux 5.16 a thread can sleep on one word only: the gate. Then a death exactly between a waiter's last look and its sleep, less than a
//! microsecond, wakes nobody; so such a sleeper looks again itself after a second.

mod broken;
mod rounds;
mod party;
mod handle;

pub use broken::{BarrierError, BarrierWaitResult};
pub use handle::Barrier;
