//! The monitors of a queue: whoever waits inside, comes in, leaves or brings something is killed at each step.
//!
//! What is promised: who waits is woken as long as something is there, whoever dies.

use crate::board::Arm;
use crate::case::Then::{Done, Either, Undone};
use crate::case::{
    Case, Row, SOON, at, deaths, each, go_on, kill_now, result_of, stopped, wait_until_asleep,
    wait_until_stopped,
};
use crate::queue::{assert_serves, empty, soon, with};
use multiprocess::{Process, Queue};
use std::time::Duration;

pub(crate) const TABLES: &[&[Row]] = &[WAITER, BRINGER, BRINGER_TO_DEAD, LEAVER, LATE];

fn getter(case: Case, queue: &Queue<u32>) -> Process<u32> {
    let getter = case.other(queue.clone(), |queue: Queue<u32>| {
        queue.get_timeout(SOON).unwrap()
    });
    wait_until_asleep(&getter);
    getter
}

const WAITER: &[Row] = &[
    at("word::try::pending", Undone),
    each("word::take::taken", 2, Either),
    each("word::take::linked", 2, Either),
    each("held::link::pointed", 2, Either),
    each("word::give::unlinked", 2, Either),
    at("monitor::leave::idle", Undone),
    at("monitor::wait::left", Undone),
    at("monitor::wait::woken", Undone),
    at("monitor::wait::taken", Undone),
    at("queue::get::inside", Undone),
    at("queue::get::copied", Undone),
];

deaths!(who_waits_inside, WAITER, |case| {
    let queue = empty();
    let victim = case.victim(queue.clone(), |queue: Queue<u32>| queue.get().unwrap());
    wait_until_asleep(&victim);
    let other = getter(case, &queue);
    queue.put_timeout(1, SOON).unwrap();
    case.assert_killed(victim);
    match case.row.then {
        Undone => assert_eq!(result_of(other), 1),
        _ => {
            queue.put_timeout(2, SOON).unwrap();
            let got = result_of(other);
            let left = queue.try_get();
            // Each went to the other or to the dead, or is still there.
            assert!(got == 2 && left.is_err() || got == 1 && left.is_ok_and(|left| left == 2));
        }
    }
    assert_serves(&queue);
});

const BRINGER: &[Row] = &[
    at("monitor::announce::pending", Undone),
    at("monitor::announce::brought", Done),
    at("word::tell::told", Done),
];

deaths!(who_brings_something, BRINGER, |case| {
    let queue = empty();
    let getters = [(); 2].map(|()| getter(case, &queue));
    let victim = case.victim(queue.clone(), |queue: Queue<u32>| queue.put(1).unwrap());
    case.assert_killed(victim);
    let first = 2 - u32::from(case.is_done());
    for number in 2..2 + first {
        queue.put_timeout(number, SOON).unwrap();
    }
    let mut got = getters.map(result_of);
    got.sort_unstable();
    assert_eq!(got, if case.is_done() { [1, 2] } else { [2, 3] });
    assert_serves(&queue);
});

const BRINGER_TO_DEAD: &[Row] = &[at("word::tell::told", Done), at("word::tell::nobody", Done)];

deaths!(who_brings_something_to_the_dead, BRINGER_TO_DEAD, |case| {
    let queue = empty();
    let dead = getter(case, &queue);
    kill_now(dead);
    let victim = case.victim(queue.clone(), |queue: Queue<u32>| queue.put(1).unwrap());
    case.assert_killed(victim);
    assert_eq!(soon(&queue), 1);
    let other = getter(case, &queue);
    queue.put_timeout(2, SOON).unwrap();
    assert_eq!(result_of(other), 2);
    assert_serves(&queue);
});

const LEAVER: &[Row] = &[
    at("word::give::unlinked", Done),
    at("monitor::leave::idle", Done),
    at("monitor::let_in::asked", Done),
    at("monitor::leave::left", Done),
];

deaths!(who_leaves_with_nothing_there, LEAVER, |case| {
    let queue = with(&[1]);
    let args = (case.arm(), queue.clone());
    let stop = Arm::stop(1, "queue::get::inside");
    let victim = stopped(case, stop, args, |(arm, queue): (Arm, Queue<u32>)| {
        arm.me();
        queue.get().unwrap()
    });
    // One that found something there, and only wants to come in.
    let other = getter(case, &queue);
    go_on(&victim);
    case.assert_killed(victim);
    queue.put_timeout(2, SOON).unwrap();
    assert_eq!(result_of(other), 2);
    assert_serves(&queue);
});

const LATE: &[Row] = &[at("monitor::pass_on::idle", Undone)];

/// Has one be late by so much; `None` where its time was over before it could be.
fn be_late(case: Case, time: Duration) -> Option<()> {
    let queue = with(&[1]);
    assert_eq!(soon(&queue), 1);
    let joiner = case.other(
        (Arm::stop(1, "monitor::wait::woken"), queue.clone()),
        |(arm, queue)| {
            let (arm, queue): (Arm, Queue<u32>) = (arm, queue);
            arm.me();
            queue.join_timeout(SOON).is_ok()
        },
    );
    wait_until_asleep(&joiner);
    let args = (queue.clone(), time.as_millis() as u64);
    let mut victim = case.victim(args, |(queue, time): (Queue<u32>, u64)| {
        // It was slow to wake up, the other, which was woken; this one's time is over meanwhile.
        queue.join_timeout(Duration::from_millis(time)).is_err()
    });
    wait_until_asleep(&victim);
    queue.task_done().unwrap();
    // What that one was woken for is not so any more.
    queue.put(2).unwrap();
    let ended = victim.wait_timeout(SOON).unwrap();
    wait_until_stopped(&joiner, 1);
    go_on(&joiner);
    assert_eq!(soon(&queue), 2);
    queue.task_done().unwrap();
    assert!(result_of(joiner));
    if ended.is_some_and(|status| status.success()) {
        return None;
    }
    case.assert_killed(victim);
    assert_serves(&queue);
    Some(())
}

deaths!(who_is_late, LATE, |case| {
    let times = [200, 400, 800, 1600, 3200].map(Duration::from_millis);
    let late = times.into_iter().find_map(|time| be_late(case, time));
    assert!(late.is_some(), "its time is over before it comes there");
});
