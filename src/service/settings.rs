//! config.toml and the secret's file for a service, from what a person gave by flag or environment, which a service does
//! not see.
//!
//! Invariants: everything else in an existing file stays, including comments; what is written has been read back as the
//! service will read it; a secret only goes into a file of mode 0600, or into the keychain.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use super::files::cannot;
use crate::auth;
use crate::config::{Config, ConfigError, Origin, Overrides, Setting, credential_source};
use crate::failure::{Code, Failure};
use crate::model::{AuthType, Client, SecretSource, Workspace};
use crate::os::dirs::Environment;
use crate::os::files::{check_that_nothing_stays, make_directories, read_text, set_mode};
use crate::os::keychain::{self, Item as Password};
use crate::proxies::without_password;
use crate::words;

/// The head of a new file.
const HEAD: &str = "# What dbx-rotator keeps alive. `dbx-rotator config show` says what is in effect, and why.\n";

/// The name of the secret's file, next to a user's configuration.
const SECRET: &str = "client-secret";

/// The setting that may be a list of paths.
const PASSWORD_FILES: &str = "password_file";

/// Settings that are one path.
const PATHS: [&str; 1] = ["log_file"];

/// Settings that may differ for a service although it does the same.
const OF_THE_SERVICE: [&str; 6] =
    ["client_secret", "client_secret_file", "client_secret_keychain", "cli_path", "state_directory", "workspace_id"];

/// The files that a service reads, and its environment.
#[derive(Clone)]
pub(crate) struct ServiceInputs {
    /// The configuration.
    pub(crate) config: PathBuf,
    /// The file from which the manager hands the secret to the unit as a credential; none if the configuration names the
    /// secret.
    pub(crate) credential: Option<PathBuf>,
    /// The service's own environment.
    pub(crate) environment: Environment,
    /// Whether client secrets should be in the keychain instead of a file.
    pub(crate) keychain: bool,
}

impl ServiceInputs {
    /// The file that the manager hands over as a credential, if there is one, encrypted or not.
    pub(crate) fn handed_over(&self) -> Option<PathBuf> {
        credential_source(self.credential.as_ref()?)
    }
}

/// Puts a secret into the keychain.
type Store = fn(&Password, &SecretString) -> Result<(), Failure>;

/// What to write, and how that differs from what is there.
pub(crate) struct Plan {
    inputs: ServiceInputs,
    is_new: bool,
    /// None if the file stays as it is.
    config: Option<String>,
    secret: Option<(PathBuf, SecretString)>,
    /// New items for the keychain.
    items: Vec<(Password, SecretString)>,
    store: Store,
    changes: Vec<String>,
}

impl Plan {
    /// What a new file begins with.
    pub(crate) const HEAD: &str = HEAD;

    /// What must be written so that a service does what `config` says here and now.
    ///
    /// # Errors
    /// The present file or secret cannot be read.
    pub(crate) fn new(config: &Config, inputs: ServiceInputs) -> Result<Self, Failure> {
        let old = read(&inputs.config)?;
        Self::from(old.as_deref(), HEAD, config, inputs)
    }

    /// The same for a file that does not exist yet, and shall begin with this text.
    ///
    /// # Errors
    /// The secret cannot be read.
    pub(crate) fn of_text(text: &str, config: &Config, inputs: ServiceInputs) -> Result<Self, Failure> {
        Self::from(None, text, config, inputs)
    }

    fn from(old: Option<&str>, new: &str, config: &Config, inputs: ServiceInputs) -> Result<Self, Failure> {
        let mut document: DocumentMut = old.unwrap_or(new).parse().map_err(|fault: toml_edit::TomlError| {
            let why = words::of_toml(fault.message());
            Failure::permanent(Code::Configuration, format!("{} is not TOML: {why}", inputs.config.display()))
        })?;
        let is_new = old.is_none();
        let (items, changes) = (Vec::new(), Vec::new());
        let mut plan = Plan { inputs, is_new, config: None, secret: None, items, store: keychain::write, changes };
        for setting in config.settings().iter().filter(|setting| is_unseen(setting)) {
            plan.take_over(config, setting, &mut document)?;
        }
        if plan.inputs.keychain {
            plan.move_secrets(config, &mut document)?;
        }
        for workspace in config.workspaces() {
            if let Some(path) = hidden_cli(config, workspace, &plan.inputs) {
                let section = format!("workspace \"{}\"", workspace.name());
                plan.set(&mut document, &section, "cli_path", path.display().to_string().into());
            }
        }
        let text = document.to_string();
        plan.config = (old != Some(&text)).then_some(text);
        Ok(plan)
    }

