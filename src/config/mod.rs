//! The settings: flags > environment > config.toml and its fragments > a profile of `~/.databrickscfg` > defaults.
//!
//! One file for each source; [`merge`] combines them and remembers where each value came from. Nothing is written here. A
//! secret's file is not read here either: a rotation reads it when needed, so that a new secret needs no restart.

mod fault;
mod file;
mod fragments;
mod keys;
mod merge;
mod origin;
mod overrides;
mod paths;
mod profile;
mod secret;
mod source;
mod unified;
mod wording;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use fault::ConfigError;
pub use file::parse_duration;
#[cfg(feature = "cli")]
pub(crate) use file::parse_interval;
pub(crate) use fragments::Place;
pub use origin::{Origin, Setting};
pub use overrides::Overrides;
#[cfg(feature = "cli")]
pub(crate) use overrides::port;
pub(crate) use profile::profiles;
pub(crate) use secret::{credential_files, credential_source, keep_if_no_path, remark_on_mode};
#[cfg(feature = "cli")]
pub(crate) use unified::variables as vendor_variables;

use crate::model::{Cluster, Connection, LocalProxy, Outputs, SecretSource, Workspace};
use crate::os::dirs::Environment;
use crate::os::keychain::Item;
use crate::os::trust;
use crate::proxies::{EXCEPTION_VARIABLES, PROXY_VARIABLES};

/// All settings, with where each value came from.
#[derive(Clone)]
pub struct Config {
    pub(crate) workspaces: Vec<Workspace>,
    pub(crate) connections: Vec<Connection>,
    /// The password files, at least one: all of them hold the same credentials.
    pub(crate) password_files: Vec<PathBuf>,
    /// libpq's connection service file.
    pub(crate) service_file: Option<PathBuf>,
    pub(crate) log_file: Option<PathBuf>,
    pub(crate) interval: Option<Duration>,
    pub(crate) local_proxy: LocalProxy,
    /// The program that tells a person that a login is needed, with its arguments.
    pub(crate) notify_command: Option<Vec<String>>,
    /// How this process knows its Kubernetes cluster, where a connection has a Secret there.
    pub(crate) cluster: Cluster,
    pub(crate) state_dir: PathBuf,
    pub(crate) environment: Environment,
    pub(crate) file: Option<PathBuf>,
    /// The fragments beside it that were read.
    pub(crate) fragments: Vec<PathBuf>,
    /// Where fragments are looked for.
    pub(crate) fragments_directory: Option<PathBuf>,
    /// What is written in fragments, with its place there: tables by their section, other settings by their key.
    pub(crate) of_fragments: BTreeMap<String, String>,
    pub(crate) settings: Vec<Setting>,
    pub(crate) warnings: Vec<String>,
    pub(crate) notes: Vec<String>,
}

