//! No connection waits for what does not concern it, and lost knowledge costs as little as possible.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::fmt::Write;
use std::time::Duration;

use crate::support::{Endpoint, Fault, Home, Instance, Session, Workspace, dbx_rotator};

/// `dbx-rotator ARGUMENTS` with this config.toml.
fn configured<'a>(home: &'a Home, workspace: &Workspace, config: &str, arguments: &[&str]) -> Session<'a> {
    home.write(".config/dbx-rotator/config.toml", config, 0o600);
    dbx_rotator!(home).args(arguments).signed_in_to(workspace)
}

/// A workspace whose own table says how to sign in, so that a configuration can have several.
pub(crate) fn table(workspace: &Workspace, home: &Home, name: &str) -> String {
    let secret = home.write(format!("{name}.secret"), workspace.client_secret(), 0o600);
    format!(
        "[[workspace]]\nname = '{name}'\nhost = '{}'\nclient_id = '{}'\nclient_secret_file = '{}'\nca_file = '{}'\n",
        workspace.url(),
        workspace.client_id(),
        secret.display(),
        workspace.ca_file().display()
    )
}

const INSTANT: Duration = Duration::from_secs(15);

#[test]
fn what_needs_no_api_is_published_while_eleven_databases_hang() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let mut config = "[[connection]]\nname = 'plain'\nhost = 'db.example'\n".to_owned();
    for number in 0..11 {
        write!(config, "[[connection]]\nname = 'c{number}'\ninstance = 'hangs{number}'\n").unwrap();
    }
    workspace.faults_on(Endpoint::DatabaseInstance).always(Fault::Stall);
    let running = configured(&home, &workspace, &config, &["run"]).spawn();
    running.says("plain is valid until", INSTANT);
    assert!(home.pgpass().starts_with("db.example:"));
    // The first timeout ends the wait for all of them, instead of one after the other.
    running.says("did not answer within", Duration::from_secs(50));
    assert!(workspace.requests_to(Endpoint::DatabaseInstance) <= 16);
    running.terminate().exits(0);
}

#[test]
fn one_workspace_that_hangs_keeps_no_other_from_its_rotation() {
    let (bad, good, home) = (Workspace::start(), Workspace::start(), Home::new());
    good.set_token_life(Duration::from_secs(6));
    bad.faults_on(Endpoint::Token).always(Fault::Stall);
    let config = format!(
        "{}{}[[connection]]\nname = 'hangs'\nworkspace = 'bad'\nhost = 'bad.example'\n\
         [[connection]]\nname = 'rotates'\nworkspace = 'good'\nhost = 'good.example'\n",
        table(&bad, &home, "bad"),
        table(&good, &home, "good")
    );
    home.write(".config/dbx-rotator/config.toml", config, 0o600);
    let running = dbx_rotator!(&home).args(["run"]).spawn();
    // All of it within the time limit of the other one's first request.
    running.says_times(4, "rotates is valid until", Duration::from_secs(28));
    assert_eq!(bad.token_requests(), 1);
    running.terminate().exits(0);
}

#[test]
fn a_program_is_told_once_of_each_credential_however_often_something_else_is_tried_again() {
    let (bad, good, home) = (Workspace::start(), Workspace::start(), Home::new());
    bad.outage_begins();
    let hook = home.write("hook", "#!/bin/sh\necho told >> \"$HOME/told\"\n", 0o755);
    let config = format!(
        "{}{}[[connection]]\nname = 'fails'\nworkspace = 'bad'\nhost = 'bad.example'\n\
         [[connection]]\nname = 'rotates'\nworkspace = 'good'\nhost = 'good.example'\non_rotate = ['{}']\n",
        table(&bad, &home, "bad"),
        table(&good, &home, "good"),
        hook.display()
    );
    home.write(".config/dbx-rotator/config.toml", config, 0o600);
    dbx_rotator!(&home).args(["rotate", "--retry-for", "4s"]).run().exits(69);
    assert_eq!((home.read("told").as_str(), good.token_requests()), ("told\n", 1));
    dbx_rotator!(&home).args(["rotate", "--if-due", "--retry-for", "1s"]).run().exits(69);
    assert_eq!(home.read("told"), "told\n");
}

