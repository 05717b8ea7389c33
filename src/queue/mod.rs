//! A queue of messages, for any number of processes that put and any number that get.

mod ledger;
mod store;
mod letters;
mod core;
mod news;
mod put;
mod get;
mod failure;
mod handle;
mod state;
#[cfg(test)]
mod hostile;

pub use handle::Queue;
