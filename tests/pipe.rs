//! Pipes: what goes in comes out, whole and in order; the end, limits, threads, bytes, and ends that move.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::alone::{in_own_process, test_path};
use common::unsafely::in_fork;
use common::{LIMIT, LONG_LIMIT, each_method, each_method_alone, within};
use multiprocess::{Pipe, Process, Receiver, Sender, StartMethod};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// What a pipe with one page holds.
const PAGE: usize = 4096;

const SOON: Duration = Duration::from_millis(20);

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

/// A process that sends everything back.
fn echo<T: multiprocess::Portable>(method: StartMethod) -> (Pipe<T>, Process) {
    let (here, there) = Pipe::<T>::pair().unwrap();
    let child = Process::builder()
        .start_method(method)
        .spawn((there,), |(pipe,): (Pipe<T>,)| {
            for value in pipe.iter() {
                pipe.send(value).unwrap();
            }
        })
        .unwrap();
    (here, child)
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Nothing,
    Named { name: String, at: (f64, f64) },
    Many(BTreeMap<u8, Vec<Shape>>),
}

each_method!(values_come_back_as_they_were, |method| {
    let (pipe, child) = echo::<Shape>(method);
    let named = Shape::Named {
        name: "grüße".into(),
        at: (1.5, f64::INFINITY),
    };
    let many = Shape::Many(BTreeMap::from([
        (1, vec![named.clone(), Shape::Nothing]),
        (200, Vec::new()),
    ]));
    for value in [Shape::Nothing, named, many] {
        pipe.send(value.clone()).unwrap();
        assert_eq!(pipe.recv().unwrap(), value);
    }
    drop(pipe);
    child.join().unwrap();
});

each_method!(
    messages_of_every_size_around_the_rings_come_back,
    |method| {
        let (here, there) = Pipe::<Vec<u8>>::pair_with_capacity(PAGE).unwrap();
        let child: Process = Process::builder()
            .start_method(method)
            .spawn((there,), |(pipe,): (Pipe<Vec<u8>>,)| {
                for value in pipe.iter() {
                    pipe.send(value).unwrap();
                }
            })
            .unwrap();
        let around = |size: usize| (size.saturating_sub(33)..size + 34).collect::<Vec<usize>>();
        let sizes = [0, PAGE / 8, PAGE / 2, PAGE, 2 * PAGE].map(around).concat();
        for size in sizes.into_iter().chain([3 << 20]) {
            here.send(bytes(size)).unwrap();
            assert!(here.recv().unwrap() == bytes(size), "{size} bytes");
        }
        drop(here);
        child.join().unwrap();
    }
);

each_method!(sizes_around_what_a_default_pipe_holds, |method| {
    let (pipe, child) = echo::<Vec<u8>>(method);
    let holds = 4 << 20;
    for size in [
        0,
        holds / 2 - 8,
        holds / 2,
        holds / 2 + 1,
        holds - 1,
        holds,
        holds + 1,
    ] {
        pipe.send(bytes(size)).unwrap();
        assert!(pipe.recv().unwrap() == bytes(size), "{size} bytes");
    }
    drop(pipe);
    child.join().unwrap();
});

#[test]
fn a_gibibyte_passes_through_a_default_pipe() {
    within(LONG_LIMIT, || {
        let len = 1 << 30;
        let (here, there) = Pipe::<Vec<u64>, u64>::pair().unwrap();
        let child: Process = Process::spawn((there,), |(pipe,): (Pipe<u64, Vec<u64>>,)| {
            let numbers = pipe.recv().unwrap();
            let is_right = numbers.iter().zip(0..).all(|(number, at)| *number == at);
            pipe.send(if is_right { numbers.len() as u64 } else { 0 })
                .unwrap();
        })
        .unwrap();
        here.send((0..len / 8).collect()).unwrap();
        assert_eq!(here.recv().unwrap(), len / 8);
        child.join().unwrap();
    });
}

