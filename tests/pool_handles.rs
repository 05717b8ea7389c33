//! Handles that a pool has on their way: an end of a pipe is gone when who got it lets go of it or dies, and not later; and what
//! was cancelled is kept by nobody.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::meet::{Gate, pass};
use common::{assert_serves, each_method, each_method_alone, kill_hard, pool};
use multiprocess::{Event, Pipe, Queue, Receiver, Sender};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// A limit that nothing sound reaches.
const SOON: Duration = Duration::from_secs(30);

fn one_way<T>() -> (Sender<T>, Receiver<T>) {
    let (here, there) = Pipe::<T>::pair().unwrap();
    (here.split().0, there.split().1)
}

/// Whether the other end is gone, and nothing is left to be received.
fn is_closed<T: multiprocess::Portable>(receiver: &Receiver<T>) -> bool {
    receiver
        .recv_timeout(SOON)
        .is_err_and(|error| error.is_closed())
}

each_method!(
    an_end_that_an_item_drops_is_gone_before_the_item_is_done,
    |method| {
        let pool = pool(method, 2);
        let go_on = Event::new().unwrap();
        let (sender, receiver) = one_way::<u8>();
        let call = pool.apply_async(
            (sender, go_on.clone()),
            |(sender, go_on): (Sender<u8>, Event)| {
                sender.send(1).unwrap();
                drop(sender);
                go_on.wait();
            },
        );
        assert_eq!(receiver.recv().unwrap(), 1);
        assert!(is_closed(&receiver));
        go_on.set();
        call.get().unwrap();
    }
);

each_method!(
    an_end_is_gone_with_its_item_though_others_of_its_map_go_on,
    |method| {
        let pool = pool(method, 2);
        let (mut heres, mut theres) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let (here, there) = Pipe::<u64>::pair().unwrap();
            heres.push(here);
            theres.push(there);
        }
        let map = pool.map_async(theres, |there: Pipe<u64>| {
            for number in there.iter() {
                there.send(number * 2).unwrap();
            }
        });
        for here in heres {
            let (sender, receiver) = here.split();
            sender.send(21).unwrap();
            drop(sender);
            assert_eq!(receiver.iter().collect::<Vec<_>>(), [42]);
        }
        map.get().unwrap();
    }
);

each_method!(
    an_end_is_gone_with_its_worker_though_nobody_asks_the_pool,
    |method| {
        let pool = pool(method, 2);
        let (ends, receivers): (Vec<_>, Vec<_>) = (0..2).map(|_| one_way::<u32>()).unzip();
        let mut ends = ends.into_iter();
        let mut receivers = receivers.into_iter();
        let killed = receivers.next().unwrap();
        // One worker is killed at its item while its caller is elsewhere.
        let mut results = pool
            .job()
            .chunk_size(1)
            .imap_unordered(ends.by_ref(), |end| {
                end.send(std::process::id()).unwrap();
                drop(end);
            });
        assert_eq!(results.next().unwrap().1, Ok(()));
        let other = receivers.next().unwrap();
        let pids = [&killed, &other].map(|receiver| receiver.recv().unwrap());
        assert!(pids.iter().all(|pid| pool.worker_pids().contains(pid)));
        assert!(is_closed(&killed) && is_closed(&other));
        drop(results);

        let (end, held) = one_way::<u32>();
        let job = pool.job().chunk_size(1).retries(3);
        let mut results = job.imap([None, Some(end)], |end: Option<Sender<u32>>| {
            while end
                .as_ref()
                .is_some_and(|end| end.send(std::process::id()).is_ok())
            {
                thread::yield_now();
            }
        });
        assert_eq!(results.next().unwrap(), Ok(()));
        kill_hard(held.recv().unwrap());
        let error = loop {
            if let Err(error) = held.recv_timeout(SOON) {
                break error;
            }
        };
        assert!(error.is_closed(), "{error}");
        // It cannot be tried again: what it held is gone.
        let error = results.next().unwrap().unwrap_err();
        assert!(error.is_crash() && error.attempts() == 1, "{error}");
        assert!(results.next().is_none());
        drop(results);
        assert_serves(&pool);
    }
);

each_method!(
    items_behind_one_that_crashes_keep_the_ends_that_they_hold,
    |method| {
        let pool = pool(method, 2);
        let (ends, receivers): (Vec<_>, Vec<_>) = (0..20).map(|_| one_way::<usize>()).unzip();
        let items = ends.into_iter().enumerate();
        let results: Vec<_> = pool
            .imap(items, |(item, end): (usize, Sender<usize>)| {
                if item % 5 == 2 {
                    std::process::abort();
                }
                end.send(item).unwrap();
            })
            .collect();
        for (item, (result, receiver)) in results.into_iter().zip(receivers).enumerate() {
            let got: Vec<usize> = receiver.iter().collect();
            if item % 5 == 2 {
                assert!(result.unwrap_err().is_crash() && got.is_empty());
            } else {
                assert!(
                    result.is_ok() && got == [item],
                    "{item}: {result:?}, {got:?}"
                );
            }
        }
        assert_serves(&pool);
    }
);

/// What an argument holds that is cancelled.
#[derive(serde::Serialize, serde::Deserialize)]
enum Held {
    Gate(PathBuf),
    End(Sender<u8>),
    Queue(Queue<u8>),
}

fn wait_at_the_gate(held: Held) {
    if let Held::Gate(gate) = held {
        pass(&gate);
    }
}

each_method_alone!(
    what_a_cancelled_call_held_is_let_go_of_while_others_go_on,
    |method| {
        let pool = pool(method, 1);
        let gate = Gate::new();
        let under_way = pool.apply_async(Held::Gate(gate.path()), wait_at_the_gate);
        let (sender, receiver) = one_way::<u8>();
        pool.apply_async(Held::End(sender), wait_at_the_gate)
            .cancel();
        assert!(is_closed(&receiver));
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let before = descriptors();
        for _ in 0..20 {
            let queue = Queue::<u8>::new().unwrap();
            pool.apply_async(Held::Queue(queue), wait_at_the_gate)
                .cancel();
        }
        assert_eq!(descriptors(), before);
        gate.let_through(1);
        under_way.get().unwrap();
    }
);
