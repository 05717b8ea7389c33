//! What can travel between processes.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Marks a value that can travel from one process to another.
///
/// Every type that serde can write and read and that borrows nothing is portable; there is nothing to implement.
///
/// Values travel in a format that does not describe itself. So a type cannot, though it is portable by its bounds, whose decoder asks
/// what comes next, or whose encoder leaves something out: `serde_json::Value`, and what derives serde with `untagged`, `tag`,
/// `flatten` or `skip_serializing_if`. For most of these that is an error of the call; a field that was skipped may be read as another.
///
/// # Examples
///
/// ```
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Picture {
///     name: String,
///     pixels: Vec<u8>,
/// }
///
/// fn travels<T: multiprocess::Portable>() {}
/// travels::<Picture>();
/// travels::<Result<Vec<Picture>, String>>();
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot travel to another process",
    label = "not portable",
    note = "what travels is written and read by serde and borrows nothing: \
            derive `serde::Serialize` and `serde::Deserialize` for it, and own what it refers to"
)]
pub trait Portable: Serialize + DeserializeOwned + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + 'static> Portable for T {}

/// Marks a function that can run in another process: one that captures nothing, so that there is nothing to send of it.
///
/// Every function item is one, and every closure that uses only its arguments and statics.
///
/// # Examples
///
/// ```compile_fail
/// let factor = String::from("3");
/// let pool = multiprocess::Pool::new()?;
/// pool.map([1, 2], move |n: u32| n * factor.parse::<u32>().unwrap())?; // captures `factor`
/// # Ok::<(), multiprocess::Error>(())
/// ```
///
/// ```
/// let factor = String::from("3");
/// let pool = multiprocess::Pool::builder().workers(1).build()?;
/// let tripled = pool.with(factor).map([1, 2], |factor, n: u32| n * factor.parse::<u32>().unwrap())?;
/// assert_eq!(tripled, [3, 6]);
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "a function that runs in another process must capture nothing",
    label = "captures something",
    note = "pass what it captures explicitly, and take it as an argument: \
            `pool.with(captured).map(items, |captured, item| ..)`, \
            `Process::spawn((captured,), |(captured,)| ..)`, \
            `Closure::with(captured, |captured, argument| ..)`"
)]
pub trait Stateless: Copy + 'static {}

#[diagnostic::do_not_recommend]
impl<F: Copy + 'static> Stateless for F {}

/// Stops the compiler at a function that captures something: its type has a size.
#[inline(always)]
pub(crate) fn require_no_captures<F: Stateless>(_function: &F) {
    const {
        assert!(
            size_of::<F>() == 0,
            "a function that runs in another process must capture nothing: pass what it captures explicitly, \
             and take it as an argument: `pool.with(captured).map(items, |captured, item| ..)`, \
             `Process::spawn((captured,), |(captured,)| ..)`, `Closure::with(captured, |captured, argument| ..)`"
        );
    }
}
