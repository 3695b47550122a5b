//! Sign-in to a workspace: one file for each method, and the chain that users of the Python original expect.
//!
//! Invariants: nothing here is interactive (no browser, no prompt, stdin closed), and every outcome is typed.

mod cli_texts;
mod databricks_cli;
mod endpoint;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod m2m;

use std::time::{Duration, Instant};

use jiff::Timestamp;

pub(crate) use databricks_cli::off_the_usual_path as cli_off_the_usual_path;
pub(crate) use endpoint::KnownEndpoints;

use crate::failure::{Code, Failure};
use crate::http::WorkspaceClient;
use crate::model::token::Token;
use crate::model::{AuthType, Client, SecretSource, Workspace};
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
/// if that fails, with the vendor's CLI.
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
    let first = match (&workspace.client, workspace.auth) {
        (Some(client), AuthType::Chain | AuthType::OauthM2m) => {
            let account = workspace.account_id.as_deref();
            let signed_in = m2m::sign_in(http, account, client, needs).await;
            // What a proxy refuses has nothing to do with the client's secret.
            let is_of_client = http.closed_by_proxy().is_none();
            signed_in.map_err(|failure| if is_of_client { explained(failure, client, environment) } else { failure })
        }
        _ => return databricks_cli::sign_in(workspace, http, environment, needs).await,
    };
    let failure = match first {
        // The CLI goes by the same proxy, as the same user.
        Err(failure)
            if workspace.auth == AuthType::Chain && needs.person_can_serve && http.closed_by_proxy().is_none() =>
        {
            failure
        }
        decided => return decided,
    };
    tracing::warn!("{failure}; trying the Databricks CLI instead");
    let needs = Needs { now: needs.now.saturating_add(began.elapsed()).unwrap_or(needs.now), ..*needs };
    match databricks_cli::sign_in(workspace, http, environment, &needs).await {
        Ok(signed_in) => Ok(SignedIn { instead_of: Some(failure), ..signed_in }),
        Err(second) => Err(both_failed(failure, &second)),
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

fn both_failed(mut first: Failure, second: &Failure) -> Failure {
    first.message = format!("{}; and with the Databricks CLI: {second}", first.message);
    // If the CLI is not installed or not logged in, that does not change what the first method can still do.
    if second.is_transient() && matches!(second.code, Code::Unavailable | Code::TryAgain) {
        first.kind = second.kind;
    }
    first
}
