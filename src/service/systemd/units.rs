//! The unit files: those of the package where it is installed, else the same text written by `service install`.
//!
//! Invariant: only a file that bears [`MARK`] is ever replaced or removed.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::os::dirs::Environment;
use crate::service::Scope;
use crate::service::files;

/// The first line of what `service install` writes.
const MARK: &str = "# Written by `dbx-rotator service install`; `dbx-rotator service uninstall` removes it.\n";

/// Where the packaged units say that the program is.
const PACKAGED_PROGRAM: &str = "/usr/bin/dbx-rotator";

/// Where packages and administrators put units (systemd.unit(5)), below which there is a directory for each scope.
const UNIT_PATH: [&str; 5] =
    ["/etc/systemd", "/usr/local/lib/systemd", "/usr/local/share/systemd", "/usr/lib/systemd", "/lib/systemd"];

/// One file that systemd reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    pub(super) name: &'static str,
    text: &'static str,
}

macro_rules! unit {
    ($directory:literal, $name:literal) => {
        Unit { name: $name, text: include_str!(concat!("../../../dist/systemd/", $directory, "/", $name)) }
    };
}

const USER: [Unit; 3] = [
    unit!("user", "dbx-rotator.timer"),
    unit!("user", "dbx-rotator.service"),
    unit!("user", "dbx-rotator-daemon.service"),
];

const SYSTEM: [Unit; 3] = [
    unit!("system", "dbx-rotator@.timer"),
    unit!("system", "dbx-rotator@.service"),
    unit!("system", "dbx-rotator-daemon@.service"),
];

/// Lets the user units start where there are no user namespaces.
pub(super) const RELAXED: Unit = unit!("examples", "relaxed.conf");

/// Makes a reload wait for its end.
pub(super) const NOTIFY_RELOAD: Unit = unit!("examples", "notify-reload.conf");

/// What the names of our drop-ins are, for removing them.
const DROP_INS: [&str; 3] = [RELAXED.name, NOTIFY_RELOAD.name, HOME];

/// The drop-in for a home directory elsewhere than in /home.
const HOME: &str = "home.conf";

pub(super) fn all(scope: Scope) -> &'static [Unit] {
    match scope {
        Scope::User => &USER,
        Scope::System => &SYSTEM,
    }
}

/// Whether the templates are on this machine.
pub(super) fn is_packaged_for_system() -> bool {
    UNIT_PATH.iter().any(|root| Path::new(root).join("system").join(SYSTEM[1].name).exists())
}

/// The unit directories of one scope.
pub(super) struct Directory {
    /// Where units are written for this user, or by the administrator.
    own: PathBuf,
    scope: Scope,
}

impl Directory {
    pub(super) fn of(scope: Scope, environment: &Environment) -> Self {
        let own = match scope {
            Scope::User => environment.config_home().join("systemd/user"),
            Scope::System => PathBuf::from("/etc/systemd/system"),
        };
        Directory { own, scope }
    }

    /// Sees to it that this unit is there, and runs `program`; returns the file where it had to be written.
    pub(super) fn provide(&self, unit: Unit, program: &Path) -> Result<Option<PathBuf>, Failure> {
        let file = self.own.join(unit.name);
        let by_somebody = file.exists() && !is_ours(&file);
        if by_somebody || (self.packaged(unit.name) && Path::new(PACKAGED_PROGRAM).exists()) {
            // What an earlier install wrote would hide the package's.
            remove_if_ours(&file)?;
            return Ok(None);
        }
        write(&file, &unit.text.replace(PACKAGED_PROGRAM, &quoted_program(program)))?;
        Ok(Some(file))
    }

    /// Writes a drop-in for a unit; returns the file, unless somebody else has written one of that name.
    pub(super) fn add_drop_in(&self, unit: &str, drop_in: Unit) -> Result<Option<PathBuf>, Failure> {
        let file = self.own.join(format!("{unit}.d")).join(drop_in.name);
        Ok(write(&file, drop_in.text)?.then_some(file))
    }

