//! The application's side of starting processes: its fork server, started when first needed and again when it has died.

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::process::bootstrap;
use crate::process::child::{Child, NotStarted, Starting, TRIES};
use crate::process::current::{self, DEPTH_MAX};
use crate::process::request::{Echo, Hello, Role, StartMethod, StartRequest};
use crate::process::server::image;
use crate::sys::function::FunctionId;
use crate::sys::pidfd::PidFd;
use crate::sys::poll::readable;
use crate::sys::socket::{Patience, is_gone};
use crate::sys::{descriptor, fork, identity, limits, socket};
use crate::wire::record;
use parking_lot::Mutex;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::time::Duration;

/// A process that is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) name: Option<String>,
    pub(crate) is_daemon: bool,
    pub(crate) method: StartMethod,
    pub(crate) echo: Echo,
    /// `None` where its code is not in the main executable.
    pub(crate) function: Option<FunctionId>,
    pub(crate) variables: Vec<(OsString, OsString)>,
    pub(crate) stack_size: Option<u64>,
}

/// The running server, and what it was last told of this process.
#[derive(Debug)]
struct Server {
    owner: u32,
    pid: u32,
    process: Arc<PidFd>,
    requests: OwnedFd,
    /// Closed at its other end when the server and all non-daemons that it has started have ended.
    lifeline: OwnedFd,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
}

static SERVER: Mutex<Option<Server>> = Mutex::new(None);

/// Lifelines of servers that died while non-daemons may have run on, with who had started them.
static OUTLIVING: Mutex<Vec<(u32, OwnedFd)>> = Mutex::new(Vec::new());

/// At the normal end of the program (`main` returns or panics, `std::process::exit`): lets the server end, which kills the
/// daemons, and waits for the other processes. After any other end, the server does its part, and the others run on.
extern "C" fn settle() {
    // Another thread that starts a process just now holds these for a moment only.
    let patience = Duration::from_secs(1);
    let (Some(mut server), Some(mut outliving)) = (
        SERVER.try_lock_for(patience),
        OUTLIVING.try_lock_for(patience),
    ) else {
        return;
    };
    let mut lifelines = std::mem::take(&mut *outliving);
    if let Some(Server {
        owner,
        requests,
        lifeline,
        ..
    }) = server.take()
    {
        drop(requests);
        lifelines.push((owner, lifeline));
    }
    for (owner, lifeline) in lifelines {
        if owner == identity::pid() {
            let _closed = readable([lifeline.as_fd()], Deadline::NEVER);
        }
    }
}

