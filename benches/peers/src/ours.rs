//! This crate.

use std::hint::black_box;
use std::thread::sleep;
use std::time::{Duration, Instant};

use multiprocess::{
    AsyncResult, Barrier, Lock, Pipe, Pool, Portable, Process, Queue, SharedSlice, StartMethod,
};

use crate::baseline::work::{burn, square, units_for};
use crate::baseline::{allocator, ourselves, processor};
use crate::sample::{
    Measure, PRIVATE, Sample, all, descriptors, each, memory_kib, quantiles, told,
};

pub(crate) const MILLION: u64 = 1_000_000;
pub(crate) const BURNS: usize = 2_000;
pub(crate) const BURN: Duration = Duration::from_micros(100);
pub(crate) const LARGES: usize = 200;
pub(crate) const LARGE_BYTES: usize = 8 << 20;
/// 8 MiB of them.
pub(crate) const NUMBERS: u64 = 1 << 20;
pub(crate) const IDLE: Duration = Duration::from_secs(1);

pub(crate) fn measure(job: &str) -> Option<Measure> {
    match job {
        "map_million" => map_million(),
        "map_100us" => map_100us(),
        "chunk1" => chunk1(),
        "apply" => apply(),
        "apply_idle" => apply_idle(),
        "map_8mib" => map_8mib(),
        "imap_first" => imap_first(),
        "apply_async" => apply_async(),
        "first_pool" => told(ourselves::first_pool),
        "later_pool" => told(ourselves::pool_of_two_answers_twice),
        "crash" => crash(false),
        "crash_replaced" => crash(true),
        "idle_worker" => idle_worker(),
        "descriptors" => descriptors_of_workers(),
        "workers_200" => many_workers(200),
        "spawn" => each(|| start(StartMethod::ForkServer)),
        "spawn_exec" => each(|| start(StartMethod::Spawn)),
        "spawn_1gib" => with_memory(1 << 30),
        "pipe_rtt" | "pipe_rtt_one" => pipe_round_trip(),
        "pipe_u64" => pipe_one_way(),
        "pipe_1k" => pipe_bytes(1 << 10),
        "pipe_1m" => pipe_bytes(1 << 20),
        "queue_11" => all(|count| stream(1, count)),
        "queue_22" => all(|count| stream(2, count)),
        "queue_rtt" => queue_round_trip(),
        "lock" => lock(),
        "lock_two" => lock_two(),
        "barrier" => barrier(),
        "slice_over" => slice(|slice| slice.len() as u64, MANY),
        "slice_read" => slice(|slice| slice.iter().sum(), 1),
        "slice_again" => slice(|slice| slice.len() as u64, 1),
        _ => None,
    }
}

/// The same from a small process, where that is to be compared.
pub(crate) fn small(job: &str) -> Option<Measure> {
    (job == "spawn_1gib").then(|| with_memory(10 << 20))?
}

/// How many units take `BURN`: the same for all peers, if they are told.
pub(crate) fn burn_units() -> u64 {
    match std::env::var("PEERS_BURN_UNITS") {
        Ok(told) => told.parse().unwrap(),
        Err(_) => units_for(BURN),
    }
}

pub(crate) fn two_workers() -> Pool {
    Pool::builder().workers(2).build().unwrap()
}

fn map_million() -> Option<Measure> {
    let pool = two_workers();
    let squares = pool.map(0..MILLION, square).unwrap();
    assert!(squares.into_iter().eq((0..MILLION).map(square)));
    told(move || {
        let start = Instant::now();
        let squares = pool.map(0..black_box(MILLION), square).unwrap();
        let elapsed = start.elapsed();
        assert_eq!(squares.len() as u64, MILLION);
        elapsed
    })
}

fn map_100us() -> Option<Measure> {
    let pool = two_workers();
    let units = burn_units();
    let expected = vec![burn(units); BURNS];
    told(move || {
        let start = Instant::now();
        let results = pool.map(vec![units; BURNS], burn).unwrap();
        let elapsed = start.elapsed();
        assert_eq!(results, expected);
        elapsed
    })
}

