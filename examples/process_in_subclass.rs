//! A process as a type of one's own.
//!
//! Where Python has a subclass of `Process` with a `run` of its own, there is a type here that implements `Run`: its fields
//! are what the process is given, and what `run` returns is what `join` returns. See three processes count, and their
//! sums arrive.
//!
//! ```text
//! cargo run --example process_in_subclass
//! ```

use multiprocess::{Process, Result, Run, current_process};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct MyProcess {
    count_to: u32,
}

impl Run for MyProcess {
    type Output = u32;

    fn run(self) -> u32 {
        println!("called run method in process: {}", current_process().name());
        (1..=self.count_to).sum()
    }
}

fn main() -> Result<()> {
    for count_to in [10, 100, 1000] {
        let process = Process::builder().start(MyProcess { count_to })?;
        println!("1 to {count_to}: {}", process.join()?);
    }
    Ok(())
}
