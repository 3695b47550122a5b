//! The workspaces: host, sign-in method, client and profile.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::SecretString;
use toml::Spanned;

use super::{DEFAULT_NAME, Merge, Places};
use crate::config::fault::ConfigError;
use crate::config::file::WorkspaceTable;
use crate::config::origin::{Origin, Sourced};
use crate::config::profile::Profile;
use crate::config::secret::{credential_source, is_filled};
use crate::config::{Auth, Client, SecretSource, Workspace, WorkspaceHost};
use crate::failure::could_be_secret;
use crate::os::dirs::SYSTEM_DIRECTORY;

const ARGV_IS_PUBLIC: &str = "--client-secret can be read by everyone on this machine while the program runs: \
    use --client-secret-file or DATABRICKS_CLIENT_SECRET";

/// What the sources say of one workspace, before any of it is judged.
#[derive(Default)]
struct Draft {
    host: Option<Sourced<String>>,
    client_id: Option<Sourced<String>>,
    secret: Option<Sourced<SecretSource>>,
    auth: Option<Sourced<String>>,
    cli_path: Option<Sourced<String>>,
    ca_file: Option<Sourced<String>>,
    workspace_id: Option<Sourced<String>>,
    /// The profile that somebody named.
    profile: Option<Sourced<String>>,
}

impl Draft {
    /// Unified authentication: the profile file is skipped when no profile is named and anything is set already.
    fn wants_profile(&self) -> bool {
        let nothing_set =
            self.host.is_none() && self.client_id.is_none() && self.secret.is_none() && self.auth.is_none();
        self.profile.is_some() || nothing_set
    }

    /// Takes what is not set from a profile.
    fn fill_from(&mut self, profile: &Profile) {
        let file: Arc<Path> = Arc::from(profile.file.as_path());
        let take = |key: &str| {
            let (value, line) = profile.get(key)?;
            Some(Sourced::new(value.to_owned(), Origin::Profile(profile.name.clone(), Arc::clone(&file), line)))
        };
        let secret = || Some(take("client_secret")?.map(|value| SecretSource::Given(SecretString::from(value))));
        self.host = self.host.take().or_else(|| take("host"));
        self.client_id = self.client_id.take().or_else(|| take("client_id"));
        self.secret = self.secret.take().or_else(secret);
        self.auth = self.auth.take().or_else(|| take("auth_type"));
        self.cli_path = self.cli_path.take().or_else(|| take("databricks_cli_path"));
        self.workspace_id = self.workspace_id.take().or_else(|| take("workspace_id"));
    }
}

