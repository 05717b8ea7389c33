//! C code that crashes, called 40 times, in a program that lives on.
//!
//! A parser as old C has them looks for a field in a record and reads a number there. It never asks
//! whether the field was found, so a record without one makes the C library read through a null
//! pointer: a real SIGSEGV, which no `Result` and no `catch_unwind` could stop. In a pool it costs
//! one worker process, which is replaced, and one item: `imap` yields the crash as that item's
//! `Err` and goes on.
//!
//! See 35 quantities, 5 lines that say which input crashed and how its process ended, and a last
//! line written by a program that is still there to write it.
//!
//! ```text
//! cargo run --release --example survive
//! ```
#![allow(unsafe_code, reason = "C functions are what this example is about")]

use std::error::Error;
use std::ffi::{CString, NulError, c_char, c_int, c_long};

use multiprocess::{Pool, TaskError};

const INPUTS: usize = 40;
const CRASHES: usize = 5;

unsafe extern "C" {
    /// The first `wanted` in `text`, or null.
    fn strchr(text: *const c_char, wanted: c_int) -> *mut c_char;
    /// The number at the start of `text`, after white space.
    fn atol(text: *const c_char) -> c_long;
}

fn main() -> Result<(), Box<dyn Error>> {
    let records = records()?;
    let pool = Pool::new()?;
    let (mut results, mut crashes) = (0, 0);

    for (index, outcome) in pool.imap(records.clone(), quantity).enumerate() {
        match outcome {
            Ok(quantity) => {
                results += 1;
                println!("input {index} {:?}: quantity {quantity}", records[index]);
            }
            Err(failure) if failure.is_crash() => {
                crashes += 1;
                println!("{}", describe(&failure, &records));
            }
            Err(failure) => return Err(failure.into()),
        }
    }

    if (results, crashes) != (INPUTS - CRASHES, CRASHES) {
        return Err(format!("{INPUTS} inputs gave {results} results and {crashes} crashes").into());
    }
    println!("{INPUTS} inputs: {results} results, {crashes} crashes; the program lives");
    Ok(())
}

/// The quantity in a record such as `"bolt 120"`: the C one-liner `atol(strchr(record, ' '))`, bug
/// included. Runs in a worker.
fn quantity(record: CString) -> c_long {
    // SAFETY: `record` ends with a NUL and lives until this function returns.
    let field = unsafe { strchr(record.as_ptr(), c_int::from(b' ')) };
    // SAFETY: a field that was found is the rest of `record`. Where none was, `field` is null and
    // this call breaks `atol`'s contract, on purpose: the C library reads at address 0, where
    // nothing is mapped, and the kernel ends this process. The compiler cannot tell which it is.
    unsafe { atol(field) }
}

/// Forty records of a stock list; every eighth has lost its quantity.
fn records() -> Result<Vec<CString>, NulError> {
    let names = ["bolt", "nut", "washer", "hinge", "rivet"];
    (0..INPUTS)
        .map(|index| match (names[index % names.len()], index % 8) {
            (name, 3) => CString::new(name),
            (name, _) => CString::new(format!("{name} {}", 100 + index)),
        })
        .collect()
}

/// Which input crashed, by which signal, in which process.
fn describe(crash: &TaskError, records: &[CString]) -> String {
    match (crash.item(), crash.exit_status(), crash.pid()) {
        (Some(item), Some(status), Some(pid)) => {
            let record = &records[item];
            format!("input {item} {record:?}: CRASHED, {status}, pid {pid}")
        }
        _ => crash.to_string(),
    }
}
