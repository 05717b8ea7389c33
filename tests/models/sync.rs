//! The crate's own files of `sync`, over the model of what they stand on.

pub(crate) use crate::memory::object;
#[path = "../../src/sync/died.rs"]
pub(crate) mod died;
#[path = "../../src/sync/lock.rs"]
pub(crate) mod lock;
#[path = "../../src/sync/rlock.rs"]
pub(crate) mod rlock;
#[path = "../../src/sync/condition/mod.rs"]
pub(crate) mod condition;
#[path = "../../src/sync/barrier/mod.rs"]
pub(crate) mod barrier;
#[path = "../../src/sync/unowned.rs"]
pub(crate) mod unowned;
#[path = "../../src/sync/permits.rs"]
pub(crate) mod permits;
#[path = "../../src/sync/event.rs"]
pub(crate) mod event;
