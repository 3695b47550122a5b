//! A secret goes only to the origin that it belongs to.

use std::io::Read;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::support::refusing::{Refusing, Reply, message};
use crate::support::workspace::{DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET};
use crate::support::{Door, Endpoint, Fault, Home, Session, Workspace, dbx_rotator};

/// A server on this machine that nobody should contact: it counts connections and keeps what they send.
struct Elsewhere {
    door: Door,
    visits: Arc<AtomicUsize>,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Elsewhere {
    fn open() -> Self {
        let (visits, heard) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<u8>>>::default());
        let (counts, hears) = (Arc::clone(&visits), Arc::clone(&heard));
        let door = Door::open(move |mut visitor| {
            counts.fetch_add(1, Ordering::SeqCst);
            let mut first = [0; 4096];
            let length = visitor.read(&mut first).unwrap_or(0);
            hears.lock().unwrap().extend_from_slice(&first[..length]);
            let _ = visitor.shutdown(Shutdown::Both);
        });
        Elsewhere { door, visits, heard }
    }

    fn port(&self) -> u16 {
        self.door.port()
    }

    /// Fails if anybody has connected.
    #[track_caller]
    fn saw_nobody(&self, after: &str) {
        let heard = self.heard.lock().unwrap().len();
        assert_eq!((self.visits.load(Ordering::SeqCst), heard), (0, 0), "visits and bytes, after {after}");
    }
}

/// `dbx-rotator rotate` as a service principal.
fn rotate<'a>(home: &'a Home, workspace: &Workspace) -> Session<'a> {
    dbx_rotator!(home)
        .args(["rotate"])
        .signed_in_to(workspace)
        .env("DATABRICKS_PG_HOST", "db.example")
        .env("DATABRICKS_PG_USERNAME", workspace.client_id())
}

