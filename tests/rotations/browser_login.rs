//! A person logs in with the browser, and everything after that: the login renews passwords without the vendor's CLI, in any number of
//! processes, until the workspace ends it or the person does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::person::{self, LOGINS};
use crate::support::workspace::Decision;
use crate::support::{
    Endpoint, Fault, Home, Instance, Outcome, Postgres, Running, Session, Workspace, dbx_rotator, skip,
};

const SOON: Duration = Duration::from_secs(30);
const CONFIG: &str = ".config/dbx-rotator/config.toml";

/// A home whose browser does this, with the workspace in its configuration.
fn home(workspace: &Workspace, does: &str, more: &str) -> Home {
    let home = Home::new();
    home.watch(workspace);
    person::install(&home, workspace, does);
    configure(&home, workspace, more);
    home
}

fn configure(home: &Home, workspace: &Workspace, more: &str) {
    if workspace.requests().is_empty() {
        workspace.add_instance(Instance::named("orders"));
    }
    let url = workspace.url();
    home.write(CONFIG, format!("{more}\n[[workspace]]\nhost = '{url}'\n[[connection]]\ninstance = 'orders'\n"), 0o600);
}

/// The command as a person types it at a terminal.
fn typed<'a>(home: &'a Home, workspace: &Workspace, words: &str) -> Session<'a> {
    person::typed(home, workspace, env!("CARGO_BIN_EXE_dbx-rotator"), words)
}

/// A command without a terminal.
fn rotator<'a>(home: &'a Home, workspace: &Workspace, words: &[&str]) -> Session<'a> {
    dbx_rotator!(home).args(words).trusting(workspace)
}

/// One who has logged in.
fn logged_in(workspace: &Workspace, more: &str) -> Home {
    let home = home(workspace, "allow", more);
    typed(&home, workspace, "login --file").run().exits(0).stdout_has("Logged in to").stdout_has(workspace.user());
    home
}

fn let_it_age(home: &Home) {
    person::let_it_age(home, None);
}

/// The address that the terminal shows.
fn shown_address(running: &Running<'_>) -> String {
    running.prints("Ctrl-C stops", SOON);
    let shown = running.stdout();
    shown.lines().find(|line| line.starts_with("http")).unwrap().trim().to_owned()
}

fn port_of(address: &str) -> u16 {
    let (_, rest) = address.split_once("localhost%3A").unwrap();
    rest.split('&').next().unwrap().parse().unwrap()
}

/// What a person does with the shown address; what they see at the end, which may hold a code.
fn does(home: &Home, workspace: &Workspace, what: &str, address: &str) -> String {
    let person = home.command("bin/person").arg(workspace.ca_file()).args([what, address]);
    person.may_print_secrets().run().exits(0).stdout.clone()
}

fn get(port: u16, target: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_person_logs_in_and_psql_does_with_what_every_command_takes_from_the_login() {
    let name = "a_person_logs_in_and_psql_does_with_what_every_command_takes_from_the_login";
    let workspace = Workspace::start();
    let user = workspace.user().to_owned();
    let server = match Postgres::start(&workspace, &[&user]) {
        Ok(server) => server,
        Err(reason) => return skip(name, &reason),
    };
    let home = home(&workspace, "allow", "");
    let (url, port) = (workspace.url(), server.port());
    home.write(
        CONFIG,
        format!("[[workspace]]\nhost = '{url}'\n[[connection]]\nhost = '127.0.0.1'\nport = {port}\nuser = '{user}'\n"),
        0o600,
    );
    let login = typed(&home, &workspace, "login --file").run();
    login.exits(0).stdout_has("Logged in to").stdout_has(&user).stdout_has("logins/127.0.0.1");
    let (description, tokens) = person::files(&home);
    for file in [&description, &tokens] {
        assert_eq!(home.mode(file), 0o600);
    }
    assert!(!fs::read_to_string(description).unwrap().contains("refresh"));
    rotator(&home, &workspace, &["rotate"]).run().exits(0).stderr_has("via browser login");
    let output = server.psql(&home.path(".pgpass"), &user, "select current_user");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), user);
    rotator(&home, &workspace, &["check"]).run().exits(0);
    rotator(&home, &workspace, &["token"]).may_print_secrets().run().exits(0);
    rotator(&home, &workspace, &["status", "--json"]).run().exits(0).stdout_has("\"external-browser\"");
    // The next one takes the refresh token, and whatever comes of it is kept.
    workspace.set_single_use_refresh_tokens(true);
    for _ in 0..3 {
        let_it_age(&home);
        rotator(&home, &workspace, &["rotate"]).run().exits(0);
    }
    rotator(&home, &workspace, &["logout"]).run().exits(0).stdout_has(&format!("Forgot the login of {user}"));
    assert!(!tokens.exists());
    rotator(&home, &workspace, &["logout"]).run().exits(0).stdout_has("Nobody has logged in");
}

