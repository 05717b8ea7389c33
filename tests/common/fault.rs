//! Rows of the fault table, measured: how long after a fault somebody is told of it, and until all workers of the pool
//! serve again, whoever replaced the one that failed among them.
//!
//! A row is a test made by [`fault_row`], which fails when the row does not measure both:
//!
//! | who | calls | which |
//! |---|---|---|
//! | whoever is about to fail, in whichever process | [`strike`], [`strike_at`], [`strike_in`], [`Aim`] | writes down the moment |
//! | the test, when it has the error, or the answer where there is none | [`told`], [`watch`], [`answered`] | takes the first time |
//! | the test, when all serve again | `assert_serves`, [`over`] | takes the second time |
//!
//! Both are printed when the row has passed.

use super::alone;
use super::unsafely::monotonic_nanos;
use multiprocess::{Pool, StartMethod, TaskError};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// What is asked for is 100 ms; a machine that is busy with other tests may take longer.
const TOLD_LIMIT: Duration = Duration::from_secs(10);

thread_local! {
    /// The row that this thread runs.
    static ROW: RefCell<Option<Row>> = const { RefCell::new(None) };
}

struct Row {
    name: &'static str,
    method: StartMethod,
    /// Faults that were noted on this thread.
    strikes: Vec<Strike>,
    /// The last fault of which somebody was told, and after which not all have served yet.
    struck: Option<u64>,
    firsts: Times,
    seconds: Times,
}

/// How long something took, each time.
#[derive(Default)]
struct Times {
    what: &'static str,
    nanos: Vec<i128>,
}

/// A fault: whom it befalls, and when.
#[derive(Clone, Copy)]
struct Strike {
    pid: u32,
    at: u64,
}

/// Makes `name::fork_server` and `name::spawn` of one row, each in a process of its own: see `each_method_alone`.
macro_rules! fault_row {
    ($name:ident, |$method:ident| $body:block) => {
        crate::common::fault::fault_row!($name, crate::common::LIMIT, |$method| $body);
    };
    ($name:ident, $limit:expr, |$method:ident| $body:block) => {
        crate::common::each_method_alone!($name, $limit, |$method| {
            crate::common::fault::row(stringify!($name), $method, || $body);
        });
    };
}
pub(crate) use fault_row;

/// As [`fault_row`], with `name::fork` as well, and in no process of its own: see `every_method`.
macro_rules! every_fault_row {
    ($name:ident, |$method:ident| $body:block) => {
        crate::common::every_method!($name, |$method| {
            crate::common::fault::row(stringify!($name), $method, || $body);
        });
    };
}
pub(crate) use every_fault_row;

/// Runs a row, and fails when there was a fault of which either time was not taken.
pub(crate) fn row(name: &'static str, method: StartMethod, body: impl FnOnce()) {
    let row = Row {
        name,
        method,
        strikes: Vec::new(),
        struck: None,
        firsts: Times::default(),
        seconds: Times::default(),
    };
    ROW.set(Some(row));
    body();
    let row = ROW.take().unwrap();
    assert!(
        row.struck.is_none(),
        "told of a fault, and no service after it"
    );
    assert!(!row.seconds.nanos.is_empty(), "neither time was measured");
    let (name, method) = (row.name.replace('_', " "), row.method);
    println!(
        "fault row {name:?} ({method:?}): {}, {}",
        row.firsts, row.seconds
    );
}

impl Times {
    fn take(&mut self, what: &'static str, struck: u64, now: u64) {
        let late = i128::from(now) - i128::from(struck);
        let limit = i128::try_from(TOLD_LIMIT.as_nanos()).unwrap();
        assert!(late < limit, "{what} after {} ms", millis(late));
        if self.what.is_empty() {
            self.what = what;
        }
        self.nanos.push(late);
    }
}

impl Display for Times {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut nanos = self.nanos.clone();
        nanos.sort_unstable();
        let (middle, last) = (nanos[nanos.len() / 2], nanos[nanos.len() - 1]);
        write!(f, "{} after {} ms", self.what, millis(middle))?;
        match nanos.len() {
            1 => Ok(()),
            count => write!(f, " (the middle of {count}, at most {})", millis(last)),
        }
    }
}

/// A fault befalls this process now.
pub(crate) fn strike() {
    strike_at(std::process::id());
}

/// A fault befalls that process now.
pub(crate) fn strike_at(pid: u32) {
    let at = monotonic_nanos();
    note(Strike { pid, at });
}

