//! What `map`, `imap`, `imap_unordered` and `apply` return: order, sizes, types.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{each_method, pool, within};
use multiprocess::Pool;
use std::collections::BTreeMap;

const MIB: usize = 1 << 20;

each_method!(map_keeps_the_order_of_the_input, |method| {
    let squares = pool(method, 3)
        .map(0..1000_u64, |number| number * number)
        .unwrap();
    assert_eq!(
        squares,
        (0..1000)
            .map(|number| number * number)
            .collect::<Vec<u64>>()
    );
});

/// So many numbers that their results have a room of their own.
const NUMBERS: u64 = 100_000;

each_method!(many_numbers_come_back_each_in_its_place, |method| {
    let pool = pool(method, 3);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let halves = pool.map(0..NUMBERS, |n| n as f32 / 2.0).unwrap();
            assert!(halves.into_iter().eq((0..NUMBERS).map(|n| n as f32 / 2.0)));
        });
        scope.spawn(|| {
            let words = (0..NUMBERS).map(|n| n.to_string());
            let lengths = pool.map(words, |word| word.len()).unwrap();
            assert!(
                lengths
                    .into_iter()
                    .eq((0..NUMBERS).map(|n| n.to_string().len()))
            );
        });
        scope.spawn(|| {
            let job = pool.job().chunk_size(7);
            let wide = job.map(0..NUMBERS, |n| -i128::from(n)).unwrap();
            assert!(wide.into_iter().eq((0..NUMBERS).map(|n| -i128::from(n))));
        });
    });
});

/// An input that says how long it is, and is as long as it likes.
struct Lies {
    numbers: std::ops::Range<u64>,
    said: usize,
}

impl Iterator for Lies {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.numbers.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let pulled = self.numbers.start as usize;
        let left = self.said.saturating_sub(pulled);
        (left, Some(left))
    }
}

each_method!(an_input_may_be_longer_or_shorter_than_it_says, |method| {
    let pool = pool(method, 2);
    for len in [0, 1, NUMBERS - 1, NUMBERS, NUMBERS + 1, 3 * NUMBERS] {
        let numbers = Lies {
            numbers: 0..len,
            said: NUMBERS as usize,
        };
        let results = pool.map(numbers, |n| n + 1).unwrap();
        assert!(results.into_iter().eq(1..=len), "{len} items");
    }
});

each_method!(numbers_come_back_though_workers_die_over_them, |method| {
    let folder = tempfile::tempdir().unwrap();
    let pool = pool(method, 2);
    let job = pool.with(folder.path().to_path_buf()).retries(3);
    let results = job.map(0..NUMBERS, |folder, n| {
        // Each of these dies once.
        if n % 20_000 == 7_777 && std::fs::create_dir(folder.join(n.to_string())).is_ok() {
            common::kill_hard(std::process::id());
        }
        n * 3
    });
    assert!(results.unwrap().into_iter().eq((0..NUMBERS).map(|n| n * 3)));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 5);
});

each_method!(a_map_that_fails_spoils_no_other_and_no_worker, |method| {
    let pool = pool(method, 3);
    let workers = pool.worker_pids();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..6 {
                let failed = pool.map(0..NUMBERS, |n| {
                    assert_ne!(n, 70_001);
                    n
                });
                let error = failed.unwrap_err();
                assert!(error.is_panic() && error.item() == Some(70_001));
            }
        });
        scope.spawn(|| {
            for _ in 0..6 {
                let results = pool.map(0..NUMBERS, |n| n * 3).unwrap();
                assert!(results.into_iter().eq((0..NUMBERS).map(|n| n * 3)));
            }
        });
    });
    assert_eq!(pool.worker_pids(), workers);
});

each_method!(imap_keeps_the_order_of_the_input, |method| {
    let pool = pool(method, 3);
    let squares: Vec<u64> = pool
        .imap(0..1000_u64, |number| number * number)
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        squares,
        (0..1000)
            .map(|number| number * number)
            .collect::<Vec<u64>>()
    );
});

