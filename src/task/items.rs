//! The caller's side of a map: its items as batches. Results as values again are in `received.rs`.

use crate::error::{TaskError, TaskErrorKind};
use crate::task::guard::guard;
use crate::task::portable::Portable;
use crate::wire::batch::{Batch, Frames, Lane};
use crate::wire::few::{Few, Single};
use crate::wire::handles::Enclosed;
use crate::wire::plain;
use crate::wire::value::{self, Packed};
use std::any::type_name;
use std::ops::{Range, RangeInclusive};
use std::time::{Duration, Instant};
use std::vec;

/// From this size on, a value that is its own encoding travels alone and without being copied on the way.
pub(crate) const WHOLE_MIN: usize = 32 * 1024;

/// A batch is closed when pulling it has taken so long: the workers are not to wait for a slow iterator with items at hand.
const LONG: Duration = Duration::from_millis(4);
/// An iterator that gives several items in so short a time is asked for more of them before the clock is looked at again.
const SHORT: Duration = Duration::from_micros(1);
/// The most items between two looks at the clock: so many are held up once, when a quick iterator becomes a slow one.
const UNWATCHED_MAX: usize = 64;

/// Items that are pulled from an iterator as they are wanted.
#[derive(Debug)]
pub(crate) struct Items<I: Iterator> {
    iterator: I,
    /// How many are pulled before the clock is looked at.
    unwatched: usize,
    /// The longest time between two looks in the last batch; nothing, if there was none.
    longest: Option<Duration>,
    /// An item that was pulled but did not fit in the batch before; or one that is encoded already and has a batch of its own.
    waiting: Option<I::Item>,
    alone: Option<Frames>,
    pulled: usize,
    is_exhausted: bool,
}

/// What came of asking for a batch.
#[derive(Debug)]
pub(crate) enum Produced {
    /// Items from the index `first` on.
    Batch { first: usize, batch: Batch },
    /// An item that cannot be encoded.
    Failed { item: usize, error: TaskError },
    /// There are no more.
    Exhausted,
}

impl<I: Iterator<Item: Portable>> Items<I> {
    pub(crate) fn new(iterator: I) -> Items<I> {
        Items {
            iterator,
            unwatched: 1,
            longest: None,
            waiting: None,
            alone: None,
            pulled: 0,
            is_exhausted: false,
        }
    }

    /// How many items there are in all, if the iterator knows.
    pub(crate) fn total(&self) -> Option<usize> {
        match self.iterator.size_hint() {
            (least, Some(most)) if least == most => self.pulled.checked_add(least),
            _ => None,
        }
    }

    /// Whether to pull an item and to encode it runs no code but the standard library's and ours, so that it is quick and waits for
    /// nobody: numbers of a range or a vector.
    pub(crate) fn is_at_hand(&self) -> bool {
        // The names of types are the same where these are, whatever they are.
        let name = type_name::<I>();
        let is_known = name == type_name::<vec::IntoIter<I::Item>>()
            || name == type_name::<Range<I::Item>>()
            || name == type_name::<RangeInclusive<I::Item>>();
        is_known && plain::number_size::<I::Item>().is_some()
    }

    /// How long a piece of the last batch took at most, as far as that was looked at.
    pub(crate) fn longest(&self) -> Option<Duration> {
        self.longest
    }

    /// Pulls up to `items_max` items, and no more once they have `bytes_max` bytes, or have taken long and are whole pieces of
    /// `piece_items`; one at least.
    pub(crate) fn next_batch(
        &mut self,
        items_max: usize,
        piece_items: usize,
        bytes_max: usize,
    ) -> Produced {
        let first =
            self.pulled - usize::from(self.waiting.is_some()) - usize::from(self.alone.is_some());
        match plain::number_size::<I::Item>() {
            Some(size) => {
                let items_max = items_max.min(bytes_max / size).max(1);
                self.next_numbers(first, size, items_max, piece_items)
            }
            None => self.next_framed(first, items_max.max(1), piece_items, bytes_max),
        }
    }

