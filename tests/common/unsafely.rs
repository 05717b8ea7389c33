//! What the tests do that Rust has no safe word for.

#![allow(
    unsafe_code,
    reason = "misfortunes are arranged here and nowhere else in the tests"
)]
#![allow(clippy::unwrap_used, reason = "tests")]

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal};
use nix::unistd::{ForkResult, fork, pause};
use std::env;
use std::hint::black_box;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// Ends this process on the spot: no handlers, no destructors.
pub(crate) fn exit_at_once(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// What the monotonic clock says, in nanoseconds: the same in all processes.
pub(crate) fn monotonic_nanos() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the time is valid for writing.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    assert_eq!(result, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Touches memory that is not there.
pub(crate) fn segfault() {
    let nowhere: *mut u8 = ptr::without_provenance_mut(black_box(4096));
    // SAFETY: none, deliberately: nothing is ever mapped in the first pages, so the kernel stops this process here.
    unsafe { nowhere.write_volatile(1) };
}

/// Recurses until the stack ends.
pub(crate) fn overflow_stack(depth: u64) -> u64 {
    let frame = black_box([depth; 512]);
    if black_box(depth) == u64::MAX {
        0
    } else {
        overflow_stack(depth + 1) + frame[7]
    }
}

/// Forks a child that holds every inherited descriptor open and does nothing, for ever. Returns its pid.
pub(crate) fn fork_idle_child() -> u32 {
    // SAFETY: the child makes one kind of system call, which is async-signal-safe, and never returns.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => u32::try_from(child.as_raw()).unwrap(),
        ForkResult::Child => loop {
            pause();
        },
    }
}

/// Sets an environment variable of this process.
pub(crate) fn set_environment(name: &str, value: &str) {
    // SAFETY: called in a process that runs one test only, while no other thread of it touches the environment.
    unsafe { env::set_var(name, value) };
}

/// Runs `body` in a fork of this process, and returns what `waitpid` says of it. What it panics with is exit code 101.
pub(crate) fn in_fork(body: impl FnOnce()) -> i32 {
    // SAFETY: called in a process that runs one test only, on its only busy thread: the child finds no lock held.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => match wait_for(child) {
            nix::sys::wait::WaitStatus::Exited(_, code) => code,
            other => panic!("the fork ended by {other:?}"),
        },
        ForkResult::Child => {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            exit_at_once(if result.is_ok() { 0 } else { 101 })
        }
    }
}

/// Waits until a child has ended, whatever interrupts that.
pub(crate) fn wait_for(child: nix::unistd::Pid) -> nix::sys::wait::WaitStatus {
    loop {
        match nix::sys::wait::waitpid(child, None) {
            Err(nix::errno::Errno::EINTR) => {}
            status => return status.unwrap(),
        }
    }
}

/// Forks a child that runs `body` and ends; returns its pid at once. Whoever calls this collects it.
pub(crate) fn fork_child(body: impl FnOnce()) -> nix::unistd::Pid {
    // SAFETY: as in `in_fork`.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            exit_at_once(if result.is_ok() { 0 } else { 101 })
        }
    }
}

/// Forks a child that goes on here as this process does; returns its pid, and `None` in the child, which is to end by [`exit_at_once`].
pub(crate) fn fork_here() -> Option<nix::unistd::Pid> {
    // SAFETY: as in `in_fork`.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => Some(child),
        ForkResult::Child => None,
    }
}

/// Removes an environment variable of this process.
pub(crate) fn unset_environment(name: &str) {
    // SAFETY: as in `set_environment`.
    unsafe { env::remove_var(name) };
}

/// With this in its environment, an image of the test binary starts a thread before `main`.
pub(crate) const THREAD_BEFORE_MAIN: &str = "MULTIPROCESS_TEST_THREAD_BEFORE_MAIN";

/// With this in its environment, an image of the test binary starts a process before `main`; one that is refused prints why.
pub(crate) const PROCESS_BEFORE_MAIN: &str = "MULTIPROCESS_TEST_PROCESS_BEFORE_MAIN";

/// As [`PROCESS_BEFORE_MAIN`], behind the library's own constructor.
pub(crate) const PROCESS_BEHIND: &str = "MULTIPROCESS_TEST_PROCESS_BEHIND";

