//! What is told beside a queue's messages: whoever closes it, waits until all is done, or watches is killed at each step.
//!
//! What is promised: it is closed for everybody or for nobody; nobody waits for the dead; the descriptor tells what is so.

use crate::board::Arm;
use crate::case::Then::{Done, Undone};
use crate::case::{
    Case, Row, SOON, assert_killed, at, deaths, go_on, result_of, stopped, victim,
    wait_until_asleep,
};
use crate::common::polls_readable;
use crate::queue::{assert_serves, empty, soon, with};
use multiprocess::{Process, Queue, wait};
use std::time::Duration;

pub(crate) const TABLES: &[&[Row]] = &[
    CLOSER,
    CLOSER_OF_FULL,
    CLOSER_AMONG_OTHERS,
    CLOSER_OF_WATCHED,
    CLOSER_AFTER_SETTLING,
    SETTLER,
    DONE_WITH,
    JOINER,
    WATCHER,
    PUTTER_TO_WATCHED,
    GETTER_OF_WATCHED,
];

const CLOSER: &[Row] = &[
    at("queue::close::letters_ended", Undone),
    at("queue::close::event", Undone),
    at("queue::close::inside_put", Undone),
    at("queue::close::closed", Done),
    at("queue::close::left", Done),
    at("queue::close::passed_on", Done),
];

deaths!(a_closer_while_others_wait_to_get, CLOSER, |case| {
    let queue = empty();
    let getters = [(); 2].map(|()| {
        case.other(queue.clone(), |queue: Queue<u32>| {
            let mut got = Vec::new();
            loop {
                match queue.get_timeout(SOON) {
                    Ok(number) => got.push(number),
                    Err(error) => return (got, error.is_closed()),
                }
            }
        })
    });
    getters.iter().for_each(wait_until_asleep);
    let closer = case.victim(queue.clone(), |queue: Queue<u32>| queue.close());
    case.assert_killed(closer);
    assert_eq!(queue.is_closed(), case.is_done());
    let mut expected = Vec::new();
    if !case.is_done() {
        // It is as good as before, and can be closed.
        queue.put_timeout(1, SOON).unwrap();
        queue.put_timeout(2, SOON).unwrap();
        expected = vec![1, 2];
        queue.close();
    }
    let mut got = Vec::new();
    for (some, was_closed) in getters.map(result_of) {
        assert!(was_closed);
        got.extend(some);
    }
    got.sort_unstable();
    assert_eq!(got, expected);
    assert!(queue.try_put(3).unwrap_err().is_closed());
});

const CLOSER_OF_FULL: &[Row] = &[
    at("queue::close::letters_ended", Undone),
    at("queue::close::event", Undone),
    at("queue::close::inside_put", Undone),
    at("queue::close::closed", Done),
    at("queue::close::left", Done),
    at("queue::close::passed_on", Done),
];

deaths!(
    a_closer_while_others_wait_for_room,
    CLOSER_OF_FULL,
    |case| {
        let queue = Queue::bounded(1).unwrap();
        queue.put(0).unwrap();
        let putters = [1, 2].map(|number| {
            case.other(
                (queue.clone(), number),
                |(queue, number): (Queue<u32>, u32)| {
                    let refused = queue.put_timeout(number, SOON).err();
                    refused.is_some_and(|error| error.is_closed())
                },
            )
        });
        putters.iter().for_each(wait_until_asleep);
        let closer = case.victim(queue.clone(), |queue: Queue<u32>| queue.close());
        case.assert_killed(closer);
        assert_eq!(queue.is_closed(), case.is_done());
        if !case.is_done() {
            queue.close();
        }
        assert_eq!(putters.map(result_of), [true, true]);
        assert_eq!(soon(&queue), 0);
        assert!(queue.get_timeout(SOON).unwrap_err().is_closed());
    }
);

const CLOSER_AMONG_OTHERS: &[Row] = &[
    at("queue::close::inside_get", Undone),
    at("queue::close::inside_neither", Undone),
    at("queue::close::closed", Done),
    at("queue::close::left", Done),
    at("queue::close::passed_on", Done),
];

