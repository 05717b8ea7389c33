//! Any bytes as a value of the types that travel: either they are none, or what they are can be encoded and decoded again.

use crate::fuzzing::bytes::Bytes;
use crate::task::{Closure, Portable};
use crate::wire::value::{pack, unpack};
use crate::{StartMethod, TaskError, TaskErrorKind};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, LinkedList, VecDeque};
use std::ffi::{CString, OsString};
use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, Wrapping};
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// A type of a user's that has all that serde knows.
#[derive(Debug, Serialize, Deserialize)]
enum Shape {
    Unit,
    Newtype(Box<Shape>),
    Tuple(u8, Option<String>),
    Struct { name: String, children: Vec<Shape> },
}

/// A type that goes as deep as the bytes say.
#[derive(Debug, Serialize, Deserialize)]
struct Nested(Option<Box<Nested>>);

fn encoded<T: Portable>(value: &T) -> Option<Vec<u8>> {
    let mut out = vec![1];
    pack(value, &mut out).ok()?;
    Some(out.split_off(1))
}

/// Whether the bytes are a value, of which the encoding is always the same, or of the same length.
fn of_type<T: Portable>(bytes: &[u8], is_ordered: bool) {
    let value = match unpack::<T>(bytes, Vec::new()) {
        Ok(value) => value,
        Err(why) => {
            assert!(!why.is_empty());
            return;
        }
    };
    // Some values exist that cannot be encoded, such as a time before 1970.
    let Some(once) = encoded(&value) else { return };
    let again = unpack::<T>(&once, Vec::new()).unwrap();
    let twice = encoded(&again).unwrap();
    assert_eq!(once.len(), twice.len());
    assert!(!is_ordered || once == twice, "another value came back");
}

macro_rules! types {
    ($number:expr, $bytes:expr, $is_ordered:literal: $($kind:ty),* $(,)?) => {{
        let all: &[fn(&[u8])] = &[$(|bytes| of_type::<$kind>(bytes, $is_ordered)),*];
        all[$number % all.len()]($bytes);
    }};
}

/// Decodes any bytes as a value of one of the types that travel.
pub fn codec(input: &[u8]) {
    let mut bytes = Bytes::new(input);
    let number = usize::from(bytes.byte());
    let bytes = bytes.rest();
    if number >= 192 {
        types!(number, bytes, false: HashMap<String, u32>, HashSet<u16>, HashMap<u8, Vec<String>>);
        return;
    }
    types!(number, bytes, true:
        (), bool, char, u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64, String,
        Vec<u8>, Vec<u16>, Vec<u64>, Vec<u128>, Vec<f32>, Vec<f64>, Vec<i128>, Vec<usize>, Vec<bool>, Vec<char>, Vec<()>,
        Vec<String>, Vec<Vec<u8>>, Vec<Vec<()>>, Option<u8>, Option<Option<String>>, Box<str>, Box<[u32]>,
        Result<u64, String>, (u8, String, f64), [u16; 5], [String; 2], BTreeMap<String, Vec<(u8, Option<i64>)>>,
        BTreeSet<i16>, VecDeque<u32>, LinkedList<String>, Duration, SystemTime, PathBuf, OsString, CString, IpAddr,
        SocketAddr, NonZeroU32, Wrapping<i32>, Range<u64>, std::cell::RefCell<u8>, std::borrow::Cow<'static, str>,
        std::marker::PhantomData<u8>, Shape, Vec<Shape>, Nested, (Vec<u8>, Nested), StartMethod, TaskError,
        TaskErrorKind, Result<Vec<u8>, TaskError>, Closure<u32, u32>, Vec<Closure<String, usize>>,
    );
}