each_method!(messages_are_neither_merged_nor_split, |method| {
    let (here, there) = Pipe::<Vec<u8>>::pair_with_capacity(PAGE).unwrap();
    let child: Process = Process::builder()
        .start_method(method)
        .spawn((there,), |(pipe,): (Pipe<Vec<u8>>,)| {
            for round in 0..20_000_usize {
                pipe.send(bytes(round * 7 % 300)).unwrap();
            }
        })
        .unwrap();
    for round in 0..20_000_usize {
        assert_eq!(
            here.recv().unwrap(),
            bytes(round * 7 % 300),
            "round {round}"
        );
    }
    assert!(here.recv().unwrap_err().is_closed());
    child.join().unwrap();
});

each_method!(
    a_hundred_thousand_round_trips_lose_no_wake_up,
    LONG_LIMIT,
    |method| {
        let (pipe, child) = echo::<u64>(method);
        for round in 0..100_000 {
            pipe.send(round).unwrap();
            assert_eq!(pipe.recv().unwrap(), round);
        }
        drop(pipe);
        child.join().unwrap();
    }
);

#[test]
fn what_was_sent_is_received_after_the_sender_has_gone_and_then_it_is_closed() {
    let (here, there) = Pipe::<String>::pair().unwrap();
    here.send("one".into()).unwrap();
    here.send("two".into()).unwrap();
    drop(here);
    assert!(there.poll(Duration::ZERO).unwrap());
    assert_eq!(there.recv().unwrap(), "one");
    assert_eq!(there.try_recv().unwrap(), "two");
    for _ in 0..2 {
        assert!(there.recv().unwrap_err().is_closed());
        assert!(there.try_recv().unwrap_err().is_closed());
        assert!(there.recv_timeout(SOON).unwrap_err().is_closed());
        assert!(there.recv_bytes().unwrap_err().is_closed());
        assert!(
            there.poll(Duration::ZERO).unwrap(),
            "the end does not block"
        );
        let refused = there.send("back".into()).unwrap_err();
        assert!(refused.is_closed());
        assert_eq!(refused.into_value(), "back");
        assert!(there.try_send("back".into()).unwrap_err().is_closed());
        assert!(
            there
                .send_timeout("back".into(), SOON)
                .unwrap_err()
                .is_closed()
        );
        assert!(there.send_bytes(b"back").unwrap_err().is_closed());
    }
}

each_method!(a_killed_process_closes_its_end, |method| {
    let (here, there) = Pipe::<u8>::pair().unwrap();
    let mut child: Process = Process::builder()
        .start_method(method)
        .spawn((there,), |(pipe,): (Pipe<u8>,)| {
            pipe.send(1).unwrap();
            loop {
                pipe.recv().unwrap();
            }
        })
        .unwrap();
    assert_eq!(here.recv().unwrap(), 1);
    here.send(2).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let refused = here.send(3).unwrap_err();
    assert!(refused.is_closed() && refused.into_value() == 3);
    assert!(here.recv().unwrap_err().is_closed());
});

#[test]
fn a_full_pipe_gives_the_value_back_and_takes_it_when_there_is_room() {
    let (here, there) = Pipe::<u64>::pair_with_capacity(PAGE).unwrap();
    let mut held = 0;
    let refused = loop {
        match here.try_send(held) {
            Ok(()) => held += 1,
            Err(refused) => break refused,
        }
    };
    assert!(refused.is_full() && !refused.is_closed() && !refused.is_timeout());
    assert_eq!(refused.into_value(), held);
    assert_eq!(held, (PAGE / 16) as u64);
    let late = here.send_timeout(held, SOON).unwrap_err();
    assert!(late.is_timeout());
    assert_eq!(late.into_value(), held);
    let late = here.send_timeout(held, Duration::ZERO).unwrap_err();
    assert!(late.is_timeout());
    assert_eq!(there.recv().unwrap(), 0);
    here.try_send(held).unwrap();
    for expected in 1..=held {
        assert_eq!(there.recv().unwrap(), expected);
    }
    assert!(there.try_recv().unwrap_err().is_empty());
    assert!(there.recv_timeout(SOON).unwrap_err().is_timeout());
    assert!(there.recv_timeout(Duration::ZERO).unwrap_err().is_timeout());
    assert!(!there.poll(SOON).unwrap());
}

