//! A process whose closure captures a number.

use multiprocess::Process;

fn main() {
    let by = 3_u32;
    let _ = Process::spawn(2_u32, move |number| number * by);
}
