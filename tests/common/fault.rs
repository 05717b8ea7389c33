//! How long after a fault somebody is told of it, and until all workers of the pool serve again, whoever replaced the one
//! that failed among them. Who is about to fail writes down the moment, in whichever process.

use super::alone;
use super::unsafely::monotonic_nanos;
use multiprocess::Pool;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

/// What is asked for is 100 ms; a machine that is busy with other tests may take longer.
const TOLD_LIMIT: Duration = Duration::from_secs(10);

/// Where the moment of a fault stands, in a test that runs in a process of its own; all its processes know the place.
fn place() -> Option<PathBuf> {
    let mark = alone::mark()?;
    Some(std::env::temp_dir().join(format!("multiprocess-fault-{mark}")))
}

/// The fault is now.
pub(crate) fn strike() {
    if let Some(place) = place() {
        fs::write(place, monotonic_nanos().to_le_bytes()).unwrap();
    }
}

/// Somebody is told of the last fault now: prints how long after. Nothing where there was none.
pub(crate) fn told(what: impl Display) {
    let now = monotonic_nanos();
    let Some(bytes) = place().and_then(|place| fs::read(place).ok()) else {
        return;
    };
    forget();
    let struck = u64::from_le_bytes(bytes.try_into().unwrap());
    let late = Duration::from_nanos(now - struck);
    let what: String = what.to_string().chars().take(90).collect();
    println!("{}: error after {} ms: {what}", row(), millis(late));
    assert!(late < TOLD_LIMIT, "{late:?}");
    *LAST.lock().unwrap() = Some(struck);
}

/// When the last fault was of which somebody has been told.
static LAST: Mutex<Option<u64>> = Mutex::new(None);

/// Has each worker of the pool answer, if there was a fault before, and prints how long after the fault all have.
pub(crate) fn served(pool: &Pool) {
    let Some(struck) = LAST.lock().unwrap().take() else {
        return;
    };
    let mut answered = BTreeSet::new();
    while answered.len() < pool.workers() {
        let calls = [(); 8].map(|()| pool.apply_async((), |()| std::process::id()));
        answered.extend(calls.into_iter().map(|call| call.get().unwrap()));
    }
    let late = Duration::from_nanos(monotonic_nanos() - struck);
    println!("{}: all workers serve after {} ms", row(), millis(late));
    assert!(late < TOLD_LIMIT, "{late:?}");
}

/// Names the fault, by the test that this process was started for.
fn row() -> String {
    let test = std::env::args().find(|argument| argument.contains("::"));
    let test = test.unwrap_or_default();
    let (name, method) = test.rsplit_once("::").unwrap_or((&test, ""));
    format!("fault row {:?} ({method})", name.replace('_', " "))
}

fn millis(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e3)
}

/// Leaves nothing behind.
pub(crate) fn forget() {
    if let Some(place) = place() {
        let _none = fs::remove_file(place);
    }
}
