//! A process kills and stops workers at random while eight threads use the pool: every call ends, with the right results
//! or the right errors.
//!
//! It takes 10 seconds for each start method, and a minute in `.ci/run`; `MULTIPROCESS_CHAOS_SECONDS` sets another time, and `MULTIPROCESS_CHAOS_SEED`
//! the seed that an earlier run has printed.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{assert_serves, each_method_alone};
use multiprocess::{Pool, Process, TaskError};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs};

fn setting(name: &str) -> Option<u64> {
    env::var(name).ok().map(|value| value.parse().unwrap())
}

fn run_time() -> Duration {
    Duration::from_secs(setting("MULTIPROCESS_CHAOS_SECONDS").unwrap_or(10))
}

/// Marsaglia's xorshift.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

/// The processes whose name begins so.
fn named(prefix: &str) -> Vec<Pid> {
    let mut pids = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = process.file_name().to_string_lossy().parse() else {
            continue;
        };
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        if name.starts_with(prefix) {
            pids.push(Pid::from_raw(pid));
        }
    }
    pids
}

/// Kills, or stops for a moment, processes of that name, until it is killed itself.
fn torment((prefix, seed): (String, u64)) {
    let mut dice = Dice(seed);
    loop {
        // Time is what is random here: nothing is waited for.
        thread::sleep(Duration::from_micros(500 + dice.roll(30_000)));
        let workers = named(&prefix);
        if workers.is_empty() {
            continue;
        }
        let victim = workers[dice.roll(workers.len() as u64) as usize];
        // It may have died by itself meanwhile.
        if dice.roll(3) == 0 {
            let _gone = kill(victim, Signal::SIGSTOP);
            thread::sleep(Duration::from_micros(dice.roll(20_000)));
            let _gone = kill(victim, Signal::SIGCONT);
        } else {
            let _gone = kill(victim, Signal::SIGKILL);
        }
    }
}

fn work(number: u64) -> u64 {
    if number % 7 == 0 {
        thread::sleep(Duration::from_micros(300));
    }
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Counts what was right; anything else fails.
#[derive(Default)]
struct Tally(Mutex<BTreeMap<&'static str, u64>>);

impl Tally {
    fn count(&self, what: &'static str, number: u64) {
        *self.0.lock().unwrap().entry(what).or_default() += number;
    }

    fn crash(&self, error: &TaskError) {
        assert!(error.is_crash(), "no other error is right: {error:?}");
        let signal = error.exit_status().and_then(|status| status.signal());
        assert_eq!(signal, Some(9), "{error:?}");
        self.count("errors", 1);
    }
}

fn use_pool(pool: &Pool, thread: u64, round: u64, tally: &Tally) {
    let first = thread * 1_000_000 + round;
    match thread % 4 {
        0 => match pool.map(first..first + 500, work) {
            Ok(results) => {
                assert!(results.into_iter().eq((first..first + 500).map(work)));
                tally.count("maps", 1);
            }
            Err(error) => tally.crash(&error),
        },
        1 => {
            let mut count = 0;
            for (item, result) in (first..).zip(pool.imap(first..first + 200, work)) {
                count += 1;
                match result {
                    Ok(result) => assert_eq!(result, work(item)),
                    Err(error) => {
                        assert_eq!(error.item(), Some((item - first) as usize));
                        tally.crash(&error);
                    }
                }
            }
            assert_eq!(count, 200);
            tally.count("imaps", 1);
        }
        2 => match pool.apply(vec![first; 20_000], |numbers| work(numbers[0])) {
            Ok(result) => {
                assert_eq!(result, work(first));
                tally.count("applies", 1);
            }
            Err(error) => tally.crash(&error),
        },
        _ => {
            let calls: Vec<_> = (first..first + 100)
                .map(|number| pool.job().retries(1).apply_async(number, work))
                .collect();
            let map = pool.map_async(first..first + 100, work);
            for (number, call) in (first..).zip(calls) {
                match call.get() {
                    Ok(result) => assert_eq!(result, work(number)),
                    Err(error) => {
                        assert_eq!(error.attempts(), 2);
                        tally.crash(&error);
                    }
                }
            }
            match map.get() {
                Ok(results) => assert!(results.into_iter().eq((first..first + 100).map(work))),
                Err(error) => tally.crash(&error),
            }
            tally.count("asynchronous rounds", 1);
        }
    }
}

each_method_alone!(
    every_call_ends_rightly_while_workers_are_killed_and_stopped,
    run_time() + common::LONG_LIMIT,
    |method| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let seed = setting("MULTIPROCESS_CHAOS_SEED").unwrap_or(now.as_nanos() as u64 | 1);
        println!("MULTIPROCESS_CHAOS_SEED={seed}");
        let name = format!("cw{}", std::process::id());
        // No other pool's workers have names that begin so.
        let prefix = format!("{name}-");
        let pool = Pool::builder()
            .workers(3)
            .name(&name)
            .start_method(method)
            .build()
            .unwrap();
        let tormentor = Process::builder()
            .start_method(method)
            .daemon(true)
            .spawn((prefix.clone(), seed), torment)
            .unwrap();
        let (tally, is_over) = (Tally::default(), AtomicBool::new(false));
        let end = Instant::now() + run_time();
        thread::scope(|scope| {
            for thread in 0..8 {
                let (pool, tally, is_over) = (&pool, &tally, &is_over);
                scope.spawn(move || {
                    for round in 0.. {
                        if is_over.load(Ordering::Relaxed) || Instant::now() > end {
                            break;
                        }
                        use_pool(pool, thread, round, tally);
                    }
                    is_over.store(true, Ordering::Relaxed);
                });
            }
        });
        tormentor.kill().unwrap();
        tormentor.join().unwrap_err();
        // It may have left one stopped.
        for worker in named(&prefix) {
            let _gone = kill(worker, Signal::SIGCONT);
        }
        println!("tally = {:?}", tally.0.lock().unwrap());
        assert_serves(&pool);
    }
);
