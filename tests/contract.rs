//! The contract, as its users type it: each name, each argument's place and each meaning, with no annotation that the
//! contract does without. What breaks here breaks programs.

mod common;

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use multiprocess::{
    Array, Barrier, BarrierError, BarrierWaitResult, BoundedSemaphore, Closure, Condition, Error,
    Event, Lock, OwnerDied, Pipe, Pool, Portable, Process, Queue, RLock, Run, Semaphore,
    SharedMemory, SharedSlice, StartMethod, TaskError, Value,
};
use serde::{Deserialize, Serialize};

/// Far longer than anything here takes: a limit that passes is a failure.
const LONG: Duration = Duration::from_secs(60);
/// Long enough that somebody surely sleeps, and short enough to wait for.
const SHORT: Duration = Duration::from_millis(20);

type Whatever = Result<(), Box<dyn std::error::Error + Send + Sync>>;

fn square(x: u64) -> u64 {
    x * x
}

fn both<T: std::error::Error + Send + Sync + 'static>() {}

fn portable<T: Portable>(_: &T) {}

#[test]
fn errors_are_errors_and_a_task_error_becomes_one() {
    both::<Error>();
    both::<TaskError>();
    fn through(pool: &Pool) -> Result<u64, Error> {
        Ok(pool.apply(2u64, square)?)
    }
    let pool = Pool::builder().workers(1).build().unwrap();
    assert_eq!(through(&pool).unwrap(), 4);
}

#[test]
fn a_process_tells_its_name_its_end_and_what_its_function_returned() -> Whatever {
    let process = Process::spawn((2, 3), |(a, b)| a + b)?;
    assert!(process.name().starts_with("Process-"), "{}", process.name());
    assert_ne!(process.pid(), std::process::id());
    assert!(!process.is_daemon());
    assert_eq!(process.join()?, 5);

    let mut slow = Process::builder()
        .name("slow")
        .daemon(true)
        .start_method(StartMethod::Spawn)
        .env("COLOUR", "green")
        .stack_size(4 << 20)
        .spawn((), |()| {
            assert_eq!(std::env::var("COLOUR").as_deref(), Ok("green"));
            std::thread::sleep(LONG);
        })?;
    assert_eq!(slow.name(), "slow");
    assert!(slow.is_daemon() && slow.is_alive());
    assert_eq!(slow.exit_status(), None);
    assert_eq!(slow.wait_timeout(SHORT)?, None);
    assert!(
        multiprocess::active_children()
            .iter()
            .any(|child| child.name() == "slow" && child.pid() == slow.pid())
    );
    slow.terminate()?;
    let status: ExitStatus = slow.wait()?;
    assert_eq!(status.signal(), Some(15));
    assert_eq!(slow.wait()?, status);
    assert_eq!(slow.exit_status(), Some(status));
    slow.kill()?;
    slow.interrupt()?;
    assert!(slow.as_fd().as_raw_fd() >= 0);
    Ok(())
}

#[test]
fn a_process_that_panics_ends_with_101_and_one_that_is_killed_with_its_signal() -> Whatever {
    let mut process: Process<()> = Process::spawn((), |()| panic!("no such file"))?;
    assert_eq!(process.wait()?.code(), Some(101));
    let error = process.join().unwrap_err();
    assert!(error.is_panic() && !error.is_crash() && !error.is_timeout() && !error.is_cancelled());
    assert_eq!(error.panic_message(), Some("no such file"));
    assert!(error.location().is_some());

    let process = Process::spawn((), |()| std::thread::sleep(LONG))?;
    let pid = process.pid();
    process.kill()?;
    let error = process.join().unwrap_err();
    assert!(error.is_crash());
    assert_eq!(
        error.exit_status().and_then(|status| status.signal()),
        Some(9)
    );
    assert_eq!(error.pid(), Some(pid));
    Ok(())
}

#[derive(Serialize, Deserialize)]
struct Countdown {
    from: u32,
}

impl Run for Countdown {
    type Output = Vec<u32>;
    fn run(self) -> Vec<u32> {
        (0..self.from).rev().collect()
    }
}

#[test]
fn a_type_of_ones_own_is_a_process() -> Whatever {
    assert_eq!(
        Process::builder().start(Countdown { from: 3 })?.join()?,
        [2, 1, 0]
    );
    Ok(())
}