fn chunk1() -> Option<Measure> {
    let pool = two_workers();
    all(move |count| {
        let start = Instant::now();
        let squares = pool.job().chunk_size(1).map(0..count, square).unwrap();
        let elapsed = start.elapsed();
        assert!(squares.into_iter().eq((0..count).map(square)));
        elapsed
    })
}

fn apply() -> Option<Measure> {
    let pool = two_workers();
    Some(Box::new(move |count| {
        let call = |x| {
            let start = Instant::now();
            let result = pool.apply(black_box(x), square).unwrap();
            let elapsed = start.elapsed();
            assert_eq!(result, square(x));
            elapsed
        };
        quantiles((0..count).map(call).collect())
    }))
}

fn apply_idle() -> Option<Measure> {
    let pool = two_workers();
    assert_eq!(pool.apply(3, square).unwrap(), 9);
    told(move || {
        sleep(IDLE);
        let start = Instant::now();
        let result = pool.apply(black_box(3), square).unwrap();
        let elapsed = start.elapsed();
        assert_eq!(result, 9);
        elapsed
    })
}

fn map_8mib() -> Option<Measure> {
    let pool = two_workers();
    allocator::keep_freed_memory();
    told(move || {
        let items = vec![vec![1_u8; LARGE_BYTES]; LARGES];
        let start = Instant::now();
        let lengths = pool.map(items, |item| item.len() as u64).unwrap();
        let elapsed = start.elapsed();
        assert_eq!(lengths, [LARGE_BYTES as u64; LARGES]);
        elapsed
    })
}

fn imap_first() -> Option<Measure> {
    let pool = two_workers();
    told(move || {
        let start = Instant::now();
        let first = pool.imap(1..=MILLION, square).next();
        let elapsed = start.elapsed();
        assert_eq!(first.unwrap().unwrap(), 1);
        elapsed
    })
}

fn apply_async() -> Option<Measure> {
    let pool = two_workers();
    all(move |count| {
        let start = Instant::now();
        let calls: Vec<AsyncResult<u64>> =
            (0..count).map(|x| pool.apply_async(x, square)).collect();
        let sum: u64 = calls.into_iter().map(|call| call.get().unwrap()).sum();
        let elapsed = start.elapsed();
        assert_eq!(sum, (0..count).map(square).sum());
        elapsed
    })
}

/// A worker dies under a call: until its error is here, or until another call is answered on top of that, by whichever
/// worker stands in its place.
fn crash(replaced: bool) -> Option<Measure> {
    let pool = Pool::builder().workers(1).build().unwrap();
    told(move || {
        assert_eq!(pool.apply(3, square).unwrap(), 9);
        let start = Instant::now();
        let error = pool
            .apply((), |()| std::process::abort())
            .map(|()| ())
            .unwrap_err();
        let told = start.elapsed();
        assert!(error.is_crash());
        assert_eq!(pool.apply(4, square).unwrap(), 16);
        if replaced { start.elapsed() } else { told }
    })
}

fn idle_worker() -> Option<Measure> {
    Some(Box::new(|_| {
        const WORKERS: usize = 20;
        let pool = busy_once(WORKERS);
        let pids = pool.worker_pids();
        let kib = pids
            .iter()
            .map(|pid| memory_kib(*pid, PRIVATE))
            .sum::<f64>();
        Sample::value(kib / WORKERS as f64)
    }))
}

/// How many more a pool of 22 has than one of 2, by 20.
fn descriptors_of_workers() -> Option<Measure> {
    Some(Box::new(|_| {
        let of = |workers| {
            let _pool = busy_once(workers);
            descriptors()
        };
        let few = of(2);
        Sample::value((of(22) - few) / 20.0)
    }))
}

fn busy_once(workers: usize) -> Pool {
    let pool = Pool::builder().workers(workers).build().unwrap();
    let items = 0..workers as u64 * 10;
    pool.job().chunk_size(1).map(items, square).unwrap();
    pool
}

