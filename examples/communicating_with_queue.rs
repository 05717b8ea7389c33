//! A producer of random numbers, a consumer, and a queue between them.
//!
//! Both are types of their own that implement `Run`, and both have the queue in a field: a queue is a value like any other.
//! See that each number is consumed after it was produced, in the same order.
//!
//! ```text
//! cargo run --example communicating_with_queue
//! ```

use multiprocess::{Process, Queue, Result, Run, current_process};
use serde::{Deserialize, Serialize};
use std::hash::{BuildHasher, RandomState};

#[derive(Serialize, Deserialize)]
struct Producer {
    queue: Queue<u64>,
}

#[derive(Serialize, Deserialize)]
struct Consumer {
    queue: Queue<u64>,
}

impl Run for Producer {
    type Output = ();

    fn run(self) {
        for i in 0..10 {
            let item = RandomState::new().hash_one(i) % 256;
            println!("process {}: puts {item}", current_process().name());
            self.queue.put(item).expect("nobody else closes the queue");
        }
        self.queue.close();
    }
}

impl Run for Consumer {
    type Output = ();

    fn run(self) {
        for item in self.queue.iter() {
            println!("process {}: got {item}", current_process().name());
        }
        println!("the queue is closed and empty");
    }
}

fn main() -> Result<()> {
    let queue = Queue::new()?;
    let producer = Producer {
        queue: queue.clone(),
    };
    let consumer = Consumer { queue };
    let producer = Process::builder().name("producer").start(producer)?;
    let consumer = Process::builder().name("consumer").start(consumer)?;
    producer.join()?;
    consumer.join()?;
    Ok(())
}
