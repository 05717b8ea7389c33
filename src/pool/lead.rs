//! Who does a pool's work, and when: any number of threads call, one of them leads.
//!
//! **Who drives.** Of the callers that wait for something, one *leads*: it takes in what the workers sent, for everybody,
//! feeds them, and sleeps until there is news. The others wait until the leader has something for them or stops leading,
//! and then one of them leads. A caller never holds the lock while it runs the user's code (iterators, serde) or sleeps.
//!
//! Nobody waits for an asynchronous call at first, and the caller of an iterator with a time limit may be anywhere. So the
//! first such call starts the pool's own thread, which ends with the pool. It completes asynchronous calls, and leads while
//! some are under way and nobody else does; and it keeps the time limits while nobody leads. It takes no signals.
//!
//! | who | under the lock | without it |
//! |---|---|---|
//! | opens a job, submits a batch, makes a call | queues it, sends what the rings take | pulls and encodes items |
//! | leads | receives, feeds, sends, kills, buries and replaces workers | sleeps until a doorbell, a death, a deadline, or another caller's `Wake` |
//! | waits while another leads | | sleeps on the condition variable `followers` |
//! | the pool's thread, while another leads or no call is under way | | sleeps on the condition variable `chores`, until the next time limit: if nobody leads then, it looks |
//! | the pool's thread, when calls have ended | takes them | runs callbacks, wakes who waits for these calls |
//!
//! **What wakes a sleeping leader:** a worker that shows results (its link says that we sleep), a worker's end (its socket
//! closes, its pidfd is readable), the next time limit, the moment from which on a worker is late that may hold what an idle one could
//! do (see `dispatch.rs`), and a caller that changed what the leader sleeps for. A caller that
//! gave work to a worker says in that worker's link that we sleep, in the leader's place, so that it need not wake it.
//!
//! **What wakes the pool's thread:** whoever stops leading while calls are under way; whoever leads and has taken in the end
//! of a call; whoever makes a call while nobody leads; whoever leaves a time limit that is sooner than it would look. If it leads itself, it sleeps as a leader does. A callback that waits
//! for another call of this pool would wait for its own thread: there, the wait goes on with that thread's work instead,
//! with other callbacks too; but no more than `NESTED_MAX` such waits deep, so that the stack does not end.

use crate::deadline::Deadline;
use crate::pool::call::Event;
use crate::pool::crowding::Advice;
use crate::pool::dispatch::JobId;
use crate::pool::plan::{Supply, Turn};
use crate::pool::shared::{Core, Shared};
use crate::sys::step::step;
use crate::sys::{clock, limits};
use parking_lot::MutexGuard;
use std::thread;
use std::time::{Duration, Instant};

/// The number under which the wake-up descriptor is watched; workers have smaller ones.
pub(crate) const WAKE: u64 = u64::MAX;

/// How long a worker takes at most to go to another processor, if that is free, and to answer from there.
const TO_ANOTHER_PROCESSOR: Duration = Duration::from_micros(200);

/// Whether a call waits for something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    Wait,
    /// Without spinning first: nobody waits for this one, and others want the lock.
    Sleep,
    Now,
}

impl Shared {
    /// Finds out what the caller of `job` does next, and leads if nobody does. There is nothing when `limit` has passed. In a process that
    /// was forked from the pool's, the job is broken.
    pub(crate) fn turn(
        &self,
        job: JobId,
        supply: Supply,
        patience: Patience,
        limit: Deadline,
    ) -> Turn {
        if let Err(error) = self.check_owner() {
            return Turn::Events(vec![Event::Broken { item: None, error }]);
        }
        let _teller = self.diary.teller();
        let mut core = self.core.lock();
        let mut has_led = false;
        loop {
            if let Some(turn) = core.floor.turn_of(job, supply) {
                break if has_led {
                    self.hand_over(&core, turn)
                } else {
                    turn
                };
            }
            let is_over = match patience {
                Patience::Now => has_led || core.has_leader,
                _ => limit.has_passed(),
            };
            if is_over {
                break self.hand_over(&core, Turn::Nothing);
            }
            if core.has_leader {
                core.followers += 1;
                match limit.remaining() {
                    None => self.followers.wait(&mut core),
                    Some(left) => _ = self.followers.wait_for(&mut core, left),
                }
                core.followers -= 1;
                continue;
            }
            has_led = true;
            self.lead(&mut core, patience, limit);
        }
    }