    /// The configuration file.
    pub(crate) fn file(&self) -> &Path {
        &self.inputs.config
    }

    /// What would change in existing files, one line each; a person must agree to it first.
    pub(crate) fn changes(&self) -> &[String] {
        if self.is_new { &[] } else { &self.changes }
    }

    /// Writes what has to be written; returns the files.
    ///
    /// # Errors
    /// The configuration would not work for a service (nothing is changed then), or something cannot be written (the
    /// configuration is unchanged then).
    pub(crate) fn carry_out(&self, config: &Config) -> Result<Vec<PathBuf>, WriteError> {
        let mut written = Vec::new();
        let system = self.inputs.credential.is_some();
        let target = fs::canonicalize(&self.inputs.config).unwrap_or_else(|_| self.inputs.config.clone());
        let new = match &self.config {
            None => None,
            Some(text) => Some(staged(&target, text.as_bytes(), self.mode(), if system { 0o755 } else { 0o700 })?),
        };
        let read = new.as_ref().map_or(target.as_path(), tempfile::NamedTempFile::path);
        self.is_seen(read, config)?;
        for (item, secret) in &self.items {
            (self.store)(item, secret)?;
        }
        self.write_secret(&mut written)?;
        if let Some(new) = new {
            new.persist(&target).map_err(|error| cannot("write", &target, &error.error))?;
            written.push(target);
        }
        Ok(written)
    }

    /// Checks that the service would see the same settings.
    fn is_seen(&self, file: &Path, wanted: &Config) -> Result<(), WriteError> {
        let seen = as_service(file, &self.inputs, self.secret.is_some())
            .map_err(|error| WriteError::Config(Box::new(error.in_file(&self.inputs.config))))?;
        let differs = |setting: &&Setting| {
            let key = |other: &&Setting| other.section == setting.section && other.key == setting.key;
            let value = if PATHS.contains(&setting.key) { absolute(&setting.value) } else { setting.value.clone() };
            !OF_THE_SERVICE.contains(&setting.key)
                && match setting.key {
                    PASSWORD_FILES => absolute_files(wanted) != absolute_files(&seen),
                    _ => seen.settings().iter().find(key).is_none_or(|other| other.value != value),
                }
        };
        match wanted.settings().iter().find(differs) {
            None => Ok(()),
            Some(Setting { section, key, value, origin }) => {
                let message = format!("a service would not see {key} = {value} of {section} ({origin})");
                let hint = format!("write it into {}, and try again", self.inputs.config.display());
                Err(Failure::permanent(Code::Configuration, message).hint(hint).into())
            }
        }
    }

    fn write_secret(&self, written: &mut Vec<PathBuf>) -> Result<(), Failure> {
        if let Some((path, secret)) = &self.secret {
            let line = zeroize::Zeroizing::new(format!("{}\n", secret.expose_secret()));
            let directory_mode = if self.inputs.credential.is_some() { 0o755 } else { 0o700 };
            let new = staged(path, line.as_bytes(), 0o600, directory_mode)?;
            new.persist(path).map_err(|error| cannot("write", path, &error.error))?;
            written.push(path.clone());
        }
        Ok(())
    }

    // ---- one setting ----

