//! A word that one thread of one process holds at a time, and that the kernel takes from it when it dies.
//!
//! A word takes 16 bytes of shared memory: 64 bits that change by compare-and-swap alone, then a node for the list of
//! [`held`](crate::sys::held). The low half is what the kernel knows: the holder's number, a bit [`WAITED`] that says "some
//! may sleep", a bit [`DIED`]. The high half is known to us alone: two bits, and a count of the changes that are not plain
//! taking and giving up, so that a state that has come back is told from one that has stayed.
//!
//! | state | low half | high half | means | sleepers |
//! |---|---|---|---|---|
//! | free | 0 | | nobody holds it | none |
//! | told | 0 | `KEEP` | nobody holds it; one sleeper has been woken, or is being | perhaps |
//! | idle | `WAITED` | | nobody holds it; some sleep in a [`Monitor`], and there was nothing for them | perhaps |
//! | held | number | | | none |
//! | contended | number, `WAITED` | | | perhaps |
//! | died | `DIED`, perhaps `WAITED` | | nobody holds it; its last holder died, or gave it up as broken | perhaps |
//!
//! | from | to | by | and then |
//! |---|---|---|---|
//! | free | held | anyone | |
//! | told, idle, died | contended | anyone | |
//! | held | contended | who is about to sleep | sleeps while it is contended by that number |
//! | held | free | the holder | |
//! | contended | told | the holder | wakes one; if there was none: told becomes free, unless it has changed |
//! | held, contended | died | the kernel | wakes one, if it was contended |
//! | held, contended | died | the holder that says so | wakes one |
//! | free, told | idle | who is about to sleep in a monitor, with nothing there | looks again; sleeps while it is idle |
//! | contended | idle | a monitor's holder, with nothing there | looks again |
//! | idle | told | who has brought something | as from contended |
//!
//! **Who sleeps is woken.** The claim: if a thread sleeps, the word is contended, died, idle or told. It cannot fall asleep
//! unless it is contended or idle at that instant, which the kernel checks. From contended and idle every way leads to
//! one of these again, with one exception: told becomes free after a call that woke nobody. While it is told, nobody can
//! fall asleep, and if it was anything else meanwhile, its count is another; so nobody sleeps then. Hence whoever takes
//! it, also a third who was not asleep at all, knows of the sleepers and wakes one when done. (Had the state in
//! between been plain free, as is usual, such a third would not know; and if the one woken were killed before it
//! ran, the others would sleep on.)
//!
//! **Dying at any step.** Taking and giving up is done with the word *pending*, and so is sleeping.
//!
//! | died | the kernel finds | and |
//! |---|---|---|
//! | before it took the word | pending, another's number | does nothing: that one wakes |
//! | likewise | pending, no number | wakes one: as if the dead had passed on what had woken it |
//! | between taking and linking, or while holding, or after unlinking | pending or listed, its number | marks it died, wakes one |
//! | after giving up, before waking | pending, no number | wakes one |
//! | likewise, taken by another since | pending, another's number | does nothing: it is contended, that one wakes |
//!
//! **What a monitor is for**: many wait until something is there, and one by one take it. Who waits inside gives the word up
//! and sleeps on it, as those do that wait to come in; so the same death rules hold for both. Who brings something
//! looks at the word *after* it is there: idle, it wakes one; contended, it leaves that to the holder, who looks again when it
//! leaves. Of the two, at least one sees what the other has done: each stores, fences, then loads. Sleepers of
//! both kinds are told apart by the kernel: when nothing is there, only one that wants to come in is woken, if `ENTERING`
//! says that there may be some. While the word is held this bit is in the low half, in place of `DIED`: so nobody falls
//! asleep to come in unless it is set at that instant.
//! What a process brings that is killed before it can say so is found with the next thing that somebody brings, at the latest.
//!
//! **Bytes from elsewhere.** A process that writes here at random can have two threads hold the word, or none until a
//! deadline passes. It cannot make this process touch other memory, nor wait beyond its deadline.

use crate::deadline::Deadline;
use crate::sys::atomic::{AtomicU64, Ordering, fence};
use crate::sys::futex::{self, Watched};
use crate::sys::held::{HELD_MAX, Pending, Thread};
use crate::sys::limits;
use crate::sys::memory::{Mapping, Part};
use std::hint::spin_loop;
use std::io;
use std::marker::PhantomData;
use std::mem;

