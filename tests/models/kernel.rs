//! The kernel's part: sleeping on a word as long as it is what was expected, waking, time that runs out, and death.
//!
//! One lock makes comparing and falling asleep one step with respect to waking, as the kernel's own does. A *doomed*
//! thread dies before its n-th step, or in its n-th sleep: then the kernel marks what it held, and wakes, as robust_list
//! says. It unwinds after that, and nothing that it does then has any effect.

use crate::deadline::Deadline;
use loom::sync::atomic::AtomicU64 as Word;
use loom::sync::{Condvar, Mutex};
use loom::thread::{self, JoinHandle};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

pub(crate) type Place = Arc<Word>;

struct Sleeper {
    tid: u32,
    places: Vec<Place>,
    classes: u32,
    has_limit: bool,
    bell: Arc<Condvar>,
}

#[derive(Default)]
struct Table {
    asleep: Vec<Sleeper>,
    /// Whose sleep ended since time was over.
    timed_out: Vec<u32>,
    expired: Vec<u32>,
    /// Who must not fall asleep any more, since it is to die.
    interrupted: Vec<u32>,
}

#[derive(Default)]
pub(crate) struct Me {
    pub(crate) tid: u32,
    steps: usize,
    dies_at: Option<usize>,
    is_dead: bool,
    has_timer: bool,
    pub(crate) held: Vec<Place>,
    pub(crate) pending: Option<Place>,
}

loom::lazy_static! {
    static ref TABLE: Arc<Mutex<Table>> = Arc::new(Mutex::new(Table::default()));
}
loom::thread_local! {
    static ME: RefCell<Me> = RefCell::new(Me::default());
}
thread_local! {
    /// Whether a doomed thread has come as far as its death, in any order.
    static HAS_DIED: Cell<bool> = const { Cell::new(false) };
}

struct Death;

pub(crate) fn me<R>(look: impl FnOnce(&mut Me) -> R) -> R {
    ME.with(|me| look(&mut me.borrow_mut()))
}

/// How far a model is explored: every order with at most so many preemptions, and no more orders than that. Both are counts,
/// not times, so that a busy machine explores what an idle one does.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) preemptions: usize,
    pub(crate) orders: usize,
}

/// Nearly all models are through with these, and so have passed for every order.
pub(crate) const WHOLE: Bounds = Bounds {
    preemptions: 2,
    orders: 20_000,
};

/// Runs a model in every order within bounds (`LOOM_MAX_PREEMPTIONS` and `LOOM_MAX_PERMUTATIONS` go before them).
pub(crate) fn explore(bounds: Bounds, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(bounds.preemptions));
    builder.max_permutations = builder.max_permutations.or(Some(bounds.orders));
    // This is how often loom looks at the bounds.
    builder.checkpoint_interval = 1000;
    builder.max_branches = 50_000;
    builder.check(move || {
        drop(TABLE.lock());
        me(|me| me.tid = 1);
        model();
    });
}

/// Explores a model for each step at which a thread of it can die; the model is told the step.
pub(crate) fn with_each_death(
    bounds: Bounds,
    model: impl Fn(usize) + Send + Sync + Copy + 'static,
) {
    let deaths = (1..).take_while(|&at| {
        HAS_DIED.set(false);
        explore(bounds, move || model(at));
        HAS_DIED.get()
    });
    let deaths = deaths.count();
    eprintln!("{deaths} steps to die at");
    assert!(deaths > 0);
}

pub(crate) fn start<R: 'static>(tid: u32, body: impl FnOnce() -> R + 'static) -> JoinHandle<R> {
    thread::spawn(move || {
        me(|me| me.tid = tid);
        body()
    })
}

/// A thread that dies at that step; then it returns nothing.
pub(crate) fn start_doomed<R: 'static>(
    tid: u32,
    dies_at: usize,
    body: impl FnOnce() -> R + 'static,
) -> JoinHandle<Option<R>> {
    start(tid, move || {
        me(|me| me.dies_at = Some(dies_at));
        match catch_unwind(AssertUnwindSafe(body)) {
            Ok(result) => Some(result),
            Err(payload) if payload.is::<Death>() => None,
            Err(payload) => resume_unwind(payload),
        }
    })
}

/// One more step of this thread; false if it is dead and has none.
pub(crate) fn step() -> bool {
    let (is_dead, dies) = me(|me| {
        me.steps += 1;
        (me.is_dead, me.dies_at == Some(me.steps))
    });
    if dies && !is_dead {
        die();
    }
    !is_dead
}

fn die() -> ! {
    HAS_DIED.set(true);
    end()
}

/// Has the thread that calls die here, in every order.
pub(crate) fn die_here() -> ! {
    end()
}

fn end() -> ! {
    let (tid, held, pending) = me(|me| {
        me.is_dead = true;
        (me.tid, std::mem::take(&mut me.held), me.pending.take())
    });
    let is_pending = |place: &Place| {
        pending
            .as_ref()
            .is_some_and(|other| Arc::ptr_eq(place, other))
    };
    for place in held.iter().rev().filter(|place| !is_pending(place)) {
        leave(place, tid, false);
    }
    if let Some(place) = &pending {
        leave(place, tid, true);
    }
    resume_unwind(Box::new(Death));
}

