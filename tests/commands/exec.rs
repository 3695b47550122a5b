//! `exec`: a program with a live password, in place of this one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Fault, Home, Outcome, Session, Workspace, dbx_rotator};

/// The entry that a rotation of this home's connection writes, up to the password.
fn entry(workspace: &Workspace) -> String {
    format!("db.example:5432:databricks_postgres:{}:", workspace.client_id())
}

/// `exec OPTIONS -- COMMAND`, with one connection.
fn exec<'a>(home: &'a Home, workspace: &Workspace, options: &[&str], command: &[&str]) -> Session<'a> {
    let session = dbx_rotator!(home).signed_in_to(workspace).env("DATABRICKS_PG_HOST", "db.example");
    session.arg("exec").args(options).arg("--").args(command)
}

/// What a program sees in these variables, one a line; `-` where it is not set.
fn seen(
    home: &Home,
    workspace: &Workspace,
    options: &[&str],
    inherited: &[(&str, &str)],
    names: &[&str],
) -> Vec<String> {
    let script: String = names.iter().map(|name| format!("echo \"${{{name}--}}\"\n")).collect();
    let session = exec(home, workspace, options, &["sh", "-c", &script]).may_print_secrets();
    let session = inherited.iter().fold(session, |session, (name, value)| session.env(name, value));
    session.run().exits(0).stdout.lines().map(str::to_owned).collect()
}

/// A home whose password was issued so long ago, and lives so much longer.
fn home_with(workspace: &Workspace, age: i64, left: i64) -> Home {
    let home = Home::new();
    let entry = super::commands::entry_of(workspace.client_id(), workspace.client_id(), age, left);
    home.write(".pgpass", entry, 0o600);
    home
}

#[test]
fn a_program_knows_where_to_log_in_and_finds_the_password_in_the_password_file() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let inherited = [
        ("PGPASSWORD", "an-old-one"),
        ("PGHOSTADDR", "192.0.2.1"),
        ("PGSERVICE", "elsewhere"),
        ("PGHOST", "elsewhere.example"),
        ("DATABRICKS_TOKEN", "dapi-not-for-others"),
        ("DATABRICKS_AUTH_TYPE", "oauth-m2m"),
        ("KEPT", "as it was"),
    ];
    let names = ["PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGSSLMODE", "KEPT"];
    let user = workspace.client_id();
    let told = seen(&home, &workspace, &[], &inherited, &names);
    assert_eq!(told, ["db.example", "5432", user, "databricks_postgres", "require", "as it was"]);
    let names = [
        "PGPASSWORD",
        "PGHOSTADDR",
        "PGSERVICE",
        "PGPASSFILE",
        "PGSSLROOTCERT",
        "DATABASE_URL",
        "DATABRICKS_CLIENT_SECRET",
        "DATABRICKS_TOKEN",
    ];
    assert_eq!(seen(&home, &workspace, &[], &inherited, &names), ["-"; 8]);
    assert!(home.pgpass().starts_with(&entry(&workspace)), "{}", home.pgpass());
    assert_eq!(workspace.token_requests(), 1, "a password that lives is not renewed");
}

#[test]
fn a_password_file_of_another_name_is_named_to_the_program() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let told = seen(&home, &workspace, &["--pgpass-file", "other"], &[("PGPASSFILE", "/nowhere")], &["PGPASSFILE"]);
    assert_eq!(told, [home.path("other").display().to_string()]);
    assert!(home.read("other").starts_with(&entry(&workspace)));
}

#[test]
fn the_environment_holds_the_password_where_that_is_asked_for() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let names = ["PGPASSWORD", "DATABASE_URL"];
    let password = seen(&home, &workspace, &["--password-env"], &[], &names);
    assert_eq!(home.pgpass(), format!("{}{}\n", entry(&workspace), password[0]));
    assert_eq!(password[1], "-");
    let url = seen(&home, &workspace, &["--url"], &[("PGPASSWORD", "an-old-one")], &names);
    let (user, password) = (workspace.client_id(), &password[0]);
    let expected = format!("postgresql://{user}:{password}@db.example:5432/databricks_postgres?sslmode=require");
    assert_eq!(url, ["-".to_owned(), expected]);
}

#[test]
fn a_due_password_is_renewed_first_and_a_live_one_serves_where_that_fails() {
    let workspace = Workspace::start();
    let home = home_with(&workspace, 3_000, 600);
    let old = home.pgpass();
    for fault in [Fault::Status(503), Fault::RetryAfterSeconds(600), Fault::Stall] {
        workspace.faults_on(crate::support::Endpoint::Token).always(fault);
        let outcome = exec(&home, &workspace, &[], &["echo", "it ran"]).run();
        outcome
            .exits(0)
            .stdout_has("it ran")
            .stderr_has("warning: default: not renewed")
            .stderr_has("lives 9 min more");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome}");
        assert_eq!(home.pgpass(), old);
    }
    workspace.heal();
    let outcome = exec(&home, &workspace, &[], &["cat", ".pgpass"]).may_print_secrets().run();
    assert!(outcome.exits(0).stdout != old && outcome.stdout == home.pgpass(), "it sees the new one");
    assert_eq!(outcome.stderr, "");
}

