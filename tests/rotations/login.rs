//! The purpose of it all: psql logs in to a real PostgreSQL with the password file, at any time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops where it fails, and says what it counted"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::postgres::psql_program;
use crate::support::{Fault, Home, Postgres, Session, Workspace, dbx_rotator, skip};
use rustix::process::Signal;

/// How long the long tests keep logging in.
const LONG: Duration = Duration::from_secs(120);

/// How often: ten times a second.
const PACE: Duration = Duration::from_millis(100);

/// A PostgreSQL that accepts this workspace's tokens, or a skipped test.
fn postgres(test: &str, workspace: &Workspace, user: &str) -> Option<Postgres> {
    Postgres::start(workspace, &[user]).map_err(|reason| skip(test, &reason)).ok()
}

/// The program with only the three documented variables, and what it needs to sign in.
fn rotator<'a>(home: &'a Home, workspace: &Workspace, server: &Postgres, user: &str) -> Session<'a> {
    home.watch(workspace);
    dbx_rotator!(home)
        .trusting(workspace)
        .env("DATABRICKS_HOST", workspace.url())
        .env("DATABRICKS_PG_HOST", "127.0.0.1")
        .env("DATABRICKS_PG_USERNAME", user)
        .args(["--pg-port", &server.port().to_string()])
}

fn log_in(server: &Postgres, file: &Path, user: &str) -> Result<(), String> {
    let output = server.psql(file, user, "select current_user");
    let who = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && who == user {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn after_one_rotation_psql_logs_in_and_again_after_the_next() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let user = workspace.client_id();
    let Some(server) = postgres("after_one_rotation_psql_logs_in_and_again_after_the_next", &workspace, user) else {
        return;
    };
    let file = home.path(".pgpass");
    log_in(&server, &file, user).expect_err("there is no password yet");
    for _ in 0..2 {
        rotator(&home, &workspace, &server, user).signed_in_to(&workspace).args(["rotate"]).run().exits(0);
        log_in(&server, &file, user).unwrap();
    }
    assert_eq!(server.logins().iter().filter(|login| login.accepted()).count(), 2);
}

#[test]
fn a_program_that_exec_runs_logs_in_by_the_file_the_environment_or_the_url() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let user = workspace.client_id();
    let name = "a_program_that_exec_runs_logs_in_by_the_file_the_environment_or_the_url";
    let Some(server) = postgres(name, &workspace, user) else { return };
    let psql = psql_program().unwrap();
    let psql = format!("'{}' -X -w -A -t -c 'select current_user'", psql.display());
    let (by_variables, by_url) = (psql.clone(), format!("env -u PGHOST -u PGPORT -u PGUSER {psql} \"$DATABASE_URL\""));
    let passfile = home.path("secret place").display().to_string();
    for (options, script) in [
        (&[][..], &by_variables),
        (&["--pgpass-file", &passfile], &by_variables),
        (&["--password-env"], &format!("PGPASSFILE=/dev/null {by_variables}")),
        (&["--url"], &format!("PGPASSFILE=/dev/null {by_url}")),
    ] {
        // Before version 15, HOME did not count.
        let script = format!("export PGPASSFILE=\"${{PGPASSFILE-$HOME/.pgpass}}\"; {script}");
        let session = rotator(&home, &workspace, &server, user).signed_in_to(&workspace).arg("exec").args(options);
        session.args(["--", "sh", "-c", &script]).run().exits(0).stdout_has(user);
    }
    assert_eq!(server.logins().iter().filter(|login| login.accepted()).count(), 4);
}

#[test]
fn psql_of_any_version_proves_whose_server_it_is_by_the_platforms_authorities() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let user = workspace.client_id();
    let name = "psql_of_any_version_proves_whose_server_it_is_by_the_platforms_authorities";
    let Some(server) = postgres(name, &workspace, user) else { return };
    home.write(
        ".config/dbx-rotator/config.toml",
        format!(
            "[[connection]]\nhost = '127.0.0.1'\nport = {}\nsslmode = 'verify-full'\nservice_file = true\n",
            server.port()
        ),
        0o600,
    );
    // What stands for the platform's own file.
    home.watch(&workspace);
    let session = |arguments: &[&str]| dbx_rotator!(home).signed_in_to(&workspace).args(arguments);
    session(&["rotate"]).run().exits(0);
    let script = "export PGPASSFILE=\"$HOME/.pgpass\"; exec \"$0\" -X -w -A -t -c 'select current_user' \"$1\"";
    let psql = psql_program().unwrap();
    for target in ["", "service=default"] {
        let words = ["sh", "-c", script, psql.to_str().unwrap(), target];
        let session = if target.is_empty() {
            session(&[&["exec", "--"][..], &words].concat())
        } else {
            home.command(words[0]).args(&words[1..])
        };
        session.run().exits(0).stdout_has(user);
    }
    assert_eq!(server.logins().iter().filter(|login| login.accepted()).count(), 2);
}

