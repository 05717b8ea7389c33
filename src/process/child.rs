//! A process that this one has had started: its pidfd, and the socket over which its news come.
//!
//! Who waits for a child waits for two things at once: its status socket, on which the fork server reports how it ended, and
//! its pidfd, by which the kernel says that it has ended. The report comes a moment after the pidfd speaks; if the
//! server is gone as well, so is the status, and that is said.

use crate::deadline::Deadline;
use crate::error::{Error, Result, TaskError};
use crate::process::request::News;
use crate::sys::limits;
use crate::sys::pidfd::PidFd;
use crate::sys::poll::readable;
use crate::sys::socket::Patience;
use crate::task::Arrived;
use crate::wire::record;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;

/// A process that is being started.
#[derive(Debug)]
pub(crate) struct Starting {
    pub(crate) name: String,
    pub(crate) status: OwnedFd,
    pub(crate) server: Arc<PidFd>,
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
    pid: u32,
    process: Arc<PidFd>,
    status: OwnedFd,
    server: Arc<PidFd>,
    returned: Option<Arrived>,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Running,
    Exited(ExitStatus),
    /// It has ended, and nobody is left who knows how.
    Lost,
}

impl Starting {
    /// Waits until the process runs.
    ///
    /// # Errors
    ///
    /// Where it could not be started, or the server died over it.
    pub(crate) fn wait(self) -> Result<Child, NotStarted> {
        let operation = || format!("cannot start process {:?}", self.name);
        let mut returned = None;
        loop {
            match record::receive::<News>(self.status.as_fd(), Patience::Now) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The process itself can write there already; what is no news of the server's is passed over.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => continue,
                Err(error) => {
                    let limit = limits::behind(&error);
                    let error = Error::limit(operation(), error, limit);
                    return Err(NotStarted::Refused(error));
                }
                Ok(None) => {
                    return Err(NotStarted::ServerDied(Error::refused(
                        operation(),
                        "the fork server died over it",
                    )));
                }
                Ok(Some(mut news)) => match (news.head, news.descriptors.pop()) {
                    // A process that is quick may have returned before the server tells of it.
                    (News::Returned(result), last) => {
                        news.descriptors.extend(last);
                        let came = (news.payload, news.descriptors);
                        returned = Some(Arrived(result.map(|()| came)));
                        continue;
                    }
                    (News::Started { pid }, Some(process)) => {
                        return Ok(Child {
                            pid,
                            process: Arc::new(PidFd::adopt(process)),
                            status: self.status,
                            server: self.server,
                            returned,
                            end: End::Running,
                        });
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
            // The server may have died with the request unread in its socket.
            let [news, server_ended] =
                readable([self.status.as_fd(), self.server.as_fd()], Deadline::NEVER)
                    .map_err(|error| NotStarted::Refused(Error::io(operation(), error)))?;
            if server_ended && !news {
                return Err(NotStarted::Refused(Error::refused(
                    operation(),
                    "the fork server died over it",
                )));
            }
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
        let now = Deadline::after(std::time::Duration::ZERO);
        readable([self.process.as_fd()], now).is_ok_and(|[ended]| ended)
    }

    /// Waits until it has ended or `deadline` passes; returns whether it has. Takes in what it returns meanwhile.
    pub(crate) fn wait(&mut self, deadline: Deadline) -> io::Result<bool> {
        let mut has_ended = false;
        while self.end == End::Running {
            let is_closed = self.take_news()?;
            if self.end != End::Running {
                break;
            }
            if is_closed {
                // Nobody will report: the kernel alone says when it ends.
                let [ended] = readable([self.process.as_fd()], deadline)?;
                if !ended {
                    return Ok(false);
                }
                self.end = End::Lost;
            } else if has_ended {
                let [news, server_ended] =
                    readable([self.status.as_fd(), self.server.as_fd()], Deadline::NEVER)?;
                if server_ended && !news {
                    self.end = End::Lost;
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
        Ok(true)
    }

    /// Its exit status, if it has ended and the status is known.
    pub(crate) fn exit_status(&self) -> Option<ExitStatus> {
        match self.end {
            End::Exited(status) => Some(status),
            End::Running | End::Lost => None,
        }
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

    /// Takes in the news that are there; returns whether no more can come.
    fn take_news(&mut self) -> io::Result<bool> {
        loop {
            match record::receive::<News>(self.status.as_fd(), Patience::Now) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(true),
                // The process itself can write there; what is no news of the server's is passed over.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Err(error) => return Err(error),
                Ok(None) => return Ok(true),
                Ok(Some(news)) => match news.head {
                    News::Returned(result) => {
                        let came = (news.payload, news.descriptors);
                        self.returned = Some(Arrived(result.map(|()| came)));
                    }
                    News::Exited { status } => {
                        self.end = End::Exited(ExitStatus::from_raw(status));
                        return Ok(true);
                    }
                    News::Started { .. } | News::Refused { .. } => {}
                },
            }
        }
    }
}
