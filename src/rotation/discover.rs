//! Lists the databases that the identity of each workspace can see, and whose passwords could be kept alive.

use std::time::Duration;

use jiff::Timestamp;

use super::acquire::ENOUGH_TO_MINT;
use crate::auth::{self, KnownEndpoints, Needs, SignedIn};
use crate::config::Config;
use crate::failure::Failure;
use crate::http::WorkspaceClient;
use crate::lakebase::{Api, Database};
use crate::model::Workspace;

/// The time limit of one request or child while a person waits.
const LIMIT: Duration = Duration::from_secs(30);

/// What the identity of one workspace can see.
pub(crate) struct Discovered {
    /// The identity; none if the workspace does not tell.
    pub(crate) user: Option<String>,
    pub(crate) databases: Vec<Database>,
}

/// Signs in to each workspace and lists its databases, in the order of the configuration.
pub(crate) async fn discover(config: &Config) -> Vec<(&Workspace, Result<Discovered, Failure>)> {
    let mut all = Vec::with_capacity(config.workspaces.len());
    for workspace in &config.workspaces {
        all.push((workspace, discover_in(workspace, config).await));
    }
    all
}

/// Signs in to a workspace as a rotation would, and changes nothing.
///
/// # Errors
/// As [`auth::sign_in`].
pub(crate) async fn try_sign_in(workspace: &Workspace, config: &Config) -> Result<(), Failure> {
    sign_in(workspace, &client_of(workspace), config).await.map(drop)
}

fn client_of(workspace: &Workspace) -> WorkspaceClient<'_> {
    WorkspaceClient::new(&workspace.host, workspace.ca_file.as_deref(), workspace.route())
}

async fn sign_in(workspace: &Workspace, http: &WorkspaceClient<'_>, config: &Config) -> Result<SignedIn, Failure> {
    let now = Timestamp::now();
    let is_due = |_: Timestamp, expires: Timestamp| expires.duration_since(now) < ENOUGH_TO_MINT;
    let endpoints = &KnownEndpoints::default();
    let needs = Needs { limit: LIMIT, is_due: &is_due, endpoints, person_can_serve: true, now };
    auth::sign_in(workspace, http, &config.environment, &needs).await
}

async fn discover_in(workspace: &Workspace, config: &Config) -> Result<Discovered, Failure> {
    let http = client_of(workspace);
    let signed_in = sign_in(workspace, &http, config).await?;
    let secret = signed_in.token.secret.clone();
    let (workspace_id, subject) = (workspace.workspace_id.as_deref(), signed_in.token.subject());
    let headers = &signed_in.headers;
    let api = Api { http: &http, workspace_id, token: &secret, headers, subject, limit: LIMIT };
    let databases = api.databases().await?;
    let user = match signed_in.token.subject() {
        Some(subject) => Some(subject.to_owned()),
        None => api.me().await.ok(),
    };
    Ok(Discovered { user, databases })
}
