//! The user that a system unit works for: by name, with the home directory.

use std::path::PathBuf;

use crate::config::ConfigError;
use crate::os::accounts;
use crate::os::dirs::Environment;

/// A user of this machine (passwd(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) home: PathBuf,
}

impl Account {
    /// The user named on the command line, else the one who called sudo.
    ///
    /// # Errors
    /// No user is named, or the user does not exist here.
    pub(crate) fn wanted(name: Option<&str>, environment: &Environment) -> Result<Self, ConfigError> {
        let by_sudo = || environment.get("SUDO_USER").filter(|name| *name != "root");
        let Some(name) = name.or_else(by_sudo) else {
            let error =
                ConfigError::usage("for which user? A system unit runs as the user whose password file it keeps");
            return Err(error.hint("name the user: dbx-rotator service install --system --for USER"));
        };
        let unusable = |name: &str| ConfigError::usage(format!("{name:?} is not a user name that a unit can run as"));
        if !is_usable(name) {
            return Err(unusable(name));
        }
        let (name, home) = accounts::of_name(name).ok_or_else(|| {
            ConfigError::usage(format!("there is no user {name} on this machine")).hint("see `getent passwd`")
        })?;
        if is_usable(&name) { Ok(Account { name, home }) } else { Err(unusable(&name)) }
    }

    /// The home directory that the user who runs this program has by the account, whatever `HOME` says; none where it is not known.
    pub(crate) fn home_of_own() -> Option<PathBuf> {
        accounts::of_uid(rustix::process::getuid().as_raw())?.home
    }

    /// The user who runs this program, if the name is known.
    pub(crate) fn own(environment: &Environment) -> Option<Self> {
        let known = accounts::of_uid(rustix::process::getuid().as_raw()).map(|account| account.name);
        let name = known.or_else(|| environment.get("USER").map(str::to_owned))?;
        Some(Account { name, home: environment.home()? })
    }
}

/// Whether systemd runs a unit as a user of this name (its "relaxed" rules, User/Group Name Syntax), and a file can be named so.
fn is_usable(name: &str) -> bool {
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit());
    let is_reserved = name.is_empty() || is_number || matches!(name, "." | "..");
    let is_misread = name.starts_with('-') || name.trim() != name;
    !is_reserved && !is_misread && !name.contains(|c: char| c.is_control() || matches!(c, ':' | '/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_directory_gives_are_names() {
        for name in
            ["ada", "ada-b", "ada@corp.example.com", r"CORP\ada", "Ada Lovelace", "host$", "o'brien", "größe", ".a"]
        {
            assert!(is_usable(name), "{name}");
        }
        for name in ["", " ada", "ada ", "-ada", "1000", ".", "..", "a:b", "a/b", "../x", "a\nb", "a\u{1b}"] {
            assert!(!is_usable(name), "{name:?}");
        }
    }

    #[test]
    fn nobody_and_who_is_not_here_are_refused() {
        let environment = Environment::default();
        for name in [None, Some(""), Some("../x"), Some("no-such-user-here"), Some("nobody@nowhere.example")] {
            assert_eq!(Account::wanted(name, &environment).unwrap_err().exit_code(), 64, "{name:?}");
        }
    }
}
