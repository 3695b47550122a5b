//! A new user's first minutes on a clean machine, command by command: at most five to a login with psql and a service that `status`
//! vouches for. (`from_python.rs` has those who come from the Python tool.)

use std::time::Duration;

use super::stage::MOST_COMMANDS;
use super::{Release, Stage, Workspace};
use crate::support::{Outcome, Postgres, skip};

impl Stage {
    /// As every machine does with a real one.
    fn trusts_the_workspace(&self) {
        let authority = self.machine.read("/etc/ssl/workspace-ca.pem");
        self.machine.write("/etc/ssl/certs/ca-certificates.crt", authority, 0o644, None);
    }
}

/// The commands that were typed, and what the last one printed.
struct Walk<'s> {
    stage: &'s Stage,
    typed: usize,
}

impl Walk<'_> {
    #[track_caller]
    fn types(&mut self, user: &str, line: &str) -> Outcome {
        self.typed += 1;
        let done = if user == "root" { self.stage.machine.run(&["sh", "-c", line]) } else { self.stage.types(line) };
        done.exits(0);
        done
    }

    /// The line that a command printed to be typed next, with a question.
    #[track_caller]
    fn logs_in(&mut self, user: &str, printed: &Outcome, role: &str) {
        let line = printed.stdout.lines().find(|line| line.trim_start().starts_with("psql ")).expect("a psql line");
        let login = self.types(user, &format!("{} -w -A -t -c 'select current_user'", line.trim()));
        login.stdout_has(role);
    }

    #[track_caller]
    fn ends(self) {
        assert!(self.typed <= MOST_COMMANDS, "{} commands", self.typed);
    }
}

fn a_person_with_the_databricks_cli_walks_from_setup_to_psql(test: &str, release: Release) {
    let workspace = Workspace::start();
    let user = workspace.user().to_owned();
    let roles = [user.as_str()];
    let server = match Postgres::start(&workspace, &roles) {
        Ok(server) => server,
        Err(reason) => return skip(test, &reason),
    };
    let Some(stage) = Stage::bare(test, release, workspace) else { return };
    // `databricks auth login` was done in a browser; the CLI hands out the token that it got.
    let token = stage.workspace.issue(&user, Duration::from_secs(3_600));
    stage.machine.keep_secret(&token);
    let expiry = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1);
    let answer = format!("{{\"access_token\": \"{token}\", \"token_type\": \"Bearer\", \"expiry\": \"{expiry}\"}}\n");
    stage.machine.write("/home/alice/.databricks/answer", answer, 0o600, Some("alice"));
    stage.machine.write("/usr/bin/databricks", "#!/bin/sh\nexec cat /home/alice/.databricks/answer\n", 0o755, None);
    stage.trusts_the_workspace();

    let mut walk = Walk { stage: &stage, typed: 0 };
    let (url, port) = (stage.workspace.url(), server.port());
    let done = walk
        .types("alice", &format!("dbx-rotator setup --yes --workspace-url {url} --pg-host 127.0.0.1 --pg-port {port}"));
    done.stdout_has("Enabled dbx-rotator.timer").stdout_has("password-live: default: live");
    walk.logs_in("alice", &done, &user);
    walk.types("alice", "dbx-rotator status").stdout_has("live").stdout_has("dbx-rotator.timer");
    walk.types("alice", "dbx-rotator check");
    walk.ends();
}

fn an_administrator_walks_from_a_secret_to_psql_of_a_servers_user(test: &str, release: Release) {
    let Some(stage) = Stage::bare(test, release, Workspace::start()) else { return };
    // A user whom nobody logs in as.
    stage.machine.run(&["loginctl", "disable-linger", "alice"]).exits(0);
    let (url, port, id) = (stage.workspace.url(), stage.server.port(), stage.workspace.client_id().to_owned());
    stage.trusts_the_workspace();
    // Pasted, and Ctrl-D.
    stage.machine.write("/root/pasted", stage.workspace.client_secret(), 0o600, None);

    let mut walk = Walk { stage: &stage, typed: 0 };
    walk.types("root", "install -m 600 /dev/stdin /root/client-secret </root/pasted");
    let done = walk.types(
        "root",
        &format!(
            "dbx-rotator service install --system --for alice --yes --workspace-url {url} --client-id {id} \
             --client-secret-file /root/client-secret --pg-host 127.0.0.1 --pg-port {port}"
        ),
    );
    walk.logs_in("alice", &done, &id);
    walk.types("root", "dbx-rotator status --for alice").stdout_has("live").stdout_has("dbx-rotator@alice");
    walk.ends();
    assert!(!stage.machine.read("/etc/dbx-rotator/alice.toml").contains(stage.workspace.client_secret()));
}

crate::support::on_each_release!(
    a_person_with_the_databricks_cli_walks_from_setup_to_psql,
    an_administrator_walks_from_a_secret_to_psql_of_a_servers_user,
);