impl Config {
    /// Reads all sources. `overrides` wins over the environment, and the environment over the files.
    ///
    /// # Errors
    /// The first fault, with its place; or all missing settings, with the places where they could be given.
    pub fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        merge::load(overrides, Environment::of_this_process(), None, false)
    }

    /// Whether nobody sits in front of this machine, and there may be thousands like it: the units for servers keep their record
    /// where systemd has it for them.
    pub(crate) fn is_server(&self) -> bool {
        self.environment.path("STATE_DIRECTORY").is_some_and(|path| path.starts_with("/var/"))
    }

    /// The same with nothing taken from the environment but where the home directory is and where to find programs.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_without_environment(overrides: &Overrides) -> Result<Self, ConfigError> {
        let process = Environment::of_this_process();
        let kept = ["HOME", "PATH", "XDG_STATE_HOME", "STATE_DIRECTORY", "SSL_CERT_FILE", "SSL_CERT_DIR"];
        // Neither do the way to the network and whom to trust there depend on what is kept alive.
        let kept = kept.into_iter().chain(PROXY_VARIABLES).chain(EXCEPTION_VARIABLES);
        let few = kept.filter_map(|name| Some((name, process.get_os(name)?.clone()))).collect();
        merge::load(overrides, few, None, false)
    }

    /// That of a file with this text, in an empty home directory.
    #[cfg(test)]
    pub(crate) fn of_text(text: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("config.toml");
        std::fs::write(&file, text).unwrap();
        let environment = [("HOME", home.path().as_os_str().to_owned())].into_iter().collect();
        Self::load_in(environment, &Overrides { config: Some(file), ..Overrides::default() }).unwrap()
    }

    /// For who runs on, and signs in again and again.
    ///
    /// # Errors
    /// As [`Config::load`], and as [`Config::check_for_service`].
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "who embeds the loop knows where its secret is"))]
    pub(crate) fn load_for_service(overrides: &Overrides) -> Result<Self, ConfigError> {
        let config = Self::load(overrides)?;
        config.check_for_service()?;
        Ok(config)
    }

    /// That a service can do what it says.
    ///
    /// # Errors
    /// What one signs in with can be read only once.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "only commands install services"))]
    pub(crate) fn check_for_service(&self) -> Result<(), ConfigError> {
        let files = self.workspaces.iter().filter_map(|workspace| workspace.secret_file());
        match files.filter_map(|file| secret::is_for_one_run(file)).next() {
            None => Ok(()),
            Some(why) => {
                let message = format!("a service signs in again and again, but {why}");
                Err(ConfigError::new(message).hint(
                    "put the secret alone into a file of mode 0600, or let systemd hand it over (LoadCredential=)",
                ))
            }
        }
    }

    /// The workspaces alone, for who wants to know which connections there could be.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub(crate) fn load_workspaces(overrides: &Overrides) -> Result<Self, ConfigError> {
        merge::load(overrides, Environment::of_this_process(), None, true)
    }

    /// The same in another environment.
    pub(crate) fn load_workspaces_in(environment: Environment, overrides: &Overrides) -> Result<Self, ConfigError> {
        merge::load(overrides, environment, None, true)
    }

    /// As somebody with this environment reads it, such as a service.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub(crate) fn load_in(environment: Environment, overrides: &Overrides) -> Result<Self, ConfigError> {
        merge::load(overrides, environment, None, false)
    }

    /// The same with the configuration in this place, and its fragments.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub(crate) fn load_at(place: Place, environment: Environment, overrides: &Overrides) -> Result<Self, ConfigError> {
        merge::load(overrides, environment, Some(place), false)
    }

    /// The connections, in the order of the file.
    pub fn connections(&self) -> &[Connection] {
        &self.connections
    }

    /// The workspaces, in the order of the file.
    pub fn workspaces(&self) -> &[Workspace] {
        &self.workspaces
    }

    /// The workspace that a connection's credential comes from.
    pub fn workspace_of(&self, connection: &Connection) -> &Workspace {
        &self.workspaces[connection.workspace]
    }

    /// The password file that is kept fresh; of several the first, which programs are told of.
    pub fn password_file(&self) -> &Path {
        self.password_files.first().map_or(Path::new(""), PathBuf::as_path)
    }

    /// The directories of the files that are written in the places that a person chose.
    pub(crate) fn written_directories(&self) -> Vec<PathBuf> {
        let beside = self.connections.iter().flat_map(|connection| {
            let Outputs { token_file, env_file, files, .. } = &connection.outputs;
            token_file.iter().chain(env_file).chain(files.iter().map(|file| &file.path))
        });
        let files = self.password_files.iter().chain(&self.log_file).chain(beside).cloned();
        let mut directories: Vec<PathBuf> =
            absolute(files).iter().filter_map(|file| Some(file.parent()?.to_owned())).collect();
        directories.sort();
        directories.dedup();
        directories
    }

    /// Whether a connection has a Secret of Kubernetes.
    pub(crate) fn has_secrets(&self) -> bool {
        self.connections.iter().any(|connection| connection.outputs.kubernetes_secret.is_some())
    }

    /// All password files that are kept fresh.
    pub fn password_files(&self) -> &[PathBuf] {
        &self.password_files
    }

    /// The same for people: `/home/ada/.pgpass and /home/ada/snap/.pgpass`.
    pub(crate) fn named_password_files(&self) -> String {
        let names: Vec<String> = self.password_files.iter().map(|path| path.display().to_string()).collect();
        names.join(" and ")
    }

    /// The log file, if one is wanted.
    pub fn log_file(&self) -> Option<&Path> {
        self.log_file.as_deref()
    }

    /// The configuration file that was read.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The fragments beside it that were read, in their order.
    pub fn fragments(&self) -> &[PathBuf] {
        &self.fragments
    }

    /// The place in a fragment that a setting has to be written to, if that is where its table is, or it itself.
    pub(crate) fn place_in_fragment(&self, section: &str, key: &str) -> Option<&str> {
        let written = if section.is_empty() { key } else { section };
        self.of_fragments.get(written).map(String::as_str)
    }

    /// Whether all settings have the same values, wherever they come from. Of secrets only whether they are set.
    pub(crate) fn says_the_same_as(&self, other: &Config) -> bool {
        let values = |config: &Config| -> Vec<(String, &'static str, String)> {
            config.settings.iter().map(|one| (one.section.clone(), one.key, one.value.clone())).collect()
        };
        values(self) == values(other)
    }

    /// By which proxy each workspace is reached, where one is set: a sentence for each.
    pub(crate) fn ways(&self) -> impl Iterator<Item = String> {
        self.workspaces.iter().filter_map(|workspace| {
            let (origin, set) = (workspace.host.origin(), workspace.proxies.proxy()?);
            Some(match workspace.route().proxy() {
                Some(proxy) => format!("{origin} is reached by the proxy {} (from {})", proxy.shown(), proxy.from()),
                None => format!("{origin} is reached directly, and not by the proxy {}", set.shown()),
            })
        })
    }

    /// What the daemon does with it: `Keeping 1 connection alive in /home/ada/.pgpass`.
    pub(crate) fn summary(&self) -> String {
        let what = crate::words::count(self.connections.len(), "connection");
        format!("Keeping {what} alive in {}", self.named_password_files())
    }

    /// The files in which people change what signs in and what is written: settings, secrets, profiles, templates.
    pub(crate) fn files_of_people(&self) -> Vec<PathBuf> {
        let secrets = self.workspaces.iter().filter_map(Workspace::secret_file).cloned();
        let profiles = self.environment.databricks_config_file();
        let made = self.connections.iter().flat_map(|connection| &connection.outputs.files);
        let templates = made.map(|file| file.template.clone());
        let fragments = self.fragments_directory.iter().chain(&self.fragments).cloned();
        absolute(self.file.clone().into_iter().chain(fragments).chain(secrets).chain(profiles).chain(templates))
    }

    /// The keychain items from which client secrets are read.
    pub(crate) fn keychain_items(&self) -> Vec<Item> {
        let item = |workspace: &Workspace| {
            let client = workspace.client.as_ref()?;
            let SecretSource::Keychain(service) = &client.secret else { return None };
            Some(Item { service: service.clone(), account: client.id.clone() })
        };
        self.workspaces.iter().filter_map(item).collect()
    }

    /// What is to be said of the files with secrets that others can read, a sentence for each.
    #[cfg(feature = "cli")]
    pub(crate) fn loose_secrets(&self) -> BTreeSet<String> {
        let remark = |workspace: &Workspace| workspace.secret().and_then(|(source, what)| source.loose_mode(what));
        self.workspaces.iter().filter_map(remark).collect()
    }

    /// The files from which a configuration would be read: to be watched while there is no usable one.
    pub(crate) fn files_to_come(overrides: &Overrides) -> Vec<PathBuf> {
        let environment = Environment::of_this_process();
        let named = overrides.named_config(&environment);
        let files = named.map_or_else(|| environment.config_files(), |file| vec![file]);
        let fragments = files.iter().filter_map(|file| Place::new(file.clone(), false, &environment).fragments);
        // Each of them, too: its owner may be another one than the directory's.
        let fragments: Vec<PathBuf> = fragments.flat_map(fragments::with_all_in).collect();
        absolute(files.into_iter().chain(fragments).chain(environment.databricks_config_file()))
    }

    /// The files that change when somebody logs in: that of the vendor's CLI, and those of `dbx-rotator login`, by workspace.
    pub(crate) fn login_files(&self, of: impl Fn(&Workspace) -> PathBuf) -> Vec<PathBuf> {
        absolute(self.environment.databricks_token_cache().into_iter().chain(self.workspaces.iter().map(of)))
    }

    /// The password files, as they are watched.
    pub(crate) fn password_files_to_watch(&self) -> Vec<PathBuf> {
        absolute(self.password_files.iter().cloned())
    }

    /// The password file, where libpq does not look for it by itself. What PGPASSFILE says here need not be said elsewhere.
    pub(crate) fn password_file_for_libpq(&self) -> Option<PathBuf> {
        let usual = self.environment.home().map(|home| home.join(".pgpass"));
        let file = self.password_file();
        (usual.as_deref() != Some(file)).then(|| std::path::absolute(file).unwrap_or_else(|_| file.to_owned()))
    }

    /// The files that must be there before anything works, which others put there, each with what it is for.
    pub(crate) fn files_of_others(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let workspaces = self.workspaces.iter().flat_map(|workspace| {
            let authorities = workspace.ca_file.as_ref().map(|path| ("ca_file", path));
            workspace.secret_file().map(|path| ("the secret to sign in with", path)).into_iter().chain(authorities)
        });
        let roots = self.connections.iter().filter_map(|one| Some(("sslrootcert", one.sslrootcert.as_ref()?)));
        let certificate = self.local_proxy.tls.as_ref().map(|path| ("proxy_tls", path));
        workspaces.chain(roots).chain(certificate)
    }

    /// libpq's `sslrootcert` for a connection.
    pub(crate) fn root_for_libpq(&self, connection: &Connection) -> Option<String> {
        connection.root_for_libpq(|| trust::bundle(&self.environment))
    }

    /// libpq's `sslmode` for a client in this environment; none where that asks for more than the connection does.
    #[cfg(feature = "cli")]
    pub(crate) fn sslmode_for_client(&self, connection: &Connection) -> Option<crate::model::SslMode> {
        let is_strict = matches!(self.environment.get("PGSSLMODE"), Some("verify-ca" | "verify-full"));
        let keeps_mode = connection.sslmode.is_none() && is_strict;
        (!keeps_mode).then(|| connection.sslmode_for_libpq())
    }

    /// Every effective setting with its origin, secrets as `(set)`.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// What works but is unwise, or was ignored, one sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What was set but is not used, with the reason, one sentence each, for people who look at the settings.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The path of the configuration file, whether or not it exists.
    ///
    /// # Errors
    /// No path is known, because there is no home directory.
    pub fn path(overrides: &Overrides) -> Result<PathBuf, ConfigError> {
        let environment = Environment::of_this_process();
        merge::place(&overrides.expanded(&environment)?, &environment)
            .map(|place| place.file)
            .ok_or_else(|| ConfigError::new("no home directory is known").hint("set HOME, or use --config PATH"))
    }
}

fn absolute(paths: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    paths.into_iter().map(|path| std::path::absolute(&path).unwrap_or(path)).collect()
}