// The low half, as the kernel has it.
const WAITED: u64 = 1 << 31;
const DIED: u64 = 1 << 30;
/// The same bit of a word that is held, where it does not tell the kernel anything: [`ENTERING`].
const ENTERING_HELD: u64 = DIED;
const HOLDER: u64 = DIED - 1;
const LOW: u64 = (1 << 32) - 1;

// The high half.
/// With a low half of 0: some may sleep nevertheless.
const KEEP: u64 = 1 << 63;
/// Of a word that nobody holds: some of those who may sleep want to come in, whether or not anything is there.
const ENTERING: u64 = 1 << 62;
const COUNT: u64 = ENTERING - (1 << 32);
const ONE: u64 = 1 << 32;

/// The classes of sleepers.
const TO_ENTER: u32 = 1;
const FOR_MORE: u32 = 2;

/// How often a word that is held is looked at before its holder's end is slept for: a holder is mostly done in less time
/// than a sleep takes.
const LOOKS: u32 = 100;

/// A word in shared memory that can be held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Word<'a> {
    word: &'a AtomicU64,
    node: &'a AtomicU64,
}

/// A word that this thread holds; it is given up when dropped.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    word: Word<'a>,
    owner_died: bool,
    of_this_thread: PhantomData<*const ()>,
}

/// Has the kernel know of this thread, so that taking a word cannot be refused any more.
///
/// # Errors
///
/// Where the kernel refuses 20 KiB, or the list.
pub(crate) fn prepare() -> io::Result<()> {
    Thread::current().map(drop)
}

/// Until the result is dropped: if this thread dies, the kernel wakes one who sleeps on the 32 bits at `offset`, unless these
/// have any of their lower 30 bits set.
///
/// # Panics
///
/// As [`Word::at`].
#[inline]
pub(crate) fn pending_on(mapping: &Mapping, offset: usize) -> Pending<'_> {
    current().pend(Word::at(mapping, offset).node)
}

/// The number of the thread that calls, as a word that it holds has it.
#[inline]
pub(crate) fn this_thread() -> u32 {
    current().tid()
}

impl<'a> Word<'a> {
    /// How many bytes it takes. Zeros are a word that nobody holds.
    pub(crate) const LEN: usize = 16;

    /// The word at `offset`.
    ///
    /// # Panics
    ///
    /// Where `offset` is out of range or not a multiple of 8.
    #[inline]
    pub(crate) fn at(mapping: &'a Mapping, offset: usize) -> Word<'a> {
        Word {
            word: mapping.word(offset),
            node: mapping.word(offset + 8),
        }
    }

    /// The word at `offset` of a part.
    ///
    /// # Panics
    ///
    /// As [`Word::at`].
    #[inline]
    pub(crate) fn of(part: Part<'a>, offset: usize) -> Word<'a> {
        Word {
            word: part.word(offset),
            node: part.word(offset + 8),
        }
    }

    /// Takes it if nobody holds it.
    ///
    /// # Panics
    ///
    /// As [`Word::acquire`].
    #[inline]
    pub(crate) fn try_acquire(self) -> Option<Held<'a>> {
        let thread = with_room(current());
        let _pending = thread.pend(self.node);
        loop {
            let seen = self.word.load(Ordering::Relaxed);
            if seen & HOLDER != 0 {
                return None;
            }
            if let Some(held) = self.take(thread, seen) {
                return Some(held);
            }
        }
    }

    /// Takes it; `None` when the deadline has passed before. A thread that holds it already waits as others do.
    ///
    /// # Panics
    ///
    /// Where the thread holds as many words as it can, or has never held one and the kernel refuses the memory for it.
    #[inline]
    pub(crate) fn acquire(self, deadline: Deadline) -> Option<Held<'a>> {
        let thread = with_room(current());
        let pending = thread.pend(self.node);
        let seen = self.word.load(Ordering::Relaxed);
        if seen & HOLDER == 0 {
            if let Some(held) = self.take(thread, seen) {
                drop(pending);
                return Some(held);
            }
        }
        self.acquire_slowly(thread, deadline)
    }

    /// Whether this thread holds it, as far as this thread knows.
    pub(crate) fn is_held_by_this_thread(self) -> bool {
        current().holds(self.node)
    }

