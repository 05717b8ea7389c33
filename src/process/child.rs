//! A process that this one has had started: its pidfd, and the socket over which its news come.
//!
//! Its pidfd says that it has ended. How it ended is known a moment later, by one of two ways:
//!
//! | the kernel | how it ended is known | what if |
//! |---|---|---|
//! | is 6.15 or newer, and the fork server has started it | from the pidfd, as soon as the process was collected: the kernel does so at once | the server is killed: an heir collects it, in time, or nobody does, and that is said |
//! | is older, or the process was forked here | from the status socket, on which the server or the minder reports | the teller is killed: nobody knows, and that is said |
//!
//! Whoever waits by the second way waits for the status socket and the pidfd at once. If the teller has been stopped, whoever
//! needs it has it go on.

use crate::deadline::Deadline;
use crate::error::{Error, Result, TaskError, TaskErrorKind};
use crate::process::family;
use crate::process::ledger::Taken;
use crate::process::request::{EndIs, Hello, News, Role};
use crate::sys::pidfd::PidFd;
use crate::sys::poll::{collected, collected_or_readable, readable};
use crate::sys::socket::{self, Patience};
use crate::sys::step::step;
use crate::sys::{fork, identity, limits};
use crate::task::Arrived;
use crate::wire::record;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

/// A process that is being started.
#[derive(Debug)]
pub(crate) struct Starting {
    name: String,
    status: OwnedFd,
    /// Who tells of it: the fork server, or a minder of its own.
    teller: Teller,
    /// Makes room for the pidfd that is to come: a process that cannot be held must not have been started.
    spare: Option<OwnedFd>,
}

/// Who tells of a process.
#[derive(Clone, Debug)]
pub(crate) enum Teller {
    Server {
        process: Arc<PidFd>,
        requests: Arc<OwnedFd>,
        /// Whether it has taken the request of this number in.
        taken: Arc<Taken>,
        number: u64,
        /// By which place in the family it knows the process.
        path: Vec<u64>,
    },
    Minder(Arc<PidFd>),
}

impl Teller {
    fn process(&self) -> &PidFd {
        match self {
            Teller::Server { process, .. } | Teller::Minder(process) => process,
        }
    }

    /// Why there is no process, where it died before it told of one.
    fn died_over(&self, operation: String) -> NotStarted {
        let ended = self.process().exit_status();
        let how = ended.map_or(String::new(), |status| format!(" ({status})"));
        match self {
            // Nothing was started for it, and nothing will be.
            Teller::Server { taken, number, .. } if !taken.has(*number) => {
                let why = format!("the fork server died{how} before it took the request in");
                NotStarted::ServerDied(Error::refused(operation, why))
            }
            Teller::Server { .. } => {
                let why = format!("the fork server died over it{how}; the process may have begun");
                NotStarted::Refused(Error::refused(operation, why))
            }
            Teller::Minder(_) => {
                let why = format!("its minder died over it{how}; the process may have begun");
                NotStarted::Refused(Error::refused(operation, why))
            }
        }
    }

    /// Nothing more is expected.
    fn dismiss(&self) {
        if let Teller::Minder(minder) = self {
            family::bury_minder(minder);
        }
    }

    /// The process is not to run, since it cannot be held here.
    fn withdraw(&self, status: &OwnedFd) {
        match self {
            Teller::Server { requests, path, .. } => {
                let hello = Hello::new([0; 16], Role::Withdrawn { path: path.clone() });
                let _gone = record::send(requests.as_fd(), &hello, &[], &[], Patience::Wait);
            }
            // This takes no memory, which may be what is lacking.
            Teller::Minder(minder) => {
                socket::end_sending(status.as_fd());
                let _ended = minder.resume();
            }
        }
    }
}

/// Why there is no process.
#[derive(Debug)]
pub(crate) enum NotStarted {
    /// The server died before it took the request in: nothing was started, and it can be asked for again.
    ServerDied(Error),
    Refused(Error),
}

impl From<NotStarted> for Error {
    fn from(error: NotStarted) -> Error {
        match error {
            NotStarted::ServerDied(error) | NotStarted::Refused(error) => error,
        }
    }
}

