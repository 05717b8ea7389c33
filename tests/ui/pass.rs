//! What the compiler must accept, with hardly an annotation. Also makes trybuild build instead of check, so that errors
//! which only appear once a function is instantiated are seen in the other files.

use multiprocess::{Closure, Error, Pool, Portable, Process, TaskError};

fn generic<T: Portable + Clone>(pool: &Pool, items: Vec<T>) -> Result<Vec<T>, TaskError> {
    pool.map(items, |item| item.clone())
}

fn borrowed_input(pool: &Pool, lines: &str) -> Result<Vec<usize>, TaskError> {
    pool.map(lines.lines().map(str::to_owned), |line| line.len())
}

fn question_marks() -> Result<(), Error> {
    let pool = Pool::new()?;
    assert_eq!(pool.map([1_u32, 2], |number| number + 1)?, [2, 3]);
    assert_eq!(
        pool.with(10).map([1_u32, 2], |by, number| number * by)?,
        [10, 20]
    );
    assert_eq!(borrowed_input(&pool, "a\nbc")?, [1, 2]);
    assert_eq!(generic(&pool, vec!["x".to_owned()])?, ["x"]);
    assert_eq!(Process::spawn((1_u32, 2_u32), |(a, b)| a + b)?.join()?, 3);
    let closure = Closure::with(2_u32, |by, number: u32| number * by);
    assert_eq!(pool.apply(closure, |closure| closure.call(4))?, 8);
    Ok(())
}

fn shareable<T: Send + Sync>() {}
fn an_error<T: std::error::Error + Send + Sync + 'static>() {}

fn main() {
    shareable::<Pool>();
    an_error::<Error>();
    an_error::<TaskError>();
    question_marks().unwrap();
}
