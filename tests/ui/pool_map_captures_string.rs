//! A closure that captures a string, which it moves in.

use multiprocess::Pool;

fn main() {
    let pool = Pool::new().unwrap();
    let word = String::from("word");
    let _ = pool.map(0..8_usize, move |number| word.len() + number);
}
