//! The workspaces: host, sign-in method, client and profile.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_spanned::Spanned;

use super::identity::{Chosen, SourceKind, WorkspaceSource, choose};
use super::sign_in::Whose;
use super::{DEFAULT_NAME, Merge, Places};
use crate::config::fault::ConfigError;
use crate::config::file::WorkspaceTable;
use crate::config::origin::{Origin, Sourced};
use crate::config::paths::Access;
use crate::config::profile::Profile;
use crate::config::secret::{bare, credential_source, is_filled, keep_if_no_path};
use crate::config::unified::{Key, Row, SETTINGS, row_of, text};
use crate::foreign::{could_be_secret, secrets};
use crate::model::{AuthMethod, AuthType, Client, Cloud, OWN_ADDRESS, SecretSource, Workspace, WorkspaceHost};
use crate::os::dirs::SYSTEM_DIRECTORY;

const ARGV_IS_PUBLIC: &str = "--client-secret can be read by everyone on this machine while the program runs: \
    use --client-secret-file or DATABRICKS_CLIENT_SECRET";

/// The settings in effect for one workspace, before validation.
struct Draft {
    chosen: Chosen,
    cli_path: Option<Sourced<String>>,
    ca_file: Option<Sourced<String>>,
    /// The profile that was given by name and is in use.
    named: Option<Sourced<String>>,
    /// The profile, if it is for the host in use.
    profile: Option<Profile>,
}

/// A profile as a source like the others.
fn said_by(profile: &Profile) -> WorkspaceSource {
    let mut said = WorkspaceSource::nothing(SourceKind::Profile);
    let file = Arc::<Path>::from(profile.file.as_path());
    for row in &SETTINGS {
        let Some((value, line)) = row.names.iter().find_map(|name| profile.secret(name)) else { continue };
        let origin = Origin::Profile(profile.name.clone(), Arc::clone(&file), line);
        let value = held(row, value);
        said.say(row.key, Sourced::new(if row.is_secret { value.in_profile(&profile.file) } else { value }, origin));
    }
    said
}

/// A setting's value, as it is kept: a key of Google's may be given by its file, too.
fn held(row: &Row, value: &SecretString) -> SecretSource {
    let is_path = row.key == Key::GoogleCredentials && !value.expose_secret().contains(['{', '\n']);
    if is_path {
        keep_if_no_path(Path::new(value.expose_secret()));
        SecretSource::File(value.expose_secret().into())
    } else if row.key == Key::GoogleCredentials {
        google_key(value)
    } else if row.is_secret {
        SecretSource::given(value.clone())
    } else {
        SecretSource::Given(value.clone())
    }
}

/// A key of Google's in full: what is secret of it is the private key, and not the account's name, which becomes a user of PostgreSQL.
fn google_key(value: &SecretString) -> SecretSource {
    #[derive(Deserialize)]
    struct Key {
        private_key: SecretString,
    }
    match serde_json::from_str::<Key>(value.expose_secret()) {
        Ok(key) => {
            secrets::keep(&key.private_key);
            SecretSource::Given(value.clone())
        }
        Err(_) => SecretSource::given(value.clone()),
    }
}

/// Whether a table has a client, and says nothing of where its secret is.
fn lacks_secret(table: &WorkspaceTable) -> bool {
    table.client_id.is_some() && table.client_secret_file.is_none() && table.client_secret_keychain.is_none()
}