#[test]
fn a_blocked_sender_goes_on_with_the_first_room_and_learns_of_the_end() {
    within(LIMIT, || {
        let (here, there) = Pipe::<u64>::pair_with_capacity(PAGE).unwrap();
        while here.try_send(7).is_ok() {}
        thread::scope(|scope| {
            let sender = scope.spawn(|| here.send(8));
            assert_eq!(there.recv().unwrap(), 7);
            // Room for this one message is enough.
            sender.join().unwrap().unwrap();
            let sender = scope.spawn(|| here.send(9));
            drop(there);
            assert!(sender.join().unwrap().unwrap_err().is_closed());
        });
    });
}

#[test]
fn a_long_message_that_ran_out_of_time_is_not_received_and_the_next_one_is() {
    within(LIMIT, || {
        let (here, there) = Pipe::<Vec<u8>>::pair_with_capacity(PAGE).unwrap();
        for _ in 0..3 {
            here.send(bytes(10)).unwrap();
            let late = here.send_timeout(bytes(10 * PAGE), SOON).unwrap_err();
            assert!(late.is_timeout());
            assert_eq!(late.into_value(), bytes(10 * PAGE));
            assert!(here.try_send(bytes(2 * PAGE)).is_err(), "it never fits");
            assert_eq!(there.recv().unwrap(), bytes(10));
            assert!(there.try_recv().unwrap_err().is_empty());
            here.send(bytes(11)).unwrap();
            assert_eq!(there.recv().unwrap(), bytes(11));
        }
    });
}

each_method!(bytes_and_values_share_a_pipe, |method| {
    let (here, there) = Pipe::<String>::pair().unwrap();
    let child: Process = Process::builder()
        .start_method(method)
        .spawn((there,), |(pipe,): (Pipe<String>,)| {
            pipe.send_bytes(&[0xff, 0xfe]).unwrap();
            pipe.send_bytes(b"").unwrap();
            pipe.send_bytes(b"text").unwrap();
            pipe.send("value".into()).unwrap();
            pipe.send("last".into()).unwrap();
        })
        .unwrap();
    let error = here.recv().unwrap_err();
    assert!(!error.is_closed() && !error.is_empty(), "{error}");
    assert_eq!(here.recv_bytes().unwrap(), b"");
    assert_eq!(here.recv().unwrap(), "text");
    assert_eq!(here.recv_bytes().unwrap(), b"value");
    assert_eq!(here.recv().unwrap(), "last");
    assert!(here.recv().unwrap_err().is_closed());
    child.join().unwrap();
});

#[test]
fn too_short_a_buffer_is_an_error_and_the_message_is_kept() {
    let (here, there) = Pipe::<()>::pair_with_capacity(PAGE).unwrap();
    within(LIMIT, move || {
        thread::scope(|scope| {
            let messages = [b"hello".to_vec(), bytes(5 * PAGE), Vec::new()];
            let sent = messages.clone();
            scope.spawn(move || {
                sent.iter()
                    .for_each(|bytes| here.send_bytes(bytes).unwrap())
            });
            for message in messages {
                let mut buffer = vec![0; message.len() + 1];
                for short in 0..message.len().min(4) {
                    let error = there.recv_bytes_into(&mut buffer[..short]).unwrap_err();
                    assert!(error.to_string().contains("kept"), "{error}");
                }
                assert_eq!(there.recv_bytes_into(&mut buffer).unwrap(), message.len());
                assert!(buffer[..message.len()] == message);
            }
        });
    });
}

/// Cannot be encoded, or not decoded.
#[derive(Debug, Deserialize)]
struct Refuses(#[serde(deserialize_with = "never")] u8);

fn never<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    match u8::deserialize(deserializer)? {
        0 => Ok(0),
        _ => Err(serde::de::Error::custom("not this one")),
    }
}

impl Serialize for Refuses {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            7 => Err(serde::ser::Error::custom("seven stays")),
            number => serializer.serialize_u8(number),
        }
    }
}