fn many_workers(workers: usize) -> Option<Measure> {
    Some(Box::new(move |_| {
        let start = Instant::now();
        let pool = Pool::builder().workers(workers).build().unwrap();
        let built = start.elapsed();
        let items = 0..workers as u64 * 10;
        let squares = pool.job().chunk_size(1).map(items.clone(), square).unwrap();
        let answered = start.elapsed();
        assert!(squares.into_iter().eq(items.map(square)));
        let pids = pool.worker_pids();
        let kib = pids
            .iter()
            .map(|pid| memory_kib(*pid, &["Pss"]))
            .sum::<f64>();
        let start = Instant::now();
        drop(pool);
        Sample::of(answered, 1)
            .with("built_ms", built.as_secs_f64() * 1e3)
            .with("gone_ms", start.elapsed().as_secs_f64() * 1e3)
            .with("pss_mib", kib / 1024.0)
    }))
}

fn start(method: StartMethod) {
    let child = Process::builder().start_method(method);
    child.spawn((), |()| ()).unwrap().join().unwrap();
}

/// From a process that has touched so much memory.
fn with_memory(bytes: usize) -> Option<Measure> {
    let memory = resident(bytes);
    each(move || {
        start(StartMethod::ForkServer);
        black_box(&memory);
    })
}

pub(crate) fn resident(bytes: usize) -> Vec<u8> {
    let mut memory = vec![0; bytes];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    memory
}

fn pipe_round_trip() -> Option<Measure> {
    let (here, there) = Pipe::<u64>::pair().unwrap();
    let child = Process::builder().daemon(true);
    let echo = |pipe: Pipe<u64>| {
        pipe.iter()
            .for_each(|number| pipe.send(number + 1).unwrap())
    };
    let _child: Process = child.spawn(there, echo).unwrap();
    each(move || {
        here.send(black_box(7)).unwrap();
        assert_eq!(here.recv().unwrap(), 8);
    })
}

fn pipe_one_way() -> Option<Measure> {
    let (here, there) = Pipe::<u64>::pair().unwrap();
    let child = Process::builder().daemon(true);
    let count_all = |pipe: Pipe<u64>| {
        while let Ok(count) = pipe.recv() {
            (0..count).for_each(|at| assert_eq!(pipe.recv().unwrap(), at));
            pipe.send(count).unwrap();
        }
    };
    let _child: Process = child.spawn(there, count_all).unwrap();
    all(move |count| {
        let start = Instant::now();
        here.send(count).unwrap();
        (0..count).for_each(|at| here.send(at).unwrap());
        assert_eq!(here.recv().unwrap(), count);
        start.elapsed()
    })
}

fn pipe_bytes(size: usize) -> Option<Measure> {
    let (here, there) = Pipe::<u64>::pair().unwrap();
    let child = Process::builder().daemon(true);
    let receive = |(pipe, size): (Pipe<u64>, usize)| {
        let mut buffer = vec![1; size];
        while let Ok(count) = pipe.recv() {
            for _ in 0..count {
                assert_eq!(pipe.recv_bytes_into(&mut buffer).unwrap(), size);
            }
            pipe.send(count).unwrap();
        }
    };
    let _child: Process = child.spawn((there, size), receive).unwrap();
    let message = vec![1; size];
    all(move |count| {
        let start = Instant::now();
        here.send(count).unwrap();
        (0..count).for_each(|_| here.send_bytes(&message).unwrap());
        assert_eq!(here.recv().unwrap(), count);
        start.elapsed()
    })
}

