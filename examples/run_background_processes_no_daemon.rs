//! A background and a foreground process, neither of them a daemon, neither of them joined.
//!
//! See that the program waits for both at its end: the background process counts 0 to 4, the foreground process 5 to 9, and
//! both exit.
//!
//! ```text
//! cargo run --example run_background_processes_no_daemon
//! ```

use multiprocess::{Process, Result, current_process};
use std::thread;
use std::time::Duration;

fn main() -> Result<()> {
    Process::builder()
        .name("background_process")
        .spawn((0, 5), count)?;
    Process::builder()
        .name("NO_background_process")
        .spawn((5, 10), count)?;
    println!("end of main");
    Ok(())
}

fn count((from, to): (u32, u32)) {
    let process = current_process();
    println!("starting {}", process.name());
    for i in from..to {
        println!("{} ---> {i}", process.name());
        thread::sleep(Duration::from_millis(10));
    }
    println!("exiting {}", process.name());
}
