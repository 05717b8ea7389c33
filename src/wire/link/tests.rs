//! Messages of every size, their descriptors, and what a side does with a peer that dies, lies or never ends.

use super::*;
use crate::deadline::Deadline;
use crate::sys::file::identity;
use crate::sys::frozen::{draft, freeze};
use crate::sys::poll::Watch;
use crate::sys::room::Numbers;
use crate::sys::shared::SharedFd;
use crate::wire::loans::PLACES;
use std::time::{Duration, Instant};

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
fn the_side_that_was_attached_hears_when_it_waits_that_it_is_to_leave_and_the_other_never() {
    let (mut here, mut there) = pair();
    let echo = std::thread::spawn(move || {
        while let Ok(message) = there.receive() {
            there.send_away();
            let mut header = header(message.header.kind);
            header.words[0] = there.asked_away;
            there.send(&header, &[], &[]).unwrap();
            there.flush().unwrap();
        }
    });
    for asked in 1..=3 {
        here.send_away();
        loop {
            here.send(&header(7), &[], &[]).unwrap();
            // Only who finds nothing waits.
            if here.receive().unwrap().header.words[0] == asked {
                break;
            }
        }
    }
    assert_eq!(here.asked_away, 0);
    drop(here);
    echo.join().unwrap();
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
    let device = SharedFd::of(crate::sys::descriptor::null_device().unwrap());
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
    let device = [SharedFd::of(crate::sys::descriptor::null_device().unwrap())];
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
    let device = [SharedFd::of(crate::sys::descriptor::null_device().unwrap())];
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

/// A memory file that nobody can change any more.
fn frozen() -> Arc<SharedFd> {
    SharedFd::of(freeze(draft(0).unwrap()).unwrap())
}

/// Sends a message with these, and what of it arrives.
fn pass(here: &mut Link, there: &mut Link, descriptors: &[Arc<SharedFd>]) -> Vec<Arc<SharedFd>> {
    let body = bytes(8 * descriptors.len());
    here.send(&header(1), &body, descriptors).unwrap();
    here.flush().unwrap();
    let message = there.receive().unwrap();
    assert_eq!(message.body, body);
    message.descriptors
}

fn same(one: &OwnedFd, other: &OwnedFd) -> bool {
    identity(one).unwrap() == identity(other).unwrap()
}

#[test]
fn what_the_other_side_has_is_named_and_not_sent_again() {
    let (mut here, mut there) = pair();
    let file = frozen();
    let held = pass(&mut here, &mut there, &[Arc::clone(&file)]);
    for count in [1, 2, PLACES, 300] {
        let again = pass(&mut here, &mut there, &vec![Arc::clone(&file); count]);
        assert_eq!(again.len(), count);
        assert!(again.iter().all(|one| Arc::ptr_eq(one, &held[0])));
        assert_eq!(here.outbox.letters(), 1);
    }
    // The other way nothing is: who takes what comes may be anywhere.
    for letters in 1..3 {
        pass(&mut there, &mut here, &held);
        assert_eq!(there.outbox.letters(), letters);
    }
}

#[test]
fn in_a_body_too_short_to_name_so_many_they_are_sent_again() {
    let (mut here, mut there) = pair();
    let files = [frozen(), frozen(), frozen()];
    let held = pass(&mut here, &mut there, &files);
    for letters in 2..5 {
        here.send(&header(1), b"[0,1,2]", &files).unwrap();
        here.flush().unwrap();
        let came = there.receive().unwrap().descriptors;
        assert!(came.iter().zip(&held).all(|(one, other)| same(one, other)));
        assert_eq!(here.outbox.letters(), letters);
    }
}

#[test]
fn what_could_change_is_always_sent() {
    let (mut here, mut there) = pair();
    let files = [
        SharedFd::of(crate::sys::descriptor::null_device().unwrap()),
        SharedFd::of(SealedMemory::create(4096).unwrap().into()),
    ];
    for letters in 1..4 {
        let came = pass(&mut here, &mut there, &files);
        drop(came);
        assert_eq!(here.outbox.letters(), letters);
    }
}

#[test]
fn what_nobody_else_has_is_let_go_of_after_a_while_or_some_messages() {
    let (mut here, mut there) = pair();
    let file = [frozen()];
    let rest = |there: &mut Link| there.holder.as_mut().unwrap().rest(&there.ring);
    let held = pass(&mut here, &mut there, &file);
    let kept = Arc::downgrade(&held[0]);
    rest(&mut there);
    drop(held);
    assert!(kept.strong_count() > 0, "it was held");
    rest(&mut there);
    assert_eq!(kept.strong_count(), 0);
    let again = Arc::downgrade(&pass(&mut here, &mut there, &file)[0]);
    assert_eq!(here.outbox.letters(), 2);
    for _ in 0..20 {
        pass(&mut here, &mut there, &[]);
    }
    assert_eq!(again.strong_count(), 0);
}

#[test]
fn what_nobody_else_has_stays_for_the_next_message_and_goes_if_none_comes() {
    let (mut here, mut there) = pair();
    let file = frozen();
    let receiver = std::thread::spawn(move || {
        let mut kept = std::sync::Weak::new();
        while let Ok(message) = there.receive() {
            kept = Arc::downgrade(&message.descriptors[0]);
        }
        kept
    });
    let send = |here: &mut Link| {
        here.send(&header(1), &bytes(8), &[Arc::clone(&file)])
            .unwrap();
        here.flush().unwrap();
    };
    let limit = Instant::now() + Duration::from_secs(60);
    let mut messages = 0;
    // Any of them may come only after it has been let go of, however soon it is sent.
    while here.outbox.letters() == messages {
        assert!(
            Instant::now() < limit,
            "it was asleep, and had let go of it"
        );
        send(&mut here);
        messages += 1;
        let is_asleep = |here: &Link| {
            let (put, taken) = here.positions();
            put == taken && here.ring.peer_only_waits_for_data()
        };
        while !is_asleep(&here) {
            std::thread::yield_now();
        }
    }
    // It says when it has let go of it, and is asleep then.
    let place = here.lender.as_ref().unwrap().place_of(&file).unwrap();
    let limit = Instant::now() + Duration::from_secs(60);
    while here.ring.held_by_peer(place) != 0 {
        assert!(Instant::now() < limit, "it is never let go of");
        std::thread::yield_now();
    }
    drop(here);
    assert_eq!(receiver.join().unwrap().strong_count(), 0);
}

#[test]
fn what_is_named_stays_till_it_has_come() {
    let (mut here, mut there) = pair();
    let file = [frozen()];
    drop(pass(&mut here, &mut there, &file));
    // Not a byte of the message is there yet.
    here.send(&header(2), &bytes(CAPACITY - HEADER), &[])
        .unwrap();
    let mut sent = Sent::default();
    assert!(
        !here
            .try_send(&header(3), &[0; 8], &file, &mut sent)
            .unwrap()
    );
    let rest = |there: &mut Link| there.holder.as_mut().unwrap().rest(&there.ring);
    rest(&mut there);
    there.receive().unwrap();
    rest(&mut there);
    assert!(
        here.try_send(&header(3), &[0; 8], &file, &mut sent)
            .unwrap()
    );
    here.flush().unwrap();
    let came = there.receive().unwrap().descriptors;
    assert!(same(&came[0], &file[0]));
    assert_eq!(here.outbox.letters(), 1);
    drop(came);
    rest(&mut there);
    assert!(same(&pass(&mut here, &mut there, &file)[0], &file[0]));
    assert_eq!(here.outbox.letters(), 2, "it was let go of after that");
}

#[test]
fn what_was_lost_on_the_way_is_sent_again() {
    let (mut here, mut there) = pair();
    let file = [frozen()];
    // As where the receiver may open no more.
    let places = here.lender.as_mut().unwrap().place(&file);
    let holder = there.holder.as_mut().unwrap();
    holder.keep(&there.ring, &[], places);
    for letters in [1, 1, 1] {
        assert!(same(&pass(&mut here, &mut there, &file)[0], &file[0]));
        assert_eq!(here.outbox.letters(), letters);
    }
}

#[test]
fn any_files_in_any_order_arrive_as_they_were_sent() {
    let (mut here, mut there) = pair();
    let mut files: Vec<_> = (0..2 * PLACES).map(|_| frozen()).collect();
    files.push(SharedFd::of(crate::sys::descriptor::null_device().unwrap()));
    let mut held: Vec<Arc<SharedFd>> = Vec::new();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |end: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % end as u64) as usize
    };
    for _ in 0..20_000 {
        match below(8) {
            0 => there.holder.as_mut().unwrap().rest(&there.ring),
            1 => held.truncate(below(4)),
            2 => files[below(2 * PLACES)] = frozen(),
            _ => {
                let most = if below(8) == 0 { 20 } else { 3 };
                let count = below(most);
                let some: Vec<_> = (0..count)
                    .map(|_| Arc::clone(&files[below(files.len())]))
                    .collect();
                let came = pass(&mut here, &mut there, &some);
                assert_eq!(came.len(), count);
                assert!(came.iter().zip(&some).all(|(one, other)| same(one, other)));
                held.extend(came);
            }
        }
    }
    let letters = here.outbox.letters();
    assert!(letters > 1000, "{letters} were sent, and the others named");
}