/// So many in all, from `sides` processes to as many, of which this is one.
fn stream(sides: u64, count: u64) -> Duration {
    let each = count.div_ceil(sides);
    let queue = Queue::<u64>::new().unwrap();
    let (ready, go) = (Queue::<()>::new().unwrap(), Queue::<()>::new().unwrap());
    type Given = (Queue<u64>, Queue<()>, Queue<()>, u64);
    let put = |(queue, ready, go, each): Given| {
        ready.put(()).unwrap();
        go.get().unwrap();
        (0..each).for_each(|number| queue.put(number).unwrap());
    };
    let get =
        |(queue, each): (Queue<u64>, u64)| -> u64 { (0..each).map(|_| queue.get().unwrap()).sum() };
    let given = || (queue.clone(), ready.clone(), go.clone(), each);
    let putters: Vec<Process> = (0..sides)
        .map(|_| Process::spawn(given(), put).unwrap())
        .collect();
    let getters: Vec<Process<u64>> = (1..sides)
        .map(|_| Process::spawn((queue.clone(), each), get).unwrap())
        .collect();
    (0..sides).for_each(|_| ready.get().unwrap());
    let start = Instant::now();
    (0..sides).for_each(|_| go.put(()).unwrap());
    let mut sum = get((queue.clone(), each));
    let mut elapsed = start.elapsed();
    sum += getters
        .into_iter()
        .map(|getter| getter.join().unwrap())
        .sum::<u64>();
    if sides > 1 {
        elapsed = start.elapsed();
    }
    putters
        .into_iter()
        .for_each(|putter| putter.join().unwrap());
    assert_eq!(sum, sides * (0..each).sum::<u64>());
    elapsed.mul_f64(count as f64 / (each * sides) as f64)
}

fn queue_round_trip() -> Option<Measure> {
    let (there, back) = (Queue::<u64>::new().unwrap(), Queue::<u64>::new().unwrap());
    let echo = |(there, back): (Queue<u64>, Queue<u64>)| {
        there
            .iter()
            .for_each(|number| back.put(number + 1).unwrap());
    };
    let child = Process::builder().daemon(true);
    let _child: Process = child.spawn((there.clone(), back.clone()), echo).unwrap();
    each(move || {
        there.put(black_box(7)).unwrap();
        assert_eq!(back.get().unwrap(), 8);
    })
}

fn lock() -> Option<Measure> {
    let number = Lock::new(0_u64).unwrap();
    each(move || *number.lock().unwrap() += black_box(1))
}

fn lock_two() -> Option<Measure> {
    all(|count| {
        let number = Lock::new(0_u64).unwrap();
        let start = Barrier::new(2).unwrap();
        let elapsed = slower_of_two(
            &(number.clone(), start, count.div_ceil(2)),
            |(number, start, each), _| {
                start.wait().unwrap();
                let started = Instant::now();
                (0..each).for_each(|_| *number.lock().unwrap() += 1);
                started.elapsed()
            },
        );
        assert_eq!(*number.lock().unwrap(), 2 * count.div_ceil(2));
        elapsed
    })
}

fn barrier() -> Option<Measure> {
    all(|count| {
        let barrier = Barrier::new(2).unwrap();
        slower_of_two(&(barrier, count), |(barrier, count), n| {
            processor::stay_on(n);
            barrier.wait().unwrap();
            let started = Instant::now();
            (0..count).for_each(|_| _ = barrier.wait().unwrap());
            started.elapsed()
        })
    })
}

fn slower_of_two<S: Portable + Clone>(
    shared: &S,
    run: impl Fn(S, usize) -> Duration + Copy + 'static,
) -> Duration {
    let run = move |(shared, n)| run(shared, n);
    let processes = [0, 1].map(|n| Process::spawn((shared.clone(), n), run).unwrap());
    let elapsed = processes.map(|process| process.join().unwrap());
    elapsed[0].max(elapsed[1])
}

/// So many slices that a worker to which they go in turn has none of them from the time before.
const MANY: usize = 16;

/// 8 MiB in one of so many slices: a worker that gets the same one each time has it already.
fn slice(use_it: fn(SharedSlice<u64>) -> u64, slices: usize) -> Option<Measure> {
    let numbers: Vec<u64> = (0..NUMBERS).collect();
    let slices: Vec<_> = (0..slices)
        .map(|_| SharedSlice::from_slice(&numbers).unwrap())
        .collect();
    let pool = Pool::builder().workers(1).build().unwrap();
    let expected = use_it(slices[0].clone());
    let reads_all = expected != NUMBERS;
    let mut turn = 0;
    each(move || {
        turn = (turn + 1) % slices.len();
        let slice = &slices[turn];
        let got = if reads_all {
            pool.apply(slice.clone(), |slice| slice.iter().sum::<u64>())
        } else {
            pool.apply(slice.clone(), |slice| slice.len() as u64)
        };
        assert_eq!(got.unwrap(), expected);
    })
}
