//! A closure that captures a reference to something that lives for ever.

use multiprocess::Pool;

fn main() {
    let pool = Pool::new().unwrap();
    let word: &'static str = "word";
    let _ = pool.map(0..8_usize, move |number| word.len() + number);
}
