//! What people have in their fingers who come from the Python tool `databricks-oauth-rotator`: its five commands, each option, its
//! log and its exit codes; and the page that leads them here, docs/from-python.md.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::os::unix::fs::symlink;
use std::time::Duration;

use crate::support::{Home, Session, Workspace};

/// Whatever happens at once has happened by then, on a machine under load.
const SOON: Duration = Duration::from_secs(30);

const ROTATOR: &str = "databricks-oauth-rotator";
const NAMES: [&str; 5] = [
    ROTATOR,
    "databricks-oauth-install",
    "databricks-oauth-status",
    "databricks-oauth-restart",
    "databricks-oauth-uninstall",
];

/// The lines of a rotation that the Python tool's README shows, without what differs each time.
const LINES: [&str; 8] = [
    " - INFO - Starting OAuth token rotation cycle\n",
    " - INFO - Successfully obtained token via OAuth M2M\n",
    " - INFO - New token details:\n",
    " - INFO -   - Subject: ",
    " - INFO -   - Expires at: 20",
    " - INFO -   - Valid for: 60 minutes\n",
    " - INFO - Successfully updated /",
    " - INFO - Token rotation completed successfully\n",
];

/// The program under one of the names, in an environment without settings.
fn bare<'a>(home: &'a Home, name: &str) -> Session<'a> {
    let link = home.path("bin").join(name);
    let _ = symlink(env!("CARGO_BIN_EXE_dbx-rotator"), &link);
    home.command(link)
}

/// The same with the variables that the Python tool needs.
fn called<'a>(home: &'a Home, workspace: &Workspace, name: &str) -> Session<'a> {
    bare(home, name).signed_in_to(workspace).env("DATABRICKS_PG_HOST", "db.example")
}

#[track_caller]
fn in_order(text: &str, lines: &[&str]) {
    let mut rest = text;
    for line in lines {
        let at = rest.find(line).unwrap_or_else(|| panic!("{line:?} is missing or out of order in\n{text}"));
        rest = &rest[at + line.len()..];
    }
}

// ---- the log and the exit codes ----

#[test]
fn a_rotation_is_told_on_stdout_and_in_the_old_log_which_goes_on() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let old = "2025-01-22 14:30:00 - INFO - Token rotation completed successfully\n";
    home.write(".databricks_oauth_rotator.log", old, 0o644);
    let done = called(&home, &workspace, ROTATOR).args(["--once"]).run();
    in_order(&done.exits(0).stdout, &LINES);
    assert_eq!(done.stderr, "");
    let log = home.read(".databricks_oauth_rotator.log");
    assert_eq!(log, format!("{old}{}", done.stdout), "the same lines");
    let stamp = done.stdout.split(" - ").next().unwrap();
    assert!(stamp.len() == 19 && stamp.chars().all(|c| c.is_ascii_digit() || "- :".contains(c)), "{stamp}");
}

#[test]
fn no_line_goes_to_stdout_twice() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let done = called(&home, &workspace, ROTATOR).args(["--once", "--log-file", "/dev/stdout"]).run();
    assert_eq!(done.exits(0).stdout.matches("Token rotation completed successfully").count(), 1, "{done}");
}

#[test]
fn a_failure_is_1_and_told_in_the_log_and_a_wrong_option_is_2_and_told_with_the_usage_of_the_name() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.set_client(workspace.client_id(), "another-0000000000");
    let failed = called(&home, &workspace, ROTATOR).args(["--once"]).env("DATABRICKS_CLIENT_SECRET", "wrong-one").run();
    failed.exits(1).stdout_has(" - ERROR - ");
    bare(&home, ROTATOR).args(["--once"]).run().exits(1).prints_nothing().stderr_has("DATABRICKS_HOST");
    for name in NAMES {
        let usage = called(&home, &workspace, name).args(["--interval"]).run();
        usage.exits(2).prints_nothing().stderr_has(&format!("Usage: {name}")).stderr_lacks("service ");
    }
}

#[test]
fn without_once_it_stays_and_rotates_after_50_minutes_at_the_latest() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let staying = called(&home, &workspace, ROTATOR).spawn();
    staying.prints("Token rotation completed successfully", SOON);
    let next = |words: &[&str]| called(&home, &workspace, ROTATOR).args(words).args(["status"]).run();
    next(&[]).exits(0).stdout_has("in 49 min");
    next(&["--interval", "45"]).exits(0).stdout_has("in 44 min");
    home.write(".config/dbx-rotator/config.toml", "interval = '30m'\n", 0o600);
    next(&[]).exits(0).stdout_has("in 29 min");
    staying.terminate().exits(0).stdout_has("Stopped");
}

// ---- each option ----

#[test]
fn each_option_of_the_rotator_does_what_it_did() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.watch(&workspace);
    let options = [
        ("--workspace-url", workspace.url()),
        ("--client-id", workspace.client_id().to_owned()),
        ("--client-secret", workspace.client_secret().to_owned()),
        ("--pg-host", "other.example".to_owned()),
        ("--pg-port", "6432".to_owned()),
        ("--pg-database", "app".to_owned()),
        ("--pg-username", workspace.client_id().to_owned()),
        ("--pgpass-file", home.path("other.pgpass").display().to_string()),
        ("--log-file", home.path("other.log").display().to_string()),
        ("--interval", "45".to_owned()),
    ];
    let words = options.iter().flat_map(|(option, value)| [(*option).to_owned(), value.clone()]);
    let done = bare(&home, ROTATOR).trusting(&workspace).arg("--once").args(words).shown_as("all options").run();
    in_order(&done.exits(0).stdout, &LINES);
    let entry = format!("other.example:6432:app:{}:eyJ", workspace.client_id());
    assert!(home.read("other.pgpass").starts_with(&entry), "{done}");
    in_order(&home.read("other.log"), &LINES);
    assert!(home.pgpass().is_empty() && !home.path(".databricks_oauth_rotator.log").exists());
}

