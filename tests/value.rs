//! `Value`: each change is one step for all processes, whole or not at all.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use bytemuck::{Pod, Zeroable};
use common::census::{Census, descriptors};
use common::many::scaled;
use common::victim::{Random, Victim};
use common::{each_method, each_method_alone, pool};
use multiprocess::{Event, Process, Semaphore, StartMethod, Value};
use std::fs;
use std::time::Duration;

/// Larger than any word, and each part tells what the others must be.
type Block = [u64; 40];

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Reading {
    at: u32,
    value: f32,
}

#[test]
fn it_holds_what_was_set() {
    let value = Value::new(7_i8).unwrap();
    value.set(-1);
    assert_eq!((value.get(), value.swap(5), value.get()), (-1, -1, 5));
    let reading = Value::new(Reading { at: 1, value: 0.5 }).unwrap();
    let before = reading.update(|reading| Reading {
        value: -0.0,
        ..reading
    });
    assert_eq!(before, Reading { at: 1, value: 0.5 });
    assert_eq!(reading.get().at, 1);
    let large: Value<Block> = Value::new([3; 40]).unwrap();
    assert_eq!(large.swap([4; 40]), [3; 40]);
    assert_eq!(large.get(), [4; 40]);
    let wide = Value::new(u128::MAX).unwrap();
    assert_eq!((wide.fetch_add(2), wide.get()), (u128::MAX, 1));
    assert_eq!(format!("{wide:?}"), "Value(1)");
    assert!(serde_json::to_string(&wide).is_err());
    Value::new(()).unwrap().set(());
}

#[test]
fn numbers_wrap_around_and_their_neighbours_stay() {
    let (value, next) = (Value::new(250_u8).unwrap(), Value::new(1_u8).unwrap());
    assert_eq!(value.fetch_add(10), 250);
    assert_eq!((value.get(), next.get()), (4, 1));
    assert_eq!((value.fetch_sub(5), value.get()), (4, 255));
    let signed = Value::new(i64::MIN).unwrap();
    assert_eq!((signed.fetch_sub(1), signed.get()), (i64::MIN, i64::MAX));
    assert_eq!(
        (signed.fetch_min(-3), signed.fetch_max(2), signed.get()),
        (i64::MAX, -3, 2)
    );
}

#[test]
fn a_change_that_panics_changes_nothing() {
    let small = Value::new(1_u32).unwrap();
    let large: Value<Block> = Value::new([1; 40]).unwrap();
    let panics =
        |body: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_err();
    assert!(panics(&|| {
        small.update(|_| panic!("no"));
    }));
    assert!(panics(&|| {
        large.update(|_| panic!("no"));
    }));
    assert_eq!((small.get(), large.get()), (1, [1; 40]));
    // Nor does one wait for itself that uses the value in between; it is called again.
    let mut calls = 0;
    large.update(|_| {
        calls += 1;
        if calls == 1 {
            large.set([5; 40]);
        }
        [6; 40]
    });
    assert_eq!((calls, large.get()), (2, [6; 40]));
}

/// Each process does `rounds` increments of each kind.
fn increments(method: StartMethod, processes: u64, rounds: u64) {
    let updated = Value::new(0_u32).unwrap();
    let added = Value::new(0_u64).unwrap();
    let increment = |(updated, added, rounds): (Value<u32>, Value<u64>, u64)| {
        for _ in 0..rounds {
            updated.update(|value| value + 1);
            added.fetch_add(1);
        }
    };
    let all: Vec<Process> = (0..processes)
        .map(|_| {
            let shared = (updated.clone(), added.clone(), rounds);
            let builder = Process::builder().start_method(method);
            builder.spawn(shared, increment).unwrap()
        })
        .collect();
    for process in all {
        process.join().unwrap();
    }
    let sum = processes * rounds;
    assert_eq!((u64::from(updated.get()), added.get()), (sum, sum));
}

each_method_alone!(
    a_million_increments_of_each_of_two_processes_add_up,
    |method| {
        increments(method, 2, 1_000_000);
    }
);

each_method_alone!(
    a_million_increments_of_each_of_four_processes_add_up,
    |method| {
        increments(method, 4, 1_000_000);
    }
);

each_method_alone!(
    a_million_increments_of_each_of_sixteen_processes_add_up,
    common::LONG_LIMIT,
    |method| {
        increments(method, 16, 1_000_000);
    }
);

each_method_alone!(updates_of_a_large_value_add_up, |method| {
    let block: Value<Block> = Value::new([0; 40]).unwrap();
    let all: Vec<Process> = (0..4)
        .map(|_| {
            let update = |block: Value<Block>| {
                for _ in 0..5000 {
                    block.update(|block| block.map(|part| part + 1));
                }
            };
            Process::builder()
                .start_method(method)
                .spawn(block.clone(), update)
                .unwrap()
        })
        .collect();
    while block.get()[0] < 20_000 {
        let seen = block.get();
        assert_eq!(seen, [seen[0]; 40], "torn");
    }
    for process in all {
        process.join().unwrap();
    }
    assert_eq!(block.get(), [20_000; 40]);
});

