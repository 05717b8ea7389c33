//! A job as its caller drives it: items in, outcomes out; and the two calls that wait for all of them.

use crate::error::{TaskError, TaskErrorKind};
use crate::pool::driver::{Driver, Event, Patience, Turn};
use crate::pool::ordered::{Ordered, Outcome};
use crate::sys::function::FunctionId;
use crate::task::{Items, Portable, Produced};
use crate::wire::value::Packed;
use std::sync::Arc;

/// A batch is closed when it has this many bytes.
const BATCH_BYTES: usize = 256 * 1024;

/// What the driver has to know of a job.
pub(crate) struct Spec {
    pub(crate) function: Option<FunctionId>,
    pub(crate) captures: Result<Option<Arc<Packed>>, TaskError>,
    pub(crate) piece_items: Option<usize>,
}

/// A job that is closed when its caller has what it wants, or leaves in any other way.
#[derive(Debug)]
pub(crate) struct Opened<'pool> {
    driver: &'pool Driver,
    id: u64,
}

impl<'pool> Opened<'pool> {
    pub(crate) fn open(
        driver: &'pool Driver,
        spec: Spec,
        is_collected: bool,
    ) -> Result<Opened<'pool>, TaskError> {
        let function = spec.function.ok_or_else(|| {
            let why = "its code is in a library that was loaded into another program, not in the main executable, \
                       where workers look for it; a `Process` by `StartMethod::Fork` can run it";
            TaskError::new(TaskErrorKind::System, why)
        })?;
        let id = driver.open(function, spec.captures?, spec.piece_items, is_collected)?;
        Ok(Opened { driver, id })
    }

    pub(crate) fn turn(&self, may_produce: bool, patience: Patience) -> Turn {
        self.driver.turn(self.id, may_produce, patience)
    }

    /// How many items keep all workers busy.
    pub(crate) fn enough_items(&self) -> usize {
        self.driver.enough_items(self.id)
    }

    /// Pulls a batch and submits it. `None` where there are no more items; a failure is that of an item that cannot be
    /// encoded.
    pub(crate) fn produce<I>(
        &self,
        items: &mut Items<I>,
        items_max: usize,
    ) -> Option<Result<usize, (usize, TaskError)>>
    where
        I: Iterator<Item: Portable>,
    {
        match items.next_batch(items_max, BATCH_BYTES) {
            Produced::Batch { first, batch } => {
                let count = batch.count();
                self.driver.submit(self.id, first, batch);
                Some(Ok(count))
            }
            Produced::Failed { item, error } => Some(Err((item, error))),
            Produced::Exhausted => {
                self.driver.complete(self.id);
                None
            }
        }
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.driver.close(self.id);
    }
}

pub(crate) fn map<I, R>(driver: &Driver, spec: Spec, items: I) -> Result<Vec<R>, TaskError>
where
    I: IntoIterator<Item: Portable>,
    R: Portable,
{
    let job = Opened::open(driver, spec, true)?;
    let mut items = Items::new(items.into_iter());
    let mut results = Vec::with_capacity(items.total().unwrap_or(0).min(RESERVED_MAX));
    let mut ordered = Ordered::default();
    let (mut submitted, mut is_exhausted) = (0, false);
    while !(is_exhausted && ordered.next_item() == submitted) {
        match job.turn(!is_exhausted, Patience::Wait) {
            Turn::Produce(items_max) => match job.produce(&mut items, items_max) {
                Some(Ok(count)) => submitted += count,
                Some(Err((_, error))) => return Err(error),
                None => is_exhausted = true,
            },
            Turn::Events(events) => {
                for event in events {
                    match event {
                        Event::Results { item, received } => {
                            ordered.put(item, Outcome::Results(received));
                        }
                        Event::Failed { error, .. } | Event::Broken(error) => return Err(error),
                    }
                }
                ordered.append_to(&mut results)?;
            }
            Turn::Nothing => {}
        }
    }
    Ok(results)
}

/// What is reserved for results on the word of an iterator alone.
const RESERVED_MAX: usize = 1 << 20;

pub(crate) fn apply<A, R>(driver: &Driver, spec: Spec, args: A) -> Result<R, TaskError>
where
    A: Portable,
    R: Portable,
{
    let job = Opened::open(driver, spec, false)?;
    let mut items = Items::new(std::iter::once(args));
    if let Some(Err((_, error))) = job.produce(&mut items, 1) {
        return Err(error.at_item(None));
    }
    loop {
        let Turn::Events(events) = job.turn(false, Patience::Wait) else {
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
