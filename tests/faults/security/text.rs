//! Foreign text is data: one printable line, without the secrets of this process, wherever it appears.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;

use crate::support::{Endpoint, Fault, Home, Instance, Session, Workspace, dbx_rotator, skip};

/// A possible secret, with characters that each encoding writes differently.
const SECRET: &str = "marked/secret+of=the&client 0123456789";

/// A text that forges a line, changes the terminal's colours, hides itself, and reverses the rest.
const HOSTILE: &str = "x\n2026-01-01 00:00:00 - INFO - forged\r\u{1b}[31m\u{9b}2J\u{202e}\u{2028}\u{200b}\0y";

/// The identity that signed in is compared with the configured user, or is accepted as it is.
const CONFIGS: [&str; 2] = ["", "[[connection]]\nhost = 'db.example'\nany_identity = true\n"];

const LIMIT: Duration = Duration::from_secs(30);

fn rotator<'a>(home: &'a Home, workspace: &Workspace, arguments: &[&str]) -> Session<'a> {
    let log = home.path("r.log").display().to_string();
    dbx_rotator!(home)
        .args(arguments)
        .args(["--log-file", &log])
        .signed_in_to(workspace)
        .env("DATABRICKS_PG_HOST", "db.example")
}

/// Every place where a run leaves text, with its name.
fn sinks(home: &Home, workspace: &Workspace, rotate: &[&str]) -> Vec<(&'static str, String)> {
    for name in ["r.log", ".local/state/dbx-rotator/record.json"] {
        let _ = std::fs::remove_file(home.path(name));
    }
    let rotated = rotator(home, workspace, rotate).run();
    let status = rotator(home, workspace, &["status"]).run();
    let json = rotator(home, workspace, &["status", "--json"]).run();
    let check = rotator(home, workspace, &["check"]).run();
    vec![
        ("stdout of rotate --json", rotated.stdout),
        ("stderr", rotated.stderr),
        ("the log file", home.read("r.log")),
        ("the record", home.read(".local/state/dbx-rotator/record.json")),
        ("status", status.stdout),
        ("status --json", json.stdout),
        ("check", check.stdout),
        ("the password file", home.pgpass()),
    ]
}

fn is_shown(c: char) -> bool {
    c == '\n' || !(c.is_control() || "\u{202e}\u{2028}\u{200b}".contains(c))
}

#[track_caller]
fn is_clean(sink: &str, text: &str) {
    assert!(text.chars().all(is_shown), "{sink} is printable: {text:?}");
    assert!(!text.lines().any(|line| line.starts_with("2026-01-01 00:00:00 - INFO - forged")), "{sink}: {text}");
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// How a server may repeat the secret: what it sends, and what must not be shown of it.
fn forms(id: &str) -> Vec<String> {
    let form: String = url::form_urlencoded::byte_serialize(SECRET.as_bytes()).collect();
    vec![
        SECRET.to_owned(),
        SECRET[..20].to_owned(),
        form.clone(),
        percent(SECRET),
        percent(SECRET).to_ascii_uppercase(),
        format!("{}{}", &SECRET[..9], percent(&SECRET[9..])),
        SECRET.replace('&', "&amp;"),
        SECRET.replace('/', "\\/"),
        SECRET.bytes().map(|byte| format!("{byte:02x}")).collect(),
        STANDARD.encode(SECRET),
        STANDARD.encode(format!("{id}:{SECRET}")),
        STANDARD.encode(format!("{id}:{form}")),
        URL_SAFE_NO_PAD.encode(format!("{id}:{SECRET}")),
        SECRET.replace("of", "of\n "),
    ]
}

/// Asserts that no eight consecutive characters of the secret part appear; each form ends with that part.
#[track_caller]
fn lacks(sink: &str, text: &str, form: &str) {
    let secret = &form.as_bytes()[form.len().saturating_sub(40)..form.len() - 4];
    let seen = secret.windows(8).find(|piece| text.as_bytes().windows(8).any(|other| other == *piece));
    assert!(seen.is_none(), "{sink} shows {:?} of {form}\n{text}", seen.map(String::from_utf8_lossy));
}

#[test]
fn no_form_of_the_secret_that_a_server_repeats_is_seen_anywhere() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.set_client(workspace.client_id(), SECRET);
    for (number, form) in forms(workspace.client_id()).iter().enumerate() {
        let with = |status, body: String, headers| Fault::StatusWith { status, body, headers };
        let said = format!("bad client \"{form}\" here");
        let fault = match number % 3 {
            0 => with(401, json!({"error": "invalid_client", "error_description": said}).to_string(), vec![]),
            1 => with(400, json!({"error": said}).to_string(), vec![]),
            _ => with(403, json!({"error_code": "PERMISSION_DENIED", "message": said}).to_string(), vec![]),
        };
        workspace.faults_on(Endpoint::Token).always(fault);
        let session = |arguments: &[&str]| sinks_of_secret(&home, &workspace, arguments);
        for (sink, text) in session(&["rotate", "--json"]) {
            lacks(sink, &text, form);
            is_clean(sink, &text);
        }
        if !form.contains('\n') {
            workspace.faults_on(Endpoint::Token).always(Fault::Redirect(format!("https://other.example/{form}/x?y")));
            for (sink, text) in session(&["rotate", "--json"]).into_iter().take(3) {
                lacks(sink, &text, form);
            }
        }
    }
}

