//! The commands besides the rotation, and the log file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::os::unix::fs::symlink;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::support::{Fault, Home, Instance, Session, Workspace, dbx_rotator};

/// Whatever happens at once has happened by then, on a machine under load.
const SOON: Duration = Duration::from_secs(30);

fn rotator<'a>(home: &'a Home, workspace: &Workspace, arguments: &[&str]) -> Session<'a> {
    dbx_rotator!(home).args(arguments).signed_in_to(workspace).env("DATABRICKS_PG_HOST", "db.example")
}

// ---- status ----

#[test]
fn status_tells_what_is_live_and_what_is_not() {
    let (workspace, home) = (Workspace::start(), Home::new());
    rotator(&home, &workspace, &["status"])
        .run()
        .exits(1)
        .stdout_has("missing")
        .stdout_has("the password file does not exist");
    rotator(&home, &workspace, &["rotate"]).run().exits(0);
    rotator(&home, &workspace, &["status"])
        .run()
        .exits(0)
        .stdout_has("live")
        .stdout_has("in 59 min")
        .stdout_lacks("in 39 min")
        .stdout_has("nothing renews these passwords")
        .stdout_has("dbx-rotator service install");
    let outcome = rotator(&home, &workspace, &["status", "--json"]).run();
    let row = &outcome.exits(0).json()["connections"][0];
    assert_eq!((&row["renewed"], &row["next_rotation_at"]), (&false.into(), &serde_json::Value::Null), "{outcome}");
    // With a daemon, started by whatever.
    let running = rotator(&home, &workspace, &["run"]).spawn();
    running.says("Keeping 1 connection alive", SOON);
    rotator(&home, &workspace, &["status"]).run().exits(0).stdout_has("in 39 min").stdout_lacks("nothing renews");
    let outcome = rotator(&home, &workspace, &["status", "--json"]).run();
    let answer = outcome.exits(0).json();
    let row = &answer["connections"][0];
    assert_eq!(answer["version"], 1);
    for (key, value) in [
        ("name", "default"),
        ("host", "db.example"),
        ("database", "databricks_postgres"),
        ("user", workspace.client_id()),
        ("state", "live"),
        ("source", "workspace-token"),
        ("auth", "oauth-m2m"),
    ] {
        assert_eq!(row[key], value, "{outcome}");
    }
    for key in ["expires_at", "issued_at", "last_rotation_at", "last_attempt_at", "next_rotation_at"] {
        assert!(row[key].as_str().is_some_and(|time| time.ends_with('Z')), "{key} is RFC 3339 in UTC\n{outcome}");
    }
    assert_eq!((&row["last_error"], &row["renewed"]), (&serde_json::Value::Null, &true.into()));
    running.terminate();
    rotator(&home, &workspace, &["status"]).run().exits(0).stdout_has("nothing renews these passwords");
}

#[test]
fn check_finds_what_keeps_clients_from_the_password_file_and_names_it_by_an_id() {
    let (workspace, home) = (Workspace::start(), Home::new());
    rotator(&home, &workspace, &["rotate"]).run().exits(0);
    home.write("other", "", 0o600);
    let check = |words: &[&str]| {
        rotator(&home, &workspace, words)
            .env("PGPASSWORD", "hunter2hunter2")
            .env("PGPASSFILE", home.path("other"))
            .run()
    };
    let shown = check(&["check", "--pgpass-file", &home.path(".pgpass").display().to_string()]);
    shown.exits(0).stdout_lacks("hunter2").stderr_lacks("hunter2");
    for line in [
        "ok       password-live: default: live",
        "warning  pgpassword: ",
        "warning  pgpassfile: ",
        "warning  service-missing: ",
    ] {
        shown.stdout_has(line);
    }
    // Another program writes its own token into the entry.
    let theirs = workspace.issue(workspace.client_id(), Duration::from_secs(3_600));
    home.write(".pgpass", format!("db.example:5432:databricks_postgres:{}:{theirs}\n", workspace.client_id()), 0o600);
    let answer = rotator(&home, &workspace, &["check", "--json"]).run().exits(0).json();
    let findings = answer["findings"].as_array().unwrap();
    let level = |id: &str| findings.iter().find(|finding| finding["id"] == id).map(|finding| finding["level"].clone());
    assert_eq!(level("other-writer"), Some("warning".into()), "{answer}");
    assert_eq!(level("password-live"), Some("ok".into()), "{answer}");
    assert_eq!(level("pgpassword"), None, "{answer}");
}