fn discovery(token_endpoint: &str) -> Fault {
    let body = format!(r#"{{"authorization_endpoint":"https://x.example","token_endpoint":"{token_endpoint}"}}"#);
    Fault::StatusWith { status: 200, body, headers: vec![("Content-Type".to_owned(), "application/json".to_owned())] }
}

#[test]
fn a_discovery_document_that_names_another_origin_ends_with_78_and_nothing_is_sent_there() {
    let (workspace, elsewhere) = (Workspace::start(), Elsewhere::open());
    let (ours, theirs) = (workspace.port(), elsewhere.port());
    for (named, other) in [
        (format!("https://127.0.0.1:{theirs}/oidc/v1/token"), format!("https://127.0.0.1:{theirs}")),
        (format!("http://127.0.0.1:{theirs}/oidc/v1/token"), format!("http://127.0.0.1:{theirs}")),
        (format!("http://127.0.0.1:{ours}/oidc/v1/token"), format!("http://127.0.0.1:{ours}")),
        (format!("https://localhost:{ours}/oidc/v1/token"), format!("https://localhost:{ours}")),
        (format!("https://127.0.0.2:{ours}/oidc/v1/token"), format!("https://127.0.0.2:{ours}")),
        ("https://127.0.0.1/oidc/v1/token".to_owned(), "https://127.0.0.1 ".to_owned()),
        (format!("https://127.0.0.1:{ours}@localhost:{theirs}/"), format!("https://localhost:{theirs}")),
        (format!("https://ada:x@127.0.0.1:{ours}/oidc/v1/token"), "holds a user name".to_owned()),
        (format!("https://[::1]:{theirs}/oidc/v1/token"), format!("https://[::1]:{theirs}")),
        ("/oidc/v1/token".to_owned(), "is not an address".to_owned()),
        ("file:///etc/passwd".to_owned(), "file:".to_owned()),
    ] {
        let home = Home::new();
        workspace.faults_on(Endpoint::Discovery).clear().always(discovery(&named));
        let before = workspace.token_requests();
        rotate(&home, &workspace).run().exits(78).stderr_has(&other).stderr_has(&workspace.url());
        elsewhere.saw_nobody(&named);
        assert_eq!(workspace.token_requests(), before, "{named}");
        assert!(home.pgpass().is_empty(), "{named}");
    }
}

#[test]
fn a_discovery_document_may_name_the_origin_in_other_words_and_another_path() {
    let workspace = Workspace::start();
    for named in [
        format!("https://127.0.0.1:{}/oidc/v1/token", workspace.port()),
        format!("HTTPS://127.0.0.1:{}/./oidc/../oidc/v1/token", workspace.port()),
        format!("https://127.1:{}/oidc/v1/token?x=1", workspace.port()),
    ] {
        let home = Home::new();
        workspace.faults_on(Endpoint::Discovery).clear().always(discovery(&named));
        rotate(&home, &workspace).run().exits(0);
        assert!(home.pgpass().contains(":eyJ"), "{named}");
    }
}

#[test]
fn a_redirect_is_followed_by_no_request_that_carries_something() {
    let (workspace, elsewhere) = (Workspace::start(), Elsewhere::open());
    let away = Fault::Redirect(format!("https://127.0.0.1:{}/x", elsewhere.port()));
    for endpoint in
        [Endpoint::Discovery, Endpoint::Token, Endpoint::Me, Endpoint::DatabaseInstance, Endpoint::DatabaseCredentials]
    {
        workspace.heal();
        workspace.faults_on(endpoint).always(away.clone());
        let home = Home::new();
        home.write(".config/dbx-rotator/config.toml", "[[connection]]\ninstance = 'orders'\n", 0o600);
        dbx_rotator!(home).args(["rotate"]).signed_in_to(&workspace).run();
        elsewhere.saw_nobody(&format!("{endpoint:?}"));
    }
}

#[test]
fn what_a_proxy_is_told_in_confidence_is_told_to_nobody_else_and_printed_nowhere() {
    let workspace = Workspace::start();
    let proxy_password = "pr0xy-pass-word";
    for scheme in ["http", "https", "socks5", "nonsense"] {
        let (home, proxy) = (Home::new(), Elsewhere::open());
        home.keep_secret(proxy_password);
        // The proxy hangs up; what was sent to it is checked.
        let address = format!("{scheme}://ada:{proxy_password}@127.0.0.1:{}", proxy.port());
        let host = format!("https://workspace.test:{}", workspace.port());
        let outcome = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy"]
            .iter()
            .fold(rotate(&home, &workspace).args(["--retry-for", "0s"]), |session, name| session.env(name, &address));
        // This machine is reached directly, by another name than this one.
        outcome.env("DATABRICKS_HOST", host).run();
        let heard = proxy.heard.lock().unwrap().clone();
        let text = String::from_utf8_lossy(&heard).into_owned();
        if scheme == "http" {
            assert!(text.starts_with("CONNECT workspace.test:"), "{text}");
        }
        let lower = text.to_ascii_lowercase();
        assert!(!lower.contains("\r\nauthorization:") && !text.contains(workspace.client_secret()), "{text}");
    }
    // A workspace on this machine without TLS is never reached through a proxy.
    let (plain, home, proxy) = (Workspace::builder().http().start(), Home::new(), Elsewhere::open());
    rotate(&home, &plain).env("HTTP_PROXY", format!("http://127.0.0.1:{}", proxy.port())).run().exits(0);
    proxy.saw_nobody("plain http");
}

#[test]
fn the_clis_token_of_another_workspace_is_not_sent_to_this_one() {
    let (workspace, other) = (Workspace::start(), Workspace::builder().workspace_id("999").start());
    let home = Home::new();
    home.watch(&other);
    // The CLI is logged in elsewhere, and returns that token whatever it is asked for.
    let token = other.issue(workspace.user(), std::time::Duration::from_secs(3600));
    home.keep_secret(&token);
    home.write("bin/token", token, 0o600);
    // Written by a shell, as in support/cli.rs: a file that another test's child has open for writing cannot be run.
    let script = "printf '#!/bin/sh\\ncat \"%s/token\"\\n' \"$1\" > \"$1/new\" && chmod 755 \"$1/new\" && mv \"$1/new\" \"$1/databricks\"";
    let made = std::process::Command::new("/bin/sh").args(["-c", script, "sh"]).arg(home.path("bin")).status();
    assert!(made.unwrap().success());
    let person = |address: String| {
        plain(&home, &workspace, &["rotate", "--retry-for", "0s"])
            .env("DATABRICKS_HOST", address)
            .env("DATABRICKS_PG_USERNAME", workspace.user())
    };
    home.write(CONFIG, "[[connection]]\ninstance = 'orders'\n", 0o600);
    let with_id = format!("{}/?o={}", workspace.url_as("localhost"), workspace.workspace_id());
    for address in [with_id, workspace.url_as("localhost")] {
        person(address).run().exits(78).stderr_has("handed out a token of").stderr_has("localhost");
    }
    // Which workspace it is, a host tells everybody.
    assert_eq!(workspace.requests(), ["GET /.well-known/databricks-config"], "no bearer was sent");
}

// ---- which identity is used ----

const CONFIG: &str = ".config/dbx-rotator/config.toml";
const CONNECTION: &str = "[[connection]]\nhost = 'db.example'\n";

/// The description of a workspace in each of the places.
fn described(workspace: &str, more: &str) -> String {
    let pair = format!("client_id = '{DEFAULT_CLIENT_ID}'\nclient_secret_file = 'secret'\n");
    format!("[[workspace]]\nhost = '{workspace}'\n{pair}{more}{CONNECTION}")
}

fn profile(name: &str, host: &str) -> String {
    let host = if host.is_empty() { String::new() } else { format!("host = {host}\n") };
    format!("[{name}]\n{host}client_id = {DEFAULT_CLIENT_ID}\nclient_secret = {DEFAULT_CLIENT_SECRET}\n")
}

fn plain<'a>(home: &'a Home, workspace: &Workspace, command: &[&str]) -> Session<'a> {
    home.watch(workspace);
    dbx_rotator!(home).args(command).trusting(workspace)
}

