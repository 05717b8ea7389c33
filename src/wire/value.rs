//! One value as bytes, on the fastest lane that its type has, with the descriptors of the handles in it.

use crate::sys::shared::SharedFd;
use crate::wire::handles::{self, Enclosed};
use crate::wire::{codec, plain};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// A value that has been packed and leaves its process.
#[derive(Debug, Default)]
pub(crate) struct Packed {
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<Arc<SharedFd>>,
}

/// Appends the bytes of `value` to `out`; where that fails, `out` is as before. Returns what rides along.
///
/// # Errors
///
/// What the value's own `Serialize` says.
#[inline]
pub(crate) fn pack<T: Serialize + 'static>(
    value: &T,
    out: &mut Vec<u8>,
) -> Result<Enclosed, String> {
    match plain::raw_bytes(value) {
        Some(bytes) => {
            out.extend_from_slice(bytes);
            Ok(Enclosed::default())
        }
        None => handles::collect(|| codec::encode(value, out)),
    }
}

/// Makes the value that takes up all of `bytes`.
///
/// # Errors
///
/// Where the bytes are no such value, or the value's own `Deserialize` refuses them.
#[inline]
pub(crate) fn unpack<T: DeserializeOwned + 'static>(
    bytes: &[u8],
    descriptors: Vec<Arc<SharedFd>>,
) -> Result<T, String> {
    if plain::is_raw::<T>() {
        plain::from_raw(bytes.to_vec())
    } else {
        handles::hand_out(descriptors, || codec::decode(bytes))
    }
}

/// As [`unpack`], without a copy where the bytes are the value.
///
/// # Errors
///
/// As [`unpack`].
#[inline]
pub(crate) fn unpack_owned<T: DeserializeOwned + 'static>(
    bytes: Vec<u8>,
    descriptors: Vec<Arc<SharedFd>>,
) -> Result<T, String> {
    if plain::is_raw::<T>() {
        plain::from_raw(bytes)
    } else {
        unpack(&bytes, descriptors)
    }
}
