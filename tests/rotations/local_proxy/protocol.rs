//! What goes through the proxy goes through unchanged.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use rustix::process::Signal;

use super::{SOON, Stage, free_port, until};
use crate::support::postgres::psql_program;
use crate::support::{Workspace, cache, dbx_rotator, names, skip};

/// The start of a session, of this version of the protocol.
pub(super) fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let pairs = parameters.iter().flat_map(|(name, value)| [name.as_bytes(), b"\0", value.as_bytes(), b"\0"]);
    let body = [&version.to_be_bytes()[..], &pairs.collect::<Vec<_>>().concat(), b"\0"].concat();
    [&u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], &body].concat()
}

pub(super) fn query(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len() + 5).unwrap().to_be_bytes();
    [b"Q", &length[..], text.as_bytes(), b"\0"].concat()
}

/// Messages up to this kind, each with its body.
pub(super) fn messages_until(client: &mut UnixStream, last: u8) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    loop {
        let mut head = [0; 5];
        client.read_exact(&mut head).unwrap();
        let length = u32::from_be_bytes(head[1..].try_into().unwrap());
        let mut body = vec![0; length as usize - 4];
        client.read_exact(&mut body).unwrap();
        all.push((head[0], body));
        if head[0] == last {
            return all;
        }
    }
}

#[test]
fn versions_and_parameters_reach_the_server_and_its_answers_the_client() {
    let test = "versions_and_parameters_reach_the_server_and_its_answers_the_client";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let running = stage.start();
    let parameters =
        [("user", "x"), ("database", "orders"), ("application_name", "tes t"), ("options", "-c work_mem=7MB")];
    for (version, extra) in [(0x0003_0000, None), (0x0003_0002, None), (0x0003_270f, Some(("_pq_.unknown", "1")))] {
        let mut client = stage.connect();
        client.set_read_timeout(Some(SOON)).unwrap();
        let all: Vec<(&str, &str)> = parameters.into_iter().chain(extra).collect();
        // The first query is sent before the login is answered, as clients do that save a round trip.
        let early = query("select current_setting('application_name') || current_setting('work_mem')");
        client.write_all(&[startup(version, &all), early].concat()).unwrap();
        let welcome = messages_until(&mut client, b'Z');
        let kinds: Vec<u8> = welcome.iter().map(|(kind, _)| *kind).collect();
        // A server that is older than the version says which one it speaks.
        assert_eq!(kinds.contains(&b'v'), extra.is_some() || kinds[0] == b'v', "{version:x}: {welcome:?}");
        let accepted = welcome.iter().position(|message| *message == (b'R', vec![0; 4])).unwrap();
        assert_eq!(kinds.iter().filter(|kind| **kind == b'R').count(), 1, "the client sees no request for a password");
        assert!(welcome[accepted..].iter().any(|(kind, body)| *kind == b'K' && body.len() >= 8));
        let answer = messages_until(&mut client, b'Z');
        let row = answer.iter().find(|(kind, _)| *kind == b'D').unwrap();
        assert!(row.1.ends_with(b"tes t7MB"), "{answer:?}");
    }
    running.terminate().exits(0);
}

#[test]
fn parameters_that_are_too_long_for_the_server_are_refused_before_it_drops_them() {
    let test = "parameters_that_are_too_long_for_the_server_are_refused_before_it_drops_them";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let running = stage.start();
    // With the connection's own user, which is longer than this one.
    for (length, last, said) in [(9_900, b'Z', &b""[..]), (9_950, b'E', b"C08P01\0")] {
        let mut client = stage.connect();
        client.set_read_timeout(Some(SOON)).unwrap();
        let name = "x".repeat(length);
        client
            .write_all(&startup(0x0003_0000, &[("user", "x"), ("database", "orders"), ("application_name", &name)]))
            .unwrap();
        let told = messages_until(&mut client, last).pop().unwrap().1;
        assert!(said.is_empty() || told.windows(said.len()).any(|part| part == said), "{told:?}");
    }
    running.terminate().exits(0);
}

