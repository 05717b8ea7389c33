//! A user's function and what becomes of it: what can travel, how it is run, and how it failed.

mod portable;
mod guard;
mod items;
mod received;
mod run;
mod initial;
mod call;
mod closure;

pub use closure::Closure;
pub use initial::worker_state;
pub use portable::{Portable, Stateless};

pub(crate) use call::{Arrived, Call, Callable, Returned, describe_call, run_and_pack};
pub(crate) use guard::{Echo, guard, record_panics};
pub(crate) use initial::{Arguments, describe_initializer, drop_worker_state};
pub(crate) use items::{Items, Produced, pack_argument, pack_captures};
pub(crate) use portable::require_no_captures;
pub(crate) use received::{Encoded, Received};
pub(crate) use run::{Captures, Chunk, Ended, describe_item, describe_item_with_captures};
