//! `wait`, and the descriptors of pipes: any mix of sources, with `poll` and with an executor.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::alone::{in_own_process, test_path};
use common::meet::{Gate, pass};
use common::{LIMIT, LONG_LIMIT, each_method, polls_readable, within};
use multiprocess::{Pipe, Process, Queue, Receiver, Semaphore, StartMethod, Waitable, wait};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;

const SOON: Duration = Duration::from_millis(20);
/// The length of a message that comes in several parts.
const LONG: usize = 5 << 20;
/// No source is ready.
const NONE: [usize; 0] = [];
const NOW: Option<Duration> = Some(Duration::ZERO);

/// What `poll` says of a descriptor, at once.
fn is_readable(source: &impl AsFd) -> bool {
    polls_readable(source, Duration::ZERO)
}

/// Blocks until a descriptor is readable.
fn until_readable(source: &impl AsFd) {
    assert!(polls_readable(source, LONG_LIMIT));
}

each_method!(whatever_is_ready_is_named_in_ascending_order, |method| {
    let gate = Gate::new();
    let spawn = || {
        Process::builder()
            .start_method(method)
            .spawn((gate.path(),), |(gate,): (PathBuf,)| pass(&gate))
            .unwrap()
    };
    let (first, second): (Process, Process) = (spawn(), spawn());
    let (here, there) = Pipe::<u32>::pair().unwrap();
    let (other, peer) = Pipe::<u32>::pair().unwrap();
    let (_, receiver) = other.split();
    let all: [&dyn Waitable; 4] = [&first, &here, &receiver, &second];
    assert_eq!(wait(&all, NOW).unwrap(), NONE);
    assert_eq!(wait(&all, Some(SOON)).unwrap(), NONE);
    peer.send(1).unwrap();
    assert_eq!(wait(&all, None).unwrap(), [2]);
    there.send(2).unwrap();
    assert_eq!(wait(&all, None).unwrap(), [1, 2]);
    assert_eq!(wait(&all, None).unwrap(), [1, 2], "nothing is taken");
    assert_eq!(receiver.recv().unwrap(), 1);
    assert_eq!(wait(&all, NOW).unwrap(), [1]);
    assert_eq!(here.recv().unwrap(), 2);
    assert_eq!(wait(&all, NOW).unwrap(), NONE);
    gate.let_through(1);
    let ended = wait(&all, None).unwrap();
    assert!(ended == [0] || ended == [3], "{ended:?}");
    gate.let_through(1);
    while wait(&all, None).unwrap() != [0, 3] {}
    drop(there);
    assert_eq!(
        wait(&all, None).unwrap(),
        [0, 1, 3],
        "the end is news as well"
    );
});

each_method!(a_message_that_comes_meanwhile_ends_the_wait, |method| {
    let (here, there) = Pipe::<u32>::pair().unwrap();
    let (silent, _kept) = Pipe::<u32>::pair().unwrap();
    let child: Process = Process::builder()
        .start_method(method)
        .spawn((there,), |(pipe,): (Pipe<u32>,)| {
            for n in pipe.iter() {
                pipe.send(n).unwrap();
            }
        })
        .unwrap();
    for round in 0..2_000 {
        here.send(round).unwrap();
        assert_eq!(wait(&[&silent, &here, &child], None).unwrap(), [1]);
        assert_eq!(here.recv().unwrap(), round);
    }
    drop(here);
    assert_eq!(wait(&[&silent, &child], None).unwrap(), [1]);
});

each_method!(
    a_killed_process_makes_both_itself_and_its_pipe_ready,
    |method| {
        let (here, there) = Pipe::<u32>::pair().unwrap();
        let child: Process = Process::builder()
            .start_method(method)
            .spawn((there,), |(pipe,): (Pipe<u32>,)| drop(pipe.recv()))
            .unwrap();
        assert_eq!(wait(&[&here, &child], Some(SOON)).unwrap(), NONE);
        child.kill().unwrap();
        while wait(&[&here, &child], None).unwrap() != [0, 1] {}
        assert!(here.recv().unwrap_err().is_closed());
    }
);

each_method!(calls_are_waited_for_beside_queues_and_processes, |method| {
    let pool = common::pool(method, 1);
    let queue = Queue::<u32>::new().unwrap();
    let gate = Gate::new();
    let call = pool.apply_async(gate.path(), |gate| {
        pass(&gate);
        7
    });
    let process: Process = Process::builder()
        .start_method(method)
        .spawn(gate.path(), |gate| pass(&gate))
        .unwrap();
    let sources: [&dyn Waitable; 3] = [&call, &queue, &process];
    assert_eq!(wait(&sources, Some(SOON)).unwrap(), NONE);
    queue.put(1).unwrap();
    assert_eq!(wait(&sources, None).unwrap(), [1]);
    assert_eq!(queue.get().unwrap(), 1);
    gate.let_through(2);
    assert!(!wait(&sources, None).unwrap().contains(&1));
    while wait(&sources, None).unwrap() != [0, 2] {}
    assert_eq!(call.get().unwrap(), 7);
});

