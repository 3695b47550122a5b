//! What the runs of a timer on a server wait for, so that thousands of them do not ask a workspace together; and what is not
//! waited for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use dbx_rotator::simulation::{Spread, after_boot};
use jiff::{SignedDuration, Timestamp};

use crate::support::{Home, Outcome, Session, Workspace, dbx_rotator, skip};

const UNSHARE: &str = "/usr/bin/unshare";

/// Where systemd keeps what a system service remembers, or as good as there.
fn state_of_server() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

/// A run of a timer with one connection, in these words, on a server that keeps its record there.
fn run<'a>(home: &'a Home, workspace: &Workspace, state: &Path, words: &[&str]) -> Session<'a> {
    home.write(".config/dbx-rotator/config.toml", "[[connection]]\nhost = 'db.example'\n", 0o600);
    let (first, rest) = words.split_first().unwrap();
    home.command(first).args(rest).signed_in_to(workspace).env("STATE_DIRECTORY", state)
}

fn record(state: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(state.join("record.json")).unwrap()).unwrap()
}

/// Makes the record say that tries have failed for so long.
fn make_it_last(state: &Path, failing_for: SignedDuration) {
    let mut text = record(state);
    let past = text["connections"].as_object_mut().unwrap().values_mut().next().unwrap();
    assert!(past["failing_since"].is_string(), "{past}");
    past["failing_since"] = (Timestamp::now() - failing_for).to_string().into();
    std::fs::write(state.join("record.json"), text.to_string()).unwrap();
}

fn rotate_if_due(retry_for: &'static str) -> [&'static str; 5] {
    [env!("CARGO_BIN_EXE_dbx-rotator"), "rotate", "--if-due", "--retry-for", retry_for]
}

#[test]
fn a_servers_run_waits_in_a_trouble_that_lasts_and_publishes_all_the_same() {
    let (workspace, home, state) = (Workspace::start(), Home::new(), state_of_server());
    let run = |retry_for| run(&home, &workspace, state.path(), &rotate_if_due(retry_for)).run();
    let waited = |outcome: &Outcome| outcome.stderr.contains("not all servers try together");
    workspace.outage_begins();
    assert!(!waited(run("1s").exits(69)));
    make_it_last(state.path(), SignedDuration::from_hours(1));
    // There is no time to wait in: one that is started by hand, for a minute at most, tries at once.
    assert!(!waited(run("2s").exits(69)));
    workspace.outage_ends();
    assert!(waited(run("63s").exits(0)));
    assert!(home.pgpass().starts_with("db.example:"));
    let past = &record(state.path())["connections"];
    assert!(past.as_object().unwrap().values().all(|past| past["failing_since"].is_null()), "{past}");
}

#[test]
fn what_lasts_on_a_machine_of_a_person_is_tried_at_once() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let state = home.path(".local/state/dbx-rotator");
    let run = |retry_for| run(&home, &workspace, &state, &rotate_if_due(retry_for)).run();
    workspace.outage_begins();
    run("1s").exits(69);
    make_it_last(&state, SignedDuration::from_hours(1));
    workspace.outage_ends();
    let outcome = run("63s");
    assert!(!outcome.exits(0).stderr.contains("Waiting"), "{outcome}");
}

#[test]
fn a_trouble_that_needs_a_person_or_that_nobody_looked_at_lately_is_tried_at_once() {
    let (workspace, home, state) = (Workspace::start(), Home::new(), state_of_server());
    let run = |retry_for| run(&home, &workspace, state.path(), &rotate_if_due(retry_for)).run();
    workspace.outage_begins();
    run("1s").exits(69);
    make_it_last(state.path(), SignedDuration::from_hours(1));
    let mut text = record(state.path());
    let past = text["connections"].as_object_mut().unwrap().values_mut().next().unwrap();
    past["last_attempt_at"] = (Timestamp::now() - SignedDuration::from_mins(30)).to_string().into();
    std::fs::write(state.path().join("record.json"), text.to_string()).unwrap();
    workspace.outage_ends();
    let secret = workspace.client_secret().to_owned();
    workspace.set_client(workspace.client_id(), "another-secret-stand-in-0123456789abcdef");
    let outcome = run("63s");
    assert!(!outcome.exits(77).stderr.contains("Waiting"), "{outcome}");
    // Nor does what needs a person count as a trouble that lasts.
    let past = &record(state.path())["connections"];
    assert!(past.as_object().unwrap().values().all(|past| past["failing_since"].is_null()), "{past}");
    workspace.set_client(workspace.client_id(), &secret);
    run("63s").exits(0);
}