#[test]
fn a_child_knows_itself_and_its_parent() -> Whatever {
    let (name, pid, daemon, parent) = Process::builder()
        .name("child")
        .spawn((), |()| {
            let me = multiprocess::current_process();
            (
                me.name().to_string(),
                me.pid(),
                me.is_daemon(),
                me.parent().map(|parent| parent.pid()),
            )
        })?
        .join()?;
    assert_eq!(
        (name.as_str(), daemon, parent),
        ("child", false, Some(std::process::id()))
    );
    assert_ne!(pid, std::process::id());
    assert!(multiprocess::available_parallelism() >= 1);
    Ok(())
}

#[test]
fn a_scope_borrows_or_says_that_other_threads_run() {
    // The test runner has threads, so it is refused here; a process has none.
    let text = String::from("seven");
    assert!(multiprocess::scope(|scope| scope.spawn(|| text.len()).join()).is_err());
    let length = Process::spawn((), |()| {
        let text = String::from("seven");
        multiprocess::scope(|scope| {
            let process = scope.spawn(|| text.len());
            process.join().unwrap()
        })
        .unwrap()
    });
    assert_eq!(length.unwrap().join().unwrap(), 5);
}

#[test]
fn every_verb_of_a_pool() -> Whatever {
    let pool = Pool::builder()
        .workers(2)
        .name("contract")
        .start_method(StartMethod::ForkServer)
        .build()?;
    assert_eq!(pool.workers(), 2);
    assert_eq!(pool.worker_pids().len(), 2);
    let lines = vec!["one".to_string(), "three".to_string()];
    assert_eq!(pool.map(lines, |line| line.len())?, [3, 5]);
    assert_eq!(pool.map(vec![(1, 2), (3, 4)], |(a, b)| a + b)?, [3, 7]);
    let lazily: Result<Vec<_>, _> = pool.imap(0..10u64, square).collect();
    assert_eq!(lazily?, (0..10).map(|x| x * x).collect::<Vec<u64>>());
    let mut unordered: Vec<(usize, u64)> = pool
        .imap_unordered(0..10u64, square)
        .map(|(index, result)| (index, result.unwrap()))
        .collect();
    unordered.sort();
    assert_eq!(unordered[9], (9, 81));
    assert_eq!(pool.apply((6u64, 7u64), |(a, b)| a * b)?, 42);
    assert_eq!(pool.map_async(0..4u64, square).get()?, [0, 1, 4, 9]);
    let mut soon = pool.apply_async(9u64, square);
    assert_eq!(soon.get_timeout(LONG).unwrap()?, 81);
    assert_eq!(
        futures::executor::block_on(pool.apply_async(5u64, square))?,
        25
    );
    pool.close();
    assert!(pool.apply(1u64, square).is_err());
    pool.join()?;
    Pool::new()?.terminate()?;
    Ok(())
}

#[test]
fn every_setting_of_a_pool_and_of_a_job() -> Whatever {
    let pool = Pool::builder()
        .workers(2)
        .initializer(7u64, |seven| assert_eq!(seven, 7))
        .max_tasks_per_worker(1000)
        .memory_limit(4 << 30)
        .build()?;
    assert_eq!(
        pool.with(10u64).map(0..3u64, |ten, x| ten + x)?,
        [10, 11, 12]
    );
    assert_eq!(
        pool.with(vec![1u64, 2])
            .apply(1usize, |numbers, at| numbers[at])?,
        2
    );
    let (told, hears) = std::sync::mpsc::channel();
    let result = pool
        .job()
        .chunk_size(2)
        .timeout(LONG)
        .retries(1)
        .in_flight(8)
        .on_done(move |result| {
            told.send(result.is_ok()).unwrap();
        });
    assert_eq!(result.map_async(0..5u64, square).get()?, [0, 1, 4, 9, 16]);
    assert!(hears.recv_timeout(LONG)?);
    Ok(())
}

#[test]
fn one_bad_item_costs_itself() -> Whatever {
    let pool = Pool::builder().workers(2).build()?;
    let results: Vec<Result<u64, TaskError>> = pool
        .imap(0..8u64, |x| {
            if x == 3 {
                std::process::exit(7);
            }
            x
        })
        .collect();
    for (index, result) in results.iter().enumerate() {
        match result {
            Ok(value) => assert_eq!(*value, index as u64),
            Err(error) => {
                assert_eq!((index, error.item()), (3, Some(3)));
                assert!(error.is_crash());
                assert_eq!(
                    error.exit_status().and_then(|status| status.code()),
                    Some(7)
                );
            }
        }
    }
    assert_eq!(results.iter().filter(|result| result.is_err()).count(), 1);

    let first = pool.map(0..8u64, |x| assert_ne!(x, 5)).unwrap_err();
    assert!(first.is_panic());
    assert_eq!(first.item(), Some(5));
    let late = pool
        .job()
        .timeout(Duration::from_millis(100))
        .apply((), |()| std::thread::sleep(LONG))
        .unwrap_err();
    assert!(late.is_timeout());
    let running = pool.apply_async((), |()| std::thread::sleep(LONG));
    running.cancel();
    assert!(running.get().unwrap_err().is_cancelled());
    assert_eq!(pool.map(0..3u64, square)?, [0, 1, 4]);
    Ok(())
}

