//! [`Job`]: a function over items, with all that can be said of how it is run.

use crate::error::TaskError;
use crate::pool::driver::Driver;
use crate::pool::imap::{Imap, ImapUnordered};
use crate::pool::opened::{Spec, apply, map};
use crate::sys::function::FunctionId;
use crate::task::{
    Portable, Stateless, describe_item, describe_item_with_captures, pack_captures,
    require_no_captures,
};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// Runs functions on a pool's workers, with captures and settings; made by [`Pool::with`](crate::Pool::with) and [`Pool::job`](crate::Pool::job).
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
    driver: &'pool Driver,
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

impl<'pool, C, Takes> Job<'pool, C, Takes> {
    pub(crate) fn new(driver: &'pool Driver, captures: C) -> Job<'pool, C, Takes> {
        Job {
            driver,
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
    /// Runs `f` with the captures on each item, as [`Pool::map`](crate::Pool::map) does.
    ///
    /// # Errors
    ///
    /// As [`Pool::map`](crate::Pool::map).
    pub fn map<I, R, F>(&self, items: I, f: F) -> Result<Vec<R>, TaskError>
    where
        I: IntoIterator<Item: Portable>,
        R: Portable,
        F: Fn(&C, I::Item) -> R + Stateless,
    {
        require_no_captures(&f);
        map(
            self.driver,
            self.spec(describe_item_with_captures(f)),
            items,
        )
    }

    /// Runs `f` with the captures on each item, as [`Pool::imap`](crate::Pool::imap) does.
    pub fn imap<'items, I, R, F>(&self, items: I, f: F) -> Imap<'items, R>
    where
        'pool: 'items,
        I: IntoIterator<Item: Portable, IntoIter: 'items>,
        R: Portable,
        F: Fn(&C, I::Item) -> R + Stateless,
    {
        require_no_captures(&f);
        let spec = self.spec(describe_item_with_captures(f));
        Imap::new(self.driver, spec, items.into_iter())
    }

    /// Runs `f` with the captures on each item, as [`Pool::imap_unordered`](crate::Pool::imap_unordered) does.
    pub fn imap_unordered<'items, I, R, F>(&self, items: I, f: F) -> ImapUnordered<'items, R>
    where
        'pool: 'items,
        I: IntoIterator<Item: Portable, IntoIter: 'items>,
        R: Portable,
        F: Fn(&C, I::Item) -> R + Stateless,
    {
        require_no_captures(&f);
        let spec = self.spec(describe_item_with_captures(f));
        ImapUnordered::new(self.driver, spec, items.into_iter())
    }

    /// Runs `f` once, with the captures and `args`, as [`Pool::apply`](crate::Pool::apply) does.
    ///
    /// # Errors
    ///
    /// As [`Pool::apply`](crate::Pool::apply).
    pub fn apply<A, R, F>(&self, args: A, f: F) -> Result<R, TaskError>
    where
        A: Portable,
        R: Portable,
        F: Fn(&C, A) -> R + Stateless,
    {
        require_no_captures(&f);
        apply(self.driver, self.spec(describe_item_with_captures(f)), args)
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
    /// Runs `f` on each item, as [`Pool::map`](crate::Pool::map) does.
    ///
    /// # Errors
    ///
    /// As [`Pool::map`](crate::Pool::map).
    pub fn map<I, R, F>(&self, items: I, f: F) -> Result<Vec<R>, TaskError>
    where
        I: IntoIterator<Item: Portable>,
        R: Portable,
        F: Fn(I::Item) -> R + Stateless,
    {
        require_no_captures(&f);
        map(self.driver, self.spec(describe_item(f)), items)
    }

    /// Runs `f` on each item, as [`Pool::imap`](crate::Pool::imap) does.
    pub fn imap<'items, I, R, F>(&self, items: I, f: F) -> Imap<'items, R>
    where
        'pool: 'items,
        I: IntoIterator<Item: Portable, IntoIter: 'items>,
        R: Portable,
        F: Fn(I::Item) -> R + Stateless,
    {
        require_no_captures(&f);
        Imap::new(self.driver, self.spec(describe_item(f)), items.into_iter())
    }

    /// Runs `f` on each item, as [`Pool::imap_unordered`](crate::Pool::imap_unordered) does.
    pub fn imap_unordered<'items, I, R, F>(&self, items: I, f: F) -> ImapUnordered<'items, R>
    where
        'pool: 'items,
        I: IntoIterator<Item: Portable, IntoIter: 'items>,
        R: Portable,
        F: Fn(I::Item) -> R + Stateless,
    {
        require_no_captures(&f);
        ImapUnordered::new(self.driver, self.spec(describe_item(f)), items.into_iter())
    }

    /// Runs `f` once, as [`Pool::apply`](crate::Pool::apply) does.
    ///
    /// # Errors
    ///
    /// As [`Pool::apply`](crate::Pool::apply).
    pub fn apply<A, R, F>(&self, args: A, f: F) -> Result<R, TaskError>
    where
        A: Portable,
        R: Portable,
        F: Fn(A) -> R + Stateless,
    {
        require_no_captures(&f);
        apply(self.driver, self.spec(describe_item(f)), args)
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
            .field("captures", &self.captures)
            .field("chunk_size", &self.piece_items)
            .finish()
    }
}
