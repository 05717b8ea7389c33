//! Processes: CPython's `_TestProcess`, `_TestSubclassingProcess`, `TestCloseFds`, `TestStartMethod`,
//! `TestStdinBadfiledescriptor`, `TestResourceTracker`.

use crate::common::alone::{in_own_process, test_path};
use crate::common::census::{process, wait_until_gone};
use crate::common::meet::{Gate, pass};
use crate::common::{
    LIMIT, each_method, each_method_alone, every_method, every_method_alone, kill_hard, pid_of,
};
use multiprocess::{
    Pipe, Process, Queue, Run, StartMethod, active_children, available_parallelism,
    current_process, wait,
};
use nix::sys::signal::{Signal, kill};
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Duration;

fn builder(method: StartMethod) -> multiprocess::ProcessBuilder {
    Process::builder().start_method(method)
}

// CPython: _TestProcess.test_current
every_method!(current, |method| {
    let current = current_process();
    assert!(!current.is_daemon());
    assert_eq!(current.pid(), std::process::id());
    assert_eq!(current.name(), "MainProcess");
    assert!(current.parent().is_none());
    let child = builder(method).spawn((), |()| {
        (current_process().pid(), current_process().name().to_owned())
    });
    let child = child.unwrap();
    let known = (child.pid(), child.name().to_owned());
    assert_eq!(child.join().unwrap(), known);
});

// CPython: _TestProcess.test_args_argument
every_method!(args_argument, |method| {
    let none = builder(method).spawn((), |()| 10_u8).unwrap();
    assert_eq!(none.join().unwrap(), 10);
    let one = builder(method).spawn((1_u8,), |(a,)| a).unwrap();
    assert_eq!(one.join().unwrap(), 1);
    let list = vec![1_i64, 2, 3];
    let many = builder(method).spawn(("a".to_owned(), list), |(a, list)| (list, a));
    assert_eq!(
        many.unwrap().join().unwrap(),
        (vec![1, 2, 3], "a".to_owned())
    );
});

// CPython: _TestProcess.test_daemon_argument
every_method!(daemon_argument, |method| {
    for daemon in [false, true] {
        let child = builder(method)
            .daemon(daemon)
            .spawn((), |()| current_process().is_daemon());
        let child = child.unwrap();
        assert_eq!(child.is_daemon(), daemon);
        assert_eq!(child.join().unwrap(), daemon);
    }
    let neither = builder(method).spawn((), |()| current_process().is_daemon());
    assert!(!neither.unwrap().join().unwrap());
});

// CPython: _TestProcess.test_parent_process_attributes
every_method!(parent_process_attributes, |method| {
    let child = builder(method).spawn((), |()| current_process().parent().unwrap());
    let seen = child.unwrap().join().unwrap();
    assert_eq!(
        (seen.pid(), seen.name()),
        (std::process::id(), current_process().name())
    );
});

// CPython: _TestProcess.test_parent_process
each_method!(a_child_outlives_its_parent, |method| {
    let (here, there) = Pipe::<(), (u32, u32)>::pair().unwrap();
    let mut parent = builder(method)
        .spawn((there, method), |(pipe, method)| {
            let child = builder(method).spawn(pipe, |pipe| {
                let parent = current_process().parent().unwrap().pid();
                pipe.recv().unwrap();
                pipe.send((parent, std::process::id())).unwrap();
            });
            drop(child.unwrap());
            std::thread::park();
        })
        .unwrap();
    here.send(()).unwrap();
    let (first_parent, first) = here.recv().unwrap();
    assert_eq!(first_parent, parent.pid());
    assert_ne!(first, parent.pid());
    parent.kill().unwrap();
    assert_eq!(parent.wait().unwrap().signal(), Some(9));
});