    /// The number of the thread that holds it; any number, if another process wants that.
    pub(crate) fn holder(self) -> Option<u32> {
        let low = (self.word.load(Ordering::Relaxed) & HOLDER) as u32;
        (low != 0).then_some(low)
    }

    /// Whether its last holder died and nobody has taken it since.
    pub(crate) fn is_died(self) -> bool {
        self.word.load(Ordering::Relaxed) & (DIED | HOLDER) == DIED
    }

    /// The word, and what its low half is as long as the same thread holds it and lives, for one who wants to sleep that
    /// long; `None` if nobody holds it.
    pub(crate) fn watch(self) -> Option<Watched<'a>> {
        loop {
            let seen = self.word.load(Ordering::Relaxed);
            if seen & HOLDER == 0 {
                return None;
            }
            let marked = counted(seen) | seen & LOW | WAITED;
            if seen & WAITED != 0 || self.change(seen, marked).is_some() {
                return Some(Watched {
                    word: self.word,
                    low: (marked & LOW) as u32,
                });
            }
        }
    }

    /// Gives it up, if this thread holds it, in place of a guard that was forgotten.
    pub(crate) fn release(self) {
        drop(self.assume_held());
    }

    /// As [`Word::release`] and [`Held::give_up_as_died`].
    pub(crate) fn release_as_died(self) {
        self.assume_held().give_up_as_died();
    }

    fn assume_held(self) -> Held<'a> {
        Held {
            word: self,
            owner_died: false,
            of_this_thread: PhantomData,
        }
    }

    /// Takes it, if it is still as it was seen, which is free in some way.
    #[inline]
    fn take(self, thread: Thread, seen: u64) -> Option<Held<'a>> {
        let number = u64::from(thread.tid());
        let taken = if seen & (LOW | KEEP) == 0 {
            seen & COUNT | number
        } else {
            counted(seen) | WAITED | number | if_set(seen, ENTERING | DIED, ENTERING_HELD)
        };
        // Acquire: what the last holder wrote is seen. Pairs with the release in `give_up`.
        self.word
            .compare_exchange(seen, taken, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        thread.link(self.node);
        Some(Held {
            word: self,
            owner_died: seen & DIED != 0,
            of_this_thread: PhantomData,
        })
    }

    #[cold]
    fn acquire_slowly(self, thread: Thread, deadline: Deadline) -> Option<Held<'a>> {
        let mut looks = if limits::processors() > 1 { LOOKS } else { 0 };
        loop {
            let seen = self.word.load(Ordering::Relaxed);
            if seen & HOLDER == 0 {
                if let Some(held) = self.take(thread, seen) {
                    // A monitor's holder looks at what is there after this. Pairs with the fence in `Monitor::announce`.
                    fence(Ordering::SeqCst);
                    return Some(held);
                }
            } else if looks > 0 && seen & WAITED == 0 {
                looks -= 1;
                spin_loop();
            } else if !self.sleep_while_held(seen, TO_ENTER, deadline) {
                return None;
            }
        }
    }

    /// Sleeps while that thread holds it, known to it. Returns false when the deadline has passed.
    fn sleep_while_held(self, seen: u64, class: u32, deadline: Deadline) -> bool {
        let mark = if class == TO_ENTER {
            WAITED | ENTERING_HELD
        } else {
            WAITED
        };
        let marked = counted(seen) | seen & LOW | mark;
        if seen & mark != mark && self.change(seen, marked).is_none() {
            return true;
        }
        let low = (marked & LOW) as u32;
        futex::wait_as(self.word, low, class, deadline)
    }

    /// Changes it from what was seen.
    #[inline]
    fn change(self, seen: u64, to: u64) -> Option<u64> {
        self.word
            .compare_exchange(seen, to, Ordering::AcqRel, Ordering::Relaxed)
            .ok()
            .map(|_| to)
    }

    /// Gives it up, in the state that `next` makes of the present one. Returns that state; `None` if this thread does not
    /// hold it any more, since another process has written there.
    #[inline]
    fn give_up(self, thread: Thread, next: impl Fn(u64) -> u64) -> Option<u64> {
        thread.unlink(self.node);
        let number = u64::from(thread.tid());
        let mut seen = self.word.load(Ordering::Relaxed);
        while seen & HOLDER == number {
            let freed = next(seen);
            // Release: the next holder sees what this one wrote. Pairs with the acquire in `take`.
            match self
                .word
                .compare_exchange_weak(seen, freed, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return Some(freed),
                Err(changed) => seen = changed,
            }
        }
        None
    }

    /// After it has become `told`: wakes one; if none sleeps, it is plainly free, unless it has changed.
    #[cold]
    fn tell_one(self, told: u64) {
        if futex::wake(self.word, 1) == 0 {
            self.change(told, told & COUNT);
        }
    }
}

