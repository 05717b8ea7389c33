//! What is said between an application, its fork server and a process that starts.
//!
//! | from | to | over | what |
//! |---|---|---|---|
//! | application | a new image of the program | the inherited socket | one [`Hello`], waiting there before the image runs |
//! | application | fork server | the same socket | one [`Hello`] with a [`StartRequest`] for each process |
//! | application | fork server | the same socket | one [`Hello`] that withdraws a process, or asks which are alive |
//! | fork server | application | the process's own status socket | [`News::Started`] or [`News::Refused`]; later [`News::Exited`], where the kernel does not keep how a process ended |
//! | fork server | application | the inherited socket, the other way | one [`Offer`] for each process forked ahead of need |
//! | application | such a process | its status socket, the other way | one [`Hello`] with a [`StartRequest`] |
//! | such a process | application | its status socket | [`News::Started`] |
//! | process | application | its status socket | [`News::Returned`], before it exits |

use crate::error::TaskError;
use crate::process::current::Identity;
use crate::sys::function::FunctionId;
use crate::sys::image::main_image;
use crate::sys::limits::{self, Bounds};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io;

/// Selects how a process comes to be.
///
/// All run the same executable, and a function behaves the same under each; what differs is what a process finds when it
/// starts, and how fast that is.
///
/// # Examples
///
/// ```
/// use multiprocess::{Process, StartMethod};
///
/// let child = Process::builder().start_method(StartMethod::Spawn).spawn(20, |n: i32| n + 1)?;
/// assert_eq!(child.join()?, 21);
/// # Ok::<(), multiprocess::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum StartMethod {
    /// Forks a small, single-threaded server: a fresh copy of the program that has run its constructors and nothing else.
    /// The fastest, whatever the size of the application. The server is executed once, when it is first needed.
    ///
    /// Where a constructor of the program has started a thread, the server cannot fork; it then executes the program for
    /// each process, as [`Spawn`](StartMethod::Spawn) does.
    #[default]
    ForkServer,
    /// Executes the program anew for each process, constructors and all.
    Spawn,
    /// Forks here and now: the process has everything that this one has in memory, code of loaded libraries included, and
    /// each of its open files. Its time and memory grow with those of this process.
    ///
    /// Refused while other threads run here: what they hold would stay held in the copy for ever. Signal handlers, exit
    /// handlers and what is printed but not yet written out stay behind in this process.
    ///
    /// Between the two stands a process that waits for the new one and tells how it ended; it holds nothing but that, and
    /// neither is seen by a `waitpid` of this process. That it has ended as well is taken note of whenever a process
    /// is started, waited for, or [asked about](crate::active_children).
    Fork,
}

/// Whether a panic of the function is printed on standard error as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Echo {
    Printed,
    Silent,
}

/// The name of the variable that makes an image of the program a child; another version of this crate has another.
pub(crate) const VARIABLE: &str = concat!("MULTIPROCESS_CHILD_", env!("CARGO_PKG_VERSION"));

const MAGIC: u64 = 0x6d75_6c74_6970_726f;

/// The first words to an image of the program: proof that both are the same build and mean each other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    magic: u64,
    version: String,
    build_id: Vec<u8>,
    nonce: [u8; 16],
    pub(crate) role: Role,
}

/// What an image of the program is to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    /// A fork server for the application whose pidfd comes along.
    Server { application: u32 },
    /// One process.
    Process(Box<StartRequest>),
    /// The one that was asked for with this place in the family, of which no news could be received: it is not to run.
    Withdrawn { path: Vec<u64> },
    /// The spare of this number was given a request, and is this process from then on.
    Taken {
        number: u64,
        name: String,
        path: Vec<u64>,
        is_daemon: bool,
    },
    /// A question: which children are alive. The answer goes to the socket that comes along: a list of names and pids.
    Census,
}

impl Hello {
    pub(crate) fn new(nonce: [u8; 16], role: Role) -> Hello {
        Hello {
            magic: MAGIC,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            build_id: main_image().build_id().to_vec(),
            nonce,
            role,
        }
    }

    /// Takes out what is wanted; a question is left in its place.
    pub(crate) fn take_role(&mut self) -> Role {
        std::mem::replace(&mut self.role, Role::Census)
    }

