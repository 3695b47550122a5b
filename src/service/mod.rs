//! What the operating system's service manager is told and asked: which units or agents there are, whether they run, and how to
//! set them up for a person.
//!
//! Nothing here prints or asks: `cli/service.rs` does. What it must know of a manager is [`ServiceManager`]; which one runs here is
//! decided in this file and nowhere else.

mod account;
mod child;
mod files;
#[cfg(any(target_os = "macos", test))]
mod launchd;
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
pub(crate) use settings::{Plan, ServiceInputs, WriteError, as_service};
pub(crate) use state::State;
#[cfg(not(target_os = "macos"))]
use systemd::Systemd;

/// How long a start may take until a person is told that it still goes on: a rotation that works takes no longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Which of the two ways keeps the passwords alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Way {
    /// A timer that runs `rotate --if-due` every few minutes.
    #[cfg_attr(target_os = "macos", allow(dead_code, reason = "launchd's timers do not fire in sleep, so it has none"))]
    Timer,
    /// A daemon: `run`.
    Daemon,
}

/// Whose manager is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    /// The manager of the user who asks (`systemctl --user`, launchd's gui/UID).
    User,
    /// The machine's.
    System,
}

/// What came of a start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Started {
    /// Every password that can be live is.
    #[cfg_attr(target_os = "macos", allow(dead_code, reason = "launchd does not learn of it"))]
    Well,
    /// It is still at it.
    NotYet,
    /// It ended with this exit code.
    Failed(Option<i32>),
    /// It runs; the manager does not know how it goes.
    #[cfg_attr(not(target_os = "macos"), allow(dead_code, reason = "systemd is told"))]
    Untold,
}

/// The service of one user, in the hands of one manager.
pub(crate) trait ServiceManager {
    /// Which of the ways it can do is meant: `daemon` is whether a person asked for a daemon.
    fn way(&self, daemon: bool) -> Way;

    /// What a service of this manager finds in its environment.
    fn environment(&self) -> &Environment;

    /// How it stands; none where it is not set up.
    ///
    /// # Errors
    /// The manager does not answer.
    fn state(&self) -> Result<Option<State>, Failure>;

    /// What shows its messages.
    fn logs(&self, way: Way) -> String;

    /// Sees to it that what the manager reads is there, for a service that writes in these directories; returns the files that had
    /// to be written.
    ///
    /// # Errors
    /// A file cannot be written, or the manager does not take them.
    fn provide(&self, program: &Path, way: Way, relaxed: bool, writes: &[PathBuf]) -> Result<Vec<PathBuf>, Failure>;

    /// Puts the Python original out of service; returns what it is called where it was in service.
    ///
    /// # Errors
    /// The manager refuses.
    fn retire_original(&self) -> Result<Option<&'static str>, Failure>;

    /// Enables this way and not the other, and starts it anew; comes back when it has rotated, or has not for a while.
    ///
    /// # Errors
    /// The manager refuses.
    fn enable(&self, way: Way) -> Result<Started, Failure>;

    /// Starts it anew, as with another configuration.
    ///
    /// # Errors
    /// The manager refuses.
    fn restart(&self, way: Way) -> Result<Started, Failure>;

    /// Starts it where it does not run.
    ///
    /// # Errors
    /// The manager refuses.
    fn start(&self, way: Way) -> Result<Started, Failure>;

    /// Stops it, until the next boot or login.
    ///
    /// # Errors
    /// The manager refuses.
    fn stop(&self) -> Result<(), Failure>;

    /// Stops and disables it, and removes what [`ServiceManager::provide`] wrote; returns the files that went.
    ///
    /// # Errors
    /// The manager refuses, or a file cannot be removed.
    fn remove(&self) -> Result<Vec<PathBuf>, Failure>;

    /// Lets it go on while the user is logged out.
    ///
    /// # Errors
    /// Not allowed, or not possible.
    fn enable_lingering(&self) -> Result<(), Failure>;

    /// What may keep it from working later, a sentence each: of these variables some are set here and not for the service, and who
    /// has not asked for it to be `lingering` may want it.
    fn advice(&self, way: Way, missed: &[&str], here: &Environment, lingering: bool) -> Vec<String>;

    /// What stays behind when it is removed, and how to end that.
    fn remains(&self) -> Option<String>;
}

/// The manager of this scope for this user.
///
/// # Errors
/// There is none here, or none that can do it.
pub(crate) fn manager(scope: Scope, account: &Account) -> Result<Box<dyn ServiceManager>, Failure> {
    #[cfg(target_os = "macos")]
    return Ok(Box::new(Launchd::new(scope, account)?));
    #[cfg(not(target_os = "macos"))]
    Ok(Box::new(Systemd::new(scope, account.clone())?))
}

/// How the service of the user who asks stands, for who only wants to know; none where there is none, or none can be asked.
pub(crate) fn look(environment: &Environment) -> Option<State> {
    #[cfg(target_os = "macos")]
    return Launchd::look(environment);
    #[cfg(not(target_os = "macos"))]
    Systemd::look(environment)
}
