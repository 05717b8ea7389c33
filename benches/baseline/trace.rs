//! Counts the system calls of a program and of all that it starts, by stopping them at each.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{fs, io, mem, ptr};

/// The `which` of a `getpriority` that marks; no priority is asked for with it.
const MARK: i64 = 0x6d61_726b;
const BEGIN: i64 = 1;
const END: i64 = 2;

/// How often each system call was made, by its number.
#[derive(Debug, Default, Clone)]
pub(crate) struct Calls(BTreeMap<i64, u64>);

impl Calls {
    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// The most frequent first, in words.
    pub(crate) fn summary(&self) -> String {
        let mut calls: Vec<(&i64, &u64)> = self.0.iter().collect();
        calls.sort_by_key(|(number, count)| (u64::MAX - **count, **number));
        let words = calls
            .iter()
            .take(12)
            .map(|(number, count)| match name(**number) {
                Some(name) => format!("{count} {name}"),
                None => format!("{count} of number {number}"),
            });
        words.collect::<Vec<String>>().join(", ")
    }
}

/// What was called between a mark and the next.
#[derive(Debug, Default, Clone)]
pub(crate) struct Batch {
    /// By the program itself, all threads of it.
    pub(crate) own: Calls,
    /// By all processes below it.
    pub(crate) others: Calls,
}

/// Runs `work` between two marks: what is called meanwhile is a batch of the tracer's.
pub(crate) fn between_marks<T>(work: impl FnOnce() -> T) -> T {
    mark(BEGIN);
    let result = work();
    mark(END);
    result
}

fn mark(which: i64) {
    // SAFETY: the call has no arguments in memory; the kernel refuses it.
    unsafe { libc::syscall(libc::SYS_getpriority, MARK, which) };
}

/// Runs a program to its end and returns its batches.
///
/// # Errors
///
/// It cannot be started or traced, or it does not end with success.
pub(crate) fn batches(mut command: Command) -> io::Result<Vec<Batch>> {
    // SAFETY: the closure makes one system call.
    let command = unsafe { command.pre_exec(be_traced) };
    let child = command.spawn()?;
    let mut tracer = Tracer::new(child.id() as i32)?;
    while let Some((thread, status)) = any_stop()? {
        tracer.take(thread, status);
    }
    // It was reaped above, as all others were.
    match tracer.ended {
        Some(0) => Ok(tracer.batches),
        Some(status) => Err(io::Error::other(format!("it ended with status {status}"))),
        None => Err(io::Error::other("nobody saw it end")),
    }
}

fn be_traced() -> io::Result<()> {
    request(libc::PTRACE_TRACEME, 0, 0, 0).map(drop)
}

struct Tracer {
    program: i32,
    /// Threads of any process that have made their first stop, and the process of each.
    threads: BTreeMap<i32, i32>,
    counting: bool,
    batches: Vec<Batch>,
    ended: Option<i32>,
}

impl Tracer {
    /// Takes over a program that has just been executed.
    fn new(program: i32) -> io::Result<Tracer> {
        let mut status = 0;
        // SAFETY: the status is valid for writing.
        let result = unsafe { libc::waitpid(program, &raw mut status, libc::__WALL) };
        if result != program || !libc::WIFSTOPPED(status) {
            return Err(io::Error::other("it does not stop to be traced"));
        }
        let options = libc::PTRACE_O_TRACESYSGOOD
            | libc::PTRACE_O_TRACEFORK
            | libc::PTRACE_O_TRACEVFORK
            | libc::PTRACE_O_TRACECLONE
            | libc::PTRACE_O_TRACEEXEC
            | libc::PTRACE_O_EXITKILL;
        request(libc::PTRACE_SETOPTIONS, program, 0, options as usize)?;
        request(libc::PTRACE_SYSCALL, program, 0, 0)?;
        Ok(Tracer {
            program,
            threads: BTreeMap::from([(program, program)]),
            counting: false,
            batches: Vec::new(),
            ended: None,
        })
    }

    fn take(&mut self, thread: i32, status: i32) {
        if !libc::WIFSTOPPED(status) {
            self.threads.remove(&thread);
            if thread == self.program {
                self.ended = Some(status);
            }
            return;
        }
        let is_new = !self.threads.contains_key(&thread);
        self.threads
            .entry(thread)
            .or_insert_with(|| process_of(thread));
        let signal = match libc::WSTOPSIG(status) {
            signal if signal == libc::SIGTRAP | 0x80 => {
                self.count(thread);
                0
            }
            // An event: a thread, a process, an execution.
            libc::SIGTRAP if status >> 16 != 0 => 0,
            // What is started under a tracer begins with this one.
            libc::SIGSTOP if is_new => 0,
            signal => signal,
        };
        // It may have been killed since.
        let _ = request(libc::PTRACE_SYSCALL, thread, 0, signal as usize);
    }

    fn count(&mut self, thread: i32) {
        let Some((number, arguments)) = entered(thread) else {
            return;
        };
        let process = self.threads[&thread];
        if process == self.program && number == libc::SYS_getpriority && arguments[0] == MARK as u64
        {
            self.counting = arguments[1] == BEGIN as u64;
            if self.counting {
                self.batches.push(Batch::default());
            }
        } else if let (true, Some(batch)) = (self.counting, self.batches.last_mut()) {
            let calls = if process == self.program {
                &mut batch.own
            } else {
                &mut batch.others
            };
            *calls.0.entry(number).or_default() += 1;
        }
    }
}

