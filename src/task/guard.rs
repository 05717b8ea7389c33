//! Panics, caught and told: the only `catch_unwind`.

use crate::error::{TaskError, TaskErrorKind};
use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};

/// Whether a panic that is caught is also printed on standard error, as usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Echo {
    Printed,
    Silent,
}

struct Recorded {
    message: String,
    location: Option<String>,
    backtrace: Option<String>,
}

thread_local! {
    /// How many guards this thread is in, and the last panic in one.
    static GUARDED: RefCell<(usize, Option<Recorded>)> = const { RefCell::new((0, None)) };
}

/// Has panics in guarded calls remembered, with place and backtrace. Others are printed as before.
///
/// Where a panic aborts the process, it is printed in any case: nobody will be there to tell of it.
pub(crate) fn record_panics(echo: Echo) {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let guarded = GUARDED.with(|guarded| match guarded.try_borrow_mut() {
            Ok(mut guarded) if guarded.0 > 0 => {
                guarded.1 = Some(Recorded::of(info));
                true
            }
            _ => false,
        });
        if !guarded || echo == Echo::Printed || cfg!(panic = "abort") {
            before(info);
        }
    }));
}

impl Recorded {
    fn of(info: &PanicHookInfo<'_>) -> Recorded {
        let backtrace = Backtrace::capture();
        Recorded {
            message: message_of(info.payload()),
            location: info.location().map(ToString::to_string),
            backtrace: (backtrace.status() == BacktraceStatus::Captured)
                .then(|| backtrace.to_string()),
        }
    }
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "Box<dyn Any>".to_owned()
    }
}

/// Runs code of the user's; a panic in it is an error.
///
/// What `call` leaves behind half done is the caller's concern: nothing of it may be used again but by its own account.
#[inline]
pub(crate) fn guard<R>(call: impl FnOnce() -> R) -> Result<R, TaskError> {
    GUARDED.with(|guarded| guarded.borrow_mut().0 += 1);
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    let recorded = GUARDED.with(|guarded| {
        let mut guarded = guarded.borrow_mut();
        guarded.0 -= 1;
        guarded.1.take()
    });
    result.map_err(|payload| {
        let error = match recorded {
            Some(Recorded {
                message,
                location,
                backtrace,
            }) => TaskError::new(TaskErrorKind::Panic, message).at_location(location, backtrace),
            None => TaskError::new(TaskErrorKind::Panic, message_of(&*payload)),
        };
        discard(payload);
        error
    })
}

/// Drops a panic's payload, whose own destructor may panic as well: that one is let go without a further look.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(another) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(another);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_by_its_message() {
        assert_eq!(guard(|| 3).unwrap(), 3);
        let error = guard(|| panic!("at {}", 7)).map(|()| 0).unwrap_err();
        assert_eq!(error.panic_message(), Some("at 7"));
        let error = guard(|| panic::panic_any(42)).map(|()| 0).unwrap_err();
        assert_eq!(error.panic_message(), Some("Box<dyn Any>"));
    }

    #[test]
    fn a_payload_that_panics_when_it_is_dropped_is_let_go() {
        struct Grenade;
        impl Drop for Grenade {
            fn drop(&mut self) {
                panic!("in the destructor");
            }
        }
        assert!(
            guard(|| panic::panic_any(Grenade))
                .map(|()| 0)
                .unwrap_err()
                .is_panic()
        );
    }
}
