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
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// let job = pool.with(10);
    /// assert_eq!(job.map([1, 2], |ten, n: i32| ten * n)?, [10, 20]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// let job = pool.with(10);
    /// assert_eq!(job.apply(4, |ten, n: i32| ten * n)?, 40);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// let job = pool.with(10);
    /// assert_eq!(job.map_async([1, 2], |ten, n: i32| ten * n).get()?, [10, 20]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// let job = pool.with(10);
    /// assert_eq!(job.apply_async(4, |ten, n: i32| ten * n).get()?, 40);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
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

impl<'pool, C: Portable, D> Job<'pool, C, TakesCaptures, D> {
    /// Runs `f` with the captures on each item, as [`Pool::imap`](crate::Pool::imap) does.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// let job = pool.with(10);
    /// let results: Result<Vec<i32>, _> = job.imap([1, 2], |ten, n: i32| ten * n).collect();
    /// assert_eq!(results?, [10, 20]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn imap<'items, I, R, F>(&self, items: I, f: F) -> Imap<'items, R>
    where
        'pool: 'items,
        I: IntoIterator<Item: Portable, IntoIter: 'items>,
        R: Portable,
        F: Fn(&C, I::Item) -> R + Stateless,
        D: Done<R>,
    {
        require_no_captures(&f);
        Imap::new(
            self.driver,
            self.spec::<F>(describe_item_with_captures(f)),
            items.into_iter(),
            &self.done,
        )
    }

    /// Runs `f` with the captures on each item, as [`Pool::imap_unordered`](crate::Pool::imap_unordered) does.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// let job = pool.with(10);
    /// let mut results: Vec<_> = job.imap_unordered([1, 2], |ten, n: i32| ten * n).collect();
    /// results.sort_by_key(|(item, _)| *item);
    /// assert_eq!(results[1], (1, Ok(20)));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn imap_unordered<'items, I, R, F>(&self, items: I, f: F) -> ImapUnordered<'items, R>
    where
        'pool: 'items,
        I: IntoIterator<Item: Portable, IntoIter: 'items>,
        R: Portable,
        F: Fn(&C, I::Item) -> R + Stateless,
        D: Done<R>,
    {
        require_no_captures(&f);
        ImapUnordered::new(
            self.driver,
            self.spec::<F>(describe_item_with_captures(f)),
            items.into_iter(),
            &self.done,
        )
    }
}

impl<D> Job<'_, (), TakesItem, D> {
    /// Runs `f` on each item, as [`Pool::map`](crate::Pool::map) does.
    ///
    /// # Errors
    ///
    /// As [`Pool::map`](crate::Pool::map).
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// let job = pool.job().chunk_size(1);
    /// assert_eq!(job.map([1, 2], |n: i32| n + 1)?, [2, 3]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// let job = pool.job().chunk_size(1);
    /// assert_eq!(job.apply(4, |n: i32| n + 1)?, 5);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// let job = pool.job().chunk_size(1);
    /// assert_eq!(job.map_async([1, 2], |n: i32| n + 1).get()?, [2, 3]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
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
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// let job = pool.job().chunk_size(1);
    /// assert_eq!(job.apply_async(4, |n: i32| n + 1).get()?, 5);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
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

impl<'pool, D> Job<'pool, (), TakesItem, D> {
    /// Runs `f` on each item, as [`Pool::imap`](crate::Pool::imap) does.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// let job = pool.job().chunk_size(1);
    /// let results: Result<Vec<i32>, _> = job.imap([1, 2], |n: i32| n + 1).collect();
    /// assert_eq!(results?, [2, 3]);
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn imap<'items, I, R, F>(&self, items: I, f: F) -> Imap<'items, R>
    where
        'pool: 'items,
        I: IntoIterator<Item: Portable, IntoIter: 'items>,
        R: Portable,
        F: Fn(I::Item) -> R + Stateless,
        D: Done<R>,
    {
        require_no_captures(&f);
        Imap::new(
            self.driver,
            self.spec::<F>(describe_item(f)),
            items.into_iter(),
            &self.done,
        )
    }

    /// Runs `f` on each item, as [`Pool::imap_unordered`](crate::Pool::imap_unordered) does.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = multiprocess::Pool::builder().workers(2).build()?;
    /// let job = pool.job().chunk_size(1);
    /// let mut results: Vec<_> = job.imap_unordered([1, 2], |n: i32| n + 1).collect();
    /// results.sort_by_key(|(item, _)| *item);
    /// assert_eq!(results[1], (1, Ok(3)));
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn imap_unordered<'items, I, R, F>(&self, items: I, f: F) -> ImapUnordered<'items, R>
    where
        'pool: 'items,
        I: IntoIterator<Item: Portable, IntoIter: 'items>,
        R: Portable,
        F: Fn(I::Item) -> R + Stateless,
        D: Done<R>,
    {
        require_no_captures(&f);
        ImapUnordered::new(
            self.driver,
            self.spec::<F>(describe_item(f)),
            items.into_iter(),
            &self.done,
        )
    }
}
