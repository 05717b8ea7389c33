//! Each system call that an operation makes is refused in turn, here or in the processes that were started.

use crate::common::alone::{in_own_process, test_path};
use crate::common::census::Census;
use crate::common::refusals::{Refusals, Whose, supervised};
use crate::common::{LONG_LIMIT, assert_serves, kill_hard};
use multiprocess::{
    Array, Barrier, Condition, Error, Event, Lock, Pipe, Pool, Process, Queue, RLock, Semaphore,
    SharedMemory, SharedSlice, StartMethod, TaskErrorKind, Value,
};
use std::fmt::Display;
use std::fs;
use std::time::Duration;

/// More calls than any of the operations below makes.
const CALLS_MAX: i64 = 2_000;

/// How long waits that a refused call may have made pointless are.
const BRIEFLY: Duration = Duration::from_millis(500);

fn said(error: impl Display) -> String {
    error.to_string()
}

/// How many mappings of the library's memory there are.
fn mappings() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines()
        .filter(|line| line.contains("memfd:multiprocess"))
        .count()
}

/// Does `operation` while one of the calls is refused that `whose` processes make meanwhile: the first, the second, and so on,
/// until there is none to be refused. After each, `operation` must succeed with the same object, and nothing be left.
fn refuse_each<T>(
    refusals: &Refusals,
    name: &str,
    whose: Whose,
    object: T,
    operation: impl Fn(&T) -> Result<(), String>,
) {
    for _ in 0..3 {
        operation(&object).unwrap();
    }
    let (before, mappings_before) = (Census::now(), mappings());
    for passed in 0..CALLS_MAX {
        let (outcome, refused) = refusals.refuse(whose, passed, || operation(&object));
        let Some(refused) = refused else {
            outcome.unwrap();
            println!("{name}, {whose:?}: refused={passed}");
            return;
        };
        match &outcome {
            Ok(()) => println!("{name}, {whose:?}, {passed}, {refused}: done all the same"),
            Err(why) => {
                println!("{name}, {whose:?}, {passed}, {refused}: {why}");
                assert!(!why.is_empty());
            }
        }
        if let Err(why) = operation(&object) {
            panic!(
                "{name}, {whose:?}, call {passed}, {refused} ({outcome:?}); and afterwards: {why}"
            );
        }
        before.assert_nothing_added();
        let mappings = mappings();
        assert!(
            mappings <= mappings_before,
            "{name}, {whose:?}, call {passed}, {refused}: {mappings_before} mappings before, {mappings} after"
        );
    }
    panic!("{name}, {whose:?}: more than {CALLS_MAX} calls");
}

/// Makes a test whose body runs under supervision.
macro_rules! refused {
    ($name:ident, |$refusals:ident| $body:block) => {
        #[test]
        fn $name() {
            let test = test_path(module_path!(), stringify!($name));
            in_own_process(&test, LONG_LIMIT, || {
                let is_supervised = supervised(|$refusals| {
                    let $refusals = &$refusals;
                    $body
                });
                if !is_supervised {
                    println!("skipped=1, since the kernel has no supervision of system calls here");
                }
            });
        }
    };
}

fn start(method: StartMethod, len: usize) -> Result<(), String> {
    let process = Process::builder()
        .start_method(method)
        .spawn(vec![1_u8; len], |bytes| bytes.len())
        .map_err(said)?;
    let joined = process.join().map_err(said)?;
    assert_eq!(joined, len);
    Ok(())
}

/// As [`start`], of a process that does not end by itself: one that runs though its start failed would be left over.
fn start_endless(method: StartMethod, is_daemon: bool) -> Result<(), String> {
    let mut process: Process = Process::builder()
        .start_method(method)
        .daemon(is_daemon)
        .spawn((), |()| {
            loop {
                std::thread::park();
            }
        })
        .map_err(said)?;
    process.kill().map_err(said)?;
    process.wait().map_err(said)?;
    Ok(())
}

/// As [`start`], with handles among the arguments and in the result.
fn start_with_handles(method: StartMethod) -> Result<(), String> {
    let event = Event::new().map_err(said)?;
    let slice = SharedSlice::from_slice(&[3_u8; 10_000]).map_err(said)?;
    let process = Process::builder()
        .start_method(method)
        .spawn((event, slice), |(event, slice)| {
            event.set();
            (event, slice)
        })
        .map_err(said)?;
    let (event, slice) = process.join().map_err(said)?;
    assert!(event.is_set() && slice[9_999] == 3);
    Ok(())
}

fn refuse_starts(refusals: &Refusals, method: StartMethod) {
    for whose in [Whose::Own, Whose::Others] {
        // Whatever is refused to who starts others, what was started before lives on.
        let mut beside: Process = Process::builder()
            .start_method(method)
            .daemon(true)
            .spawn((), |()| {
                loop {
                    std::thread::park();
                }
            })
            .unwrap();
        refuse_each(refusals, "start", whose, &beside, |beside| {
            start(method, 100)?;
            assert!(beside.is_alive());
            Ok(())
        });
        refuse_each(refusals, "large start", whose, &beside, |beside| {
            start(method, 100_000)?;
            assert!(beside.is_alive());
            Ok(())
        });
        refuse_each(refusals, "endless daemon", whose, (), |()| {
            start_endless(method, true)
        });
        refuse_each(refusals, "endless non-daemon", whose, (), |()| {
            start_endless(method, false)
        });
        refuse_each(refusals, "start with handles", whose, (), |()| {
            start_with_handles(method)
        });
        assert!(beside.is_alive());
        beside.kill().unwrap();
        beside.wait().unwrap();
    }
}

