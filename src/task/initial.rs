//! What a worker does before its first item, and what it keeps of that for the items.

use crate::error::{TaskError, TaskErrorKind};
use crate::sys::function::{Body, FunctionId, describe};
use crate::sys::shared::SharedFd;
use crate::task::guard::guard;
use crate::task::items::panic_words;
use crate::task::portable::{Portable, Stateless};
use crate::wire::value;
use std::any::{Any, type_name};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

thread_local! {
    static STATE: RefCell<Option<Rc<dyn Any>>> = const { RefCell::new(None) };
}

/// Returns what the pool's initializer returned in this worker, if it is an `S`.
///
/// It lives as long as the worker, on the thread that runs the items. What items change in it goes into a
/// [`Cell`](std::cell::Cell) or [`RefCell`]: nobody else has this value. Elsewhere, as in the process that
/// made the pool or in a thread that an item starts, there is none.
///
/// # Examples
///
/// ```
/// use multiprocess::{Pool, worker_state};
/// use std::cell::Cell;
///
/// struct Connection { server: String, uses: Cell<u32> }
///
/// let pool = Pool::builder()
///     .workers(1)
///     .initializer("db-1".to_owned(), |server| Connection { server, uses: Cell::new(0) })
///     .build()?;
/// let answers = pool.map(["a", "b"].map(String::from), |question| {
///     let connection = worker_state::<Connection>().unwrap();
///     connection.uses.set(connection.uses.get() + 1);
///     format!("{} {question} {}", connection.server, connection.uses.get())
/// })?;
/// assert_eq!(answers, ["db-1 a 1", "db-1 b 2"]);
/// assert!(worker_state::<Connection>().is_none());
/// # Ok::<(), multiprocess::Error>(())
/// ```
pub fn worker_state<S: 'static>() -> Option<Rc<S>> {
    // A thread that is ending has none either.
    let state = STATE.try_with(|state| state.try_borrow().ok()?.clone());
    state.ok()??.downcast().ok()
}

/// Drops what the initializer returned; a destructor that panics is nobody's concern any more.
pub(crate) fn drop_worker_state() {
    let state = STATE.take();
    let _panic = guard(|| drop(state));
}

/// The arguments of an initializer, encoded.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<Arc<SharedFd>>,
}

struct Initializer<F, A, S>(PhantomData<(F, A, S)>);

impl<F, A, S> Body for Initializer<F, A, S>
where
    F: Fn(A) -> S + Stateless,
    A: Portable,
    S: 'static,
{
    type Function = F;
    type Input = Arguments;
    type Output = Result<(), TaskError>;

    fn run(function: F, arguments: &mut Arguments) -> Result<(), TaskError> {
        let bytes = std::mem::take(&mut arguments.bytes);
        let descriptors = std::mem::take(&mut arguments.descriptors);
        let failed =
            |why| TaskError::of_type(TaskErrorKind::ArgumentDecoding, type_name::<A>(), why);
        let arguments = guard(|| value::unpack_owned::<A>(bytes, descriptors))
            .unwrap_or_else(|panic| Err(panic_words(&panic)))
            .map_err(failed)?;
        let state = guard(|| function(arguments))?;
        STATE.set(Some(Rc::new(state)));
        Ok(())
    }
}

/// The number of an initializer.
pub(crate) fn describe_initializer<F, A, S>(function: F) -> Option<FunctionId>
where
    F: Fn(A) -> S + Stateless,
    A: Portable,
    S: 'static,
{
    describe::<Initializer<F, A, S>>(function)
}
