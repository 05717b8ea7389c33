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
use crate::process::request::{Echo, Hello, Offer, Role, StartMethod, StartRequest};
use crate::process::server::inviting;
use crate::process::stock::is_there;
use crate::sys::identity::{self, Rights, exit_now};
use crate::sys::limits::{self, Bounds};
use crate::sys::own::Own;
use crate::sys::pidfd::PidFd;
use crate::sys::poll::readable;
use crate::sys::shared::SharedFd;
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
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
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
    /// The last request with which it was told of another environment or other bounds.
    changed: u64,
    /// Whether a request may have been lost, and what it told with it: the next one tells everything.
    is_unsure: Arc<AtomicBool>,
    /// What it was born with, and so are its children.
    rights: Rights,
}

/// What a process finds that is of the moment at which it is started.
struct Moment {
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    bounds: Option<Bounds>,
}

impl Moment {
    fn now() -> Moment {
        Moment {
            environment: std::env::vars_os().collect(),
            directory: std::env::current_dir().ok(),
            bounds: Some(Bounds::now()),
        }
    }
}

/// Whether a spare may be used for a start. Where one has died over it, the server is asked, which does not leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spares {
    Welcome,
    Unwanted,
}

/// How long the others' end is waited for before it is seen to that nobody is stopped.
const PATIENCE: Duration = Duration::from_secs(1);

/// What this process has had started; a thread that locks several does so in this order.
#[derive(Debug, Default)]
struct Started {
    server: Mutex<Option<Server>>,
    /// Servers that were born when this process had other rights. They start nothing more, since that would have those rights;
    /// what they have started runs on, and their daemons end with this process.
    retired: Mutex<Vec<Server>>,
    /// Lifelines of servers that died while non-daemons may have run on.
    outliving: Mutex<Vec<OwnedFd>>,
}

/// A process that was forked from this one, while another thread was starting one perhaps, begins with nothing of it.
static STARTED: Own<Started> = Own::new(Started::default);

/// The process that has come to its normal end, by its pid. Its threads go on till it has ended, and a pool of one of them
/// would replace the workers that end now; but nobody would end or wait for what is started from here on.
static ENDING: AtomicU32 = AtomicU32::new(0);

/// At the normal end of the program (`main` returns or panics, `std::process::exit`): lets the server end, which kills the
/// daemons, and waits for the other processes. After any other end, the server does its part, and the others run on.
extern "C" fn settle() {
    // Whoever starts a process looks when it has the first of these locks.
    ENDING.store(identity::pid(), Ordering::Relaxed);
    // Another thread that starts a process just now holds these for a moment only.
    let patience = PATIENCE;
    let started = STARTED.get();
    let (Some(mut server), Some(mut retired), Some(mut outliving)) = (
        started.server.try_lock_for(patience),
        started.retired.try_lock_for(patience),
        started.outliving.try_lock_for(patience),
    ) else {
        return;
    };
    let outlived = std::mem::take(&mut *outliving);
    let servers: Vec<Server> = server.take().into_iter().chain(retired.drain(..)).collect();
    // Who waits for them is refused from here on. It must not wait till the processes have ended: one may wait for that thread.
    drop((server, retired, outliving));
    for server in &servers {
        // A process that was forked from this one may hold the socket as well.
        socket::end_sending(server.requests.as_fd());
        server.end_spares();
    }
    family::end_forked_daemons();
    for server in &servers {
        server.wait_for_all();
    }
    for lifeline in outlived.into_iter().chain(family::take_lifelines()) {
        let _closed = readable([lifeline.as_fd()], Deadline::NEVER);
    }
}