/// How often a process is asked for, where servers die over it.
pub(crate) const TRIES: usize = 3;

/// A process that runs, or has ended.
#[derive(Debug)]
pub(crate) struct Child {
    /// Who has started it: a process that is forked from that one later must not take its news away.
    owner: u32,
    pid: u32,
    process: Arc<PidFd>,
    status: OwnedFd,
    teller: Teller,
    end_is: EndIs,
    returned: Option<Arrived>,
    /// How many records came that are no news.
    nonsense: usize,
    end: End,
}

/// How many records that are no news are taken from one process. It can write into the socket of its own news: one that does
/// not stop is heard no more, and only the kernel says when it ends.
const NONSENSE_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Running,
    Exited(ExitStatus),
    /// It has ended, and nobody is left who knows how.
    Lost,
}

/// How long the news of an end that the kernel has shown already are waited for, before it is seen to that they come.
const PATIENCE: Duration = Duration::from_secs(1);

impl Starting {
    pub(crate) fn by_server(
        name: String,
        status: OwnedFd,
        teller: Teller,
        spare: OwnedFd,
    ) -> Starting {
        Starting {
            name,
            status,
            teller,
            spare: Some(spare),
        }
    }

    pub(crate) fn by_minder(
        name: String,
        status: OwnedFd,
        minder: Arc<PidFd>,
        spare: OwnedFd,
    ) -> Starting {
        Starting {
            name,
            status,
            teller: Teller::Minder(minder),
            spare: Some(spare),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Waits until the process runs.
    ///
    /// # Errors
    ///
    /// Where it could not be started, or the server died over it.
    pub(crate) fn wait(mut self) -> Result<Child, NotStarted> {
        let result = self.wait_for_news();
        match &result {
            Ok(_) => {}
            Err(NotStarted::ServerDied(_)) => self.teller.dismiss(),
            Err(NotStarted::Refused(_)) => {
                self.teller.withdraw(&self.status);
                self.teller.dismiss();
            }
        }
        let (pid, process, end_is, returned) = result?;
        step!("launcher::started::told");
        match &self.teller {
            Teller::Server { .. } => family::note(&self.name, pid, &process),
            Teller::Minder(minder) => family::note_minded(minder, pid),
        }
        Ok(Child {
            owner: identity::pid(),
            pid,
            process,
            status: self.status,
            teller: self.teller,
            end_is,
            returned,
            nonsense: 0,
            end: End::Running,
        })
    }

    fn wait_for_news(&mut self) -> Result<(u32, Arc<PidFd>, EndIs, Option<Arrived>), NotStarted> {
        let operation = || format!("cannot start process {:?}", self.name);
        let mut returned = None;
        self.wait_until_told(&operation)?;
        self.spare = None;
        let mut nonsense = 0;
        loop {
            if nonsense > NONSENSE_MAX {
                let why = "it fills the socket of its news";
                return Err(NotStarted::Refused(Error::refused(operation(), why)));
            }
            match record::receive::<News>(self.status.as_fd(), Patience::Now) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The process itself can write there already; what is no news of the server's is passed over.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    nonsense += 1;
                    continue;
                }
                Err(error) => {
                    let limit = limits::behind(&error);
                    let error = Error::limit(operation(), error, limit);
                    return Err(NotStarted::Refused(error));
                }
                Ok(None) => return Err(self.teller.died_over(operation())),
                Ok(Some(mut news)) => match (news.head, news.descriptors.pop()) {
                    // A process that is quick may have returned before the server tells of it.
                    (News::Returned(result), last) => {
                        news.descriptors.extend(last);
                        let came = (news.payload, news.descriptors);
                        nonsense += usize::from(returned.is_some());
                        returned = Some(Arrived(result.map(|()| came)));
                        continue;
                    }
                    (News::Started { pid, end }, Some(process)) => {
                        return Ok((pid, Arc::new(PidFd::adopt(process)), end, returned));
                    }
                    (News::Refused { what, errno, limit }, _) => {
                        let error = io::Error::from_raw_os_error(errno);
                        let operation = format!("{}: {what}", operation());
                        return Err(NotStarted::Refused(Error::limit(operation, error, limit)));
                    }
                    (News::Exited { .. }, _) => {
                        return Err(NotStarted::Refused(Error::refused(
                            operation(),
                            "it wrote into the socket of the fork server's news, and was killed",
                        )));
                    }
                    _ => {
                        return Err(NotStarted::Refused(Error::refused(
                            operation(),
                            "the fork server talks nonsense",
                        )));
                    }
                },
            }
            self.wait_until_told(&operation)?;
        }
    }

