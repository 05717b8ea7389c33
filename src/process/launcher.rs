//! The application's side of starting processes: its fork server, started when first needed and again when it has died.

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::process::bootstrap;
use crate::process::child::{Child, NotStarted, Starting, TRIES, Teller};
use crate::process::current::{self, DEPTH_MAX, Identity};
use crate::process::enter::{self, REFUSED};
use crate::process::family;
use crate::process::forked;
use crate::process::ledger::Taken;
use crate::process::request::{Echo, Hello, Role, StartMethod, StartRequest};
use crate::process::server::inviting;
use crate::sys::identity::{self, Rights, exit_now};
use crate::sys::limits::{self, Bounds};
use crate::sys::pidfd::PidFd;
use crate::sys::poll::readable;
use crate::sys::socket::{Patience, is_gone};
use crate::sys::step::step;
use crate::sys::{descriptor, exec, fork, signal, socket};
use crate::task::Call;
use crate::task::Callable;
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
    pub(crate) function: Callable,
    pub(crate) variables: Vec<(OsString, OsString)>,
    pub(crate) stack_size: Option<u64>,
}

/// The running server, and what it was last told of this process.
#[derive(Debug)]
struct Server {
    owner: u32,
    process: Arc<PidFd>,
    requests: Arc<OwnedFd>,
    /// Closed at its other end when the server and all non-daemons that it has started have ended.
    lifeline: OwnedFd,
    /// Which requests it has taken in, and how many were made.
    taken: Arc<Taken>,
    asked: u64,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    bounds: Option<Bounds>,
    /// What it was born with, and so are its children.
    rights: Rights,
}

static SERVER: Mutex<Option<Server>> = Mutex::new(None);

/// Servers that were born when this process had other rights. They start nothing more, since that would have those rights;
/// what they have started runs on, and their daemons end with this process.
static RETIRED: Mutex<Vec<Server>> = Mutex::new(Vec::new());

/// Lifelines of servers that died while non-daemons may have run on, with who had started them.
static OUTLIVING: Mutex<Vec<(u32, OwnedFd)>> = Mutex::new(Vec::new());

/// At the normal end of the program (`main` returns or panics, `std::process::exit`): lets the server end, which kills the
/// daemons, and waits for the other processes. After any other end, the server does its part, and the others run on.
extern "C" fn settle() {
    // Another thread that starts a process just now holds these for a moment only.
    let patience = Duration::from_secs(1);
    let (Some(mut server), Some(mut retired), Some(mut outliving)) = (
        SERVER.try_lock_for(patience),
        RETIRED.try_lock_for(patience),
        OUTLIVING.try_lock_for(patience),
    ) else {
        return;
    };
    let mut lifelines = std::mem::take(&mut *outliving);
    for server in server.take().into_iter().chain(retired.drain(..)) {
        if server.is_ours() {
            // A process that was forked from this one may hold the socket as well.
            socket::end_sending(server.requests.as_fd());
        }
        lifelines.push((server.owner, server.lifeline));
    }
    family::end_forked_daemons();
    lifelines.extend(forked::take_lifeline());
    for (owner, lifeline) in lifelines {
        if owner == identity::pid() {
            let _closed = readable([lifeline.as_fd()], Deadline::NEVER);
        }
    }
}

/// Has [`settle`] run at the end of this program, and of those that are forked from it.
fn settle_at_exit() {
    static AT_EXIT: Once = Once::new();
    AT_EXIT.call_once(|| {
        // Without it, processes are on their own at the end, as after any other end.
        let _refused = identity::at_exit(settle);
    });
}

