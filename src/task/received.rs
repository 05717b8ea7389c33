//! What came back from a worker, as values again: read one by one, or cut up for calls that are read one by one.

use crate::error::{TaskError, TaskErrorKind};
use crate::sys::shared::SharedFd;
use crate::task::guard::guard;
use crate::task::items::panic_words;
use crate::task::portable::Portable;
use crate::wire::batch::{Lane, split_frame};
use crate::wire::few::Few;
use crate::wire::{plain, value};
use std::any::type_name;
use std::sync::Arc;

/// Results of consecutive items as they came from a worker, read one by one.
#[derive(Debug)]
pub(crate) struct Received {
    lane: Lane,
    left: usize,
    body: Vec<u8>,
    at: usize,
    descriptors: std::vec::IntoIter<Arc<SharedFd>>,
    worker: u32,
    is_hosted: bool,
}

impl Received {
    pub(crate) fn new(
        lane: Lane,
        count: usize,
        body: Vec<u8>,
        descriptors: Vec<Arc<SharedFd>>,
        worker: u32,
    ) -> Received {
        Received {
            lane,
            left: count,
            body,
            at: 0,
            descriptors: descriptors.into_iter(),
            worker,
            is_hosted: false,
        }
    }

    /// Results that went to their job's room already: here they are counted only.
    pub(crate) fn hosted(lane: Lane, count: usize, worker: u32) -> Received {
        Received {
            is_hosted: true,
            ..Received::new(lane, count, Vec::new(), Vec::new(), worker)
        }
    }

    pub(crate) fn is_hosted(&self) -> bool {
        self.is_hosted
    }

    /// No results.
    pub(crate) fn nothing() -> Received {
        Received::new(Lane::Framed, 0, Vec::new(), Vec::new(), 0)
    }

    /// How many results are left to be read.
    pub(crate) fn left(&self) -> usize {
        self.left
    }

    /// Cuts off the next result, still encoded.
    pub(crate) fn split_front(&mut self) -> Encoded {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let (bytes, descriptors) = match self.lane {
            Lane::Whole => (rest, 0),
            Lane::Numbers(size) => (rest.get(..size as usize).unwrap_or_default(), 0),
            Lane::Framed => {
                let mut behind = rest;
                let count = split_frame(&mut behind).map_or(0, |(_, count)| count);
                // One that is torn stays so, and so do all behind it.
                (&rest[..rest.len() - behind.len()], count)
            }
        };
        let few = Few::of(bytes).filter(|_| descriptors == 0 && self.lane != Lane::Whole);
        if let Some(few) = few {
            self.at += bytes.len();
            self.left = self.left.saturating_sub(1);
            return Encoded::Few(self.lane, few, self.worker);
        }
        // The last one needs no copy.
        if self.left <= 1 {
            return Encoded::Received(Box::new(std::mem::replace(self, Received::nothing())));
        }
        let body = bytes.to_vec();
        self.at += body.len();
        self.left -= 1;
        let descriptors: Vec<Arc<SharedFd>> = self.descriptors.by_ref().take(descriptors).collect();
        let alone = Received::new(self.lane, 1, body, descriptors, self.worker);
        Encoded::Received(Box::new(alone))
    }

    /// Reads all that are left, if they are numbers and as many as was said.
    pub(crate) fn append_numbers<R: Portable>(&mut self, results: &mut Vec<R>) -> bool {
        let size = match (self.lane, plain::number_size::<R>()) {
            (Lane::Numbers(size), Some(expected)) if size as usize == expected => expected,
            _ => return false,
        };
        let bytes = &self.body[self.at..];
        if bytes.len() != size * self.left {
            return false;
        }
        plain::extend_numbers(bytes, results);
        self.left = 0;
        true
    }

    /// Reads the next result; it is the one of `item`.
    ///
    /// # Errors
    ///
    /// Where its bytes are no such value.
    pub(crate) fn next<R: Portable>(&mut self, item: usize) -> Result<R, TaskError> {
        self.left = self.left.saturating_sub(1);
        let worker = self.worker;
        decoded(|| self.next_value()).map_err(|why| undecoded::<R>(why, worker).at_item(Some(item)))
    }

    fn next_value<R: Portable>(&mut self) -> Result<R, String> {
        if self.lane == Lane::Whole {
            return value::unpack_owned(std::mem::take(&mut self.body), Vec::new());
        }
        let mut rest = self.body.get(self.at..).ok_or(TORN)?;
        let value = next_value(self.lane, &mut rest, &mut self.descriptors);
        self.at = self.body.len() - rest.len();
        value
    }
}

const TORN: &str = "the worker's message is torn";

