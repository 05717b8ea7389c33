//! Captures that cannot travel.

use multiprocess::Pool;

fn main() {
    let pool = Pool::new().unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let _ = pool.with(file).map(0..8_u32, |_, number| number);
}