// CPython: _TestProcess.test_process
every_method!(process, |method| {
    let gate = Gate::new();
    let (here, there) = Pipe::<(), (String, u32, Vec<u32>)>::pair().unwrap();
    let mut child = builder(method)
        .name("the process")
        .daemon(true)
        .spawn((there, gate.path(), vec![1, 2]), |(pipe, gate, list)| {
            let current = current_process();
            pipe.send((current.name().to_owned(), current.pid(), list))
                .unwrap();
            pass(&gate);
        })
        .unwrap();
    assert!(child.is_alive());
    assert!(child.is_daemon());
    assert_eq!(child.exit_status(), None);
    let is_listed = |pid| active_children().iter().any(|one| one.pid() == pid);
    assert!(is_listed(child.pid()));
    let (name, pid, list) = here.recv().unwrap();
    assert_eq!(
        (name.as_str(), pid, list),
        ("the process", child.pid(), vec![1, 2])
    );
    gate.let_through(1);
    assert!(child.wait().unwrap().success());
    assert_eq!(child.exit_status().unwrap().code(), Some(0));
    assert!(!child.is_alive());
    assert!(!is_listed(child.pid()));
});

// CPython: _TestProcess.test_process_mainthread_native_id
every_method!(the_function_runs_on_the_main_thread, |method| {
    let ids = builder(method).spawn((), |()| {
        (std::process::id(), nix::unistd::gettid().as_raw())
    });
    let (process, thread) = ids.unwrap().join().unwrap();
    assert_eq!(i64::from(process), i64::from(thread));
    assert_ne!(process, std::process::id());
});

/// Ends one that sleeps, by the given means.
fn assert_ends(method: StartMethod, end: fn(&Process), signal: Signal) {
    let mut child: Process = builder(method).spawn((), |()| std::thread::park()).unwrap();
    assert!(child.is_alive());
    assert!(active_children().iter().any(|one| one.pid() == child.pid()));
    assert_eq!(child.exit_status(), None);
    for limit in [Duration::ZERO, crate::SHORT] {
        assert_eq!(child.wait_timeout(limit).unwrap(), None);
        assert!(child.is_alive());
    }
    end(&child);
    let status = child.wait().unwrap();
    assert_eq!(
        (status.signal(), status.code()),
        (Some(signal as i32), None)
    );
    assert!(!child.is_alive());
    // On one that has ended it does nothing.
    end(&child);
    assert_eq!(child.wait().unwrap(), status);
}

// CPython: _TestProcess.test_terminate
every_method_alone!(terminate, |method| {
    assert_ends(method, |child| child.terminate().unwrap(), Signal::SIGTERM);
});

// CPython: _TestProcess.test_kill
every_method_alone!(kill_ends_it, |method| {
    assert_ends(method, |child| child.kill().unwrap(), Signal::SIGKILL);
});

// CPython (3.14): _TestProcess.test_interrupt
every_method_alone!(interrupt, |method| {
    assert_ends(method, |child| child.interrupt().unwrap(), Signal::SIGINT);
});

// CPython: _TestProcess.test_cpu_count
#[test]
fn cpu_count() {
    assert!(available_parallelism() >= 1);
}

// CPython: _TestProcess.test_active_children
every_method_alone!(active_children_are_listed, |method| {
    assert_eq!(active_children().len(), 0);
    let gate = Gate::new();
    let child = builder(method).spawn(gate.path(), |gate| pass(&gate));
    let child = child.unwrap();
    let listed: Vec<u32> = active_children().iter().map(|one| one.pid()).collect();
    assert_eq!(listed, [child.pid()]);
    gate.let_through(1);
    child.join().unwrap();
    assert_eq!(active_children().len(), 0);
});

fn recurse((queue, path, method): (Queue<Vec<u8>>, Vec<u8>, StartMethod)) {
    queue.put(path.clone()).unwrap();
    if path.len() < 2 {
        for step in 0..2 {
            let deeper = [path.as_slice(), &[step]].concat();
            let child = builder(method).spawn((queue.clone(), deeper, method), recurse);
            child.unwrap().join().unwrap();
        }
    }
}

// CPython: _TestProcess.test_recursion
each_method!(recursion, |method| {
    let queue = Queue::new().unwrap();
    recurse((queue.clone(), vec![], method));
    let expected = [
        vec![],
        vec![0],
        vec![0, 0],
        vec![0, 1],
        vec![1],
        vec![1, 0],
        vec![1, 1],
    ];
    queue.close();
    assert!(queue.iter().eq(expected));
});

// CPython: _TestProcess.test_sentinel
every_method!(sentinel, |method| {
    let gate = Gate::new();
    let mut child = builder(method)
        .spawn(gate.path(), |gate| pass(&gate))
        .unwrap();
    assert!(wait(&[&child], Some(crate::SHORT)).unwrap().is_empty());
    gate.let_through(1);
    assert_eq!(wait(&[&child], Some(crate::LONG)).unwrap(), [0]);
    assert!(child.wait().unwrap().success());
    assert_eq!(wait(&[&child], None).unwrap(), [0]);
});

