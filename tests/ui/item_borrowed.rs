//! Items that borrow from this process.

use multiprocess::Pool;

fn main() {
    let pool = Pool::new().unwrap();
    let text = String::from("a b");
    let _ = pool.map(text.split(' '), |word| word.len());
}