    fn next_numbers(
        &mut self,
        first: usize,
        size: usize,
        items_max: usize,
        piece_items: usize,
    ) -> Produced {
        if self.is_exhausted {
            return Produced::Exhausted;
        }
        let mut watch = Watch::new(items_max, piece_items, self.unwatched);
        let soon = items_max.min(watch.next);
        let mut numbers = Vec::with_capacity(soon.min(self.iterator.size_hint().0.max(16)));
        loop {
            let end = watch.next.min(items_max);
            let wanted = end - numbers.len();
            numbers.extend(self.iterator.by_ref().take(wanted));
            self.is_exhausted = numbers.len() < end;
            if self.is_exhausted || end == items_max || watch.is_over() {
                break;
            }
        }
        let count = numbers.len();
        (self.unwatched, self.longest) = watch.end(count);
        self.pulled += count;
        match plain::take_raw(&mut Some(numbers)) {
            Some(numbers) if count > 0 => Produced::Batch {
                first,
                batch: Batch::numbers(size, count, numbers),
            },
            _ => Produced::Exhausted,
        }
    }

    fn next_framed(
        &mut self,
        first: usize,
        items_max: usize,
        piece_items: usize,
        bytes_max: usize,
    ) -> Produced {
        if let Some(frames) = self.alone.take() {
            self.longest = None;
            let batch = Batch::framed(frames);
            return Produced::Batch { first, batch };
        }
        let mut frames = Frames::default();
        let mut watch = Watch::new(items_max, piece_items, self.unwatched);
        while frames.count() < items_max && frames.bytes.len() < bytes_max {
            if frames.count() == watch.next && watch.is_over() {
                break;
            }
            let Some(item) = self.pull() else { break };
            if plain::raw_bytes(&item).is_some_and(|bytes| bytes.len() >= WHOLE_MIN) {
                self.waiting = Some(item);
                if frames.count() > 0 {
                    break;
                }
                if let Some(item) = plain::take_raw(&mut self.waiting) {
                    self.longest = None;
                    return Produced::Batch {
                        first,
                        batch: Batch::whole(item),
                    };
                }
            } else if let Err(why) = frames.push(|out| pack_guarded(&item, out)) {
                if frames.count() == 0 {
                    let error = unencoded::<I::Item>(why).at_item(Some(first));
                    return Produced::Failed { item: first, error };
                }
                // It fails once more, alone, when its turn comes.
                self.waiting = Some(item);
                break;
            } else if frames.has_moved() {
                if frames.count() > 1 {
                    self.alone = Some(frames.split_last());
                }
                break;
            }
        }
        (self.unwatched, self.longest) = watch.end(frames.count());
        if frames.count() == 0 {
            Produced::Exhausted
        } else {
            Produced::Batch {
                first,
                batch: Batch::framed(frames),
            }
        }
    }

    fn pull(&mut self) -> Option<I::Item> {
        if let Some(item) = self.waiting.take() {
            return Some(item);
        }
        // An iterator that has said that it is at its end is not asked again.
        if self.is_exhausted {
            return None;
        }
        let item = self.iterator.next();
        match item {
            Some(_) => self.pulled += 1,
            None => self.is_exhausted = true,
        }
        item
    }
}

/// Looks at the clock while a batch is pulled, now and then.
#[derive(Debug)]
struct Watch {
    piece_items: usize,
    unwatched: usize,
    /// With how many items it was looked last, and is next.
    seen: usize,
    next: usize,
    /// When the batch was begun, and when it was looked last; a batch of one piece needs no look.
    since: Option<(Instant, Instant)>,
    longest: Duration,
}

impl Watch {
    fn new(items_max: usize, piece_items: usize, unwatched: usize) -> Watch {
        let mut watch = Watch {
            piece_items,
            unwatched,
            seen: 0,
            next: 0,
            since: (items_max > piece_items)
                .then(Instant::now)
                .map(|now| (now, now)),
            longest: Duration::ZERO,
        };
        watch.go_on();
        watch
    }

    /// Some more items are pulled before the next look, whole pieces altogether.
    fn go_on(&mut self) {
        self.next = match self.since {
            Some(_) => self.next + self.unwatched.next_multiple_of(self.piece_items),
            None => usize::MAX,
        };
    }

    /// Returns whether the batch has taken long.
    #[cold]
    fn is_over(&mut self) -> bool {
        let has_taken_long = self.look().is_some_and(|taken| taken >= LONG);
        self.seen = self.next;
        self.go_on();
        has_taken_long
    }

    /// The batch ends, with so many items. Returns how many of the next one are to be pulled before its first look, and the longest time
    /// between two.
    fn end(mut self, count: usize) -> (usize, Option<Duration>) {
        // Where none was pulled since the last look, nothing is learnt.
        if count > self.seen {
            self.look();
        }
        (self.unwatched, self.since.map(|_| self.longest))
    }