#[test]
fn an_exported_profile_of_another_host_signs_in_nowhere_else() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let elsewhere = Elsewhere::open();
    for of_profile in ["https://prod.example", "", "https://127.0.0.1"] {
        home.write(".databrickscfg", profile("prod", of_profile), 0o600);
        let with = |command: &[&str]| {
            plain(&home, &workspace, command)
                .env("DATABRICKS_CONFIG_PROFILE", "prod")
                .env("DATABRICKS_PG_HOST", "db.example")
                .env("DATABRICKS_PG_USERNAME", DEFAULT_CLIENT_ID)
        };
        // From the environment, from config.toml, and by flag.
        with(&["rotate"]).env("DATABRICKS_HOST", workspace.url()).run().exits(78).stderr_has("ignored");
        with(&["rotate", "--workspace-url", &workspace.url()]).run().exits(78).stderr_has("ignored");
        home.write(CONFIG, format!("[[workspace]]\nhost = '{}'\n{CONNECTION}", workspace.url()), 0o600);
        with(&["rotate"]).run().exits(78).stderr_has("ignored");
        let shown = with(&["config", "show"]).run();
        shown.exits(0).stdout_has("the profile is ignored").stdout_has(&workspace.url()).stdout_lacks("client_id");
        with(&["config", "check"]).run().exits(0).stdout_has("the profile is ignored");
        with(&["check"]).run().stderr_has("the profile is ignored");
        std::fs::remove_file(home.path(CONFIG)).unwrap();
    }
    assert_eq!(workspace.requests(), Vec::<String>::new(), "nothing was sent");
    elsewhere.saw_nobody("all of it");
    // If it is for this host, it signs in.
    home.write(".databrickscfg", profile("prod", &format!("{}/?o=1444828305810485", workspace.url())), 0o600);
    plain(&home, &workspace, &["rotate"])
        .env("DATABRICKS_CONFIG_PROFILE", "prod")
        .env("DATABRICKS_HOST", workspace.url())
        .env("DATABRICKS_PG_HOST", "db.example")
        .run()
        .exits(0);
}

