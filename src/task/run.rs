//! The worker's side of a map: a chunk of items, run one after the other.
//!
//! What a run leaves behind is whole at every item: whatever happens in the user's code, the results before it are in the
//! chunk's output, and the chunk stands at the item behind it.

use crate::error::{TaskError, TaskErrorKind};
use crate::shm::Note;
use crate::sys::function::{Body, FunctionId, describe};
use crate::sys::shared::SharedFd;
use crate::sys::step::step;
use crate::task::guard::guard;
use crate::task::items::{WHOLE_MIN, panic_words};
use crate::task::portable::{Portable, Stateless};
use crate::wire::batch::{Frames, Lane, split_frame};
use crate::wire::handles::Enclosed;
use crate::wire::plain::{self, Raw};
use crate::wire::value;
use std::any::{Any, type_name};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Items that are being worked on.
#[derive(Debug)]
pub(crate) struct Chunk {
    lane: Lane,
    body: Vec<u8>,
    at: usize,
    descriptors: std::vec::IntoIter<Arc<SharedFd>>,
    /// Items that are left, and of these, how many the next run takes.
    left: usize,
    quota: usize,
    /// The number of the next item on its link, and the word that tells the parent which one is being worked on.
    ticket: u64,
    progress: Note,
    captures: Captures,
    outputs: Vec<Output>,
}

/// What a job's function takes beside each item.
#[derive(Debug, Default)]
pub(crate) enum Captures {
    #[default]
    None,
    Packed(Vec<u8>, Vec<Arc<SharedFd>>),
    Decoded(Box<dyn Any>),
    /// They cannot be decoded; every item of the job says so.
    Undecodable(String),
}

impl Captures {
    /// Drops them; a destructor that panics is nobody's concern any more.
    pub(crate) fn discard(self) {
        let _panic = guard(|| drop(self));
    }
}

/// Results of consecutive items, ready to be sent.
#[derive(Debug)]
pub(crate) enum Output {
    Numbers {
        size: usize,
        count: usize,
        numbers: Box<dyn Raw>,
    },
    Framed(Frames),
    Whole(Box<dyn Raw>),
}

impl Output {
    pub(crate) fn lane(&self) -> Lane {
        match self {
            Output::Numbers { size, .. } => Lane::Numbers(*size as u32),
            Output::Framed(_) => Lane::Framed,
            Output::Whole(_) => Lane::Whole,
        }
    }

    pub(crate) fn count(&self) -> usize {
        match self {
            Output::Numbers { count, .. } => *count,
            Output::Framed(frames) => frames.count(),
            Output::Whole(_) => 1,
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Output::Numbers { numbers, .. } => numbers.bytes(),
            Output::Framed(frames) => &frames.bytes,
            Output::Whole(value) => value.bytes(),
        }
    }

    pub(crate) fn descriptors(&self) -> &[Arc<SharedFd>] {
        match self {
            Output::Framed(frames) => frames.descriptors(),
            Output::Numbers { .. } | Output::Whole(_) => &[],
        }
    }
}

/// How a run ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Its items have results.
    Well,
    /// Those before have results, and this is what became of the last one.
    Failed(TaskError),
}

impl Chunk {
    pub(crate) fn new(
        lane: Lane,
        count: usize,
        body: Vec<u8>,
        descriptors: Vec<Arc<SharedFd>>,
        ticket: u64,
        progress: Note,
        captures: Captures,
    ) -> Chunk {
        let outputs = Vec::new();
        Chunk {
            lane,
            body,
            at: 0,
            descriptors: descriptors.into_iter(),
            left: count,
            quota: 0,
            ticket,
            progress,
            captures,
            outputs,
        }
    }

    pub(crate) fn left(&self) -> usize {
        self.left
    }

    pub(crate) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Has the next run take up to `quota` items.
    pub(crate) fn allow(&mut self, quota: usize) {
        self.quota = quota.min(self.left);
    }

    /// What the last run brought, in the order of its items.
    pub(crate) fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// Ends the chunk; what the function takes beside each item serves the next one.
    pub(crate) fn into_captures(self) -> Captures {
        self.captures
    }

    fn run<A: Portable, R: Portable>(&mut self, call: impl Fn(A) -> R) -> Ended {
        let ended = match (self.lane, plain::number_size::<A>()) {
            (Lane::Numbers(size), Some(expected)) if size as usize == expected => {
                self.run_numbers(size as usize, &call)
            }
            _ => self.run_framed(&call),
        };
        self.quota = 0;
        ended
    }

    /// Marks the next item as begun, so that a death is charged to it.
    #[inline]
    fn begin_item(&mut self) {
        // Marks are ticket + 1: 0 is a worker that has not begun.
        self.progress
            .word()
            .store(self.ticket + 1, Ordering::Release);
        step!("worker::work::marked");
        self.ticket += 1;
        self.left -= 1;
        self.quota -= 1;
    }