#[test]
fn a_name_for_nothing_is_corrupt() {
    let nowhere = [0x81, 0x88, 0x89, 0xff, 0x80];
    for (place, length, count) in nowhere.map(|place| (place, 8, 1)).into_iter().chain([
        (0x81, 8, 2),
        (0x81, 8, u64::MAX),
        (0x81, 0, 1),
    ]) {
        let (mut here, mut there) = pair();
        let held = pass(&mut here, &mut there, &[frozen()]);
        let is_there = place == 0x81 && count == 1 && length == 8;
        let lying = Header {
            length,
            descriptors: count,
            places: [place, 0, 0, 0, 0, 0, 0, 0],
            ..header(1)
        };
        here.ring.put(bytemuck::bytes_of(&lying)).unwrap();
        here.ring.put(&[0; 8][..length as usize]).unwrap();
        here.flush().unwrap();
        match there.try_receive() {
            Ok(Some(message)) if is_there => assert!(same(&message.descriptors[0], &held[0])),
            Err(LinkError::Corrupt(_)) if !is_there => {}
            other => panic!("place {place:#x}: {other:?}"),
        }
    }
    // Nor does the side that keeps nothing have any.
    let (mut here, mut there) = pair();
    let lying = Header {
        length: 8,
        descriptors: 1,
        places: [0x81, 0, 0, 0, 0, 0, 0, 0],
        ..header(1)
    };
    there.ring.put(bytemuck::bytes_of(&lying)).unwrap();
    there.ring.put(&[0; 8]).unwrap();
    there.flush().unwrap();
    assert!(matches!(here.try_receive(), Err(LinkError::Corrupt(_))));
}