#[test]
fn settings_that_are_complete_read_no_profile() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let complete = |home: &Home| rotate(home, &workspace).env("DATABRICKS_CONFIG_PROFILE", "gone").run();
    complete(&home).exits(0);
    home.write(".databrickscfg", "[prod]\nhost = x\n", 0o600);
    complete(&home).exits(0);
    home.write(".databrickscfg", "neither a section nor a key\n", 0o600);
    complete(&home).exits(0).stderr_lacks("profile");
    home.write(CONFIG, described(&workspace.url(), "profile = 'gone'\n"), 0o600);
    home.write(".config/dbx-rotator/secret", workspace.client_secret(), 0o600);
    let shown = plain(&home, &workspace, &["config", "show"]).run();
    shown.exits(0).stdout_has("note: profile gone").stdout_has("is not read");
    plain(&home, &workspace, &["rotate"]).run().exits(0);
    // An incomplete description needs the profile.
    home.write(CONFIG, format!("[[workspace]]\nprofile = 'gone'\n{CONNECTION}"), 0o600);
    plain(&home, &workspace, &["rotate"]).run().exits(78);
}

#[test]
fn a_secret_does_not_stay_when_the_workspace_changes() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.write(".config/dbx-rotator/secret", workspace.client_secret(), 0o600);
    let url = workspace.url();
    let secret = ("DATABRICKS_CLIENT_SECRET", DEFAULT_CLIENT_SECRET);
    let id = ("DATABRICKS_CLIENT_ID", DEFAULT_CLIENT_ID);
    let only_host = format!("[[workspace]]\nhost = '{url}'\n{CONNECTION}");
    let with_id = format!("[[workspace]]\nhost = '{url}'\nclient_id = '{DEFAULT_CLIENT_ID}'\n{CONNECTION}");
    let no_host = described("x", "").replace("host = 'x'\n", "");
    let others = described("https://other.example", "");
    for (file, variables, flags, what) in [
        // The pair in the environment says nothing about the host in the file, or is for another.
        (&only_host, &[id, secret][..], &[][..], "DATABRICKS_CLIENT_SECRET"),
        (&with_id, &[secret], &[], "DATABRICKS_CLIENT_SECRET"),
        (
            &only_host,
            &[id, secret, ("DATABRICKS_HOST", "https://127.0.0.1:1")],
            &["--workspace-url", &url],
            "127.0.0.1:1",
        ),
        // The pair in the file says nothing about the host in the environment, or is for another.
        (&no_host, &[("DATABRICKS_HOST", &url)], &[], "client_secret_file"),
        (&others, &[("DATABRICKS_HOST", &url)], &[], "https://other.example"),
        (&others, &[], &["--workspace-url", &url], "https://other.example"),
    ] {
        home.write(CONFIG, file, 0o600);
        let session = plain(&home, &workspace, &["rotate"]).args(flags);
        let session = variables.iter().fold(session, |session, (name, value)| session.env(name, value));
        session.run().exits(78).stderr_has("ignored").stderr_has(what).stderr_has(&url);
    }
    assert_eq!(workspace.requests(), Vec::<String>::new(), "nothing was sent");
}

#[test]
fn who_says_for_which_workspace_a_secret_is_may_use_it() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.write(".config/dbx-rotator/secret", workspace.client_secret(), 0o600);
    home.write("credentials/client-secret", workspace.client_secret(), 0o400);
    let url = workspace.url();
    let host = ("DATABRICKS_HOST", url.clone());
    let id = ("DATABRICKS_CLIENT_ID", DEFAULT_CLIENT_ID.to_owned());
    let secret = ("DATABRICKS_CLIENT_SECRET", DEFAULT_CLIENT_SECRET.to_owned());
    let credential = ("CREDENTIALS_DIRECTORY", home.path("credentials").display().to_string());
    let whole = described(&url, "");
    let with_id = whole.replace("client_secret_file = 'secret'\n", "");
    let file = home.path(".config/dbx-rotator/secret").display().to_string();
    for (written, variables, flags) in [
        (CONNECTION, vec![&host, &id, &secret], vec![]),
        (CONNECTION, vec![&id, &secret], vec!["--workspace-url", &url]),
        (CONNECTION, vec![&host, &secret], vec!["--client-id", DEFAULT_CLIENT_ID]),
        (CONNECTION, vec![&host, &id, &credential], vec![]),
        (&whole, vec![], vec![]),
        (&with_id, vec![&credential], vec![]),
        (&with_id, vec![&host, &secret], vec![]),
        (&with_id, vec![], vec!["--client-secret-file", &file]),
        (&whole, vec![&id], vec![]),
        (&whole, vec![&host, &id, &secret], vec![]),
    ] {
        home.write(CONFIG, written, 0o600);
        let session = plain(&home, &workspace, &["rotate"]).args(&flags);
        let session = variables.iter().fold(session, |session, (name, value)| session.env(name, value));
        let outcome = session.run();
        outcome.exits(0).stderr_lacks("ignored");
    }
}

