//! Signals: dispositions of a fresh child, the descriptor that tells of ended children, and a word on stack overflow.

use crate::sys::poll::Wake;
use nix::errno::Errno;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::raw::{c_int, c_void};
use std::sync::atomic::{AtomicI32, Ordering};

/// Has a write to a closed pipe be an error, not a signal, as in any Rust program.
pub(crate) fn ignore_broken_pipes() -> io::Result<()> {
    set(Signal::SIGPIPE, SigHandler::SigIgn)
}

/// Leaves Ctrl-C to others; children inherit that.
pub(crate) fn ignore_interrupts() -> io::Result<()> {
    set(Signal::SIGINT, SigHandler::SigIgn)
}

/// Has Ctrl-C end this process.
pub(crate) fn heed_interrupts() -> io::Result<()> {
    set(Signal::SIGINT, SigHandler::SigDfl)
}

/// Either ignores a signal or leaves it to the kernel.
fn set(signal: Signal, action: SigHandler) -> io::Result<()> {
    // SAFETY: no function of ours is installed, and the former one is not asked to run again.
    unsafe { nix::sys::signal::signal(signal, action) }?;
    Ok(())
}

/// Has children that end wait to be collected. What is executed or forked begins so.
pub(crate) fn keep_ended_children() -> io::Result<()> {
    set(Signal::SIGCHLD, SigHandler::SigDfl)
}

/// Has the kernel collect each child as it ends, and tell nobody; children that have ended before are there still.
pub(crate) fn collect_no_children() -> io::Result<()> {
    let action = SigAction::new(SigHandler::SigDfl, SaFlags::SA_NOCLDWAIT, SigSet::empty());
    // SAFETY: no function of ours is installed, and the former one is not asked to run again.
    unsafe { nix::sys::signal::sigaction(Signal::SIGCHLD, &action) }?;
    Ok(())
}

/// Unblocks every signal for this thread.
pub(crate) fn unblock_all() -> io::Result<()> {
    Ok(nix::sys::signal::sigprocmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::empty()),
        None,
    )?)
}

/// Runs `start` with every signal blocked for this thread: a thread that is started there handles none.
pub(crate) fn with_all_blocked<T>(start: impl FnOnce() -> T) -> io::Result<T> {
    let _blocked = AllBlocked::for_this_thread()?;
    Ok(start())
}

/// Leaves every signal to the kernel, as in a program that was just executed.
pub(crate) fn reset_all() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: no function is installed. It fails for those that are the kernel's or the C library's own.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// As long as it lives, no handler of a signal runs in the thread that made it; a process that is forked meanwhile starts
/// the same.
#[derive(Debug)]
pub(crate) struct AllBlocked {
    before: SigSet,
}

impl AllBlocked {
    pub(crate) fn for_this_thread() -> io::Result<AllBlocked> {
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        Ok(AllBlocked { before })
    }
}

impl Drop for AllBlocked {
    fn drop(&mut self) {
        // It fails for no set.
        let _set = self.before.thread_set_mask();
    }
}

/// The descriptor that the handler of `SIGCHLD` makes readable; -1 where there is none.
static CHILD_NEWS: AtomicI32 = AtomicI32::new(-1);

/// A descriptor that is readable when a child has ended. A process has one at most.
///
/// It is a handler that makes it readable, on whatever thread: a blocked signal and a `signalfd` would do on this thread
/// alone, and where a constructor has started another, that one would take the signal and drop it.
#[derive(Debug)]
pub(crate) struct ChildNews {
    wake: Wake,
}

impl ChildNews {
    /// Installs the handler and makes the descriptor.
    pub(crate) fn open() -> io::Result<ChildNews> {
        let wake = Wake::new()?;
        CHILD_NEWS.store(wake.descriptor().as_raw_fd(), Ordering::Release);
        let news = ChildNews { wake };
        let flags = SaFlags::SA_RESTART | SaFlags::SA_NOCLDSTOP | SaFlags::SA_ONSTACK;
        let action = SigAction::new(SigHandler::Handler(on_child), flags, SigSet::empty());
        // SAFETY: `on_child` calls nothing but what is safe in a signal handler.
        unsafe { nix::sys::signal::sigaction(Signal::SIGCHLD, &action) }?;
        Ok(news)
    }