each_method_alone!(
    ten_thousand_cost_a_few_descriptors_and_little_memory,
    |method| {
        let before = descriptors().len();
        let values: Vec<Value<u64>> = (0..10_000).map(|n| Value::new(n).unwrap()).collect();
        let events: Vec<Event> = (0..10_000).map(|_| Event::new().unwrap()).collect();
        let added = descriptors().len() - before;
        assert!(added <= 6, "{added} descriptors for 20,000 objects");
        let shared: u64 = fs::read_to_string("/proc/self/smaps_rollup")
            .unwrap()
            .lines()
            .find_map(|line| line.strip_prefix("Pss_Shmem:"))
            .map_or(0, |size| {
                size.trim().trim_end_matches(" kB").trim().parse().unwrap()
            });
        assert!(shared < 4096, "{shared} KiB");
        let pool = pool(method, 1);
        let (sum, added) = pool
            .apply(
                (values.clone(), events),
                |(values, events): (Vec<Value<u64>>, Vec<Event>)| {
                    events[9_999].set();
                    let segments = descriptors()
                        .values()
                        .filter(|name| name.contains("memfd:multiprocess "))
                        .count();
                    (
                        values.iter().map(|value| value.fetch_add(1)).sum::<u64>(),
                        segments,
                    )
                },
            )
            .unwrap();
        assert_eq!(sum, 49_995_000);
        assert!(added <= 10, "{added} descriptors in the worker");
        assert_eq!(values[9_999].get(), 10_000);
    }
);

each_method!(values_travel_one_by_one_and_are_the_same, |method| {
    let pool = pool(method, 2);
    let values: Vec<Value<u32>> = (0..500).map(|_| Value::new(0).unwrap()).collect();
    for _ in 0..3 {
        pool.map(values.clone(), |value: Value<u32>| {
            value.fetch_add(1);
        })
        .unwrap();
    }
    assert!(values.iter().all(|value| value.get() == 3));
    let made = pool
        .map(0..100_u32, |n| Value::new([n; 20]).unwrap())
        .unwrap();
    assert!(
        made.iter()
            .zip(0..)
            .all(|(value, n)| value.get() == [n; 20])
    );
    let wrong = pool.apply((), |()| Value::new(1_u64).unwrap());
    drop(wrong.unwrap());
});

fn alone(test: &str, body: fn()) {
    common::alone::in_own_process(test, common::LIMIT, body);
}

#[test]
fn what_is_dropped_leaves_nothing() {
    alone("what_is_dropped_leaves_nothing", || {
        let before = Census::now();
        for _ in 0..100 {
            let _values: Vec<Value<u16>> = (0..100).map(|n| Value::new(n).unwrap()).collect();
            let _large = Value::new([1_u64; 5000]).unwrap();
        }
        before.assert_nothing_added();
    });
}

#[test]
fn a_fork_shares_what_it_inherits_and_places_its_own_elsewhere() {
    let test = "a_fork_shares_what_it_inherits_and_places_its_own_elsewhere";
    alone(test, || {
        let shared = Value::new(1_u64).unwrap();
        let (go, done) = (Semaphore::new(0).unwrap(), Semaphore::new(0).unwrap());
        let child = Victim::new(|| {
            go.acquire();
            let own: Vec<Value<u64>> = (0..1000).map(|_| Value::new(u64::MAX).unwrap()).collect();
            shared.set(own.len() as u64);
            done.release().unwrap();
        });
        let ours: Vec<Value<u64>> = (0..1000).map(|_| Value::new(5).unwrap()).collect();
        go.release().unwrap();
        done.acquire();
        child.kill();
        assert_eq!(shared.get(), 1000);
        assert!(ours.iter().all(|value| value.get() == 5));
    });
}

#[test]
fn what_a_fork_has_inherited_is_not_used_again() {
    alone("what_a_fork_has_inherited_is_not_used_again", || {
        let (go, done) = (Semaphore::new(0).unwrap(), Semaphore::new(0).unwrap());
        let inherited = Value::new(1_u64).unwrap();
        let shared = (inherited.clone(), go.clone(), done.clone());
        // What moves into the body is dropped here, and lives on in the fork.
        let child = Victim::new(move || {
            let (inherited, go, done) = shared;
            go.acquire();
            inherited.set(99);
            done.release().unwrap();
        });
        drop(inherited);
        let fresh: Vec<Value<u64>> = (0..100).map(|_| Value::new(5).unwrap()).collect();
        go.release().unwrap();
        done.acquire();
        child.kill();
        assert!(fresh.iter().all(|value| value.get() == 5));
    });
}

#[test]
fn who_is_killed_in_the_middle_leaves_it_whole() {
    alone("who_is_killed_in_the_middle_leaves_it_whole", || {
        let block: Value<Block> = Value::new([0; 40]).unwrap();
        let begun = Semaphore::new(0).unwrap();
        let mut random = Random::new();
        for _ in 0..scaled(1000) {
            let victim = Victim::new(|| {
                begun.release().unwrap();
                loop {
                    block.update(|block| block.map(|part| part + 1));
                }
            });
            begun.acquire();
            random.pause(Duration::from_micros(100));
            victim.kill();
            let seen = block.update(|block| block.map(|part| part + 1));
            assert_eq!(seen, [seen[0]; 40], "torn");
        }
        assert!(block.get()[0] > 1000);
    });
}