    fn take_over(&mut self, config: &Config, setting: &Setting, document: &mut DocumentMut) -> Result<(), Failure> {
        let (section, shown) = (setting.section.as_str(), setting.value.as_str());
        match setting.key {
            // Handled for all secrets together, wherever they were given.
            "client_secret" | "client_secret_file" if self.inputs.keychain => {}
            "client_secret" | "client_secret_file" => {
                if let Some(client) = workspace_of(config, section).and_then(|workspace| workspace.client.as_ref()) {
                    self.take_over_secret(client, section, document)?;
                }
            }
            "interval" => {
                let interval = match config.interval.map_or(0, |interval| interval.as_secs()) {
                    seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
                    seconds => format!("{seconds}s"),
                };
                self.set(document, section, "interval", interval.into());
            }
            "proxy" => self.take_over_proxy(config, document)?,
            "port" => self.set(document, section, "port", shown.parse::<i64>().unwrap_or_default().into()),
            "any_identity" => self.set(document, section, "any_identity", (shown == "true").into()),
            PASSWORD_FILES => {
                let files = absolute_files(config);
                let new = match files.as_slice() {
                    [only] => only.into(),
                    several => several.iter().collect::<toml_edit::Array>().into(),
                };
                self.set(document, section, PASSWORD_FILES, new);
            }
            key if PATHS.contains(&key) => self.set(document, section, key, absolute(shown).into()),
            // The id has no key: it goes into the address, unless that comes from a profile.
            "workspace_id" => {
                let host = |other: &&Setting| other.section == section && other.key == "host";
                let from_profile = |other: &Setting| matches!(other.origin, Origin::Profile(..));
                if config.settings().iter().find(host).is_some_and(|host| !from_profile(host)) {
                    self.set(document, section, "host", address(config, section, shown).into());
                }
            }
            "host" if section.starts_with("workspace") => {
                self.set(document, section, "host", address(config, section, shown).into());
            }
            key => self.set(document, section, key, shown.into()),
        }
        Ok(())
    }

    fn take_over_secret(&mut self, client: &Client, section: &str, document: &mut DocumentMut) -> Result<(), Failure> {
        let (file, named) = match (&self.inputs.credential, &client.secret) {
            (None, SecretSource::File(path)) => {
                self.set(document, section, "client_secret_file", absolute(&path.display().to_string()).into());
                self.leave_keychain(document, section);
                return Ok(());
            }
            // It was not given by flag or environment.
            (None, SecretSource::Keychain(_)) => return Ok(()),
            (None, SecretSource::Given(_)) => (self.inputs.config.with_file_name(SECRET), true),
            (Some(credential), _) => {
                // A file named there would win over the credential.
                if let Some((table, prefix)) = table_of(document, section)
                    && table.remove("client_secret_file").is_some()
                {
                    self.changes.push(format!("{prefix}no client_secret_file"));
                }
                (credential.clone(), false)
            }
        };
        let (secret, _) = client.secret.read(&client.id)?;
        let present = read_text(&file).ok();
        let same = present.as_ref().is_some_and(|text| text.trim() == secret.expose_secret());
        if named {
            self.set(document, section, "client_secret_file", SECRET.into());
            self.leave_keychain(document, section);
        }
        if !same {
            if present.is_some() {
                self.is_new = false;
                self.changes.push(format!("another secret in {}", file.display()));
            }
            self.secret = Some((file, secret));
        }
        Ok(())
    }

    /// A password in it is a secret, so it goes into a file that nobody else reads or nowhere.
    fn take_over_proxy(&mut self, config: &Config, document: &mut DocumentMut) -> Result<(), Failure> {
        let Some(proxy) = config.workspaces().first().and_then(|workspace| workspace.proxies.proxy()) else {
            return Ok(());
        };
        let mode = self.mode();
        if proxy.password().is_some() && mode & 0o077 != 0 {
            let file = self.inputs.config.display();
            let message =
                format!("the password of the proxy in {} cannot go into {file}: others can read it", proxy.from());
            let hint = if self.inputs.credential.is_some() {
                "unset the variable here, and give it to the unit: a file of root's with mode 0600 and HTTPS_PROXY=... in it, \
                 which a drop-in names with EnvironmentFile= (systemctl edit)"
                    .to_owned()
            } else {
                format!("chmod 600 {file}")
            };
            return Err(Failure::permanent(Code::Configuration, message).hint(hint));
        }
        self.set(document, "", "proxy", proxy.address().as_str().into());
        Ok(())
    }

    /// That of the configuration, there or to come.
    fn mode(&self) -> u32 {
        let usual = if self.inputs.credential.is_some() { 0o644 } else { 0o600 };
        fs::metadata(&self.inputs.config).map_or(usual, |data| data.permissions().mode() & 0o777)
    }

    /// A secret can only be in one place.
    fn leave_keychain(&mut self, document: &mut DocumentMut, section: &str) {
        if let Some((table, prefix)) = table_of(document, section)
            && table.remove("client_secret_keychain").is_some()
        {
            self.changes.push(format!("{prefix}no client_secret_keychain"));
        }
    }

