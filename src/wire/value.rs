//! One value as bytes, on the fastest lane that its type has.

use crate::wire::{codec, plain};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Appends the bytes of `value` to `out`; where that fails, `out` is as before.
///
/// # Errors
///
/// What the value's own `Serialize` says.
#[inline]
pub(crate) fn pack<T: Serialize + 'static>(value: &T, out: &mut Vec<u8>) -> Result<(), String> {
    match plain::raw_bytes(value) {
        Some(bytes) => {
            out.extend_from_slice(bytes);
            Ok(())
        }
        None => codec::encode(value, out),
    }
}

/// Makes the value that takes up all of `bytes`.
///
/// # Errors
///
/// Where the bytes are no such value, or the value's own `Deserialize` refuses them.
#[inline]
pub(crate) fn unpack<T: DeserializeOwned + 'static>(bytes: &[u8]) -> Result<T, String> {
    if plain::is_raw::<T>() {
        plain::from_raw(bytes.to_vec())
    } else {
        codec::decode(bytes)
    }
}

/// As [`unpack`], without a copy where the bytes are the value.
///
/// # Errors
///
/// As [`unpack`].
#[inline]
pub(crate) fn unpack_owned<T: DeserializeOwned + 'static>(bytes: Vec<u8>) -> Result<T, String> {
    if plain::is_raw::<T>() {
        plain::from_raw(bytes)
    } else {
        codec::decode(&bytes)
    }
}
