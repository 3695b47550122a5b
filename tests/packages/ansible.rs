//! The Ansible role of `dist/ansible`, on a booted machine: what it changes, and that a second time it changes nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::deb::Archive;
use crate::support::workspace::scratch_directory;
use crate::support::{Machine, Postgres, Release, Workspace, assert_no_secret, cache, skip};
use crate::{built, printed};

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/packages/ansible");
const ROLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/ansible/roles");
const DAEMON: &str = "dbx-rotator-daemon@app.service";
const NEW_SECRET: &str = "dose-another-stand-in-secret-0000";

/// The program of the environment that `prepare` makes.
fn program(name: &str) -> Result<PathBuf, String> {
    let prepared =
        Command::new(Path::new(HERE).join("prepare")).env("DBX_ROTATOR_TEST_CACHE", cache::directory()).output();
    let prepared = prepared.map_err(|error| error.to_string())?;
    if !prepared.status.success() {
        return Err(format!("no Ansible: {}", String::from_utf8_lossy(&prepared.stderr).trim()));
    }
    Ok(cache::directory().join("ansible/venv/bin").join(name))
}

#[test]
fn the_linter_finds_no_fault_with_the_role_that_the_package_comes_with() {
    let test = "the_linter_finds_no_fault_with_the_role_that_the_package_comes_with";
    let linter = match program("ansible-lint") {
        Ok(linter) => linter,
        Err(reason) => return skip(test, &reason),
    };
    // It writes beside what it reads.
    let scratch = scratch_directory(0o755);
    let copy = scratch.path().join("ansible");
    printed(Command::new("cp").arg("-R").arg(Path::new(ROLES).parent().unwrap()).arg(&copy));
    let path = format!("{}:/usr/bin:/bin", linter.parent().unwrap().display());
    let mut lint = Command::new(&linter);
    lint.args(["--profile", "production", "--strict", "--offline", "--nocolor"]);
    lint.current_dir(&copy).env("PATH", path).env("HOME", scratch.path()).env("ANSIBLE_ROLES_PATH", copy.join("roles"));
    printed(&mut lint);
}

/// A machine that is managed, and what is told of it.
struct Managed {
    machine: Machine,
    workspace: Workspace,
    server: Postgres,
    scratch: tempfile::TempDir,
    playbook: PathBuf,
    archive: Archive,
}

/// What a run has come to.
struct Run {
    said: String,
    changed: u64,
}

impl Managed {
    fn new(test: &str) -> Option<Self> {
        let or_skip = |reason: String| skip(test, &reason);
        let playbook = program("ansible-playbook").map_err(or_skip).ok()?;
        let packages = built::packages_or_skip(test, None, &["apt-ftparchive", "createrepo_c", "gpg"])?;
        let workspace = Workspace::start();
        let server = Postgres::start(&workspace, &[workspace.client_id()]).map_err(or_skip).ok()?;
        let machine = Machine::boot(Release::Bookworm).map_err(or_skip).ok()?;
        machine.watch(&workspace);
        let (scratch, archive) = (scratch_directory(0o755), Archive::new());
        archive.publish(&packages, &machine);
        let managed = Managed { machine, workspace, server, scratch, playbook, archive };
        managed.lay_out();
        Some(managed)
    }

    fn lay_out(&self) {
        let debs = cache::directory().join("ansible/debs");
        printed(Command::new("cp").arg("-R").arg(debs).arg(self.machine.path("/var/tmp/debs")));
        // Each needs the one before it configured.
        let install = "cd /var/tmp/debs && dpkg -i $(ls | grep -v '^python3[-_]') && dpkg -i python3-minimal_* && dpkg -i python3_* && \
                       dpkg -i python3-apt_* && rm -rf /etc/apt/sources.list && mkdir -p /etc/apt/sources.list.d && useradd -m app";
        self.machine.run(&["sh", "-ec", install]).exits(0);
        for (name, from) in [("workspace-ca", self.workspace.ca_file()), ("server-ca", self.server.ca_file())] {
            self.machine.write(&format!("/etc/ssl/{name}.pem"), std::fs::read(from).unwrap(), 0o644, None);
        }
        let leader = self.machine.leader();
        let inventory = json!({"all": {"hosts": {"machine": {
            "ansible_connection": "machine",
            "ansible_machine_leader": leader,
            "ansible_machine_door": self.machine.door(),
            "ansible_python_interpreter": "/usr/bin/python3",
        }}}});
        let play = json!([{"hosts": "all", "gather_facts": false, "roles": ["dbx_rotator"]}]);
        std::fs::write(self.scratch.path().join("hosts.json"), inventory.to_string()).unwrap();
        std::fs::write(self.scratch.path().join("play.json"), play.to_string()).unwrap();
    }

    fn connection(&self, name: &str) -> String {
        format!(
            "[[connection]]\nname = \"{name}\"\nhost = \"127.0.0.1\"\nport = {}\ndatabase = \"{name}\"\nsslrootcert = \"/etc/ssl/server-ca.pem\"\n",
            self.server.port()
        )
    }

