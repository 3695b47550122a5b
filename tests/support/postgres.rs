//! A real PostgreSQL that accepts the stand-in workspace's tokens as passwords, as Lakebase does.
//!
//! Debian's server on a scratch port of loopback, or at port 5432 of its own loopback address; TLS with the workspace's
//! authority; and a gate (`postgres/gate.rs`) that accepts exactly the live tokens of the role that logs in. The expiry
//! is only checked at login; open sessions stay open, as on Lakebase. Root runs it as the user `postgres`, others as
//! themselves.
//!
//! Needs Debian's postgresql, and util-linux's setpriv.
//!
//! Invariants: the server never outlives the process that started it, however that ends; what a killed run left in the
//! temp directory, the next one removes.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test support: each user takes a part of it, and a broken stand-in should stop the test loudly"
)]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};

use super::workspace::{Workspace, scratch_directory};

// An explicit path, so that this file may itself be included by path.
#[path = "postgres/gate.rs"]
mod gate;

use gate::Gate;
pub use gate::Login;

pub const DATABASE: &str = "databricks_postgres";

/// Where real servers listen, and the default of clients.
pub const USUAL_PORT: u16 = 5432;

const NO_SERVER: &str = "no PostgreSQL server under /usr/lib/postgresql";
const SETPRIV: &str = "/usr/bin/setpriv";
const START_LIMIT: Duration = Duration::from_secs(60);

/// Fast rather than durable: this cluster never has to survive anything.
const SETTINGS: &str = "
unix_socket_permissions = 0700
fsync = off
synchronous_commit = off
full_page_writes = off
wal_level = minimal
max_wal_senders = 0
shared_buffers = 16MB
autovacuum = off
jit = off
log_min_messages = warning
ssl = on
ssl_cert_file = '../server.pem'
ssl_key_file = '../server.key'
";

/// A running server.
pub struct Postgres {
    address: Ipv4Addr,
    /// 0 for any.
    wanted_port: u16,
    port: u16,
    programs: PathBuf,
    gate: Gate,
    stop: Option<mpsc::Sender<()>>,
    keeper: Option<JoinHandle<()>>,
    scratch: tempfile::TempDir,
}

/// Settings of a server that is not started yet.
pub struct Builder<'a> {
    workspace: &'a Workspace,
    roles: &'a [&'a str],
    at_5432: bool,
    names: Vec<String>,
    max_connections: u16,
}

impl Builder<'_> {
    /// At port 5432 of its own address in 127.0.0.0/8, so that many can run side by side.
    pub fn at_5432(mut self) -> Self {
        self.at_5432 = true;
        self
    }

    /// Its certificate is also valid for this host name; can be repeated.
    pub fn known_as(mut self, name: &str) -> Self {
        self.names.push(name.to_owned());
        self
    }

    /// For tests that open more sessions at once than others need.
    pub fn max_connections(mut self, most: u16) -> Self {
        self.max_connections = most;
        self
    }

    /// Starts the server, or says why there can be none here.
    pub fn start(self) -> Result<Postgres, String> {
        let programs = newest_programs().ok_or(NO_SERVER)?;
        if !Path::new(SETPRIV).exists() {
            return Err(format!("{SETPRIV} is missing"));
        }
        let mut server = Postgres::prepare(programs, &self)?;
        // Somebody else may take a free port before the server listens on it.
        let mut failure = String::new();
        for _ in 0..3 {
            match server.launch() {
                Ok(()) => {
                    server.create(self.roles);
                    return Ok(server);
                }
                Err(said) => failure = said,
            }
        }
        Err(failure)
    }
}

