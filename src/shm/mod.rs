//! Structures in memory that processes share.

pub(crate) mod loan;
mod ring;
mod duplex;
mod lane;
mod spin;
pub(crate) mod words;
mod arena;

pub(crate) use arena::Slot;
pub(crate) use duplex::Duplex;
pub(crate) use lane::{Lane, Lanes};
pub(crate) use ring::{Corrupt, Incoming, Note, Outgoing, Sleeper};
pub(crate) use spin::{LONGEST_OF_CLIENT, LONGEST_OF_SERVER, Spin, note_wake};
