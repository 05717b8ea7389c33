//! Pipes: CPython's `_TestConnection`, `_TestPoll`, `_TestPicklingConnections`, `TestWait`.

use crate::common::meet::{Gate, pass};
use crate::common::{each_method, every_method};
use crate::{LONG, SHORT};
use multiprocess::{Pipe, Process, wait};
use std::path::PathBuf;
use std::time::{Duration, Instant};

// CPython: _TestConnection.test_connection
each_method!(connection, |method| {
    let (here, there) = Pipe::<Vec<u8>>::pair().unwrap();
    let child = Process::builder()
        .start_method(method)
        .spawn(there, |pipe| {
            while let Ok(message) = pipe.recv_bytes() {
                pipe.send_bytes(&message).unwrap();
            }
        });
    let large = b"x".repeat(10_000_000);
    for message in [b"".as_slice(), b"hello world", &large] {
        here.send_bytes(message).unwrap();
        assert!(here.poll(LONG).unwrap());
        assert_eq!(here.recv_bytes().unwrap(), message);
    }
    here.send_bytes(b"hello world").unwrap();
    let mut buffer = [0; 40];
    assert_eq!(here.recv_bytes_into(&mut buffer).unwrap(), 11);
    assert_eq!(&buffer[..11], b"hello world");
    // Too short a buffer loses nothing.
    here.send_bytes(b"hello world").unwrap();
    here.recv_bytes_into(&mut [0; 10]).unwrap_err();
    assert_eq!(here.recv_bytes_into(&mut buffer).unwrap(), 11);
    let started = Instant::now();
    assert!(!here.poll(Duration::ZERO).unwrap());
    assert!(!here.poll(SHORT).unwrap());
    assert!(started.elapsed() >= SHORT);
    drop(here);
    child.unwrap().join().unwrap();
});

// CPython: _TestConnection.test_spawn_close
each_method!(spawn_close, |method| {
    let (here, there) = Pipe::<u8>::pair().unwrap();
    let child = Process::builder()
        .start_method(method)
        .spawn(there, |pipe| {
            pipe.recv().is_err_and(|error| error.is_closed())
        });
    drop(here);
    assert!(child.unwrap().join().unwrap());
});

// CPython: _TestPoll.test_strings, test_boundaries, test_dont_merge
every_method!(messages_neither_merge_nor_split, |method| {
    let strings = ["hello", "", "a", "b", "", "bye", "", "lop"];
    let (here, there) = Pipe::<String>::pair().unwrap();
    assert!(!here.poll(Duration::ZERO).unwrap());
    let child = Process::builder()
        .start_method(method)
        .spawn(there, move |pipe| {
            for text in ["hello", "", "a", "b", "", "bye", "", "lop"] {
                pipe.send(text.to_owned()).unwrap();
            }
        });
    for text in strings {
        // However often one looks, it takes nothing.
        for _ in 0..3 {
            assert!(here.poll(LONG).unwrap());
        }
        assert_eq!(here.recv().unwrap(), text);
    }
    child.unwrap().join().unwrap();
    assert!(here.poll(Duration::ZERO).unwrap(), "the end is news");
    assert!(here.recv().unwrap_err().is_closed());
});

// CPython: _TestPicklingConnections.test_pickling
each_method!(an_end_travels_through_a_pipe, |method| {
    let (here, there) = Pipe::<Pipe<u8>, ()>::pair().unwrap();
    let (ours, theirs) = Pipe::<u8>::pair().unwrap();
    let child = Process::builder()
        .start_method(method)
        .spawn(there, |pipe: Pipe<(), Pipe<u8>>| {
            let got = pipe.recv().unwrap();
            got.send(got.recv().unwrap() + 1).unwrap();
        });
    here.send(theirs).unwrap();
    ours.send(1).unwrap();
    assert_eq!(ours.recv().unwrap(), 2);
    child.unwrap().join().unwrap();
});

// CPython: TestWait.test_wait, test_wait_timeout, test_neg_timeout
every_method!(waiting_for_many, |method| {
    let mut pipes = Vec::new();
    for number in 0..4_u8 {
        let (here, there) = Pipe::<u8>::pair().unwrap();
        let sends = |(pipe, number): (Pipe<u8>, u8)| {
            for _ in 0..10 {
                pipe.send(number).unwrap();
            }
        };
        let builder = Process::builder().start_method(method).daemon(true);
        drop(builder.spawn((there, number), sends).unwrap());
        pipes.push((number, here, 0));
    }
    while !pipes.is_empty() {
        let sources: Vec<&dyn multiprocess::Waitable> =
            pipes.iter().map(|(_, pipe, _)| pipe as _).collect();
        let ready = wait(&sources, Some(LONG)).unwrap();
        assert!(!ready.is_empty());
        for place in ready.into_iter().rev() {
            match pipes[place].1.recv() {
                Ok(number) => {
                    assert_eq!(number, pipes[place].0);
                    pipes[place].2 += 1;
                }
                Err(error) => {
                    assert!(error.is_closed());
                    assert_eq!(pipes.remove(place).2, 10);
                }
            }
        }
    }
    let (here, _there) = Pipe::<u8>::pair().unwrap();
    let started = Instant::now();
    assert!(wait(&[&here], Some(SHORT)).unwrap().is_empty());
    assert!(started.elapsed() >= SHORT);
    assert!(wait(&[&here], Some(Duration::ZERO)).unwrap().is_empty());
});

// CPython: TestWait.test_wait_slow: messages that come now and then, each from another process
each_method!(waiting_for_slow_ones, |method| {
    let (gate, mut pipes) = (Gate::new(), Vec::new());
    for number in 0..4_u8 {
        let (here, there) = Pipe::<u8>::pair().unwrap();
        let sends = |(pipe, number, gate): (Pipe<u8>, u8, PathBuf)| {
            pass(&gate);
            pipe.send(number).unwrap();
        };
        let builder = Process::builder().start_method(method).daemon(true);
        drop(builder.spawn((there, number, gate.path()), sends).unwrap());
        pipes.push(here);
    }
    let mut heard = Vec::new();
    while heard.len() < pipes.len() {
        let sources: Vec<&dyn multiprocess::Waitable> =
            pipes.iter().map(|pipe| pipe as _).collect();
        // Nobody may send yet; ends that have sent and are gone are ready for good, and not asked again.
        let waiting: Vec<_> = (0..pipes.len())
            .filter(|place| !heard.contains(place))
            .collect();
        let left: Vec<_> = waiting.iter().map(|&place| sources[place]).collect();
        assert!(wait(&left, Some(SHORT)).unwrap().is_empty());
        gate.let_through(1);
        let ready = wait(&left, Some(LONG)).unwrap();
        assert_eq!(ready.len(), 1);
        let place = waiting[ready[0]];
        assert_eq!(usize::from(pipes[place].recv().unwrap()), place);
        heard.push(place);
    }
});
