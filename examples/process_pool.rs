//! A pool of 4 workers squares the numbers 0 to 99.
//!
//! See the squares in the order of the numbers, whichever worker had which.
//!
//! ```text
//! cargo run --example process_pool
//! ```

use multiprocess::{Pool, Result};

fn function_square(data: u32) -> u32 {
    data * data
}

fn main() -> Result<()> {
    let pool = Pool::builder().workers(4).build()?;
    let pool_outputs = pool.map(0..100, function_square)?;
    println!("pool: {pool_outputs:?}");
    Ok(())
}
