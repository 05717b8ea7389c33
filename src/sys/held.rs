//! What this thread holds, as the kernel is to find it when the thread dies: set_robust_list(2).
//!
//! A held word stands in shared memory, and behind it a *node*: a pointer to the node of the word that was taken before
//! it. At the end of a thread the kernel follows these pointers from a *head* that the thread has told it of, and marks each
//! word that has the thread's number in it. Besides, the head names one *pending* word, which the thread is about to take
//! or to give up: if that has the thread's number it is marked as well; if it has nobody's, one who sleeps on it is woken.
//!
//! Another process can write to a node. So this one never reads it: what is held stands, in its order, in private memory
//! too, and the pointers are written from there. A node that was overwritten misleads the kernel's walk in the thread
//! that dies, which marks nothing but words that have this thread's number, and nothing else.
//!
//! | | |
//! |---|---|
//! | a thread's first word | takes a [`Record`] and registers its head: one system call |
//! | a thread's end | with nothing held, what was registered before is again, and the record is free; else the record stays, for the kernel to read |
//! | a fork | wipes all records in the child (`MADV_WIPEONFORK`, whichever way it was forked): a number of 0 says that this thread has none |
//! | a mapping with a word that some thread of this process holds still, since a guard was forgotten | stays mapped: see [`is_any_within`] |
//!
//! The order of these stores matters only for the thread that makes them, when it dies between two of them; so a fence for
//! the compiler is enough.
//!
//! Not covered: more than [`HELD_MAX`] words at a time, which the kernel does not walk; processes of different pid
//! namespaces, in which one number means two threads; and robust mutexes of the C library, which are in another list,
//! while the thread holds some of ours or has not ended.

use crate::sys::errno::check;
use crate::sys::step::step;
use std::cell::Cell;
use std::io;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{
    AtomicBool, AtomicIsize, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, compiler_fence,
};

/// How many words a thread can hold at a time: as many as the kernel looks at.
pub(crate) const HELD_MAX: usize = 2048;

/// From a node to its word, in bytes.
const WORD_FROM_NODE: isize = -8;

/// The kernel's `struct robust_list_head`.
#[repr(C)]
struct Head {
    first: AtomicUsize,
    word_from_node: AtomicIsize,
    pending: AtomicUsize,
}

/// What one thread holds. Zeros are an empty record that nobody uses.
#[repr(C)]
struct Record {
    head: Head,
    /// The number of the thread whose record this is.
    tid: AtomicU32,
    is_taken: AtomicBool,
    /// How many of `nodes` count.
    len: AtomicUsize,
    /// What the kernel was told before.
    former: AtomicUsize,
    /// The record that was made before this one.
    next: AtomicPtr<Record>,
    /// The addresses of the nodes, in the order in which they were linked.
    nodes: [AtomicUsize; HELD_MAX],
}

/// All records of this process, the youngest first. They are never unmapped.
static RECORDS: AtomicPtr<Record> = AtomicPtr::new(ptr::null_mut());

thread_local! {
    /// Nothing here has a destructor, so that it costs no more than a load.
    static CURRENT: Cell<Option<&'static Record>> = const { Cell::new(None) };
    static AT_END: AtEnd = const { AtEnd };
}

/// The running thread, which can hold words.
#[derive(Clone, Copy)]
pub(crate) struct Thread {
    record: &'static Record,
    of_this_thread: PhantomData<*const ()>,
}

impl Thread {
    /// The thread that calls.
    ///
    /// # Errors
    ///
    /// At its first call, where the kernel refuses memory or the list.
    #[inline]
    pub(crate) fn current() -> io::Result<Thread> {
        match CURRENT.get() {
            // A fork has made the number 0: that record was the parent's.
            Some(record) if record.tid.load(Ordering::Relaxed) != 0 => Ok(Thread::of(record)),
            _ => Thread::register(),
        }
    }

    /// The same, if it has called before: with no way to fail, for what is to be short.
    #[inline]
    pub(crate) fn known() -> Option<Thread> {
        let record = CURRENT.get()?;
        (record.tid.load(Ordering::Relaxed) != 0).then(|| Thread::of(record))
    }

    #[inline]
    fn of(record: &'static Record) -> Thread {
        Thread {
            record,
            of_this_thread: PhantomData,
        }
    }

    #[cold]
    fn register() -> io::Result<Thread> {
        let record = Record::take()?;
        let head = &record.head;
        head.first.store(head.address(), Ordering::Relaxed);
        head.word_from_node.store(WORD_FROM_NODE, Ordering::Relaxed);
        head.pending.store(0, Ordering::Relaxed);
        record.len.store(0, Ordering::Relaxed);
        record.former.store(registered(), Ordering::Relaxed);
        if let Err(error) = register(head.address()) {
            record.is_taken.store(false, Ordering::Release);
            return Err(error);
        }
        // SAFETY: `gettid` has no precondition and cannot fail.
        let tid = unsafe { libc::gettid() };
        record.tid.store(tid as u32, Ordering::Relaxed);
        CURRENT.set(Some(record));
        // A thread that is ending already has none; its record stays taken.
        let _late = AT_END.try_with(|_| ());
        Ok(Thread::of(record))
    }

