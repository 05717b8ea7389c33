//! A `Closure` of a closure that captures.

use multiprocess::Closure;

fn main() {
    let by = 3_u32;
    let _ = Closure::new(move |number: u32| number * by);
}
