//! Which databases the identity of each workspace can see: what could be kept alive.

use std::time::Duration;

use jiff::Timestamp;

use super::acquire::ENOUGH_TO_MINT;
use crate::auth::{self, Needs};
use crate::config::{Config, Workspace};
use crate::failure::Failure;
use crate::http::Line;
use crate::lakebase::{Api, Database};

/// How long one request or child may take, with a person waiting.
const LIMIT: Duration = Duration::from_secs(30);

/// What one workspace's identity can see.
pub(crate) struct Visible {
    /// Whose sight it is; none where the workspace does not tell.
    pub(crate) user: Option<String>,
    pub(crate) databases: Vec<Database>,
}

/// Signs in to each workspace and lists, in the order of the configuration.
pub(crate) async fn visible(config: &Config) -> Vec<(&Workspace, Result<Visible, Failure>)> {
    let mut all = Vec::with_capacity(config.workspaces.len());
    for workspace in &config.workspaces {
        all.push((workspace, visible_in(workspace, config).await));
    }
    all
}

async fn visible_in(workspace: &Workspace, config: &Config) -> Result<Visible, Failure> {
    let line = Line::to(workspace);
    let now = Timestamp::now();
    let is_due = |_: Timestamp, expires: Timestamp| expires.duration_since(now) < ENOUGH_TO_MINT;
    let needs = Needs { limit: LIMIT, is_due: &is_due, person_can_serve: true, now };
    let signed_in = auth::sign_in(&line, &config.environment, &needs).await?;
    let secret = signed_in.token.secret.clone();
    let api = Api { line: &line, token: &secret, subject: signed_in.token.subject(), limit: LIMIT };
    let databases = api.databases().await?;
    let user = match signed_in.token.subject() {
        Some(subject) => Some(subject.to_owned()),
        None => api.me().await.ok(),
    };
    Ok(Visible { user, databases })
}