deaths!(
    a_closer_while_others_are_inside,
    CLOSER_AMONG_OTHERS,
    |case| {
        let queue = with(&[1]);
        let putter = stopped(
            case,
            Arm::stop(1, "queue::put::inside"),
            queue.clone(),
            |queue: Queue<u32>| queue.put(2).is_ok(),
        );
        // Where nobody is to be found getting, somebody waits to: the first message is gone then.
        let finds_getter = case.row.step != "queue::close::inside_get";
        let getter = finds_getter.then(|| {
            stopped(
                case,
                Arm::stop(2, "queue::get::inside"),
                queue.clone(),
                |queue: Queue<u32>| queue.get().unwrap(),
            )
        });
        let closer = case.victim(queue.clone(), |queue: Queue<u32>| queue.close());
        case.assert_killed(closer);
        assert_eq!(queue.is_closed(), case.is_done());
        go_on(&putter);
        assert_eq!(result_of(putter), !case.is_done());
        let mut expected = vec![1, 2];
        if case.is_done() {
            expected.pop();
        }
        if let Some(getter) = getter {
            go_on(&getter);
            assert_eq!(result_of(getter), expected.remove(0));
        }
        for number in expected {
            assert_eq!(soon(&queue), number);
        }
        if !case.is_done() {
            assert_serves(&queue);
            queue.close();
        }
        assert!(queue.get_timeout(SOON).unwrap_err().is_closed());
    }
);

/// One who waits for news of a queue, and has none so far.
fn watcher(case: Case, queue: &Queue<u32>) -> Process<Vec<usize>> {
    let watcher = case.other(queue.clone(), |queue: Queue<u32>| {
        wait(&[&queue], Some(SOON)).unwrap()
    });
    wait_until_asleep(&watcher);
    watcher
}

fn assert_closed(queue: &Queue<u32>) {
    assert!(queue.is_closed() && polls_readable(queue, Duration::ZERO));
    assert_eq!(wait(&[queue], Some(Duration::ZERO)).unwrap(), [0]);
    assert!(queue.get_timeout(SOON).unwrap_err().is_closed());
}

// Once it has added to the event, who takes that off goes on with closing.
const CLOSER_OF_WATCHED: &[Row] = &[
    at("queue::close::letters_ended", Undone),
    at("queue::close::event", Done),
    at("queue::close::inside_put", Done),
    at("queue::close::closed", Done),
    at("queue::close::left", Done),
    at("queue::close::passed_on", Done),
];

deaths!(a_closer_while_others_watch, CLOSER_OF_WATCHED, |case| {
    let queue = empty();
    let watchers = [(); 2].map(|()| watcher(case, &queue));
    let closer = case.victim(queue.clone(), |queue: Queue<u32>| queue.close());
    case.assert_killed(closer);
    if !case.is_done() {
        assert!(!queue.is_closed());
        queue.close();
    }
    assert_eq!(watchers.map(result_of), [[0], [0]]);
    assert_closed(&queue);
});

const CLOSER_AFTER_SETTLING: &[Row] = &[
    at("queue::close::inside_put", Done),
    at("queue::close::closed", Done),
    at("queue::close::left", Done),
];

deaths!(
    a_closer_whose_news_were_taken_off,
    CLOSER_AFTER_SETTLING,
    |case| {
        let queue = empty();
        let watcher = watcher(case, &queue);
        let closer = stopped(
            case,
            Arm::stop(1, "queue::close::event"),
            (case.arm(), queue.clone()),
            |(arm, queue): (Arm, Queue<u32>)| {
                arm.me();
                queue.close();
            },
        );
        // By the watcher, or here.
        while polls_readable(&queue, Duration::ZERO) && !queue.is_closed() {
            let _news = wait(&[&queue], Some(Duration::ZERO)).unwrap();
        }
        wait_until_asleep(&watcher);
        go_on(&closer);
        case.assert_killed(closer);
        assert_eq!(result_of(watcher), [0]);
        assert_closed(&queue);
    }
);

const SETTLER: &[Row] = &[
    at("queue::settle::putting_too", Done),
    at("queue::settle::goes_on_closing", Done),
    at("queue::settle::closed", Done),
];

deaths!(who_goes_on_with_closing, SETTLER, |case| {
    let queue = empty();
    assert!(!polls_readable(&queue, Duration::ZERO));
    let getter = case.other(queue.clone(), |queue: Queue<u32>| {
        queue.get_timeout(SOON).unwrap_err().is_closed()
    });
    wait_until_asleep(&getter);
    let closer = victim(
        case.method,
        Arm::beside(1, "queue::close::event"),
        queue.clone(),
        |queue: Queue<u32>| queue.close(),
    );
    assert_killed(closer, 1);
    let settler = case.victim(queue.clone(), |queue: Queue<u32>| queue.try_get().is_err());
    case.assert_killed(settler);
    assert_eq!(wait(&[&queue], Some(SOON)).unwrap(), [0]);
    assert!(result_of(getter));
    assert_closed(&queue);
});

const DONE_WITH: &[Row] = &[at("queue::done::last", Done)];

