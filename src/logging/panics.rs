//! The end of a program that found a fault of its own: one line without secrets, and an exit code.
//!
//! Nothing is undone. Each file is replaced whole or not at all, so what is published stays as it is, and whoever started the
//! program starts it again.

use std::any::Any;
use std::panic::PanicHookInfo;

use super::stderr;
use crate::foreign;

/// EX_SOFTWARE of sysexits.h.
pub(crate) const EXIT_CODE: i32 = 70;

/// From now on a panic, of whatever thread, ends the process. For the program alone: a library leaves that to its user.
pub(crate) fn end_the_process() {
    std::panic::set_hook(Box::new(|panic| {
        stderr::write(&sentence(panic));
        // Not by abort: that leaves a core.
        std::process::exit(EXIT_CODE);
    }));
}

fn sentence(panic: &PanicHookInfo<'_>) -> String {
    let place = panic.location().map(|place| format!(" ({place})")).unwrap_or_default();
    // The text may repeat what others said, and even the secrets themselves may be what it panicked over.
    let why = foreign::line_of_a_panic(&format!("{}{place}", text(panic.payload())));
    let why = why.unwrap_or_else(|| "no more can be said".to_owned());
    format!("error: a fault of dbx-rotator itself: {why}; it ends, and what is published stays as it is\n")
}

fn text(payload: &(dyn Any + Send)) -> &str {
    let owned = || payload.downcast_ref::<String>().map(String::as_str);
    payload.downcast_ref::<&str>().copied().or_else(owned).unwrap_or("a panic")
}
