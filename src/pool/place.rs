//! A worker's place in a pool: what is done first by whoever takes it, and how one ended.

use crate::pool::hired::{Body, Worker};
use crate::pool::protocol::to_worker;
use crate::sys::function::FunctionId;
use crate::wire::Header;
use crate::wire::value::Packed;
use std::process::ExitStatus;
use std::sync::Arc;

/// What a worker does before its first item.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) memory_limit: Option<u64>,
    pub(crate) initializer: Option<(FunctionId, Arc<Packed>)>,
}

impl Setup {
    pub(crate) fn send(&self, worker: &mut Worker) {
        let (function, body) = match &self.initializer {
            Some((id, arguments)) => (id.to_bits(), Body::Captures(Arc::clone(arguments))),
            None => (0, Body::Empty),
        };
        let header = Header {
            kind: to_worker::SETUP,
            words: [self.memory_limit.unwrap_or(0), function, 0, 0],
            ..Header::default()
        };
        worker.queue(header, body);
    }
}

/// A worker's place: when one has ended, another takes it.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    pub(crate) worker: Option<Worker>,
    /// Counts the workers that were here, so that late news of a former one are not taken for the present one's.
    pub(crate) generation: u32,
    pub(crate) has_ended: bool,
    /// Whether its worker was not even begun, so that it can be asked for again.
    pub(crate) is_unbegun: bool,
}

/// How a worker ended.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) pid: u32,
    pub(crate) status: Option<ExitStatus>,
    /// How many items it had begun and finished without telling, before the one that it was at or was taking in; `None` if
    /// it was at none.
    pub(crate) begun: Option<usize>,
    /// Whether it could not be started, and that has happened too often in a row to try again at once.
    pub(crate) is_refused: bool,
    /// Whether it had finished any item.
    pub(crate) was_useful: bool,
    /// Whether it had done all that comes before its first item.
    pub(crate) was_ready: bool,
}

impl End {
    /// Whether another one takes its place at once; one that ends before it is any use waits for the next job.
    pub(crate) fn is_worth_replacing(&self, had_items: bool) -> bool {
        !self.is_refused && (self.was_useful || had_items)
    }
}

impl Slot {
    /// Whether its worker is known to have ended, or is no use any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended && self.worker.is_some()
    }
}