#[test]
fn at_a_terminal_a_rotation_is_one_line_and_a_failure_is_an_error_with_a_hint() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let at_terminal = |words: &str| {
        let line = format!("{} {words}", env!("CARGO_BIN_EXE_dbx-rotator"));
        home.command("script")
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .signed_in_to(&workspace)
            .env("DATABRICKS_PG_HOST", "db.example")
    };
    let done = at_terminal("rotate").run();
    done.exits(0).stdout_has("1 password is live until ").stdout_lacks(" - INFO - ").stdout_lacks("Starting");
    assert_eq!(done.stdout.lines().count(), 1, "{done}");
    at_terminal("-v rotate").run().exits(0).stdout_has("Successfully updated").stdout_has("1 password is live until ");
    at_terminal("-q rotate").run().exits(0).stdout_lacks("live until");
    let refused = at_terminal("rotate").env("DATABRICKS_CLIENT_SECRET", "dose-not-the-secret").run();
    refused
        .exits(77)
        .stdout_has("error: ")
        .stdout_has("\nhint: ")
        .stdout_has("nothing was renewed")
        .stdout_lacks(" - ERROR - ");
    // What keeps what is said gets it with time and level.
    rotator(&home, &workspace, &["rotate"]).run().exits(0).stderr_has(" - INFO - Successfully updated");
}

#[test]
fn status_says_what_needs_a_person_and_plans_no_try_for_it() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let refused = || rotator(&home, &workspace, &["run"]).env("DATABRICKS_CLIENT_SECRET", "dose-not-the-secret");
    let running = refused().spawn();
    running.says("refused the sign-in", SOON);
    let shown = rotator(&home, &workspace, &["status"]).run();
    shown.exits(1).stdout_has("needs you").stdout_has("default: needs you: ").stdout_lacks("last try failed");
    running.terminate();
}

#[test]
fn status_asks_nobody_and_an_expired_entry_is_called_so() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let dead = workspace.issue(workspace.client_id(), Duration::ZERO);
    home.write(".pgpass", format!("db.example:5432:databricks_postgres:{}:{dead}\n", workspace.client_id()), 0o600);
    rotator(&home, &workspace, &["status"])
        .run()
        .exits(1)
        .stdout_has("expired")
        .stdout_has("its credential has expired");
    assert_eq!(workspace.connections(), 0);
}

// ---- token ----

#[test]
fn token_prints_the_published_one_and_asks_nobody() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let token = || rotator(&home, &workspace, &["token"]).may_print_secrets().run();
    let first = token();
    first.exits(0);
    assert!(home.pgpass().ends_with(&format!(":{}", first.stdout)), "what is printed is what is published");
    assert_eq!(token().exits(0).stdout, first.stdout);
    assert_eq!(workspace.token_requests(), 1);
}

#[test]
fn token_renews_what_does_not_live_long_enough() {
    let (workspace, home) = (Workspace::builder().token_life(Duration::from_secs(600)).start(), Home::new());
    rotator(&home, &workspace, &["rotate"]).run().exits(0);
    workspace.set_token_life(Duration::from_secs(3_600));
    let outcome = rotator(&home, &workspace, &["token", "--min-valid", "30m", "--json"]).may_print_secrets().run();
    assert!(outcome.exits(0).json()["expires_in_seconds"].as_i64().unwrap() > 1_800);
    assert_eq!(workspace.token_requests(), 2);
    rotator(&home, &workspace, &["token", "--min-valid", "2h"])
        .run()
        .exits(75)
        .prints_nothing()
        .stderr_has("were asked for");
}

#[test]
fn token_in_json_has_all_that_a_login_takes_and_when_it_is_due() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let json = |mode: &str| {
        let session = rotator(&home, &workspace, &["token", "--json", "--pg-port", "6432", "--pg-database", "app"]);
        session.env("PGSSLMODE", mode).may_print_secrets().run().exits(0).json()
    };
    let (first, strict) = (json("prefer"), json("verify-full"));
    let due = first["due_in_seconds"].as_i64().unwrap();
    assert!((2_300..=2_400).contains(&due), "20 minutes before an hour has passed: {due}");
    let place = [&first["host"], &first["database"], &first["user"], &first["connection"]];
    assert_eq!(place, ["db.example", "app", workspace.client_id(), "default"]);
    assert_eq!((&first["port"], &first["sslmode"]), (&6432.into(), &"require".into()));
    assert!(first["sslrootcert"].is_null());
    assert!(strict["sslmode"].is_null(), "the environment asks for more");
    // Past the refresh point, and the workspace does not answer.
    home.write(".pgpass", entry_of(workspace.client_id(), workspace.client_id(), 3_000, 600), 0o600);
    let _ = std::fs::remove_dir_all(home.path(".local/state"));
    workspace.fail_next(Fault::Status(503));
    let late = rotator(&home, &workspace, &["token", "--json"]).may_print_secrets().run().exits(0).json();
    assert!((-610..0).contains(&late["due_in_seconds"].as_i64().unwrap()), "{}", late["due_in_seconds"]);
}

