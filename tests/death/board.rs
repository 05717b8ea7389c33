//! The board: where it is written who is to die, at which step. `src/sys/step.rs` reads it.

use crate::common::unsafely::set_environment;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::process;
use tempfile::NamedTempFile;

const VARIABLE: &str = "MULTIPROCESS_DEATH_BOARD";
const SLOTS: u64 = 4;
const SLOT: u64 = 128;
const WHOSE: u64 = 8;
const DEAD: u64 = 16;
const LENGTH: u64 = 24;
const NAME: u64 = 32;
const ALL_BUT: u64 = 1 << 63;

/// Makes a board for this process and all that it starts, before any of them passes a step. It is there as long as what this
/// returns.
pub(crate) fn make() -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    file.as_file().set_len(SLOTS * SLOT).unwrap();
    set_environment(VARIABLE, file.path().to_str().unwrap());
    file
}

fn board() -> File {
    let path = std::env::var_os(VARIABLE).unwrap();
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

/// A death to come, or a stop: at which passing of which step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Arm {
    pub(crate) slot: u64,
    pub(crate) step: String,
    pub(crate) nth: u32,
    /// It is stopped there instead.
    pub(crate) stops: bool,
}

impl Arm {
    /// A death beside the one that is tested, at the first passing.
    pub(crate) fn beside(slot: u64, step: &str) -> Arm {
        Arm {
            slot,
            step: step.to_owned(),
            nth: 1,
            stops: false,
        }
    }

    /// A process that is kept in the middle of something.
    pub(crate) fn stop(slot: u64, step: &str) -> Arm {
        Arm {
            stops: true,
            ..Arm::beside(slot, step)
        }
    }

    /// This process will die.
    pub(crate) fn me(&self) {
        self.write(process::id().into());
    }

    /// Whoever comes there will, but for this process.
    pub(crate) fn anyone_else(&self) {
        self.write(u64::from(process::id()) | ALL_BUT);
    }

    fn write(&self, whose: u64) {
        let (board, start) = (board(), self.slot * SLOT);
        let put = |at, word: u64| {
            board.write_all_at(&word.to_ne_bytes(), start + at).unwrap();
        };
        put(0, 0);
        put(WHOSE, whose);
        put(DEAD, 0);
        put(LENGTH, self.step.len() as u64 | u64::from(self.stops) << 63);
        let mut name = self.step.clone().into_bytes();
        name.resize(name.len().next_multiple_of(8), 0);
        board.write_all_at(&name, start + NAME).unwrap();
        put(0, self.nth.into());
    }
}

/// Who died, or was stopped, by what was armed in a slot.
pub(crate) fn dead(slot: u64) -> Option<u32> {
    match word(slot * SLOT + DEAD) {
        0 => None,
        pid => Some(u32::try_from(pid).unwrap()),
    }
}

/// Nobody is to die any more.
pub(crate) fn disarm() {
    let board = board();
    for slot in 0..SLOTS {
        board.write_all_at(&[0; 8], slot * SLOT).unwrap();
    }
}

fn word(at: u64) -> u64 {
    let mut word = [0; 8];
    board().read_exact_at(&mut word, at).unwrap();
    u64::from_ne_bytes(word)
}
