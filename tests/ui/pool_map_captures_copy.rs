//! A closure that captures a number, by value.

use multiprocess::Pool;

fn main() {
    let pool = Pool::new().unwrap();
    let by = 3_u32;
    let _ = pool.map(0..8_u32, move |number| number * by);
}
