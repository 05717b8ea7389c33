//! Running the bench's own executable as a child, for what can be measured once in a program only.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use multiprocess::Pool;

use super::work::square;

// Arguments and not variables: those that the child starts in turn must not inherit a role.
const END_AT_ONCE: &str = "--end-at-once";
const FIRST_POOL: &str = "--first-pool";

/// Plays the role this process was started for, if there is one: then `main` is to return at once.
pub(crate) fn play_role() -> bool {
    match std::env::args().nth(1).as_deref() {
        Some(END_AT_ONCE) => true,
        Some(FIRST_POOL) => {
            println!("{}", pool_of_two_answers_twice().as_nanos());
            true
        }
        _ => false,
    }
}

/// Executes ourselves and waits for the end.
pub(crate) fn exec_and_wait() -> Duration {
    let start = Instant::now();
    let status = Command::new("/proc/self/exe")
        .arg(END_AT_ONCE)
        .status()
        .unwrap();
    let elapsed = start.elapsed();
    assert!(status.success(), "{status}");
    elapsed
}

/// Says how long it took in a new program until its first pool had answered two calls. Executing
/// the program is not part of it.
pub(crate) fn first_pool() -> Duration {
    let child = Command::new("/proc/self/exe")
        .arg(FIRST_POOL)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let printed = String::from_utf8(child.stdout).unwrap();
    assert!(child.status.success(), "{}: {printed}", child.status);
    Duration::from_nanos(printed.trim().parse().unwrap())
}

/// Starts a pool of two workers and makes two calls. Its end is not timed.
pub(crate) fn pool_of_two_answers_twice() -> Duration {
    let start = Instant::now();
    let pool = Pool::builder().workers(2).build().unwrap();
    let answers = [
        pool.apply(3, square).unwrap(),
        pool.apply(4, square).unwrap(),
    ];
    let elapsed = start.elapsed();
    assert_eq!(answers, [9, 16]);
    elapsed
}
