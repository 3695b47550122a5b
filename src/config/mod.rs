//! The settings: flags > environment > config.toml > a profile of `~/.databrickscfg` > defaults.
//!
//! One file a source, [`merge`] puts them together and remembers where each value came from. Nothing is written here, and
//! a secret file is only named: it is read when a rotation needs it, so that a new secret needs no restart.

mod fault;
mod file;
mod host;
mod merge;
mod origin;
mod overrides;
mod paths;
mod place;
mod profile;
mod secret;
mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use fault::ConfigError;
pub use file::parse_duration;
pub use host::WorkspaceHost;
pub use origin::{Origin, Setting};
pub use overrides::Overrides;
pub(crate) use place::{Listing, Place, Source, Verify};
pub(crate) use secret::{SecretSource, credential_files, credential_source};

use crate::os::dirs::Environment;
use crate::os::keychain::Item;
use crate::outputs::Outputs;
use crate::pgpass;
use crate::postgres::{self, SslMode};

/// The database that every Lakebase instance has.
const DEFAULT_DATABASE: &str = "databricks_postgres";

/// How a workspace is signed in to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// `oauth-m2m` where a client is configured; else, or after its failure, `databricks-cli`.
    Chain,
    /// A service principal's client credentials (RFC 6749, section 4.4).
    OauthM2m,
    /// The vendor's command line tool, where a person has logged in.
    DatabricksCli,
}

/// A service principal: its client id, and where its secret is to be had.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) secret: SecretSource,
}

/// A Databricks host and the identity that signs in to it.
#[derive(Clone, Debug)]
pub struct Workspace {
    pub(crate) name: String,
    pub(crate) host: WorkspaceHost,
    pub(crate) workspace_id: Option<String>,
    pub(crate) auth: Auth,
    pub(crate) client: Option<Client>,
    /// The profile that the vendor's CLI is asked for, where the host came from it.
    pub(crate) profile: Option<String>,
    pub(crate) cli_path: Option<PathBuf>,
    pub(crate) ca_file: Option<PathBuf>,
}

impl Workspace {
    /// Some workspace, for [`crate::fuzzing`].
    #[cfg(any(test, fuzzing))]
    #[allow(clippy::expect_used, reason = "the address is a constant")]
    pub(crate) fn for_fuzzing() -> Self {
        let host = WorkspaceHost::parse("https://workspace.example").expect("an address");
        let (name, auth) = ("default".to_owned(), Auth::DatabricksCli);
        let (workspace_id, client, profile, cli_path, ca_file) = (None, None, None, None, None);
        Workspace { name, host, workspace_id, auth, client, profile, cli_path, ca_file }
    }

    /// The name that connections refer to it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    pub fn host(&self) -> &WorkspaceHost {
        &self.host
    }

    /// Whether both sign in as the same identity in the same way, so that one token serves both.
    pub(crate) fn shares_identity_with(&self, other: &Workspace) -> bool {
        self.host.origin() == other.host.origin()
            && self.auth == other.auth
            && self.profile == other.profile
            && self.cli_path == other.cli_path
            && self.ca_file == other.ca_file
            && self.workspace_id == other.workspace_id
            && self.client.as_ref().map(|client| &client.id) == other.client.as_ref().map(|client| &client.id)
    }
}

/// Host, port, database and user of a connection, as far as they are set: the rest is found by the API and the sign-in.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    pub(crate) host: Option<String>,
    pub(crate) port: u16,
    pub(crate) database: String,
    pub(crate) user: Option<String>,
}

/// One PostgreSQL target: host, port, database, user, and where its credential comes from.
#[derive(Clone, Debug)]
pub struct Connection {
    pub(crate) name: String,
    pub(crate) workspace: usize,
    pub(crate) address: Address,
    /// What its entry is known by, once host and user are.
    pub(crate) key: Option<pgpass::Key>,
    /// By what the API knows its database, where it is to be asked.
    pub(crate) place: Option<Place>,
    /// The read-only host of that place is meant, not the one that reads and writes.
    pub(crate) read_only: bool,
    pub(crate) credential: Source,
    /// A database credential only where the API knows its host; else the workspace's token.
    pub(crate) only_if_found: bool,
    pub(crate) verify: Verify,
    /// What was asked for, if anything.
    pub(crate) sslmode: Option<SslMode>,
    /// The authorities that the server's certificate is checked by, where they are not the platform's.
    pub(crate) sslrootcert: Option<PathBuf>,
    pub(crate) outputs: Outputs,
    pub(crate) listing: Listing,
    pub(crate) last_copy: bool,
    pub(crate) any_identity: bool,
    /// The client that was set beside another user: its credentials are published all the same, and only its own.
    pub(crate) chosen_client: Option<String>,
}

