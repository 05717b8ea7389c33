//! What a fresh process does before its function, and after it.

use crate::error::{TaskError, TaskErrorKind};
use crate::process::current::{self, Identity};
use crate::process::request::{Echo, Hello, News, Role, StartMethod, StartRequest};
use crate::sys::identity::{self, exit_now};
use crate::sys::socket::{Patience, RECORD_MAX, is_gone};
use crate::sys::step::step;
use crate::sys::{descriptor, function, limits, signal};
use crate::task::{self, Call, Returned};
use crate::wire::codec;
use crate::wire::record::{self, Record};
use crate::wire::value::Packed;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The exit code of a process whose function panicked, as of any Rust program.
const PANICKED: i32 = 101;
/// The exit code of a process that could not be what it was started for.
pub(crate) const REFUSED: i32 = 70;

/// A process that is about to run its function.
#[derive(Debug)]
pub(crate) struct Entrance {
    pub(crate) request: StartRequest,
    pub(crate) status: OwnedFd,
    pub(crate) streams: [Option<OwnedFd>; 3],
    pub(crate) directory: Option<OwnedFd>,
    pub(crate) lifeline: Option<OwnedFd>,
    pub(crate) call: Call,
}

impl Entrance {
    /// Sorts the descriptors of a request's record; `None` where they are not what the request says.
    pub(crate) fn of(request: StartRequest, record: Record<()>) -> Option<Entrance> {
        let mut descriptors = record.descriptors.into_iter();
        let status = descriptors.next()?;
        let mut streams = [None, None, None];
        for (stream, comes_along) in streams.iter_mut().zip(request.streams) {
            if comes_along {
                *stream = Some(descriptors.next()?);
            }
        }
        let directory = if request.has_directory {
            Some(descriptors.next()?)
        } else {
            None
        };
        let lifeline = if request.has_lifeline {
            Some(descriptors.next()?)
        } else {
            None
        };
        let call = Call {
            arguments: record.payload,
            descriptors: descriptors.collect(),
        };
        Some(Entrance {
            request,
            status,
            streams,
            directory,
            lifeline,
            call,
        })
    }

    /// In who has started the process: closes all that is the process's own now, but for its status socket.
    pub(crate) fn keep_status(self) -> OwnedFd {
        self.status
    }

    /// Runs the function and ends the process.
    pub(crate) fn run(self) -> ! {
        let Entrance {
            request,
            status,
            streams,
            directory,
            lifeline,
            call,
        } = self;
        // Held until the process ends, by whatever way.
        std::mem::forget(lifeline);
        if let Err(error) = settle(&request, streams, directory) {
            let said = format!("cannot become process {:?}: {error}", request.identity.name);
            eprintln!("multiprocess: {said}");
            exit_now(REFUSED)
        }
        step!("child::enter::settled");
        let Some(entry) = function::resolve::<Call, Returned>(request.function) else {
            eprintln!("multiprocess: the function to run is not in this program");
            exit_now(REFUSED)
        };
        become_one(request.identity, request.echo);
        step!("child::enter::ready");
        let code = perform(entry, call, request.stack_size, status);
        // It flushes standard output, unless another thread has that locked.
        std::process::exit(code)
    }
}

/// Takes over identity, name and the word on panics.
pub(crate) fn become_one(identity: Identity, echo: Echo) {
    // The name is for people who look on.
    let _unnamed = identity::name_thread(&identity.name);
    current::assume(identity);
    task::record_panics(match echo {
        Echo::Printed => task::Echo::Printed,
        Echo::Silent => task::Echo::Silent,
    });
}

/// Runs the function and sends what it came to; returns the exit code.
pub(crate) fn perform(
    entry: function::Entry<Call, Returned>,
    call: Call,
    stack_size: Option<u64>,
    status: OwnedFd,
) -> i32 {
    let returned = match stack_size {
        None => run_here(entry, call),
        Some(bytes) => run_on_stack(entry, call, bytes),
    };
    give_back(returned, status)
}

/// Sends what the function came to; returns the exit code. What was printed and not yet written out is so at the end of the
/// process, for which whoever joins it waits: a thread that keeps standard output locked must not keep the result.
pub(crate) fn give_back(returned: Returned, status: OwnedFd) -> i32 {
    let code = match &returned.0 {
        Err(error) if error.is_panic() => PANICKED,
        _ => 0,
    };
    let (head, payload) = match returned.0 {
        Ok(packed) => (News::Returned(Ok(())), packed),
        Err(error) => (News::Returned(Err(error)), Packed::default()),
    };
    step!("child::return::run");
    let descriptors: Vec<BorrowedFd<'_>> =
        payload.descriptors.iter().map(|one| one.as_fd()).collect();
    let told = record::send(
        status.as_fd(),
        &head,
        &payload.bytes,
        &descriptors,
        Patience::Wait,
    );
    step!("child::return::told");
    // Nobody may be there to hear it: the handle was dropped, or the parent has ended. Anything else is told in a record that
    // needs no descriptor and no memory file.
    if let Err(error) = told.or_else(|error| if is_gone(&error) { Ok(()) } else { Err(error) }) {
        let limit = limits::behind(&error).map_or(String::new(), |limit| format!(" ({limit})"));
        let why = format!("its result could not be sent: {error}{limit}");
        let lost = TaskError::new(TaskErrorKind::System, why);
        let head = News::Returned(Err(lost));
        let _unheard = record::send(status.as_fd(), &head, &[], &[], Patience::Wait);
    }
    code
}

