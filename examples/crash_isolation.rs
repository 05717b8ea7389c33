//! A C library that crashes, once in a process of its own and once in a pool.
//!
//! The C code measures the value of an environment variable as `strlen(getenv(name))` does, and never asks whether the
//! variable is there. For one that is not, the C library reads at address 0: a real segmentation fault.
//!
//! See which signal ended the process; then a pool in which one name of five does that: four lengths, one error that says which,
//! and after it the next call of the same pool.
//!
//! ```text
//! cargo run --example crash_isolation
//! ```
#![allow(unsafe_code, reason = "C functions are what this example is about")]

use multiprocess::{Pool, Process, Result};
use std::ffi::{CString, c_char};

unsafe extern "C" {
    fn getenv(name: *const c_char) -> *const c_char;
    fn strlen(text: *const c_char) -> usize;
}

/// Breaks where there is no such variable. Runs in other processes.
fn value_length(name: CString) -> usize {
    // SAFETY: `name` ends with a NUL, and no other thread changes the environment.
    let value = unsafe { getenv(name.as_ptr()) };
    // SAFETY: what was found ends with a NUL. What was not is null, and this is the bug that the example is about.
    unsafe { strlen(value) }
}

fn main() -> Result<()> {
    let missing = c"NO_SUCH_VARIABLE".to_owned();
    let mut process = Process::builder().spawn(missing.clone(), value_length)?;
    println!("alone: {}", process.wait()?);

    let pool = Pool::builder().workers(2).build()?;
    let mut names = vec![c"PATH".to_owned(); 5];
    names[3] = missing;
    for (name, length) in names.iter().zip(pool.imap(names.clone(), value_length)) {
        match length {
            Ok(length) => println!("{name:?}: {length} bytes"),
            Err(error) if error.is_crash() => println!("{name:?}: {error}"),
            Err(error) => return Err(error.into()),
        }
    }

    let length = pool.apply(c"PATH".to_owned(), value_length)?;
    println!("the same pool, afterwards: {length} bytes");
    Ok(())
}
