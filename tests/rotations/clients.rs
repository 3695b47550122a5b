//! Real clients connect anew again and again, for three lives of a token, and none may ever be refused: `tests/run clients`.
//!
//! Each is a program below `tests/clients`, which `tests/clients/prepare` has given its library. It prints its version, and then a
//! line for each try: `ok` and the server's process, or `failed:` and why.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops where it fails, and says what it counted"
)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::postgres::{DATABASE, psql_program};
use crate::support::workspace::scratch_directory;
use crate::support::{Home, Postgres, Running, Session, Workspace, cache, dbx_rotator, skip};

/// How long a token lives.
const LIFE: Duration = Duration::from_secs(20);

/// How long they connect, unless `DBX_ROTATOR_CLIENTS_SECONDS` says otherwise: three lives, and some more.
const LONG: Duration = Duration::from_secs(65);

/// For the slowest to start on a busy machine.
const START: Duration = Duration::from_secs(120);

/// How often it is looked at what they have said.
const PACE: Duration = Duration::from_millis(200);

/// A program below `tests/clients`.
pub(crate) struct Client {
    pub(crate) name: &'static str,
    /// Where it gets its password from.
    pub(crate) from: &'static str,
    /// With its arguments, if it is a script of the shell.
    pub(crate) program: &'static str,
    /// What `tests/clients/prepare` calls that which it needs.
    pub(crate) needs: &'static str,
}

pub(crate) const fn client(
    name: &'static str,
    from: &'static str,
    program: &'static str,
    needs: &'static str,
) -> Client {
    Client { name, from, program, needs }
}

const FILE: &str = "password file";

const CLIENTS: [Client; 20] = [
    client("psql", "password file, by `service=`", "psql.sh", ""),
    client("psql, its password from `dbx-rotator token`", "that command at each start", "token.sh", ""),
    client("psycopg", FILE, "with_psycopg.py", "python"),
    client("psycopg_pool", FILE, "with_psycopg_pool.py", "python"),
    client("psycopg2", FILE, "with_psycopg2.py", "python"),
    client("asyncpg", FILE, "with_asyncpg.py", "python"),
    client("asyncpg, a pool", "token file, by a function as password", "with_asyncpg_pool.py", "python"),
    client("pg8000", "token file, read at each connect", "with_pg8000.py", "python"),
    client("SQLAlchemy, psycopg", FILE, "with_sqlalchemy.py", "python"),
    client("SQLAlchemy, pg8000", "token file, by `do_connect`", "with_sqlalchemy_pg8000.py", "python"),
    client("Django", FILE, "with_django.py", "python"),
    client("node-postgres, a pool", "token file, by a function as password", "node-postgres.cjs", "node"),
    client("node-postgres, no password set", FILE, "node-postgres-file.cjs", "node"),
    client("postgres.js", "token file, by a function as password", "postgres-js.cjs", "node"),
    client("pgjdbc", FILE, "Pgjdbc.class", "java"),
    client("HikariCP with pgjdbc", FILE, "Hikari.class", "java"),
    client("psqlODBC", FILE, "odbc.sh", "odbc"),
    client("sqlx, a pool", "password file, by `set_connect_options`", "sqlx", "sqlx"),
    client("pgx, a pool", "token file, by `BeforeConnect`", "pgx", "pgx"),
    client("PgBouncer", "`auth_file`, by `on_rotate`", "pgbouncer.sh", "pgbouncer"),
];

/// Debian's, which `tests/clients/prepare` compiles against.
const JARS: &str = "/usr/share/java/postgresql.jar:/usr/share/java/HikariCP.jar:/usr/share/java/slf4j-api.jar";

const HEAD: &str = "| client | version | password from | tries | refused |\n|---|---|---|---|---|\n";

/// What must be refused, or the rest proves nothing.
pub(crate) const KEEPS_ITS_PASSWORD: Client =
    client("that keeps its password", "token file, read once", "keeps_its_password.py", "python");

fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

pub(crate) fn libraries() -> PathBuf {
    cache::directory().join("clients")
}

impl Client {
    /// Why it cannot be run here.
    pub(crate) fn lacks(&self) -> Option<String> {
        if self.needs.is_empty() {
            return None;
        }
        if !libraries().exists() {
            return Some("tests/clients/prepare has not been run".to_owned());
        }
        fs::read_to_string(libraries().join("lacking").join(self.needs)).ok().map(|why| why.trim().to_owned())
    }

