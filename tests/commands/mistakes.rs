//! What people type or paste by mistake is answered by what they want.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use crate::support::{Home, Outcome, Workspace, dbx_rotator};

const HOST: &str = "host = 'db.example'";

fn typed(home: &Home, words: &[&str]) -> Outcome {
    dbx_rotator!(home).args(words).run()
}

#[test]
fn a_command_or_an_option_that_does_not_exist_is_answered_by_what_is_wanted() {
    let home = Home::new();
    for (words, message, hint) in [
        (&["signin"][..], "error: there is no command `signin`\n", "dbx-rotator login"),
        (&["install"], "error: there is no command `install`\n", "hint: did you mean `dbx-rotator service install`?\n"),
        (&["rotat"], "error: there is no command `rotat`\n", "hint: did you mean `rotate`?\n"),
        (&["service", "enable"], "error: `service` has no command `enable`\n", "dbx-rotator service install"),
        (&["rotate", "--host", "h"], "error: there is no option `--host` here\n", "--pg-host"),
        (&["status", "--jsno"], "error: there is no option `--jsno` here\n", "hint: did you mean --json?\n"),
        (&["exec", "orders", "psql"], "error: `exec` does not know where the program begins\n", "exec [NAME] -- psql"),
    ] {
        typed(&home, words).exits(64).prints_nothing().stderr_has(message).stderr_has(hint);
    }
}

#[test]
fn a_pasted_connection_is_explained_and_its_password_is_not_repeated() {
    let home = Home::new();
    home.keep_secret("hunter2-hunter2");
    let parts = "--pg-host db.example --pg-database app --pg-username ada";
    for (words, message, hint) in [
        (&["psql", "-h", "db.example"][..], "that is a psql command", "dbx-rotator exec NAME -- psql"),
        (&["postgres://ada:hunter2-hunter2@db.example/app"], "that is a connection URL", parts),
        (&["host=db.example dbname=app user=ada password=hunter2-hunter2"], "that is a connection string", parts),
        (&["rotate", "<name>"], "placeholder", "write the value itself"),
        (
            &["token", "postgres://ada:hunter2-hunter2@db.example/app"],
            "a connection URL",
            "--host db.example --user ada",
        ),
    ] {
        let session = dbx_rotator!(home).args(words).env("DATABRICKS_HOST", "dbc-1.cloud.databricks.com");
        let outcome = session.env("DATABRICKS_PG_HOST", "db.example").env("DATABRICKS_PG_USERNAME", "ada").run();
        outcome.exits(64).prints_nothing().stderr_has(message).stderr_has(hint);
    }
    let hint = "write db.example as the host, app as the database, ada as the user";
    for given in [
        "postgres://ada:hunter2-hunter2@db.example/app",
        "host=db.example dbname=app user=ada password=hunter2-hunter2",
    ] {
        let words = ["--workspace-url", "dbc-1.cloud.databricks.com", "status", "--pg-host", given];
        typed(&home, &words).exits(78).stderr_has("the PostgreSQL host is given as").stderr_has(hint);
        home.write(".config/dbx-rotator/config.toml", format!("[[connection]]\nhost = '{given}'\n"), 0o600);
        let outcome = typed(&home, &["--workspace-url", "dbc-1.cloud.databricks.com", "status"]);
        outcome.exits(78).stderr_has(hint).stderr_has("config.toml:2:8");
    }
}

#[test]
fn a_key_that_does_not_exist_is_answered_by_the_one_that_was_meant() {
    let (workspace, home) = (Workspace::start(), Home::new());
    for (text, message, hint) in [
        ("[[connection]]\nhots = 'h'\n".to_owned(), "unknown setting `hots`", "hint: did you mean host?\n"),
        (
            format!("client-id = 'x'\n[[connection]]\n{HOST}\n"),
            "unknown setting `client-id`",
            "client_id? It belongs under [[workspace]]",
        ),
        (format!("[connection]\n{HOST}\n"), "must be a list of tables", "write [[connection]] above"),
    ] {
        home.write(".config/dbx-rotator/config.toml", text, 0o600);
        for command in [&["status"][..], &["config", "check"]] {
            let outcome = dbx_rotator!(home).args(command).signed_in_to(&workspace).run();
            outcome.exits(78).prints_nothing().stderr_has(message).stderr_has(hint);
        }
    }
}
