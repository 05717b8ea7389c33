//! What a pool tells of itself: its books; with the features for it, a bar on standard error and events for `tracing`.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::meet::{Gate, pass};
use common::{each_method, kill_hard, pool};
use multiprocess::Event;
use std::thread::sleep;
use std::time::Duration;

fn nap(millis: u64) -> u64 {
    sleep(Duration::from_millis(millis));
    millis
}

fn slow_nap(millis: u64) -> u64 {
    nap(millis)
}

fn fail(_: u64) {
    panic!("as it is to");
}

each_method!(
    the_books_count_items_failures_retries_bytes_and_time,
    |method| {
        let pool = pool(method, 2);
        assert!(pool.stats().functions().is_empty());
        assert_eq!(pool.map([1_u64; 20], nap).unwrap().len(), 20);
        let longs = pool.job().chunk_size(1).map([30_u64; 2], nap).unwrap();
        assert_eq!(longs, [30, 30]);
        let stats = pool.stats();
        let naps = &stats.functions()[0];
        assert!(naps.name().contains("nap"), "{}", naps.name());
        assert_eq!((naps.items(), naps.failures(), naps.retries()), (22, 0, 0));
        assert!(naps.percentile(50.0) >= Duration::from_millis(1));
        assert!(naps.percentile(50.0) <= naps.percentile(99.0));
        assert!(naps.percentile(100.0) >= Duration::from_millis(30));
        assert_eq!(naps.percentile(100.0), naps.longest());
        let busy: Duration = stats.workers().iter().map(|worker| worker.busy()).sum();
        assert!(busy >= Duration::from_millis(20 + 60), "{busy:?}");
        assert_eq!(
            stats
                .workers()
                .iter()
                .map(|worker| worker.items())
                .sum::<u64>(),
            22
        );
        // What is taken back from a worker that has not begun it is sent to another one as well.
        let sent: u64 = stats
            .workers()
            .iter()
            .map(|worker| worker.bytes_sent())
            .sum();
        assert!((22 * 8..44 * 8).contains(&sent) && sent % 8 == 0, "{sent}");
        assert_eq!(
            stats
                .workers()
                .iter()
                .map(|worker| worker.bytes_received())
                .sum::<u64>(),
            22 * 8
        );

        let dies = |_: u64| kill_hard(std::process::id());
        pool.job().retries(2).apply(1, dies).unwrap_err();
        let failed = pool
            .imap(0..10_u64, |n| assert!(n > 2))
            .filter(|result| result.is_err());
        assert_eq!(failed.count(), 3);
        let stats = pool.stats();
        let restarts: u64 = stats.workers().iter().map(|worker| worker.restarts()).sum();
        assert_eq!(restarts, 3);
        let numbers = |items, failures, retries| {
            let found = stats.functions().iter().find(|function| {
                (function.items(), function.failures(), function.retries())
                    == (items, failures, retries)
            });
            assert!(
                found.is_some(),
                "{items} {failures} {retries}: {:?}",
                stats.functions()
            );
        };
        numbers(0, 1, 2);
        numbers(7, 3, 0);
    }
);

each_method!(
    latency_is_from_the_call_to_its_outcome_with_all_that_was_waited,
    |method| {
        let pool = pool(method, 1);
        for _ in 0..3 {
            pool.apply(5, nap).unwrap();
        }
        let function = pool.stats().functions()[0].clone();
        assert!(function.latency(0.0) >= Duration::from_millis(5));
        assert!(function.latency(0.0) >= function.percentile(0.0));

        // The last of ten waits for the nine before it, and the sixth for five: none begins before all were called.
        let gate = Gate::new();
        let first = pool.apply_async(gate.path(), |gate| pass(&gate));
        let calls: Vec<_> = (0..10).map(|_| pool.apply_async(21, slow_nap)).collect();
        gate.let_through(1);
        first.get().unwrap();
        calls
            .into_iter()
            .for_each(|call| assert_eq!(call.get(), Ok(21)));
        let latencies = |percent| {
            let stats = pool.stats();
            let functions = stats.functions().iter();
            let mut slow = functions.filter(|function| function.name().contains("slow_nap"));
            slow.next().unwrap().latency(percent)
        };
        assert!(latencies(99.9) >= Duration::from_millis(210));
        assert!(latencies(50.0) >= Duration::from_millis(105));

        // What was tried again counts from its first attempt on, and what failed does not count.
        let gate = Event::new().unwrap();
        let limit = Duration::from_secs(2);
        let job = pool.with(gate).timeout(limit).retries(1);
        let sleeps_once = |gate: &Event, _: u32| {
            if !gate.is_set() {
                gate.set();
                nap(600_000);
            }
        };
        job.apply(0, sleeps_once).unwrap();
        let stats = pool.stats();
        let tried = stats
            .functions()
            .iter()
            .find(|function| function.retries() == 1);
        assert!(tried.unwrap().latency(50.0) >= limit);
        assert!(pool.apply(5, fail).is_err());
        let stats = pool.stats();
        let failed = stats
            .functions()
            .iter()
            .find(|function| function.failures() == 1);
        assert_eq!(failed.unwrap().latency(99.9), Duration::ZERO);
    }
);

