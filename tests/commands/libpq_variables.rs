//! PGHOST, PGPORT, PGDATABASE and PGUSER, as Databricks Apps set them: one target, which counts where nothing else names one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::support::{Home, Session, Workspace, dbx_rotator};

const APP: [(&str, &str); 4] =
    [("PGHOST", "app.example.com"), ("PGPORT", "6432"), ("PGDATABASE", "orders"), ("PGUSER", "app@example.com")];

fn show<'a>(home: &'a Home, arguments: &[&str]) -> Session<'a> {
    let session = dbx_rotator!(home).args(["config", "show"]).args(arguments);
    session.env("DATABRICKS_HOST", "https://dbc-1.example.com")
}

/// `KEY VALUE (SOURCE)` of each of the four, as `config show` prints them.
fn rows(shown: &str) -> Vec<String> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, connection) = shown.split_once("connection \"").unwrap();
    let is_one = |line: &String| ["host ", "port ", "database ", "user "].iter().any(|key| line.starts_with(key));
    connection.lines().map(words).filter(is_one).collect()
}

#[test]
fn they_count_last_and_together() {
    let port = ("port 5432 (default)", "database databricks_postgres (default)");
    let found = "user found when it signs in (default)";
    let by_app = [
        "host app.example.com ($PGHOST)",
        "port 6432 ($PGPORT)",
        "database orders ($PGDATABASE)",
        "user app@example.com ($PGUSER)",
    ];
    let other = ("DATABRICKS_PG_HOST", "other.example.com");
    let table = "[[connection]]\nhost = 'other.example.com'\n";
    // Variables beside those of the app, the configuration, flags, what is in effect.
    for (variables, file, flags, expected) in [
        (&[][..], "", &[][..], by_app),
        (&[], "interval = '30m'\n", &[], by_app),
        (
            &[("DATABRICKS_PG_USERNAME", "a@b.c")],
            "",
            &[],
            [by_app[0], by_app[1], by_app[2], "user a@b.c ($DATABRICKS_PG_USERNAME)"],
        ),
        (&[], "", &["--pg-port", "1"], [by_app[0], "port 1 (--pg-port)", by_app[2], by_app[3]]),
        (&[], "", &["--pg-database", "d"], [by_app[0], by_app[1], "database d (--pg-database)", by_app[3]]),
        // Where another host is named, a port or a user of theirs would be another server's.
        (&[other], "", &[], ["host other.example.com ($DATABRICKS_PG_HOST)", port.0, port.1, found]),
        (&[], "", &["--pg-host", "h.example.com"], ["host h.example.com (--pg-host)", port.0, port.1, found]),
        (&[], table, &[], ["host other.example.com (FILE:2)", port.0, port.1, found]),
        (&[], "[[connection]]\ninstance = 'orders'\n", &[], ["host found by the API (default)", port.0, port.1, found]),
    ] {
        let home = Home::new();
        let path = home.write(".config/dbx-rotator/config.toml", file, 0o600);
        let session =
            APP.iter().chain(variables).fold(show(&home, flags), |session, (name, value)| session.env(name, value));
        let outcome = session.run();
        let shown = outcome.exits(0).stdout.replace(path.to_str().unwrap(), "FILE");
        assert_eq!(rows(&shown), expected, "{variables:?} {file:?} {flags:?}\n{outcome}");
    }
}

#[test]
fn without_a_host_none_of_them_counts() {
    let home = Home::new();
    let session = APP[1..].iter().fold(show(&home, &[]), |session, (name, value)| session.env(name, value));
    session.run().exits(78).stderr_has("the PostgreSQL host is not set").stderr_has("$PGHOST");
}

#[test]
fn they_are_judged_as_other_values_are() {
    for (name, value, said) in [
        ("PGHOST", "\"app.example.com\"", "is in quotes"),
        ("PGHOST", "a.example.com,b.example.com", "$PGHOST"),
        ("PGPORT", "5432,5433", "$PGPORT: `5432,5433` is not a port"),
        ("PGPORT", "0", "$PGPORT"),
        ("PGPORT", "65536", "$PGPORT"),
        ("PGUSER", "<client-id>", "$PGUSER"),
        ("PGDATABASE", "a\nb", "$PGDATABASE"),
    ] {
        let home = Home::new();
        let session = APP.iter().fold(show(&home, &[]), |session, (name, value)| session.env(name, value));
        session.env(name, value).run().exits(78).stderr_has(said);
    }
    for (name, _) in APP {
        let home = Home::new();
        let session = APP.iter().fold(show(&home, &[]), |session, (name, value)| session.env(name, value));
        session.env(name, OsStr::from_bytes(b"\xff")).run().exits(78).stderr_has(&format!("${name} holds bytes"));
        // Where they do not count, whatever they hold is none of our business.
        let given = show(&home, &["--pg-host", "h.example.com"]).env(name, OsStr::from_bytes(b"\xff"));
        given.run().exits(0);
    }
}

#[test]
fn a_rotation_for_an_app_needs_nothing_else() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let session = dbx_rotator!(home).arg("rotate").signed_in_to(&workspace);
    let session = APP.iter().fold(session, |session, (name, value)| session.env(name, value));
    session.env("PGUSER", workspace.client_id()).run().exits(0);
    let prefix = format!("app.example.com:6432:orders:{}:eyJ", workspace.client_id());
    assert!(home.pgpass().starts_with(&prefix), "{}", home.pgpass());
}