/// How many images deep such processes are, where each starts another.
const BEHIND: &str = "MULTIPROCESS_TEST_BEHIND";

#[used]
// SAFETY: as above. The linker that Rust brings along puts it behind those without a number; another one may put it before them.
#[unsafe(link_section = ".init_array.99999")]
static CONSTRUCTOR_BEHIND: extern "C" fn() = start_from_behind;

extern "C" fn start_from_behind() {
    if env::var_os(PROCESS_BEHIND).is_none() {
        return;
    }
    let depth: u32 = env::var(BEHIND).map_or(0, |depth| depth.parse().unwrap());
    if depth > 2 {
        println!("behind: without end");
        return;
    }
    set_environment(BEHIND, &(depth + 1).to_string());
    match multiprocess::Process::spawn(20, |n: i32| n + 1).map(|child| child.join()) {
        Ok(result) => println!("behind: {}", result.unwrap()),
        Err(error) => println!("behind: {error}"),
    }
}

/// With this in its environment, an image of the test binary that is to be the library's process or fork server adds a line to
/// the file that is named, and is killed when it opens the pidfd of what it has started: before it has told of it.
pub(crate) const DIES_HALF_WAY: &str = "MULTIPROCESS_TEST_DIES_HALF_WAY";

fn die_half_way(path: &std::ffi::OsStr) {
    use std::io::Write;
    let mut names = env::vars_os().map(|(name, _)| name);
    if names.any(|name| name.as_encoded_bytes().starts_with(b"MULTIPROCESS_CHILD_")) {
        let mut file = std::fs::File::options().append(true).open(path).unwrap();
        file.write_all(b"one\n").unwrap();
        filter(libc::SYS_pidfd_open, None, libc::SECCOMP_RET_KILL_PROCESS);
    }
}

#[used]
// SAFETY: the section is a list of functions without arguments that matter and without a result.
#[unsafe(link_section = ".init_array.00099")]
static CONSTRUCTOR: extern "C" fn() = start_what_is_asked;

/// With this in its environment, each image of the test binary, but for those that are forked from it, is interrupted each
/// time that so many microseconds have passed.
const STORM: &str = "MULTIPROCESS_TEST_STORM";

