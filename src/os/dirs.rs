//! Where the program keeps and finds things (XDG Base Directory Specification, systemd.exec(5)).

use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use secrecy::SecretString;

/// Where the machine's service manager keeps the configurations of its instances, one for each user: `USER.toml`.
pub(crate) const SYSTEM_DIRECTORY: &str = "/etc/dbx-rotator";

/// The variable that holds a service principal's secret.
pub(crate) const CLIENT_SECRET: &str = "DATABRICKS_CLIENT_SECRET";

/// Variables with secrets that sign in. They are kept apart from the others, and no child gets them.
const SECRETS: [&str; 10] = [
    CLIENT_SECRET,
    "DATABRICKS_TOKEN",
    "DATABRICKS_OIDC_TOKEN",
    "DATABRICKS_METADATA_SERVICE_URL",
    "ARM_CLIENT_SECRET",
    "GOOGLE_CREDENTIALS",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "SYSTEM_ACCESSTOKEN",
    "IDENTITY_HEADER",
    "DATABRICKS_PASSWORD",
];

/// Names the file with the credentials that Google's libraries use ("Application Default Credentials").
pub(crate) const GOOGLE_CREDENTIALS: &str = "GOOGLE_APPLICATION_CREDENTIALS";

/// The name of that file in the directory of gcloud.
const GCLOUD_CREDENTIALS: &str = "application_default_credentials.json";

/// A variable that says in which other one a secret is.
const NAMES_A_SECRET: &str = "DATABRICKS_OIDC_TOKEN_ENV";

/// The name of our directory within others.
const OURS: &str = "dbx-rotator";

/// The name of the configuration file.
const CONFIG: &str = "config.toml";

/// The platform that decides where files belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Platform {
    /// Apple's "File System Programming Guide".
    #[cfg_attr(not(target_os = "macos"), allow(dead_code, reason = "tested everywhere"))]
    MacOs,
    #[cfg_attr(target_os = "macos", allow(dead_code, reason = "tested everywhere"))]
    Other,
}

impl Platform {
    const HERE: Platform = if cfg!(target_os = "macos") { Platform::MacOs } else { Platform::Other };
}

/// The environment when the program started, as a value, so that what depends on it can be tested.
#[derive(Clone, Default)]
pub(crate) struct Environment {
    variables: std::collections::BTreeMap<OsString, OsString>,
    /// See [`Environment::secret`]; none of one that is not UTF-8.
    secrets: std::collections::BTreeMap<OsString, Option<SecretString>>,
    /// See [`Environment::handed_over`].
    credential: Option<PathBuf>,
}

impl Environment {
    /// The environment of this process.
    pub(crate) fn of_this_process() -> Self {
        std::env::vars_os().collect()
    }

