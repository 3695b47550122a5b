//! A credential is proved with a real PostgreSQL: by psql through the service, by `verify = "login"` before it is published, and
//! by `check --connect` at any time.

use std::net::TcpListener;
use std::time::Duration;

use super::configured;
use crate::support::refusing::{Refusal, Refusing, Reply};
use crate::support::{Home, Instance, Postgres, Project, Session, Workspace, names, postgres, skip};

const ORDERS: &str = "[[connection]]\ninstance = 'orders'\n";
const LOGIN: &str = "[[connection]]\ninstance = 'orders'\nverify = 'login'\n";

/// A workspace with the instance `orders`, served by a real PostgreSQL under the name that it has there; or a skipped test.
pub(super) fn orders(test: &str, roles: &[&str]) -> Option<(Workspace, Postgres, String)> {
    let workspace = Workspace::start();
    workspace.add_instance(Instance::named("orders"));
    let host = workspace.instance("orders").host.unwrap();
    let client = workspace.client_id().to_owned();
    let roles = if roles.is_empty() { vec![client.as_str()] } else { roles.to_vec() };
    let server = Postgres::builder(&workspace, &roles).at_5432().known_as(&host).start();
    let ready = names::wrapper().and(server).map_err(|reason| skip(test, &reason)).ok()?;
    Some((workspace, ready, host))
}

pub(super) fn psql<'a>(home: &'a Home, server: &Postgres, host: &str) -> Session<'a> {
    let program = postgres::psql_program().unwrap();
    let who = ["service=orders", "-w", "-Atc", "select current_user || ' of ' || current_database()"];
    home.command(program).args(who).resolving(host, server.address())
}

#[test]
fn a_host_a_client_and_the_name_of_an_instance_make_psql_log_in() {
    let Some((workspace, server, host)) = orders("a_host_a_client_and_the_name_of_an_instance_make_psql_log_in", &[])
    else {
        return;
    };
    let home = Home::new();
    psql(&home, &server, &host).run().exits(2);
    configured(&home, &workspace, ORDERS, &["rotate"]).run().exits(0);
    let outcome = psql(&home, &server, &host).run();
    outcome.exits(0).stdout_has(&format!("{} of databricks_postgres", workspace.client_id()));
    assert!(server.logins().last().unwrap().accepted());
}

#[test]
fn a_credential_logs_in_before_it_is_published() {
    let Some((workspace, server, host)) = orders("a_credential_logs_in_before_it_is_published", &[]) else { return };
    let home = Home::new();
    let rotate = |table: &str| configured(&home, &workspace, table, &["rotate", "--retry-for", "0s"]);
    for table in [LOGIN.to_owned(), format!("{LOGIN}sslmode = 'verify-full'\n"), format!("{LOGIN}database = '*'\n")] {
        let before = server.logins().len();
        rotate(&table).resolving(&host, server.address()).run().exits(0);
        assert!(server.logins()[before..].iter().all(|login| login.accepted()), "{table}");
        assert_eq!(server.logins().len(), before + 1, "{table}");
    }
    // The server is gone: nothing is published, and the live credential stays.
    drop(server);
    let before = home.pgpass();
    let outcome = rotate(LOGIN).resolving(&host, "127.0.0.1").run();
    outcome.exits(69).stderr_has(&host);
    assert_eq!(home.pgpass(), before);
    rotate(ORDERS).run().exits(0);
    assert_ne!(home.pgpass(), before);
}

#[test]
fn a_role_that_is_not_there_keeps_the_credential_from_being_published() {
    let test = "a_role_that_is_not_there_keeps_the_credential_from_being_published";
    let Some((workspace, server, host)) = orders(test, &["somebody else"]) else { return };
    let home = Home::new();
    let rotate = configured(&home, &workspace, LOGIN, &["rotate", "--retry-for", "0s"]);
    let outcome = rotate.resolving(&host, server.address()).run();
    outcome.exits(77).stderr_has(&format!("databricks_create_role('{}'", workspace.client_id()));
    assert_eq!(home.pgpass(), "");
}

