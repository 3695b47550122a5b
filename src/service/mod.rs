//! What the operating system's service manager is told and asked: which units or agents there are, whether they run, and how to
//! set them up for a person.
//!
//! Nothing here prints or asks: `cli/service.rs` does.

mod account;
mod settings;
mod state;
mod systemctl;
mod systemd;
mod units;

pub(crate) use account::Account;
pub(crate) use settings::{Place, Plan, WriteError, as_service};
pub(crate) use state::State;
pub(crate) use systemctl::Scope;
pub(crate) use systemd::{Started, Systemd};

/// Which of the two ways keeps the passwords alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Way {
    /// A timer that runs `rotate --if-due` every few minutes.
    Timer,
    /// A daemon: `run`.
    Daemon,
}
