//! `Barrier`: a party, or who aborts or resets, is killed at each step.
//!
//! What is promised: who dies before it comes counts for nothing; who dies after that breaks the round, and all others learn it
//! at once; a round that was complete stays so.

use crate::case::Then::{Done, Held, Undone};
use crate::case::{Case, Row, SOON, at, deaths, each, result_of, wait_until_asleep};
use multiprocess::{Barrier, Process};

pub(crate) const TABLES: &[&[Row]] = &[
    LAST_PARTY,
    MIDDLE_PARTY,
    FIRST_PARTY,
    WOKEN_PARTY,
    ABORTER,
    RESETTER,
    NEXT_PARTY,
];

/// What a party was told.
const COMPLETE: u8 = 0;
const DEATH: u8 = 1;
const TIMEOUT: u8 = 2;
const OTHER: u8 = 3;

fn told(barrier: &Barrier) -> u8 {
    match barrier.wait_timeout(SOON) {
        Ok(_) => COMPLETE,
        Err(error) if error.is_death() => DEATH,
        Err(error) if error.is_timeout() => TIMEOUT,
        Err(_) => OTHER,
    }
}

fn party(case: Case, barrier: &Barrier) -> Process<u8> {
    let party = case.other(barrier.clone(), |barrier: Barrier| told(&barrier));
    wait_until_asleep(&party);
    party
}

fn assert_serves(case: Case, barrier: &Barrier) {
    for _ in 0..2 {
        barrier.reset();
        let others: Vec<_> = (1..barrier.parties())
            .map(|_| party(case, barrier))
            .collect();
        assert_eq!(told(barrier), COMPLETE);
        assert!(
            others
                .into_iter()
                .map(result_of)
                .all(|told| told == COMPLETE)
        );
    }
}

const LAST_PARTY: &[Row] = &[
    at("barrier::come::seated", Undone),
    at("barrier::come::labelled", Held),
    at("barrier::come::counted", Done),
    at("barrier::gate::open", Done),
    at("barrier::gate::woken", Done),
];

deaths!(the_last_party, LAST_PARTY, |case| {
    let barrier = Barrier::new(3).unwrap();
    let others = [(); 2].map(|()| party(case, &barrier));
    let victim = case.victim(barrier.clone(), |barrier: Barrier| told(&barrier));
    case.assert_killed(victim);
    if case.row.then == Undone {
        // Another one comes instead.
        assert_eq!(told(&barrier), COMPLETE);
    }
    let expected = if case.is_held() { DEATH } else { COMPLETE };
    assert_eq!(others.map(result_of), [expected; 2]);
    assert_serves(case, &barrier);
});

const MIDDLE_PARTY: &[Row] = &[
    at("barrier::come::seated", Undone),
    at("barrier::come::labelled", Held),
    at("barrier::come::counted", Held),
    at("barrier::come::waits", Held),
    at("barrier::wait::armed", Held),
    at("barrier::sleep::sees", Held),
    at("word::watch::marked", Held),
];

deaths!(a_party_after_another, MIDDLE_PARTY, |case| {
    let barrier = Barrier::new(3).unwrap();
    let other = party(case, &barrier);
    let victim = case.victim(barrier.clone(), |barrier: Barrier| told(&barrier));
    case.assert_killed(victim);
    if case.is_held() {
        // With nobody coming any more.
        assert_eq!(result_of(other), DEATH);
    } else {
        let another = party(case, &barrier);
        assert_eq!(told(&barrier), COMPLETE);
        assert_eq!([other, another].map(result_of), [COMPLETE; 2]);
    }
    assert_serves(case, &barrier);
});

const FIRST_PARTY: &[Row] = &[
    at("barrier::come::seated", Undone),
    at("barrier::come::labelled", Held),
    at("barrier::come::counted", Held),
    at("barrier::come::waits", Held),
    at("barrier::wait::armed", Held),
];

