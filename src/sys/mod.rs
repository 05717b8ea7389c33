//! Every system call and every line of `unsafe`, one file for each concern.
//!
//! Each function here is safe to call with any argument: what it needs for that it checks, or its types carry.
//! Layers above never name `libc` or `nix`.
#![allow(
    unsafe_code,
    reason = "the one door: each block has one operation and answers its callee's contract"
)]

pub(crate) mod step;
pub(crate) mod atomic;
pub(crate) mod errno;
pub(crate) mod clock;
pub(crate) mod stack;
pub(crate) mod descriptor;
pub(crate) mod identity;
pub(crate) mod limits;
pub(crate) mod file;
pub(crate) mod known;
pub(crate) mod frozen;
pub(crate) mod shared;
pub(crate) mod futex;
pub(crate) mod held;
pub(crate) mod memory;
pub(crate) mod room;
pub(crate) mod part;
pub(crate) mod robust;
pub(crate) mod named;
pub(crate) mod poll;
pub(crate) mod socket;
pub(crate) mod pidfd;
pub(crate) mod signal;
pub(crate) mod sparse;
pub(crate) mod image;
pub(crate) mod function;
pub(crate) mod forks;
pub(crate) mod life;
pub(crate) mod own;
pub(crate) mod fork;
pub(crate) mod exec;
pub(crate) mod hook;
