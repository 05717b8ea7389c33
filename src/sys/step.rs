//! Steps of the protocols, by name: the places where a test has a process killed. See `tests/death`.
//!
//! `step!("queue::put::published")` stands where a process may die between two things that others see. It is nothing at all,
//! unless the crate is built with `--cfg multiprocess_death`. Then a process that passes it looks at a *board*: a file that
//! the environment names, and that the test writes. What is armed there kills the process that passes it the nth time, by
//! SIGKILL, right there; or stops it, by SIGSTOP, so that others find it in the middle of something.
//!
//! | bytes of a slot, of which a board has [`SLOTS`] | |
//! |---|---|
//! | 0..8 | how many passings are left, the deadly one included; 0: nothing is armed |
//! | 8..16 | whose passings count: 0 for anybody's, a pid for that process's, a pid with the highest bit for all but that one's |
//! | 16..24 | the pid of who died or was stopped by it, or 0 |
//! | 24..32 | how long the name of the step is; with the highest bit, who comes there is stopped |
//! | 32..128 | the name |

#[cfg(multiprocess_death)]
macro_rules! step {
    ($name:literal) => {
        $crate::sys::step::armed::passed($name)
    };
}

#[cfg(not(multiprocess_death))]
macro_rules! step {
    ($name:literal) => {{}};
}

pub(crate) use step;

/// Whether this process is to do as it would on a kernel of 2020, as the environment may say; never, in any other build.
pub(crate) fn is_on_older_kernel() -> bool {
    cfg!(multiprocess_death) && std::env::var_os("MULTIPROCESS_DEATH_OLDER_KERNEL").is_some()
}

#[cfg(multiprocess_death)]
pub(crate) mod armed {
    use memmap2::{MmapOptions, MmapRaw};
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use std::fs::OpenOptions;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// In the environment: the path of the board.
    const BOARD: &str = "MULTIPROCESS_DEATH_BOARD";

    /// How many deaths can be armed at a time.
    const SLOTS: usize = 4;

    const SLOT: usize = 128;
    const NAME: usize = 32;
    const NAME_MAX: usize = SLOT - NAME;
    const ALL_BUT: u64 = 1 << 63;
    const STOPS: u64 = 1 << 63;

    /// This process's view of the board; forks inherit it.
    static MAPPED: OnceLock<Option<MmapRaw>> = OnceLock::new();

    /// Kills this process here, if that is armed.
    pub(crate) fn passed(name: &str) {
        if let Some(board) = MAPPED.get_or_init(open) {
            for slot in 0..SLOTS {
                pass(board, slot * SLOT, name);
            }
        }
    }

    fn open() -> Option<MmapRaw> {
        let path = std::env::var_os(BOARD)?;
        let file = OpenOptions::new().read(true).write(true).open(path).ok()?;
        let board = MmapOptions::new().len(SLOTS * SLOT).map_raw(&file).ok()?;
        (file.metadata().ok()?.len() >= (SLOTS * SLOT) as u64).then_some(board)
    }

    fn word(board: &MmapRaw, at: usize) -> &AtomicU64 {
        assert!(at % 8 == 0 && at < SLOTS * SLOT);
        let at = board.as_mut_ptr().wrapping_add(at).cast::<u64>();
        // SAFETY: the mapping starts at a page and is as long as all slots, so the word is in it and aligned; it stays mapped
        // for good, and every access of it by this crate is by atomics.
        unsafe { AtomicU64::from_ptr(at) }
    }

    fn pass(board: &MmapRaw, slot: usize, name: &str) {
        let left = word(board, slot);
        // Whoever arms stores the count last.
        if left.load(Ordering::Acquire) == 0 || !is_ours(board, slot) || !is_it(board, slot, name) {
            return;
        }
        let one_less = |left: u64| left.checked_sub(1);
        if left.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less) == Ok(1) {
            word(board, slot + 16).store(u64::from(std::process::id()), Ordering::Release);
            if word(board, slot + 24).load(Ordering::Relaxed) & STOPS != 0 {
                let _stopped = kill(Pid::this(), Signal::SIGSTOP);
                return;
            }
            loop {
                let _dead = kill(Pid::this(), Signal::SIGKILL);
            }
        }
    }

    fn is_ours(board: &MmapRaw, slot: usize) -> bool {
        let whose = word(board, slot + 8).load(Ordering::Relaxed);
        let we = u64::from(std::process::id());
        match whose & ALL_BUT {
            0 => whose == 0 || whose == we,
            _ => whose & !ALL_BUT != we,
        }
    }

    fn is_it(board: &MmapRaw, slot: usize, name: &str) -> bool {
        let name = name.as_bytes();
        assert!(name.len() <= NAME_MAX, "the name of a step is too long");
        let len = word(board, slot + 24).load(Ordering::Relaxed);
        len & !STOPS == name.len() as u64
            && name.chunks(8).zip(0..).all(|(part, at)| {
                let mut padded = [0; 8];
                padded[..part.len()].copy_from_slice(part);
                let word = word(board, slot + NAME + 8 * at).load(Ordering::Relaxed);
                word.to_ne_bytes() == padded
            })
    }
}
