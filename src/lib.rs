//! Process parallelism.

mod deadline;
mod error;
mod sys;
mod shm;
mod wire;

pub use error::{Error, Result, TaskError, TaskErrorKind};