each_method!(
    values_that_cannot_be_encoded_or_decoded_are_errors_and_the_pipe_goes_on,
    |method| {
        let (pipe, child) = echo::<Refuses>(method);
        let refused = pipe.send(Refuses(7)).unwrap_err();
        assert!(refused.to_string().contains("seven stays"), "{refused}");
        assert_eq!(refused.into_value().0, 7);
        pipe.send(Refuses(0)).unwrap();
        assert_eq!(pipe.recv().unwrap().0, 0);
        // The echo ends at this one.
        pipe.send(Refuses(1)).unwrap();
        assert!(pipe.recv().unwrap_err().is_closed());
        child.join().unwrap();
        let (here, there) = Pipe::<Refuses>::pair().unwrap();
        here.send(Refuses(1)).unwrap();
        here.send(Refuses(0)).unwrap();
        assert!(
            there
                .recv()
                .unwrap_err()
                .to_string()
                .contains("not this one")
        );
        assert_eq!(there.recv().unwrap().0, 0);
    }
);

/// A value whose encoding panics, or uses the very pipe that it is sent through.
#[test]
fn what_encoding_does_meanwhile_is_its_own_affair() {
    thread_local!(static PIPE: std::cell::RefCell<Option<Pipe<Nosy>>> = const { std::cell::RefCell::new(None) });
    #[derive(Debug, Deserialize)]
    struct Nosy(u8);
    impl Serialize for Nosy {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self.0 {
                0 => {}
                1 => PIPE.with_borrow(|pipe| pipe.as_ref().unwrap().send(Nosy(0)).unwrap()),
                _ => panic!("while it is encoded"),
            }
            serializer.serialize_u8(self.0)
        }
    }
    let (here, there) = Pipe::<Nosy>::pair().unwrap();
    PIPE.set(Some(here));
    PIPE.with_borrow(|pipe| pipe.as_ref().unwrap().send(Nosy(1)).unwrap());
    let panics = || PIPE.with_borrow(|pipe| pipe.as_ref().unwrap().send(Nosy(2)));
    assert!(std::panic::catch_unwind(panics).is_err());
    PIPE.with_borrow(|pipe| pipe.as_ref().unwrap().send(Nosy(0)).unwrap());
    assert_eq!([there.recv().unwrap().0, there.recv().unwrap().0], [0, 1]);
    assert_eq!(there.recv().unwrap().0, 0);
    assert!(there.try_recv().unwrap_err().is_empty());
}

#[test]
fn many_threads_use_both_ends_at_once() {
    within(LIMIT, || {
        const THREADS: u64 = 4;
        const EACH: u64 = 3_000;
        // Small enough that senders wait, and that some messages take several frames.
        let (here, there) = Pipe::<Vec<u64>>::pair_with_capacity(PAGE).unwrap();
        let (here, there) = (Arc::new(here), Arc::new(there));
        let totals: Vec<u64> = thread::scope(|scope| {
            let mut receivers = Vec::new();
            for (from, to) in [(&here, &there), (&there, &here)] {
                for thread in 0..THREADS {
                    scope.spawn(move || {
                        for n in 0..EACH {
                            let len = if n % 100 == 0 { 2_000 } else { n % 7 };
                            from.send(vec![thread * EACH + n; len as usize + 1])
                                .unwrap();
                        }
                    });
                    receivers.push(scope.spawn(move || {
                        let one = |at: u64| {
                            let message = match at % 3 {
                                0 => to.recv().unwrap(),
                                1 => loop {
                                    match to.recv_timeout(Duration::from_millis(1)) {
                                        Err(error) if error.is_timeout() => {}
                                        received => break received.unwrap(),
                                    }
                                },
                                _ => loop {
                                    to.poll(Duration::from_secs(60)).unwrap();
                                    match to.try_recv() {
                                        Err(error) if error.is_empty() => {}
                                        received => break received.unwrap(),
                                    }
                                },
                            };
                            assert!(message.iter().all(|number| *number == message[0]));
                            message[0]
                        };
                        (0..EACH).map(one).sum::<u64>()
                    }));
                }
            }
            receivers
                .into_iter()
                .map(|one| one.join().unwrap())
                .collect()
        });
        let sent = THREADS * EACH;
        assert_eq!(totals.iter().sum::<u64>(), 2 * (sent * (sent - 1) / 2));
    });
}

#[test]
fn a_thread_that_waits_to_receive_stops_nobody() {
    within(LIMIT, || {
        let (here, there) = Pipe::<u8>::pair().unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| here.recv());
            assert!(here.recv_timeout(SOON).unwrap_err().is_timeout());
            assert!(here.try_recv().unwrap_err().is_empty());
            here.send(1).unwrap();
            assert_eq!(there.recv().unwrap(), 1);
            there.send(2).unwrap();
            assert_eq!(waiting.join().unwrap().unwrap(), 2);
        });
    });
}

