//! What the tests under systemd share: a machine with the program installed, a workspace and a server that it can reach, and a
//! user who has set everything up.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{Machine, Postgres, Release, Workspace, skip};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_dbx-rotator");

/// Everything immediate has happened by then, even on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// So many commands a new user types, at most, to a login and a service that `status` vouches for.
pub(crate) const MOST_COMMANDS: usize = 5;

/// The directory of a user's settings, in the machine.
pub(crate) const SETTINGS: &str = "/home/alice/.config/dbx-rotator";

/// A machine with the program installed, or a skipped test.
pub(crate) fn machine(test: &str, release: Release) -> Option<Machine> {
    let machine = Machine::boot(release).map_err(|reason| skip(test, &reason)).ok()?;
    // Only in a container a user's unit cannot hide the kernel log: what it would mount over is already mounted over.
    for unit in ["dbx-rotator.service", "dbx-rotator-daemon.service", "dbx-rotator-proxy.service"] {
        let drop_in = format!("/etc/systemd/user/{unit}.d/container.conf");
        machine.write(&drop_in, "[Service]\nProtectKernelLogs=no\n", 0o644, None);
    }
    machine.install(Path::new(PROGRAM));
    Some(machine)
}

/// Alice's machine, with the workspace and the server on the host.
pub(crate) struct Stage {
    pub(crate) machine: Machine,
    pub(crate) workspace: Workspace,
    pub(crate) server: Postgres,
}

impl Stage {
    /// A machine on which alice has a service manager and has configured nothing; or a skipped test.
    pub(crate) fn bare(test: &str, release: Release, workspace: Workspace) -> Option<Self> {
        let roles = [workspace.client_id()];
        let server = Postgres::start(&workspace, &roles).map_err(|reason| skip(test, &reason)).ok()?;
        let machine = machine(test, release)?;
        machine.watch(&workspace);
        machine.linger("alice");
        let stage = Stage { machine, workspace, server };
        stage.lay_out();
        Some(stage)
    }

    /// The same with a configuration: a service principal, one connection.
    pub(crate) fn set(test: &str, release: Release, workspace: Workspace) -> Option<Self> {
        let stage = Self::bare(test, release, workspace)?;
        stage.configure(&stage.config());
        Some(stage)
    }

    /// Puts the authorities there, which users of a real workspace need not do.
    fn lay_out(&self) {
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        self.machine.write("/etc/ssl/workspace-ca.pem", read(&self.workspace.ca_file()), 0o644, None);
        self.machine.write("/etc/ssl/server-ca.pem", read(&self.server.ca_file()), 0o644, None);
    }

    /// `[[workspace]]` as in config.toml, without a secret.
    pub(crate) fn workspace_table(&self) -> String {
        let (url, id) = (self.workspace.url(), self.workspace.client_id());
        format!("[[workspace]]\nhost = \"{url}\"\nca_file = \"/etc/ssl/workspace-ca.pem\"\nclient_id = \"{id}\"\n")
    }

    pub(crate) fn connection_table(&self) -> String {
        format!("[[connection]]\nname = \"orders\"\nhost = \"127.0.0.1\"\nport = {}\n", self.server.port())
    }

    pub(crate) fn config(&self) -> String {
        format!("{}client_secret_file = \"client-secret\"\n{}", self.workspace_table(), self.connection_table())
    }

    /// Alice writes her settings.
    pub(crate) fn configure(&self, config: &str) {
        self.write_secret(self.workspace.client_secret());
        self.machine.write(&format!("{SETTINGS}/config.toml"), config, 0o600, Some("alice"));
    }

    pub(crate) fn write_secret(&self, secret: &str) {
        self.machine.write(&format!("{SETTINGS}/client-secret"), secret, 0o600, Some("alice"));
    }

    /// Alice types it into a shell.
    #[track_caller]
    pub(crate) fn types(&self, line: &str) -> crate::support::Outcome {
        self.machine.as_user("alice", &["sh", "-c", line])
    }

    /// `systemctl --user` as alice.
    #[track_caller]
    pub(crate) fn systemctl(&self, arguments: &[&str]) -> crate::support::Outcome {
        self.machine.as_user("alice", &[&["systemctl", "--user"], arguments].concat())
    }

    /// One property of one of alice's units.
    #[track_caller]
    pub(crate) fn property(&self, unit: &str, name: &str) -> String {
        self.systemctl(&["show", "--value", "-p", name, unit]).exits(0).stdout.trim().to_owned()
    }

    /// Waits until a unit of alice's, or of the machine, has this value.
    #[track_caller]
    pub(crate) fn waits_for(&self, user: &str, unit: &str, property: &str, wanted: &str) {
        let began = Instant::now();
        loop {
            let seen = self.shown(user, unit, property);
            if seen == wanted {
                return;
            }
            assert!(began.elapsed() < SOON, "{unit}: {property} is {seen:?}, not {wanted:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    #[track_caller]
    fn shown(&self, user: &str, unit: &str, property: &str) -> String {
        match user {
            "root" => {
                let line = ["systemctl", "show", "--value", "-p", property, unit];
                self.machine.run(&line).exits(0).stdout.trim().to_owned()
            }
            _ => self.property(unit, property),
        }
    }

    /// Adds a drop-in for one of alice's units, and lets her manager read it.
    #[track_caller]
    pub(crate) fn adjust(&self, unit: &str, text: &str) {
        let path = format!("/home/alice/.config/systemd/user/{unit}.d/test.conf");
        self.machine.write(&path, text, 0o644, Some("alice"));
        self.systemctl(&["daemon-reload"]).exits(0);
    }

    /// Waits until alice's unit has logged this in the journal.
    #[track_caller]
    pub(crate) fn says(&self, unit: &str, text: &str) {
        self.machine.journal_says("alice", unit, text, SOON);
    }

    /// psql logs in with alice's password file, as alice.
    #[track_caller]
    pub(crate) fn log_in(&self) {
        self.log_in_as("alice");
    }

    #[track_caller]
    pub(crate) fn log_in_as(&self, user: &str) {
        let role = self.workspace.client_id();
        let whither = format!(
            "host=127.0.0.1 port={} dbname={} user={role} sslmode=verify-ca sslrootcert=/etc/ssl/server-ca.pem",
            self.server.port(),
            crate::support::postgres::DATABASE,
        );
        let login =
            self.machine.as_user(user, &["psql", "-X", "-w", "-A", "-t", "-c", "select current_user", &whither]);
        login.exits(0).stdout_has(role);
    }

    pub(crate) fn pgpass(&self) -> String {
        std::fs::read_to_string(self.machine.path("/home/alice/.pgpass")).unwrap_or_default()
    }

    pub(crate) fn write_pgpass(&self, password: &str) {
        let key = format!("127.0.0.1:{}:databricks_postgres:{}", self.server.port(), self.workspace.client_id());
        self.machine.write("/home/alice/.pgpass", format!("{key}:{password}\n"), 0o600, Some("alice"));
    }
}
