//! A background process that is a daemon, and a foreground process that is none.
//!
//! See the foreground process count to its end, 5 to 9, since the program waits for it. The background process would count
//! for minutes; it is cut off when the program ends, and never exits by itself.
//!
//! ```text
//! cargo run --example run_background_processes
//! ```

use multiprocess::{Event, Process, Result, current_process};
use std::thread;
use std::time::Duration;

fn main() -> Result<()> {
    let started = Event::new()?;
    Process::builder()
        .name("background_process")
        .daemon(true)
        .spawn((0, 30_000, started.clone()), count)?;
    started.wait();
    let foreground = Process::builder()
        .name("NO_background_process")
        .spawn((5, 10, started), count)?;
    foreground.join()?;
    Ok(())
}

fn count((from, to, started): (u32, u32, Event)) {
    let process = current_process();
    println!("starting {}", process.name());
    for i in from..to {
        println!("{} ---> {i}", process.name());
        started.set();
        thread::sleep(Duration::from_millis(10));
    }
    println!("exiting {}", process.name());
}
