//! Pipes: whoever sends, receives, waits or moves an end is killed at each step.
//!
//! What is promised: the other side gets the messages that were whole, then learns that this one is gone.

use crate::board::Arm;
use crate::case::Then::{After, Before, Done, Undone};
use crate::case::{Row, SOON, at, deaths, each, go_on, result_of, stopped, wait_until_asleep};
use multiprocess::{Pipe, Portable, Queue, wait};
use std::time::Instant;

pub(crate) const TABLES: &[&[Row]] = &[
    SENDER,
    SENDER_TO_SLEEPER,
    SENDER_OF_LONG,
    SENDER_WITHOUT_ROOM,
    SENDER_OF_HANDLES,
    SENDER_OF_LONG_WITH_HANDLES,
    RECEIVER,
    RECEIVER_ASLEEP,
    RECEIVER_OF_LONG,
    RECEIVER_OF_HANDLES,
    WATCHER,
    TRAVELLER,
    ARRIVING,
    CLOSER,
];

/// As small as can be, so that a message of some pages has many parts.
const CAPACITY: usize = 4096;

/// In parts: longer than half of what a pipe holds.
const LONG: usize = 5 * CAPACITY;

fn pair<T: Portable>() -> (Pipe<T>, Pipe<T>) {
    Pipe::pair_with_capacity(CAPACITY).unwrap()
}

/// What comes, until the other side is gone.
fn all<T: Portable>(pipe: &Pipe<T>) -> Vec<T> {
    let mut came = Vec::new();
    loop {
        match pipe.recv_timeout(SOON) {
            Ok(value) => came.push(value),
            Err(error) => {
                assert!(error.is_closed(), "{error}");
                return came;
            }
        }
    }
}

/// The other side is gone, and that is soon known.
fn assert_gone<T: Portable>(pipe: &Pipe<T>, value: impl Fn() -> T) {
    let started = Instant::now();
    loop {
        match pipe.try_send(value()) {
            Err(error) if error.is_closed() => return,
            _ => assert!(started.elapsed() < SOON, "nobody says that it is gone"),
        }
    }
}

fn assert_serves<T: Portable>(one: &Pipe<T>, other: &Pipe<T>, value: impl Fn() -> T) {
    for (here, there) in [(one, other), (other, one)] {
        here.send_timeout(value(), SOON).unwrap();
        there.recv_timeout(SOON).unwrap();
    }
}

const SENDER: &[Row] = &[
    each("pipe::frame::head", 3, Before),
    each("pipe::frame::body", 3, Before),
    each("ring::put::written", 3, Before),
    each("ring::put::shown", 3, After),
    each("pipe::send::shown", 3, After),
];

deaths!(a_sender, SENDER, |case| {
    let (here, there) = pair::<u32>();
    let sender = case.victim(there, |pipe: Pipe<u32>| {
        for number in 0..3 {
            pipe.send(number).unwrap();
        }
    });
    case.assert_killed(sender);
    assert_eq!(all(&here), Vec::from_iter(0..case.done().unwrap()));
    assert_gone(&here, || 7);
});

const SENDER_TO_SLEEPER: &[Row] = &[
    at("ring::put::written", Undone),
    at("ring::put::shown", Done),
    at("pipe::send::owes_bell", Done),
    at("pipe::send::rung", Done),
];

deaths!(a_sender_while_the_other_waits, SENDER_TO_SLEEPER, |case| {
    let (here, there) = pair::<u32>();
    let receiver = case.other(here, |pipe: Pipe<u32>| all(&pipe));
    wait_until_asleep(&receiver);
    let sender = case.victim(there, |pipe: Pipe<u32>| pipe.send(7).unwrap());
    case.assert_killed(sender);
    let came = result_of(receiver);
    assert_eq!(came, vec![7; usize::from(case.is_done())]);
});

