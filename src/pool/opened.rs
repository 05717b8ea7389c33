//! A job as its caller drives it: items in, outcomes out; and the two calls that wait for all of them.

use crate::deadline::Deadline;
use crate::error::{TaskError, TaskErrorKind};
use crate::pool::call::{Call, Event, Raw};
use crate::pool::driver::Driver;
use crate::pool::lead::Patience;
use crate::pool::ordered::{Ordered, Outcome};
use crate::pool::plan::{Plan, Settings, Supply, Turn};
use crate::pool::result::{AsyncResult, Done, Place, decode_all, decode_one};
use crate::pool::shared::Shared;
use crate::sys::function::FunctionId;
use crate::sys::room::Room;
use crate::task::{Items, Portable, Produced, pack_argument};
use crate::wire::plain;
use crate::wire::value::Packed;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long items are pulled, as long as the workers want more, before it is looked for outcomes. A piece that takes as long makes its
/// input a slow one.
const UNSEEN: Duration = Duration::from_millis(10);

/// A batch is closed when it has this many bytes.
const BATCH_BYTES: usize = 256 * 1024;

/// What has been said of a job.
pub(crate) struct Spec {
    pub(crate) function: Option<FunctionId>,
    pub(crate) captures: Result<Option<Arc<Packed>>, TaskError>,
    pub(crate) settings: Settings,
    /// The function's name, for people.
    pub(crate) name: &'static str,
}

impl Spec {
    fn plan(self, is_collected: bool, input: Input) -> Result<Plan, TaskError> {
        let function = self.function.ok_or_else(|| {
            let why = "its code is in a library that was loaded into another program, not in the main \
                       executable, which is what a worker executes; a `Process` by `StartMethod::Fork` can run it";
            TaskError::new(TaskErrorKind::System, why)
        })?;
        Ok(Plan {
            function,
            captures: self.captures?,
            settings: self.settings,
            name: self.name,
            total: input.total,
            is_at_hand: input.is_at_hand,
            is_collected,
        })
    }
}

/// What is known of a job's items beforehand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input {
    /// How many there are.
    pub(crate) total: Option<usize>,
    /// Whether they are at hand: whoever pulls them waits for nobody.
    pub(crate) is_at_hand: bool,
}

impl Input {
    const ONE: Input = Input {
        total: Some(1),
        is_at_hand: true,
    };

    pub(crate) fn of<I: Iterator<Item: Portable>>(items: &Items<I>) -> Input {
        Input {
            total: items.total(),
            is_at_hand: items.is_at_hand(),
        }
    }
}

/// A job that is closed when its caller has what it wants, or leaves in any other way.
#[derive(Debug)]
pub(crate) struct Opened<'pool> {
    shared: &'pool Arc<Shared>,
    id: u64,
    in_flight: Option<usize>,
    has_limit: bool,
    /// How many items the user wants to travel together; else their number follows from what they take.
    piece_items: usize,
    /// Whether pulling may take long, and how many are pulled is ours to say.
    is_watched: bool,
}

/// Items that were pulled and submitted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pulled {
    pub(crate) count: usize,
    /// How long it took to pull them, and a piece of them at most; nothing where that is not watched.
    pub(crate) took: Duration,
    pub(crate) longest: Duration,
}

impl Pulled {
    /// Whether the input is slow, as these items show.
    pub(crate) fn is_slow(self) -> bool {
        self.longest >= UNSEEN
    }
}

/// How long items have been pulled since it was last looked for outcomes.
#[derive(Debug, Default)]
pub(crate) struct Unseen(Duration);

impl Unseen {
    /// Whether to look before more are pulled.
    pub(crate) fn is_enough(&mut self, pulled: Pulled) -> bool {
        self.0 += pulled.took;
        self.0 >= UNSEEN
    }

    pub(crate) fn clear(&mut self) {
        self.0 = Duration::ZERO;
    }
}