#[test]
fn without_a_browser_here_the_address_is_pasted_and_what_others_send_does_not_count() {
    let (workspace, taken) =
        (Workspace::start(), (8020..=8040).find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()));
    let taken = taken.expect("a free port").local_addr().unwrap().port();
    let _held = TcpListener::bind(("127.0.0.1", taken)).ok();
    let home = home(&workspace, "allow", "");
    let running = typed(&home, &workspace, "login --file --no-browser").may_print_secrets().spawn();
    let address = shown_address(&running);
    let port = port_of(&address);
    assert!(port != taken && (8020..=8040).contains(&port), "{port}, and not {taken}");
    assert!(get(port, "/?code=evil&state=guessed").starts_with("HTTP/1.1 400"));
    assert!(get(port, "/?error=access_denied&state=guessed").starts_with("HTTP/1.1 400"));
    running.types("\nhttp://localhost:8020/?code=evil&state=guessed\n");
    running.prints("its state is not that of this login", SOON);
    let ended = does(&home, &workspace, "paste", &address);
    running.types(&ended);
    running.ends().exits(0).stdout_has("Logged in to");
    rotator(&home, &workspace, &["rotate"]).run().exits(0);
}

#[test]
fn who_cancels_or_does_not_come_back_or_presses_ctrl_c_is_not_logged_in() {
    let workspace = Workspace::start();
    let home = home(&workspace, "deny", "");
    let login = |words: &str| typed(&home, &workspace, &format!("login --file {words}"));
    login("").run().exits(77).stdout_has("the login was cancelled: access_denied").stdout_has("hint: ");
    let late = login("--no-browser --timeout 1s").run();
    late.exits(75).stdout_has("nobody has logged in within 1 s");
    let running = login("--no-browser").spawn();
    shown_address(&running);
    running.types("\u{3}");
    let stopped = running.ends();
    assert!(stopped.code == Some(130) || stopped.signal == Some(Signal::INT.as_raw()), "{stopped}");
    let fixed = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = fixed.local_addr().unwrap().port().to_string();
    login("")
        .env("DATABRICKS_OAUTH_CALLBACK_PORT", &port)
        .run()
        .exits(69)
        .stdout_has(&format!("the port {port} of this"));
    login("").env("DATABRICKS_OAUTH_CALLBACK_PORT", "x").run().exits(78).stdout_has("is not a port");
    let without = rotator(&home, &workspace, &["login", "--file"]).run();
    without.exits(64).stderr_has("a login needs a person at a terminal");
    assert!(!home.path(LOGINS).exists(), "nothing is kept of a login that did not come about");
    let failure = rotator(&home, &workspace, &["rotate", "--retry-for", "0s"])
        .env("DATABRICKS_AUTH_TYPE", "external-browser")
        .run();
    failure.exits(77).stderr_has("nobody has logged in to").stderr_has("run `dbx-rotator login`");
}

