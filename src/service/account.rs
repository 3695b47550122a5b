//! Whose passwords a system unit keeps alive: a user of this machine by name, with the home directory.

use std::path::PathBuf;

use crate::config::ConfigError;
use crate::os::dirs::Environment;

/// A user of this machine (passwd(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) home: PathBuf,
}

impl Account {
    /// The user that a person names, else the one who called sudo.
    ///
    /// # Errors
    /// Nobody is named, or there is no such user here.
    pub(crate) fn wanted(name: Option<&str>, environment: &Environment) -> Result<Self, ConfigError> {
        let by_sudo = || environment.get("SUDO_USER").filter(|name| *name != "root");
        let Some(name) = name.or_else(by_sudo) else {
            let error =
                ConfigError::usage("for which user? A system unit runs as the user whose password file it keeps");
            return Err(error.hint("name the user: dbx-rotator service install --system --for USER"));
        };
        let unusual = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
        if name.is_empty() || name.contains(unusual) {
            return Err(ConfigError::usage(format!("`{name}` is not a user name that a unit can be named after")));
        }
        let known = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        // Users of a directory service are not in the file.
        let home = home_of(&known, name).or_else(|| home_of(&getent(name), name));
        let home = home.ok_or_else(|| {
            ConfigError::usage(format!("there is no user {name} on this machine")).hint("see `getent passwd`")
        })?;
        Ok(Account { name: name.to_owned(), home })
    }

    /// The home directory that the user who runs this program has by the account, whatever `HOME` says; none where it is not known.
    pub(crate) fn home_of_own() -> Option<PathBuf> {
        let id = rustix::process::getuid().as_raw();
        let known = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let line = known.lines().find(|line| line.split(':').nth(2) == Some(&id.to_string()))?;
        line.split(':').nth(5).filter(|home| home.starts_with('/')).map(PathBuf::from)
    }

    /// The user who runs this program, where the name is known.
    pub(crate) fn own(environment: &Environment) -> Option<Self> {
        let id = rustix::process::getuid().as_raw().to_string();
        let known = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let by_id = known.lines().find(|line| line.split(':').nth(2) == Some(&id));
        let name = by_id.and_then(|line| line.split(':').next()).or_else(|| environment.get("USER"))?;
        Some(Account { name: name.to_owned(), home: environment.home()? })
    }
}

/// What the name service knows of a user, as a line of /etc/passwd (getent(1)).
fn getent(name: &str) -> String {
    let output = std::process::Command::new("getent").args(["passwd", "--", name]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

fn home_of(passwd: &str, name: &str) -> Option<PathBuf> {
    let fields: Vec<&str> = passwd.lines().find(|line| line.split(':').next() == Some(name))?.split(':').collect();
    fields.get(5).filter(|home| home.starts_with('/')).map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_is_found_by_the_whole_name() {
        let passwd = "ada-b:x:1:1::/home/b:/bin/sh\nada:x:2:2::/srv/ada:/bin/sh\nx:y\n";
        assert_eq!(home_of(passwd, "ada"), Some(PathBuf::from("/srv/ada")));
        assert_eq!((home_of(passwd, "x"), home_of(passwd, "bob")), (None, None));
    }

    #[test]
    fn nobody_and_names_that_no_unit_can_have_are_refused() {
        let environment = Environment::default();
        for name in [None, Some(""), Some("a b"), Some("../x"), Some("no-such-user-here")] {
            assert_eq!(Account::wanted(name, &environment).unwrap_err().exit_code(), 64, "{name:?}");
        }
    }
}