#[test]
fn a_request_to_cancel_reaches_the_right_session_only() {
    let test = "a_request_to_cancel_reaches_the_right_session_only";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let running = stage.start();
    let sleeper = |name: &str| {
        let psql = stage.psql("orders").env("PGAPPNAME", name).with_keyboard().spawn();
        psql.types("select pg_sleep(60);\n");
        psql
    };
    let (one, other) = (sleeper("one"), sleeper("other"));
    let asleep = |name: &str| {
        let query = format!(
            "select count(*) from pg_stat_activity where application_name = '{name}' and wait_event = 'PgSleep'"
        );
        stage.ask("orders", &query).stdout.trim() == "1"
    };
    until("both sleep", || asleep("one") && asleep("other"));
    one.signal(Signal::INT);
    one.ends().stderr_has("canceling statement due to user request");
    assert!(asleep("other"));
    // A key that no session has.
    let mut stranger = stage.connect();
    stranger.write_all(b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07\0\0\0\x63").unwrap();
    assert_eq!(stranger.read(&mut [0]).unwrap(), 0);
    assert!(asleep("other"));
    drop(other);
    running.terminate().exits(0);
}

#[test]
fn a_request_to_cancel_reaches_the_server_of_the_session_wherever_its_host_has_moved() {
    let test = "a_request_to_cancel_reaches_the_server_of_the_session_wherever_its_host_has_moved";
    if let Err(reason) = names::wrapper() {
        return skip(test, &reason);
    }
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let (host, port) = ("db.example", stage.server.port());
    stage.configure_for(host, port);
    stage.rotate();
    let running = stage.proxy().resolving(host, "127.0.0.1").spawn();
    running.says("Serving 1 connection at", SOON);
    let sleeper = stage.psql("orders").args(["-c", "select pg_sleep(600)"]).spawn();
    stage.waits_until_one_sleeps();
    let elsewhere = std::net::TcpListener::bind(("127.0.0.9", port)).unwrap();
    let _moved = stage.home.command("true").resolving(host, "127.0.0.9");
    sleeper.signal(Signal::INT);
    sleeper.ends().stderr_has("canceling statement due to user request");
    elsewhere.set_nonblocking(true).unwrap();
    assert!(elsewhere.accept().is_err(), "another server was asked");
    running.terminate().exits(0);
}

#[test]
fn copies_and_notifications_go_through() {
    let test = "copies_and_notifications_go_through";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    stage
        .server
        .set_up("\\c databricks_postgres\ncreate table numbers (n bigint, t text); grant all on numbers to public;");
    let running = stage.start();
    let rows = 200_000;
    let text: String = (0..rows).map(|n| format!("{n}\t{}\n", "x".repeat(n % 50))).collect();
    let file = stage.home.write("rows", &text, 0o600);
    stage.ask("orders", &format!("\\copy numbers from '{}'", file.display())).exits(0);
    assert_eq!(
        stage.ask("orders", "select count(*), sum(n) from numbers").exits(0).stdout.trim(),
        "200000|19999900000"
    );
    let copy = format!("\\copy (select * from numbers order by n) to '{}'", stage.home.path("again").display());
    stage.ask("orders", &copy).exits(0);
    assert!(stage.home.read("again") == text, "what comes back is not what went in");
    let listener = stage.psql("orders").with_keyboard().spawn();
    listener.types("listen news;\nselect 'listening';\n");
    listener.prints("listening", SOON);
    stage.ask("orders", "notify news, 'something happened'").exits(0);
    until("the notification arrives", || {
        listener.types("select 1;\n");
        listener.stdout().contains("something happened")
    });
    drop(listener);
    running.terminate().exits(0);
}

#[test]
fn whatever_way_the_server_asks_for_the_password_it_gets_it() {
    let test = "whatever_way_the_server_asks_for_the_password_it_gets_it";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    stage.rotate();
    let (user, token) = (stage.workspace.client_id(), stage.home.password());
    let running = stage.start();
    for (method, stored_as) in [("scram-sha-256", "scram-sha-256"), ("md5", "md5"), ("password", "scram-sha-256")] {
        let before = stage.server.ask("select pg_conf_load_time()");
        stage.server.set_up(&format!(
            "set password_encryption = '{stored_as}'; alter role \"{user}\" password '{token}';\n\
             select setting as hba from pg_settings where name = 'hba_file' \\gset\n\
             copy (values ('local all all trust'), ('hostssl all all 127.0.0.0/8 {method}')) to :'hba';\n\
             select pg_reload_conf();\n"
        ));
        // Of the server that took the new file, and not only of the session that asked for it.
        until(method, || stage.server.ask("select pg_conf_load_time()") != before);
        assert_eq!(stage.ask("orders", "select 1").exits(0).stdout.trim(), "1", "{method}");
    }
    running.terminate().exits(0);
}

#[test]
fn clients_that_insist_on_tls_get_it_where_there_is_a_certificate() {
    let test = "clients_that_insist_on_tls_get_it_where_there_is_a_certificate";
    let port = free_port();
    let (head, more) = ("proxy_tls = '~/proxy.pem'", format!("proxy_port = {port}"));
    let Some(stage) = Stage::new(test, Workspace::start(), head, &more) else { return };
    let certificate = stage.workspace.certify(&["localhost"]);
    stage.home.write("proxy.pem", format!("{}{}", certificate.chain, certificate.key), 0o600);
    let running = stage.start();
    let ask = |mode: &str| {
        let psql = stage.home.command(psql_program().unwrap()).env("PGPASSFILE", "/nonexistent").env("PGSSLMODE", mode);
        let psql = psql.env("PGSSLROOTCERT", stage.workspace.ca_file());
        psql.args([
            "-X",
            "-w",
            "-A",
            "-t",
            "-h",
            "localhost",
            "-p",
            &port.to_string(),
            "-d",
            "orders",
            "-c",
            "\\conninfo",
            "-c",
            "select 1",
        ])
        .run()
    };
    for mode in ["verify-full", "require", "prefer", "disable"] {
        let outcome = ask(mode);
        outcome.exits(0);
        assert_eq!(outcome.stdout.contains("TLS"), mode != "disable", "{mode}: {}", outcome.stdout);
    }
    begin_tls_without_asking(test, &stage, port, true);
    // Who gets no TLS knows why, and so does whoever runs the proxy.
    let stranger = Workspace::start();
    let psql = stage.home.command(psql_program().unwrap()).env("PGSSLMODE", "verify-full");
    let psql = psql.env("PGSSLROOTCERT", stranger.ca_file()).args(["-X", "-w", "-h", "localhost"]);
    psql.args(["-p", &port.to_string(), "-d", "orders"]).run().exits(2).stderr_has("certificate verify failed");
    running.says("there is no TLS with it, since it does not trust the certificate in proxy_tls", SOON);
    running.terminate().exits(0);
    stage.configure("", &more);
    let running = stage.start();
    begin_tls_without_asking(test, &stage, port, false);
    ask("require").exits(2).stderr_has("server does not support SSL, but SSL was required");
    ask("prefer").exits(0);
    running.terminate().exits(0);
}

#[test]
fn what_is_no_certificate_with_its_own_key_is_refused_and_a_key_that_others_can_read_is_told() {
    let test = "what_is_no_certificate_with_its_own_key_is_refused_and_a_key_that_others_can_read_is_told";
    let Some(stage) = Stage::new(test, Workspace::start(), "proxy_tls = '~/proxy.pem'", "") else { return };
    let [own, other] = [(); 2].map(|()| stage.workspace.certify(&["localhost"]));
    for (text, why) in [
        ("nonsense", "it holds no certificate"),
        (own.key.as_str(), "it holds no certificate"),
        (own.chain.as_str(), "it holds no private key"),
        (&format!("{}{}", own.chain, other.key), "its private key is that of another certificate"),
    ] {
        stage.home.write("proxy.pem", text, 0o600);
        stage.proxy().run().exits(78).stderr_has("cannot use proxy_tls").stderr_has(why);
    }
    let check = || dbx_rotator!(stage.home).arg("check").signed_in_to(&stage.workspace).run();
    check().exits(1).stdout_has("its private key is that of another certificate");
    let loose = "others can read the proxy's private key; chmod 600 it";
    for (mode, is_loose) in [(0o644, true), (0o660, true), (0o600, false), (0o400, false)] {
        stage.home.write("proxy.pem", format!("{}{}", own.chain, own.key), mode);
        assert_eq!(check().stdout.contains(loose), is_loose, "{mode:o}");
        let running = stage.start();
        if is_loose {
            running.says(loose, SOON);
        }
        running.terminate().exits(0);
    }
}

/// libpq 18, which a wheel of psycopg has, and OpenSSL, which names no protocol.
fn begin_tls_without_asking(test: &str, stage: &Stage, port: u16, has_certificate: bool) {
    let python = cache::directory().join("clients/python/bin/python");
    if python.exists() {
        let script = "import psycopg, sys\n\
                      c = psycopg.connect(sys.argv[1], sslnegotiation='direct', sslmode='verify-full')\n\
                      print(psycopg.pq.version(), c.pgconn.ssl_in_use, c.execute('select 1').fetchone())";
        let to = format!("host=localhost port={port} dbname=orders user=x password=x");
        let psycopg = stage.home.command(python).env("PGSSLROOTCERT", stage.workspace.ca_file());
        let outcome = psycopg.args(["-c", script, &to]).run();
        if has_certificate {
            outcome.exits(0).stdout_has("True (1,)");
        } else {
            outcome.exits(1).stderr_has("alert handshake failure");
        }
    } else {
        skip(test, "no libpq 17 for sslnegotiation=direct: `tests/run clients` installs psycopg");
    }
    let openssl = stage.home.command("openssl").args(["s_client", "-quiet", "-connect", &format!("localhost:{port}")]);
    let outcome = openssl.arg("-CAfile").arg(stage.workspace.ca_file()).run();
    if has_certificate {
        outcome.stdout_has("ALPN postgresql");
        let named =
            stage.home.command("openssl").args(["s_client", "-alpn", "h2", "-connect", &format!("localhost:{port}")]);
        named.run().exits(1).stderr_has("no application protocol");
    } else {
        outcome.exits(1);
    }
}
