//! config.toml and the secret's file for a service, from what a person gave by flag or environment: a service sees neither.
//!
//! Invariants: what else an existing file says stays as it is, comments included; what is written has been read back as the
//! service will read it; a secret only ever goes into a file of mode 0600.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use super::units::cannot;
use crate::auth;
use crate::config::{Auth, Client, Config, ConfigError, Origin, Overrides, SecretSource, Setting};
use crate::failure::{Code, Failure};
use crate::os::files::read_text;

/// What stands above a file that is made here.
const HEAD: &str = "# What dbx-rotator keeps alive. `dbx-rotator config show` says what is in effect, and why.\n";

/// The secret's file, beside the configuration of a user.
const SECRET: &str = "client-secret";

/// Which files a service reads.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The configuration.
    pub(crate) config: PathBuf,
    /// Where the manager takes the secret from to hand it to the unit as a credential; none where the configuration names it.
    pub(crate) credential: Option<PathBuf>,
    /// The home directory of whom the service runs as.
    pub(crate) home: PathBuf,
}

/// What is to be written, and how that differs from what is there.
pub(crate) struct Plan {
    place: Place,
    is_new: bool,
    /// None where the file stays as it is.
    config: Option<String>,
    secret: Option<(PathBuf, SecretString)>,
    changes: Vec<String>,
}

impl Plan {
    /// What must be written so that a service does what `config` says here and now.
    ///
    /// # Errors
    /// The present file or secret cannot be read.
    pub(crate) fn new(config: &Config, place: Place) -> Result<Self, Failure> {
        let old = read(&place.config)?;
        let mut document: DocumentMut =
            old.as_deref().unwrap_or(HEAD).parse().map_err(|fault| {
                Failure::permanent(Code::Configuration, format!("{}: {fault}", place.config.display()))
            })?;
        let is_new = old.is_none();
        let mut plan = Plan { place, is_new, config: None, secret: None, changes: Vec::new() };
        for setting in config.settings().iter().filter(|setting| is_unseen(setting)) {
            plan.take_over(config, setting, &mut document)?;
        }
        if let Some((first, path)) = config.workspaces().first().and_then(|first| Some((first, hidden_cli(config)?))) {
            let section = format!("workspace \"{}\"", first.name());
            plan.set(&mut document, &section, "cli_path", path.display().to_string().into());
        }
        let text = document.to_string();
        plan.config = (old.as_deref() != Some(&text)).then_some(text);
        Ok(plan)
    }

    /// The file that it is about.
    pub(crate) fn file(&self) -> &Path {
        &self.place.config
    }

    /// What would change in files that exist, a line each; a person is asked before.
    pub(crate) fn changes(&self) -> &[String] {
        if self.is_new { &[] } else { &self.changes }
    }

    /// Writes what there is to write; returns the files.
    ///
    /// # Errors
    /// The configuration would not do for a service, or a file cannot be written; then the files are as they were.
    pub(crate) fn carry_out(&self) -> Result<Vec<PathBuf>, WriteError> {
        let mut written = Vec::new();
        let system = self.place.credential.is_some();
        if let Some(text) = &self.config {
            let target = fs::canonicalize(&self.place.config).unwrap_or_else(|_| self.place.config.clone());
            let mode =
                fs::metadata(&target).map_or(if system { 0o644 } else { 0o600 }, |data| data.permissions().mode());
            let new = staged(&target, text.as_bytes(), mode & 0o777, if system { 0o755 } else { 0o700 })?;
            as_service(new.path(), &self.place, self.secret.is_some())
                .map_err(|error| WriteError::Config(Box::new(error)))?;
            self.write_secret(&mut written)?;
            new.persist(&target).map_err(|error| cannot("write", &target, &error.error))?;
            written.push(target);
        } else {
            self.write_secret(&mut written)?;
        }
        Ok(written)
    }

