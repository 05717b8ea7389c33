//! What the items cost.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Next to nothing.
pub(crate) fn square(x: u64) -> u64 {
    x.wrapping_mul(x)
}

/// Pure arithmetic, each step of which needs the one before.
#[inline(never)]
pub(crate) fn burn(units: u64) -> u64 {
    let mut x = units | 1;
    for _ in 0..units {
        x ^= x >> 12;
        x = x.wrapping_mul(0x2545_f491_4f6c_dd1d);
    }
    x
}

/// How many units `burn` needs for `time` on this machine, now.
pub(crate) fn units_for(time: Duration) -> u64 {
    const TRIAL: u64 = 1_000_000;
    let trials = (0..10).map(|_| {
        let start = Instant::now();
        black_box(burn(black_box(TRIAL)));
        start.elapsed()
    });
    let fastest = trials.min().unwrap_or(time).as_nanos().max(1);
    (u128::from(TRIAL) * time.as_nanos() / fastest) as u64
}
