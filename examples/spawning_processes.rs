//! Six processes, started and joined in a loop.
//!
//! See the function called six times, each time in another process, one after the other.
//!
//! ```text
//! cargo run --example spawning_processes
//! ```

use multiprocess::{Process, Result};

#[path = "my_func.rs"]
mod my_func;

fn main() -> Result<()> {
    for i in 0..6 {
        let process = Process::spawn(i, my_func::my_func)?;
        process.join()?;
    }
    Ok(())
}
