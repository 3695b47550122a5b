//! The macOS unified log (os_log), where the launchd agent's messages go: `log stream --predicate 'subsystem ==
//! "app.dbx-rotator"'`.
//!
//! Levels are chosen so that Console shows them as people expect: an error as a fault (red), a warning as an error (yellow),
//! information as default, and `--verbose` as info, which is only kept on request.

use tracing_oslog::OsLogger;

use super::unified::Unified;
use crate::os::dirs::Environment;
use crate::os::launchd;

/// The only category.
const CATEGORY: &str = "rotation";

/// Whether launchd runs this process. Then nobody reads its stderr, and people look in os_log.
pub(crate) fn is_connected() -> bool {
    launchd::runs_this(&Environment::of_this_process())
}

/// The layer for os_log.
pub(super) fn connect() -> Option<Unified<OsLogger>> {
    is_connected().then(|| Unified::new(OsLogger::new(launchd::SUBSYSTEM, CATEGORY)))
}

/// Nothing to wait for: the log keeps messages in its own memory, even if this process ends.
pub(crate) fn settle() {}