    /// Learns from the time since the last look how seldom to look; returns what the batch has taken.
    fn look(&mut self) -> Option<Duration> {
        let (start, last) = self.since.as_mut()?;
        let now = Instant::now();
        let took = now - *last;
        self.unwatched = unwatched_after(self.unwatched, took);
        self.longest = self.longest.max(took);
        *last = now;
        Some(now - *start)
    }
}

/// How many items are pulled before the next look at the clock, where up to so many took so long.
fn unwatched_after(unwatched: usize, took: Duration) -> usize {
    let wanted = if took < SHORT {
        2 * unwatched
    } else if took < LONG {
        unwatched / 2
    } else {
        1
    };
    wanted.clamp(1, UNWATCHED_MAX)
}

/// Encodes what one call is made with, which travels with the arguments of others.
///
/// # Errors
///
/// Where it cannot be encoded.
pub(crate) fn pack_argument<A: Portable>(argument: A) -> Result<Single, TaskError> {
    if let (Some(size), Some(few)) = (
        plain::number_size::<A>(),
        plain::number_bytes(&argument).and_then(Few::of),
    ) {
        return Ok(Single::Few(Lane::Numbers(size as u32), few));
    }
    match Items::new(std::iter::once(argument)).next_batch(1, 1, usize::MAX) {
        Produced::Batch { batch, .. } => Ok(Single::of(batch)),
        Produced::Failed { error, .. } => Err(error.at_item(None)),
        Produced::Exhausted => Err(TaskError::new(TaskErrorKind::System, "it has no argument")),
    }
}

/// Packs a value; a panic of its `Serialize` is one more reason why that failed.
pub(crate) fn pack_guarded<T: Portable>(value: &T, out: &mut Vec<u8>) -> Result<Enclosed, String> {
    if plain::is_raw::<T>() {
        return value::pack(value, out); // No code of the user's runs.
    }
    guard(|| value::pack(value, out)).unwrap_or_else(|panic| Err(panic_words(&panic)))
}

fn unencoded<T>(why: String) -> TaskError {
    TaskError::of_type(TaskErrorKind::ArgumentEncoding, type_name::<T>(), why)
}

/// Encodes what a job's function takes beside each item.
///
/// # Errors
///
/// Where it cannot be encoded.
pub(crate) fn pack_captures<C: Portable>(captures: &C) -> Result<Packed, TaskError> {
    let mut bytes = Vec::new();
    let enclosed = pack_guarded(captures, &mut bytes).map_err(unencoded::<C>)?;
    Ok(Packed {
        bytes,
        descriptors: enclosed.depart(),
    })
}

