//! Secrets of a Kubernetes cluster, kept by one of several replicas: against a stand-in API server that checks each body by the API's
//! own schemas, with logins to a real PostgreSQL.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops where it fails, and says what it counted"
)]

mod a_minute;
mod manifests;
mod refused;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{Cluster, Home, Postgres, Session, Workspace, dbx_rotator, skip};

/// For what happens as soon as it can.
const SOON: Duration = Duration::from_secs(30);

/// The second identity.
const OTHER: &str = "0b1c2d3e-0000-4000-8000-00000000cafe";
const OTHER_SECRET: &str = "stand-in-secret-of-the-other-0123456789";

/// A cluster, a workspace with two identities, and a server that knows both.
struct Stage {
    cluster: Cluster,
    workspace: Workspace,
    server: Postgres,
}

impl Stage {
    /// None, and said so, where something of it is not to be had.
    fn new(test: &str) -> Option<Self> {
        let workspace = Workspace::start();
        workspace.set_client(OTHER, OTHER_SECRET);
        let users = [workspace.client_id(), OTHER];
        let server = Postgres::start(&workspace, &users).map_err(|reason| skip(test, &reason)).ok()?;
        let cluster = Cluster::start().map_err(|reason| skip(test, &reason)).ok()?;
        Some(Stage { cluster, workspace, server })
    }

    /// The connection `orders` with a Secret of that name; `head` stands above it, `more` is in it.
    fn one(&self, home: &Home, head: &str, more: &str) {
        let account = self.cluster.account().display().to_string();
        let text = format!(
            "kubernetes_service_account = '{account}'\n{head}\n[[connection]]\nname = 'orders'\nhost = 'localhost'\nport = {}\n\
             kubernetes_secret = 'orders'\n{more}\n",
            self.server.port()
        );
        home.write(".config/dbx-rotator/config.toml", text, 0o600);
        self.watch(home);
    }

    /// Two connections of two identities, with the Secrets `orders` and `archive`.
    fn two(&self, home: &Home) {
        let (host, port) = (self.workspace.url(), self.server.port());
        let account = self.cluster.account().display().to_string();
        let mut text = format!("kubernetes_service_account = '{account}'\n");
        let first = (self.workspace.client_id(), self.workspace.client_secret());
        for (name, (id, secret)) in [("orders", first), ("archive", (OTHER, OTHER_SECRET))] {
            let file = home.write(format!("secret-{name}"), secret, 0o600).display().to_string();
            text += &format!(
                "[[workspace]]\nname = '{name}'\nhost = '{host}'\nauth = 'oauth-m2m'\nclient_id = '{id}'\n\
                 client_secret_file = '{file}'\n"
            );
        }
        for name in ["orders", "archive"] {
            text += &format!(
                "[[connection]]\nname = '{name}'\nworkspace = '{name}'\nhost = 'localhost'\nport = {port}\nkubernetes_secret = '{name}'\n"
            );
        }
        home.write(".config/dbx-rotator/config.toml", text, 0o600);
        self.watch(home);
    }

    fn watch(&self, home: &Home) {
        home.watch(&self.workspace);
        for token in self.cluster.tokens() {
            home.keep_secret(token);
        }
    }

