//! A workspace and the identity that signs in there.

use std::fmt;
use std::path::PathBuf;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::host::WorkspaceHost;
use crate::foreign::secrets;
use crate::proxies::{Proxies, Route};

/// How to sign in to a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthType {
    /// `oauth-m2m` where a client is configured; else, or after its failure, `databricks-cli`.
    Chain,
    /// A service principal's client credentials (RFC 6749, section 4.4).
    OauthM2m,
    /// The vendor's command line tool, where a person has logged in.
    DatabricksCli,
}

/// How a token was obtained, in the words of Databricks' unified authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthMethod {
    /// A service principal's client credentials.
    OauthM2m,
    /// The vendor's command line tool.
    DatabricksCli,
}

impl fmt::Display for AuthMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AuthMethod::OauthM2m => "OAuth M2M",
            AuthMethod::DatabricksCli => "Databricks CLI",
        })
    }
}

/// Where a client secret is.
#[derive(Clone, Debug)]
pub(crate) enum SecretSource {
    /// Given in full, by flag, environment or profile.
    Given(SecretString),
    /// In a file: one line, or a systemd credential.
    File(PathBuf),
    /// In the macOS keychain: the generic password of this service, with the client id as its account.
    Keychain(String),
}

impl SecretSource {
    /// The name of the setting for it.
    pub(crate) fn key(&self) -> &'static str {
        match self {
            SecretSource::Given(_) => "client_secret",
            SecretSource::File(_) => "client_secret_file",
            SecretSource::Keychain(_) => "client_secret_keychain",
        }
    }

    /// A secret that is given in full. From here on it is removed from everything that is shown.
    pub(crate) fn given(secret: impl Into<SecretString>) -> Self {
        let secret = secret.into();
        secrets::keep(&secret);
        SecretSource::Given(secret)
    }
}

/// A service principal: its client id, and where its secret is.
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
    /// The account that the workspace belongs to, where that is set.
    pub(crate) account_id: Option<String>,
    pub(crate) auth: AuthType,
    pub(crate) client: Option<Client>,
    /// The profile to name to the vendor's CLI, if the host came from a profile.
    pub(crate) profile: Option<String>,
    pub(crate) cli_path: Option<PathBuf>,
    pub(crate) ca_file: Option<PathBuf>,
    /// By which it is reached, and whatever else the vendor's CLI asks.
    pub(crate) proxies: Proxies,
}

impl Workspace {
    /// Any workspace, for [`crate::fuzzing`].
    #[cfg(any(test, fuzzing))]
    #[allow(clippy::expect_used, reason = "the address is a constant")]
    pub(crate) fn for_fuzzing() -> Self {
        let host = WorkspaceHost::parse("https://workspace.example").expect("an address");
        let (name, auth) = ("default".to_owned(), AuthType::DatabricksCli);
        let (workspace_id, account_id, client, profile, cli_path, ca_file) = (None, None, None, None, None, None);
        let proxies = Proxies::default();
        Workspace { name, host, workspace_id, account_id, auth, client, profile, cli_path, ca_file, proxies }
    }

    /// Its address as a setting takes it, with its id if known.
    pub(crate) fn address(&self) -> String {
        let origin = self.host.origin();
        self.workspace_id.as_ref().map_or_else(|| origin.to_owned(), |id| format!("{origin}/?o={id}"))
    }

    /// How it is reached: without TLS it is on this machine, where no proxy belongs.
    pub(crate) fn route(&self) -> Route<'_> {
        if self.host.is_https() { self.proxies.route(self.host.name(), self.host.port()) } else { Route::Direct }
    }

    /// The name that connections refer to it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    pub fn host(&self) -> &WorkspaceHost {
        &self.host
    }

    /// Whether both sign in as the same identity in the same way, so that one token is enough for both.
    pub(crate) fn shares_identity_with(&self, other: &Workspace) -> bool {
        self.host.origin() == other.host.origin()
            && self.auth == other.auth
            && self.profile == other.profile
            && self.cli_path == other.cli_path
            && self.ca_file == other.ca_file
            && self.workspace_id == other.workspace_id
            && self.account_id == other.account_id
            && self.client.as_ref().map(|client| &client.id) == other.client.as_ref().map(|client| &client.id)
    }
}