#[test]
fn one_connection_that_cannot_be_proved_does_not_keep_another_from_its_credential() {
    let test = "one_connection_that_cannot_be_proved_does_not_keep_another_from_its_credential";
    let Some((workspace, server, host)) = orders(test, &[]) else { return };
    let home = Home::new();
    // By address, so that only one name is looked up: two threads must not look up a home's names at the same time.
    let tables = format!(
        "[[connection]]\nname = 'good'\ninstance = 'orders'\nverify = 'login'\n\
         [[connection]]\nname = 'bad'\ninstance = 'orders'\nhost = '{}'\nverify = 'login'\ndatabase = 'nowhere'\n",
        server.address()
    );
    let rotate = configured(&home, &workspace, &tables, &["rotate", "--retry-for", "0s"]);
    rotate.resolving(&host, server.address()).run().exits(78).stderr_has("nowhere");
    assert_eq!(home.pgpass().lines().count(), 1);
    assert_eq!(workspace.credentials_minted(), 1);
}

#[test]
fn check_logs_in_with_what_is_published_and_says_what_is_wrong() {
    let Some((workspace, server, host)) = orders("check_logs_in_with_what_is_published_and_says_what_is_wrong", &[])
    else {
        return;
    };
    let home = Home::new();
    let check = |arguments: &[&str]| {
        let words: Vec<&str> = ["check"].iter().chain(arguments).copied().collect();
        configured(&home, &workspace, ORDERS, &words).resolving(&host, server.address())
    };
    check(&["--connect"]).run().exits(1).stdout_has("nobody can log in").stdout_has("dbx-rotator rotate");
    configured(&home, &workspace, ORDERS, &["rotate"]).run().exits(0);
    check(&[]).run().exits(0).stdout_has("orders: live, expires in");
    assert_eq!(server.logins().len(), 0);
    check(&["--connect"]).run().exits(0).stdout_has(&format!("logged in to {host}:5432 as {}", workspace.client_id()));
    let answer = check(&["--connect", "--json"]).run().exits(0).json();
    let row = &answer["connections"][0];
    assert!(row["error"].is_null() && row["state"] == "live" && row["login"]["milliseconds"].is_u64(), "{answer}");
    // The server's clock moves ahead; ours does not know that.
    server.set_clock_skew(7_200);
    check(&["--connect"]).run().exits(1).stdout_has("orders: live").stdout_has(workspace.client_id());
    let answer = check(&["--connect", "--json"]).run().exits(1).json();
    assert_eq!(answer["connections"][0]["error"]["code"], "sign-in-refused");
}

#[test]
fn a_published_credential_that_died_is_found_without_a_login() {
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_instance(Instance::named("orders"));
    workspace.set_credential_life(Duration::from_secs(1));
    let run = configured(&home, &workspace, ORDERS, &["rotate"]);
    run.run().exits(0);
    workspace.set_clock_skew(5);
    // A refusal shows it the workspace's time as well.
    workspace.forbid(workspace.client_id());
    configured(&home, &workspace, ORDERS, &["rotate", "--retry-for", "0s"]).run().exits(77);
    configured(&home, &workspace, ORDERS, &["check", "--connect"])
        .run()
        .exits(1)
        .stdout_has("its credential has expired");
}

