//! Where messages go: to the system's log if a service manager runs this, else to stderr, and to a log file if one is wanted, in
//! the form that users of the Python original know: `2025-01-22 14:30:00 - INFO - Starting OAuth token rotation cycle`.

pub(crate) mod announce;
#[cfg(feature = "cli")]
mod clean;
#[cfg(feature = "cli")]
mod file;
#[cfg(feature = "cli")]
#[cfg_attr(target_os = "macos", path = "os_log.rs")]
#[cfg_attr(not(any(target_os = "linux", target_os = "macos")), path = "no_journal.rs")]
pub(crate) mod journal;
pub(crate) mod json;
#[cfg(feature = "cli")]
mod output;
#[cfg(feature = "cli")]
pub(crate) mod panics;
#[cfg(feature = "cli")]
mod streams;
#[cfg(all(feature = "cli", any(target_os = "macos", test)))]
mod unified;

#[cfg(feature = "cli")]
pub(crate) use output::{Form, before_start, start};

/// The target of messages that say who somebody is: only stderr and the log file get them.
pub(crate) const PRIVATE: &str = concat!(env!("CARGO_CRATE_NAME"), "::private");