refused!(a_start_by_the_fork_server, |refusals| {
    refuse_starts(refusals, StartMethod::ForkServer);
});

refused!(a_start_by_spawn, |refusals| {
    refuse_starts(refusals, StartMethod::Spawn);
});

refused!(a_start_by_fork, |refusals| {
    refuse_starts(refusals, StartMethod::Fork);
});

refused!(a_scope, |refusals| {
    refuse_each(refusals, "scope", Whose::Own, vec![1, 2, 3], |numbers| {
        let sum = multiprocess::scope(|scope| scope.spawn(|| numbers.iter().sum::<i32>()).join());
        assert_eq!(sum.map_err(said)?.map_err(said)?, 6);
        Ok(())
    });
});

fn build(method: StartMethod) -> Result<Pool, String> {
    let built = Pool::builder().workers(2).start_method(method).build();
    built.map_err(said)
}

fn map(pool: &Pool) -> Result<(), String> {
    let results = pool.map(0..20_u32, |n| vec![n; 10]).map_err(said)?;
    assert_eq!(results.len(), 20);
    assert!(
        results
            .iter()
            .zip(0..)
            .all(|(result, n)| *result == [n; 10])
    );
    Ok(())
}

refused!(a_pool_that_is_built_and_used, |refusals| {
    for whose in [Whose::Own, Whose::Others] {
        for method in [StartMethod::ForkServer, StartMethod::Spawn] {
            refuse_each(refusals, "pool", whose, method, |&method| {
                map(&build(method)?)
            });
        }
    }
});

refused!(a_pool_that_maps, |refusals| {
    for whose in [Whose::Own, Whose::Others] {
        let pool = build(StartMethod::ForkServer).unwrap();
        refuse_each(refusals, "map", whose, pool, map);
    }
});

refused!(a_pool_that_replaces_a_worker, |refusals| {
    for whose in [Whose::Own, Whose::Others] {
        let pool = build(StartMethod::ForkServer).unwrap();
        refuse_each(refusals, "crash", whose, pool, |pool| {
            let error = pool.apply((), |()| kill_hard(std::process::id()));
            let error = error.err().ok_or("no crash")?;
            assert!(
                error.is_crash() || error.kind() == TaskErrorKind::System,
                "{error}"
            );
            map(pool)
        });
    }
});

refused!(a_pool_that_is_sent_handles, |refusals| {
    for whose in [Whose::Own, Whose::Others] {
        let pool = build(StartMethod::ForkServer).unwrap();
        let slice = SharedSlice::from_slice(&[1_u64; 1000]).unwrap();
        refuse_each(
            refusals,
            "map of handles",
            whose,
            (pool, slice),
            |(pool, slice)| {
                let sums = pool.map([slice.clone(), slice.clone()], |slice| {
                    slice.iter().sum::<u64>()
                });
                assert_eq!(sums.map_err(said)?, [1000, 1000]);
                Ok(())
            },
        );
    }
});

refused!(a_pool_that_answers_later, |refusals| {
    let pool = build(StartMethod::ForkServer).unwrap();
    refuse_each(refusals, "apply_async", Whose::Own, &pool, |pool| {
        let result = pool.apply_async(20, |n: i32| n + 1);
        assert_eq!(result.get().map_err(said)?, 21);
        Ok(())
    });
    assert_serves(&pool);
});

refused!(a_pipe, |refusals| {
    refuse_each(refusals, "pipe", Whose::Own, (), |()| {
        let (here, there) = Pipe::<Vec<u8>>::pair().map_err(said)?;
        here.send_timeout(vec![1; 100], BRIEFLY).map_err(said)?;
        assert_eq!(there.recv_timeout(BRIEFLY).map_err(said)?, [1; 100]);
        Ok(())
    });
    let ends = Pipe::<Event>::pair().unwrap();
    let event = Event::new().unwrap();
    refuse_each(
        refusals,
        "pipe with handles",
        Whose::Own,
        (ends, event),
        |((here, there), event)| {
            here.send_timeout(event.clone(), BRIEFLY).map_err(said)?;
            there.recv_timeout(BRIEFLY).map_err(said)?.set();
            Ok(())
        },
    );
});

refused!(a_queue, |refusals| {
    refuse_each(refusals, "queue", Whose::Own, (), |()| {
        let queue = Queue::bounded(3).map_err(said)?;
        queue.put_timeout(5, BRIEFLY).map_err(said)?;
        assert_eq!(queue.get_timeout(BRIEFLY).map_err(said)?, 5);
        Ok(())
    });
    let (queue, event) = (Queue::<Event>::new().unwrap(), Event::new().unwrap());
    refuse_each(
        refusals,
        "queue with handles",
        Whose::Own,
        (queue, event),
        |(queue, event)| {
            queue.put_timeout(event.clone(), BRIEFLY).map_err(said)?;
            queue.get_timeout(BRIEFLY).map_err(said)?.set();
            Ok(())
        },
    );
});

