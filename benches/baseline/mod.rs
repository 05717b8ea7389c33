//! What the benches compare with: the same work done with bare system calls, as near to the limit
//! of the machine as they go.
//!
//! A baseline lives in processes of its own, forked from the bench. They touch nothing but the
//! memory and the socket that they share with it, close every other descriptor (or a pool that ends
//! would not be seen to end), sleep when nothing is measured, die with the bench, and are reaped
//! when the baseline is dropped.

#![allow(dead_code, reason = "each bench uses its part")]
#![allow(unsafe_code, reason = "the baselines are bare system calls")]

pub(crate) mod allocator;
pub(crate) mod child;
pub(crate) mod futex;
pub(crate) mod ideal;
pub(crate) mod mutex;
pub(crate) mod ourselves;
pub(crate) mod passing;
pub(crate) mod ping;
pub(crate) mod processor;
pub(crate) mod ring;
pub(crate) mod shared;
pub(crate) mod socket;
pub(crate) mod trace;
pub(crate) mod work;
