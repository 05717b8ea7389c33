//! A process that this one has had started: its pidfd, and the socket over which its news come.
//!
//! Its pidfd says that it has ended. How it ended is known a moment later, by one of two ways:
//!
//! | the kernel | how it ended is known | what if |
//! |---|---|---|
//! | is 6.15 or newer, and the fork server has started it | from the pidfd, as soon as the process was collected: the kernel does so at once | the server is killed: an heir collects it, in time, or nobody does, and that is said |
//! | is older, or the process was forked here | from the status socket, on which the server or the minder reports | the teller is killed: nobody knows, and that is said |
//!
//! Who joins it waits for its end alone, where what its function came to is there.
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
use crate::sys::socket::{self, Patience, is_gone};
use crate::sys::step::step;
use crate::sys::{fork, identity, limits};
use crate::task::Arrived;
use crate::wire::record;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
        /// Set where the request may have been lost, with what it told the server of.
        is_unsure: Arc<AtomicBool>,
    },
    /// The process itself, which was forked ahead of need; the fork server is its parent.
    Spare {
        pid: u32,
        process: Arc<PidFd>,
        server: Arc<PidFd>,
    },
    Minder(Arc<PidFd>),
}

impl Teller {
    /// Who tells of its start.
    fn process(&self) -> &PidFd {
        match self {
            Teller::Server { process, .. }
            | Teller::Spare { process, .. }
            | Teller::Minder(process) => process,
        }
    }

    /// The process itself, where it tells of its own start.
    fn spare(&self) -> Option<(u32, Arc<PidFd>)> {
        match self {
            Teller::Spare { pid, process, .. } => Some((*pid, Arc::clone(process))),
            Teller::Server { .. } | Teller::Minder(_) => None,
        }
    }

    /// Who is its parent to the kernel.
    fn parent(&self) -> &PidFd {
        match self {
            Teller::Server { process, .. } | Teller::Minder(process) => process,
            Teller::Spare { server, .. } => server,
        }
    }

