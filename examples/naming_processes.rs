//! One process with a name, one without.
//!
//! See both names, as each process itself knows them; the default one says that it is this program's second. The kernel
//! knows them as well: `ps -o pid,comm` shows the first 15 bytes.
//!
//! ```text
//! cargo run --example naming_processes
//! ```

use multiprocess::{Process, Result, current_process};

fn main() -> Result<()> {
    let with_name = Process::builder()
        .name("my_func process")
        .spawn((), my_func)?;
    let with_default_name = Process::spawn((), my_func)?;
    println!(
        "started {:?} and {:?}",
        with_name.name(),
        with_default_name.name()
    );
    with_name.join()?;
    with_default_name.join()?;
    Ok(())
}

fn my_func(_: ()) {
    let process = current_process();
    println!("starting process name = {}", process.name());
    println!("exiting process name = {}", process.name());
}
