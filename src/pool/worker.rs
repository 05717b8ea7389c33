//! What a worker process does: takes chunks of items from its link, runs them, sends outcomes, until the link closes.

use crate::error::{TaskError, TaskErrorKind};
use crate::pool::protocol::{Permission, from_worker, to_worker};
use crate::sys::function::{self, Body, FunctionId};
use crate::sys::identity::exit_now;
use crate::sys::shared::SharedFd;
use crate::sys::step::step;
use crate::sys::{clock, limits};
use crate::task::{Arguments, Call, Callable, Captures, Chunk, Ended, Returned, drop_worker_state};
use crate::wire::batch::Lane;
use crate::wire::{Header, Link, LinkError, LinkPeer, Message, codec};
use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Items that take longer than this run alone: each outcome is sent before the next item is begun.
const ALONE_NANOS: f64 = 250.0;
/// How long shorter ones run together.
const RUN_NANOS: f64 = 8_000.0;
/// How many items of a job run alone before its pace is believed.
const ALONE_FIRST: usize = 32;

#[derive(Debug)]
struct Serve;

impl Body for Serve {
    type Function = ();
    type Input = Call;
    type Output = Returned;

    fn run((): (), call: &mut Call) -> Returned {
        let mut descriptors = std::mem::take(&mut call.descriptors).into_iter();
        if let (Some(memory), Some(socket)) = (descriptors.next(), descriptors.next()) {
            if let Ok(link) = Link::attach(LinkPeer { memory, socket }) {
                // It ends when the parent does, or when the link is no use any more.
                let _end = Worker {
                    link,
                    captures: HashMap::new(),
                    pace: Pace::default(),
                }
                .serve();
                drop_worker_state();
            }
        }
        exit_now(0)
    }
}

/// The function that a worker process runs.
pub(crate) fn describe_worker() -> Callable {
    Callable::of::<Serve>(())
}

#[derive(Debug)]
struct Worker {
    link: Link,
    captures: HashMap<u64, Captures>,
    pace: Pace,
}

/// How many items of a job run together. After a death, items that ran together with the one that is charged and had not
/// been sent yet run once more; so only those do that are too short to have done anything that the system was asked for.
#[derive(Debug, Default)]
struct Pace {
    job: u64,
    items: usize,
    nanos_per_item: f64,
}

impl Pace {
    fn quota(&self) -> usize {
        if self.items < ALONE_FIRST || self.nanos_per_item > ALONE_NANOS {
            1
        } else {
            (RUN_NANOS / self.nanos_per_item.max(0.5)) as usize
        }
    }

    fn learn(&mut self, items: usize, nanos: u64) {
        let sample = nanos as f64 / items.max(1) as f64;
        self.nanos_per_item = if self.items == 0 {
            sample
        } else {
            // A slow item slows down at once; quick ones are believed little by little.
            sample.max(self.nanos_per_item * 0.75 + sample * 0.25)
        };
        self.items += items;
    }
}

impl Worker {
    fn serve(mut self) -> Result<(), LinkError> {
        loop {
            let message = self.link.receive()?;
            let job = message.header.words[0];
            match message.header.kind {
                to_worker::CAPTURES => {
                    let packed = Captures::Packed(message.body, message.descriptors);
                    self.captures.insert(job, packed);
                    step!("worker::captures::kept");
                }
                to_worker::FORGET => {
                    if let Some(captures) = self.captures.remove(&job) {
                        captures.discard();
                    }
                }
                to_worker::CHUNK | to_worker::TIMED => self.work(message)?,
                to_worker::SETUP => self.set_up(message)?,
                _ => return Ok(()),
            }
        }
    }

    /// Does what comes before the first item, and tells how that went.
    fn set_up(&mut self, message: Message) -> Result<(), LinkError> {
        let [memory, initializer, ..] = message.header.words;
        let done = limit_memory(memory).and_then(|()| {
            if initializer == 0 {
                return Ok(());
            }
            let mut arguments = Arguments {
                bytes: message.body,
                descriptors: message.descriptors,
            };
            let id = FunctionId::from_bits(initializer);
            match function::resolve::<Arguments, Result<(), TaskError>>(id) {
                Some(entry) => entry(&mut arguments),
                None => exit_now(1),
            }
        });
        let _closed = io::stdout().flush();
        step!("worker::setup::done");
        match done {
            Ok(()) => self.tell(from_worker::READY, 0, [0; 4], &[], &[])?,
            Err(error) => self.tell(from_worker::UNFIT, 0, [0; 4], &encode(&error), &[])?,
        }
        self.link.flush()
    }

