//! Two workers, eight items, and item 3 misbehaves: the process under it dies or it panics. The rows of the fault table
//! about values are in `pool_values.rs`, those about large transfers in `pool_transfers.rs`, other deaths in `pool_deaths.rs`.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::fault::{self, fault_row};
use common::meet::{Log, note};
use common::unsafely::{exit_at_once, overflow_stack, segfault};
use common::{assert_crash_by_exit, assert_crash_by_signal, assert_serves, kill_hard, pool};
use multiprocess::{StartMethod, TaskError, TaskErrorKind};
use nix::sys::signal::{Signal, raise};
use std::collections::BTreeSet;
use std::panic::panic_any;
use std::path::PathBuf;

/// What a function of these tests is given: where to note that it ran, and which item it is.
type Item = (PathBuf, u32);

/// Runs the row and returns what item 3 came to. `f` calls [`begin`] first and returns ten times its item.
fn item_three<F: Fn(Item) -> u32 + Copy + 'static>(method: StartMethod, f: F) -> TaskError {
    let pool = pool(method, 2);
    let workers = pool.worker_pids();
    let log = Log::new();
    let items = (0..8).map(|item| (log.path(), item));
    let mut results: Vec<_> = pool.imap(items, f).inspect(fault::watch).collect();
    assert_eq!(results.len(), 8);
    let error = results.remove(3).unwrap_err();
    let others: Vec<u32> = results.into_iter().map(Result::unwrap).collect();
    assert_eq!(others, [0, 10, 20, 40, 50, 60, 70]);
    assert_eq!(log.notes(8), [1; 8], "every item runs exactly once");

    assert_eq!(error.item(), Some(3));
    assert!(
        workers.contains(&error.pid().unwrap()),
        "{error:?} in one of {workers:?}"
    );
    let mut kinds = vec![
        error.is_panic(),
        error.is_crash(),
        error.is_timeout(),
        error.is_cancelled(),
    ];
    kinds.retain(|is_that| *is_that);
    assert_eq!(kinds, [true], "{error:?} is of one kind");
    assert!(
        !error.to_string().is_empty() && !error.to_string().contains('\n'),
        "one line: {error}"
    );

    let now: BTreeSet<u32> = pool.worker_pids().into_iter().collect();
    assert_eq!((pool.workers(), now.len()), (2, 2));
    assert_eq!(
        now.contains(&error.pid().unwrap()),
        error.is_panic(),
        "a dead worker is replaced, no other"
    );
    assert_serves(&pool);
    error
}

/// Begins an item.
fn begin(log: &std::path::Path, item: u32) -> bool {
    note(log, item);
    if item == 3 {
        fault::strike();
    }
    item == 3
}

fn assert_panic(error: &TaskError, message: &str, line: u32) {
    assert_eq!(error.kind(), TaskErrorKind::Panic);
    assert_eq!(error.panic_message(), Some(message));
    let location = format!("{:?}", error.location().unwrap());
    assert!(
        location.contains("tests/pool_faults.rs") && location.contains(&line.to_string()),
        "{location}"
    );
    assert_eq!(error.exit_status(), None, "the worker lives on");
    assert!(error.to_string().contains(message), "{error}");
}

fault_row!(an_item_that_kills_its_worker_is_a_crash, |method| {
    let error = item_three(method, |(log, item)| {
        if begin(&log, item) {
            kill_hard(std::process::id());
        }
        item * 10
    });
    assert_crash_by_signal(&error, Signal::SIGKILL);
    assert!(
        error.to_string().contains('9') || error.to_string().contains("KILL"),
        "{error}"
    );
});

fault_row!(
    an_item_that_leaves_by_underscore_exit_is_a_crash,
    |method| {
        let error = item_three(method, |(log, item)| {
            if begin(&log, item) {
                exit_at_once(7)
            } else {
                item * 10
            }
        });
        assert_crash_by_exit(&error, 7);
        assert!(error.to_string().contains('7'), "{error}");
    }
);

fault_row!(an_item_that_exits_is_a_crash, |method| {
    let error = item_three(method, |(log, item)| {
        if begin(&log, item) {
            std::process::exit(7)
        } else {
            item * 10
        }
    });
    assert_crash_by_exit(&error, 7);
});

fault_row!(an_item_that_exits_with_success_is_a_crash, |method| {
    let error = item_three(method, |(log, item)| {
        if begin(&log, item) {
            std::process::exit(0)
        } else {
            item * 10
        }
    });
    assert_crash_by_exit(&error, 0);
});

