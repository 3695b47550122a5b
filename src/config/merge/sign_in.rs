//! Which way to sign in the settings mean: the one that is named, else the first of which something is set, in the vendor's order.
//!
//! What is set decides alone. Where it does not work, no other identity takes its place, except that of the vendor's CLI after a client
//! with a secret, as it always was.

use std::collections::{BTreeMap, BTreeSet};

use super::Merge;
use super::identity::{Chosen, SourceKind, WorkspaceSource};
use crate::config::fault::ConfigError;
use crate::config::origin::{Origin, Sourced};
use crate::config::paths::Access;
use crate::config::unified::{Family, Key, SETTINGS, name_of, row_of, switch, text};
use crate::model::{
    AuthMethod, AuthType, Client, Cloud, Federation, Means, SecretSource, SubjectSource, is_google_account,
};

/// The variable that holds a token where no other one is named (databricks-sdk-go, config/auth_oidc.go).
pub(super) const OIDC_TOKEN: &str = "DATABRICKS_OIDC_TOKEN";

/// What a workflow of GitHub has (GitHub, "OpenID Connect reference").
const GITHUB: [&str; 2] = ["ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"];

/// What a pipeline of Azure DevOps has, where it hands on its own token.
const AZURE_DEVOPS: [&str; 6] = [
    "SYSTEM_ACCESSTOKEN",
    "SYSTEM_TEAMFOUNDATIONCOLLECTIONURI",
    "SYSTEM_TEAMPROJECTID",
    "SYSTEM_PLANID",
    "SYSTEM_JOBID",
    "SYSTEM_HOSTTYPE",
];

/// Words of the vendor's for methods that are not here, and why.
const OTHERS: [(&str, &str); 5] = [
    ("basic", "a user's password signs in nowhere any more"),
    ("external-browser", "nobody sits in front of a service"),
    (
        "github-oidc-azure",
        "GitHub's token is exchanged at Microsoft's sign-in, which is not done here: use github-oidc",
    ),
    ("runtime", "it is for notebooks"),
    ("model-serving", "it is for served models"),
];

/// One workspace, as far as it is settled.
pub(super) struct Whose<'w> {
    pub(super) section: &'w str,
    pub(super) name: &'w str,
    pub(super) ambient: bool,
    pub(super) cloud: Cloud,
    pub(super) host: &'w str,
}

