//! How the program ends after a bug: one line without secrets, and an exit code.
//!
//! Nothing is undone. Each file is replaced whole or not at all, so published credentials stay as they are, and the service
//! manager starts the program again.

use std::any::Any;
use std::fmt::Display;
use std::panic::PanicHookInfo;

use super::streams;
use crate::foreign;

/// EX_SOFTWARE of sysexits.h.
pub(crate) const EXIT_CODE: i32 = 70;

/// From now on a panic in any thread ends the process. Only for the program: a library leaves that to its user.
pub(crate) fn end_the_process() {
    std::panic::set_hook(Box::new(|panic| {
        streams::to_stderr(&sentence(panic));
        // No abort: that would dump core.
        std::process::exit(EXIT_CODE);
    }));
}

fn sentence(panic: &PanicHookInfo<'_>) -> String {
    let place = panic.location().map(|at| place(at.line(), at)).unwrap_or_default();
    // The text may quote others, and the panic may even come from the code that knows the secrets.
    let why = foreign::line_of_a_panic(&format!("{}{place}", text(panic.payload())));
    let why = why.unwrap_or_else(|| "the reason is not known".to_owned());
    format!("error: a fault of dbx-rotator itself: {why}; it ends, and what is published stays as it is\n")
}

/// Without a line where the compiler was told to keep none: `use_unstable_options` in `dist/cross` does so for the crates of others.
fn place(line: u32, at: &impl Display) -> String {
    if line == 0 { " (in a library)".to_owned() } else { format!(" ({at})") }
}

fn text(payload: &(dyn Any + Send)) -> &str {
    let owned = || payload.downcast_ref::<String>().map(String::as_str);
    payload.downcast_ref::<&str>().copied().or_else(owned).unwrap_or("a panic")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_said_only_where_the_compiler_kept_it() {
        assert_eq!(place(7, &"src/cli.rs:7:1"), " (src/cli.rs:7:1)");
        assert_eq!(place(0, &"<redacted>:0:0"), " (in a library)");
    }
}
