//! Databricks' unified authentication: each of its settings once, with its variable, its key in a profile, and what it means.
//!
//! The rows follow databricks-sdk-py (config.py) and databricks-sdk-go (config/config.go). What reads variables and profiles goes
//! by this table, so that a setting means the same in both.

use std::collections::BTreeMap;

use secrecy::ExposeSecret;

use super::origin::Sourced;
use crate::model::SecretSource;

/// A setting of the vendor's that is used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Host,
    ClientId,
    ClientSecret,
    AuthType,
    WorkspaceId,
    AccountId,
    GroupId,
    Scopes,
    Token,
    Username,
    Password,
    MetadataServiceUrl,
    OidcTokenFile,
    OidcTokenEnv,
    OidcToken,
    Audience,
    AzureResourceId,
    AzureUseMsi,
    AzureClientId,
    AzureClientSecret,
    AzureTenantId,
    AzureEnvironment,
    Cloud,
    GoogleCredentials,
    GoogleServiceAccount,
}

/// Settings that belong to one way to sign in. The vendor's SDKs refuse settings of two, unless `auth_type` decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    Azure,
    Basic,
    EnvOidc,
    FileOidc,
    Google,
    MetadataService,
    Oauth,
    Pat,
}

impl Family {
    /// The word for it in the vendor's own message.
    pub(super) fn word(self) -> &'static str {
        match self {
            Family::Azure => "azure",
            Family::Basic => "basic",
            Family::EnvOidc => "env-oidc",
            Family::FileOidc => "file-oidc",
            Family::Google => "google",
            Family::MetadataService => "metadata-service",
            Family::Oauth => "oauth",
            Family::Pat => "pat",
        }
    }
}

/// One setting.
pub(super) struct Row {
    pub(super) key: Key,
    /// The names of its variable, best first.
    pub(super) variables: &'static [&'static str],
    /// Its keys in a profile, best first: the SDKs do not agree on all of them.
    pub(super) names: &'static [&'static str],
    pub(super) family: Option<Family>,
    pub(super) is_secret: bool,
}

impl Row {
    /// Its name in messages.
    pub(super) fn name(&self) -> &'static str {
        self.names.first().or(self.variables.first()).copied().unwrap_or_default()
    }
}

const fn row(
    key: Key,
    variables: &'static [&'static str],
    names: &'static [&'static str],
    family: Option<Family>,
) -> Row {
    Row { key, variables, names, family, is_secret: false }
}

const fn secret(
    key: Key,
    variables: &'static [&'static str],
    names: &'static [&'static str],
    family: Option<Family>,
) -> Row {
    Row { key, variables, names, family, is_secret: true }
}

/// All settings that have a meaning here. Its path says in which file profiles are, and its profile which of them is meant
/// (`DATABRICKS_CONFIG_FILE`, `DATABRICKS_CONFIG_PROFILE`, `DATABRICKS_CLI_PATH`); both are looked at elsewhere.
pub(super) const SETTINGS: [Row; 25] = [
    row(Key::Host, &["DATABRICKS_HOST"], &["host"], None),
    row(Key::AccountId, &["DATABRICKS_ACCOUNT_ID"], &["account_id"], None),
    row(Key::WorkspaceId, &["DATABRICKS_WORKSPACE_ID"], &["workspace_id"], None),
    row(Key::GroupId, &["DATABRICKS_GROUP_ID"], &["group_id"], None),
    row(Key::AuthType, &["DATABRICKS_AUTH_TYPE"], &["auth_type"], None),
    row(Key::Scopes, &[], &["scopes"], None),
    row(Key::Cloud, &["DATABRICKS_CLOUD"], &["cloud"], None),
    row(Key::ClientId, &["DATABRICKS_CLIENT_ID"], &["client_id"], Some(Family::Oauth)),
    secret(Key::ClientSecret, &["DATABRICKS_CLIENT_SECRET"], &["client_secret"], Some(Family::Oauth)),
    secret(Key::Token, &["DATABRICKS_TOKEN"], &["token"], Some(Family::Pat)),
    row(Key::Username, &["DATABRICKS_USERNAME"], &["username"], Some(Family::Basic)),
    secret(Key::Password, &["DATABRICKS_PASSWORD"], &["password"], Some(Family::Basic)),
    secret(
        Key::MetadataServiceUrl,
        &["DATABRICKS_METADATA_SERVICE_URL"],
        &["metadata_service_url"],
        Some(Family::MetadataService),
    ),
    row(
        Key::OidcTokenFile,
        &["DATABRICKS_OIDC_TOKEN_FILEPATH", "DATABRICKS_OIDC_TOKEN_FILE"],
        &["oidc_token_filepath", "databricks_id_token_filepath"],
        Some(Family::FileOidc),
    ),
    row(Key::OidcTokenEnv, &["DATABRICKS_OIDC_TOKEN_ENV"], &["oidc_token_env"], Some(Family::EnvOidc)),
    // No setting of theirs, but what the chain looks at.
    secret(Key::OidcToken, &["DATABRICKS_OIDC_TOKEN"], &[], None),
    row(Key::Audience, &["DATABRICKS_TOKEN_AUDIENCE"], &["token_audience", "audience"], None),
    row(Key::AzureResourceId, &["DATABRICKS_AZURE_RESOURCE_ID"], &["azure_workspace_resource_id"], Some(Family::Azure)),
    row(Key::AzureUseMsi, &["ARM_USE_MSI"], &["azure_use_msi"], Some(Family::Azure)),
    row(Key::AzureClientId, &["ARM_CLIENT_ID"], &["azure_client_id"], Some(Family::Azure)),
    secret(Key::AzureClientSecret, &["ARM_CLIENT_SECRET"], &["azure_client_secret"], Some(Family::Azure)),
    row(Key::AzureTenantId, &["ARM_TENANT_ID"], &["azure_tenant_id"], Some(Family::Azure)),
    row(Key::AzureEnvironment, &["ARM_ENVIRONMENT"], &["azure_environment"], None),
    secret(Key::GoogleCredentials, &["GOOGLE_CREDENTIALS"], &["google_credentials"], Some(Family::Google)),
    row(
        Key::GoogleServiceAccount,
        &["DATABRICKS_GOOGLE_SERVICE_ACCOUNT"],
        &["google_service_account"],
        Some(Family::Google),
    ),
];

