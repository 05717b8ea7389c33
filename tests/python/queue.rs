//! Queues: CPython's `_TestQueue`, `TestSimpleQueue`, and `JoinableQueue`.

use crate::common::meet::{Gate, pass};
use crate::common::{each_method, each_method_alone, every_method};
use crate::{LONG, SHORT};
use multiprocess::{Process, Queue, StartMethod};
use serde::{Deserialize, Serialize, Serializer};
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn builder(method: StartMethod) -> multiprocess::ProcessBuilder {
    Process::builder().start_method(method).daemon(true)
}

// CPython: _TestQueue.test_put
every_method!(put, |method| {
    let queue = Queue::bounded(6).unwrap();
    let gate = Gate::new();
    let arguments = (queue.clone(), gate.path());
    let child = builder(method).spawn(arguments, |(queue, gate): (Queue<u8>, PathBuf)| {
        pass(&gate);
        for _ in 0..6 {
            queue.get().unwrap();
        }
    });
    let child = child.unwrap();
    assert!(queue.is_empty() && !queue.is_full());
    queue.put(1).unwrap();
    queue.put(2).unwrap();
    queue.put_timeout(3, LONG).unwrap();
    queue.put_timeout(4, Duration::ZERO).unwrap();
    queue.try_put(5).unwrap();
    queue.try_put(6).unwrap();
    assert!(!queue.is_empty() && queue.is_full());

    let refused = queue.try_put(7).unwrap_err();
    assert!(refused.is_full());
    assert_eq!(refused.into_value(), 7);
    let refused = queue.put_timeout(7, Duration::ZERO).unwrap_err();
    assert!(refused.is_full() || refused.is_timeout());
    let started = Instant::now();
    let refused = queue.put_timeout(7, SHORT).unwrap_err();
    assert!(started.elapsed() >= SHORT);
    assert!(refused.is_full() || refused.is_timeout());
    assert_eq!(refused.into_value(), 7);

    gate.let_through(1);
    child.join().unwrap();
    assert!(queue.is_empty() && !queue.is_full());
});

// CPython: _TestQueue.test_get
every_method!(get, |method| {
    let queue = Queue::new().unwrap();
    assert!(queue.is_empty());
    let child = builder(method).spawn(queue.clone(), |queue| {
        for number in 2..=5 {
            queue.put(number).unwrap();
        }
    });
    child.unwrap().join().unwrap();
    // What `put` has returned for is there, at once.
    assert!(!queue.is_empty());
    assert_eq!(queue.get().unwrap(), 2);
    assert_eq!(queue.get_timeout(LONG).unwrap(), 3);
    assert_eq!(queue.get_timeout(Duration::ZERO).unwrap(), 4);
    assert_eq!(queue.try_get().unwrap(), 5_u8);
    assert!(queue.is_empty());

    assert!(queue.try_get().unwrap_err().is_empty());
    let none = queue.get_timeout(Duration::ZERO).unwrap_err();
    assert!(none.is_empty() || none.is_timeout());
    let started = Instant::now();
    let none = queue.get_timeout(SHORT).unwrap_err();
    assert!(started.elapsed() >= SHORT);
    assert!(none.is_empty() || none.is_timeout());
});

// CPython: _TestQueue.test_fork
every_method!(fork, |method| {
    let queue = Queue::new().unwrap();
    for number in 0..10 {
        queue.put(number).unwrap();
    }
    let child = builder(method).spawn(queue.clone(), |queue| {
        for number in 10..20 {
            queue.put(number).unwrap();
        }
    });
    for number in 0..20_u32 {
        assert_eq!(queue.get().unwrap(), number);
    }
    assert!(queue.try_get().unwrap_err().is_empty());
    child.unwrap().join().unwrap();
});

// CPython: _TestQueue.test_qsize
#[test]
fn qsize() {
    let queue = Queue::new().unwrap();
    assert_eq!(queue.len(), 0);
    for (value, length) in [(1, 1), (5, 2)] {
        queue.put(value).unwrap();
        assert_eq!(queue.len(), length);
    }
    for length in [1, 0] {
        queue.get().unwrap();
        assert_eq!(queue.len(), length);
    }
}

// CPython: _TestQueue.test_task_done
every_method!(task_done, |method| {
    let queue = Queue::new().unwrap();
    let workers: Vec<Process> = (0..4)
        .map(|_| {
            let works = |queue: Queue<Option<u32>>| {
                while let Some(_number) = queue.get().unwrap() {
                    queue.task_done().unwrap();
                }
                queue.task_done().unwrap();
            };
            builder(method).spawn(queue.clone(), works).unwrap()
        })
        .collect();
    for number in 0..10 {
        queue.put(Some(number)).unwrap();
    }
    queue.join().unwrap();
    assert!(queue.is_empty());
    for _ in &workers {
        queue.put(None).unwrap();
    }
    for worker in workers {
        worker.join().unwrap();
    }
    queue.join_timeout(LONG).unwrap();
});

