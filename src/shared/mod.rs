//! Plain data that processes share.

mod twin;
mod value;
mod array;
mod slice;
mod memory;

pub use array::{Array, ArrayGuard};
pub use memory::SharedMemory;
pub use slice::SharedSlice;
pub use value::{Integer, Value};
