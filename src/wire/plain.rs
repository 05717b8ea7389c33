//! Types that travel as the bytes they are, at the speed of a copy: numbers, and vectors and strings of them.
//!
//! Which ones is found by type, so that nothing shows in the API: each comparison below is decided when the code for `T`
//! is compiled, and all but one branch vanish.

use crate::sys::room::{Numbers, Room};
use bytemuck::NoUninit;
use std::any::Any;
use std::fmt;

/// Runs `$body` with `$S` as each number type in turn.
macro_rules! for_each_number {
    ($S:ident => $body:block) => {
        for_each_number!(@ $S $body u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64)
    };
    (@ $S:ident $body:block $($number:ident)*) => { $({ type $S = $number; $body })* };
}

/// The size of a number; `None` where `T` is something else.
#[inline]
pub(crate) fn number_size<T: 'static>() -> Option<usize> {
    for_each_number!(S => {
        if std::any::TypeId::of::<T>() == std::any::TypeId::of::<S>() {
            return Some(size_of::<S>());
        }
    });
    None
}

/// Appends numbers that stand in `bytes` to `out`; anything that is no whole number at the end is left out.
#[inline]
#[allow(clippy::ptr_arg, reason = "the vector's own type is what is asked for")]
pub(crate) fn extend_numbers<T: 'static>(bytes: &[u8], out: &mut Vec<T>) {
    let out: &mut dyn Any = out;
    for_each_number!(S => {
        if let Some(out) = out.downcast_mut::<Vec<S>>() {
            let numbers = bytes.chunks_exact(size_of::<S>());
            out.extend(numbers.map(|bytes| {
                let mut number = [0; size_of::<S>()];
                number.copy_from_slice(bytes);
                S::from_ne_bytes(number)
            }));
        }
    });
}

/// Room for `len` numbers; `None` where `T` is something else, or where there is no memory for them.
pub(crate) fn room_for<T: 'static>(len: usize) -> Option<Box<dyn Room>> {
    for_each_number!(S => {
        if std::any::TypeId::of::<T>() == std::any::TypeId::of::<S>() {
            return Some(Box::new(Numbers::<S>::new(len).ok()?));
        }
    });
    None
}

/// The first `len` numbers of a room for such; `None` where not all of these are there.
pub(crate) fn from_room<T: 'static>(room: Box<dyn Room>, len: usize) -> Option<Vec<T>> {
    let mut room = Some(room.into_any());
    let mut values: Option<Vec<T>> = None;
    {
        let values: &mut dyn Any = &mut values;
        for_each_number!(S => {
            if let Some(values) = values.downcast_mut::<Option<Vec<S>>>() {
                *values = room.take()?.downcast::<Numbers<S>>().ok()?.into_vec(len);
            }
        });
    }
    values
}

/// The bytes of a number; `None` for any other value.
#[inline]
pub(crate) fn number_bytes<T: 'static>(value: &T) -> Option<&[u8]> {
    let value: &dyn Any = value;
    for_each_number!(S => {
        if let Some(number) = value.downcast_ref::<S>() {
            return Some(bytemuck::bytes_of(number));
        }
    });
    None
}

/// The number of which `bytes` are the bytes; `None` where they are not, or where `T` is something else.
#[inline]
pub(crate) fn number_from<T: 'static>(bytes: &[u8]) -> Option<T> {
    let mut value: Option<T> = None;
    {
        let value: &mut dyn Any = &mut value;
        for_each_number!(S => {
            if let Some(value) = value.downcast_mut::<Option<S>>() {
                *value = bytes.try_into().ok().map(S::from_ne_bytes);
            }
        });
    }
    value
}

/// A value that is its own encoding.
pub(crate) trait Raw: fmt::Debug + Send + Sync {
    fn bytes(&self) -> &[u8];
}

impl<S: NoUninit + fmt::Debug + Send + Sync> Raw for Vec<S> {
    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(self.as_slice())
    }
}

impl Raw for String {
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// The bytes of a value that is its own encoding (a string, a vector of numbers); `None` for any other.
#[inline]
pub(crate) fn raw_bytes<T: 'static>(value: &T) -> Option<&[u8]> {
    let value: &dyn Any = value;
    for_each_number!(S => {
        if let Some(numbers) = value.downcast_ref::<Vec<S>>() {
            return Some(numbers.bytes());
        }
    });
    value.downcast_ref::<String>().map(String::as_bytes)
}

/// Whether values of this type are their own encoding.
#[inline]
pub(crate) fn is_raw<T: 'static>() -> bool {
    let kind = std::any::TypeId::of::<T>();
    for_each_number!(S => {
        if kind == std::any::TypeId::of::<Vec<S>>() {
            return true;
        }
    });
    kind == std::any::TypeId::of::<String>()
}

