//! Several processes that do the same, and how much of it: more where somebody asks for more.

use multiprocess::{Portable, Process, StartMethod};
use std::env;
use std::time::Duration;

/// A count that a test repeats something by; `MULTIPROCESS_TEST_SCALE` multiplies it.
pub(crate) fn scaled(count: u64) -> u64 {
    let scale = env::var("MULTIPROCESS_TEST_SCALE").ok();
    count * scale.map_or(1, |scale| scale.parse::<u64>().unwrap())
}

/// A process of this method.
pub(crate) fn start<A, R, F>(method: StartMethod, arguments: A, f: F) -> Process<R>
where
    A: Portable,
    R: Portable,
    F: Fn(A) -> R + Copy + 'static,
{
    Process::builder()
        .start_method(method)
        .daemon(true)
        .spawn(arguments, f)
        .unwrap()
}

/// So many processes of the same arguments.
pub(crate) fn start_many<A, R, F>(
    method: StartMethod,
    count: usize,
    arguments: &A,
    f: F,
) -> Vec<Process<R>>
where
    A: Portable + Clone,
    R: Portable,
    F: Fn(A) -> R + Copy + 'static,
{
    (0..count)
        .map(|_| start(method, arguments.clone(), f))
        .collect()
}

/// What each of them has returned.
pub(crate) fn join_all<R: Portable>(processes: Vec<Process<R>>) -> Vec<R> {
    processes
        .into_iter()
        .map(|process| process.join().unwrap())
        .collect()
}

/// Kills it and waits for its end.
pub(crate) fn kill_and_wait<R: Portable>(mut process: Process<R>) {
    process.kill().unwrap();
    process.wait().unwrap();
}

/// Numbers for the instants at which something dies. The seed is printed, and can be given.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new() -> Random {
        let given = env::var("MULTIPROCESS_TEST_SEED").ok();
        let seed = given.map_or_else(
            || u64::from(std::process::id()) << 20 ^ nanos(),
            |seed| seed.parse().unwrap(),
        );
        eprintln!("MULTIPROCESS_TEST_SEED={seed}");
        Random(seed | 1)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// Lets a random time pass: what is tested is dying at any instant, so that there is no event to meet on.
    pub(crate) fn pause(&mut self, longest: Duration) {
        let nanos = u64::try_from(longest.as_nanos()).unwrap();
        std::thread::sleep(Duration::from_nanos(self.below(nanos)));
    }
}

fn nanos() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(now.unwrap().as_nanos()).unwrap()
}