impl Held<'_> {
    /// Whether the holder before this one died, or gave it up as broken, and nobody has taken it since.
    #[inline]
    pub(crate) fn owner_died(&self) -> bool {
        self.owner_died
    }

    /// Gives it up as a holder that dies does: the next one finds that its owner died.
    pub(crate) fn give_up_as_died(self) {
        let word = self.word;
        mem::forget(self);
        let thread = current();
        let _pending = thread.pend(word.node);
        let died = |seen| counted(seen) | seen & WAITED | DIED;
        if word
            .give_up(thread, died)
            .is_some_and(|now| now & WAITED != 0)
        {
            futex::wake(word.word, 1);
        }
    }
}

impl Drop for Held<'_> {
    #[inline]
    fn drop(&mut self) {
        let thread = current();
        let _pending = thread.pend(self.word.node);
        let freed = self.word.give_up(thread, |seen| {
            if seen & WAITED == 0 {
                seen & COUNT
            } else {
                seen & COUNT | KEEP | if_set(seen, ENTERING_HELD, ENTERING)
            }
        });
        match freed {
            Some(told) if told & KEEP != 0 => self.word.tell_one(told),
            _ => {}
        }
    }
}

/// A word on which threads also sleep until something is there: see the head of this file. Whether something is there is
/// told by a function that looks at shared atomics, with at least acquire ordering.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Monitor<'a> {
    word: Word<'a>,
}

/// A monitor that this thread has entered. Dropped, it is left as if something were there.
#[derive(Debug)]
pub(crate) struct Inside<'a> {
    held: Held<'a>,
}

impl<'a> Monitor<'a> {
    /// The monitor at `offset`, of [`Word::LEN`] bytes.
    ///
    /// # Panics
    ///
    /// As [`Word::at`].
    #[inline]
    pub(crate) fn at(mapping: &'a Mapping, offset: usize) -> Monitor<'a> {
        Monitor {
            word: Word::at(mapping, offset),
        }
    }

    /// Comes in when nobody is inside; `None` when the deadline has passed before.
    ///
    /// # Panics
    ///
    /// As [`Word::acquire`].
    #[inline]
    pub(crate) fn enter(self, deadline: Deadline) -> Option<Inside<'a>> {
        self.word.acquire(deadline).map(|held| Inside { held })
    }

