//! Queues of values with handles inside: whoever puts, gets or tidies up is killed at each step.
//!
//! What is promised: a message that was not put takes its handles with it, and they are closed as soon as somebody finds the
//! queue empty.

use crate::board::{self, Arm};
use crate::case::Then::{Done, Undone};
use crate::case::{Row, SOON, assert_killed, at, deaths, result_of, victim};
use crate::common::unsafely::fork_child;
use crate::queue::{assert_serves, empty, soon, with};
use multiprocess::{Pipe, Queue, Receiver, Sender};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use std::time::{Duration, Instant};

pub(crate) const TABLES: &[&[Row]] = &[
    PUTTER_OF_HANDLES,
    PUTTER_WITHOUT_ROOM_FOR_HANDLES,
    PUTTER_AMONG_LITTER,
    GETTER_OF_HANDLES,
    TIDIER,
    RECEIVER_OF_QUEUES,
];

/// Values with handles inside, and the other ends of these.
type Parcel = (u32, Receiver<u32>);

fn parcel(number: u32) -> (Sender<u32>, Parcel) {
    let (sender, receiver) = channel();
    (sender, (number, receiver))
}

fn channel() -> (Sender<u32>, Receiver<u32>) {
    let (here, there) = Pipe::<u32, u32>::pair().unwrap();
    let (sender, _) = here.split();
    let (_, receiver) = there.split();
    (sender, receiver)
}

fn assert_whole(sender: &Sender<u32>, (number, receiver): &Parcel) {
    sender.send(*number).unwrap();
    assert_eq!(receiver.recv_timeout(SOON).unwrap(), *number);
}