    /// Moves all client secrets into the keychain.
    fn move_secrets(&mut self, config: &Config, document: &mut DocumentMut) -> Result<(), Failure> {
        for workspace in config.workspaces() {
            let Some(client) = &workspace.client else { continue };
            if matches!(client.secret, SecretSource::Keychain(_)) {
                continue;
            }
            let (secret, _) = client.secret.read(&client.id)?;
            self.items.push((Password { service: keychain::SERVICE.to_owned(), account: client.id.clone() }, secret));
            let section = format!("workspace \"{}\"", workspace.name());
            if let Some((table, prefix)) = table_of(document, &section)
                && table.remove("client_secret_file").is_some()
            {
                self.changes.push(format!("{prefix}no client_secret_file"));
            }
            self.set(document, &section, "client_secret_keychain", keychain::SERVICE.into());
        }
        Ok(())
    }

    fn set(&mut self, document: &mut DocumentMut, section: &str, key: &str, new: toml_edit::Value) {
        let Some((table, prefix)) = table_of(document, section) else { return };
        let bare = |value: &toml_edit::Value| value.clone().decorated("", "").to_string();
        let shown =
            |value: &toml_edit::Value| if key == "proxy" { without_password(&bare(value)) } else { bare(value) };
        match table.get(key).and_then(Item::as_value) {
            Some(old) if bare(old) == bare(&new) => return,
            Some(old) => self.changes.push(format!("{prefix}{key} = {} (was {})", shown(&new), shown(old))),
            None => self.changes.push(format!("{prefix}{key} = {}", shown(&new))),
        }
        // The rest of the value's line stays.
        if let Some(old) = table.get_mut(key).and_then(Item::as_value_mut) {
            let decor = old.decor().clone();
            *old = new;
            *old.decor_mut() = decor;
        } else {
            table.insert(key, value(new));
        }
    }
}

/// The absolute path, which is valid in every current directory.
fn absolute(path: &str) -> String {
    std::path::absolute(path).map_or_else(|_| path.to_owned(), |path| path.display().to_string())
}

/// The password files from wherever they are read.
fn absolute_files(config: &Config) -> Vec<String> {
    config.password_files().iter().map(|path| absolute(&path.display().to_string())).collect()
}

/// Why the files of a service could not be written.
pub(crate) enum WriteError {
    /// The resulting configuration would not work.
    Config(Box<ConfigError>),
    /// It could not be written.
    Failure(Failure),
}

impl From<Failure> for WriteError {
    fn from(failure: Failure) -> Self {
        WriteError::Failure(failure)
    }
}

/// The configuration as the service reads it: with this file, and without this process's environment. If the manager hands over
/// a secret, now or later (`secret_to_be`), it is read from the manager's source file.
///
/// # Errors
/// As [`Config::load`].
pub(crate) fn as_service(file: &Path, inputs: &ServiceInputs, secret_to_be: bool) -> Result<Config, ConfigError> {
    let credential = if secret_to_be { inputs.credential.clone() } else { inputs.handed_over() };
    let overrides = Overrides { config: Some(file.to_owned()), ..Overrides::default() };
    Config::load_in(inputs.environment.clone().handing_over(credential), &overrides)
}

/// Whether the setting's source is hidden from a service.
fn is_unseen(setting: &Setting) -> bool {
    matches!(setting.origin, Origin::Flag(_) | Origin::Environment(_))
}

/// The vendor's CLI if the service needs it and would not find it. Root does not look for another user's.
fn hidden_cli(config: &Config, workspace: &Workspace, inputs: &ServiceInputs) -> Option<PathBuf> {
    let needed = workspace.auth != AuthType::OauthM2m && workspace.client.is_none() && workspace.cli_path.is_none();
    let own = inputs.credential.is_none();
    (needed && own).then(|| auth::cli_off_the_usual_path(workspace, &config.environment)).flatten()
}

/// The workspace that a section of the settings is about.
fn workspace_of<'c>(config: &'c Config, section: &str) -> Option<&'c Workspace> {
    config.workspaces().iter().find(|workspace| section == format!("workspace \"{}\"", workspace.name()))
}

