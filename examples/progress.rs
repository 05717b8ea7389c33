//! Progress is shown while a pool works, and what fails is counted.
//!
//! `imap_unordered` hands out each outcome as it finishes, so that there is something to show at once. See a line for
//! each tenth of the work, then what failed and the sum of the rest. With the feature `progress` and a terminal, the
//! job draws a bar of its own instead, with rate, time left and failures.
//!
//! ```text
//! cargo run --example progress
//! cargo run --example progress --features progress
//! ```

use multiprocess::{Pool, Result};
use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

const ITEMS: u64 = 200;

/// Works for a while, and cannot do every hundredth.
fn work(n: u64) -> u64 {
    thread::sleep(Duration::from_millis(2));
    assert!(n % 100 != 99, "item {n} is broken");
    n
}

fn main() -> Result<()> {
    let pool = Pool::builder().workers(2).build()?;
    let job = pool.job();
    #[cfg(feature = "progress")]
    let job = job.progress("working");
    let has_bar = cfg!(feature = "progress") && io::stderr().is_terminal();
    let (mut sum, mut failures) = (0, Vec::new());
    for (done, (_item, outcome)) in (1..).zip(job.imap_unordered(0..ITEMS, work)) {
        match outcome {
            Ok(n) => sum += n,
            Err(error) => failures.push(error),
        }
        if !has_bar && done % (ITEMS / 10) == 0 {
            println!("{done} of {ITEMS} done");
        }
    }
    println!("sum: {sum}");
    failures.sort_by_key(|error| error.item());
    for failure in failures {
        println!("failed: {failure}");
    }
    Ok(())
}
