//! The settings: which source wins, the messages about faults, and that secrets are only shown as `(set)`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod paths;

use crate::support::{Home, Outcome, Session, Workspace, dbx_rotator};

const SECRET: &str = "dose-stand-in-secret-0000000000";
const FILE: &str = ".config/dbx-rotator/config.toml";

/// A complete configuration file.
const COMPLETE: &str = "\
interval = \"45m\"
password_file = \"~/other.pgpass\"

[[workspace]]
name = \"prod\"
host = \"https://dbc-1.cloud.databricks.com\"
client_id = \"0b1c2d3e-0000-4000-8000-00000000cafe\"
client_secret_file = \"secret\"

[[connection]]
name = \"orders\"
workspace = \"prod\"
host = \"ep-one.database.eu-west-1.cloud.databricks.com\"
";

fn config<'a>(home: &'a Home, arguments: &[&str]) -> Session<'a> {
    home.keep_secret(SECRET);
    dbx_rotator!(home).args(["config"]).args(arguments)
}

fn faulty(home: &Home, text: &str) -> Outcome {
    home.write(FILE, text, 0o600);
    let outcome = config(home, &["check"]).run();
    outcome.exits(78).prints_nothing();
    outcome
}

#[test]
fn a_secret_in_the_keychain_is_named_and_only_where_there_is_a_keychain_used() {
    let home = Home::new();
    let keychain = COMPLETE.replace("client_secret_file = \"secret\"", "client_secret_keychain = \"app.dbx-rotator\"");
    home.write(FILE, &keychain, 0o600);
    config(&home, &["show"]).run().exits(0).stdout_has("client_secret_keychain  app.dbx-rotator");
    if cfg!(not(target_os = "macos")) {
        let outcome = dbx_rotator!(home).arg("rotate").run();
        outcome.exits(78).stderr_has("only macOS has a keychain").stderr_has("client_secret_file");
    }
    let both = keychain.replace("client_secret_keychain", "client_secret_file = \"secret\"\nclient_secret_keychain");
    faulty(&home, &both).stderr_has("both in a file and in the keychain").stderr_has("9 | client_secret_keychain");
}

#[test]
fn flags_win_over_the_environment_that_over_the_file_that_over_the_profile() {
    let home = Home::new();
    home.write(FILE, COMPLETE, 0o600);
    home.write(
        ".databrickscfg",
        "[P]\nhost = https://from-profile\nclient_id = from-profile\nworkspace_id = 7\n",
        0o600,
    );
    let shown = |session: Session<'_>| session.run().exits(0).stdout.clone();
    let line = |text: &str, key: &str| text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();

    let file = shown(config(&home, &["show"]));
    assert!(line(&file, "host").contains("config.toml:6"), "{file}");
    assert!(line(&file, "interval").contains("45 min"), "{file}");
    let variable = shown(config(&home, &["show"]).env("DATABRICKS_HOST", "from-env.example"));
    let line_has = |text: &str, value: &str, origin: &str| {
        let host = line(text, "host");
        assert!(host.contains(value) && host.contains(origin), "{text}");
    };
    line_has(&variable, "https://from-env.example", "($DATABRICKS_HOST)");
    let flag = shown(
        config(&home, &["show", "--workspace-url", "from-flag.example"]).env("DATABRICKS_HOST", "from-env.example"),
    );
    line_has(&flag, "https://from-flag.example", "(--workspace-url)");
    home.write(
        FILE,
        "[[workspace]]\nprofile = 'P'\nclient_secret_file = 's'\n[[connection]]\nhost = 'h'\nuser = 'u'\n",
        0o600,
    );
    let profile = shown(config(&home, &["show"]));
    line_has(&profile, "https://from-profile", "(profile P)");
}

#[test]
fn secrets_are_shown_as_set() {
    let home = Home::new();
    config(&home, &["show", "--workspace-url", "x.example", "--client-id", "id", "--pg-host", "h"])
        .env("DATABRICKS_CLIENT_SECRET", SECRET)
        .run()
        .exits(0)
        .stdout_has("client_secret  (set)");
}

