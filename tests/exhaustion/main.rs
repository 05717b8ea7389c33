//! What the system refuses, at every call that it can refuse: an error that says what, everything as it was before, and
//! nothing left over. `cargo test --test exhaustion -- --nocapture` prints each call and what was said.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod calls;
mod limits;
