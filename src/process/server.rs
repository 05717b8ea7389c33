//! The fork server: a small process of one thread that starts others, and tells how they ended.
//!
//! | it waits for | then |
//! |---|---|
//! | a request of the application | starts a process; answers on that process's status socket |
//! | a request that it has no memory or no descriptors for | refuses it there, if that socket came, and goes on; else the socket closes, and the application asks again |
//! | an ended child, where the kernel does not keep how it ended | collects it, and says so on its status socket |
//! | the end of the application: its socket closed, or its pidfd readable | kills the daemons, and leaves |
//!
//! From Linux 6.15 on the kernel itself collects the children as they end, and keeps how they ended for whoever holds their
//! pidfds; this process is then not even woken. A child that ends before its pidfd was opened would be lost, and its pid
//! another's: so from each fork until then they wait to be collected, and are collected here behind that.
//!
//! Who starts processes again and again has some forked ahead of need, while there is nothing else to do: see `spare`.
//!
//! It trusts the application, which is the same program; it never waits for a process that it has started. If it is killed,
//! the kernel kills the daemons (each has it for its parent), others run on, and the application starts a new server
//! when it needs one.

use crate::deadline::Deadline;
use crate::process::enter::{self, Entrance, REFUSED};
use crate::process::ledger::Ledger;
use crate::process::request::{EndIs, Hello, News, Role, StartMethod, StartRequest, VARIABLE};
use crate::process::spare::Spare;
use crate::process::stock::{Stock, is_there};
use crate::sys::fork::{Forked, fork_if_alone, kernel_keeps_ends, kill_uncollected, reap_any};
use crate::sys::identity::{self, exit_now};
use crate::sys::limits::{self, Bounds};
use crate::sys::pidfd::PidFd;
use crate::sys::poll::readable;
use crate::sys::signal::{self, AllBlocked, ChildNews};
use crate::sys::socket::{self, Patience, is_gone};
use crate::sys::step::{is_on_older_kernel, step};
use crate::sys::{descriptor, exec};
use crate::wire::record::{self, Record};
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

#[derive(Debug)]
struct Server {
    requests: OwnedFd,
    application: PidFd,
    /// Held by this process and by each non-daemon that it has started.
    lifeline: OwnedFd,
    ledger: Ledger,
    /// By their pids. Where the kernel collects them, some may have ended, and their pids be others'.
    children: HashMap<u32, Tracked>,
    /// How many of them there were after the last look at all of them.
    kept: usize,
    /// What the application last said; where threads run here, this process's own stays as it was.
    environment: Vec<(OsString, OsString)>,
    /// What this process is held to, and what its children are to be held to beyond that.
    bounds: Bounds,
    beyond: Bounds,
    ends: Ends,
    /// The last request that changed what its children are born with.
    applied: u64,
    /// Keeps room for one descriptor; of what, does not matter.
    room: Option<OwnedFd>,
    stock: Stock,
}

/// How long it stands still where it cannot even look at its requests, or take one out of their socket.
const PAUSE: Duration = Duration::from_millis(10);

/// What happens when a child ends.
#[derive(Debug)]
enum Ends {
    /// The kernel collects it, and keeps how it ended.
    Kept,
    /// It is collected here, and told of.
    Told(ChildNews),
}

#[derive(Debug)]
struct Tracked {
    hold: Hold,
    is_daemon: bool,
    name: String,
    path: Vec<u64>,
}

/// What is held of a child.
#[derive(Debug)]
enum Hold {
    /// Where the kernel collects it: the pid may be another's.
    Process(PidFd),
    /// Where it is to be told of here, and collected before: till then the pid is its own.
    Status(OwnedFd),
}

impl Tracked {
    fn kill(&self, pid: u32) {
        match &self.hold {
            Hold::Process(process) => drop(process.kill()),
            Hold::Status(_) => kill_uncollected(pid),
        }
    }

    /// Whether it may be alive.
    fn is_there(&self) -> bool {
        match &self.hold {
            Hold::Process(process) => is_there(process),
            Hold::Status(_) => true,
        }
    }
}

/// Which process this is after a request.
enum Next {
    Server,
    Child(Box<Entrance>),
    /// With its end of its status socket, and this process's pid.
    Spare {
        status: OwnedFd,
        parent: u32,
    },
}

