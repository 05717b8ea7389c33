//! The algorithms of `sync`, `sys::robust` and `shm::loan`, run by loom in every order that it finds. See docs/TESTING.md.
//!
//! The files themselves are compiled here once more, over words that loom knows; `kernel` plays the kernel's part: it
//! lets threads sleep, wakes them, lets their time run out at any moment, and does what becomes of a dead thread's words.
#![cfg(loom)]
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    missing_docs,
    reason = "a part of the crate's files, for a part of their callers"
)]

mod deadline;
#[path = "../../src/error/mod.rs"]
mod error;
mod kernel;
mod held;
mod memory;
mod sys;
mod shm {
    pub(crate) use crate::memory::{LONGEST_OF_CLIENT, Slot, Spin, note_wake};
}
mod sync;
mod owned;
mod unowned;
mod crowds;
#[path = "../../src/shm/loan.rs"]
mod loan;
mod loans;