/// Logs in at the pace for as long as `LONG`, while the program runs; no login may fail.
fn no_login_fails(session: Session<'_>, server: &Postgres, workspace: &Workspace, user: &str, file: &Path) {
    let running = session.args(["run"]).spawn();
    running.says("Token rotation completed successfully", Duration::from_secs(20));
    let started = Instant::now();
    let mut logins = 0_u32;
    while started.elapsed() < LONG {
        let next = started + PACE * logins;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        if let Err(said) = log_in(server, file, user) {
            panic!("login {logins} failed after {:?}: {said}\n{}", started.elapsed(), running.stderr());
        }
        logins += 1;
    }
    let (rotations, requests) = (workspace.tokens_issued(), workspace.token_requests());
    assert!(rotations >= 5, "the token was renewed only {rotations} times in {requests} requests");
    assert!(requests > rotations, "the workspace was to fail now and then");
    assert!(
        logins >= 200,
        "only {logins} logins in two minutes: this machine is too slow for the test to mean anything"
    );
    eprintln!("{logins} logins, none failed; {rotations} tokens in {requests} requests");
    running.terminate().exits(0);
}

fn faults() -> Vec<Fault> {
    vec![
        Fault::Status(503),
        Fault::Reset,
        Fault::TruncatedJson,
        Fault::RetryAfterSeconds(1),
        Fault::Html,
        Fault::Stall,
        Fault::MissingToken,
        Fault::Status(500),
    ]
}

#[test]
fn no_login_fails_in_two_minutes_though_every_third_request_does() {
    let workspace = Workspace::builder().token_life(Duration::from_secs(20)).start();
    let (home, user) = (Home::new(), workspace.client_id());
    let Some(server) = postgres("no_login_fails_in_two_minutes_though_every_third_request_does", &workspace, user)
    else {
        return;
    };
    workspace.fail_every(3, faults());
    let session = rotator(&home, &workspace, &server, user).signed_in_to(&workspace);
    no_login_fails(session, &server, &workspace, user, &home.path(".pgpass"));
}

#[test]
fn no_login_fails_either_with_a_cli_that_repeats_its_token_until_10_s_are_left() {
    let workspace = Workspace::builder().token_life(Duration::from_secs(30)).start();
    let (home, user) = (Home::new(), workspace.user().to_owned());
    let test = "no_login_fails_either_with_a_cli_that_repeats_its_token_until_10_s_are_left";
    let Some(server) = postgres(test, &workspace, &user) else { return };
    let cli = home.install_cli(&workspace);
    cli.set_refresh_window(Duration::from_secs(10));
    cli.set_knows_force_refresh(false);
    // The CLI makes one request for each call, and returns its old token if that fails.
    workspace.fail_every(3, faults().into_iter().filter(|fault| !matches!(fault, Fault::Stall)).collect());
    let session = rotator(&home, &workspace, &server, &user);
    no_login_fails(session, &server, &workspace, &user, &home.path(".pgpass"));
}

#[test]
fn a_live_password_survives_an_outage_and_a_dead_one_is_replaced_as_soon_as_it_ends() {
    let workspace = Workspace::builder().token_life(Duration::from_secs(16)).start();
    let (home, user) = (Home::new(), workspace.client_id());
    let test = "a_live_password_survives_an_outage_and_a_dead_one_is_replaced_as_soon_as_it_ends";
    let Some(server) = postgres(test, &workspace, user) else { return };
    let file = home.path(".pgpass");
    let running = rotator(&home, &workspace, &server, user).signed_in_to(&workspace).args(["run"]).spawn();
    let done = "Token rotation completed successfully";
    running.says(done, Duration::from_secs(20));
    workspace.outage_begins();
    running.says("next try in", Duration::from_secs(30));
    let (entry, before) = (home.pgpass(), running.stderr().matches(done).count());
    // psql is refused once the token has expired.
    while log_in(&server, &file, user).is_ok() {
        std::thread::sleep(PACE);
    }
    assert_eq!(home.pgpass(), entry, "an outage takes nothing away");
    workspace.outage_ends();
    running.says_times(before + 1, done, Duration::from_secs(60));
    log_in(&server, &file, user).unwrap();
    running.terminate().exits(0);
}

#[test]
fn run_ends_at_once_even_inside_a_request() {
    for signal in [Signal::TERM, Signal::INT] {
        let (workspace, home) = (Workspace::start(), Home::new());
        workspace.fail_next(Fault::Stall);
        let session = dbx_rotator!(home)
            .signed_in_to(&workspace)
            .env("DATABRICKS_PG_HOST", "db.example")
            .args(["run"])
            .patience(Duration::from_secs(20));
        let running = session.spawn();
        assert!(workspace.wait_for_token_requests(1, Duration::from_secs(20)));
        let asked = Instant::now();
        running.signal(signal);
        running.ends().exits(0).stderr_has("Stopped");
        // The request could take 30 s.
        assert!(asked.elapsed() < Duration::from_secs(10), "it waited for the request: {:?}", asked.elapsed());
        assert_eq!(home.pgpass(), "");
    }
}

#[test]
fn run_is_what_no_command_means() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let running = dbx_rotator!(home).signed_in_to(&workspace).env("DATABRICKS_PG_HOST", "db.example").spawn();
    running.says("Keeping 1 connection alive", Duration::from_secs(20));
    running.says("Token rotation completed successfully", Duration::from_secs(20));
    running.terminate().exits(0);
}