    /// Makes the descriptor unreadable until the next child ends.
    pub(crate) fn clear(&self) {
        self.wake.clear();
    }
}

impl AsFd for ChildNews {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.descriptor()
    }
}

impl Drop for ChildNews {
    /// Leaves `SIGCHLD` to the kernel, before the descriptor's number means another file.
    fn drop(&mut self) {
        // It fails for no valid signal.
        let _set = set(Signal::SIGCHLD, SigHandler::SigDfl);
        CHILD_NEWS.store(-1, Ordering::Release);
    }
}

extern "C" fn on_child(_signal: c_int) {
    let errno = Errno::last_raw();
    let number = CHILD_NEWS.load(Ordering::Acquire);
    let one = 1u64.to_ne_bytes();
    // SAFETY: `write` is safe in a signal handler; the bytes are a local of that length. It fails where the descriptor is
    // readable already, or is none.
    unsafe { libc::write(number, one.as_ptr().cast(), one.len()) };
    Errno::set_raw(errno);
}

/// Installs what `std`'s start-up would have: a signal stack of its own and a word on standard error when this thread's
/// stack overflows. The process then aborts, as any Rust program does.
pub(crate) fn report_stack_overflow() -> io::Result<()> {
    // SAFETY: `getauxval` reads the auxiliary vector and takes any key; 0 means that the kernel has no such entry.
    let smallest = unsafe { libc::getauxval(AT_MINSIGSTKSZ) };
    let size = usize::try_from(smallest).map_or(0, |size| size) + 64 * 1024;
    // The stack is never given back: the thread that uses it lives as long as the process.
    let memory: &'static mut [u8] = Box::leak(vec![0; size].into_boxed_slice());
    let stack = libc::stack_t {
        ss_sp: memory.as_mut_ptr().cast(),
        ss_flags: 0,
        ss_size: size,
    };
    // SAFETY: the stack is ours alone and is never freed; the former one is not asked for.
    Errno::result(unsafe { libc::sigaltstack(&stack, std::ptr::null_mut()) })?;
    let action = SigAction::new(
        SigHandler::SigAction(on_fault),
        SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK | SaFlags::SA_NODEFER,
        SigSet::empty(),
    );
    for signal in [Signal::SIGSEGV, Signal::SIGBUS] {
        // SAFETY: `on_fault` calls nothing but what is safe in a signal handler.
        unsafe { nix::sys::signal::sigaction(signal, &action) }?;
    }
    Ok(())
}

const AT_MINSIGSTKSZ: libc::c_ulong = 51;

/// How far from the stack pointer a fault still is an overflow: frames are probed page by page.
const REACH: usize = 64 * 1024;

extern "C" fn on_fault(number: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: with `SA_SIGINFO` the kernel passes a valid `siginfo_t`.
    let info = unsafe { &*info };
    // SAFETY: these signals have an address.
    let address = unsafe { info.si_addr() } as usize;
    let stack = stack_pointer(context.cast());
    // From here on, the same fault ends the process, as it would have without this handler.
    // SAFETY: `signal` is safe in a signal handler, and the default action needs no function.
    unsafe { libc::signal(number, libc::SIG_DFL) };
    if stack.is_some_and(|stack| address.abs_diff(stack) < REACH) {
        let words = b"\nmultiprocess: a process has overflowed its stack\n";
        // SAFETY: `write` is safe in a signal handler; the bytes are a constant of that length.
        unsafe { libc::write(2, words.as_ptr().cast(), words.len()) };
        // SAFETY: `abort` is safe in a signal handler.
        unsafe { libc::abort() };
    }
}

#[cfg(target_arch = "x86_64")]
fn stack_pointer(context: *const libc::ucontext_t) -> Option<usize> {
    // SAFETY: with `SA_SIGINFO` the kernel passes a valid `ucontext_t`.
    let registers = unsafe { (*context).uc_mcontext.gregs };
    usize::try_from(registers[libc::REG_RSP as usize]).ok()
}

#[cfg(target_arch = "aarch64")]
fn stack_pointer(context: *const libc::ucontext_t) -> Option<usize> {
    // SAFETY: with `SA_SIGINFO` the kernel passes a valid `ucontext_t`.
    let pointer = unsafe { (*context).uc_mcontext.sp };
    usize::try_from(pointer).ok()
}
