//! A function that is called once in a process of its own: its arguments there, its result or failure back.

use crate::error::{TaskError, TaskErrorKind};
use crate::sys::function::{Body, Entry, FunctionId, describe, entry_of};
use crate::sys::shared::SharedFd;
use crate::task::guard::guard;
use crate::task::items::panic_words;
use crate::task::portable::{Portable, Stateless};
use crate::wire::value::{self, Packed};
use std::any::type_name;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;

/// What a process is given to work on: arguments, encoded, and descriptors.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) arguments: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

/// What a call came to, where it ran: its result, encoded, or its failure.
#[derive(Debug)]
pub(crate) struct Returned(pub(crate) Result<Packed, TaskError>);

/// The same, where it is waited for.
#[derive(Debug)]
pub(crate) struct Arrived(pub(crate) Result<(Vec<u8>, Vec<OwnedFd>), TaskError>);

impl Arrived {
    /// The result as a value.
    ///
    /// # Errors
    ///
    /// What became of the function, or of its result on the way.
    pub(crate) fn unpack<T: Portable>(self) -> Result<T, TaskError> {
        let (bytes, descriptors) = self.0?;
        let descriptors = descriptors.into_iter().map(SharedFd::of).collect();
        let failed = |why| TaskError::of_type(TaskErrorKind::ResultDecoding, type_name::<T>(), why);
        match guard(|| value::unpack_owned(bytes, descriptors)) {
            Ok(value) => value.map_err(failed),
            Err(panic) => Err(failed(panic_words(&panic))),
        }
    }
}

struct Once<F, A, T>(PhantomData<(F, A, T)>);

impl<F, A, T> Body for Once<F, A, T>
where
    F: Fn(A) -> T + Stateless,
    A: Portable,
    T: Portable,
{
    type Function = F;
    type Input = Call;
    type Output = Returned;

    fn run(function: F, call: &mut Call) -> Returned {
        let (arguments, descriptors) = (
            std::mem::take(&mut call.arguments),
            std::mem::take(&mut call.descriptors),
        );
        Returned(call_once(&function, arguments, descriptors))
    }
}

fn call_once<A: Portable, T: Portable>(
    function: &impl Fn(A) -> T,
    arguments: Vec<u8>,
    descriptors: Vec<OwnedFd>,
) -> Result<Packed, TaskError> {
    let undecoded =
        |why| TaskError::of_type(TaskErrorKind::ArgumentDecoding, type_name::<A>(), why);
    let descriptors = descriptors.into_iter().map(SharedFd::of).collect();
    let arguments = match guard(|| value::unpack_owned(arguments, descriptors)) {
        Ok(arguments) => arguments.map_err(undecoded)?,
        Err(panic) => return Err(undecoded(panic_words(&panic))),
    };
    run_and_pack(|| function(arguments))
}

/// Runs a function and encodes what it returns.
pub(crate) fn run_and_pack<T: Portable>(function: impl FnOnce() -> T) -> Result<Packed, TaskError> {
    let result = guard(function)?;
    let unencoded = |why| TaskError::of_type(TaskErrorKind::ResultEncoding, type_name::<T>(), why);
    let mut bytes = Vec::new();
    let packed = guard(|| {
        let packed = value::pack(&result, &mut bytes);
        drop(result);
        packed
    });
    let enclosed = match packed {
        Ok(packed) => packed.map_err(unencoded)?,
        Err(panic) => return Err(unencoded(panic_words(&panic))),
    };
    Ok(Packed {
        bytes,
        descriptors: enclosed.depart(),
    })
}

/// A function that a process can be started with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Callable {
    /// What it is called by in every process of this executable; `None` where its code is not in there.
    pub(crate) id: Option<FunctionId>,
    /// What it is called by in this process, and in those that are forked from it.
    pub(crate) entry: Entry<Call, Returned>,
}

impl Callable {
    pub(crate) fn of<B: Body<Input = Call, Output = Returned>>(function: B::Function) -> Callable {
        Callable {
            id: describe::<B>(function),
            entry: entry_of::<B>(function),
        }
    }
}

/// A function that is called once, as a process is started with it.
pub(crate) fn describe_call<F, A, T>(function: F) -> Callable
where
    F: Fn(A) -> T + Stateless,
    A: Portable,
    T: Portable,
{
    Callable::of::<Once<F, A, T>>(function)
}
