//! The proxy: which one is used and for what, what is refused before anything is sent, and whose fault a failure is.

use std::fs;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::support::proxy::{Answering, Tinyproxy};
use crate::support::{Cli, Home, Session, Workspace, dbx_rotator, names, skip};

const USER: &str = "ada";
const PASSWORD: &str = "geheim-of-1234.x";
const WRITTEN: &str = "%67eheim%2Dof-1234.x";
const CONFIG: &str = ".config/dbx-rotator/config.toml";

/// The workspace by a name of its own: no proxy is asked for this machine.
fn url(workspace: &Workspace) -> String {
    format!("https://workspace.test:{}", workspace.port())
}

fn rotator<'a>(home: &'a Home, workspace: &Workspace, command: &[&str]) -> Session<'a> {
    home.keep_secret(PASSWORD);
    home.keep_secret(WRITTEN);
    dbx_rotator!(home)
        .args(command)
        .signed_in_to(workspace)
        .env("DATABRICKS_HOST", url(workspace))
        .env("DATABRICKS_PG_HOST", "db.example")
}

/// As above, once: what fails is not tried again.
fn once<'a>(home: &'a Home, workspace: &Workspace) -> Session<'a> {
    rotator(home, workspace, &["rotate", "--retry-for", "0s"])
}

fn tinyproxy(test: &str) -> Option<Tinyproxy> {
    Tinyproxy::start(USER, PASSWORD).map_err(|reason| skip(test, &reason)).ok()
}

#[test]
fn a_workspace_is_reached_by_a_proxy_that_asks_for_a_password() {
    let Some(proxy) = tinyproxy("a_workspace_is_reached_by_a_proxy_that_asks_for_a_password") else { return };
    let workspace = Workspace::start();
    let address = proxy.address(USER, WRITTEN);
    let bare = address.strip_prefix("http://").unwrap().to_owned();
    let with_blank = format!("{address} ");
    for (name, value) in
        [("HTTPS_PROXY", &address), ("https_proxy", &address), ("HTTPS_PROXY", &bare), ("HTTPS_PROXY", &with_blank)]
    {
        let home = Home::new();
        let (before, signed_in) = (proxy.asked(), workspace.tokens_issued());
        once(&home, &workspace).env(name, value).run().exits(0);
        assert!(home.pgpass().contains(":eyJ") && workspace.tokens_issued() > signed_in, "{name}={value}");
        assert!(proxy.asked() > before, "{name}={value}");
    }
    // The environment wins over the file.
    let home = Home::new();
    home.write(CONFIG, format!("proxy = '{address}'\n"), 0o600);
    once(&home, &workspace).run().exits(0);
    once(&home, &workspace)
        .env("HTTPS_PROXY", "http://127.0.0.1:9")
        .run()
        .exits(69)
        .stderr_has("127.0.0.1:9 (from $HTTPS_PROXY)");
    // Each source may be looked at, and none shows the password.
    let show = rotator(&home, &workspace, &["config", "show"]).run();
    show.exits(0).stdout_has(&format!("http://ada:********@127.0.0.1:{}", proxy.port())).stdout_has("config.toml:1)");
    rotator(&home, &workspace, &["check"]).run().exits(0).stdout_has("is reached by the proxy http://ada:********@127");
    home.write(CONFIG, format!("proxy = '{address}'\n"), 0o644);
    once(&home, &workspace).run().exits(0).stderr_has("others can read the proxy's password");
}

#[test]
fn a_proxy_gets_user_and_password_as_they_are_meant() {
    let workspace = Workspace::start();
    for (written, meant) in [
        ("CORP%5Cada:ge%25h%40eim%2F9%3Ax%20y%22z", "CORP\\ada:ge%h@eim/9:x y\"z"),
        ("ada:!$&'()*+,;=~-._x@y:z", "ada:!$&'()*+,;=~-._x@y:z"),
        ("ada", "ada:"),
        ("ada%40corp.example:s%C3%A9same-open", "ada@corp.example:s\u{e9}same-open"),
    ] {
        // It lets through, and nobody is there.
        let (home, proxy) = (Home::new(), Answering::with(b"HTTP/1.1 200 OK\r\n\r\n"));
        let address = format!("http://{written}@127.0.0.1:{}", proxy.port());
        once(&home, &workspace).env("HTTPS_PROXY", address).run().exits(69);
        let heard = proxy.heard();
        let header = format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(meant)).to_ascii_lowercase();
        assert!(heard.len() >= 2, "asked first, and then used: {heard:?}");
        for said in heard {
            assert!(said.starts_with(&format!("CONNECT workspace.test:{} HTTP/1.1\r\n", workspace.port())), "{said}");
            assert!(said.to_ascii_lowercase().contains(&header), "{said}");
        }
    }
}