/// Takes a value that is its own encoding, without copying it; any other stays where it is.
#[inline]
pub(crate) fn take_raw<T: 'static>(value: &mut Option<T>) -> Option<Box<dyn Raw>> {
    let value: &mut dyn Any = value;
    for_each_number!(S => {
        if let Some(numbers) = value.downcast_mut::<Option<Vec<S>>>() {
            return Some(Box::new(numbers.take()?));
        }
    });
    let text = value.downcast_mut::<Option<String>>()?.take()?;
    Some(Box::new(text))
}

/// Makes the value of which `bytes` is the encoding.
///
/// # Errors
///
/// Where the bytes are no such value, or values of this type are not their own encoding.
pub(crate) fn from_raw<T: 'static>(bytes: Vec<u8>) -> Result<T, String> {
    let mut value: Option<T> = None;
    {
        let value: &mut dyn Any = &mut value;
        if let Some(value) = value.downcast_mut::<Option<Vec<u8>>>() {
            *value = Some(bytes);
        } else if let Some(value) = value.downcast_mut::<Option<String>>() {
            *value = Some(String::from_utf8(bytes).map_err(|error| error.to_string())?);
        } else {
            for_each_number!(S => {
                if let Some(value) = value.downcast_mut::<Option<Vec<S>>>() {
                    if bytes.len() % size_of::<S>() != 0 {
                        return Err(format!("{} bytes are no whole numbers", bytes.len()));
                    }
                    let mut numbers: Vec<S> = Vec::with_capacity(bytes.len() / size_of::<S>());
                    extend_numbers(&bytes, &mut numbers);
                    *value = Some(numbers);
                }
            });
        }
    }
    value.ok_or_else(|| "values of this type do not travel as bytes".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_its_bytes_and_nothing_else_is() {
        let bytes = number_bytes(&-1.5_f32).unwrap();
        assert_eq!(number_from::<f32>(bytes), Some(-1.5));
        assert_eq!(number_from::<f64>(bytes), None);
        assert_eq!(number_from::<i128>(&(-7_i128).to_ne_bytes()), Some(-7));
        assert_eq!(number_bytes(&'a'), None);
        assert_eq!(number_from::<bool>(&[1]), None);
    }

    #[test]
    fn numbers_travel_as_their_bytes() {
        assert_eq!(number_size::<u16>(), Some(2));
        assert_eq!(number_size::<f64>(), Some(8));
        assert_eq!(number_size::<bool>(), None);
        assert_eq!(number_size::<(u8, u8)>(), None);
        let numbers = vec![1.5f32, -2.0, f32::INFINITY];
        let mut out: Vec<f32> = Vec::new();
        extend_numbers(numbers.bytes(), &mut out);
        assert_eq!(numbers, out);
        extend_numbers(&[1], &mut vec![true]);
    }

    #[test]
    fn there_is_room_for_numbers_of_the_same_type_only() {
        let room = || room_for::<u32>(0).unwrap();
        assert_eq!(from_room::<u32>(room(), 0), Some(Vec::new()));
        assert_eq!(from_room::<f32>(room(), 0), None);
        assert_eq!(from_room::<String>(room(), 0), None);
        assert!(from_room::<u32>(room(), 1).is_none());
        assert!(room_for::<bool>(1).is_none() && room_for::<u64>(usize::MAX).is_none());
    }

    #[test]
    fn vectors_and_strings_come_back_as_they_were() {
        let raw = take_raw(&mut Some(vec![1u64, 2, u64::MAX])).unwrap();
        assert_eq!(
            from_raw::<Vec<u64>>(raw.bytes().to_vec()).unwrap(),
            [1, 2, u64::MAX]
        );
        let raw = take_raw(&mut Some("grüße".to_owned())).unwrap();
        assert_eq!(from_raw::<String>(raw.bytes().to_vec()).unwrap(), "grüße");
        let mut other = Some(3);
        assert!(take_raw(&mut other).is_none());
        assert_eq!(other, Some(3));
        assert_eq!(raw_bytes(&vec![0u32; 3]), Some([0; 12].as_slice()));
        assert_eq!(raw_bytes(&3u32), None);
        assert!(is_raw::<Vec<i8>>() && is_raw::<String>() && !is_raw::<u8>());
    }

    #[test]
    fn bytes_that_are_no_such_value_are_an_error() {
        assert!(from_raw::<String>(vec![0xff]).is_err());
        assert!(from_raw::<Vec<u64>>(vec![0; 9]).is_err());
        assert!(from_raw::<bool>(vec![1]).is_err());
    }
}