/// [`sinks`] for a workspace whose client has another secret than at first.
fn sinks_of_secret(home: &Home, workspace: &Workspace, arguments: &[&str]) -> Vec<(&'static str, String)> {
    home.write("secret", SECRET, 0o600);
    let file = home.path("secret").display().to_string();
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--client-secret-file", &file]).collect();
    sinks(home, workspace, &arguments)
}

#[test]
fn a_secret_for_a_name_is_refused_and_not_written_anywhere() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.set_client(workspace.client_id(), SECRET);
    let secret = STANDARD.encode(SECRET);
    workspace.faults_on(Endpoint::Token).always(Fault::OtherIdentity(secret.clone()));
    for config in CONFIGS {
        home.write(".config/dbx-rotator/config.toml", config, 0o600);
        for (sink, text) in sinks_of_secret(&home, &workspace, &["rotate", "--json"]) {
            // The token itself names its identity, and comes last.
            let text =
                if sink == "the password file" { text.rsplit_once(':').map_or("", |(key, _)| key) } else { &text };
            lacks(sink, text, &secret);
        }
    }
}

#[test]
fn what_a_server_says_forges_no_line_and_paints_no_terminal() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let refuse = |code: &str| {
        let body = json!({"error": code, "error_description": HOSTILE}).to_string();
        Fault::StatusWith { status: 401, body, headers: Vec::new() }
    };
    for fault in [refuse("invalid_client"), refuse(HOSTILE), Fault::OtherIdentity(HOSTILE.to_owned())] {
        workspace.faults_on(Endpoint::Token).always(fault);
        for config in CONFIGS {
            home.write(".config/dbx-rotator/config.toml", config, 0o600);
            for (sink, text) in sinks(&home, &workspace, &["rotate", "--json"]) {
                is_clean(sink, &text);
            }
            for line in home.read("r.log").lines() {
                assert!(line.starts_with("20") && line.contains(" - "), "each line of the log is one of ours: {line}");
            }
        }
    }
}

#[test]
fn names_from_the_api_are_shown_escaped_and_told_to_programs_as_they_are() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_instance(Instance::named("orders"));
    workspace.change_instance("orders", |instance| instance.host(HOSTILE));
    let table = rotator(&home, &workspace, &["connections"]).run();
    is_clean("connections", &table.stdout);
    assert_eq!(table.exits(0).stdout_has("\\u001b[31m").stdout.lines().count(), 2);
    let json = rotator(&home, &workspace, &["connections", "--json"]).run();
    is_clean("connections --json", &json.stdout);
    assert_eq!(json.exits(0).json()["workspaces"][0]["databases"][0]["host"], HOSTILE);
}

#[test]
fn what_a_person_typed_is_shown_escaped_too() {
    let (workspace, home) = (Workspace::start(), Home::new());
    for arguments in [&["\u{1b}[31m\u{202e}"][..], &["rotate", "--pgpass-file", "/nowhere/\u{1b}[31m\n/x"]] {
        let outcome = rotator(&home, &workspace, arguments).run();
        is_clean("stderr", &outcome.stderr_has("\\u").stderr);
    }
    home.write(".config/dbx-rotator/config.toml", "h\u{202e}st = '\u{1b}[31m'\n", 0o600);
    is_clean("stderr", &rotator(&home, &workspace, &["rotate"]).run().exits(78).stderr);
}

/// A service manager that receives reports.
fn manager(home: &Home) -> (UnixDatagram, String) {
    let path = home.path(".run/notify");
    let _ = std::fs::remove_file(&path);
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    (socket, path.display().to_string())
}

/// The next report that contains this.
#[track_caller]
fn told(socket: &UnixDatagram, what: &str) -> String {
    let mut buffer = [0; 16 * 1024];
    loop {
        let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("waiting for {what}: {error}"));
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text.contains(what) {
            return text;
        }
    }
}

