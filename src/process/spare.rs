//! A *spare*: a process that the fork server has forked ahead of need, and that waits to be told what it is to be.
//!
//! A fork is the longest step of a start. With a spare it is made before: the application asks the spare itself, and the server
//! forks the next one behind that. A spare has also rehearsed what it will do: see [`enter::rehearse`]. Nothing else differs, and
//! whatever speaks against a spare, the server is asked.
//!
//! # Who owns what
//!
//! The server makes a socket pair, forks the spare with one end, and sends the other and a pidfd to the application, an
//! [`Offer`] that waits in the socket of requests until the next start. From then on the spare is the application's
//! alone: the server never gives it anything, nor kills it. That socket is the process's status socket. The application sends
//! the request over it, and then tells the server, for the server's list of who lives and as the sign to fork another.
//!
//! # Who dies
//!
//! It is the kernel that keeps the ledger here: a socket that is closed with a record unread is *reset* for its peer, and merely
//! closed if all was taken out. No other process has the spare's end, until it runs a user's function.
//!
//! | who dies | when | then |
//! |---|---|---|
//! | spare | before the request is sent | sending is an error: the next spare, or the server, is asked |
//! | spare | before it has taken the request out | a reset: nothing has begun, and the server is asked |
//! | spare | after that | a process that has begun and ended, as any other; never a second start |
//! | server | before it has sent the offer | the kernel kills the spare, even one that was stopped, but in its first system calls |
//! | server | later, before the request is sent | likewise; the application sees a dead server first, and starts another |
//! | server | at the same time | the spare is killed with the request unread, a reset; or has taken it out: then one that is to be a daemon, and has no parent to die with, says that it has not begun |
//! | server | after that | daemons are killed by the kernel, others run on |
//! | application | before the request is sent | the spare's socket closes, and it leaves |
//! | application | before the spare has taken it out | nothing begins, or the process runs |
//! | application | after that | the process runs, as if the server had started it; the server leaves, and daemons end with it |
//!
//! A spare that is stopped is made to go on by whoever waits for it; one that the application lets go of, at its end or since it
//! was born under something else, is killed. One that is not needed for [`IDLE`] leaves.
//!
//! # What is of the moment of the start
//!
//! | what | how |
//! |---|---|
//! | streams, directory, variables of its own, stack size, name, what a daemon is | come along with the request |
//! | environment, limits, processors, file mode mask | are the server's; an offer says after which request it was forked, and one from before a change is dropped |
//! | rights | the server's; a server of other rights is asked nothing |
//! | signals | Ctrl-C is ignored till the request is taken, as it is by the server, and nothing is left pending; then as in any process |
//!
//! There are spares only where the kernel keeps how a process ended: otherwise the server would have to hold its socket.

use crate::deadline::Deadline;
use crate::process::enter::{self, Entrance};
use crate::process::request::{EndIs, Hello, News, Role};
use crate::sys::identity;
use crate::sys::limits::Bounds;
use crate::sys::pidfd::PidFd;
use crate::sys::poll::readable;
use crate::sys::signal::{self, AllBlocked};
use crate::sys::socket::{Patience, is_gone};
use crate::sys::step::step;
use crate::wire::record::{self, Record};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How long a spare waits for a request.
const IDLE: Duration = Duration::from_secs(10);

/// What `ps` shows of one.
const NAME: &str = "forkserver-idle";

/// The spare's side.
#[derive(Debug)]
pub(crate) struct Spare {
    pub(crate) status: OwnedFd,
    /// The fork server, which is its parent.
    pub(crate) server: u32,
    /// What the server's children are held to beyond what it is held to itself.
    pub(crate) bounds: Bounds,
}

impl Spare {
    /// Waits for a request; `None` where it is not needed. Keeps the lifeline meanwhile, so that an application that ends
    /// normally leaves no spare behind, and for good if it is to be no daemon.
    pub(crate) fn wait(self, lifeline: OwnedFd) -> io::Result<Option<Box<Entrance>>> {
        // Should somebody have stopped it, it leaves nevertheless: before it has the name by which it is known.
        if identity::die_with_parent(self.server).is_err() {
            return Ok(None);
        }
        // Nobody else has its pid: with it, this process would have been killed.
        let server = PidFd::open(self.server)?;
        identity::name_thread(NAME)?;
        // A Ctrl-C of before the start must not be pending then.
        signal::unblock_all()?;
        enter::rehearse();
        step!("spare::wait::ready");
        let waited_for = [self.status.as_fd(), server.as_fd()];
        let [request, _] = readable(waited_for, Deadline::after(IDLE))?;
        if !request {
            return Ok(None);
        }
        // It may be one that runs on.
        identity::outlive_parent()?;
        // As in a process that was forked just now: what comes from here on waits until it can be heeded.
        std::mem::forget(AllBlocked::for_this_thread()?);
        step!("spare::request::there");
        let record = match record::receive::<Hello>(self.status.as_fd(), Patience::Now) {
            Ok(Some(record)) => record,
            Ok(None) => return Ok(None),
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => {
                let news = News::refused("a process forked ahead", &error);
                let _gone = record::send(self.status.as_fd(), &news, &[], &[], Patience::Now);
                return Err(error);
            }
        };
        step!("spare::request::received");
        drop(server);
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        self.answer(record, lifeline).map(Some).ok_or_else(invalid)
    }

    fn answer(self, record: Record<Hello>, lifeline: OwnedFd) -> Option<Box<Entrance>> {
        let Record {
            mut head,
            payload,
            mut descriptors,
        } = record;
        let Role::Process(mut request) = head.take_role() else {
            return None;
        };
        request.server = self.server;
        request.bounds = Some(self.bounds);
        let is_daemon = request.identity.is_daemon;
        if is_daemon && identity::die_with_parent(self.server).is_err() {
            // It would end before it has begun.
            let news = News::Unbegun("the fork server died over it".to_owned());
            let _gone = record::send(self.status.as_fd(), &news, &[], &[], Patience::Now);
            return None;
        }
        descriptors.insert(0, self.status);
        let rest = Record {
            head: (),
            payload,
            descriptors,
        };
        let mut entrance = Entrance::of(*request, rest)?;
        entrance.lifeline = (!is_daemon).then_some(lifeline);
        let news = News::Started {
            pid: identity::pid(),
            end: EndIs::Kept,
        };
        let told = record::send(entrance.status.as_fd(), &news, &[], &[], Patience::Now);
        step!("spare::request::told");
        // Where the application is gone the process runs nevertheless, as if the server had started it.
        told.or_else(|error| if is_gone(&error) { Ok(()) } else { Err(error) })
            .ok()?;
        Some(Box::new(entrance))
    }
}
