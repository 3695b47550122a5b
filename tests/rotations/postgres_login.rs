//! A login proves what a client would find: a real PostgreSQL, real TLS, and a message for each kind of refusal.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test stops where it fails, and tells the one that started it what came of it"
)]

use std::io::{Read, Write};
use std::path::Path;
#[cfg(target_os = "linux")]
use std::process::Command;
use std::time::Duration;

use crate::support::postgres::DATABASE;
use crate::support::workspace::authority::Authority;
use crate::support::{Home, Postgres, Workspace, skip};
use dbx_rotator::postgres::{Session, SslMode, Target, login};
use dbx_rotator::{Code, Failure, Kind};
use secrecy::SecretString;
use tokio::net::{TcpListener, TcpStream};

const HOUR: Duration = Duration::from_secs(3600);

/// For a whole login on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

const ADA: &str = "ada@example.com";

fn start(test: &str, workspace: &Workspace) -> Option<Postgres> {
    Postgres::start(workspace, &[ADA, workspace.client_id()]).map_err(|reason| skip(test, &reason)).ok()
}

/// Ada's login.
fn ada(port: u16) -> Target<'static> {
    Target { host: "localhost", port, database: DATABASE, user: ADA, sslmode: SslMode::Require, root: None }
}

async fn log_in(target: &Target<'_>, token: &str) -> Result<Session, Failure> {
    let found = login(target, &SecretString::from(token), LIMIT).await;
    if let Err(failure) = &found {
        assert!(!format!("{failure:?}").contains(token), "a token has no place in a message");
    }
    found
}

/// Forwards the next connection to the server on that port, until either side ends it.
async fn hand_on(listener: &TcpListener, port: u16) {
    let (mut client, _) = listener.accept().await.unwrap();
    let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
}

#[track_caller]
fn is(failure: &Failure, kind: Kind, code: Code, words: &str) {
    assert_eq!((failure.kind, failure.code), (kind, code), "{failure}");
    assert!(failure.message.contains(words), "{failure}");
    assert!(failure.hint.is_some(), "{failure}");
}

#[tokio::test]
async fn a_live_token_opens_a_session_as_its_role() {
    let workspace = Workspace::start();
    let Some(server) = start("a_live_token_opens_a_session_as_its_role", &workspace) else { return };
    let session = log_in(&ada(server.port()), &workspace.issue(ADA, HOUR)).await.unwrap();
    assert_eq!((session.user.as_str(), session.tries), (ADA, 1));
    assert!(session.server_version.starts_with(|c: char| c.is_ascii_digit()), "{}", session.server_version);
    let logins = server.logins();
    assert!(logins.len() == 1 && logins[0].accepted(), "one login and no more: {logins:?}");
}

#[tokio::test]
async fn a_token_as_long_as_they_come_is_taken_whole() {
    let workspace = Workspace::builder().token_length(16_384).start();
    let Some(server) = start("a_token_as_long_as_they_come_is_taken_whole", &workspace) else { return };
    log_in(&ada(server.port()), &workspace.issue(ADA, HOUR)).await.unwrap();
}

