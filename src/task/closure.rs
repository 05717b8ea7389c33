//! A function and its captures as one value that can travel.

use crate::sys::function::{Body, Entry, FunctionId, describe, resolve};
use crate::task::portable::{Portable, Stateless, require_no_captures};
use crate::wire::codec;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// Holds a function and what it captures, as a value that can travel: inside arguments, results and messages.
///
/// It means something only to processes of the same program: a number that is no closure of these types, from
/// wherever it came, is an error when it is decoded.
///
/// # Examples
///
/// ```
/// use multiprocess::{Closure, Pool};
///
/// let tasks: Vec<Closure<u64, u64>> = vec![
///     Closure::new(|n| n * n),
///     Closure::with(vec![1, 2, 3], |captured: &Vec<u64>, n| captured.iter().sum::<u64>() + n),
/// ];
/// let pool = Pool::builder().workers(2).build()?;
/// assert_eq!(pool.map(tasks, |task| task.call(10))?, [100, 16]);
/// # Ok::<(), multiprocess::Error>(())
/// ```
pub struct Closure<A, R> {
    /// `None` where the function was not linked into the main executable: it can be called, but not sent.
    id: Option<FunctionId>,
    bound: Box<dyn Bound<A, R>>,
}

/// A function with its captures.
trait Bound<A, R>: Send + Sync {
    fn call(&self, argument: A) -> R;
    fn pack(&self, out: &mut Vec<u8>) -> Result<(), String>;
    fn clone_box(&self) -> Box<dyn Bound<A, R>>;
}

struct Pair<C, F> {
    captures: Arc<C>,
    function: F,
}

impl<C, F, A, R> Bound<A, R> for Pair<C, F>
where
    C: Portable + Send + Sync,
    F: Fn(&C, A) -> R + Stateless + Send + Sync,
    A: 'static,
    R: 'static,
{
    fn call(&self, argument: A) -> R {
        (self.function)(&self.captures, argument)
    }

    fn pack(&self, out: &mut Vec<u8>) -> Result<(), String> {
        codec::encode(&*self.captures, out)
    }

    fn clone_box(&self) -> Box<dyn Bound<A, R>> {
        let captures = Arc::clone(&self.captures);
        Box::new(Pair {
            captures,
            function: self.function,
        })
    }
}

/// Makes the closure again from its encoded captures.
type Rebind<A, R> = Entry<Vec<u8>, Result<Box<dyn Bound<A, R>>, String>>;

struct Binding<F, C, A, R>(PhantomData<(F, C, A, R)>);

impl<F, C, A, R> Body for Binding<F, C, A, R>
where
    C: Portable + Send + Sync,
    F: Fn(&C, A) -> R + Stateless + Send + Sync,
    A: 'static,
    R: 'static,
{
    type Function = F;
    type Input = Vec<u8>;
    type Output = Result<Box<dyn Bound<A, R>>, String>;

    fn run(function: F, captures: &mut Vec<u8>) -> Result<Box<dyn Bound<A, R>>, String> {
        let captures: C = codec::decode(captures)?;
        Ok(Box::new(Pair {
            captures: Arc::new(captures),
            function,
        }))
    }
}

impl<A: 'static, R: 'static> Closure<A, R> {
    /// Makes a closure of a function that captures nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// let shout = multiprocess::Closure::new(|text: String| text.to_uppercase());
    /// assert_eq!(shout.call("hello".into()), "HELLO");
    /// ```
    pub fn new<F>(function: F) -> Closure<A, R>
    where
        F: Fn(A) -> R + Stateless + Send + Sync,
    {
        Closure::with((), move |(): &(), argument| function(argument))
    }