/// Asks for a process. `descriptors` are for the function, as are the encoded `arguments`.
///
/// # Errors
///
/// Where there is no server and none can be had, or the function cannot run in another process.
pub(crate) fn start(
    order: Order,
    arguments: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<Starting> {
    let identity = current::next_child(order.name, order.is_daemon);
    let operation = format!("cannot start process {:?}", identity.name);
    if identity.path.len() > DEPTH_MAX as usize {
        let why = format!("processes that start processes are nested {DEPTH_MAX} deep already");
        return Err(Error::refused(operation, why));
    }
    let Some(function) = order.function.filter(|_| bootstrap::is_linked()) else {
        return Err(Error::refused(
            operation,
            "its code is in a library that was loaded into another program, not in the main executable, which is \
             what a new process executes: this takes `StartMethod::Fork`, which this version does not have",
        ));
    };
    let name = identity.name.clone();
    let request = StartRequest {
        identity,
        method: order.method,
        echo: order.echo,
        function,
        server: 0,
        descriptors: None,
        streams: [false; 3],
        has_directory: false,
        has_lifeline: false,
        environment: None,
        variables: order.variables,
        stack_size: order.stack_size,
    };
    let failed = |error: io::Error| {
        let limit = limits::behind(&error);
        Error::limit(format!("{operation}: fork server"), error, limit)
    };
    let (status, theirs) = socket::record_pair().map_err(failed)?;

    let mut slot = SERVER.lock();
    let mut starts_left = SERVERS_MAX;
    loop {
        let server = match slot.take().filter(Server::is_ours) {
            Some(server) => slot.insert(server),
            None => {
                starts_left -= 1;
                slot.insert(Server::start().map_err(failed)?)
            }
        };
        match server.request(request.clone(), arguments, &theirs, descriptors) {
            Ok(()) => {
                return Ok(Starting {
                    name,
                    status,
                    server: Arc::clone(&server.process),
                });
            }
            // The server has died since it was last needed: once more, with another.
            Err(error) if is_gone(&error) && starts_left > 0 => {
                if let Some(server) = slot.take() {
                    server.bury();
                }
            }
            Err(error) => return Err(failed(error)),
        }
    }
}

/// How many servers are started for one process, where each dies at once.
const SERVERS_MAX: usize = 3;

/// Starts a process and waits until it runs; returns its name as well. Asks again where the server died before it took the
/// request in, so that nothing was started.
///
/// # Errors
///
/// As [`start`], and where the system refuses the process.
pub(crate) fn start_and_wait(
    order: &Order,
    arguments: &[u8],
    descriptors: &[Arc<OwnedFd>],
) -> Result<(String, Child)> {
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(|one| one.as_fd()).collect();
    let mut tries_left = TRIES;
    loop {
        tries_left -= 1;
        let starting = start(order.clone(), arguments, &descriptors)?;
        let name = starting.name.clone();
        match starting.wait() {
            Ok(child) => return Ok((name, child)),
            Err(NotStarted::ServerDied(_)) if tries_left > 0 => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl Server {
    /// Executes this program once more, as a server. Does not wait for it: requests wait in its socket.
    fn start() -> io::Result<Server> {
        if identity::is_privileged_image() {
            let why = "the program runs with more rights than its caller has";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        static AT_EXIT: Once = Once::new();
        AT_EXIT.call_once(|| {
            // Without it, processes are on their own at the end, as after any other end.
            let _refused = identity::at_exit(settle);
        });
        let owner = identity::pid();
        let nonce = identity::nonce()?;
        let ourselves = PidFd::open(owner)?;
        let (requests, theirs) = socket::record_pair()?;
        let hello = Hello::new(nonce, Role::Server { application: owner });
        let (lifeline, held) = socket::pipe()?;
        record::send(
            requests.as_fd(),
            &hello,
            &[],
            &[ourselves.as_fd(), held.as_fd()],
            Patience::Wait,
        )?;
        let environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        let directory = std::env::current_dir().ok();
        let pid = image(&theirs, nonce, environment.clone())?;
        let process = match PidFd::open(pid) {
            Ok(process) => Arc::new(process),
            Err(error) => {
                // It ends by itself when its socket closes, which is on the way out of here.
                drop(requests);
                fork::reap_when_ended(pid);
                return Err(error);
            }
        };
        Ok(Server {
            owner,
            pid,
            process,
            requests,
            lifeline,
            environment,
            directory,
        })
    }

    /// Collects a server that is dying: its socket closes a moment before it has ended.
    fn bury(self) {
        let _ended = self.process.kill();
        let _ended = readable([self.process.as_fd()], Deadline::NEVER);
        fork::reap(self.pid);
        let mut outliving = OUTLIVING.lock();
        let now = Deadline::after(Duration::ZERO);
        outliving.retain(|(_, lifeline)| {
            !readable([lifeline.as_fd()], now).is_ok_and(|[closed]| closed)
        });
        if !readable([self.lifeline.as_fd()], now).is_ok_and(|[closed]| closed) {
            outliving.push((self.owner, self.lifeline));
        }
    }

    /// Whether this process started it, and not one that this one was forked from.
    fn is_ours(&self) -> bool {
        self.owner == identity::pid()
    }

    fn request(
        &mut self,
        mut request: StartRequest,
        arguments: &[u8],
        status: &OwnedFd,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        if environment != self.environment {
            request.environment = Some(environment.clone());
        }
        let directory = std::env::current_dir().ok();
        let opened = if directory != self.directory {
            Some(descriptor::current_directory()?)
        } else {
            None
        };
        let streams = descriptor::streams();
        request.streams = streams.map(|stream| stream.is_some());
        request.has_directory = opened.is_some();

        let mut all = vec![status.as_fd()];
        all.extend(streams.iter().flatten());
        all.extend(opened.as_ref().map(AsFd::as_fd));
        all.extend_from_slice(descriptors);
        let hello = Hello::new([0; 16], Role::Process(Box::new(request)));
        record::send(
            self.requests.as_fd(),
            &hello,
            arguments,
            &all,
            Patience::Wait,
        )?;
        self.environment = environment;
        Ok(())
    }
}
