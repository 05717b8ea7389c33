//! Pipes: typed messages between two processes.
//!
//! A pipe is two one-way lanes in one memory file, each with a socket pair of its own. So a thread that waits to receive
//! shares nothing with one that sends, and the two halves of an end can live in two processes. `outlet` and `inlet`
//! are the two sides of a lane; they know bytes and descriptors. The rest gives them types.

mod limit;
mod failure;
mod peer;
mod frame;
mod pace;
mod outlet;
mod incoming;
mod watch;
mod inlet;
mod travel;
mod sender;
mod receiver;
mod pair;

pub use pair::Pipe;
pub use receiver::Receiver;
pub use sender::Sender;
