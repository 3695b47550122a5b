//! No core dump: it would hold tokens and secrets.

use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What was allowed when the program started, in bytes.
static BEFORE: OnceLock<Option<u64>> = OnceLock::new();

/// Forbids this process and its children to dump core. Errors are ignored: this is a second line of defence.
pub(crate) fn forbid() {
    let limit = getrlimit(Resource::Core);
    let _ = BEFORE.set(limit.current);
    // A lowered maximum could not be raised again for the program that `exec` becomes.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), ..limit });
    // A core_pattern that pipes to a program ignores the limit (core(5)), but not this.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// Puts the limit back for the program that this process becomes: what that one dumps is its own.
pub(crate) fn allow_again() {
    if let Some(current) = BEFORE.get() {
        let limit = Rlimit { current: *current, ..getrlimit(Resource::Core) };
        let _ = setrlimit(Resource::Core, limit);
    }
}