/// Serves the application on `requests` until it ends, then ends as well. Each child leaves by its own way.
pub(crate) fn serve(requests: OwnedFd, application: PidFd, lifeline: OwnedFd, ledger: Ledger) -> ! {
    let prepared = Server::prepare(requests, application, lifeline, ledger);
    let child = match prepared.and_then(Server::run) {
        Ok(Some(child)) => child,
        // Or a spare that is not needed.
        Ok(None) => exit_now(0),
        Err(error) => {
            eprintln!("multiprocess: the fork server stops: {error}");
            exit_now(REFUSED)
        }
    };
    child.run()
}

impl Server {
    fn prepare(
        requests: OwnedFd,
        application: PidFd,
        lifeline: OwnedFd,
        ledger: Ledger,
    ) -> io::Result<Server> {
        // Ctrl-C is for the application to answer: this process ends when that one does.
        signal::ignore_interrupts()?;
        let ends = if kernel_keeps_ends() && !is_on_older_kernel() {
            signal::collect_no_children()?;
            Ends::Kept
        } else {
            Ends::Told(ChildNews::open()?)
        };
        // The application's own streams come along with each request; holding them here would keep a pipe
        // open that the application has closed.
        let null = descriptor::null_device()?;
        descriptor::replace_streams([null.as_fd(), null.as_fd(), null.as_fd()])?;
        // It holds one for each process, so it takes what it can get.
        let _refused = limits::raise_descriptors();
        identity::name_thread("forkserver")?;
        step!("server::prepare::ready");
        enter::warm_up();
        Ok(Server {
            requests,
            application,
            lifeline,
            ledger,
            children: HashMap::new(),
            kept: 0,
            environment: std::env::vars_os().collect(),
            bounds: Bounds::now(),
            beyond: Bounds::default(),
            ends,
            applied: 0,
            room: None,
            stock: Stock::default(),
        })
    }

    /// In a forked child: closes what the server holds, but for the lifeline. Its memory is left as it is, since what is given
    /// back is copied first.
    fn leave(self) -> OwnedFd {
        let Server {
            requests,
            application,
            lifeline,
            ledger,
            mut children,
            ends,
            room,
            mut stock,
            environment,
            bounds,
            beyond,
            applied: _,
            kept: _,
        } = self;
        // Its memory is not here.
        std::mem::forget(ledger);
        drop((requests, application, ends, room));
        stock.close();
        for (_, child) in children.drain() {
            let Tracked {
                hold, name, path, ..
            } = child;
            drop(hold);
            std::mem::forget((name, path));
        }
        std::mem::forget((children, environment, bounds, beyond, stock));
        lifeline
    }

