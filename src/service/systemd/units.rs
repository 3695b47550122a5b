//! The unit files: those of the package if it is installed, else the same text written by `service install`.
//!
//! Invariant: only a file with [`MARK`] is ever replaced or removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::failure::Failure;
use crate::generated::{expressible, read_back};
use crate::os::dirs::Environment;
use crate::service::Scope;
use crate::service::files;

/// The first line of each file that `service install` writes.
const MARK: &str = "# Written by `dbx-rotator service install`; `dbx-rotator service uninstall` removes it.\n";

/// The program's path in the packaged units.
const PACKAGED_PROGRAM: &str = "/usr/bin/dbx-rotator";

/// Where packages and administrators put units (systemd.unit(5)), with a directory below for each scope.
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

const USER_PROXY: [Unit; 2] = [unit!("user", "dbx-rotator-proxy.socket"), unit!("user", "dbx-rotator-proxy.service")];

const SYSTEM_PROXY: [Unit; 2] =
    [unit!("system", "dbx-rotator-proxy@.socket"), unit!("system", "dbx-rotator-proxy@.service")];

/// Lets the user units start without user namespaces.
pub(super) const RELAXED: Unit = unit!("examples", "relaxed.conf");

/// Makes a reload command wait until the reload is complete.
pub(super) const NOTIFY_RELOAD: Unit = unit!("examples", "notify-reload.conf");

/// Lets systemd wait longer before each restart of a daemon that keeps failing.
pub(super) const RESTART_STEPS: Unit = unit!("examples", "restart-steps.conf");

/// Lets a proxy know who its clients are: a user's own, and one of the machine.
const PROXY_ALLOW: [Unit; 2] = [unit!("examples", "proxy-allow-user.conf"), unit!("examples", "proxy-allow.conf")];

/// Lets a proxy ask the kernel for one connection.
pub(super) const PROXY_PORTS: Unit = unit!("examples", "proxy-ports.conf");

/// What the names of our drop-ins are, for removing them.
const DROP_INS: [&str; 10] = [
    RELAXED.name,
    NOTIFY_RELOAD.name,
    RESTART_STEPS.name,
    PROXY_ALLOW[0].name,
    PROXY_ALLOW[1].name,
    PROXY_PORTS.name,
    HOME,
    PLACES,
    SECRET,
    SOCKETS,
];

/// The drop-in for a home directory outside /home.
const HOME: &str = "home.conf";

/// The drop-in for files that are written outside of the home directory.
const PLACES: &str = "places.conf";

/// The drop-in for a secret whose file has an unusual name.
const SECRET: &str = "user-name.conf";

/// The drop-in for more sockets of the proxy.
const SOCKETS: &str = "sockets.conf";

/// The proxy's units: its socket, its service.
pub(super) fn of_proxy(scope: Scope) -> &'static [Unit] {
    match scope {
        Scope::User => &USER_PROXY,
        Scope::System => &SYSTEM_PROXY,
    }
}

/// Lets a proxy know who its clients are.
pub(super) fn proxy_allow(scope: Scope) -> Unit {
    PROXY_ALLOW[usize::from(scope == Scope::System)]
}

pub(super) fn all(scope: Scope) -> &'static [Unit] {
    match scope {
        Scope::User => &USER,
        Scope::System => &SYSTEM,
    }
}

/// Whether the templates are installed on this machine.
pub(super) fn is_packaged_for_system() -> bool {
    UNIT_PATH.iter().any(|root| Path::new(root).join("system").join(SYSTEM[1].name).exists())
}

/// The unit directories of one scope.
pub(super) struct Directory {
    /// Where this user's, or the administrator's, units are written.
    own: PathBuf,
    scope: Scope,
}

impl Directory {
    pub(super) fn of(scope: Scope, environment: &Environment) -> Self {
        let own = match scope {
            Scope::User => environment.units_dir(),
            Scope::System => PathBuf::from("/etc/systemd/system"),
        };
        Directory { own, scope }
    }

