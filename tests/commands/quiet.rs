//! `-q` says only what went wrong, and the form of an answer does not change its exit code.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use crate::support::{Home, Instance, Outcome, Workspace, dbx_rotator};

/// With a secret in an argument, which every command warns of.
fn run(home: &Home, workspace: &Workspace, words: &[&str]) -> Outcome {
    let session = dbx_rotator!(home).signed_in_to(workspace).env("DATABRICKS_PG_HOST", "db.example");
    let session = session.without_env("DATABRICKS_CLIENT_SECRET").args(["--client-secret", workspace.client_secret()]);
    session.args(words).may_print_secrets().run()
}

#[test]
fn a_quiet_command_prints_what_was_asked_for_and_says_nothing_else() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_instance(Instance::named("orders"));
    run(&home, &workspace, &["rotate"]).exits(0).stderr_has("WARNING");
    for (words, prints) in [
        (&["rotate"][..], ""),
        (&["rotate", "--if-due"], ""),
        (&["rotate", "--json"], "rotated"),
        (&["status"], ""),
        (&["status", "--json"], "live"),
        (&["check"], ""),
        (&["check", "--json"], "live"),
        (&["config", "check"], ""),
        (&["config", "show"], "password_file"),
        (&["config", "path"], "config.toml"),
        (&["connections"], "orders"),
        (&["token"], "ey"),
        (&["completions", "bash"], "dbx-rotator"),
        (&["exec", "-q", "--", "echo", "it ran"], "it ran"),
    ] {
        let words = if words[0] == "exec" { words.to_vec() } else { [words, &["-q"]].concat() };
        let outcome = run(&home, &workspace, &words);
        outcome.exits(0);
        assert_eq!(outcome.stderr, "", "{outcome}");
        assert!(
            if prints.is_empty() { outcome.stdout.is_empty() } else { outcome.stdout.contains(prints) },
            "{outcome}"
        );
    }
}

#[test]
fn a_quiet_command_says_what_went_wrong() {
    let (workspace, home) = (Workspace::start(), Home::new());
    run(&home, &workspace, &["status", "-q"]).exits(1).stdout_has("missing").stdout_lacks("password file:");
    run(&home, &workspace, &["check", "-q"]).exits(1).stdout_has("nobody can log in");
    run(&home, &workspace, &["token", "-q", "orders"]).exits(64).prints_nothing().stderr_has("error: ");
    workspace.set_client(workspace.client_id(), "another-0000000000");
    for words in [&["rotate", "-q"][..], &["connections", "-q"], &["exec", "-q", "--", "true"]] {
        let outcome = dbx_rotator!(home)
            .trusting(&workspace)
            .env("DATABRICKS_HOST", workspace.url())
            .env("DATABRICKS_PG_HOST", "db.example")
            .env("DATABRICKS_CLIENT_ID", workspace.client_id())
            .env("DATABRICKS_CLIENT_SECRET", "refused-0000000000")
            .args(words)
            .run();
        outcome.exits(77).prints_nothing().stderr_has("refused");
    }
}

#[test]
fn the_exit_code_does_not_depend_on_json() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let compare = |code: i32| {
        for words in
            [&["status"][..], &["check"], &["rotate", "--if-due", "--retry-for", "0"], &["connections"], &["token"]]
        {
            let expected = match (words[0], code) {
                ("status" | "check", 77) => 1,
                (_, code) => code,
            };
            for json in [&[][..], &["--json"]] {
                run(&home, &workspace, &[words, json].concat()).exits(expected);
            }
        }
    };
    workspace.set_client(workspace.client_id(), "another-0000000000");
    let secret = workspace.client_secret().to_owned();
    assert_ne!(secret, "another-0000000000");
    compare(77);
    workspace.set_client(workspace.client_id(), &secret);
    run(&home, &workspace, &["rotate"]).exits(0);
    compare(0);
}
