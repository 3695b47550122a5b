//! macOS's unified log (os_log), which launchd's agent writes to: `log stream --predicate 'subsystem == "app.dbx-rotator"'`.
//!
//! Its levels are those that Console shows as people expect them: an error as a fault (red), a warning as an error (yellow), what is
//! told as the default, and `--verbose` as info, which is only kept where somebody asks for it.

use tracing_oslog::OsLogger;

use super::unified::Unified;
use crate::os::dirs::Environment;
use crate::os::launchd;

/// The only one there is so far.
const CATEGORY: &str = "rotation";

/// Whether launchd runs this process: then nobody reads its stderr, and os_log is where messages are looked for.
pub(crate) fn is_connected() -> bool {
    launchd::runs_this(&Environment::of_this_process())
}

/// The layer that writes there.
pub(super) fn connect() -> Option<Unified<OsLogger>> {
    is_connected().then(|| Unified::new(OsLogger::new(launchd::SUBSYSTEM, CATEGORY)))
}

/// What has been said is in the log's own memory, whatever becomes of this process.
pub(crate) fn settle() {}
