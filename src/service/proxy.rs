//! The local proxy under a service manager: what the manager is told, and what it knows.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Scope, Started};
use crate::failure::Failure;

/// Who reaches the proxy, besides its own user at the socket that it always has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProxyAccess {
    /// Where it listens by TCP.
    pub(crate) tcp: Vec<SocketAddr>,
    /// Whether other users of this machine may be its clients.
    pub(crate) lets_others_in: bool,
}

/// The proxy as its manager sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ProxyState {
    pub(crate) manager: &'static str,
    pub(crate) scope: Scope,
    /// What waits for clients: a socket unit, or an agent that listens itself.
    pub(crate) unit: String,
    /// What serves them; the same for an agent.
    pub(crate) service: String,
    /// Whose credentials it uses, where the unit is one of several.
    pub(crate) user: Option<String>,
    /// Whether it waits for clients from each boot or login on.
    pub(crate) enabled: bool,
    /// `active`, `inactive`, `failed` ...
    pub(crate) active_state: String,
    /// `listening` without clients, `running` while it serves ...
    pub(crate) sub_state: String,
    /// Why it does not wait for clients: `service-start-limit-hit`, `resources` ...
    pub(crate) result: Option<String>,
    /// The addresses where the manager listens for it.
    pub(crate) listens: Vec<String>,
    /// How the last run ended, unless it was well: `exit-code`, `watchdog`, `signal` ...
    pub(crate) last_result: Option<String>,
    pub(crate) last_exit_code: Option<i32>,
    /// What the running proxy says of itself.
    pub(crate) status_text: Option<String>,
}

impl ProxyState {
    /// Whether a client that comes now is served, as far as the manager knows.
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.active_state.as_str(), "active" | "activating" | "reloading")
    }

    /// How the last run failed, in words; none if it did not.
    pub(crate) fn last_failure(&self) -> Option<String> {
        let code = self.last_exit_code.map(|code| format!("exit code {code}"));
        match (self.last_result.as_deref()?, code) {
            ("exit-code", Some(code)) => Some(code),
            (result, Some(code)) => Some(format!("{result}, {code}")),
            (result, None) => Some(result.to_owned()),
        }
    }

    /// Whether it is up, and did not fail the last time.
    pub(crate) fn is_well(&self) -> bool {
        self.is_up() && self.last_result.is_none()
    }
}

/// The local proxy of one user under one manager.
pub(crate) trait ProxyManager {
    /// The state of the proxy; none if it is not set up.
    ///
    /// # Errors
    /// The manager does not answer.
    fn proxy(&self) -> Result<Option<ProxyState>, Failure>;

    /// The command that shows the proxy's messages.
    fn proxy_logs(&self) -> String;

    /// Sees to it that what the manager reads is there, for a proxy that is reached so and writes in these directories; returns the
    /// files that had to be written.
    ///
    /// # Errors
    /// A file cannot be written, or the manager does not take them.
    fn provide_proxy(
        &self,
        program: &Path,
        access: &ProxyAccess,
        relaxed: bool,
        writes: &[PathBuf],
    ) -> Result<Vec<PathBuf>, Failure>;

    /// Lets it wait for clients now and from each boot or login on, and tries whether it starts. Sessions go on, unless what the
    /// manager does for it has changed.
    ///
    /// # Errors
    /// The manager refuses, for example because an address is in use.
    fn enable_proxy(&self) -> Result<Started, Failure>;

    /// Lets it wait for clients if it does not.
    ///
    /// # Errors
    /// The manager refuses.
    fn start_proxy(&self) -> Result<(), Failure>;

    /// Ends its sessions, busy ones after their query, and lets it wait for clients again.
    ///
    /// # Errors
    /// The manager refuses, or a session has not ended in time.
    fn restart_proxy(&self) -> Result<(), Failure>;

    /// Ends its sessions, busy ones after their query, until the next boot or login.
    ///
    /// # Errors
    /// As [`ProxyManager::restart_proxy`].
    fn stop_proxy(&self) -> Result<(), Failure>;

    /// Stops and disables it, and removes what [`ProxyManager::provide_proxy`] wrote; returns the removed files.
    ///
    /// # Errors
    /// The manager refuses, or a file cannot be removed.
    fn remove_proxy(&self) -> Result<Vec<PathBuf>, Failure>;

    /// One sentence for each thing that keeps somebody out who was meant to be let in.
    fn proxy_advice(&self, access: &ProxyAccess) -> Vec<String>;
}
