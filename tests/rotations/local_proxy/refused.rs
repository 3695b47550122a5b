//! What the proxy refuses, and how clients are told.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::network::Network;
use super::protocol::{messages_until, startup};
use super::{SOON, Stage, free_port, until};
use crate::support::postgres::psql_program;
use crate::support::{Workspace, dbx_rotator, skip};

/// Another user, whom every Debian has.
const OTHER: &str = "daemon";

pub(super) fn as_another_user(stage: &Stage, arguments: &[&str]) -> crate::support::Outcome {
    let psql = psql_program().unwrap();
    let other = ["--reuid", OTHER, "--regid", OTHER, "--clear-groups", "--"];
    let session =
        stage.home.command("/usr/bin/setpriv").args(other).arg(psql).env("HOME", "/").env("PGPASSFILE", "/nonexistent");
    session.args(["-X", "-w", "-A", "-t"]).args(arguments).run()
}

#[test]
fn another_user_of_the_machine_is_refused_by_the_kernels_word_unless_that_is_allowed() {
    let test = "another_user_of_the_machine_is_refused_by_the_kernels_word_unless_that_is_allowed";
    if !rustix::process::geteuid().is_root() {
        return skip(test, "only root can become another user");
    }
    let port = free_port();
    let more = format!("proxy_port = {port}");
    let Some(stage) = Stage::new(test, Workspace::start(), "", &more) else { return };
    // So that only the sockets' own modes and the proxy's judgement keep them out.
    fs::set_permissions(stage.home.path(""), fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(stage.home.path(".run"), fs::Permissions::from_mode(0o711)).unwrap();
    let directory = stage.directory().display().to_string();
    let by_socket = ["-h", &directory, "-d", "orders", "-c", "select 1"];
    let number = port.to_string();
    let by_port = ["-h", "127.0.0.1", "-p", &number, "-d", "orders", "-c", "select 1"];
    let running = stage.start();
    as_another_user(&stage, &by_socket).exits(2).stderr_has("Permission denied");
    let refused = as_another_user(&stage, &by_port);
    refused.exits(2).stderr_has("the user daemon of this machine may not use this proxy").stderr_has("proxy_allow");
    // Even one that gets at the socket.
    fs::set_permissions(stage.directory(), fs::Permissions::from_mode(0o711)).unwrap();
    fs::set_permissions(stage.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    as_another_user(&stage, &by_socket).exits(2).stderr_has("may not use this proxy");
    running.terminate().exits(0).stderr_has("may not use this proxy");

    stage.configure(&format!("proxy_allow = ['{OTHER}']"), &more);
    let running = stage.start();
    for arguments in [&by_socket[..], &by_port] {
        assert_eq!(as_another_user(&stage, arguments).exits(0).stdout.trim(), "1", "{arguments:?}");
    }
    running.terminate().exits(0);
}

#[test]
fn those_who_may_not_use_it_take_nobodys_place() {
    let test = "those_who_may_not_use_it_take_nobodys_place";
    if !rustix::process::geteuid().is_root() {
        return skip(test, "only root can become another user");
    }
    let port = free_port();
    let more = format!("proxy_port = {port}");
    let Some(stage) = Stage::new(test, Workspace::start(), "proxy_max_sessions = 2", &more) else { return };
    let running = stage.start();
    // More than there may be sessions, and clients that are told that there are too many.
    let script = format!(
        "import socket, sys\n\
         held = [socket.create_connection(('127.0.0.1', {port})) for _ in range(150)]\n\
         print('all are there', flush=True)\n\
         sys.stdin.read()"
    );
    let other = ["--reuid", OTHER, "--regid", OTHER, "--clear-groups", "--", "python3", "-c", &script];
    let strangers = stage.home.command("/usr/bin/setpriv").args(other).with_keyboard().spawn();
    strangers.prints("all are there", SOON);
    for _ in 0..3 {
        stage.ask("orders", "select 1").exits(0);
    }
    strangers.signal(rustix::process::Signal::KILL);
    strangers.ends();
    running.terminate().exits(0);
}

#[test]
fn from_another_network_a_client_needs_the_proxys_own_password() {
    let test = "from_another_network_a_client_needs_the_proxys_own_password";
    let Some(network) = Network::beside(test) else { return };
    let (name, address) = (&network.name, &network.address);
    let port = free_port();
    let (head, more) = ("proxy_listen = '0.0.0.0'", format!("proxy_port = {port}"));
    let Some(stage) = Stage::new(test, Workspace::start(), head, &more) else { return };
    let running = stage.start();
    running.says("is not encrypted", SOON);
    let password = stage.home.read(".local/state/dbx-rotator/proxy-password");
    stage.home.keep_secret(password.trim());
    assert_eq!(stage.home.mode(".local/state/dbx-rotator/proxy-password"), 0o600);
    let entry = format!("localhost:{port}:*:");
    assert!(stage.home.pgpass().lines().any(|line| line.starts_with(&entry) && line.ends_with(password.trim())));
    let ask = |password: &str| {
        let psql = stage.home.command("ip").args(["netns", "exec", name]).arg(psql_program().unwrap());
        let psql = psql.env("PGPASSWORD", password).env("PGPASSFILE", "/nonexistent");
        psql.args(["-X", "-w", "-A", "-t", "-h", address, "-p", &port.to_string(), "-d", "orders", "-c", "select 1"])
            .run()
    };
    assert_eq!(ask(password.trim()).exits(0).stdout.trim(), "1");
    // psql has nothing to answer, as a probe has not: that is no wrong password, and nobody is warned.
    let probe = stage.home.command("ip").args(["netns", "exec", name]).arg(psql_program().unwrap());
    let probe = probe.env("PGPASSFILE", "/nonexistent").args(["-X", "-w", "-h", address, "-p", &port.to_string()]);
    probe.args(["-d", "orders", "-c", "select 1"]).run().exits(2).stderr_has("no password supplied");
    running.says("was asked for the proxy's own password, and has gone", SOON);
    assert!(!running.stderr().contains("got no session"), "{}", running.stderr());
    let wrong = ask("wrong");
    wrong.exits(2).stderr_has("the proxy's own password is wrong").stderr_has("the file proxy-password");
    wrong.stderr_lacks(&stage.home.path("").display().to_string());
    // On this machine the kernel tells who it is, whatever the address.
    let local = stage.home.command(psql_program().unwrap()).env("PGPASSFILE", "/nonexistent");
    let local =
        local.args(["-X", "-w", "-A", "-t", "-h", address, "-p", &port.to_string(), "-d", "orders", "-c", "select 1"]);
    local.run().exits(0);
    // Who only asks for the question is told that the proxy stops, and holds up nothing.
    let silent = stage.home.command("ip").args(["netns", "exec", name, "python3", "-c", ASKS_ONLY, address]);
    let silent = silent.arg(port.to_string()).spawn();
    silent.prints("was asked for the password", SOON);
    running.terminate().exits(0);
    silent.ends().exits(0).stdout_has("57P01");
    let check = || dbx_rotator!(stage.home).arg("check").signed_in_to(&stage.workspace).run();
    let loose = "others can read the proxy's own password";
    check().stdout_lacks(loose);
    stage.home.write(".local/state/dbx-rotator/proxy-password", &password, 0o644);
    check().stdout_has(loose);
}

#[test]
fn those_who_prove_nothing_keep_nobody_out_who_knows_the_password() {
    let test = "those_who_prove_nothing_keep_nobody_out_who_knows_the_password";
    let Some(network) = Network::beside(test) else { return };
    let (name, address) = (&network.name, &network.address);
    let port = free_port().to_string();
    let more = format!("proxy_port = {port}");
    let Some(stage) = Stage::new(test, Workspace::start(), "proxy_listen = '0.0.0.0'", &more) else { return };
    let running = stage.start();
    let there = |program: &str| stage.home.command("ip").args(["netns", "exec", name, program]);
    let many = there("python3").args(["-c", SAY_LITTLE, address, &port]).with_keyboard().spawn();
    many.prints("all are there", SOON);
    let password = stage.home.read(".local/state/dbx-rotator/proxy-password");
    stage.home.keep_secret(password.trim());
    let psql = psql_program().unwrap().display().to_string();
    for _ in 0..3 {
        let ask = there(&psql).env("PGPASSWORD", password.trim()).env("PGPASSFILE", "/nonexistent");
        let ask = ask.args(["-X", "-w", "-A", "-t", "-h", address, "-p", &port, "-d", "orders", "-c", "select 1"]);
        assert_eq!(ask.run().exits(0).stdout.trim(), "1");
    }
    assert_eq!(running.stderr().matches("have yet to prove").count(), 1, "{}", running.stderr());
    let status = || dbx_rotator!(stage.home).args(["status", "--json"]).signed_in_to(&stage.workspace).run().json();
    until("those who had to go are counted", || status()["proxy"]["refused"]["53300"].as_u64() > Some(100));
    many.types("\n");
    many.ends().exits(0);
    running.terminate().exits(0);
}

/// Clients of whom half say nothing, and half ask for a session and do not answer.
const SAY_LITTLE: &str = r#"
import socket, struct, sys
body = struct.pack("!I", 196608) + b"user\0x\0database\0orders\0\0"
held = []
for number in range(300):
    client = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    if number % 2:
        client.sendall(struct.pack("!I", len(body) + 4) + body)
    held.append(client)
print("all are there", flush=True)
sys.stdin.readline()
"#;

/// A client that is asked for the proxy's own password, and waits.
const ASKS_ONLY: &str = r#"
import socket, struct, sys
client = socket.create_connection((sys.argv[1], int(sys.argv[2])))
body = struct.pack("!I", 196608) + b"user\0x\0database\0orders\0\0"
client.sendall(struct.pack("!I", len(body) + 4) + body)
assert b"SCRAM-SHA-256" in client.recv(1000)
print("was asked for the password", flush=True)
print(client.recv(1000))
"#;

#[test]
fn what_is_no_client_is_cut_off_and_costs_nothing() {
    let test = "what_is_no_client_is_cut_off_and_costs_nothing";
    let port = free_port();
    let Some(stage) = Stage::new(test, Workspace::start(), "", &format!("proxy_port = {port}")) else { return };
    let running = stage.start();
    for (hello, code) in [
        (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &b"C08P01\0"[..]),
        (b"\0\0\xff\xff\0\x03\0\0user\0ada\0\0", b"C08P01\0"),
        (b"\x7f\xff\xff\xff\0\x03\0\0", b"C08P01\0"),
        (b"\0\0\0\x08\0\x02\0\0", b"C08P01\0"),
        (b"\0\0\0\x0e\0\x03\0\0user\0\0", b"C08P01\0"),
        (b"\x16\x03\x01\0\x06\x01\0\0\x02\x03\x03", b"C08P01\0"),
        (b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07\0\0\0\x63", b""),
    ] {
        for tcp in [false, true] {
            let mut got = Vec::new();
            if tcp {
                let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
                client.write_all(hello).unwrap();
                client.set_read_timeout(Some(SOON)).unwrap();
                // What was sent beyond the first message may make the end a hard one.
                let _ = client.read_to_end(&mut got);
            } else {
                let mut client = stage.connect();
                client.write_all(hello).unwrap();
                client.set_read_timeout(Some(SOON)).unwrap();
                let _ = client.read_to_end(&mut got);
            }
            // Who begins TLS is told so in TLS: an alert, "handshake failure".
            let code = if tcp && hello[0] == 22 { &[21, 3, 3, 0, 2, 2, 40][..] } else { code };
            let is_said = code.is_empty() && got.is_empty() || got.windows(code.len().max(1)).any(|part| part == code);
            assert!(is_said, "{:?}: {:?}", String::from_utf8_lossy(hello), String::from_utf8_lossy(&got));
        }
    }
    // A flood of clients that say nothing takes no session from those who do.
    let silent: Vec<_> = (0..50).map(|_| stage.connect()).collect();
    stage.ask("orders", "select 1").exits(0);
    drop(silent);
    running.terminate().exits(0);
}

#[test]
fn more_sessions_than_are_allowed_are_refused_with_the_code_that_pools_know() {
    let test = "more_sessions_than_are_allowed_are_refused_with_the_code_that_pools_know";
    let Some(stage) = Stage::new(test, Workspace::start(), "proxy_max_sessions = 1", "") else { return };
    let running = stage.start();
    let first = stage.psql("orders").with_keyboard().spawn();
    first.types("select 'open';\n");
    first.prints("open", SOON);
    stage.ask("orders", "select 1").exits(2).stderr_has("the proxy has 1 session already");
    first.types("\\q\n");
    first.ends().exits(0);
    until("there is room again", || stage.ask("orders", "select 1").code == Some(0));
    running.terminate().exits(0);
}

#[test]
fn a_place_is_taken_by_who_is_admitted_and_not_by_who_has_only_connected() {
    let test = "a_place_is_taken_by_who_is_admitted_and_not_by_who_has_only_connected";
    let Some(stage) = Stage::new(test, Workspace::start(), "proxy_max_sessions = 1", "") else { return };
    let running = stage.start();
    let [mut first, mut second] = [(); 2].map(|()| stage.connect());
    let hello = startup(0x0003_0000, &[("user", "x"), ("database", "orders")]);
    for client in [&mut first, &mut second] {
        client.set_read_timeout(Some(SOON)).unwrap();
    }
    second.write_all(&hello).unwrap();
    messages_until(&mut second, b'Z');
    first.write_all(&hello).unwrap();
    let refused = messages_until(&mut first, b'E').pop().unwrap().1;
    assert!(refused.windows(7).any(|part| part == b"C53300\0"), "{}", String::from_utf8_lossy(&refused));
    running.terminate().exits(0);
}

#[test]
fn a_client_is_told_why_there_is_no_password_and_what_to_do() {
    let test = "a_client_is_told_why_there_is_no_password_and_what_to_do";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let proxy = dbx_rotator!(stage.home).arg("proxy").signed_in_to(&stage.workspace);
    let running = proxy.env("DATABRICKS_CLIENT_SECRET", "wrong").spawn();
    running.says("Serving 1 connection", SOON);
    let told = stage.ask("orders", "select 1");
    told.exits(2).stderr_has("refused").stderr_has("HINT");
    running.terminate().exits(0);
    // A server that is not there.
    stage.rotate();
    stage.home.write(
        ".config/dbx-rotator/config.toml",
        format!("[[connection]]\nname = 'orders'\nhost = 'no-such-host.invalid'\nport = {}\n", stage.server.port()),
        0o600,
    );
    let running = stage.start();
    let told = stage.psql("orders").patience(Duration::from_secs(100)).args(["-c", "select 1"]).run();
    told.exits(2).stderr_has("no-such-host.invalid").stderr_has("HINT");
    running.terminate().exits(0);
}
