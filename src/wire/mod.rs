//! Values as bytes, batches of them, and the link that carries messages between two processes.

pub(crate) mod batch;
pub(crate) mod codec;
mod link;
pub(crate) mod plain;
pub(crate) mod record;
pub(crate) mod value;

pub(crate) use link::{Header, Link, LinkError, LinkPeer, Message};