    /// Leads for one round, in which it sleeps until `limit` at most.
    pub(crate) fn lead(
        &self,
        core: &mut MutexGuard<'_, Core>,
        patience: Patience,
        limit: Deadline,
    ) {
        core.has_leader = true;
        let has_news = core.floor.pump();
        if core.floor.has_finished() {
            self.chores.notify_one();
        }
        let has_to_tell = self.diary.has_some();
        if !has_news && !has_to_tell && patience != Patience::Now {
            self.rest(core, patience, limit);
        }
        core.has_leader = false;
        self.notify_followers(core);
        if has_to_tell {
            // What listens may use this pool: it finds that nobody leads.
            MutexGuard::unlocked(core, || self.diary.tell());
        } else {
            // Whoever was woken needs the lock, and news may come faster than this thread would ever give it up.
            MutexGuard::bump(core);
        }
    }

    /// Leaves the lead to the pool's thread, if there is anything that it has to lead for.
    fn hand_over(&self, core: &Core, turn: Turn) -> Turn {
        if core.calls > 0 && !core.has_leader {
            self.chores.notify_one();
        } else {
            self.find_keeper(core);
        }
        turn
    }

    pub(crate) fn notify_followers(&self, core: &Core) {
        if core.followers > 0 {
            self.followers.notify_all();
        }
    }

    /// Waits until there is news, or perhaps is: awake if that pays, then asleep.
    fn rest(&self, core: &mut MutexGuard<'_, Core>, patience: Patience, limit: Deadline) {
        core.floor.staff().settle();
        if patience == Patience::Wait && stay_awake(core) {
            return;
        }
        let mut news = std::mem::take(&mut core.news);
        news.clear();
        // The pool's thread has these to complete; whoever else leads has woken it, and gives up the lock by sleeping.
        let has_chores = patience == Patience::Sleep && core.floor.has_finished();
        if !core.floor.announce_sleep() && !has_chores && !core.is_over {
            step!("pool::sleep::announced");
            core.is_asleep = true;
            core.sleeps_until = core.floor.next_wake();
            let deadline = until(core.sleeps_until, limit);
            let watch = &self.watch;
            let start = Instant::now();
            // It fails only where the set itself is gone; then the next round looks again.
            let _ready = MutexGuard::unlocked(core, || watch.wait(&mut news, deadline));
            core.is_asleep = false;
            let slept = start.elapsed();
            core.spin.learn(slept);
            core.crowding.slept(slept);
        }
        core.floor.wake_up();
        step!("pool::sleep::woken");
        for &number in &news {
            if number == WAKE {
                self.wake.clear();
            } else {
                core.floor.staff().hear(number);
            }
        }
        core.news = news;
    }
}

/// Stays awake for news as long as that pays; returns whether it is to be looked for some.
fn stay_awake(core: &mut MutexGuard<'_, Core>) -> bool {
    let Core {
        floor,
        spin,
        crowding,
        ..
    } = &mut **core;
    if floor.keeps_busy(limits::processors()) {
        return false;
    }
    match crowding.advise(floor.company()) {
        Advice::Sleep => return false,
        Advice::Spin => {
            let has_news = floor.spin_for_news(spin);
            if has_news {
                crowding.pays();
            }
            return has_news;
        }
        Advice::SendAway => floor.send_one_away(),
        Advice::Yield => {}
    }
    let start = Instant::now();
    while !core.floor.has_news() {
        if start.elapsed() > TO_ANOTHER_PROCESSOR {
            core.crowding.give_up();
            break;
        }
        // Whoever wants the lock may have it: there may be others at work on this processor, for longer.
        MutexGuard::unlocked(core, thread::yield_now);
    }
    // Others may have changed what this one would sleep for.
    true
}

/// A moment of the monotonic clock, or `limit` if that is sooner.
pub(crate) fn until(moment: Option<u64>, limit: Deadline) -> Deadline {
    match moment {
        None => limit,
        Some(moment) => {
            let left = moment.saturating_sub(clock::monotonic_nanos());
            limit.or_after(Duration::from_nanos(left))
        }
    }
}
