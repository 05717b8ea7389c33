//! Where a test and the processes of its pool meet without sleeping: lines said through a named pipe, gates that
//! block until they are opened, and a log of what ran.

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The test's ear: other processes [`say`] lines, it hears them in order.
pub(crate) struct Ear {
    directory: TempDir,
    lines: BufReader<File>,
}

impl Ear {
    pub(crate) fn new() -> Ear {
        let (directory, both_ends) = named_pipe();
        Ear {
            directory,
            lines: BufReader::new(both_ends),
        }
    }

    /// Where to say something.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("pipe")
    }

    /// Blocks until a line was said.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Blocks until a number was said.
    pub(crate) fn hear_number(&mut self) -> u32 {
        self.hear().parse().unwrap()
    }
}

/// Says a line, from any process.
pub(crate) fn say(path: &Path, line: impl Display) {
    // One write of less than PIPE_BUF bytes is never torn.
    let line = format!("{line}\n");
    OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .write_all(line.as_bytes())
        .unwrap();
}

/// Blocks whoever wants to [`pass`] until the test lets it through.
pub(crate) struct Gate {
    directory: TempDir,
    both_ends: File,
}

impl Gate {
    pub(crate) fn new() -> Gate {
        let (directory, both_ends) = named_pipe();
        Gate {
            directory,
            both_ends,
        }
    }

    /// What to pass.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("pipe")
    }

    /// Lets this many through, now or when they come.
    pub(crate) fn let_through(&self, count: usize) {
        (&self.both_ends).write_all(&vec![0; count]).unwrap();
    }
}

/// Blocks until the test lets this process through, or has ended.
pub(crate) fn pass(path: &Path) {
    let _ = File::open(path).unwrap().read_exact(&mut [0]);
}

/// A log to which any process appends.
pub(crate) struct Log {
    directory: TempDir,
}

impl Log {
    pub(crate) fn new() -> Log {
        Log {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// How often each of the first `count` items was noted.
    pub(crate) fn notes(&self, count: usize) -> Vec<usize> {
        let mut notes = vec![0; count];
        for line in fs::read_to_string(self.path()).unwrap_or_default().lines() {
            notes[line.parse::<usize>().unwrap()] += 1;
        }
        notes
    }
}

/// Notes, from any process, that an item runs.
pub(crate) fn note(path: &Path, item: impl Display) {
    let mut log = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    log.write_all(format!("{item}\n").as_bytes()).unwrap();
}

/// A named pipe, opened for both directions: it neither blocks on opening nor ever ends while the test holds it.
fn named_pipe() -> (TempDir, File) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
    let both_ends = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    (directory, both_ends)
}
