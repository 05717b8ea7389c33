//! Does it still make as few system calls as it did, and touch as few pages? Fixed workloads, each in a process that is stopped at every call
//! that it and its workers make.
//!
//! Counts do not depend on how fast a machine is, but they do on who sleeps: who waits spins for a while and sleeps then, and
//! on a busy machine more of them sleep. So each workload is done in batches, and the batch with the fewest calls
//! counts: a call that is made for each item, message or process is in all of them, and one that was only made because
//! somebody else had the processor is not. What must hold however busy the machine is counted on one
//! processor, where every wait is a sleep.
//!
//! Each bound stands beside what was measured when it was set. To tighten one: run `cargo bench --bench costs` a few times,
//! write the largest figure that it prints down as `measured`, and leave room for what the comment there says.
//!
//! It takes a few seconds, and fails with what was called in the fewest-call batch.

#![allow(clippy::unwrap_used, reason = "a bench that cannot run is to stop")]

mod baseline;

use std::env;
use std::fmt::Write;
use std::hint::black_box;
use std::process::{Command, ExitCode};
use std::thread::{available_parallelism, sleep};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

use multiprocess::{AsyncResult, Lock, Pipe, Pool, Process, Queue, StartMethod};

use baseline::processor::stay_on;
use baseline::trace::{Batch, batches, between_marks};
use baseline::work::square;

/// The argument before the name of a workload that this process is to do.
const WORKLOAD: &str = "--workload";

struct Workload {
    name: &'static str,
    /// What one of is counted.
    unit: &'static str,
    run: fn(),
    /// How many there are in a batch.
    each: u64,
    own: Bound,
    others: Bound,
}

/// System calls for each.
struct Bound {
    measured: f64,
    most: f64,
}

const fn bound(measured: f64, most: f64) -> Bound {
    Bound { measured, most }
}

const ITEMS: u64 = 1_000_000;
const CHUNKS: u64 = 10_000;
const CALLS: u64 = 500;
const SLEEPY_CALLS: u64 = 200;
const ASYNC_CALLS: u64 = 2000;
const MESSAGES: u64 = 10_000;
const LOCKS: u64 = 10_000;
const STARTS: u64 = 5;

/// Where all are on one processor whoever waits sleeps. What that costs is a workload of its own.
const BACK_TO_BACK: &str = "apply, back to back";

/// What the allocator gives back after a map is touched anew, page by page, in the next.
const PAGES: &str = "pages touched anew in a map of 10^6";
const PAGES_MOST: i64 = 500;