/// A workspace's address, with its id if known.
fn address(config: &Config, section: &str, shown: &str) -> String {
    let Some(workspace) = workspace_of(config, section) else { return shown.to_owned() };
    let origin = workspace.host().origin();
    workspace.workspace_id.as_ref().map_or_else(|| origin.to_owned(), |id| format!("{origin}/?o={id}"))
}

/// The table for a setting of this section, made if missing, and its name for messages; none if something else has that
/// name.
fn table_of<'d>(document: &'d mut DocumentMut, section: &str) -> Option<(&'d mut Table, &'static str)> {
    let (kind, prefix) = match section.split(' ').next() {
        Some("workspace") => ("workspace", "workspace: "),
        Some("connection") => ("connection", "connection: "),
        _ => return Some((document.as_table_mut(), "")),
    };
    let item = document.entry(kind).or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    if !item.is_array_of_tables() {
        // An inline array is expanded.
        *item = Item::ArrayOfTables(std::mem::take(item).into_array_of_tables().ok()?);
    }
    let tables = item.as_array_of_tables_mut()?;
    if tables.is_empty() {
        tables.push(Table::new());
    }
    let is_called = |table: &Table| {
        let name = table.get("name").and_then(Item::as_str);
        name.is_some_and(|name| section == format!("{kind} \"{name}\""))
    };
    // If there is only one table, it may have no name.
    let index = tables.iter().position(is_called).unwrap_or(0);
    Some((tables.get_mut(index)?, prefix))
}