#[tokio::test]
async fn a_refused_token_is_asked_for_once_and_its_role_is_named() {
    let workspace = Workspace::start();
    let Some(server) = start("a_refused_token_is_asked_for_once_and_its_role_is_named", &workspace) else { return };
    let robot = workspace.client_id();
    for (token, reason) in [
        (workspace.issue(ADA, Duration::ZERO), "expired"),
        (workspace.issue(robot, HOUR), "someone else's"),
        (Workspace::start().issue(ADA, HOUR), "forged"),
    ] {
        let before = server.logins().len();
        let failure = log_in(&ada(server.port()), &token).await.unwrap_err();
        is(&failure, Kind::Permanent, Code::SignInRefused, "authentication failed");
        assert!(failure.message.contains(ADA), "{failure}");
        assert!(failure.hint.unwrap().contains("databricks_create_role('ada@example.com', 'USER')"));
        let decided = &server.logins()[before..];
        assert!(decided.len() == 1 && decided[0].refused == Some(reason), "{decided:?}");
    }
    // A good token does not help without a role.
    let ghost = Target { user: "ghost@example.com", ..ada(server.port()) };
    let failure = log_in(&ghost, &workspace.issue("ghost@example.com", HOUR)).await.unwrap_err();
    is(&failure, Kind::Permanent, Code::SignInRefused, "does not exist");
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_a_wrong_setting() {
    let workspace = Workspace::start();
    let Some(server) = start("a_database_that_does_not_exist_is_a_wrong_setting", &workspace) else { return };
    let target = Target { database: "no such", ..ada(server.port()) };
    let failure = log_in(&target, &workspace.issue(ADA, HOUR)).await.unwrap_err();
    is(&failure, Kind::Permanent, Code::Configuration, "database \"no such\" does not exist [3D000]");
}

#[tokio::test]
async fn certificates_are_verified_as_libpq_would() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let Some(server) = start("certificates_are_verified_as_libpq_would", &workspace) else { return };
    let token = workspace.issue(ADA, HOUR);
    let ours = server.ca_file();
    let theirs = home.write("other.pem", Authority::new("somebody else's").pem(), 0o644);
    let target = |host, sslmode, root| Target { host, sslmode, root, ..ada(server.port()) };
    let right: Option<&Path> = Some(&ours);
    for (host, sslmode, root) in [
        ("localhost", SslMode::VerifyFull, right),
        ("127.0.0.1", SslMode::VerifyFull, right),
        ("localhost", SslMode::Require, right),
        ("localhost", SslMode::Require, None),
    ] {
        let found = log_in(&target(host, sslmode, root), &token).await;
        assert!(found.is_ok(), "{host} {sslmode} {root:?}: {found:?}");
    }
    let before = server.logins().len();
    // The platform's store does not have this authority, nor does the wrong file.
    for (sslmode, root) in
        [(SslMode::VerifyFull, None), (SslMode::VerifyFull, Some(&theirs)), (SslMode::Require, Some(&theirs))]
    {
        let failure = log_in(&target("localhost", sslmode, root.map(|path| path.as_path())), &token).await.unwrap_err();
        is(&failure, Kind::Permanent, Code::Unavailable, "is not trusted");
    }
    assert_eq!(server.logins().len(), before, "nobody got the token who was not trusted");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_a_wrong_setting_to_verify_full_and_nothing_to_require() {
    let test = "a_certificate_for_another_name_is_a_wrong_setting_to_verify_full_and_nothing_to_require";
    let workspace = Workspace::start();
    let Some(server) = start(test, &workspace) else { return };
    let (token, authority) = (workspace.issue(ADA, HOUR), server.ca_file());
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let require = Target { host: "127.0.0.2", root: Some(&authority), ..ada(listener.local_addr().unwrap().port()) };
    let verify_full = Target { sslmode: SslMode::VerifyFull, ..require };
    let (refused, ()) = tokio::join!(log_in(&verify_full, &token), hand_on(&listener, server.port()));
    is(&refused.unwrap_err(), Kind::Permanent, Code::Configuration, "is for another name");
    assert!(server.logins().is_empty(), "it did not get the token");
    let (found, ()) = tokio::join!(log_in(&require, &token), hand_on(&listener, server.port()));
    assert_eq!(found.unwrap().user, ADA);
}

/// Not a test on its own: the next one runs it with the platform's store replaced.
#[cfg(target_os = "linux")]
#[tokio::test]
#[ignore = "the_platforms_store_is_where_ssl_cert_file_says runs it"]
async fn a_login_verified_by_the_platforms_store() {
    let [port, token] = ["PORT", "TOKEN"].map(|name| std::env::var(name).unwrap());
    let target = Target { sslmode: SslMode::VerifyFull, ..ada(port.parse().unwrap()) };
    println!("\n{:?}", log_in(&target, &token).await.map_err(|failure| failure.code));
}

#[cfg(target_os = "linux")]
#[test]
fn the_platforms_store_is_where_ssl_cert_file_says() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let Some(server) = start("the_platforms_store_is_where_ssl_cert_file_says", &workspace) else { return };
    let verified = |store: &Path| {
        let run = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "postgres_login::a_login_verified_by_the_platforms_store", "--ignored", "--nocapture"])
            .env("PORT", server.port().to_string())
            .env("TOKEN", workspace.issue(ADA, HOUR))
            .env("SSL_CERT_FILE", store)
            // This variable would be read as well.
            .env_remove("SSL_CERT_DIR")
            .output()
            .unwrap();
        String::from_utf8(run.stdout).unwrap()
    };
    let said = verified(&server.ca_file());
    assert!(said.contains("Ok(Session"), "{said}");
    let said = verified(&home.write("other.pem", Authority::new("somebody else's").pem(), 0o644));
    assert!(said.contains("Err(Unavailable)"), "{said}");
    let said = verified(&home.write("empty.pem", "", 0o644));
    assert!(said.contains("Err(Configuration)"), "{said}");
}

