//! Locks and friends in shared memory, for processes and threads alike.

mod object;
mod died;
mod lock;
mod rlock;
mod condition;
mod barrier;
mod unowned;
mod permits;
mod semaphore;
mod event;

pub use barrier::{Barrier, BarrierError, BarrierWaitResult};
pub use condition::{Condition, WaitTimeoutResult};
pub use died::{Guard, OwnerDied};
pub use event::Event;
pub use lock::{Lock, LockGuard};
pub use rlock::{RLock, RLockGuard};
pub use semaphore::{BoundedSemaphore, Semaphore};
