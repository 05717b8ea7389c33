//! Values to bytes and back. The only file that names bincode.

use crate::wire::bounded::{Bounded, Budget};
use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::enc::write::Writer;
use bincode::error::EncodeError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;

/// What one encoded value may hold, in bytes.
const VALUE_MAX: usize = 4 << 30;

/// A decoder believes lengths up to its limit before it looks for the bytes, so short messages are given a low one: a wrong
/// length in them asks for no more memory than this.
const SHORT: usize = 64 << 10;
const MIDDLE: usize = 16 << 20;

type Config<const LIMIT: usize> = Configuration<LittleEndian, Fixint, Limit<LIMIT>>;

fn config<const LIMIT: usize>() -> Config<LIMIT> {
    bincode::config::standard()
        .with_fixed_int_encoding()
        .with_limit::<LIMIT>()
}

struct Appender<'a>(&'a mut Vec<u8>);

impl Writer for Appender<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Appends `value` to `out`; where that fails, `out` is as before.
///
/// # Errors
///
/// What the value's own `Serialize` says.
pub(crate) fn encode<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), String> {
    let start = out.len();
    bincode::serde::encode_into_writer(value, Appender(out), config::<VALUE_MAX>()).map_err(
        |error| {
            out.truncate(start);
            match error {
                EncodeError::OtherString(message) => message,
                other => other.to_string(),
            }
        },
    )
}

/// Reads a value that takes up all of `bytes`.
///
/// # Errors
///
/// Where the bytes are no such value, or the value's own `Deserialize` refuses them.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match bytes.len() {
        0..=SHORT => decode_within::<T, { 2 * SHORT }>(bytes),
        _ if bytes.len() <= MIDDLE => decode_within::<T, { 2 * MIDDLE }>(bytes),
        _ => decode_within::<T, VALUE_MAX>(bytes),
    }
}

fn decode_within<T: DeserializeOwned, const LIMIT: usize>(bytes: &[u8]) -> Result<T, String> {
    let budget = Budget::of(bytes.len());
    let seed = Bounded::new(PhantomData::<T>, &budget);
    let decoded = bincode::serde::seed_decode_from_slice(seed, bytes, config::<LIMIT>());
    let (value, used) = decoded.map_err(|error| match error {
        bincode::error::DecodeError::OtherString(message) => message,
        other => other.to_string(),
    })?;
    if used == bytes.len() {
        Ok(value)
    } else {
        Err(format!("{} bytes are left over", bytes.len() - used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn round_trip<T: Serialize + DeserializeOwned>(value: &T) -> T {
        let mut bytes = vec![9];
        encode(value, &mut bytes).unwrap();
        decode(&bytes[1..]).unwrap()
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(value: BTreeMap<String, Vec<(u8, Option<i64>, f64, char)>>) {
            prop_assert_eq!(round_trip(&value), value);
        }

        #[test]
        fn any_bytes_are_a_value_or_an_error(bytes: Vec<u8>) {
            let _any = decode::<BTreeMap<String, Vec<(u8, Option<i64>, f64, char)>>>(&bytes);
            let _any = decode::<Vec<String>>(&bytes);
        }
    }

    #[test]
    fn a_length_that_claims_more_than_there_is_is_an_error() {
        for len in [u64::MAX, 1 << 40, 1 << 31, 9] {
            assert!(decode::<String>(&len.to_le_bytes()).is_err());
            assert!(decode::<Vec<u8>>(&len.to_le_bytes()).is_err());
            assert!(decode::<Vec<u64>>(&len.to_le_bytes()).is_err());
        }
    }

    #[test]
    fn what_cannot_be_encoded_leaves_nothing() {
        struct Refuses;
        impl Serialize for Refuses {
            fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
                Err(serde::ser::Error::custom("not this one"))
            }
        }
        let mut bytes = vec![1, 2];
        assert_eq!(
            encode(&(5u64, Refuses), &mut bytes).unwrap_err(),
            "not this one"
        );
        assert_eq!(bytes, [1, 2]);
    }
}
