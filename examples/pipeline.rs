//! Three stages, each a process, with a queue between each two.
//!
//! The first stage reads, the second works, the third (this process) writes, and is the slowest. The queues are bounded, so a
//! stage that is ahead waits. See the results in order, and that never more than 11 of 100 items were between the first
//! stage and the last: 4 in each queue and one in the hands of each stage.
//!
//! ```text
//! cargo run --example pipeline
//! ```

use multiprocess::{Process, Queue, Result, Value};
use std::thread;
use std::time::Duration;

const ITEMS: u64 = 100;

fn read((items_read, output): (Value<u64>, Queue<u64>)) {
    for item in 0..ITEMS {
        items_read.fetch_add(1);
        output.put(item).expect("nobody else closes the queue");
    }
    output.close();
}

fn work((input, output): (Queue<u64>, Queue<String>)) {
    for item in input.iter() {
        let text = format!("{item} squared is {}", item * item);
        output.put(text).expect("nobody else closes the queue");
    }
    output.close();
}

fn main() -> Result<()> {
    let (items, texts) = (Queue::bounded(4)?, Queue::bounded(4)?);
    let items_read = Value::new(0)?;
    let reader = Process::spawn((items_read.clone(), items.clone()), read)?;
    let worker = Process::spawn((items, texts.clone()), work)?;

    let mut most_between = 0;
    for (written, text) in (0..).zip(texts.iter()) {
        most_between = most_between.max(items_read.get() - written);
        thread::sleep(Duration::from_millis(1));
        println!("{text}");
    }
    println!("at most {most_between} of {ITEMS} items at once");
    reader.join()?;
    worker.join()?;
    Ok(())
}