impl Merge<'_> {
    pub(super) fn workspaces(&mut self) -> Result<Vec<Option<Workspace>>, ConfigError> {
        let tables: &[Spanned<WorkspaceTable>] = self.source.map_or(&[], |source| &source.file.workspace);
        let ambient = tables.len() <= 1;
        if !ambient {
            self.only_for_one(tables.len(), "workspaces", self.overrides.workspace_flag())?;
            self.note_unused(
                &["DATABRICKS_HOST", "DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET"],
                tables.len(),
                "workspaces",
            );
        }
        let mut all = Vec::new();
        if tables.is_empty() {
            all.push(self.workspace(DEFAULT_NAME.to_owned(), None, true)?);
        }
        let mut taken = HashSet::new();
        for table in tables {
            let name = self.name(table, table.get_ref().name.as_ref(), ambient, &mut taken, "workspace")?;
            all.push(self.workspace(name, Some(table), ambient)?);
        }
        Ok(all)
    }

    fn workspace(
        &mut self,
        name: String,
        table: Option<&Spanned<WorkspaceTable>>,
        ambient: bool,
    ) -> Result<Option<Workspace>, ConfigError> {
        let empty = WorkspaceTable::default();
        let table = table.map_or(&empty, Spanned::get_ref);
        if let (Some(secret), Some(source)) = (&table.client_secret, self.source) {
            return Err(source
                .fault(secret, "a client secret does not belong in config.toml")
                .hint("put it alone into a file of mode 0600 and write client_secret_file = \"PATH\""));
        }
        if let (Some(file), Some(source)) = (&table.client_secret_file, self.source)
            && could_be_secret(file.get_ref())
        {
            return Err(source
                .fault(file, "client_secret_file holds what looks like a secret")
                .hint("put the secret alone into a file of mode 0600 and write the path of that file here"));
        }
        if let (Some(item), Some(_), Some(source)) =
            (&table.client_secret_keychain, &table.client_secret_file, self.source)
        {
            return Err(source
                .fault(item, "the client secret cannot be both in a file and in the keychain")
                .hint("leave out client_secret_file or client_secret_keychain"));
        }
        let mut draft = self.draft(&name, table, ambient);
        let profile = if draft.wants_profile() { self.profile(draft.profile.as_ref())? } else { None };
        if let Some(profile) = &profile {
            draft.fill_from(profile);
        }
        self.settle(name, draft, profile.as_ref(), ambient)
    }

    /// What flags, environment and file say; of the first two only what is `ambient`, meant for the one workspace there is.
    fn draft(&self, name: &str, table: &WorkspaceTable, ambient: bool) -> Draft {
        let given = |value: &Option<String>, flag| {
            value.clone().filter(|_| ambient).map(|v| Sourced::new(v, Origin::Flag(flag)))
        };
        let variable = |name: &'static str| ambient.then(|| self.variable(name)).flatten();
        let written = |value: &Option<Spanned<String>>| value.as_ref().and_then(|value| self.written(value));
        Draft {
            host: given(&self.overrides.workspace_url, "--workspace-url")
                .or_else(|| variable("DATABRICKS_HOST"))
                .or_else(|| written(&table.host)),
            client_id: given(&self.overrides.client_id, "--client-id")
                .or_else(|| variable("DATABRICKS_CLIENT_ID"))
                .or_else(|| written(&table.client_id)),
            secret: self.secret(name, table, ambient),
            auth: variable("DATABRICKS_AUTH_TYPE").or_else(|| written(&table.auth)),
            // Where the program is does not depend on the workspace.
            cli_path: self.variable("DATABRICKS_CLI_PATH").or_else(|| written(&table.cli_path)),
            ca_file: written(&table.ca_file),
            workspace_id: variable("DATABRICKS_WORKSPACE_ID"),
            profile: given(&self.overrides.profile, "--profile")
                .or_else(|| variable("DATABRICKS_CONFIG_PROFILE"))
                .or_else(|| written(&table.profile)),
        }
    }

    /// Judges a draft; none where something is missing.
    fn settle(
        &mut self,
        name: String,
        draft: Draft,
        profile: Option<&Profile>,
        ambient: bool,
    ) -> Result<Option<Workspace>, ConfigError> {
        let section = format!("workspace \"{name}\"");
        let Some(host) = draft.host else {
            let places = Places::of_workspace(("--workspace-url URL", "DATABRICKS_HOST"), "host", "host", ambient);
            self.lacks(("the workspace's address", &name), places);
            return Ok(None);
        };
        let parsed = WorkspaceHost::parse(&host.value).map_err(|why| self.fault(&host.origin, why))?;
        self.note(&section, "host", host, |_| parsed.origin().to_owned());
        let auth = self.auth(&section, draft.auth)?;
        let client = self.client((&section, &name), auth, (draft.client_id, draft.secret), ambient);
        if let Some(named) = draft.profile {
            self.note(&section, "profile", named, String::clone);
        }
        let cli_path = draft.cli_path.map(|path| {
            let path = path.map(|text| self.environment.expand_home(&text));
            self.note(&section, "cli_path", path, |path| path.display().to_string())
        });
        let ca_file = draft.ca_file.map(|path| {
            let path = path.map(|text| self.path_in_file(&text));
            self.note(&section, "ca_file", path, |path| path.display().to_string())
        });
        // The CLI refuses a profile together with another profile's host.
        let is_of_host = |profile: &&Profile| {
            let host = profile.get("host").and_then(|(text, _)| WorkspaceHost::parse(text).ok());
            host.is_some_and(|host| host.origin() == parsed.origin())
        };
        let profile = profile.filter(is_of_host).map(|profile| profile.name.clone());
        // The CLI writes `none` into profiles that have no workspace.
        let is_id = |id: &Sourced<String>| id.value.bytes().all(|byte| byte.is_ascii_digit());
        let told = draft.workspace_id.filter(is_id).map(|id| self.note(&section, "workspace_id", id, String::clone));
        let workspace_id = parsed.workspace_id().map(str::to_owned).or(told);
        Ok(Some(Workspace { name, host: parsed, workspace_id, auth, client, profile, cli_path, ca_file }))
    }

    fn secret(&self, name: &str, table: &WorkspaceTable, ambient: bool) -> Option<Sourced<SecretSource>> {
        let flag = || {
            let given = self.overrides.client_secret.clone().map(SecretSource::Given).map(|s| (s, "--client-secret"));
            let file = || {
                self.overrides.client_secret_file.clone().map(SecretSource::File).map(|s| (s, "--client-secret-file"))
            };
            given.or_else(file).map(|(secret, flag)| Sourced::new(secret, Origin::Flag(flag)))
        };
        let variable = || {
            let secret = self.variable("DATABRICKS_CLIENT_SECRET")?;
            Some(secret.map(|value| SecretSource::Given(SecretString::from(value))))
        };
        let written = || {
            let item = || Some(self.written(table.client_secret_keychain.as_ref()?)?.map(SecretSource::Keychain));
            let path = || self.written(table.client_secret_file.as_ref()?);
            path().map(|path| path.map(|text| SecretSource::File(self.path_in_file(&text)))).or_else(item)
        };
        let ambiently = ambient.then(|| flag().or_else(variable)).flatten();
        ambiently.or_else(written).or_else(|| self.credential(name, ambient || table.client_id.is_some()))
    }

    /// What systemd hands over; the one without a name is nobody else's than the only workspace's, or that of a client named here.
    fn credential(&self, name: &str, may_be_unnamed: bool) -> Option<Sourced<SecretSource>> {
        let found = match self.environment.path("CREDENTIALS_DIRECTORY") {
            Some(directory) => {
                let unnamed = may_be_unnamed.then(|| "client-secret".to_owned());
                let names = [format!("client-secret.{name}")].into_iter().chain(unnamed);
                names.map(|file| directory.join(file)).find(|path| is_filled(path))
            }
            None if may_be_unnamed => match self.environment.handed_over() {
                Some(path) => Some(path.to_owned()),
                None => self.credential_of_the_system(),
            },
            None => None,
        };
        found.map(|path| Sourced::new(SecretSource::File(path), Origin::Credential))
    }

    /// The file that the units of the machine's manager take the secret from, for who looks at their configuration from outside.
    fn credential_of_the_system(&self) -> Option<PathBuf> {
        let config = &self.source?.path;
        let is_theirs = config.parent() == Some(Path::new(SYSTEM_DIRECTORY));
        is_theirs.then(|| credential_source(&config.with_extension("client-secret"))).flatten()
    }

    fn client(
        &mut self,
        (section, name): (&str, &str),
        auth: Auth,
        (id, secret): (Option<Sourced<String>>, Option<Sourced<SecretSource>>),
        ambient: bool,
    ) -> Option<Client> {
        match (id, secret) {
            _ if auth == Auth::DatabricksCli => None,
            (None, None) if auth == Auth::Chain => None,
            (Some(id), Some(secret)) => {
                if secret.origin == Origin::Flag("--client-secret") {
                    self.warnings.push(ARGV_IS_PUBLIC.to_owned());
                }
                let id = self.note(section, "client_id", id, String::clone);
                let key = match secret.value {
                    SecretSource::Given(_) => "client_secret",
                    SecretSource::File(_) => "client_secret_file",
                    SecretSource::Keychain(_) => "client_secret_keychain",
                };
                let secret = self.note(section, key, secret, |secret| match secret {
                    SecretSource::Given(_) => "(set)".to_owned(),
                    SecretSource::File(path) => path.display().to_string(),
                    SecretSource::Keychain(service) => service.clone(),
                });
                Some(Client { id, secret })
            }
            (id, secret) => {
                if id.is_none() {
                    let flag = ("--client-id ID", "DATABRICKS_CLIENT_ID");
                    self.lacks(("the client id", name), Places::of_workspace(flag, "client_id", "client_id", ambient));
                }
                if secret.is_none() {
                    let flag = ("--client-secret-file PATH", "DATABRICKS_CLIENT_SECRET");
                    let places = Places::of_workspace(flag, "client_secret_file", "client_secret", ambient);
                    self.lacks(("the client secret", name), places);
                }
                None
            }
        }
    }

    fn auth(&mut self, section: &str, auth: Option<Sourced<String>>) -> Result<Auth, ConfigError> {
        let Some(auth) = auth else {
            let chain = "oauth-m2m where a client is set, then databricks-cli".to_owned();
            self.note(section, "auth", Sourced::new(chain, Origin::Default), String::clone);
            return Ok(Auth::Chain);
        };
        let method = match auth.value.as_str() {
            "oauth-m2m" => Auth::OauthM2m,
            "databricks-cli" => Auth::DatabricksCli,
            "pat" => {
                let why = "a personal access token (auth pat) is not accepted by PostgreSQL as a password";
                return Err(self.fault(&auth.origin, why).hint("use oauth-m2m or databricks-cli"));
            }
            other => {
                let why = format!("`{other}` is not a sign-in method known here");
                return Err(self
                    .fault(&auth.origin, why)
                    .hint("use oauth-m2m or databricks-cli, or leave it out for both in turn"));
            }
        };
        self.note(section, "auth", auth, String::clone);
        Ok(method)
    }

    fn profile(&mut self, named: Option<&Sourced<String>>) -> Result<Option<Profile>, ConfigError> {
        let Some(path) = self.environment.databricks_config_file() else { return Ok(None) };
        Profile::read(&path, named.map(|name| name.value.as_str()))
    }
}
