//! [`Pool`]: workers that run a function on many items, whatever some of these do to them.

pub(crate) mod dispatch;
mod protocol;
mod worker;
mod hired;
mod place;
mod trace;
mod staff;
mod call;
mod histogram;
mod stats;
mod progress;
mod plan;
mod stream;
mod floor;
mod calls;
mod feed;
mod intake;
mod deaths;
mod shared;
mod lead;
mod serve;
mod driver;
mod ordered;
mod result;
mod opened;
mod imap;
mod job;
mod verbs;
mod handle;
mod builder;

pub use builder::PoolBuilder;
pub use handle::Pool;
pub use imap::{Imap, ImapUnordered};
pub use job::{Job, TakesCaptures, TakesItem};
pub use result::{AsyncResult, Callback, Done, NoCallback};
pub use stats::{FunctionStats, PoolStats, WorkerStats};