each_method!(queues_are_waited_for_beside_pipes, |method| {
    let queue = Queue::<u32>::new().unwrap();
    let (here, there) = Pipe::<u32>::pair().unwrap();
    let sources: [&dyn Waitable; 2] = [&here, &queue];
    assert_eq!(wait(&sources, Some(SOON)).unwrap(), NONE);
    let child: Process = Process::builder()
        .start_method(method)
        .spawn(
            (queue.clone(), there),
            |(queue, pipe): (Queue<u32>, Pipe<u32>)| {
                for n in pipe.iter() {
                    queue.put(n).unwrap();
                }
            },
        )
        .unwrap();
    for round in 0..500 {
        here.send(round).unwrap();
        assert_eq!(wait(&sources, None).unwrap(), [1]);
        assert_eq!(queue.get().unwrap(), round);
        assert_eq!(wait(&sources, NOW).unwrap(), NONE);
    }
    drop(here);
    child.join().unwrap();
});

#[test]
fn nothing_to_wait_for_honours_the_limit() {
    let start = Instant::now();
    assert_eq!(wait(&[], Some(SOON)).unwrap(), NONE);
    assert!(start.elapsed() >= SOON);
    assert_eq!(wait(&[], NOW).unwrap(), NONE);
}

#[test]
fn a_pipe_that_has_moved_cannot_be_waited_for() {
    let (carrier, _other_side) = Pipe::<&'static str>::pair().unwrap();
    drop(carrier);
    let (_here, there) = Pipe::<u8>::pair().unwrap();
    let mut bytes = Vec::new();
    // A foreign form is refused, and it stays.
    assert!(serde_json::to_writer(&mut bytes, &there).is_err());
    assert_eq!(wait(&[&there], NOW).unwrap(), NONE);
}

each_method!(
    the_descriptor_is_readable_while_something_is_there_and_no_longer,
    |method| {
        let (here, there) = Pipe::<Vec<u8>>::pair().unwrap();
        let sent = Semaphore::new(0).unwrap();
        assert!(!is_readable(&here));
        let child: Process = Process::builder()
            .start_method(method)
            .spawn(
                (there, sent.clone()),
                |(pipe, sent): (Pipe<Vec<u8>>, Semaphore)| {
                    for len in [0, 1, LONG] {
                        pipe.recv().unwrap();
                        pipe.send(vec![1; len]).unwrap();
                        pipe.send(vec![2; len]).unwrap();
                        sent.release().unwrap();
                    }
                    pipe.recv().unwrap();
                },
            )
            .unwrap();
        for len in [0, 1, LONG] {
            assert!(!is_readable(&here));
            here.send(Vec::new()).unwrap();
            until_readable(&here);
            if len < LONG {
                // Then all that was to be rung is rung.
                sent.acquire();
            }
            for value in [1, 2] {
                let message = loop {
                    until_readable(&here);
                    match here.try_recv() {
                        Err(error) if error.is_empty() => {}
                        received => break received.unwrap(),
                    }
                };
                assert!(message == vec![value; len]);
            }
            if len == LONG {
                // The sender may have rung when its message had been taken already.
                sent.acquire();
                assert!(here.try_recv().unwrap_err().is_empty());
            }
            assert!(!is_readable(&here));
            assert!(here.try_recv().unwrap_err().is_empty());
            assert!(!is_readable(&here));
        }
        here.send(Vec::new()).unwrap();
        until_readable(&here);
        assert!(here.try_recv().unwrap_err().is_closed());
        assert!(is_readable(&here), "the end remains");
        child.join().unwrap();
    }
);

#[test]
fn all_ways_to_receive_leave_the_descriptor_right() {
    let (here, there) = Pipe::<u8>::pair().unwrap();
    there.send(1).unwrap();
    there.send(2).unwrap();
    assert!(is_readable(&here), "asked for after the messages came");
    assert_eq!(here.recv().unwrap(), 1);
    assert!(is_readable(&here));
    assert!(here.poll(Duration::ZERO).unwrap());
    assert_eq!(here.recv_timeout(SOON).unwrap(), 2);
    assert!(!is_readable(&here));
    assert!(here.recv_timeout(SOON).unwrap_err().is_timeout());
    assert!(!is_readable(&here));
    within(LIMIT, move || {
        thread::scope(|scope| {
            // A thread that is blocked when two messages come takes one and leaves word of the other.
            let blocked = scope.spawn(|| here.recv());
            there.send(3).unwrap();
            there.send(4).unwrap();
            assert_eq!(blocked.join().unwrap().unwrap(), 3);
            assert!(is_readable(&here));
            assert_eq!(here.recv_bytes_into(&mut [0; 9]).unwrap(), 1);
            assert!(!is_readable(&here));
        });
    });
}