each_method!(an_end_moves_with_what_is_unread_in_it, |method| {
    let (here, there) = Pipe::<Vec<u8>>::pair_with_capacity(PAGE).unwrap();
    within(LIMIT, move || {
        thread::scope(|scope| {
            let here = &here;
            // Four times one message before it moves, and one that has come in part.
            for n in 0..4 {
                here.send(bytes(n)).unwrap();
            }
            scope.spawn(move || here.send(bytes(5 * PAGE)).unwrap());
            assert_eq!(there.recv().unwrap(), bytes(0));
            while there.poll(SOON).unwrap() && there.try_recv().unwrap() != bytes(3) {}
            assert!(!there.poll(SOON).unwrap() || there.poll(SOON).unwrap());
            let child: Process = Process::builder()
                .start_method(method)
                .spawn((there,), |(pipe,): (Pipe<Vec<u8>>,)| {
                    assert!(pipe.recv().unwrap() == bytes(5 * PAGE));
                    pipe.send(bytes(6)).unwrap();
                })
                .unwrap();
            assert_eq!(here.recv().unwrap(), bytes(6));
            child.join().unwrap();
        });
    });
});

#[test]
fn an_end_that_has_moved_says_so() {
    let (carrier, other_side) = Pipe::<&'static str>::pair().unwrap();
    drop((carrier, other_side));
    let (carrier, other_side) = Pipe::<Shared>::pair().unwrap();
    let (here, there) = Pipe::<u8>::pair().unwrap();
    let there = Arc::new(there);
    carrier.send(Shared(Arc::clone(&there))).unwrap();
    for error in [
        there.send(1).unwrap_err().into(),
        there.recv().unwrap_err(),
        there.try_recv().unwrap_err(),
        there.poll(SOON).unwrap_err(),
        there.send_bytes(b"").unwrap_err(),
        carrier.send(Shared(Arc::clone(&there))).unwrap_err().into(),
    ] {
        assert!(
            error.to_string().contains("moved to another process"),
            "{error}"
        );
    }
    here.send(3).unwrap();
    let arrived = other_side.recv().unwrap().0;
    assert_eq!(arrived.recv().unwrap(), 3);
    arrived.send(4).unwrap();
    assert_eq!(here.recv().unwrap(), 4);
    drop(there);
    here.send(5).unwrap();
    assert_eq!(arrived.recv().unwrap(), 5);
    drop(arrived);
    // What another test starts just now has a copy of the end for a moment.
    assert!(here.recv().unwrap_err().is_closed());
    assert!(here.send(6).unwrap_err().is_closed());
}

/// An end that several have.
#[derive(Debug)]
struct Shared(Arc<Pipe<u8>>);

impl Serialize for Shared {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Shared {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Pipe::deserialize(deserializer).map(|pipe| Shared(Arc::new(pipe)))
    }
}

#[test]
fn an_end_that_did_not_leave_is_as_before() {
    let (here, there) = Pipe::<u8>::pair().unwrap();
    here.send(1).unwrap();
    // A foreign form is refused.
    let error = serde_json::to_string(&there).unwrap_err();
    assert!(error.to_string().contains("handle"), "{error}");
    assert_eq!(there.recv().unwrap(), 1);
    // The other end of the carrier is gone.
    let (carrier, other_side) = Pipe::<Pipe<u8>>::pair().unwrap();
    drop(other_side);
    // What another test starts just now has a copy of it for a moment.
    assert!(carrier.recv().unwrap_err().is_closed());
    let refused = carrier.send(there).unwrap_err();
    assert!(refused.is_closed());
    let there = refused.into_value();
    // Another field cannot be encoded.
    let (carrier, _other_side) = Pipe::<(Pipe<u8>, Refuses)>::pair().unwrap();
    let (there, _) = carrier.send((there, Refuses(7))).unwrap_err().into_value();
    here.send(2).unwrap();
    assert_eq!(there.recv().unwrap(), 2);
    there.send(3).unwrap();
    assert_eq!(here.recv().unwrap(), 3);
    // A thread waits on it.
    let (carrier, _other_side) = Pipe::<Shared>::pair().unwrap();
    let there = Arc::new(there);
    within(LIMIT, move || {
        let (said, heard) = std::sync::mpsc::channel();
        let waiting = {
            let there = Arc::clone(&there);
            thread::spawn(move || {
                said.send(nix::unistd::gettid()).unwrap();
                there.recv()
            })
        };
        let stat = format!("/proc/self/task/{}/stat", heard.recv().unwrap());
        let sleeps = || {
            let stat = std::fs::read_to_string(&stat).unwrap();
            stat.rsplit_once(") ").unwrap().1.starts_with('S')
        };
        // There is nothing else that it sleeps for.
        assert!(common::census::poll(LIMIT, sleeps, |sleeps| *sleeps));
        let refused = carrier.send(Shared(Arc::clone(&there))).unwrap_err();
        assert!(refused.to_string().contains("another thread"), "{refused}");
        here.send(5).unwrap();
        assert_eq!(waiting.join().unwrap().unwrap(), 5);
    });
}

