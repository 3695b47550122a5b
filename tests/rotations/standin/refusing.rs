//! To psql, the refusing server is a PostgreSQL, and it sends the planned replies.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{HOUR, SOON};
use crate::support::postgres::psql_program;
use crate::support::refusing::{Refusal, Refusing, Reply};
use crate::support::{Home, Session, Workspace, names, skip};

const HOST: &str = "ep-quiet-meadow-1.database.eu-west-1.cloud.databricks.com";
const ADA: &str = "ada@example.com";

#[test]
fn psql_hears_what_a_server_would_say() {
    let workspace = Workspace::start();
    let not_authorised = Refusal::new("28000", "OAuth: User is not authorized");
    let Some(server) = refusing("psql_hears_what_a_server_would_say", &workspace, not_authorised) else { return };
    let home = home(&workspace);
    ask(&home, &workspace, &server).run().exits(2).stderr_has("FATAL:  OAuth: User is not authorized\n");

    let paused = "Instance is paused. Please start the instance.";
    server.then(Refusal::new("28000", "External authorization failed").detail(paused));
    let said = ask(&home, &workspace, &server).run();
    said.exits(2).stderr_has(&format!("FATAL:  External authorization failed\nDETAIL:  {paused}\n"));

    // Only with this code, libpq says where the password came from.
    server.then(Refusal::new("28P01", "password authentication failed for user 'ada@example.com'"));
    ask(&home, &workspace, &server).run().exits(2).stderr_has("password retrieved from file");

    assert_eq!((server.attempts(), server.passwords_received()), (3, 3));
    assert_eq!(server.names_asked_for(), [Some(HOST.to_owned()), Some(HOST.to_owned()), Some(HOST.to_owned())]);
}

#[test]
fn a_server_wakes_after_some_attempts() {
    let workspace = Workspace::start();
    let welcome = Reply::Welcome("good morning".to_owned());
    let Some(server) = refusing("a_server_wakes_after_some_attempts", &workspace, welcome) else { return };
    server.first(2, Refusal::waking()).first(1, Reply::HangUp);
    let home = home(&workspace);
    for _ in 0..2 {
        ask(&home, &workspace, &server).run().exits(2).stderr_has("FATAL:  the database system is starting up");
    }
    ask(&home, &workspace, &server).run().exits(2).stderr_lacks("FATAL");
    assert_eq!((server.attempts(), server.passwords_received()), (3, 0), "nobody has asked for one yet");
    let awake = ask(&home, &workspace, &server).args(["-c", "select 1", "-c", "select 2"]).run();
    assert_eq!(awake.exits(0).stdout, "good morning\ngood morning\ngood morning\n");
    assert!(server.wait_for_attempts(4, SOON));
    assert_eq!(server.passwords_received(), 1);

    // Only after this code, libpq tries the next host.
    server.first(1, Refusal::waking());
    let again = ask(&home, &workspace, &server).env("PGHOST", format!("{HOST},{HOST}")).run();
    assert_eq!(again.exits(0).stdout, "good morning\n");
}

#[test]
fn no_password_without_tls_by_name() {
    let workspace = Workspace::start();
    let welcome = Reply::Welcome(String::new());
    let Some(server) = refusing("no_password_without_tls_by_name", &workspace, welcome) else { return };
    let home = home(&workspace);
    let plain = ask(&home, &workspace, &server).env("PGSSLMODE", "disable").run();
    plain.exits(2).stderr_has("connection requires encryption");
    assert_eq!(server.names_asked_for(), []);

    let elsewhere = HOST.replace("-1", "-2");
    let misnamed = ask(&home, &workspace, &server).resolving(&elsewhere, server.address()).env("PGHOST", &elsewhere);
    misnamed.run().exits(2).stderr_has("does not match host name");
    assert_eq!(server.names_asked_for(), [Some(elsewhere)], "and was told what it was taken for");
    assert_eq!((server.attempts(), server.passwords_received()), (0, 0));
}

#[test]
fn a_connection_ends_with_its_server() {
    let workspace = Workspace::start();
    let welcome = Reply::Welcome(String::new());
    let Some(server) = refusing("a_connection_ends_with_its_server", &workspace, welcome) else { return };
    let mut client = TcpStream::connect((server.address(), server.port())).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    // A request for GSS encryption, which is denied (N) and leaves the connection open.
    client.write_all(&[0, 0, 0, 8, 4, 210, 22, 48]).unwrap();
    let mut answer = [0];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"N");
    drop(server);
    assert!(matches!(client.read(&mut answer), Ok(0)), "it outlives its server");
}

/// A server, if names can be resolved here and psql is installed.
fn refusing(test: &str, workspace: &Workspace, reply: impl Into<Reply>) -> Option<Refusing> {
    let able = names::wrapper().and_then(|_| psql_program());
    able.and_then(|_| Refusing::start(workspace, &[HOST], reply)).map_err(|reason| skip(test, &reason)).ok()
}

fn home(workspace: &Workspace) -> Home {
    let home = Home::new();
    home.watch(workspace);
    home.write(".pgpass", format!("*:*:*:*:{}\n", workspace.issue(ADA, HOUR)), 0o600);
    home
}

fn ask<'a>(home: &'a Home, workspace: &Workspace, server: &Refusing) -> Session<'a> {
    home.psql(workspace, HOST, ADA).resolving(HOST, server.address()).args(["-c", "select 0"])
}
