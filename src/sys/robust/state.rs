//! The states of a word, as bits: the table stands in `mod.rs`.

// The low half, as the kernel has it.
pub(crate) const WAITED: u64 = 1 << 31;
pub(crate) const DIED: u64 = 1 << 30;
/// The same bit of a word that is held, where it does not tell the kernel anything: [`ENTERING`].
pub(crate) const ENTERING_HELD: u64 = DIED;
pub(crate) const HOLDER: u64 = DIED - 1;
pub(crate) const LOW: u64 = (1 << 32) - 1;

// The high half.
/// With a low half of 0: some may sleep nevertheless.
pub(crate) const KEEP: u64 = 1 << 63;
/// Of a word that nobody holds: some of those who may sleep want to come in, whether or not anything is there.
pub(crate) const ENTERING: u64 = 1 << 62;
pub(crate) const COUNT: u64 = ENTERING - (1 << 32);
pub(crate) const ONE: u64 = 1 << 32;

/// The classes of sleepers.
pub(crate) const TO_ENTER: u32 = 1;
pub(crate) const FOR_MORE: u32 = 2;

/// What becomes of a word that is given up with nothing there, or is free.
pub(crate) fn idle(seen: u64) -> u64 {
    counted(seen) | WAITED | if_set(seen, ENTERING_HELD | ENTERING, ENTERING)
}

/// The count alone, one higher.
pub(crate) fn counted(seen: u64) -> u64 {
    seen.wrapping_add(ONE) & COUNT
}

/// `then` if any of `bits` is set.
pub(crate) fn if_set(seen: u64, bits: u64, then: u64) -> u64 {
    if seen & bits == 0 { 0 } else { then }
}