each_method!(an_ends_halves_live_in_two_processes, |method| {
    let (here, there) = Pipe::<u32, u32>::pair().unwrap();
    let (sender, receiver) = there.split();
    let (relay_in, relay_out) = Pipe::<u32>::pair().unwrap();
    let (relay_in, _) = relay_in.split();
    let (_, relay_out) = relay_out.split();
    let doubles: Process = Process::builder()
        .start_method(method)
        .spawn(
            (receiver, relay_in),
            |(from, to): (Receiver<u32>, Sender<u32>)| {
                from.iter().for_each(|n| to.send(n * 2).unwrap());
            },
        )
        .unwrap();
    let answers: Process = Process::builder()
        .start_method(method)
        .spawn(
            (relay_out, sender),
            |(from, to): (Receiver<u32>, Sender<u32>)| {
                from.iter().for_each(|n| to.send(n + 1).unwrap());
            },
        )
        .unwrap();
    let (ask, answer) = here.split();
    for n in 0..1_000 {
        ask.send(n).unwrap();
        assert_eq!(answer.recv().unwrap(), n * 2 + 1);
    }
    drop(ask);
    assert!(answer.recv().unwrap_err().is_closed());
    doubles.join().unwrap();
    answers.join().unwrap();
});

each_method!(a_pipes_end_goes_through_a_pipe_and_comes_back, |method| {
    let (carrier, other_side) = Pipe::<Pipe<u64>>::pair().unwrap();
    let child: Process = Process::builder()
        .start_method(method)
        .spawn((other_side,), |(carrier,): (Pipe<Pipe<u64>>,)| {
            for pipe in carrier.iter() {
                pipe.send(pipe.recv().unwrap() + 1).unwrap();
                carrier.send(pipe).unwrap();
            }
        })
        .unwrap();
    let (here, mut there) = Pipe::<u64>::pair().unwrap();
    for round in 0..50 {
        here.send(round).unwrap();
        carrier.send(there).unwrap();
        assert_eq!(here.recv().unwrap(), round + 1);
        there = carrier.recv().unwrap();
        here.send(round).unwrap();
        assert_eq!(there.recv().unwrap(), round);
    }
    drop(carrier);
    child.join().unwrap();
});

each_method_alone!(three_hundred_handles_travel_in_one_message, |method| {
    let (carrier, other_side) = Pipe::<Vec<Sender<usize>>>::pair().unwrap();
    let child: Process = Process::builder()
        .start_method(method)
        .spawn((other_side,), |(carrier,): (Pipe<Vec<Sender<usize>>>,)| {
            for senders in carrier.iter() {
                for (at, sender) in senders.iter().enumerate() {
                    sender.send(at).unwrap();
                }
            }
        })
        .unwrap();
    // 300 senders have two descriptors each; of the 600, several records are made.
    let (receivers, senders): (Vec<Receiver<usize>>, Vec<Sender<usize>>) = (0..300)
        .map(|_| {
            let (here, there) = Pipe::<usize>::pair_with_capacity(PAGE).unwrap();
            (here.split().1, there.split().0)
        })
        .unzip();
    carrier.send(senders).unwrap();
    for (at, receiver) in receivers.iter().enumerate() {
        assert_eq!(receiver.recv().unwrap(), at);
    }
    drop(carrier);
    child.join().unwrap();
    for receiver in &receivers {
        assert!(receiver.recv().unwrap_err().is_closed());
    }
});

