//! Lakebase's own API: where a database is, its state, and new credentials for it.
//!
//! There are two families with different field names: provisioned instances (`/api/2.0/database`) and autoscaling projects
//! (`/api/2.0/postgres`). Instances are upgraded to projects in place. Nothing here signs in or touches files.

mod api;
mod autoscaling;
mod classify;
mod find;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod list;
mod mint;
mod provisioned;

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub(crate) use api::Api;
pub(crate) use list::Database;
pub(crate) use mint::{Refused, mint};

/// What a database's credentials are requested for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Target {
    /// A provisioned instance, by its name.
    Instance(String),
    /// An autoscaling endpoint, by its resource name: `projects/p/branches/b/endpoints/e`.
    Endpoint(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Instance(name) => write!(f, "instance {name}"),
            Target::Endpoint(name) => write!(f, "endpoint {name}"),
        }
    }
}

/// What the API says about one database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DatabaseInfo {
    pub(crate) target: Target,
    /// The read-write host; none while it is being set up.
    pub(crate) host: Option<String>,
    /// The read-only host, if there are readable secondaries.
    pub(crate) read_only_host: Option<String>,
    pub(crate) state: State,
    /// By this machine's clock.
    pub(crate) found_at: Timestamp,
}

impl DatabaseInfo {
    /// The read-only or the read-write host.
    pub(crate) fn host_for(&self, read_only: bool) -> Option<&str> {
        if read_only { self.read_only_host.as_deref() } else { self.host.as_deref() }
    }
}

/// The state of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    Available,
    Idle,
    Starting,
    Stopped,
    Updating,
    FailingOver,
    Deleting,
    Degraded,
    Disabled,
    /// A state that this version does not know, or none.
    #[serde(other)]
    Unknown,
}

impl State {
    /// The word for it in tables and JSON.
    pub(crate) fn word(self) -> &'static str {
        match self {
            State::Available => "available",
            State::Idle => "idle",
            State::Starting => "starting",
            State::Stopped => "stopped",
            State::Updating => "updating",
            State::FailingOver => "failing-over",
            State::Deleting => "deleting",
            State::Degraded => "degraded",
            State::Disabled => "disabled",
            State::Unknown => "unknown",
        }
    }

    /// What people who cannot connect should know; none if this state does not prevent it.
    pub(crate) fn remark(self) -> Option<&'static str> {
        match self {
            State::Available | State::Unknown => None,
            State::Idle => Some("is idle: the next connection wakes it, which can take a while"),
            State::Starting => Some("is starting"),
            State::Stopped => Some("is stopped, and takes no connections until somebody starts it in the workspace"),
            State::Updating => Some("is being updated"),
            State::FailingOver => Some("is failing over, and takes connections again when that is done"),
            State::Deleting => Some("is being deleted"),
            State::Degraded => Some("is degraded"),
            State::Disabled => Some("is disabled, and takes no connections until somebody enables it in the workspace"),
        }
    }

    /// Whether nobody can connect until a person does something.
    pub(crate) fn needs_person(self) -> bool {
        matches!(self, State::Stopped | State::Disabled | State::Deleting)
    }
}