deaths!(the_first_party, FIRST_PARTY, |case| {
    let barrier = Barrier::new(3).unwrap();
    let victim = case.victim(barrier.clone(), |barrier: Barrier| told(&barrier));
    case.assert_killed(victim);
    let other = party(case, &barrier);
    if case.is_held() {
        assert_eq!(result_of(other), DEATH);
        assert!(barrier.is_broken());
    } else {
        let another = party(case, &barrier);
        assert_eq!(told(&barrier), COMPLETE);
        assert_eq!([other, another].map(result_of), [COMPLETE; 2]);
    }
    assert_serves(case, &barrier);
});

const WOKEN_PARTY: &[Row] = &[
    each("barrier::wait::woken", 1, Done),
    at("barrier::wait::over", Done),
];

deaths!(a_party_that_is_woken, WOKEN_PARTY, |case| {
    let barrier = Barrier::new(2).unwrap();
    let victim = case.victim(barrier.clone(), |barrier: Barrier| told(&barrier));
    wait_until_asleep(&victim);
    assert_eq!(told(&barrier), COMPLETE);
    case.assert_killed(victim);
    // Its round was over.
    assert!(!barrier.is_broken());
    let other = party(case, &barrier);
    assert_eq!(told(&barrier), COMPLETE);
    assert_eq!(result_of(other), COMPLETE);
    assert_serves(case, &barrier);
});

const ABORTER: &[Row] = &[
    at("barrier::move::changed", Done),
    at("barrier::gate::open", Done),
    at("barrier::gate::woken", Done),
];

deaths!(who_aborts, ABORTER, |case| {
    let barrier = Barrier::new(4).unwrap();
    let others = [(); 3].map(|()| party(case, &barrier));
    let victim = case.victim(barrier.clone(), |barrier: Barrier| barrier.abort());
    case.assert_killed(victim);
    assert_eq!(others.map(result_of), [OTHER; 3]);
    assert!(barrier.is_broken());
    assert_serves(case, &barrier);
});

const RESETTER: &[Row] = &[
    each("barrier::move::changed", 2, Done),
    at("barrier::gate::open", Done),
    at("barrier::gate::woken", Done),
    at("barrier::reset::broken", Done),
    at("barrier::move::noted", Done),
];

deaths!(who_resets, RESETTER, |case| {
    let barrier = Barrier::new(3).unwrap();
    let others = [(); 2].map(|()| party(case, &barrier));
    let victim = case.victim(barrier.clone(), |barrier: Barrier| barrier.reset());
    case.assert_killed(victim);
    assert!(!barrier.is_broken());
    assert_eq!(others.map(result_of), [OTHER; 2]);
    // It serves without another reset.
    let others = [(); 2].map(|()| party(case, &barrier));
    assert_eq!(told(&barrier), COMPLETE);
    assert_eq!(others.map(result_of), [COMPLETE; 2]);
    assert_serves(case, &barrier);
});

const NEXT_PARTY: &[Row] = &[
    at("barrier::come::seated", Undone),
    at("barrier::come::labelled", Held),
];

deaths!(
    who_comes_to_a_round_that_is_never_begun,
    NEXT_PARTY,
    |case| {
        let barrier = Barrier::new(2).unwrap();
        let other = party(case, &barrier);
        assert_eq!(told(&barrier), COMPLETE);
        assert_eq!(result_of(other), COMPLETE);
        let victim = case.victim(barrier.clone(), |barrier: Barrier| told(&barrier));
        case.assert_killed(victim);
        // What it died in is over with this.
        barrier.reset();
        let other = party(case, &barrier);
        assert_eq!(told(&barrier), COMPLETE);
        assert_eq!(result_of(other), COMPLETE);
        assert_serves(case, &barrier);
    }
);

deaths!(who_comes_alone_after_a_round, NEXT_PARTY, |case| {
    let barrier = Barrier::new(1).unwrap();
    assert_eq!(told(&barrier), COMPLETE);
    let victim = case.victim(barrier.clone(), |barrier: Barrier| told(&barrier));
    case.assert_killed(victim);
    let expected = if case.is_held() { DEATH } else { COMPLETE };
    assert_eq!(told(&barrier), expected);
    assert_eq!(barrier.is_broken(), case.is_held());
    assert_serves(case, &barrier);
});
