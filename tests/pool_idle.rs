//! What a worker holds and has not begun, while another one idles: however little it is, it does not wait behind an item that takes long.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::meet::{Ear, Gate, pass, say};
use common::{assert_serves, each_method, each_method_alone, pid_of, pool};
use multiprocess::{Event, Pool};
use nix::sys::signal::{Signal, kill};
use std::path::PathBuf;

/// What an item does that is not done at once.
const WAITS: u8 = 1;
const SETS: u8 = 2;

/// Waits for the event, sets it, or takes no time at all.
fn meet(event: &Event, role: u8) -> u8 {
    match role {
        WAITS => event.wait(),
        SETS => event.set(),
        _ => {}
    }
    role
}

/// Has the pool learn that `meet` is quick.
fn warm(pool: &Pool) {
    let job = pool.with(Event::new().unwrap());
    for _ in 0..10 {
        assert_eq!(job.map(vec![0; 1000], meet).unwrap(), vec![0; 1000]);
    }
}

each_method!(
    an_item_of_a_function_known_as_quick_may_wait_for_one_behind_it,
    |method| {
        let pool = pool(method, 2);
        for _ in 0..3 {
            warm(&pool);
            // All are one piece, as so little is not worth two.
            let job = pool.with(Event::new().unwrap());
            let roles = [WAITS, 0, 0, 0, SETS, 0];
            assert_eq!(job.map(roles, meet).unwrap(), roles);
            // And where nobody waits, or another thread leads.
            let job = pool.with(Event::new().unwrap());
            let waited_for = job.map_async(roles, meet);
            assert_eq!(pool.apply(1, |n: u8| n).unwrap(), 1);
            assert_eq!(waited_for.get().unwrap(), roles);
        }
        assert_serves(&pool);
    }
);

/// Says which process it is and waits, lets who waits go on, or takes no time at all.
fn call(role: Option<(Option<PathBuf>, PathBuf)>) {
    match role {
        Some((Some(ear), gate)) => {
            say(&ear, std::process::id());
            pass(&gate);
        }
        Some((None, gate)) => say(&gate, ""),
        None => {}
    }
}

each_method!(
    a_call_that_was_sent_behind_one_that_takes_long_is_answered,
    |method| {
        let (pool, mut ear, gate) = (pool(method, 2), Ear::new(), Gate::new());
        for _ in 0..3 {
            for _ in 0..1000 {
                pool.apply_async(None, call).get().unwrap();
            }
            let long = pool.apply_async(Some((Some(ear.path()), gate.path())), call);
            let at_it = ear.hear_number();
            let mut pids = pool.worker_pids();
            pids.retain(|&pid| pid != at_it);
            let other = pid_of(pids[0]);
            // Both workers have a call when the third one is made.
            kill(other, Signal::SIGSTOP).unwrap();
            let quick = pool.apply_async(None, call);
            let opens = pool.apply_async(Some((None, gate.path())), call);
            kill(other, Signal::SIGCONT).unwrap();
            for call in [quick, opens, long] {
                call.get().unwrap();
            }
        }
        assert_serves(&pool);
    }
);

each_method_alone!(
    an_item_larger_than_the_ring_does_not_wait_behind_one_that_takes_long,
    |method| {
        const BYTES: usize = 3 << 20;
        let pool = pool(method, 2);
        let [begun, pulled, done] = [(); 3].map(|()| Event::new().unwrap());
        let job = pool.with((begun, pulled.clone(), done.clone()));
        // The last one has a descriptor as well, and is sent to two workers.
        let items = (0..3_u8).map(|item| {
            let event = (item == 2).then(|| done.clone());
            (item, vec![item; BYTES], event)
        });
        // All of it was submitted when more is asked for.
        let items = items.chain(std::iter::from_fn(|| {
            pulled.set();
            None
        }));
        let results = job.map(
            items,
            |(begun, pulled, done): &(Event, Event, Event),
             (item, bytes, event): (u8, Vec<u8>, Option<Event>)| {
                match item {
                    0 => {
                        begun.set();
                        done.wait();
                    }
                    1 => {
                        begun.wait();
                        pulled.wait();
                    }
                    _ => event.unwrap().set(),
                }
                (item, bytes.len())
            },
        );
        assert_eq!(results.unwrap(), [(0, BYTES), (1, BYTES), (2, BYTES)]);
        // Also the one that has passed over what was half sent.
        assert_serves(&pool);
    }
);