    /// Why there is no process, where it died before it told of one.
    fn died_over(&self, operation: String) -> NotStarted {
        let ended = self.process().exit_status();
        let how = ended.map_or(String::new(), |status| format!(" ({status})"));
        match self {
            // Nothing was started for it, and nothing will be.
            Teller::Server { taken, number, .. } if !taken.has(*number) => {
                let why = format!("the fork server did not take the request in{how}");
                NotStarted::Unbegun(Error::refused(operation, why))
            }
            Teller::Server { .. } => {
                let why = format!("the fork server died over it{how}; the process may have begun");
                NotStarted::Refused(Error::refused(operation, why))
            }
            Teller::Spare { .. } => {
                let why = format!("it ended{how} before it took the request in");
                NotStarted::Unbegun(Error::refused(operation, why))
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
            Teller::Spare { process, .. } => drop(process.kill()),
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
    /// The server, or the spare, died before it took the request in, or could not: nothing was started, and it can be asked for
    /// again.
    Unbegun(Error),
    Refused(Error),
}

impl From<NotStarted> for Error {
    fn from(error: NotStarted) -> Error {
        match error {
            NotStarted::Unbegun(error) | NotStarted::Refused(error) => error,
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

/// How long whoever adopts orphans is given to collect one. An init takes less than a millisecond, but in some containers
/// there is none that does, and a pool of which the server was killed would wait for each of its workers.
const PATIENCE_WITH_HEIRS: Duration = Duration::from_millis(100);

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

    /// A spare was given the request over what is now its status socket.
    pub(crate) fn by_spare(name: String, status: OwnedFd, teller: Teller) -> Starting {
        Starting {
            name,
            status,
            teller,
            spare: None,
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

    /// Whether a process was asked that had been forked ahead of need.
    pub(crate) fn is_spare(&self) -> bool {
        self.teller.spare().is_some()
    }

    /// Waits until the process runs.
    ///
    /// # Errors
    ///
    /// Where it could not be started, or the server died over it.
    pub(crate) fn wait(mut self) -> Result<Child, NotStarted> {
        let result = self.wait_for_news();
        if let (Err(_), Teller::Server { is_unsure, .. }) = (&result, &self.teller) {
            is_unsure.store(true, Ordering::Relaxed);
        }
        match &result {
            Ok(_) => {}
            Err(NotStarted::Unbegun(_)) => self.teller.dismiss(),
            Err(NotStarted::Refused(_)) => {
                self.teller.withdraw(&self.status);
                self.teller.dismiss();
            }
        }
        let (pid, process, end_is, returned) = result?;
        step!("launcher::started::told");
        match &self.teller {
            Teller::Server { .. } | Teller::Spare { .. } => {
                family::note(&self.name, pid, &process);
            }
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
                // So the kernel says it where the request was not taken out of the socket.
                Err(error) if self.teller.spare().is_some() && is_gone(&error) => {
                    return Err(self.teller.died_over(operation()));
                }
                Err(error) => {
                    return Err(NotStarted::Refused(limits::explained(operation(), error)));
                }
                Ok(None) => match self.teller.spare() {
                    // The kernel says first that a socket is closed, and a moment later that something was left in it.
                    Some(_) if self.is_reset() => {
                        return Err(self.teller.died_over(operation()));
                    }
                    // It had taken the request in: it has begun, and ended.
                    Some((pid, process)) => return Ok((pid, process, EndIs::Kept, returned)),
                    None => return Err(self.teller.died_over(operation())),
                },
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
                    (News::Unbegun(why), _) => {
                        let error = Error::refused(operation(), why);
                        return Err(NotStarted::Unbegun(error));
                    }
                    (News::Exited { .. }, _) => {
                        return Err(NotStarted::Refused(Error::refused(
                            operation(),
                            "it wrote into the socket of the fork server's news, and was killed",
                        )));
                    }
                    (News::Started { .. }, None) => {
                        let Some((pid, process)) = self.teller.spare() else {
                            let why = "the fork server talks nonsense";
                            return Err(NotStarted::Refused(Error::refused(operation(), why)));
                        };
                        return Ok((pid, process, EndIs::Kept, returned));
                    }
                },
            }
            self.wait_until_told(&operation)?;
        }
    }

    /// Whether the other end of the status socket was closed with something unread in it.
    fn is_reset(&self) -> bool {
        record::receive::<News>(self.status.as_fd(), Patience::Now)
            .is_err_and(|error| is_gone(&error))
    }

    /// Blocks until there are news, or nobody is left to send any.
    fn wait_until_told(&self, operation: &impl Fn() -> String) -> Result<(), NotStarted> {
        loop {
            let teller = self.teller.process();
            let waited_for = [self.status.as_fd(), teller.as_fd()];
            let [news, has_ended] = readable(waited_for, Deadline::after(PATIENCE))
                .map_err(|error| NotStarted::Refused(limits::explained(operation(), error)))?;
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

    /// Waits until it has ended, for what its function came to. Where that is there, nobody need have collected it, so that how
    /// it ended may not be known: its parent may be forking at that moment, or be stopped.
    pub(crate) fn wait_for_return(&mut self) -> io::Result<()> {
        let is_ours = self.owner == identity::pid();
        if self.end == End::Running && self.end_is == EndIs::Kept && is_ours {
            readable([self.process.as_fd()], Deadline::NEVER)?;
            // Its sockets were closed before that showed, so what it has sent is all there.
            self.take_news_once()?;
            if self.returned.is_some() {
                self.leave_to_its_parent();
                if self.has_failed() {
                    // How it ended belongs to what is told.
                    self.look();
                }
                return Ok(());
            }
        }
        self.wait(Deadline::NEVER).map(drop)
    }

    /// It has ended, and whoever is its parent collects it.
    fn leave_to_its_parent(&mut self) {
        match self.process.exit_status() {
            Some(status) => self.end = End::Exited(status),
            None => {
                let now = Deadline::after(Duration::ZERO);
                let parent = self.teller.parent();
                if readable([parent.as_fd()], now).is_ok_and(|[is_gone]| is_gone) {
                    // Where this process adopts orphans, it is the heir.
                    fork::reap(&self.process);
                }
            }
        }
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
        self.take_news_once()?;
        Ok(true)
    }

    /// Takes in the news that are there, unless the function has returned: nothing else is expected where the kernel tells the
    /// end.
    fn take_news_once(&mut self) -> io::Result<()> {
        if self.returned.is_none() {
            self.take_news()?;
        }
        Ok(())
    }

    /// Waits until it, which has ended, was collected, or nobody is left to do so; returns whether that is so.
    fn wait_until_collected(&self, deadline: Deadline) -> io::Result<bool> {
        let process = self.process.as_fd();
        loop {
            let server = self.teller.parent();
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
        let is_collected = collected(process, deadline.or_after(PATIENCE_WITH_HEIRS))?;
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
            // Once until who is to collect it is woken, should it be stopped, and once for that.
            let _unknown = self.wait(Deadline::after(2 * PATIENCE));
        }
    }

    /// Its exit status, if it has ended and the status is known.
    pub(crate) fn exit_status(&self) -> Option<ExitStatus> {
        match self.end {
            End::Exited(status) => Some(status),
            // Somebody may have collected it since. A copy of the handle in another process is told as little as ever.
            End::Lost if self.end_is == EndIs::Kept && self.owner == identity::pid() => {
                self.process.exit_status()
            }
            End::Running | End::Lost => None,
        }
    }

    /// Whether its function came to nothing, once it has ended.
    pub(crate) fn has_failed(&self) -> bool {
        !matches!(&self.returned, Some(Arrived(Ok(_))))
    }

    /// What its function came to, once it has ended.
    pub(crate) fn into_arrived(self) -> Arrived {
        let (pid, status) = (self.pid, self.exit_status());
        match self.returned {
            Some(Arrived(result)) => {
                Arrived(result.map_err(|error| error.in_process(pid).with_status(status)))
            }
            None => Arrived(Err(TaskError::crash(status).in_process(pid))),
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
                    News::Started { .. }
                    | News::Refused { .. }
                    | News::Unbegun(_)
                    | News::Exited { .. } => {
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