impl Merge<'_> {
    /// Leaves the settings of one way to sign in, as the vendor's SDKs have it. The configuration file decides against all other sources,
    /// which may be there for other programs.
    pub(super) fn one_family(&mut self, chosen: &mut Chosen, sources: &[WorkspaceSource]) -> Result<(), ConfigError> {
        let mut families: BTreeMap<Family, Vec<(&'static str, Origin)>> = BTreeMap::new();
        let mut note = |key: Key, origin: &Origin| {
            if let Some(family) = row_of(key).and_then(|row| row.family) {
                families.entry(family).or_default().push((name_of(key), origin.clone()));
            }
        };
        chosen.client_id.iter().for_each(|id| note(Key::ClientId, &id.origin));
        chosen.secret.iter().for_each(|secret| note(Key::ClientSecret, &secret.origin));
        chosen.more.iter().for_each(|(key, value)| note(*key, &value.origin));
        if chosen.auth.is_some() || families.len() < 2 {
            return Ok(());
        }
        let in_file = |origin: &Origin| matches!(origin, Origin::File(..));
        let of_file: Vec<Family> = families
            .iter()
            .filter(|(_, all)| all.iter().any(|(_, origin)| in_file(origin)))
            .map(|(family, _)| *family)
            .collect();
        let table_has_a_client = sources
            .iter()
            .any(|said| said.kind == SourceKind::Table && (said.client_id.is_some() || said.secret.is_some()));
        let wanted = match of_file[..] {
            [one] => Some(one),
            [] if table_has_a_client => Some(Family::Oauth),
            _ => None,
        };
        let shown = |all: &[(&str, Origin)]| {
            all.iter().map(|(name, origin)| format!("{name}, {origin}")).collect::<Vec<_>>().join("; ")
        };
        let Some(wanted) = wanted else {
            let all: Vec<String> =
                families.iter().map(|(family, all)| format!("{} ({})", family.word(), shown(all))).collect();
            let message = format!("more than one way to sign in is configured: {}", all.join(" and "));
            return Err(ConfigError::new(message)
                .hint("say which one is meant: auth = \"...\" under [[workspace]], DATABRICKS_AUTH_TYPE, or auth_type in the profile"));
        };
        for (family, all) in families.iter().filter(|(family, _)| **family != wanted) {
            self.notes.push(format!("ignored: {}: the configuration file says how to sign in", shown(all)));
            let is_of = |key: Key| row_of(key).is_some_and(|row| row.family == Some(*family));
            chosen.more.retain(|key, _| !is_of(*key));
            if *family == Family::Oauth {
                (chosen.client_id, chosen.secret) = (None, None);
            }
        }
        Ok(())
    }

    /// The method that a setting pins.
    pub(super) fn auth_type(&self, auth: &Sourced<String>) -> Result<AuthType, ConfigError> {
        if let Some(method) = AuthMethod::of_word(&auth.value) {
            return Ok(AuthType::Only(method));
        }
        let words: Vec<&str> = AuthMethod::ALL.into_iter().map(AuthMethod::word).collect();
        let known = format!("use one of {}; or leave it out", words.join(", "));
        let why = match OTHERS.iter().find(|(word, _)| *word == auth.value) {
            Some((word, why)) => format!("{word} is no way to sign in here: {why}"),
            None => format!("`{}` is not a sign-in method known here", auth.value),
        };
        Err(self.fault(&auth.origin, why).hint(known))
    }

    /// What signs in, unless that is a client with a secret or the vendor's CLI.
    pub(super) fn means(
        &mut self,
        of: &Whose<'_>,
        auth: AuthType,
        chosen: &Chosen,
    ) -> Result<Option<Means>, ConfigError> {
        let method = match auth {
            AuthType::Only(AuthMethod::OauthM2m | AuthMethod::DatabricksCli | AuthMethod::ExternalBrowser) => {
                return Ok(None);
            }
            AuthType::Only(method) => method,
            AuthType::Chain => match self.first_that_is_set(of, chosen)? {
                Some(method) => method,
                None => return Ok(None),
            },
        };
        self.refuse_a_group_without_tokens(method, chosen)?;
        let means = self.means_of(method, of, chosen)?;
        if means.is_some() && auth == AuthType::Chain {
            let word = Sourced::new(method.word().to_owned(), Origin::Default);
            self.note(of.section, "auth", word, String::clone);
        }
        Ok(means)
    }

    /// A group's id is a number (databricks-sdk-go, `group_id`).
    pub(super) fn refuse_what_is_no_group(&self, chosen: &Chosen) -> Result<(), ConfigError> {
        let Some(id) = chosen.more.get(&Key::GroupId).and_then(text) else { return Ok(()) };
        let is_id = (1..=32).contains(&id.value.len()) && id.value.bytes().all(|byte| byte.is_ascii_digit());
        if is_id {
            return Ok(());
        }
        let why = format!("`{}` is not the id of a group", id.value);
        Err(self.fault(&id.origin, why).hint("it is a number: see the group's page in the workspace's settings"))
    }

    /// Roles are for tokens that the workspace issues (databricks-sdk-go, `GroupID`).
    pub(super) fn refuse_a_group_without_tokens(&self, method: AuthMethod, chosen: &Chosen) -> Result<(), ConfigError> {
        match chosen.more.get(&Key::GroupId) {
            Some(group) if !method.can_assume_a_group() => {
                let why = format!("{} cannot sign in with the rights of a group (group_id)", method.word());
                Err(self.fault(&group.origin, why).hint(
                    "sign in as a service principal (oauth-m2m) or by federation (file-oidc, env-oidc, github-oidc, azure-devops-oidc)",
                ))
            }
            _ => Ok(()),
        }
    }

    /// The method of which something is set, best first; none where that is a client with a secret, or where nothing is set.
    fn first_that_is_set(&self, of: &Whose<'_>, chosen: &Chosen) -> Result<Option<AuthMethod>, ConfigError> {
        if let (Some(user), Some(_)) = (chosen.more.get(&Key::Username), chosen.more.get(&Key::Password)) {
            return self.auth_type(&Sourced::new("basic".to_owned(), user.origin.clone())).map(|_| None);
        }
        let has_group = chosen.more.contains_key(&Key::GroupId);
        for method in AuthMethod::ALL.into_iter().filter(|method| !has_group || method.can_assume_a_group()) {
            if self.is_set(method, of, chosen)? {
                return Ok((method != AuthMethod::OauthM2m).then_some(method));
            }
        }
        Ok(None)
    }

    fn is_set(&self, method: AuthMethod, of: &Whose<'_>, chosen: &Chosen) -> Result<bool, ConfigError> {
        let has = |key: Key| chosen.more.contains_key(&key);
        let all = |names: &[&str]| of.ambient && names.iter().all(|name| self.has_variable(name));
        let is_azure = of.cloud.at_azure().is_some();
        Ok(match method {
            AuthMethod::Pat => has(Key::Token),
            AuthMethod::MetadataService => has(Key::MetadataServiceUrl),
            AuthMethod::OauthM2m => chosen.client_id.is_some() && chosen.secret.is_some(),
            AuthMethod::EnvOidc => has(Key::OidcTokenEnv) || has(Key::OidcToken),
            AuthMethod::FileOidc => has(Key::OidcTokenFile),
            AuthMethod::GithubOidc => chosen.client_id.is_some() && all(&GITHUB),
            AuthMethod::AzureDevopsOidc => chosen.client_id.is_some() && all(&AZURE_DEVOPS),
            AuthMethod::AzureMsi => is_azure && self.switched(Key::AzureUseMsi, chosen)?,
            AuthMethod::AzureClientSecret => is_azure && has(Key::AzureClientId) && has(Key::AzureClientSecret),
            AuthMethod::GoogleCredentials => has(Key::GoogleCredentials),
            AuthMethod::GoogleId => has(Key::GoogleServiceAccount),
            // Whether there is such a login is seen when it is needed.
            AuthMethod::ExternalBrowser | AuthMethod::DatabricksCli | AuthMethod::AzureCli => false,
        })
    }

    fn has_variable(&self, name: &str) -> bool {
        self.environment.get(name).is_some() || self.environment.secret(name).is_some()
    }

    fn switched(&self, key: Key, chosen: &Chosen) -> Result<bool, ConfigError> {
        let Some(value) = chosen.more.get(&key).and_then(text) else { return Ok(false) };
        switch(&value.value).map_err(|why| self.fault(&value.origin, format!("{}: {why}", name_of(key))))
    }

    fn means_of(&mut self, method: AuthMethod, of: &Whose<'_>, chosen: &Chosen) -> Result<Option<Means>, ConfigError> {
        if matches!(method, AuthMethod::AzureMsi | AuthMethod::AzureClientSecret | AuthMethod::AzureCli)
            && of.cloud.at_azure().is_none()
        {
            let why = format!("{} signs in at Azure, and {} is not there", method.word(), of.host);
            return Err(ConfigError::new(why).hint(
                "use the workspace's own address (https://adb-....azuredatabricks.net), or say where it is: azure_workspace_resource_id",
            ));
        }
        Ok(match method {
            AuthMethod::Pat => self.secret_of(of, Key::Token, "token_file", chosen)?.map(Means::Pat),
            AuthMethod::MetadataService => self
                .secret_of(of, Key::MetadataServiceUrl, "metadata_service_url", chosen)?
                .filter(|url| url.text().is_some())
                .map(Means::MetadataService),
            AuthMethod::EnvOidc => self.federation(of, self.variable_with_a_token(chosen), chosen)?,
            AuthMethod::FileOidc => {
                let file = self.token_file(of, chosen)?;
                self.federation(of, file.map(SubjectSource::File), chosen)?
            }
            AuthMethod::GithubOidc => self.in_a_pipeline(of, SubjectSource::Github, &GITHUB, chosen)?,
            AuthMethod::AzureDevopsOidc => self.in_a_pipeline(of, SubjectSource::AzureDevops, &AZURE_DEVOPS, chosen)?,
            AuthMethod::AzureMsi => {
                self.said(of, Key::AzureUseMsi, chosen);
                Some(Means::AzureMsi { client_id: self.said(of, Key::AzureClientId, chosen) })
            }
            AuthMethod::AzureClientSecret => self.azure_client(of, chosen)?,
            AuthMethod::AzureCli => Some(Means::AzureCli { tenant: self.said(of, Key::AzureTenantId, chosen) }),
            AuthMethod::GoogleCredentials => self
                .secret_of(of, Key::GoogleCredentials, "google_credentials_file", chosen)?
                .map(Means::GoogleCredentials),
            AuthMethod::GoogleId => self.google_account(of, chosen)?,
            AuthMethod::OauthM2m | AuthMethod::ExternalBrowser | AuthMethod::DatabricksCli => None,
        })
    }

    /// The variable that holds the token of another issuer.
    fn variable_with_a_token(&self, chosen: &Chosen) -> Option<SubjectSource> {
        let named = chosen.more.get(&Key::OidcTokenEnv).and_then(text).map(|name| name.value);
        let usual = chosen.more.contains_key(&Key::OidcToken) || chosen.asks_for_a_variable();
        named.or_else(|| usual.then(|| OIDC_TOKEN.to_owned())).map(SubjectSource::Variable)
    }

    fn token_file(&mut self, of: &Whose<'_>, chosen: &Chosen) -> Result<Option<std::path::PathBuf>, ConfigError> {
        let Some(path) = chosen.more.get(&Key::OidcTokenFile).and_then(text) else {
            self.lacks_setting(of, Key::OidcTokenFile, None);
            return Ok(None);
        };
        let path =
            if matches!(path.origin, Origin::File(..)) { self.path_in_file(path)? } else { self.expanded(path)? };
        Ok(Some(self.note_file(of.section, "oidc_token_filepath", path, Access::Reads)))
    }

    fn federation(
        &mut self,
        of: &Whose<'_>,
        subject: Option<SubjectSource>,
        chosen: &Chosen,
    ) -> Result<Option<Means>, ConfigError> {
        let Some(subject) = subject else {
            if self.missing.is_empty() {
                self.lacks_setting(of, Key::OidcToken, None);
            }
            return Ok(None);
        };
        if let SubjectSource::Variable(name) = &subject {
            let origin = chosen.more.get(&Key::OidcTokenEnv).map_or(Origin::Default, |named| named.origin.clone());
            self.hidden.insert(name.clone());
            self.note(of.section, "oidc_token_env", Sourced::new(name.clone(), origin), String::clone);
        }
        let client_id = chosen.client_id.clone().map(|id| self.bare_id(id)).transpose()?;
        let client_id = client_id.map(|id| self.note(of.section, "client_id", id, String::clone));
        let audience = self.said(of, Key::Audience, chosen);
        Ok(Some(Means::Federation(Federation { client_id, audience, subject })))
    }

    fn in_a_pipeline(
        &mut self,
        of: &Whose<'_>,
        subject: SubjectSource,
        variables: &[&str],
        chosen: &Chosen,
    ) -> Result<Option<Means>, ConfigError> {
        if let Some(missing) = variables.iter().find(|name| !self.has_variable(name)) {
            let (what, hint) = match subject {
                SubjectSource::Github => {
                    ("a workflow of GitHub", "run it as a step of a workflow, with `permissions: id-token: write`")
                }
                _ => (
                    "a pipeline of Azure DevOps",
                    "run it as a step of a pipeline, with `env: SYSTEM_ACCESSTOKEN: $(System.AccessToken)`",
                ),
            };
            let why = format!("{} signs in within {what}, and ${missing} is not set", subject.method().word());
            return Err(ConfigError::new(why).hint(hint));
        }
        if chosen.client_id.is_none() {
            self.lacks_setting(of, Key::ClientId, None);
            return Ok(None);
        }
        self.federation(of, Some(subject), chosen)
    }

    fn azure_client(&mut self, of: &Whose<'_>, chosen: &Chosen) -> Result<Option<Means>, ConfigError> {
        let id = self.needed(of, Key::AzureClientId, chosen);
        let secret = self.secret_of(of, Key::AzureClientSecret, "azure_client_secret_file", chosen)?;
        let tenant = self.said(of, Key::AzureTenantId, chosen);
        Ok(id.zip(secret).map(|(id, secret)| Means::AzureClientSecret { client: Client { id, secret }, tenant }))
    }

    fn google_account(&mut self, of: &Whose<'_>, chosen: &Chosen) -> Result<Option<Means>, ConfigError> {
        if let Some(account) = chosen.more.get(&Key::GoogleServiceAccount).and_then(text)
            && !is_google_account(&account.value)
        {
            let why = format!("`{}` is not the name of a service account", account.value);
            return Err(self.fault(&account.origin, why).hint("it looks like NAME@PROJECT.iam.gserviceaccount.com"));
        }
        Ok(self.needed(of, Key::GoogleServiceAccount, chosen).map(|account| Means::GoogleId { account }))
    }

    /// A setting that is no secret, noted.
    pub(super) fn said(&mut self, of: &Whose<'_>, key: Key, chosen: &Chosen) -> Option<String> {
        let value = chosen.more.get(&key).and_then(text)?;
        Some(self.note(of.section, name_of(key), value, String::clone))
    }

    fn needed(&mut self, of: &Whose<'_>, key: Key, chosen: &Chosen) -> Option<String> {
        let said = self.said(of, key, chosen);
        if said.is_none() {
            self.lacks_setting(of, key, None);
        }
        said
    }

    /// A secret, or the file that it is in, noted without its value.
    fn secret_of(
        &mut self,
        of: &Whose<'_>,
        key: Key,
        in_file: &'static str,
        chosen: &Chosen,
    ) -> Result<Option<SecretSource>, ConfigError> {
        let Some(value) = chosen.more.get(&key).cloned() else {
            self.lacks_setting(of, key, Some(in_file));
            return Ok(None);
        };
        Ok(Some(match value.value {
            SecretSource::File(path) => {
                SecretSource::File(self.note_file(of.section, in_file, Sourced::new(path, value.origin), Access::Reads))
            }
            secret => self.note(of.section, name_of(key), Sourced::new(secret, value.origin), |_| "(set)".to_owned()),
        }))
    }

    /// Notes that a setting of this method is missing, and where it could be given.
    fn lacks_setting(&mut self, of: &Whose<'_>, key: Key, in_file: Option<&str>) {
        let Some(row) = SETTINGS.iter().find(|row| row.key == key) else { return };
        let whose = if of.ambient { String::new() } else { format!(" of workspace {}", of.name) };
        let what = if row.names.is_empty() { row.variables.first() } else { row.names.first() };
        self.missing.push(format!("{}{whose} is not set: give it by one of:", what.copied().unwrap_or_default()));
        let file = self.file_to_change();
        let variables = row.variables.iter().filter(|_| of.ambient).map(|name| format!("${name}"));
        let own = in_file.or(row.names.first().copied());
        let own = own.map(|name| format!("`{name}` in [[workspace]] of {file}"));
        let profile = row.names.first().map(|name| format!("`{name}` in a profile of ~/.databrickscfg"));
        let places: BTreeSet<String> = variables.chain(own).chain(profile).collect();
        self.missing.extend(places.into_iter().map(|place| format!("    {place}")));
    }
}