/// An entry with a token that was issued so long ago and lives so much longer, in seconds.
pub(super) fn entry_of(user: &str, subject: &str, age: i64, left: i64) -> String {
    let now = jiff::Timestamp::now().as_second();
    let claims = format!(r#"{{"sub":"{subject}","iat":{},"exp":{}}}"#, now - age, now + left);
    let token = format!("eyJhbGciOiJub25lIn0.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(claims));
    format!("db.example:5432:databricks_postgres:{user}:{token}\n")
}

#[test]
fn token_hands_out_a_due_one_that_lives_when_it_cannot_be_renewed_and_does_not_wait_for_that() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let entry = entry_of(workspace.client_id(), workspace.client_id(), 3_000, 600);
    for fault in [Fault::Stall, Fault::Status(503), Fault::RetryAfterSeconds(600)] {
        home.write(".pgpass", &entry, 0o600);
        let _ = std::fs::remove_dir_all(home.path(".local/state"));
        workspace.fail_next(fault);
        let outcome = rotator(&home, &workspace, &["token"]).may_print_secrets().run();
        assert!(entry.ends_with(&format!(":{}", outcome.exits(0).stdout)), "{outcome}");
    }
    // On a busy machine it may not have waited until it had asked.
    let asked = workspace.token_requests();
    assert!((1..=3).contains(&asked), "{asked} requests");
    rotator(&home, &workspace, &["token", "--min-valid", "5m"]).may_print_secrets().run().exits(0);
    assert_eq!(workspace.token_requests(), asked, "after a failure nobody is asked again for a while");
}

#[test]
fn another_identitys_token_is_no_credential_whoever_put_it_there() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.write(".pgpass", entry_of(workspace.client_id(), "eve@example.com", 60, 3_000), 0o600);
    rotator(&home, &workspace, &["status"]).run().exits(1).stdout_has("missing").stdout_has("another identity's token");
    let token = rotator(&home, &workspace, &["token"]).may_print_secrets().run();
    assert!(home.pgpass().ends_with(&format!(":{}", token.exits(0).stdout)) && workspace.token_requests() == 1);
}

#[test]
fn what_cannot_be_printed_is_an_error() {
    let (workspace, home) = (Workspace::start(), Home::new());
    for command in ["token", "--help", "rotate --help", "--version", "completions bash", "connections --json"] {
        let script = format!("{} {command} > /dev/full", env!("CARGO_BIN_EXE_dbx-rotator"));
        let session = home.command("/bin/bash").signed_in_to(&workspace).env("DATABRICKS_PG_HOST", "db.example");
        session.args(["-c", &script]).run().exits(73).stderr_has("cannot write to standard output");
    }
}

#[test]
fn words_that_contradict_each_other_are_usage_errors() {
    let (workspace, home) = (Workspace::start(), Home::new());
    rotator(&home, &workspace, &["--once", "status"]).run().exits(64).stderr_has("--once");
    rotator(&home, &workspace, &["rotate", "--dry-run", "--json"]).run().exits(64).stderr_has("--dry-run");
    rotator(&home, &workspace, &["--interval", "0"]).run().exits(64);
}

#[test]
fn token_of_several_connections_must_be_told_which() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let table = |name: &str| format!("[[connection]]\nname = '{name}'\nhost = '{name}.example'\n");
    home.write(".config/dbx-rotator/config.toml", table("one") + &table("two"), 0o600);
    let session = || rotator(&home, &workspace, &["token"]).without_env("DATABRICKS_PG_HOST");
    session().run().exits(64).prints_nothing().stderr_has("name one: one, two");
    session().args(["two"]).may_print_secrets().run().exits(0);
    assert!(home.pgpass().starts_with("two.example:") && home.pgpass().lines().count() == 1);
}

#[test]
fn an_unknown_connection_is_an_error_of_usage_and_those_there_are_are_named() {
    let (workspace, home) = (Workspace::start(), Home::new());
    for command in [&["token", "orders"][..], &["status", "orders"], &["rotate", "--connection", "orders"]] {
        let outcome = rotator(&home, &workspace, command).run();
        outcome.exits(64).prints_nothing().stderr_has("no connection named orders").stderr_has("there are: default");
    }
    rotator(&home, &workspace, &["token", "defualt"]).run().exits(64).stderr_has("did you mean default?");
}