fn run_here(entry: function::Entry<Call, Returned>, mut call: Call) -> Returned {
    entry(&mut call)
}

fn run_on_stack(entry: function::Entry<Call, Returned>, call: Call, bytes: u64) -> Returned {
    let size = usize::try_from(bytes).unwrap_or(usize::MAX);
    let name = current::identity().name.clone();
    let system = |why: String| Returned(Err(TaskError::new(TaskErrorKind::System, why)));
    let thread = std::thread::Builder::new()
        .name(name.replace('\0', " "))
        .stack_size(size);
    match thread.spawn(move || run_here(entry, call)) {
        Err(error) => {
            let limit = limits::behind(&error).map_or(String::new(), |limit| format!(" ({limit})"));
            system(format!("no stack of {bytes} bytes: {error}{limit}"))
        }
        Ok(thread) => thread
            .join()
            .unwrap_or_else(|_| system("its thread ended".to_owned())),
    }
}

/// Makes the process what its parent wants it to be.
fn settle(
    request: &StartRequest,
    streams: [Option<OwnedFd>; 3],
    directory: Option<OwnedFd>,
) -> io::Result<()> {
    // In this order: what came while it was blocked is not ignored then.
    signal::heed_interrupts()?;
    signal::unblock_all()?;
    if request.identity.is_daemon {
        identity::die_with_parent(request.server)?;
    }
    let mut streams = streams
        .each_ref()
        .map(|stream| stream.as_ref().map(AsFd::as_fd));
    if streams.iter().any(Option::is_none) {
        let ours = descriptor::streams();
        streams = [0, 1, 2].map(|number: usize| streams[number].or(ours[number]));
    }
    if let [Some(input), Some(output), Some(error)] = streams {
        descriptor::replace_streams([input, output, error])?;
    }
    if let Some(directory) = directory {
        identity::change_directory(directory)?;
    }
    if !request.variables.is_empty() {
        identity::add_to_environment(&request.variables)?;
    }
    // The last, since it may leave no room for anything.
    if let Some(bounds) = &request.bounds {
        bounds.impose();
    }
    Ok(())
}

/// Does once, in the server, what each process would do first of all: to look up functions of the C library, to set up what
/// is set up at its first use.
pub(crate) fn warm_up() {
    flush();
    // It has no handles and fails in no way.
    let _packed = task::run_and_pack(|| (0u8, ()));
    limits::processors();
    limits::longest_message();
}

/// Does, in a process that waits to be told what it is to be, what it will do then, with a function that does nothing; keeps
/// nothing of it.
///
/// After a fork, a page is copied when it is first written to, and code is mapped when it is first run. That took a process more
/// time than all that it did between its request and its result; here it takes nobody's.
pub(crate) fn rehearse() {
    let nothing = task::describe_call(|()| ());
    if let Some(function) = nothing.id {
        let identity = current::next_child(None, false);
        let (method, echo) = (StartMethod::ForkServer, Echo::Printed);
        let request = StartRequest::new(identity, method, echo, function);
        // It fails for no request, and if it did, that would be told when there is one.
        let _failed = rehearse_start(&Hello::new([0; 16], Role::Process(Box::new(request))));
    }
}

fn rehearse_start(hello: &Hello) -> Result<(), String> {
    // As much as a record is received into.
    let mut bytes = Vec::with_capacity(RECORD_MAX);
    codec::encode(hello, &mut bytes)?;
    let mut hello: Hello = codec::decode(&bytes)?;
    let Role::Process(request) = hello.take_role() else {
        return Ok(());
    };
    if let Some(entry) = function::resolve::<Call, Returned>(request.function) {
        let call = Call {
            arguments: Vec::new(),
            descriptors: Vec::new(),
        };
        let _nothing = run_here(entry, call);
        flush();
        bytes.clear();
        codec::encode(&News::Returned(Ok(())), &mut bytes)?;
    }
    Ok(())
}

/// Writes out what the function has printed. A stream that is closed or full is no failure of the function.
pub(crate) fn flush() {
    let _closed = io::stdout().flush();
    let _closed = io::stderr().flush();
}