// CPython: _TestProcess.test_close, as far as it applies: giving the handle up does not end the process.
every_method!(close, |method| {
    let gate = Gate::new();
    let (here, there) = Pipe::<(), u8>::pair().unwrap();
    let child = builder(method).spawn((gate.path(), there), |(gate, pipe)| {
        pass(&gate);
        pipe.send(7).unwrap();
    });
    drop(child.unwrap());
    gate.let_through(1);
    assert_eq!(here.recv().unwrap(), 7);
});

// CPython: _TestProcess.test_many_processes
every_method_alone!(many_processes, |method| {
    let count = 4;
    let done: Vec<Process> = (0..count)
        .map(|_| builder(method).spawn((), |()| ()).unwrap())
        .collect();
    for mut child in done {
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
    let sleeping: Vec<Process> = (0..count)
        .map(|_| builder(method).spawn((), |()| std::thread::park()).unwrap())
        .collect();
    for child in &sleeping {
        child.terminate().unwrap();
    }
    for mut child in sleeping {
        assert_eq!(child.wait().unwrap().signal(), Some(15));
    }
});

// CPython: _TestProcess.test_child_fd_inflation
each_method_alone!(child_fd_inflation, |method| {
    let gate = Gate::new();
    let queue = Queue::new().unwrap();
    let children: Vec<Process> = (0..5)
        .map(|_| {
            let arguments = (gate.path(), queue.clone());
            let counts = |(gate, queue): (PathBuf, Queue<usize>)| {
                let open = fs::read_dir("/proc/self/fd").unwrap().count();
                queue.put(open).unwrap();
                pass(&gate);
            };
            builder(method).spawn(arguments, counts).unwrap()
        })
        .collect();
    let counts: Vec<usize> = children.iter().map(|_| queue.get().unwrap()).collect();
    assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
    gate.let_through(children.len());
    for child in children {
        child.join().unwrap();
    }
});

// CPython: _TestProcess.test_error_on_stdio_flush_1 and _2, and TestStdinBadfiledescriptor
every_method!(closed_streams_end_no_process_badly, |method| {
    let mut child = builder(method)
        .spawn((), |()| {
            print!("not yet flushed");
            for stream in 0..3 {
                nix::unistd::close(stream).unwrap();
            }
            let queue = Queue::new().unwrap();
            queue.put(3_u8).unwrap();
            queue.get().unwrap()
        })
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(child.join().unwrap(), 3);
});

/// Starts one, sends the server a signal, and starts another. Without a census: what is kept of a dead server, one
/// descriptor, stays until the next one dies, since its non-daemons may run on.
fn assert_server_may_get(signal: Signal) {
    let gate = Gate::new();
    let server = |gate: PathBuf| {
        pass(&gate);
        std::os::unix::process::parent_id()
    };
    let first = builder(StartMethod::ForkServer)
        .spawn((), |()| std::os::unix::process::parent_id())
        .unwrap();
    let old = first.join().unwrap();
    let waiting = builder(StartMethod::ForkServer).spawn(gate.path(), server);
    let mut waiting = waiting.unwrap();
    let server_process = process(old).unwrap();
    kill(pid_of(old), signal).unwrap();
    if signal == Signal::SIGKILL {
        // A start that it dies over is an error: nobody knows whether the function has begun.
        wait_until_gone(&server_process);
    }
    gate.let_through(2);
    let second = builder(StartMethod::ForkServer).spawn(gate.path(), server);
    second.unwrap().join().unwrap();
    // Nobody knows how one ended whose server was killed meanwhile; it is known that it has.
    let _ = waiting.wait();
    assert!(!waiting.is_alive());
}

// CPython: _TestProcess.test_forkserver_sigint
#[test]
fn forkserver_sigint() {
    let test = test_path(module_path!(), "forkserver_sigint");
    in_own_process(&test, LIMIT, || assert_server_may_get(Signal::SIGINT));
}

// CPython: _TestProcess.test_forkserver_sigkill
#[test]
fn forkserver_sigkill() {
    let test = test_path(module_path!(), "forkserver_sigkill");
    in_own_process(&test, LIMIT, || assert_server_may_get(Signal::SIGKILL));
}

#[derive(Serialize, Deserialize)]
struct UpperCaser {
    pipe: Pipe<String>,
}

impl Run for UpperCaser {
    type Output = usize;

    fn run(self) -> usize {
        self.pipe
            .iter()
            .map(|text| self.pipe.send(text.to_uppercase()).unwrap())
            .count()
    }
}

// CPython: _TestSubclassingProcess.test_subclassing. Not by fork: the child would hold a copy of both ends, as in Python.
each_method!(subclassing, |method| {
    let (here, there) = Pipe::pair().unwrap();
    let child = builder(method).start(UpperCaser { pipe: there }).unwrap();
    for (text, upper) in [("hello", "HELLO"), ("world", "WORLD")] {
        here.send(text.to_owned()).unwrap();
        assert_eq!(here.recv().unwrap(), upper);
    }
    drop(here);
    assert_eq!(child.join().unwrap(), 2);
});

// CPython: _TestSubclassingProcess.test_stderr_flush
every_method!(stderr_flush, |method| {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut child = builder(method)
        .spawn(file.path().to_owned(), |path| {
            let file = fs::File::create(path).unwrap();
            nix::unistd::dup2_stderr(file).unwrap();
            panic!("1/0 # MARKER");
        })
        .map(|child: Process| child)
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(101));
    let error = child.join().unwrap_err();
    let told = fs::read_to_string(file.path()).unwrap();
    assert!(told.contains("1/0 # MARKER"), "{told}");
    assert!(told.contains("python/process.rs"), "{told}");
    assert_eq!(error.panic_message(), Some("1/0 # MARKER"));
});