    /// Returns in the server when the application has ended, and in each forked child at once.
    fn run(mut self) -> io::Result<Option<Box<Entrance>>> {
        self.keep_room();
        loop {
            // What is asked for comes first.
            let patience = self.stock.patience();
            let requests = self.requests.as_fd();
            let application = self.application.as_fd();
            let looked = match &self.ends {
                Ends::Kept => readable([requests, application], patience)
                    .map(|[request, is_orphan]| [request, is_orphan, false]),
                Ends::Told(news) => {
                    readable([requests, application, news.as_fd()], Deadline::NEVER)
                }
            };
            let [request, is_orphan, ended] = match looked {
                Ok(looked) => looked,
                Err(error) if error.raw_os_error() == Some(limits::OUT_OF_MEMORY) => {
                    // Nobody tells when there is memory again.
                    std::thread::sleep(PAUSE);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if ended {
                self.collect()?;
            }
            if !request && !is_orphan && self.stock.is_short() {
                match self.make_spare() {
                    Ok(Next::Spare { status, parent }) => {
                        let bounds = self.beyond.clone();
                        let lifeline = self.leave();
                        let spare = Spare {
                            status,
                            server: parent,
                            bounds,
                        };
                        return spare.wait(lifeline);
                    }
                    Ok(_) => {}
                    Err(_) => self.stock.give_up(),
                }
            }
            if request {
                // Its place is for the socket on which to say that there is no room for more.
                self.room = None;
                let mut first = None;
                let received = record::receive_or_first::<Hello>(self.requests.as_fd(), &mut first);
                match received {
                    Ok(Some(record)) => {
                        step!("server::request::received");
                        if let Next::Child(entrance) = self.answer(record) {
                            drop(self.leave());
                            return Ok(Some(entrance));
                        }
                        self.keep_room();
                        continue;
                    }
                    Ok(None) => break,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                    Err(error) if is_gone(&error) => break,
                    // What it has started must not end over a request that it cannot take in.
                    Err(error) => match first {
                        Some(status) => refuse(&status, "the server", &error),
                        // The record may be in the socket still, which is readable then: this is not to be tried without
                        // end at full speed.
                        None => std::thread::sleep(PAUSE),
                    },
                }
                self.keep_room();
            }
            if is_orphan {
                break;
            }
        }
        self.kill_daemons();
        Ok(None)
    }

    /// Where there is no room for it now, a later request is not answered if there is none then.
    fn keep_room(&mut self) {
        self.room = descriptor::spare(&self.lifeline).ok();
    }

    fn answer(&mut self, record: Record<Hello>) -> Next {
        let Record {
            mut head,
            payload,
            descriptors,
        } = record;
        let mut request = match head.take_role() {
            Role::Process(request) => request,
            Role::Withdrawn { path } => {
                self.kill_withdrawn(&path);
                return Next::Server;
            }
            Role::Census => {
                self.tell_who_lives(descriptors);
                return Next::Server;
            }
            Role::Taken {
                number,
                name,
                path,
                is_daemon,
            } => {
                self.note_taken(number, name, path, is_daemon);
                return Next::Server;
            }
            Role::Server { .. } => return Next::Server,
        };
        if request.after > self.applied {
            // There was no descriptor left to receive the request that it builds on.
            if let Some(status) = descriptors.first() {
                let news = News::Unbegun("what the fork server was told before is lost".to_owned());
                let _gone = record::send(status.as_fd(), &news, &[], &[], Patience::Now);
            }
            return Next::Server;
        }
        self.ledger.mark(request.number);
        step!("server::request::marked");
        if request.bounds.is_some() || request.environment.is_some() {
            self.applied = request.number;
            self.stock.turn_over(request.number);
        }
        if let (Ends::Kept, StartMethod::ForkServer) = (&self.ends, request.method) {
            self.stock.miss();
        }
        request.server = identity::pid();
        let is_daemon = request.identity.is_daemon;
        let (name, path) = (request.identity.name.clone(), request.identity.path.clone());
        if let Some(told) = request.bounds.take() {
            // It is this process that forks.
            told.of_processes().beyond(&self.bounds).impose();
            self.bounds = Bounds::now();
            self.beyond = told.beyond(&self.bounds);
        }
        request.bounds = Some(self.beyond.clone());
        if let Some(environment) = request.environment.take() {
            // Where threads run here nothing is forked, and an executed image is given the environment.
            let _other_threads = identity::replace_environment(&environment);
            self.environment = environment;
        }
        let rest = Record {
            head: (),
            payload,
            descriptors,
        };
        let Some(mut entrance) = Entrance::of(*request, rest) else {
            return Next::Server;
        };
        if !is_daemon {
            match self.lifeline.try_clone() {
                Ok(lifeline) => entrance.lifeline = Some(lifeline),
                Err(error) => {
                    refuse(&entrance.status, "the server", &error);
                    return Next::Server;
                }
            }
        }
        // The pid is the child's own until its pidfd is open.
        if let Err(error) = self.keep_ended() {
            refuse(&entrance.status, "the server", &error);
            return Next::Server;
        }
        let forked = match entrance.request.method {
            StartMethod::Spawn => Ok(None),
            // What is sent to the child before it has its own dispositions waits for these: Ctrl-C, which this process
            // ignores, would be lost there.
            _ => AllBlocked::for_this_thread()
                .and_then(|blocked| Ok(fork_if_alone()?.map(|forked| (blocked, forked)))),
        };
        let started = match forked {
            Ok(Some((blocked, Forked::Child))) => {
                // Memory that is given back is memory that is copied first.
                std::mem::forget((blocked, head, name, path));
                return Next::Child(Box::new(entrance));
            }
            Ok(Some((_, Forked::Parent { child }))) => Ok(child),
            Ok(None) => execute(head, &entrance, self.environment.clone())
                .map_err(|error| ("executing the program", error)),
            Err(error) => Err(("fork", error)),
        };
        step!("server::start::started");
        // What the process was given it alone has from here on: once it has ended, its ends of pipes are closed.
        let status = entrance.keep_status();
        let held = started.and_then(|pid| match PidFd::open(pid) {
            Ok(process) => Ok((pid, process)),
            Err(error) => {
                // Nobody could be told of it, so it must not run.
                kill_uncollected(pid);
                Err(("pidfd_open", error))
            }
        });
        match held {
            Ok((pid, process)) => {
                let end = match &self.ends {
                    Ends::Kept => EndIs::Kept,
                    Ends::Told(_) => EndIs::Told,
                };
                let news = News::Started { pid, end };
                let with = [process.as_fd()];
                step!("server::start::held");
                let told = record::send(status.as_fd(), &news, &[], &with, Patience::Now);
                step!("server::start::told");
                if let Some(error) = told.err().filter(|error| !is_gone(error)) {
                    // It has filled the socket itself, or the system is short of something. Nobody would learn of it, so
                    // it must not run on; that it has ended is told when there is room again.
                    let _ended = process.kill();
                    refuse(&status, "telling of it", &error);
                }
                let hold = match end {
                    EndIs::Kept => Hold::Process(process),
                    EndIs::Told => Hold::Status(status),
                };
                let child = Tracked {
                    hold,
                    is_daemon,
                    name,
                    path,
                };
                self.children.insert(pid, child);
            }
            Err((what, error)) => refuse(&status, what, &error),
        }
        self.let_ended_go();
        Next::Server
    }

    /// Forks a process ahead of need, and offers it to the application.
    fn make_spare(&mut self) -> io::Result<Next> {
        let (offered, status) = socket::record_pair()?;
        let parent = identity::pid();
        // As for any other child: see `answer`.
        self.keep_ended()?;
        let forked = fork_if_alone();
        let made = match forked {
            Ok(Some(Forked::Child)) => {
                drop(offered);
                return Ok(Next::Spare { status, parent });
            }
            Ok(Some(Forked::Parent { child })) => self.offer(child, &offered),
            // It would have to be executed, which it is when it is asked for.
            Ok(None) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(error),
        };
        // The spare alone has its end, so that the kernel says whether it took its request.
        drop(status);
        self.let_ended_go();
        made.map(|()| Next::Server)
    }

    /// Where the offer cannot be made, the spare sees its socket close, and leaves.
    fn offer(&mut self, pid: u32, socket: &OwnedFd) -> io::Result<()> {
        step!("server::spare::forked");
        let process = PidFd::open(pid)?;
        let offer = self.stock.next(pid);
        let with = [process.as_fd(), socket.as_fd()];
        record::send(self.requests.as_fd(), &offer, &[], &with, Patience::Now)?;
        step!("server::spare::offered");
        self.stock.put(&offer, process);
        Ok(())
    }

    /// A spare is a process now, unless it has ended.
    fn note_taken(&mut self, number: u64, name: String, path: Vec<u64>, is_daemon: bool) {
        if let Some((pid, process)) = self.stock.take(number) {
            let child = Tracked {
                hold: Hold::Process(process),
                is_daemon,
                name,
                path,
            };
            self.children.insert(pid, child);
            self.sweep_at_times();
        }
    }

    /// Has children that end wait until they are collected.
    fn keep_ended(&self) -> io::Result<()> {
        match &self.ends {
            Ends::Kept => signal::keep_ended_children(),
            Ends::Told(_) => Ok(()),
        }
    }

    /// Has the kernel collect children that end, after those that have ended meanwhile.
    fn let_ended_go(&mut self) {
        if let Ends::Told(_) = &self.ends {
            return;
        }
        // It fails for no valid signal.
        let _set = signal::collect_no_children();
        while let Ok(Some(_)) = reap_any() {}
        step!("server::start::let_go");
        self.sweep_at_times();
    }

    /// So often that each start pays for a few looks on average, however many there are.
    fn sweep_at_times(&mut self) {
        if self.children.len() > 2 * self.kept + 8 {
            self.sweep();
        }
    }

    /// Lets go of the children that have ended.
    fn sweep(&mut self) {
        self.children.retain(|_, child| child.is_there());
        self.kept = self.children.len();
    }

    /// Collects every child that has ended and tells of it, or finds that the kernel has collected it.
    fn collect(&mut self) -> io::Result<()> {
        let Ends::Told(news) = &self.ends else {
            self.sweep();
            return Ok(());
        };
        news.clear();
        while let Some((pid, status)) = reap_any()? {
            let tracked = self.children.remove(&pid);
            if let Some(Hold::Status(socket)) = tracked.map(|child| child.hold) {
                let news = News::Exited {
                    status: status.into_raw(),
                };
                step!("server::collect::reaped");
                let _gone = record::send(socket.as_fd(), &news, &[], &[], Patience::Now);
                step!("server::collect::told");
            }
        }
        Ok(())
    }

    /// Kills the process that the application cannot hold. One that was not started is not there.
    fn kill_withdrawn(&self, path: &[u64]) {
        let is_it = |(_, child): &(&u32, &Tracked)| child.path == path;
        if let Some((&pid, child)) = self.children.iter().find(is_it) {
            child.kill(pid);
        }
    }

    /// Answers which children are alive, over the socket that came with the question.
    fn tell_who_lives(&mut self, descriptors: Vec<OwnedFd>) {
        // What has ended a moment ago is not alive.
        let _later = self.collect();
        let alive: Vec<(&str, u32)> = self
            .children
            .iter()
            .map(|(&pid, child)| (child.name.as_str(), pid))
            .collect();
        if let Some(answer) = descriptors.first() {
            let _gone = record::send(answer.as_fd(), &alive, &[], &[], Patience::Now);
        }
    }

    fn kill_daemons(&self) {
        for (&pid, child) in self.children.iter().filter(|(_, child)| child.is_daemon) {
            child.kill(pid);
        }
    }
}

/// Tells that the process was not started.
fn refuse(status: &OwnedFd, what: &str, error: &io::Error) {
    let news = News::refused(what, error);
    let _gone = record::send(status.as_fd(), &news, &[], &[], Patience::Now);
}

/// Executes the program for one process. Its greeting waits in a socket that the image inherits.
fn execute(
    greeting: Hello,
    entrance: &Entrance,
    mut environment: Vec<(OsString, OsString)>,
) -> io::Result<u32> {
    let nonce = identity::nonce()?;
    let request = StartRequest {
        environment: None,
        // The image starts with them.
        variables: Vec::new(),
        has_lifeline: entrance.lifeline.is_some(),
        ..entrance.request.clone()
    };
    let hello = greeting.again(nonce, Role::Process(Box::new(request)));
    let (here, there) = socket::record_pair()?;
    let mut descriptors: Vec<BorrowedFd<'_>> = vec![entrance.status.as_fd()];
    descriptors.extend(entrance.streams.iter().flatten().map(AsFd::as_fd));
    descriptors.extend(entrance.directory.as_ref().map(AsFd::as_fd));
    descriptors.extend(entrance.lifeline.as_ref().map(AsFd::as_fd));
    descriptors.extend(entrance.call.descriptors.iter().map(AsFd::as_fd));
    record::send(
        here.as_fd(),
        &hello,
        &entrance.call.arguments,
        &descriptors,
        Patience::Now,
    )?;
    for (name, value) in &entrance.request.variables {
        environment.retain(|(known, _)| known != name);
        environment.push((name.clone(), value.clone()));
    }
    image(&there, nonce, environment)
}

/// Starts an image of the program, a child, that finds its greeting in `socket`.
fn image(
    socket: &OwnedFd,
    nonce: [u8; 16],
    environment: Vec<(OsString, OsString)>,
) -> io::Result<u32> {
    let environment = inviting(environment, nonce);
    exec::ourselves(&exec::Start {
        environment: &environment,
        socket: socket.as_fd(),
    })
}

/// The environment that makes an image of the program look for its greeting in the socket that it inherits.
pub(crate) fn inviting(
    mut environment: Vec<(OsString, OsString)>,
    nonce: [u8; 16],
) -> Vec<(OsString, OsString)> {
    let nonce: String = nonce.iter().map(|byte| format!("{byte:02x}")).collect();
    environment.retain(|(name, _)| name != VARIABLE);
    environment.push((VARIABLE.into(), format!("{}:{nonce}", exec::SOCKET).into()));
    environment
}
