//! The monotonic clock as a number: the same in every process, so that one can tell another when something happened.

use nix::errno::Errno;

/// Nanoseconds of the monotonic clock.
pub(crate) fn monotonic_nanos() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `clock_gettime` writes one `timespec` to where it is told, and this is one.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    // This clock exists on every Linux, and the place is good: nothing is left that could fail.
    debug_assert!(Errno::result(result).is_ok());
    (time.tv_sec as u64)
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec as u64)
}

#[cfg(test)]
mod tests {
    use super::monotonic_nanos;

    #[test]
    fn it_never_goes_back() {
        let first = monotonic_nanos();
        assert!(first > 0 && monotonic_nanos() >= first);
    }
}
