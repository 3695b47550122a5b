//! How fast the proxy is beside a direct session, PgBouncer and a relay that only copies: `tests/bench-proxy` prints the table.

use std::fmt::Write;
use std::fs::{self, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use super::{SOON, free_port, until};
use crate::support::postgres::{DATABASE, psql_program};
use crate::support::workspace::scratch_directory;
use crate::support::{Home, Postgres, Workspace, cache, skip};

/// How often each is measured, in turn; the best counts, since others may use the machine as well.
const ROUNDS: usize = 5;

/// Sessions that are open at once to measure memory.
const IDLE: usize = 1000;

/// What `pgbench -S` and the copy read: 10 x 100 MB.
const TABLES: &str = "
create table pgbench_branches (bid int primary key, bbalance int, filler char(88));
insert into pgbench_branches values (1, 0, '');
create table pgbench_accounts (aid int primary key, bid int, abalance int, filler char(84));
insert into pgbench_accounts select i, 1, 0, '' from generate_series(1, 100000) i;
create table wide as select repeat(md5(i::text), 32) as line from generate_series(1, 100000) i;
grant select on all tables in schema public to public;
";

const COPY: &str = "copy (select line from wide, generate_series(1, 10)) to stdout";

/// What is measured: its head in the table, and whether more is better.
const MEASURES: [(&str, bool); 4] = [
    ("`pgbench -S -c 10`, tps", true),
    ("COPY of 1 GB, s", false),
    ("`select 1`, µs", false),
    ("new session, ms", false),
];

/// A way to the same server.
struct Way {
    name: &'static str,
    settings: Vec<(&'static str, String)>,
    best: [Option<f64>; MEASURES.len()],
}

impl Way {
    fn new(name: &'static str, host: String, port: u16, database: &str) -> Self {
        let plain = [("PGHOST", host), ("PGPORT", port.to_string()), ("PGDATABASE", database.to_owned())];
        Way { name, settings: plain.to_vec(), best: [None; MEASURES.len()] }
    }

    fn with(mut self, more: &[(&'static str, String)]) -> Self {
        self.settings.extend_from_slice(more);
        self
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PGUSER", "anybody").env("PGGSSENCMODE", "disable").env("PGPASSFILE", "/nonexistent");
        command.envs(self.settings.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        command
    }

    fn python(&self, words: &[&str]) -> Command {
        let mut command = self.command(&cache::directory().join("clients/python/bin/python"));
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rotations/local_proxy/measure.py")).args(words);
        command
    }

    fn measure(&self, which: usize) -> f64 {
        let psql = psql_program().unwrap();
        match which {
            0 => {
                let mut pgbench = self.command(&psql.with_file_name("pgbench"));
                let said = output(pgbench.args(["-n", "-S", "-c", "10", "-T", "4"]));
                number(said.lines().find_map(|line| line.strip_prefix("tps = ")).unwrap_or(&said))
            }
            1 => {
                let began = Instant::now();
                output(self.command(&psql).args(["-X", "-q", "-o", "/dev/null", "-c", COPY]));
                began.elapsed().as_secs_f64()
            }
            2 => number(&output(&mut self.python(&["latency"]))),
            _ => number(&output(&mut self.python(&["session"]))) / 1000.0,
        }
    }
}

fn output(command: &mut Command) -> String {
    let outcome = command.output().expect("start it");
    let said = String::from_utf8_lossy(&outcome.stderr);
    assert!(outcome.status.success(), "{command:?}: {said}");
    String::from_utf8(outcome.stdout).unwrap()
}

fn number(text: &str) -> f64 {
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no number: {text}"))
}

/// Another program, ended with this.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is measured beside the proxy, as far as it is installed.
struct Stage<'a> {
    home: &'a Home,
    server: &'a Postgres,
    user: &'a str,
    place: &'a Path,
}

impl Stage<'_> {
    /// What logs in to the server itself.
    fn direct(&self, name: &'static str, port: u16) -> Way {
        Way::new(name, "localhost".to_owned(), port, DATABASE).with(&[
            ("PGUSER", self.user.to_owned()),
            ("PGPASSFILE", self.home.path(".pgpass").display().to_string()),
            ("PGPASSWORD", self.home.password()),
            ("PGSSLMODE", "verify-full".to_owned()),
            ("PGSSLROOTCERT", self.server.ca_file().display().to_string()),
        ])
    }

    /// PgBouncer in session mode, as whoever owns the server. None where it is not installed.
    fn pgbouncer(&self) -> Option<(Other, Way)> {
        let program = installed("pgbouncer")?;
        let (place, port) = (self.place.display(), free_port());
        let text = format!(
            "[databases]\n{DATABASE} = host=localhost port={} user={}\n[pgbouncer]\nlisten_addr =\nlisten_port = {port}\n\
             unix_socket_dir = {place}\nauth_type = trust\nauth_file = {place}/userlist.txt\npool_mode = session\n\
             default_pool_size = 50\nserver_tls_sslmode = verify-full\nserver_tls_ca_file = {place}/ca.pem\n",
            self.server.port(),
            self.user
        );
        let users = format!("\"{}\" \"{}\"\n\"anybody\" \"\"\n", self.user, self.home.password());
        let ca = fs::read_to_string(self.server.ca_file()).unwrap();
        for (name, text) in [("pgbouncer.ini", text), ("userlist.txt", users), ("ca.pem", ca)] {
            fs::write(self.place.join(name), text).unwrap();
            fs::set_permissions(self.place.join(name), Permissions::from_mode(0o644)).unwrap();
        }
        let mut command = Command::new("/usr/bin/setpriv");
        if rustix::process::geteuid().is_root() {
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        }
        command.args(["--pdeathsig=QUIT", "--"]).arg(program).arg("-q").arg(self.place.join("pgbouncer.ini"));
        let other = Other(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        until("PgBouncer listens", || self.place.join(format!(".s.PGSQL.{port}")).exists());
        Some((other, Way::new("PgBouncer, session mode, Unix socket", place.to_string(), port, DATABASE)))
    }

    /// HAProxy as a relay, which leaves TLS to the client.
    fn haproxy(&self) -> Option<(Other, Way)> {
        let (program, port) = (installed("haproxy")?, free_port());
        let text = format!(
            "global\n maxconn 200\ndefaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n\
             listen postgres\n bind 127.0.0.1:{port}\n server one 127.0.0.1:{}\n",
            self.server.port()
        );
        let path = self.place.join("haproxy.cfg");
        fs::write(&path, text).unwrap();
        let mut command = Command::new("/usr/bin/setpriv");
        command.args(["--pdeathsig=KILL", "--"]).arg(&program).args(["-q", "-db", "-f"]).arg(path);
        command.env("LD_LIBRARY_PATH", program.parent().unwrap());
        let other = Other(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        until("HAProxy listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some((other, self.direct("HAProxy, TCP mode, TLS by the client", port)))
    }
}

/// A program of this system, or one that `tests/clients/prepare` has unpacked.
fn installed(name: &str) -> Option<PathBuf> {
    let unpacked = cache::directory().join("clients").join(name).join(name);
    [PathBuf::from("/usr/sbin").join(name), unpacked].into_iter().find(|path| path.exists())
}

/// What is in the memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The proxy's memory before and with so many idle sessions.
fn memory(way: &Way, pid: u32) -> (u64, u64) {
    let before = resident(pid);
    let count = IDLE.to_string();
    let mut holder = Other(way.python(&["idle", &count]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut said = [0; 5];
    std::io::Read::read_exact(holder.0.stdout.as_mut().unwrap(), &mut said).expect("all sessions are open");
    assert_eq!(said.trim_ascii(), count.as_bytes());
    (before, resident(pid))
}

fn table(ways: &[Way]) -> String {
    let heads: Vec<&str> = MEASURES.iter().map(|(head, _)| *head).collect();
    let mut text = format!("| way | {} |\n|---{}|\n", heads.join(" | "), "|---".repeat(heads.len()));
    for way in ways {
        let cells: Vec<String> = way.best.iter().zip([0, 2, 1, 2]).map(|(best, digits)| cell(*best, digits)).collect();
        writeln!(text, "| {} | {} |", way.name, cells.join(" | ")).unwrap();
    }
    text
}

fn cell(best: Option<f64>, digits: usize) -> String {
    best.map_or_else(String::new, |best| format!("{best:.digits$}"))
}

#[test]
#[ignore = "a benchmark of the release binary: tests/bench-proxy"]
fn how_fast_is_the_proxy() {
    let Some(program) = std::env::var_os("DBX_ROTATOR_BENCH_PROGRAM") else { panic!("tests/bench-proxy says which") };
    let rounds = std::env::var("DBX_ROTATOR_BENCH_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let wanted = std::env::var("DBX_ROTATOR_BENCH_ONLY").unwrap_or_default();
    let workspace = Workspace::start();
    let (home, user, place) = (Home::new(), workspace.client_id(), scratch_directory(0o711));
    // Another account puts its socket there. Not a mode of its making, which the umask would cut.
    fs::set_permissions(place.path(), Permissions::from_mode(0o777)).unwrap();
    home.watch(&workspace);
    let most = u16::try_from(IDLE + 50).unwrap();
    let server = match Postgres::builder(&workspace, &[user]).max_connections(most).start() {
        Ok(server) => server,
        Err(reason) => return skip("how_fast_is_the_proxy", &reason),
    };
    server.set_up(&format!("\\c {DATABASE}\n{TABLES}"));
    let port = free_port();
    let text = format!(
        "proxy_max_sessions = {}\n[[connection]]\nname = 'orders'\nhost = 'localhost'\nport = {}\nsslmode = 'verify-full'\n\
         proxy_port = {port}\n",
        IDLE + 50,
        server.port()
    );
    home.write(".config/dbx-rotator/config.toml", text, 0o600);
    home.command(&program).arg("rotate").signed_in_to(&workspace).run().exits(0);
    let running = home.command(&program).arg("proxy").signed_in_to(&workspace).spawn();
    running.says("Serving 1 connection at", SOON);

    let stage = Stage { home: &home, server: &server, user, place: place.path() };
    let unix = home.path(".run/dbx-rotator").display().to_string();
    let (poolers, others): (Vec<Other>, Vec<Way>) = [stage.haproxy(), stage.pgbouncer()].into_iter().flatten().unzip();
    let mut ways = vec![
        stage.direct("direct, TLS", server.port()),
        Way::new("the proxy, Unix socket", unix.clone(), 5432, "orders"),
        Way::new("the proxy, TCP", "127.0.0.1".to_owned(), port, DATABASE).with(&[("PGSSLMODE", "disable".to_owned())]),
    ];
    ways.extend(others);
    for (which, (head, more_is_better)) in MEASURES.iter().enumerate() {
        for _ in 0..if head.contains(&wanted) { rounds } else { 0 } {
            for way in &mut ways {
                let measured = way.measure(which);
                let best = way.best[which].get_or_insert(measured);
                *best = if *more_is_better { best.max(measured) } else { best.min(measured) };
            }
        }
    }
    drop(poolers);
    eprintln!("\n{}", table(&ways));
    let (before, with) = memory(&ways[1], running.pid());
    eprintln!("{before} KiB resident, {with} KiB with {IDLE} idle sessions");
    running.terminate().exits(0);
}