#[test]
fn a_secret_on_the_command_line_works_and_is_warned_of() {
    let home = Home::new();
    let words =
        ["show", "--workspace-url", "x.example", "--client-id", "id", "--pg-host", "h", "--client-secret", SECRET];
    config(&home, &words).run().exits(0).stdout_has("--client-secret can be read by everyone");
}

#[test]
fn what_is_missing_is_said_with_all_the_places_that_could_give_it() {
    let home = Home::new();
    let outcome = dbx_rotator!(home).args(["rotate"]).run();
    outcome
        .exits(78)
        .stderr_has("error: the workspace's address is not set: give it by one of:\n    --workspace-url URL\n    $DATABRICKS_HOST\n")
        .stderr_has("$DATABRICKS_HOST")
        .stderr_has("config.toml")
        .stderr_has("~/.databrickscfg")
        .stderr_has("--pg-host HOST")
        .stderr_has("`instance`")
        .stderr_has("dbx-rotator connections");
    assert!(outcome.stderr.lines().count() <= 24, "one screen\n{outcome}");
    assert!(home.files().is_empty(), "nothing is left behind");
}

#[test]
fn faults_in_the_file_are_pointed_at() {
    let home = Home::new();
    for (wrong, right, words, caret) in [
        ("host = \"https://dbc", "hosst = \"https://dbc", "unknown setting `hosst`", "6 | hosst"),
        ("\"45m\"", "\"soon\"", "`soon` is not a duration", "1 | interval"),
        ("\"45m\"", "\"10s\"", "between 1 minute and 24 hours", "1 | interval"),
        ("https://dbc-1.cloud", "http://dbc-1.cloud", "unencrypted", "6 | host"),
        ("workspace = \"prod\"", "workspace = \"test\"", "there is no workspace named `test`", "12 | workspace"),
        ("ep-one.", "ep-one-pooler.", "pooler does not take OAuth tokens", "13 | host"),
        ("client_secret_file = \"secret\"", "auth = \"basic\"", "signs in nowhere any more", "8 | auth"),
        (
            "client_secret_file = \"secret\"",
            "client_secret = \"dose-stand-in-secret-0000000000\"",
            "does not belong",
            "8 | client_secret",
        ),
        ("[[connection]]", "[[connection]", "", "10 | [[connection]"),
        ("name = \"orders\"", "port = 99999", "", "11 | port"),
        ("name = \"orders\"", "verify = \"maybe\"", "`maybe` is not a way to verify", "11 | verify"),
    ] {
        let text = COMPLETE.replace(wrong, right);
        assert_ne!(text, COMPLETE);
        let outcome = faulty(&home, &text);
        outcome.stderr_has(words).stderr_has(caret).stderr_has("config.toml:").stderr_has("^");
    }
}

#[test]
fn duplicates_are_refused() {
    let home = Home::new();
    let second = |name: &str, host: &str| format!("{COMPLETE}\n[[connection]]\nname = '{name}'\nhost = '{host}'\n");
    faulty(&home, &second("orders", "other")).stderr_has("two connections named `orders`");
    faulty(&home, &second("more", "ep-one.database.eu-west-1.cloud.databricks.com"))
        .stderr_has("same host, port, database and user");
    faulty(&home, &second("", "other")).stderr_has("name cannot be empty");
}

#[test]
fn a_flag_that_cannot_say_which_connection_is_a_usage_error() {
    let home = Home::new();
    home.write(FILE, format!("{COMPLETE}\n[[connection]]\nname = 'two'\nhost = 'h2'\n"), 0o600);
    config(&home, &["check", "--pg-host", "x"]).run().exits(64).stderr_has("which of the 2 connections");
    config(&home, &["check"])
        .env("DATABRICKS_PG_HOST", "x")
        .run()
        .exits(0)
        .stdout_has("$DATABRICKS_PG_HOST is ignored");
}

#[test]
fn a_systemd_credential_gives_the_secret() {
    let home = Home::new();
    home.write("credentials/client-secret", SECRET, 0o400);
    let words = ["show", "--workspace-url", "x.example", "--client-id", "id", "--pg-host", "h"];
    config(&home, &words)
        .env("CREDENTIALS_DIRECTORY", home.path("credentials"))
        .run()
        .exits(0)
        .stdout_has("systemd credential");
}