/// Forks a process that runs `run`, which is given the status socket and returns the exit code.
///
/// # Errors
///
/// Where other threads run here, or the system refuses.
pub(crate) fn fork_here(
    identity: Identity,
    echo: Echo,
    variables: &[(OsString, OsString)],
    run: impl FnOnce(OwnedFd) -> i32,
) -> Result<Starting> {
    let operation = refuse_too_deep(&identity)?;
    settle_at_exit();
    let started = forked::start(&identity.clone(), |status| {
        forget_parent();
        enter::become_one(identity, echo);
        if let Err(error) = settle_in(variables) {
            eprintln!("multiprocess: {operation}: {error}");
            exit_now(REFUSED)
        }
        let code = run(status);
        // Its own children are treated as at the end of any program. What the parent wants done at exit is not this
        // process's to do.
        settle();
        enter::flush();
        identity::flush_c_streams();
        code
    });
    started.map_err(|error| {
        let limit = limits::behind(&error).filter(|_| error.raw_os_error().is_some());
        Error::limit(format!("{operation}: fork"), error, limit)
    })
}

/// In a forked process: what the parent has started is none of its own.
fn forget_parent() {
    drop(SERVER.lock().take());
    RETIRED.lock().clear();
    OUTLIVING.lock().clear();
}

/// What is left to do for a forked process, whose handlers are gone already.
fn settle_in(variables: &[(OsString, OsString)]) -> io::Result<()> {
    signal::ignore_broken_pipes()?;
    // Only within a handler of a signal, which had its own stack, is there no changing that.
    let _busy = signal::report_stack_overflow();
    signal::unblock_all()?;
    identity::add_to_environment(variables)
}

/// Names the operation; an error where families have become too deep, or would without end.
fn refuse_too_deep(identity: &Identity) -> Result<String> {
    let operation = format!("cannot start process {:?}", identity.name);
    if bootstrap::is_still_to_serve() {
        let why = "a constructor of the program starts it, in an image that is to become a process itself: each one \
                   would start another";
        return Err(Error::refused(operation, why));
    }
    if identity.path.len() > DEPTH_MAX as usize {
        let why = format!("processes that start processes are nested {DEPTH_MAX} deep already");
        return Err(Error::refused(operation, why));
    }
    Ok(operation)
}

/// Name and pid of each process that the fork server has started and that is alive; none where there is no server, or none
/// that answers.
pub(crate) fn ask_who_lives() -> Vec<(String, u32)> {
    let slot = SERVER.lock();
    let retired = RETIRED.lock();
    let servers = slot.as_ref().into_iter().chain(retired.iter());
    let ours = servers.filter(|server| server.is_ours());
    ours.flat_map(ask_who_lives_of).collect()
}

