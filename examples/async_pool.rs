//! Calls to a pool are awaited, with tokio or any other executor.
//!
//! A call in flight holds no thread: tokio's one thread has a timer beside the calls. See the timer tick while the workers
//! wait for it, the results, and that a call which takes too long is cancelled and its worker killed.
//!
//! ```text
//! cargo run --example async_pool
//! ```

use multiprocess::{Event, Pool, Result};
use std::time::Duration;
use tokio::time;

/// Works for a while; stands for what keeps a processor busy.
fn slow_square(n: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(50));
    n * n
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let pool = Pool::builder().workers(2).build()?;

    // The workers wait for what only the timer does.
    let start = Event::new()?;
    let mut squares = pool.with(start.clone()).map_async(0..6, |start, n| {
        start.wait();
        slow_square(n)
    });
    let mut ticks = time::interval(Duration::from_millis(10));
    let mut ticked = 0;
    let squares = loop {
        tokio::select! {
            squares = &mut squares => break squares?,
            _ = ticks.tick() => {
                ticked += 1;
                if ticked == 3 {
                    start.set();
                }
            }
        }
    };
    println!("squares: {squares:?}");
    println!("the timer ticked meanwhile: {}", ticked >= 3);

    let (three, four) = tokio::join!(
        pool.apply_async(3, slow_square),
        pool.apply_async(4, slow_square)
    );
    println!("together: {} and {}", three?, four?);

    let mut endless = pool.apply_async((), |()| {
        loop {
            std::thread::park();
        }
    });
    if time::timeout(Duration::from_millis(50), &mut endless)
        .await
        .is_err()
    {
        endless.cancel();
    }
    let cancelled: std::result::Result<(), _> = endless.await;
    println!(
        "too slow: {}",
        cancelled.is_err_and(|error| error.is_cancelled())
    );
    Ok(())
}
