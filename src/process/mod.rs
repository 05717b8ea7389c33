//! Processes: how one is started, what it is, and how it ends.

mod bootstrap;
mod child;
mod current;
mod enter;
mod handle;
mod launcher;
mod request;
mod server;

pub use current::{CurrentProcess, ParentProcess, available_parallelism, current_process};
pub use handle::{Process, ProcessBuilder, Run};
pub use request::StartMethod;

pub(crate) use child::{Child, Starting};
pub(crate) use launcher::{Order, start};
pub(crate) use request::Echo;
