//! Becoming a child: what an image of the program does before `main`, if it was started by this crate.
//!
//! | found | then |
//! |---|---|
//! | no variable | nothing: the program starts as any other |
//! | the variable, and behind it a socket of our own user with a greeting that fits | the other constructors run, and the process serves; `main` never runs |
//! | the variable, and anything else | a word on standard error, and the end: a program that was started as a child must not run `main` |

use crate::process::enter::{Entrance, REFUSED};
use crate::process::ledger::Ledger;
use crate::process::request::{Hello, Role, VARIABLE};
use crate::process::server;
use crate::sys::identity::{self, exit_now};
use crate::sys::pidfd::PidFd;
use crate::sys::socket::{self, Patience};
use crate::sys::step::step;
use crate::sys::{descriptor, hook, signal};
use crate::wire::record::{self, Record};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

hook::before_main!(serve_if_child);

/// Keeps the constructor in every program that can start a process: whoever calls this needs this file.
pub(crate) fn is_linked() -> bool {
    crate::sys::image::main_image().constructors_behind(&raw const BEFORE_MAIN as usize) != (0..0)
}

/// What the variable says.
static INVITATION: OnceLock<(i32, [u8; 16])> = OnceLock::new();

/// Whether this process has become what it was started for, or was forked from one that has. The thread that sets it is the one
/// that goes on to serve.
static SERVING: AtomicBool = AtomicBool::new(false);

/// Whether this image is to become a child, and is still at the constructors of the program: at one that stands before this
/// crate's, where the variable is there, or behind it, where it was taken in.
pub(crate) fn is_still_to_serve() -> bool {
    let is_asked = INVITATION.get().is_some() || std::env::var_os(VARIABLE).is_some();
    is_asked && !SERVING.load(Ordering::Relaxed)
}

fn serve_if_child() -> Option<fn() -> !> {
    let value = std::env::var_os(VARIABLE)?;
    // With several threads, which an earlier constructor must have started, it stays; then it is filtered out later.
    let _other_threads = identity::remove_from_environment(VARIABLE);
    if identity::is_privileged_image() {
        refuse("the program runs with more rights than its caller has");
    }
    match value.to_str().and_then(parse) {
        Some(invitation) => {
            let _first = INVITATION.set(invitation);
        }
        None => refuse("the variable is malformed"),
    }
    Some(serve)
}

/// Reads `number:nonce`.
pub(crate) fn parse(value: &str) -> Option<(i32, [u8; 16])> {
    let (number, digits) = value.split_once(':')?;
    if digits.len() != 32 || !digits.is_ascii() {
        return None;
    }
    let mut nonce = [0; 16];
    for (at, byte) in nonce.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
    }
    Some((number.parse().ok()?, nonce))
}

fn refuse(why: &str) -> ! {
    eprintln!("multiprocess: refused to become a child process ({VARIABLE} is set): {why}");
    exit_now(REFUSED)
}

fn serve() -> ! {
    SERVING.store(true, Ordering::Relaxed);
    let Some(&(number, nonce)) = INVITATION.get() else {
        refuse("nothing was asked")
    };
    match accept(number, nonce) {
        Err(error) => refuse(&error.to_string()),
        Ok(Accepted::Server(socket, application, lifeline, ledger)) => {
            server::serve(socket, application, lifeline, ledger)
        }
        Ok(Accepted::Process(entrance)) => entrance.run(),
    }
}

enum Accepted {
    Server(OwnedFd, PidFd, OwnedFd, Ledger),
    Process(Box<Entrance>),
}

fn accept(number: i32, nonce: [u8; 16]) -> io::Result<Accepted> {
    let invalid = |why| io::Error::new(io::ErrorKind::InvalidData, why);
    let socket = socket::adopt_inherited(number)?;
    step!("child::accept::adopted");
    descriptor::fill_streams()?;
    let record: Record<Hello> =
        record::receive(socket.as_fd(), Patience::Now)?.ok_or_else(|| invalid("nobody greets"))?;
    let Record {
        head,
        payload,
        descriptors,
    } = record;
    if let Some(objection) = head.objection(nonce) {
        return Err(invalid(objection));
    }
    signal::ignore_broken_pipes()?;
    signal::report_stack_overflow()?;
    match head.role {
        Role::Server { application: _ } => {
            let mut descriptors = descriptors.into_iter();
            match (descriptors.next(), descriptors.next(), descriptors.next()) {
                (Some(application), Some(lifeline), Some(ledger)) => {
                    let application = PidFd::adopt(application);
                    let ledger = Ledger::adopt(ledger)?;
                    Ok(Accepted::Server(socket, application, lifeline, ledger))
                }
                _ => Err(invalid("whose server is not said")),
            }
        }
        Role::Withdrawn { .. } | Role::Taken { .. } | Role::Census => {
            Err(invalid("it is no server yet"))
        }
        Role::Process(request) => {
            let rest = Record {
                head: (),
                payload,
                descriptors,
            };
            let entrance =
                Entrance::of(*request, rest).ok_or_else(|| invalid("descriptors are missing"))?;
            step!("child::accept::greeted");
            Ok(Accepted::Process(Box::new(entrance)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_and_a_whole_nonce_are_an_invitation() {
        let nonce = "00112233445566778899aabbccddeeff";
        assert_eq!(parse(&format!("7:{nonce}")).unwrap().0, 7);
        for bad in [
            "",
            "7",
            "7:",
            "x:00",
            "7:zz",
            ":",
            "7:00112233445566778899aabbccddeef",
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
        assert!(parse(&format!("7:{}", "é".repeat(16))).is_none());
    }

    #[test]
    fn the_constructor_is_in_the_executable() {
        assert!(is_linked());
    }
}