#[test]
fn nothing_runs_without_a_live_password() {
    let workspace = Workspace::start();
    let home = home_with(&workspace, 4_000, -60);
    workspace.set_client(workspace.client_id(), "another-0000000000");
    let outcome = exec(&home, &workspace, &[], &["touch", "it-ran"]).run();
    outcome.exits(77).stderr_has("error: ").stderr_has("hint: ");
    assert_eq!(outcome.stderr.matches("error").count(), 1, "it is said once\n{outcome}");
    assert!(!home.path("it-ran").exists());
}

#[test]
fn exit_code_signals_and_standard_input_are_the_programs_own() {
    let workspace = Workspace::start();
    let home = home_with(&workspace, 60, 3_000);
    exec(&home, &workspace, &[], &["sh", "-c", "exit 7"]).run().exits(7);
    exec(&home, &workspace, &[], &["cat"]).stdin("typed\n").run().exits(0).stdout_has("typed\n");
    exec(&home, &workspace, &[], &["sh", "-c", "kill -PIPE $$"]).run().ends_by(Signal::PIPE);
    let staying = exec(&home, &workspace, &[], &["sh", "-c", "echo $$ >&2; exec sleep 600"]).spawn();
    staying.says(&staying.pid().to_string(), Duration::from_secs(20));
    staying.terminate().ends_by(Signal::TERM);
    assert_eq!(workspace.connections(), 0, "nothing was due");
}

/// Compared with what the same shell sees when this test starts it.
#[cfg(target_os = "linux")]
#[test]
fn nothing_of_ours_is_left_to_the_program() {
    let workspace = Workspace::start();
    let home = home_with(&workspace, 3_000, 600);
    let script =
        "ls /proc/self/fd; grep -E '^(Shd|Sig[BCIP])' /proc/self/status; ulimit -c; ulimit -Hc; umask; pwd; echo $0 $*";
    let command = ["sh", "-c", script, "first", "--connection", "second"];
    let expected = home.command("sh").args(&command[1..]).run();
    expected.exits(0);
    let outcome = exec(&home, &workspace, &[], &command).run();
    outcome.exits(0);
    // Two beyond these are the C library's own; whether a child ignores them depends on the threads of this test.
    let standard = |line: &str| match line.split_once(":\t") {
        Some((name, mask)) if name.starts_with("Sig") => {
            format!("{name} {:x}", u64::from_str_radix(mask, 16).unwrap() & 0x7fff_ffff)
        }
        _ => line.to_owned(),
    };
    let [expected, seen] = [&expected, &outcome].map(|one| one.stdout.lines().map(standard).collect::<Vec<_>>());
    assert_eq!(seen, expected, "{outcome}");
    assert_eq!(workspace.token_requests(), 1, "there was something to leave behind");
}

#[test]
fn what_cannot_be_run_ends_as_in_a_shell() {
    let workspace = Workspace::start();
    let home = home_with(&workspace, 60, 3_000);
    home.write("no-program", "", 0o644);
    home.write("script", "echo a script without a first line", 0o755);
    let run = |command: &[&str]| -> Outcome { exec(&home, &workspace, &[], command).run() };
    run(&["no-such-program"]).exits(127).stderr_has("no-such-program").stderr_has("PATH");
    run(&["./absent/program"]).exits(127);
    run(&["psql -c 'select 1'"]).exits(127).stderr_has("without quotes");
    run(&["./no-program"]).exits(126).stderr_has("you may execute it");
    run(&["./tmp"]).exits(126);
    run(&["./script"]).exits(0).stdout_has("a script without");
}

#[test]
fn the_connection_may_be_left_out_where_there_is_one_and_the_program_may_not() {
    let (workspace, home) = (Workspace::start(), Home::new());
    exec(&home, &workspace, &["default"], &["true"]).run().exits(0);
    exec(&home, &workspace, &["orders"], &["true"]).run().exits(64).stderr_has("there is no connection named orders");
    let bare = || dbx_rotator!(home).signed_in_to(&workspace).env("DATABRICKS_PG_HOST", "db.example").arg("exec");
    bare().run().exits(64).stderr_has("-- <COMMAND>");
    bare().args(["default"]).run().exits(64).stderr_has("-- <COMMAND>");
    bare().args(["default", "psql"]).run().exits(64).stderr_has("exec [NAME] -- psql");
    let table = |name: &str| format!("[[connection]]\nname = '{name}'\nhost = '{name}.example'\ndatabase = '*'\n");
    home.write(".config/dbx-rotator/config.toml", table("one") + &table("two"), 0o600);
    let several = |options: &[&str]| {
        let script = "echo $PGHOST $PGDATABASE";
        exec(&home, &workspace, options, &["sh", "-c", script]).without_env("DATABRICKS_PG_HOST").run()
    };
    several(&[]).exits(64).prints_nothing().stderr_has("name one: one, two");
    several(&["two"]).exits(0).stdout_has("two.example databricks_postgres\n");
    assert!(!home.pgpass().contains("one.example"), "only what is asked for is renewed");
}
