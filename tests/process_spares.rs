//! Processes that the fork server forks ahead of need: that nobody notices, but for the time that a start takes.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::census::{IDLE, ProcessInfo, family, idle, poll, process, servers};
use common::unsafely::{are_ends_kept, set_environment, unset_environment};
use common::{LIMIT, LONG_LIMIT, alone, clean, kill_hard, pid_of};
use multiprocess::{Pool, Process, active_children, current_process};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, umask};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

/// Makes a test that runs by itself, with one process that waits already; says so where the kernel is too old for any.
macro_rules! with_one_idle {
    ($name:ident, $body:expr) => {
        #[test]
        fn $name() {
            let test = alone::test_path(module_path!(), stringify!($name));
            alone::in_own_process(&test, LONG_LIMIT, || {
                clean(multiprocess::StartMethod::ForkServer, |_| {
                    if wait_for_idle() {
                        let body: fn() = $body;
                        body();
                    } else {
                        eprintln!("skipped: this kernel does not keep how a process ended");
                    }
                });
            });
        }
    };
}

/// Starts processes until some wait, all that there are, and the next start finds one; returns whether that is so, which it always
/// becomes but on an old kernel.
fn wait_for_idle() -> bool {
    let is_asleep = |one: &ProcessInfo| one.state == 'S';
    let do_all_wait = || {
        let waiting = idle();
        // It is forked in the server's own time, and asleep a moment later. The server offers it next: where that is asleep after
        // this look, all that were seen are offered, and the next start takes one of them, since it takes the first.
        let family = family(std::process::id(), alone::mark().as_deref());
        let (mut all, servers) = (waiting.iter(), servers(&family));
        !waiting.is_empty() && all.all(is_asleep) && servers.iter().all(is_asleep)
    };
    for round in 0.. {
        assert_eq!(add_one(1), 2);
        if poll(Duration::from_millis(200), do_all_wait, |do_they| *do_they) {
            return true;
        }
        if round == 20 && !are_ends_kept() {
            break;
        }
    }
    false
}

/// So many times a process that waited meets a page that is not its own yet, before its function runs: halfway between the most that
/// were measured where it has rehearsed and the fewest where it has not, 20 and 32 in a build for tests, 4 and 17 in an optimised one.
const MOST_FAULTS: i64 = if cfg!(debug_assertions) { 26 } else { 10 };

fn add_one(n: u32) -> u32 {
    Process::spawn(n, |n: u32| n + 1).unwrap().join().unwrap()
}

fn idle_pids() -> Vec<u32> {
    idle().iter().map(|one| one.pid).collect()
}

with_one_idle!(
    it_becomes_the_next_process_and_another_takes_its_place,
    || {
        let waiting = idle_pids();
        let child = Process::builder().name("next").spawn((), |()| {
            let this = current_process();
            (
                this.name().to_owned(),
                this.pid(),
                this.parent().map(|parent| parent.pid()),
            )
        });
        let child = child.unwrap();
        assert!(waiting.contains(&child.pid()), "{waiting:?}");
        let pid = child.pid();
        let expected = ("next".to_owned(), pid, Some(std::process::id()));
        assert_eq!(child.join().unwrap(), expected);
        let others = poll(LIMIT, idle_pids, |now| {
            now.iter().any(|one| !waiting.contains(one))
        });
        assert!(!others.is_empty() && !others.contains(&pid));
    }
);

with_one_idle!(it_is_no_child_until_it_is_one, || {
    assert!(active_children().is_empty());
    let sleeper = Process::builder()
        .daemon(true)
        .name("sleeper")
        .spawn((), |()| {
            loop {
                std::thread::sleep(Duration::from_secs(60));
            }
        });
    let sleeper: Process<()> = sleeper.unwrap();
    let pid = sleeper.pid();
    let expected = vec![("sleeper".to_owned(), pid)];
    let names = || -> Vec<(String, u32)> {
        let children = active_children().into_iter();
        children
            .map(|one| (one.name().to_owned(), one.pid()))
            .collect()
    };
    assert_eq!(names(), expected);
    // Of one that nobody holds the server knows, which was told after the process itself.
    drop(sleeper);
    assert_eq!(names(), expected);
    kill_hard(pid);
    assert!(poll(LIMIT, names, Vec::is_empty).is_empty());
});