impl Connection {
    /// The name that people, commands and the record call it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The four key fields of its entry; none before its host and its user have been found.
    pub fn key(&self) -> Option<&pgpass::Key> {
        self.key.as_ref()
    }

    /// Whether its host or its user is not set, and is to be found.
    pub(crate) fn is_open(&self) -> bool {
        self.address.host.is_none() || self.address.user.is_none()
    }

    /// Fills in what is not set; a host that is none, or a host or user that cannot stand in a password file, leaves it without a key.
    pub(crate) fn locate(&mut self, host: Option<&str>, user: Option<&str>) {
        let host = host.filter(|host| server::host_misfit(host).is_none());
        let Address { host: set_host, port, database, user: set_user } = &self.address;
        let (host, user) = (set_host.as_deref().or(host), set_user.as_deref().or(user));
        self.key = host.zip(user).and_then(|(host, user)| pgpass::Key::new(host, *port, database, user).ok());
    }

    /// The user that was set, where a client was set beside it that does not go by that name: PostgreSQL refuses such a login,
    /// unless the role takes this identity.
    pub(crate) fn remark_on_client(&self) -> Option<String> {
        let (client, user) = (self.chosen_client.as_ref()?, self.address.user.as_ref()?);
        if self.any_identity || same_identity(client, user) || !names_an_identity(user) {
            return None;
        }
        Some(format!(
            "connection {}: the user {user} and the client {client} were both set, so this client's token is the password for that \
             user; PostgreSQL refuses the login unless the role accepts this client. If it does, say so with any_identity = true or \
             --any-identity; if not, leave out the user: it is then the client id",
            self.name
        ))
    }

    /// The database to log in to: where its entry is for every one, that which every instance has.
    pub(crate) fn login_database(&self) -> &str {
        if self.address.database == "*" { DEFAULT_DATABASE } else { &self.address.database }
    }

    /// libpq's `sslrootcert`: by itself it looks for a file of the user's, and not at the platform's store.
    pub(crate) fn root_for_libpq(&self) -> Option<String> {
        let file = self.sslrootcert.as_ref().map(|path| path.display().to_string());
        file.or_else(|| (self.sslmode == Some(SslMode::VerifyFull)).then(|| "system".to_owned()))
    }

    /// libpq's `sslmode` for who uses the service file. Before version 16 it cannot look at the platform's store, so `verify-full` is
    /// written only where it was asked for.
    pub(crate) fn sslmode_for_libpq(&self) -> SslMode {
        self.sslmode.unwrap_or(SslMode::Require)
    }

    /// What a login needs to know; none before host and user have been found.
    pub(crate) fn login_target(&self) -> Option<postgres::Target<'_>> {
        let key = self.key.as_ref()?;
        Some(postgres::Target {
            host: key.host(),
            port: key.port(),
            database: self.login_database(),
            user: key.user(),
            // A credential of ours goes to the host itself, unless somebody asked for less.
            sslmode: self.sslmode.unwrap_or(SslMode::VerifyFull),
            root: self.sslrootcert.as_deref(),
        })
    }
}

/// E-mail addresses and application ids differ in case between tokens and roles without naming different identities.
pub(crate) fn same_identity(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// An e-mail address or an application id names one identity; anything else is a group, whose members log in with their own
/// tokens.
pub(crate) fn names_an_identity(user: &str) -> bool {
    let groups = [8, 4, 4, 4, 12];
    let parts: Vec<&str> = user.split('-').collect();
    let is_uuid = parts.len() == groups.len()
        && parts
            .iter()
            .zip(groups)
            .all(|(part, length)| part.len() == length && part.bytes().all(|b| b.is_ascii_hexdigit()));
    is_uuid || user.contains('@')
}

/// Everything that is set, with where each value came from.
#[derive(Clone)]
pub struct Config {
    pub(crate) workspaces: Vec<Workspace>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) password_file: PathBuf,
    /// libpq's connection service file.
    pub(crate) service_file: Option<PathBuf>,
    pub(crate) log_file: Option<PathBuf>,
    pub(crate) interval: Option<Duration>,
    pub(crate) state_dir: PathBuf,
    pub(crate) environment: Environment,
    pub(crate) file: Option<PathBuf>,
    pub(crate) settings: Vec<Setting>,
    pub(crate) warnings: Vec<String>,
    pub(crate) notes: Vec<String>,
}

impl Config {
    /// Reads all sources; `overrides` wins over the environment, that over the files.
    ///
    /// # Errors
    /// The first fault found, with its place; or all settings that are missing, with the places that could give them.
    pub fn load(overrides: &Overrides) -> Result<Self, ConfigError> {
        merge::load(overrides, Environment::of_this_process(), false)
    }

