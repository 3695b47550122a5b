//! `dbx-rotator proxy`: real clients log in through it to a real PostgreSQL that accepts live tokens only.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops where it fails, and says what it counted"
)]

mod cannot_start;
mod clients;
mod cut;
mod drain;
mod life;
mod network;
mod places;
mod protocol;
mod refused;
mod speed;

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::postgres::psql_program;
use crate::support::{Home, Instance, Outcome, Postgres, Running, Session, Workspace, dbx_rotator, free_port, skip};

/// For a proxy to start, and for what it says.
const SOON: Duration = Duration::from_secs(30);

/// A workspace, a server, and a home with the connection `orders`.
struct Stage {
    home: Home,
    workspace: Workspace,
    server: Postgres,
}

impl Stage {
    /// None, and said so, where there is no PostgreSQL. `head` is the head of the configuration, `more` belongs to the connection.
    fn new(test: &str, workspace: Workspace, head: &str, more: &str) -> Option<Self> {
        let user = workspace.client_id().to_owned();
        let server = Postgres::start(&workspace, &[&user, "reader"]).map_err(|reason| skip(test, &reason)).ok()?;
        let home = Home::new();
        home.watch(&workspace);
        let stage = Stage { home, workspace, server };
        stage.configure(head, more);
        Some(stage)
    }

    fn configure(&self, head: &str, more: &str) {
        let text = format!(
            "{head}\n[[connection]]\nname = 'orders'\nhost = 'localhost'\nport = {}\nsslmode = 'verify-full'\n\
             service_file = true\n{more}\n",
            self.server.port()
        );
        self.home.write(".config/dbx-rotator/config.toml", text, 0o600);
    }

    /// The connection leads elsewhere, where the server may have another name.
    fn configure_for(&self, host: &str, port: u16) {
        let text = format!("[[connection]]\nname = 'orders'\nhost = '{host}'\nport = {port}\nsslmode = 'require'\n");
        self.home.write(".config/dbx-rotator/config.toml", text, 0o600);
    }

    fn waits_until_one_sleeps(&self) {
        until("the query runs", || {
            let query = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
            self.ask("orders", query).stdout.trim() == "1"
        });
    }

    fn rotate(&self) {
        dbx_rotator!(self.home).arg("rotate").signed_in_to(&self.workspace).run().exits(0);
    }

    fn proxy(&self) -> Session<'_> {
        dbx_rotator!(self.home).args(["proxy", "-v"]).signed_in_to(&self.workspace)
    }

    fn start(&self) -> Running<'_> {
        let running = self.proxy().spawn();
        running.says("Serving 1 connection at", SOON);
        running
    }

    fn directory(&self) -> PathBuf {
        self.home.path(".run/dbx-rotator")
    }

    fn socket(&self) -> PathBuf {
        self.directory().join(".s.PGSQL.5432")
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(self.socket()).expect("connect to the proxy")
    }

    /// psql through the Unix socket, with no password and no file of passwords.
    fn psql(&self, database: &str) -> Session<'_> {
        self.home
            .command(psql_program().expect("a psql"))
            .env("PGPASSFILE", "/nonexistent")
            .env("PGHOST", self.directory())
            .args(["-X", "-w", "-A", "-t", "-d", database])
    }

    fn ask(&self, database: &str, query: &str) -> Outcome {
        self.psql(database).args(["-c", query]).run()
    }
}

