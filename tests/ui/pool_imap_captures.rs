//! A closure that captures a number, for the lazy verbs.

use multiprocess::Pool;

fn main() {
    let pool = Pool::new().unwrap();
    let by = 3_u32;
    for result in pool.imap(0..8_u32, move |number| number * by) {
        let _ = result;
    }
    for (_, result) in pool.imap_unordered(0..8_u32, move |number| number * by) {
        let _ = result;
    }
}