impl Merge<'_> {
    pub(super) fn workspaces(&mut self) -> Result<Vec<Option<Workspace>>, ConfigError> {
        let tables = self.workspace_tables()?;
        let ambient = tables.len() <= 1;
        if !ambient {
            self.only_for_one(tables.len(), "workspaces", self.overrides.workspace_flag())?;
            self.note_unused(
                &["DATABRICKS_HOST", "DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET"],
                tables.len(),
                "workspaces",
            );
        }
        if tables.is_empty() {
            self.source = self.files.first();
            return Ok(vec![self.workspace(DEFAULT_NAME.to_owned(), None, true)?]);
        }
        // Whose it is must not depend on what somebody adds.
        let mut lacking =
            tables.iter().filter(|(source, _, table)| !source.is_fragment && lacks_secret(table.get_ref()));
        self.handed_over_to = lacking.next().filter(|_| lacking.next().is_none()).map(|(_, name, _)| name.clone());
        let mut all = Vec::new();
        for (source, name, table) in tables {
            self.source = Some(source);
            self.note_fragment(&format!("workspace \"{name}\""), source, table);
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
        let draft = self.draft(&name, table, ambient)?;
        self.settle(name, draft, ambient)
    }

    /// Combines flags, environment, file and profile. Flags and environment count only if `ambient`: they are meant for a
    /// single workspace.
    fn draft(&mut self, name: &str, table: &WorkspaceTable, ambient: bool) -> Result<Draft, ConfigError> {
        let mut sources = self.sources(table, ambient)?;
        let may_be_unnamed = ambient || self.handed_over_to.as_deref() == Some(name);
        let handed_over = self.credential(name, may_be_unnamed);
        if lacks_secret(table) && handed_over.is_none() && self.credential(name, true).is_some() {
            self.aside.push(format!(
                "the credential client-secret could belong to several workspaces, and is not used for this one: call it client-secret.{name}"
            ));
        }
        let mut named = None;
        let profiles = [
            self.overrides.profile.clone().filter(|_| ambient).map(|p| Sourced::new(p, Origin::Flag("--profile"))),
            ambient.then(|| self.variable("DATABRICKS_CONFIG_PROFILE")).flatten(),
            table.profile.as_ref().and_then(|profile| self.written(profile)),
        ];
        for (said, profile) in sources.iter_mut().zip(profiles) {
            said.named_profile = named.is_none() && profile.is_some();
            named = named.or(profile);
        }
        let mut chosen = choose(sources.clone(), handed_over.clone());
        let is_complete = chosen.as_ref().is_ok_and(Chosen::is_complete);
        // Unified authentication: without a named profile, the profile file is skipped if anything is set elsewhere.
        let nothing_set = handed_over.is_none() && !sources.iter().any(WorkspaceSource::says_something);
        let mut profile = None;
        match &named {
            Some(named) if is_complete => {
                let why = "host, client id and secret are set without it";
                let said = format!("profile {} ({}) is not read: {why}", named.value, named.origin);
                // People expect a flag to have an effect.
                let is_typed = matches!(named.origin, Origin::Flag(_));
                if is_typed { &mut self.warnings } else { &mut self.notes }.push(said);
            }
            Some(_) => profile = self.profile(named.as_ref(), chosen.as_ref().ok())?,
            None if nothing_set => profile = self.profile(None, None)?,
            None => {}
        }
        if let Some(profile) = &profile {
            sources.push(said_by(profile));
            chosen = choose(sources.clone(), handed_over);
        }
        let mut chosen = chosen?;
        self.one_family(&mut chosen, &sources)?;
        self.warnings.extend(chosen.aside.iter().cloned());
        self.aside.append(&mut chosen.aside);
        let profile = profile.filter(|_| chosen.profile_is_used);
        let written = |value: &Option<Spanned<String>>| value.as_ref().and_then(|value| self.written(value));
        let given_ca_file = self.overrides.ca_file.as_ref().filter(|_| ambient);
        let given_ca_file = given_ca_file.map(|path| Sourced::new(path.display().to_string(), Origin::Flag("ca_file")));
        let of_profile = || profile.as_ref().and_then(|profile| profile.sourced("databricks_cli_path"));
        Ok(Draft {
            // The program's path does not depend on the workspace.
            cli_path: self.variable("DATABRICKS_CLI_PATH").or_else(|| written(&table.cli_path)).or_else(of_profile),
            ca_file: given_ca_file.or_else(|| written(&table.ca_file)),
            named: named.filter(|_| profile.is_some()),
            chosen,
            profile,
        })
    }

    /// Flags, environment and table, best first.
    fn sources(&self, table: &WorkspaceTable, ambient: bool) -> Result<Vec<WorkspaceSource>, ConfigError> {
        let given = |value: &Option<String>, flag| {
            value.clone().filter(|_| ambient).map(|v| Sourced::new(v, Origin::Flag(flag)))
        };
        let written = |value: &Option<Spanned<String>>| value.as_ref().and_then(|value| self.written(value));
        let flags = WorkspaceSource {
            host: given(&self.overrides.workspace_url, "--workspace-url"),
            client_id: given(&self.overrides.client_id, "--client-id"),
            secret: self.secret_flag().filter(|_| ambient),
            ..WorkspaceSource::nothing(SourceKind::Flags)
        };
        let mut in_file = WorkspaceSource {
            host: written(&table.host),
            client_id: written(&table.client_id),
            secret: self.secret_in(table)?,
            auth: written(&table.auth),
            workspace_id: written(&table.workspace_id),
            account_id: written(&table.account_id),
            ..WorkspaceSource::nothing(SourceKind::Table)
        };
        for (key, value) in table.of_methods() {
            let value = value.as_ref().and_then(|value| self.written(value));
            let Some((row, value)) = row_of(key).zip(value) else { continue };
            in_file.more.insert(key, value.map(|text| held(row, &text.into())));
        }
        let msi = table.azure_use_msi.as_ref().and_then(|switch| self.written(switch));
        let msi = msi.map(|switch| switch.map(|switch| SecretSource::Given(switch.to_string().into())));
        in_file.more.extend(msi.map(|switch| (Key::AzureUseMsi, switch)));
        for (key, path) in table.secret_files() {
            let Some(path) = path.as_ref().and_then(|path| self.written(path)) else { continue };
            in_file.more.insert(key, self.path_in_file(path)?.map(SecretSource::File));
        }
        Ok(vec![flags, self.said_by_environment(ambient), in_file])
    }

    fn said_by_environment(&self, ambient: bool) -> WorkspaceSource {
        let mut said = WorkspaceSource::nothing(SourceKind::Environment);
        for row in SETTINGS.iter().filter(|_| ambient) {
            let value = |name: &&'static str| {
                let secret = self.environment.secret(name).cloned();
                let value = secret.or_else(|| self.environment.get(name).map(SecretString::from))?;
                Some(Sourced::new(held(row, &value), Origin::Environment(name)))
            };
            if let Some(value) = row.variables.iter().find_map(value) {
                said.say(row.key, value);
            }
        }
        said
    }

    /// Validates a draft; none if something is missing.
    fn settle(
        &mut self,
        name: String,
        Draft { chosen, cli_path, ca_file, named, profile }: Draft,
        ambient: bool,
    ) -> Result<Option<Workspace>, ConfigError> {
        let section = format!("workspace \"{name}\"");
        let Some(host) = chosen.host.clone() else {
            let places = Places::of_workspace(("--workspace-url URL", "DATABRICKS_HOST"), "host", "host", ambient);
            self.lacks(("the workspace's address", &name), places);
            return Ok(None);
        };
        let parsed = WorkspaceHost::parse(&host.value).map_err(|why| self.fault(&host.origin, why))?;
        if let Some(why) = parsed.is_no_workspace() {
            return Err(self.fault(&host.origin, why).hint(OWN_ADDRESS));
        }
        self.note(&section, "host", host, |_| parsed.origin().to_owned());
        let cloud = self.cloud(&parsed, &chosen)?;
        let auth = chosen.auth.as_ref().map(|auth| self.auth_type(auth)).transpose()?.unwrap_or(AuthType::Chain);
        let of = Whose { section: &section, name: &name, ambient, cloud, host: parsed.origin() };
        self.refuse_what_is_no_group(&chosen)?;
        let means = self.means(&of, auth, &chosen)?;
        if let AuthType::Only(method) = auth {
            self.refuse_a_group_without_tokens(method, &chosen)?;
        }
        let [group_id, scopes, azure_resource_id] =
            [Key::GroupId, Key::Scopes, Key::AzureResourceId].map(|key| self.said(&of, key, &chosen));
        if cloud.at_azure().is_some() {
            self.said(&of, Key::AzureEnvironment, &chosen);
        }
        match chosen.auth.clone() {
            Some(auth) => drop(self.note(&section, "auth", auth, String::clone)),
            None if means.is_some() => {}
            None => {
                let chain = "oauth-m2m where a client is set, then external-browser or databricks-cli".to_owned();
                self.note(&section, "auth", Sourced::new(chain, Origin::Default), String::clone);
            }
        }
        let client = match means {
            Some(_) => None,
            None => {
                let client_id = chosen.client_id.clone().map(|id| self.bare_id(id)).transpose()?;
                self.client((&section, &name), auth, (client_id, chosen.secret.clone()), ambient)
            }
        };
        if let Some(named) = named {
            self.note(&section, "profile", named, String::clone);
        }
        let cli_path = cli_path.map(|path| self.expanded(path)).transpose()?.map(|path| {
            if path.value.is_absolute() {
                self.use_file(&section, "cli_path", &path, Access::Reads);
            }
            self.note(&section, "cli_path", path, |path| path.display().to_string())
        });
        let ca_file = ca_file.map(|path| self.path_in_file(path)).transpose()?;
        let ca_file = ca_file.map(|path| self.note_file(&section, "ca_file", path, Access::Reads));
        // Only the host's own: the CLI refuses a profile together with another profile's host.
        let profile = profile.map(|profile| profile.name);
        // The CLI writes `none` into profiles without a workspace.
        let is_id = |id: &Sourced<String>| id.value.bytes().all(|byte| byte.is_ascii_digit());
        let told = chosen.workspace_id.filter(is_id).map(|id| self.note(&section, "workspace_id", id, String::clone));
        let workspace_id = parsed.workspace_id().map(str::to_owned).or(told);
        let told = chosen.account_id.map(|id| self.note(&section, "account_id", id, String::clone));
        let account_id = parsed.account_id().map(str::to_owned).or(told);
        let proxies = self.proxies.clone();
        Ok(Some(Workspace {
            name,
            host: parsed,
            workspace_id,
            account_id,
            auth,
            client,
            means,
            group_id,
            scopes: scopes.map(|scopes| sorted_scopes(&scopes)),
            azure_resource_id,
            cloud,
            profile,
            cli_path,
            ca_file,
            proxies,
        }))
    }

    /// In which cloud the workspace is, as far as that matters for a sign-in.
    fn cloud(&self, host: &WorkspaceHost, chosen: &Chosen) -> Result<Cloud, ConfigError> {
        let said = |key: Key| chosen.more.get(&key).and_then(text);
        let named = said(Key::Cloud).map(|cloud| cloud.value.to_ascii_uppercase());
        let is_azure = match named.as_deref() {
            Some("AZURE") => true,
            Some("AWS" | "GCP") => false,
            _ => said(Key::AzureResourceId).is_some(),
        };
        let environment = said(Key::AzureEnvironment);
        let name = environment.as_ref().map(|one| one.value.as_str());
        Cloud::of(host.name(), is_azure, name).ok_or_else(|| {
            let (why, origin) = ("is no cloud of Azure", environment.as_ref().map(|one| &one.origin));
            self.fault(origin.unwrap_or(&Origin::Default), format!("`{}` {why}", name.unwrap_or_default()))
                .hint("write PUBLIC, USGOVERNMENT or CHINA")
        })
    }

    pub(super) fn bare_id(&self, id: Sourced<String>) -> Result<Sourced<String>, ConfigError> {
        let fault = |why: String| self.fault(&id.origin, format!("the client id {why}"));
        let text = bare(&id.value).map_err(fault)?.to_owned();
        if text.is_empty() || text.contains(' ') {
            return Err(fault(if text.is_empty() { "is empty" } else { "holds a blank" }.to_owned()));
        }
        Ok(id.map(|_| text))
    }

    fn secret_flag(&self) -> Option<Sourced<SecretSource>> {
        let given = self.overrides.client_secret.clone().map(SecretSource::given).map(|s| (s, "--client-secret"));
        let file =
            || self.overrides.client_secret_file.clone().map(SecretSource::File).map(|s| (s, "--client-secret-file"));
        given.or_else(file).map(|(secret, flag)| Sourced::new(secret, Origin::Flag(flag)))
    }

    fn secret_in(&self, table: &WorkspaceTable) -> Result<Option<Sourced<SecretSource>>, ConfigError> {
        let item = || Some(self.written(table.client_secret_keychain.as_ref()?)?.map(SecretSource::Keychain));
        let path = table.client_secret_file.as_ref().and_then(|path| self.written(path));
        let path = path.map(|path| self.path_in_file(path)).transpose()?;
        Ok(path.map(|path| path.map(SecretSource::File)).or_else(item))
    }

    /// The credential that systemd hands over. One without a name belongs to the only workspace, or to the only one of config.toml
    /// that has a client and no place for its secret.
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

    /// The secret's source file of the machine's units, for a person who reads their configuration outside the unit.
    fn credential_of_the_system(&self) -> Option<PathBuf> {
        let config = &self.place?.file;
        let is_theirs = config.parent() == Some(Path::new(SYSTEM_DIRECTORY));
        is_theirs.then(|| credential_source(&config.with_extension("client-secret"))).flatten()
    }

    fn client(
        &mut self,
        (section, name): (&str, &str),
        auth: AuthType,
        (id, secret): (Option<Sourced<String>>, Option<Sourced<SecretSource>>),
        ambient: bool,
    ) -> Option<Client> {
        match (id, secret) {
            _ if !matches!(auth, AuthType::Chain | AuthType::Only(AuthMethod::OauthM2m)) => None,
            (None, None) if auth == AuthType::Chain => None,
            (Some(id), Some(secret)) => {
                if secret.origin == Origin::Flag("--client-secret") {
                    self.warnings.push(ARGV_IS_PUBLIC.to_owned());
                }
                let id = self.note(section, "client_id", id, String::clone);
                if let SecretSource::File(path) = &secret.value {
                    let path = Sourced::new(path.clone(), secret.origin.clone());
                    self.use_file(section, "client_secret_file", &path, Access::Reads);
                }
                let secret = self.note(section, secret.value.key(), secret, |secret| match secret {
                    SecretSource::Given(_) | SecretSource::InProfile(..) => "(set)".to_owned(),
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

    /// The profile with this name, else the default one. A profile that is only given by variable may be missing if a person
    /// can sign in at the configured host without it.
    fn profile(
        &mut self,
        named: Option<&Sourced<String>>,
        without: Option<&Chosen>,
    ) -> Result<Option<Profile>, ConfigError> {
        let Some(path) = self.environment.databricks_config_file() else { return Ok(None) };
        let read = Profile::read(&path, named.map(|name| name.value.as_str()));
        let by_host = without.is_some_and(|set| set.host.is_some() && set.client_id.is_none() && set.secret.is_none());
        match (read, named) {
            (Err(fault), Some(Sourced { value, origin: origin @ Origin::Environment(_) })) if by_host => {
                self.notes.push(format!("profile {value} ({origin}) is ignored: {}", fault.message()));
                Ok(None)
            }
            (read, _) => read,
        }
    }
}

/// As the vendor's SDKs send it: each once, in alphabetical order (databricks-sdk-py, `_parse_scopes`).
fn sorted_scopes(written: &str) -> String {
    let scopes: std::collections::BTreeSet<&str> =
        written.split([',', ' ']).filter(|scope| !scope.is_empty()).collect();
    scopes.into_iter().collect::<Vec<_>>().join(" ")
}
