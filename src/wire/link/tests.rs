//! Messages of every size, their descriptors, and what a side does with a peer that dies, lies or never ends.

use super::*;
use crate::deadline::Deadline;
use crate::sys::poll::Watch;
use std::time::Duration;

const CAPACITY: usize = 64 * 1024;

fn pair() -> (Link, Link) {
    let (here, peer) = Link::pair(CAPACITY).unwrap();
    (here, Link::attach(peer).unwrap())
}

fn header(kind: u32) -> Header {
    Header {
        kind,
        count: 1,
        words: [1, 2, 3, 4],
        ..Header::default()
    }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

#[test]
fn messages_of_every_size_around_the_rings_arrive_whole() {
    let (mut here, mut there) = pair();
    let sizes = [
        0,
        1,
        HEADER,
        CAPACITY - HEADER - 1,
        CAPACITY - HEADER,
        CAPACITY - HEADER + 1,
        CAPACITY - 1,
        CAPACITY,
        CAPACITY + 1,
        3 * CAPACITY + 7,
        40 << 20,
    ];
    let sender = std::thread::spawn(move || {
        for (kind, &size) in (0..).zip(&sizes) {
            here.send(&header(kind), &bytes(size), &[]).unwrap();
        }
        here.flush().unwrap();
    });
    for (kind, &size) in (0..).zip(&sizes) {
        let message = there.receive().unwrap();
        assert_eq!(
            message.header,
            Header {
                length: size as u64,
                ..header(kind)
            }
        );
        assert!(message.body == bytes(size), "body of {size} bytes");
    }
    sender.join().unwrap();
    assert!(matches!(there.receive(), Err(LinkError::Closed)));
}

#[test]
fn a_hundred_thousand_round_trips_lose_no_wake_up() {
    let (mut here, mut there) = pair();
    let echo = std::thread::spawn(move || {
        while let Ok(message) = there.receive() {
            there.send(&message.header, &message.body, &[]).unwrap();
            there.flush().unwrap();
        }
    });
    for round in 0..100_000u32 {
        here.send(&header(round), &round.to_le_bytes(), &[])
            .unwrap();
        here.flush().unwrap();
        assert_eq!(here.receive().unwrap().header.kind, round);
    }
    drop(here);
    echo.join().unwrap();
}

#[test]
fn messages_that_were_whole_outlive_their_sender() {
    let (mut here, mut there) = pair();
    here.send(&header(1), b"whole", &[]).unwrap();
    let mut sent = Sent::default();
    assert!(
        !here
            .try_send(&header(2), &bytes(2 * CAPACITY), &[], &mut sent)
            .unwrap()
    );
    drop(here);
    assert_eq!(there.receive().unwrap().body, b"whole");
    assert!(matches!(there.receive(), Err(LinkError::Closed)));
}

#[test]
fn a_sender_blocked_on_a_full_ring_learns_that_its_reader_is_gone() {
    let (mut here, there) = pair();
    let sender = std::thread::spawn(move || here.send(&header(1), &bytes(10 * CAPACITY), &[]));
    drop(there);
    assert!(matches!(sender.join().unwrap(), Err(LinkError::Closed)));
}

#[test]
fn descriptors_arrive_with_their_messages_however_many() {
    let (mut here, mut there) = pair();
    let device = Arc::new(crate::sys::descriptor::null_device().unwrap());
    let counts = [0, 1, 300, 0, 2];
    let rounds = 200;
    let sender = std::thread::spawn(move || {
        for count in counts.repeat(rounds) {
            let descriptors = vec![Arc::clone(&device); count];
            here.send(&header(1), &bytes(count), &descriptors).unwrap();
            here.flush().unwrap();
        }
    });
    for count in counts.repeat(rounds) {
        let message = there.receive().unwrap();
        assert_eq!(
            (message.body.len(), message.descriptors.len()),
            (count, count)
        );
    }
    sender.join().unwrap();
}

#[test]
fn a_ring_that_is_full_to_the_last_byte_takes_a_message_with_descriptors_later() {
    let (mut here, mut there) = pair();
    let device = [Arc::new(crate::sys::descriptor::null_device().unwrap())];
    here.send(&header(1), &bytes(CAPACITY - HEADER), &[])
        .unwrap();
    let mut sent = Sent::default();
    for _ in 0..3 {
        let is_whole = here.try_send(&header(2), b"", &device, &mut sent).unwrap();
        assert!(!is_whole && sent.bytes == 0);
    }
    there.receive().unwrap();
    assert!(here.try_send(&header(2), b"", &device, &mut sent).unwrap());
    here.send(&header(3), b"", &device).unwrap();
    here.flush().unwrap();
    for kind in [2, 3] {
        let message = there.receive().unwrap();
        assert_eq!((message.header.kind, message.descriptors.len()), (kind, 1));
    }
}

#[test]
fn a_message_without_its_descriptors_is_corrupt() {
    let (mut here, mut there) = pair();
    let lying = Header {
        descriptors: 1,
        ..header(1)
    };
    here.ring.put(bytemuck::bytes_of(&lying)).unwrap();
    here.flush().unwrap();
    assert!(matches!(there.try_receive(), Err(LinkError::Corrupt(_))));
    assert!(matches!(there.try_receive(), Err(LinkError::Corrupt(_))));
}

#[test]
fn a_message_that_never_ends_is_corrupt() {
    let (mut here, mut there) = pair();
    let longer = Header {
        length: 100,
        ..header(1)
    };
    here.ring.put(bytemuck::bytes_of(&longer)).unwrap();
    here.ring.put(b"ten bytes.").unwrap();
    here.flush().unwrap();
    assert!(there.try_receive().unwrap().is_none());
    assert!(
        !there.prepare_sleep(true, 0),
        "the sender may still be at it"
    );
    there.wake_up();
    assert!(!here.prepare_sleep(true, 0));
    assert!(there.prepare_sleep(true, 0));
    assert!(matches!(there.try_receive(), Err(LinkError::Corrupt(_))));
}

#[test]
fn a_message_that_is_begun_while_its_senders_other_thread_sleeps_is_not_corrupt() {
    let (mut here, mut there) = pair();
    let long = bytes(2 * CAPACITY);
    let mut sent = Sent::default();
    // Of two threads that share this side, one sleeps until something comes, and then the other one sends.
    assert!(!here.prepare_sleep(true, 0));
    assert!(!here.try_send(&header(1), &long, &[], &mut sent).unwrap());
    assert!(there.try_receive().unwrap().is_none());
    assert!(!there.prepare_sleep(true, 0), "more will come");
    there.wake_up();
    here.wake_up();
    while !here.try_send(&header(1), &long, &[], &mut sent).unwrap() {
        assert!(there.try_receive().unwrap().is_none());
    }
    here.flush().unwrap();
    assert_eq!(there.receive().unwrap().body, long);
}

#[test]
fn a_length_that_no_memory_holds_is_an_error_and_asks_for_none() {
    let (mut here, mut there) = pair();
    let hostile = Header {
        length: limits::longest_message() + 1,
        ..header(1)
    };
    here.ring.put(bytemuck::bytes_of(&hostile)).unwrap();
    here.ring.put(b"some").unwrap();
    here.flush().unwrap();
    assert!(matches!(there.try_receive(), Err(LinkError::NoMemory(_))));
    assert!(there.incoming.is_none());
}

#[test]
fn memory_for_a_long_message_is_asked_for_as_it_arrives() {
    let (mut here, mut there) = pair();
    let long = Header {
        length: limits::longest_message(),
        ..header(1)
    };
    here.ring.put(bytemuck::bytes_of(&long)).unwrap();
    here.ring.put(b"some").unwrap();
    here.flush().unwrap();
    assert!(there.try_receive().is_ok_and(|message| message.is_none()));
    assert!(
        there
            .incoming
            .is_some_and(|message| message.body.capacity() <= TRUSTED_LENGTH)
    );
}

#[test]
fn who_takes_a_message_in_is_not_kept_by_one_who_goes_on_sending() {
    let (mut here, mut there) = pair();
    let long = bytes(400 * CAPACITY);
    let expected = long.clone();
    let sender = std::thread::spawn(move || {
        here.send(&header(1), &long, &[]).unwrap();
        here.flush().unwrap();
        here
    });
    let mut before = 0;
    let message = loop {
        let received = there.try_receive().unwrap();
        let all = match (&received, &there.incoming) {
            (Some(message), _) | (None, Some(message)) => message.body.len(),
            (None, None) => 0,
        };
        assert!(all - before <= RINGS_AT_ONCE * CAPACITY);
        before = all;
        match received {
            Some(message) => break message,
            None => there.wait(true, 0).unwrap(),
        }
    };
    assert_eq!(message.body, expected);
    drop(sender.join().unwrap());
}

#[test]
fn room_for_descriptors_is_waited_for_at_the_socket() {
    let (mut here, mut there) = pair();
    let device = [Arc::new(crate::sys::descriptor::null_device().unwrap())];
    let mut sent = Sent::default();
    let mut letters = 0;
    while here.try_send(&header(1), b"", &device, &mut sent).unwrap() {
        letters += 1;
        sent = Sent::default();
        // The ring is not what fills.
        there.ring.look_for_data().unwrap();
    }
    assert!(sent.lacks_descriptors(&device), "{letters} letters fit");
    let watch = Watch::new().unwrap();
    watch.add(here.news(), 1).unwrap();
    watch.also_for_room(here.news(), 1, true).unwrap();
    let mut ready = Vec::new();
    let now = || Deadline::after(Duration::ZERO);
    watch.wait(&mut ready, now()).unwrap();
    assert!(ready.is_empty());
    for _ in 0..letters {
        assert_eq!(there.receive().unwrap().descriptors.len(), 1);
    }
    watch.wait(&mut ready, now()).unwrap();
    assert_eq!(ready, [1]);
    assert!(here.try_send(&header(2), b"", &device, &mut sent).unwrap());
    watch.also_for_room(here.news(), 1, false).unwrap();
    watch.wait(&mut ready, now()).unwrap();
    assert!(ready.is_empty(), "nobody waits for room any more");
}
