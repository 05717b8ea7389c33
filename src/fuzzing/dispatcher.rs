//! Sequences of events for the dispatcher, under the model of workers that its own tests have.

use crate::fuzzing::bytes::Bytes;
use crate::pool::dispatch::world::{Step, run_schedule};

const STEPS_MAX: usize = 400;

fn step(bytes: &mut Bytes<'_>) -> Step {
    let worker = |bytes: &mut Bytes<'_>| bytes.below(4);
    match bytes.byte() % 16 {
        0..4 => Step::Begin(worker(bytes)),
        4..8 => {
            let nanos = [1, 1_000, 10_000_000, bytes.word() >> 20];
            Step::Tell(worker(bytes), nanos[bytes.below(4)])
        }
        8 => Step::Die(worker(bytes)),
        9 => Step::Start(worker(bytes)),
        10 => Step::Submit,
        11 if bytes.byte() % 4 == 0 => Step::Take(worker(bytes)),
        11 => Step::Submit,
        12 => {
            let items = bytes.below(300);
            let piece = Some(bytes.below(10)).filter(|&piece| piece > 0);
            let limit = bytes.word() % 2_000_000_000;
            Step::Open(
                items,
                piece,
                Some(limit).filter(|&limit| limit > 0),
                (limit % 3) as u32,
            )
        }
        13 => Step::Pass(bytes.word() % 3_000_000_000),
        14 => Step::Cancel(1 + bytes.below(6) as u64, bytes.below(100)),
        _ => Step::Close(1 + bytes.below(6) as u64),
    }
}

/// Runs a schedule of work, deaths, time limits and cancelling: each item has one outcome, nobody idles while items wait, or for long
/// while another one holds more than it is at; nobody is killed early, and nobody looks for ever.
pub fn dispatcher(input: &[u8]) {
    let mut bytes = Bytes::new(input);
    let workers = 1 + bytes.below(3);
    let items_max = Some(bytes.below(20)).filter(|&most| most > 0);
    let mut steps = Vec::new();
    while !bytes.is_empty() && steps.len() < STEPS_MAX {
        steps.push(step(&mut bytes));
    }
    run_schedule(workers, items_max, steps);
}