#[test]
fn a_secret_is_not_tried_with_another_clients_id() {
    let (workspace, home) = (Workspace::start(), Home::new());
    home.write(".config/dbx-rotator/secret", workspace.client_secret(), 0o600);
    home.write(CONFIG, described(&workspace.url(), ""), 0o600);
    let another = "11111111-0000-4000-8000-000000000000";
    let refused = |session: Session<'_>| {
        session.run().exits(78).stderr_has("belong to different clients").stderr_has("config.toml:4");
    };
    refused(plain(&home, &workspace, &["rotate", "--client-id", another]));
    refused(plain(&home, &workspace, &["rotate"]).env("DATABRICKS_CLIENT_ID", another));
    assert_eq!(workspace.requests(), Vec::<String>::new(), "nothing was sent");
}

// ---- PostgreSQL, and impostors ----

/// A workspace, and a server that somebody put in place of the real one: its certificate is from another authority.
fn impostor(reply: Reply) -> (Workspace, Workspace, Refusing) {
    let (workspace, other) = (Workspace::start(), Workspace::start());
    let server = Refusing::start(&other, &["db.example"], reply).unwrap();
    (workspace, other, server)
}

fn connected<'a>(home: &'a Home, workspace: &Workspace, host: &str, more: &str, command: &[&str]) -> Session<'a> {
    home.write(CONFIG, format!("[[connection]]\nhost = '{host}'\n{more}"), 0o600);
    dbx_rotator!(home).args(command).signed_in_to(workspace)
}

#[test]
fn a_server_that_cannot_prove_who_it_is_gets_no_credential_unless_that_was_asked_for() {
    let (workspace, _other, server) = impostor(Reply::Welcome("ada".to_owned()));
    let (home, host) = (Home::new(), server.address().to_string());
    let rotate = ["rotate", "--retry-for", "0s"];
    for (more, why) in [
        ("verify = 'login'\n".to_owned(), "is not trusted"),
        ("verify = 'login'\nsslmode = 'verify-full'\n".to_owned(), "is not trusted"),
        (format!("verify = 'login'\nsslrootcert = '{}'\n", workspace.ca_file().display()), "is not trusted"),
    ] {
        let outcome = connected(&home, &workspace, &host, &more, &rotate).run();
        outcome.exits(69).stderr_has(why).stderr_has("sslrootcert");
        assert!(home.pgpass().is_empty(), "{more}");
    }
    // One credential is published without a login; `check` finds it.
    connected(&home, &workspace, &host, "", &["rotate"]).run().exits(0);
    let check = ["check", "--connect"];
    connected(&home, &workspace, &host, "", &check).run().exits(1).stdout_has("is not trusted");
    assert_eq!((server.attempts(), server.passwords_received()), (0, 0), "nobody got as far as to be asked who it is");
    let asked_for = connected(&home, &workspace, &host, "sslmode = 'require'\n", &check).run();
    asked_for.exits(0).stdout_has("whose server it is, is not checked (sslmode require)");
    assert_eq!(server.passwords_received(), 1);
}