fn begin_storm(micros: i64) {
    extern "C" fn pass_by(_signal: i32) {}
    // On the stack for handlers: there is no room on one that has overflowed.
    let action = SigAction::new(
        SigHandler::Handler(pass_by),
        SaFlags::SA_ONSTACK,
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing.
    unsafe { nix::sys::signal::sigaction(Signal::SIGALRM, &action) }.unwrap();
    alarm_every(micros);
}

extern "C" fn start_what_is_asked() {
    super::program::begin();
    if let Some(micros) = env::var(STORM).ok().and_then(|micros| micros.parse().ok()) {
        begin_storm(micros);
    }
    if let Some(path) = env::var_os(DIES_HALF_WAY) {
        die_half_way(&path);
    }
    if env::var_os(PROCESS_BEFORE_MAIN).is_some() {
        match multiprocess::Process::spawn(20, |n: i32| n + 1).map(|child| child.join()) {
            Ok(result) => println!("before main: {}", result.unwrap()),
            Err(error) => println!("before main: {error}"),
        }
    }
    if env::var_os(THREAD_BEFORE_MAIN).is_some() {
        thread::spawn(|| {
            loop {
                thread::park();
            }
        });
    }
}

/// Gives up the rights of the superuser, for good; a program of this user can still be executed by its link in `/proc`.
pub(crate) fn become_nobody() {
    let nobody = nix::unistd::Uid::from_raw(65534);
    nix::unistd::setresuid(nobody, nobody, nobody).unwrap();
    nix::sys::prctl::set_dumpable(true).unwrap();
}

/// Lets a process have so many bytes of address space and no more.
pub(crate) fn limit_address_space(pid: u32, bytes: u64) {
    let limit = libc::rlimit64 {
        rlim_cur: bytes,
        rlim_max: libc::RLIM64_INFINITY,
    };
    let pid = pid.try_into().unwrap();
    // SAFETY: the limit is valid for reading, and the former one is not asked for.
    let result = unsafe { libc::prlimit64(pid, libc::RLIMIT_AS, &limit, ptr::null_mut()) };
    assert_eq!(result, 0);
}

/// Has the kernel refuse this thread, and all that it starts, to tell how a process ended by its pidfd, as kernels before 6.15
/// do.
pub(crate) fn hide_kept_ends() {
    const GET_INFO: u32 = 3 << 30 | 64 << 16 | 0xff << 8 | 11;
    let refused = libc::SECCOMP_RET_ERRNO | libc::ENOTTY as u32;
    filter(libc::SYS_ioctl, Some(GET_INFO), refused);
}

/// Has the kernel refuse this thread, and all that it starts, to sleep on several words, as kernels before 5.16 do.
pub(crate) fn sleep_on_one_word_only() {
    let refused = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    filter(libc::SYS_futex_waitv, None, refused);
}

/// Has the kernel answer a system call of this thread, and of all that it starts, in another way; the call with this second
/// argument, or any.
fn filter(call: libc::c_long, second: Option<u32>, answer_given: u32) {
    let load = |offset| libc::sock_filter {
        code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
        jt: 0,
        jf: 0,
        k: offset,
    };
    let pass_if = |value, skipped_else| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf: skipped_else,
        k: value,
    };
    let answer = |answer| libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: answer,
    };
    // The call's number stands first, its second argument in the fourth word pair.
    let mut program = vec![load(0)];
    match second {
        Some(second) => program.extend([pass_if(call as u32, 3), load(24), pass_if(second, 1)]),
        None => program.push(pass_if(call as u32, 1)),
    }
    program.extend([answer(answer_given), answer(libc::SECCOMP_RET_ALLOW)]);
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    nix::sys::prctl::set_no_new_privs().unwrap();
    // SAFETY: the filter and its program are valid for reading as long as the call lasts.
    let result = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const filter,
        )
    };
    assert_eq!(result, 0);
}

/// Whether the kernel keeps how a process ended for who holds its pidfd: from 6.15 on, unless that is hidden.
pub(crate) fn are_ends_kept() -> bool {
    let release = nix::sys::utsname::uname().unwrap();
    let release = release.release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(['.', '-'])
        .map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 15)
}

/// Sends records through every socket that this process has until each takes no more.
pub(crate) fn fill_sockets() {
    for number in 3..64 {
        let record = [9_u8; 4096];
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the buffer has the length that is given; a number that is no socket is an error.
        while unsafe { libc::send(number, record.as_ptr().cast(), record.len(), flags) } > 0 {}
    }
}

/// Sends records through every socket that this process has, for ever.
pub(crate) fn flood_sockets() -> ! {
    loop {
        for number in 3..64 {
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: the buffer has the length that is given; a number that is no socket is an error.
            unsafe { libc::send(number, [9_u8; 16].as_ptr().cast(), 16, flags) };
        }
    }
}

/// Has `$play` run before `main`, on the only thread of the program, where the role that it finds is to fork.
macro_rules! plays_before_main {
    ($play:path) => {
        #[used]
        #[allow(
            unsafe_code,
            reason = "the section is a list of functions of this type"
        )]
        #[unsafe(link_section = ".init_array")]
        static PLAYS_BEFORE_MAIN: extern "C" fn() = {
            extern "C" fn constructor() {
                crate::common::alone::play_before_main($play);
            }
            constructor
        };
    };
}
pub(crate) use plays_before_main;

/// How often [`count_and_collect`] ran, and how many children it collected.
pub(crate) static SIGNALS: AtomicU32 = AtomicU32::new(0);
pub(crate) static COLLECTED: AtomicU32 = AtomicU32::new(0);

/// A handler as applications have it for `SIGCHLD`: it collects every child that has ended.
extern "C" fn count_and_collect(_signal: i32) {
    let errno = nix::errno::Errno::last_raw();
    SIGNALS.fetch_add(1, Ordering::SeqCst);
    // SAFETY: `waitpid` is safe in a signal handler, and a null pointer means that the status is not wanted.
    while unsafe { libc::waitpid(-1, ptr::null_mut(), libc::WNOHANG) } > 0 {
        COLLECTED.fetch_add(1, Ordering::SeqCst);
    }
    nix::errno::Errno::set_raw(errno);
}