each_method_alone!(handles_in_messages_that_nobody_reads_are_closed, |method| {
    let (carrier, other_side) = Pipe::<Pipe<u8>>::pair().unwrap();
    let ends: Vec<Pipe<u8>> = (0..20)
        .map(|_| {
            let (here, there) = Pipe::<u8>::pair().unwrap();
            here.send(1).unwrap();
            carrier.send(there).unwrap();
            here
        })
        .collect();
    let child: Process = Process::builder()
        .start_method(method)
        .spawn((other_side,), |(carrier,): (Pipe<Pipe<u8>>,)| {
            assert_eq!(carrier.recv().unwrap().recv().unwrap(), 1);
        })
        .unwrap();
    child.join().unwrap();
    for end in ends {
        assert!(end.recv().unwrap_err().is_closed());
        assert!(end.send(2).unwrap_err().is_closed());
    }
});

#[test]
fn a_long_message_that_ran_out_of_time_leaves_no_copy_of_its_handles() {
    type Parcel = (Pipe<u8>, Vec<u8>);
    within(LIMIT, || {
        let (carrier, other_side) = Pipe::<Parcel>::pair_with_capacity(PAGE).unwrap();
        for round in 0..3 {
            let (here, there) = Pipe::<u8>::pair().unwrap();
            let late = carrier.send_timeout((there, bytes(10 * PAGE)), SOON);
            let late = late.unwrap_err();
            assert!(late.is_timeout());
            let (there, _) = late.into_value();
            here.send(1).unwrap();
            assert_eq!(there.recv().unwrap(), 1);
            if round > 0 {
                // What has come of it is taken in.
                assert!(other_side.try_recv().unwrap_err().is_empty());
            }
            drop(there);
            // Else this would wait for ever, unless the carrier is closed or another message goes through it.
            assert!(here.recv().unwrap_err().is_closed());

            // The next letters, of one frame and of many, are whole.
            for len in [10, 10 * PAGE] {
                let (here, there) = Pipe::<u8>::pair().unwrap();
                let (there, came) = thread::scope(|scope| {
                    scope.spawn(|| carrier.send((there, bytes(len))).unwrap());
                    other_side.recv().unwrap()
                });
                assert_eq!(came, bytes(len));
                here.send(2).unwrap();
                assert_eq!(there.recv().unwrap(), 2);
                drop(there);
                assert!(here.recv().unwrap_err().is_closed());
            }
        }
    });
}

#[test]
fn handles_that_nobody_takes_out_of_a_message_are_closed() {
    let (carrier, other_side) = Pipe::<Pipe<u8>>::pair().unwrap();
    let (here, there) = Pipe::<u8>::pair().unwrap();
    carrier.send(there).unwrap();
    // As bytes, it is a message like any other.
    other_side.recv_bytes().unwrap();
    assert!(here.recv().unwrap_err().is_closed());
    let (here, there) = Pipe::<u8>::pair().unwrap();
    carrier.send(there).unwrap();
    drop(other_side);
    assert!(here.recv().unwrap_err().is_closed());
}

#[test]
fn handles_that_cannot_be_opened_are_their_messages_error() {
    let test = test_path(
        module_path!(),
        "handles_that_cannot_be_opened_are_their_messages_error",
    );
    in_own_process(&test, LIMIT, || {
        let (carrier, other_side) = Pipe::<(u8, Vec<Pipe<u8>>)>::pair().unwrap();
        let (fifth, _sixth) = Pipe::<u8>::pair().unwrap();
        carrier.send((1, vec![fifth])).unwrap();
        carrier.send((2, Vec::new())).unwrap();
        let (_soft, hard) =
            nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
        let lowest_free = std::fs::File::open("/dev/null").unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&lowest_free) as u64;
        drop(lowest_free);
        let set = |soft| {
            let limit = nix::sys::resource::Resource::RLIMIT_NOFILE;
            nix::sys::resource::setrlimit(limit, soft, hard).unwrap();
        };
        set(number + 1);
        let error = other_side.recv().unwrap_err();
        set(hard);
        assert!(error.to_string().contains("descriptors"), "{error}");
        assert_eq!(other_side.recv().unwrap().0, 2);
        let (seventh, eighth) = Pipe::<u8>::pair().unwrap();
        carrier.send((3, vec![seventh])).unwrap();
        let (three, pipes) = other_side.recv().unwrap();
        pipes[0].send(9).unwrap();
        assert_eq!((three, eighth.recv().unwrap()), (3, 9));
    });
}

