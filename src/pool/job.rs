//! [`Job`]: a function over items, with all that can be said of how it is run.

use crate::error::{TaskError, TaskErrorKind};
use crate::pool::builder::Pool;
use crate::pool::driver::{Driver, Event, Patience, Turn};
use crate::pool::imap::{Imap, ImapUnordered};
use crate::pool::ordered::{Ordered, Outcome};
use crate::sys::function::FunctionId;
use crate::task::{
    Items, Portable, Produced, Stateless, describe_item, describe_item_with_captures,
    pack_captures, require_no_captures,
};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// A batch is closed when it has this many bytes.
pub(crate) const BATCH_BYTES: usize = 128 * 1024;

/// Runs functions on a pool's workers, with captures and settings; made by [`Pool::with`] and [`Pool::job`].
///
/// With captures, the function takes a reference to them and the item; without, the item alone. The captures are
/// encoded once for each call and reach each worker once, however many items there are.
///
/// # Examples
///
/// ```
/// use multiprocess::Pool;
///
/// let pool = Pool::builder().workers(2).build()?;
/// let stop_words = vec!["the".to_owned(), "a".to_owned()];
/// let counts = pool
///     .with(stop_words)
///     .chunk_size(1)
///     .map(["the cat", "a dog and a bird"].map(String::from), |stop_words, line| {
///         line.split(' ').filter(|word| !stop_words.iter().any(|stop| stop == word)).count()
///     })?;
/// assert_eq!(counts, [1, 3]);
/// # Ok::<(), multiprocess::Error>(())
/// ```
pub struct Job<'pool, C, Takes = TakesCaptures> {
    pool: &'pool Pool,
    captures: C,
    piece_items: Option<usize>,
    takes: PhantomData<Takes>,
}

/// Marks a [`Job`] whose function takes its captures and an item.
#[derive(Debug)]
pub struct TakesCaptures(());

/// Marks a [`Job`] whose function takes an item alone.
#[derive(Debug)]
pub struct TakesItem(());

/// What the driver has to know of a job.
pub(crate) struct Spec {
    pub(crate) function: Option<FunctionId>,
    pub(crate) captures: Result<Option<Arc<Vec<u8>>>, TaskError>,
    pub(crate) piece_items: Option<usize>,
}

impl<'pool, C, Takes> Job<'pool, C, Takes> {
    pub(crate) fn new(pool: &'pool Pool, captures: C) -> Job<'pool, C, Takes> {
        Job {
            pool,
            captures,
            piece_items: None,
            takes: PhantomData,
        }
    }

    /// Sets how many items travel to a worker at a time, at least 1. Without this the number adapts to how long the items
    /// take, which is faster in nearly all cases.
    ///
    /// With 1, an item that has an outcome never runs again after a later one has killed their worker.
    pub fn chunk_size(mut self, items: usize) -> Self {
        self.piece_items = Some(items.max(1));
        self
    }
}

impl<'pool, C: Portable> Job<'pool, C> {
    /// Runs `f` with the captures on each item, as [`Pool::map`] does.
    ///
    /// # Errors
    ///
    /// As [`Pool::map`].
    pub fn map<I, R, F>(&self, items: I, f: F) -> Result<Vec<R>, TaskError>
    where
        I: IntoIterator<Item: Portable>,
        R: Portable,
        F: Fn(&C, I::Item) -> R + Stateless,
    {
        require_no_captures(&f);
        map(
            self.pool.driver(),
            self.spec(describe_item_with_captures(f)),
            items,
        )
    }

    /// Runs `f` with the captures on each item, as [`Pool::imap`] does.
    pub fn imap<'items, I, R, F>(&self, items: I, f: F) -> Imap<'items, R>
    where
        'pool: 'items,
        I: IntoIterator<Item: Portable, IntoIter: 'items>,
        R: Portable,
        F: Fn(&C, I::Item) -> R + Stateless,
    {
        require_no_captures(&f);
        let spec = self.spec(describe_item_with_captures(f));
        Imap::new(self.pool.driver(), spec, items.into_iter())
    }

    /// Runs `f` with the captures on each item, as [`Pool::imap_unordered`] does.
    pub fn imap_unordered<'items, I, R, F>(&self, items: I, f: F) -> ImapUnordered<'items, R>
    where
        'pool: 'items,
        I: IntoIterator<Item: Portable, IntoIter: 'items>,
        R: Portable,
        F: Fn(&C, I::Item) -> R + Stateless,
    {
        require_no_captures(&f);
        let spec = self.spec(describe_item_with_captures(f));
        ImapUnordered::new(self.pool.driver(), spec, items.into_iter())
    }

