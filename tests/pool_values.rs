//! Two workers, eight items, and the value of item 3 misbehaves: it cannot be encoded or decoded, or panics while it is.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::fault::{self, fault_row};
use common::meet::{Log, note};
use common::{assert_serves, each_method_alone, kill_hard, pool};
use multiprocess::{Imap, Pool, Portable, StartMethod, TaskError, TaskErrorKind};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// A number that misbehaves in one way when it is 3.
macro_rules! fussy {
    ($name:ident, encode: $encode:expr, decode: $decode:expr) => {
        #[derive(Debug, PartialEq)]
        struct $name(u32);

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let refuse: fn() -> Option<&'static str> = $encode;
                match refuse() {
                    Some(why) if self.0 == 3 => {
                        fault::strike();
                        Err(S::Error::custom(why))
                    }
                    _ => self.0.serialize(serializer),
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let number = u32::deserialize(deserializer)?;
                let refuse: fn(u32) -> Option<&'static str> = $decode;
                match refuse(number) {
                    Some(why) => {
                        fault::strike();
                        Err(D::Error::custom(why))
                    }
                    None => Ok($name(number)),
                }
            }
        }
    };
}

fussy!(EncodesNot, encode: || Some("it is a secret"), decode: |_| None);
fussy!(DecodesNot, encode: || None, decode: |number| (number == 3).then_some("it is illegible"));
fussy!(DecodesWithPanic, encode: || None, decode: |number| if number == 3 { fault::strike(); panic!("panics while decoded") } else { None });
fussy!(DecodesWithDeath, encode: || None, decode: |number| {
    if number == 3 {
        fault::strike();
        kill_hard(std::process::id());
    }
    None
});

/// As the above, but only item 3 may run the code that panics.
#[derive(Debug, PartialEq, Deserialize)]
struct EncodesWithPanic(u32);

impl Serialize for EncodesWithPanic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 == 3 {
            fault::strike();
            panic!("panics while encoded");
        }
        self.0.serialize(serializer)
    }
}

/// A number that kills the process which encodes it, when it is 3.
#[derive(Debug, PartialEq, Deserialize)]
struct EncodesWithDeath(u32);

impl Serialize for EncodesWithDeath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 == 3 {
            fault::strike();
            kill_hard(std::process::id());
        }
        self.0.serialize(serializer)
    }
}

/// What the row requires of all verbs; returns what item 3 came to.
fn row<R: Debug + PartialEq>(
    pool: &Pool,
    results: impl Iterator<Item = Result<R, TaskError>>,
    expected: impl Fn(u32) -> R,
) -> TaskError {
    let mut results: Vec<_> = results.inspect(fault::watch).collect();
    assert_eq!(results.len(), 8);
    let error = results.remove(3).unwrap_err();
    let others: Vec<R> = results.into_iter().map(Result::unwrap).collect();
    assert_eq!(others, [0, 1, 2, 4, 5, 6, 7].map(expected));
    assert_eq!(error.item(), Some(3));
    assert!(!error.is_timeout() && !error.is_cancelled());
    assert!(!error.to_string().contains('\n'), "one line: {error}");
    assert_serves(pool);
    error
}

/// Runs a row whose worker outlives it.
fn value_row<R: Debug + PartialEq + Portable>(
    method: StartMethod,
    run: impl for<'pool> Fn(&'pool Pool) -> Imap<'pool, R>,
    expected: impl Fn(u32) -> R,
) -> TaskError {
    let pool = pool(method, 2);
    let workers = pool.worker_pids();
    let error = row(&pool, run(&pool), expected);
    assert_eq!(
        pool.worker_pids(),
        workers,
        "no worker had to be replaced for {error}"
    );
    assert_eq!(error.exit_status(), None);
    error
}

fn assert_says(error: &TaskError, parts: &[&str]) {
    let text = error.to_string();
    assert!(
        parts.iter().all(|part| text.contains(part)),
        "{text:?} names {parts:?}"
    );
}

fault_row!(a_result_that_cannot_be_encoded_is_its_own_error, |method| {
    let error = value_row(
        method,
        |pool| pool.imap(0..8, |item: u32| EncodesNot(item)),
        EncodesNot,
    );
    assert_eq!(error.kind(), TaskErrorKind::ResultEncoding);
    assert_says(&error, &["EncodesNot", "it is a secret"]);
    assert!(error.pid().is_some());
});

fault_row!(a_result_that_cannot_be_decoded_is_its_own_error, |method| {
    let error = value_row(
        method,
        |pool| pool.imap(0..8, |item: u32| DecodesNot(item)),
        DecodesNot,
    );
    assert_eq!(error.kind(), TaskErrorKind::ResultDecoding);
    assert_says(&error, &["DecodesNot", "it is illegible"]);
});