/// Reads the first value off `rest`, which is left behind it.
fn next_value<R: Portable>(
    lane: Lane,
    rest: &mut &[u8],
    descriptors: &mut impl Iterator<Item = Arc<SharedFd>>,
) -> Result<R, String> {
    if let Lane::Numbers(size) = lane {
        let (bytes, behind) = rest.split_at_checked(size as usize).ok_or(TORN)?;
        *rest = behind;
        return plain::number_from(bytes).ok_or_else(|| TORN.to_owned());
    }
    let (bytes, count) = split_frame(rest).ok_or(TORN)?;
    value::unpack(bytes, descriptors.by_ref().take(count).collect())
}

/// Decodes by code of the user's; a panic of that is one more reason why it failed.
fn decoded<R>(decode: impl FnOnce() -> Result<R, String>) -> Result<R, String> {
    guard(decode).unwrap_or_else(|panic| Err(panic_words(&panic)))
}

fn undecoded<R>(why: String, worker: u32) -> TaskError {
    TaskError::of_type(TaskErrorKind::ResultDecoding, type_name::<R>(), why).in_process(worker)
}

/// The result of one item, still encoded.
#[derive(Debug)]
pub(crate) enum Encoded {
    /// On which lane it came, and from which worker.
    Few(Lane, Few, u32),
    Received(Box<Received>),
}

impl Encoded {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// Where its bytes are no such value.
    pub(crate) fn decode<R: Portable>(self) -> Result<R, TaskError> {
        match self {
            Encoded::Few(lane, few, worker) => {
                let read = || next_value(lane, &mut few.bytes(), &mut std::iter::empty());
                let value = match lane {
                    // No code of the user's reads a number.
                    Lane::Numbers(_) => read(),
                    Lane::Framed | Lane::Whole => decoded(read),
                };
                value.map_err(|why| undecoded::<R>(why, worker))
            }
            Encoded::Received(mut received) => {
                received.next(0).map_err(|error| error.at_item(None))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::items::{Items, Produced, WHOLE_MIN};

    #[test]
    fn results_that_are_cut_off_are_as_those_that_are_read_in_turn() {
        // Short and long ones, by turns; the last one is taken without a copy.
        let texts: Vec<String> = [3, 100, 0, 23, 15, 16, 40]
            .map(|len| "x".repeat(len))
            .into();
        let mut items = Items::new(texts.clone().into_iter());
        let Produced::Batch { batch, .. } = items.next_batch(100, usize::MAX, 1 << 20) else {
            panic!("no batch");
        };
        let body = batch.slice(0..batch.count()).to_vec();
        let mut received = Received::new(Lane::Framed, texts.len(), body, Vec::new(), 1);
        for text in texts {
            assert_eq!(received.split_front().decode::<String>().unwrap(), text);
        }
        assert_eq!(received.left(), 0);
        let numbers = [1.5_f64, -2.0].iter().flat_map(|n| n.to_ne_bytes());
        let mut received = Received::new(Lane::Numbers(8), 2, numbers.collect(), Vec::new(), 1);
        let first = received.split_front();
        assert!(
            first
                .decode::<u32>()
                .unwrap_err()
                .to_string()
                .contains("torn")
        );
        assert_eq!(received.split_front().decode::<f64>().unwrap(), -2.0);
        let whole = vec![7_u8; WHOLE_MIN];
        let mut received = Received::new(Lane::Whole, 1, whole.clone(), Vec::new(), 1);
        assert_eq!(received.split_front().decode::<Vec<u8>>().unwrap(), whole);
    }

    #[test]
    fn a_torn_answer_is_an_error_for_each_result() {
        let mut framed = Received::new(Lane::Framed, 2, vec![200, 0, 0], Vec::new(), 1);
        assert!(framed.next::<String>(0).is_err());
        assert!(framed.next::<String>(1).is_err());
        let mut framed = Received::new(Lane::Framed, 2, vec![200, 0, 0], Vec::new(), 1);
        assert!(framed.split_front().decode::<String>().is_err());
        assert!(framed.split_front().decode::<String>().is_err());
        let mut numbers = Received::new(Lane::Numbers(8), 2, vec![1; 9], Vec::new(), 1);
        assert!(numbers.split_front().decode::<u64>().is_ok());
        assert!(numbers.split_front().decode::<u64>().is_err());
        let mut numbers = Received::new(Lane::Numbers(8), 2, vec![1; 9], Vec::new(), 1);
        assert!(!numbers.append_numbers::<u64>(&mut Vec::new()));
        assert!(numbers.next::<u64>(0).is_ok());
        assert!(numbers.next::<u64>(1).is_err());
        assert!(
            Received::new(Lane::Numbers(4), 1, vec![1; 4], Vec::new(), 1)
                .next::<u64>(0)
                .is_err()
        );
        assert!(
            Received::new(Lane::Whole, 1, vec![0xff], Vec::new(), 1)
                .next::<String>(0)
                .is_err()
        );
    }
}