/// Whether namespaces of this kind can be made here; else it has been said that a test is skipped.
fn can_unshare(test: &str, kind: &[&str]) -> bool {
    let tried = Command::new(UNSHARE).args(kind).arg("true").output();
    let can = tried.is_ok_and(|tried| tried.status.success());
    if !can {
        skip(test, "no namespaces of that kind can be made here");
    }
    can
}

#[test]
fn a_servers_first_run_after_a_boot_waits_its_own_time() {
    const TEST: &str = "a_servers_first_run_after_a_boot_waits_its_own_time";
    let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec;
    let offset = format!("--boottime=-{since_boot}");
    if !can_unshare(TEST, &["--time", &offset]) {
        return;
    }
    let machine = std::fs::read("/etc/machine-id");
    let machine = machine.unwrap_or_else(|_| rustix::system::uname().nodename().to_bytes().to_vec());
    let spread = Spread::of(&machine, rustix::process::getuid().as_raw());
    if after_boot(Duration::ZERO, spread) < Duration::from_secs(5) {
        skip(TEST, "this machine waits for less than five seconds after a boot");
        return;
    }
    let (workspace, home, state) = (Workspace::start(), Home::new(), state_of_server());
    let words: Vec<&str> = [UNSHARE, "--time", &offset, "--"].into_iter().chain(rotate_if_due("62s")).collect();
    let run = || run(&home, &workspace, state.path(), &words).run();
    let outcome = run();
    outcome.exits(0).stderr_has("Waiting").stderr_has("after the boot of this machine");
    // With nothing due it does not even look.
    let outcome = run();
    assert_eq!(outcome.exits(0).stderr, "", "{outcome}");
}

#[test]
fn without_a_network_it_is_looked_for_every_second() {
    let test = "without_a_network_it_is_looked_for_every_second";
    let network: &[&str] = if rustix::process::getuid().is_root() { &["--net"] } else { &["-r", "--net"] };
    if !can_unshare(test, network) {
        return;
    }
    let home = Home::new();
    let wait = |host: &str, proxy: &str| {
        home.write(".config/dbx-rotator/config.toml", "[[connection]]\nhost = 'db.example'\n", 0o600);
        let program = env!("CARGO_BIN_EXE_dbx-rotator");
        let session = home.command(UNSHARE).args(network).args(["--", program, "rotate", "--retry-for", "8s"]);
        let session = session.env("DATABRICKS_HOST", host).env("DATABRICKS_CLIENT_ID", "id").env("HTTPS_PROXY", proxy);
        let outcome = session.env("DATABRICKS_CLIENT_SECRET", "a-secret-of-nobody").run();
        let said = outcome.exits(69).stderr.clone();
        let wait = said.split_once("(next try in ").and_then(|(_, rest)| rest.split_once(" s)")).expect("a next try");
        wait.0.parse::<f64>().unwrap()
    };
    for host in ["https://w.cloud.databricks.com", "https://203.0.113.7"] {
        let wait = wait(host, "");
        assert!((0.5..=1.0).contains(&wait), "{host}: {wait} s");
    }
    // Behind a proxy there may be no way out, and a network all the same.
    let wait = wait("https://w.cloud.databricks.com", "http://127.0.0.1:9");
    assert!(wait < 0.5, "{wait} s");
}