/// A panic of the user's `Serialize` or `Deserialize`, as the reason of another error.
pub(crate) fn panic_words(panic: &TaskError) -> String {
    let message = panic.panic_message().unwrap_or_default();
    match panic.location() {
        Some(location) => format!("it panicked at {location}: {message}"),
        None => format!("it panicked: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(produced: &Produced) -> (usize, usize) {
        match produced {
            Produced::Batch { first, batch } => (*first, batch.count()),
            other => panic!("no batch: {other:?}"),
        }
    }

    #[test]
    fn numbers_come_in_batches_of_what_was_asked() {
        let mut items = Items::new(0..10u64);
        assert_eq!(items.total(), Some(10));
        assert_eq!(counts(&items.next_batch(4, usize::MAX, 1 << 20)), (0, 4));
        assert_eq!(counts(&items.next_batch(100, usize::MAX, 24)), (4, 3));
        assert_eq!(counts(&items.next_batch(100, usize::MAX, 1)), (7, 1));
        assert_eq!(counts(&items.next_batch(100, usize::MAX, 1 << 20)), (8, 2));
        assert!(matches!(items.next_batch(1, 1, 1), Produced::Exhausted));
    }

    #[test]
    fn a_large_value_travels_alone() {
        let values = [vec![1u8], vec![2; WHOLE_MIN], vec![3; WHOLE_MIN], vec![4]];
        let mut items = Items::new(values.into_iter());
        for first in 0..4 {
            assert_eq!(
                counts(&items.next_batch(100, usize::MAX, 1 << 20)),
                (first, 1)
            );
        }
        assert!(matches!(items.next_batch(1, 1, 1), Produced::Exhausted));
    }

    #[test]
    fn an_item_that_cannot_be_encoded_fails_alone() {
        #[derive(serde::Deserialize)]
        struct Picky(u32);
        impl serde::Serialize for Picky {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self.0 {
                    2 => Err(serde::ser::Error::custom("no twos")),
                    4 => panic!("no fours"),
                    n => serializer.serialize_u32(n),
                }
            }
        }
        let mut items = Items::new((0..6).map(Picky));
        assert_eq!(counts(&items.next_batch(10, usize::MAX, 1 << 20)), (0, 2));
        for (item, words) in [(2, "no twos"), (4, "no fours")] {
            match items.next_batch(10, usize::MAX, 1 << 20) {
                Produced::Failed {
                    item: failed,
                    error,
                } => {
                    assert_eq!((failed, error.item()), (item, Some(item)));
                    assert!(error.to_string().contains(words), "{error}");
                }
                other => panic!("no failure: {other:?}"),
            }
            assert_eq!(
                counts(&items.next_batch(10, usize::MAX, 1 << 20)),
                (item + 1, 1)
            );
        }
        assert!(matches!(
            items.next_batch(10, usize::MAX, 1 << 20),
            Produced::Exhausted
        ));
    }

    #[test]
    fn what_a_slow_iterator_has_given_does_not_wait_for_more_than_a_piece() {
        // Only time tells that it is slow.
        let slowly = |_: &u64| std::thread::sleep(LONG);
        let mut numbers = Items::new((0..).inspect(slowly));
        let mut texts = Items::new((0..).inspect(slowly).map(|n| n.to_string()));
        for (first, piece_items) in [(0, 1), (1, 3), (4, 1)] {
            let batch = numbers.next_batch(100, piece_items, 1 << 20);
            assert_eq!(counts(&batch), (first, piece_items));
            let batch = texts.next_batch(100, piece_items, 1 << 20);
            assert_eq!(counts(&batch), (first, piece_items));
        }
        let batch = numbers.next_batch(5, usize::MAX, 1 << 20);
        assert_eq!(counts(&batch), (5, 5), "it is to be whole");
    }

    #[test]
    fn a_quick_iterator_is_seldom_watched_and_one_that_gets_slow_is_again() {
        let quick = Duration::from_nanos(900);
        assert_eq!(unwatched_after(1, quick), 2);
        assert_eq!(unwatched_after(UNWATCHED_MAX, quick), UNWATCHED_MAX);
        assert_eq!(unwatched_after(8, 2 * SHORT), 4);
        assert_eq!(unwatched_after(1, 2 * SHORT), 1);
        assert_eq!(unwatched_after(UNWATCHED_MAX, LONG), 1);
        // Also where a batch is smaller than what is pulled without a look.
        for items_max in [3, 2 * UNWATCHED_MAX] {
            let is_slow = std::cell::Cell::new(false);
            // Only time tells that it is slow.
            let mut items = Items::new((0..1000u64).inspect(|_| {
                if is_slow.get() {
                    std::thread::sleep(LONG);
                }
            }));
            items.unwatched = UNWATCHED_MAX;
            is_slow.set(true);
            let (_, held_up) = counts(&items.next_batch(items_max, 1, 1 << 20));
            assert!(held_up <= UNWATCHED_MAX);
            let (_, count) = counts(&items.next_batch(items_max, 1, 1 << 20));
            assert_eq!(count, 1, "after {held_up} that were slow");
        }
    }

    #[test]
    fn items_are_at_hand_where_nobodys_code_is_asked_for_them() {
        assert!(Items::new(0..3u8).is_at_hand());
        assert!(Items::new(0..=3u64).is_at_hand());
        assert!(Items::new(vec![1i128].into_iter()).is_at_hand());
        // These may be encoded by code of the user's.
        assert!(!Items::new(vec![(1u8, "a".to_owned())].into_iter()).is_at_hand());
        assert!(!Items::new((0..3u8).map(|n| n + 1)).is_at_hand());
        assert!(!Items::new(vec![1u8].into_iter().inspect(|_| {})).is_at_hand());
        assert!(!Items::new((0..3u8).filter(|_| true)).is_at_hand());
        assert!(!Items::new(std::iter::repeat(1u8)).is_at_hand());
    }

    #[test]
    fn an_iterator_at_its_end_is_not_asked_again() {
        let mut asked = 0;
        let mut items = Items::new(std::iter::from_fn(move || {
            asked += 1;
            assert!(asked <= 2, "asked after the end");
            (asked == 1).then_some("text".to_owned())
        }));
        assert_eq!(counts(&items.next_batch(5, usize::MAX, 100)), (0, 1));
        assert!(matches!(
            items.next_batch(5, usize::MAX, 100),
            Produced::Exhausted
        ));
        assert!(matches!(
            items.next_batch(5, usize::MAX, 100),
            Produced::Exhausted
        ));
    }
}