#[test]
fn what_the_workspace_refuses_or_names_wrongly_ends_the_login_with_a_reason() {
    let workspace = Workspace::start();
    let home = home(&workspace, "allow", "");
    let login = || typed(&home, &workspace, "login --file").run();
    workspace.faults_on(Endpoint::Token).next(Fault::Status(400));
    login().exits(78).stdout_has("refused the sign-in");
    workspace.faults_on(Endpoint::Token).next(Fault::ErrorIn200("invalid_grant".to_owned()));
    login().exits(77);
    for (authorize, code, said) in [
        ("https://evil.example/authorize", 78, "does not say where people sign in"),
        ("http://127.0.0.1:1/authorize", 78, "does not say where people sign in"),
        ("nonsense", 78, "does not say where people sign in"),
    ] {
        let body =
            format!(r#"{{"token_endpoint":"{}","authorization_endpoint":"{authorize}"}}"#, workspace.token_url());
        workspace.faults_on(Endpoint::Discovery).next(Fault::StatusWith { status: 200, body, headers: Vec::new() });
        login().exits(code).stdout_has(said);
    }
    let body = format!(r#"{{"access_token":"{}","expires_in":3600}}"#, workspace.issue(workspace.user(), SOON * 100));
    workspace.faults_on(Endpoint::Token).next(Fault::StatusWith { status: 200, body, headers: Vec::new() });
    login().exits(77).stdout_has("gives no refresh token");
    login().exits(0);
}

#[test]
fn a_login_that_has_ended_is_said_once_and_another_login_mends_it_at_once() {
    let workspace = Workspace::start();
    let notify = "notify_command = ['/bin/sh', '-c', 'echo \"$DBX_ROTATOR_WORKSPACE: $DBX_ROTATOR_MESSAGE; $DBX_ROTATOR_HINT\" >> \"$HOME/told\"; env >> \"$HOME/environment\"']";
    let home = logged_in(&workspace, notify);
    let_it_age(&home);
    workspace.sign_out(workspace.user());
    let rotate = || rotator(&home, &workspace, &["rotate", "--retry-for", "0s"]).run();
    rotate()
        .exits(77)
        .stderr_has("has ended: ")
        .stderr_has("Refresh token is invalid")
        .stderr_has("run `dbx-rotator login`");
    let asked = workspace.token_requests();
    for _ in 0..2 {
        rotate().exits(77);
    }
    assert_eq!(workspace.token_requests(), asked, "a dead token is not sent again");
    rotator(&home, &workspace, &["check"]).run().stdout_has("has ended");
    let told = home.read("told");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(told.starts_with("default: the login to ") && told.contains("; run `dbx-rotator login`"), "{told}");
    assert!(!home.read("environment").contains("stand-in-refresh"));
    typed(&home, &workspace, "login --file").run().exits(0);
    rotate().exits(0);
    let_it_age(&home);
    workspace.sign_out(workspace.user());
    rotate().exits(77);
    assert_eq!(home.read("told").lines().count(), 2, "it is another login that has ended");
}

#[test]
fn a_daemon_goes_on_as_soon_as_somebody_logs_in() {
    let workspace = Workspace::start();
    let home = home(&workspace, "allow", "");
    let daemon = rotator(&home, &workspace, &["run"]).env("DATABRICKS_AUTH_TYPE", "external-browser").spawn();
    daemon.says("nobody has logged in to", SOON);
    typed(&home, &workspace, "login --file").run().exits(0);
    daemon.says("is valid until", SOON);
    daemon.terminate();
}

#[test]
fn twenty_processes_refresh_one_login_with_one_request() {
    let workspace = Workspace::start();
    workspace.set_single_use_refresh_tokens(true);
    let home = logged_in(&workspace, "");
    for _ in 0..3 {
        let_it_age(&home);
        let asked = workspace.token_requests();
        let all: Vec<Running<'_>> = (0..20).map(|_| rotator(&home, &workspace, &["connections"]).spawn()).collect();
        for one in all {
            one.ends().exits(0).stdout_has("orders");
        }
        assert_eq!(workspace.token_requests(), asked + 1);
    }
}

#[test]
fn an_answer_that_is_lost_says_later_that_the_policy_has_ended_the_login() {
    let workspace = Workspace::start();
    let home = logged_in(&workspace, "");
    let connections = || rotator(&home, &workspace, &["connections"]).run();
    let_it_age(&home);
    // The workspace has taken the token, but what it gave for it never came.
    workspace.set_single_use_refresh_tokens(true);
    workspace.faults_on(Endpoint::Token).next(Fault::TruncatedBody);
    connections().exits(69);
    connections().exits(77).stderr_has("cut off before its answer").stderr_has("only once");
    // Where tokens may be used again, nothing is lost.
    typed(&home, &workspace, "login --file").run().exits(0);
    workspace.set_single_use_refresh_tokens(false);
    let_it_age(&home);
    workspace.faults_on(Endpoint::Token).next(Fault::TruncatedBody);
    connections().exits(69);
    connections().exits(0);
}

#[test]
fn a_login_comes_before_the_vendors_cli_and_after_a_service_principal() {
    let workspace = Workspace::start();
    let home = logged_in(&workspace, "");
    let cli = home.install_cli(&workspace);
    rotator(&home, &workspace, &["rotate"]).run().exits(0).stderr_has("via browser login");
    rotator(&home, &workspace, &["rotate"]).signed_in_to(&workspace).run().stderr_has("via OAuth M2M");
    assert!(cli.invocations().is_empty());
    rotator(&home, &workspace, &["logout"]).run().exits(0);
    cli.sign_in(&workspace);
    rotator(&home, &workspace, &["rotate"]).run().exits(0).stderr_has("via Databricks CLI");
    typed(&home, &workspace, "login --file")
        .env("DATABRICKS_AUTH_TYPE", "databricks-cli")
        .run()
        .exits(0)
        .stdout_has("does not sign in with this login");
}

#[test]
fn a_group_is_asked_for_at_the_login_and_has_a_login_of_its_own() {
    let workspace = Workspace::start();
    let home = logged_in(&workspace, "");
    let of_group = |session: Session<'_>| {
        session.env("DATABRICKS_GROUP_ID", "4711").env("DATABRICKS_PG_USERNAME", "data readers").run()
    };
    of_group(rotator(&home, &workspace, &["rotate", "--retry-for", "0s"])).exits(77).stderr_has("for the group 4711");
    of_group(typed(&home, &workspace, "login --file")).exits(0);
    assert_eq!(workspace.groups_assumed(), [None, Some("4711".to_owned())]);
    of_group(rotator(&home, &workspace, &["rotate"])).exits(0);
    rotator(&home, &workspace, &["connections"])
        .env("DATABRICKS_GROUP_ID", "x/y")
        .run()
        .exits(78)
        .stderr_has("is not the id of a group");
}

#[test]
fn a_login_that_was_changed_or_can_be_read_by_others_is_told_so() {
    let workspace = Workspace::start();
    let home = logged_in(&workspace, "");
    let (description, tokens) = person::files(&home);
    fs::set_permissions(&tokens, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    rotator(&home, &workspace, &["rotate"])
        .run()
        .exits(0)
        .stderr_has("has mode 0644, so that others can use the login");
    let connections = || rotator(&home, &workspace, &["connections"]).run();
    for text in ["", "{", "[]", &"x".repeat(200_000)] {
        fs::write(&tokens, text).unwrap();
        connections().exits(77).stderr_has("the tokens of the login to").stderr_has("run `dbx-rotator login`");
    }
    fs::remove_file(&tokens).unwrap();
    connections().exits(77).stderr_has("no such file");
    fs::write(&description, "{}").unwrap();
    connections().exits(77).stderr_has("it holds no login");
    rotator(&home, &workspace, &["logout"]).run().exits(0);
    assert!(!description.exists());
}

/// Why a real keyring cannot be asked here; none where it can.
fn no_keyring() -> Option<&'static str> {
    let is_there = |program: &str| Path::new(program).exists();
    if !is_there("/usr/bin/gnome-keyring-daemon") {
        return Some("there is no gnome-keyring-daemon (Debian's gnome-keyring)");
    }
    (!is_there("/usr/bin/dbus-run-session")).then_some("there is no dbus-run-session (Debian's dbus)")
}

/// Runs these lines of a shell on a bus of their own, on which a keyring runs that is unlocked; `$r` is the program.
fn with_keyring(home: &Home, workspace: &Workspace, lines: &str) -> Outcome {
    let r = env!("CARGO_BIN_EXE_dbx-rotator");
    let script = format!(
        "set -e\nr='{r}'\nprintf x | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1\n\
         until dbus-send --session --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.GetNameOwner \
         string:org.freedesktop.secrets >/dev/null 2>&1; do sleep 0.1; done\n{lines}\n"
    );
    let script = home.write("session.sh", script, 0o755);
    let line = format!("dbus-run-session -- sh '{}'", script.display());
    let session = home.command("script").at_terminal((400, 50), &line).patience(Duration::from_secs(180));
    session.trusting(workspace).env("BROWSER", "browse").run()
}

#[test]
fn a_real_keyring_keeps_the_login_and_one_that_is_locked_or_gone_says_so() {
    if let Some(reason) = no_keyring() {
        return skip("a_real_keyring_keeps_the_login_and_one_that_is_locked_or_gone_says_so", reason);
    }
    let workspace = Workspace::start();
    workspace.set_single_use_refresh_tokens(true);
    workspace.set_token_life(Duration::from_secs(20));
    let home = home(&workspace, "allow", "");
    let all = with_keyring(
        &home,
        &workspace,
        "\"$r\" login\n\"$r\" rotate\n\"$r\" connections\nls ~/.local/state/dbx-rotator/logins\n\
         for i in 1 2 3 4 5 6 7 8; do \"$r\" connections >/dev/null & done; wait\n\
         \"$r\" logout; \"$r\" connections || echo \"ended with $?\"",
    );
    all.exits(0).stdout_has("The login is kept in the keyring").stdout_has("orders").stdout_has("Forgot the login of");
    assert!(!all.stdout.contains(".token"), "no file holds it\n{all}");
    // Nobody is left to renew it, and no bus there.
    let kept = with_keyring(&home, &workspace, "\"$r\" login");
    kept.exits(0);
    // Nobody is asked to unlock it by what may run in the background.
    let lock = "dbus-send --session --print-reply --dest=org.freedesktop.secrets /org/freedesktop/secrets \
                org.freedesktop.Secret.Service.Lock array:objpath:/org/freedesktop/secrets/collection/login >/dev/null";
    let lines = format!("\"$r\" login\n{lock}\n\"$r\" connections || echo \"ended with $?\"");
    let locked = with_keyring(&home, &workspace, &lines);
    locked.exits(0).stdout_has("the keyring is locked").stdout_has("login --file").stdout_has("ended with 69");
    rotator(&home, &workspace, &["connections"])
        .run()
        .exits(69)
        .stderr_has("there is no keyring to be reached")
        .stderr_has("login --file");
}

#[test]
fn a_real_browser_comes_back_and_is_shown_that_it_may_be_closed() {
    let name = "a_real_browser_comes_back_and_is_shown_that_it_may_be_closed";
    let programs = ["/usr/bin/chromium", "/usr/bin/chromium-headless-shell"];
    let Some(program) = programs.iter().find(|program| Path::new(program).exists()) else {
        return skip(name, "there is no Chromium (Debian's chromium-headless-shell)");
    };
    let workspace = Workspace::start();
    let home = home(&workspace, "allow", "");
    // Its own authorities are in a database of Mozilla's; what matters here is that it follows pages and redirects.
    let script = format!(
        "#!/bin/sh\nexec '{program}' --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --ignore-certificate-errors \
         --user-data-dir=\"$HOME/chromium\" --virtual-time-budget=20000 --dump-dom \"$1\" >\"$HOME/browsed\" 2>\"$HOME/browser.log\"\n"
    );
    home.write("bin/browse", script, 0o755);
    workspace.decide(Decision::Allow);
    let running = typed(&home, &workspace, "login --file").patience(Duration::from_secs(120)).spawn();
    running.ends().exits(0).stdout_has("Logged in to");
    // The browser prints the page that it ended at once it has it.
    let shown = || fs::read_to_string(home.path("browsed")).unwrap_or_default();
    let deadline = Instant::now() + SOON;
    while !shown().contains("You are logged in") {
        assert!(Instant::now() < deadline, "the browser shows something else: {}", shown());
        std::thread::sleep(Duration::from_millis(50));
    }
    rotator(&home, &workspace, &["rotate"]).run().exits(0);
    workspace.decide(Decision::Deny);
    typed(&home, &workspace, "login --file")
        .patience(Duration::from_secs(120))
        .run()
        .exits(77)
        .stdout_has("was cancelled");
}
