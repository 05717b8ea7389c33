//! The atomics that words in shared memory are.
//!
//! The algorithms over such words (`sys::robust`, `sync`) name them by this file. So `tests/models` can compile the very
//! same algorithms over atomics that loom knows, with the kernel's part played by a model.

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
