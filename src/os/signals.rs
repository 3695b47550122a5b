//! Signals whose default is not what a person expects: a write beyond a limit, and a container that is told to end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

/// What a shell adds to the number of the signal that has ended a program.
const ENDED_BY: i32 = 128;

/// The number of the first process of a container, or of a machine.
const FIRST: u32 = 1;

/// Whether a signal ends the program at once.
static ENDS: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| Arc::new(AtomicBool::new(true)));

/// Makes a write beyond the file size limit (`ulimit -f`, `LimitFSIZE=`) fail like any other, instead of ending the process
/// with half a file written. Only for the program: an application decides about its own signals. Children get the default
/// again, since handlers do not survive exec.
pub(crate) fn let_writes_fail() {
    let unread = Arc::new(AtomicBool::new(false));
    // On failure, everything stays as it was.
    let _ = flag::register(SIGXFSZ, unread);
}

/// Lets the first process of a container end as any other does when it is told to: the kernel gives such a process no signal that
/// it does not handle (pid_namespaces(7)). So whoever stops the container would wait in vain, and then kill it.
pub(crate) fn end_the_first_process_too() {
    if std::process::id() != FIRST {
        return;
    }
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
        // On failure, everything stays as it was.
        let _ = flag::register_conditional_shutdown(signal, ENDED_BY + signal, Arc::clone(&ENDS));
    }
}

/// From now on the command itself listens for signals, and ends in order.
pub(crate) fn are_listened_for() {
    ENDS.store(false, Ordering::SeqCst);
}