/// Has [`settle`] run at the end of this program, and of those that are forked from it. Nobody waits here for a thread that a
/// fork may have left behind: where two come at once it runs twice, and finds nothing the second time.
fn settle_at_exit() {
    static IS_REGISTERED: AtomicBool = AtomicBool::new(false);
    if !IS_REGISTERED.load(Ordering::Relaxed) {
        // Without it, processes are on their own at the end, as after any other end.
        let _refused = identity::at_exit(settle);
        IS_REGISTERED.store(true, Ordering::Relaxed);
    }
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
    refuse_at_end(&operation)?;
    settle_at_exit();
    let started = forked::start(&identity.clone(), |status| {
        forget_parent();
        enter::become_one(identity, echo);
        if let Err(error) = settle_in(variables) {
            eprintln!("multiprocess: {operation}: {error}");
            exit_now(REFUSED)
        }
        let code = run(status);
        enter::flush();
        // Its own children are treated as at the end of any program. What the parent wants done at exit is not this
        // process's to do.
        settle();
        enter::flush();
        identity::flush_c_streams();
        code
    });
    started.map_err(|error| limits::explained(format!("{operation}: fork"), error))
}

/// In a process that was forked by the only thread of its parent: closes what is held of those that the parent has started, which
/// are none of its own.
fn forget_parent() {
    if let Some(parents) = STARTED.inherited() {
        // Another thread may hold them nevertheless, of a process that the parent was forked from.
        let _left = parents.server.try_lock().map(|mut one| drop(one.take()));
        let _left = parents.retired.try_lock().map(|mut all| all.clear());
        let _left = parents.outliving.try_lock().map(|mut all| all.clear());
    }
    family::forget_parents();
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

/// An error where this process has come to its end.
fn refuse_at_end(operation: &str) -> Result<()> {
    if ENDING.load(Ordering::Relaxed) == identity::pid() {
        let why = "the program has come to its end";
        return Err(Error::refused(operation, why));
    }
    Ok(())
}

/// Name and pid of each process that the fork server has started and that is alive; none where there is no server, or none
/// that answers.
pub(crate) fn ask_who_lives() -> Vec<(String, u32)> {
    let started = STARTED.get();
    let slot = started.server.lock();
    let retired = started.retired.lock();
    let servers = slot.as_ref().into_iter().chain(retired.iter());
    let talk_of = |server: &Server| (Arc::clone(&server.requests), Arc::clone(&server.process));
    let servers: Vec<(Arc<OwnedFd>, Arc<PidFd>)> = servers.map(talk_of).collect();
    // One may have been stopped: nobody else is to wait for that.
    drop((slot, retired));
    let answers = servers
        .iter()
        .map(|(requests, process)| ask_who_lives_of(requests, process));
    answers.flatten().collect()
}

fn ask_who_lives_of(requests: &OwnedFd, process: &PidFd) -> Vec<(String, u32)> {
    let Ok((answer, theirs)) = socket::record_pair() else {
        return Vec::new();
    };
    let hello = Hello::new([0; 16], Role::Census);
    if record::send(
        requests.as_fd(),
        &hello,
        &[],
        &[theirs.as_fd()],
        Patience::Wait,
    )
    .is_err()
    {
        return Vec::new();
    }
    drop(theirs);
    for _ in 0..2 {
        let patience = Deadline::after(Duration::from_secs(1));
        let waited_for = [answer.as_fd(), process.as_fd()];
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
            Ok([false, false]) => drop(process.resume()),
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
    spares: Spares,
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
        variables: order.variables,
        stack_size: order.stack_size,
        ..StartRequest::new(identity, order.method, order.echo, function)
    };
    let failed = |error: io::Error| limits::explained(format!("{operation}: fork server"), error);
    let path = request.identity.path.clone();
    let mut sockets = None;

    let mut slot = STARTED.get().server.lock();
    refuse_at_end(&operation)?;
    retire(&mut slot).map_err(failed)?;
    let_outlived_go();
    let mut starts_left = SERVERS_MAX;
    loop {
        let server = match slot.take() {
            Some(server) => slot.insert(server),
            None => {
                starts_left -= 1;
                slot.insert(Server::start().map_err(failed)?)
            }
        };
        let moment = Moment::now();
        if order.method == StartMethod::ForkServer && spares == Spares::Welcome {
            let given = server
                .give_spare(&request, &moment, arguments, descriptors)
                .map_err(failed)?;
            if let Some((status, teller)) = given {
                return Ok(Starting::by_spare(name, status, teller));
            }
        }
        let (status, theirs, room) = match sockets.take() {
            Some(made) => made,
            None => {
                let (status, theirs) = socket::record_pair().map_err(failed)?;
                let room = descriptor::spare(&status).map_err(failed)?;
                (status, theirs, room)
            }
        };
        match server.request(request.clone(), moment, arguments, &theirs, descriptors) {
            Ok(()) => {
                let teller = Teller::Server {
                    process: Arc::clone(&server.process),
                    requests: Arc::clone(&server.requests),
                    taken: Arc::clone(&server.taken),
                    number: server.asked,
                    path,
                    is_unsure: Arc::clone(&server.is_unsure),
                };
                return Ok(Starting::by_server(name, status, teller, room));
            }
            // The server has died since it was last needed: once more, with another.
            Err(error) if is_gone(&error) && starts_left > 0 => {
                if let Some(server) = slot.take() {
                    server.bury();
                }
                sockets = Some((status, theirs, room));
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
    STARTED
        .get()
        .outliving
        .lock()
        .retain(|lifeline| !is_closed(lifeline));
}

/// Has the server start nothing more if it was born with other rights than this process has now.
fn retire(slot: &mut Option<Server>) -> io::Result<()> {
    let Some(server) = slot else { return Ok(()) };
    if server.rights == Rights::now()? {
        return Ok(());
    }
    let mut retired = STARTED.get().retired.lock();
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
    descriptors: &[Arc<SharedFd>],
) -> Result<(String, Child)> {
    let descriptors: Vec<BorrowedFd<'_>> = descriptors.iter().map(|one| one.as_fd()).collect();
    let mut tries_left = TRIES;
    let mut spares = Spares::Welcome;
    loop {
        tries_left -= 1;
        let starting = start(spares, order.clone(), arguments, &descriptors)?;
        spares = Spares::Unwanted;
        let name = starting.name().to_owned();
        match starting.wait() {
            Ok(child) => return Ok((name, child)),
            Err(NotStarted::Unbegun(_)) if tries_left > 0 => {}
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
            environment: &inviting(environment.clone(), nonce),
            socket: theirs.as_fd(),
        })?;
        step!("launcher::server::executed");
        Ok(Server {
            process: Arc::new(process),
            requests: Arc::new(requests),
            lifeline,
            taken: Arc::new(taken),
            asked: 0,
            environment,
            directory,
            bounds: None,
            changed: 0,
            is_unsure: Arc::default(),
            rights,
        })
    }

    /// Ends those that it has forked ahead of need and offered. They would leave by themselves, but not where somebody has stopped
    /// them.
    fn end_spares(&self) {
        while let Some((_, _, spare)) = self.next_offer() {
            let _ended = spare.kill();
        }
    }

    /// Waits until it has ended, which was told to end, and all non-daemons that it has started.
    fn wait_for_all(&self) {
        while let Ok([false]) = readable([self.lifeline.as_fd()], Deadline::after(PATIENCE)) {
            // Should somebody have stopped it, or what it has forked ahead meanwhile.
            let _ended = self.process.resume();
            self.end_spares();
        }
    }

    /// Waits for a server that is dying: its socket closes a moment before it has ended.
    fn bury(self) {
        let _ended = self.process.kill();
        let _ended = readable([self.process.as_fd()], Deadline::NEVER);
        // It is a child only where this process adopts orphans.
        fork::reap(&self.process);
        // So are the spares that it has left.
        while let Some((_, _, spare)) = self.next_offer() {
            let _ended = spare.kill();
            let _ended = readable([spare.as_fd()], Deadline::after(Duration::from_secs(1)));
            fork::reap(&spare);
        }
        STARTED.get().outliving.lock().push(self.lifeline);
        let_outlived_go();
    }

    fn request(
        &mut self,
        mut request: StartRequest,
        moment: Moment,
        arguments: &[u8],
        status: &OwnedFd,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let is_unsure = self.is_unsure.swap(false, Ordering::Relaxed);
        if is_unsure || moment.environment != self.environment {
            request.environment = Some(moment.environment.clone());
        }
        if is_unsure || moment.bounds != self.bounds {
            request.bounds.clone_from(&moment.bounds);
        }
        request.after = if is_unsure { 0 } else { self.changed };
        let is_changed = request.environment.is_some() || request.bounds.is_some();
        // A number that is not sent is used by nobody.
        self.asked += 1;
        request.number = self.asked;
        let requests = Arc::clone(&self.requests);
        let sent = self.send(
            requests.as_fd(),
            Some(status.as_fd()),
            request,
            &moment,
            arguments,
            descriptors,
        );
        if sent.is_err() {
            self.is_unsure.fetch_or(is_unsure, Ordering::Relaxed);
        }
        sent?;
        step!("launcher::request::sent");
        if is_changed {
            self.changed = self.asked;
        }
        self.environment = moment.environment;
        self.bounds = moment.bounds;
        Ok(())
    }

    /// Sends a request to the server or a spare, with what comes along.
    fn send(
        &self,
        socket: BorrowedFd<'_>,
        status: Option<BorrowedFd<'_>>,
        mut request: StartRequest,
        moment: &Moment,
        arguments: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let opened = if moment.directory != self.directory {
            Some(descriptor::current_directory()?)
        } else {
            None
        };
        let streams = descriptor::streams();
        request.streams = streams.map(|stream| stream.is_some());
        request.has_directory = opened.is_some();
        let mut all: Vec<BorrowedFd<'_>> = status.into_iter().collect();
        all.extend(streams.iter().flatten());
        all.extend(opened.as_ref().map(AsFd::as_fd));
        all.extend_from_slice(descriptors);
        let hello = Hello::new([0; 16], Role::Process(Box::new(request)));
        record::send(socket, &hello, arguments, &all, Patience::Wait)
    }

    /// The next process that was forked ahead of need: its status socket and its pidfd.
    fn next_offer(&self) -> Option<(Offer, OwnedFd, PidFd)> {
        let receive = || record::receive::<Offer>(self.requests.as_fd(), Patience::Now);
        // Of a server that died over a request that is told first, once; its offers are there still.
        let received = receive().or_else(|_| receive());
        let mut offered = received.ok().flatten()?;
        let (status, process) = (offered.descriptors.pop()?, offered.descriptors.pop()?);
        Some((offered.head, status, PidFd::adopt(process)))
    }

    /// Gives the request to a process that was forked ahead of need, if one is there and was born under what holds now: its
    /// status socket, and who tells of it. Takes every offer up to that one.
    fn give_spare(
        &self,
        request: &StartRequest,
        moment: &Moment,
        arguments: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<Option<(OwnedFd, Teller)>> {
        let now = Deadline::after(Duration::ZERO);
        let [is_offered, has_died] = readable([self.requests.as_fd(), self.process.as_fd()], now)?;
        // Spares of a dead server are about to leave, and it could be nobody's parent.
        if has_died || !is_offered {
            return Ok(None);
        }
        let is_of_now = moment.environment == self.environment && moment.bounds == self.bounds;
        while let Some((offer, status, process)) = self.next_offer() {
            if !is_of_now || offer.after < self.changed || !is_there(&process) {
                let _ended = process.kill();
                continue;
            }
            step!("launcher::spare::offered");
            let sent = self.send(
                status.as_fd(),
                None,
                request.clone(),
                moment,
                arguments,
                descriptors,
            );
            match sent {
                Ok(()) => {}
                // It has left just now, or was killed.
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(error),
            }
            step!("launcher::spare::sent");
            let role = Role::Taken {
                number: offer.number,
                name: request.identity.name.clone(),
                path: request.identity.path.clone(),
                is_daemon: request.identity.is_daemon,
            };
            let hello = Hello::new([0; 16], role);
            // Where the server has died meanwhile, it makes no more.
            let _gone = record::send(self.requests.as_fd(), &hello, &[], &[], Patience::Wait);
            step!("launcher::spare::noted");
            let teller = Teller::Spare {
                pid: offer.pid,
                process: Arc::new(process),
                server: Arc::clone(&self.process),
            };
            return Ok(Some((status, teller)));
        }
        Ok(None)
    }
}
