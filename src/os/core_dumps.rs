//! No core dump: it would hold tokens and secrets.

use rustix::process::{Resource, Rlimit, setrlimit};

/// Forbids this process, and what it starts, to dump core. What cannot be forbidden is let be: it is a second line of
/// defence.
pub(crate) fn forbid() {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    // A core_pattern that pipes to a program ignores the limit (core(5)), but not this.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}