#[cfg(feature = "progress")]
each_method!(
    progress_is_silent_where_standard_error_is_no_terminal,
    |method| {
        // The standard error of a test may be a terminal; that of a worker's pool, here, is a file.
        let path = std::env::temp_dir().join(format!("progress-{}-{method:?}", std::process::id()));
        let by_spawn = method == multiprocess::StartMethod::Spawn;
        let file = std::fs::File::create(&path).unwrap();
        let error = std::io::stderr();
        let kept = nix::unistd::dup(&error).unwrap();
        let worker = pool(method, 1);
        nix::unistd::dup2_stderr(&file).unwrap();
        let started = pool(method, 1);
        nix::unistd::dup2_stderr(&kept).unwrap();
        drop(worker);
        let lengths = started
            .apply(by_spawn, |by_spawn| {
                let method = if by_spawn {
                    multiprocess::StartMethod::Spawn
                } else {
                    multiprocess::StartMethod::ForkServer
                };
                let inner = pool(method, 1);
                let job = inner.job().progress("words");
                let endless = job.imap((0..).map(|n: u32| n.to_string()), |word| word.len());
                assert_eq!(
                    endless.take(100).filter(|result| result.is_ok()).count(),
                    100
                );
                job.map(0..1000_u64, |n| n).unwrap().len()
            })
            .unwrap();
        assert_eq!(lengths, 1000);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
        std::fs::remove_file(&path).unwrap();
    }
);

#[cfg(feature = "log")]
mod events {
    use super::*;
    use std::cell::Cell;
    use std::fmt::{Debug, Write};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    /// Keeps what is told, a line for each span and event.
    #[derive(Clone, Default)]
    struct Notebook(Arc<Mutex<Vec<String>>>);

    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            write!(self.0, " {field}={value:?}").unwrap();
        }
    }

    impl Subscriber for Notebook {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target().starts_with("multiprocess")
        }

        fn new_span(&self, span: &Attributes<'_>) -> Id {
            let mut line = Line(format!("span {}", span.metadata().name()));
            span.record(&mut line);
            self.0.lock().unwrap().push(line.0);
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            let mut line = Line("event".to_owned());
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    each_method!(workers_jobs_retries_and_timeouts_are_told, |method| {
        let notebook = Notebook::default();
        tracing::subscriber::with_default(notebook.clone(), || {
            let pool = pool(method, 1);
            let job = pool.job().timeout(Duration::from_millis(50)).retries(1);
            let error = job.apply(600_000, nap).unwrap_err();
            assert!(error.is_timeout());
        });
        let told = notebook.0.lock().unwrap().join("\n");
        for words in [
            "span job job=1 function=\"pool_stats::nap\"",
            "worker starts worker=\"PoolWorker-1\"",
            "worker has ended worker=\"PoolWorker-1\" pid=",
            "item is tried again item=0 attempts=1 pid=",
            "item has timed out item=0 pid=",
        ] {
            assert!(told.contains(words), "{words}\nis not in\n{told}");
        }
    });

    thread_local! {
        static IS_ASKING: Cell<bool> = const { Cell::new(false) };
    }

    /// Uses a pool whenever it is told anything.
    struct Asks {
        pool: Arc<Mutex<Option<Arc<multiprocess::Pool>>>>,
        answers: Arc<AtomicUsize>,
    }

    impl Asks {
        fn ask(&self) {
            let pool = self.pool.lock().unwrap().clone();
            // What it is told of its own calls is not asked about.
            let pool = pool.filter(|_| !IS_ASKING.replace(true));
            if let Some(pool) = pool {
                assert_eq!(pool.apply(20_u64, |n| n + 1), Ok(21));
                assert!(!pool.stats().functions().is_empty());
                self.answers.fetch_add(1, Ordering::Relaxed);
                IS_ASKING.set(false);
            }
        }
    }

    impl Subscriber for Asks {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target().starts_with("multiprocess")
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            self.ask();
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, _: &Event<'_>) {
            self.ask();
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}

        fn try_close(&self, _: Id) -> bool {
            self.ask();
            true
        }
    }

    each_method!(who_listens_may_use_the_pool_itself, |method| {
        let (shared, answers) = (Arc::default(), Arc::default());
        let asks = Asks {
            pool: Arc::clone(&shared),
            answers: Arc::clone(&answers),
        };
        tracing::subscriber::with_default(asks, || {
            let pool = Arc::new(pool(method, 1));
            *shared.lock().unwrap() = Some(Arc::clone(&pool));
            let dies = |_: u64| kill_hard(std::process::id());
            assert!(pool.job().retries(1).apply(1, dies).unwrap_err().is_crash());
            assert_eq!(pool.map(0..100_u64, |n| n).unwrap().len(), 100);
            // The span of each of the two is opened and closed; one is tried again and fails, and two workers have ended.
            assert!(answers.load(Ordering::Relaxed) >= 8, "{answers:?}");
            *shared.lock().unwrap() = None;
        });
    });
}
