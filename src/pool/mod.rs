//! [`Pool`]: workers that run a function on many items, whatever some of these do to them.

mod dispatch;
mod protocol;
mod worker;
mod staff;
mod driver;
mod ordered;
mod opened;
mod imap;
mod job;
mod builder;

pub use builder::{Pool, PoolBuilder};
pub use imap::{Imap, ImapUnordered};
pub use job::{Job, TakesCaptures, TakesItem};
