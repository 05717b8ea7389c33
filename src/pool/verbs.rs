//! The verbs of [`Job`]: twice, since with captures the function takes two arguments, and without them one.

use crate::error::TaskError;
use crate::pool::imap::{Imap, ImapUnordered};
use crate::pool::job::{Job, TakesCaptures, TakesItem};
use crate::pool::opened::{apply, apply_async, map, map_async};
use crate::pool::result::{AsyncResult, Done};
use crate::task::{
    Portable, Stateless, describe_item, describe_item_with_captures, require_no_captures,
};

impl<C: Portable, D> Job<'_, C, TakesCaptures, D> {
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
        D: Done<Vec<R>>,
    {
        require_no_captures(&f);
        let results = map(
            self.driver,
            self.spec::<F>(describe_item_with_captures(f)),
            items,
        );
        self.done.tell(&results);
        results
    }

    /// Runs `f` with the captures once, with `args`, as [`Pool::apply`](crate::Pool::apply) does.
    ///
    /// # Errors
    ///
    /// As [`Pool::apply`](crate::Pool::apply).
    pub fn apply<A, R, F>(&self, args: A, f: F) -> Result<R, TaskError>
    where
        A: Portable,
        R: Portable,
        F: Fn(&C, A) -> R + Stateless,
        D: Done<R>,
    {
        require_no_captures(&f);
        let result = apply(
            self.driver,
            self.spec::<F>(describe_item_with_captures(f)),
            args,
        );
        self.done.tell(&result);
        result
    }

    /// Has `f` run with the captures on each item, as [`Pool::map_async`](crate::Pool::map_async) does.
    pub fn map_async<I, R, F>(&self, items: I, f: F) -> AsyncResult<Vec<R>>
    where
        I: IntoIterator<Item: Portable>,
        R: Portable,
        F: Fn(&C, I::Item) -> R + Stateless,
        D: Done<Vec<R>>,
    {
        require_no_captures(&f);
        map_async(
            self.driver,
            self.spec::<F>(describe_item_with_captures(f)),
            items,
            &self.done,
        )
    }

    /// Has `f` run with the captures once, with `args`, as [`Pool::apply_async`](crate::Pool::apply_async) does.
    pub fn apply_async<A, R, F>(&self, args: A, f: F) -> AsyncResult<R>
    where
        A: Portable,
        R: Portable,
        F: Fn(&C, A) -> R + Stateless,
        D: Done<R>,
    {
        require_no_captures(&f);
        apply_async(
            self.driver,
            self.spec::<F>(describe_item_with_captures(f)),
            args,
            &self.done,
        )
    }
}

impl<'pool, C: Portable> Job<'pool, C> {
    /// Runs `f` with the captures on each item, as [`Pool::imap`](crate::Pool::imap) does.
    pub fn imap<'items, I, R, F>(&self, items: I, f: F) -> Imap<'items, R>
    where
        'pool: 'items,
        I: IntoIterator<Item: Portable, IntoIter: 'items>,
        R: Portable,
        F: Fn(&C, I::Item) -> R + Stateless,
    {
        require_no_captures(&f);
        Imap::new(
            self.driver,
            self.spec::<F>(describe_item_with_captures(f)),
            items.into_iter(),
        )
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
        ImapUnordered::new(
            self.driver,
            self.spec::<F>(describe_item_with_captures(f)),
            items.into_iter(),
        )
    }
}

impl<D> Job<'_, (), TakesItem, D> {
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
        D: Done<Vec<R>>,
    {
        require_no_captures(&f);
        let results = map(self.driver, self.spec::<F>(describe_item(f)), items);
        self.done.tell(&results);
        results
    }

    /// Runs `f` once, with `args`, as [`Pool::apply`](crate::Pool::apply) does.
    ///
    /// # Errors
    ///
    /// As [`Pool::apply`](crate::Pool::apply).
    pub fn apply<A, R, F>(&self, args: A, f: F) -> Result<R, TaskError>
    where
        A: Portable,
        R: Portable,
        F: Fn(A) -> R + Stateless,
        D: Done<R>,
    {
        require_no_captures(&f);
        let result = apply(self.driver, self.spec::<F>(describe_item(f)), args);
        self.done.tell(&result);
        result
    }

    /// Has `f` run on each item, as [`Pool::map_async`](crate::Pool::map_async) does.
    pub fn map_async<I, R, F>(&self, items: I, f: F) -> AsyncResult<Vec<R>>
    where
        I: IntoIterator<Item: Portable>,
        R: Portable,
        F: Fn(I::Item) -> R + Stateless,
        D: Done<Vec<R>>,
    {
        require_no_captures(&f);
        map_async(
            self.driver,
            self.spec::<F>(describe_item(f)),
            items,
            &self.done,
        )
    }

    /// Has `f` run once, with `args`, as [`Pool::apply_async`](crate::Pool::apply_async) does.
    pub fn apply_async<A, R, F>(&self, args: A, f: F) -> AsyncResult<R>
    where
        A: Portable,
        R: Portable,
        F: Fn(A) -> R + Stateless,
        D: Done<R>,
    {
        require_no_captures(&f);
        apply_async(
            self.driver,
            self.spec::<F>(describe_item(f)),
            args,
            &self.done,
        )
    }
}

impl<'pool> Job<'pool, (), TakesItem> {
    /// Runs `f` on each item, as [`Pool::imap`](crate::Pool::imap) does.
    pub fn imap<'items, I, R, F>(&self, items: I, f: F) -> Imap<'items, R>
    where
        'pool: 'items,
        I: IntoIterator<Item: Portable, IntoIter: 'items>,
        R: Portable,
        F: Fn(I::Item) -> R + Stateless,
    {
        require_no_captures(&f);
        Imap::new(
            self.driver,
            self.spec::<F>(describe_item(f)),
            items.into_iter(),
        )
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
        ImapUnordered::new(
            self.driver,
            self.spec::<F>(describe_item(f)),
            items.into_iter(),
        )
    }
}
