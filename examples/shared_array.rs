//! A large array that all workers read, and another that all fill, with no copies.
//!
//! The input is a `SharedSlice`: its bytes are once in memory, and each worker reads them in place, as a `&[f64]`. The output
//! is an `Array`, which every process can change; here each worker writes its own part. Only ranges travel.
//!
//! See the size of the input, what came of it, and that it was right.
//!
//! ```text
//! cargo run --example shared_array
//! ```

use multiprocess::{Array, Pool, Result, SharedSlice};
use std::ops::Range;

const LEN: usize = 1 << 20;
const PART: usize = LEN / 16;

/// Writes the mean of each number and its two neighbours. Runs in a worker.
fn smooth((input, output): &(SharedSlice<f64>, Array<f64>), part: Range<usize>) {
    let means: Vec<f64> = part
        .clone()
        .map(|at| {
            let near = &input[at.saturating_sub(1)..(at + 2).min(LEN)];
            near.iter().sum::<f64>() / near.len() as f64
        })
        .collect();
    output.write(part.start, &means);
}

fn main() -> Result<()> {
    let input = SharedSlice::from_fn(LEN, |at| (at % 3) as f64)?;
    let output = Array::<f64>::new(LEN)?;
    println!(
        "input: {} MiB, shared by all",
        size_of_val(&input[..]) >> 20
    );

    let pool = Pool::new()?;
    let parts = (0..LEN).step_by(PART).map(|start| start..start + PART);
    pool.with((input, output.clone())).map(parts, smooth)?;

    let means = output.to_vec();
    println!("first: {:?}", &means[..4]);
    println!(
        "all 1 inside: {}",
        means[1..LEN - 1].iter().all(|&mean| mean == 1.0)
    );
    Ok(())
}
