//! Sign-in to a workspace: one file for each method, and the chain that users of the Python original expect.
//!
//! Invariants: nothing here is interactive (no browser, no prompt, stdin closed), and every outcome is typed.

mod azure;
mod azure_cli;
mod azure_client_secret;
mod azure_devops_oidc;
mod azure_msi;
mod cli_texts;
mod databricks_cli;
mod elsewhere;
mod endpoint;
mod env_oidc;
mod exchange;
pub(crate) mod external_browser;
mod federation;
mod file_oidc;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod github_oidc;
mod google_credentials;
mod google_id;
mod m2m;
mod metadata_service;
mod pat;
mod runs;
mod subject;

use std::time::{Duration, Instant};

use jiff::Timestamp;
use secrecy::SecretString;

pub(crate) use databricks_cli::off_the_usual_path as cli_off_the_usual_path;
pub(crate) use endpoint::KnownEndpoints;
pub(crate) use federation::outlook as federation_outlook;

use crate::failure::{Code, Failure};
use crate::http::WorkspaceClient;
use crate::model::token::Token;
use crate::model::{AuthMethod, AuthType, Client, Means, SecretSource, Workspace};
use crate::os::clock::Anchor;
use crate::os::dirs::Environment;

/// A successful sign-in.
pub(crate) struct SignedIn {
    pub(crate) token: Token,
    /// The workspace's clock, if the method showed it.
    pub(crate) anchor: Option<Anchor>,
    pub(crate) warnings: Vec<String>,
    /// Why the first method failed, if this is the second.
    pub(crate) instead_of: Option<Failure>,
    /// What a person should repair before the present token expires.
    pub(crate) trouble: Option<Failure>,
    /// The method keeps returning a token that is already past its refresh point.
    pub(crate) repeated: bool,
    /// What the workspace's API wants besides the token. The values are secrets, or as good as.
    pub(crate) headers: Vec<(&'static str, SecretString)>,
}

impl SignedIn {
    /// With this token, and nothing else to say.
    fn of(token: Token) -> Self {
        let (warnings, headers) = (Vec::new(), Vec::new());
        SignedIn { token, anchor: None, warnings, instead_of: None, trouble: None, repeated: false, headers }
    }
}

/// What the caller needs from a sign-in.
pub(crate) struct Needs<'a> {
    /// How long one request or child may take.
    pub(crate) limit: Duration,
    /// Whether a token issued and expiring at these times would be replaced at once.
    pub(crate) is_due: &'a (dyn Fn(Timestamp, Timestamp) -> bool + Sync),
    /// The token endpoints that were found a moment ago.
    pub(crate) endpoints: &'a KnownEndpoints,
    /// Whether a token of the vendor's CLI, which belongs to a person, could serve any of the connections.
    pub(crate) person_can_serve: bool,
    /// The workspace's time, as far as known.
    pub(crate) now: Timestamp,
}

/// Signs in once, with the configured method. The chain signs in as a service principal if one is configured; otherwise, or
/// if that fails, as a person: with the login of `dbx-rotator login` where there is one, else with that of a tool.
///
/// # Errors
/// The failure of the first method. It is transient if another try of either method can help.
pub(crate) async fn sign_in(
    workspace: &Workspace,
    http: &WorkspaceClient<'_>,
    environment: &Environment,
    needs: &Needs<'_>,
) -> Result<SignedIn, Failure> {
    let began = Instant::now();
    if let Some(means) = &workspace.means {
        return by(means, workspace, http, environment, needs).await;
    }
    let is_for_client = matches!(workspace.auth, AuthType::Chain | AuthType::Only(AuthMethod::OauthM2m));
    let Some(client) = workspace.client.as_ref().filter(|_| is_for_client) else {
        return by_login(workspace, http, environment, needs).await;
    };
    let signed_in = m2m::sign_in(workspace, http, client, needs).await;
    // What a proxy refuses has nothing to do with the client's secret.
    let is_of_client = http.closed_by_proxy().is_none();
    let first =
        signed_in.map_err(|failure| if is_of_client { explained(failure, client, environment) } else { failure });
    let by_browser = is_by_browser(workspace, environment);
    let may_fall_back = (by_browser || workspace.may_ask_databricks_cli()) && needs.person_can_serve;
    let failure = match first {
        // A person goes by the same proxy, as the same user.
        Err(failure) if may_fall_back && http.closed_by_proxy().is_none() => failure,
        decided => return decided,
    };
    let method = if by_browser { "a browser login" } else { "the Databricks CLI" };
    tracing::warn!("{failure}; trying {method} instead");
    let needs = Needs { now: needs.now.saturating_add(began.elapsed()).unwrap_or(needs.now), ..*needs };
    let second = if by_browser {
        external_browser::sign_in(workspace, environment, &needs).await
    } else {
        databricks_cli::sign_in(workspace, http, environment, &needs).await
    };
    match second {
        Ok(signed_in) => Ok(SignedIn { instead_of: Some(failure), ..signed_in }),
        Err(second) => Err(both_failed(failure, method, &second)),
    }
}