    /// The same greeting to another image.
    pub(crate) fn again(self, nonce: [u8; 16], role: Role) -> Hello {
        Hello {
            nonce,
            role,
            ..self
        }
    }

    /// What speaks against it, if anything does.
    pub(crate) fn objection(&self, nonce: [u8; 16]) -> Option<&'static str> {
        if self.magic != MAGIC {
            Some("it is no greeting of this crate")
        } else if self.version != env!("CARGO_PKG_VERSION") {
            Some("it comes from another version of this crate")
        } else if self.build_id != main_image().build_id() {
            Some("it comes from another build of the program")
        } else if self.nonce != nonce {
            Some("it was not meant for this process")
        } else {
            None
        }
    }
}

/// A process to be started. Its arguments are the record's payload.
///
/// The record's descriptors are, in this order: the status socket; those standard streams that are open; the current
/// directory, if it comes along; the lifeline, likewise; and those of the arguments.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StartRequest {
    /// Counts the requests to one server, from 1.
    pub(crate) number: u64,
    /// The last request that changed what processes are born with: this one is not to be answered by whoever has not got that.
    pub(crate) after: u64,
    pub(crate) identity: Identity,
    pub(crate) method: StartMethod,
    pub(crate) echo: Echo,
    pub(crate) function: FunctionId,
    /// The fork server, which is the new process's parent to the kernel. It says so itself.
    pub(crate) server: u32,
    /// From the application: what it is held to, where that differs from what the server was last told. To the process: where
    /// that differs from what the server is held to itself.
    pub(crate) bounds: Option<Bounds>,
    /// Which of standard input, output and error come along.
    pub(crate) streams: [bool; 3],
    pub(crate) has_directory: bool,
    /// Whether the end of the lifeline comes along that a non-daemon holds until it ends. A forked one has it already.
    pub(crate) has_lifeline: bool,
    /// The application's environment, where it differs from what the server was last told.
    pub(crate) environment: Option<Vec<(OsString, OsString)>>,
    /// Variables for this process alone.
    pub(crate) variables: Vec<(OsString, OsString)>,
    /// Bytes for the function's stack; `None` for what the system gives.
    pub(crate) stack_size: Option<u64>,
}

impl StartRequest {
    /// For a process that runs `function`, with nothing of its own. What is of the moment is filled in as it is sent.
    pub(crate) fn new(
        identity: Identity,
        method: StartMethod,
        echo: Echo,
        function: FunctionId,
    ) -> StartRequest {
        StartRequest {
            number: 0,
            after: 0,
            identity,
            method,
            echo,
            function,
            server: 0,
            bounds: None,
            streams: [false; 3],
            has_directory: false,
            has_lifeline: false,
            environment: None,
            variables: Vec::new(),
            stack_size: None,
        }
    }
}

/// A process that was forked ahead of need; its pidfd and the application's end of its status socket come along.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Offer {
    /// Counts the spares of one server, from 1.
    pub(crate) number: u64,
    pub(crate) pid: u32,
    /// The last request with another environment or other bounds that the server had taken in before it forked this one.
    pub(crate) after: u64,
}

/// Whence its starter will know how a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EndIs {
    /// The kernel keeps it for whoever holds the process's pidfd.
    Kept,
    /// Whoever has told of the start tells of the end as well, with [`News::Exited`].
    Told,
}

/// What becomes of a process. The payload of `Returned` is the encoded result.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum News {
    /// It runs; its pidfd comes along.
    Started { pid: u32, end: EndIs },
    /// It could not be started.
    Refused {
        what: String,
        errno: i32,
        limit: Option<String>,
    },
    /// Nothing was started, for this reason, and nothing speaks against asking again.
    Unbegun(String),
    /// Its function has ended.
    Returned(Result<(), TaskError>),
    /// It has ended, with this wait status; only where that [is told](EndIs::Told).
    Exited { status: i32 },
}

impl News {
    pub(crate) fn refused(what: &str, error: &io::Error) -> News {
        News::Refused {
            what: what.to_owned(),
            errno: error.raw_os_error().unwrap_or_default(),
            limit: limits::behind(error),
        }
    }
}
