//! [`Pool`]: workers that run a function on many items, whatever some of these do to them.

mod builder;
mod dispatch;
mod driver;
mod imap;
mod job;
mod ordered;
mod protocol;
mod staff;
mod worker;

pub use builder::{Pool, PoolBuilder};
pub use imap::{Imap, ImapUnordered};
pub use job::{Job, TakesCaptures, TakesItem};