fn read(path: &Path) -> Result<Option<String>, Failure> {
    match read_text(path) {
        Ok(text) => Ok(Some(text.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot("read", path, &error)),
    }
}

/// A new file next to `target` that will replace it.
fn staged(target: &Path, content: &[u8], mode: u32, directory_mode: u32) -> Result<tempfile::NamedTempFile, Failure> {
    let fail = |error: std::io::Error| cannot("write", target, &error);
    let directory = target.parent().unwrap_or(Path::new("/"));
    make_directories(directory, directory_mode).map_err(fail)?;
    check_that_nothing_stays(directory).map_err(fail)?;
    let mut new = tempfile::Builder::new().prefix(".new-").suffix(".toml").tempfile_in(directory).map_err(fail)?;
    let other = set_mode(new.as_file(), mode).map_err(fail)?;
    if let Some(found) = other.filter(|found| found & !mode & 0o077 != 0) {
        let why = format!("others could read it: it would have mode {found:04o}, and its file system sets no other");
        return Err(fail(std::io::Error::new(std::io::ErrorKind::PermissionDenied, why)));
    }
    new.write_all(content).and_then(|()| new.as_file().sync_all()).map_err(fail)?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINCIPAL: &str = "0b1c2d3e-0000-4000-8000-000000000000";

    fn inputs(directory: &Path) -> ServiceInputs {
        let environment = [("HOME", directory)].into_iter().collect();
        ServiceInputs { config: directory.join("config.toml"), credential: None, environment, keychain: false }
    }

    /// What a person might give by flags: all that a service principal needs.
    fn flags(directory: &Path) -> Overrides {
        let text = |text: &str| Some(text.to_owned());
        Overrides {
            workspace_url: text("https://dbc-1.cloud.databricks.com/?o=42"),
            client_id: text(PRINCIPAL),
            client_secret: Some("s3cret-of-the-principal".into()),
            pg_host: text("db.example"),
            pg_port: Some(6432),
            interval: Some(std::time::Duration::from_secs(45 * 60)),
            any_identity: true,
            config: Some(directory.join("config.toml")).filter(|file| file.exists()),
            ..Overrides::default()
        }
    }

    fn wanted(overrides: &Overrides, inputs: &ServiceInputs) -> Config {
        Config::load_in(inputs.environment.clone(), overrides).unwrap()
    }

    fn plan(overrides: &Overrides, inputs: &ServiceInputs) -> Plan {
        Plan::new(&wanted(overrides, inputs), inputs.clone()).unwrap()
    }

    /// Installs with these flags; returns the written files.
    fn install(overrides: &Overrides, inputs: &ServiceInputs) -> Vec<PathBuf> {
        let config = wanted(overrides, inputs);
        match Plan::new(&config, inputs.clone()).unwrap().carry_out(&config) {
            Ok(written) => written,
            Err(WriteError::Config(error)) => panic!("{error}"),
            Err(WriteError::Failure(failure)) => panic!("{failure}"),
        }
    }

    #[test]
    fn what_was_given_by_flags_stands_in_a_file_that_a_service_reads_and_the_secret_beside_it() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("dbx-rotator");
        let inputs = inputs(&directory);
        assert!(plan(&flags(&directory), &inputs).changes().is_empty(), "nothing is there to be changed");
        let written = install(&flags(&directory), &inputs);
        assert_eq!(written, [directory.join("client-secret"), inputs.config.clone()]);
        let text = fs::read_to_string(&inputs.config).unwrap();
        assert!(!text.contains("s3cret"), "{text}");
        let mode = |name: &str| fs::metadata(directory.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("client-secret"), mode("config.toml"), mode("")), (0o600, 0o600, 0o700));
        let config = as_service(&inputs.config, &inputs, false).unwrap();
        assert_eq!(config.interval, Some(std::time::Duration::from_secs(45 * 60)));
        assert_eq!(config.workspaces()[0].workspace_id.as_deref(), Some("42"));
        let key = config.connections()[0].key().unwrap();
        assert_eq!((key.host(), key.port(), key.user()), ("db.example", 6432, PRINCIPAL));
        assert!(config.connections()[0].any_identity);
    }

    #[test]
    fn a_second_time_there_is_nothing_to_write() {
        let scratch = tempfile::tempdir().unwrap();
        let inputs = inputs(scratch.path());
        install(&flags(scratch.path()), &inputs);
        let again = plan(&flags(scratch.path()), &inputs);
        assert!(again.changes().is_empty(), "{:?}", again.changes());
        assert!(install(&flags(scratch.path()), &inputs).is_empty());
    }

    #[test]
    fn a_file_that_exists_is_changed_where_it_must_be_and_nowhere_else() {
        let scratch = tempfile::tempdir().unwrap();
        let inputs = inputs(scratch.path());
        let old = "# mine\ninterval = \"50m\" # why\n\n[[workspace]] # the only one\nname = \"prod\"\n\
                   host = \"https://old.cloud.databricks.com\"\n\n[[connection]]\nhost = \"old.example\" # old\nlast_copy = true\n";
        fs::write(&inputs.config, old).unwrap();
        let given = Overrides {
            client_id: None,
            client_secret: None,
            pg_port: None,
            any_identity: false,
            ..flags(scratch.path())
        };
        let given = Overrides { pg_username: Some("ada@example.com".to_owned()), ..given };
        let plan = plan(&given, &inputs);
        assert_eq!(
            plan.changes(),
            [
                "interval = \"45m\" (was \"50m\")",
                "workspace: host = \"https://dbc-1.cloud.databricks.com/?o=42\" (was \"https://old.cloud.databricks.com\")",
                "connection: host = \"db.example\" (was \"old.example\")",
                "connection: user = \"ada@example.com\"",
            ]
        );
        install(&given, &inputs);
        let new = fs::read_to_string(&inputs.config).unwrap();
        let expected = old
            .replace("50m", "45m")
            .replace("https://old.cloud.databricks.com", "https://dbc-1.cloud.databricks.com/?o=42")
            .replace("old.example", "db.example")
            + "user = \"ada@example.com\"\n";
        assert_eq!(new, expected);
    }

    #[test]
    fn another_secret_is_a_change_and_what_would_not_do_is_not_written() {
        let scratch = tempfile::tempdir().unwrap();
        let inputs = inputs(scratch.path());
        install(&flags(scratch.path()), &inputs);
        let other = Overrides { client_secret: Some("another".into()), ..flags(scratch.path()) };
        assert_eq!(plan(&other, &inputs).changes().len(), 1);
        let before = fs::read_to_string(&inputs.config).unwrap();
        let mut plan = plan(&other, &inputs);
        plan.config = Some(before.replace("host =", "hots ="));
        let Err(WriteError::Config(error)) = plan.carry_out(&wanted(&other, &inputs)) else {
            panic!("it would not do")
        };
        assert!(error.to_string().contains("config.toml:"), "{error}");
        // A setting that was given by a flag but is not in the file.
        plan.config = Some(before.replace("db.example", "other.example"));
        let Err(WriteError::Failure(failure)) = plan.carry_out(&wanted(&other, &inputs)) else {
            panic!("it would not do")
        };
        assert!(failure.message.contains("would not see host = db.example"), "{failure}");
        assert_eq!(fs::read_to_string(&inputs.config).unwrap(), before);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 2, "nothing half-written stays");
    }

    #[test]
    fn the_machines_manager_gets_the_secret_as_a_credential_of_its_own() {
        let scratch = tempfile::tempdir().unwrap();
        let credential = scratch.path().join("ada.client-secret");
        let inputs = ServiceInputs { credential: Some(credential.clone()), ..inputs(scratch.path()) };
        fs::write(&inputs.config, "[[workspace]]\nclient_secret_file = \"/old\"\n").unwrap();
        install(&flags(scratch.path()), &inputs);
        let text = fs::read_to_string(&inputs.config).unwrap();
        assert!(!text.contains("client_secret"), "{text}");
        assert_eq!(fs::read_to_string(credential).unwrap(), "s3cret-of-the-principal\n");
        assert!(as_service(&inputs.config, &inputs, false).is_ok());
    }

    /// What was put into the stand-in keychain.
    static STORED: std::sync::Mutex<Vec<(Password, String)>> = std::sync::Mutex::new(Vec::new());

    fn store(item: &Password, secret: &SecretString) -> Result<(), Failure> {
        STORED.lock().unwrap().push((item.clone(), secret.expose_secret().to_owned()));
        Ok(())
    }

    #[test]
    fn a_secret_goes_into_the_keychain_where_a_person_wants_that_and_back_into_a_file() {
        let scratch = tempfile::tempdir().unwrap();
        let in_files = inputs(scratch.path());
        install(&flags(scratch.path()), &in_files);
        let in_keychain = ServiceInputs { keychain: true, ..in_files.clone() };
        // The secret is not given again: it moves from its present place.
        let given = Overrides { config: Some(in_files.config.clone()), ..Overrides::default() };
        let mut plan = plan(&given, &in_keychain);
        assert_eq!(
            plan.changes(),
            ["workspace: no client_secret_file", "workspace: client_secret_keychain = \"app.dbx-rotator\""]
        );
        plan.store = store;
        assert!(plan.carry_out(&wanted(&given, &in_keychain)).is_ok());
        let item = Password { service: keychain::SERVICE.to_owned(), account: PRINCIPAL.to_owned() };
        assert_eq!(*STORED.lock().unwrap(), [(item, "s3cret-of-the-principal".to_owned())]);
        let config = as_service(&in_files.config, &in_files, false).unwrap();
        let client = config.workspaces()[0].client.as_ref().unwrap();
        assert!(matches!(&client.secret, SecretSource::Keychain(service) if service == keychain::SERVICE));
        // Again there is nothing to do, and another install loses nothing.
        assert!(self::plan(&given, &in_keychain).changes().is_empty());
        assert!(self::plan(&given, &in_files).changes().is_empty());
        let anew = Overrides { client_secret: Some("another".into()), ..flags(scratch.path()) };
        install(&anew, &in_files);
        let text = fs::read_to_string(&in_files.config).unwrap();
        assert!(text.contains("client_secret_file") && !text.contains("keychain"), "{text}");
    }

    #[test]
    fn a_proxy_goes_into_the_file_and_its_password_only_where_nobody_else_reads_it() {
        let scratch = tempfile::tempdir().unwrap();
        let in_shell = |inputs: &ServiceInputs, proxy: &str| ServiceInputs {
            environment: inputs.environment.clone().with("https_proxy", proxy).with("NO_PROXY", ".example"),
            ..inputs.clone()
        };
        let set_up = |inputs: &ServiceInputs, proxy: &str| {
            let config = wanted(&flags(scratch.path()), &in_shell(inputs, proxy));
            let plan = Plan::new(&config, inputs.clone())?;
            let changes = plan.changes().join("; ");
            assert!(plan.carry_out(&config).is_ok());
            Ok::<_, Failure>((changes, fs::read_to_string(&inputs.config).unwrap()))
        };
        let own = inputs(scratch.path());
        let (_, text) = set_up(&own, "proxy.example:3128 ").unwrap();
        assert!(text.contains("proxy = \"http://proxy.example:3128\"\nno_proxy = \".example\"\n"), "{text}");
        let (changes, text) = set_up(&own, "http://ada:s3cret-of-proxy@proxy.example:3128").unwrap();
        assert!(text.contains("proxy = \"http://ada:s3cret-of-proxy@proxy.example:3128\"\n"), "{text}");
        let shown = "proxy = \"http://ada:********@proxy.example:3128\" (was \"http://proxy.example:3128\")";
        assert_eq!(changes, shown);
        let (changes, _) = set_up(&own, "http://ada:an0ther-secret@proxy.example:3128").unwrap();
        assert!(
            changes.contains("********") && !changes.contains("s3cret") && !changes.contains("an0ther"),
            "{changes}"
        );
        let service = as_service(&own.config, &own, false).unwrap();
        assert_eq!(service.workspaces()[0].route().proxy().unwrap().name(), "proxy.example:3128");
        // Others can read it.
        fs::set_permissions(&own.config, fs::Permissions::from_mode(0o644)).unwrap();
        let failure = set_up(&own, "http://ada:s3cret-of-proxy@proxy.example:3128").unwrap_err();
        assert!(failure.code == Code::Configuration && failure.hint.unwrap().starts_with("chmod 600 "));
        fs::remove_file(&own.config).unwrap();
        let machine = ServiceInputs { credential: Some(scratch.path().join("ada.client-secret")), ..own };
        let failure = set_up(&machine, "http://ada:s3cret-of-proxy@proxy.example:3128").unwrap_err();
        assert!(failure.hint.unwrap().contains("EnvironmentFile=") && !machine.config.exists());
        assert!(set_up(&machine, "http://ada@proxy.example:3128").is_ok());
    }

    #[test]
    fn of_several_tables_each_gets_its_own() {
        let scratch = tempfile::tempdir().unwrap();
        let inputs = inputs(scratch.path());
        let two = "[[workspace]]\nname = \"a\"\nhost = \"https://a.example\"\n[[workspace]]\nname = \"b\"\nhost = \"https://b.example\"\n\
                   [[connection]]\nname = \"x\"\nworkspace = \"a\"\nhost = \"x.example\"\nuser = \"ada@example.com\"\n\
                   [[connection]]\nname = \"y\"\nworkspace = \"b\"\nhost = \"y.example\"\nuser = \"ada@example.com\"\n";
        fs::write(&inputs.config, two).unwrap();
        let given = Overrides {
            config: Some(inputs.config.clone()),
            pgpass_file: vec![scratch.path().join("pgpass"), scratch.path().join("snap/pgpass")],
            log_file: Some(scratch.path().join("log")),
            ..Overrides::default()
        };
        install(&given, &inputs);
        let config = as_service(&inputs.config, &inputs, false).unwrap();
        assert_eq!(config.password_files(), [scratch.path().join("pgpass"), scratch.path().join("snap/pgpass")]);
        assert_eq!(config.connections().len(), 2);
        let mut document: DocumentMut = two.parse().unwrap();
        let (table, _) = table_of(&mut document, "workspace \"b\"").unwrap();
        assert_eq!(table["host"].as_str(), Some("https://b.example"));
    }

    #[test]
    fn a_linked_file_stays_a_link_and_a_profile_stays_where_it_is() {
        let scratch = tempfile::tempdir().unwrap();
        let inputs = inputs(scratch.path());
        let dotfile = scratch.path().join("dotfile.toml");
        fs::write(&dotfile, "").unwrap();
        std::os::unix::fs::symlink(&dotfile, &inputs.config).unwrap();
        let profiles = format!(
            "[PROD]\nhost = https://p.example\nclient_id = {PRINCIPAL}\nclient_secret = s3cret-of-the-profile\n"
        );
        let file = scratch.path().join(".databrickscfg");
        fs::write(&file, profiles).unwrap();
        let environment: Environment =
            [("HOME", scratch.path().as_os_str()), ("DATABRICKS_CONFIG_PROFILE", "PROD".as_ref())]
                .into_iter()
                .collect();
        let given = Overrides { pg_host: Some("db.example".to_owned()), ..Overrides::default() };
        let config = Config::load_in(environment, &given).unwrap();
        let plan = Plan::new(&config, inputs.clone()).unwrap();
        assert!(plan.carry_out(&config).is_ok());
        assert!(inputs.config.is_symlink());
        let text = fs::read_to_string(dotfile).unwrap();
        assert!(text.contains("profile = \"PROD\"") && !text.contains("s3cret"), "{text}");
    }
}
