//! What else is so on this machine that decides how a service can work.

use std::path::Path;
use std::process::Command;

use super::systemctl::{Systemctl, run};
use super::{Systemd, instance};
use crate::failure::Failure;
use crate::os::dirs::Environment;
use crate::service::{PATIENCE, Scope, ServiceManager};

/// Where systemd records which users linger (logind's user.c).
const LINGER: &str = "/var/lib/systemd/linger";

impl Systemd {
    /// Whether other users have instances of these templates.
    pub(super) fn serves_others(&self, templates: &[&str]) -> Result<bool, Failure> {
        let listed = ["list-unit-files", "list-units"]
            .map(|verb| self.systemctl.call(&[&[verb, "--all", "--plain", "--no-legend"], templates].concat()));
        let own = instance::escape(&self.account.name);
        let mut others = false;
        for list in listed {
            let list = list?;
            let instances = list.lines().filter_map(|line| line.split_whitespace().next());
            others |= instances
                .filter_map(|name| name.split_once('@')?.1.rsplit_once('.'))
                .any(|(instance, _)| !instance.is_empty() && instance != own);
        }
        Ok(others)
    }

    /// Whether this user's manager keeps running while the user is logged out.
    pub(super) fn lingers(&self) -> bool {
        Path::new(LINGER).join(instance::linger_file(&self.account.name)).exists()
    }

    /// Whether what this manager starts may make user namespaces: tried, since the exit code of a unit has other causes, too. Where it
    /// cannot be tried, the exit code is believed.
    pub(super) fn makes_namespaces(&self) -> bool {
        let mut command = Command::new("systemd-run");
        let tried =
            ["--user", "--quiet", "--wait", "--collect", "unshare", "--user", "--map-root-user", "--mount", "true"];
        command.args(tried);
        run(command, "systemd-run", &tried, PATIENCE).is_ok()
    }

    /// Whether people are often logged out of this machine although their passwords are needed: true without a desktop.
    pub(super) fn is_server(&self) -> bool {
        let target = Systemctl::new(Scope::System).call(&["get-default"]).unwrap_or_default();
        !target.trim().starts_with("graphical")
    }

    /// Those of these variables that are set here and that the manager does not pass to its services.
    pub(super) fn unseen<'v>(&self, variables: &[&'v str], environment: &Environment) -> Vec<&'v str> {
        let there = self.environment();
        let unseen = |name: &&&str| environment.get_os(name).is_some() && there.get_os(name).is_none();
        variables.iter().filter(unseen).copied().collect()
    }
}