const SENDER_OF_LONG: &[Row] = &[
    at("pipe::send::turn", Undone),
    each("pipe::frame::head", 6, Undone),
    each("pipe::frame::body", 6, Undone),
    each("ring::put::shown", 6, Undone),
    at("pipe::send::first_shown", Undone),
    each("pipe::send::part_shown", 6, Undone),
    at("pipe::send::says_asleep", Undone),
    at("pipe::send::woken", Undone),
];

deaths!(a_sender_of_many_parts, SENDER_OF_LONG, |case| {
    let (here, there) = pair::<Vec<u8>>();
    let sender = case.victim(there, |pipe: Pipe<Vec<u8>>| {
        pipe.send(vec![7; LONG]).unwrap();
        pipe.send(vec![8; 1]).unwrap();
    });
    if case.row.step.ends_with("asleep") || case.row.step.ends_with("woken") {
        wait_until_asleep(&sender);
    }
    // Of a message that was not whole nothing comes.
    assert_eq!(all(&here), Vec::<Vec<u8>>::new());
    case.assert_killed(sender);
    assert_gone(&here, || vec![7]);
});

const SENDER_WITHOUT_ROOM: &[Row] = &[
    at("ring::sleep::number_drafted", Undone),
    at("ring::sleep::announced", Undone),
    at("pipe::send::says_asleep", Undone),
    at("pipe::send::woken", Undone),
    at("ring::sleep::awake", Undone),
];

deaths!(a_sender_that_waits_for_room, SENDER_WITHOUT_ROOM, |case| {
    let (here, there) = pair::<[u8; 32]>();
    let mut count = 0;
    while there.try_send([count; 32]).is_ok() {
        count += 1;
    }
    let sender = case.victim(there, |pipe: Pipe<[u8; 32]>| pipe.send([255; 32]).unwrap());
    wait_until_asleep(&sender);
    let came = all(&here);
    case.assert_killed(sender);
    assert_eq!(came, Vec::from_iter((0..count).map(|number| [number; 32])));
    assert_gone(&here, || [0; 32]);
});

/// Values with handles inside.
type Parcel = (Queue<u32>, Vec<u8>);

/// A handle, and what is sent with another one of it.
fn parcel() -> (Queue<u32>, Parcel) {
    let queue = Queue::new().unwrap();
    (queue.clone(), (queue, vec![7]))
}

fn assert_whole(queue: &Queue<u32>, came: &Parcel) {
    came.0.put(7).unwrap();
    assert_eq!(queue.get_timeout(SOON).unwrap(), 7);
    assert_eq!(came.1, [7]);
}

const SENDER_OF_HANDLES: &[Row] = &[
    at("pipe::send::turn", Undone),
    at("pipe::send::has_room", Undone),
    at("rights::sent_one", Undone),
    at("pipe::send::letter", Undone),
    at("pipe::frame::body", Undone),
    at("ring::put::written", Undone),
    at("ring::put::shown", Done),
    at("pipe::send::shown", Done),
];

deaths!(a_sender_of_handles, SENDER_OF_HANDLES, |case| {
    let (here, there) = pair::<Parcel>();
    let (queue, sent) = parcel();
    let sender = case.victim((there, sent), |(pipe, sent): (Pipe<Parcel>, Parcel)| {
        pipe.send(sent).unwrap();
    });
    case.assert_killed(sender);
    let came = all(&here);
    assert_eq!(came.len(), usize::from(case.is_done()));
    came.iter().for_each(|came| assert_whole(&queue, came));
    assert_gone(&here, || parcel().1);
});

const SENDER_OF_LONG_WITH_HANDLES: &[Row] = &[
    at("pipe::send::first_shown", Undone),
    each("pipe::send::part_shown", 2, Undone),
    at("pipe::send::has_room", Undone),
    at("rights::sent_one", Undone),
    at("pipe::send::letter", Undone),
];