#[test]
fn one_thread_may_wait_while_others_receive() {
    within(LIMIT, || {
        const MESSAGES: u32 = 20_000;
        let (here, there) = Pipe::<u32>::pair().unwrap();
        let sum = thread::scope(|scope| {
            let takers: Vec<_> = [0, 1, 2]
                .map(|way| {
                    let here = &here;
                    scope.spawn(move || {
                        let mut sum = 0_u64;
                        loop {
                            let received = match way {
                                0 => here.recv(),
                                1 => {
                                    until_readable(here);
                                    here.try_recv()
                                }
                                _ => {
                                    wait(&[here], None).unwrap();
                                    here.try_recv()
                                }
                            };
                            match received {
                                Ok(n) => sum += u64::from(n),
                                Err(error) if error.is_empty() => {}
                                Err(error) => {
                                    assert!(error.is_closed(), "{error}");
                                    return sum;
                                }
                            }
                        }
                    })
                })
                .into();
            (0..MESSAGES).for_each(|n| there.send(n).unwrap());
            drop(there);
            takers
                .into_iter()
                .map(|one| one.join().unwrap())
                .sum::<u64>()
        });
        assert_eq!(sum, u64::from(MESSAGES) * u64::from(MESSAGES - 1) / 2);
    });
}

/// The recipe of the documentation.
async fn next(receiver: &AsyncFd<Receiver<u32>>) -> Option<u32> {
    loop {
        let mut guard = receiver.readable().await.unwrap();
        match receiver.get_ref().try_recv() {
            Err(error) if error.is_empty() => guard.clear_ready(),
            Err(error) => {
                assert!(error.is_closed(), "{error}");
                return None;
            }
            Ok(number) => return Some(number),
        }
    }
}

each_method!(tokio_receives_every_message, |method| {
    const MESSAGES: u32 = 3_000;
    let runtime = common::program::tokio();
    let children: Vec<(Receiver<u32>, Process)> = (0..3)
        .map(|_| {
            let (here, there) = Pipe::<u32>::pair().unwrap();
            let child = Process::builder()
                .start_method(method)
                .spawn((there,), |(pipe,): (Pipe<u32>,)| {
                    for n in 0..MESSAGES {
                        pipe.send(n).unwrap();
                        if n % 50 == 0 {
                            // So that the other side runs dry now and then.
                            std::thread::yield_now();
                        }
                    }
                })
                .unwrap();
            (here.split().1, child)
        })
        .collect();
    #[allow(
        deprecated,
        reason = "what has taken its place is unsafe, and not in the versions that most use"
    )]
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for (receiver, child) in children {
            let receiver = AsyncFd::new(receiver).unwrap();
            tasks.push(async move {
                for n in 0..MESSAGES {
                    assert_eq!(next(&receiver).await, Some(n));
                }
                assert_eq!(next(&receiver).await, None);
                child.join().unwrap();
            });
        }
        let mut tasks = tasks.into_iter();
        let (one, two, three) = (
            tasks.next().unwrap(),
            tasks.next().unwrap(),
            tasks.next().unwrap(),
        );
        tokio::join!(one, two, three);
    });
});

#[test]
fn a_source_that_no_descriptor_is_left_for_is_an_error() {
    let test = test_path(
        module_path!(),
        "a_source_that_no_descriptor_is_left_for_is_an_error",
    );
    in_own_process(&test, LIMIT, || {
        let gate = Gate::new();
        let (here, there) = Pipe::<u8>::pair().unwrap();
        let pool = common::pool(StartMethod::ForkServer, 1);
        let call = pool.apply_async(gate.path(), |gate: PathBuf| pass(&gate));
        let limit = nix::sys::resource::Resource::RLIMIT_NOFILE;
        let (soft, hard) = nix::sys::resource::getrlimit(limit).unwrap();
        nix::sys::resource::setrlimit(limit, 3, hard).unwrap();
        let errors = [
            wait(&[&here], Some(SOON)).unwrap_err(),
            wait(&[&call], Some(SOON)).unwrap_err(),
        ];
        nix::sys::resource::setrlimit(limit, soft, hard).unwrap();
        for error in errors {
            assert!(error.to_string().contains("RLIMIT_NOFILE"), "{error}");
        }
        gate.let_through(1);
        call.get().unwrap();
        there.send(1).unwrap();
        assert_eq!(wait(&[&here], None).unwrap(), [0]);
    });
}
