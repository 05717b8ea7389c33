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
use std::time::{Duration, Instant};

/// From this size on, a value that is its own encoding travels alone and without being copied on the way.
pub(crate) const WHOLE_MIN: usize = 32 * 1024;

/// A batch is closed when pulling it has taken so long: the workers are not to wait for a slow iterator with items at hand.
const LONG: Duration = Duration::from_millis(4);
/// An iterator that gives several items in so short a time is asked for more of them before the clock is looked at again.
const SHORT: Duration = Duration::from_micros(1);
/// The most items between two looks at the clock: of an iterator that knows how many there are, and hardly waits for any, and of
/// another one.
const UNWATCHED_MAX: [usize; 2] = [4096, 64];

/// Items that are pulled from an iterator as they are wanted.
#[derive(Debug)]
pub(crate) struct Items<I: Iterator> {
    iterator: I,
    /// How many are pulled before the clock is looked at.
    unwatched: usize,
    /// An item that was pulled but did not fit in the batch before.
    waiting: Option<I::Item>,
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
            waiting: None,
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

    /// Pulls up to `items_max` items, and no more once they have `bytes_max` bytes, or have taken long and are whole pieces of
    /// `piece_items`; one at least.
    pub(crate) fn next_batch(
        &mut self,
        items_max: usize,
        piece_items: usize,
        bytes_max: usize,
    ) -> Produced {
        let first = self.pulled - usize::from(self.waiting.is_some());
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
        let mut numbers = Vec::with_capacity(items_max.min(self.iterator.size_hint().0.max(16)));
        let mut watch = Watch::new(items_max, piece_items, self.unwatched);
        loop {
            let end = watch.next.min(items_max);
            let wanted = end - numbers.len();
            numbers.extend(self.iterator.by_ref().take(wanted));
            self.is_exhausted = numbers.len() < end;
            if self.is_exhausted || end == items_max || watch.is_over(self.is_counted()) {
                break;
            }
        }
        self.unwatched = watch.unwatched;
        let count = numbers.len();
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
        let mut frames = Frames::default();
        let mut watch = Watch::new(items_max, piece_items, self.unwatched);
        while frames.count() < items_max && frames.bytes.len() < bytes_max {
            if frames.count() == watch.next && watch.is_over(self.is_counted()) {
                break;
            }
            let Some(item) = self.pull() else { break };
            if plain::raw_bytes(&item).is_some_and(|bytes| bytes.len() >= WHOLE_MIN) {
                self.waiting = Some(item);
                if frames.count() > 0 {
                    break;
                }
                if let Some(item) = plain::take_raw(&mut self.waiting) {
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
            }
        }
        self.unwatched = watch.unwatched;
        if frames.count() == 0 {
            Produced::Exhausted
        } else {
            Produced::Batch {
                first,
                batch: Batch::framed(frames),
            }
        }
    }

    /// Whether the iterator knows how many items there are.
    fn is_counted(&self) -> bool {
        self.total().is_some()
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
    /// With how many items it is looked next.
    next: usize,
    /// When the batch was begun, and when it was looked last; a batch of one piece needs no look.
    since: Option<(Instant, Instant)>,
}

impl Watch {
    fn new(items_max: usize, piece_items: usize, unwatched: usize) -> Watch {
        let mut watch = Watch {
            piece_items,
            unwatched,
            next: 0,
            since: (items_max > piece_items)
                .then(Instant::now)
                .map(|now| (now, now)),
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
    fn is_over(&mut self, is_counted: bool) -> bool {
        let Some((start, last)) = &mut self.since else {
            return false;
        };
        let now = Instant::now();
        let [counted_max, other_max] = UNWATCHED_MAX;
        let most = if is_counted { counted_max } else { other_max };
        let took = now - *last;
        let wanted = if took < SHORT {
            2 * self.unwatched
        } else if took < LONG {
            self.unwatched / 2
        } else {
            1
        };
        self.unwatched = wanted.clamp(1, most);
        *last = now;
        let has_taken_long = now - *start >= LONG;
        self.go_on();
        has_taken_long
    }
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
        let is_slow = std::cell::Cell::new(false);
        let pause = |_: &u64| {
            if is_slow.get() {
                std::thread::sleep(LONG);
            }
        };
        let mut counted = Items::new((0..u64::MAX).inspect(pause));
        let mut other = Items::new((0..).inspect(pause).filter(|_| true));
        while counted.unwatched < 128 {
            counted.next_batch(4096, 1, 1 << 20);
        }
        while other.unwatched < UNWATCHED_MAX[1] {
            other.next_batch(4096, 1, 1 << 20);
        }
        for _ in 0..100 {
            other.next_batch(4096, 1, 1 << 20);
            assert!(other.unwatched <= UNWATCHED_MAX[1]);
        }
        is_slow.set(true);
        other.next_batch(4096, 1, 1 << 20);
        assert_eq!(other.unwatched, 1);
        let before = other.pulled;
        other.next_batch(4096, 1, 1 << 20);
        assert_eq!(other.pulled - before, 1);
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