/// Waits for whatever happens next; `None` when nobody is left.
fn any_stop() -> io::Result<Option<(i32, i32)>> {
    let mut status = 0;
    // SAFETY: the status is valid for writing.
    let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
    match thread {
        -1 if io::Error::last_os_error().raw_os_error() == Some(libc::ECHILD) => Ok(None),
        -1 => Err(io::Error::last_os_error()),
        thread => Ok(Some((thread, status))),
    }
}

/// The system call that a thread is about to make, if that is why it stands.
fn entered(thread: i32) -> Option<(i64, [u64; 6])> {
    // SAFETY: all zeroes are one of its values.
    let mut info: libc::ptrace_syscall_info = unsafe { mem::zeroed() };
    let size = size_of_val(&info);
    let address = ptr::from_mut(&mut info) as usize;
    request(libc::PTRACE_GET_SYSCALL_INFO, thread, size, address).ok()?;
    (info.op == libc::PTRACE_SYSCALL_INFO_ENTRY).then(|| {
        // SAFETY: the kernel has written this one, as `op` says.
        let entry = unsafe { info.u.entry };
        (entry.nr as i64, entry.args)
    })
}

fn request(what: libc::c_uint, thread: i32, address: usize, data: usize) -> io::Result<i64> {
    // SAFETY: the requests made in this file read no memory, and write what `data` points to in one case, where it is a
    // value of the type and size that the kernel is told.
    let result = unsafe { libc::ptrace(what, thread, address, data) };
    if result == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

fn process_of(thread: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    process
        .and_then(|process| process.trim().parse().ok())
        .unwrap_or(thread)
}

fn name(number: i64) -> Option<&'static str> {
    let names = [
        (libc::SYS_futex, "futex"),
        (libc::SYS_read, "read"),
        (libc::SYS_write, "write"),
        (libc::SYS_close, "close"),
        (libc::SYS_mmap, "mmap"),
        (libc::SYS_munmap, "munmap"),
        (libc::SYS_mprotect, "mprotect"),
        (libc::SYS_madvise, "madvise"),
        (libc::SYS_brk, "brk"),
        (libc::SYS_sendmsg, "sendmsg"),
        (libc::SYS_recvmsg, "recvmsg"),
        (libc::SYS_sendto, "sendto"),
        (libc::SYS_recvfrom, "recvfrom"),
        (libc::SYS_socketpair, "socketpair"),
        (libc::SYS_getsockopt, "getsockopt"),
        (libc::SYS_setsockopt, "setsockopt"),
        (libc::SYS_ppoll, "ppoll"),
        (libc::SYS_fcntl, "fcntl"),
        (libc::SYS_fstat, "fstat"),
        (libc::SYS_newfstatat, "newfstatat"),
        (libc::SYS_ftruncate, "ftruncate"),
        (libc::SYS_memfd_create, "memfd_create"),
        (libc::SYS_openat, "openat"),
        (libc::SYS_waitid, "waitid"),
        (libc::SYS_wait4, "wait4"),
        (libc::SYS_clone, "clone"),
        (libc::SYS_clone3, "clone3"),
        (libc::SYS_execve, "execve"),
        (libc::SYS_exit, "exit"),
        (libc::SYS_exit_group, "exit_group"),
        (libc::SYS_pidfd_open, "pidfd_open"),
        (libc::SYS_pidfd_send_signal, "pidfd_send_signal"),
        (libc::SYS_kill, "kill"),
        (libc::SYS_prctl, "prctl"),
        (libc::SYS_rt_sigaction, "rt_sigaction"),
        (libc::SYS_rt_sigprocmask, "rt_sigprocmask"),
        (libc::SYS_set_robust_list, "set_robust_list"),
        (libc::SYS_getpid, "getpid"),
        (libc::SYS_gettid, "gettid"),
        (libc::SYS_clock_nanosleep, "clock_nanosleep"),
        (libc::SYS_eventfd2, "eventfd2"),
        (libc::SYS_dup3, "dup3"),
        (libc::SYS_lseek, "lseek"),
        (libc::SYS_sched_yield, "sched_yield"),
        (libc::SYS_sched_getaffinity, "sched_getaffinity"),
        (libc::SYS_prlimit64, "prlimit64"),
        (libc::SYS_getrandom, "getrandom"),
        (libc::SYS_fallocate, "fallocate"),
        (libc::SYS_umask, "umask"),
        (libc::SYS_getcwd, "getcwd"),
        (libc::SYS_getgroups, "getgroups"),
        (libc::SYS_statx, "statx"),
        (libc::SYS_epoll_ctl, "epoll_ctl"),
        (libc::SYS_rt_sigreturn, "rt_sigreturn"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_epoll_wait, "epoll_wait"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_poll, "poll"),
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_dup2, "dup2"),
    ];
    names
        .into_iter()
        .find_map(|(each, name)| (each == number).then_some(name))
}