    fn work(&mut self, message: Message) -> Result<(), LinkError> {
        let [job, ticket, lane, function] = message.header.words;
        let lane = u32::try_from(lane).ok().and_then(Lane::from_bits);
        let entry = function::resolve::<Chunk, Ended>(FunctionId::from_bits(function));
        let (Some(lane), Some(entry)) = (lane, entry) else {
            exit_now(1)
        };
        if self.pace.job != job {
            self.pace = Pace {
                job,
                ..Pace::default()
            };
        }
        let captures = self.captures.remove(&job).unwrap_or_default();
        let count = message.header.count as usize;
        let is_timed = message.header.kind == to_worker::TIMED;
        let progress = self.link.note();
        let mut chunk = Chunk::new(
            lane,
            count,
            message.body,
            message.descriptors,
            ticket,
            progress,
            captures,
        );
        let mut claimed = 0;
        while chunk.left() > 0 {
            if claimed == 0 {
                let quota = if is_timed { 1 } else { self.pace.quota() };
                let wanted = quota.min(chunk.left());
                claimed = Permission(self.link.shared_word()).claim(chunk.ticket(), wanted);
                step!("worker::take::claimed");
            }
            if claimed == 0 {
                self.tell(
                    from_worker::SKIPPED,
                    chunk.left(),
                    [chunk.ticket(), 0, 0, 0],
                    &[],
                    &[],
                )?;
                self.link.flush()?;
                break;
            }
            let first = chunk.ticket();
            chunk.allow(claimed);
            if is_timed {
                // Before the mark of the item, which is stored with release ordering when it is begun.
                let moment = self.link.note();
                moment
                    .moment()
                    .store(clock::monotonic_nanos(), Ordering::Relaxed);
            }
            let start = Instant::now();
            let ended = entry(&mut chunk);
            step!("worker::work::run");
            let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let run = (chunk.ticket() - first) as usize;
            claimed = claimed.saturating_sub(run);
            self.pace.learn(run, nanos);
            // What was printed is out before the outcome is.
            let _closed = io::stdout().flush();
            self.tell_outcomes(&mut chunk, first, ended, nanos / run.max(1) as u64)?;
        }
        let captures = chunk.into_captures();
        if !matches!(captures, Captures::None) {
            self.captures.insert(job, captures);
        }
        Ok(())
    }

    fn tell_outcomes(
        &mut self,
        chunk: &mut Chunk,
        mut ticket: u64,
        ended: Ended,
        nanos: u64,
    ) -> Result<(), LinkError> {
        for output in chunk.take_outputs() {
            let count = output.count();
            let lane = u64::from(output.lane().to_bits());
            let words = [ticket, lane, nanos.saturating_mul(count as u64), 0];
            let descriptors = output.descriptors();
            self.tell(
                from_worker::RESULTS,
                count,
                words,
                output.bytes(),
                descriptors,
            )?;
            ticket += count as u64;
        }
        let failed = matches!(ended, Ended::Failed(_));
        if let Ended::Failed(error) = ended {
            let body = encode(&error);
            self.tell(from_worker::FAILED, 1, [ticket, 0, nanos, 0], &body, &[])?;
        }
        // The parent may have said that it need not be woken for each. It says so before it looks once more and sleeps, so
        // its word is read after the outcomes are shown: either it sees these, or this sees what it said last.
        step!("worker::tell::put");
        self.link.flush_silently();
        step!("worker::tell::shown");
        if failed || ticket >= self.link.peer_note() {
            self.link.flush()?;
        }
        Ok(())
    }

    fn tell(
        &mut self,
        kind: u32,
        count: usize,
        words: [u64; 4],
        body: &[u8],
        descriptors: &[Arc<SharedFd>],
    ) -> Result<(), LinkError> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.link.send(
            &Header {
                kind,
                count,
                words,
                ..Header::default()
            },
            body,
            descriptors,
        )
    }
}

/// A `TaskError` is strings and numbers: it can always be encoded.
fn encode(error: &TaskError) -> Vec<u8> {
    let mut body = Vec::new();
    if codec::encode(error, &mut body).is_err() {
        body.clear();
    }
    body
}

fn limit_memory(bytes: u64) -> Result<(), TaskError> {
    if bytes == 0 {
        return Ok(());
    }
    limits::limit_memory(bytes).map_err(|error| {
        let why = format!("its memory cannot be limited to {bytes} bytes: {error}");
        TaskError::new(TaskErrorKind::System, why)
    })
}
