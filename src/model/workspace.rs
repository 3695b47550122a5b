//! A workspace and the identity that signs in there.

use std::path::PathBuf;

use super::host::WorkspaceHost;
use super::sign_in::{AuthMethod, AuthType, CLIENT_SECRET, Client, Means, SecretSource};
use super::vendor::Cloud;
use crate::proxies::{Proxies, Route};

/// A Databricks host and the identity that signs in to it.
#[derive(Clone, Debug)]
pub struct Workspace {
    pub(crate) name: String,
    pub(crate) host: WorkspaceHost,
    pub(crate) workspace_id: Option<String>,
    /// The account that the workspace belongs to, where that is set.
    pub(crate) account_id: Option<String>,
    pub(crate) auth: AuthType,
    /// For `oauth-m2m`.
    pub(crate) client: Option<Client>,
    /// What another method takes; none for `oauth-m2m` and for the vendor's CLI.
    pub(crate) means: Option<Means>,
    /// The group whose rights are asked for.
    pub(crate) group_id: Option<String>,
    /// What the token is for, where that is not everything.
    pub(crate) scopes: Option<String>,
    /// The workspace as Azure knows it.
    pub(crate) azure_resource_id: Option<String>,
    pub(crate) cloud: Cloud,
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
        Workspace {
            name: "default".to_owned(),
            host,
            workspace_id: None,
            account_id: None,
            auth: AuthType::Only(AuthMethod::DatabricksCli),
            client: None,
            means: None,
            group_id: None,
            scopes: None,
            azure_resource_id: None,
            cloud: Cloud::Other,
            profile: None,
            cli_path: None,
            ca_file: None,
            proxies: Proxies::default(),
        }
    }

    /// The client that it signs in as, if one is set.
    pub(crate) fn client_id(&self) -> Option<&str> {
        let client = self.client.as_ref().map(|client| client.id.as_str());
        client.or_else(|| self.means.as_ref()?.client_id())
    }

    /// The file that holds what it signs in with.
    pub(crate) fn secret_file(&self) -> Option<&PathBuf> {
        match self.client.as_ref().map(|client| &client.secret) {
            Some(SecretSource::File(path)) => Some(path),
            Some(_) => None,
            None => self.means.as_ref()?.file(),
        }
    }

    /// The secret that it signs in with, if one is set, and its name in messages.
    #[cfg(feature = "cli")]
    pub(crate) fn secret(&self) -> Option<(&SecretSource, &'static str)> {
        match &self.client {
            Some(client) => Some((&client.secret, CLIENT_SECRET)),
            None => self.means.as_ref()?.secret(),
        }
    }

    /// The same for a sign-in that starts no program, whatever fails; none where it takes one.
    #[cfg(feature = "cli")]
    pub(crate) fn without_programs(&self) -> Option<Self> {
        let method = self.client.as_ref().map(|_| AuthMethod::OauthM2m).or_else(|| Some(self.means.as_ref()?.method()));
        let method = method.filter(|method| *method != AuthMethod::AzureCli)?;
        Some(Workspace { auth: AuthType::Only(method), ..self.clone() })
    }

    /// Whether the vendor's CLI may be asked for a person's login.
    pub(crate) fn may_ask_databricks_cli(&self) -> bool {
        match self.auth {
            AuthType::Chain => self.means.is_none() && self.group_id.is_none(),
            AuthType::Only(method) => method == AuthMethod::DatabricksCli,
        }
    }

    /// Whether a person's login in the browser may be used, if there is one.
    pub(crate) fn may_use_browser_login(&self) -> bool {
        match self.auth {
            AuthType::Chain => self.means.is_none(),
            AuthType::Only(method) => method == AuthMethod::ExternalBrowser,
        }
    }

    /// Why no access token of it can be a password; none where it can.
    pub(crate) fn is_no_password(&self) -> Option<&'static str> {
        self.means.as_ref()?.method().is_no_password()
    }

    /// Its address as a setting takes it, with its id if known.
    pub(crate) fn address(&self) -> String {
        let origin = self.host.origin();
        self.workspace_id.as_ref().map_or_else(|| origin.to_owned(), |id| format!("{origin}/?o={id}"))
    }

    /// How it is reached.
    pub(crate) fn route(&self) -> Route<'_> {
        self.route_to(&self.host)
    }

    /// How another place is reached where it signs in: without TLS it is on this machine, where no proxy belongs.
    pub(crate) fn route_to(&self, host: &WorkspaceHost) -> Route<'_> {
        if host.is_https() { self.proxies.route(host.name(), host.port()) } else { Route::Direct }
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
            && self.group_id == other.group_id
            && self.scopes == other.scopes
            && match (&self.means, &other.means) {
                (None, None) => true,
                (Some(one), Some(other)) => one.is_same_as(other),
                _ => false,
            }
    }
}