/// `handle_futex_death` of the kernel.
fn leave(place: &Place, tid: u32, is_pending: bool) {
    const LOW: u64 = 0xffff_ffff;
    let mut seen = place.load(SeqCst);
    loop {
        let owner = seen as u32 & libc::FUTEX_TID_MASK;
        if is_pending && owner == 0 {
            wake(place, 1, u32::MAX);
            return;
        }
        if owner != tid {
            return;
        }
        let waiters = seen as u32 & libc::FUTEX_WAITERS;
        let died = seen & !LOW | u64::from(waiters | libc::FUTEX_OWNER_DIED);
        match place.compare_exchange(seen, died, SeqCst, SeqCst) {
            Ok(_) if waiters != 0 => {
                wake(place, 1, u32::MAX);
                return;
            }
            Ok(_) => return,
            Err(now) => seen = now,
        }
    }
}

fn wake(place: &Place, count: i32, classes: u32) -> usize {
    let mut table = TABLE.lock().unwrap();
    let mut woken = 0;
    table.asleep.retain(|sleeper| {
        let is_one = sleeper.classes & classes != 0
            && sleeper.places.iter().any(|other| Arc::ptr_eq(place, other));
        if !is_one || woken >= count as usize {
            return true;
        }
        woken += 1;
        sleeper.bell.notify_one();
        false
    });
    woken
}

/// Lets the time of a thread run out, now, which is at any moment.
fn expire(table: &Mutex<Table>, tid: u32) {
    let mut table = table.lock().unwrap();
    table.expired.push(tid);
    let at = table
        .asleep
        .iter()
        .position(|sleeper| sleeper.tid == tid && sleeper.has_limit);
    if let Some(at) = at {
        let sleeper = table.asleep.remove(at);
        table.timed_out.push(tid);
        sleeper.bell.notify_one();
    }
}

/// Has a sleep end that nobody has ended: as a signal does, or a kill.
fn interrupt(table: &Mutex<Table>, tid: u32) {
    let mut table = table.lock().unwrap();
    table.interrupted.push(tid);
    if let Some(at) = table.asleep.iter().position(|sleeper| sleeper.tid == tid) {
        table.asleep.remove(at).bell.notify_one();
    }
}

pub(crate) fn has_expired() -> bool {
    let tid = me(|me| me.tid);
    TABLE.lock().unwrap().expired.contains(&tid)
}

fn sleep(places: Vec<(Place, u32)>, classes: u32, deadline: Deadline) -> bool {
    if !step() || deadline.has_passed() {
        return false;
    }
    let (tid, is_doomed, needs_timer) = me(|me| {
        me.steps += 1;
        let needs_timer = !deadline.is_never() && !me.has_timer;
        me.has_timer |= needs_timer;
        (me.tid, me.dies_at == Some(me.steps), needs_timer)
    });
    if needs_timer {
        // It may run when the model is over, which takes the static away.
        let table = Arc::clone(&TABLE);
        thread::spawn(move || expire(&table, tid));
    }
    if is_doomed {
        let table = Arc::clone(&TABLE);
        thread::spawn(move || interrupt(&table, tid));
    }
    let bell = Arc::new(Condvar::new());
    let mut table = TABLE.lock().unwrap();
    let is_as_expected = places
        .iter()
        .all(|(place, expected)| place.load(SeqCst) as u32 == *expected);
    if is_as_expected
        && !table.interrupted.contains(&tid)
        && !(table.expired.contains(&tid) && !deadline.is_never())
    {
        table.asleep.push(Sleeper {
            tid,
            places: places.into_iter().map(|(place, _)| place).collect(),
            classes,
            has_limit: !deadline.is_never(),
            bell: Arc::clone(&bell),
        });
        while table.asleep.iter().any(|sleeper| sleeper.tid == tid) {
            table = bell.wait(table).unwrap();
        }
    }
    let timed_out = table.timed_out.iter().position(|&other| other == tid);
    if let Some(at) = timed_out {
        table.timed_out.remove(at);
    }
    drop(table);
    if is_doomed {
        die();
    }
    timed_out.is_none()
}

/// Nobody's decisions hang on it: in a model nobody spins.
pub(crate) mod clock {
    pub(crate) fn monotonic_nanos() -> u64 {
        0
    }
}

pub(crate) mod limits {
    pub(crate) fn processors() -> usize {
        1
    }
}

pub(crate) mod futex {
    use super::Place;
    use crate::deadline::Deadline;
    use crate::memory::{AtomicU32, AtomicU64};
    use std::sync::Arc;

    pub(crate) const WATCHED_MAX: usize = 128;

    pub(crate) trait Futex {
        fn place(&self) -> &Place;
    }
    impl Futex for AtomicU32 {
        fn place(&self) -> &Place {
            &self.cell
        }
    }
    impl Futex for AtomicU64 {
        fn place(&self) -> &Place {
            &self.cell
        }
    }

    pub(crate) struct Watched<'a> {
        pub(crate) word: &'a AtomicU64,
        pub(crate) low: u32,
    }

    pub(crate) fn wait(word: &impl Futex, expected: u32, deadline: Deadline) -> bool {
        wait_as(word, expected, u32::MAX, deadline)
    }
    pub(crate) fn wait_as(
        word: &impl Futex,
        expected: u32,
        classes: u32,
        deadline: Deadline,
    ) -> bool {
        super::sleep(
            vec![(Arc::clone(word.place()), expected)],
            classes,
            deadline,
        )
    }
    pub(crate) fn wait_for_any(words: &[Watched<'_>], deadline: Deadline) -> Option<bool> {
        let places = words
            .iter()
            .map(|one| (Arc::clone(one.word.place()), one.low));
        Some(super::sleep(places.collect(), u32::MAX, deadline))
    }
    pub(crate) fn wake(word: &impl Futex, count: i32) -> usize {
        wake_class(word, count, u32::MAX)
    }
    pub(crate) fn wake_class(word: &impl Futex, count: i32, classes: u32) -> usize {
        if super::step() {
            super::wake(word.place(), count, classes)
        } else {
            0
        }
    }
}
