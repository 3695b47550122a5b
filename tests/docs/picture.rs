//! docs/terminal.svg shows what the program prints now: it is drawn from a real session at a terminal, by docs/make-picture.
//!
//! `docs/make-picture` sets `DBX_ROTATOR_PICTURE` to write the file; without it the test compares.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::page::repository;
use crate::reader::Reader;
use crate::support::{assert_no_secret, skip};

const PICTURE: &str = "docs/terminal.svg";

/// What `setup` has written before the picture begins.
const CONFIGURATION: &str = "# ~/.config/dbx-rotator/config.toml
[[workspace]]
host = \"https://dbc-1234.cloud.databricks.com\"

[[connection]]
instance = \"orders\"
";

/// The session in the picture.
const TYPED: [&str; 3] =
    ["dbx-rotator rotate", "psql service=orders -c 'select current_user, current_database()'", "dbx-rotator status"];

/// What the terminal showed, while a daemon renews the password as the service does.
fn session(reader: &Reader) -> String {
    reader.write_configuration(CONFIGURATION);
    let _daemon = reader.daemon();
    let mut shown = String::new();
    for command in TYPED {
        let outcome = reader.typed(command);
        outcome.exits(0);
        shown += &format!("$ {command}\n{}\n", reader.shown(&outcome.stdout).trim_end());
    }
    shown
}

fn drawn(session: &str) -> String {
    let mut artist = Command::new(repository().join("docs/make-picture"))
        .arg("--draw")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    artist.stdin.take().unwrap().write_all(session.as_bytes()).unwrap();
    let outcome = artist.wait_with_output().unwrap();
    assert!(outcome.status.success());
    String::from_utf8(outcome.stdout).unwrap()
}

#[test]
fn the_picture_shows_what_the_program_prints() {
    let reader = match Reader::new() {
        Ok(reader) => reader,
        Err(reason) => return skip("the_picture_shows_what_the_program_prints", &reason),
    };
    let session = session(&reader);
    assert!(session.contains("orders") && session.contains("live"), "{session}");
    let picture = drawn(&session);
    assert_no_secret(PICTURE, &picture, &reader.workspace.secrets());
    let file = repository().join(PICTURE);
    if std::env::var_os("DBX_ROTATOR_PICTURE").is_some() {
        fs::write(file, picture).unwrap();
        return;
    }
    let known = fs::read_to_string(file).unwrap_or_default();
    assert!(picture == known, "the session is now\n{session}\ndocs/make-picture draws {PICTURE} anew");
}