    /// Blocks until there are news, or nobody is left to send any.
    fn wait_until_told(&self, operation: &impl Fn() -> String) -> Result<(), NotStarted> {
        loop {
            let teller = self.teller.process();
            let waited_for = [self.status.as_fd(), teller.as_fd()];
            let [news, has_ended] = readable(waited_for, Deadline::after(PATIENCE))
                .map_err(|error| NotStarted::Refused(Error::io(operation(), error)))?;
            if news {
                return Ok(());
            }
            if has_ended {
                // What it had forked a moment ago may hold its sockets a little longer. When these close, and the request
                // in them is gone unread, so does the status socket: nothing was started.
                let patience = Deadline::after(PATIENCE);
                if readable([self.status.as_fd()], patience).is_ok_and(|[news]| news) {
                    return Ok(());
                }
                return Err(self.teller.died_over(operation()));
            }
            // Should somebody have stopped it: it is needed.
            let _ended = teller.resume();
        }
    }
}

impl Child {
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn process(&self) -> &Arc<PidFd> {
        &self.process
    }

    /// Whether it has ended, whatever is known of how.
    pub(crate) fn has_ended(&self) -> bool {
        let now = Deadline::after(Duration::ZERO);
        readable([self.process.as_fd()], now).is_ok_and(|[ended]| ended)
    }

    /// Waits until it has ended, and how is known, or `deadline` passes; returns whether it has. Takes in what it returns
    /// meanwhile.
    pub(crate) fn wait(&mut self, deadline: Deadline) -> io::Result<bool> {
        if self.end == End::Running {
            let is_ours = self.owner == identity::pid();
            let has_ended = if self.end_is == EndIs::Kept && is_ours {
                self.wait_for_kernel(deadline)?
            } else {
                self.wait_for_news(deadline)?
            };
            if has_ended {
                self.teller.dismiss();
            }
            return Ok(has_ended);
        }
        Ok(true)
    }

    /// Waits until it has ended, and takes in what it has sent: all that it ever does is there then.
    fn wait_for_kernel(&mut self, deadline: Deadline) -> io::Result<bool> {
        let [has_ended] = readable([self.process.as_fd()], deadline)?;
        if !has_ended {
            return Ok(false);
        }
        let mut status = self.process.exit_status();
        if status.is_none() {
            if !self.wait_until_collected(deadline)? {
                return Ok(false);
            }
            status = self.process.exit_status();
        }
        self.end = status.map_or(End::Lost, End::Exited);
        if self.returned.is_none() {
            self.take_news()?;
        }
        Ok(true)
    }

    /// Waits until it, which has ended, was collected, or nobody is left to do so; returns whether that is so.
    fn wait_until_collected(&self, deadline: Deadline) -> io::Result<bool> {
        let process = self.process.as_fd();
        loop {
            let server = self.teller.process();
            let patience = deadline.or_after(PATIENCE);
            match collected_or_readable(process, server.as_fd(), patience)? {
                [true, _] => return Ok(true),
                [false, true] => break,
                [false, false] if deadline.has_passed() => return Ok(false),
                // It has been stopped while it started another: it is needed.
                [false, false] => drop(server.resume()),
            }
        }
        // The server is gone. Where this process adopts orphans, it is the heir.
        fork::reap(&self.process);
        let is_collected = collected(process, deadline.or_after(PATIENCE))?;
        Ok(is_collected || !deadline.has_passed())
    }