impl<'pool> Opened<'pool> {
    pub(crate) fn open(
        driver: &'pool Driver,
        spec: Spec,
        is_collected: bool,
        input: Input,
        room: Option<Box<dyn Room>>,
    ) -> Result<Opened<'pool>, TaskError> {
        let in_flight = spec.settings.in_flight;
        let has_limit = spec.settings.limit.is_some();
        let piece_items = spec.settings.piece_items.unwrap_or(1);
        let shared = driver.shared();
        let id = shared.open(spec.plan(is_collected, input)?, room)?;
        Ok(Opened {
            shared,
            id,
            in_flight,
            has_limit,
            piece_items,
            is_watched: !input.is_at_hand && in_flight.is_none(),
        })
    }

    /// Its caller runs code of the user's between its turns: has time limits be kept meanwhile.
    pub(crate) fn kept(self) -> Result<Self, TaskError> {
        if self.has_limit {
            self.shared.keep_limits()?;
        }
        Ok(self)
    }

    pub(crate) fn turn(&self, supply: Supply, patience: Patience) -> Turn {
        self.shared.turn(self.id, supply, patience, Deadline::NEVER)
    }

    /// Looks for outcomes; waits for them no longer than `grace`, and not at all where an item is believed to take longer.
    pub(crate) fn look(&self, grace: Duration) -> Turn {
        let (patience, limit) = if grace.is_zero() || self.item_takes() > grace {
            (Patience::Now, Deadline::NEVER)
        } else {
            (Patience::Wait, Deadline::after(grace))
        };
        self.shared.turn(self.id, Supply::None, patience, limit)
    }

    /// What an item takes, as far as is known.
    pub(crate) fn item_takes(&self) -> Duration {
        self.shared.item_takes(self.id)
    }

    /// How many items travel together at least.
    pub(crate) fn piece_items(&self) -> usize {
        self.piece_items
    }

    /// What may be submitted while `ahead` items are on their way.
    pub(crate) fn supply(&self, ahead: usize) -> Supply {
        match self.in_flight {
            None => Supply::OnDemand,
            Some(in_flight) if ahead < in_flight => Supply::Ahead(in_flight - ahead),
            Some(_) => Supply::None,
        }
    }

    /// The same, of one whose outcomes are taken one by one: what has been pulled and not been asked for is bounded.
    pub(crate) fn bounded_supply(&self, ahead: usize) -> Supply {
        match self.supply(ahead) {
            Supply::OnDemand if ahead >= self.shared.enough_items(self.id) => Supply::None,
            supply => supply,
        }
    }

    /// Pulls a batch and submits it. `None` where there are no more items; a failure is that of an item that cannot be
    /// encoded.
    pub(crate) fn produce<I>(
        &self,
        items: &mut Items<I>,
        items_max: usize,
    ) -> Option<Result<Pulled, (usize, TaskError)>>
    where
        I: Iterator<Item: Portable>,
    {
        let start = self.is_watched.then(Instant::now);
        let piece_items = start.map_or(usize::MAX, |_| self.piece_items);
        match items.next_batch(items_max, piece_items, BATCH_BYTES) {
            Produced::Batch { first, batch } => {
                let count = batch.count();
                let took = start.map_or(Duration::ZERO, |start| start.elapsed());
                let longest = items.longest().unwrap_or(took);
                self.shared.submit(self.id, first, batch);
                Some(Ok(Pulled {
                    count,
                    took,
                    longest,
                }))
            }
            Produced::Failed { item, error } => Some(Err((item, error))),
            Produced::Exhausted => {
                self.shared.complete(self.id);
                None
            }
        }
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.shared.close(self.id);
    }
}

pub(crate) fn map<I, R>(driver: &Driver, spec: Spec, items: I) -> Result<Vec<R>, TaskError>
where
    I: IntoIterator<Item: Portable>,
    R: Portable,
{
    let mut items = Items::new(items.into_iter());
    let total = items.total().unwrap_or(0);
    let room = room_for::<R>(total);
    // What the room holds, if all comes that was announced. A batch has its results there or not, as a whole.
    let hosted_max = if room.is_some() { total } else { 0 };
    let job = Opened::open(driver, spec, true, Input::of(&items), room)?.kept()?;
    let mut others = Vec::with_capacity((total - hosted_max).min(RESERVED_MAX));
    let mut ordered = Ordered::from(hosted_max);
    let (mut submitted, mut told, mut hosted, mut is_exhausted) = (0, 0, 0, false);
    // A slow iterator is not asked for more before what came meanwhile has been seen: it may be a failure.
    let (mut looks_first, mut unseen) = (false, Unseen::default());
    while !(is_exhausted && hosted + others.len() == submitted) {
        let (supply, patience) = match (is_exhausted, std::mem::take(&mut looks_first)) {
            (true, _) => (Supply::None, Patience::Wait),
            (false, true) => {
                unseen.clear();
                (Supply::None, Patience::Now)
            }
            (false, false) => (job.supply(submitted - told), Patience::Wait),
        };
        match job.turn(supply, patience) {
            Turn::Produce(items_max) => {
                let items_max = match hosted_max.saturating_sub(submitted) {
                    0 => items_max,
                    left => items_max.min(left),
                };
                match job.produce(&mut items, items_max) {
                    Some(Ok(pulled)) => {
                        submitted += pulled.count;
                        looks_first = unseen.is_enough(pulled);
                    }
                    Some(Err((_, error))) => return Err(error),
                    None => is_exhausted = true,
                }
            }
            Turn::Events(events) => {
                for event in events {
                    match event {
                        Event::Results { item, received } => {
                            told += received.left();
                            if received.is_hosted() {
                                hosted += received.left();
                            } else {
                                ordered.put(item, Outcome::Results(received));
                            }
                        }
                        Event::Failed { error, .. } | Event::Broken { error, .. } => {
                            return Err(error);
                        }
                    }
                }
                ordered.append_to(&mut others)?;
            }
            Turn::Nothing => {}
        }
    }
    if hosted == 0 {
        return Ok(others);
    }
    let room = job.shared.take_room(job.id)?;
    let results = room.and_then(|room| plain::from_room(room, hosted));
    let mut results = results.ok_or_else(|| {
        let why = "the workers' messages are torn";
        TaskError::new(TaskErrorKind::System, why)
    })?;
    results.append(&mut others);
    Ok(results)
}