/// Whether a person's login is that of `dbx-rotator login`. The vendor's CLI cannot ask for a group's rights.
fn is_by_browser(workspace: &Workspace, environment: &Environment) -> bool {
    let is_kept = || workspace.group_id.is_some() || external_browser::Login::of(workspace, environment).is_there();
    workspace.may_use_browser_login() && (workspace.auth != AuthType::Chain || is_kept())
}

/// Signs in with a method that takes something.
async fn by(
    means: &Means,
    workspace: &Workspace,
    http: &WorkspaceClient<'_>,
    environment: &Environment,
    needs: &Needs<'_>,
) -> Result<SignedIn, Failure> {
    match means {
        Means::Pat(token) => pat::sign_in(token, needs),
        Means::MetadataService(address) => metadata_service::sign_in(workspace, address, needs).await,
        Means::Federation(federation) => federation::sign_in(workspace, federation, http, environment, needs).await,
        Means::AzureMsi { client_id } => azure_msi::sign_in(workspace, client_id.as_deref(), environment, needs).await,
        Means::AzureClientSecret { client, tenant } => {
            azure_client_secret::sign_in(workspace, (client, tenant.as_deref()), http, needs).await
        }
        Means::AzureCli { tenant } => azure_cli::sign_in(workspace, tenant.as_deref(), environment, needs).await,
        Means::GoogleId { account } => google_id::sign_in(workspace, account, environment, needs).await,
        Means::GoogleCredentials(source) => google_credentials::sign_in(workspace, source, needs).await,
    }
}

/// Signs in with the login of a person: that of `dbx-rotator login`, if there is one, else that of the vendor's CLI; where that has
/// none, and nothing is pinned, that of the CLI of the cloud in which the workspace is.
async fn by_login(
    workspace: &Workspace,
    http: &WorkspaceClient<'_>,
    environment: &Environment,
    needs: &Needs<'_>,
) -> Result<SignedIn, Failure> {
    if is_by_browser(workspace, environment) {
        return external_browser::sign_in(workspace, environment, needs).await;
    }
    let signed_in = databricks_cli::sign_in(workspace, http, environment, needs).await;
    let has_other = workspace.auth == AuthType::Chain
        && workspace.cloud.at_azure().is_some()
        && azure_cli::program(environment).is_some();
    match signed_in {
        Err(failure) if has_other && !failure.is_transient() => {
            let second = azure_cli::sign_in(workspace, None, environment, needs).await;
            match second {
                Ok(signed_in) => Ok(signed_in),
                Err(second) => {
                    let message = format!("{failure}; and with Azure's CLI: {second}");
                    let kind = if second.is_transient() { second.kind } else { failure.kind };
                    Err(Failure { message, kind, ..failure })
                }
            }
        }
        decided => decided,
    }
}

/// A secret from systemd is a copy, made when the unit started: a new secret takes effect only after a restart.
fn explained(mut failure: Failure, client: &Client, environment: &Environment) -> Failure {
    let is_copy = matches!((&client.secret, environment.path("CREDENTIALS_DIRECTORY")),
        (SecretSource::File(path), Some(directory)) if path.starts_with(&directory));
    if is_copy && failure.code == Code::SignInRefused {
        let hint = failure.hint.unwrap_or_default();
        failure.hint = Some(format!("{hint}; then restart the unit, which took a copy of the secret when it started"));
    }
    failure
}

fn both_failed(mut first: Failure, method: &str, second: &Failure) -> Failure {
    first.message = format!("{}; and with {method}: {second}", first.message);
    // If there is no such login, that does not change what the first method can still do.
    if second.is_transient() && matches!(second.code, Code::Unavailable | Code::TryAgain) {
        first.kind = second.kind;
    }
    first
}
