//! A queue of messages, for any number of processes that put and any number that get.

mod ledger;
mod store;
mod letters;
mod core;
mod handle;

pub use handle::Queue;