/// No more than this is reserved for them on the word of an iterator: memory that is not used costs nothing but may be limited.
const ROOM_MAX: usize = 4 << 30;

/// Room for so many results, where these are numbers.
fn room_for<R: Portable>(count: usize) -> Option<Box<dyn Room>> {
    let bytes = count.checked_mul(plain::number_size::<R>()?)?;
    (1..=ROOM_MAX)
        .contains(&bytes)
        .then(|| plain::room_for::<R>(count))
        .flatten()
}

/// What is reserved for results on the word of an iterator alone.
const RESERVED_MAX: usize = 1 << 20;

pub(crate) fn apply<A, R>(driver: &Driver, spec: Spec, args: A) -> Result<R, TaskError>
where
    A: Portable,
    R: Portable,
{
    let job = Opened::open(driver, spec, false, Input::ONE, None)?;
    let mut items = Items::new(std::iter::once(args));
    if let Some(Err((_, error))) = job.produce(&mut items, 1) {
        return Err(error.at_item(None));
    }
    loop {
        let Turn::Events(events) = job.turn(Supply::None, Patience::Wait) else {
            continue;
        };
        // One item has one outcome.
        let result = match events.into_iter().next() {
            None => continue,
            Some(Event::Results { item, mut received }) => received.next(item),
            Some(Event::Failed { error, .. } | Event::Broken { error, .. }) => Err(error),
        };
        return result.map_err(|error| error.at_item(None));
    }
}

pub(crate) fn apply_async<A, R>(
    driver: &Driver,
    spec: Spec,
    args: A,
    done: &impl Done<R>,
) -> AsyncResult<R>
where
    A: Portable,
    R: Portable,
{
    let call = Arc::new(Call::new(done.finish(decode_one::<R>)));
    let made = pack_argument(args).and_then(|argument| {
        let plan = spec.plan(false, Input::ONE)?;
        driver.shared().call_one(plan, argument, Arc::clone(&call))
    });
    let place = placed(driver, &call, made.map(|(job, item)| (job, Some(item))));
    AsyncResult::new(call, decode_one::<R>, place)
}

pub(crate) fn map_async<I, R>(
    driver: &Driver,
    spec: Spec,
    items: I,
    done: &impl Done<Vec<R>>,
) -> AsyncResult<Vec<R>>
where
    I: IntoIterator<Item: Portable>,
    R: Portable,
{
    let call = Arc::new(Call::new(done.finish(decode_all::<R>)));
    let mut items = Items::new(items.into_iter());
    let mut batches = Vec::new();
    let encoded = loop {
        match items.next_batch(usize::MAX, usize::MAX, BATCH_BYTES) {
            Produced::Batch { first, batch } => batches.push((first, batch)),
            Produced::Failed { error, .. } => break Err(error),
            Produced::Exhausted => break spec.plan(true, Input::of(&items)),
        }
    };
    let made = encoded.and_then(|plan| driver.shared().call_all(plan, batches, Arc::clone(&call)));
    let place = placed(driver, &call, made.map(|job| (job, None)));
    AsyncResult::new(call, decode_all::<R>, place)
}

/// Jobs are numbered from 1 on.
const NO_JOB: u64 = 0;

/// Where a call is under way; one that could not be made has failed, and is of no job.
fn placed(
    driver: &Driver,
    call: &Arc<Call>,
    made: Result<(u64, Option<usize>), TaskError>,
) -> Place {
    let shared = driver.shared();
    let (job, item) = made.unwrap_or_else(|error| {
        if shared.refuse_call(Arc::clone(call), error.clone()).is_err() {
            // There is no thread that could: then here.
            call.complete(Raw::Failed(error));
        }
        (NO_JOB, None)
    });
    Place {
        pool: Arc::downgrade(shared),
        job,
        item,
    }
}