#[test]
fn a_pipe_holds_seven_descriptors_and_gives_them_back() {
    let test = test_path(
        module_path!(),
        "a_pipe_holds_seven_descriptors_and_gives_them_back",
    );
    in_own_process(&test, LIMIT, || {
        let before = common::census::descriptors().len();
        let (here, there) = Pipe::<u8>::pair().unwrap();
        assert_eq!(common::census::descriptors().len(), before + 7);
        let _watched = std::os::fd::AsFd::as_fd(&here);
        assert_eq!(common::census::descriptors().len(), before + 8);
        drop(here);
        // The memory and the events are shared by both ends while they are in one process.
        assert_eq!(common::census::descriptors().len(), before + 5);
        drop(there);
        assert_eq!(common::census::descriptors().len(), before);
    });
}

#[test]
fn a_reader_that_sleeps_uses_no_processor() {
    let test = test_path(module_path!(), "a_reader_that_sleeps_uses_no_processor");
    in_own_process(&test, LIMIT, || {
        let (here, there) = Pipe::<u8>::pair().unwrap();
        let used = || {
            let usage =
                nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_THREAD).unwrap();
            let of = |time: nix::sys::time::TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
            of(usage.user_time()) + of(usage.system_time())
        };
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let before = used();
                assert_eq!(there.recv().unwrap(), 1);
                used() - before
            });
            // Only time tells that nothing happens.
            thread::sleep(Duration::from_secs(1));
            here.send(1).unwrap();
            let micros = reader.join().unwrap();
            assert!(
                micros < 50_000,
                "{micros} us of a processor in a second asleep"
            );
        });
    });
}

#[test]
fn of_two_copies_that_a_fork_made_the_first_to_be_used_is_the_end() {
    let test = test_path(
        module_path!(),
        "of_two_copies_that_a_fork_made_the_first_to_be_used_is_the_end",
    );
    in_own_process(&test, LIMIT, || {
        let (here, there) = Pipe::<u32>::pair().unwrap();
        here.send(1).unwrap();
        // A copy that is not used changes nothing.
        assert_eq!(in_fork(|| {}), 0);
        here.send(2).unwrap();
        // One that is, is the end from then on.
        assert_eq!(in_fork(|| here.send(3).unwrap()), 0);
        let second = in_fork(|| {
            let refused = here.send(4).unwrap_err();
            assert!(!refused.is_closed() && !refused.is_full(), "{refused}");
        });
        assert_eq!(second, 0);
        let refused = here.send(5).unwrap_err();
        assert!(!refused.is_closed() && !refused.is_full(), "{refused}");
        assert!(here.try_recv().unwrap_err().is_empty(), "its other half");
        let received = (0..3).map(|_| there.recv().unwrap());
        assert_eq!(received.collect::<Vec<_>>(), [1, 2, 3]);
        assert!(there.try_recv().unwrap_err().is_empty());

        let (here, there) = Pipe::<u32>::pair().unwrap();
        (0..3).for_each(|number| here.send(number).unwrap());
        assert_eq!(in_fork(|| assert_eq!(there.recv().unwrap(), 0)), 0);
        let refused = there.recv().unwrap_err();
        assert!(!refused.is_closed() && !refused.is_empty(), "{refused}");
        let (carrier, _other) = Pipe::<Pipe<u32>>::pair().unwrap();
        assert!(carrier.send(there).is_err(), "nor does it move");
    });
}

#[test]
fn more_than_a_gibibyte_of_capacity_is_refused() {
    let error = Pipe::<u8>::pair_with_capacity(usize::MAX).unwrap_err();
    assert!(
        error.to_string().starts_with("cannot make a pipe"),
        "{error}"
    );
}
