//! Talking to systemd through `systemctl`: what a person would type, with its answers as values.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use crate::failure::{Code, Failure, quoted};

/// Whose manager is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The manager of the user who asks (`systemctl --user`).
    User,
    /// The machine's.
    System,
}

/// The properties of one unit as `systemctl show` prints them (org.freedesktop.systemd1(5)).
pub(crate) type Properties = BTreeMap<String, String>;

/// `systemctl`, for one manager.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Systemctl {
    scope: Scope,
}

impl Systemctl {
    pub(crate) fn new(scope: Scope) -> Self {
        Systemctl { scope }
    }

    /// Runs `systemctl` with these arguments; returns what it printed.
    ///
    /// # Errors
    /// It is not there, or it failed: with its own words.
    pub(crate) fn call(self, arguments: &[&str]) -> Result<String, Failure> {
        let mut command = Command::new("systemctl");
        if self.scope == Scope::User {
            command.arg("--user");
        }
        let output =
            command
                .arg("--no-pager")
                .args(arguments)
                .env("LC_ALL", "C.UTF-8")
                .stdin(Stdio::null())
                .output()
                .map_err(|error| Failure::permanent(Code::Unavailable, format!("cannot run systemctl: {error}")))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = quoted(&String::from_utf8_lossy(&output.stderr));
        Err(Failure::permanent(Code::Unavailable, format!("systemctl {}: {said}", arguments.join(" "))))
    }

    /// These properties of these units, in their order; a unit that does not exist has `LoadState=not-found`.
    ///
    /// # Errors
    /// As [`Systemctl::call`].
    pub(crate) fn show(self, units: &[&str], properties: &[&str]) -> Result<Vec<Properties>, Failure> {
        let wanted = format!("--property={}", properties.join(","));
        let arguments: Vec<&str> =
            ["show", "--timestamp=unix", &wanted, "--"].into_iter().chain(units.iter().copied()).collect();
        Ok(parse(&self.call(&arguments)?))
    }
}

/// Blocks of `Name=value` lines, an empty line between two units.
fn parse(text: &str) -> Vec<Properties> {
    let block = |block: &str| {
        block
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    text.split("\n\n").filter(|text| !text.trim().is_empty()).map(block).collect()
}