    /// Makes a closure of a function and the captures that it takes beside its argument.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiprocess::Closure;
    ///
    /// let scale = Closure::with(2.5, |factor: &f64, length: f64| factor * length);
    /// assert_eq!(scale.call(4.0), 10.0);
    /// ```
    pub fn with<C, F>(captures: C, function: F) -> Closure<A, R>
    where
        C: Portable + Send + Sync,
        F: Fn(&C, A) -> R + Stateless + Send + Sync,
    {
        require_no_captures(&function);
        let id = describe::<Binding<F, C, A, R>>(function);
        Closure {
            id,
            bound: Box::new(Pair {
                captures: Arc::new(captures),
                function,
            }),
        }
    }

    /// Calls it, here and now, in this process.
    ///
    /// # Examples
    ///
    /// ```
    /// let double = multiprocess::Closure::new(|n: u32| 2 * n);
    /// assert_eq!(double.call(4), 8);
    /// ```
    pub fn call(&self, argument: A) -> R {
        self.bound.call(argument)
    }
}

impl<A, R> Clone for Closure<A, R> {
    /// Clones the closure; both share the captures.
    fn clone(&self) -> Self {
        Closure {
            id: self.id,
            bound: self.bound.clone_box(),
        }
    }
}

impl<A, R> fmt::Debug for Closure<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signature = std::any::type_name::<fn(A) -> R>();
        f.debug_struct("Closure")
            .field("signature", &signature)
            .finish_non_exhaustive()
    }
}

impl<A, R> Serialize for Closure<A, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return Err(S::Error::custom(
                "a closure means something to processes of this program only: it travels between them, \
                 and has no other form",
            ));
        }
        let id = self.id.ok_or_else(|| {
            S::Error::custom(
                "the closure's code is in a library that was loaded into another program, not in the main executable, where the \
                 receiver would look for it; a `Process` by `StartMethod::Fork` can run such code",
            )
        })?;
        let mut captures = Vec::new();
        self.bound.pack(&mut captures).map_err(S::Error::custom)?;
        (id, captures).serialize(serializer)
    }
}

impl<'de, A: 'static, R: 'static> Deserialize<'de> for Closure<A, R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (id, mut captures) = <(FunctionId, Vec<u8>)>::deserialize(deserializer)?;
        let rebind: Rebind<A, R> =
            resolve(id).ok_or_else(|| D::Error::custom("this is no closure of these types"))?;
        let bound = rebind(&mut captures).map_err(D::Error::custom)?;
        Ok(Closure {
            id: Some(id),
            bound,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn travel<T: Portable>(value: &T) -> Result<T, String> {
        let mut bytes = Vec::new();
        codec::encode(value, &mut bytes)?;
        codec::decode(&bytes)
    }

    #[test]
    fn a_closure_comes_back_with_its_captures() {
        let closure = Closure::with("a".to_owned(), |prefix: &String, n: u32| {
            format!("{prefix}{n}")
        });
        let there = travel(&closure).unwrap();
        assert_eq!(there.call(7), "a7");
        assert_eq!(travel(&there.clone()).unwrap().call(8), "a8");
        let nested = Closure::with(there, |inner: &Closure<u32, String>, n: u32| {
            inner.call(n).len()
        });
        assert_eq!(travel(&nested).unwrap().call(100), 4);
    }

    #[test]
    fn a_foreign_serializer_is_refused() {
        let closure: Closure<u32, u32> = Closure::new(|n| n);
        assert!(
            serde_json::to_string(&closure)
                .unwrap_err()
                .to_string()
                .contains("closure")
        );
    }

    #[test]
    fn a_closure_of_other_types_is_an_error() {
        let closure: Closure<u32, u32> = Closure::new(|n| n + 1);
        let mut bytes = Vec::new();
        codec::encode(&closure, &mut bytes).unwrap();
        assert!(codec::decode::<Closure<u32, u64>>(&bytes).is_err());
        assert!(codec::decode::<Closure<i32, u32>>(&bytes).is_err());
        assert!(codec::decode::<Closure<u32, u32>>(&bytes).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_no_closure_or_one_of_these_types(bytes: Vec<u8>) {
            if let Ok(closure) = codec::decode::<Closure<u32, u32>>(&bytes) {
                closure.call(1);
            }
        }
    }
}