    fn settings(&self) -> Value {
        let config = format!(
            "[[workspace]]\nhost = \"{}\"\nca_file = \"/etc/ssl/workspace-ca.pem\"\nclient_id = \"{}\"\n",
            self.workspace.url(),
            self.workspace.client_id()
        );
        json!({
            "dbx_rotator_user": "app",
            "dbx_rotator_service": "daemon",
            "dbx_rotator_repository": "file:/srv/archive",
            "dbx_rotator_repository_key": self.archive.directory.path().join("dbx-rotator.asc"),
            "dbx_rotator_config": config,
            "dbx_rotator_fragments": [{"name": "10-orders", "content": self.connection("databricks_postgres")}],
            "dbx_rotator_client_secret": self.workspace.client_secret(),
        })
    }

    fn play(&self, settings: &Value, more: &[&str]) -> Output {
        let file = self.scratch.path().join("settings.json");
        std::fs::write(&file, settings.to_string()).unwrap();
        let mut playbook = Command::new(&self.playbook);
        playbook
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.scratch.path())
            .env("LANG", "C.UTF-8");
        playbook
            .env("ANSIBLE_ROLES_PATH", ROLES)
            .env("ANSIBLE_CONNECTION_PLUGINS", Path::new(HERE).join("connection_plugins"));
        playbook.env("ANSIBLE_PIPELINING", "1").env("PYTHONDONTWRITEBYTECODE", "1");
        playbook.args(["--diff", "-vv", "--inventory"]).arg(self.scratch.path().join("hosts.json"));
        playbook
            .arg("--extra-vars")
            .arg(format!("@{}", file.display()))
            .args(more)
            .arg(self.scratch.path().join("play.json"));
        playbook.output().unwrap()
    }

    /// Runs the role, which must succeed and never print the secret.
    #[track_caller]
    fn run(&self, settings: &Value, more: &[&str]) -> Run {
        let output = self.play(settings, more);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert_no_secret("what Ansible says", &said, &[self.workspace.client_secret(), NEW_SECRET]);
        assert!(output.status.success(), "{said}");
        let recap = said.lines().find(|line| line.starts_with("machine ") && line.contains("changed=")).unwrap();
        let changed = recap.split("changed=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        Run { said, changed }
    }

    fn pid(&self) -> String {
        self.machine.run(&["systemctl", "show", "--value", "-p", "MainPID", DAEMON]).exits(0).stdout.trim().to_owned()
    }

    #[track_caller]
    fn log_in(&self) {
        let whither = format!(
            "host=127.0.0.1 port={} dbname=databricks_postgres user={} sslmode=verify-ca sslrootcert=/etc/ssl/server-ca.pem",
            self.server.port(),
            self.workspace.client_id()
        );
        self.machine.as_user("app", &["psql", "-X", "-w", "-A", "-t", "-c", "select 1", &whither]).exits(0);
    }
}

#[test]
fn the_role_installs_the_package_changes_only_what_differs_and_takes_it_away() {
    let test = "the_role_installs_the_package_changes_only_what_differs_and_takes_it_away";
    let Some(managed) = Managed::new(test) else { return };
    let mut settings = managed.settings();
    let dry = managed.run(&settings, &["--check"]);
    assert!(dry.changed > 0, "{}", dry.said);
    managed.machine.run(&["sh", "-c", "ls /etc/dbx-rotator /usr/bin/dbx-rotator"]).exits(2);

    managed.run(&settings, &[]);
    managed.log_in();
    let secret = managed.machine.run(&["stat", "-c", "%U %a", "/etc/dbx-rotator/app.client-secret"]);
    secret.exits(0).stdout_has("root 600");
    let (pid, issued) = (managed.pid(), managed.workspace.tokens_issued());
    let again = managed.run(&settings, &[]);
    assert_eq!(
        (again.changed, managed.pid(), managed.workspace.tokens_issued()),
        (0, pid.clone(), issued),
        "{}",
        again.said
    );

    // A team's connection is taken by a reload; a new secret needs a new start, since systemd hands it over.
    settings["dbx_rotator_fragments"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "20-team", "content": managed.connection("team")}));
    let more = managed.run(&settings, &[]);
    assert_eq!((more.changed, managed.pid()), (2, pid.clone()), "{}", more.said);
    managed.machine.journal_says("root", DAEMON, "Keeping 2 connections alive", std::time::Duration::from_secs(30));
    // What is wrong is found before the daemon is told of it.
    settings["dbx_rotator_fragments"][1]["content"] = json!("[[connection]]\nhots = 1\n");
    let wrong = managed.play(&settings, &[]);
    let said = String::from_utf8_lossy(&wrong.stdout).into_owned();
    assert!(!wrong.status.success() && said.contains("conf.d/20-team.toml:2:1"), "{said}");
    assert_eq!(managed.pid(), pid);
    settings["dbx_rotator_fragments"][1] = json!({"name": "20-team", "state": "absent"});
    settings["dbx_rotator_client_secret"] = json!(NEW_SECRET);
    managed.run(&settings, &[]);
    assert_ne!(managed.pid(), pid);
    assert_eq!(managed.machine.read("/etc/dbx-rotator/app.client-secret"), format!("{NEW_SECRET}\n"));
    managed.log_in();

    settings["dbx_rotator_state"] = json!("absent");
    managed.run(&settings, &[]);
    managed
        .machine
        .run(&["sh", "-c", "find /etc/dbx-rotator -type f; systemctl list-units --all --no-legend 'dbx*'"])
        .prints_nothing();
    managed.machine.run(&["sh", "-c", "ls /usr/bin/dbx-rotator"]).exits(2);
    assert!(managed.machine.path("/home/app/.pgpass").exists(), "the password file is the user's");
}
