//! Talks to systemd with the commands that a person would type into `systemctl`, and returns values.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::failure::{Code, Failure};
use crate::foreign::quoted;
use crate::service::Scope;
use crate::service::child::{self, cannot_run};

/// A manager that has not answered after this hangs.
const LIMIT: Duration = Duration::from_secs(20);

/// The properties of one unit as `systemctl show` prints them (org.freedesktop.systemd1(5)).
pub(super) type Properties = BTreeMap<String, String>;

/// `systemctl`, for one manager.
#[derive(Clone, Copy, Debug)]
pub(super) struct Systemctl {
    scope: Scope,
}

impl Systemctl {
    pub(super) fn new(scope: Scope) -> Self {
        Systemctl { scope }
    }

    /// Whether this manager can be asked: systemd runs, and so does the user's manager (sd_booted(3)).
    pub(super) fn is_there(self) -> bool {
        let private = match self.scope {
            Scope::System => "/run/systemd/private".to_owned(),
            Scope::User => format!("{}/systemd/private", runtime_directory()),
        };
        Path::new("/run/systemd/system").is_dir() && Path::new(&private).exists()
    }

    /// Runs `systemctl` with these arguments; returns what it printed.
    ///
    /// # Errors
    /// It does not exist, does not end, or fails; the failure quotes its words.
    pub(super) fn call(self, arguments: &[&str]) -> Result<String, Failure> {
        self.call_for(arguments, LIMIT)
    }

    /// The same for commands that may take up to `limit`, such as a start that waits.
    ///
    /// # Errors
    /// As [`Systemctl::call`]; `TryAgain` if it has not ended.
    pub(super) fn call_for(self, arguments: &[&str], limit: Duration) -> Result<String, Failure> {
        let mut command = Command::new("systemctl");
        if self.scope == Scope::User {
            command.arg("--user");
            command.env("XDG_RUNTIME_DIR", runtime_directory());
        }
        command.args(["--no-pager", "--no-ask-password"]).args(arguments);
        run(command, "systemctl", arguments, limit)
    }

    /// These properties of these units, in their order; a unit that does not exist has `LoadState=not-found`.
    ///
    /// # Errors
    /// As [`Systemctl::call`].
    pub(super) fn show(self, units: &[&str], properties: &[&str]) -> Result<Vec<Properties>, Failure> {
        let wanted = format!("--property={}", properties.join(","));
        let arguments: Vec<&str> =
            ["show", "--timestamp=unix", &wanted, "--"].into_iter().chain(units.iter().copied()).collect();
        Ok(parse(&self.call(&arguments)?))
    }

    /// The manager's version, such as 252.
    ///
    /// # Errors
    /// As [`Systemctl::call`].
    pub(super) fn version(self) -> Result<u32, Failure> {
        let said = self.call(&["--version"])?;
        let number = said.split_whitespace().nth(1).and_then(|word| word.split(['.', '~']).next()?.parse().ok());
        number.ok_or_else(|| Failure::permanent(Code::Unavailable, format!("systemctl says: {}", quoted(&said))))
    }
}

/// Where the user's manager has its socket (file-hierarchy(7)); a shell of `su` does not have the variable.
fn runtime_directory() -> String {
    let told = std::env::var("XDG_RUNTIME_DIR").ok().filter(|directory| !directory.is_empty());
    told.unwrap_or_else(|| format!("/run/user/{}", rustix::process::getuid().as_raw()))
}

/// Runs one of systemd's programs to its end.
///
/// # Errors
/// As [`Systemctl::call_for`].
pub(super) fn run(mut command: Command, program: &str, arguments: &[&str], limit: Duration) -> Result<String, Failure> {
    // Some times are only printed in the local zone.
    command.env("TZ", "UTC");
    let answer = child::run(command, &format!("{program} {}", arguments.join(" ")), limit)?;
    if answer.code == Some(0) {
        return Ok(answer.out);
    }
    Err(cannot_run(format!("{program} {}: {}", arguments.join(" "), quoted(&answer.err))))
}

/// Blocks of `Name=value` lines, one for each unit, separated by an empty line. What stands there several times, as each `Listen`
/// of a socket does, has a line for each.
fn parse(text: &str) -> Vec<Properties> {
    let block = |block: &str| {
        let mut properties = Properties::new();
        for (name, value) in block.lines().filter_map(|line| line.split_once('=')) {
            match properties.entry(name.to_owned()) {
                Entry::Vacant(first) => drop(first.insert(value.to_owned())),
                Entry::Occupied(mut several) => several.get_mut().push_str(&format!("\n{value}")),
            }
        }
        properties
    };
    text.split("\n\n").filter(|text| !text.trim().is_empty()).map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_come_in_their_order_each_with_all_values_of_a_property() {
        let text = "Id=a.socket\nListen=/run/a (Stream)\nListen=127.0.0.1:1 (Stream)\n\nId=a.service\nStatusText=x=y\n";
        let shown = parse(text);
        assert_eq!(shown.len(), 2);
        assert_eq!(shown[0]["Listen"], "/run/a (Stream)\n127.0.0.1:1 (Stream)");
        assert_eq!((shown[1]["Id"].as_str(), shown[1]["StatusText"].as_str()), ("a.service", "x=y"));
    }
}
