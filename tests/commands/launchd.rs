//! The program as launchd runs it. Of launchd, only the variable that it gives its jobs is imitated; the agent and
//! `launchctl` are tested next to the code (src/service/launchd), and the property list in tests/packages/homebrew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::time::Duration;

use crate::support::{Home, Running, Workspace, dbx_rotator};

const SOON: Duration = Duration::from_secs(20);
const CONFIG: &str = ".config/dbx-rotator/config.toml";

fn agent<'a>(home: &'a Home, workspace: &Workspace) -> Running<'a> {
    dbx_rotator!(home).arg("run").trusting(workspace).env("XPC_SERVICE_NAME", "app.dbx-rotator.agent").spawn()
}

fn config(workspace: &Workspace) -> String {
    let (url, id) = (workspace.url(), workspace.client_id());
    format!(
        "log_file = \"rotator.log\"\n[[workspace]]\nhost = \"{url}\"\nclient_id = \"{id}\"\nclient_secret_file = \"secret\"\n\
         [[connection]]\nhost = \"db.example\"\n"
    )
}

#[test]
fn an_agent_without_a_configuration_waits_for_one_instead_of_being_started_again_and_again() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.watch(&workspace);
    let agent = agent(&home, &workspace);
    agent.says("waiting until this is fixed", SOON).says("is not set", SOON);
    // First a broken one, which is another fault, then a usable one.
    home.write(".config/dbx-rotator/secret", workspace.client_secret(), 0o600);
    home.write(CONFIG, "[[workspace]]\nhots = 1\n", 0o600);
    agent.says("unknown setting `hots`", SOON);
    home.write(CONFIG, config(&workspace), 0o600);
    agent.says("Keeping 1 connection alive", SOON).says("Token rotation completed successfully", SOON);
    assert_eq!(agent.stderr().matches("waiting until this is fixed").count(), 2, "{}", agent.stderr());
    agent.terminate().exits(0);
    // The configured log file is used, although messages came before the configuration.
    assert!(home.read(".config/dbx-rotator/rotator.log").contains("Token rotation completed"));
}

#[test]
fn an_agent_that_waits_ends_when_it_is_told_to() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let agent = agent(&home, &workspace);
    agent.says("waiting until this is fixed", SOON);
    assert!(!agent.has_ended());
    agent.terminate();
}

#[test]
fn elsewhere_and_for_wrong_words_nobody_waits() {
    let home = Home::new();
    dbx_rotator!(home).arg("run").env("XPC_SERVICE_NAME", "0").run().exits(78).stderr_lacks("waiting");
    let agent = |words: &[&str]| dbx_rotator!(home).args(words).env("XPC_SERVICE_NAME", "app.dbx-rotator.agent").run();
    agent(&["run", "--no-such-option"]).exits(64);
    agent(&["rotate"]).exits(78).stderr_lacks("waiting");
}
