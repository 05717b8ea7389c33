//! What the dispatcher is told and what it says: pieces of work, the terms of a job, what became of a worker.

/// The work in a piece, by what is known of the items.
const PIECE_NANOS: f64 = 1_000_000.0;
/// What an item is believed to take as long as nothing is known: long enough not to be followed by many.
pub(crate) const UNKNOWN_NANOS: f64 = 1e9;

pub(crate) type JobId = u64;

/// Consecutive items of one batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Piece {
    pub(crate) job: JobId,
    pub(crate) batch: u64,
    /// The first item's place in the batch, and in the job's input.
    pub(crate) start: usize,
    pub(crate) item: usize,
    pub(crate) count: usize,
    /// Whether it is one item that can be sent once only. Who gets it has nothing else, and keeps it as long as it is wanted.
    pub(crate) is_once: bool,
    /// How often its first item was tried before.
    pub(crate) attempts: u32,
    pub(crate) deaths: u32,
    /// What it was believed to take when it was sent.
    pub(crate) nanos: f64,
    /// How long each of its items may take: also where its job has ended meanwhile, since the worker is needed for others.
    pub(crate) limit_nanos: Option<u64>,
}

impl Piece {
    /// Cuts off the first `count` items.
    pub(crate) fn split_front(&mut self, count: usize) -> Piece {
        let front = Piece { count, ..*self };
        self.start += count;
        self.item += count;
        self.count -= count;
        self.deaths = 0;
        self.attempts = 0;
        front
    }
}

/// What the driver is to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    /// Send the piece to the worker.
    Send { worker: usize, piece: Piece },
    /// Take back from the worker what it has not begun, all or half of it, and say how much that was
    /// (`Dispatcher::revoked`). Of several that are to give up half, the first one that has something is enough.
    Revoke { worker: usize, all: bool },
    /// It has done as many items as it may: have another one take its place.
    Retire { worker: usize },
}

/// How a worker came to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// By itself, or by somebody else's hand, at the item that is so many items from its next one.
    At(usize),
    /// Likewise, at no item.
    Between,
    /// We killed it, over the item that is so many items from its next one.
    KilledAt(usize),
    /// We killed it, and no item is to be charged.
    Killed,
}

/// What a job's items are to be handled by.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Terms {
    /// Which function: what its items took before is where the estimate starts.
    pub(crate) function: u64,
    /// Items in a piece; as many as seem best where nothing is said.
    pub(crate) piece_items: Option<usize>,
    /// Whether the caller waits for all outcomes, and for none before the others.
    pub(crate) is_collected: bool,
    /// Whether all items are at hand. An iterator of the user's may wait for what one of them does, and would do so in vain while that
    /// one is not sent.
    pub(crate) is_at_hand: bool,
    /// How long an item may take.
    pub(crate) limit_nanos: Option<u64>,
    /// How often an item is tried again.
    pub(crate) retries: u32,
}

/// What is known of the first item of a worker, where that has a time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    Unbegun,
    /// When, by the monotonic clock.
    Begun(u64),
    /// It may be over: not all that its worker has shown has been taken in.
    Unheard,
}

/// What is to be done about a worker whose first item may have taken too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// Its item's limit has passed.
    Item,
    /// It has not begun the item for very long.
    Stuck,
}

/// The most items of a piece, however little they take: what is pulled ahead of who takes results slowly is a few pieces for
/// each worker. More would save nothing, since a round trip is far below what so many take.
const PIECE_ITEMS_MAX: usize = 1 << 17;

/// How many items make a piece.
pub(crate) fn piece_items(nanos_per_item: Option<f64>) -> usize {
    match nanos_per_item {
        None => 1,
        Some(nanos) => ((PIECE_NANOS / nanos.max(0.1)) as usize).clamp(1, PIECE_ITEMS_MAX),
    }
}
