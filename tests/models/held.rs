//! What a thread holds, as the model of the kernel finds it at the thread's death.

use crate::kernel::{Place, me};
use crate::memory::AtomicU64;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;

pub(crate) const HELD_MAX: usize = 2048;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread;

pub(crate) struct Pending<'a> {
    outer: Option<Place>,
    node: PhantomData<&'a AtomicU64>,
}

impl Thread {
    pub(crate) fn current() -> io::Result<Thread> {
        Ok(Thread)
    }
    pub(crate) fn known() -> Option<Thread> {
        Some(Thread)
    }
    pub(crate) fn tid(self) -> u32 {
        me(|me| me.tid)
    }
    pub(crate) fn pend(self, node: &AtomicU64) -> Pending<'_> {
        let outer = me(|me| std::mem::replace(&mut me.pending, node.before.clone()));
        Pending {
            outer,
            node: PhantomData,
        }
    }
    pub(crate) fn has_room(self) -> bool {
        true
    }
    pub(crate) fn link(self, node: &AtomicU64) {
        me(|me| me.held.extend(node.before.clone()));
    }
    pub(crate) fn holds_as_last(self, node: &AtomicU64) -> bool {
        me(|me| me.held.last().is_some_and(|held| is_of(held, node)))
    }
    pub(crate) fn unlink_last(self, node: &AtomicU64) -> bool {
        let is_last = self.holds_as_last(node);
        if is_last {
            me(|me| me.held.pop());
        }
        is_last
    }
    pub(crate) fn unlink(self, node: &AtomicU64) {
        me(|me| me.held.retain(|held| !is_of(held, node)));
    }
    pub(crate) fn holds(self, node: &AtomicU64) -> bool {
        me(|me| me.held.iter().any(|held| is_of(held, node)))
    }
}

fn is_of(held: &Place, node: &AtomicU64) -> bool {
    node.before
        .as_ref()
        .is_some_and(|word| Arc::ptr_eq(word, held))
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        me(|me| me.pending = self.outer.take());
    }
}
