//! Signals that would end the program where an error does better.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::SIGXFSZ;

/// Lets a write beyond the largest file that this process may make (`ulimit -f`, `LimitFSIZE=`) fail as any other, instead of
/// ending the process with half a file written. For the program only: what an application does about its signals is its own
/// business. Children get the usual way back, since a handler does not outlive exec.
pub(crate) fn let_writes_fail() {
    let unread = Arc::new(AtomicBool::new(false));
    // Where it cannot be had, everything is as it was.
    let _ = signal_hook::flag::register(SIGXFSZ, unread);
}