const WORKLOADS: &[Workload] = &[
    Workload {
        name: "map of 10^6 items",
        unit: "item",
        run: map_million,
        each: ITEMS,
        // A call for each message of the hundred that a map is, and no more; one for each item would be 1.
        own: bound(0.000_06, 0.0005),
        others: bound(0.000_02, 0.0005),
    },
    Workload {
        name: "map in chunks of one item, all on one processor",
        unit: "item",
        run: map_by_one,
        each: CHUNKS,
        // Each chunk is a message, and a hundred of them are a wake-up.
        own: bound(0.0086, 0.05),
        others: bound(0.0082, 0.05),
    },
    Workload {
        name: BACK_TO_BACK,
        unit: "call",
        run: apply,
        each: CALLS,
        // None: nobody asks whose process this is, and whoever waits spins. One for each call would be 1.
        own: bound(0.002, 0.9),
        others: bound(0.002, 0.9),
    },
    Workload {
        name: "apply, all on one processor",
        unit: "call",
        run: apply_on_one,
        each: SLEEPY_CALLS,
        // A word to the worker, a look for the word from it, asleep, that word: four. Who is scheduled first saves one or
        // two.
        own: bound(3.58, 5.0),
        others: bound(2.0, 3.0),
    },
    Workload {
        name: "apply_async, 2,000 outstanding",
        unit: "call",
        run: apply_async,
        each: ASYNC_CALLS,
        // None, but for the pool's lock and for workers that are woken, now and then.
        own: bound(0.061, 0.9),
        others: bound(0.017, 0.5),
    },
    Workload {
        name: "Queue under load",
        unit: "message",
        run: queue,
        each: MESSAGES,
        // None while neither side sleeps; a busy machine has them sleep now and then in each batch.
        own: bound(0.009, 0.05),
        others: bound(0.009, 0.05),
    },
    Workload {
        name: "Pipe under load",
        unit: "message",
        run: pipe,
        each: MESSAGES,
        own: bound(0.009, 0.05),
        others: bound(0.009, 0.05),
    },
    Workload {
        name: "Lock and unlock, uncontended",
        unit: "lock",
        run: lock,
        each: LOCKS,
        own: bound(0.0, 0.0),
        others: bound(0.0, 0.0),
    },
    Workload {
        name: "Process by the fork server, started and joined",
        unit: "process",
        run: start_by_fork_server,
        each: STARTS,
        // The same in every batch, but for one or two of a wait that is interrupted; and each that is forked ahead closes what the
        // server holds of those that wait already, up to four here.
        own: bound(45.8, 48.0),
        others: bound(51.8, 56.0),
    },
    Workload {
        name: "Process by Spawn, started and joined",
        unit: "process",
        run: start_by_spawn,
        each: STARTS,
        own: bound(44.0, 46.0),
        // With those of the dynamic linker and of the C library, of which another version makes some more.
        others: bound(172.0, 195.0),
    },
    Workload {
        name: "pool of 2, built, asked twice, dropped",
        unit: "pool",
        run: pool_life,
        each: 1,
        // Who waits for whom makes some ten of them.
        own: bound(141.0, 165.0),
        others: bound(112.0, 135.0),
    },
    Workload {
        name: "pool of 2, idle for a fifth of a second",
        unit: "rest",
        run: idle_pool,
        each: 1,
        // The sleep of this program: nobody polls.
        own: bound(1.0, 1.0),
        others: bound(0.0, 0.0),
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [WORKLOAD, name] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        if name == PAGES {
            println!("{}", fewest_pages());
            return ExitCode::SUCCESS;
        }
        let workload = WORKLOADS.iter().find(|workload| workload.name == name);
        (workload.unwrap().run)();
        return ExitCode::SUCCESS;
    }
    // `--test` is every bench once: this one has a step of its own.
    if arguments
        .iter()
        .any(|argument| argument == "--list" || argument == "--test")
    {
        return ExitCode::SUCCESS;
    }
    let mut faults = String::new();
    println!("\nSystem calls, by the program itself and by all processes below it:\n");
    let is_alone = available_parallelism().is_ok_and(|processors| processors.get() == 1);
    for workload in WORKLOADS {
        if is_alone && workload.name == BACK_TO_BACK {
            println!("{BACK_TO_BACK}: left out, since there is one processor");
            continue;
        }
        check(workload, &mut faults);
    }
    check_pages(&mut faults);
    if faults.is_empty() {
        println!();
        return ExitCode::SUCCESS;
    }
    println!("\nMore than there may be:\n{faults}");
    ExitCode::FAILURE
}

fn check(workload: &Workload, faults: &mut String) {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([WORKLOAD, workload.name]);
    // Cargo's, in each folder of which the dynamic linker would look for each library.
    command.env_remove("LD_LIBRARY_PATH");
    let batches = batches(command).unwrap_or_else(|error| panic!("{}: {error}", workload.name));
    let Workload { name, unit, .. } = workload;
    for (who, bound, of) in [
        ("itself", &workload.own, own as fn(&Batch) -> u64),
        ("others", &workload.others, others),
    ] {
        let fewest = batches.iter().min_by_key(|batch| of(batch)).unwrap();
        let value = of(fewest) as f64 / workload.each as f64;
        println!(
            "{name:50} {who} {value:>10.6} for each {unit}, at most {}; {} when that was set",
            bound.most, bound.measured
        );
        if value > bound.most {
            let calls = if who == "itself" {
                &fewest.own
            } else {
                &fewest.others
            };
            let summary = calls.summary();
            writeln!(
                faults,
                "* {name}: {who} {value} for each {unit}, and not {}: in a batch {summary}",
                bound.most
            )
            .unwrap();
        }
    }
}

/// In how many programs it is looked: by how its memory lies, one in two of them took 3,000 pages and more for each map.
const PROGRAMS: usize = 6;

fn check_pages(faults: &mut String) {
    let of_a_program = |_| {
        let mut command = Command::new(env::current_exe().unwrap());
        let output = command.args([WORKLOAD, PAGES]).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        printed.trim().parse::<i64>().unwrap()
    };
    let most = (0..PROGRAMS).map(of_a_program).max().unwrap();
    println!("{PAGES:50} itself {most:>7} for each map, at most {PAGES_MOST}; 0 when that was set");
    if most > PAGES_MOST {
        writeln!(faults, "* {PAGES}: {most}, and not {PAGES_MOST}").unwrap();
    }
}

