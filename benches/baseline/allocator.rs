//! Takes the allocator's part out of the benches that move large items.

/// Lets the C library keep what is freed, so that making 8 MiB items again costs no page faults and
/// dropping them no unmapping: neither is what a pool can be good or bad at.
///
/// To be called before other threads run.
pub(crate) fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    for (what, bytes) in [
        (libc::M_MMAP_THRESHOLD, 32 << 20),
        (libc::M_TRIM_THRESHOLD, i32::MAX),
    ] {
        // SAFETY: both options take a number of bytes.
        unsafe { libc::mallopt(what, bytes) };
    }
}