fault_row!(
    an_item_that_exits_from_another_thread_is_a_crash,
    |method| {
        let error = item_three(method, |(log, item)| {
            if begin(&log, item) {
                let _ = std::thread::spawn(|| std::process::exit(7)).join();
            }
            item * 10
        });
        assert_crash_by_exit(&error, 7);
    }
);

fault_row!(an_item_that_segfaults_is_a_crash, |method| {
    let error = item_three(method, |(log, item)| {
        if begin(&log, item) {
            segfault();
        }
        item * 10
    });
    assert_crash_by_signal(&error, Signal::SIGSEGV);
});

fault_row!(an_item_that_aborts_is_a_crash, |method| {
    let error = item_three(method, |(log, item)| {
        if begin(&log, item) {
            std::process::abort()
        } else {
            item * 10
        }
    });
    assert_crash_by_signal(&error, Signal::SIGABRT);
});

fault_row!(an_item_that_overflows_its_stack_is_a_crash, |method| {
    let error = item_three(method, |(log, item)| {
        if begin(&log, item) {
            overflow_stack(0);
        }
        item * 10
    });
    // As in any Rust program: std's handler says so on stderr and aborts.
    assert_crash_by_signal(&error, Signal::SIGABRT);
});

fault_row!(an_item_that_is_terminated_is_a_crash, |method| {
    let error = item_three(method, |(log, item)| {
        if begin(&log, item) {
            raise(Signal::SIGTERM).unwrap();
        }
        item * 10
    });
    assert_crash_by_signal(&error, Signal::SIGTERM);
});

fault_row!(an_item_that_panics_while_it_panics_is_a_crash, |method| {
    struct PanicsOnDrop;
    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("the second");
        }
    }
    let error = item_three(method, |(log, item)| {
        let _guard = (item == 3).then(|| PanicsOnDrop);
        if begin(&log, item) {
            panic!("the first");
        }
        item * 10
    });
    assert_crash_by_signal(&error, Signal::SIGABRT);
});

fault_row!(an_item_that_panics_with_a_literal_is_a_panic, |method| {
    const LINE: u32 = line!() + 2;
    fn give_up() -> u32 {
        panic!("out of luck")
    }
    let error = item_three(method, |(log, item)| {
        if begin(&log, item) {
            give_up()
        } else {
            item * 10
        }
    });
    assert_panic(&error, "out of luck", LINE);
});

fault_row!(
    an_item_that_panics_with_a_formatted_message_is_a_panic,
    |method| {
        const LINE: u32 = line!() + 2;
        fn give_up(item: u32) -> u32 {
            panic!("item {item} of {}", 8)
        }
        let error = item_three(method, |(log, item)| {
            if begin(&log, item) {
                give_up(item)
            } else {
                item * 10
            }
        });
        assert_panic(&error, "item 3 of 8", LINE);
    }
);

fault_row!(an_item_that_unwraps_nothing_is_a_panic, |method| {
    const LINE: u32 = line!() + 2;
    fn give_up(hope: Option<u32>) -> u32 {
        hope.unwrap()
    }
    let error = item_three(method, |(log, item)| {
        if begin(&log, item) {
            give_up(None)
        } else {
            item * 10
        }
    });
    assert_panic(&error, "called `Option::unwrap()` on a `None` value", LINE);
});

fault_row!(an_item_that_panics_with_no_string_is_a_panic, |method| {
    let error = item_three(method, |(log, item)| {
        if begin(&log, item) {
            panic_any(42)
        } else {
            item * 10
        }
    });
    assert!(error.is_panic() && error.exit_status().is_none());
});

fault_row!(
    an_item_that_panics_with_a_payload_that_panics_when_dropped_is_contained,
    |method| {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("the payload's own panic");
            }
        }
        let error = item_three(method, |(log, item)| {
            if begin(&log, item) {
                panic_any(Bomb)
            } else {
                item * 10
            }
        });
        assert!(error.is_panic() || error.is_crash());
    }
);

fault_row!(
    a_panic_message_of_a_mebibyte_arrives_or_is_shortened,
    |method| {
        let error = item_three(method, |(log, item)| {
            if begin(&log, item) {
                panic!("{}", "long ".repeat(200_000))
            } else {
                item * 10
            }
        });
        assert!(
            error.is_panic()
                && error
                    .panic_message()
                    .unwrap()
                    .starts_with("long long long ")
        );
    }
);

fault_row!(
    an_error_is_told_in_one_line_whatever_the_panic_said,
    |method| {
        let error = item_three(method, |(log, item)| {
            if begin(&log, item) {
                panic!("first\nsecond\r\nthird")
            } else {
                item * 10
            }
        });
        assert_eq!(error.panic_message(), Some("first\nsecond\r\nthird"));
    }
);
