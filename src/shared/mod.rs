//! Plain data that processes share.

mod slice;
mod memory;

pub use memory::SharedMemory;
pub use slice::SharedSlice;