    /// As [`Monitor::enter`], at once or not at all.
    ///
    /// # Panics
    ///
    /// As [`Word::acquire`].
    #[inline]
    pub(crate) fn try_enter(self) -> Option<Inside<'a>> {
        self.word.try_acquire().map(|held| Inside { held })
    }

    /// Runs `bring`, which makes something be there, from outside; then wakes one who waits for it. If this thread is killed
    /// in between, the kernel wakes one.
    ///
    /// # Panics
    ///
    /// As [`Word::acquire`].
    #[inline]
    pub(crate) fn announce<R>(self, bring: impl FnOnce() -> R) -> R {
        let _pending = current().pend(self.word.node);
        let result = bring();
        self.tell();
        result
    }

    /// Wakes one who waits, if nobody is inside who would look.
    #[inline]
    fn tell(self) {
        // What is there now is seen by whoever gets the word after this load of it, or sleeps on it. Pairs with the
        // fences after a word was taken slowly or has become idle.
        fence(Ordering::SeqCst);
        loop {
            let seen = self.word.word.load(Ordering::Relaxed);
            let is_idle = seen & LOW == WAITED;
            // Told: the one who was woken may be slow, and there is more now. When nobody sleeps it becomes free, so
            // that this is no system call for each thing that is brought.
            let is_told = seen & LOW == 0 && seen & KEEP != 0;
            if !is_idle && !is_told {
                return;
            }
            let told = seen & (COUNT | ENTERING) | KEEP;
            if is_told || self.word.change(seen, told).is_some() {
                return self.word.tell_one(told);
            }
        }
    }

    /// After it has become idle: those who only want to come in are woken, one after the other, as each leaves.
    fn let_in_one(self) {
        loop {
            let seen = self.word.word.load(Ordering::Relaxed);
            if seen & LOW != WAITED || seen & ENTERING == 0 {
                return;
            }
            if futex::wake_class(self.word.word, 1, TO_ENTER) > 0
                || self.word.change(seen, seen & !ENTERING).is_some()
            {
                return;
            }
        }
    }

    /// Makes it idle, if it still is as it was seen, which is free or told: who sleeps from now on, or still does, is woken
    /// when something is there.
    fn make_idle(self, seen: u64) -> bool {
        let is_made = self.word.change(seen, idle(seen)).is_some();
        fence(Ordering::SeqCst);
        is_made
    }

    /// Before a sleeper goes away, its deadline passed: it may have been woken for something that it will not take.
    fn pass_on(self, is_there: impl Fn() -> bool) {
        loop {
            let seen = self.word.word.load(Ordering::Relaxed);
            if seen & LOW != 0 || seen & KEEP == 0 {
                return;
            }
            if self.make_idle(seen) {
                self.let_in_one();
                if is_there() {
                    self.tell();
                }
                return;
            }
        }
    }

    /// Leaves with nothing there: some may sleep.
    fn leave_idle(self, thread: Thread) {
        if self.word.give_up(thread, idle).is_some() {
            fence(Ordering::SeqCst);
            self.let_in_one();
        }
    }
}

impl<'a> Inside<'a> {
    /// Leaves, and has one come in who waits for something, if `is_there` says so.
    #[inline]
    pub(crate) fn leave(self, is_there: impl Fn() -> bool) {
        let Inside { held } = self;
        let word = held.word;
        if word.word.load(Ordering::Relaxed) & WAITED == 0 {
            // Who begins to sleep now makes it contended, so that dropping wakes; that one will look by itself.
            return drop(held);
        }
        if is_there() {
            return drop(held);
        }
        mem::forget(held);
        let monitor = Monitor { word };
        let thread = current();
        let _pending = thread.pend(word.node);
        monitor.leave_idle(thread);
        if is_there() {
            monitor.tell();
        }
    }

    /// Leaves, and sleeps until something is there and it is inside again; `None`, outside, when the deadline has passed
    /// before. It may come in with nothing there: look again. `is_there` is asked outside as well.
    pub(crate) fn wait(
        self,
        is_there: impl Fn() -> bool,
        deadline: Deadline,
    ) -> Option<Inside<'a>> {
        let Inside { held } = self;
        let word = held.word;
        mem::forget(held);
        let monitor = Monitor { word };
        let thread = current();
        let _pending = thread.pend(word.node);
        monitor.leave_idle(thread);
        loop {
            let seen = word.word.load(Ordering::Relaxed);
            let is_free = seen & HOLDER == 0;
            let is_there_now = is_there();
            if is_free && (is_there_now || seen & DIED != 0) {
                if let Some(held) = word.take(thread, seen) {
                    fence(Ordering::SeqCst);
                    return Some(Inside { held });
                }
                continue;
            }
            let goes_on = if !is_free {
                word.sleep_while_held(seen, FOR_MORE, deadline)
            } else if seen & LOW == WAITED {
                monitor.let_in_one();
                futex::wait_as(word.word, WAITED as u32, FOR_MORE, deadline)
            } else {
                monitor.make_idle(seen);
                true
            };
            if !goes_on {
                monitor.pass_on(is_there);
                return None;
            }
        }
    }
}

/// What becomes of a word that is given up with nothing there, or is free.
fn idle(seen: u64) -> u64 {
    counted(seen) | WAITED | if_set(seen, ENTERING_HELD | ENTERING, ENTERING)
}

/// The count alone, one higher.
fn counted(seen: u64) -> u64 {
    seen.wrapping_add(ONE) & COUNT
}

/// `then` if any of `bits` is set.
fn if_set(seen: u64, bits: u64, then: u64) -> u64 {
    if seen & bits == 0 { 0 } else { then }
}