/// Where a process of its own notes a fault, opened beforehand: whatever is to be hit goes on while a file is opened.
pub(crate) struct Aim(Option<File>);

impl Aim {
    pub(crate) fn take() -> Aim {
        Aim(place().map(open))
    }

    /// As [`strike`].
    pub(crate) fn strike(&mut self) {
        let at = monotonic_nanos();
        let pid = std::process::id();
        if let Some(log) = &mut self.0 {
            write(log, Strike { pid, at });
        }
    }
}

/// This process has so much time left, and then it is a fault.
pub(crate) fn strike_in(limit: Duration) {
    let at = monotonic_nanos() + u64::try_from(limit.as_nanos()).unwrap();
    let pid = std::process::id();
    note(Strike { pid, at });
}

/// Where faults stand, in a test that runs in a process of its own; all its processes know the place.
fn place() -> Option<PathBuf> {
    let mark = alone::mark()?;
    Some(std::env::temp_dir().join(format!("multiprocess-fault-{mark}")))
}

fn note(strike: Strike) {
    let is_noted = with_row(|row| row.strikes.push(strike)).is_some();
    if is_noted {
        return;
    }
    if let Some(place) = place() {
        write(&mut open(place), strike);
    }
}

fn open(place: PathBuf) -> File {
    let mut options = OpenOptions::new();
    options.append(true).create(true).open(place).unwrap()
}

fn write(log: &mut File, strike: Strike) {
    let bytes = [u64::from(strike.pid), strike.at].map(u64::to_le_bytes);
    log.write_all(bytes.as_flattened()).unwrap();
}

fn with_row<T>(act: impl FnOnce(&mut Row) -> T) -> Option<T> {
    ROW.with_borrow_mut(|row| row.as_mut().map(act))
}

/// All faults since all served last.
fn strikes(row: &Row) -> Vec<Strike> {
    let noted = place().and_then(|place| fs::read(place).ok());
    let noted = noted.unwrap_or_default();
    let mut all = row.strikes.clone();
    for record in noted.chunks_exact(16) {
        let (pid, at) = record.split_at(8);
        let [pid, at] = [pid, at].map(|word| u64::from_le_bytes(word.try_into().unwrap()));
        let pid = u32::try_from(pid).unwrap();
        all.push(Strike { pid, at });
    }
    all
}

/// An error is told now: of the last fault in its process, or else of the last one that there was.
pub(crate) fn told(error: &TaskError) {
    take_first("error", error.pid());
}

/// As [`told`], of results as they come.
pub(crate) fn watch<R>(result: &Result<R, TaskError>) {
    if let Err(error) = result {
        told(error);
    }
}

/// What was asked for is there, in spite of the last fault.
pub(crate) fn answered(what: &'static str) {
    take_first(what, None);
}

fn take_first(what: &'static str, pid: Option<u32>) {
    let now = monotonic_nanos();
    with_row(|row| {
        let all = strikes(row);
        let theirs = all.iter().filter(|strike| Some(strike.pid) == pid);
        let latest = theirs.map(|strike| strike.at).max();
        let latest = latest.or(all.iter().map(|strike| strike.at).max());
        let struck = latest.expect("whoever fails says so before: `fault::strike`");
        row.firsts.take(what, struck, now);
        row.struck = row.struck.max(Some(struck));
    });
}

/// Has each worker of the pool answer, if a fault was told of: then all serve again.
pub(crate) fn served(pool: &Pool) {
    if with_row(|row| row.struck.is_some()) != Some(true) {
        return;
    }
    let mut answered = BTreeSet::new();
    while answered.len() < pool.workers() {
        let calls = [(); 8].map(|()| pool.apply_async((), |()| std::process::id()));
        answered.extend(calls.into_iter().map(|call| call.get().unwrap()));
    }
    over("all workers serve");
}

/// All is well again after the last fault that was told of.
pub(crate) fn over(what: &'static str) {
    let now = monotonic_nanos();
    with_row(|row| {
        let struck = row.struck.take().expect("somebody is told before");
        row.seconds.take(what, struck, now);
        row.strikes.clear();
    });
    forget();
}

fn millis(nanos: i128) -> String {
    format!("{:.2}", nanos as f64 / 1e6)
}

/// Leaves nothing behind.
pub(crate) fn forget() {
    if let Some(place) = place() {
        let _none = fs::remove_file(place);
    }
}
