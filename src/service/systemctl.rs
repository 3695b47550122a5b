//! Talking to systemd through `systemctl`: what a person would type, with its answers as values.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::failure::{Code, Failure, quoted};

/// A manager that does not answer for so long hangs.
const LIMIT: Duration = Duration::from_secs(20);

/// Whose manager is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
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

    /// Whether there is such a manager to be asked: systemd runs, and that of the user does (sd_booted(3)).
    pub(crate) fn is_there(self) -> bool {
        let private = match self.scope {
            Scope::System => "/run/systemd/private".to_owned(),
            Scope::User => format!("{}/systemd/private", runtime_directory()),
        };
        Path::new("/run/systemd/system").is_dir() && Path::new(&private).exists()
    }

    /// Runs `systemctl` with these arguments; returns what it printed.
    ///
    /// # Errors
    /// It is not there, it does not end, or it failed: with its own words.
    pub(crate) fn call(self, arguments: &[&str]) -> Result<String, Failure> {
        self.call_for(arguments, LIMIT)
    }

    /// The same for what may take as long as `limit`, such as a start that waits.
    ///
    /// # Errors
    /// As [`Systemctl::call`]; `TryAgain` where it was still at it.
    pub(crate) fn call_for(self, arguments: &[&str], limit: Duration) -> Result<String, Failure> {
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
    pub(crate) fn show(self, units: &[&str], properties: &[&str]) -> Result<Vec<Properties>, Failure> {
        let wanted = format!("--property={}", properties.join(","));
        let arguments: Vec<&str> =
            ["show", "--timestamp=unix", &wanted, "--"].into_iter().chain(units.iter().copied()).collect();
        Ok(parse(&self.call(&arguments)?))
    }

    /// The manager's version, such as 252.
    ///
    /// # Errors
    /// As [`Systemctl::call`].
    pub(crate) fn version(self) -> Result<u32, Failure> {
        let said = self.call(&["--version"])?;
        let number = said.split_whitespace().nth(1).and_then(|word| word.split(['.', '~']).next()?.parse().ok());
        number.ok_or_else(|| Failure::permanent(Code::Unavailable, format!("systemctl says: {}", quoted(&said))))
    }
}

/// Where the user's manager has its socket (file-hierarchy(7)); a shell of `su` is not told.
fn runtime_directory() -> String {
    let told = std::env::var("XDG_RUNTIME_DIR").ok().filter(|directory| !directory.is_empty());
    told.unwrap_or_else(|| format!("/run/user/{}", rustix::process::getuid().as_raw()))
}

/// Runs one of systemd's programs to its end.
///
/// # Errors
/// As [`Systemctl::call_for`].
pub(crate) fn run(mut command: Command, program: &str, arguments: &[&str], limit: Duration) -> Result<String, Failure> {
    let fail = |why: String| Failure::permanent(Code::Unavailable, why);
    // Some times are only given in the local zone.
    command.env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| fail(format!("cannot run {program}: {error}")))?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let (sender, ended) = mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output: Output = match ended.recv_timeout(limit) {
        Ok(output) => output.map_err(|error| fail(format!("{program}: {error}")))?,
        Err(_) => {
            if let Some(pid) = pid {
                let _ = kill_process(pid, Signal::TERM);
            }
            let line = arguments.join(" ");
            let why = format!("`{program} {line}` has not ended after {} s", limit.as_secs());
            return Err(Failure::transient(Code::TryAgain, why));
        }
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = quoted(&String::from_utf8_lossy(&output.stderr));
    Err(fail(format!("{program} {}: {said}", arguments.join(" "))))
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
