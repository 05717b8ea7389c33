//! Calls that are made one by one (`apply_async`) of one function are items of one job, a *stream*: they wait here, and
//! as many of them as the workers want become a batch together, so that ten thousand short calls are few messages.

use crate::pool::call::Call;
use crate::wire::batch::Batch;
use crate::wire::few::Single;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// A stream's batch is closed when it has this many bytes.
const STREAM_BATCH_BYTES: usize = 256 * 1024;

/// How many calls are under way for each that waits for others to travel with. So calls that are made faster than they are
/// served are messages that grow as their number does, and a worker does not run dry meanwhile.
const UNDER_WAY_FOR_EACH: usize = 8;

/// Calls as items of one job.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// The item of the first entry; those before it are done.
    pub(crate) base: usize,
    pub(crate) entries: VecDeque<Entry>,
    /// How many of the entries, from the front, have been submitted.
    pub(crate) submitted: usize,
}

/// A call that is not done, or was cancelled; and its argument, until that is submitted.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) call: Option<Arc<Call>>,
    pub(crate) argument: Option<Single>,
    /// When it was made, by the monotonic clock.
    pub(crate) since: u64,
}

impl Stream {
    pub(crate) fn next_item(&self) -> usize {
        self.base + self.entries.len()
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.submitted < self.entries.len()
    }

    /// Whether the calls that wait may wait for others to travel with, while no worker lacks anything: beside those under way
    /// they are few.
    pub(crate) fn may_wait(&self) -> bool {
        let waiting = self.entries.len() - self.submitted;
        waiting.saturating_mul(UNDER_WAY_FOR_EACH) < self.submitted
    }

    pub(crate) fn has(&self, item: usize) -> bool {
        let place = item.checked_sub(self.base);
        let entry = place.and_then(|place| self.entries.get(place));
        entry.is_some_and(|entry| entry.call.is_some())
    }

    /// When the calls of these items were made, of those that nobody has cancelled.
    pub(crate) fn since(&self, items: Range<usize>) -> impl Iterator<Item = u64> + '_ {
        let start = items.start.saturating_sub(self.base);
        let end = items.end.saturating_sub(self.base).min(self.entries.len());
        let entries = self.entries.range(start.min(end)..end);
        let is_wanted = |entry: &&Entry| entry.call.is_some();
        entries.filter(is_wanted).map(|entry| entry.since)
    }

    /// Takes the call of an item; `None` if it is done, or was cancelled.
    pub(crate) fn take(&mut self, item: usize) -> Option<Arc<Call>> {
        let entry = self.entries.get_mut(item.checked_sub(self.base)?)?;
        entry.argument = None;
        let call = entry.call.take();
        self.drop_done();
        call
    }

    /// Takes the calls of items that have their results, in their order; `None` for each that was cancelled.
    pub(crate) fn take_all(&mut self, items: Range<usize>) -> Vec<Option<Arc<Call>>> {
        let base = self.base;
        let calls = items.map(|item| {
            let entry = self.entries.get_mut(item.checked_sub(base)?)?;
            entry.call.take()
        });
        let calls = calls.collect();
        self.drop_done();
        calls
    }

    fn drop_done(&mut self) {
        let is_done = |entry: &Entry| entry.call.is_none();
        while self.entries.front().is_some_and(is_done) {
            self.entries.pop_front();
            self.base += 1;
            self.submitted = self.submitted.saturating_sub(1);
        }
    }

    /// Takes up to `items_max` arguments that can travel together; returns the first one's item as well.
    pub(crate) fn take_arguments(&mut self, items_max: usize) -> Option<(usize, Batch)> {
        let is_cancelled = |entry: &Entry| entry.argument.is_none();
        while self.entries.get(self.submitted).is_some_and(is_cancelled) {
            self.submitted += 1;
        }
        let item = self.base + self.submitted;
        let first = self.entries.get_mut(self.submitted)?.argument.take()?;
        self.submitted += 1;
        let mut batch = first.into_batch();
        while batch.count() < items_max && batch.size() < STREAM_BATCH_BYTES {
            let Some(entry) = self.entries.get_mut(self.submitted) else {
                break;
            };
            let can_join = |argument: &mut Single| argument.can_join(&batch);
            let Some(argument) = entry.argument.take_if(can_join) else {
                break;
            };
            argument.join(&mut batch);
            self.submitted += 1;
        }
        Some((item, batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::pack_argument;

    fn make(stream: &mut Stream, number: u64) -> usize {
        let item = stream.next_item();
        stream.entries.push_back(Entry {
            call: Some(Arc::new(Call::new(None))),
            argument: Some(pack_argument(number).unwrap()),
            since: 0,
        });
        item
    }

    #[test]
    fn calls_that_are_made_while_many_are_under_way_travel_together() {
        let mut stream = Stream::default();
        let mut batches = Vec::new();
        for number in 0..10_000 {
            make(&mut stream, number);
            if !stream.may_wait() {
                let (item, batch) = stream.take_arguments(usize::MAX).unwrap();
                assert_eq!(item, batches.iter().sum::<usize>());
                batches.push(batch.count());
            }
        }
        // The first ones at once, and then so many that they are an eighth of those under way.
        assert!(batches[..9].iter().all(|&count| count == 1), "{batches:?}");
        assert!(batches.len() < 100, "{batches:?}");
        // When those under way are done, those that wait may not wait any longer.
        let (under_way, made) = (stream.submitted, stream.next_item());
        assert!(under_way < made && stream.may_wait());
        assert_eq!(stream.take_all(0..under_way).len(), under_way);
        assert!(!stream.may_wait());
        let (item, batch) = stream.take_arguments(usize::MAX).unwrap();
        assert_eq!((item, batch.count()), (under_way, made - under_way));
    }

    #[test]
    fn what_was_cancelled_does_not_travel_and_has_no_place_in_a_batch() {
        let mut stream = Stream::default();
        for number in 0..6 {
            make(&mut stream, number);
        }
        assert!(stream.take(0).is_some() && stream.take(3).is_some());
        assert!(stream.take(3).is_none());
        let taken = |stream: &mut Stream| {
            let (item, batch) = stream.take_arguments(10)?;
            Some((item, batch.slice(0..batch.count()).to_vec()))
        };
        let bytes = |numbers: &[u64]| numbers.iter().flat_map(|n| n.to_ne_bytes()).collect();
        assert_eq!(taken(&mut stream), Some((1, bytes(&[1, 2]))));
        assert_eq!(taken(&mut stream), Some((4, bytes(&[4, 5]))));
        assert_eq!(taken(&mut stream), None);
        let calls = stream.take_all(1..5);
        let is_there: Vec<bool> = calls.iter().map(Option::is_some).collect();
        assert_eq!(is_there, [true, true, false, true]);
        assert_eq!((stream.base, stream.entries.len()), (5, 1));
    }
}