#[tokio::test]
async fn authorities_that_cannot_be_used_are_a_wrong_setting() {
    let home = Home::new();
    let empty = home.write("empty.pem", "", 0o644);
    for (root, words) in [(empty.as_path(), "no certificate"), (Path::new("/nowhere/ca.pem"), "no such file")] {
        let target = Target { root: Some(root), sslmode: SslMode::VerifyFull, ..ada(1) };
        let failure = log_in(&target, "a token").await.unwrap_err();
        is(&failure, Kind::Permanent, Code::Configuration, words);
        assert!(failure.message.contains(&root.display().to_string()), "{failure}");
    }
}

#[tokio::test]
async fn a_server_without_tls_gets_neither_password_nor_name() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 8];
        stream.read_exact(&mut request).unwrap();
        stream.write_all(b"N").unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        (request, rest)
    });
    let target = Target { host: "127.0.0.1", ..ada(port) };
    let failure = log_in(&target, "a token").await.unwrap_err();
    is(&failure, Kind::Permanent, Code::Configuration, "does not speak TLS");
    let (request, rest) = server.join().unwrap();
    assert_eq!(request, [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f], "SSLRequest");
    assert!(rest.is_empty(), "{rest:?}");
}

#[tokio::test]
async fn a_server_that_is_still_waking_up_is_tried_again() {
    let workspace = Workspace::start();
    let Some(server) = start("a_server_that_is_still_waking_up_is_tried_again", &workspace) else { return };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let behind = server.port();
    // In its own task, so that a client that gives up fails the test instead of leaving it waiting.
    let front = tokio::spawn(async move {
        // It hangs up on the first two, and forwards the third.
        for _ in 0..2 {
            drop(listener.accept().await.unwrap());
        }
        hand_on(&listener, behind).await;
    });
    let (target, token) = (Target { host: "127.0.0.1", ..ada(port) }, workspace.issue(ADA, HOUR));
    assert_eq!(log_in(&target, &token).await.unwrap().tries, 3);
    front.await.unwrap();
}

#[tokio::test]
async fn what_was_said_before_the_time_was_over_is_what_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target { host: "127.0.0.1", ..ada(listener.local_addr().unwrap().port()) };
    let front = tokio::spawn(async move {
        drop(listener.accept().await.unwrap());
        // Then it accepts connections and stays silent.
        std::future::pending::<()>().await;
        drop(listener);
    });
    let failure = login(&target, &SecretString::from("x"), Duration::from_secs(6)).await.unwrap_err();
    front.abort();
    is(&failure, Kind::Transient, Code::Unavailable, "the connection was lost");
}

#[tokio::test]
async fn a_server_that_says_nothing_costs_no_more_than_the_limit() {
    // The kernel accepts connections on its behalf, but nobody ever answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target { host: "127.0.0.1", ..ada(silent.local_addr().unwrap().port()) };
    let failure = login(&target, &SecretString::from("x"), Duration::from_millis(200)).await.unwrap_err();
    is(&failure, Kind::Transient, Code::Unavailable, "did not agree on TLS within 1 s");
}