#[test]
fn a_pipe_has_two_ends_of_two_types() -> Whatever {
    let (here, there) = Pipe::<u64, String>::pair()?;
    let process = Process::spawn(there, |pipe| {
        for number in pipe.iter() {
            pipe.send(format!("<{number}>")).unwrap();
        }
    })?;
    here.send(7)?;
    assert!(here.poll(LONG)?);
    assert_eq!(here.recv()?, "<7>");
    assert!(here.try_recv().unwrap_err().is_empty());
    assert!(here.recv_timeout(SHORT).unwrap_err().is_timeout());
    here.try_send(8).map_err(|error| error.to_string())?;
    assert_eq!(here.recv_timeout(LONG)?, "<8>");
    here.send_timeout(9, LONG)
        .map_err(|error| error.to_string())?;
    assert_eq!(here.recv()?, "<9>");
    let (sender, receiver) = here.split();
    sender.send(1)?;
    assert_eq!(receiver.recv()?, "<1>");
    drop(sender);
    drop(receiver);
    process.join()?;

    let (left, right) = Pipe::<Vec<u8>>::pair()?;
    left.send_bytes(b"four")?;
    let mut short = [0; 2];
    assert!(right.recv_bytes_into(&mut short).is_err());
    let mut enough = [0; 8];
    assert_eq!(right.recv_bytes_into(&mut enough)?, 4);
    left.send_bytes(b"more")?;
    assert_eq!(right.recv_bytes()?, b"more");
    drop(left);
    assert!(right.recv().unwrap_err().is_closed());
    Ok(())
}

#[test]
fn a_queue_serves_any_number_on_both_sides() -> Whatever {
    let queue = Queue::bounded(2)?;
    assert_eq!(queue.capacity(), Some(2));
    queue.put(1u64)?;
    queue.try_put(2).map_err(|error| error.to_string())?;
    assert!(queue.is_full());
    assert_eq!(queue.len(), 2);
    assert!(queue.try_put(3).is_err());
    assert!(queue.put_timeout(3, SHORT).is_err());
    let sum = Process::spawn(queue.clone(), |queue| {
        let mut sum = 0;
        for number in queue.iter() {
            sum += number;
            queue.task_done().unwrap();
        }
        sum
    })?;
    queue.put(3)?;
    queue.join()?;
    assert!(queue.join_timeout(LONG).is_ok());
    assert!(queue.is_empty());
    queue.close();
    assert_eq!(sum.join()?, 6);
    assert!(queue.put(4).is_err());
    assert!(queue.get().unwrap_err().is_closed());

    let free = Queue::<String>::new()?;
    assert!(free.try_get().unwrap_err().is_empty());
    assert!(free.get_timeout(SHORT).unwrap_err().is_timeout());
    free.put("text".to_string())?;
    assert_eq!(free.get()?, "text");
    Ok(())
}

#[test]
fn wait_tells_which_of_many_are_ready() -> Whatever {
    let queue = Queue::<u64>::new()?;
    let (here, there) = Pipe::<u64>::pair()?;
    let process = Process::spawn((), |()| std::thread::sleep(LONG))?;
    assert!(multiprocess::wait(&[&queue, &here, &process], Some(SHORT))?.is_empty());
    there.send(1)?;
    assert_eq!(multiprocess::wait(&[&queue, &here, &process], None)?, [1]);
    here.recv()?;
    process.kill()?;
    assert_eq!(
        multiprocess::wait(&[&queue, &here, &process], Some(LONG))?,
        [2]
    );
    Ok(())
}

#[test]
fn a_lock_outlives_its_holder() -> Whatever {
    let lock = Lock::new(0u64)?;
    *lock.lock().map_err(|_| "died")? += 1;
    assert!(lock.lock_timeout(LONG).is_ok());
    let holder: Process = Process::spawn(lock.clone(), |lock| {
        let mut guard = lock.lock().unwrap();
        *guard = 41;
        std::process::abort()
    })?;
    assert!(holder.join().is_err());
    let died: OwnerDied<_> = match lock.lock() {
        Ok(_) => panic!("nobody died"),
        Err(died) => died,
    };
    // A guard holds a copy that is written back when it goes: what a dead holder had begun is not there.
    let mut guard = died.into_guard();
    assert_eq!(*guard, 1);
    *guard += 41;
    drop(guard);
    assert_eq!(*lock.lock().map_err(|_| "died")?, 42);
    let plain: Lock = Lock::new(())?;
    drop(plain.lock());
    Ok(())
}

