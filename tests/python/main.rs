//! What CPython's own tests ask of `multiprocessing`, asked of this crate: behaviour by behaviour, in our own words, each
//! with the name of its origin. `README.md` has all of them, also those that do not apply.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;

mod barrier;
mod connection;
mod executor;
mod futures;
mod origins;
mod pool;
mod process;
mod queue;
mod shared;
mod shared_memory;
mod sync;

use std::time::Duration;

/// How long is waited for what must not come. Only a lower bound is ever checked against it.
const SHORT: Duration = Duration::from_millis(50);

/// How long is waited for what must come.
const LONG: Duration = Duration::from_secs(30);