deaths!(
    a_sender_of_many_parts_and_handles,
    SENDER_OF_LONG_WITH_HANDLES,
    |case| {
        let (here, there) = pair::<(Pipe<u32>, Vec<u8>)>();
        let (left, sent) = pair::<u32>();
        let sender = case.victim(
            (there, sent),
            |(pipe, sent): (Pipe<(Pipe<u32>, Vec<u8>)>, Pipe<u32>)| {
                pipe.send((sent, vec![7; LONG])).unwrap();
            },
        );
        // Of a message that was not whole nothing comes.
        let refused = here.recv_timeout(SOON).map(|_| ()).unwrap_err();
        assert!(refused.is_closed(), "{refused}");
        case.assert_killed(sender);
        drop(here);
        // Nor is anything left of what was in it.
        assert!(all(&left).is_empty());
        assert_gone(&left, || 7);
    }
);

const RECEIVER: &[Row] = &[
    each("pipe::recv::copied_into", 3, Undone),
    each("ring::take::copied", 3, Undone),
    each("ring::take::released", 3, Undone),
];

deaths!(a_receiver, RECEIVER, |case| {
    let (here, there) = pair::<u32>();
    for number in 0..3 {
        here.send(number).unwrap();
    }
    let receiver = case.victim(there, |pipe: Pipe<u32>| {
        pipe.send(1).unwrap();
        for number in 0..3 {
            assert_eq!(pipe.recv().unwrap(), number);
        }
    });
    case.assert_killed(receiver);
    // What it has sent before is still to be had.
    assert_eq!(all(&here), [1]);
    assert_gone(&here, || 7);
});

const RECEIVER_ASLEEP: &[Row] = &[
    at("ring::sleep::number_drafted", Undone),
    at("ring::sleep::announced", Undone),
    at("pipe::recv::says_asleep", Undone),
    at("pipe::recv::woken", Undone),
    at("ring::sleep::awake", Undone),
    at("pipe::recv::taken_in_turn", Undone),
    at("pipe::recv::has_descriptors", Undone),
];

deaths!(a_receiver_that_waits, RECEIVER_ASLEEP, |case| {
    let (here, there) = pair::<u32>();
    let receiver = case.victim(there, |pipe: Pipe<u32>| pipe.recv().unwrap());
    wait_until_asleep(&receiver);
    match here.send_timeout(7, SOON) {
        Ok(()) => {}
        Err(error) => assert!(error.is_closed(), "{error}"),
    }
    case.assert_killed(receiver);
    assert!(all(&here).is_empty());
    assert_gone(&here, || 7);
});

const RECEIVER_OF_LONG: &[Row] = &[
    each("pipe::recv::part_copied", 5, Undone),
    each("ring::take::released", 5, Undone),
    each("pipe::recv::owes_bell", 2, Undone),
    each("pipe::recv::rung", 2, Undone),
];

deaths!(a_receiver_of_many_parts, RECEIVER_OF_LONG, |case| {
    let (here, there) = pair::<Vec<u8>>();
    let sender = case.other(here, |pipe: Pipe<Vec<u8>>| {
        // Longer than any receiver could have taken in before it died.
        let refused = pipe.send_timeout(vec![7; 100 * LONG], SOON).unwrap_err();
        refused.is_closed()
    });
    wait_until_asleep(&sender);
    let receiver = if case.row.passings == 2 && case.nth == 2 {
        // There is a second bell only where the sender has gone to sleep again since the first.
        let stop = Arm::stop(1, "pipe::recv::rung");
        let args = (case.arm(), there);
        let receiver = stopped(case, stop, args, |(arm, pipe): (Arm, Pipe<Vec<u8>>)| {
            arm.me();
            pipe.recv().unwrap().len()
        });
        wait_until_asleep(&sender);
        go_on(&receiver);
        receiver
    } else {
        case.victim(there, |pipe: Pipe<Vec<u8>>| pipe.recv().unwrap().len())
    };
    case.assert_killed(receiver);
    assert!(result_of(sender), "it did not learn that nobody receives");
});

