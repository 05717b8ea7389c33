//! A daemon and a process that is none, neither of them joined.
//!
//! See both start. The program waits at its end for the one that is no daemon; the daemon, which would take minutes, ends with the
//! program, and never says that it exits.
//!
//! ```text
//! cargo run --example daemon
//! ```

use multiprocess::{Event, Process, Result, current_process};
use std::thread;
use std::time::Duration;

fn main() -> Result<()> {
    let started = Event::new()?;
    Process::builder()
        .name("daemon")
        .daemon(true)
        .spawn(started.clone(), daemon)?;
    started.wait();
    Process::builder()
        .name("non-daemon")
        .spawn((), non_daemon)?;
    Ok(())
}

fn daemon(started: Event) {
    println!("starting: {}", current_process().name());
    started.set();
    thread::sleep(Duration::from_secs(300));
    println!("exiting: {}", current_process().name());
}

fn non_daemon(_: ()) {
    println!("starting: {}", current_process().name());
    thread::sleep(Duration::from_millis(50));
    println!("exiting: {}", current_process().name());
}