    /// The same with this variable set.
    #[must_use]
    pub(crate) fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.keep(name.into(), value.into());
        self
    }

    /// The same without this variable.
    #[must_use]
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.variables.remove(OsStr::new(name));
        self.secrets.remove(OsStr::new(name));
        self
    }

    /// The same with this variable kept as a secret.
    #[must_use]
    pub(crate) fn hiding(mut self, name: &str) -> Self {
        if let Some(value) = self.variables.remove(OsStr::new(name)) {
            self.keep_secret(name.into(), value);
        }
        self
    }

    /// Keeps secrets apart from the other variables, which are cloned in plain text and may be passed on.
    fn keep(&mut self, name: OsString, value: OsString) {
        if SECRETS.iter().any(|secret| name == *secret) {
            self.keep_secret(name, value);
        } else if name != "PGPASSWORD" {
            self.variables.insert(name, value);
        }
    }

    fn keep_secret(&mut self, name: OsString, value: OsString) {
        if !value.is_empty() {
            self.secrets.insert(name, value.into_string().ok().map(SecretString::from));
        }
    }

    /// The names of the variables that hold secrets here.
    pub(crate) fn names_of_secrets(&self) -> impl Iterator<Item = &OsString> {
        self.secrets.keys()
    }

    /// The value of `DATABRICKS_CLIENT_SECRET`.
    pub(crate) fn client_secret(&self) -> Option<&SecretString> {
        self.secret(CLIENT_SECRET)
    }

    /// The value of a variable that holds a secret: those are not kept among the others.
    pub(crate) fn secret(&self, name: &str) -> Option<&SecretString> {
        self.secrets.get(OsStr::new(name))?.as_ref()
    }

    /// The same as seen from outside a unit that will get this file as the credential `client-secret`.
    #[must_use]
    pub(crate) fn handing_over(mut self, credential: Option<PathBuf>) -> Self {
        self.credential = credential;
        self
    }

    /// The file that a unit will get as the credential `client-secret`, if this is seen from outside the unit.
    pub(crate) fn handed_over(&self) -> Option<&Path> {
        self.credential.as_deref()
    }

    /// All variables except those with secrets, for the environment of a child.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.variables.iter()
    }

    /// A variable's value; an empty one counts as unset (as in Databricks' unified authentication).
    pub(crate) fn get_os(&self, name: &str) -> Option<&OsString> {
        self.variables.get(OsStr::new(name)).filter(|value| !value.is_empty())
    }

    /// A variable's value as text; one that is not UTF-8 counts as unset.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.get_os(name)?.to_str()
    }

    /// The first of these whose value is not UTF-8.
    pub(crate) fn no_text<'n>(&self, names: &[&'n str]) -> Option<&'n str> {
        let is_none = |name: &str| match self.secrets.get(OsStr::new(name)) {
            Some(secret) => secret.is_none(),
            None => self.get_os(name).is_some_and(|value| value.to_str().is_none()),
        };
        names.iter().copied().find(|name| is_none(name))
    }

    /// A variable that names a path, expanded where that can be.
    pub(crate) fn path(&self, name: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.get_os(name)?);
        Some(self.expand(&path).unwrap_or(path))
    }

    /// The home directory: `$HOME`, else the passwd entry.
    pub(crate) fn home(&self) -> Option<PathBuf> {
        self.get_os("HOME").map(PathBuf::from).or_else(std::env::home_dir)
    }

    /// A path as a shell would have handed it over: `~`, `~ada` and `$HOME` at its beginning become the directories that they mean.
    ///
    /// # Errors
    /// A sentence with what in it is left that a shell would have replaced.
    pub(crate) fn expand(&self, path: &Path) -> Result<PathBuf, String> {
        let shown = path.display();
        let mut parts = path.components();
        let first = match parts.next() {
            Some(Component::Normal(first)) => first.to_str().unwrap_or_default(),
            _ => "",
        };
        let start = match (first, first.strip_prefix('~')) {
            ("~" | "$HOME" | "${HOME}", _) => {
                Some(self.home().ok_or_else(|| format!("`{shown}`: no home directory is known, so HOME is to be set"))?)
            }
            (_, Some(user)) => Some(super::accounts::of_name(user).map(|(_, home)| home).ok_or_else(|| {
                format!("`{shown}`: there is no user {user} whose home directory it could mean; a file of that name is `./{shown}`")
            })?),
            _ => None,
        };
        let rest = if start.is_some() { parts.as_path() } else { path };
        let is_open = |part: &str| part.contains("${") || part.strip_prefix('$').is_some_and(is_variable);
        if let Some(open) = rest.components().filter_map(|part| part.as_os_str().to_str()).find(|part| is_open(part)) {
            return Err(format!(
                "`{shown}` holds the variable {open}, which is not replaced here: write what it stands for"
            ));
        }
        let quote = ['"', '\''].into_iter().find(|quote| first.starts_with(*quote));
        if quote.is_some_and(|quote| path.to_str().is_some_and(|text| text.len() > 1 && text.ends_with(quote))) {
            return Err(format!("`{shown}` is in quotes, which are taken for a part of the path: leave them out"));
        }
        Ok(start.map_or_else(|| path.to_owned(), |start| start.join(rest)))
    }

    /// The directory of the record and the lock: `$STATE_DIRECTORY`, else the platform's usual place.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.first_of("STATE_DIRECTORY").unwrap_or_else(|| self.state_dir_on(Platform::HERE))
    }

    /// The directory of sockets: `$RUNTIME_DIRECTORY`, else `$XDG_RUNTIME_DIR/dbx-rotator`, for root `/run/dbx-rotator`, else in the
    /// directory of the record.
    pub(crate) fn runtime_dir(&self, uid: u32) -> PathBuf {
        let of_session = || Some(self.absolute("XDG_RUNTIME_DIR")?.join(OURS));
        let of_root = || (uid == 0 && Path::new("/run").is_dir()).then(|| Path::new("/run").join(OURS));
        // A program that a person's session did not start, such as one of cron, has no such variable.
        let of_user = || Some(PathBuf::from(format!("/run/user/{uid}"))).filter(|dir| dir.is_dir());
        let found = self.first_of("RUNTIME_DIRECTORY").or_else(of_session).or_else(of_root);
        found.or_else(|| Some(of_user()?.join(OURS))).unwrap_or_else(|| self.state_dir().join("run"))
    }

    /// The file with the credentials of Google's libraries: the one that a variable names, else that of gcloud.
    pub(crate) fn google_credentials(&self) -> Option<PathBuf> {
        self.path(GOOGLE_CREDENTIALS).or_else(|| {
            let gcloud = self.path("CLOUDSDK_CONFIG").or_else(|| Some(self.home()?.join(".config/gcloud")))?;
            Some(gcloud.join(GCLOUD_CREDENTIALS))
        })
    }

    /// Where the service manager finds what it is to run for this user.
    pub(crate) fn units_dir(&self) -> PathBuf {
        match Platform::HERE {
            Platform::MacOs => self.home().unwrap_or_default().join("Library/LaunchAgents"),
            Platform::Other => self.config_home().join("systemd/user"),
        }
    }

    /// Where the logins of people are: theirs, whatever place a manager has for the record of a service.
    pub(crate) fn logins_dir(&self) -> PathBuf {
        self.state_dir_on(Platform::HERE).join("logins")
    }

    /// On macOS `~/Library/Application Support/dbx-rotator`, elsewhere `$XDG_STATE_HOME/dbx-rotator`.
    fn state_dir_on(&self, platform: Platform) -> PathBuf {
        match platform {
            Platform::MacOs => self.application_support(),
            Platform::Other => {
                let usual = || self.home_or_root().join(".local/state");
                self.absolute("XDG_STATE_HOME").unwrap_or_else(usual).join(OURS)
            }
        }
    }

    /// Where a log file goes that is given without a directory: `~/Library/Logs` on macOS; other systems have no such place.
    pub(crate) fn log_file_named(&self, name: &str) -> Option<PathBuf> {
        self.log_file_named_on(Platform::HERE, name)
    }

    fn log_file_named_on(&self, platform: Platform, name: &str) -> Option<PathBuf> {
        let is_bare = Path::new(name).file_name().is_some_and(|bare| bare == name) && name != "~";
        (platform == Platform::MacOs && is_bare).then(|| self.home_or_root().join("Library/Logs").join(name))
    }

    /// Where programs keep their settings: `$XDG_CONFIG_HOME`, else `~/.config`.
    pub(crate) fn config_home(&self) -> PathBuf {
        self.absolute("XDG_CONFIG_HOME").unwrap_or_else(|| self.home_or_root().join(".config"))
    }

    /// Where config.toml is looked for if no path is given, best first; the last is what the machine's service manager uses for
    /// this user. If none exists, the first is named in the error.
    pub(crate) fn config_files(&self) -> Vec<PathBuf> {
        let of_the_unit = self.first_of("CONFIGURATION_DIRECTORY").map(|directory| directory.join(CONFIG));
        let of_the_machine = self.get("USER").map(|user| Path::new(SYSTEM_DIRECTORY).join(format!("{user}.toml")));
        of_the_unit.into_iter().chain(self.own_config_files_on(Platform::HERE)).chain(of_the_machine).collect()
    }

    /// Whether configurations are looked for in this directory, so that `conf.d` in it is ours.
    pub(crate) fn is_of_configuration(&self, directory: &Path) -> bool {
        directory == Path::new(SYSTEM_DIRECTORY)
            || self.config_files().iter().any(|file| file.parent() == Some(directory))
    }

    /// The user's own config.toml: the one that exists, else the one to name in an error.
    pub(crate) fn own_config_file(&self) -> PathBuf {
        self.own_config_file_on(Platform::HERE)
    }

    fn own_config_file_on(&self, platform: Platform) -> PathBuf {
        let files = self.own_config_files_on(platform);
        let there = files.iter().find(|file| file.exists()).or(files.first()).cloned();
        there.unwrap_or_else(|| PathBuf::from(CONFIG))
    }

    /// On macOS command-line programs use `~/.config`, and others `~/Library/Application Support`: both are accepted.
    fn own_config_files_on(&self, platform: Platform) -> Vec<PathBuf> {
        let mut files = vec![self.config_home().join(OURS).join(CONFIG)];
        if platform == Platform::MacOs {
            files.push(self.application_support().join(CONFIG));
        }
        files
    }

    fn application_support(&self) -> PathBuf {
        self.home_or_root().join("Library/Application Support").join(OURS)
    }

    fn home_or_root(&self) -> PathBuf {
        self.home().unwrap_or_else(|| PathBuf::from("/"))
    }

    /// The vendor's profile file: `$DATABRICKS_CONFIG_FILE`, else `~/.databrickscfg` (databricks-sdk-go, config_file.go).
    pub(crate) fn databricks_config_file(&self) -> Option<PathBuf> {
        let named = self.path("DATABRICKS_CONFIG_FILE");
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

    /// Relative paths in XDG variables must be ignored (Base Directory Specification).
    fn absolute(&self, name: &str) -> Option<PathBuf> {
        self.path(name).filter(|dir| Path::is_absolute(dir))
    }
}