    /// Lets the units of this instance write below a home directory that is not in /home.
    pub(super) fn add_home(&self, unit: &str, home: &Path) -> Result<Option<PathBuf>, Failure> {
        let file = self.own.join(format!("{unit}.d")).join(HOME);
        let path = home.display().to_string().replace('%', "%%");
        // It may be in a place that ProtectHome= empties, such as /root.
        let text =
            format!("[Service]\nBindPaths=\"{path}\"\nReadWritePaths=\"{path}\"\nInaccessiblePaths=-\"{path}/.ssh\"\n");
        Ok(write(&file, &text)?.then_some(file))
    }

    /// Removes what [`Directory::provide`] and the drop-ins wrote for these units, and nothing else; returns what went.
    pub(super) fn clear(&self, units: &[&str]) -> Result<Vec<PathBuf>, Failure> {
        let mut gone = Vec::new();
        for unit in units {
            let drop_ins = self.own.join(format!("{unit}.d"));
            let files = DROP_INS.iter().map(|name| drop_ins.join(name)).chain([self.own.join(unit)]);
            for file in files {
                if remove_if_ours(&file)? {
                    gone.push(file);
                }
            }
            // Only if nobody has put anything else there.
            let _ = fs::remove_dir(&drop_ins);
        }
        Ok(gone)
    }

    fn packaged(&self, name: &str) -> bool {
        let scope = if self.scope == Scope::User { "user" } else { "system" };
        UNIT_PATH.iter().any(|root| {
            let file = Path::new(root).join(scope).join(name);
            file != self.own.join(name) && file.exists()
        })
    }
}

fn is_ours(file: &Path) -> bool {
    files::is_ours(file, MARK)
}

fn remove_if_ours(file: &Path) -> Result<bool, Failure> {
    files::remove_if_ours(file, MARK)
}

/// Returns whether it was written: what somebody else wrote stays.
fn write(file: &Path, text: &str) -> Result<bool, Failure> {
    files::write(file, &format!("{MARK}{text}"), MARK)
}

/// A path as ExecStart= reads it (systemd.service(5), "Command lines").
fn quoted_program(program: &Path) -> String {
    let text = program.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | '@');
    if text.chars().all(plain) {
        return text;
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(own: &Path) -> Directory {
        Directory { own: own.to_owned(), scope: Scope::User }
    }

    #[test]
    fn a_unit_is_written_with_the_path_of_the_program_and_removed_again() {
        let scratch = tempfile::tempdir().unwrap();
        let units = directory(&scratch.path().join("systemd/user"));
        let file = units.provide(USER[1], Path::new("/opt/a b/dbx-rotator")).unwrap().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("ExecStart=\"/opt/a b/dbx-rotator\" rotate --if-due"), "{text}");
        let drop_in = units.add_drop_in("dbx-rotator.service", RELAXED).unwrap().unwrap();
        assert_eq!(units.clear(&["dbx-rotator.service"]).unwrap(), [drop_in.clone(), file.clone()]);
        assert!(!file.exists() && !drop_in.parent().unwrap().exists());
    }

    #[test]
    fn a_unit_that_somebody_else_wrote_is_neither_replaced_nor_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let units = directory(scratch.path());
        let file = scratch.path().join("dbx-rotator.service");
        fs::write(&file, "[Service]\n").unwrap();
        assert_eq!(units.provide(USER[1], Path::new("/x")).unwrap(), None);
        assert!(units.clear(&["dbx-rotator.service"]).unwrap().is_empty());
        assert_eq!(fs::read_to_string(&file).unwrap(), "[Service]\n");
    }

    #[test]
    fn what_is_allowed_and_forbidden_is_the_same_for_the_timers_run_and_the_daemon() {
        let sandbox = |unit: &Unit| {
            let (_, rest) = unit.text.split_once("# ---- what it may do").unwrap();
            rest.split("\n[Install]").next().unwrap().trim().to_owned()
        };
        assert_eq!(sandbox(&USER[1]), sandbox(&USER[2]));
        assert_eq!(sandbox(&SYSTEM[1]), sandbox(&SYSTEM[2]));
    }

    #[test]
    fn the_relaxed_drop_in_takes_back_nothing_that_the_units_do_not_set() {
        for line in RELAXED.text.lines().filter(|line| !line.starts_with(['#', '['])) {
            let (key, _) = line.split_once('=').unwrap();
            assert!(USER[1].text.contains(&format!("\n{key}=")), "{key}");
        }
    }
}