/// Waits until nobody has the other end any more. That is so when its last copy, which may be in a queue, has been closed.
fn assert_closed(sender: &Sender<u32>) {
    let started = Instant::now();
    while sender.try_send(0).is_ok_and(|()| true) {
        assert!(started.elapsed() < SOON, "its other end stays open");
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn assert_serves_parcels(queue: &Queue<Parcel>) {
    for number in 90..92 {
        let (sender, parcel) = parcel(number);
        queue.put_timeout(parcel, SOON).unwrap();
        let parcel = soon(queue);
        assert_eq!(parcel.0, number);
        assert_whole(&sender, &parcel);
    }
    assert!(queue.try_get().unwrap_err().is_empty());
}

const PUTTER_OF_HANDLES: &[Row] = &[
    at("queue::put::inside", Undone),
    at("queue::put::body", Undone),
    at("queue::put::numbered", Undone),
    at("queue::letters::sent_one", Undone),
    at("queue::put::header", Undone),
    at("queue::put::pending", Undone),
    at("queue::ledger::tail_drafted", Undone),
    at("queue::put::published", Done),
    at("queue::put::placed", Done),
    at("queue::put::left", Done),
];

deaths!(a_putter_of_handles, PUTTER_OF_HANDLES, |case| {
    let queue = Queue::new().unwrap();
    let (sender, sent) = parcel(7);
    let putter = case.victim(
        (queue.clone(), sent),
        |(queue, sent): (Queue<Parcel>, Parcel)| queue.put(sent).unwrap(),
    );
    case.assert_killed(putter);
    match queue.try_get() {
        Ok(parcel) => {
            assert!(case.is_done());
            assert_whole(&sender, &parcel);
        }
        Err(error) => {
            assert!(error.is_empty() && !case.is_done(), "{error}");
            assert_closed(&sender);
        }
    }
    assert_serves_parcels(&queue);
});

const PUTTER_WITHOUT_ROOM_FOR_HANDLES: &[Row] = &[at("queue::put::waits_for_letters", Undone)];

deaths!(
    a_putter_whose_handles_have_no_room,
    PUTTER_WITHOUT_ROOM_FOR_HANDLES,
    |case| {
        let queue = Queue::new().unwrap();
        let mut senders = Vec::new();
        loop {
            let (sender, parcel) = parcel(senders.len() as u32);
            match queue.try_put(parcel) {
                Ok(()) => senders.push(sender),
                Err(_full) => break,
            }
        }
        let (last, sent) = parcel(1_000_000);
        let putter = case.victim(
            (queue.clone(), sent),
            |(queue, sent): (Queue<Parcel>, Parcel)| queue.put(sent).unwrap(),
        );
        case.assert_killed(putter);
        for (number, sender) in senders.iter().enumerate() {
            let parcel = soon(&queue);
            assert_eq!(parcel.0 as usize, number);
            assert_whole(sender, &parcel);
        }
        assert_closed(&last);
        assert_serves_parcels(&queue);
    }
);

const PUTTER_AMONG_LITTER: &[Row] = &[
    at("queue::put::getting_too", Undone),
    at("queue::letters::dropped_one", Undone),
    at("queue::put::others_discarded", Undone),
];

deaths!(
    a_putter_among_what_the_dead_left,
    PUTTER_AMONG_LITTER,
    |case| {
        let (queue, inner) = (Queue::<Queue<u32>>::new().unwrap(), empty());
        case.arm().anyone_else();
        for round in 0.. {
            assert!(round < 1000, "nobody has come to that step");
            // Each leaves what it has sent in the socket, until one finds no room there.
            let putter = fork_child(|| {
                Arm::beside(1, "queue::put::header").me();
                queue.put(inner.clone()).unwrap();
            });
            let status = waitpid(putter, None).unwrap();
            assert!(matches!(
                status,
                WaitStatus::Signaled(_, Signal::SIGKILL, _)
            ));
            let putter = putter.as_raw().try_into().ok();
            if board::dead(0) == putter {
                break;
            }
            assert_eq!(board::dead(1), putter);
        }
        assert!(queue.try_get().unwrap_err().is_empty());
        for _ in 0..2 {
            queue.put_timeout(inner.clone(), SOON).unwrap();
            assert_serves(&soon(&queue));
        }
    }
);

const GETTER_OF_HANDLES: &[Row] = &[
    at("queue::get::inside", Undone),
    at("queue::get::copied", Undone),
    at("queue::letters::peeked_one", Undone),
    at("queue::get::peeked", Undone),
    at("queue::ledger::head_drafted", Undone),
    at("queue::get::announced", Done),
    at("queue::letters::dropped_one", Done),
    at("queue::get::discarded", Done),
    at("queue::get::left", Done),
];

deaths!(a_getter_of_handles, GETTER_OF_HANDLES, |case| {
    let queue = Queue::new().unwrap();
    let (sender, sent) = parcel(7);
    queue.put(sent).unwrap();
    let getter = case.victim(queue.clone(), |queue: Queue<Parcel>| queue.get().unwrap().0);
    case.assert_killed(getter);
    if case.is_done() {
        assert!(queue.try_get().unwrap_err().is_empty());
        assert_closed(&sender);
    } else {
        assert_whole(&sender, &soon(&queue));
    }
    assert_serves_parcels(&queue);
});

const TIDIER: &[Row] = &[
    at("queue::settle::getting", Undone),
    at("queue::settle::putting_too", Undone),
    at("queue::letters::dropped_one", Undone),
    at("queue::settle::emptied", Undone),
];

deaths!(who_tidies_up_behind_the_dead, TIDIER, |case| {
    let queue = Queue::new().unwrap();
    let (sender, sent) = parcel(7);
    let putter = victim(
        case.method,
        Arm::beside(1, "queue::put::header"),
        (queue.clone(), sent),
        |(queue, sent): (Queue<Parcel>, Parcel)| queue.put(sent).unwrap(),
    );
    assert_killed(putter, 1);
    let getter = case.victim(queue.clone(), |queue: Queue<Parcel>| {
        queue.try_get().is_ok()
    });
    case.assert_killed(getter);
    assert!(queue.try_get().unwrap_err().is_empty());
    assert_closed(&sender);
    assert_serves_parcels(&queue);
});

const RECEIVER_OF_QUEUES: &[Row] = &[at("queue::adopt::mapped", Undone)];

deaths!(who_is_given_a_queue, RECEIVER_OF_QUEUES, |case| {
    let queues = Queue::new().unwrap();
    let queue = with(&[1]);
    queues.put(queue.clone()).unwrap();
    let receiver = case.other(queues.clone(), |queues: Queue<Queue<u32>>| {
        // The argument itself has been taken in by now.
        queues.get().unwrap().len()
    });
    assert_eq!(result_of(receiver), 1);
    queues.put(queue.clone()).unwrap();
    let receiver = case.victim(queues.clone(), |queues: Queue<Queue<u32>>| {
        queues.get().unwrap()
    });
    case.assert_killed(receiver);
    // What was got is gone with who got it; the queue inside is not.
    assert!(queues.try_get().unwrap_err().is_empty());
    assert_eq!(soon(&queue), 1);
    assert_serves(&queue);
    queues.put_timeout(queue.clone(), SOON).unwrap();
    assert_serves(&soon(&queues));
});
