//! Structures in memory that processes share.

mod duplex;
mod spin;
pub(crate) mod words;
mod known;
mod arena;

pub(crate) use arena::Slot;
pub(crate) use duplex::{Corrupt, Duplex, Note};
pub(crate) use known::Known;
pub(crate) use spin::{LONGEST_OF_CLIENT, LONGEST_OF_SERVER, Spin};
