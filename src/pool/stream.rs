//! Calls that are made one by one (`apply_async`) of one function are items of one job, a *stream*: they wait here, and
//! as many of them as the workers want become a batch together, so that ten thousand short calls are few messages.

use crate::pool::call::Call;
use crate::wire::batch::Batch;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// A stream's batch is closed when it has this many bytes.
const STREAM_BATCH_BYTES: usize = 256 * 1024;

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
    pub(crate) argument: Option<Batch>,
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
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.call.is_none())
        {
            self.entries.pop_front();
            self.base += 1;
            self.submitted = self.submitted.saturating_sub(1);
        }
        call
    }

    /// Takes up to `items_max` arguments that can travel together; returns the first one's item as well.
    pub(crate) fn take_arguments(&mut self, items_max: usize) -> Option<(usize, Batch)> {
        let is_cancelled = |entry: &Entry| entry.argument.is_none();
        while self.entries.get(self.submitted).is_some_and(is_cancelled) {
            self.submitted += 1;
        }
        let item = self.base + self.submitted;
        let (mut batches, mut bytes) = (Vec::new(), 0);
        while batches.len() < items_max && bytes < STREAM_BATCH_BYTES {
            let Some(entry) = self.entries.get_mut(self.submitted) else {
                break;
            };
            match (&entry.argument, batches.first()) {
                (None, _) => break,
                (Some(argument), Some(first)) if !argument.can_join(first) => break,
                _ => {}
            }
            batches.extend(entry.argument.take());
            bytes += batches.last().map_or(0, Batch::size);
            self.submitted += 1;
        }
        Some((item, Batch::join(batches)?))
    }
}
