//! A function as a number that means the same function in every process of this executable.
//!
//! Each function that travels has a [`Descriptor`]: a constant in the executable that holds its entry point, the types
//! of its input and output, and, to tell it from any other bytes, the address of one marker. What travels is the
//! descriptor's offset in the image. Whoever receives one checks that it lies in a part of the executable that nobody
//! can write and holds the marker; only a real descriptor does. So no number, wherever it came from, makes
//! this process run anything but a function of the right type that this program does send.

use crate::sys::image::main_image;
use serde::{Deserialize, Serialize};
use std::any::TypeId;

/// A function of this executable, by its descriptor's offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct FunctionId(u64);

impl FunctionId {
    /// As it stands in a message.
    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    /// As it was read from a message: it means nothing until it is resolved.
    pub(crate) fn from_bits(bits: u64) -> FunctionId {
        FunctionId(bits)
    }
}

/// How a function is run on an input of its own shape.
pub(crate) trait Body: 'static {
    /// The user's function: a type without data, of which the caller had a value.
    type Function: Copy + 'static;
    type Input: 'static;
    type Output: 'static;

    fn run(function: Self::Function, input: &mut Self::Input) -> Self::Output;
}

/// A function that was found by its number.
pub(crate) type Entry<I, O> = fn(&mut I) -> O;

#[derive(Debug)]
struct Marker(#[allow(dead_code, reason = "it is its address that counts")] u8);

static MARKER: Marker = Marker(0);

const MAGIC: [usize; 2] = [0x9d3b_7f15_c2e8_a641, 0x6c01_e5fa_83b7_24d9];

/// The part that every descriptor starts with, whatever its types.
///
/// The marker's address alone would not do: it stands in other constants as well, in the table by which code finds it, for
/// one. The words before it stand nowhere else.
#[repr(C)]
struct Head {
    magic: [usize; 2],
    marker: *const Marker,
    signature: fn() -> TypeId,
}

#[repr(C)]
struct Descriptor<I, O> {
    head: Head,
    entry: Entry<I, O>,
}

struct Described<B>(B);

impl<B: Body> Described<B> {
    const DESCRIPTOR: &'static Descriptor<B::Input, B::Output> = &Descriptor {
        head: Head {
            magic: MAGIC,
            marker: &raw const MARKER,
            signature: TypeId::of::<Entry<B::Input, B::Output>>,
        },
        entry: enter::<B>,
    };
}

/// Where every call from another process arrives.
fn enter<B: Body>(input: &mut B::Input) -> B::Output {
    // What captures something is refused where it is passed, with a word on what to do; this is decided by the compiler as
    // well.
    assert!(
        size_of::<B::Function>() == 0,
        "the function captures something"
    );
    let function = std::ptr::NonNull::<B::Function>::dangling();
    // SAFETY: the type has no size, so that a dangling, aligned pointer is valid to read; it is `Copy`, and this entry
    // can only be reached through what `describe` or `entry_of` gave away for a value of the type: this is a copy of it.
    let function = unsafe { function.read() };
    B::run(function, input)
}

/// Tells the number of the body that runs `function`; `None` where the code was not linked into the main executable.
pub(crate) fn describe<B: Body>(function: B::Function) -> Option<FunctionId> {
    // The value itself is what allows `enter` to make a copy of it.
    let _witness: B::Function = function;
    let descriptor: *const Descriptor<B::Input, B::Output> = Described::<B>::DESCRIPTOR;
    let len = size_of::<Descriptor<B::Input, B::Output>>();
    main_image()
        .offset_of(descriptor as usize, len)
        .map(FunctionId)
}

/// The entry of the body that runs `function`, as an address in this process and in those that are forked from it.
pub(crate) fn entry_of<B: Body>(function: B::Function) -> Entry<B::Input, B::Output> {
    // As in `describe`.
    let _witness: B::Function = function;
    enter::<B>
}

/// Finds the function behind a number, wherever that came from: `None` unless it has exactly these types.
pub(crate) fn resolve<I: 'static, O: 'static>(id: FunctionId) -> Option<Entry<I, O>> {
    let address = main_image().address_of(id.0, size_of::<Descriptor<I, O>>())?;
    if address % align_of::<Descriptor<I, O>>() != 0 {
        return None;
    }
    // SAFETY: the words of a `Head` lie in a part of the executable that is mapped for reading as long as the process lives
    // and that nobody can write; the address is aligned.
    let [one, other, marker] = unsafe { (address as *const [usize; 3]).read() };
    if [one, other] != MAGIC || marker != &raw const MARKER as usize {
        return None;
    }
    // SAFETY: these three words stand together in descriptors alone, so here is a whole, initialized one, of some type: each
    // starts with a `Head`.
    let head = unsafe { &*(address as *const Head) };
    if (head.signature)() != TypeId::of::<Entry<I, O>>() {
        return None;
    }
    // SAFETY: as above, and its own word says that its entry has these types.
    Some(unsafe { (*(address as *const Descriptor<I, O>)).entry })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Apply<F>(F);

    impl<F: Fn(i32) -> i64 + Copy + 'static> Body for Apply<F> {
        type Function = F;
        type Input = i32;
        type Output = i64;
        fn run(function: F, input: &mut i32) -> i64 {
            function(*input)
        }
    }

    fn id_of<F: Fn(i32) -> i64 + Copy + 'static>(function: F) -> FunctionId {
        describe::<Apply<F>>(function).unwrap()
    }

    #[test]
    fn a_number_leads_back_to_its_function() {
        let id = id_of(|n| i64::from(n) * 2);
        let other = id_of(|n| i64::from(n) + 1);
        assert_eq!(resolve::<i32, i64>(id).unwrap()(&mut 21), 42);
        assert_eq!(resolve::<i32, i64>(other).unwrap()(&mut 21), 22);
    }

    #[test]
    fn a_function_of_other_types_is_not_found() {
        let id = id_of(|n| i64::from(n) * 2);
        assert!(resolve::<i32, i32>(id).is_none());
        assert!(resolve::<u32, i64>(id).is_none());
    }

    #[test]
    fn any_other_number_is_no_function() {
        let FunctionId(real) = id_of(|n| i64::from(n) * 3);
        for distance in 1..4096 {
            for bits in [
                real.wrapping_sub(distance),
                real + distance,
                distance,
                u64::MAX - distance,
            ] {
                if let Some(entry) = resolve::<i32, i64>(FunctionId(bits)) {
                    // Another real descriptor: the tests above have some.
                    entry(&mut 1);
                    assert!(bits % 8 == 0);
                }
            }
        }
    }

    #[test]
    fn whatever_place_of_the_image_is_named_only_descriptors_are_found() {
        let known = [id_of(|n| i64::from(n) * 5), id_of(|n| i64::from(n) - 5)];
        // The marker's address stands in other constants as well: in the table by which code finds it, for one.
        let mut found = 0;
        for offset in (0..main_image().extent()).step_by(8) {
            if let Some(entry) = resolve::<i32, i64>(FunctionId(offset)) {
                entry(&mut 1);
                found += usize::from(known.contains(&FunctionId(offset)));
            }
        }
        assert_eq!(found, 2);
    }
}
