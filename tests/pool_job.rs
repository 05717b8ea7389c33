//! What a job adds to a pool's verbs: captures, encoded once and decoded once per worker, and the size of chunks.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::meet::{Log, note};
use common::{assert_serves, each_method, each_method_alone, kill_hard, pool};
use multiprocess::TaskErrorKind;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

each_method!(captures_reach_the_function_with_every_verb, |method| {
    let pool = pool(method, 2);
    let rates = HashMap::from([("EUR".to_owned(), 2_u64), ("USD".to_owned(), 3)]);
    let prices = [("EUR".to_owned(), 10_u64), ("USD".to_owned(), 20)];
    assert_eq!(
        pool.with(rates.clone())
            .map(prices.clone(), |rates, (unit, price)| rates[&unit] * price)
            .unwrap(),
        [20, 60]
    );
    let ordered = pool
        .with(rates.clone())
        .imap(prices.clone(), |rates, (unit, price)| rates[&unit] * price);
    assert_eq!(ordered.map(Result::unwrap).collect::<Vec<u64>>(), [20, 60]);
    let unordered = pool
        .with(rates.clone())
        .imap_unordered(prices.clone(), |rates, (unit, price)| rates[&unit] * price);
    let unordered: BTreeMap<usize, u64> = unordered
        .map(|(index, result)| (index, result.unwrap()))
        .collect();
    assert_eq!(unordered, BTreeMap::from([(0, 20), (1, 60)]));
    assert_eq!(
        pool.with(rates)
            .apply("USD".to_owned(), |rates, unit| rates[&unit])
            .unwrap(),
        3
    );
});

each_method!(a_job_without_captures_has_every_verb, |method| {
    let pool = pool(method, 2);
    assert_eq!(
        pool.job().map([1, 2], |number: u32| number + 1).unwrap(),
        [2, 3]
    );
    assert_eq!(
        pool.job()
            .imap([1, 2], |number: u32| number + 1)
            .map(Result::unwrap)
            .sum::<u32>(),
        5
    );
    assert_eq!(
        pool.job()
            .imap_unordered([1, 2], |number: u32| number + 1)
            .count(),
        2
    );
    assert_eq!(pool.job().apply(1, |number: u32| number + 1).unwrap(), 2);
});

each_method!(captures_of_one_job_are_not_those_of_the_next, |method| {
    let pool = pool(method, 2);
    for round in 0..100_u64 {
        let text = format!("round {round}");
        assert_eq!(
            pool.with(round)
                .map(0..10_u64, |round, item| round * 100 + item)
                .unwrap()[9],
            round * 100 + 9
        );
        assert_eq!(
            pool.with(text.clone())
                .map([()], |text, ()| text.clone())
                .unwrap(),
            [text]
        );
        assert_eq!(
            pool.with(()).map([round], |(), item| item).unwrap(),
            [round]
        );
    }
});

each_method!(
    jobs_with_captures_that_interleave_keep_their_own,
    |method| {
        let pool = pool(method, 2);
        let mut threes = pool.with(3_u32).imap(0..500_u32, |by, number| number * by);
        let mut words = pool
            .with("no. ".to_owned())
            .imap(0..500_u32, |word, number| format!("{word}{number}"));
        for number in 0..500 {
            assert_eq!(threes.next().unwrap().unwrap(), number * 3);
            assert_eq!(words.next().unwrap().unwrap(), format!("no. {number}"));
        }
    }
);

each_method!(captures_of_64_mib_reach_every_worker, |method| {
    let captured = vec![5_u8; 64 << 20];
    let sums = pool(method, 2)
        .with(captured)
        .chunk_size(1)
        .map(0..16_usize, |bytes, at| (bytes.len(), bytes[at]));
    assert_eq!(sums.unwrap(), [(64 << 20, 5); 16]);
});

static ENCODED: AtomicUsize = AtomicUsize::new(0);
static DECODED: AtomicUsize = AtomicUsize::new(0);

/// Counts, in each process, how often it is encoded and decoded there.
struct Counted(u32);

impl Serialize for Counted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ENCODED.fetch_add(1, Ordering::SeqCst);
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DECODED.fetch_add(1, Ordering::SeqCst);
        u32::deserialize(deserializer).map(Counted)
    }
}

each_method_alone!(
    captures_are_encoded_once_and_decoded_once_in_each_worker,
    |method| {
        let pool = pool(method, 2);
        for round in 1..=5 {
            let results =
                pool.with(Counted(9))
                    .chunk_size(1)
                    .map(0..200_u32, |captured, number| {
                        (
                            std::process::id(),
                            DECODED.load(Ordering::SeqCst),
                            captured.0 + number,
                        )
                    });
            for (number, (pid, decoded, sum)) in (0..).zip(results.unwrap()) {
                assert_eq!(sum, number + 9);
                // A worker may have had no item of an earlier job.
                assert!(
                    (1..=round).contains(&decoded),
                    "worker {pid} decoded {decoded} times in {round} jobs"
                );
            }
            assert_eq!(
                ENCODED.load(Ordering::SeqCst),
                round,
                "encoded for {round} jobs"
            );
        }
        assert_eq!(
            DECODED.load(Ordering::SeqCst),
            0,
            "the parent has no reason to decode them"
        );
    }
);