#[test]
fn a_program_whose_rotation_was_killed_is_told_by_the_next_run() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let hook = home.write("hook", "#!/bin/sh\necho told >> \"$HOME/told\"\n", 0o755);
    let config = format!("[[connection]]\nhost = 'db.example'\non_rotate = ['{}']\n", hook.display());
    configured(&home, &workspace, &config, &["rotate"]).run().exits(0);
    // The record after a kill between publishing and telling.
    let record = home.path(".local/state/dbx-rotator/record.json");
    let mut text: serde_json::Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    let past = text["connections"].as_object_mut().unwrap().values_mut().next().unwrap();
    assert!(past["untold"].is_null());
    past["untold"] = serde_json::json!({ "fingerprint": past["published"]["fingerprint"] });
    std::fs::write(&record, text.to_string()).unwrap();
    for _ in 0..2 {
        configured(&home, &workspace, &config, &["rotate", "--if-due"]).run().exits(0);
        assert_eq!(home.read("told"), "told\ntold\n");
    }
    assert_eq!(workspace.token_requests(), 1);
}

#[test]
fn writes_to_the_password_file_repair_no_refused_secret() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let config = "[[connection]]\nhost = 'db.example'\n";
    let secret = workspace.client_secret().to_owned();
    workspace.set_client(workspace.client_id(), "another-secret-stand-in-0123456789abcdef");
    let running = configured(&home, &workspace, config, &["run"]).spawn();
    assert!(workspace.wait_for_token_requests(1, INSTANT));
    running.says("refused", INSTANT);
    for line in 0..4 {
        std::fs::write(home.path(".pgpass"), format!("other.example:5432:*:u{line}:p\n")).unwrap();
        // There is nothing to wait for: that nothing comes of it is the point. A file is left in peace for a quarter of a second
        // before it is looked at.
        std::thread::sleep(Duration::from_millis(700));
    }
    // A person's change is tried at once.
    workspace.set_client(workspace.client_id(), &secret);
    running.signal(rustix::process::Signal::HUP);
    running.says("is valid until", INSTANT);
    assert_eq!(workspace.token_requests(), 2);
    running.terminate().exits(0);
}

#[test]
fn a_credential_of_another_workspace_is_replaced_however_long_it_lives() {
    let (wrong, right, home) = (Workspace::start(), Workspace::start(), Home::new());
    right.set_token_life(Duration::from_secs(1_200));
    let connection = "[[connection]]\nhost = 'db.example'\n";
    for workspace in [&wrong, &right] {
        right.set_client(wrong.client_id(), wrong.client_secret());
        let config = format!("{}{connection}", table(workspace, &home, "one"));
        home.write(".config/dbx-rotator/config.toml", config, 0o600);
        dbx_rotator!(&home).args(["rotate", "--if-due"]).run().exits(0);
    }
    assert_eq!((wrong.token_requests(), right.token_requests()), (1, 1));
    dbx_rotator!(&home).args(["rotate", "--if-due"]).run().exits(0);
    assert_eq!(right.token_requests(), 1);
}

#[test]
fn a_lost_record_costs_a_lookup_and_no_new_credential() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_instance(Instance::named("orders"));
    let config = "[[connection]]\ninstance = 'orders'\n";
    configured(&home, &workspace, config, &["rotate"]).run().exits(0);
    let before = home.pgpass();
    for _ in 0..2 {
        let _ = std::fs::remove_file(home.path(".local/state/dbx-rotator/record.json"));
        configured(&home, &workspace, config, &["rotate", "--if-due"]).run().exits(0);
        assert_eq!((home.pgpass(), workspace.credentials_minted()), (before.clone(), 1));
    }
    configured(&home, &workspace, config, &["status"]).run().exits(0).stdout_has("live");
}