    /// The program in a pod, which signs in by its configuration.
    fn in_pod<'h>(&self, home: &'h Home, arguments: &[&str]) -> Session<'h> {
        let mut session = dbx_rotator!(home).args(arguments).trusting(&self.workspace);
        for (name, value) in self.cluster.environment() {
            session = session.env(name, value);
        }
        session
    }

    /// The same, as the workspace's first client.
    fn signed_in<'h>(&self, home: &'h Home, arguments: &[&str]) -> Session<'h> {
        let mut session = dbx_rotator!(home).args(arguments).signed_in_to(&self.workspace);
        for (name, value) in self.cluster.environment() {
            session = session.env(name, value);
        }
        session
    }

    /// Whether psql logs in with what the Secret holds, as an application reads it.
    fn logs_in(&self, home: &Home, secret: &str) -> bool {
        let value = |key: &str| self.cluster.value(secret, key).unwrap_or_default();
        let file = home.write(format!("mounted-{secret}"), value("pgpass"), 0o600);
        let mut psql = self.server.psql_command(&file, &value("username"));
        psql.env("PGHOST", value("host")).env("PGPORT", value("port")).args(["-c", "select 1"]);
        psql.output().unwrap().status.success()
    }

    /// Logs in with each of these Secrets again and again until told to stop; returns how often, and fails where one login did.
    fn sample(&self, secrets: &[&str], stop: &AtomicBool) -> usize {
        let (home, logins) = (Home::new(), AtomicUsize::new(0));
        while !stop.load(Ordering::Relaxed) {
            for secret in secrets {
                assert!(self.logs_in(&home, secret), "the Secret {secret} is dead, after {logins:?} logins");
                logins.fetch_add(1, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        logins.into_inner()
    }

    /// Waits until the Secret holds the password of this home's only entry.
    #[track_caller]
    fn holds(&self, secret: &str, home: &Home, limit: Duration) {
        let holds = |cluster: &Cluster| {
            cluster
                .value(secret, "password")
                .is_some_and(|password| !password.is_empty() && home.pgpass().contains(&password))
        };
        assert!(self.cluster.wait_until(limit, holds), "the Secret {secret} is behind: {:?}", self.cluster.requests());
    }
}

#[test]
fn a_secret_holds_what_an_application_needs_and_is_known_to_do_so() {
    let Some(stage) = Stage::new("a_secret_holds_what_an_application_needs_and_is_known_to_do_so") else { return };
    let home = Home::new();
    stage.one(&home, "", "kubernetes_secret_uri = true");
    stage.cluster.create_secret("orders");
    let run = |arguments: &[&str]| stage.signed_in(&home, arguments).run();
    run(&["status", "--json"]).exits(1).stdout_has(r#""kubernetes_secret":{"name":"orders","state":"behind""#);
    run(&["status", "--prometheus"]).stdout_has(r#"dbx_rotator_secret_current{connection="orders"} 0"#);
    run(&["rotate"]).exits(0).stderr_has("The Secret orders of orders holds the new credential");
    let value = |key: &str| stage.cluster.value("orders", key).unwrap();
    assert_eq!(value("password"), home.password());
    assert_eq!((value("host").as_str(), value("port")), ("localhost", stage.server.port().to_string()));
    assert_eq!(
        (value("username").as_str(), value("database").as_str()),
        (stage.workspace.client_id(), "databricks_postgres")
    );
    assert_eq!((value("type").as_str(), value("sslmode").as_str()), ("postgresql", "require"));
    assert!(value("uri").starts_with("postgresql://") && value("uri").contains(&value("password")));
    assert!(stage.logs_in(&home, "orders"));
    let secret = stage.cluster.secret("orders").unwrap();
    assert!(
        secret["metadata"]["annotations"]["dbx-rotator.app/expires-at"].as_str().unwrap().ends_with('Z'),
        "{secret}"
    );
    run(&["status", "--json"]).stdout_has(r#""state":"current""#);
    run(&["status"]).stdout_has("its Secret orders holds it");
    run(&["status", "--prometheus"]).stdout_has(r#"dbx_rotator_secret_current{connection="orders"} 1"#);
    run(&["check"]).stdout_has("the Secret orders holds the live password");
    // Nothing is due, and it was seen of late: nobody is asked.
    let asked = stage.cluster.requests().len();
    run(&["rotate", "--if-due"]).exits(0);
    assert_eq!(stage.cluster.requests().len(), asked);
    // What a person has changed in it is found out.
    stage.cluster.set("orders", "password", "mistake", "kubectl-edit", false);
    run(&["check"]).exits(1).stdout_has("does not hold the live password");
    // The kubelet has replaced the token.
    home.keep_secret(stage.cluster.new_token());
    stage.cluster.old_tokens_expire();
    run(&["rotate"]).exits(0);
    stage.holds("orders", &home, SOON);
    // Somebody has deleted it.
    stage.cluster.delete_secret("orders");
    run(&["rotate"]).exits(0);
    stage.holds("orders", &home, SOON);
    assert_eq!(stage.cluster.invalid(), [""; 0]);
}
