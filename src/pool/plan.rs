//! What a job is to be: its function, how its items are run; and what its caller and the floor say to each other.

use crate::pool::call::Event;
use crate::sys::function::FunctionId;
use crate::wire::value::Packed;
use std::sync::Arc;
use std::time::Duration;

/// How a job's items are run, as its caller says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Settings {
    pub(crate) piece_items: Option<usize>,
    pub(crate) limit: Option<Duration>,
    pub(crate) retries: u32,
    pub(crate) retries_panics: bool,
    pub(crate) in_flight: Option<usize>,
    /// What its progress is shown under, if it is.
    pub(crate) label: Option<String>,
}

/// What is to be known of a job before it opens.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) function: FunctionId,
    pub(crate) captures: Option<Arc<Packed>>,
    pub(crate) settings: Settings,
    /// The function's name, for people.
    pub(crate) name: &'static str,
    /// How many items there will be, if that is known.
    pub(crate) total: Option<usize>,
    /// Whether they are at hand: whoever pulls them waits for nobody.
    pub(crate) is_at_hand: bool,
    /// Whether its caller waits for all outcomes, and for none before the others.
    pub(crate) is_collected: bool,
}

/// Whether a caller has items to submit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Supply {
    None,
    /// As many as are wanted.
    OnDemand,
    /// So many, wanted or not.
    Ahead(usize),
}

/// What a caller does next.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Submit a batch of about so many items.
    Produce(usize),
    /// See what became of some.
    Events(Vec<Event>),
    /// There is nothing yet.
    Nothing,
}
