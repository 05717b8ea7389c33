//! The crate's own `sys::robust`, over the model of what it stands on.

pub(crate) use crate::held;
pub(crate) use crate::kernel::{clock, futex, limits};
pub(crate) use crate::memory as atomic;
pub(crate) use crate::memory;
pub(crate) use crate::memory as part;
#[path = "../../src/sys/step.rs"]
pub(crate) mod step;
#[path = "../../src/sys/robust/mod.rs"]
pub(crate) mod robust;