    /// Makes sure that this unit exists and runs `program`; returns the file if it had to be written.
    pub(super) fn provide(&self, unit: Unit, program: &Path) -> Result<Option<PathBuf>, Failure> {
        let file = self.own.join(unit.name);
        let by_somebody = file.exists() && !is_ours(&file);
        if by_somebody || (self.packaged(unit.name) && Path::new(PACKAGED_PROGRAM).exists()) {
            // A unit written by an earlier install would hide the package's.
            remove_if_ours(&file)?;
            return Ok(None);
        }
        write(&file, &with_program(unit.text, program)?)?;
        Ok(Some(file))
    }

    /// Writes a drop-in for a unit; returns the file, unless somebody else's has that name.
    pub(super) fn add_drop_in(&self, unit: &str, drop_in: Unit) -> Result<Option<PathBuf>, Failure> {
        let file = self.own.join(format!("{unit}.d")).join(drop_in.name);
        Ok(write(&file, drop_in.text)?.then_some(file))
    }

    /// Lets the units of this instance write to a home directory outside /home.
    pub(super) fn add_home(&self, unit: &str, home: &Path) -> Result<Option<PathBuf>, Failure> {
        let file = self.own.join(format!("{unit}.d")).join(HOME);
        Ok(write(&file, &home_drop_in(home)?)?.then_some(file))
    }

    /// Lets a unit take the secret from this file, whose name has backslashes: they are doubled, as systemd reads escapes here.
    pub(super) fn add_secret(&self, unit: &str, file: &Path) -> Result<Option<PathBuf>, Failure> {
        let path = file.display().to_string().replace('\\', r"\\").replace('%', "%%");
        let drop_in = self.own.join(format!("{unit}.d")).join(SECRET);
        let text = format!("[Service]\nLoadCredential=\nLoadCredential=client-secret:{path}\n");
        Ok(write(&drop_in, &text)?.then_some(drop_in))
    }

    /// Lets a unit write in these directories, and in no others that an earlier install let it.
    pub(super) fn add_places(&self, unit: &str, directories: &[&Path]) -> Result<Option<PathBuf>, Failure> {
        let file = self.own.join(format!("{unit}.d")).join(PLACES);
        if directories.is_empty() {
            remove_if_ours(&file)?;
            return Ok(None);
        }
        Ok(write(&file, &places_drop_in(directories)?)?.then_some(file))
    }

    /// Whether [`Directory::add_drop_in`] has written this one.
    pub(super) fn has_drop_in(&self, unit: &str, drop_in: Unit) -> bool {
        is_ours(&self.own.join(format!("{unit}.d")).join(drop_in.name))
    }

    /// Writes a drop-in for a unit, or removes it where it is not wanted; returns the file that had to be written.
    pub(super) fn set_drop_in(&self, unit: &str, drop_in: Unit, is_wanted: bool) -> Result<Option<PathBuf>, Failure> {
        if is_wanted {
            return self.add_drop_in(unit, drop_in);
        }
        remove_if_ours(&self.own.join(format!("{unit}.d")).join(drop_in.name))?;
        Ok(None)
    }

    /// Lets a socket unit listen so, and not as an earlier install let it; returns the file if it had to be written. One that says the
    /// same stays untouched, so that its age tells whether the socket is older.
    pub(super) fn set_sockets(&self, unit: &str, text: Option<String>) -> Result<Option<PathBuf>, Failure> {
        let file = self.sockets(unit);
        let text = match text {
            None if !is_ours(&file) => return Ok(None),
            // Without a file nothing would tell that the socket is to be opened anew.
            None => "[Socket]\n".to_owned(),
            Some(text) => text,
        };
        if fs::read_to_string(&file).is_ok_and(|present| present == format!("{MARK}{text}")) {
            return Ok(None);
        }
        Ok(write(&file, &text)?.then_some(file))
    }

    /// When [`Directory::set_sockets`] wrote something else than before.
    pub(super) fn sockets_set_at(&self, unit: &str) -> Option<SystemTime> {
        fs::metadata(self.sockets(unit)).and_then(|data| data.modified()).ok()
    }