    /// Its number to the kernel.
    #[inline]
    pub(crate) fn tid(self) -> u32 {
        self.record.tid.load(Ordering::Relaxed)
    }

    /// Names the word that is about to be taken or given up, until the result is dropped.
    #[inline]
    pub(crate) fn pend(self, node: &AtomicU64) -> Pending<'_> {
        let pending = &self.record.head.pending;
        let outer = pending.load(Ordering::Relaxed);
        pending.store(address(node), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        Pending {
            thread: self,
            outer,
            node: PhantomData,
        }
    }

    /// Whether it can hold one more.
    #[inline]
    pub(crate) fn has_room(self) -> bool {
        self.record.len.load(Ordering::Relaxed) < HELD_MAX
    }

    /// Puts a word that was just taken into the list.
    ///
    /// # Panics
    ///
    /// Where there is no room.
    #[inline]
    pub(crate) fn link(self, node: &AtomicU64) {
        let record = self.record;
        let len = record.len.load(Ordering::Relaxed);
        record.nodes[len].store(address(node), Ordering::Relaxed);
        record.len.store(len + 1, Ordering::Relaxed);
        step!("held::link::counted");
        let first = record.head.first.load(Ordering::Relaxed);
        node.store(first as u64, Ordering::Relaxed);
        step!("held::link::pointed");
        compiler_fence(Ordering::SeqCst);
        record.head.first.store(address(node), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
    }

    /// Takes a word out of the list, which is about to be given up. What is not in it is left alone.
    #[inline]
    pub(crate) fn unlink(self, node: &AtomicU64) {
        if !self.unlink_last(node) {
            self.unlink_any(node);
        }
    }

    /// Takes out the word that was taken last, if it is this one.
    #[inline]
    fn unlink_last(self, node: &AtomicU64) -> bool {
        let record = self.record;
        let last = record.len.load(Ordering::Relaxed).wrapping_sub(1);
        compiler_fence(Ordering::SeqCst);
        let is_last =
            last < HELD_MAX && record.nodes[last].load(Ordering::Relaxed) == address(node);
        if is_last {
            let behind = record.behind(last);
            record.head.first.store(behind, Ordering::Relaxed);
            step!("held::unlink::out");
            record.len.store(last, Ordering::Relaxed);
        }
        compiler_fence(Ordering::SeqCst);
        is_last
    }

    #[cold]
    fn unlink_any(self, node: &AtomicU64) {
        if let Some(at) = self.position(node) {
            let len = self.record.len.load(Ordering::Relaxed);
            self.record.unlink_inner(at, len);
        }
        compiler_fence(Ordering::SeqCst);
    }

    /// Whether it is the word that was taken last.
    #[inline]
    pub(crate) fn holds_as_last(self, node: &AtomicU64) -> bool {
        let last = self.record.len.load(Ordering::Relaxed).wrapping_sub(1);
        last < HELD_MAX && self.record.nodes[last].load(Ordering::Relaxed) == address(node)
    }

    /// Whether it is in the list.
    pub(crate) fn holds(self, node: &AtomicU64) -> bool {
        self.position(node).is_some()
    }

    fn position(self, node: &AtomicU64) -> Option<usize> {
        self.record.held().rposition(|held| held == address(node))
    }
}

/// A word that is being taken or given up; when dropped it no longer is, and what was pending before is again.
pub(crate) struct Pending<'a> {
    thread: Thread,
    outer: usize,
    node: PhantomData<&'a AtomicU64>,
}

impl Drop for Pending<'_> {
    #[inline]
    fn drop(&mut self) {
        compiler_fence(Ordering::SeqCst);
        let pending = &self.thread.record.head.pending;
        pending.store(self.outer, Ordering::Relaxed);
    }
}

/// Whether some thread of this process holds a word whose node is in that range of addresses.
pub(crate) fn is_any_within(range: Range<usize>) -> bool {
    // From behind: what its thread moves meanwhile moves to the front, so it is met once at least.
    records().any(|record| {
        let pending = record.head.pending.load(Ordering::Relaxed);
        range.contains(&pending) || record.held().rev().any(|node| range.contains(&node))
    })
}

impl Head {
    fn address(&self) -> usize {
        ptr::from_ref(self).addr()
    }
}