each_method_alone!(captures_reach_the_replacement_of_a_dead_worker, |method| {
    let pool = pool(method, 2);
    let results: Vec<_> = pool
        .with(Counted(9))
        .chunk_size(1)
        .imap(0..100_u32, |captured, number| {
            if number % 20 == 5 {
                kill_hard(std::process::id());
            }
            captured.0 + number
        })
        .collect();
    for (number, result) in (0..).zip(results) {
        match result {
            Ok(sum) => assert_eq!(sum, number + 9),
            Err(error) => assert_eq!((error.kind(), number % 20), (TaskErrorKind::Crash, 5)),
        }
    }
    assert_eq!(ENCODED.load(Ordering::SeqCst), 1);
    assert_serves(&pool);
});

each_method_alone!(
    captures_are_not_even_sent_for_a_job_without_items,
    |method| {
        let pool = pool(method, 2);
        let nothing: [u32; 0] = [];
        assert_eq!(
            pool.with(Counted(1))
                .map(nothing, |captured, number| captured.0 + number)
                .unwrap(),
            []
        );
        assert!(ENCODED.load(Ordering::SeqCst) <= 1);
        assert_serves(&pool);
    }
);

/// Decodes nowhere.
#[derive(Serialize)]
struct Undecodable(u8);

impl<'de> Deserialize<'de> for Undecodable {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("not in this life"))
    }
}

each_method!(
    captures_that_cannot_be_decoded_there_fail_every_item,
    |method| {
        let pool = pool(method, 2);
        let results: Vec<_> = pool
            .with(Undecodable(1))
            .imap(0..20_u32, |_, number| number)
            .collect();
        assert_eq!(results.len(), 20);
        for (index, result) in results.into_iter().enumerate() {
            let error = result.unwrap_err();
            assert_eq!(
                (error.kind(), error.item()),
                (TaskErrorKind::ArgumentDecoding, Some(index))
            );
        }
        assert_serves(&pool);
    }
);

/// Encodes nowhere.
#[derive(Deserialize)]
struct Unencodable(#[expect(dead_code, reason = "only its encoding is of interest")] u8);

impl Serialize for Unencodable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("cannot be put into words"))
    }
}

each_method!(
    captures_that_cannot_be_encoded_here_fail_the_job,
    |method| {
        let pool = pool(method, 2);
        let error = pool
            .with(Unencodable(1))
            .map(0..20_u32, |_, number| number)
            .unwrap_err();
        assert_eq!(error.kind(), TaskErrorKind::ArgumentEncoding);
        let error = pool
            .with(Unencodable(1))
            .apply(1_u32, |_, number| number)
            .unwrap_err();
        assert_eq!(error.kind(), TaskErrorKind::ArgumentEncoding);
        let mut results = pool
            .with(Unencodable(1))
            .imap(0..20_u32, |_, number| number);
        assert_eq!(
            results.next().unwrap().unwrap_err().kind(),
            TaskErrorKind::ArgumentEncoding
        );
        drop(results);
        assert_serves(&pool);
    }
);

each_method!(every_chunk_size_gives_the_same_results, |method| {
    let pool = pool(method, 2);
    let expected: Vec<u64> = (0..5000).map(|number| number + 1).collect();
    for size in [1, 2, 7, 1000, 4999, 5000, 5001, usize::MAX] {
        assert_eq!(
            pool.job()
                .chunk_size(size)
                .map(0..5000_u64, |number| number + 1)
                .unwrap(),
            expected,
            "chunks of {size}"
        );
        let lazily: Vec<u64> = pool
            .with(1)
            .chunk_size(size)
            .imap(0..5000_u64, |by, number| number + by)
            .map(Result::unwrap)
            .collect();
        assert_eq!(lazily, expected, "chunks of {size}");
    }
});

each_method!(chunks_of_one_run_every_item_once, |method| {
    let log = Log::new();
    let pool = pool(method, 2);
    let done = pool
        .with(log.path())
        .chunk_size(1)
        .map(0..500_u32, |log: &PathBuf, number| note(log, number));
    assert_eq!(done.unwrap().len(), 500);
    assert_eq!(log.notes(500), [1; 500]);
});

each_method!(large_chunks_run_every_item_once, |method| {
    let log = Log::new();
    let pool = pool(method, 2);
    let done = pool
        .with(log.path())
        .chunk_size(1000)
        .map(0..3500_u32, |log: &PathBuf, number| note(log, number));
    assert_eq!(done.unwrap().len(), 3500);
    assert_eq!(log.notes(3500), [1; 3500]);
});

each_method!(a_failure_inside_a_chunk_is_that_item_alone, |method| {
    let pool = pool(method, 2);
    let results: Vec<_> = pool
        .job()
        .chunk_size(100)
        .imap(0..300_usize, |number| match number {
            0 | 99 | 150 | 299 => panic!("item {number}"),
            _ => number,
        })
        .collect();
    let failed: Vec<usize> = results
        .iter()
        .filter_map(|result| result.as_ref().err()?.item())
        .collect();
    assert_eq!((results.len(), failed), (300, vec![0, 99, 150, 299]));
    assert!(
        results
            .iter()
            .enumerate()
            .all(|(index, result)| result.as_ref().map_or(true, |number| *number == index))
    );
});