deaths!(who_is_done_with_the_last, DONE_WITH, |case| {
    let queue = with(&[1]);
    assert_eq!(soon(&queue), 1);
    let joiners = [(); 2].map(|()| {
        case.other(queue.clone(), |queue: Queue<u32>| {
            queue.join_timeout(SOON).is_ok()
        })
    });
    joiners.iter().for_each(wait_until_asleep);
    let worker = case.victim(queue.clone(), |queue: Queue<u32>| {
        queue.task_done().unwrap()
    });
    case.assert_killed(worker);
    assert_eq!(joiners.map(result_of), [true, true]);
    assert!(queue.task_done().is_err());
    assert_serves(&queue);
});

const JOINER: &[Row] = &[at("queue::done::inside", Undone)];

deaths!(who_waits_until_all_is_done, JOINER, |case| {
    let queue = with(&[1]);
    let other = case.other(queue.clone(), |queue: Queue<u32>| {
        queue.join_timeout(SOON).is_ok()
    });
    wait_until_asleep(&other);
    let joiner = case.victim(queue.clone(), |queue: Queue<u32>| queue.join().unwrap());
    case.assert_killed(joiner);
    queue.task_done().unwrap();
    assert!(result_of(other));
    queue.join_timeout(SOON).unwrap();
    assert_eq!(soon(&queue), 1);
    assert_serves(&queue);
});

/// Whether its descriptor tells what is so: nobody waits for what is there, or goes on though nothing is.
fn assert_watch_is_right(queue: &Queue<u32>) {
    while queue.try_get().is_ok() {}
    assert!(
        wait(&[queue], Some(Duration::from_millis(2)))
            .unwrap()
            .is_empty()
    );
    queue.put_timeout(8, SOON).unwrap();
    assert_eq!(wait(&[queue], Some(SOON)).unwrap(), [0]);
    assert_eq!(soon(queue), 8);
    assert!(wait(&[queue], Some(Duration::ZERO)).unwrap().is_empty());
    assert_serves(queue);
}

const WATCHER: &[Row] = &[
    at("queue::watch::begun", Undone),
    at("queue::watch::added", Undone),
    at("queue::settle::getting", Undone),
    at("queue::settle::putting_too", Undone),
    at("queue::settle::lowered", Undone),
];

deaths!(the_first_watcher, WATCHER, |case| {
    let queue = empty();
    let watcher = case.victim(queue.clone(), |queue: Queue<u32>| {
        wait(&[&queue], Some(SOON)).unwrap()
    });
    case.assert_killed(watcher);
    let other = case.other(queue.clone(), |queue: Queue<u32>| {
        wait(&[&queue], Some(SOON)).unwrap()
    });
    wait_until_asleep(&other);
    queue.put_timeout(1, SOON).unwrap();
    assert_eq!(result_of(other), [0]);
    assert_eq!(soon(&queue), 1);
    assert_watch_is_right(&queue);
});

const PUTTER_TO_WATCHED: &[Row] = &[
    at("queue::put::body", Undone),
    at("queue::put::event", Undone),
    at("queue::put::pending", Undone),
    at("queue::put::published", Done),
    at("queue::put::left", Done),
];

deaths!(a_putter_to_a_watched_queue, PUTTER_TO_WATCHED, |case| {
    let queue = empty();
    let watcher = case.other(queue.clone(), |queue: Queue<u32>| {
        wait(&[&queue], Some(SOON)).unwrap()
    });
    wait_until_asleep(&watcher);
    let putter = case.victim(queue.clone(), |queue: Queue<u32>| queue.put(1).unwrap());
    case.assert_killed(putter);
    if !case.is_done() {
        queue.put_timeout(1, SOON).unwrap();
    }
    assert_eq!(result_of(watcher), [0]);
    assert_eq!(soon(&queue), 1);
    assert_watch_is_right(&queue);
});

const GETTER_OF_WATCHED: &[Row] = &[
    at("queue::get::copied", Undone),
    at("queue::get::announced", Done),
    at("queue::get::event", Done),
    at("queue::get::left", Done),
];

deaths!(a_getter_of_a_watched_queue, GETTER_OF_WATCHED, |case| {
    let queue = with(&[1]);
    assert_eq!(wait(&[&queue], Some(SOON)).unwrap(), [0]);
    assert_eq!(soon(&queue), 1);
    // Only who waits for what is not there yet makes it a watched one.
    assert!(
        wait(&[&queue], Some(Duration::from_millis(1)))
            .unwrap()
            .is_empty()
    );
    queue.put(2).unwrap();
    let getter = case.victim(queue.clone(), |queue: Queue<u32>| queue.get().unwrap());
    case.assert_killed(getter);
    let ready = wait(&[&queue], Some(Duration::ZERO)).unwrap();
    assert_eq!(ready.is_empty(), case.is_done());
    assert_watch_is_right(&queue);
});