#[test]
fn a_credential_without_a_name_is_not_given_to_several_workspaces() {
    let home = Home::new();
    home.write("credentials/client-secret", SECRET, 0o400);
    let text = "[[workspace]]\nname = 'prod'\nhost = 'p.example'\nclient_id = 'c'\n\
                [[workspace]]\nname = 'dev'\nhost = 'd.example'\n\
                [[connection]]\nworkspace = 'dev'\nhost = 'h'\nuser = 'ada@example.com'\n";
    home.write(FILE, text, 0o600);
    let show = || config(&home, &["show"]).env("CREDENTIALS_DIRECTORY", home.path("credentials")).run();
    let outcome = show();
    assert_eq!(outcome.exits(0).stdout.matches("systemd credential").count(), 1, "{outcome}");
    // What a fragment adds gets nothing of it, and takes it from nobody.
    let added = "[[workspace]]\nname = 'added'\nhost = 'a.example'\nclient_id = 'a'\n";
    home.write(".config/dbx-rotator/conf.d/added.toml", added, 0o600);
    show()
        .exits(78)
        .stderr_has("workspace added")
        .stderr_has("call it client-secret.added")
        .stderr_lacks("client-secret.prod");
    home.write("credentials/client-secret.added", SECRET, 0o400);
    assert_eq!(show().exits(0).stdout.matches("systemd credential").count(), 2);
    // Of two that could be meant, neither gets it.
    home.write(FILE, text.replace("'d.example'\n", "'d.example'\nclient_id = 'd'\n"), 0o600);
    show().exits(78).stderr_has("call it client-secret.prod").stderr_has("call it client-secret.dev");
}

#[test]
fn what_is_wrong_is_blamed_on_where_it_came_from() {
    let home = Home::new();
    let with = |more: &[&str]| {
        let words = ["check", "--workspace-url", "x.example", "--pg-username", "ada@example.com"];
        config(&home, &[&words[..], more].concat()).env("DATABRICKS_PG_HOST", "h.example").run()
    };
    with(&["--pg-database", ""]).exits(78).stderr_has("--pg-database: the database is empty");
    with(&["--pg-port", "0"]).exits(78).stderr_has("--pg-port: the port is 0");
    with(&["--pg-host", "h.example:5433"]).exits(78).stderr_has("--pg-port 5433");
    with(&["--pg-host", "postgres://h.example"]).exits(78).stderr_has("given as a connection URL");
}

#[test]
fn a_profile_without_a_workspace_says_so_in_the_clis_way() {
    let home = Home::new();
    home.write(".databrickscfg", "[P]\nhost = p.example\nworkspace_id = none\n", 0o600);
    let words = ["show", "--profile", "P", "--pg-host", "h", "--pg-username", "u"];
    config(&home, &words).run().exits(0).stdout_lacks("workspace_id");
}

#[test]
fn half_a_client_says_which_half_is_missing() {
    let home = Home::new();
    let words = ["check", "--workspace-url", "x.example", "--client-id", "id", "--pg-host", "h"];
    config(&home, &words)
        .run()
        .exits(78)
        .stderr_has("the client secret is not set")
        .stderr_has("--client-secret-file PATH");
}

#[test]
fn files_that_are_too_large_or_nested_too_deep_are_refused_before_they_are_parsed() {
    let home = Home::new();
    let deep = format!("[[connection]]\non_rotate = {}\n", "[".repeat(500_000));
    faulty(&home, &deep).stderr_has("nested deeper than 16 levels");
    faulty(&home, &"[".repeat(3_000_000)).stderr_has("larger than 1024 KiB");
    let many: String =
        (0..100_000).map(|number| format!("[[connection]]\nname='c{number}'\nhost='h{number}'\n")).collect();
    faulty(&home, &many).stderr_has("larger than 1024 KiB");
    let many: String =
        (0..10_001).map(|number| format!("[[connection]]\nname='c{number}'\nhost='h{number}'\n")).collect();
    faulty(&home, &many).stderr_has("there are 10001 connections, and at most 10000");
    std::fs::remove_file(home.path(FILE)).unwrap();
    let sections = |most: usize| (0..most).map(|number| format!("[p{number}]\nhost=x\n")).collect::<String>();
    let profile = || config(&home, &["check", "--profile", "gone"]);
    home.write(".databrickscfg", sections(100_000), 0o600);
    profile().run().exits(78).stderr_has("larger than 1024 KiB");
    home.write(".databrickscfg", sections(60_000), 0o600);
    let outcome = profile().run();
    outcome.exits(78).stderr_has("has no gone profile configured").stderr_has("p19, ...");
    assert!(outcome.stderr.len() < 2_000, "{} bytes", outcome.stderr.len());
}