fn ask_who_lives_of(server: &Server) -> Vec<(String, u32)> {
    let Ok((answer, theirs)) = socket::record_pair() else {
        return Vec::new();
    };
    let hello = Hello::new([0; 16], Role::Census);
    let requests = server.requests.as_fd();
    if record::send(requests, &hello, &[], &[theirs.as_fd()], Patience::Wait).is_err() {
        return Vec::new();
    }
    drop(theirs);
    for _ in 0..2 {
        let patience = Deadline::after(Duration::from_secs(1));
        let waited_for = [answer.as_fd(), server.process.as_fd()];
        match readable(waited_for, patience) {
            Ok([true, _]) => {
                let answer = record::receive::<Vec<(String, u32)>>(answer.as_fd(), Patience::Now);
                return answer
                    .ok()
                    .flatten()
                    .map_or_else(Vec::new, |record| record.head);
            }
            Ok([false, true]) | Err(_) => break,
            // Should somebody have stopped it: it is needed.
            Ok([false, false]) => drop(server.process.resume()),
        }
    }
    Vec::new()
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
    if order.method == StartMethod::Fork {
        let Order {
            function,
            stack_size,
            ..
        } = order;
        return fork_here(identity, order.echo, &order.variables, |status| {
            let copies = descriptors.iter().map(|one| one.try_clone_to_owned());
            let Ok(descriptors) = copies.collect() else {
                eprintln!("multiprocess: no descriptors are left for the function's arguments");
                exit_now(REFUSED)
            };
            let call = Call {
                arguments: arguments.to_vec(),
                descriptors,
            };
            enter::perform(function.entry, call, stack_size, status)
        });
    }
    let operation = refuse_too_deep(&identity)?;
    let Some(function) = order.function.id.filter(|_| bootstrap::is_linked()) else {
        return Err(Error::refused(
            operation,
            "its code is in a library that was loaded into another program, not in the main executable, which is \
             what a new process executes; `StartMethod::Fork` can run it",
        ));
    };
    let name = identity.name.clone();
    let request = StartRequest {
        number: 0,
        identity,
        method: order.method,
        echo: order.echo,
        function,
        server: 0,
        bounds: None,
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
    let path = request.identity.path.clone();
    let (status, theirs) = socket::record_pair().map_err(failed)?;
    let spare = descriptor::spare(&status).map_err(failed)?;

    let mut slot = SERVER.lock();
    retire(&mut slot).map_err(failed)?;
    let_outlived_go();
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
                let teller = Teller::Server {
                    process: Arc::clone(&server.process),
                    requests: Arc::clone(&server.requests),
                    taken: Arc::clone(&server.taken),
                    number: server.asked,
                    path,
                };
                return Ok(Starting::by_server(name, status, teller, spare));
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

/// Closes the lifelines of dead servers whose last non-daemon has ended.
fn let_outlived_go() {
    let now = Deadline::after(Duration::ZERO);
    let is_closed =
        |lifeline: &OwnedFd| readable([lifeline.as_fd()], now).is_ok_and(|[closed]| closed);
    OUTLIVING
        .lock()
        .retain(|(_, lifeline)| !is_closed(lifeline));
}

/// Has the server start nothing more if it was born with other rights than this process has now.
fn retire(slot: &mut Option<Server>) -> io::Result<()> {
    let Some(server) = slot else { return Ok(()) };
    if server.rights == Rights::now()? {
        return Ok(());
    }
    let mut retired = RETIRED.lock();
    let now = Deadline::after(Duration::ZERO);
    let has_ended = |one: &Server| readable([one.process.as_fd()], now).is_ok_and(|[ended]| ended);
    let (ended, serving): (Vec<Server>, Vec<Server>) = retired.drain(..).partition(has_ended);
    *retired = serving;
    retired.extend(slot.take());
    ended.into_iter().for_each(Server::bury);
    Ok(())
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
        let name = starting.name().to_owned();
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
        settle_at_exit();
        let owner = identity::pid();
        let rights = Rights::now()?;
        let nonce = identity::nonce()?;
        let ourselves = PidFd::open(owner)?;
        let (requests, theirs) = socket::record_pair()?;
        let hello = Hello::new(nonce, Role::Server { application: owner });
        let (lifeline, held) = socket::pipe()?;
        let (taken, ledger) = Taken::open()?;
        record::send(
            requests.as_fd(),
            &hello,
            &[],
            &[ourselves.as_fd(), held.as_fd(), ledger.as_fd()],
            Patience::Wait,
        )?;
        step!("launcher::server::greeted");
        let environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        let directory = std::env::current_dir().ok();
        let process = exec::ourselves_apart(&exec::Start {
            environment: &inviting(environment.clone(), &theirs, nonce),
            socket: theirs.as_fd(),
        })?;
        step!("launcher::server::executed");
        Ok(Server {
            owner,
            process: Arc::new(process),
            requests: Arc::new(requests),
            lifeline,
            taken: Arc::new(taken),
            asked: 0,
            environment,
            directory,
            bounds: None,
            rights,
        })
    }

    /// Waits for a server that is dying: its socket closes a moment before it has ended.
    fn bury(self) {
        let _ended = self.process.kill();
        let _ended = readable([self.process.as_fd()], Deadline::NEVER);
        // It is a child only where this process adopts orphans.
        fork::reap(&self.process);
        OUTLIVING.lock().push((self.owner, self.lifeline));
        let_outlived_go();
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
        let bounds = Some(Bounds::now());
        if bounds != self.bounds {
            request.bounds.clone_from(&bounds);
        }
        let streams = descriptor::streams();
        request.streams = streams.map(|stream| stream.is_some());
        request.has_directory = opened.is_some();
        // A number that is not sent is used by nobody.
        self.asked += 1;
        request.number = self.asked;

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
        step!("launcher::request::sent");
        self.environment = environment;
        self.bounds = bounds;
        Ok(())
    }
}