fault_row!(
    an_argument_that_cannot_be_decoded_there_is_its_own_error,
    |method| {
        let items = || (0..8).map(DecodesNot);
        let error = value_row(
            method,
            |pool| pool.imap(items(), |item| item.0),
            |item| item,
        );
        assert_eq!(error.kind(), TaskErrorKind::ArgumentDecoding);
        assert_says(&error, &["DecodesNot", "it is illegible"]);
        assert!(error.pid().is_some());
    }
);

fault_row!(
    an_argument_that_cannot_be_encoded_here_is_its_own_error,
    |method| {
        let items = || (0..8).map(EncodesNot);
        let error = value_row(
            method,
            |pool| pool.imap(items(), |item| item.0),
            |item| item,
        );
        assert_eq!(error.kind(), TaskErrorKind::ArgumentEncoding);
        assert_says(&error, &["EncodesNot", "it is a secret"]);
    }
);

fault_row!(a_result_whose_encoding_panics_there_is_an_error, |method| {
    let error = value_row(
        method,
        |pool| pool.imap(0..8, |item: u32| EncodesWithPanic(item)),
        EncodesWithPanic,
    );
    assert!(
        matches!(
            error.kind(),
            TaskErrorKind::Panic | TaskErrorKind::ResultEncoding
        ),
        "{error:?}"
    );
    assert_says(&error, &["panics while encoded"]);
});

fault_row!(a_result_whose_decoding_panics_here_is_an_error, |method| {
    let error = value_row(
        method,
        |pool| pool.imap(0..8, |item: u32| DecodesWithPanic(item)),
        DecodesWithPanic,
    );
    assert!(
        matches!(
            error.kind(),
            TaskErrorKind::Panic | TaskErrorKind::ResultDecoding
        ),
        "{error:?}"
    );
    assert_says(&error, &["panics while decoded"]);
});

fault_row!(
    an_argument_whose_decoding_panics_there_is_an_error,
    |method| {
        let items = || (0..8).map(DecodesWithPanic);
        let error = value_row(
            method,
            |pool| pool.imap(items(), |item| item.0),
            |item| item,
        );
        assert!(
            matches!(
                error.kind(),
                TaskErrorKind::Panic | TaskErrorKind::ArgumentDecoding
            ),
            "{error:?}"
        );
        assert_says(&error, &["panics while decoded"]);
    }
);

each_method_alone!(
    an_argument_whose_encoding_panics_here_harms_nothing_else,
    |method| {
        let pool = pool(method, 2);
        let items = || (0..8).map(EncodesWithPanic);
        // The caller's own code panics in the caller's own thread: that may reach the caller, or be the item's error.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            pool.imap(items(), |item| item.0).collect::<Vec<_>>()
        }));
        match outcome {
            Ok(results) => {
                let error = row(&pool, results.into_iter(), |item| item);
                assert!(
                    matches!(
                        error.kind(),
                        TaskErrorKind::Panic | TaskErrorKind::ArgumentEncoding
                    ),
                    "{error:?}"
                );
            }
            Err(payload) => {
                assert!(payload.downcast_ref::<&str>() == Some(&"panics while encoded"))
            }
        }
        assert_serves(&pool);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            pool.apply(EncodesWithPanic(3), |item| item.0)
        }));
        assert!(!matches!(outcome, Ok(Ok(_))));
        assert_serves(&pool);
    }
);

fault_row!(
    an_argument_whose_decoding_kills_the_worker_is_a_crash,
    |method| {
        let pool = pool(method, 2);
        let error = row(
            &pool,
            pool.imap((0..8).map(DecodesWithDeath), |item| item.0),
            |item| item,
        );
        assert_eq!(error.kind(), TaskErrorKind::Crash);
        assert!(error.pid().is_some());
    }
);

fault_row!(
    a_result_whose_encoding_kills_the_worker_is_a_crash,
    |method| {
        let pool = pool(method, 2);
        let error = row(
            &pool,
            pool.imap(0..8, |item: u32| EncodesWithDeath(item)),
            EncodesWithDeath,
        );
        assert_eq!(error.kind(), TaskErrorKind::Crash);
        assert!(error.pid().is_some());
    }
);