/// The server's text, its detail, the exit code, the message, the next step.
type Row = (&'static str, &'static str, &'static str, i32, &'static str, &'static str);

const ROWS: [Row; 10] = [
    ("28000", "OAuth: User is not authorized", "", 77, "User is not authorized", "databricks_create_role"),
    ("28000", "External authorization failed", "The instance is paused", 69, "paused", "start"),
    (
        "28000",
        "External authorization failed",
        "Readable secondaries are not enabled",
        69,
        "secondaries",
        "secondaries",
    ),
    ("28000", "External authorization failed", "Blocked by an IP ACL", 69, "IP ACL", "IP access list"),
    ("28000", "External authorization failed", "Only reachable by private link", 69, "private link", "private link"),
    ("28000", "External authorization failed", "", 69, "External authorization failed", "needs some minutes"),
    ("28P01", "native postgres login is disabled for this endpoint", "", 77, "native postgres login", "token"),
    ("28000", "Failed to decode token for role \"ada\"", "", 77, "Failed to decode token", "personal access token"),
    (
        "28P01",
        "password authentication failed for user \"ada\"",
        "",
        77,
        "password authentication failed",
        "CREATE ROLE",
    ),
    ("08P01", "SASL authentication failed", "", 78, "SASL authentication failed", "-pooler"),
];

#[test]
fn what_lakebase_says_against_a_credential_is_put_into_words_and_nothing_is_published() {
    let test = "what_lakebase_says_against_a_credential_is_put_into_words_and_nothing_is_published";
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_instance(Instance::named("orders"));
    let host = workspace.instance("orders").host.unwrap();
    let server = Refusing::start(&workspace, &[&host], Reply::HangUp);
    let server = match names::wrapper().and(server) {
        Ok(server) => server,
        Err(reason) => return skip(test, &reason),
    };
    configured(&home, &workspace, ORDERS, &["rotate"]).run().exits(0);
    let before = home.pgpass();
    for (sqlstate, message, detail, code, says, next) in ROWS {
        let refusal = Refusal::new(sqlstate, message);
        server.then(if detail.is_empty() { refusal } else { refusal.detail(detail) });
        // If nobody has to act, a login goes on for a while; here we end it.
        let limit = if detail.is_empty() && code == 69 { 30 } else { 10 };
        let rotate = configured(&home, &workspace, LOGIN, &["rotate", "--retry-for", "0s"]);
        let outcome = rotate.resolving(&host, server.address()).patience(Duration::from_secs(limit)).run();
        outcome.exits(code).stderr_has(says).stderr_has(next).stderr_has(&host);
        assert_eq!(home.pgpass(), before, "{outcome}");
    }
    let asked_for = server.names_asked_for();
    assert!(!asked_for.is_empty() && asked_for.iter().all(|name| name.as_deref() == Some(host.as_str())), "SNI");
}

#[test]
fn an_endpoint_that_is_idle_is_given_time_to_wake() {
    let test = "an_endpoint_that_is_idle_is_given_time_to_wake";
    let (workspace, home) = (Workspace::start(), Home::new());
    workspace.add_project(Project::named("shop").primary(|endpoint| endpoint.state("IDLE")));
    let endpoint = "projects/shop/branches/production/endpoints/primary";
    let host = workspace.compute_endpoint(endpoint).host.unwrap();
    let server = Refusing::start(&workspace, &[&host], Reply::Welcome(workspace.client_id().to_owned()));
    let server = match names::wrapper().and(server) {
        Ok(server) => server,
        Err(reason) => return skip(test, &reason),
    };
    server.first(2, Refusal::waking()).first(1, Reply::HangUp);
    let table = format!("[[connection]]\nendpoint = '{endpoint}'\nverify = 'login'\n");
    let rotate = configured(&home, &workspace, &table, &["rotate", "--retry-for", "0s"]);
    rotate.resolving(&host, server.address()).run().exits(0).stderr_has("is idle");
    assert_eq!(server.attempts(), 4);
    assert_eq!(home.pgpass().lines().count(), 1);
}

#[test]
fn servers_that_say_nothing_are_tried_at_once() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let table =
        |name| format!("[[connection]]\nname = '{name}'\nhost = '127.0.0.1'\nport = {port}\ndatabase = '{name}'\n");
    let tables: String = ["one", "two", "three"].map(table).concat();
    configured(&home, &workspace, &tables, &["rotate"]).run().exits(0);
    let running = configured(&home, &workspace, &tables, &["check", "--connect"]).spawn();
    let (all_came, all) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // None is let go before all have come: one after the other, the second would come a minute after the first.
        let clients: Vec<_> = silent.incoming().take(3).collect();
        all_came.send(clients.len()).unwrap();
    });
    assert_eq!(all.recv_timeout(Duration::from_secs(45)), Ok(3));
    drop(running);
}
