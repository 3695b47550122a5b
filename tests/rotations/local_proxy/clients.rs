//! Real clients that keep what they were given, side by side through one proxy, over six lives of a token while every third request
//! for one fails: `tests/run proxy`. No login and no query may fail.

use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Stage, free_port};
use crate::clients::{Client, KEEPS_ITS_PASSWORD, Tries, await_first_tries, client, libraries};
use crate::support::postgres::{DATABASE, psql_program};
use crate::support::workspace::{Endpoint, Fault};
use crate::support::{Running, Workspace, skip};

const LIFE: Duration = Duration::from_secs(20);

/// How long they go on, unless `DBX_ROTATOR_PROXY_SECONDS` says otherwise.
const LONG: Duration = Duration::from_secs(120);

/// Who takes longer for a try is stuck.
const SLOWEST: u64 = 40;

/// What is dumped and copied: 200 MB.
const BIG: &str = "create table big as select i as id, repeat(md5(i::text), 32) as line from generate_series(1, 200000) i;\n\
                   create index on big (id);\n\
                   grant select on big to public;\ngrant temporary on database databricks_postgres to public;\n";

const UNIX: &str = "Unix socket";
const TCP: &str = "port";

/// Where each goes: here `from` is the way to the proxy.
const CLIENTS: [Client; 18] = [
    client("psql, anew each time", "`service=orders-proxy`", "psql.sh", ""),
    client("psql at its prompt: reset and `\\c` after 25 s", UNIX, "psql_prompt.py", "python"),
    client("pgbench -C", UNIX, "pgbench.sh -C -c 2 -R 8 -T 5", ""),
    client("pgbench -c 20, for longer than a life", UNIX, "pgbench.sh -c 20 -R 40 -T 25", ""),
    client("pg_dump of 200 MB", UNIX, "pg_dump.sh", ""),
    client("COPY out and in", UNIX, "copy.sh", ""),
    client("LISTEN and NOTIFY", UNIX, "listens.py", "python"),
    client("a long query of two is canceled", UNIX, "cancels.py", "python"),
    client("psycopg_pool", UNIX, "with_psycopg_pool.py", "python"),
    client("asyncpg, a pool", UNIX, "with_asyncpg_pool.py", "python"),
    client("SQLAlchemy, psycopg", UNIX, "with_sqlalchemy.py", "python"),
    client("node-postgres, a pool", UNIX, "node-postgres.cjs", "node"),
    client("pgjdbc, its password empty", TCP, "PgjdbcProxied.class", "java"),
    client("HikariCP with pgjdbc, its password kept", TCP, "HikariProxied.class", "java"),
    client("psqlODBC, its password kept", TCP, "odbc_proxied.sh", "odbc"),
    client("sqlx, a pool, its password kept", UNIX, "pool-that-keeps", "sqlx"),
    client("tokio-postgres", UNIX, "tokio-postgres", "sqlx"),
    client("pgx, a pool, its password kept", UNIX, "pgx", "pgx"),
];

const HEAD: &str = "| client | version | by | tries | failed |\n|---|---|---|---|---|\n";

/// A proxied client with any user and a password that was never good.
fn start<'a>(stage: &'a Stage, client: &Client, port: u16) -> Running<'a> {
    let words = client.words();
    let psql = psql_program().unwrap();
    let session = stage.home.command(&words[0]).args(&words[1..]);
    let session = session
        .env("PGHOST", stage.directory())
        .env("PGPORT", "5432")
        .env("PGDATABASE", "orders")
        .env("PGUSER", "anybody")
        .env("PGPASSWORD", "kept")
        .env("PGPASSFILE", "/nonexistent")
        .env("PGSERVICEFILE", stage.home.path(".pg_service.conf"))
        .env("SERVICE", "orders-proxy")
        .env("PROXY_PORT", port.to_string())
        .env("PROGRAMS", psql.parent().unwrap())
        .env("PSQL", psql)
        .env("CLIENTS", libraries())
        .env("NODE_PATH", libraries().join("node/node_modules"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    // For those that read it at each connect; pgx is then given no function, and keeps its password.
    let session = if client.needs == "pgx" { session } else { session.env("TOKEN_FILE", stage.home.path("kept")) };
    session.spawn()
}

/// One that goes past the proxy, with the password that it has read once.
fn start_directly(stage: &Stage) -> Running<'_> {
    let words = KEEPS_ITS_PASSWORD.words();
    let session = stage.home.command(&words[0]).args(&words[1..]).env("PYTHONDONTWRITEBYTECODE", "1");
    session
        .env("PGHOST", "localhost")
        .env("PGPORT", stage.server.port().to_string())
        .env("PGDATABASE", DATABASE)
        .env("PGUSER", stage.workspace.client_id())
        .env("PGSSLMODE", "verify-full")
        .env("PGSSLROOTCERT", stage.server.ca_file())
        .env("TOKEN_FILE", stage.home.path("token"))
        .spawn()
}