const RECEIVER_OF_HANDLES: &[Row] = &[
    at("pipe::recv::copied", Undone),
    at("pipe::recv::taken_in_turn", Undone),
    at("rights::kept_one", Undone),
    at("pipe::recv::has_descriptors", Undone),
];

deaths!(a_receiver_of_handles, RECEIVER_OF_HANDLES, |case| {
    let (here, there) = pair::<Parcel>();
    let (queue, sent) = parcel();
    here.send(sent).unwrap();
    let receiver = case.victim(there, |pipe: Pipe<Parcel>| pipe.recv().unwrap().1);
    case.assert_killed(receiver);
    assert_gone(&here, || parcel().1);
    let (one, other) = pair::<Parcel>();
    one.send((queue.clone(), vec![7])).unwrap();
    assert_whole(&queue, &other.recv_timeout(SOON).unwrap());
});

const WATCHER: &[Row] = &[
    at("pipe::watch::armed", Undone),
    at("ring::sleep::announced", Undone),
];

deaths!(a_watcher, WATCHER, |case| {
    let (here, there) = pair::<u32>();
    let watcher = case.victim(there, |pipe: Pipe<u32>| wait(&[&pipe], Some(SOON)).unwrap());
    case.assert_killed(watcher);
    assert_eq!(wait(&[&here], Some(SOON)).unwrap(), [0]);
    assert!(all(&here).is_empty());
    assert_gone(&here, || 7);
});

const TRAVELLER: &[Row] = &[
    at("pipe::travel::outlet_out", Undone),
    at("pipe::travel::inlet_out", Undone),
    at("queue::put::body", Undone),
    at("queue::put::header", Undone),
    at("queue::put::published", Done),
];

deaths!(who_sends_an_end_away, TRAVELLER, |case| {
    let queue = Queue::new().unwrap();
    let (here, there) = pair::<u32>();
    here.send(5).unwrap();
    let traveller = case.victim(
        (queue.clone(), there),
        |(queue, pipe): (Queue<Pipe<u32>>, Pipe<u32>)| {
            pipe.send(4).unwrap();
            queue.put(pipe).unwrap();
        },
    );
    case.assert_killed(traveller);
    assert_eq!(here.recv_timeout(SOON).unwrap(), 4);
    match queue.try_get() {
        Ok(there) => {
            assert!(case.is_done());
            assert_eq!(there.recv_timeout(SOON).unwrap(), 5);
            assert_serves(&here, &there, || 7);
        }
        Err(error) => {
            assert!(error.is_empty() && !case.is_done(), "{error}");
            assert!(all(&here).is_empty());
            assert_gone(&here, || 7);
        }
    }
});

const ARRIVING: &[Row] = &[
    at("pipe::travel::outlet_read", Undone),
    at("pipe::travel::outlet_in", Undone),
    at("pipe::travel::inlet_read", Undone),
    at("pipe::travel::inlet_in", Undone),
];

deaths!(who_is_given_an_end, ARRIVING, |case| {
    let queue = Queue::new().unwrap();
    let (here, there) = pair::<u32>();
    queue.put(there).unwrap();
    let receiver = case.victim(queue.clone(), |queue: Queue<Pipe<u32>>| {
        queue.get().unwrap().send(1).unwrap();
    });
    case.assert_killed(receiver);
    assert!(queue.try_get().unwrap_err().is_empty());
    assert!(all(&here).is_empty());
    assert_gone(&here, || 7);
    let (here, there) = pair::<u32>();
    queue.put(there).unwrap();
    assert_serves(&here, &queue.get().unwrap(), || 7);
});

const CLOSER: &[Row] = &[
    at("pipe::close::socket_closed", Done),
    at("pipe::close::told", Done),
];

deaths!(a_closer, CLOSER, |case| {
    let (here, there) = pair::<u32>();
    let closer = case.victim(there, |pipe: Pipe<u32>| {
        pipe.send(1).unwrap();
        drop(pipe);
    });
    case.assert_killed(closer);
    assert_eq!(all(&here), [1]);
    assert_gone(&here, || 7);
});