/// In the map with the fewest of some, after the first few.
fn fewest_pages() -> i64 {
    let faults = || {
        getrusage(UsageWho::RUSAGE_SELF)
            .unwrap()
            .minor_page_faults()
    };
    let pool = two_workers();
    let pages = (0..25).map(|_| {
        let before = faults();
        assert_eq!(pool.map(0..ITEMS, square).unwrap().len() as u64, ITEMS);
        faults() - before
    });
    pages.skip(5).min().unwrap()
}

fn own(batch: &Batch) -> u64 {
    batch.own.total()
}

fn others(batch: &Batch) -> u64 {
    batch.others.total()
}

fn two_workers() -> Pool {
    let pool = Pool::builder().workers(2).build().unwrap();
    assert_eq!(pool.apply(3, square).unwrap(), 9);
    pool
}

fn map_million() {
    let pool = two_workers();
    for _ in 0..8 {
        let squares = between_marks(|| pool.map(0..ITEMS, square).unwrap());
        assert_eq!(squares.len() as u64, ITEMS);
    }
}

fn map_by_one() {
    stay_on(0);
    let pool = two_workers();
    for _ in 0..8 {
        let squares = between_marks(|| pool.job().chunk_size(1).map(0..CHUNKS, square));
        assert_eq!(squares.unwrap().len() as u64, CHUNKS);
    }
}

fn calls(pool: &Pool, count: u64) {
    between_marks(|| {
        for x in 0..count {
            assert_eq!(pool.apply(black_box(x), square).unwrap(), square(x));
        }
    });
}

fn apply() {
    let pool = two_workers();
    (0..10).for_each(|_| calls(&pool, CALLS));
}

fn apply_on_one() {
    stay_on(0);
    let pool = two_workers();
    (0..6).for_each(|_| calls(&pool, SLEEPY_CALLS));
}

fn apply_async() {
    let pool = two_workers();
    for _ in 0..5 {
        between_marks(|| {
            let start = |x| pool.apply_async(x, square);
            let calls: Vec<AsyncResult<u64>> = (0..ASYNC_CALLS).map(start).collect();
            for (x, call) in (0..).zip(calls) {
                assert_eq!(call.get().unwrap(), square(x));
            }
        });
    }
}

fn queue() {
    const BATCHES: u64 = 30;
    let queue = Queue::<u64>::new().unwrap();
    let put_all = |queue: Queue<u64>| {
        (0..BATCHES * MESSAGES).for_each(|number| queue.put(number).unwrap());
    };
    let child = Process::spawn(queue.clone(), put_all).unwrap();
    for batch in 0..BATCHES {
        between_marks(|| {
            for number in batch * MESSAGES..(batch + 1) * MESSAGES {
                assert_eq!(queue.get().unwrap(), number);
            }
        });
    }
    child.join().unwrap();
}

fn pipe() {
    const BATCHES: u64 = 30;
    let (here, there) = Pipe::<u64>::pair().unwrap();
    let send_all = |pipe: Pipe<u64>| {
        (0..BATCHES * MESSAGES).for_each(|number| pipe.send(number).unwrap());
    };
    let child = Process::spawn(there, send_all).unwrap();
    for batch in 0..BATCHES {
        between_marks(|| {
            for number in batch * MESSAGES..(batch + 1) * MESSAGES {
                assert_eq!(here.recv().unwrap(), number);
            }
        });
    }
    child.join().unwrap();
}

fn lock() {
    let number = Lock::new(0_u64).unwrap();
    *number.lock().unwrap() += 1;
    between_marks(|| (0..LOCKS).for_each(|_| *number.lock().unwrap() += 1));
    assert_eq!(*number.lock().unwrap(), LOCKS + 1);
}

fn starts(method: StartMethod) {
    let start = || {
        let child = Process::builder().start_method(method);
        child.spawn((), |()| ()).unwrap().join().unwrap();
    };
    start();
    for _ in 0..4 {
        between_marks(|| (0..STARTS).for_each(|_| start()));
    }
}

fn start_by_fork_server() {
    starts(StartMethod::ForkServer);
}

fn start_by_spawn() {
    starts(StartMethod::Spawn);
}

fn pool_life() {
    drop(two_workers());
    for _ in 0..8 {
        between_marks(|| {
            let pool = Pool::builder().workers(2).build().unwrap();
            let answers = [3, 4].map(|x| pool.apply(x, square).unwrap());
            assert_eq!(answers, [9, 16]);
            drop(pool);
        });
    }
}

fn idle_pool() {
    let pool = two_workers();
    sleep(Duration::from_millis(50));
    for _ in 0..3 {
        between_marks(|| sleep(Duration::from_millis(200)));
    }
    drop(pool);
}