#[test]
fn usage_errors_are_64_and_help_is_0() {
    let home = Home::new();
    dbx_rotator!(home).args(["--no-such"]).run().exits(64).stderr_has("--no-such");
    dbx_rotator!(home).args(["--help"]).run().exits(0).stdout_has("--workspace-url");
    dbx_rotator!(home).args(["--version"]).run().exits(0).stdout_has("dbx-rotator");
    for command in ["rotate", "run", "status", "token", "config"] {
        dbx_rotator!(home).args([command, "--help"]).run().exits(0).stdout_has("Usage: dbx-rotator");
    }
}

#[test]
fn a_host_that_cannot_exist_is_refused_before_anything_is_published() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let rows = [
        ("DATABRICKS_PG_HOST", "\"db.example.com\"", "is in quotes"),
        ("DATABRICKS_PG_HOST", "${PGHOST}", "is a variable"),
        ("DATABRICKS_PG_HOST", "ada@db.example.com", "is a user and a host"),
        ("DATABRICKS_PG_HOST", "db.example.com/databricks_postgres?sslmode=require", "with a path or an option"),
        ("DATABRICKS_PG_USERNAME", "<client-id>", "placeholder"),
        ("DATABRICKS_HOST", "https://{workspace}.x", "is not a workspace address"),
    ];
    for (variable, value, says) in rows {
        let command =
            dbx_rotator!(home).args(["rotate"]).signed_in_to(&workspace).env("DATABRICKS_PG_HOST", "db.example");
        command.env(variable, value).run().exits(78).stderr_has(value).stderr_has(says);
        assert_eq!(home.pgpass(), "");
    }
    assert!(workspace.requests().is_empty());
}

#[test]
fn a_variable_that_is_no_text_is_a_fault_and_not_an_unset_one() {
    use std::os::unix::ffi::OsStringExt;
    let home = Home::new();
    home.write(FILE, COMPLETE, 0o600);
    for name in [
        "DATABRICKS_HOST",
        "DATABRICKS_CLIENT_ID",
        "DATABRICKS_CLIENT_SECRET",
        "DATABRICKS_CONFIG_PROFILE",
        "DATABRICKS_AUTH_TYPE",
        "DATABRICKS_WORKSPACE_ID",
        "DATABRICKS_PG_HOST",
        "DATABRICKS_PG_USERNAME",
    ] {
        let bytes = std::ffi::OsString::from_vec(b"caf\xe9".to_vec());
        let outcome = config(&home, &["check"]).env(name, bytes).run();
        outcome.exits(78).stderr_has(&format!("${name} holds bytes that are not UTF-8"));
    }
}

#[test]
fn what_shells_and_editors_put_around_a_client_id_is_no_part_of_it_and_quotes_are_reported() {
    let home = Home::new();
    home.write(FILE, COMPLETE, 0o600);
    let id = "0b1c2d3e-0000-4000-8000-00000000cafe";
    let show = |value: &str| {
        config(&home, &["show"])
            .env("DATABRICKS_HOST", "https://dbc-1.cloud.databricks.com")
            .env("DATABRICKS_CLIENT_SECRET", SECRET)
            .env("DATABRICKS_CLIENT_ID", value)
            .run()
    };
    for value in [format!("{id}\r"), format!("\u{feff}{id}\n"), format!(" {id} ")] {
        let shown = show(&value).exits(0).stdout.clone();
        let words = ["client_id", id, "($DATABRICKS_CLIENT_ID)"];
        assert!(shown.lines().any(|line| line.split_whitespace().eq(words)), "{shown}");
    }
    for value in [format!("\"{id}\""), format!("'{id}'")] {
        show(&value).exits(78).stderr_has("$DATABRICKS_CLIENT_ID: the client id begins or ends with");
    }
}