#[test]
fn every_other_primitive() -> Whatever {
    let again = RLock::new()?;
    let outer = again.lock();
    let inner = again.lock();
    assert!(outer.is_ok() && inner.is_ok());
    drop((inner, outer));

    let semaphore = Semaphore::new(1)?;
    semaphore.acquire();
    assert!(!semaphore.try_acquire());
    assert!(!semaphore.acquire_timeout(SHORT));
    semaphore.release()?;
    assert_eq!(semaphore.value(), 1);
    let bounded = BoundedSemaphore::new(1)?;
    assert!(bounded.release().is_err());

    let event = Event::new()?;
    let waits = Process::spawn(event.clone(), |event| event.wait())?;
    event.set();
    waits.join()?;
    assert!(event.is_set() && event.wait_timeout(LONG));
    event.clear();
    assert!(!event.wait_timeout(SHORT));

    let lock = Lock::new(0u32)?;
    let condition = Condition::new()?;
    let notifier = Process::spawn((lock.clone(), condition.clone()), |(lock, condition)| {
        *lock.lock().unwrap() = 1;
        condition.notify_one();
        condition.notify_all();
    })?;
    let guard = lock.lock().map_err(|_| "died")?;
    let guard = condition
        .wait_while(guard, |ready| *ready == 0)
        .map_err(|_| "died")?;
    assert_eq!(*guard, 1);
    drop(guard);
    notifier.join()?;

    let barrier = Barrier::new(2)?;
    assert_eq!(
        (barrier.parties(), barrier.waiting(), barrier.is_broken()),
        (2, 0, false)
    );
    let other = Process::spawn(barrier.clone(), |barrier| {
        barrier.wait().unwrap().is_leader()
    })?;
    let result: Result<BarrierWaitResult, BarrierError> = barrier.wait();
    let result = result?;
    assert!(result.index() < 2);
    assert_ne!(result.is_leader(), other.join()?);
    assert!(barrier.wait_timeout(SHORT).is_err());
    assert!(barrier.is_broken());
    barrier.reset();
    assert!(!barrier.is_broken());
    barrier.abort();
    assert!(barrier.wait().is_err());
    Ok(())
}

#[test]
fn every_shared_value() -> Whatever {
    let value = Value::new(1u64)?;
    let adds = Process::spawn(value.clone(), |value| {
        value.fetch_add(1);
    })?;
    adds.join()?;
    assert_eq!(value.get(), 2);
    value.set(5);
    value.update(|x| x * 2);
    assert_eq!(value.get(), 10);

    let array = Array::<u32>::new(4)?;
    array.lock()[3] = 9;
    let from = Array::from_slice(&[1u32, 2])?;
    assert_eq!(&*from.lock(), &[1, 2][..]);

    let slice = SharedSlice::from_slice(&[1.0f64, 2.0])?;
    portable(&slice);
    let sum = Process::spawn(slice.clone(), |slice| slice.iter().sum::<f64>())?;
    assert_eq!(sum.join()?, 3.0);

    let name = format!("contract-{}", std::process::id());
    let block = SharedMemory::create(&name, 4096)?;
    let same = SharedMemory::open(&name)?;
    assert_eq!(same.len(), block.len());
    block.unlink()?;
    Ok(())
}

#[test]
fn a_closure_travels_with_what_it_captured() -> Whatever {
    let plus = Closure::with(10u64, |ten, x: u64| ten + x);
    assert_eq!(plus.call(1), 11);
    let queue = Queue::<Closure<u64, u64>>::new()?;
    queue.put(Closure::new(square))?;
    queue.put(plus)?;
    let results = Process::spawn(queue.clone(), |queue| {
        [queue.get().unwrap().call(3), queue.get().unwrap().call(3)]
    })?;
    assert_eq!(results.join()?, [9, 13]);
    Ok(())
}

#[test]
fn a_foreign_serializer_is_told_so() -> Whatever {
    let queue = Queue::<u64>::new()?;
    let error = serde_json::to_string(&queue).unwrap_err().to_string();
    assert!(error.contains("handle"), "{error}");
    Ok(())
}

#[test]
fn a_limit_is_kept() -> Whatever {
    let queue = Queue::<u64>::new()?;
    let began = Instant::now();
    assert!(queue.get_timeout(SHORT).unwrap_err().is_timeout());
    assert!(began.elapsed() >= SHORT && began.elapsed() < LONG);
    Ok(())
}
