//! A function that other examples run in processes of theirs: it prints 0 to `i`.
//!
//! It is a module that they include with `#[path]`, and a program by itself. See the numbers 0 to 5, printed once by this
//! process and once by another.
//!
//! ```text
//! cargo run --example my_func
//! ```

use std::fmt::Write;

/// Prints who calls and the numbers 0 to `i`, in one piece: lines of several processes do not mix.
pub(crate) fn my_func(i: u32) {
    print!("{}", lines(i));
}

fn lines(i: u32) -> String {
    let mut lines = format!("calling my_func from process no. {i}\n");
    for j in 0..=i {
        // A `String` takes whatever is written to it.
        let _ = writeln!(lines, "output from my_func is: {j}");
    }
    lines
}

#[allow(dead_code, reason = "not used where this file is included as a module")]
fn main() -> multiprocess::Result<()> {
    my_func(5);
    multiprocess::Process::spawn(5, my_func)?.join()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn the_numbers_from_0_to_i_are_printed() {
        assert_eq!(
            lines(2),
            "calling my_func from process no. 2\n\
             output from my_func is: 0\noutput from my_func is: 1\noutput from my_func is: 2\n"
        );
    }
}