each_method!(imap_unordered_names_every_item_once, |method| {
    let pool = pool(method, 3);
    let mut seen = vec![0; 1000];
    for (index, square) in pool.imap_unordered(0..1000_usize, |number| number * number) {
        assert_eq!(square.unwrap(), index * index);
        seen[index] += 1;
    }
    assert_eq!(seen, vec![1; 1000]);
});

each_method!(
    imap_unordered_gives_what_is_finished_while_the_first_item_runs,
    |method| {
        let gate = common::meet::Gate::new();
        let pool = pool(method, 2);
        let items = (0..8).map(|index| (index, gate.path()));
        let mut results = pool.job().chunk_size(1).imap_unordered(
            items,
            |(index, gate): (u32, std::path::PathBuf)| {
                if index == 0 {
                    common::meet::pass(&gate);
                }
                index * 2
            },
        );
        let (first, _) = results.next().unwrap();
        assert_ne!(first, 0, "item 0 waits at the gate");
        gate.let_through(1);
        let rest: BTreeMap<usize, u32> = results
            .map(|(index, result)| (index, result.unwrap()))
            .collect();
        assert_eq!(rest.len(), 7);
        assert_eq!(rest[&0], 0);
    }
);

each_method!(apply_returns_what_the_function_returned, |method| {
    let pool = pool(method, 2);
    assert_eq!(
        pool.apply((3, "ab".to_owned()), |(times, text): (usize, String)| text
            .repeat(times))
            .unwrap(),
        "ababab"
    );
    assert_eq!(pool.apply((), |()| 7_u8).unwrap(), 7);
});

each_method!(a_thousand_applies_are_each_answered, |method| {
    let pool = pool(method, 2);
    for number in 0..1000_u32 {
        assert_eq!(pool.apply(number, |number| number + 1).unwrap(), number + 1);
    }
});

each_method!(the_function_runs_in_the_workers_and_not_here, |method| {
    let pool = pool(method, 2);
    let workers = pool.worker_pids();
    assert_eq!((pool.workers(), workers.len()), (2, 2));
    assert!(!workers.contains(&std::process::id()));
    let pids = pool.map(0..100, |_: u32| std::process::id()).unwrap();
    assert!(
        pids.iter().all(|pid| workers.contains(pid)),
        "{pids:?} {workers:?}"
    );
});

each_method!(both_workers_work, |method| {
    let ear = &mut common::meet::Ear::new();
    let gate = common::meet::Gate::new();
    let pool = pool(method, 2);
    let where_to = (ear.path(), gate.path());
    std::thread::scope(|scope| {
        // Neither item ends before both have begun.
        let mapping = scope.spawn(|| {
            pool.with(where_to)
                .chunk_size(1)
                .map(0..2, |(ear, gate), _: u32| {
                    common::meet::say(ear, std::process::id());
                    common::meet::pass(gate);
                })
        });
        let mut begun = [ear.hear_number(), ear.hear_number()];
        begun.sort_unstable();
        let mut workers = pool.worker_pids();
        workers.sort_unstable();
        assert_eq!(begun.to_vec(), workers);
        gate.let_through(2);
        assert_eq!(mapping.join().unwrap().unwrap(), [(), ()]);
    });
});

each_method!(no_items_give_no_results, |method| {
    let pool = pool(method, 2);
    let nothing: [String; 0] = [];
    assert_eq!(pool.map(nothing.clone(), |text| text.len()).unwrap(), []);
    assert!(
        pool.imap(nothing.clone(), |text| text.len())
            .next()
            .is_none()
    );
    assert!(
        pool.imap_unordered(nothing, |text| text.len())
            .next()
            .is_none()
    );
    common::assert_serves(&pool);
});

each_method!(an_ended_imap_stays_ended, |method| {
    let pool = pool(method, 2);
    let mut results = pool.imap([1_u8], |number| number);
    assert_eq!(results.next().unwrap().unwrap(), 1);
    assert!(results.next().is_none());
    assert!(results.next().is_none());
});

