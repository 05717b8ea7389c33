//! A process that does not end by itself is terminated.
//!
//! See its state before it is started, while it runs, after `terminate` (which asks and does not wait, so it may still be
//! alive for a moment), and after `wait`; and the exit status, which names the signal.
//!
//! ```text
//! cargo run --example killing_processes
//! ```

use multiprocess::{Process, Result};
use std::thread;
use std::time::Duration;

fn foo(_: ()) {
    for _ in 0..1000 {
        thread::sleep(Duration::from_millis(100));
    }
}

fn main() -> Result<()> {
    let description = Process::builder().name("foo");
    println!("process before start: {description:?}");

    let mut process = description.spawn((), foo)?;
    println!("process running: alive: {}", process.is_alive());

    process.terminate()?;
    println!("process terminated: alive: {}", process.is_alive());

    let status = process.wait()?;
    println!("process joined: alive: {}", process.is_alive());
    println!("process exit status: {status}");
    Ok(())
}
