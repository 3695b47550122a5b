//! Lakebase's own API: credentials minted for instances and endpoints, hosts and users found, every answer explained.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod answers;
mod connections;
mod entries;
mod find;
mod mint;
mod proof;
mod setup;

use crate::support::{Home, Session, Workspace, dbx_rotator};

/// `dbx-rotator ARGUMENTS` with a config.toml for the workspace, its client and these connections.
fn configured<'a>(home: &'a Home, workspace: &Workspace, connections: &str, arguments: &[&str]) -> Session<'a> {
    home.watch(workspace);
    home.write("client-secret", workspace.client_secret(), 0o600);
    let (host, client) = (workspace.url(), workspace.client_id());
    let workspace_table =
        format!("[[workspace]]\nhost = '{host}'\nclient_id = '{client}'\nclient_secret_file = '~/client-secret'\n");
    home.write(".config/dbx-rotator/config.toml", format!("{workspace_table}{connections}"), 0o600);
    dbx_rotator!(home).args(arguments).trusting(workspace)
}

/// The host field of each entry, in the order of the file.
fn hosts(home: &Home) -> Vec<String> {
    home.pgpass().lines().map(|line| line.split(':').next().unwrap_or_default().to_owned()).collect()
}

/// The password of each entry, in the order of the file.
fn passwords(home: &Home) -> Vec<String> {
    home.pgpass().lines().map(|line| line.rsplit(':').next().unwrap_or_default().to_owned()).collect()
}

/// How often this was requested.
fn count(workspace: &Workspace, request: &str) -> usize {
    workspace.requests().iter().filter(|other| other.as_str() == request).count()
}

const MINT_PROVISIONED: &str = "POST /api/2.0/database/credentials";
const MINT_AUTOSCALING: &str = "POST /api/2.0/postgres/credentials";
const TOKEN: &str = "POST /oidc/v1/token";
