//! What processes wait for each other with.

mod unowned;
mod permits;
mod semaphore;
mod event;

pub use event::Event;
pub use semaphore::{BoundedSemaphore, Semaphore};
