//! Barriers: CPython's `_TestBarrier`, with as many parties as there.

use crate::common::{census, each_method};
use crate::{LONG, SHORT};
use multiprocess::{Barrier, Closure, Process, Queue, StartMethod};

const PARTIES: usize = 5;

type Party = Closure<(Barrier, Queue<usize>), ()>;

/// Has four processes and this one do the same, and returns what they have put, sorted.
fn in_step(method: StartMethod, barrier: &Barrier, party: &Party) -> Vec<usize> {
    let said = Queue::new().unwrap();
    let arguments = (barrier.clone(), said.clone());
    let others: Vec<Process> = (1..PARTIES)
        .map(|_| {
            let builder = Process::builder().start_method(method).daemon(true);
            let call = |(party, arguments): (Party, _)| party.call(arguments);
            builder
                .spawn((party.clone(), arguments.clone()), call)
                .unwrap()
        })
        .collect();
    party.call(arguments);
    for other in others {
        other.join().unwrap();
    }
    said.close();
    let mut said: Vec<usize> = said.iter().collect();
    said.sort_unstable();
    said
}

fn barrier() -> Barrier {
    Barrier::new(PARTIES).unwrap()
}

// CPython: _TestBarrier.test_barrier, test_barrier_10, test_wait_return
each_method!(every_index_once_a_round, |method| {
    let party = Party::new(|(barrier, said): (Barrier, Queue<usize>)| {
        for _ in 0..10 {
            let passed = barrier.wait().unwrap();
            assert_eq!(passed.is_leader(), passed.index() == 0);
            said.put(passed.index()).unwrap();
        }
    });
    let barrier = barrier();
    let expected: Vec<usize> = (0..PARTIES).flat_map(|index| [index; 10]).collect();
    assert_eq!(in_step(method, &barrier, &party), expected);
    assert_eq!((barrier.parties(), barrier.waiting()), (PARTIES, 0));
    assert!(!barrier.is_broken());
});

// CPython: _TestBarrier.test_abort
each_method!(abort, |method| {
    let party = Party::new(|(barrier, said): (Barrier, Queue<usize>)| {
        let is_last = barrier.wait().unwrap().index() == PARTIES - 1;
        if is_last {
            barrier.abort();
        } else {
            let broken = barrier.wait_timeout(LONG).unwrap_err();
            assert!(!broken.is_timeout() && !broken.is_death());
            said.put(1).unwrap();
        }
    });
    let barrier = barrier();
    assert_eq!(in_step(method, &barrier, &party), [1; PARTIES - 1]);
    assert!(barrier.is_broken());
});

// CPython: _TestBarrier.test_timeout
each_method!(timeout, |method| {
    let party = Party::new(|(barrier, said): (Barrier, Queue<usize>)| {
        if barrier.wait().unwrap().index() != PARTIES / 2 {
            // One does not come.
            let broken = barrier.wait_timeout(SHORT).unwrap_err();
            assert!(broken.is_timeout());
            said.put(1).unwrap();
        }
    });
    let barrier = barrier();
    assert_eq!(in_step(method, &barrier, &party), [1; PARTIES - 1]);
    assert!(barrier.is_broken());
    // CPython: _TestBarrier.test_abort_and_reset
    barrier.reset();
    assert!(!barrier.is_broken());
    assert!(barrier.wait_timeout(SHORT).unwrap_err().is_timeout());
});

// CPython: _TestBarrier.test_reset
each_method!(reset, |method| {
    let party = Party::new(|(barrier, said): (Barrier, Queue<usize>)| {
        if barrier.wait().unwrap().index() == PARTIES / 2 {
            let all_wait = || barrier.waiting() == PARTIES - 1;
            assert!(census::poll(LONG, all_wait, |all| *all));
            barrier.reset();
        } else {
            let broken = barrier.wait_timeout(LONG).unwrap_err();
            assert!(!broken.is_timeout() && !broken.is_death());
            said.put(1).unwrap();
        }
        // It is whole again, for those whom it threw out as well.
        barrier.wait_timeout(LONG).unwrap();
        said.put(2).unwrap();
    });
    let barrier = barrier();
    let expected = [[1; PARTIES - 1].as_slice(), &[2; PARTIES]].concat();
    assert_eq!(in_step(method, &barrier, &party), expected);
    assert!(!barrier.is_broken());
});

// CPython: _TestBarrier.test_single_thread
#[test]
fn single_thread() {
    let barrier = Barrier::new(1).unwrap();
    assert_eq!(barrier.wait().unwrap().index(), 0);
    assert_eq!(barrier.wait().unwrap().index(), 0);
}

// CPython: _TestBarrier.test_thousand
each_method!(thousand, |method| {
    let party = Party::new(|(barrier, said): (Barrier, Queue<usize>)| {
        for round in 0..1000 {
            barrier.wait_timeout(LONG).unwrap();
            said.put(round).unwrap();
        }
    });
    let expected: Vec<usize> = (0..1000).flat_map(|round| [round; PARTIES]).collect();
    assert_eq!(in_step(method, &barrier(), &party), expected);
});