with_one_idle!(what_it_finds_is_of_the_moment_of_the_start, || {
    let seen = || {
        let child = Process::spawn((), |()| {
            let mask = umask(Mode::empty()).bits();
            let cores = getrlimit(Resource::RLIMIT_CORE).unwrap().0;
            let directory = std::env::current_dir().unwrap();
            (std::env::var("OF_THE_MOMENT").ok(), mask, cores, directory)
        });
        child.unwrap().join().unwrap()
    };
    let before = seen();
    assert_eq!(before.0, None);
    for round in 0..4 {
        assert!(wait_for_idle());
        set_environment("OF_THE_MOMENT", &round.to_string());
        assert_eq!(seen().0, Some(round.to_string()));
        assert!(wait_for_idle());
        assert_eq!(seen().0, Some(round.to_string()));
        unset_environment("OF_THE_MOMENT");
        assert_eq!(seen(), before);
        assert!(wait_for_idle());
        let mask = umask(Mode::from_bits_truncate(0o027));
        assert_eq!(seen().1, 0o027);
        umask(mask);
        assert_eq!(seen(), before);
        assert!(wait_for_idle());
        let directory = std::env::current_dir().unwrap();
        std::env::set_current_dir("/").unwrap();
        assert_eq!(seen().3, std::path::Path::new("/"));
        std::env::set_current_dir(directory).unwrap();
    }
    assert!(wait_for_idle());
    let (cores, hard) = getrlimit(Resource::RLIMIT_CORE).unwrap();
    let other = if cores == 0 { 4096.min(hard) } else { 0 };
    setrlimit(Resource::RLIMIT_CORE, other, hard).unwrap();
    assert_eq!(seen().2, other);
});

/// Pages that a process has had copied or mapped so far.
fn faults_of(pid: u32) -> i64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_whitespace().nth(7).unwrap().parse().unwrap()
}

with_one_idle!(one_that_waits_has_most_of_its_memory, || {
    let waiting: Vec<(u32, i64)> = idle_pids()
        .into_iter()
        .map(|pid| (pid, faults_of(pid)))
        .collect();
    let child = Process::spawn((), |()| {
        let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
        usage.minor_page_faults()
    });
    let child = child.unwrap();
    let is_it = |one: &&(u32, i64)| one.0 == child.pid();
    let (_, before) = *waiting.iter().find(is_it).unwrap();
    let more = child.join().unwrap() - before;
    assert!(
        more <= MOST_FAULTS,
        "{more} between its request and its function"
    );
});

with_one_idle!(one_that_is_killed_costs_no_start, || {
    for round in 0..20 {
        for one in idle_pids() {
            let _gone = kill(pid_of(one), Signal::SIGKILL);
        }
        assert_eq!(add_one(round), round + 1);
        assert!(wait_for_idle());
    }
});

with_one_idle!(one_that_is_stopped_goes_on_when_it_is_needed, || {
    for one in idle_pids() {
        kill(pid_of(one), Signal::SIGSTOP).unwrap();
        poll(
            LIMIT,
            || process(one),
            |now| now.as_ref().is_none_or(|one| one.state == 'T'),
        );
    }
    assert_eq!(add_one(1), 2);
});

with_one_idle!(one_that_is_stopped_keeps_no_program_from_its_end, || {
    let family = family(std::process::id(), alone::mark().as_deref());
    let waiting = idle_pids();
    let stopped = servers(&family).into_iter().map(|one| one.pid);
    for one in stopped.chain(waiting.iter().copied()) {
        kill(pid_of(one), Signal::SIGSTOP).unwrap();
        let is_so = |now: &Option<_>| {
            now.as_ref()
                .is_none_or(|one: &ProcessInfo| one.state == 'T')
        };
        poll(LIMIT, || process(one), is_so);
    }
    // It ends now, within the limit, and leaves nothing.
});

