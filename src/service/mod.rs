//! The operating system's service manager: which units or agents there are, whether they run, and how to set them up.
//!
//! Nothing here prints or asks: `cli/service.rs` does. It knows a manager only as a [`ServiceManager`], and only this file decides
//! which one runs here.

mod account;
mod child;
mod files;
#[cfg(any(target_os = "macos", test))]
mod launchd;
mod original;
mod program;
mod proxy;
mod settings;
mod state;
#[cfg(not(target_os = "macos"))]
mod systemd;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::failure::Failure;
use crate::os::dirs::Environment;

pub(crate) use account::Account;
#[cfg(any(target_os = "macos", test))]
pub(crate) use launchd::Launchd;
pub(crate) use original::{Filled, OLD_INTERVAL, OLD_LOG, OldSettings, Original};
pub(crate) use program::{check as check_program, what_an_upgrade_means, would_vanish};
pub(crate) use proxy::{ProxyAccess, ProxyManager, ProxyState};
pub(crate) use settings::{Plan, ServiceInputs, WriteError, absolute, as_service};
pub(crate) use state::State;
#[cfg(not(target_os = "macos"))]
use systemd::Systemd;

/// How long a start may take before a person is told that it still goes on: a working rotation takes no longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The two ways to keep the passwords alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Way {
    /// A timer that runs `rotate --if-due` every few minutes.
    #[cfg_attr(target_os = "macos", allow(dead_code, reason = "launchd's timers do not fire in sleep, so it has none"))]
    Timer,
    /// A daemon: `run`.
    Daemon,
}

/// The scope of a manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    /// The calling user's manager (`systemctl --user`, launchd's gui/UID).
    User,
    /// The machine's manager.
    System,
}

/// The result of a start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Started {
    /// Every password that can be live is live.
    #[cfg_attr(target_os = "macos", allow(dead_code, reason = "launchd does not learn of it"))]
    Well,
    /// The start still goes on.
    NotYet,
    /// It ended with this exit code.
    Failed(Option<i32>),
    /// It runs, but the manager does not know how it goes.
    #[cfg_attr(not(target_os = "macos"), allow(dead_code, reason = "systemd is told"))]
    Untold,
}

/// The service of one user under one manager.
pub(crate) trait ServiceManager: ProxyManager {
    /// Which way to use, of those that it offers; `daemon` is whether a person asked for a daemon.
    fn way(&self, daemon: bool) -> Way;

    /// The environment of this manager's services.
    fn environment(&self) -> &Environment;

    /// The state of the service; none if it is not set up.
    ///
    /// # Errors
    /// The manager does not answer.
    fn state(&self) -> Result<Option<State>, Failure>;

    /// The command that shows the service's messages.
    fn logs(&self, way: Way) -> String;

    /// Sees to it that what the manager reads is there, for a service that writes in these directories; returns the files that had
    /// to be written.
    ///
    /// # Errors
    /// A file cannot be written, or the manager does not take them.
    fn provide(&self, program: &Path, way: Way, relaxed: bool, writes: &[PathBuf]) -> Result<Vec<PathBuf>, Failure>;

    /// The Python original's service and what it was told; none where there is none. What cannot be read is told, too.
    ///
    /// # Errors
    /// The manager refuses.
    fn original(&self) -> Result<Option<Original>, Failure>;

    /// Stops and disables the Python original.
    ///
    /// # Errors
    /// The manager refuses.
    fn retire_original(&self) -> Result<(), Failure>;

    /// Enables this way, disables the other, and restarts the service. Returns when it has rotated, or after a while.
    ///
    /// # Errors
    /// The manager refuses.
    fn enable(&self, way: Way) -> Result<Started, Failure>;

    /// Restarts it, for example with another configuration.
    ///
    /// # Errors
    /// The manager refuses.
    fn restart(&self, way: Way) -> Result<Started, Failure>;

    /// Starts it if it does not run.
    ///
    /// # Errors
    /// The manager refuses.
    fn start(&self, way: Way) -> Result<Started, Failure>;

    /// Stops it, until the next boot or login.
    ///
    /// # Errors
    /// The manager refuses.
    fn stop(&self) -> Result<(), Failure>;

    /// Stops and disables it, and removes what [`ServiceManager::provide`] wrote; returns the removed files.
    ///
    /// # Errors
    /// The manager refuses, or a file cannot be removed.
    fn remove(&self) -> Result<Vec<PathBuf>, Failure>;

    /// Lets it go on after the user has logged out.
    ///
    /// # Errors
    /// Not allowed, or not possible.
    fn enable_lingering(&self) -> Result<(), Failure>;

    /// One sentence for each thing that may stop it from working later: `missed` variables that are set here but not for the
    /// service, and logging out if `lingering` was not asked for.
    fn advice(&self, way: Way, missed: &[&str], here: &Environment, lingering: bool) -> Vec<String>;

    /// What remains after its removal, and how to end that.
    fn remains(&self) -> Option<String>;
}

/// The manager of this scope for this user.
///
/// # Errors
/// There is none here, or it cannot do this.
pub(crate) fn manager(scope: Scope, account: &Account) -> Result<Box<dyn ServiceManager>, Failure> {
    #[cfg(target_os = "macos")]
    return Ok(Box::new(Launchd::new(scope, account)?));
    #[cfg(not(target_os = "macos"))]
    Ok(Box::new(Systemd::new(scope, account.clone())?))
}

/// The state of the calling user's service, for a report; none if there is no service, or no manager to ask.
pub(crate) fn look(environment: &Environment) -> Option<State> {
    #[cfg(target_os = "macos")]
    return Launchd::look(environment);
    #[cfg(not(target_os = "macos"))]
    Systemd::look(environment)
}

/// The state of the calling user's proxy, for a report; none if there is none, or no manager to ask.
pub(crate) fn look_at_proxy(environment: &Environment) -> Option<ProxyState> {
    #[cfg(target_os = "macos")]
    return Launchd::look_at_proxy(environment);
    #[cfg(not(target_os = "macos"))]
    Systemd::look_at_proxy(environment)
}

/// The state of the machine's proxy for this user, for a report.
pub(crate) fn look_at_proxy_of(user: &str) -> Option<ProxyState> {
    let account = Account::wanted(Some(user), &Environment::default()).ok()?;
    manager(Scope::System, &account).ok()?.proxy().inspect_err(|failure| tracing::debug!("{failure}")).ok()?
}
