//! The dispatcher under random schedules of work, deaths, time limits and cancelling: every item has exactly one outcome,
//! nobody idles while items wait, and deadlines are kept. A failing schedule is printed, and the seed, which can be given.

use super::world::{Step, World, run_schedule};
use super::{Dispatcher, Terms};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => (0..4usize).prop_map(Step::Begin),
        30 => (0..4usize, prop_oneof![Just(1u64), Just(1_000), Just(10_000_000)])
            .prop_map(|(worker, nanos)| Step::Tell(worker, nanos)),
        3 => (0..4usize).prop_map(Step::Die),
        3 => (0..4usize).prop_map(Step::Start),
        10 => Just(Step::Submit),
        2 => (0..300usize, prop::option::of(1..10usize), prop::option::of(1..2_000_000_000u64), 0..3u32)
            .prop_map(|(items, piece, limit, retries)| Step::Open(items, piece, limit, retries)),
        10 => prop_oneof![1..100_000u64, 1..3_000_000_000u64].prop_map(Step::Pass),
        3 => (1..6u64, 0..100usize).prop_map(|(job, item)| Step::Cancel(job, item)),
        1 => (1..6u64).prop_map(Step::Close),
    ]
}

/// How many schedules are tried in a run, if `MULTIPROCESS_TEST_SCHEDULES` says nothing else.
const SCHEDULES: u32 = 2000;

#[test]
fn every_item_has_exactly_one_outcome_nobody_idles_and_deadlines_are_kept() {
    let given = std::env::var("MULTIPROCESS_TEST_SEED").ok();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = given.map_or_else(
        || now.unwrap_or_default().as_nanos() as u64,
        |seed| seed.parse().unwrap(),
    );
    let schedules_wanted = std::env::var("MULTIPROCESS_TEST_SCHEDULES").ok();
    let schedules_wanted = schedules_wanted.map(|count| count.parse().unwrap());
    println!("MULTIPROCESS_TEST_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = ProptestConfig {
        cases: schedules_wanted.unwrap_or(SCHEDULES),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let schedules = (
        1..4usize,
        prop::option::of(1..20usize),
        prop::collection::vec(step(), 0..400),
    );
    let outcome =
        TestRunner::new_with_rng(config, rng).run(&schedules, |(workers, items_max, steps)| {
            run_schedule(workers, items_max, steps);
            Ok(())
        });
    if let Err(failure) = outcome {
        panic!("MULTIPROCESS_TEST_SEED={seed}: {failure}");
    }
}

#[test]
fn a_slow_item_does_not_hold_up_those_behind_it() {
    let mut world = World::new(2, None);
    world.open(40, Some(20));
    world.submit();
    world.feed();
    world.submit();
    world.feed();
    // One worker is stuck in its first item; the other ends up with all the rest.
    world.begin(0);
    for _ in 0..2_000 {
        world.begin(1);
        world.tell(1, 1_000_000);
        world.submit();
        world.feed();
    }
    assert_eq!(world.outcomes.len(), 39);
}

#[test]
fn an_item_whose_worker_always_dies_before_it_begins_is_charged_in_the_end() {
    let mut world = World::new(1, None);
    world.open(2, Some(1));
    let mut deaths = 0;
    while world.outcomes.len() < 2 {
        world.submit();
        world.feed();
        world.die(0);
        world.start(0);
        deaths += 1;
        assert!(deaths < 100);
    }
}

#[test]
fn a_worker_lacks_items_only_while_it_would_be_given_some() {
    let mut dispatcher = Dispatcher::new(2);
    assert!(!dispatcher.lacks_items(), "none is there");
    dispatcher.up(0);
    assert!(dispatcher.lacks_items());
    let job = dispatcher.open(Terms::default());
    dispatcher.submit(job, 0, 0, 2);
    dispatcher.feed(&mut Vec::new());
    assert!(!dispatcher.lacks_items());
    // What it passes over comes first, however long that takes: nothing is sent before.
    dispatcher.revoked(0, 1);
    assert_eq!(
        dispatcher.finished(0, 1, 1).map(|piece| piece.count),
        Some(1)
    );
    assert!(!dispatcher.lacks_items());
    assert!(dispatcher.skipped(0, 1));
    dispatcher.close(job, &mut Vec::new());
    assert!(dispatcher.lacks_items());
}

#[test]
fn what_is_pulled_ahead_is_bounded_however_little_an_item_takes() {
    let mut dispatcher = Dispatcher::new(2);
    dispatcher.up(0);
    dispatcher.up(1);
    let job = dispatcher.open(Terms::default());
    for round in 0..100 {
        dispatcher.submit(job, round as u64, round, 1);
        dispatcher.feed(&mut Vec::new());
        let worker = usize::from(dispatcher.items_with(0) == 0);
        assert!(dispatcher.finished(worker, 1, 0).is_some());
    }
    let enough = dispatcher.enough_items(job);
    assert!(enough > 100_000 && enough <= 1_000_000, "{enough} items");
}