impl Postgres {
    /// A server with these roles; the workspace's tokens and clock decide about logins.
    pub fn builder<'a>(workspace: &'a Workspace, roles: &'a [&'a str]) -> Builder<'a> {
        Builder { workspace, roles, at_5432: false, names: Vec::new(), max_connections: 100 }
    }

    /// A server with defaults, or why there can be none here.
    pub fn start(workspace: &Workspace, roles: &[&str]) -> Result<Self, String> {
        Self::builder(workspace, roles).start()
    }

    fn prepare(programs: PathBuf, settings: &Builder) -> Result<Self, String> {
        let workspace = settings.workspace;
        let owner = if geteuid().is_root() { Some(postgres_user().ok_or("no user postgres")?) } else { None };
        // Executable, so that the user postgres can reach its files inside.
        let scratch = scratch_directory(0o711);
        let gate =
            Gate::open(Box::new(workspace.holders()), workspace.clock_skew()).map_err(|error| error.to_string())?;
        let at = |name: &str| scratch.path().join(name);
        let give = |name: &str, mode: u32| {
            fs::set_permissions(at(name), Permissions::from_mode(mode)).expect("set the mode");
            if let Some((uid, gid)) = owner {
                chown(at(name), Some(uid), Some(gid)).expect("give it to postgres");
            }
        };
        let write = |name: &str, text: &str, mode: u32| {
            fs::write(at(name), text).expect("write in the temp directory");
            give(name, mode);
        };

        let (address, wanted_port) =
            if settings.at_5432 { (address_of_its_own()?, USUAL_PORT) } else { (Ipv4Addr::LOCALHOST, 0) };
        let in_digits = address.to_string();
        let names: Vec<&str> = ["localhost", "127.0.0.1", "::1", &in_digits]
            .into_iter()
            .chain(settings.names.iter().map(String::as_str))
            .collect();
        let certificate = workspace.certify(&names);
        write("ca.pem", &fs::read_to_string(workspace.ca_file()).expect("read the CA"), 0o644);
        write("server.pem", &certificate.chain, 0o644);
        write("server.key", &certificate.key, 0o600);
        for directory in ["data", "socket"] {
            fs::create_dir(at(directory)).expect("make a directory");
            give(directory, 0o700);
        }

        let initdb = as_postgres(&programs.join("initdb"))
            .args(["--no-sync", "--no-instructions", "--auth=trust", "--encoding=UTF8", "--locale=C", "-U", "postgres"])
            .arg("-D")
            .arg(at("data"))
            .output()
            .map_err(|error| format!("initdb: {error}"))?;
        if !initdb.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&initdb.stderr)));
        }

        let socket = at("socket").display().to_string();
        let most = settings.max_connections;
        let text = format!("unix_socket_directories = '{socket}'\nmax_connections = {most}\n{SETTINGS}");
        write("data/postgresql.auto.conf", &text, 0o600);
        let access = format!(
            "local all all trust\n\
             hostssl all all 127.0.0.0/8 ldap ldapserver=127.0.0.1 ldapport={} ldapprefix=\"{}\"\n",
            gate.port(),
            gate::PREFIX,
        );
        write("data/pg_hba.conf", &access, 0o600);
        Ok(Self { address, wanted_port, port: 0, programs, gate, stop: None, keeper: None, scratch })
    }

    /// Starts the server and waits until it is ready.
    fn launch(&mut self) -> Result<(), String> {
        self.port = free_port(self.address, self.wanted_port)?;
        let mut command = as_postgres(&self.programs.join("postgres"));
        command
            .arg("-D")
            .arg(self.scratch.path().join("data"))
            .args(["-p", &self.port.to_string(), "-c", &format!("listen_addresses={}", self.address)])
            .stderr(Stdio::piped());

        let (stop, stopped) = mpsc::channel();
        let (ready, started) = mpsc::channel();
        // The kernel sends the parent-death signal when the *thread* that started the child ends, and a test's thread
        // may end before the server is dropped. Hence a thread of its own that stays as long as the server does.
        let keeper = std::thread::Builder::new()
            .name("stand-in PostgreSQL".to_owned())
            .spawn(move || keep(command, &ready, &stopped))
            .expect("a thread");
        match started.recv_timeout(START_LIMIT) {
            Ok(Ok(())) => {
                (self.stop, self.keeper) = (Some(stop), Some(keeper));
                Ok(())
            }
            Ok(Err(said)) => Err(format!("PostgreSQL did not start: {said}")),
            Err(_) => Err("PostgreSQL did not get ready in time".to_owned()),
        }
    }

    fn create(&self, roles: &[&str]) {
        let mut script = format!("CREATE DATABASE {DATABASE};\n");
        for role in roles {
            script += &format!("CREATE ROLE \"{}\" LOGIN;\n", role.replace('"', "\"\""));
        }
        self.set_up(&script);
    }

    /// Runs SQL as the superuser, over the socket for set-up only.
    pub fn set_up(&self, script: &str) {
        self.ask(script);
    }

    /// The same; returns what it printed, without alignment.
    pub fn ask(&self, script: &str) -> String {
        let mut psql = as_postgres(&self.programs.join("psql"))
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "postgres",
                "-p",
                &self.port.to_string(),
                "-h",
            ])
            .arg(self.scratch.path().join("socket"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start psql");
        psql.stdin.take().expect("its stdin").write_all(script.as_bytes()).expect("write to psql");
        let outcome = psql.wait_with_output().expect("wait for psql");
        assert!(outcome.status.success(), "setting up: {}", String::from_utf8_lossy(&outcome.stderr));
        String::from_utf8_lossy(&outcome.stdout).trim().to_owned()
    }

    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn ca_file(&self) -> PathBuf {
        self.scratch.path().join("ca.pem")
    }

    /// Sets the server's clock to the local one plus this many seconds; initially it is the workspace's.
    pub fn set_clock_skew(&self, seconds: i64) {
        self.gate.set_clock_skew(seconds);
    }

    /// Every login that was decided so far, in order.
    pub fn logins(&self) -> Vec<Login> {
        self.gate.logins()
    }

    /// Waits until this many logins have been decided since the start; false if the time runs out first.
    pub fn wait_for_logins(&self, n: usize, limit: Duration) -> bool {
        self.gate.wait_for_logins(n, limit)
    }

    /// Runs the real psql, with its password from that file and nothing from the environment; it never prompts.
    pub fn psql(&self, pgpass_file: &Path, user: &str, sql: &str) -> Output {
        self.psql_command(pgpass_file, user).args(["-c", sql]).output().expect("start psql")
    }

    /// The same, not yet started, for a test with special needs.
    pub fn psql_command(&self, pgpass_file: &Path, user: &str) -> Command {
        // Debian's /usr/bin/psql is a Perl wrapper that takes longer than the login.
        let mut command = Command::new(self.programs.join("psql"));
        command
            .env_clear()
            .env("PGPASSFILE", pgpass_file)
            .env("PGHOST", self.address.to_string())
            .env("PGPORT", self.port.to_string())
            .env("PGDATABASE", DATABASE)
            .env("PGUSER", user)
            .env("PGSSLMODE", "require")
            .env("PGSSLROOTCERT", self.ca_file())
            .env("PGGSSENCMODE", "disable")
            .args(["-X", "-w", "-A", "-t"])
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

/// Runs the server until `stopped` is dropped.
fn keep(mut command: Command, ready: &mpsc::Sender<Result<(), String>>, stopped: &mpsc::Receiver<()>) {
    let mut server = match command.spawn() {
        Ok(server) => server,
        Err(error) => {
            let _ = ready.send(Err(error.to_string()));
            return;
        }
    };
    let mut log = BufReader::new(server.stderr.take().expect("its stderr"));
    let mut said = String::new();
    while !said.contains("is ready to accept connections") {
        if !matches!(log.read_line(&mut said), Ok(1..)) {
            let _ = server.wait();
            let _ = ready.send(Err(said));
            return;
        }
    }
    // If nobody reads the server's log, it stops once the pipe is full.
    let reader = std::thread::spawn(move || std::io::copy(&mut log.by_ref(), &mut std::io::sink()));
    let _ = ready.send(Ok(()));
    let _ = stopped.recv();
    end(&mut server);
    let _ = reader.join();
}

/// An immediate shutdown: nothing in the cluster is worth a checkpoint, and no client has to leave first.
fn end(server: &mut Child) {
    let pid = i32::try_from(server.id()).ok().and_then(Pid::from_raw).expect("a process id");
    let _ = kill_process(pid, Signal::QUIT);
    let _ = server.wait();
}

/// As the user postgres if we are root, without our environment, killed together with the thread that starts it.
fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new(SETPRIV);
    if geteuid().is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command
        .args(["--pdeathsig=QUIT", "--"])
        .arg(program)
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", "/usr/bin:/bin")
        // The LDAP library would look for settings of this machine.
        .env("LDAPNOINIT", "1")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// This port, or any free one for 0.
fn free_port(address: Ipv4Addr, wanted: u16) -> Result<u16, String> {
    let free = TcpListener::bind((address, wanted)).and_then(|free| free.local_addr());
    free.map(|free| free.port()).map_err(|error| format!("{address}:{wanted}: {error}"))
}

/// An address in 127.0.0.0/8 where nobody listens at the usual port.
pub fn address_of_its_own() -> Result<Ipv4Addr, String> {
    let address = Ipv4Addr::new(127, fastrand::u8(1..=254), fastrand::u8(..), fastrand::u8(1..=254));
    free_port(address, USUAL_PORT).map(|_| address)
}

/// The psql of the same installation.
pub fn psql_program() -> Result<PathBuf, String> {
    let programs = newest_programs().ok_or(NO_SERVER)?;
    Ok(programs.join("psql"))
}

/// The directory of the newest Debian server's programs.
fn newest_programs() -> Option<PathBuf> {
    fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| {
            let version: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let programs = PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"));
            let complete = ["initdb", "postgres", "psql"].iter().all(|program| programs.join(program).exists());
            complete.then_some((version, programs))
        })
        .max()
        .map(|(_, programs)| programs)
}

fn postgres_user() -> Option<(u32, u32)> {
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    let fields: Vec<&str> = passwd.lines().find(|line| line.starts_with("postgres:"))?.split(':').collect();
    Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
}