/// Has every signal of this kind counted, and children collected. System calls that it interrupts are not restarted.
pub(crate) fn handle(signal: Signal) {
    let action = SigAction::new(
        SigHandler::Handler(count_and_collect),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler does only what is safe in one.
    unsafe { nix::sys::signal::sigaction(signal, &action) }.unwrap();
}

/// Has a signal of this kind end the process, as it does in a program of a terminal: who runs tests in the background may have
/// it ignored.
pub(crate) fn end_by(signal: Signal) {
    // SAFETY: no function is installed.
    unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }.unwrap();
}

/// Has signals of this kind ignored.
pub(crate) fn ignore(signal: Signal) {
    // SAFETY: no function is installed.
    unsafe { nix::sys::signal::signal(signal, SigHandler::SigIgn) }.unwrap();
}

/// Sends this process a `SIGALRM` each time that so many microseconds have passed; 0 for no more.
pub(crate) fn alarm_every(micros: i64) {
    let time = libc::timeval {
        tv_sec: 0,
        tv_usec: micros,
    };
    let timer = libc::itimerval {
        it_interval: time,
        it_value: time,
    };
    // SAFETY: the timer is valid for reading, and the former one is not asked for.
    let result = unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, ptr::null_mut()) };
    assert_eq!(result, 0);
}

/// Keeps this thread to one processor.
pub(crate) fn keep_to_processor(number: usize) {
    let mut mask = [0u64; 16];
    mask[number / 64] = 1 << (number % 64);
    let size = size_of_val(&mask);
    // SAFETY: the mask has the length that is given.
    let result = unsafe { libc::sched_setaffinity(0, size, mask.as_ptr().cast()) };
    assert_eq!(result, 0);
}

/// Gives this thread descriptors of its own: what it opens from here on is closed by the kernel as it ends.
pub(crate) fn own_descriptors() {
    // SAFETY: it takes no pointers; what other threads have open stays open for them.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
}

/// Has `handler` run at the normal end of this process.
pub(crate) fn at_exit(handler: extern "C" fn()) {
    // SAFETY: the handler stays as long as the process.
    let result = unsafe { libc::atexit(handler) };
    assert_eq!(result, 0);
}

/// Prints as C code does, which holds the text back until it is flushed.
pub(crate) fn print_as_c(text: &std::ffi::CStr) {
    // SAFETY: both are texts that end in a null byte; the format takes one.
    unsafe { libc::printf(c"%s".as_ptr(), text.as_ptr()) };
}

/// A few words that this process shares with what it forks.
pub(crate) fn shared_words<const N: usize>() -> &'static [std::sync::atomic::AtomicI64; N] {
    let (access, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED | libc::MAP_ANONYMOUS,
    );
    // SAFETY: new memory is asked for, wherever there is room.
    let words = unsafe { libc::mmap(ptr::null_mut(), 4096, access, flags, -1, 0) };
    assert!(words != libc::MAP_FAILED && N <= 512);
    // SAFETY: the page is full of zeros, which are words, and stays mapped for good.
    unsafe { &*words.cast() }
}

/// By which the system calls of a process, and of all that it starts, are let pass or refused.
pub(crate) struct Listener(std::os::fd::OwnedFd);

/// A call that waits for its answer.
pub(crate) struct Call {
    id: u64,
    pub(crate) thread: u32,
    pub(crate) number: i64,
}

const NOTIFY_RECEIVE: libc::c_ulong = 0xc050_2100;
const NOTIFY_SEND: libc::c_ulong = 0xc018_2101;

