//! The manifests of dist/kubernetes: valid for the API of several versions, and what they say works. Their commands, their environment,
//! their configuration and their roles are taken from them as they stand; only addresses and directories are those of the test.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::SOON;
use crate::support::cluster::schemas;
use crate::support::postgres::psql_program;
use crate::support::workspace::issuers::{Issuer, Policy};
use crate::support::{Cluster, Home, Instance, Postgres, Running, Session, Workspace, free_port, names, skip};

/// As the manifests have it.
const CLIENT: &str = "0b1c2d3e-0000-4000-8000-000000000000";
const HOST: &str = "https://dbc-1234.cloud.databricks.com";
const ISSUER: &str = "https://issuer.example";

/// From the first in which sidecars are on by default to the newest that there are schemas for.
const VERSIONS: [&str; 4] = ["1.29", "1.31", "1.33", "1.37"];

/// All manifests, each with its file.
fn manifests(python: &Path) -> Vec<(String, Value)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let outcome = Command::new(python)
        .arg(root.join("tests/support/cluster/manifests.py"))
        .arg(root.join("dist/kubernetes"))
        .arg("--check")
        .args(VERSIONS)
        .output()
        .unwrap();
    assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));
    serde_json::from_slice(&outcome.stdout).unwrap()
}

/// A pod of the manifests on this machine.
struct Pod {
    home: Home,
    workspace: Workspace,
    server: Postgres,
    host: String,
    objects: Vec<Value>,
}

impl Pod {
    /// That of this file, whose workspace trusts its service account; none, and said so, where something of it is not to be had.
    fn new(test: &str, file: &str, service_account: &str) -> Option<Self> {
        let workspace = Workspace::builder().with_services().start();
        let issuer = Issuer::new(ISSUER);
        let subject = format!("system:serviceaccount:shop:{service_account}");
        let (audience, client) = (workspace.token_url(), Some(CLIENT.to_owned()));
        let policy = Policy {
            issuer: issuer.clone(),
            subject: subject.clone(),
            audience: audience.clone(),
            client,
            identity: CLIENT.to_owned(),
        };
        workspace.trust(policy);
        workspace.add_instance(Instance::named("orders"));
        let host = workspace.instance("orders").host.unwrap();
        let server = Postgres::builder(&workspace, &[CLIENT]).at_5432().known_as(&host).start();
        let server = names::wrapper().and(server).map_err(|reason| skip(test, &reason)).ok()?;
        let python = schemas::python().map_err(|reason| skip(test, &reason)).ok()?;
        let home = Home::new();
        home.watch(&workspace);
        let token = issuer.token(&subject, &audience, 600);
        home.keep_secret(&token);
        home.write("tokens/databricks", token, 0o644);
        std::fs::create_dir(home.path("lib")).unwrap();
        let all = manifests(&python);
        let objects = all.into_iter().filter(|(known, _)| known == file).map(|(_, object)| object).collect();
        let pod = Pod { home, workspace, server, host, objects };
        let config = pod.object("ConfigMap")["data"].as_object().unwrap().clone();
        for (name, text) in config {
            pod.home.write(format!("etc/{name}"), pod.here(text.as_str().unwrap()), 0o644);
        }
        pod.home.write("etc/ca.pem", std::fs::read_to_string(pod.workspace.ca_file()).unwrap(), 0o644);
        pod.give("lib", 65_532);
        // Another user reaches what that user may.
        std::fs::set_permissions(pod.home.path(""), std::fs::Permissions::from_mode(0o711)).unwrap();
        Some(pod)
    }

    /// With the directories and the address of the test.
    fn here(&self, text: &str) -> String {
        let at = |inside: &str| self.home.path(inside).display().to_string();
        text.replace(HOST, &self.workspace.url())
            .replace("/var/lib/dbx-rotator", &at("lib"))
            .replace("/etc/dbx-rotator", &at("etc"))
            .replace("/var/run/secrets/tokens", &at("tokens"))
    }