#[inline]
fn current() -> Thread {
    match Thread::current() {
        Ok(thread) => thread,
        Err(error) => refuse(&error),
    }
}

#[cold]
fn refuse(error: &io::Error) -> ! {
    panic!("the kernel refuses what a thread needs to hold locks: {error}")
}

#[inline]
fn with_room(thread: Thread) -> Thread {
    assert!(
        thread.has_room(),
        "a thread cannot hold more than {HELD_MAX} locks at a time"
    );
    thread
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::sys::memory::SealedMemory;
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, Pid, fork};
    use std::time::Duration;

    const SOON: Duration = Duration::from_secs(20);

    fn memory() -> Mapping {
        SealedMemory::create(4096).unwrap().map(0, 4096).unwrap()
    }

    fn soon() -> Deadline {
        Deadline::after(SOON)
    }

    /// Forks a process that runs `body` and ends with the code that it returns.
    fn forked(body: impl FnOnce() -> i32) -> Pid {
        // SAFETY: the C library's allocator serves the child of a fork; `body` uses nothing else that a thread of the
        // parent could hold.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
                crate::sys::identity::exit_now(code.unwrap_or(101))
            }
        }
    }

    fn assert_ends_well(child: Pid) {
        assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
    }

    /// Kills it; fails if it had ended by itself with anything but 0.
    fn kill_hard(child: Pid) {
        kill(child, Signal::SIGKILL).unwrap();
        match waitpid(child, None).unwrap() {
            WaitStatus::Signaled(_, Signal::SIGKILL, _) | WaitStatus::Exited(_, 0) => {}
            other => panic!("{other:?}"),
        }
    }

    /// Numbers for the instants at which something dies.
    struct Random(u64);

    impl Random {
        fn new() -> Random {
            let seed = std::env::var("ROBUST_SEED").ok();
            let seed = seed.and_then(|seed| seed.parse().ok());
            let seed = seed.unwrap_or_else(|| {
                u64::from_le_bytes(
                    crate::sys::identity::nonce().unwrap()[..8]
                        .try_into()
                        .unwrap(),
                )
            });
            eprintln!("ROBUST_SEED={seed}");
            Random(seed | 1)
        }

        fn below(&mut self, end: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % end
        }

        /// Lets a random time pass: what is tested is dying at any instant.
        fn pause(&mut self, longest: Duration) {
            let nanos = u64::try_from(longest.as_nanos()).unwrap();
            std::thread::sleep(Duration::from_nanos(self.below(nanos)));
        }
    }

    #[test]
    fn what_one_holds_another_does_not_get_until_it_is_given_up() {
        let memory = memory();
        let word = Word::at(&memory, 64);
        let held = word.acquire(Deadline::NEVER).unwrap();
        assert!(!held.owner_died() && word.is_held_by_this_thread());
        assert_eq!(word.holder(), Some(this_thread()));
        assert!(word.try_acquire().is_none());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let deadline = Deadline::after(Duration::from_millis(30));
                assert!(word.acquire(deadline).is_none() && !word.is_held_by_this_thread());
            });
        });
        drop(held);
        assert_eq!(word.holder(), None);
        let _again = word.try_acquire().unwrap();
        drop(_again);
        assert_eq!(
            word.word.load(Ordering::Relaxed) & !COUNT,
            0,
            "plainly free"
        );
    }

    #[test]
    fn threads_exclude_each_other() {
        let memory = memory();
        let word = Word::at(&memory, 64);
        let count = memory.word(128);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50_000 {
                        let _held = word.acquire(soon()).unwrap();
                        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(count.load(Ordering::Relaxed), 200_000);
        assert_eq!(
            word.word.load(Ordering::Relaxed) & !COUNT,
            0,
            "plainly free"
        );
    }

    #[test]
    fn a_thread_that_ends_holding_is_found_to_have_died() {
        let memory = memory();
        let (word, other) = (Word::at(&memory, 64), Word::at(&memory, 128));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                mem::forget(word.acquire(Deadline::NEVER).unwrap());
                drop(other.acquire(Deadline::NEVER).unwrap());
            });
        });
        // The thread itself may end a little after its closure.
        let held = word.acquire(soon()).unwrap();
        assert!(held.owner_died() && !other.is_died());
        held.give_up_as_died();
        let held = word.acquire(soon()).unwrap();
        assert!(held.owner_died());
        drop(held);
        assert!(!word.acquire(soon()).unwrap().owner_died());
    }

    #[test]
    fn of_many_words_a_dead_process_loses_those_that_it_held() {
        let memory = memory();
        for kept_out in 0..5 {
            let words: Vec<_> = (0..5).map(|n| Word::at(&memory, n * 64)).collect();
            let child = forked(|| {
                let mut all: Vec<_> = words
                    .iter()
                    .map(|word| Some(word.acquire(Deadline::NEVER).unwrap()))
                    .collect();
                all[kept_out] = None;
                mem::forget(all);
                0
            });
            assert_ends_well(child);
            for (n, word) in words.into_iter().enumerate() {
                let held = word.acquire(soon()).unwrap();
                assert_eq!(held.owner_died(), n != kept_out);
            }
        }
    }

    #[test]
    fn a_fork_holds_nothing_of_its_parents() {
        let memory = memory();
        let word = Word::at(&memory, 64);
        let mut held = word.acquire(Deadline::NEVER);
        let child = forked(|| {
            let parent = word.holder();
            if word.is_held_by_this_thread() || word.try_acquire().is_some() {
                return 1;
            }
            drop(held.take());
            let is_still_the_parents = word.holder() == parent && parent != Some(this_thread());
            let own = Word::at(&memory, 128).acquire(Deadline::NEVER);
            mem::forget(own);
            i32::from(!is_still_the_parents)
        });
        assert_ends_well(child);
        assert!(Word::at(&memory, 128).acquire(soon()).unwrap().owner_died());
        assert_eq!(word.holder(), Some(this_thread()));
        assert!(held.is_some());
    }

    #[test]
    fn a_mapping_with_a_forgotten_guard_stays_mapped() {
        let one = memory();
        mem::forget(Word::at(&one, 64).acquire(Deadline::NEVER));
        let at = one.word(64) as *const AtomicU64;
        drop(one);
        // SAFETY: it is still mapped, which is what is tested; and an atomic.
        assert_ne!(unsafe { &*at }.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn more_words_than_the_kernel_walks_are_refused() {
        let memory = SealedMemory::create(HELD_MAX * 16 + 16).unwrap();
        let memory = memory.map(0, memory.len()).unwrap();
        let mut held: Vec<_> = (0..HELD_MAX)
            .map(|n| Word::at(&memory, n * 16).acquire(Deadline::NEVER).unwrap())
            .collect();
        let last = Word::at(&memory, HELD_MAX * 16);
        let refused = std::panic::catch_unwind(|| last.try_acquire().is_some());
        assert!(refused.is_err());
        held.remove(HELD_MAX / 2);
        assert!(last.try_acquire().is_some());
    }

    #[test]
    fn holders_and_sleepers_killed_at_any_instant_keep_nobody_waiting() {
        let memory = memory();
        let word = Word::at(&memory, 64);
        let (taken, finished) = (memory.word(128), memory.word(192));
        let mut random = Random::new();
        let worker = || {
            loop {
                let Some(held) = word.acquire(soon()) else {
                    return 7;
                };
                if held.owner_died() {
                    finished.store(taken.load(Ordering::Relaxed), Ordering::Relaxed);
                }
                taken.store(taken.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                std::hint::black_box(&held);
                finished.store(finished.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            }
        };
        let mut children: Vec<Pid> = (0..4).map(|_| forked(worker)).collect();
        for _ in 0..500 {
            random.pause(Duration::from_micros(400));
            let one = usize::try_from(random.below(4)).unwrap();
            kill_hard(children[one]);
            children[one] = forked(worker);
            let held = word.acquire(soon()).expect("nobody hands the word on");
            let equal = taken.load(Ordering::Relaxed) == finished.load(Ordering::Relaxed);
            assert!(equal || held.owner_died(), "two held it at a time");
            if !equal {
                finished.store(taken.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        children.into_iter().for_each(kill_hard);
        assert!(word.acquire(soon()).is_some());
    }

    /// Things are brought by counting up `brought`, and taken by counting up `taken` inside.
    struct Things<'a> {
        monitor: Monitor<'a>,
        brought: &'a AtomicU64,
        taken: &'a AtomicU64,
    }

    impl Things<'_> {
        fn are_there(&self) -> bool {
            self.brought.load(Ordering::Acquire) > self.taken.load(Ordering::Acquire)
        }

        fn bring(&self) {
            self.monitor
                .announce(|| self.brought.fetch_add(1, Ordering::Release));
        }

        /// Takes one; false when the deadline has passed.
        fn take(&self, deadline: Deadline) -> bool {
            let mut inside = self.monitor.enter(deadline);
            loop {
                match inside {
                    None => return false,
                    Some(inside) if self.are_there() => {
                        self.taken
                            .store(self.taken.load(Ordering::Relaxed) + 1, Ordering::Release);
                        inside.leave(|| self.are_there());
                        return true;
                    }
                    Some(alone) => inside = alone.wait(|| self.are_there(), deadline),
                }
            }
        }
    }

    fn things(memory: &Mapping) -> Things<'_> {
        Things {
            monitor: Monitor::at(memory, 64),
            brought: memory.word(128),
            taken: memory.word(192),
        }
    }

    #[test]
    fn what_is_brought_to_a_monitor_is_taken_once() {
        const EACH: u64 = 30_000;
        let memory = memory();
        let things = things(&memory);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..EACH).for_each(|_| assert!(things.take(soon()))));
                scope.spawn(|| (0..EACH).for_each(|_| things.bring()));
            }
        });
        assert_eq!(things.taken.load(Ordering::Relaxed), 3 * EACH);
        assert!(!things.take(Deadline::after(Duration::from_millis(10))));
    }

    #[test]
    fn one_at_a_time_is_brought_and_each_finds_a_sleeper() {
        let memory = memory();
        let things = things(&memory);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| (0..2_000).for_each(|_| assert!(things.take(soon()))));
            }
            for number in 1..=6_000 {
                things.bring();
                while things.taken.load(Ordering::Acquire) < number {
                    std::thread::yield_now();
                }
            }
        });
    }

    #[test]
    fn who_only_wants_to_come_in_does_not_wait_for_things() {
        let memory = memory();
        let things = things(&memory);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| assert!(things.take(soon())));
            }
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        let inside = things.monitor.enter(soon()).unwrap();
                        inside.leave(|| things.are_there());
                    }
                });
            }
            for _ in 0..5_000 {
                let inside = things.monitor.enter(soon()).unwrap();
                inside.leave(|| things.are_there());
            }
            things.bring();
            things.bring();
        });
    }

    #[test]
    fn sleepers_whose_deadlines_pass_swallow_no_wake_up() {
        let memory = memory();
        let things = things(&memory);
        let mut random = Random::new();
        std::thread::scope(|scope| {
            for seed in 0..3 {
                let things = &things;
                let mut random = Random(random.below(1 << 40) + seed);
                scope.spawn(move || {
                    let mut taken = 0;
                    while taken < 1_000 {
                        let limit = Duration::from_micros(random.below(60));
                        taken += u32::from(things.take(Deadline::after(limit)));
                    }
                });
            }
            scope.spawn(|| (0..1_000).for_each(|_| assert!(things.take(soon()))));
            for _ in 0..4_000 {
                random.pause(Duration::from_micros(30));
                things.bring();
            }
        });
        assert_eq!(things.taken.load(Ordering::Relaxed), 4_000);
    }

    #[test]
    fn takers_killed_at_any_instant_take_no_wake_up_with_them() {
        let memory = memory();
        let things = things(&memory);
        let mut random = Random::new();
        let taker = || {
            loop {
                if !things.take(soon()) {
                    return 7;
                }
            }
        };
        let mut children: Vec<Pid> = (0..3).map(|_| forked(taker)).collect();
        for _ in 0..500 {
            things.bring();
            random.pause(Duration::from_micros(150));
            let one = usize::try_from(random.below(3)).unwrap();
            kill_hard(children[one]);
            children[one] = forked(taker);
            // All is taken without anything else being brought.
            let deadline = soon();
            while things.are_there() {
                assert!(
                    deadline.remaining().is_none_or(|left| !left.is_zero()),
                    "a thing stays"
                );
                std::thread::yield_now();
            }
        }
        children.into_iter().for_each(kill_hard);
    }
}