    fn run_numbers<A: Portable, R: Portable>(
        &mut self,
        size: usize,
        call: &impl Fn(A) -> R,
    ) -> Ended {
        let count = self.quota;
        let Some(bytes) = self.body.get(self.at..self.at + size * count) else {
            self.begin_item();
            self.at += size;
            return Ended::Failed(torn::<A>());
        };
        if plain::number_size::<R>().is_none() {
            let mut items = Vec::with_capacity(count);
            plain::extend_numbers(bytes, &mut items);
            self.at += size * count;
            return self.run_items(items.into_iter().map(Ok), call, size);
        }
        let mut results: Vec<R> = Vec::with_capacity(count);
        let (mark, first) = (self.progress.word(), self.ticket);
        let caught = guard(|| {
            // One load and two stores for each item, and a vector that knows its length even if a call panics.
            let items = bytes.chunks_exact(size);
            results.extend((first + 1..).zip(items).map(|(next, item)| {
                let Some(item) = plain::number_from(item) else {
                    unreachable!("it is as long as a number");
                };
                mark.store(next, Ordering::Release);
                step!("worker::work::marked_number");
                call(item)
            }));
        });
        let begun = results.len() + usize::from(caught.is_err());
        self.ticket += begun as u64;
        self.left -= begun;
        self.quota -= begun;
        self.at += size * begun;
        self.push_numbers(results);
        match caught {
            Ok(()) => Ended::Well,
            Err(panic) => Ended::Failed(panic),
        }
    }

    fn run_framed<A: Portable, R: Portable>(&mut self, call: &impl Fn(A) -> R) -> Ended {
        let body = std::mem::take(&mut self.body);
        if self.lane == Lane::Whole {
            // It is one item, whatever the header claims.
            let item = match std::mem::replace(&mut self.at, 1) {
                0 => flatten(guard(|| value::unpack_owned::<A>(body, Vec::new()))),
                _ => Err(TORN.to_owned()),
            };
            return self.run_items(std::iter::once(item), call, 0);
        }
        let mut descriptors = std::mem::take(&mut self.descriptors);
        let mut rest = body.get(self.at..).unwrap_or_default();
        let items = std::iter::repeat_with(|| {
            let Some((bytes, count)) = split_frame(&mut rest) else {
                return Err(TORN.to_owned());
            };
            let with = descriptors.by_ref().take(count).collect();
            flatten(guard(|| value::unpack::<A>(bytes, with)))
        });
        let ended = self.run_items(items.take(self.quota), call, 0);
        self.at = body.len() - rest.len();
        self.body = body;
        self.descriptors = descriptors;
        ended
    }

    /// Runs `items` one by one, as they are decoded. Where the run ends early, `size` bytes for each item that is left
    /// are given back to the chunk.
    fn run_items<A: Portable, R: Portable>(
        &mut self,
        items: impl Iterator<Item = Result<A, String>>,
        call: &impl Fn(A) -> R,
        size: usize,
    ) -> Ended {
        let (mut frames, mut numbers) = (Frames::default(), Vec::new());
        let mut ended = Ended::Well;
        let mut items = items;
        while self.quota > 0 {
            self.begin_item();
            let Some(item) = items.next() else {
                ended = Ended::Failed(torn::<A>());
                break;
            };
            match run_one(item, call, &mut frames, &mut numbers) {
                Ok(None) => {}
                Ok(Some(whole)) => {
                    self.push_framed(frames);
                    self.outputs.push(Output::Whole(whole));
                    self.at -= size * self.quota;
                    return Ended::Well;
                }
                Err(error) => {
                    ended = Ended::Failed(error);
                    break;
                }
            }
        }
        self.at -= size * self.quota;
        self.push_framed(frames);
        self.push_numbers(numbers);
        ended
    }

    /// Results that are numbers always go as such.
    fn push_numbers<R: Portable>(&mut self, results: Vec<R>) {
        let count = results.len();
        let size = plain::number_size::<R>().filter(|_| count > 0);
        let numbers = plain::take_raw(&mut Some(results));
        if let (Some(size), Some(numbers)) = (size, numbers) {
            self.outputs.push(Output::Numbers {
                size,
                count,
                numbers,
            });
        }
    }

    fn push_framed(&mut self, frames: Frames) {
        if frames.count() > 0 {
            self.outputs.push(Output::Framed(frames));
        }
    }

