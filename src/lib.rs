//! Process parallelism.

mod deadline;
mod error;
mod sys;
mod shm;
mod wire;
mod task;
mod process;

pub use error::{Error, Result, TaskError, TaskErrorKind};
pub use task::{Closure, Portable, Stateless};
pub use process::{CurrentProcess, ParentProcess, Process, ProcessBuilder, Run, StartMethod, available_parallelism, current_process};