    fn object(&self, kind: &str) -> &Value {
        self.objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("a {kind}"))
    }

    fn give(&self, inside: &str, user: u32) {
        if rustix::process::geteuid().is_root() {
            for path in [self.home.path(""), self.home.path(inside)] {
                chown(path, Some(user), Some(user)).unwrap();
            }
        }
    }

    /// This command of a container, with its environment, as its user.
    fn run_as(&self, user: Option<u64>, command: &Value, env: &Value) -> Session<'_> {
        let mut words: Vec<String> =
            command.as_array().unwrap().iter().map(|word| self.here(word.as_str().unwrap())).collect();
        for (name, path) in [
            ("/usr/bin/dbx-rotator", env!("CARGO_BIN_EXE_dbx-rotator")),
            ("psql", psql_program().unwrap().to_str().unwrap()),
        ] {
            if words[0] == name {
                words[0] = path.to_owned();
            }
        }
        if let Some(user) = user.filter(|_| rustix::process::geteuid().is_root()) {
            let user = user.to_string();
            let drop = ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups", "--bounding-set=-all", "--"]
                .map(str::to_owned);
            words.splice(0..0, drop);
        }
        let mut session =
            self.home.command(&words[0]).args(&words[1..]).env("SSL_CERT_FILE", self.home.path("etc/ca.pem"));
        session = session.resolving(&self.host, self.server.address());
        for name in
            ["XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "TMPDIR"]
        {
            session = session.without_env(name);
        }
        // What the image sets.
        for (name, directory) in [("HOME", "lib"), ("STATE_DIRECTORY", "lib/state"), ("RUNTIME_DIRECTORY", "lib/run")] {
            session = session.env(name, self.home.path(directory));
        }
        for variable in env.as_array().into_iter().flatten() {
            session = session.env(variable["name"].as_str().unwrap(), self.here(variable["value"].as_str().unwrap()));
        }
        session
    }

    /// Starts the sidecars, in their order, as the kubelet does: the next one follows when the startup probe succeeds.
    fn start(&self, spec: &Value) -> Vec<Running<'_>> {
        let mut running = Vec::new();
        for sidecar in spec["initContainers"].as_array().unwrap() {
            assert_eq!(sidecar["restartPolicy"], "Always");
            assert_eq!(sidecar["securityContext"]["readOnlyRootFilesystem"], true);
            running.push(self.run_as(user(spec, sidecar), &sidecar["command"], &sidecar["env"]).spawn());
            self.probe(spec, sidecar, "startupProbe", running.last().unwrap());
        }
        running
    }

    #[track_caller]
    fn probe(&self, spec: &Value, container: &Value, probe: &str, of: &Running<'_>) {
        let command = &container[probe]["exec"]["command"];
        let deadline = std::time::Instant::now() + SOON;
        loop {
            let outcome = self.run_as(user(spec, container), command, &container["env"]).run();
            if outcome.code == Some(0) {
                return;
            }
            assert!(std::time::Instant::now() < deadline && !of.has_ended(), "{probe}: {outcome}\n{}", of.stderr());
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

/// The user that a container runs as.
fn user(spec: &Value, container: &Value) -> Option<u64> {
    let of = |place: &Value| place["securityContext"]["runAsUser"].as_u64();
    of(container).or_else(|| of(spec))
}

#[test]
fn an_application_of_another_user_logs_in_through_the_proxy_of_its_pod() {
    let name = "an_application_of_another_user_logs_in_through_the_proxy_of_its_pod";
    let Some(pod) = Pod::new(name, "proxy/proxy.yaml", "app") else { return };
    let spec = &pod.object("Deployment")["spec"]["template"]["spec"];
    // Another program may have that port here.
    let port = free_port().to_string();
    let config = pod.home.read("etc/config.toml").replace("6432", &port);
    pod.home.write("etc/config.toml", config, 0o644);
    let sidecars = pod.start(spec);
    pod.probe(spec, &spec["initContainers"][0], "livenessProbe", &sidecars[0]);
    let app = &spec["containers"][0];
    let command =
        serde_json::json!(["psql", "-X", "-w", "-A", "-t", "-d", "databricks_postgres", "-c", "select current_user"]);
    let psql = |user: Option<u64>| {
        pod.run_as(user, &command, &app["env"]).env("PGPORT", &port).env("PGPASSFILE", "/nonexistent").run()
    };
    psql(user(spec, app)).exits(0).stdout_has(CLIENT);
    if rustix::process::geteuid().is_root() {
        psql(Some(1234)).exits(2).stderr_has("1234");
    }
    // A workspace that is down is no reason to start anything again.
    pod.workspace.outage_begins();
    pod.probe(spec, &spec["initContainers"][0], "livenessProbe", &sidecars[0]);
    pod.probe(spec, &spec["initContainers"][0], "startupProbe", &sidecars[0]);
    pod.workspace.outage_ends();
    for sidecar in sidecars.into_iter().rev() {
        sidecar.terminate().exits(0);
    }
}

#[test]
fn a_job_of_the_same_user_reads_the_files_of_its_sidecar_and_another_user_the_token() {
    let name = "a_job_of_the_same_user_reads_the_files_of_its_sidecar_and_another_user_the_token";
    let Some(pod) = Pod::new(name, "files/files.yaml", "report") else { return };
    let spec = &pod.object("Job")["spec"]["template"]["spec"];
    let sidecars = pod.start(spec);
    let report = &spec["containers"][0];
    pod.run_as(user(spec, report), &report["command"], &report["env"]).run().exits(0).stdout_has("1");
    assert_eq!((pod.home.mode("lib/.pgpass"), pod.home.mode("lib/token")), (0o600, 0o640));
    let token = pod.home.read("lib/token");
    assert!(pod.home.read("lib/.pgpass").trim_end().ends_with(&token) && !token.is_empty());
    // What libpq does with a password file that is another user's, or that a group may read.
    if rustix::process::geteuid().is_root() {
        let target =
            format!("host={} user={CLIENT} dbname=databricks_postgres sslmode=require connect_timeout=10", pod.host);
        let command = serde_json::json!(["psql", "-X", "-w", "-d", target, "-c", "select 1"]);
        let ask = |user| pod.run_as(Some(user), &command, &report["env"]);
        ask(65_532).run().exits(0);
        let before = pod.server.logins().len();
        ask(1000).run().exits(2).stderr_has("no password supplied");
        pod.home.write("lib/group", pod.home.read("lib/.pgpass"), 0o640);
        pod.give("lib/group", 65_532);
        ask(65_532)
            .env("PGPASSFILE", pod.home.path("lib/group"))
            .run()
            .exits(2)
            .stderr_has("has group or world access");
        assert_eq!(pod.server.logins().len(), before);
    }
    for sidecar in sidecars {
        sidecar.terminate().exits(0);
    }
}

#[test]
fn the_deployment_keeps_its_secrets_with_no_more_rights_than_its_role_has() {
    let name = "the_deployment_keeps_its_secrets_with_no_more_rights_than_its_role_has";
    let Some(pod) = Pod::new(name, "secrets/secrets.yaml", "dbx-rotator") else { return };
    let cluster = match Cluster::start() {
        Ok(cluster) => cluster,
        Err(reason) => return skip(name, &reason),
    };
    pod.workspace.add_instance(Instance::named("archive").host(&pod.host));
    let mut rules = Vec::new();
    for rule in pod.object("Role")["rules"].as_array().unwrap() {
        let texts = |key: &str| -> Vec<&'static str> {
            let of = |text: &Value| -> &'static str { String::leak(text.as_str().unwrap().to_owned()) };
            rule[key].as_array().unwrap().iter().map(of).collect()
        };
        for verb in texts("verbs") {
            for resource in texts("resources") {
                rules.extend(texts("resourceNames").into_iter().map(|object| (verb, resource, Some(object))));
            }
        }
    }
    assert!(rules.iter().all(|(verb, ..)| *verb != "create"));
    cluster.allow_only(&rules);
    for object in pod.objects.iter().filter(|object| matches!(object["kind"].as_str(), Some("Secret" | "Lease"))) {
        cluster.create(object);
    }
    let account = format!("kubernetes_service_account = '{}'\n", cluster.account().display());
    // One host cannot have two connections with the same entry here.
    let config = (account + &pod.home.read("etc/config.toml"))
        .replace("name = \"archive\"", "name = \"archive\"\ndatabase = \"postgres\"");
    pod.home.write("etc/config.toml", config, 0o644);
    for token in cluster.tokens() {
        pod.home.keep_secret(token);
    }
    let spec = &pod.object("Deployment")["spec"]["template"]["spec"];
    let container = &spec["containers"][0];
    let mut session = pod.run_as(user(spec, container), &container["command"], &container["env"]);
    for (name, value) in cluster.environment() {
        session = session.env(name, value);
    }
    let replica = session.spawn();
    for secret in ["orders-db", "archive-db"] {
        let is_there = |cluster: &Cluster| cluster.value(secret, "password").is_some();
        assert!(cluster.wait_until(SOON, is_there), "{secret}: {}", replica.stderr());
    }
    for probe in ["startupProbe", "livenessProbe"] {
        pod.probe(spec, container, probe, &replica);
    }
    replica.terminate().exits(0);
    assert_eq!(cluster.holder("dbx-rotator"), "");
    assert_eq!(cluster.invalid(), [""; 0]);
}