/// A room for the bodies of messages of kind 1, as long as it is of use.
struct Guest {
    room: Option<Numbers<u8>>,
    place: usize,
}

impl Host for Guest {
    fn room_for(&mut self, header: &Header) -> Option<(&mut dyn Room, usize)> {
        let is_mine = header.kind == 1;
        self.room
            .as_mut()
            .filter(|_| is_mine)
            .map(|room| (room as &mut dyn Room, self.place))
    }
}

#[test]
fn a_body_goes_to_the_room_that_its_host_has_and_others_come_as_ever() {
    let (mut here, mut there) = pair();
    let body = bytes(5 * CAPACITY);
    let expected = body.clone();
    let sender = std::thread::spawn(move || {
        for kind in [2, 1, 2] {
            here.send(&header(kind), &body, &[]).unwrap();
        }
        here.flush().unwrap();
        here
    });
    let mut guest = Guest {
        room: Some(Numbers::new(5 + expected.len()).unwrap()),
        place: 5,
    };
    let mut come = Vec::new();
    while come.len() < 3 {
        come.extend(there.try_receive_for(&mut guest).unwrap());
    }
    for message in &come {
        let is_hosted = message.header.kind == 1;
        assert_eq!(message.is_hosted, is_hosted);
        assert_eq!(message.body.is_empty(), is_hosted);
        assert!(is_hosted || message.body == expected);
    }
    drop(sender.join().unwrap());
    // Before its place nothing was written.
    let room = guest.room.unwrap();
    assert!(room.into_vec(5 + expected.len()).is_none());
}

