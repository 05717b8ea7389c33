//! `SharedSlice`: what every process reads is what was written once, in place, and nobody can change it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use bytemuck::{Pod, Zeroable};
use common::{LIMIT, census, each_method, each_method_alone, pool};
use multiprocess::{Process, SharedSlice};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::path::PathBuf;

#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
#[repr(C)]
struct Point {
    x: f64,
    y: f64,
}

#[derive(Serialize, Deserialize)]
struct Work {
    title: String,
    numbers: SharedSlice<u64>,
    points: Vec<SharedSlice<Point>>,
}

/// Where memory of ours is mapped in this process: the lines of `maps` that name it.
fn mappings() -> usize {
    mapped_in(std::process::id())
}

fn mapped_in(pid: u32) -> usize {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    maps.matches("memfd:multiprocess-slice").count()
}

#[test]
fn it_holds_what_it_was_made_of() {
    assert_eq!(*SharedSlice::from_slice(&[1_u8, 2]).unwrap(), [1, 2]);
    let many = SharedSlice::from_fn(100_001, |n| n as u64).unwrap();
    assert!(many.iter().copied().eq(0..100_001));
    let points = SharedSlice::from_fn(9, |n| Point {
        x: n as f64,
        y: 0.5,
    });
    assert_eq!(points.unwrap()[8], Point { x: 8.0, y: 0.5 });
    let large = SharedSlice::from_fn(3, |n| [n as u8; 100_000]).unwrap();
    assert_eq!(large[2], [2; 100_000]);
}

#[test]
fn a_file_is_its_bytes() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let numbers: Vec<u32> = (0..70_000).collect();
    file.write_all(bytemuck::cast_slice(&numbers)).unwrap();
    assert_eq!(
        *SharedSlice::<u32>::from_file(file.path()).unwrap(),
        *numbers
    );
    file.write_all(&[1]).unwrap();
    let odd = SharedSlice::<u32>::from_file(file.path()).unwrap_err();
    assert!(odd.to_string().contains("280001 bytes"), "{odd}");
    let missing = SharedSlice::<u32>::from_file(file.path().with_extension("none")).unwrap_err();
    assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
}

#[test]
fn a_foreign_serializer_is_refused() {
    let slice = SharedSlice::from_slice(&[1_u8]).unwrap();
    let error = serde_json::to_string(&slice).unwrap_err();
    assert!(error.to_string().contains("handle"), "{error}");
}

each_method_alone!(every_worker_reads_it_and_nothing_is_left, |method| {
    let numbers = SharedSlice::from_fn(1 << 20, |n| n as u64).unwrap();
    let pool = pool(method, 2);
    let sums = pool
        .with(numbers.clone())
        .map(0..64_usize, |numbers, part| {
            let size = numbers.len() / 64;
            numbers[part * size..][..size].iter().sum::<u64>()
        })
        .unwrap();
    assert_eq!(sums.iter().sum::<u64>(), numbers.iter().sum::<u64>());
});

each_method!(an_empty_one_travels, |method| {
    let none: SharedSlice<u64> = SharedSlice::from_slice(&[]).unwrap();
    let there = pool(method, 1).apply(none, |none| (none.len(), none.clone()));
    let (len, back) = there.unwrap();
    assert_eq!((len, &*back), (0, &[][..]));
});

each_method!(a_worker_makes_one_and_returns_it, |method| {
    let made = pool(method, 2)
        .map(0..10_u32, |n| {
            SharedSlice::from_fn(1000, |at| n + at as u32).unwrap()
        })
        .unwrap();
    for (slice, n) in made.iter().zip(0..) {
        assert!(slice.iter().copied().eq(n..n + 1000));
    }
});

each_method!(it_travels_in_a_struct_to_a_process_and_back, |method| {
    let work = Work {
        title: "sums".to_owned(),
        numbers: SharedSlice::from_fn(1000, |n| n as u64).unwrap(),
        points: vec![SharedSlice::from_slice(&[Point { x: 1.0, y: 2.0 }]).unwrap(); 3],
    };
    let process = Process::builder()
        .start_method(method)
        .spawn(work, |work: Work| {
            let sum: u64 = work.numbers.iter().sum();
            let points = work.points.iter().map(|points| points[0].y).sum::<f64>();
            (work.title, sum, points, work.numbers)
        });
    let (title, sum, points, numbers) = process.unwrap().join().unwrap();
    assert_eq!((title.as_str(), sum, points), ("sums", 499_500, 6.0));
    assert_eq!(numbers.len(), 1000);
});

