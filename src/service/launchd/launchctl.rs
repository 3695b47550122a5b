//! Talks to launchd with the commands that a person would type into `launchctl` (never the old `load` and `unload`), and returns
//! values.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::failure::Failure;
use crate::foreign::quoted;
use crate::service::child::{self, cannot_run};

/// It normally answers at once; after this it counts as hung.
const LIMIT: Duration = Duration::from_secs(20);

/// Where a user's agent can be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Domain {
    /// While the user is logged in at the screen.
    Gui,
    /// While the user has any session, such as by ssh.
    User,
}

impl Domain {
    /// Best first.
    pub(super) const ALL: [Domain; 2] = [Domain::Gui, Domain::User];
}

/// A refusal of launchctl, with the number that `launchctl error` explains.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: i32,
    failure: Failure,
}

impl Refusal {
    /// The job does not exist: ESRCH from bootout, 113 (Could not find specified service) from the others.
    pub(super) fn is_not_loaded(&self) -> bool {
        matches!(self.code, 3 | 113)
    }

    /// 112 (Could not find specified domain), 125 (Domain does not support specified action): nobody is logged in at the screen.
    pub(super) fn is_no_such_domain(&self) -> bool {
        matches!(self.code, 112 | 125)
    }

    /// EINPROGRESS, EALREADY: launchd is doing it, or the job already runs.
    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.code, 36 | 37)
    }

    /// EIO, bootstrap's answer for a job that is already loaded and for much else; EEXIST from older versions.
    pub(super) fn may_be_loaded(&self) -> bool {
        matches!(self.code, 5 | 17) || self.is_under_way()
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        refusal.failure
    }
}

/// `launchctl`, for the agents of one user.
#[derive(Clone, Debug)]
pub(super) struct Launchctl {
    program: PathBuf,
    uid: u32,
}

impl Launchctl {
    pub(super) fn new(program: impl Into<PathBuf>, uid: u32) -> Self {
        Launchctl { program: program.into(), uid }
    }

    /// The name of a domain.
    pub(super) fn domain(&self, domain: Domain) -> String {
        let kind = if domain == Domain::Gui { "gui" } else { "user" };
        format!("{kind}/{}", self.uid)
    }

    /// The name of a job in a domain.
    pub(super) fn target(&self, domain: Domain, label: &str) -> String {
        format!("{}/{label}", self.domain(domain))
    }

    pub(super) fn print(&self, domain: Domain, label: &str) -> Result<String, Refusal> {
        self.call(&["print", &self.target(domain, label)])
    }

    /// Loads an agent, which starts it.
    pub(super) fn bootstrap(&self, domain: Domain, file: &Path) -> Result<(), Refusal> {
        self.call(&["bootstrap", &self.domain(domain), &file.display().to_string()]).map(drop)
    }

    /// Ends and unloads a job; it may take a while to end.
    pub(super) fn bootout(&self, domain: Domain, label: &str) -> Result<(), Refusal> {
        self.call(&["bootout", &self.target(domain, label)]).map(drop)
    }

    /// Starts a loaded job at once; `anew` ends a running one first.
    pub(super) fn kickstart(&self, domain: Domain, label: &str, anew: bool) -> Result<(), Refusal> {
        let target = self.target(domain, label);
        let arguments: &[&str] = if anew { &["kickstart", "-k", &target] } else { &["kickstart", &target] };
        self.call(arguments).map(drop)
    }

    /// Sets whether a job may be loaded, now and at each login. This outlives the job.
    pub(super) fn set_enabled(&self, label: &str, enabled: bool) -> Result<(), Refusal> {
        let verb = if enabled { "enable" } else { "disable" };
        // Both domains share one list, which belongs to the user.
        self.call(&[verb, &self.target(Domain::Gui, label)]).map(drop)
    }

    pub(super) fn is_disabled(&self, label: &str) -> Result<bool, Refusal> {
        let list = self.call(&["print-disabled", &self.domain(Domain::Gui)])?;
        let name = format!("\"{label}\"");
        let said = list.lines().filter_map(|line| line.split_once("=>")).find(|(known, _)| known.trim() == name);
        // Up to macOS 12 it is `true`.
        Ok(said.is_some_and(|(_, state)| matches!(state.trim(), "disabled" | "true")))
    }

    /// Whether programs started in this login get this variable.
    pub(super) fn has_variable(&self, name: &str) -> bool {
        self.call(&["getenv", name]).is_ok_and(|value| !value.trim().is_empty())
    }

    fn call(&self, arguments: &[&str]) -> Result<String, Refusal> {
        let line = format!("launchctl {}", arguments.join(" "));
        let mut command = Command::new(&self.program);
        command.args(arguments);
        let answer = child::run(command, &line, LIMIT).map_err(|failure| Refusal { code: -1, failure })?;
        if answer.code == Some(0) {
            return Ok(answer.out);
        }
        let code = code_in(&answer.err).or(answer.code).unwrap_or(-1);
        Err(Refusal { code, failure: cannot_run(format!("{line}: {}", quoted(&answer.err))) })
    }
}

/// The number in `Bootstrap failed: 5: Input/output error`.
fn code_in(said: &str) -> Option<i32> {
    let (_, rest) = said.split_once("failed: ")?;
    rest.split(':').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_told_by_the_number_that_it_says() {
        assert_eq!(code_in("Bootstrap failed: 5: Input/output error\nTry re-running"), Some(5));
        assert_eq!(code_in("Boot-out failed: 36: Operation now in progress"), Some(36));
        assert_eq!(code_in("Could not find service \"x\" in domain for user gui: 501"), None);
    }
}
