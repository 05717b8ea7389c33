//! Results that cannot travel.

use multiprocess::Pool;

fn main() {
    let pool = Pool::new().unwrap();
    let _ = pool.map(0..8_u32, |number| std::thread::spawn(move || number));
}