each_method_alone!(a_process_maps_it_once_however_often_it_comes, |method| {
    let slice = SharedSlice::from_slice(&[1_u8; 5000]).unwrap();
    let pool = pool(method, 1);
    let held = vec![slice.clone(); 10];
    let (in_one_message, address, again) = pool
        .apply(
            (slice.clone(), held),
            |(slice, held): (SharedSlice<u8>, Vec<SharedSlice<u8>>)| {
                // Kept until the worker ends, so that it comes a second time while it is there.
                std::mem::forget(slice.clone());
                (mappings(), slice.as_ptr() as usize, held)
            },
        )
        .unwrap();
    assert_eq!(in_one_message, 1);
    assert_eq!(mappings(), 1, "it came back to where it was made");
    let second = pool.apply(again, |again| (mappings(), again[0].as_ptr() as usize));
    assert_eq!(second.unwrap(), (1, address));
});

each_method_alone!(it_lives_on_when_who_made_it_is_killed, |method| {
    let pool = pool(method, 1);
    let slice = pool
        .apply((), |()| {
            SharedSlice::from_fn(100_000, |n| n as u32).unwrap()
        })
        .unwrap();
    common::kill_hard(pool.worker_pids()[0]);
    drop(pool);
    assert!(slice.iter().copied().eq(0..100_000));
});

/// How many slices a process has open.
fn open_in(pid: u32) -> usize {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let targets = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let is_ours = |target: &PathBuf| target.to_string_lossy().contains("multiprocess-slice");
    targets.filter(is_ours).count()
}

each_method_alone!(an_idle_worker_keeps_none_that_nobody_uses, |method| {
    let pool = pool(method, 1);
    let slices: Vec<_> = (0..20)
        .map(|n| SharedSlice::from_slice(&[n; 100]).unwrap())
        .collect();
    for _ in 0..50 {
        for (slice, n) in slices.iter().zip(0..) {
            for _ in 0..2 {
                assert_eq!(pool.apply(slice.clone(), |slice| slice[99]).unwrap(), n);
            }
        }
    }
    let worker = pool.worker_pids()[0];
    let count = || (open_in(worker), mapped_in(worker));
    assert_eq!(census::poll(LIMIT, count, |left| *left == (0, 0)), (0, 0));
    // What is used there is another matter.
    let kept = slices[3].clone();
    pool.apply(kept, std::mem::forget).unwrap();
    drop(slices);
    assert_eq!(pool.apply((), |()| mappings()).unwrap(), 1);
    assert_eq!(open_in(worker), 1);
});

/// Drops it, and says how many are mapped then.
fn drop_there(slice: SharedSlice<u64>) -> usize {
    drop(slice);
    mappings()
}

each_method_alone!(it_stays_mapped_for_the_next_call, |method| {
    let pool = pool(method, 1);
    let slice = SharedSlice::from_fn(1 << 18, |n| n as u64).unwrap();
    for _ in 0..20 {
        let mapped = pool.apply(slice.clone(), drop_there).unwrap();
        assert_eq!(
            mapped, 1,
            "its descriptor is kept, and so is what it is mapped by"
        );
    }
    // Others that are dropped as well: each stays a little, and never many.
    let others: Vec<_> = (0..20)
        .map(|n| SharedSlice::from_slice(&[n]).unwrap())
        .collect();
    for other in others.iter().cycle().take(100) {
        let mapped = pool.apply(other.clone(), drop_there).unwrap();
        assert!((1..=8).contains(&mapped), "{mapped}");
    }
    // A worker that goes on without them has none, though it may never sleep for long.
    for _ in 0..10 {
        pool.apply((), |()| ()).unwrap();
    }
    assert_eq!(pool.apply((), |()| mappings()).unwrap(), 0);
    assert_eq!(open_in(pool.worker_pids()[0]), 0);
    // One that sleeps has none either.
    let mapped = pool.apply(slice, drop_there).unwrap();
    assert_eq!(mapped, 1);
    let worker = pool.worker_pids()[0];
    let count = || (open_in(worker), mapped_in(worker));
    assert_eq!(census::poll(LIMIT, count, |left| *left == (0, 0)), (0, 0));
});
