//! The door before `main`: in a process that this crate has started, it opens and never leads back.

use crate::sys::image::main_image;
use std::os::raw::{c_char, c_int};

/// A function that the loader calls before `main`.
pub(crate) type Constructor = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

/// Has `$serve` (a `fn() -> Option<fn() -> !>`) asked before `main`, in every program that this crate is linked into:
/// whether this process was started by the crate, and if so, what it does instead of `main`.
macro_rules! before_main {
    ($serve:path) => {
        #[used]
        #[allow(
            unsafe_code,
            reason = "the section is a list of functions of this type"
        )]
        #[unsafe(link_section = ".init_array")]
        static BEFORE_MAIN: $crate::sys::hook::Constructor = {
            extern "C" fn constructor(
                count: std::os::raw::c_int,
                arguments: *const *const std::os::raw::c_char,
                environment: *const *const std::os::raw::c_char,
            ) {
                if let Some(serve) = $serve() {
                    let slot = &raw const BEFORE_MAIN as usize;
                    $crate::sys::hook::run_constructors_behind(slot, count, arguments, environment);
                    serve()
                }
            }
            constructor
        };
    };
}
pub(crate) use before_main;

/// Runs the constructors that the loader would run after the one at `slot`, since that one does not return.
pub(crate) fn run_constructors_behind(
    slot: usize,
    count: c_int,
    arguments: *const *const c_char,
    environment: *const *const c_char,
) {
    for slot in main_image()
        .constructors_behind(slot)
        .step_by(size_of::<usize>())
    {
        // SAFETY: the range is the executable's own list of constructors, one word each, relocated by the loader.
        let word = unsafe { (slot as *const usize).read() };
        // The linker marks empty places by 0 or -1.
        if word == 0 || word == usize::MAX {
            continue;
        }
        // SAFETY: each remaining word of the list is a function of this type, which the loader itself would call next,
        // with these arguments.
        let constructor = unsafe { std::mem::transmute::<usize, Constructor>(word) };
        constructor(count, arguments, environment);
    }
}
