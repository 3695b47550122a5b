//! Every way to sign in, from what it takes to a login of psql, and what is said where it does not work.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod azure;
mod federation;
mod others;
mod sdk;

use crate::support::{Home, Instance, Postgres, Session, Workspace, dbx_rotator, names, skip};

/// A service principal that has no secret.
const CLIENT: &str = "0b1c2d3e-0000-4000-8000-00000000cafe";

/// A workspace with the instance `orders`, whose host has a real PostgreSQL with these roles; or a skipped test.
struct Stage {
    workspace: Workspace,
    server: Postgres,
    host: String,
}

impl Stage {
    fn new(test: &str, workspace: Workspace, roles: &[&str]) -> Option<Self> {
        workspace.add_instance(Instance::named("orders"));
        let host = workspace.instance("orders").host.unwrap();
        let server = Postgres::builder(&workspace, roles).at_5432().known_as(&host).start();
        let server = names::wrapper().and(server).map_err(|reason| skip(test, &reason)).ok()?;
        Some(Stage { workspace, server, host })
    }

    /// What is written signs in, and psql logs in as this user with what came of it.
    fn proves(&self, home: &Home, user: &str, session: Session<'_>) {
        session.args(["rotate", "--retry-for", "0s"]).run().exits(0);
        let psql = home.psql(&self.workspace, &self.host, user).resolving(&self.host, self.server.address());
        psql.args(["-c", "select current_user"]).run().exits(0).stdout_has(user);
        assert!(self.server.logins().last().unwrap().accepted());
    }
}

/// The program with these tables in its configuration, and nothing of anybody's identity in its environment.
fn configured<'a>(home: &'a Home, workspace: &Workspace, of_workspace: &str, of_connection: &str) -> Session<'a> {
    let text = format!(
        "[[workspace]]\nhost = '{}'\n{of_workspace}\n[[connection]]\ninstance = 'orders'\n{of_connection}\n",
        workspace.url()
    );
    home.write(".config/dbx-rotator/config.toml", text, 0o600);
    home.watch(workspace);
    dbx_rotator!(home).trusting(workspace)
}