#[test]
fn the_status_is_one_assignment_and_holds_no_secret() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let said = format!("{HOSTILE}\nWATCHDOG=trigger\n {}", STANDARD.encode(workspace.client_secret()));
    let body = json!({"error": "invalid_client", "error_description": said}).to_string();
    workspace.faults_on(Endpoint::Token).always(Fault::StatusWith { status: 401, body, headers: Vec::new() });
    let (socket, path) = manager(&home);
    let running = rotator(&home, &workspace, &["run"]).env("NOTIFY_SOCKET", path).spawn();
    let status = told(&socket, "needs a person");
    is_clean("STATUS=", &status);
    assert!(status.lines().all(|line| line == "READY=1" || line.starts_with("STATUS=")), "{status}");
    assert!(!status.contains(&STANDARD.encode(workspace.client_secret())[..12]), "{status}");
    running.terminate().exits(0);
}

#[test]
fn a_watchdog_without_patience_is_named_and_harms_nothing() {
    let (workspace, home) = (Workspace::start(), Home::new());
    for (patience, is_named) in
        [("0", false), ("1", true), ("99999", true), ("18446744073709551615", false), ("-5", false), ("soon", false)]
    {
        let (socket, path) = manager(&home);
        let session = rotator(&home, &workspace, &["run"]).env("WATCHDOG_USEC", patience);
        let running = session.env("NOTIFY_SOCKET", path).spawn();
        told(&socket, "READY=1");
        if is_named {
            running.says_times(1, "is too short for any program", LIMIT);
            told(&socket, "WATCHDOG=1");
        }
        running.terminate().exits(0).stderr_lacks("panic");
        // If no manager listens, our own watchdog must not have so short a timeout.
        let alone = rotator(&home, &workspace, &["run"]).env("WATCHDOG_USEC", patience).spawn();
        alone.says("Keeping 1 connection alive", LIMIT);
        alone.terminate().exits(0);
    }
}

#[test]
fn a_log_that_somebody_takes_away_is_made_anew_and_the_rotation_goes_on() {
    let (workspace, home) = (Workspace::builder().token_life(Duration::from_secs(4)).start(), Home::new());
    let running = rotator(&home, &workspace, &["run"]).spawn();
    let done = "Token rotation completed successfully";
    running.says(done, LIMIT);
    std::fs::rename(home.path("r.log"), home.path("r.log.1")).unwrap();
    std::fs::create_dir(home.path("r.log.2")).unwrap();
    // One more may have been under way.
    running.says_times(running.stderr().matches(done).count() + 2, done, LIMIT);
    running.terminate().exits(0);
    assert!(home.read("r.log").contains("Token rotation completed successfully"));
    assert!(home.read("r.log.1").contains("Keeping 1 connection alive"));
}

#[test]
fn a_log_file_that_is_a_pipe_without_a_reader_delays_nothing() {
    let (workspace, home) = (Workspace::start(), Home::new());
    assert!(Command::new("mkfifo").arg(home.path("r.log")).status().unwrap().success());
    rotator(&home, &workspace, &["rotate", "-v"]).run().exits(0).took_at_most(LIMIT);
}

#[test]
fn stderr_that_nobody_reads_delays_nothing() {
    let (workspace, home) = (Workspace::start(), Home::new());
    // A Linux pipe holds 64 KiB; the shell keeps it open for reading but does not read.
    let script = r#"mkfifo pipe && exec 3<>pipe && head -c 65536 /dev/zero >&3 && exec "$0" rotate 2>&3"#;
    let session = home.command("/bin/bash").signed_in_to(&workspace).env("DATABRICKS_PG_HOST", "db.example");
    session.args(["-c", script, env!("CARGO_BIN_EXE_dbx-rotator")]).run().exits(0);
    assert!(home.pgpass().starts_with("db.example:"));
}

#[test]
fn a_fault_of_the_program_itself_is_one_line_and_exit_code_70() {
    if !Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success()) {
        return skip("a_fault_of_the_program_itself_is_one_line_and_exit_code_70", "strace is not installed");
    }
    let (workspace, home) = (Workspace::start(), Home::new());
    let log = home.path("trace").display().to_string();
    // The first makes a library panic; the second is an error that is reported in its own words.
    for (call, error, code) in [("getrandom", "EIO", 70), ("eventfd2", "EMFILE", 69)] {
        let inject = format!("inject={call}:error={error}");
        let traced = home
            .command("strace")
            .args(["-f", "-q", "-o", &log, "-e", &inject, env!("CARGO_BIN_EXE_dbx-rotator"), "rotate"])
            .signed_in_to(&workspace)
            .env("DATABRICKS_PG_HOST", "db.example");
        let outcome = traced.run();
        let faults = outcome.exits(code).stderr_lacks("RUST_BACKTRACE").stderr.lines();
        let faults = faults.filter(|line| line.starts_with("error: a fault of dbx-rotator itself: ")).count();
        assert_eq!(faults, usize::from(code == 70), "{outcome}");
    }
}
