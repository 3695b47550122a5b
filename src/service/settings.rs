//! config.toml and the secret's file for a service, from what a person gave by flag or environment, which a service does
//! not see.
//!
//! Invariants: everything else in an existing file stays, including comments; what is written has been read back as the
//! service will read it; a secret only goes into a file of mode 0600, or into the keychain.

mod file;
mod secrets;
mod table;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use toml_edit::DocumentMut;
use zeroize::Zeroizing;

use self::file::{read, staged};
use self::secrets::out_of_sight;
use super::files::cannot;
use crate::auth;
use crate::config::{Config, ConfigError, Origin, Overrides, Place, Setting, credential_source};
use crate::failure::{Code, Failure};
use crate::model::Workspace;
use crate::os::dirs::Environment;
use crate::os::keychain::{self, Item as Password};
use crate::typed::shell_path;
use crate::words;

/// The setting that may be a list of paths.
const PASSWORD_FILES: &str = "password_file";

/// Settings that are one path.
const PATHS: [&str; 3] = ["log_file", "oidc_token_filepath", "google_credentials_file"];

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
    /// The file as it was read; none where there was none.
    old: Option<Zeroizing<String>>,
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
    pub(crate) const HEAD: &str =
        "# What dbx-rotator keeps alive. `dbx-rotator config show` says what is in effect, and why.\n";

    /// What must be written so that a service does what `config` says here and now.
    ///
    /// # Errors
    /// The present file or secret cannot be read.
    pub(crate) fn new(config: &Config, inputs: ServiceInputs) -> Result<Self, Failure> {
        let old = read(&inputs.config)?;
        Self::from(old, Self::HEAD, config, inputs)
    }

    /// The same for a file that does not exist yet, and shall begin with this text.
    ///
    /// # Errors
    /// The secret cannot be read.
    pub(crate) fn of_text(text: &str, config: &Config, inputs: ServiceInputs) -> Result<Self, Failure> {
        Self::from(None, text, config, inputs)
    }

    fn from(
        old: Option<Zeroizing<String>>,
        new: &str,
        config: &Config,
        inputs: ServiceInputs,
    ) -> Result<Self, Failure> {
        let text = old.as_ref().map_or(new, |old| old.as_str());
        let mut document: DocumentMut = text.parse().map_err(|fault: toml_edit::TomlError| {
            let why = words::of_toml(fault.message());
            Failure::permanent(Code::Configuration, format!("{} is not TOML: {why}", inputs.config.display()))
        })?;
        let is_new = old.is_none();
        let (items, changes) = (Vec::new(), Vec::new());
        let mut plan = Plan { inputs, is_new, old, config: None, secret: None, items, store: keychain::write, changes };
        for setting in config.settings().iter().filter(|setting| is_unseen(setting)) {
            plan.take_over(config, setting, &mut document)?;
        }
        if plan.inputs.keychain {
            plan.move_secrets(config, &mut document)?;
        }
        for workspace in config.workspaces() {
            if let Some(path) = hidden_cli(config, workspace, &plan.inputs) {
                let section = format!("workspace \"{}\"", workspace.name());
                refuse_fragment(config, &section, &format!("cli_path = \"{}\"", path.display()))?;
                plan.set(&mut document, &section, "cli_path", path.display().to_string().into());
            }
        }
        let text = document.to_string();
        plan.config = plan.old.as_ref().is_none_or(|old| old.as_str() != text).then_some(text);
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
        self.is_as_read(&target)?;
        for (item, secret) in &self.items {
            (self.store)(item, secret)?;
        }
        self.write_secret(&mut written)?;
        if let Some(new) = new {
            self.is_as_read(&target)?;
            // A link that leads nowhere is replaced.
            let is_there = self.old.is_some() || target.is_symlink();
            let put = if is_there { new.persist(&target) } else { new.persist_noclobber(&target) };
            put.map_err(|error| cannot("write", &target, &error.error))?;
            written.push(target);
        }
        Ok(written)
    }

    /// Checks that nobody has changed the file since it was read: a person may have been asked, and a workspace may have been slow.
    fn is_as_read(&self, target: &Path) -> Result<(), Failure> {
        if self.config.is_none() || read(target)? == self.old {
            return Ok(());
        }
        let message = format!("{} was changed meanwhile, and is left as it is", target.display());
        Err(Failure::transient(Code::TryAgain, message).hint("run it again"))
    }

    /// Checks that the service would see the same settings.
    fn is_seen(&self, file: &Path, wanted: &Config) -> Result<(), WriteError> {
        let seen = as_service_with(Some(file), &self.inputs, self.secret.is_some())
            .map_err(|error| WriteError::Config(Box::new(error)))?;
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
                let file = || format!("write it into {}, and try again", self.inputs.config.display());
                let of_fragment =
                    |place| format!("change it in {place}, which is left as it is, or do not give it here");
                let hint = wanted.place_in_fragment(section, key).map_or_else(file, of_fragment);
                Err(Failure::permanent(Code::Configuration, message).hint(hint).into())
            }
        }
    }

    // ---- one setting ----

    fn take_over(&mut self, config: &Config, setting: &Setting, document: &mut DocumentMut) -> Result<(), Failure> {
        let (section, shown) = (setting.section.as_str(), setting.value.as_str());
        let is_secret = matches!(setting.key, "client_secret" | "client_secret_file");
        // A fragment is somebody else's. Where it says something else, that is found when the result is read.
        if !is_secret && config.place_in_fragment(section, setting.key).is_some() {
            return Ok(());
        }
        match setting.key {
            "client_secret" | "client_secret_file" => self.take_over_secret(config, section, document)?,
            secret @ ("token" | "azure_client_secret" | "google_credentials") => return Err(out_of_sight(secret)),
            "metadata_service_url" => {
                let message = "the address of a metadata service is for the program that has it from the one that runs the service";
                return Err(Failure::permanent(Code::Configuration, message)
                    .hint("sign in otherwise where a service does, see docs/signing-in.md"));
            }
            "azure_use_msi" => self.set(document, section, "azure_use_msi", (shown == "true").into()),
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
                format!("chmod 600 {}", shell_path(&self.inputs.config))
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
}

/// The absolute path, which is valid in every current directory.
pub(crate) fn absolute(path: &str) -> String {
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

/// The configuration as the service reads it: with its file and the fragments beside that, and without this process's environment.
/// If the manager hands over a secret, it is read from the manager's source file.
///
/// # Errors
/// As [`Config::load`].
pub(crate) fn as_service(inputs: &ServiceInputs) -> Result<Config, ConfigError> {
    as_service_with(None, inputs, false)
}

/// The same with what is in `text` in place of the file, and with a secret that the manager will hand over (`secret_to_be`).
fn as_service_with(text: Option<&Path>, inputs: &ServiceInputs, secret_to_be: bool) -> Result<Config, ConfigError> {
    let credential = if secret_to_be { inputs.credential.clone() } else { inputs.handed_over() };
    let place = Place::of_service(&inputs.config, text);
    // The machine's units start for whom there is a file; a user's do for fragments, too.
    let place = if inputs.credential.is_some() || !place.is_there() { place.named() } else { place };
    Config::load_at(place, inputs.environment.clone().handing_over(credential), &Overrides::default())
}

/// That this setting need not go into a fragment, which is somebody else's file.
fn refuse_fragment(config: &Config, section: &str, setting: &str) -> Result<(), Failure> {
    let Some(place) = config.place_in_fragment(section, "") else { return Ok(()) };
    let message = format!("the service needs {setting} in {section}, which {place} has and which is left as it is");
    Err(Failure::permanent(Code::Configuration, message).hint("write it there, and try again"))
}

/// Whether the setting's source is hidden from a service.
fn is_unseen(setting: &Setting) -> bool {
    matches!(setting.origin, Origin::Flag(_) | Origin::Environment(_))
}

/// The vendor's CLI if the service needs it and would not find it. Root does not look for another user's.
fn hidden_cli(config: &Config, workspace: &Workspace, inputs: &ServiceInputs) -> Option<PathBuf> {
    let needed = workspace.may_ask_databricks_cli() && workspace.client.is_none() && workspace.cli_path.is_none();
    let own = inputs.credential.is_none();
    (needed && own).then(|| auth::cli_off_the_usual_path(workspace, &config.environment)).flatten()
}

/// The workspace that a section of the settings is about.
fn workspace_of<'c>(config: &'c Config, section: &str) -> Option<&'c Workspace> {
    config.workspaces().iter().find(|workspace| section == format!("workspace \"{}\"", workspace.name()))
}

/// A workspace's address, with its id if known.
fn address(config: &Config, section: &str, shown: &str) -> String {
    workspace_of(config, section).map_or_else(|| shown.to_owned(), Workspace::address)
}

#[cfg(test)]
mod tests;
