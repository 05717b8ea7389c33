//! Structures in memory that processes share.

mod ring;
mod duplex;
mod lane;
mod spin;
pub(crate) mod words;
mod known;
mod arena;

pub(crate) use arena::Slot;
pub(crate) use duplex::Duplex;
pub(crate) use known::Known;
pub(crate) use lane::{Lane, Lanes};
pub(crate) use ring::{Corrupt, Incoming, Note, Outgoing, Sleeper};
pub(crate) use spin::{LONGEST_OF_CLIENT, LONGEST_OF_SERVER, Spin};