#[test]
fn a_certificate_for_another_name_gets_no_credential() {
    let workspace = Workspace::start();
    let server = Refusing::start(&workspace, &[], Reply::Welcome("ada".to_owned())).unwrap();
    let front = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (port, behind) = (front.local_addr().unwrap().port(), server.address());
    // The same server at an address that is not in its certificate.
    std::thread::spawn(move || {
        for client in front.incoming().flatten() {
            let server = TcpStream::connect((behind, 5432)).unwrap();
            let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to).map(drop));
            let (mut from, mut to) = (client, server);
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Both);
        }
    });
    let home = Home::new();
    let more = format!("port = {port}\nverify = 'login'\n");
    let outcome = connected(&home, &workspace, "127.0.0.1", &more, &["rotate", "--retry-for", "0s"]).run();
    outcome.exits(78).stderr_has("certificate is for another name");
    assert_eq!((server.attempts(), server.passwords_received()), (0, 0));
}

#[test]
fn nothing_but_the_request_for_tls_is_sent_in_the_clear() {
    let workspace = Workspace::start();
    for answer in [
        &b"N"[..],
        b"E\0\0\0\x0eSFATAL\0Mboo\0\0",
        b"R\0\0\0\x08\0\0\0\x03",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"",
        b"S\x15\x03\x03\0\x02\x02\x28",
        b"SR\0\0\0\x08\0\0\0\x03",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut request = [0; 8];
            client.read_exact(&mut request).unwrap();
            std::io::Write::write_all(&mut client, answer).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut rest = Vec::new();
            let _ = client.read_to_end(&mut rest);
            (request, rest)
        });
        let home = Home::new();
        let more = format!("port = {port}\nverify = 'login'\nsslmode = 'require'\n");
        let outcome = connected(&home, &workspace, "127.0.0.1", &more, &["rotate", "--retry-for", "0s"]).run();
        assert!(outcome.stderr.contains("cannot log in") && home.pgpass().is_empty(), "{answer:?}\n{outcome}");
        let (request, rest) = heard.join().unwrap();
        assert_eq!(request, [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f], "SSLRequest");
        // A TLS client sends a hello (record type 22) and, if the answer makes no sense, an alert (21).
        let is_tls = rest.is_empty() || matches!(rest[0], 21 | 22);
        assert!(is_tls && !rest.windows(3).any(|three| three == b"eyJ"), "{answer:?}: {rest:?}");
        assert!(answer.first() == Some(&b'S') || rest.is_empty(), "{answer:?}: {rest:?}");
    }
}

#[test]
fn a_server_that_does_not_stop_talking_is_left_early_and_in_few_words() {
    let workspace = Workspace::start();
    let user = workspace.client_id().to_owned();
    let server = Refusing::start(&workspace, &[], Reply::HangUp).unwrap();
    let row = message(b'D', &[&[0, 1, 0, 0, 4, 0], &[b'x'; 1024][..]].concat());
    let column = message(b'T', &[&[0, 1], &b"session_user\0"[..], &[0; 18]].concat());
    let zeros = vec![0; 16 * 1024];
    let claim = |kind: u8, length: u32| Reply::Endless([&[kind], &length.to_be_bytes()[..]].concat(), zeros.clone());
    for (name, reply, said) in [
        ("a message of 2 GB", claim(b'R', 0x7fff_ffff), "a message of 2147483647 bytes"),
        ("an error of 5 MB", claim(b'E', 5_000_000), "a message of 5000000 bytes"),
        (
            "notices",
            Reply::Endless(message(b'R', &[0; 4]), message(b'N', b"SNOTICE\0Mboo\0\0")),
            "more than 500 messages",
        ),
        ("rows", Reply::EndlessAnswer(column, row), "more than 1024 KiB"),
        ("parameters", Reply::Endless(message(b'R', &[0; 4]), message(b'S', b"a\0b\0")), "more than 500 messages"),
    ] {
        server.then(reply);
        let home = Home::new();
        let host = server.address().to_string();
        let outcome = connected(&home, &workspace, &host, "verify = 'login'\n", &["rotate", "--retry-for", "0s"]).run();
        outcome.exits(69).stderr_has(said).stderr_has(&format!(" as {user}: "));
        assert!(home.pgpass().is_empty(), "{name}");
        assert!(outcome.stderr.lines().all(|line| line.len() < 1000), "{name}\n{outcome}");
    }
}
