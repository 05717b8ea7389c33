//! Whether the other side still has what it was sent before, so that it need not be sent again: two words, and no message.
//!
//! A side that *holds* something says so in its word `held`, by the *mark* under which it came. One that wants to *lend* it
//! (to name it in place of sending it) counts that in its own word `lent`, and looks whether it is held. One that holds it and
//! would rather let go takes its word back, and looks whether anything was lent that has not come yet.
//!
//! | | who lends | who holds |
//! |---|---|---|
//! | stores | `lent` + 1 | `held` = 0 |
//! | fences | | |
//! | looks at | `held`: is it the mark? | `lent`: is it as many as have come? |
//! | yes | names it in its next message | lets go |
//! | no | `lent` as before, and sends it | `held` = the mark again, and tries another time |
//!
//! **What is named is there.** Of two that both store, then fence, then load, at least one sees the other's store. So if what
//! was held is let go of, either the lender sees no mark, and sends it; or the holder sees a count that is ahead of what has
//! come, and keeps it. Messages come in order, so that what has come says all about what is still to come. A mark never comes
//! back: one that was let go of is never held again.
//!
//! Either may be killed at each step: each writes only its own word, the other one needs nothing of it, and what was to
//! come never does. A holder that says what is not true is named what it does not have, which is its own loss; a lender that
//! does can name what it has itself sent before, and nothing else.

use crate::sys::atomic::{AtomicU64, Ordering, fence};
use crate::sys::step::step;

/// Returns whether the other side has what came under `mark`, and keeps it until what is sent next has come.
#[inline]
pub(crate) fn lend(lent: &AtomicU64, held: impl FnOnce() -> u64, mark: u64) -> bool {
    let before = lent.load(Ordering::Relaxed);
    lent.store(before.wrapping_add(1), Ordering::Relaxed);
    step!("loan::lend::counted");
    // Pairs with the fence in `let_go`.
    fence(Ordering::SeqCst);
    let is_held = held() == mark;
    if !is_held {
        take_back(lent);
    }
    is_held
}

/// It is not named after all.
pub(crate) fn take_back(lent: &AtomicU64) {
    let more = lent.load(Ordering::Relaxed);
    lent.store(more.wrapping_sub(1), Ordering::Relaxed);
}

/// Returns whether what came under `mark` can be let go of: nothing that was lent is on its way, beyond the `borrowed` that
/// have come.
pub(crate) fn let_go(
    held: &AtomicU64,
    lent: impl FnOnce() -> u64,
    mark: u64,
    borrowed: u64,
) -> bool {
    held.store(0, Ordering::Relaxed);
    step!("loan::let_go::said");
    // Pairs with the fence in `lend`.
    fence(Ordering::SeqCst);
    let is_free = lent() == borrowed;
    if !is_free {
        held.store(mark, Ordering::Release);
    }
    is_free
}
