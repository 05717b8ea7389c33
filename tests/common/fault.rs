//! How long after a fault somebody is told of it. Who is about to fail writes down the moment, in whichever process.

use super::alone;
use super::unsafely::monotonic_nanos;
use std::fmt::Display;
use std::fs;
use std::path::PathBuf;
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
    println!("told {} us after the fault: {what}", late.as_micros());
    assert!(late < TOLD_LIMIT, "{late:?}");
}

/// Leaves nothing behind.
pub(crate) fn forget() {
    if let Some(place) = place() {
        let _none = fs::remove_file(place);
    }
}
