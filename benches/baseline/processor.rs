//! Which processor a process may run on.

/// Binds this process to the `n`th of the processors it may use, or leaves it alone when there is
/// none.
pub(crate) fn stay_on(n: usize) {
    let allowed = allowed();
    if let Some(processor) = processors().filter(|one| has(&allowed, *one)).nth(n) {
        let mut one = none();
        // SAFETY: the number is below the size of the set.
        unsafe { libc::CPU_SET(processor, &mut one) };
        bind(&one);
    }
}

/// Moves this process to any processor of `candidates` but `processor`, or leaves it alone when
/// there is no other.
pub(crate) fn keep_off(processor: usize, candidates: &libc::cpu_set_t) {
    let mut others = *candidates;
    if processors().any(|one| one != processor && has(candidates, one)) {
        // SAFETY: `CPU_CLR` checks the number against the size of the set.
        unsafe { libc::CPU_CLR(processor, &mut others) };
        bind(&others);
    }
}

/// The processor that runs this now.
pub(crate) fn current() -> usize {
    // SAFETY: it has no precondition.
    let processor = unsafe { libc::sched_getcpu() };
    usize::try_from(processor).unwrap_or_default()
}

/// The processors that this process may use.
pub(crate) fn allowed() -> libc::cpu_set_t {
    let mut set = none();
    // SAFETY: `set` is as large as is said, and ours alone.
    unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    set
}

fn processors() -> std::ops::Range<usize> {
    0..libc::CPU_SETSIZE as usize
}

fn has(set: &libc::cpu_set_t, processor: usize) -> bool {
    // SAFETY: `CPU_ISSET` checks the number against the size of the set.
    unsafe { libc::CPU_ISSET(processor, set) }
}

fn none() -> libc::cpu_set_t {
    // SAFETY: a set of processors is plain integers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// If it is refused, nothing has changed.
fn bind(set: &libc::cpu_set_t) {
    // SAFETY: `set` is as large as is said, and is read only.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), set) };
}