each_method_alone!(
    a_result_whose_drop_panics_there_harms_nothing_else,
    |method| {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct DropsWithPanic(u32, u32);
        impl Drop for DropsWithPanic {
            fn drop(&mut self) {
                assert!(
                    self.0 != 3 || self.1 == std::process::id(),
                    "panics while dropped"
                );
            }
        }
        let pool = pool(method, 2);
        let items = || (0..8_u32).map(|item| (item, std::process::id()));
        let results: Vec<_> = pool
            .imap(items(), |(item, parent)| DropsWithPanic(item, parent))
            .collect();
        assert_eq!(results.len(), 8);
        // Item 3's value had been encoded by then, so it may arrive; the panic may also be its error.
        for (index, result) in results.into_iter().enumerate() {
            match result {
                Ok(value) => assert_eq!(value.0 as usize, index),
                Err(error) => {
                    assert_eq!(error.item(), Some(3));
                    assert!(
                        matches!(
                            error.kind(),
                            TaskErrorKind::Panic | TaskErrorKind::ResultEncoding
                        ),
                        "{error:?}"
                    );
                    assert_says(&error, &["panics while dropped"]);
                }
            }
        }
        assert_serves(&pool);
    }
);

fault_row!(
    the_other_items_of_a_chunk_with_a_bad_value_run_once,
    |method| {
        let log = Log::new();
        let pool = pool(method, 2);
        let job = |size| pool.with(log.path()).chunk_size(size);
        let results = job(8).imap((0..8).map(DecodesNot), |log: &PathBuf, item| {
            note(log, item.0);
            item.0
        });
        row(&pool, results, |item| item);
        let results = job(8).imap(0..8_u32, |log: &PathBuf, item| {
            note(log, item);
            EncodesNot(item)
        });
        row(&pool, results, EncodesNot);
        assert_eq!(
            log.notes(8),
            [2, 2, 2, 1, 2, 2, 2, 2],
            "item 3 ran only where it could be decoded"
        );
    }
);

each_method_alone!(map_and_apply_report_a_bad_value_as_imap_does, |method| {
    let pool = pool(method, 2);
    let kinds = [
        pool.map((0..8).map(EncodesNot), |item| item.0).unwrap_err(),
        pool.map((0..8).map(DecodesNot), |item| item.0).unwrap_err(),
        pool.map(0..8, |item: u32| EncodesNot(item)).unwrap_err(),
        pool.map(0..8, |item: u32| DecodesNot(item)).unwrap_err(),
    ]
    .map(|error| (error.kind(), error.item()));
    let expected = [
        TaskErrorKind::ArgumentEncoding,
        TaskErrorKind::ArgumentDecoding,
        TaskErrorKind::ResultEncoding,
        TaskErrorKind::ResultDecoding,
    ];
    assert_eq!(kinds, expected.map(|kind| (kind, Some(3))));
    let kinds = [
        pool.apply(EncodesNot(3), |item| item.0).unwrap_err(),
        pool.apply(DecodesNot(3), |item| item.0).unwrap_err(),
        pool.apply(3, |item: u32| EncodesNot(item)).unwrap_err(),
        pool.apply(3, |item: u32| DecodesNot(item)).unwrap_err(),
    ]
    .map(|error| error.kind());
    assert_eq!(kinds, expected);
    assert_serves(&pool);
});

/// Contains itself, and is made so deep that no stack can hold it; encoded without any.
#[derive(Debug)]
struct Deep(u32);

#[derive(Deserialize)]
struct Chain(Option<Box<Chain>>);

impl Serialize for Deep {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeTuple;
        let levels = usize::try_from(self.0).unwrap();
        let mut tuple = serializer.serialize_tuple(levels + 1)?;
        for _ in 0..levels {
            tuple.serialize_element(&1_u8)?;
        }
        tuple.serialize_element(&0_u8)?;
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Deep {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut chain = Chain::deserialize(deserializer)?;
        let mut levels = 0;
        while let Some(next) = chain.0 {
            chain = *next;
            levels += 1;
        }
        Ok(Deep(levels))
    }
}

each_method_alone!(
    a_value_that_is_nested_too_deeply_is_that_items_error,
    |method| {
        const TOO_DEEP: u32 = 8 << 20;
        let pool = pool(method, 2);
        assert_eq!(pool.apply(Deep(20), |deep| deep).unwrap().0, 20);
        let results = pool.imap([1, TOO_DEEP, 2], Deep);
        let kinds: Vec<_> = results
            .map(|result| result.map(|deep| deep.0).map_err(|e| e.kind()))
            .collect();
        assert_eq!(kinds, [Ok(1), Err(TaskErrorKind::ResultDecoding), Ok(2)]);
        let error = pool.apply(Deep(TOO_DEEP), |deep| deep.0).unwrap_err();
        assert_eq!(error.kind(), TaskErrorKind::ArgumentDecoding, "{error}");
        assert!(error.to_string().contains("nested"), "{error}");
        assert_serves(&pool);
    }
);