    fn write_secret(&self, written: &mut Vec<PathBuf>) -> Result<(), Failure> {
        if let Some((path, secret)) = &self.secret {
            let line = zeroize::Zeroizing::new(format!("{}\n", secret.expose_secret()));
            let directory_mode = if self.place.credential.is_some() { 0o755 } else { 0o700 };
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
            "client_secret" | "client_secret_file" => {
                if let Some(client) = config.workspaces().first().and_then(|workspace| workspace.client.as_ref()) {
                    self.take_over_secret(client, section, document)?;
                }
            }
            "interval" => {
                let minutes = config.interval.map_or(0, |interval| interval.as_secs() / 60);
                self.set(document, section, "interval", format!("{minutes}m").into());
            }
            "port" => self.set(document, section, "port", shown.parse::<i64>().unwrap_or_default().into()),
            "password_file" | "log_file" => {
                let path = std::path::absolute(shown).unwrap_or_else(|_| PathBuf::from(shown));
                self.set(document, section, setting.key, path.display().to_string().into());
            }
            // It has no key of its own: the address carries it.
            "workspace_id" => {
                if let Some(workspace) = config.workspaces().first() {
                    let address = format!("{}/?o={shown}", workspace.host().origin());
                    self.set(document, section, "host", address.into());
                }
            }
            "host" if section.starts_with("workspace") => {
                let host = config.workspaces().first().map(|workspace| workspace.host());
                let id = host.and_then(|host| host.workspace_id());
                self.set(
                    document,
                    section,
                    "host",
                    id.map_or(shown.to_owned(), |id| format!("{shown}/?o={id}")).into(),
                );
            }
            key => self.set(document, section, key, shown.into()),
        }
        Ok(())
    }

    fn take_over_secret(&mut self, client: &Client, section: &str, document: &mut DocumentMut) -> Result<(), Failure> {
        let (file, named) = match (&self.place.credential, &client.secret) {
            (None, SecretSource::File(path)) => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                self.set(document, section, "client_secret_file", path.display().to_string().into());
                return Ok(());
            }
            (None, SecretSource::Given(_)) => (self.place.config.with_file_name(SECRET), true),
            (Some(credential), _) => (credential.clone(), false),
        };
        let (secret, _) = client.secret.read()?;
        let present = read_text(&file).ok();
        let same = present.as_ref().is_some_and(|text| text.trim() == secret.expose_secret());
        if named {
            self.set(document, section, "client_secret_file", SECRET.into());
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

    fn set(&mut self, document: &mut DocumentMut, section: &str, key: &str, new: toml_edit::Value) {
        let Some((table, place)) = table_of(document, section) else { return };
        let shown = |value: &toml_edit::Value| value.clone().decorated("", "").to_string();
        match table.get(key).and_then(Item::as_value) {
            Some(old) if shown(old) == shown(&new) => return,
            Some(old) => self.changes.push(format!("{place}{key} = {} (was {})", shown(&new), shown(old))),
            None => self.changes.push(format!("{place}{key} = {}", shown(&new))),
        }
        // Whatever stands behind the value in its line stays.
        if let Some(old) = table.get_mut(key).and_then(Item::as_value_mut) {
            let decor = old.decor().clone();
            *old = new;
            *old.decor_mut() = decor;
        } else {
            table.insert(key, value(new));
        }
    }
}

/// Why the files of a service could not be written.
pub(crate) enum WriteError {
    /// What would be written would not do.
    Config(Box<ConfigError>),
    /// It could not be written.
    Failure(Failure),
}

impl From<Failure> for WriteError {
    fn from(failure: Failure) -> Self {
        WriteError::Failure(failure)
    }
}

/// The configuration as the service reads it: with this file, and nothing of this environment. The secret that its manager hands
/// over, where it does and there is one or will be, is found where that takes it from.
///
/// # Errors
/// As [`Config::load`].
pub(crate) fn as_service(file: &Path, place: &Place, secret_to_be: bool) -> Result<Config, ConfigError> {
    let credential = place.credential.clone().filter(|path| secret_to_be || path.exists());
    let overrides = Overrides { config: Some(file.to_owned()), client_secret_file: credential, ..Overrides::default() };
    Config::load_as_service(&overrides, &place.home)
}

/// Whether a service would not see where this setting comes from.
fn is_unseen(setting: &Setting) -> bool {
    matches!(setting.origin, Origin::Flag(_) | Origin::Environment(_))
}

/// The vendor's CLI, where the service needs it and would not find it.
fn hidden_cli(config: &Config) -> Option<PathBuf> {
    let [workspace] = config.workspaces() else { return None };
    let needed = workspace.auth != Auth::OauthM2m && workspace.client.is_none() && workspace.cli_path.is_none();
    needed.then(|| auth::cli_off_the_usual_path(workspace, &config.environment)).flatten()
}

/// The table that a setting of this section belongs into, made where there is none, and how to name it; none where something
/// else has its name.
fn table_of<'d>(document: &'d mut DocumentMut, section: &str) -> Option<(&'d mut Table, &'static str)> {
    let (kind, place) = match section.split(' ').next() {
        Some("workspace") => ("workspace", "workspace: "),
        Some("connection") => ("connection", "connection: "),
        _ => return Some((document.as_table_mut(), "")),
    };
    let item = document.entry(kind).or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    if !item.is_array_of_tables() {
        // An inline array is written out.
        *item = Item::ArrayOfTables(std::mem::take(item).into_array_of_tables().ok()?);
    }
    let tables = item.as_array_of_tables_mut()?;
    if tables.is_empty() {
        tables.push(Table::new());
    }
    Some((tables.get_mut(0)?, place))
}

