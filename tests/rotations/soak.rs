//! Many identities beside each other for ten minutes, while half of all requests fail or hang: `tests/run soak`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops where it fails, and says what it counted"
)]

use std::fmt::Write;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::support::{Endpoint, Fault, Home, Workspace, dbx_rotator};

/// How long it goes on, unless `DBX_ROTATOR_SOAK_SECONDS` says otherwise.
const LONG: Duration = Duration::from_secs(600);

/// How long a token lives, and what a hanging request takes.
const LIFE: Duration = Duration::from_secs(60);
const HANG: Duration = Duration::from_secs(4);

/// How often the passwords are looked at.
const PACE: Duration = Duration::from_millis(250);

fn client_id(identity: usize) -> String {
    format!("{identity:08x}-0000-4000-8000-00000000cafe")
}

/// A connection each for so many identities of one workspace.
fn configuration(home: &Home, workspace: &Workspace, identities: usize) -> String {
    let mut text = String::new();
    for identity in 0..identities {
        let (id, secret) = (client_id(identity), format!("stand-in-secret-of-{identity}-0123456789"));
        workspace.set_client(&id, &secret);
        home.keep_secret(&secret);
        let file = home.write(format!("secret-{identity}"), &secret, 0o600);
        write!(
            text,
            "[[workspace]]\nname = 'w{identity}'\nhost = '{}'\nauth = 'oauth-m2m'\nclient_id = '{id}'\n\
             client_secret_file = '{}'\n[[connection]]\nname = 'c{identity}'\nworkspace = 'w{identity}'\n\
             host = 'h{identity}.example'\n",
            workspace.url(),
            file.display()
        )
        .unwrap();
    }
    text
}

/// Runs it, and counts the samples in which a connection had no live password of its own.
fn no_sample_is_dead(identities: usize) {
    let long = std::env::var("DBX_ROTATOR_SOAK_SECONDS")
        .ok()
        .map_or(LONG, |seconds| Duration::from_secs(seconds.parse().unwrap()));
    let (workspace, home) = (Workspace::start(), Home::new());
    home.watch(&workspace);
    workspace.set_token_life(LIFE);
    home.write(".config/dbx-rotator/config.toml", configuration(&home, &workspace, identities), 0o600);
    let running = dbx_rotator!(&home).args(["run"]).trusting(&workspace).spawn();
    assert!(workspace.wait_for_tokens_issued(identities, Duration::from_secs(30)));
    let is_complete = |text: &str| text.lines().count() == identities;
    let began = Instant::now();
    while !is_complete(&home.pgpass()) {
        assert!(began.elapsed() < Duration::from_secs(30), "they are published at first");
        std::thread::sleep(PACE);
    }
    // The first part of an answer comes, and the rest of it later.
    for (endpoint, bytes) in [(Endpoint::Discovery, 400), (Endpoint::Token, 600)] {
        let hangs = || Fault::SlowBytes { bytes, pause: HANG };
        workspace.faults_on(endpoint).every(2, vec![Fault::Status(503), hangs(), Fault::Reset, hangs()]);
    }
    let holder = workspace.holders();
    let (began, mut samples, mut dead) = (Instant::now(), 0, Vec::new());
    while began.elapsed() < long {
        let (text, now) = (home.pgpass(), Timestamp::now().as_second());
        for identity in 0..identities {
            let entry = format!("h{identity}.example:5432:databricks_postgres:{}:", client_id(identity));
            let password = text.lines().find_map(|line| line.strip_prefix(&entry)).unwrap_or_default();
            samples += 1;
            if !holder(password).is_ok_and(|who| who.subject == client_id(identity) && who.expires_at > now) {
                dead.push((identity, began.elapsed().as_secs()));
            }
        }
        std::thread::sleep(PACE);
    }
    let requests = workspace.token_requests();
    eprintln!("{identities} identities: {} of {samples} samples dead, {requests} token requests", dead.len());
    dead.truncate(20);
    let outcome = running.terminate();
    outcome.exits(0);
    assert!(dead.is_empty(), "dead (identity, second): {dead:?}\n{outcome}");
}

#[test]
#[ignore = "ten minutes: tests/run soak"]
fn twenty_identities_never_have_a_dead_password_though_half_of_the_requests_fail_or_hang() {
    no_sample_is_dead(20);
}

#[test]
#[ignore = "ten minutes: tests/run soak"]
fn nor_has_one_alone() {
    no_sample_is_dead(1);
}
