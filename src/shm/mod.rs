//! Structures in memory that processes share.

mod duplex;
mod spin;

pub(crate) use duplex::{Corrupt, Duplex};
pub(crate) use spin::Spin;
