//! The state of the service as its manager sees it.

use jiff::Timestamp;
use serde::Serialize;

use super::{Scope, Way};

/// Exit codes with which systemd says that it could not set up the sandbox of a process (systemd.exec(5), "Process Exit Codes"):
/// CAPABILITIES, USER, NAMESPACE. The machine may forbid user namespaces, or a path that the unit names may not exist.
const NO_SANDBOX: [i32; 3] = [217, 218, 226];

/// One unit that keeps passwords alive, or did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct State {
    pub(crate) manager: &'static str,
    pub(crate) scope: Scope,
    pub(crate) kind: Way,
    pub(crate) unit: String,
    /// Whose passwords it keeps, where the unit is one of several.
    pub(crate) user: Option<String>,
    /// Whether it is started at boot or login.
    pub(crate) enabled: bool,
    /// `active`, `inactive`, `failed`, `activating` ...
    pub(crate) active_state: String,
    /// `waiting`, `running`, `auto-restart` ...
    pub(crate) sub_state: String,
    pub(crate) next_run_at: Option<Timestamp>,
    pub(crate) last_run_at: Option<Timestamp>,
    /// The result of the last run: `success`, `exit-code`, `timeout`, `watchdog` ...
    pub(crate) last_result: Option<String>,
    pub(crate) last_exit_code: Option<i32>,
    pub(crate) watchdog_seconds: Option<f64>,
    pub(crate) restarts: u64,
    pub(crate) status_text: Option<String>,
    /// Whether the unit has variables of its own (`Environment=`, `EnvironmentFile=`), which only the manager knows.
    #[serde(skip)]
    pub(crate) has_environment: bool,
    /// Whether the sandbox could not be set up because users may not make user namespaces: then the relaxed drop-in helps.
    #[serde(skip)]
    pub(crate) lacks_namespaces: bool,
    /// Whether a user's manager runs while nobody is logged in.
    pub(crate) lingering: Option<bool>,
}

impl State {
    /// Whether it is keeping the passwords alive now.
    pub(crate) fn is_up(&self) -> bool {
        let up = matches!(self.active_state.as_str(), "active" | "activating" | "reloading" | "refreshing");
        up && !self.sub_state.starts_with("auto-restart")
    }

    /// Whether the last run was fine: 0, or 75 if the published credentials live until the next run.
    pub(crate) fn last_run_was_well(&self) -> bool {
        self.last_result.as_deref().is_none_or(|result| result == "success")
    }

    /// The unit that rotates: a timer starts another.
    pub(crate) fn worker(&self) -> String {
        match self.kind {
            Way::Timer => self.unit.replace(".timer", ".service"),
            Way::Daemon => self.unit.clone(),
        }
    }

    /// Whether the sandbox of the process could not be set up.
    pub(crate) fn lacks_sandbox(&self) -> bool {
        self.scope == Scope::User && self.last_exit_code.is_some_and(|code| NO_SANDBOX.contains(&code))
    }
}
