//! The dispatcher under random schedules of work, deaths, time limits and cancelling: every item has exactly one outcome,
//! nobody idles while items wait, and deadlines are kept. A failing schedule is printed, and the seed, which can be given.

use super::share::LATE_NANOS;
use super::world::{Step, World, run_schedule};
use super::{Action, Dispatcher, Fate, First, JobId, Overdue, Terms};
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
        2 => (0..4usize).prop_map(Step::Take),
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

/// A worker that was sent the first of `count` items at 1000, each of which may take 100.
fn at_an_item_with_a_limit(count: usize) -> (Dispatcher, JobId) {
    let mut dispatcher = Dispatcher::new(1);
    dispatcher.up(0);
    dispatcher.tick(1000);
    let job = dispatcher.open(Terms {
        piece_items: Some(1),
        limit_nanos: Some(100),
        ..Terms::default()
    });
    dispatcher.submit(job, 0, 0, count);
    dispatcher.feed(&mut Vec::new());
    (dispatcher, job)
}

#[test]
fn an_item_that_began_while_nobody_looked_has_its_limit_and_no_more() {
    let (mut dispatcher, _) = at_an_item_with_a_limit(3);
    assert_eq!(dispatcher.next_deadline(), Some(1100));
    // The first item ends and the second begins at 1050, which is heard of when the first one's time would be up.
    dispatcher.tick(1100);
    assert!(dispatcher.finished(0, 1, 50).is_some());
    assert_eq!(dispatcher.overdue(|_, _| First::Begun(1050)), None);
    assert_eq!(dispatcher.next_deadline(), Some(1150));
    dispatcher.tick(1149);
    assert_eq!(dispatcher.overdue(|_, _| First::Begun(1050)), None);
    dispatcher.tick(1150);
    assert_eq!(
        dispatcher.overdue(|_, _| First::Begun(1050)),
        Some((0, Overdue::Item))
    );
    // What is heard of too late for both: the second one's time is up at once.
    let (mut dispatcher, _) = at_an_item_with_a_limit(3);
    dispatcher.tick(1200);
    assert!(dispatcher.finished(0, 1, 50).is_some());
    assert_eq!(
        dispatcher.overdue(|_, _| First::Begun(1050)),
        Some((0, Overdue::Item))
    );
}

#[test]
fn nobody_is_judged_by_what_was_not_taken_in_and_is_looked_at_again_at_once() {
    let (mut dispatcher, _) = at_an_item_with_a_limit(2);
    dispatcher.tick(5000);
    assert_eq!(dispatcher.overdue(|_, _| First::Unheard), None);
    assert_eq!(dispatcher.next_deadline(), Some(5000));
    // When it is heard that it is done, the next one has its own time.
    assert!(dispatcher.finished(0, 1, 50).is_some());
    assert_eq!(dispatcher.overdue(|_, _| First::Begun(4950)), None);
    assert_eq!(dispatcher.next_deadline(), Some(5050));
}

#[test]
fn an_item_over_which_workers_are_stuck_again_and_again_is_charged() {
    let mut dispatcher = Dispatcher::new(1);
    let job = dispatcher.open(Terms {
        piece_items: Some(2),
        limit_nanos: Some(100),
        ..Terms::default()
    });
    dispatcher.submit(job, 0, 0, 2);
    for _ in 0..3 {
        dispatcher.up(0);
        dispatcher.feed(&mut Vec::new());
        assert!(!dispatcher.stuck(0));
        dispatcher.revoked(0, 2);
        assert_eq!(dispatcher.died(0, Fate::Between), None);
    }
    dispatcher.up(0);
    dispatcher.feed(&mut Vec::new());
    assert!(dispatcher.stuck(0));
    let charged = dispatcher.died(0, Fate::Between).unwrap();
    assert_eq!((charged.item, charged.count), (0, 1));
}

