//! Turns signals that would end the program into errors.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::SIGXFSZ;

/// Makes a write beyond the file size limit (`ulimit -f`, `LimitFSIZE=`) fail like any other, instead of ending the process
/// with half a file written. Only for the program: an application decides about its own signals. Children get the default
/// again, since handlers do not survive exec.
pub(crate) fn let_writes_fail() {
    let unread = Arc::new(AtomicBool::new(false));
    // On failure, everything stays as it was.
    let _ = signal_hook::flag::register(SIGXFSZ, unread);
}
