//! `rotate --token-stdin`: a token that somebody else got is published, unless that would lock somebody out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::time::Duration;

use super::commands::entry_of;
use crate::support::{Home, Session, Workspace, dbx_rotator};

fn hand_over<'a>(home: &'a Home, workspace: &Workspace, token: &str) -> Session<'a> {
    home.keep_secret(token.trim());
    let session = dbx_rotator!(home).args(["rotate", "--token-stdin"]).signed_in_to(workspace).stdin(token);
    session.env("DATABRICKS_PG_HOST", "db.example")
}

/// The token of such an entry.
fn token_of(entry: &str) -> String {
    entry.trim_end().rsplit(':').next().unwrap().to_owned()
}

#[test]
fn a_token_that_is_handed_over_is_published_with_the_files_beside_and_no_request() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let user = workspace.client_id().to_owned();
    let config =
        "[[connection]]\nhost = 'db.example'\ntoken_file = '~/token'\non_rotate = ['sh', '-c', 'echo told >>~/told']\n";
    home.write(".config/dbx-rotator/config.toml", config, 0o600);
    home.write(".pgpass", "# mine\nother:5432:*:bob:kept", 0o600);
    let token = token_of(&entry_of(&user, &user, 60, 3_000));
    let done = hand_over(&home, &workspace, &format!("{token}\n")).run();
    done.exits(0).stderr_has("Successfully updated ");
    let entry = format!("db.example:5432:databricks_postgres:{user}:{token}\n");
    assert_eq!(home.pgpass(), entry + "# mine\nother:5432:*:bob:kept\n");
    assert_eq!(home.read("token"), token);
    assert_eq!(workspace.requests(), Vec::<String>::new());
    // What it is good for: nothing is due.
    let status = dbx_rotator!(home).args(["status"]).signed_in_to(&workspace).run();
    status.exits(0).stdout_has("live");
    let next = dbx_rotator!(home).args(["rotate", "--if-due"]).signed_in_to(&workspace).run();
    next.exits(0);
    assert_eq!(
        (workspace.requests(), home.read("told")),
        (Vec::new(), "told\n".to_owned()),
        "the hook is told by the next run"
    );
}

#[test]
fn what_was_handed_over_is_our_own_work_and_no_other_writers() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let user = workspace.client_id().to_owned();
    let config =
        "password_file = ['~/.pgpass', '~/second']\n[[connection]]\nhost = 'db.example'\ntoken_file = '~/token'\n";
    home.write(".config/dbx-rotator/config.toml", config, 0o600);
    let run = |words: &[&str]| dbx_rotator!(home).args(words).signed_in_to(&workspace).run();
    run(&["rotate"]).exits(0);
    let token = token_of(&entry_of(&user, &user, 60, 2_000));
    hand_over(&home, &workspace, &token).run().exits(0);
    run(&["check"]).exits(0).stdout_has("password-live: default: live").stdout_lacks("other-writer");
    let answer = run(&["status", "--json"]).exits(0).json();
    let row = &answer["connections"][0];
    assert_eq!((&row["state"], &row["auth"]), (&"live".into(), &serde_json::Value::Null), "{answer}");
    // A file that goes back to what was there before gets it again, and not the other way round.
    let before = home.read("second").replace(&token, &token_of(&entry_of(&user, &user, 60, 3_000)));
    home.write("second", before, 0o600);
    run(&["rotate", "--if-due"]).exits(0);
    for file in [".pgpass", "second", "token"] {
        assert!(home.read(file).contains(&token), "{file}");
    }
}

#[test]
fn a_token_that_would_lock_somebody_out_is_refused_and_the_live_one_stays() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let user = workspace.client_id().to_owned();
    let live = entry_of(&user, &user, 60, 3_000);
    home.write(".pgpass", &live, 0o600);
    let expired = token_of(&entry_of(&user, &user, 7_200, -3_600));
    let anothers = token_of(&entry_of(&user, "eve@example.com", 60, 3_000));
    for (token, code, why) in [
        (expired.as_str(), 77, "has expired"),
        (&anothers, 77, "cannot log in as this user"),
        ("", 64, "there is none"),
        ("two words", 78, "cannot be a password"),
        ("<html>login</html>", 78, "this is no token"),
        (r#"{"token":"eyJhbGciOiJub25lIn0.e30.c2ln"}"#, 78, "this is no token"),
        ("dapi0123456789abcdef", 78, "a personal access token is no password"),
        (&"x".repeat(17_000), 64, "longer than 16 KiB"),
    ] {
        let refused = hand_over(&home, &workspace, token).run();
        refused.exits(code).stderr_has("error: ").stderr_has("hint: ").stderr_has(why);
        assert_eq!(home.pgpass(), live);
    }
    let any = hand_over(&home, &workspace, &anothers).arg("--any-identity").run();
    any.exits(0);
    assert!(home.pgpass().contains(&anothers));
}

#[test]
fn it_goes_to_one_connection_and_never_waits_for_a_person() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let config = "[[connection]]\nname = 'a'\nhost = 'a.example'\n[[connection]]\nname = 'b'\nhost = 'b.example'\n";
    home.write(".config/dbx-rotator/config.toml", config, 0o600);
    let bare = |token: &str| hand_over(&home, &workspace, token).without_env("DATABRICKS_PG_HOST");
    bare("opaque-0000").run().exits(64).stderr_has("which of the 2 connections?");
    bare("opaque-0000").args(["--connection", "a", "b"]).run().exits(64).stderr_has("for one connection");
    bare("opaque-0000").args(["--connection", "b"]).run().exits(0);
    assert!(home.pgpass().starts_with("b.example:5432:") && home.pgpass().ends_with(":opaque-0000\n"));
    for words in [&["--if-due"][..], &["--json"], &["--dry-run"]] {
        bare("opaque-0000").args(words).run().exits(64);
    }
    let line = format!("{} rotate --token-stdin --connection b", env!("CARGO_BIN_EXE_dbx-rotator"));
    let typed = home.command("script").signed_in_to(&workspace).at_terminal((80, 24), &line).spawn();
    typed.prints("it is a terminal", Duration::from_secs(20));
}