// CPython: _TestSubclassingProcess.test_sys_exit
every_method!(sys_exit, |method| {
    for code in [0, 1, 2, 3, 8, 255] {
        let mut child: Process = builder(method)
            .spawn(code, |code| std::process::exit(code))
            .unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert!(child.join().unwrap_err().is_crash());
    }
});

// CPython: TestCloseFds.test_closefd
each_method!(closefd, |method| {
    let file = tempfile::tempfile().unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&file);
    // Even without the flag that closes it when something is executed.
    nix::fcntl::fcntl(&file, nix::fcntl::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let target = fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
    let child = builder(method).spawn(number, |number| {
        fs::read_link(format!("/proc/self/fd/{number}")).ok()
    });
    let there = child.unwrap().join().unwrap();
    assert_ne!(there, Some(target));
});

// CPython: TestStartMethod.test_mixed_startmethod
every_method!(mixed_startmethod, |method| {
    let queue = Queue::new().unwrap();
    for other in [StartMethod::ForkServer, StartMethod::Spawn, method] {
        let child = builder(other).spawn((queue.clone(), 5_u8), |(queue, value)| {
            queue.put(value).unwrap();
        });
        child.unwrap().join().unwrap();
        assert_eq!(queue.get().unwrap(), 5);
    }
});

// CPython: TestStartMethod.test_nested_startmethod
each_method!(nested_startmethod, |method| {
    let queue = Queue::new().unwrap();
    let child = builder(method).spawn(queue.clone(), |queue| {
        for (number, inner) in [(1_u8, StartMethod::Spawn), (2, StartMethod::ForkServer)] {
            let child = builder(inner).spawn((queue.clone(), number), |(queue, number)| {
                queue.put(number).unwrap();
            });
            child.unwrap().join().unwrap();
        }
    });
    child.unwrap().join().unwrap();
    queue.close();
    assert!(queue.iter().eq([1, 2]));
});

// CPython: TestResourceTracker.test_resource_tracker_sigkill, as far as it applies: nothing of the dead stays behind.
each_method_alone!(what_the_dead_held_does_not_stay, |method| {
    let (here, there) = Pipe::<(), u8>::pair().unwrap();
    let mut child = builder(method)
        .spawn(there, |pipe| {
            let _queue = Queue::<u8>::new().unwrap();
            let _lock = multiprocess::Lock::new(0_u8).unwrap();
            pipe.send(1).unwrap();
            std::thread::park();
        })
        .unwrap();
    here.recv().unwrap();
    kill_hard(child.pid());
    child.wait().unwrap();
});