/// Waits for something to become true, which is looked at again and again.
#[track_caller]
fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_true() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn psql_needs_nothing_but_the_directory_and_the_name_of_the_connection() {
    let test = "psql_needs_nothing_but_the_directory_and_the_name_of_the_connection";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "proxy_roles = ['reader']") else { return };
    let user = stage.workspace.client_id().to_owned();
    let running = stage.start();
    // It gets the first credential itself.
    assert_eq!(stage.ask("orders", "select current_user").exits(0).stdout.trim(), user);
    assert_eq!(stage.ask("orders/postgres", "select current_database()").exits(0).stdout.trim(), "postgres");
    let nobody = stage.psql("orders").args(["-U", "nobody", "-c", "select current_user"]).run();
    assert_eq!(nobody.exits(0).stdout.trim(), user, "what a client calls itself does not matter");
    // The role exists, and this token is not for it: the server says so, and the client sees that.
    stage.psql("orders").args(["-U", "reader", "-c", "select 1"]).run().exits(2).stderr_has("FATAL");
    let service = stage.home.command(psql_program().unwrap()).env("PGSERVICEFILE", stage.home.path(".pg_service.conf"));
    let service = service.args(["-X", "-w", "-A", "-t", "-d", "service=orders-proxy", "-c", "select 1"]).run();
    assert_eq!(service.exits(0).stdout.trim(), "1");
    // What the server says of a client's own mistake stands alone.
    let mistaken = stage.psql("orders").env("PGOPTIONS", "-c work_mem=nonsense").args(["-c", "select 1"]).run();
    mistaken.exits(2).stderr_has("work_mem").stderr_lacks("tried again");
    let unknown = stage.ask("order", "select 1");
    unknown.exits(2).stderr_has("there is no connection named order").stderr_has("did you mean orders?");
    running.terminate().exits(0);
    assert!(!stage.socket().exists(), "its socket is gone with it");
    assert!(!stage.home.path(".local/state/dbx-rotator/proxy-password").exists(), "without a port nobody needs it");
}

#[test]
fn a_port_of_its_own_leads_to_a_connection_and_status_tells_of_the_proxy() {
    let test = "a_port_of_its_own_leads_to_a_connection_and_status_tells_of_the_proxy";
    let port = free_port();
    let more = format!("proxy_port = {port}");
    let Some(stage) = Stage::new(test, Workspace::start(), "", &more) else { return };
    stage.rotate();
    let running = stage.start();
    for database in ["orders", "databricks_postgres", "anything"] {
        let by_port =
            stage.home.command(psql_program().unwrap()).env("PGPASSFILE", "/nonexistent").env("PGPASSWORD", "stale");
        let by_port =
            by_port.args(["-X", "-w", "-A", "-t", "-h", "127.0.0.1", "-p", &port.to_string(), "-d", database]);
        let outcome = by_port.args(["-c", "select current_user"]).run();
        if database == "anything" {
            outcome.exits(2).stderr_has("database \"anything\" does not exist");
        } else {
            assert_eq!(outcome.exits(0).stdout.trim(), stage.workspace.client_id());
        }
    }
    let psql = stage.psql("orders").with_keyboard().spawn();
    psql.types("select 'open';\n");
    psql.prints("open", SOON);
    let status = || dbx_rotator!(stage.home).args(["status", "--json"]).signed_in_to(&stage.workspace).run();
    until("status tells of the session", || status().json()["proxy"]["sessions"] == 1);
    let metrics = dbx_rotator!(stage.home).args(["status", "--prometheus"]).signed_in_to(&stage.workspace).run();
    for line in [
        "dbx_rotator_proxy_running 1",
        "dbx_rotator_proxy_sessions 1",
        "dbx_rotator_proxy_logins_total{outcome=\"accepted\"} 3",
        "dbx_rotator_proxy_refused_total{sqlstate=\"3D000\"} 1",
    ] {
        assert!(metrics.stdout.lines().any(|one| one == line), "{line}\n{}", metrics.stdout);
    }
    dbx_rotator!(stage.home).arg("status").signed_in_to(&stage.workspace).run().stdout_has("proxy: 1 session");
    running.terminate().exits(0);
    psql.types("select 1;\n\\q\n");
    psql.ends().stderr_has("the proxy of dbx-rotator is stopping");
    let after = dbx_rotator!(stage.home).args(["status", "--prometheus"]).signed_in_to(&stage.workspace).run();
    assert!(after.stdout.contains("dbx_rotator_proxy_running 0"), "{}", after.stdout);
}