    /// Runs `f` once, with the captures and `args`, as [`Pool::apply`] does.
    ///
    /// # Errors
    ///
    /// As [`Pool::apply`].
    pub fn apply<A, R, F>(&self, args: A, f: F) -> Result<R, TaskError>
    where
        A: Portable,
        R: Portable,
        F: Fn(&C, A) -> R + Stateless,
    {
        require_no_captures(&f);
        apply(
            self.pool.driver(),
            self.spec(describe_item_with_captures(f)),
            args,
        )
    }

    fn spec(&self, function: Option<FunctionId>) -> Spec {
        let captures = pack_captures(&self.captures).map(|bytes| Some(Arc::new(bytes)));
        Spec {
            function,
            captures,
            piece_items: self.piece_items,
        }
    }
}

impl<'pool> Job<'pool, (), TakesItem> {
    /// Runs `f` on each item, as [`Pool::map`] does.
    ///
    /// # Errors
    ///
    /// As [`Pool::map`].
    pub fn map<I, R, F>(&self, items: I, f: F) -> Result<Vec<R>, TaskError>
    where
        I: IntoIterator<Item: Portable>,
        R: Portable,
        F: Fn(I::Item) -> R + Stateless,
    {
        require_no_captures(&f);
        map(self.pool.driver(), self.spec(describe_item(f)), items)
    }

    /// Runs `f` on each item, as [`Pool::imap`] does.
    pub fn imap<'items, I, R, F>(&self, items: I, f: F) -> Imap<'items, R>
    where
        'pool: 'items,
        I: IntoIterator<Item: Portable, IntoIter: 'items>,
        R: Portable,
        F: Fn(I::Item) -> R + Stateless,
    {
        require_no_captures(&f);
        Imap::new(
            self.pool.driver(),
            self.spec(describe_item(f)),
            items.into_iter(),
        )
    }

    /// Runs `f` on each item, as [`Pool::imap_unordered`] does.
    pub fn imap_unordered<'items, I, R, F>(&self, items: I, f: F) -> ImapUnordered<'items, R>
    where
        'pool: 'items,
        I: IntoIterator<Item: Portable, IntoIter: 'items>,
        R: Portable,
        F: Fn(I::Item) -> R + Stateless,
    {
        require_no_captures(&f);
        ImapUnordered::new(
            self.pool.driver(),
            self.spec(describe_item(f)),
            items.into_iter(),
        )
    }

    /// Runs `f` once, as [`Pool::apply`] does.
    ///
    /// # Errors
    ///
    /// As [`Pool::apply`].
    pub fn apply<A, R, F>(&self, args: A, f: F) -> Result<R, TaskError>
    where
        A: Portable,
        R: Portable,
        F: Fn(A) -> R + Stateless,
    {
        require_no_captures(&f);
        apply(self.pool.driver(), self.spec(describe_item(f)), args)
    }

    fn spec(&self, function: Option<FunctionId>) -> Spec {
        Spec {
            function,
            captures: Ok(None),
            piece_items: self.piece_items,
        }
    }
}

impl<C: fmt::Debug, Takes> fmt::Debug for Job<'_, C, Takes> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("pool", self.pool)
            .field("captures", &self.captures)
            .field("chunk_size", &self.piece_items)
            .finish()
    }
}

/// A job that is closed when its caller has what it wants, or leaves in any other way.
#[derive(Debug)]
pub(crate) struct Opened<'pool> {
    driver: &'pool Driver,
    id: u64,
}

impl<'pool> Opened<'pool> {
    pub(crate) fn open(driver: &'pool Driver, spec: Spec) -> Result<Opened<'pool>, TaskError> {
        let function = spec.function.ok_or_else(|| {
            let why = "its code is in a library that was loaded into another program, not in the main \
                       executable, which is what a worker executes: this needs `StartMethod::Fork`";
            TaskError::new(TaskErrorKind::System, why)
        })?;
        let id = driver.open(function, spec.captures?, spec.piece_items);
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
    let job = Opened::open(driver, spec)?;
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
    let job = Opened::open(driver, spec)?;
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