/// Which of them are asked for: all, or those whose names have this in it.
fn chosen() -> impl Iterator<Item = &'static Client> {
    let only = std::env::var("DBX_ROTATOR_PROXY_ONLY").unwrap_or_default();
    CLIENTS.iter().filter(move |client| client.name.contains(&only))
}

/// The table of what came of them, and what was wrong.
fn report(running: Vec<(&Client, Running<'_>)>, seconds: u64) -> (String, String) {
    let (mut table, mut faults) = (HEAD.to_owned(), String::new());
    for (client, one) in running {
        let ended = one.has_ended();
        let outcome = one.terminate();
        let Tries { version, made, failures, .. } = Tries::of(&outcome.stdout);
        let (name, by) = (client.name, client.from);
        writeln!(table, "| {name} | {version} | {by} | {made} | {} |", failures.len()).unwrap();
        let fault = match failures.first() {
            Some(first) => format!("{} of {made} tries failed, first: {first}", failures.len()),
            None if ended => format!("it ended: {}", outcome.stderr),
            None if (made as u64) < seconds / SLOWEST => format!("only {made} tries: {}", outcome.stderr),
            None => continue,
        };
        writeln!(faults, "{name}: {fault}").unwrap();
    }
    (table, faults)
}

#[test]
#[ignore = "two minutes and more: tests/run proxy"]
fn no_client_fails_through_the_proxy_over_six_lives_of_a_token() {
    const TEST: &str = "no_client_fails_through_the_proxy_over_six_lives_of_a_token";
    let seconds = std::env::var("DBX_ROTATOR_PROXY_SECONDS");
    let seconds = seconds.map_or(LONG.as_secs(), |seconds| seconds.parse().unwrap());
    let port = free_port();
    let more = format!("proxy_port = {port}\ntoken_file = '~/token'");
    let Some(stage) = Stage::new(TEST, Workspace::builder().token_life(LIFE).start(), "", &more) else { return };
    stage.server.set_up(&format!("\\c {DATABASE}\n{BIG}"));
    stage.home.write("kept", "kept", 0o600);
    stage.rotate();
    stage.workspace.faults_on(Endpoint::Token).every(3, vec![Fault::Status(503)]);
    let proxy = stage.start();

    let mut running = Vec::new();
    for client in chosen() {
        match client.lacks() {
            Some(reason) => skip(&format!("client {}", client.name), &reason),
            None => running.push((client, start(&stage, client, port))),
        }
    }
    let keeps = KEEPS_ITS_PASSWORD.lacks().is_none().then(|| start_directly(&stage));
    let (began, issued) = (Instant::now(), stage.workspace.tokens_issued());
    await_first_tries(&running);
    eprintln!("all have begun after {} s", began.elapsed().as_secs());
    std::thread::sleep(Duration::from_secs(seconds).saturating_sub(began.elapsed()));
    let tokens = stage.workspace.tokens_issued() - issued;
    // Before the others end, so that nobody else's logins are counted.
    let kept = keeps.map(|keeps| Tries::of(&keeps.terminate().stdout));
    let logins = stage.server.logins();
    let (table, faults) = report(running, seconds);
    let said = proxy.terminate();

    let (took, life) = (began.elapsed().as_secs(), LIFE.as_secs());
    eprintln!("\n{table}\n{took} s, {tokens} tokens of {life} s, {} logins at the server", logins.len());
    if let Some(kept) = &kept {
        let (made, failed) = (kept.made, kept.failures.len());
        let refused = logins.iter().filter(|login| !login.accepted()).count();
        eprintln!("past the proxy, with a password that was read once: {made} tries, {failed} failed, as they should");
        eprintln!("{} logins of the proxy were refused, and made with another token", refused.saturating_sub(failed));
        assert!(failed > 0 || seconds < 2 * LIFE.as_secs(), "a dead password must be refused");
    }
    assert!(faults.is_empty(), "\n{faults}\n{}", said.stderr);
    assert!(tokens as u64 > seconds / LIFE.as_secs(), "a token is renewed at half of its life");
    said.exits(0).stderr_lacks("got no session");
}

#[test]
fn each_proxied_client_has_a_program_and_a_row_in_the_document() {
    let document = include_str!("../../../docs/clients.md");
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    for client in &CLIENTS {
        let file = client.program.split(' ').next().unwrap();
        let source = match file.split_once('.') {
            Some((class, "class")) => format!("{class}.java"),
            Some(_) => file.to_owned(),
            None if client.needs == "sqlx" => format!("sqlx/src/bin/{file}.rs"),
            None => format!("{file}.go"),
        };
        assert!(programs.join(&source).exists(), "{source}");
        assert!(document.contains(&format!("\n| {} | ", client.name)), "no row for {}", client.name);
    }
}
