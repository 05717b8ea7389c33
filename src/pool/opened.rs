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

/// An item that takes longer to pull makes its iterator a slow one.
const SLOW: Duration = Duration::from_micros(100);
/// How long items are pulled, as long as the workers want more, before it is looked for outcomes.
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
    fn plan(self, is_collected: bool, total: Option<usize>) -> Result<Plan, TaskError> {
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
            total,
            is_collected,
        })
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
}

/// Items that were pulled and submitted, and how long it took to pull them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pulled {
    pub(crate) count: usize,
    pub(crate) took: Duration,
}

impl Pulled {
    /// Whether it is to be looked for outcomes before more is pulled: of what is submitted, so much has been pulled since the last look.
    pub(crate) fn is_enough(self, unseen: &mut Duration) -> bool {
        *unseen += self.took;
        *unseen >= UNSEEN || self.slow_each().is_some()
    }

    /// What each of them took, where that was long.
    fn slow_each(self) -> Option<Duration> {
        let each = self.took / u32::try_from(self.count).unwrap_or(u32::MAX).max(1);
        (each >= SLOW).then_some(each)
    }
}

impl<'pool> Opened<'pool> {
    pub(crate) fn open(
        driver: &'pool Driver,
        spec: Spec,
        is_collected: bool,
        total: Option<usize>,
        room: Option<Box<dyn Room>>,
    ) -> Result<Opened<'pool>, TaskError> {
        let in_flight = spec.settings.in_flight;
        let has_limit = spec.settings.limit.is_some();
        let piece_items = spec.settings.piece_items.unwrap_or(1);
        let shared = driver.shared();
        let id = shared.open(spec.plan(is_collected, total)?, room)?;
        Ok(Opened {
            shared,
            id,
            in_flight,
            has_limit,
            piece_items,
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

    /// Looks for outcomes, after these items were pulled and before more are. Where each of them took long, the next one may take as
    /// long, or never come: then whoever waits does so for a little of that, if their own outcomes are believed to come so soon.
    pub(crate) fn look(&self, pulled: Pulled, patience: Patience) -> Turn {
        let grace = pulled.slow_each().map(|each| each / 8);
        let may_wait =
            |grace: &Duration| patience != Patience::Now && self.shared.is_quick(self.id, *grace);
        let (patience, limit) = match grace.filter(may_wait) {
            Some(grace) => (patience, Deadline::after(grace)),
            None => (Patience::Now, Deadline::NEVER),
        };
        self.shared.turn(self.id, Supply::None, patience, limit)
    }

    /// Whether an item takes less time than to pull one, as these have shown, and that is long.
    pub(crate) fn is_ahead_of(&self, pulled: Pulled) -> bool {
        let each = pulled.slow_each();
        each.is_some_and(|each| self.shared.is_quick(self.id, each))
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
        let start = Instant::now();
        match items.next_batch(items_max, self.piece_items, BATCH_BYTES) {
            Produced::Batch { first, batch } => {
                let count = batch.count();
                let took = start.elapsed();
                self.shared.submit(self.id, first, batch);
                Some(Ok(Pulled { count, took }))
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
    let job = Opened::open(driver, spec, true, items.total(), room)?.kept()?;
    let mut others = Vec::with_capacity((total - hosted_max).min(RESERVED_MAX));
    let mut ordered = Ordered::from(hosted_max);
    let (mut submitted, mut told, mut hosted, mut is_exhausted) = (0, 0, 0, false);
    // A slow iterator is not asked for more before what came meanwhile has been seen: it may be a failure.
    let (mut looks_first, mut unseen) = (false, Duration::ZERO);
    while !(is_exhausted && hosted + others.len() == submitted) {
        let (supply, patience) = match (is_exhausted, std::mem::take(&mut looks_first)) {
            (true, _) => (Supply::None, Patience::Wait),
            (false, true) => {
                unseen = Duration::ZERO;
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
                        looks_first = pulled.is_enough(&mut unseen);
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
                        Event::Failed { error, .. } | Event::Broken(error) => return Err(error),
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
    let room = job.shared.take_room(job.id);
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
    let job = Opened::open(driver, spec, false, Some(1), None)?;
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
            Some(Event::Failed { error, .. } | Event::Broken(error)) => Err(error),
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
        let plan = spec.plan(false, Some(1))?;
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
            Produced::Exhausted => break spec.plan(true, items.total()),
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