    /// The same with nothing taken from the environment but where the home directory is and where to find programs.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_without_environment(overrides: &Overrides) -> Result<Self, ConfigError> {
        let process = Environment::of_this_process();
        let kept = ["HOME", "PATH", "XDG_STATE_HOME", "STATE_DIRECTORY", "SSL_CERT_FILE", "SSL_CERT_DIR"];
        let few = kept.into_iter().filter_map(|name| Some((name, process.get_os(name)?.clone()))).collect();
        merge::load(overrides, few, false)
    }

    /// The workspaces alone, for who wants to know which connections there could be.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub(crate) fn load_workspaces(overrides: &Overrides) -> Result<Self, ConfigError> {
        merge::load(overrides, Environment::of_this_process(), true)
    }

    /// As somebody with this environment reads it, such as a service.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub(crate) fn load_in(environment: Environment, overrides: &Overrides) -> Result<Self, ConfigError> {
        merge::load(overrides, environment, false)
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

    /// The password file that is kept fresh.
    pub fn password_file(&self) -> &Path {
        &self.password_file
    }

    /// The log file, where one is wanted.
    pub fn log_file(&self) -> Option<&Path> {
        self.log_file.as_deref()
    }

    /// The configuration file that was read.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Whether every setting has the same value, wherever it comes from; of secrets only whether they are set.
    pub(crate) fn says_the_same_as(&self, other: &Config) -> bool {
        let values = |config: &Config| -> Vec<(String, &'static str, String)> {
            config.settings.iter().map(|one| (one.section.clone(), one.key, one.value.clone())).collect()
        };
        values(self) == values(other)
    }

    /// What the daemon does with it: `Keeping 1 connection alive in /home/ada/.pgpass`.
    pub(crate) fn summary(&self) -> String {
        let what = match self.connections.len() {
            1 => "1 connection".to_owned(),
            count => format!("{count} connections"),
        };
        format!("Keeping {what} alive in {}", self.password_file.display())
    }

    /// The files in which a person gives or mends what signs in: settings, secrets, profiles.
    pub(crate) fn files_of_people(&self) -> Vec<PathBuf> {
        let secrets = self.workspaces.iter().filter_map(|workspace| match &workspace.client.as_ref()?.secret {
            SecretSource::File(path) => Some(path.clone()),
            SecretSource::Given(_) | SecretSource::Keychain(_) => None,
        });
        let profiles = self.environment.databricks_config_file();
        absolute(self.file.clone().into_iter().chain(secrets).chain(profiles))
    }

    /// The items of the keychain that client secrets are read from.
    pub(crate) fn keychain_items(&self) -> Vec<Item> {
        let item = |workspace: &Workspace| {
            let client = workspace.client.as_ref()?;
            let SecretSource::Keychain(service) = &client.secret else { return None };
            Some(Item { service: service.clone(), account: client.id.clone() })
        };
        self.workspaces.iter().filter_map(item).collect()
    }

    /// Where a configuration may appear, or be mended, when none can be loaded.
    pub(crate) fn files_to_come(overrides: &Overrides) -> Vec<PathBuf> {
        let environment = Environment::of_this_process();
        let named = overrides.config.clone().or_else(|| environment.path("DBX_ROTATOR_CONFIG"));
        let files = named.map_or_else(|| environment.config_files(), |file| vec![file]);
        absolute(files.into_iter().chain(environment.databricks_config_file()))
    }

    /// The file in which the vendor's CLI keeps its logins.
    pub(crate) fn login_files(&self) -> Vec<PathBuf> {
        absolute(self.environment.databricks_token_cache())
    }

    /// The password file, as it is watched.
    pub(crate) fn password_files(&self) -> Vec<PathBuf> {
        absolute([self.password_file.clone()])
    }

    /// Every effective setting with where it came from, secrets as `(set)`.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// What works but is unwise or was left aside, a sentence each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What was set and is not used, with the reason, a sentence each: for who looks at the settings.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Where a configuration file is read from, or would be.
    ///
    /// # Errors
    /// None is known when there is no home directory.
    pub fn path(overrides: &Overrides) -> Result<PathBuf, ConfigError> {
        merge::config_path(overrides, &Environment::of_this_process())
            .map(|(path, _)| path)
            .ok_or_else(|| ConfigError::new("no home directory is known").hint("set HOME, or use --config PATH"))
    }
}

fn absolute(paths: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    paths.into_iter().map(|path| std::path::absolute(&path).unwrap_or(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mails_and_application_ids_name_an_identity_and_groups_do_not() {
        assert!(names_an_identity("ada@example.com"));
        assert!(names_an_identity("0b1c2d3e-0000-4000-8000-00000000cafe"));
        for group in ["data readers", "0b1c2d3e", "0b1c2d3e-0000-4000-8000-00000000caf", "team-a-b-c-d"] {
            assert!(!names_an_identity(group), "{group}");
        }
    }
}