#[test]
fn an_item_has_its_limit_though_its_job_was_closed() {
    let (mut dispatcher, job) = at_an_item_with_a_limit(1);
    dispatcher.close(job, &mut Vec::new());
    assert!(dispatcher.has_limits());
    assert_eq!(dispatcher.next_deadline(), Some(1100));
    dispatcher.tick(1100);
    let overdue = dispatcher.overdue(|_, _| First::Begun(1000));
    assert_eq!(overdue, Some((0, Overdue::Item)));
    assert!(dispatcher.died(0, Fate::KilledAt(0)).is_some());
    assert!(!dispatcher.has_limits());
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
    assert_eq!(
        dispatcher.busy_workers(),
        1,
        "passing over takes a processor too"
    );
    assert!(dispatcher.skipped(0, 1));
    assert_eq!(dispatcher.busy_workers(), 0);
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

#[test]
fn what_is_left_of_short_items_is_few_pieces() {
    let mut dispatcher = Dispatcher::new(2);
    (0..2).for_each(|worker| dispatcher.up(worker));
    let job = dispatcher.open(Terms {
        function: 1,
        ..Terms::default()
    });
    let mut actions = Vec::new();
    let mut submit = |dispatcher: &mut Dispatcher, item, count| {
        dispatcher.complete(job, false);
        dispatcher.submit(job, item as u64, item, count);
        dispatcher.complete(job, true);
        dispatcher.feed(&mut actions);
        std::mem::take(&mut actions)
    };
    // An item takes 50 ns, and both workers have two pieces.
    submit(&mut dispatcher, 0, 1);
    assert!(dispatcher.finished(0, 1, 50).is_some());
    for item in 1..5 {
        assert_eq!(submit(&mut dispatcher, item, 1).len(), 1);
    }
    assert!(!dispatcher.lacks_pieces());
    let (mut sent, mut messages, mut item) = (0, 0, 5);
    for count in [10, 10, 30, 100, 300, 1000, 1000] {
        for action in submit(&mut dispatcher, item, count) {
            let Action::Send { piece, .. } = action else {
                panic!("{action:?}");
            };
            sent += piece.count;
            messages += 1;
        }
        item += count;
    }
    assert_eq!(sent, 2450);
    assert!(messages <= 30, "{messages} messages");
}

/// Two workers and a job whose items took 50 ns, of which nothing is left.
fn quick() -> (Dispatcher, JobId) {
    let mut dispatcher = Dispatcher::new(2);
    (0..2).for_each(|worker| dispatcher.up(worker));
    let job = dispatcher.open(Terms {
        is_collected: true,
        ..Terms::default()
    });
    dispatcher.submit(job, 0, 0, 1);
    dispatcher.feed(&mut Vec::new());
    assert!(dispatcher.finished(0, 1, 50).is_some());
    (dispatcher, job)
}

#[test]
fn who_is_handy_is_sent_what_takes_no_longer_than_to_wake_another() {
    let (mut dispatcher, job) = quick();
    let mut actions = Vec::new();
    let held = |dispatcher: &Dispatcher| [0, 1].map(|worker| dispatcher.items_with(worker));
    // Two that may wait for each other.
    for item in 1..3 {
        dispatcher.submit(job, item as u64, item, 1);
    }
    dispatcher.feed_handy(|worker| worker == 1, &mut actions);
    assert_eq!(held(&dispatcher), [0, 0]);
    dispatcher.feed(&mut actions);
    assert_eq!(held(&dispatcher), [1, 1]);
    for worker in 0..2 {
        assert!(dispatcher.finished(worker, 1, 50).is_some());
    }
    // Batches come one by one, as long as there is none ready.
    let mut submit = |dispatcher: &mut Dispatcher, batch: usize| {
        dispatcher.submit(job, batch as u64, 250 * batch, 250);
        actions.clear();
        dispatcher.feed_handy(|worker| worker == 1, &mut actions);
        dispatcher.feed(&mut actions);
        let is_sent = |action: &Action| matches!(action, Action::Send { .. });
        assert!(actions.iter().all(is_sent), "{actions:?}");
        held(dispatcher)
    };
    // A batch takes 12.5 us.
    assert_eq!(submit(&mut dispatcher, 3), [0, 250]);
    assert_eq!(submit(&mut dispatcher, 4), [0, 500]);
    assert_eq!(submit(&mut dispatcher, 5), [250, 500]);
    // The last one is no more pieces for being the last.
    for (worker, count) in [(0, 250), (1, 250), (1, 250)] {
        assert!(
            dispatcher
                .finished(worker, count, 50 * count as u64)
                .is_some()
        );
    }
    dispatcher.complete(job, true);
    assert_eq!(submit(&mut dispatcher, 6), [0, 250]);
    assert_eq!(actions.len(), 1);
}

#[test]
fn what_turns_out_to_be_slow_is_taken_over_however_little_was_expected() {
    let (mut dispatcher, job) = quick();
    let mut actions = Vec::new();
    dispatcher.submit(job, 1, 1, 100);
    dispatcher.complete(job, true);
    actions.clear();
    dispatcher.feed(&mut actions);
    let held = [0, 1].map(|worker| dispatcher.items_with(worker));
    assert_eq!(held.iter().sum::<usize>(), 100);
    // One is done with all that it has; the first item of the other took 100 ms.
    let quick = usize::from(held[1] < held[0]);
    for _ in 0..held[quick] {
        assert!(dispatcher.finished(quick, 1, 50).is_some());
    }
    actions.clear();
    dispatcher.feed(&mut actions);
    assert_eq!(actions, [], "it seems not worth it");
    assert_eq!(
        dispatcher.unhurried_items(1 - quick),
        0,
        "that is to be heard of"
    );
    assert!(dispatcher.finished(1 - quick, 1, 100_000_000).is_some());
    actions.clear();
    dispatcher.feed(&mut actions);
    let half = Action::Revoke {
        worker: 1 - quick,
        all: false,
    };
    assert_eq!(actions, [half]);
}

/// So many workers and a job whose items take 2 us by what is known: the first ones were sent `held` of these, the others have nothing.
fn with_little(workers: usize, held: &[usize]) -> Dispatcher {
    let mut dispatcher = Dispatcher::new(workers);
    let job = dispatcher.open(Terms::default());
    dispatcher.up(0);
    dispatcher.submit(job, 0, 0, 1);
    dispatcher.feed(&mut Vec::new());
    assert!(dispatcher.finished(0, 1, 2_000).is_some());
    let mut item = 1;
    for (worker, &count) in held.iter().enumerate() {
        dispatcher.up(worker);
        for _ in 0..count {
            dispatcher.submit(job, item as u64, item, 1);
            dispatcher.feed(&mut Vec::new());
            item += 1;
        }
        assert_eq!(dispatcher.items_with(worker), count);
    }
    (held.len()..workers).for_each(|worker| dispatcher.up(worker));
    dispatcher.tick(1_000_000_000);
    dispatcher
}

/// Nobody is asked.
const NOBODY: [usize; 0] = [];

/// What a feed asks to be given up by whom.
fn asked(dispatcher: &mut Dispatcher) -> Vec<usize> {
    let mut actions = Vec::new();
    dispatcher.feed(&mut actions);
    let asked = actions.iter().map(|action| match action {
        Action::Revoke { worker, all: false } => *worker,
        action => panic!("{action:?}"),
    });
    asked.collect()
}

#[test]
fn however_little_is_behind_an_item_it_is_taken_over_when_that_takes_long() {
    let mut dispatcher = with_little(2, &[3]);
    assert_eq!(asked(&mut dispatcher), NOBODY, "it seems not worth it");
    assert!(dispatcher.leaves_some() && !dispatcher.heeds_clock());
    let late = 1_000_000_000 + LATE_NANOS;
    assert_eq!(dispatcher.next_look(|_, _| false), Some(late));
    assert!(dispatcher.heeds_clock());
    // Whoever looks meanwhile sees the same.
    dispatcher.tick(late - 1);
    assert_eq!(dispatcher.next_look(|_, _| false), Some(late));
    assert_eq!(asked(&mut dispatcher), NOBODY);
    dispatcher.tick(late);
    assert_eq!(asked(&mut dispatcher), [0]);
    dispatcher.revoked(0, 1);
    let mut actions = Vec::new();
    dispatcher.feed(&mut actions);
    let is_sent = |action: &Action| matches!(action, Action::Send { worker: 1, .. });
    assert!(actions.iter().all(is_sent) && actions.len() == 1);
    assert!(!dispatcher.leaves_some());
    // The other one is done with that, and the first one still at its item: at once.
    assert!(dispatcher.finished(1, 1, 2_000).is_some());
    assert_eq!(asked(&mut dispatcher), [0]);
    // Had it got on, it would have its time again.
    assert!(dispatcher.finished(0, 1, 2_000).is_some());
    assert_eq!(asked(&mut dispatcher), NOBODY);
    assert!(!dispatcher.heeds_clock());
}

#[test]
fn whoever_has_begun_all_that_it_has_is_asked_once_and_then_the_next_one() {
    let mut dispatcher = with_little(3, &[4, 2]);
    assert!(dispatcher.next_look(|_, _| false).is_some());
    dispatcher.tick(2_000_000_000);
    assert_eq!(asked(&mut dispatcher), [0, 1], "who has most comes first");
    dispatcher.revoked(0, 0);
    assert_eq!(asked(&mut dispatcher), [1]);
    dispatcher.revoked(1, 0);
    assert_eq!(asked(&mut dispatcher), NOBODY);
    // Nobody looks again, until more is sent.
    assert!(!dispatcher.leaves_some());
    assert_eq!(dispatcher.next_look(|_, _| false), None);
    for item in 10..13 {
        dispatcher.submit(1, item as u64, item, 1);
        dispatcher.feed(&mut Vec::new());
    }
    let held = [0, 1, 2].map(|worker| dispatcher.items_with(worker));
    assert_eq!(held, [5, 2, 2]);
    for _ in 0..2 {
        assert!(!dispatcher.leaves_some());
        assert!(dispatcher.finished(2, 1, 2_000).is_some());
    }
    assert_eq!(asked(&mut dispatcher), [0]);
}

#[test]
fn whoever_is_taking_in_what_it_has_is_not_looked_at() {
    let mut dispatcher = with_little(3, &[3, 2]);
    assert!(dispatcher.leaves_some());
    assert_eq!(dispatcher.next_look(|_, _| true), None);
    assert!(!dispatcher.heeds_clock());
    let is_first = |worker, held| {
        assert_eq!(held, [3, 2][worker]);
        worker == 0
    };
    assert!(dispatcher.next_look(is_first).is_some());
    dispatcher.tick(2_000_000_000);
    assert_eq!(asked(&mut dispatcher), [1]);
}

/// Two workers and a job whose items take 0.1 ms and have so many bytes, fed until no more is wanted.
fn fed(terms: Terms, bytes: u64) -> Dispatcher {
    let mut dispatcher = Dispatcher::new(2);
    (0..2).for_each(|worker| dispatcher.up(worker));
    let job = dispatcher.open(terms);
    let mut item = 0;
    let mut submit = |dispatcher: &mut Dispatcher| {
        dispatcher.feed(&mut Vec::new());
        while let Some(count) = dispatcher.demand(job) {
            dispatcher.weigh(job, count, count as u64 * bytes);
            dispatcher.submit(job, item as u64, item, count);
            dispatcher.feed(&mut Vec::new());
            item += count;
        }
    };
    submit(&mut dispatcher);
    // What was sent before anything was known, two items for each.
    for worker in [0, 1, 0, 1] {
        assert!(dispatcher.finished(worker, 1, 100_000).is_some());
    }
    submit(&mut dispatcher);
    dispatcher
}

#[test]
fn a_caller_that_waits_for_all_outcomes_is_left_alone_for_milliseconds() {
    let collected = Terms {
        is_collected: true,
        ..Terms::default()
    };
    let held = |dispatcher: &Dispatcher| [0, 1].map(|worker| dispatcher.items_with(worker));
    let dispatcher = fed(collected, 8);
    for worker in 0..2 {
        let items = dispatcher.items_with(worker);
        assert!((60..100).contains(&items), "worker {worker} has {items}");
        assert_eq!(dispatcher.unhurried_items(worker), items / 2);
    }
    // Not where each outcome is awaited, nor where the items fill the rings.
    let few = held(&fed(Terms::default(), 8));
    assert!(few.iter().all(|&items| items <= 20), "{few:?}");
    let large = held(&fed(collected, 50_000));
    assert!(large.iter().all(|&items| items <= 20), "{large:?}");
}

#[test]
fn who_waits_for_all_outcomes_is_not_woken_half_way_when_there_is_nothing_more_to_send() {
    let mut dispatcher = Dispatcher::new(1);
    dispatcher.up(0);
    let job = dispatcher.open(Terms {
        is_collected: true,
        ..Terms::default()
    });
    for item in 0..2 {
        dispatcher.submit(job, item as u64, item, 1);
    }
    dispatcher.feed(&mut Vec::new());
    assert!(dispatcher.finished(0, 2, 1).is_none(), "two pieces");
    assert!(dispatcher.finished(0, 1, 100_000).is_some());
    assert!(dispatcher.finished(0, 1, 100_000).is_some());
    dispatcher.submit(job, 2, 2, 40);
    dispatcher.feed(&mut Vec::new());
    assert_eq!(dispatcher.items_with(0), 40);
    assert_eq!(dispatcher.unhurried_items(0), 20);
    dispatcher.complete(job, true);
    assert_eq!(dispatcher.unhurried_items(0), 35);
    // What came of large ones is taken in meanwhile.
    dispatcher.weigh(job, 1, 100_000);
    assert_eq!(dispatcher.unhurried_items(0), 20);
}

#[test]
fn another_job_does_not_wait_behind_what_a_worker_was_given_ahead() {
    let mut dispatcher = fed(
        Terms {
            is_collected: true,
            ..Terms::default()
        },
        8,
    );
    let held = dispatcher.items_with(0);
    let other = dispatcher.open(Terms::default());
    dispatcher.submit(other, 0, 0, 1);
    let mut actions = Vec::new();
    dispatcher.feed(&mut actions);
    let all_of = |worker| Action::Revoke { worker, all: true };
    assert_eq!(actions, [all_of(0), all_of(1)]);
    // The worker is at its first item, ends it and passes over the rest.
    dispatcher.revoked(0, held - 1);
    assert!(dispatcher.finished(0, 1, 100_000).is_some());
    assert!(dispatcher.skipped(0, held - 1));
    actions.clear();
    dispatcher.feed(&mut actions);
    let is_others =
        |action: &Action| matches!(action, Action::Send { piece, .. } if piece.job == other);
    assert!(actions.iter().take(2).any(is_others), "{actions:?}");
    assert!(dispatcher.items_with(0) <= 21);
    // The other one is gone, but may come again.
    dispatcher.close(other, &mut Vec::new());
    dispatcher.feed(&mut Vec::new());
    assert!(dispatcher.items_with(0) <= 21);
}

#[test]
fn several_quick_pieces_are_pulled_at_once() {
    let collected = |piece_items| Terms {
        piece_items,
        is_collected: true,
        is_at_hand: true,
        ..Terms::default()
    };
    // A job whose items have taken so long and have so many bytes, and what is pulled of it next.
    let demand = |terms: Terms, nanos: u64, bytes: u64| {
        let mut dispatcher = Dispatcher::new(1);
        dispatcher.up(0);
        let job = dispatcher.open(terms);
        let piece = terms.piece_items.unwrap_or(1);
        assert_eq!(dispatcher.demand(job), Some(piece), "nothing is known");
        dispatcher.submit(job, 0, 0, piece);
        dispatcher.weigh(job, 1, bytes);
        dispatcher.feed(&mut Vec::new());
        assert!(
            dispatcher
                .finished(0, piece, nanos * piece as u64)
                .is_some()
        );
        dispatcher.demand(job).unwrap()
    };
    assert_eq!(demand(collected(Some(1)), 100, 8), 64);
    assert_eq!(demand(collected(Some(7)), 100, 8), 7 * 64);
    // No more than a worker does in 50 us, and always whole pieces.
    assert_eq!(demand(collected(Some(1)), 10_000, 8), 5);
    assert_eq!(demand(collected(Some(2)), 10_000, 8), 4);
    assert_eq!(demand(collected(Some(1)), 26_000, 8), 1);
    assert_eq!(demand(collected(Some(1000)), 100, 8), 1000);
    // No more than 64 KiB.
    assert_eq!(demand(collected(Some(1)), 100, 10_000), 6);
    assert_eq!(demand(collected(Some(1)), 100, 1 << 20), 1);
    // Not where outcomes are taken one by one, nor where the iterator may wait for one.
    for (is_collected, is_at_hand) in [(false, true), (true, false)] {
        let terms = Terms {
            is_collected,
            is_at_hand,
            ..collected(Some(1))
        };
        assert_eq!(demand(terms, 100, 8), 1);
    }
    // Where no number is set, a piece has as many as are worth a message.
    assert_eq!(demand(collected(None), 10_000, 8), 100);
}

#[test]
fn what_can_be_sent_once_only_goes_to_who_has_nothing_and_stays_there() {
    let mut dispatcher = Dispatcher::new(2);
    (0..2).for_each(|worker| dispatcher.up(worker));
    let job = dispatcher.open(Terms {
        piece_items: Some(1),
        retries: 3,
        ..Terms::default()
    });
    let sent = |dispatcher: &mut Dispatcher| {
        let mut actions = Vec::new();
        dispatcher.feed(&mut actions);
        let sent = |action: &Action| match action {
            Action::Send { worker, piece } => Some((*worker, piece.item)),
            _ => None,
        };
        actions.iter().filter_map(sent).collect::<Vec<_>>()
    };
    for item in 0..3 {
        dispatcher.submit_once(job, item as u64, item);
    }
    assert_eq!(sent(&mut dispatcher), [(0, 0), (1, 1)]);
    // Others may stand behind it, and be taken back; it may not.
    dispatcher.finished(1, 1, 1).unwrap();
    assert_eq!(sent(&mut dispatcher), [(1, 2)]);
    dispatcher.submit(job, 3, 3, 1);
    assert_eq!(sent(&mut dispatcher), [(0, 3)]);
    assert_eq!(
        (dispatcher.items_with(0), dispatcher.items_for_good(0)),
        (2, 1)
    );
    assert_eq!(dispatcher.first_open(job), Some(0));
    // Whatever its worker died of, it is charged, and not tried again; what stood behind it is.
    let charged = dispatcher.died(0, Fate::Killed).unwrap();
    assert_eq!(charged.item, 0);
    assert!(!dispatcher.retry(charged));
    dispatcher.up(0);
    assert_eq!(sent(&mut dispatcher), [(0, 3)]);
    assert_eq!(dispatcher.first_open(job), Some(2));
    // One that nobody wants any more is given up, and charged to nobody.
    dispatcher.cancel(job, 2, &mut Vec::new());
    assert_eq!(dispatcher.items_for_good(1), 0);
    assert!(dispatcher.died(1, Fate::At(0)).is_none());
    assert_eq!(dispatcher.take_dropped().len(), 1);
    assert_eq!(dispatcher.first_open(job), Some(3));
}

#[test]
fn what_is_cancelled_is_told_of_when_nobody_has_it_any_more() {
    let mut dispatcher = Dispatcher::new(1);
    dispatcher.up(0);
    let job = dispatcher.open(Terms {
        piece_items: Some(1),
        ..Terms::default()
    });
    dispatcher.submit(job, 7, 0, 5);
    dispatcher.feed(&mut Vec::new());
    // One that is ready, and one that its worker gives up.
    dispatcher.cancel(job, 3, &mut Vec::new());
    let items = |dispatcher: &mut Dispatcher| {
        let dropped = dispatcher.take_dropped();
        assert!(
            dropped
                .iter()
                .all(|piece| (piece.batch, piece.count) == (7, 1))
        );
        dropped.iter().map(|piece| piece.item).collect::<Vec<_>>()
    };
    assert_eq!(items(&mut dispatcher), [3]);
    dispatcher.cancel(job, 1, &mut Vec::new());
    assert!(items(&mut dispatcher).is_empty());
    dispatcher.revoked(0, 1);
    assert_eq!(items(&mut dispatcher), [1]);
}