#[test]
fn a_body_that_its_host_has_no_use_for_any_more_is_passed_over() {
    let (mut here, mut there) = pair();
    let mut sent = Sent::default();
    let body = bytes(3 * CAPACITY);
    let mut guest = Guest {
        room: Some(Numbers::new(4 * CAPACITY).unwrap()),
        place: 5,
    };
    while !here.try_send(&header(1), &body, &[], &mut sent).unwrap() {
        assert!(there.try_receive_for(&mut guest).unwrap().is_none());
        guest.room = None;
    }
    here.send(&header(2), &bytes(9), &[]).unwrap();
    here.flush().unwrap();
    let hosted = there.try_receive_for(&mut guest).unwrap().unwrap();
    assert!(hosted.is_hosted && hosted.header.kind == 1);
    let next = there.try_receive_for(&mut guest).unwrap().unwrap();
    assert_eq!(next.body, bytes(9));
    // The next one that is hosted begins at its own beginning.
    here.send(&header(1), &bytes(99), &[]).unwrap();
    here.flush().unwrap();
    let mut guest = Guest {
        room: Some(Numbers::new(99).unwrap()),
        place: 0,
    };
    assert!(there.try_receive_for(&mut guest).unwrap().is_some());
    assert_eq!(guest.room.unwrap().into_vec(99), Some(bytes(99)));
}

#[test]
fn what_was_taken_is_counted_and_who_is_in_the_middle_of_sending_is_known() {
    let (mut here, mut there) = pair();
    assert!(!there.is_receiving() && there.taken() == 0);
    let mut sent = Sent::default();
    let body = bytes(2 * CAPACITY);
    while !here.try_send(&header(1), &body, &[], &mut sent).unwrap() {
        let before = there.taken();
        assert!(there.try_receive().unwrap().is_none());
        assert!(there.is_receiving() && there.taken() > before);
    }
    here.flush().unwrap();
    assert_eq!(there.try_receive().unwrap().unwrap().body, body);
    assert_eq!(there.taken(), (HEADER + body.len()) as u64);
    assert!(!there.is_receiving());
    // One that fills the ring, and another that has not even begun.
    let body = bytes(CAPACITY - HEADER);
    here.send(&header(1), &body, &[]).unwrap();
    here.flush().unwrap();
    assert!(!here.prepare_sleep(false, 1));
    assert!(there.try_receive().unwrap().is_some());
    assert!(!there.has_data() && there.is_receiving());
    here.wake_up();
    assert!(!there.is_receiving());
}

#[test]
fn from_who_was_given_up_nothing_more_is_taken() {
    let (mut here, mut there) = pair();
    for kind in 1..3 {
        here.send(&header(kind), &bytes(10), &[]).unwrap();
    }
    here.flush().unwrap();
    assert!(there.try_receive().unwrap().is_some());
    there.give_up();
    assert!(matches!(there.try_receive(), Err(LinkError::Corrupt(_))));
}