#[test]
fn a_database_that_is_called_as_the_user_is_opened_where_there_is_one() {
    let test = "a_database_that_is_called_as_the_user_is_opened_where_there_is_one";
    let port = free_port();
    let Some(stage) = Stage::new(test, Workspace::start(), "", &format!("proxy_port = {port}")) else { return };
    stage.server.set_up("create database ada;");
    let running = stage.start();
    // libpq names the user where it is given no database.
    for (user, database) in [("ada", "ada"), ("bob", "databricks_postgres")] {
        let by_port = stage.home.command(psql_program().unwrap()).env("PGPASSFILE", "/nonexistent");
        let by_port = by_port.args(["-X", "-w", "-A", "-t", "-h", "127.0.0.1", "-p", &port.to_string(), "-U", user]);
        assert_eq!(by_port.args(["-c", "select current_database()"]).run().exits(0).stdout.trim(), database);
    }
    running.terminate().exits(0);
}

#[test]
fn what_leads_clients_to_it_follows_when_a_host_is_found() {
    let test = "what_leads_clients_to_it_follows_when_a_host_is_found";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let (port, user) = (free_port(), stage.workspace.client_id());
    stage.workspace.add_instance(Instance::named("orders").host("localhost"));
    let configured = stage.home.read(".config/dbx-rotator/config.toml");
    let configured = configured.replace("host = 'localhost'", "instance = 'orders'");
    stage.home.write(".config/dbx-rotator/config.toml", format!("{configured}proxy_port = {port}\n"), 0o600);
    let running = stage.start();
    let service_file = || std::fs::read_to_string(stage.home.path(".pg_service.conf")).unwrap_or_default();
    assert!(!service_file().contains("[orders-proxy]"));
    assert_eq!(stage.ask("orders", "select 1").exits(0).stdout.trim(), "1");
    until("it has a section", || service_file().contains("[orders-proxy]"));
    let entry = format!("localhost:{port}:*:{user}:");
    assert!(stage.home.pgpass().contains(&entry), "the entry of its port is written before the section");
    running.terminate().exits(0);
}

#[test]
fn a_connection_that_is_called_as_the_section_of_anothers_proxy_keeps_its_own() {
    let test = "a_connection_that_is_called_as_the_section_of_anothers_proxy_keeps_its_own";
    let Some(stage) = Stage::new(test, Workspace::start(), "", "") else { return };
    let second = "[[connection]]\nname = 'orders-proxy'\nhost = 'own.example'\nservice_file = true\n";
    stage.configure("", second);
    let running = stage.proxy().spawn();
    running.says("orders has no section that leads to the proxy: a connection is called orders-proxy", SOON);
    running.says("Serving 2 connections at", SOON);
    stage.rotate();
    let service_file = stage.home.read(".pg_service.conf");
    assert_eq!(service_file.matches("[orders-proxy]").count(), 1);
    assert!(service_file.contains("host=own.example") && service_file.contains("[orders-proxy-proxy]"));
    running.terminate().exits(0);
}

#[test]
fn the_entry_of_a_port_goes_with_the_port() {
    let test = "the_entry_of_a_port_goes_with_the_port";
    let [one, other] = [(); 2].map(|()| free_port());
    let Some(stage) = Stage::new(test, Workspace::start(), "", &format!("proxy_port = {one}")) else { return };
    stage.home.write(".pgpass", format!("localhost:{one}:*:ada:mine\n"), 0o600);
    let has = |port: u16| stage.home.pgpass().matches(&format!("localhost:{port}:")).count();
    let running = stage.start();
    assert!(has(one) > 1 && has(other) == 0);
    for (more, ports) in [(format!("proxy_port = {other}"), (1, true)), (String::new(), (1, false))] {
        stage.configure("", &more);
        running.signal(rustix::process::Signal::HUP);
        until("only what somebody wrote and what is in use stays", || (has(one), has(other) > 0) == ports);
    }
    running.terminate().exits(0);
}
