//! Where the program keeps and finds things (XDG Base Directory Specification, systemd.exec(5)).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where the machine's service manager has the configurations of its instances, one for each user: `USER.toml`.
pub(crate) const SYSTEM_DIRECTORY: &str = "/etc/dbx-rotator";

/// The environment as it was when the program started, so that what depends on it can be tested.
#[derive(Clone, Default)]
pub(crate) struct Environment {
    variables: std::collections::BTreeMap<OsString, OsString>,
    /// See [`Environment::handed_over`].
    credential: Option<PathBuf>,
}

impl Environment {
    /// This process's own.
    pub(crate) fn of_this_process() -> Self {
        std::env::vars_os().collect()
    }

    /// The same with a variable set to this.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// The same with a variable not set.
    #[must_use]
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.variables.remove(std::ffi::OsStr::new(name));
        self
    }

    /// The same seen from outside of a unit to which this file will be handed over as the credential `client-secret`.
    #[must_use]
    pub(crate) fn handing_over(mut self, credential: Option<PathBuf>) -> Self {
        self.credential = credential;
        self
    }

    /// The file that a unit gets as the credential `client-secret`, for who looks from outside.
    pub(crate) fn handed_over(&self) -> Option<&Path> {
        self.credential.as_deref()
    }

    /// All variables, for the environment of a child.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.variables.iter()
    }

    /// A variable's value; an empty one counts as unset (as in Databricks' unified authentication).
    pub(crate) fn get_os(&self, name: &str) -> Option<&OsString> {
        self.variables.get(std::ffi::OsStr::new(name)).filter(|value| !value.is_empty())
    }

    /// A variable's value as text; one that is not UTF-8 counts as unset.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.get_os(name)?.to_str()
    }

    /// A variable that names a path.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        self.get_os(name).map(PathBuf::from)
    }

    /// The home directory: `$HOME`, else the passwd entry.
    pub(crate) fn home(&self) -> Option<PathBuf> {
        self.path("HOME").or_else(std::env::home_dir)
    }

    /// `~` and `~/...` with the home directory in place; anything else as it is.
    pub(crate) fn expand_home(&self, path: &str) -> PathBuf {
        match (path.strip_prefix('~'), self.home()) {
            (Some(""), Some(home)) => home,
            (Some(rest), Some(home)) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
            _ => PathBuf::from(path),
        }
    }

    /// Where the record and the lock live: `$STATE_DIRECTORY`, else `$XDG_STATE_HOME/dbx-rotator`, on macOS
    /// `~/Library/Application Support/dbx-rotator`.
    pub(crate) fn state_dir(&self) -> PathBuf {
        if let Some(dir) = self.first_of("STATE_DIRECTORY") {
            return dir;
        }
        let home = self.home().unwrap_or_else(|| PathBuf::from("/"));
        if cfg!(target_os = "macos") {
            return home.join("Library/Application Support/dbx-rotator");
        }
        self.absolute("XDG_STATE_HOME").unwrap_or_else(|| home.join(".local/state")).join("dbx-rotator")
    }

    /// Where programs keep their settings: `$XDG_CONFIG_HOME`, else `~/.config`.
    pub(crate) fn config_home(&self) -> PathBuf {
        let home = || self.home().unwrap_or_else(|| PathBuf::from("/"));
        self.absolute("XDG_CONFIG_HOME").unwrap_or_else(|| home().join(".config"))
    }

    /// Where config.toml is looked for when nobody says where it is, best first; then what the machine's service manager runs with
    /// for this user. The first is where it is missed when there is none.
    pub(crate) fn config_files(&self) -> Vec<PathBuf> {
        let directories =
            self.first_of("CONFIGURATION_DIRECTORY").into_iter().chain([self.config_home().join("dbx-rotator")]);
        let own = directories.map(|directory| directory.join("config.toml"));
        let of_the_machine = self.get("USER").map(|user| Path::new(SYSTEM_DIRECTORY).join(format!("{user}.toml")));
        own.chain(of_the_machine).collect()
    }

    /// The vendor's profile file: `$DATABRICKS_CONFIG_FILE`, else `~/.databrickscfg` (databricks-sdk-go, config_file.go).
    pub(crate) fn databricks_config_file(&self) -> Option<PathBuf> {
        let named = self.get("DATABRICKS_CONFIG_FILE").map(|path| self.expand_home(path));
        named.or_else(|| Some(self.home()?.join(".databrickscfg")))
    }

    /// Where the vendor's CLI keeps its logins (databricks-sdk-go, u2m/cache/file.go).
    pub(crate) fn databricks_token_cache(&self) -> Option<PathBuf> {
        Some(self.home()?.join(".databricks/token-cache.json"))
    }

    /// systemd's directory variables hold a colon-separated list (systemd.exec(5)); the first is ours.
    fn first_of(&self, name: &str) -> Option<PathBuf> {
        std::env::split_paths(self.get_os(name)?).next().filter(|dir| dir.is_absolute())
    }

    /// A relative path in an XDG variable is to be ignored (Base Directory Specification).
    fn absolute(&self, name: &str) -> Option<PathBuf> {
        self.path(name).filter(|dir| Path::is_absolute(dir))
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Environment { variables, credential: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().copied().collect()
    }

    #[test]
    fn an_empty_variable_is_an_unset_one() {
        assert_eq!(environment(&[("DATABRICKS_HOST", "")]).get("DATABRICKS_HOST"), None);
    }

    #[test]
    fn the_managers_state_directory_wins() {
        let home = ("HOME", "/home/ada");
        assert_eq!(environment(&[home, ("STATE_DIRECTORY", "/var/lib/x:/y")]).state_dir(), Path::new("/var/lib/x"));
        if cfg!(target_os = "linux") {
            assert_eq!(environment(&[home]).state_dir(), Path::new("/home/ada/.local/state/dbx-rotator"));
            assert_eq!(
                environment(&[home, ("XDG_STATE_HOME", "relative")]).state_dir(),
                Path::new("/home/ada/.local/state/dbx-rotator")
            );
        }
    }

    #[test]
    fn only_a_leading_tilde_of_its_own_is_the_home_directory() {
        let ada = environment(&[("HOME", "/home/ada")]);
        assert_eq!(ada.expand_home("~/.pgpass"), Path::new("/home/ada/.pgpass"));
        assert_eq!(ada.expand_home("~bob/.pgpass"), Path::new("~bob/.pgpass"));
        assert_eq!(ada.expand_home("/a/~/b"), Path::new("/a/~/b"));
    }
}