/// Whether a shell takes this for the name of a variable.
fn is_variable(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    !name.is_empty() && name.bytes().all(is_part)
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        let mut environment = Environment::default();
        for (name, value) in variables {
            environment.keep(name.into(), value.into());
        }
        match environment.get(NAMES_A_SECRET).map(str::to_owned) {
            Some(name) => environment.hiding(&name),
            None => environment,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

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
        let here = environment(&[home, ("STATE_DIRECTORY", "/var/lib/x")]).logins_dir();
        assert!(
            here.starts_with("/home/ada") && here.ends_with("dbx-rotator/logins"),
            "a login is a person's: {here:?}"
        );
        for relative in [environment(&[home]), environment(&[home, ("XDG_STATE_HOME", "relative")])] {
            assert_eq!(relative.state_dir_on(Platform::Other), Path::new("/home/ada/.local/state/dbx-rotator"));
        }
    }

    #[test]
    fn a_mac_user_finds_things_where_macs_have_them() {
        let ada = environment(&[("HOME", "/Users/ada"), ("XDG_STATE_HOME", "/elsewhere")]);
        let support = Path::new("/Users/ada/Library/Application Support/dbx-rotator");
        assert_eq!(ada.state_dir_on(Platform::MacOs), support);
        let files = [Path::new("/Users/ada/.config/dbx-rotator/config.toml"), &support.join("config.toml")];
        assert_eq!(ada.own_config_files_on(Platform::MacOs), files);
        assert_eq!(ada.own_config_files_on(Platform::Other), files[..1]);
        let log = |platform, name| ada.log_file_named_on(platform, name);
        assert_eq!(log(Platform::MacOs, "rotator.log").unwrap(), Path::new("/Users/ada/Library/Logs/rotator.log"));
        for name in ["./rotator.log", "/var/log/x", "~/x.log", "logs/x", "..", "~"] {
            assert_eq!(log(Platform::MacOs, name), None, "{name}");
        }
        assert_eq!(log(Platform::Other, "rotator.log"), None);
    }

    #[test]
    fn of_two_places_for_the_configuration_the_one_where_it_is_counts() {
        let scratch = tempfile::tempdir().unwrap();
        let ada: Environment = [("HOME", scratch.path())].into_iter().collect();
        let [first, second] = &ada.own_config_files_on(Platform::MacOs)[..] else { panic!("two places") };
        assert_eq!(&ada.own_config_file_on(Platform::MacOs), first, "where it is missed");
        std::fs::create_dir_all(second.parent().unwrap()).unwrap();
        std::fs::write(second, "").unwrap();
        assert_eq!(&ada.own_config_file_on(Platform::MacOs), second);
        std::fs::create_dir_all(first.parent().unwrap()).unwrap();
        std::fs::write(first, "").unwrap();
        assert_eq!(&ada.own_config_file_on(Platform::MacOs), first);
    }

    #[test]
    fn a_path_is_expanded_as_by_a_shell_or_named() {
        let ada = environment(&[("HOME", "/home/ada"), ("XDG_CONFIG_HOME", "/x")]);
        for (path, expanded) in [
            ("~", "/home/ada"),
            ("~/", "/home/ada"),
            ("~/.pgpass", "/home/ada/.pgpass"),
            ("~//a/../b", "/home/ada/a/../b"),
            ("~root/x", "/root/x"),
            ("$HOME/x", "/home/ada/x"),
            ("${HOME}/x", "/home/ada/x"),
            ("$HOME", "/home/ada"),
            // None of these means anything to a shell, or could be meant otherwise.
            ("/a/~/b", "/a/~/b"),
            ("./~/x", "./~/x"),
            ("./~x", "./~x"),
            ("x~", "x~"),
            ("/home/HOST$/x", "/home/HOST$/x"),
            ("/c/$RECYCLE.BIN/x", "/c/$RECYCLE.BIN/x"),
            ("/a/$b", "/a/$b"),
            ("relative/x", "relative/x"),
            ("it's", "it's"),
            ("", ""),
        ] {
            assert_eq!(ada.expand(Path::new(path)).as_deref(), Ok(Path::new(expanded)), "{path}");
        }
        for (path, said) in [
            ("~no-such-user-here/x", "there is no user no-such-user-here"),
            ("~+/x", "there is no user +"),
            ("$XDG_CONFIG_HOME/x", "holds the variable $XDG_CONFIG_HOME"),
            ("/home/$USER/x", "holds the variable $USER"),
            ("/home/${USER}/x", "holds the variable ${USER}"),
            ("~/${NAME}.log", "holds the variable ${NAME}.log"),
            ("\"/home/ada/x\"", "is in quotes"),
            ("'~/x'", "is in quotes"),
        ] {
            let why = ada.expand(Path::new(path)).unwrap_err();
            assert!(why.contains(said), "{path}: {why}");
        }
        let odd = Path::new(std::ffi::OsStr::from_bytes(b"\xff/x"));
        assert_eq!(ada.expand(odd).as_deref(), Ok(odd));
    }
}
