//! A proxy that is started for a client and cannot serve it says so to the client.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::refused::as_another_user;
use super::{SOON, Stage, free_port, until};
use crate::support::postgres::psql_program;
use crate::support::{Running, Workspace};

const SCRIPT: &str = include_str!("../../support/activated.py");

/// The settings of the proxy that can start.
const CONFIG: &str = ".config/dbx-rotator/config.toml";

/// Starts the proxy for each client, as systemd does.
pub(super) fn activated(stage: &Stage, port: u16) -> Running<'_> {
    let script = stage.home.write("activated.py", SCRIPT, 0o600);
    let activated = stage.home.command("python3").arg(script).arg(stage.socket()).arg(port.to_string());
    let activated = activated.args([env!("CARGO_BIN_EXE_dbx-rotator"), "proxy"]).signed_in_to(&stage.workspace).spawn();
    activated.says("listening", SOON);
    activated
}

/// psql by TCP, which asks for TLS first.
pub(super) fn by_port(stage: &Stage, port: u16) -> crate::support::Outcome {
    let psql = stage.home.command(psql_program().unwrap()).env("PGPASSFILE", "/nonexistent");
    let port = port.to_string();
    psql.args(["-X", "-w", "-A", "-t", "-h", "127.0.0.1", "-p", &port, "-d", "orders", "-c", "select 1"]).run()
}

/// What a client is told that prints nothing, up to the end.
fn raw(stage: &Stage) -> String {
    let mut client = stage.connect();
    asks(&mut client);
    told(client)
}

fn asks(client: &mut UnixStream) {
    client.write_all(b"\0\0\0\x10\0\x03\0\0user\0x\0\0").unwrap();
}

fn told(mut client: UnixStream) -> String {
    client.set_read_timeout(Some(SOON)).unwrap();
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    String::from_utf8_lossy(&got).into_owned()
}

/// Waits for the end of the proxies so far: the next one reads other settings.
fn has_ended(running: &Running<'_>) {
    until("the last one has ended", || {
        let said = running.stderr();
        said.matches("starts\n").count() == said.matches("ended with").count()
    });
}

#[test]
fn a_proxy_that_cannot_start_tells_its_clients_why_and_what_to_do() {
    let test = "a_proxy_that_cannot_start_tells_its_clients_why_and_what_to_do";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let good = stage.home.read(CONFIG);
    let port = free_port();
    let running = activated(&stage, port);
    let certificate = format!("proxy_tls = '~/proxy.pem'\n{good}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy_port = format!("{good}proxy_port = {}\n", taken.local_addr().unwrap().port());
    stage.home.write("proxy.pem", "nonsense", 0o600);
    for (config, exit, sqlstate, why, hint) in [
        (Some("nonsense"), 78, "08001", "config.toml:1:9", ""),
        (Some("proxy_max_sessions = 1\n"), 78, "08001", "cannot start", "HINT"),
        (None, 78, "08001", "cannot start", "dbx-rotator setup"),
        (Some(certificate.as_str()), 78, "08001", "cannot use proxy_tls", "HINT"),
        (Some(busy_port.as_str()), 69, "57P03", "cannot listen at", "choose another proxy_port"),
    ] {
        match config {
            Some(text) => drop(stage.home.write(CONFIG, text, 0o600)),
            None => std::fs::remove_file(stage.home.path(CONFIG)).unwrap(),
        }
        for outcome in [stage.ask("orders", "select 1"), by_port(&stage, port)] {
            let fatal = "FATAL:  the proxy of dbx-rotator cannot start: ";
            outcome.exits(2).stderr_has(fatal).stderr_has(why).stderr_has(hint);
        }
        let told = raw(&stage);
        assert!(told.contains(&format!("C{sqlstate}\0")) && told.contains("SFATAL\0"), "{told:?}");
        has_ended(&running);
        assert!(running.stderr().ends_with(&format!("ended with {exit}\n")), "{}", running.stderr());
    }
    stage.home.write(CONFIG, "nonsense", 0o600);
    let mut all: Vec<_> = (0..150).map(|_| stage.connect()).collect();
    all.iter_mut().for_each(asks);
    assert!(all.into_iter().all(|client| told(client).contains("cannot start")), "each of many at once is told");
    has_ended(&running);
    if rustix::process::geteuid().is_root() {
        let port = port.to_string();
        let other = as_another_user(&stage, &["-h", "127.0.0.1", "-p", &port, "-d", "orders", "-c", "select 1"]);
        other.exits(2).stderr_has("cannot start").stderr_has("in its messages").stderr_lacks("proxy_port");
    }
    has_ended(&running);
    // As soon as it can, it serves.
    stage.home.write(CONFIG, good, 0o600);
    assert_eq!(stage.ask("orders", "select 1").exits(0).stdout.trim(), "1");
    running.terminate().exits(0);
}
