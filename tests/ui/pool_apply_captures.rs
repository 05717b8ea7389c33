//! A closure that captures a number, for `apply`.

use multiprocess::Pool;

fn main() {
    let by = 3_u32;
    let _ = Pool::new().unwrap().apply(2_u32, move |number| number * by);
}
