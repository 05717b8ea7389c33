//! A process dies by SIGKILL at a random instant while it sends or receives: the other gets whole messages, in order, and
//! then the end.
//!
//! `MULTIPROCESS_PIPE_KILLS` is the number of kills of each kind, `MULTIPROCESS_SEED` repeats a run.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::each_method_alone;
use multiprocess::{Pipe, Process, StartMethod};
use serde::{Deserialize, Serialize};
use std::env;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

fn number_of(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

fn kills() -> u64 {
    number_of("MULTIPROCESS_PIPE_KILLS").unwrap_or(30)
}

/// Numbers that look random, from a seed that is printed.
struct Random(u64);

impl Random {
    fn new(what: &str) -> Random {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let seed = number_of("MULTIPROCESS_SEED").unwrap_or(now.as_nanos() as u64 | 1);
        eprintln!("{what}: MULTIPROCESS_SEED={seed}");
        Random(seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Lets a short while pass, awake: a sleep would end when the processor is free.
fn pass_micros(micros: u64) {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(micros) {
        std::hint::spin_loop();
    }
}

/// A message that tells whether it is whole: its number, and as many bytes of it as follow from the number.
#[derive(Debug, Serialize, Deserialize)]
struct Numbered(u64, Vec<u8>);

const CAPACITY: usize = 64 << 10;

impl Numbered {
    fn new(number: u64) -> Numbered {
        // Mostly short; some as long as the ring, some several times.
        let len = match number % 16 {
            5 => CAPACITY / 3,
            9 => CAPACITY,
            13 => 5 * CAPACITY,
            other => other as usize * 9,
        };
        Numbered(number, vec![number as u8; len])
    }

    fn assert_is(&self, number: u64) {
        let Numbered(_, bytes) = Numbered::new(number);
        assert_eq!(self.0, number, "lost, doubled or out of order");
        assert!(self.1 == bytes, "message {number} is torn");
    }
}

#[derive(Default, Debug)]
struct Tally {
    kills: u64,
    messages: u64,
    before_the_first: u64,
    in_a_long_one: u64,
}

fn start<A: multiprocess::Portable>(
    method: StartMethod,
    args: A,
    f: impl Fn(A) + Copy + 'static,
) -> Process {
    Process::builder()
        .start_method(method)
        .spawn(args, f)
        .unwrap()
}

/// `LONG_LIMIT` is too short for these when they are scaled up.
const SCALED_LIMIT: Duration = Duration::from_secs(7200);

each_method_alone!(killed_while_sending, SCALED_LIMIT, |method| {
    let mut random = Random::new("killed while sending");
    let mut tally = Tally::default();
    for _ in 0..kills() {
        let (here, there) = Pipe::<Numbered>::pair_with_capacity(CAPACITY).unwrap();
        let mut child = start(method, (there,), |(pipe,): (Pipe<Numbered>,)| {
            for number in 0.. {
                pipe.send(Numbered::new(number)).unwrap();
            }
        });
        let mut next = 0;
        // Received meanwhile, or all after the death; the sender is killed where it waits for room, or busy.
        let taken_before = random.below(60);
        while next < taken_before {
            here.recv().unwrap().assert_is(next);
            next += 1;
        }
        pass_micros(random.below(300));
        child.kill().unwrap();
        let error = loop {
            match here.recv() {
                Ok(message) => message.assert_is(next),
                Err(error) => break error,
            }
            next += 1;
        };
        assert!(error.is_closed(), "{error}");
        assert!(here.recv().unwrap_err().is_closed());
        child.wait().unwrap();
        let refused = here.send(Numbered::new(0)).unwrap_err();
        assert!(refused.is_closed());
        tally.kills += 1;
        tally.messages += next;
        tally.before_the_first += u64::from(next == 0);
        tally.in_a_long_one += u64::from(next % 16 == 13);
    }
    eprintln!("killed while sending by {method:?}: {tally:?}");
});

each_method_alone!(killed_while_receiving, SCALED_LIMIT, |method| {
    let mut random = Random::new("killed while receiving");
    let mut tally = Tally::default();
    for _ in 0..kills() {
        let (here, there) = Pipe::<Numbered, u64>::pair_with_capacity(CAPACITY).unwrap();
        let mut child = start(method, (there,), |(pipe,): (Pipe<u64, Numbered>,)| {
            for (number, message) in (0..).zip(pipe.iter()) {
                message.assert_is(number);
                pipe.send(number).unwrap();
            }
        });
        let sent_before = random.below(60);
        let mut next = 0;
        while next < sent_before {
            here.send(Numbered::new(next)).unwrap();
            next += 1;
        }
        pass_micros(random.below(300));
        child.kill().unwrap();
        // It may take some more until the kernel has closed its end.
        let refused = loop {
            match here.send(Numbered::new(next)) {
                Ok(()) => next += 1,
                Err(refused) => break refused,
            }
        };
        assert!(refused.is_closed(), "{refused}");
        refused.into_value().assert_is(next);
        let mut confirmed = 0;
        let error = loop {
            match here.recv() {
                Ok(number) => assert_eq!(number, confirmed),
                Err(error) => break error,
            }
            confirmed += 1;
        };
        assert!(error.is_closed() && confirmed <= next, "{error}");
        child.wait().unwrap();
        tally.kills += 1;
        tally.messages += confirmed;
        tally.before_the_first += u64::from(confirmed == 0);
        tally.in_a_long_one += u64::from(confirmed % 16 == 13);
    }
    eprintln!("killed while receiving by {method:?}: {tally:?}");
});

each_method_alone!(killed_while_pipes_travel, SCALED_LIMIT, |method| {
    let mut random = Random::new("killed while pipes travel");
    let mut arrived = 0;
    for _ in 0..kills() {
        let (here, there) = Pipe::<(u64, Pipe<u64>)>::pair_with_capacity(CAPACITY).unwrap();
        let mut child = start(method, (there,), |(pipe,): (Pipe<(u64, Pipe<u64>)>,)| {
            for number in 0.. {
                let (ours, theirs) = Pipe::<u64>::pair_with_capacity(1).unwrap();
                ours.send(number).unwrap();
                pipe.send((number, theirs)).unwrap();
            }
        });
        let mut ends = Vec::new();
        let mut next = 0;
        let taken_before = random.below(20);
        while next < taken_before {
            ends.push(here.recv().unwrap());
            next += 1;
        }
        pass_micros(random.below(300));
        child.kill().unwrap();
        let error = loop {
            match here.recv() {
                Ok(end) => ends.push(end),
                Err(error) => break error,
            }
        };
        assert!(error.is_closed(), "{error}");
        for ((number, end), expected) in ends.iter().zip(0..) {
            assert_eq!((*number, end.recv().unwrap()), (expected, expected));
            assert!(end.recv().unwrap_err().is_closed());
        }
        arrived += ends.len();
        child.wait().unwrap();
    }
    eprintln!(
        "killed while pipes travel by {method:?}: {} kills, {arrived} pipes arrived",
        kills()
    );
});

each_method_alone!(
    an_end_dies_with_the_process_that_it_is_on_its_way_to,
    |method| {
        let mut random = Random::new("killed on arrival");
        for _ in 0..kills().min(200) {
            let (here, there) = Pipe::<u64>::pair().unwrap();
            let (carrier, other_side) = Pipe::<Pipe<u64>>::pair().unwrap();
            let mut child = start(method, (other_side,), |(carrier,): (Pipe<Pipe<u64>>,)| {
                let pipe = carrier.recv().unwrap();
                pipe.recv().unwrap();
                pipe.recv().unwrap();
            });
            here.send(1).unwrap();
            carrier.send(there).unwrap();
            pass_micros(random.below(500));
            child.kill().unwrap();
            // Whether it had it, or it was still on its way.
            let error = here.recv().unwrap_err();
            assert!(error.is_closed(), "{error}");
            child.wait().unwrap();
            assert!(here.send(2).unwrap_err().is_closed());
        }
    }
);