#[test]
fn token_finds_the_connection_by_the_host_and_user_that_a_client_hands_over() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.write(
        ".config/dbx-rotator/config.toml",
        "[[connection]]\nname = 'a'\nhost = 'a.example'\nuser = 'ada@example.com'\nany_identity = true\n\
         [[connection]]\nname = 'b'\nhost = 'b.example'\nport = 6432\nuser = 'ada@example.com'\nany_identity = true\n",
        0o600,
    );
    let token = |arguments: &[&str]| {
        let session = rotator(&home, &workspace, &["token"]).without_env("DATABRICKS_PG_HOST");
        session.args(arguments).may_print_secrets().run()
    };
    for found in [
        &["--host", "b.example", "--user", "ada@example.com"][..],
        &["--host", "B.Example", "--user", "Ada@example.com", "--port", "6432"],
    ] {
        let outcome = token(found);
        outcome.exits(0);
        assert!(home.pgpass().starts_with("b.example:6432:") && home.pgpass().ends_with(&outcome.stdout), "{outcome}");
    }
    assert_eq!(workspace.token_requests(), 1);
    for unknown in [
        &["--host", "c.example", "--user", "ada@example.com"][..],
        &["--host", "a.example", "--user", "eve@example.com"],
        &["--host", "a.example", "--user", "ada@example.com", "--port", "6432"],
    ] {
        token(unknown).exits(64).prints_nothing().stderr_has("b.example:6432 ada@example.com");
    }
    for half in [&["--host", "a.example"][..], &["a", "--host", "a.example", "--user", "u"], &["--port", "6432"]] {
        token(half).exits(64).prints_nothing();
    }
}

#[test]
fn token_by_host_looks_up_hosts_that_are_not_known_yet() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let user = workspace.client_id();
    workspace.add_instance(Instance::named("orders"));
    home.write(".config/dbx-rotator/config.toml", "[[connection]]\ninstance = 'orders'\n", 0o600);
    let host = workspace.instance("orders").host.unwrap();
    let token = |host: &str| {
        let session = rotator(&home, &workspace, &["token", "--host", host, "--user", user]);
        session.without_env("DATABRICKS_PG_HOST").may_print_secrets().run()
    };
    let outcome = token(&host);
    assert!(home.pgpass().ends_with(&outcome.exits(0).stdout) && home.pgpass().starts_with(&host), "{outcome}");
    token("c.example").exits(64).prints_nothing().stderr_has(&host);
}

// ---- logging ----

fn full_log() -> String {
    "2026-01-31 12:00:00 - INFO - Token rotation completed successfully\n".repeat(160_000)
}

#[test]
fn a_full_log_file_is_put_aside_and_five_old_ones_are_kept() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let full = full_log();
    for _ in 0..7 {
        home.write("r.log", &full, 0o600);
        let log = home.path("r.log").display().to_string();
        rotator(&home, &workspace, &["rotate", "--log-file", &log]).run().exits(0);
    }
    let mut logs: Vec<String> =
        home.files().iter().filter_map(|file| Some(file.to_str()?.strip_prefix("r.log")?.to_owned())).collect();
    logs.sort();
    assert_eq!(logs, ["", ".1", ".2", ".3", ".4", ".5"]);
    for log in logs {
        assert_eq!(home.mode(format!("r.log{log}")), 0o600);
    }
}

#[test]
fn a_log_file_that_cannot_be_written_is_said_before_anything_is_done() {
    let (workspace, home) = (Workspace::start(), Home::new());
    rotator(&home, &workspace, &["rotate", "--log-file", "/nowhere/x.log"])
        .run()
        .exits(73)
        .stderr_has("/nowhere/x.log");
    let (script, text) = (".bashrc", "alias psql='psql -X'\n");
    let path = home.write(script, text, 0o644);
    rotator(&home, &workspace, &["rotate", "--log-file", path.to_str().unwrap()])
        .run()
        .exits(73)
        .stderr_has("it holds something other than a log")
        .stderr_has("choose another with --log-file");
    assert_eq!((home.read(script).as_str(), home.mode(script)), (text, 0o644));
    assert_eq!(workspace.connections(), 0);
}

#[test]
fn a_log_that_is_no_file_is_written_to_and_never_put_aside() {
    let (workspace, home) = (Workspace::start(), Home::new());
    symlink("real.log", home.path("link.log")).unwrap();
    home.write("real.log", full_log(), 0o644);
    let log = home.path("link.log").display().to_string();
    rotator(&home, &workspace, &["rotate", "--log-file", &log]).run().exits(0);
    assert!(home.path("link.log").is_symlink() && home.path("real.log.1").exists() && home.mode("real.log") == 0o600);
    rotator(&home, &workspace, &["rotate", "--log-file", "/dev/null"]).run().exits(0);
}

