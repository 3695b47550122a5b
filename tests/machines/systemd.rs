//! Under a real systemd, the oldest and the newest that we support, each booted in a container.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops where it fails, and says what it measured"
)]

mod daemon;
mod from_python;
mod install;
mod journal;
mod outputs;
mod proxy;
mod sandbox;
mod server;
mod stage;
mod timer;
mod walks;

use crate::support::{Release, Workspace, on_each_release};
use stage::{SOON, Stage};

/// The machine boots, none of our units has failed, and a user's manager runs without a login.
fn a_machine_boots_and_has_a_users_manager_without_a_login(test: &str, release: Release) {
    let Some(machine) = stage::machine(test, release) else { return };
    machine.run(&["systemctl", "is-system-running", "--wait"]).stdout_has("running");
    machine.run(&["systemctl", "list-units", "--failed", "--plain", "--no-legend"]).prints_nothing();
    machine.linger("alice");
    machine.as_user("alice", &["systemctl", "--user", "is-system-running", "--wait"]).exits(0).stdout_has("running");
    machine.as_user("bob", &["systemctl", "--user", "is-system-running"]).exits(1);
    machine.run(&["loginctl", "list-sessions", "--no-legend"]).exits(0).stdout_lacks("seat");
    machine
        .as_user("alice", &["sh", "-c", "pwd; id -un; env"])
        .stdout_has("/home/alice\nalice\n")
        .stdout_lacks("CARGO");
}
on_each_release!(a_machine_boots_and_has_a_users_manager_without_a_login);
