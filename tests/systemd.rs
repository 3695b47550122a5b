//! Under a real systemd, the oldest and the newest that we care for, each booted in a container.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod support;

use std::path::Path;

use support::{Machine, Postgres, Release, Workspace, skip};

const PROGRAM: &str = env!("CARGO_BIN_EXE_dbx-rotator");

/// A machine with the program installed, or a skipped test.
fn machine(test: &str, release: Release) -> Option<Machine> {
    let machine = Machine::boot(release).map_err(|reason| skip(test, &reason)).ok()?;
    machine.install(Path::new(PROGRAM));
    Some(machine)
}

/// Writes the user's config.toml for this workspace and server, and what it names, as he would.
fn configure(machine: &Machine, user: &str, workspace: &Workspace, server: &Postgres) {
    machine.watch(workspace);
    let directory = format!("/home/{user}/.config/dbx-rotator");
    let write = |name: &str, text: &str| machine.write(&format!("{directory}/{name}"), text, 0o600, Some(user));
    write("workspace-ca.pem", &std::fs::read_to_string(workspace.ca_file()).unwrap());
    write("server-ca.pem", &std::fs::read_to_string(server.ca_file()).unwrap());
    write("client-secret", workspace.client_secret());
    write(
        "config.toml",
        &format!(
            "[[workspace]]\n\
             host = \"{}\"\n\
             ca_file = \"{directory}/workspace-ca.pem\"\n\
             client_id = \"{}\"\n\
             client_secret_file = \"client-secret\"\n\
             [[connection]]\n\
             host = \"127.0.0.1\"\n\
             port = {}\n",
            workspace.url(),
            workspace.client_id(),
            server.port(),
        ),
    );
}

fn log_in(machine: &Machine, user: &str, workspace: &Workspace, server: &Postgres) {
    let whither = format!(
        "host=127.0.0.1 port={} dbname={} user={} sslmode=verify-ca sslrootcert=/home/{user}/.config/dbx-rotator/server-ca.pem",
        server.port(),
        support::postgres::DATABASE,
        workspace.client_id(),
    );
    let login = machine.as_user(user, &["psql", "-X", "-w", "-A", "-t", "-c", "select current_user", &whither]);
    login.exits(0).stdout_has(workspace.client_id());
}

/// It boots, has nothing of ours that failed, and a user's manager that needs nobody to log in.
fn boots(test: &str, release: Release) {
    let Some(machine) = machine(test, release) else { return };
    machine.run(&["systemctl", "is-system-running", "--wait"]).stdout_has("running");
    machine.run(&["systemctl", "list-units", "--failed", "--plain", "--no-legend"]).prints_nothing();
    machine.linger("alice");
    machine.as_user("alice", &["systemctl", "--user", "is-system-running"]).exits(0).stdout_has("running");
    machine.as_user("bob", &["systemctl", "--user", "is-system-running"]).exits(1);
    machine.run(&["loginctl", "list-sessions", "--no-legend"]).exits(0).stdout_lacks("seat");
    machine
        .as_user("alice", &["sh", "-c", "pwd; id -un; env"])
        .stdout_has("/home/alice\nalice\n")
        .stdout_lacks("CARGO");
}

#[test]
fn bookworm_boots() {
    boots("bookworm_boots", Release::Bookworm);
}

#[test]
fn forky_boots() {
    boots("forky_boots", Release::Forky);
}

/// The stand-ins on the host serve the machine.
fn rotates(test: &str, release: Release) {
    let workspace = Workspace::start();
    let started = Postgres::start(&workspace, &[workspace.client_id()]).map_err(|reason| skip(test, &reason));
    let Ok(server) = started else { return };
    let Some(machine) = machine(test, release) else { return };
    configure(&machine, "alice", &workspace, &server);
    machine.as_user("alice", &["dbx-rotator", "rotate"]).exits(0);
    log_in(&machine, "alice", &workspace, &server);
    assert_eq!(server.logins().iter().filter(|login| login.accepted()).count(), 1);
}

#[test]
fn a_user_of_bookworm_rotates_and_logs_in() {
    rotates("a_user_of_bookworm_rotates_and_logs_in", Release::Bookworm);
}

#[test]
fn a_user_of_forky_rotates_and_logs_in() {
    rotates("a_user_of_forky_rotates_and_logs_in", Release::Forky);
}
