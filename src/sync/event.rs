//! `Event`: something that has happened or has not, in all processes.
//!
//! The upper half of the word counts how often the event was set; of the lower half, which the kernel compares, bit 30 says
//! whether it is set and bit 31 turns each time it is. All three change at once.
//!
//! A waiter notes the count at its start, and goes when it finds the event set, or the count another: so one that slept
//! through [`Event::set`] and [`Event::clear`] goes as well. The kernel lets it sleep only if the event is not set at that
//! moment.
//!
//! | died | who goes on |
//! |---|---|
//! | who set it, before all were woken | the kernel wakes one; whoever goes after a sleep wakes all |
//! | who slept, or was just woken | others were woken as well, or the kernel wakes one, which looks |
//!
//! Whoever sets an event that is set already wakes all as well: the one that set it first may have been stopped just before.

use crate::deadline::Deadline;
use crate::error::Result;
use crate::sync::unowned::Unowned;
use crate::sys::step::step;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

const IS_SET: u64 = 1 << 30;
const TURN: u64 = 1 << 31;

/// Lets threads of any process wait until something has happened.
///
/// Nobody owns it. A process that dies in any of its calls leaves it as it was before or after that call, and leaves
/// nobody waiting.
///
/// Clones, in this process and in others, are the same event.
///
/// # Examples
///
/// ```
/// use multiprocess::{Event, Process};
///
/// let ready = Event::new()?;
/// let process = Process::spawn(ready.clone(), |ready: Event| ready.set())?;
/// ready.wait();
/// assert!(ready.is_set());
/// process.join()?;
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Clone, Serialize, Deserialize)]
pub struct Event {
    word: Unowned,
}

impl Event {
    /// Makes an event that is not set.
    ///
    /// # Errors
    ///
    /// Where the system has no memory or no descriptor left.
    ///
    /// # Examples
    ///
    /// ```
    /// let event = multiprocess::Event::new()?;
    /// assert!(!event.is_set());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn new() -> Result<Event> {
        Ok(Event {
            word: Unowned::new("shared event")?,
        })
    }

    /// Sets it, and wakes all who wait. Never blocks.
    ///
    /// # Examples
    ///
    /// ```
    /// let event = multiprocess::Event::new()?;
    /// event.set();
    /// assert!(event.is_set());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn set(&self) {
        let _covered = self.word.cover();
        step!("event::set::covered");
        let set = |now| match now & IS_SET {
            0 => Some(state(count(now).wrapping_add(1), now & TURN ^ TURN, IS_SET)),
            _ => None,
        };
        let _was_set = self.word.state().fetch_update(SeqCst, SeqCst, set);
        step!("event::set::set");
        self.word.wake(i32::MAX);
        step!("event::set::woken");
    }

    /// Makes it unset, for those who wait from now on. Never blocks.
    ///
    /// # Examples
    ///
    /// ```
    /// let event = multiprocess::Event::new()?;
    /// event.set();
    /// event.clear();
    /// assert!(!event.is_set());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    pub fn clear(&self) {
        self.word.state().fetch_and(!IS_SET, SeqCst);
        step!("event::clear::cleared");
    }

    /// Returns whether it is set.
    ///
    /// # Examples
    ///
    /// ```
    /// let event = multiprocess::Event::new()?;
    /// let clone = event.clone();
    /// clone.set();
    /// assert!(event.is_set());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    #[inline]
    pub fn is_set(&self) -> bool {
        self.word.state().load(SeqCst) & IS_SET != 0
    }

    /// Blocks until it is set; returns at once if it is.
    ///
    /// # Examples
    ///
    /// ```
    /// let event = multiprocess::Event::new()?;
    /// let clone = event.clone();
    /// let thread = std::thread::spawn(move || clone.set());
    /// event.wait();
    /// assert!(event.is_set());
    /// thread.join().unwrap();
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    #[inline]
    pub fn wait(&self) {
        if !self.is_set() {
            self.wait_asleep(Deadline::NEVER);
        }
    }

    /// Blocks until it is set, but for no longer than `limit`. Returns whether it was set.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let event = multiprocess::Event::new()?;
    /// assert!(!event.wait_timeout(Duration::from_millis(1)));
    /// event.set();
    /// assert!(event.wait_timeout(Duration::ZERO));
    /// event.clear();
    /// assert!(!event.is_set());
    /// # Ok::<(), multiprocess::Error>(())
    /// ```
    #[inline]
    pub fn wait_timeout(&self, limit: Duration) -> bool {
        self.is_set() || self.wait_asleep(Deadline::after(limit))
    }

    #[cold]
    fn wait_asleep(&self, deadline: Deadline) -> bool {
        let _covered = self.word.cover();
        step!("event::wait::covered");
        let start = self.word.state().load(SeqCst);
        let (mut now, mut is_in_time) = (start, true);
        loop {
            if now & IS_SET != 0 || count(now) != count(start) {
                // Perhaps the kernel has woken this one alone, since who set it has died.
                self.word.wake(i32::MAX);
                return true;
            }
            if !is_in_time {
                return false;
            }
            is_in_time = self.word.sleep(now, deadline);
            step!("event::wait::woken");
            now = self.word.state().load(SeqCst);
        }
    }
}

fn count(state: u64) -> u64 {
    state >> 32
}

/// The word, with nothing else in its lower half: another process may have written anything.
fn state(count: u64, turn: u64, is_set: u64) -> u64 {
    count << 32 | turn | is_set
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("is_set", &self.is_set())
            .finish()
    }
}
