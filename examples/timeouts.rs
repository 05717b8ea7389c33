//! Inputs that never end, and a time limit for each.
//!
//! Some of the numbers never come to 1 under a rule that has a mistake. A thread that is at one could not be stopped; a worker
//! is killed when its time has passed, and another takes its place.
//!
//! See how many steps each number takes, or that it took too long; and that the call took about as long as its limits.
//!
//! ```text
//! cargo run --example timeouts
//! ```

use multiprocess::{Pool, Result};
use std::time::{Duration, Instant};

/// Counts the steps until `n` is 1: half of what is even, of what is odd 3n + 1 (and not 3n - 1, as stands here).
fn steps(n: u64) -> u64 {
    let (mut n, mut steps) = (n, 0);
    while n != 1 {
        n = if n % 2 == 0 { n / 2 } else { 3 * n - 1 };
        steps += 1;
    }
    steps
}

fn main() -> Result<()> {
    let pool = Pool::builder().workers(2).build()?;
    let started = Instant::now();
    let job = pool.job().timeout(Duration::from_secs(2));
    for (n, outcome) in (1..=10).zip(job.imap(1..=10, steps)) {
        match outcome {
            Ok(steps) => println!("{n}: {steps} steps"),
            Err(error) if error.is_timeout() => println!("{n}: {error}"),
            Err(error) => return Err(error.into()),
        }
    }
    println!("{} ms in all", started.elapsed().as_millis());
    println!("the pool serves on: {} steps", pool.apply(1 << 20, steps)?);
    Ok(())
}