/// As long as its segment of memory has room, an object takes no call at all: so each is too large to share one.
type Large = [u64; 8192];

refused!(what_lies_in_shared_memory, |refusals| {
    refuse_each(refusals, "lock", Whose::Own, (), |()| {
        let lock = Lock::<Large>::new([0; 8192]).map_err(said)?;
        lock.lock().map_err(said)?[0] += 1;
        Ok(())
    });
    refuse_each(refusals, "value", Whose::Own, (), |()| {
        let value = Value::<Large>::new([1; 8192]).map_err(said)?;
        assert_eq!(value.get()[8191], 1);
        Ok(())
    });
    refuse_each(refusals, "array", Whose::Own, (), |()| {
        let array = Array::<u64>::new(100_000).map_err(said)?;
        assert_eq!(array.get(99_999), Some(0));
        Ok(())
    });
    refuse_each(refusals, "slice", Whose::Own, (), |()| {
        let slice = SharedSlice::from_slice(&[1_u8; 100_000]).map_err(said)?;
        assert_eq!(
            slice.iter().map(|&one| u64::from(one)).sum::<u64>(),
            100_000
        );
        Ok(())
    });
    refuse_each(refusals, "large slice", Whose::Own, (), |()| {
        let slice = SharedSlice::from_fn(1 << 20, |at| at as u64).map_err(said)?;
        assert_eq!(slice[1_000_000], 1_000_000);
        Ok(())
    });
});

refused!(a_block_with_a_name, |refusals| {
    let name = format!("multiprocess-exhaustion-{}", std::process::id());
    refuse_each(refusals, "shared memory", Whose::Own, name, |name| {
        let memory = SharedMemory::create(name, 5000).map_err(said)?;
        memory.write(0, &[7_u8; 10]).map_err(said)?;
        let opened = SharedMemory::open(name).map_err(said)?;
        assert_eq!(opened.read_value::<u8>(9).map_err(said)?, 7);
        Ok(())
    });
});

// An end that moves to another process is back here where it could not leave.
refused!(an_end_of_a_pipe_that_moves, |refusals| {
    let ends = Pipe::<u32>::pair().unwrap();
    refuse_each(refusals, "moving", Whose::Own, ends, |(here, there)| {
        let (carrier, arrives) = Pipe::<Pipe<u32>>::pair().map_err(said)?;
        let (mine, moving) = Pipe::<u32>::pair().map_err(said)?;
        mine.send_timeout(4, BRIEFLY).map_err(said)?;
        if let Err(failed) = carrier.send_timeout(moving, BRIEFLY) {
            let why = failed.to_string();
            let back = failed.into_value();
            assert_eq!(back.recv_timeout(BRIEFLY).map_err(said)?, 4);
            return Err(why);
        }
        let arrived = arrives.recv_timeout(BRIEFLY).map_err(said)?;
        assert_eq!(arrived.recv_timeout(BRIEFLY).map_err(said)?, 4);
        here.send_timeout(5, BRIEFLY).map_err(said)?;
        assert_eq!(there.recv_timeout(BRIEFLY).map_err(said)?, 5);
        let ready = multiprocess::wait(&[there], Some(Duration::ZERO)).map_err(said)?;
        assert!(ready.is_empty());
        Ok(())
    });
});

// The first of each in a fresh process: what the library makes once is made while a call is refused.
refused!(the_first_of_each, |refusals| {
    type Make = fn() -> Result<(), Error>;
    let all: [(&str, Make); 8] = [
        ("lock", || Lock::new(1_u8).map(drop)),
        ("rlock", || {
            let lock = RLock::new()?;
            drop(lock.lock());
            Ok(())
        }),
        ("semaphore", || Semaphore::new(1).map(drop)),
        ("event", || Event::new().map(drop)),
        ("condition", || Condition::new().map(drop)),
        ("barrier", || Barrier::new(2).map(drop)),
        ("value", || Value::new(1_u8).map(drop)),
        ("queue", || Queue::<u8>::new().map(drop)),
    ];
    for (name, make) in all {
        for passed in 0..CALLS_MAX {
            let mut was_refused = false;
            let status = crate::common::unsafely::in_fork(|| {
                let (outcome, refused) = refusals.refuse(Whose::Others, passed, make);
                if let Some(refused) = refused {
                    match outcome {
                        Ok(()) => println!("{name}, {passed}, {refused}: done all the same"),
                        Err(error) => println!("{name}, {passed}, {refused}: {error}"),
                    }
                    make().unwrap();
                    crate::common::unsafely::exit_at_once(7);
                }
                make().unwrap();
            });
            assert!(
                status == 0 || status == 7,
                "{name}, call {passed}: ended with {status}"
            );
            was_refused |= status == 7;
            if !was_refused {
                println!("first {name}: refused={passed}");
                break;
            }
        }
    }
});