/// Settings that have no meaning here, and why: about what is done with clusters, or with requests that this program does not make, or
/// because it has a setting of its own.
#[cfg_attr(not(test), allow(dead_code, reason = "said in the documentation, which a test compares"))]
pub(super) const WITHOUT_MEANING: [&str; 17] = [
    "DATABRICKS_CLUSTER_ID",
    "DATABRICKS_WAREHOUSE_ID",
    "DATABRICKS_SERVERLESS_COMPUTE_ID",
    "DATABRICKS_DEBUG_TRUNCATE_BYTES",
    "DATABRICKS_DEBUG_HEADERS",
    "DATABRICKS_RATE_LIMIT",
    "DATABRICKS_DISABLE_ASYNC_TOKEN_REFRESH",
    "DATABRICKS_DISABLE_EXPERIMENTAL_FILES_API_CLIENT",
    "DATABRICKS_DISABLE_OAUTH_REFRESH_TOKEN",
    "DATABRICKS_OAUTH_CALLBACK_PORT",
    "DATABRICKS_AZURE_LOGIN_APP_ID",
    "DATABRICKS_DISCOVERY_URL",
    "skip_verify",
    "http_timeout_seconds",
    "retry_timeout_seconds",
    "authorization_details",
    "max_connection_pools",
];

/// What a source says about the settings that the table of workspaces does not know by field. Any may be secret.
pub(super) type Said = BTreeMap<Key, Sourced<SecretSource>>;

/// The variables of all settings.
pub(crate) fn variables() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().flat_map(|row| row.variables).copied()
}

/// The row of a key.
pub(super) fn row_of(key: Key) -> Option<&'static Row> {
    SETTINGS.iter().find(|row| row.key == key)
}

/// Its name in messages.
pub(super) fn name_of(key: Key) -> &'static str {
    row_of(key).map_or("", Row::name)
}

/// The value of a setting that is no secret.
pub(super) fn text(value: &Sourced<SecretSource>) -> Option<Sourced<String>> {
    let SecretSource::Given(text) = &value.value else { return None };
    Some(Sourced::new(text.expose_secret().to_owned(), value.origin.clone()))
}

/// Whether a switch is on, as Go reads it (`strconv.ParseBool`).
///
/// # Errors
/// It is neither.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(format!("`{other}` is neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::os::dirs::Environment;

    #[test]
    fn each_setting_has_one_row_and_each_name_one_setting() {
        let keys: BTreeSet<Key> = SETTINGS.iter().map(|row| row.key).collect();
        assert_eq!(keys.len(), SETTINGS.len());
        let names = SETTINGS.iter().flat_map(|row| row.variables.iter().chain(row.names));
        let all: Vec<&&str> = names.chain(&WITHOUT_MEANING).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }

    #[test]
    fn a_variable_with_a_secret_is_never_among_the_others() {
        for row in SETTINGS.iter().filter(|row| row.is_secret) {
            for name in row.variables {
                let environment: Environment = [(*name, "s3cret-0000")].into_iter().collect();
                assert!(environment.secret(name).is_some() && environment.get(name).is_none(), "{name}");
            }
        }
        let named = [("DATABRICKS_OIDC_TOKEN_ENV", "MINE"), ("MINE", "s3cret-0000")];
        let environment: Environment = named.into_iter().collect();
        assert!(environment.secret("MINE").is_some() && environment.get("MINE").is_none());
    }

    #[test]
    fn the_page_about_signing_in_has_every_setting() {
        let page = include_str!("../../docs/signing-in.md");
        for name in SETTINGS.iter().flat_map(|row| row.variables.iter().chain(row.names)).chain(&WITHOUT_MEANING) {
            assert!(page.contains(&format!("`{name}`")), "{name}");
        }
    }
}
