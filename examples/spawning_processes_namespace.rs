//! Several processes, each with another argument to a function that lives in another module.
//!
//! See that a path to a function is all that it takes, and that the processes run at the same time: their lines come in
//! any order.
//!
//! ```text
//! cargo run --example spawning_processes_namespace
//! ```

use multiprocess::{Process, Result};

#[path = "my_func.rs"]
mod helpers;

fn main() -> Result<()> {
    let mut processes = Vec::new();
    for argument in [1, 2, 4, 8] {
        processes.push(Process::spawn(argument, helpers::my_func)?);
    }
    for process in processes {
        process.join()?;
    }
    Ok(())
}