    /// The words that start it.
    pub(crate) fn words(&self) -> Vec<OsString> {
        let mut words = self.program.split(' ');
        let program = words.next().unwrap_or_default();
        let (file, libraries) = (programs().join(program).into_os_string(), libraries());
        match program.rsplit_once('.').map(|(_, ending)| ending) {
            Some("sh") => ["sh".into(), file].into_iter().chain(words.map(OsString::from)).collect(),
            Some("py") => vec![libraries.join("python/bin/python").into(), file],
            Some("cjs") => vec!["node".into(), file],
            Some("class") => {
                let path = format!("{JARS}:{}", libraries.join("java").display());
                let class = self.program.trim_end_matches(".class");
                vec!["java".into(), "-XX:TieredStopAtLevel=1".into(), "-cp".into(), path.into(), class.into()]
            }
            _ if program == "sqlx" => vec![libraries.join("sqlx/debug/dbx-rotator-client-sqlx").into()],
            _ if self.needs == "sqlx" => vec![libraries.join("sqlx/debug").join(program).into()],
            _ => vec![libraries.join(program).into()],
        }
    }
}

/// Where all clients find the server and their passwords.
struct Place<'a> {
    home: &'a Home,
    server: &'a Postgres,
    user: &'a str,
    pgbouncer: &'a Path,
}

impl<'a> Place<'a> {
    /// The connection `orders`, with all that a client may need beside its entry.
    fn configure(&self, workspace: &Workspace) {
        self.home.watch(workspace);
        self.home.write(".config/dbx-rotator/client-secret", workspace.client_secret(), 0o600);
        let hook = programs().join("on_rotate.sh");
        let table = format!(
            "[[workspace]]\nhost = '{}'\nauth = 'oauth-m2m'\nclient_id = '{}'\nclient_secret_file = 'client-secret'\n\
             [[connection]]\nname = 'orders'\nhost = 'localhost'\nport = {}\nsslmode = 'verify-full'\n\
             sslrootcert = '{}'\nservice_file = true\ntoken_file = '{}'\non_rotate = ['sh', '{}', '{}']\n",
            workspace.url(),
            self.user,
            self.server.port(),
            self.server.ca_file().display(),
            self.home.path("token").display(),
            hook.display(),
            self.pgbouncer.display(),
        );
        self.home.write(".config/dbx-rotator/config.toml", table, 0o600);
    }

    fn start(&self, workspace: &Workspace, client: &Client) -> Running<'a> {
        let words = client.words();
        let session: Session<'a> = self.home.command(&words[0]);
        session
            .args(&words[1..])
            .trusting(workspace)
            .env("PGHOST", "localhost")
            .env("PGPORT", self.server.port().to_string())
            .env("PGDATABASE", DATABASE)
            .env("PGUSER", self.user)
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", self.server.ca_file())
            // Some clients know no other home than that of the account.
            .env("PGPASSFILE", self.home.path(".pgpass"))
            .env("PGSERVICEFILE", self.home.path(".pg_service.conf"))
            .env("TOKEN_FILE", self.home.path("token"))
            .env("PSQL", psql_program().unwrap())
            .env("DBX_ROTATOR", env!("CARGO_BIN_EXE_dbx-rotator"))
            .env("CLIENTS", libraries())
            .env("NODE_PATH", libraries().join("node/node_modules"))
            // Nothing is left beside the programs.
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PGBOUNCER_PLACE", self.pgbouncer)
            .spawn()
    }
}

/// What came of one client.
pub(crate) struct Tries {
    pub(crate) version: String,
    pub(crate) made: usize,
    pub(crate) failures: Vec<String>,
    /// The server's processes that it has met.
    sessions: BTreeSet<String>,
}

impl Tries {
    pub(crate) fn of(said: &str) -> Self {
        let after = |start: &str| -> Vec<String> {
            said.lines().filter_map(|line| line.strip_prefix(start)).map(|rest| rest.trim().to_owned()).collect()
        };
        let (met, failures) = (after("ok"), after("failed:"));
        Self {
            version: after("version ").into_iter().next().unwrap_or_default(),
            made: met.len() + failures.len(),
            sessions: met.into_iter().collect(),
            failures,
        }
    }

    /// What is wrong with them, if anything is.
    fn fault(&self, seconds: u64) -> Option<String> {
        if let Some(first) = self.failures.first() {
            return Some(format!("{} of {} tries failed, first: {first}", self.failures.len(), self.made));
        }
        let fewest = usize::try_from(seconds / 10).unwrap();
        (self.sessions.len() < fewest)
            .then(|| format!("no new session at each of {} tries: {:?}", self.made, self.sessions))
    }
}

fn row(client: &Client, tries: &Tries) -> String {
    let Client { name, from, .. } = client;
    let Tries { version, made, failures, .. } = tries;
    format!("| {name} | {version} | {from} | {made} | {} |\n", failures.len())
}

