//! Values as bytes, batches of them, and the link that carries messages between two processes.

mod bounded;
pub(crate) mod codec;
pub(crate) mod handles;
mod slot;
pub(crate) mod plain;
pub(crate) mod value;
pub(crate) mod batch;
pub(crate) mod few;
pub(crate) mod record;
pub(crate) mod rights;
mod loans;
mod link;

pub(crate) use link::{Header, Host, Link, LinkError, LinkPeer, Message, Sent};