// CPython: threading's QueueJoinTest, which JoinableQueue follows: one `task_done` too many is an error.
#[test]
fn task_done_too_often() {
    let queue = Queue::new().unwrap();
    assert!(queue.task_done().is_err());
    queue.put(1_u8).unwrap();
    assert!(queue.join_timeout(SHORT).unwrap_err().is_timeout());
    queue.get().unwrap();
    assert!(queue.join_timeout(SHORT).unwrap_err().is_timeout());
    queue.task_done().unwrap();
    queue.join().unwrap();
    assert!(queue.task_done().is_err());
    queue.join().unwrap();
}

// CPython: _TestQueue.test_timeout
#[test]
fn timeout() {
    let queue = Queue::<u8>::new().unwrap();
    let started = Instant::now();
    queue.get_timeout(Duration::from_millis(200)).unwrap_err();
    assert!(started.elapsed() >= Duration::from_millis(200));
}

#[derive(Debug, Deserialize)]
struct Stubborn(bool);

impl Serialize for Stubborn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 {
            return Err(serde::ser::Error::custom("cannot be written"));
        }
        serializer.serialize_bool(self.0)
    }
}

// CPython: _TestQueue.test_queue_feeder_donot_stop_onexc and test_queue_feeder_on_queue_feeder_error
#[test]
fn a_value_that_cannot_be_encoded_takes_no_room() {
    for queue in [Queue::new().unwrap(), Queue::bounded(1).unwrap()] {
        let refused = queue.put(Stubborn(true)).unwrap_err();
        assert!(!refused.is_full() && !refused.is_closed());
        assert!(refused.to_string().contains("cannot be written"));
        assert!(refused.into_value().0);
        queue.put(Stubborn(false)).unwrap();
        assert_eq!(queue.len(), 1);
        assert!(!queue.get_timeout(LONG).unwrap().0);
        assert!(queue.is_empty());
    }
}

// CPython: _TestQueue.test_closed_queue_put_get_exceptions, and TestSimpleQueue.test_close, test_closed
every_method!(closed_queue_put_get_exceptions, |method| {
    let queue = Queue::new().unwrap();
    queue.put("left".to_owned()).unwrap();
    queue.close();
    queue.close();
    let refused = queue.put("foo".to_owned()).unwrap_err();
    assert!(refused.is_closed());
    assert_eq!(refused.into_value(), "foo");
    assert!(queue.try_put("foo".to_owned()).unwrap_err().is_closed());
    assert!(queue.is_closed());
    // It is closed for every process.
    let child = builder(method).spawn(queue.clone(), |queue: Queue<String>| {
        let refused = queue.put("bar".to_owned()).unwrap_err().is_closed();
        (refused, queue.get().unwrap())
    });
    assert_eq!(child.unwrap().join().unwrap(), (true, "left".to_owned()));
    for error in [queue.get().unwrap_err(), queue.try_get().unwrap_err()] {
        assert!(error.is_closed(), "{error}");
    }
    assert!(queue.get_timeout(LONG).unwrap_err().is_closed());
});

// CPython: _TestQueue.test_closed_queue_empty_exceptions, TestSimpleQueue.test_empty_exceptions: there errors, here answers
each_method!(a_closed_queue_may_be_asked, |method| {
    let queue = Queue::bounded(2).unwrap();
    queue.put(1_u8).unwrap();
    queue.close();
    let child = builder(method).spawn(queue.clone(), |queue: Queue<u8>| {
        let before = (queue.len(), queue.is_empty(), queue.is_full());
        assert_eq!(queue.get().unwrap(), 1);
        before
    });
    assert_eq!(child.unwrap().join().unwrap(), (1, false, false));
    let after = (queue.len(), queue.is_empty(), queue.is_full());
    assert_eq!(after, (0, true, false));
});

// CPython: TestSimpleQueue.test_empty
each_method!(empty, |method| {
    let queue = Queue::new().unwrap();
    let gate = Gate::new();
    assert!(queue.is_empty());
    let arguments = (queue.clone(), gate.path());
    let child = builder(method).spawn(arguments, |(queue, gate)| {
        let seen = queue.is_empty();
        queue.put(!seen).unwrap();
        pass(&gate);
    });
    assert!(!queue.get().unwrap());
    assert!(queue.is_empty());
    gate.let_through(1);
    child.unwrap().join().unwrap();
});

// CPython's guideline that a process which has put does not end before all is written: here it may even exit at once.
each_method_alone!(what_was_put_outlives_who_put_it, |method| {
    let queue = Queue::new().unwrap();
    for size in [0, 1, 100_000] {
        let child = builder(method).spawn((queue.clone(), size), |(queue, size)| {
            queue.put(vec![7_u8; size]).unwrap();
            crate::common::unsafely::exit_at_once(0);
        });
        let mut child: Process = child.unwrap();
        child.wait().unwrap();
        assert_eq!(queue.get_timeout(LONG).unwrap().len(), size);
    }
});