    /// The captures as a value, decoded at their first use.
    fn decode_captures<C: Portable>(&mut self) -> Result<Box<C>, TaskError> {
        let failed =
            |why| TaskError::of_type(TaskErrorKind::ArgumentDecoding, type_name::<C>(), why);
        match std::mem::take(&mut self.captures) {
            Captures::Decoded(value) => match value.downcast() {
                Ok(value) => Ok(value),
                Err(_) => Err(failed("the captures are of another type".to_owned())),
            },
            Captures::Packed(bytes, descriptors) => {
                let value = flatten(guard(|| value::unpack::<C>(&bytes, descriptors)));
                value.map(Box::new).map_err(|why| {
                    self.captures = Captures::Undecodable(why.clone());
                    failed(why)
                })
            }
            Captures::Undecodable(why) => {
                self.captures = Captures::Undecodable(why.clone());
                Err(failed(why))
            }
            Captures::None => Err(failed("the captures did not arrive".to_owned())),
        }
    }
}

/// Runs one item; its result is appended to `numbers` if it is one, else to `frames`, or comes back if it is to travel alone.
fn run_one<A: Portable, R: Portable>(
    item: Result<A, String>,
    call: &impl Fn(A) -> R,
    frames: &mut Frames,
    numbers: &mut Vec<R>,
) -> Result<Option<Box<dyn Raw>>, TaskError> {
    let item = item.map_err(|why| {
        TaskError::of_type(TaskErrorKind::ArgumentDecoding, type_name::<A>(), why)
    })?;
    let result = guard(|| call(item))?;
    if plain::number_size::<R>().is_some() {
        numbers.push(result);
        return Ok(None);
    }
    let mut result = Some(result);
    if result
        .as_ref()
        .and_then(plain::raw_bytes)
        .is_some_and(|raw| raw.len() >= WHOLE_MIN)
    {
        return Ok(plain::take_raw(&mut result));
    }
    let packed = frames.push(|bytes| {
        flatten(guard(|| match result {
            Some(result) => value::pack(&result, bytes),
            None => Ok(Enclosed::default()),
        }))
    });
    packed
        .map_err(|why| TaskError::of_type(TaskErrorKind::ResultEncoding, type_name::<R>(), why))?;
    Ok(None)
}

/// A message has fewer items than it claims.
const TORN: &str = "the message is torn";

fn torn<A>() -> TaskError {
    TaskError::of_type(TaskErrorKind::ArgumentDecoding, type_name::<A>(), TORN)
}

/// A panic of the user's `Serialize` or `Deserialize` is one more reason why that failed.
fn flatten<T>(result: Result<Result<T, String>, TaskError>) -> Result<T, String> {
    result.unwrap_or_else(|panic| Err(panic_words(&panic)))
}

struct OfItem<F, A, R>(PhantomData<(F, A, R)>);

impl<F, A, R> Body for OfItem<F, A, R>
where
    F: Fn(A) -> R + Stateless,
    A: Portable,
    R: Portable,
{
    type Function = F;
    type Input = Chunk;
    type Output = Ended;

    fn run(function: F, chunk: &mut Chunk) -> Ended {
        chunk.run(function)
    }
}

struct OfItemWithCaptures<F, C, A, R>(PhantomData<(F, C, A, R)>);

impl<F, C, A, R> Body for OfItemWithCaptures<F, C, A, R>
where
    F: Fn(&C, A) -> R + Stateless,
    C: Portable,
    A: Portable,
    R: Portable,
{
    type Function = F;
    type Input = Chunk;
    type Output = Ended;

    fn run(function: F, chunk: &mut Chunk) -> Ended {
        match chunk.decode_captures::<C>() {
            Ok(captures) => {
                let ended = chunk.run(|item| function(&captures, item));
                chunk.captures = Captures::Decoded(captures);
                ended
            }
            Err(error) => {
                chunk.skip_item();
                Ended::Failed(error)
            }
        }
    }
}

impl Chunk {
    /// Passes over an item that cannot be run.
    fn skip_item(&mut self) {
        self.begin_item();
        match self.lane {
            Lane::Numbers(size) => self.at += size as usize,
            Lane::Whole => {}
            Lane::Framed => {
                let mut rest = self.body.get(self.at..).unwrap_or_default();
                let (_, count) = split_frame(&mut rest).unwrap_or_default();
                self.at = self.body.len() - rest.len();
                self.descriptors.by_ref().take(count).for_each(drop);
            }
        }
    }
}

/// The number of a function of an item.
pub(crate) fn describe_item<F, A, R>(function: F) -> Option<FunctionId>
where
    F: Fn(A) -> R + Stateless,
    A: Portable,
    R: Portable,
{
    describe::<OfItem<F, A, R>>(function)
}

/// The number of a function of captures and an item.
pub(crate) fn describe_item_with_captures<F, C, A, R>(function: F) -> Option<FunctionId>
where
    F: Fn(&C, A) -> R + Stateless,
    C: Portable,
    A: Portable,
    R: Portable,
{
    describe::<OfItemWithCaptures<F, C, A, R>>(function)
}

#[cfg(test)]
mod tests;
