//! Outcomes that come in any order, read in the order of the input.

use crate::error::TaskError;
use crate::task::{Portable, Received};
use std::collections::BTreeMap;

/// Outcomes that wait for those before them.
#[derive(Debug, Default)]
pub(crate) struct Ordered {
    next: usize,
    /// By the index of the first item. One that is being read keeps its place, which has then passed.
    waiting: BTreeMap<usize, Outcome>,
}

/// What came back for consecutive items.
#[derive(Debug)]
pub(crate) enum Outcome {
    Results(Received),
    Failed(TaskError),
}

impl Ordered {
    /// Outcomes of the items from `next` on.
    pub(crate) fn from(next: usize) -> Ordered {
        Ordered {
            next,
            ..Ordered::default()
        }
    }

    /// Takes in what became of the items from `item` on.
    pub(crate) fn put(&mut self, item: usize, outcome: Outcome) {
        self.waiting.insert(item, outcome);
    }

    /// Whether the next item's outcome is there.
    pub(crate) fn has_next(&self) -> bool {
        let first = self.waiting.first_key_value();
        first.is_some_and(|(item, _)| *item <= self.next)
    }

    /// Reads the next item's outcome, if it is there.
    pub(crate) fn next<R: Portable>(&mut self) -> Option<Result<R, TaskError>> {
        let mut entry = self
            .waiting
            .first_entry()
            .filter(|entry| *entry.key() <= self.next)?;
        let result = match entry.get_mut() {
            Outcome::Results(received) => {
                let result = received.next(self.next);
                if received.left() == 0 {
                    entry.remove();
                }
                result
            }
            Outcome::Failed(error) => {
                let error = error.clone();
                entry.remove();
                Err(error)
            }
        };
        self.next += 1;
        Some(result)
    }

    /// Appends all results that are there in order, up to a failure, which is returned.
    pub(crate) fn append_to<R: Portable>(&mut self, results: &mut Vec<R>) -> Result<(), TaskError> {
        loop {
            if let Some(mut entry) = self.waiting.first_entry() {
                if *entry.key() == self.next {
                    if let Outcome::Results(received) = entry.get_mut() {
                        let count = received.left();
                        if received.append_numbers(results) {
                            entry.remove();
                            self.next += count;
                            continue;
                        }
                    }
                }
            }
            match self.next() {
                None => return Ok(()),
                Some(result) => results.push(result?),
            }
        }
    }
}
