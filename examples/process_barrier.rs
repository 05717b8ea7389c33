//! Two processes meet at a barrier, two do not.
//!
//! Of each pair, the second one is late. See that both of the first pair go on when the second one has come, and that of
//! the other pair the first one does not wait. The lock keeps the lines of one process together.
//!
//! ```text
//! cargo run --example process_barrier
//! ```

use multiprocess::{Barrier, Lock, Process, Result, current_process};
use std::thread;
use std::time::{Duration, SystemTime};

fn main() -> Result<()> {
    let barrier = Barrier::new(2)?;
    let lock = Lock::new(())?;
    let mut processes = Vec::new();
    for (name, late, synchronizer) in [
        ("p1 - test_with_barrier", 0, Some(&barrier)),
        ("p2 - test_with_barrier", 100, Some(&barrier)),
        ("p3 - test_without_barrier", 0, None),
        ("p4 - test_without_barrier", 100, None),
    ] {
        let late = Duration::from_millis(late);
        let arguments = (late, synchronizer.cloned(), lock.clone());
        processes.push(Process::builder().name(name).spawn(arguments, meet)?);
    }
    for process in processes {
        process.join()?;
    }
    Ok(())
}

fn meet((late, synchronizer, serializer): (Duration, Option<Barrier>, Lock)) {
    thread::sleep(late);
    let came = now();
    if let Some(barrier) = synchronizer {
        barrier
            .wait()
            .expect("the other one waits and does not die");
    }
    let went_on = now();
    let _guard = serializer.lock().expect("who holds it does not die");
    println!("process {}", current_process().name());
    println!("    came    at {came:.6} s");
    println!("    went on at {went_on:.6} s");
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0.0, |time| time.as_secs_f64())
}