impl Record {
    /// A record that nobody uses, or a new one.
    fn take() -> io::Result<&'static Record> {
        let free = records().find(|record| {
            let taken = &record.is_taken;
            taken
                .compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
        });
        match free {
            Some(record) => Ok(record),
            None => Record::make(),
        }
    }

    fn make() -> io::Result<&'static Record> {
        let record = map_wiped_on_fork(size_of::<Record>())?.cast::<Record>();
        // SAFETY: fresh zeroed pages, large enough, aligned, never unmapped; zeros are a `Record`, whose fields all are
        // atomics. A fork's child finds zeros again, which are one as well.
        let made = unsafe { &*record };
        made.is_taken.store(true, Ordering::Relaxed);
        let mut next = RECORDS.load(Ordering::Relaxed);
        loop {
            made.next.store(next, Ordering::Relaxed);
            // Release: whoever finds the record finds it whole. Pairs with the acquire in `records`.
            match RECORDS.compare_exchange(next, record, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return Ok(made),
                Err(younger) => next = younger,
            }
        }
    }

    fn held(&self) -> impl DoubleEndedIterator<Item = usize> + ExactSizeIterator {
        let len = self.len.load(Ordering::Relaxed).min(HELD_MAX);
        self.nodes[..len]
            .iter()
            // Acquire: who sees what has moved to a place sees what was there at the place in front of it.
            .map(|node| node.load(Ordering::Acquire))
    }

    /// What the node at this place must point to.
    #[inline]
    fn behind(&self, at: usize) -> usize {
        match at {
            0 => self.head.address(),
            _ => self.nodes[at - 1].load(Ordering::Relaxed),
        }
    }

    /// Takes out a node that is not the last: the one in front of it in the list, which was taken after it, is to point
    /// behind it.
    #[cold]
    fn unlink_inner(&self, at: usize, len: usize) {
        let younger = self.nodes[at + 1].load(Ordering::Relaxed);
        // SAFETY: what is in the list is mapped: a mapping with a node of the list is not unmapped (`is_any_within`). A
        // node is 8 aligned bytes that every process reads and writes as an atomic, or as the kernel does.
        let younger = unsafe { AtomicU64::from_ptr(ptr::with_exposed_provenance_mut(younger)) };
        younger.store(self.behind(at) as u64, Ordering::Relaxed);
        step!("held::unlink::inner_out");
        compiler_fence(Ordering::SeqCst);
        for place in at..len - 1 {
            let next = self.nodes[place + 1].load(Ordering::Relaxed);
            // Release: pairs with the acquire in `held`.
            self.nodes[place].store(next, Ordering::Release);
        }
        self.len.store(len - 1, Ordering::Relaxed);
    }
}

/// At the end of a thread: gives the record back, if nothing is held.
struct AtEnd;

impl Drop for AtEnd {
    fn drop(&mut self) {
        let Some(record) = CURRENT.get() else { return };
        let is_idle = record.len.load(Ordering::Relaxed) == 0
            && record.head.pending.load(Ordering::Relaxed) == 0
            && record.tid.load(Ordering::Relaxed) != 0;
        if is_idle && register(record.former.load(Ordering::Relaxed)).is_ok() {
            CURRENT.set(None);
            record.tid.store(0, Ordering::Relaxed);
            // Release: pairs with the acquire in `Record::take`.
            record.is_taken.store(false, Ordering::Release);
        }
        // Else what is dropped after this, and gives up what is held or takes more, finds the record that the kernel has.
    }
}

#[inline]
fn address(node: &AtomicU64) -> usize {
    node.as_ptr().expose_provenance()
}

fn records() -> impl Iterator<Item = &'static Record> {
    let next = |at: &AtomicPtr<Record>| {
        let record = at.load(Ordering::Acquire);
        // SAFETY: null, or a record, which is never unmapped and consists of atomics.
        unsafe { record.as_ref::<'static>() }
    };
    std::iter::successors(next(&RECORDS), move |record| next(&record.next))
}

/// Tells the kernel where this thread's head is.
fn register(head: usize) -> io::Result<()> {
    // SAFETY: the kernel reads the head at this thread's end, by accesses that may fail. It is one of ours, which is
    // never unmapped, or what was registered before.
    let result = unsafe { libc::syscall(libc::SYS_set_robust_list, head, size_of::<Head>()) };
    check(result)?;
    Ok(())
}

/// What the kernel knows of this thread; 0 if nothing.
fn registered() -> usize {
    let (mut head, mut len) = (0_usize, 0_usize);
    // SAFETY: 0 is this thread; both places are valid for writing.
    unsafe { libc::syscall(libc::SYS_get_robust_list, 0, &raw mut head, &raw mut len) };
    head
}

/// Private pages of zeros, which are zeros again in the child of any fork.
pub(crate) fn map_wiped_on_fork(len: usize) -> io::Result<*mut libc::c_void> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address that the kernel chooses touches no memory that is in use.
    let pages = unsafe { libc::mmap(ptr::null_mut(), len, access, flags, -1, 0) };
    if pages == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the range is what was just mapped.
    let wiped = unsafe { libc::madvise(pages, len, libc::MADV_WIPEONFORK) };
    if wiped != 0 {
        let error = io::Error::last_os_error();
        // SAFETY: nobody else has seen these pages.
        unsafe { libc::munmap(pages, len) };
        return Err(error);
    }
    Ok(pages)
}