impl Listener {
    /// Has this thread and all that it starts be supervised in these calls, for good; returns the number of the descriptor
    /// to do so by. Of `mmap`, only shared memory and stacks count, and of `fcntl`, only copies of descriptors.
    pub(crate) fn install(calls: &[i64]) -> Option<i32> {
        let statement = |code, k| libc::sock_filter {
            code,
            jt: 0,
            jf: 0,
            k,
        };
        let jump = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
        let load = |at| statement((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, at);
        let answer = |with| statement((libc::BPF_RET | libc::BPF_K) as u16, with);
        let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        let has_any = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
        // The number of the call stands first; its arguments begin at 16, eight bytes each.
        let mut program = vec![load(0)];
        for &call in calls {
            let number = u32::try_from(call).unwrap();
            let special = match call {
                libc::SYS_mmap => {
                    let kinds = libc::MAP_SHARED | libc::MAP_STACK;
                    Some((16 + 8 * 3, has_any, u32::try_from(kinds).unwrap()))
                }
                libc::SYS_fcntl => {
                    let copy = u32::try_from(libc::F_DUPFD_CLOEXEC).unwrap();
                    Some((16 + 8, equal, copy))
                }
                _ => None,
            };
            match special {
                Some((argument, test, value)) => program.extend([
                    jump(equal, number, 0, 4),
                    load(argument),
                    jump(test, value, 0, 1),
                    answer(libc::SECCOMP_RET_USER_NOTIF),
                    answer(libc::SECCOMP_RET_ALLOW),
                ]),
                None => program.extend([
                    jump(equal, number, 0, 1),
                    answer(libc::SECCOMP_RET_USER_NOTIF),
                ]),
            }
        }
        program.push(answer(libc::SECCOMP_RET_ALLOW));
        let filter = libc::sock_fprog {
            len: u16::try_from(program.len()).unwrap(),
            filter: program.as_mut_ptr(),
        };
        // SAFETY: it takes no pointers.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        // SAFETY: the filter is valid for reading, and so is the program that it points to.
        let number = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
                &raw const filter,
            )
        };
        i32::try_from(number).ok().filter(|&number| number > 0)
    }

    /// Takes the descriptor with this number from a process.
    pub(crate) fn of(process: nix::unistd::Pid, number: i32) -> Listener {
        let owned = |number: libc::c_long| {
            let number = i32::try_from(number).unwrap();
            assert!(number >= 0, "{}", std::io::Error::last_os_error());
            // SAFETY: the kernel has just made it, for nobody else.
            unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(number) }
        };
        // SAFETY: it takes no pointers.
        let process = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, process.as_raw(), 0) });
        let process = std::os::fd::AsRawFd::as_raw_fd(&process);
        // SAFETY: likewise.
        Listener(owned(unsafe {
            libc::syscall(libc::SYS_pidfd_getfd, process, number, 0)
        }))
    }

    /// The next call; `None` where none comes within `limit`, an error where none will come any more.
    pub(crate) fn next(&self, limit: std::time::Duration) -> Result<Option<Call>, ()> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let descriptor = std::os::fd::AsFd::as_fd(&self.0);
        let mut waiting = [PollFd::new(descriptor, PollFlags::POLLIN)];
        let limit = PollTimeout::try_from(limit).unwrap();
        let _interrupted = poll(&mut waiting, limit);
        let events = waiting[0].revents().unwrap_or(PollFlags::empty());
        if !events.contains(PollFlags::POLLIN) {
            let is_over = events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR);
            return if is_over { Err(()) } else { Ok(None) };
        }
        // SAFETY: it is made of numbers, for which zeros will do; the kernel insists on them.
        let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        let number = std::os::fd::AsRawFd::as_raw_fd(&self.0);
        // SAFETY: it is valid for writing.
        let result = unsafe { libc::ioctl(number, NOTIFY_RECEIVE, &raw mut call) };
        // The caller may have been killed meanwhile.
        Ok((result == 0).then(|| Call {
            id: call.id,
            thread: call.pid,
            number: i64::from(call.data.nr),
        }))
    }

    /// Lets the call pass, or has it fail with this number.
    pub(crate) fn answer(&self, call: &Call, refused: Option<i32>) {
        let flags = if refused.is_none() { 1 } else { 0 };
        let mut answer = libc::seccomp_notif_resp {
            id: call.id,
            val: 0,
            error: refused.map_or(0, |errno| -errno),
            flags,
        };
        let number = std::os::fd::AsRawFd::as_raw_fd(&self.0);
        // SAFETY: it is valid for reading. A caller that is gone needs no answer.
        unsafe { libc::ioctl(number, NOTIFY_SEND, &raw mut answer) };
    }
}