#[test]
fn a_password_that_a_proxy_refuses_is_offered_once() {
    let Some(real) = tinyproxy("a_password_that_a_proxy_refuses_is_offered_once") else { return };
    let workspace = Workspace::start();
    let squid = Answering::with(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n");
    let connection = |name: &str| {
        format!(
            "[[workspace]]\nname = '{name}'\nhost = '{}'\nclient_id = '{name}'\nclient_secret_file = 'secret'\n",
            url(&workspace)
        ) + &format!("[[connection]]\nname = '{name}'\nworkspace = '{name}'\nhost = '{name}.example'\n")
    };
    let three = ["a", "b", "c"].map(connection).concat();
    for (port, asked) in
        [(real.port(), &(|| real.asked()) as &dyn Fn() -> usize), (squid.port(), &|| squid.heard().len())]
    {
        for file in ["", &three] {
            let (home, before) = (Home::new(), asked());
            home.keep_secret("wr0ng-pass-word");
            home.write(CONFIG, file, 0o600);
            home.write(".config/dbx-rotator/secret", "some-secret-of-nobody", 0o600);
            // The vendor's CLI would come by the same proxy with the same password.
            let _cli = home.install_cli(&workspace);
            let session = rotator(&home, &workspace, &["rotate", "--retry-for", "3s"])
                .env("HTTPS_PROXY", format!("http://ada:wr0ng-pass-word@127.0.0.1:{port}"));
            let session = if file.is_empty() {
                session
            } else {
                ["HOST", "CLIENT_ID", "CLIENT_SECRET", "PG_HOST"]
                    .iter()
                    .fold(session, |session, name| session.without_env(format!("DATABRICKS_{name}")))
            };
            let outcome = session.run();
            outcome.exits(77).stderr_has(&format!("the proxy 127.0.0.1:{port} (from $HTTPS_PROXY) does not accept"));
            outcome.stderr_has("(407)").stderr_lacks("client id").stderr_lacks("cannot find the address");
            // Its log is read by a thread.
            let deadline = Instant::now() + Duration::from_secs(20);
            while asked() == before && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(asked() - before, 1, "{outcome}");
        }
    }
    let home = Home::new();
    let none = once(&home, &workspace).env("HTTPS_PROXY", format!("http://127.0.0.1:{}", real.port())).run();
    none.exits(77).stderr_has("asks for a user name and a password").stderr_has("http://USER:PASSWORD@127.0.0.1");
    assert_eq!(workspace.requests(), Vec::<String>::new());
}

#[test]
fn a_daemon_offers_a_refused_password_again_when_it_has_changed() {
    let Some(proxy) = tinyproxy("a_daemon_offers_a_refused_password_again_when_it_has_changed") else { return };
    let (workspace, home) = (Workspace::start(), Home::new());
    home.keep_secret("wr0ng-pass-word");
    home.write(CONFIG, format!("proxy = '{}'\n", proxy.address(USER, "wr0ng-pass-word")), 0o600);
    let running = rotator(&home, &workspace, &["run"]).spawn();
    let limit = Duration::from_secs(30);
    running.says("does not accept", limit);
    // Something else is changed, and it is looked at again.
    home.write(CONFIG, format!("log_file = 'log'\nproxy = '{}'\n", proxy.address(USER, "wr0ng-pass-word")), 0o600);
    running.says_times(2, "does not accept", limit);
    assert_eq!(proxy.asked(), 1);
    home.write(CONFIG, format!("proxy = '{}'\n", proxy.address(USER, WRITTEN)), 0o600);
    running.says("Successfully updated", limit);
    running.terminate().exits(0);
}

#[test]
fn a_failure_of_the_proxy_is_not_told_as_one_of_the_workspace() {
    let workspace = Workspace::start();
    let silent = Answering::with(b"");
    let other = Answering::with(b"SSH-2.0-OpenSSH_9.2\r\n");
    let denying = Answering::with(b"HTTP/1.1 403 Forbidden\r\n\r\n");
    let failing = Answering::with(b"HTTP/1.1 503 Service Unavailable\r\n\r\n");
    let at = |scheme: &str, proxy: &Answering| format!("{scheme}://127.0.0.1:{}", proxy.port());
    for (value, says) in [
        (
            "http://no-such-proxy.invalid:3128".to_owned(),
            "cannot find the address of the proxy no-such-proxy.invalid:3128",
        ),
        (
            "socks5://no-such-proxy.invalid".to_owned(),
            "cannot find the address of the proxy no-such-proxy.invalid:1080",
        ),
        ("http://127.0.0.1:9".to_owned(), "cannot reach the proxy 127.0.0.1:9"),
        ("socks5h://127.0.0.1:9".to_owned(), "cannot reach the proxy 127.0.0.1:9"),
        (at("http", &silent), "closed the connection"),
        (at("socks5", &silent), "closed the connection"),
        (at("http", &other), "does not answer like an HTTP proxy"),
        (at("https", &other), "TLS with the proxy 127.0.0.1"),
        (format!("https://127.0.0.1:{}", workspace.port()), "does not connect to https://workspace.test"),
        (at("http", &denying), "does not allow connections to https://workspace.test"),
        (at("http", &failing), "(503)"),
    ] {
        for file in [false, true] {
            let home = Home::new();
            let session = once(&home, &workspace);
            let session = if file { session } else { session.env("HTTPS_PROXY", &value) };
            home.write(CONFIG, if file { format!("proxy = '{value}'\n") } else { String::new() }, 0o600);
            let outcome = session.run();
            let from = if file { "config.toml:1)" } else { "(from $HTTPS_PROXY)" };
            outcome.exits(69).stderr_has(says).stderr_has(from).stderr_lacks("os error").stderr_lacks("dns error");
            outcome.stderr_lacks("cannot find the address of https").stderr_lacks("tunnel error");
        }
    }
    // One whose certificate nobody here trusts.
    let (home, elsewhere) = (Home::new(), Workspace::start());
    let outcome = once(&home, &workspace).env("HTTPS_PROXY", format!("https://127.0.0.1:{}", elsewhere.port())).run();
    outcome.exits(69).stderr_has("the certificate of the proxy 127.0.0.1").stderr_has("is not trusted");
}

#[test]
fn a_value_that_is_no_proxy_stops_everything_before_anything_is_sent() {
    let (workspace, listening) = (Workspace::start(), Answering::with(b""));
    let port = listening.port();
    for (value, says) in [
        (format!(r"http://CORP\ada:sup3r-geheim@127.0.0.1:{port}"), "%5C"),
        (format!("\"http://ada:sup3r-geheim@127.0.0.1:{port}\""), "in quotes"),
        (format!("socks://ada:sup3r-geheim@127.0.0.1:{port}"), "socks5://"),
        (format!("http://ada:${{sup3r-geheim}}@127.0.0.1:{port}"), "a variable"),
        (format!("http://ada:sup3r-geheim#1@127.0.0.1:{port}"), "%23"),
        (format!("http://ada:sup3r-geheim@127.0.0.1:{port}x"), "no port"),
        ("http://ada:sup3r-geheim".to_owned(), "no port"),
        ("${HTTPS_PROXY}".to_owned(), "a variable"),
    ] {
        for (name, in_file) in [("HTTPS_PROXY", false), ("https_proxy", false), ("proxy", true)] {
            let home = Home::new();
            home.keep_secret("sup3r-geheim");
            let literal = value.replace('\\', "\\\\").replace('"', "\\\"");
            home.write(CONFIG, if in_file { format!("proxy = \"{literal}\"\n") } else { String::new() }, 0o600);
            let place = if in_file { "config.toml:1" } else { name };
            for command in [&["rotate"][..], &["config", "show"], &["check"], &["status"]] {
                let session = rotator(&home, &workspace, command);
                let session = if in_file { session } else { session.env(name, &value) };
                let outcome = session.run();
                outcome.exits(78).stderr_has(place).stderr_has(says).stderr_lacks("sup3r");
            }
        }
    }
    assert_eq!((workspace.requests(), listening.heard()), (Vec::new(), Vec::new()), "nothing was sent");
}

#[test]
fn what_is_excepted_is_reached_directly() {
    let test = "what_is_excepted_is_reached_directly";
    if let Err(reason) = names::wrapper() {
        return skip(test, &reason);
    }
    let workspace = Workspace::start();
    let port = workspace.port();
    let with_port = format!("workspace.test:{port}");
    for (no_proxy, is_direct) in [
        ("*", true),
        ("workspace.test", true),
        (".test", true),
        ("*.test", true),
        ("a.example, TEST", true),
        (with_port.as_str(), true),
        ("workspace.test:443", false),
        (".workspace.test", false),
        ("space.test", false),
        ("", false),
    ] {
        for (variable, key) in [(Some("NO_PROXY"), ""), (Some("no_proxy"), ""), (None, "no_proxy")] {
            let home = Home::new();
            let text = if key.is_empty() { String::new() } else { format!("{key} = '{no_proxy}'\n") };
            home.write(CONFIG, text, 0o600);
            let session = once(&home, &workspace).resolving("workspace.test", "127.0.0.1");
            let session = variable.iter().fold(session, |session, name| session.env(name, no_proxy));
            let outcome = session.env("HTTPS_PROXY", "http://127.0.0.1:9").run();
            outcome.exits(if is_direct { 0 } else { 69 });
        }
    }
    // This machine is reached directly by its usual names, and by another only where that is excepted.
    for (host, no_proxy, code) in [
        (workspace.url(), "", 0),
        (format!("https://localhost:{port}"), "", 0),
        (format!("https://acme.localhost:{port}"), "", 69),
    ] {
        let home = Home::new();
        let session = once(&home, &workspace).env("DATABRICKS_HOST", host).env("NO_PROXY", no_proxy);
        session.env("HTTPS_PROXY", "http://127.0.0.1:9").run().exits(code);
    }
    let home = Home::new();
    let session =
        once(&home, &workspace).resolving("workspace.test", "127.0.0.1").env("NO_PROXY", "a.example b.example");
    session
        .env("ALL_PROXY", "http://127.0.0.1:9")
        .run()
        .exits(0)
        .stderr_has("exempts nothing")
        .stderr_has("$ALL_PROXY is not used");
}

#[test]
fn the_vendors_cli_goes_by_the_same_proxy() {
    let workspace = Workspace::start();
    let home = Home::new();
    let told = home.path("told");
    let script = "#!/bin/sh\nenv | grep -i _proxy | sort > \"$HOME/told\"\necho \"$*\" >> \"$HOME/runs\"\n\
                  echo 'Error: token refresh: Post \"https://w\": Proxy Authentication Required' >&2\nexit 1\n";
    home.write("bin/databricks", script, 0o755);
    home.keep_secret("cli-pr0xy-word");
    let proxy = Answering::with(b"HTTP/1.1 503 Service Unavailable\r\n\r\n");
    let address = format!("http://ada:cli-pr0xy-word@127.0.0.1:{}", proxy.port());
    let cli = |command: &[&str]| {
        rotator(&home, &workspace, command).without_env("DATABRICKS_CLIENT_ID").without_env("DATABRICKS_CLIENT_SECRET")
    };
    let rotate = ["rotate", "--retry-for", "3s"];
    for (file, variables) in [
        (format!("proxy = '{address}'\nno_proxy = '.example'\n"), vec![]),
        (String::new(), vec![("https_proxy", format!("{address} \n")), ("no_proxy", ".example".to_owned())]),
        (
            "proxy = 'http://unused.example'\nno_proxy = 'unused'\n".to_owned(),
            vec![
                ("HTTPS_PROXY", address.clone()),
                ("https_proxy", "socks://x".to_owned()),
                ("NO_PROXY", ".example".to_owned()),
            ],
        ),
    ] {
        home.write(CONFIG, file, 0o600);
        let _ = fs::remove_file(home.path("runs"));
        let session = variables.into_iter().fold(cli(&rotate), |session, (name, value)| session.env(name, value));
        let outcome = session.run();
        let told = fs::read_to_string(&told).unwrap();
        assert_eq!(told, format!("HTTPS_PROXY={address}\nNO_PROXY=.example\n"));
        // What the proxy refuses to the CLI it would refuse to it again.
        outcome.exits(77).stderr_has(&format!("the proxy 127.0.0.1:{}", proxy.port())).stderr_has("does not accept");
        assert_eq!(home.read("runs").lines().count(), 1, "{outcome}");
    }
    // The stand-in for the real one, by no proxy: nothing of it is set.
    let home = Home::new();
    let standin: Cli = home.install_cli(&workspace);
    let session = dbx_rotator!(home).args(["rotate"]).trusting(&workspace).env("DATABRICKS_HOST", workspace.url());
    session.env("DATABRICKS_PG_HOST", "db.example").env("DATABRICKS_PG_USERNAME", workspace.user()).run().exits(0);
    let environment = &standin.invocations()[0].environment;
    assert!(!environment.iter().any(|name| name.to_lowercase().contains("proxy")), "{environment:?}");
}