fn read(path: &Path) -> Result<Option<String>, Failure> {
    match read_text(path) {
        Ok(text) => Ok(Some(text.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot("read", path, &error)),
    }
}

/// A file beside `target`, to take its place.
fn staged(target: &Path, content: &[u8], mode: u32, directory_mode: u32) -> Result<tempfile::NamedTempFile, Failure> {
    let fail = |error: std::io::Error| cannot("write", target, &error);
    let directory = target.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(directory_mode).create(directory).map_err(fail)?;
    let mut new = tempfile::Builder::new().prefix(".new-").suffix(".toml").tempfile_in(directory).map_err(fail)?;
    new.as_file().set_permissions(fs::Permissions::from_mode(mode)).map_err(fail)?;
    new.write_all(content).and_then(|()| new.as_file().sync_all()).map_err(fail)?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINCIPAL: &str = "0b1c2d3e-0000-4000-8000-000000000000";

    fn place(directory: &Path) -> Place {
        Place { config: directory.join("config.toml"), credential: None, home: directory.to_owned() }
    }

    /// What somebody gives by flags: all that a service principal needs.
    fn flags(directory: &Path) -> Overrides {
        let text = |text: &str| Some(text.to_owned());
        Overrides {
            workspace_url: text("https://dbc-1.cloud.databricks.com/?o=42"),
            client_id: text(PRINCIPAL),
            client_secret: Some("s3cret-of-the-principal".into()),
            pg_host: text("db.example"),
            pg_port: Some(6432),
            interval: Some(45),
            config: Some(directory.join("config.toml")).filter(|file| file.exists()),
            ..Overrides::default()
        }
    }

    fn plan(overrides: &Overrides, place: &Place) -> Plan {
        Plan::new(&Config::load_without_environment(overrides).unwrap(), place.clone()).unwrap()
    }

    #[test]
    fn what_was_given_by_flags_stands_in_a_file_that_a_service_reads_and_the_secret_beside_it() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("dbx-rotator");
        let place = place(&directory);
        let plan = plan(&flags(&directory), &place);
        assert!(plan.changes().is_empty(), "nothing is there to be changed");
        assert_eq!(plan.carry_out().ok().unwrap(), [directory.join("client-secret"), place.config.clone()]);
        let text = fs::read_to_string(&place.config).unwrap();
        assert!(!text.contains("s3cret"), "{text}");
        let mode = |name: &str| fs::metadata(directory.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("client-secret"), mode("config.toml"), mode("")), (0o600, 0o600, 0o700));
        let config = as_service(&place.config, &place, false).unwrap();
        assert_eq!(config.interval, Some(std::time::Duration::from_secs(45 * 60)));
        assert_eq!(config.workspaces()[0].workspace_id.as_deref(), Some("42"));
        let key = config.connections()[0].key();
        assert_eq!((key.host(), key.port(), key.user()), ("db.example", 6432, PRINCIPAL));
    }

    #[test]
    fn a_second_time_there_is_nothing_to_write() {
        let scratch = tempfile::tempdir().unwrap();
        let place = place(scratch.path());
        plan(&flags(scratch.path()), &place).carry_out().ok().unwrap();
        let again = plan(&flags(scratch.path()), &place);
        assert!(again.changes().is_empty(), "{:?}", again.changes());
        assert!(again.carry_out().ok().unwrap().is_empty());
    }

    #[test]
    fn a_file_that_exists_is_changed_where_it_must_be_and_nowhere_else() {
        let scratch = tempfile::tempdir().unwrap();
        let place = place(scratch.path());
        let old = "# mine\ninterval = \"50m\" # why\n\n[[workspace]] # the only one\nname = \"prod\"\n\
                   host = \"https://old.cloud.databricks.com\"\n\n[[connection]]\nhost = \"old.example\" # old\nlast_copy = true\n";
        fs::write(&place.config, old).unwrap();
        let given = Overrides { client_id: None, client_secret: None, pg_port: None, ..flags(scratch.path()) };
        let given = Overrides { pg_username: Some("ada@example.com".to_owned()), ..given };
        let plan = plan(&given, &place);
        assert_eq!(
            plan.changes(),
            [
                "interval = \"45m\" (was \"50m\")",
                "workspace: host = \"https://dbc-1.cloud.databricks.com/?o=42\" (was \"https://old.cloud.databricks.com\")",
                "connection: host = \"db.example\" (was \"old.example\")",
                "connection: user = \"ada@example.com\"",
            ]
        );
        plan.carry_out().ok().unwrap();
        let new = fs::read_to_string(&place.config).unwrap();
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
        let place = place(scratch.path());
        plan(&flags(scratch.path()), &place).carry_out().ok().unwrap();
        let other = Overrides { client_secret: Some("another".into()), ..flags(scratch.path()) };
        assert_eq!(plan(&other, &place).changes().len(), 1);
        // A file of the user's that the service could not read: its home has no such profile.
        let before = fs::read_to_string(&place.config).unwrap();
        let profiles = scratch.path().join("profiles");
        fs::create_dir(&profiles).unwrap();
        let elsewhere = Place { home: profiles, ..place.clone() };
        let mut plan = plan(&other, &elsewhere);
        plan.config = Some(before.replace("host =", "hots ="));
        assert!(matches!(plan.carry_out(), Err(WriteError::Config(_))));
        assert_eq!(fs::read_to_string(&place.config).unwrap(), before);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 3, "nothing half-written stays");
    }

    #[test]
    fn the_machines_manager_gets_the_secret_as_a_credential_of_its_own() {
        let scratch = tempfile::tempdir().unwrap();
        let credential = scratch.path().join("ada.client-secret");
        let place = Place { credential: Some(credential.clone()), ..place(scratch.path()) };
        plan(&flags(scratch.path()), &place).carry_out().ok().unwrap();
        let text = fs::read_to_string(&place.config).unwrap();
        assert!(!text.contains("client_secret"), "{text}");
        assert_eq!(fs::read_to_string(credential).unwrap(), "s3cret-of-the-principal\n");
        assert!(as_service(&place.config, &place, false).is_ok());
    }
}
