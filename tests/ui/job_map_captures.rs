//! A job has captures, and its closure has another that is not among them.

use multiprocess::Pool;

fn main() {
    let pool = Pool::new().unwrap();
    let plus = 3_u32;
    let _ = pool
        .with(2_u32)
        .map(0..8_u32, move |by, number| number * by + plus);
}