    fn sockets(&self, unit: &str) -> PathBuf {
        self.own.join(format!("{unit}.d")).join(SOCKETS)
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
            // Fails if the directory holds anything else.
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

/// Writes the file unless it is somebody else's. Returns whether it did.
fn write(file: &Path, text: &str) -> Result<bool, Failure> {
    files::write(file, &format!("{MARK}{text}"), MARK)
}

/// Characters that no path in a unit may contain: systemd gives each a special meaning in some setting (systemd.syntax(7),
/// systemd.service(5), "Command lines", systemd.exec(5), BindPaths=).
const SPECIAL: [char; 5] = ['"', '\'', '\\', '$', ':'];

/// The unit with this program in it.
fn with_program(unit: &str, program: &Path) -> Result<String, Failure> {
    let path = absolute("a systemd unit", program)?;
    let text = unit.replace(PACKAGED_PROGRAM, &quoted(path));
    let meant: Vec<(&str, String)> =
        settings(unit).map(|(key, value)| (key, value.replace(PACKAGED_PROGRAM, path))).collect();
    let found: Vec<(&str, String)> = settings(&text).map(|(key, value)| (key, unquoted(key, value, path))).collect();
    read_back("the unit", &meant, Some(&found))?;
    Ok(text)
}

/// A drop-in that lets a unit write below this directory. It may be in a place that ProtectHome= hides, such as /root.
fn home_drop_in(home: &Path) -> Result<String, Failure> {
    let path = absolute("a systemd unit", home)?;
    let quoted = format!("\"{}\"", path.replace('%', "%%"));
    let ssh = format!("-\"{}/.ssh\"", path.replace('%', "%%"));
    let text = format!("[Service]\nBindPaths={quoted}\nReadWritePaths={quoted}\nInaccessiblePaths={ssh}\n");
    let keys: Vec<&str> = settings(&text).map(|(key, _)| key).collect();
    read_back("the drop-in", &vec!["BindPaths", "ReadWritePaths", "InaccessiblePaths"], Some(&keys))?;
    Ok(text)
}

/// Whether a unit may be let write in this directory: not where all of the machine is, nor where there are no files.
pub(super) fn can_be_let_in(directory: &Path) -> bool {
    let has_none = ["/dev", "/proc", "/sys"].iter().any(|root| directory.starts_with(root));
    directory.components().count() > 2 && !has_none
}

/// What lets a unit write in these directories. One that is not there cannot be let in, hence the dash.
fn places_drop_in(directories: &[&Path]) -> Result<String, Failure> {
    let mut text = "[Service]\n".to_owned();
    for directory in directories {
        let path = absolute("a systemd unit", directory)?;
        text.push_str(&format!("ReadWritePaths=-\"{}\"\n", path.replace('%', "%%")));
    }
    let keys: Vec<&str> = settings(&text).map(|(key, _)| key).collect();
    read_back("the drop-in", &vec!["ReadWritePaths"; directories.len()], Some(&keys))?;
    Ok(text)
}

fn absolute<'p>(what: &str, path: &'p Path) -> Result<&'p str, Failure> {
    let path = if path.is_absolute() { path } else { Path::new("") };
    expressible(what, path, &SPECIAL).and_then(|text| match text {
        "" => Err(crate::Failure::permanent(crate::Code::Configuration, "a systemd unit needs an absolute path")),
        text => Ok(text),
    })
}

/// A path as ExecStart= reads it.
fn quoted(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | '@');
    if path.chars().all(plain) { path.to_owned() } else { format!("\"{}\"", path.replace('%', "%%")) }
}

/// The settings of a unit in order, without comments and section heads.
fn settings(unit: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = unit.lines().filter(|line| !line.starts_with(['#', ';', '[']) && !line.trim().is_empty());
    lines.map(|line| line.split_once('=').unwrap_or((line, "")))
}

/// A value with its quoted path as the path is meant.
fn unquoted(key: &str, value: &str, path: &str) -> String {
    let word = value.strip_prefix('"').and_then(|rest| rest.split_once('"'));
    match word {
        Some((word, rest)) if key.starts_with("Exec") && word.replace("%%", "%") == path => format!("{path}{rest}"),
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests;
