//! Two pipes join three processes.
//!
//! One process sends 0 to 9 through the first pipe, a second one squares them and sends the results on through the other,
//! this one prints them. See 0 to 81, and "end": a pipe whose other end is gone is closed, once all has been received.
//!
//! ```text
//! cargo run --example communicating_with_pipe
//! ```

use multiprocess::{Pipe, Process, Result};

fn create_items(output: Pipe<u32, ()>) {
    for item in 0..10 {
        output.send(item).expect("the other end is there");
    }
}

fn multiply_items((input, output): (Pipe<(), u32>, Pipe<u32, ()>)) {
    for item in input.iter() {
        output.send(item * item).expect("the other end is there");
    }
}

fn main() -> Result<()> {
    let (items_in, items_out) = Pipe::pair()?;
    let (squares_in, squares_out) = Pipe::<_, ()>::pair()?;
    let creator = Process::spawn(items_in, create_items)?;
    let multiplier = Process::spawn((items_out, squares_in), multiply_items)?;
    for square in squares_out.iter() {
        println!("{square}");
    }
    println!("end");
    creator.join()?;
    multiplier.join()?;
    Ok(())
}
