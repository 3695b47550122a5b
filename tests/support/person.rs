//! A person at a terminal, with a browser: logs in to a stand-in workspace as a real one does.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: each user takes a part of it, and a broken stand-in should stop the test loudly"
)]

use std::fs;
use std::path::PathBuf;

use super::session::{Home, Session};
use super::workspace::Workspace;

/// What a person does in a browser, without one.
const SCRIPT: &str = include_str!("person.py");

/// Where a home keeps its logins.
pub const LOGINS: &str = ".local/state/dbx-rotator/logins";

/// Gives this home a browser whose owner does this on the workspace's page: `allow`, `deny`, `nothing`.
pub fn install(home: &Home, workspace: &Workspace, does: &str) {
    let person = home.write("bin/person", SCRIPT, 0o755);
    let ca = workspace.ca_file();
    let line = format!("exec '{}' '{}' {does} \"$1\" >\"$HOME/tmp/browsed\" 2>&1", person.display(), ca.display());
    home.write("bin/browse", format!("#!/bin/sh\n{line}\n"), 0o755);
}

/// The program as this person types it at a terminal.
pub fn typed<'a>(home: &'a Home, workspace: &Workspace, program: &str, words: &str) -> Session<'a> {
    let line = format!("'{program}' {words}");
    home.command("script").at_terminal((400, 50), &line).trusting(workspace).env("BROWSER", "browse")
}

/// The files of the only login of a home: its description and its tokens.
pub fn files(home: &Home) -> (PathBuf, PathBuf) {
    let all: Vec<PathBuf> = fs::read_dir(home.path(LOGINS)).expect("logins").map(|file| file.unwrap().path()).collect();
    let of = |kind: &str| all.iter().find(|path| path.extension().is_some_and(|is| is == kind)).expect(kind).clone();
    (of("json"), of("token"))
}

/// The kept access token does not live long enough any more; and the refresh token is this one, where one is given.
pub fn let_it_age(home: &Home, refresh_token: Option<&str>) {
    let (_, tokens) = files(home);
    let mut kept: serde_json::Value = serde_json::from_str(&fs::read_to_string(&tokens).unwrap()).unwrap();
    kept["access_token"] = "e30.e30.c2ln".into();
    kept["expires_at"] = "2026-01-01T00:00:00Z".into();
    if let Some(refresh_token) = refresh_token {
        kept["refresh_token"] = refresh_token.into();
    }
    fs::write(&tokens, kept.to_string()).unwrap();
}