/// Waits until each has made a try, whatever came of it; one that ended has made its last one.
pub(crate) fn await_first_tries(running: &[(&Client, Running<'_>)]) {
    let began = Instant::now();
    let tries = |one: &Running<'_>| Tries::of(&one.stdout()).made;
    while let Some((client, one)) = running.iter().find(|(_, one)| tries(one) == 0 && !one.has_ended()) {
        assert!(began.elapsed() < START, "{} has made no try: {}", client.name, one.stderr());
        std::thread::sleep(PACE);
    }
}

/// What came of them all.
#[derive(Default)]
struct Report {
    table: String,
    faults: String,
    /// How many tries were refused to the one that keeps its first password.
    kept: Option<usize>,
}

impl Report {
    fn of(running: Vec<(&Client, Running<'_>)>, seconds: u64) -> Self {
        let mut report = Self { table: HEAD.to_owned(), ..Self::default() };
        for (client, one) in running {
            let ended = one.has_ended();
            let outcome = one.terminate();
            let tries = Tries::of(&outcome.stdout);
            if client.program == KEEPS_ITS_PASSWORD.program {
                report.kept = Some(tries.failures.len());
                continue;
            }
            report.table += &row(client, &tries);
            let fault = if ended { Some(format!("it ended: {}", outcome.stderr)) } else { tries.fault(seconds) };
            if let Some(fault) = fault {
                writeln!(report.faults, "{}: {fault}", client.name).unwrap();
            }
        }
        report
    }
}

#[test]
#[ignore = "a minute and more: tests/run clients"]
fn no_client_is_refused_in_three_lives_of_a_token() {
    const TEST: &str = "no_client_is_refused_in_three_lives_of_a_token";
    let seconds = std::env::var("DBX_ROTATOR_CLIENTS_SECONDS");
    let seconds = seconds.map_or(LONG.as_secs(), |seconds| seconds.parse().unwrap());
    let workspace = Workspace::builder().token_life(LIFE).start();
    let (home, user, pgbouncer) = (Home::new(), workspace.client_id(), scratch_directory(0o700));
    let server = match Postgres::start(&workspace, &[user]) {
        Ok(server) => server,
        Err(reason) => return skip(TEST, &reason),
    };
    let place = Place { home: &home, server: &server, user, pgbouncer: pgbouncer.path() };
    place.configure(&workspace);
    let rotator = dbx_rotator!(&home).trusting(&workspace).args(["run"]).spawn();
    rotator.says("Token rotation completed successfully", Duration::from_secs(20));

    let mut running = Vec::new();
    for client in CLIENTS.iter().chain([&KEEPS_ITS_PASSWORD]) {
        match client.lacks() {
            Some(reason) => skip(&format!("client {}", client.name), &reason),
            None => running.push((client, place.start(&workspace, client))),
        }
    }
    let began = Instant::now();
    await_first_tries(&running);
    eprintln!("all have begun after {} s", began.elapsed().as_secs());
    std::thread::sleep(Duration::from_secs(seconds));
    let tokens = workspace.tokens_issued();
    let report = Report::of(running, seconds);
    rotator.terminate().exits(0);

    eprintln!("\n{}\n{seconds} s, in which {tokens} tokens of {} s were issued", report.table, LIFE.as_secs());
    assert!(report.faults.is_empty(), "\n{}", report.faults);
    assert!(tokens as u64 > seconds / LIFE.as_secs(), "a token is renewed at half of its life");
    let refused = server.logins().iter().filter(|login| !login.accepted()).count();
    let kept = report.kept.unwrap_or_default();
    eprintln!("{refused} logins refused, {kept} of them to one that keeps its first password, as it should be");
    assert!(refused <= kept + 1, "somebody was refused, and tried again in silence");
    assert!(report.kept.is_none() || kept > 0 || seconds < 2 * LIFE.as_secs(), "a dead password must be refused");
}

#[test]
fn the_document_has_each_client_and_shows_what_its_program_does() {
    let document = include_str!("../../docs/clients.md");
    for client in &CLIENTS {
        assert!(document.contains(&format!("\n| {} | ", client.name)), "no row for {}", client.name);
    }
    let mut shown = 0;
    for block in document.split("\n```").skip(1).step_by(2) {
        let (head, text) = block.split_once('\n').unwrap();
        let Some((_, path)) = head.split_once(' ') else { continue };
        let program = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        let is_there = |line: &str| program.lines().any(|other| other.trim() == line.trim());
        assert!(text.lines().all(is_there), "{path} does not do what docs/clients.md shows:\n{text}");
        shown += 1;
    }
    assert!(shown > 5, "only {shown} snippets name their program");
}
