//! [`Pool`]: workers that run a function on many items, whatever some of these do to them.

pub(crate) mod dispatch;
mod protocol;
mod worker;
mod hired;
mod trace;
mod staff;
mod call;
mod stats;
mod progress;
mod floor;
mod intake;
mod driver;
mod ordered;
mod result;
mod opened;
mod imap;
mod job;
mod verbs;
mod builder;

pub use builder::{Pool, PoolBuilder};
pub use imap::{Imap, ImapUnordered};
pub use job::{Job, TakesCaptures, TakesItem};
pub use result::{AsyncResult, Callback, Done, NoCallback};
pub use stats::{FunctionStats, PoolStats, WorkerStats};