each_method!(one_item_gives_one_result, |method| {
    let pool = pool(method, 2);
    assert_eq!(pool.map([41], |number: i32| number + 1).unwrap(), [42]);
    assert_eq!(
        pool.imap([41], |number: i32| number + 1)
            .next()
            .unwrap()
            .unwrap(),
        42
    );
    let (index, result) = pool
        .imap_unordered([41], |number: i32| number + 1)
        .next()
        .unwrap();
    assert_eq!((index, result.unwrap()), (0, 42));
});

each_method!(a_hundred_thousand_items_come_back_in_order, |method| {
    let results = pool(method, 2)
        .map(0..100_000_u32, |number| !number)
        .unwrap();
    assert_eq!(results.len(), 100_000);
    assert!(
        results
            .iter()
            .zip(0..)
            .all(|(result, number)| *result == !number)
    );
});

each_method!(items_of_64_mib_travel_both_ways, |method| {
    let pool = pool(method, 2);
    let items = (0..3_u8).map(|fill| vec![fill; 64 * MIB]);
    let results = pool.imap(items, |mut bytes| {
        bytes.reverse();
        bytes[0] = 99;
        bytes
    });
    let mut count = 0;
    for (fill, result) in results.enumerate() {
        let bytes = result.unwrap();
        assert_eq!((bytes.len(), bytes[0]), (64 * MIB, 99));
        assert!(bytes[1..] == vec![u8::try_from(fill).unwrap(); 64 * MIB - 1]);
        count += 1;
    }
    assert_eq!(count, 3);
});

each_method!(items_of_mixed_sizes_keep_their_order, |method| {
    let sizes = [
        0,
        5 * MIB,
        1,
        4096,
        4095,
        70_000,
        0,
        3 * MIB,
        65_536,
        65_535,
        17,
        2 * MIB + 1,
        1,
    ];
    let sizes: Vec<usize> = sizes.iter().copied().cycle().take(65).collect();
    let items = sizes
        .iter()
        .enumerate()
        .map(|(index, &size)| vec![index as u8; size]);
    let results = pool(method, 2).map(items, |bytes| bytes).unwrap();
    assert_eq!(results.len(), sizes.len());
    for (index, (bytes, size)) in results.into_iter().zip(sizes).enumerate() {
        assert!(bytes == vec![index as u8; size], "item {index}");
    }
});

each_method!(small_arguments_give_large_results, |method| {
    let results = pool(method, 2)
        .map(0..40_u8, |fill| vec![fill; MIB])
        .unwrap();
    assert_eq!(results.len(), 40);
    assert!(
        results
            .iter()
            .zip(0..)
            .all(|(bytes, fill)| *bytes == vec![fill; MIB])
    );
});

each_method!(large_arguments_give_small_results, |method| {
    let items = (0..40_u8).map(|fill| vec![fill; MIB]);
    let results = pool(method, 2)
        .map(items, |bytes| {
            bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>()
        })
        .unwrap();
    assert_eq!(
        results,
        (0..40).map(|fill| fill * MIB as u64).collect::<Vec<u64>>()
    );
});

#[test]
fn a_pool_of_its_own_choice_has_a_worker_for_each_processor() {
    within(common::LIMIT, || {
        let pool = Pool::new().unwrap();
        assert!(pool.workers() >= 1);
        assert!(pool.workers() <= std::thread::available_parallelism().unwrap().get());
        common::assert_serves(&pool);
    });
}

#[test]
fn a_pool_without_workers_is_refused() {
    within(common::LIMIT, || {
        let refused = Pool::builder().workers(0).build();
        assert!(refused.is_err(), "no worker would ever serve it");
        let refused = Pool::builder().workers(1).max_tasks_per_worker(0).build();
        assert!(refused.is_err(), "none would ever do anything");
    });
}
