//! psql as the owner of a home runs it: by host name, with only that name and `~/.pgpass`.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    reason = "test support: each user takes a part of it, and a broken one should stop the test loudly"
)]

use super::postgres::{DATABASE, psql_program};
use super::session::{Home, Session};
use super::workspace::Workspace;

impl Home {
    /// The server must prove with the workspace's authority that it is `host`; the session must still resolve that
    /// name.
    pub fn psql(&self, workspace: &Workspace, host: &str, user: &str) -> Session<'_> {
        self.command(psql_program().expect("a psql"))
            .env("PGHOST", host)
            .env("PGUSER", user)
            .env("PGDATABASE", DATABASE)
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", workspace.ca_file())
            .env("PGGSSENCMODE", "disable")
            // Before version 15, HOME was ignored.
            .env("PGPASSFILE", self.path(".pgpass"))
            .args(["-X", "-w", "-A", "-t"])
    }
}
