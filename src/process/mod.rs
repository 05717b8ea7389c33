//! Processes: how one is started, what it is, and how it ends.

mod current;
mod request;
mod child;
mod enter;
mod server;
mod bootstrap;
mod launcher;
mod handle;

pub use current::{CurrentProcess, ParentProcess, available_parallelism, current_process};
pub use handle::{Process, ProcessBuilder, Run};
pub use request::StartMethod;

pub(crate) use child::{Child, NotStarted, Starting};
pub(crate) use launcher::{Order, start};
pub(crate) use request::Echo;