#[test]
fn the_defaults_of_the_rotator_and_all_of_its_environment_are_what_they_were() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let user = workspace.client_id();
    called(&home, &workspace, ROTATOR).args(["--once"]).env("DATABRICKS_PG_USERNAME", user).run().exits(0);
    assert!(home.pgpass().starts_with(&format!("db.example:5432:databricks_postgres:{user}:eyJ")));
}

#[test]
fn a_login_that_is_needed_is_named_and_no_browser_is_opened() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let cli = home.install_cli(&workspace);
    let once = || {
        let session =
            bare(&home, ROTATOR).trusting(&workspace).args(["--once"]).env("DATABRICKS_HOST", workspace.url());
        session.env("DATABRICKS_PG_HOST", "db.example").run()
    };
    once().exits(0).stdout_has("Successfully obtained token via");
    cli.set_failure(Some(crate::support::cli::Failure::NotConfigured));
    once().exits(1).stdout_has(&format!("databricks auth login --host {}", workspace.url()));
    assert!(cli.invocations().iter().all(|call| !call.argv.contains(&"login".to_owned())));
}

#[test]
fn each_help_shows_its_own_usage_options_defaults_and_exit_codes() {
    let home = Home::new();
    for (name, has) in NAMES.into_iter().zip([
        &[
            "--once",
            "--workspace-url",
            "--client-id",
            "--client-secret",
            "--pg-host",
            "5432",
            "databricks_postgres",
            "--pg-username",
            "~/.pgpass",
            "~/.databricks_oauth_rotator.log",
            "[default: 50]",
        ][..],
        &["--workspace-url", "--pg-host", "--pg-username", "[default: 50]"],
        &["0 all is well, 1 not"],
        &[],
        &[],
    ]) {
        let help = bare(&home, name).arg("--help").run();
        help.exits(0).stdout_has(&format!("Usage: {name}")).stdout_has("2 usage").stdout_lacks("[COMMAND]");
        help.stdout_lacks("64 usage").stdout_lacks("--system");
        for text in has {
            help.stdout_has(text);
        }
    }
}

#[test]
fn the_other_commands_say_how_it_stands_and_write_nothing_without_a_service_manager() {
    let (workspace, home) = (Workspace::start(), Home::new());
    called(&home, &workspace, "databricks-oauth-status").run().exits(1).stdout_has("missing");
    for word in ["install", "restart", "uninstall"] {
        let said = called(&home, &workspace, &format!("databricks-oauth-{word}")).run();
        said.exits(1).stderr_has("no systemd manager of yours runs here");
        said.stderr_has(&format!("let `sudo dbx-rotator service {word} --system` do it"));
    }
    assert!(!home.path(".config").exists());
    called(&home, &workspace, ROTATOR).args(["--once"]).run().exits(0);
    called(&home, &workspace, "databricks-oauth-status").run().exits(0).stdout_has("live");
    let json = called(&home, &workspace, "databricks-oauth-status").args(["--json"]).run();
    assert_eq!(json.exits(0).json()["version"], 1, "nothing else is on stdout");
}

// ---- the page ----

/// What stands between backticks, or as a line of a block of commands.
fn commands(page: &str) -> Vec<Vec<String>> {
    let lines = page.split("```sh\n").skip(1).filter_map(|block| block.split("```").next()).flat_map(str::lines);
    let lines = lines.map(|line| line.split(" #").next().unwrap());
    let outside: String = page.split("```").step_by(2).collect();
    let flowing = outside.replace('\n', " ");
    let spans = flowing.split('`').skip(1).step_by(2);
    let words = lines.chain(spans).map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    words
        .filter(|words| words.first().is_some_and(|word| word == "dbx-rotator" || NAMES.contains(&word.as_str())))
        .collect()
}

#[test]
fn every_command_and_option_that_the_page_names_is_there() {
    let page = include_str!("../../docs/from-python.md");
    let (home, commands) = (Home::new(), commands(page));
    assert!(commands.len() > 20, "{commands:?}");
    for name in NAMES {
        assert!(commands.iter().any(|words| words[0] == name), "the page has no {name}");
    }
    for words in &commands {
        let words: Vec<&String> = words.iter().filter(|word| *word != "--help").collect();
        bare(&home, words[0]).args(&words[1..]).arg("--help").run().exits(0).stdout_has("Usage: ");
    }
    let flowing = page.replace('\n', " ");
    let options: Vec<&str> = flowing.split('`').skip(1).step_by(2).filter(|span| span.starts_with("--")).collect();
    assert!(options.len() >= 7, "{options:?}");
    for option in options {
        let value = if option == "--pg-port" { "5432" } else { "x" };
        let takes = |words: &[&str]| bare(&home, "dbx-rotator").args(words).arg("--help").run().code == Some(0);
        let install = ["service", "install", option];
        assert!(takes(&[option, value]) || takes(&install), "{option}");
    }
}
