//! What a run leaves behind when a function panics, or a message has fewer items than it claims.

use super::*;
use crate::wire::Link;
use std::fmt::Debug;
use std::ops::Range;

/// The ticket of a chunk's first item.
const FIRST: u64 = 100;

/// A chunk, and the parent, who sees which item is being worked on.
fn chunk_of(lane: Lane, count: usize, body: Vec<u8>) -> (Chunk, Link) {
    let (parent, peer) = Link::pair(4096).unwrap();
    let progress = Link::attach(peer).unwrap().note();
    let nothing = Captures::None;
    let chunk = Chunk::new(lane, count, body, Vec::new(), FIRST, progress, nothing);
    (chunk, parent)
}

/// At which byte a chunk is, how many items are left, and which one is next.
fn state(chunk: &Chunk) -> (usize, usize, u64) {
    (chunk.at, chunk.left(), chunk.ticket())
}

fn outputs(chunk: &mut Chunk) -> Vec<(Lane, usize, Vec<u8>)> {
    let parts = |output: &Output| (output.lane(), output.count(), output.bytes().to_vec());
    chunk.take_outputs().iter().map(parts).collect()
}

#[track_caller]
fn failure(ended: Ended) -> TaskError {
    match ended {
        Ended::Failed(error) => error,
        Ended::Well => panic!("it has ended well"),
    }
}

/// Has the numbers from 1 to 5 worked on, of which `fatal` panics: up to `allowed` of them, and then what is left.
#[track_caller]
fn run_around_panic<A, R>(
    (allowed, fatal): (usize, u8),
    result: fn(u8) -> R,
    lane: Lane,
    bytes: fn(R) -> Vec<u8>,
) where
    A: Portable + From<u8> + TryInto<u8, Error: Debug>,
    R: Portable,
    Vec<A>: Raw,
{
    let size = size_of::<A>();
    let items: Vec<A> = (1..=5).map(A::from).collect();
    let body = items.bytes().to_vec();
    let (mut chunk, parent) = chunk_of(Lane::Numbers(size as u32), 5, body);
    let call = |item: A| {
        let number: u8 = item.try_into().unwrap();
        assert_ne!(number, fatal, "this one is fatal");
        result(number)
    };
    let expected = |numbers: Range<u8>| {
        let count = numbers.len();
        let all: Vec<u8> = numbers.flat_map(|number| bytes(result(number))).collect();
        Vec::from_iter((count > 0).then_some((lane, count, all)))
    };

    chunk.allow(allowed);
    assert!(failure(chunk.run(call)).is_panic());
    let begun = usize::from(fatal);
    let next = FIRST + u64::from(fatal);
    assert_eq!(state(&chunk), (begun * size, 5 - begun, next));
    assert_eq!(parent.peer_note(), next);
    assert_eq!(outputs(&mut chunk), expected(1..fatal));

    chunk.allow(9);
    assert!(matches!(chunk.run(call), Ended::Well));
    assert_eq!(state(&chunk), (5 * size, 0, FIRST + 5));
    assert_eq!(parent.peer_note(), FIRST + 5);
    assert_eq!(outputs(&mut chunk), expected(fatal + 1..6));
}

#[test]
fn a_panic_leaves_the_chunk_behind_its_item() {
    // In the midst, at the first, at the last that is allowed, at the only one, and at the very last.
    for place in [(4, 3), (4, 1), (4, 4), (1, 1), (5, 5)] {
        run_around_panic::<u16, u64>(
            place,
            |number| u64::from(number) << 40,
            Lane::Numbers(8),
            |result| result.to_ne_bytes().to_vec(),
        );
        run_around_panic::<u64, u8>(
            place,
            |number| number + 200,
            Lane::Numbers(1),
            |result| vec![result],
        );
        run_around_panic::<u16, String>(
            place,
            |number| "text".repeat(usize::from(number)),
            Lane::Framed,
            |result| framed(&[&result]),
        );
    }
}

fn framed(texts: &[&str]) -> Vec<u8> {
    let frame = |text: &&str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    texts.iter().flat_map(frame).collect()
}

#[test]
fn of_numbers_that_are_not_all_there_one_fails() {
    for len in 0..10 {
        let (mut chunk, parent) = chunk_of(Lane::Numbers(2), 5, vec![1; len]);
        chunk.allow(5);
        let ended = match len % 2 {
            0 => chunk.run(|_: u16| -> u64 { panic!("it is called") }),
            _ => chunk.run(|_: u16| -> String { panic!("it is called") }),
        };
        assert_eq!(failure(ended).kind(), TaskErrorKind::ArgumentDecoding);
        assert_eq!((chunk.left(), chunk.ticket()), (4, FIRST + 1));
        assert_eq!(chunk.at, 2, "behind its item");
        assert_eq!(parent.peer_note(), FIRST + 1);
        assert!(outputs(&mut chunk).is_empty());
    }
}

#[test]
fn of_two_that_are_said_to_travel_alone_the_second_fails() {
    for allowed in [1, 2] {
        let (mut chunk, _parent) = chunk_of(Lane::Whole, 2, vec![7; 3]);
        chunk.allow(allowed);
        let mut ended = chunk.run(|bytes: Vec<u8>| bytes.len());
        if allowed == 1 {
            assert!(matches!(ended, Ended::Well));
            chunk.allow(1);
            ended = chunk.run(|_: Vec<u8>| -> usize { panic!("it is called") });
        }
        assert_eq!(failure(ended).kind(), TaskErrorKind::ArgumentDecoding);
        assert_eq!((chunk.left(), chunk.ticket()), (0, FIRST + 2));
        let first = 3_usize.to_ne_bytes().to_vec();
        assert_eq!(outputs(&mut chunk), [(Lane::Numbers(8), 1, first)]);
    }
}

#[test]
fn numbers_before_one_that_is_torn_have_their_results() {
    let (mut chunk, parent) = chunk_of(Lane::Numbers(2), 5, vec![1; 9]);
    chunk.allow(4);
    assert!(matches!(chunk.run(|number: u16| number), Ended::Well));
    assert_eq!(outputs(&mut chunk), [(Lane::Numbers(2), 4, vec![1; 8])]);
    chunk.allow(4);
    let error = failure(chunk.run(|number: u16| number));
    assert_eq!(error.kind(), TaskErrorKind::ArgumentDecoding);
    assert_eq!((chunk.left(), chunk.ticket()), (0, FIRST + 5));
    assert_eq!(parent.peer_note(), FIRST + 5);
    assert!(outputs(&mut chunk).is_empty());
}

#[test]
fn frames_before_one_that_is_torn_have_their_results() {
    let texts = ["a", "", "bcd"];
    let body = framed(&texts);
    for len in 0..body.len() {
        let is_there = |count: &usize| framed(&texts[..*count]).len() <= len;
        let whole = (1..3).take_while(is_there).count();
        let (mut chunk, parent) = chunk_of(Lane::Framed, 3, body[..len].to_vec());
        chunk.allow(3);
        let error = failure(chunk.run(|text: String| text.len() as u8));
        assert_eq!(error.kind(), TaskErrorKind::ArgumentDecoding);
        let next = FIRST + whole as u64 + 1;
        assert_eq!((chunk.left(), chunk.ticket()), (2 - whole, next));
        assert_eq!(parent.peer_note(), next);
        let results: Vec<u8> = texts[..whole].iter().map(|text| text.len() as u8).collect();
        let expected = (whole > 0).then_some((Lane::Numbers(1), whole, results));
        assert_eq!(outputs(&mut chunk), Vec::from_iter(expected));
    }
}