#[test]
fn quiet_says_only_what_went_wrong_and_verbose_says_more() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let quiet = rotator(&home, &workspace, &["rotate", "-q"]).run();
    assert_eq!(quiet.exits(0).stderr, "");
    rotator(&home, &workspace, &["rotate", "-v"]).run().exits(0).stderr_has("DEBUG").stderr_has("SHA-256 begins with");
}

// ---- mistakes of each kind ----

#[test]
fn no_network_is_69_and_says_where_to_look() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let unknown = rotator(&home, &workspace, &["rotate", "--connection", "default"])
        .env("DATABRICKS_HOST", "https://no-such-host.invalid");
    let running = unknown.spawn();
    running.says("cannot find the address of https://no-such-host.invalid", Duration::from_secs(30));
    drop(running);
    let port = workspace.port();
    drop(workspace);
    let stopped = Workspace::start();
    let running =
        rotator(&home, &stopped, &["rotate"]).env("DATABRICKS_HOST", format!("https://127.0.0.1:{port}")).spawn();
    running.says("refused", Duration::from_secs(30)).says("check network, VPN and proxy", Duration::from_secs(5));
}

#[test]
fn an_untrusted_certificate_is_told_from_a_lost_network_and_is_mended_by_ca_file() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let strict = || rotator(&home, &workspace, &["rotate"]).without_env("SSL_CERT_FILE");
    strict().run().exits(69).stderr_has("is not trusted").stderr_has("ca_file");
    let authority = workspace.ca_file().display().to_string();
    home.write(".config/dbx-rotator/config.toml", format!("[[workspace]]\nca_file = '{authority}'\n"), 0o600);
    strict().run().exits(0);
    home.write(".config/dbx-rotator/config.toml", "[[workspace]]\nca_file = '/nowhere.pem'\n", 0o600);
    strict().run().exits(78).stderr_has("cannot use ca_file /nowhere.pem");
}

#[test]
fn plain_http_is_for_loopback_only() {
    let (workspace, home) = (Workspace::builder().http().start(), Home::new());
    rotator(&home, &workspace, &["rotate"]).run().exits(0);
    rotator(&home, &workspace, &["rotate"])
        .env("DATABRICKS_HOST", "http://dbc.example")
        .run()
        .exits(78)
        .stderr_has("unencrypted");
}

#[test]
fn a_proxy_from_the_environment_is_used() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let running = rotator(&home, &workspace, &["rotate"])
        .env("DATABRICKS_HOST", "https://dbc.example")
        .env("HTTPS_PROXY", "http://127.0.0.1:9")
        .spawn();
    running.says("cannot reach the proxy 127.0.0.1:9 (from $HTTPS_PROXY)", Duration::from_secs(30));
}

#[test]
fn a_secret_file_is_read_trimmed_and_its_mode_is_watched() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let with = |name: &str| {
        rotator(&home, &workspace, &["rotate", "--client-secret-file", name])
            .without_env("DATABRICKS_CLIENT_SECRET")
            .run()
    };
    home.write("good", format!("{}\n", workspace.client_secret()), 0o600);
    with("good").exits(0).stderr_lacks("WARNING");
    home.write("loose", workspace.client_secret(), 0o644);
    with("loose").exits(0).stderr_has("others can read the client secret");
    let check = |name: &str| {
        let check = rotator(&home, &workspace, &["check", "--client-secret-file", name]);
        check.without_env("DATABRICKS_CLIENT_SECRET").run()
    };
    check("loose").stdout_has("secret-file: ").stdout_has("others can read the client secret");
    check("good").stdout_lacks("secret-file: ");
    home.write("empty", "\n", 0o600);
    with("empty").exits(78).stderr_has("the file is empty");
    home.write("long", "a\nb\n", 0o600);
    with("long").exits(78).stderr_has("more than one line");
    with("missing").exits(78).stderr_has("missing: no such file");
    std::fs::create_dir(home.path("directory")).unwrap();
    with("directory").exits(78).stderr_has("directory");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let program = env!("CARGO_BIN_EXE_dbx-rotator");
    let script = format!("{program} config show | true; {program} --help | true; exit ${{PIPESTATUS[0]}}");
    home.command("/bin/bash")
        .signed_in_to(&workspace)
        .env("DATABRICKS_PG_HOST", "h")
        .args(["-c", &script])
        .run()
        .exits(0)
        .stderr_lacks("panic");
}