with_one_idle!(
    a_pool_is_built_though_each_that_is_asked_dies_over_it,
    || {
        let several = |pids: &Vec<u32>| pids.len() > 1;
        let mut waiting = poll(LIMIT, idle_pids, several);
        assert!(several(&waiting), "{waiting:?}");
        waiting.sort_unstable();
        for &one in &waiting {
            kill(pid_of(one), Signal::SIGSTOP).unwrap();
        }
        let built = std::thread::spawn(|| Pool::builder().workers(1).build());
        for one in waiting {
            // Nothing shows outside that one has a request. Where it has none yet, fewer die over it.
            std::thread::sleep(Duration::from_millis(50));
            kill_hard(one);
        }
        let pool = built.join().unwrap().unwrap();
        assert_eq!(pool.apply(1, |n: u32| n + 1), Ok(2));
    }
);

with_one_idle!(one_that_is_stopped_leaves_with_its_server, || {
    let family = family(std::process::id(), alone::mark().as_deref());
    let waiting = idle();
    for one in &waiting {
        kill(pid_of(one.pid), Signal::SIGSTOP).unwrap();
    }
    servers(&family).iter().for_each(|one| kill_hard(one.pid));
    let all_gone = || waiting.iter().all(|one| one.is_gone());
    assert!(poll(LIMIT, all_gone, |gone| *gone));
});

with_one_idle!(an_interrupt_of_before_the_start_is_not_the_processs, || {
    for one in idle_pids() {
        kill(pid_of(one), Signal::SIGINT).unwrap();
    }
    assert_eq!(add_one(1), 2);
    // One of after it is.
    assert!(wait_for_idle());
    let sleeper = Process::spawn((), |()| {
        loop {
            std::thread::sleep(Duration::from_secs(60));
        }
    });
    let mut sleeper: Process<()> = sleeper.unwrap();
    sleeper.interrupt().unwrap();
    let ended = sleeper.wait_timeout(LIMIT).unwrap().unwrap();
    assert_eq!(ended.signal(), Some(Signal::SIGINT as i32));
});

with_one_idle!(none_outlives_its_server, || {
    let family = family(std::process::id(), alone::mark().as_deref());
    let waiting = idle();
    servers(&family).iter().for_each(|one| kill_hard(one.pid));
    assert!(poll(
        LIMIT,
        || waiting.iter().all(|one| one.is_gone()),
        |gone| *gone
    ));
    // A daemon has a parent then.
    let child = Process::builder().daemon(true).spawn(1, |n: u32| n + 1);
    assert_eq!(child.unwrap().join().unwrap(), 2);
});

with_one_idle!(
    one_that_is_not_needed_leaves_and_the_next_start_works,
    || {
        let none = poll(LONG_LIMIT, idle, Vec::is_empty);
        assert!(none.is_empty(), "{none:?}");
        assert_eq!(add_one(1), 2);
    }
);

with_one_idle!(descriptors_travel_to_it, || {
    for _ in 0..5 {
        assert!(wait_for_idle());
        let queues: Vec<multiprocess::Queue<usize>> = (0..80)
            .map(|_| multiprocess::Queue::new().unwrap())
            .collect();
        let child = Process::spawn(queues.clone(), |queues| {
            queues
                .iter()
                .enumerate()
                .for_each(|(at, queue)| queue.put(at).unwrap());
            vec![7u8; 1 << 20]
        });
        assert_eq!(child.unwrap().join().unwrap().len(), 1 << 20);
        for (at, queue) in queues.iter().enumerate() {
            assert_eq!(queue.get().unwrap(), at);
        }
    }
});

#[test]
fn who_starts_few_processes_has_none() {
    let test = alone::test_path(module_path!(), "who_starts_few_processes_has_none");
    alone::in_own_process(&test, LIMIT, || {
        for n in 0..2 {
            assert_eq!(add_one(n), n + 1);
        }
        let gate = common::meet::Gate::new();
        let child = Process::builder()
            .start_method(multiprocess::StartMethod::Spawn)
            .spawn(gate.path(), |gate| common::meet::pass(&gate));
        // It is asked for behind the others, and the server has nothing else to do meanwhile.
        let seen = family(std::process::id(), alone::mark().as_deref());
        assert!(seen.iter().all(|one| one.command != IDLE), "{seen:?}");
        gate.let_through(1);
        child.unwrap().join().unwrap();
    });
}
