//! Processes: how one is started, what it is, and how it ends.

mod current;
pub(crate) mod request;
mod ledger;
mod family;
mod child;
pub(crate) mod enter;
mod spare;
mod stock;
mod server;
pub(crate) mod bootstrap;
mod forked;
mod launcher;
mod handle;
mod builder;
mod active;
mod scope;

pub use active::{ChildInfo, active_children};
pub use builder::{ProcessBuilder, Run};
pub use current::{CurrentProcess, ParentProcess, available_parallelism, current_process};
pub use handle::Process;
pub use request::StartMethod;
pub use scope::{Scope, ScopedProcess, scope};

pub(crate) use child::{Child, NotStarted, Starting};
pub(crate) use launcher::{Order, Spares, start};
pub(crate) use request::Echo;