    fn wait_for_news(&mut self, deadline: Deadline) -> io::Result<bool> {
        // The news of its end are for the process that has started it.
        let mut is_closed = self.owner != identity::pid();
        let mut has_ended = false;
        loop {
            is_closed = is_closed || self.take_news()?;
            if self.end != End::Running {
                return Ok(true);
            }
            if is_closed {
                // Nobody will report: the kernel alone says when it ends.
                let [ended] = readable([self.process.as_fd()], deadline)?;
                if ended {
                    self.end = End::Lost;
                }
                return Ok(ended);
            }
            if has_ended {
                let teller = self.teller.process();
                let waited_for = [self.status.as_fd(), teller.as_fd()];
                let [news, is_gone] = readable(waited_for, deadline.or_after(PATIENCE))?;
                if is_gone && !news {
                    self.end = End::Lost;
                } else if deadline.has_passed() {
                    return Ok(false);
                } else if !news {
                    // Should somebody have stopped it: it is needed.
                    let _ended = teller.resume();
                }
            } else {
                let [news, ended] =
                    readable([self.status.as_fd(), self.process.as_fd()], deadline)?;
                has_ended = ended;
                if !news && !ended {
                    return Ok(false);
                }
            }
        }
    }

    /// Learns how it ended, if it has: that is told a moment after the kernel shows it.
    pub(crate) fn look(&mut self) {
        if self.has_ended() {
            let _unknown = self.wait(Deadline::after(PATIENCE));
        }
    }

    /// Its exit status, if it has ended and the status is known.
    pub(crate) fn exit_status(&self) -> Option<ExitStatus> {
        match self.end {
            End::Exited(status) => Some(status),
            End::Running | End::Lost => None,
        }
    }

    /// Whether its function came to nothing, once it has ended.
    pub(crate) fn has_failed(&self) -> bool {
        !matches!(&self.returned, Some(Arrived(Ok(_))))
    }

    /// What its function came to, once it has ended.
    pub(crate) fn into_arrived(self) -> Arrived {
        let pid = self.pid;
        match (self.returned, self.end) {
            (Some(Arrived(result)), _) => Arrived(result.map_err(|error| error.in_process(pid))),
            (None, End::Exited(status)) => {
                Arrived(Err(TaskError::crash(Some(status)).in_process(pid)))
            }
            (None, End::Running | End::Lost) => {
                Arrived(Err(TaskError::crash(None).in_process(pid)))
            }
        }
    }

    /// Takes in the news that are there; returns whether no more can come, or are listened to.
    fn take_news(&mut self) -> io::Result<bool> {
        use io::ErrorKind::{ConnectionReset, InvalidData, WouldBlock};
        while self.nonsense <= NONSENSE_MAX {
            match record::receive::<News>(self.status.as_fd(), Patience::Now) {
                Err(error) if error.kind() == WouldBlock => return Ok(false),
                Err(error) if error.kind() == ConnectionReset => return Ok(true),
                // The process itself can write there; what is no news of the server's is passed over.
                Err(error) if error.kind() == InvalidData => self.nonsense += 1,
                // The record is gone. That of a result is the only one that needs descriptors or much memory.
                Err(error) => {
                    self.nonsense += 1;
                    if self.returned.is_none() {
                        self.returned = Some(lost_result(&error));
                    }
                }
                Ok(None) => return Ok(true),
                Ok(Some(news)) => match news.head {
                    News::Returned(result) => {
                        let came = (news.payload, news.descriptors);
                        self.nonsense += usize::from(self.returned.is_some());
                        self.returned = Some(Arrived(result.map(|()| came)));
                        if self.end_is == EndIs::Kept {
                            // Nothing else is expected.
                            return Ok(true);
                        }
                    }
                    News::Exited { status } if self.end_is == EndIs::Told => {
                        self.end = End::Exited(ExitStatus::from_raw(status));
                        return Ok(true);
                    }
                    News::Started { .. } | News::Refused { .. } | News::Exited { .. } => {
                        self.nonsense += 1;
                    }
                },
            }
        }
        Ok(true)
    }
}

/// What is known of a result that came and could not be taken in.
fn lost_result(error: &io::Error) -> Arrived {
    let limit = limits::behind(error).map_or(String::new(), |limit| format!(" ({limit})"));
    let why = format!("its result could not be received: {error}{limit}");
    Arrived(Err(TaskError::new(TaskErrorKind::System, why)))
}
