//! Measures the commands as whole processes of the release binary: `cargo bench --bench commands [-- FILTER]`. It is what `cargo build
//! --release` makes; `DBX_ROTATOR_PROGRAM=FILE` names another one, such as that of `dist/build`, which is smaller.
//!
//! Each is timed in turn with `curl` making the same POST over TLS to the same stand-in workspace, so that other load on
//! the machine affects both. The table on standard output is Markdown, for docs/benchmarks.md. It shows missed limits; a command
//! that does the wrong thing (two token requests when one was due) stops the benchmark.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints its table, and a broken one should stop loudly"
)]

#[path = "commands/federation.rs"]
mod federation;
#[path = "commands/measure.rs"]
mod measure;
#[path = "commands/service.rs"]
mod service;
#[path = "commands/table.rs"]
mod table;
#[path = "../tests/support/workspace.rs"]
mod workspace;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use measure::{Home, Samples, Trial, in_turn, peaks};
use table::{Limit, MIB, Row, Verdict, machine, milliseconds};
use workspace::Workspace;

/// More than 20, so that the 95th percentile is not the worst.
const ROUNDS: usize = 40;
/// For slow commands.
const FEW_ROUNDS: usize = 20;
/// Few, since peak memory hardly varies.
const PEAK_ROUNDS: usize = 5;

/// What must hold.
const ROTATE_TO_CURL: f64 = 0.8;
const ROTATE_PEAK: u64 = 10 * MIB;
const NOT_DUE_WALL: Duration = Duration::from_millis(3);
const NOT_DUE_PEAK: u64 = 5 * MIB;
const STATUS_WALL: Duration = Duration::from_millis(3);
/// MB as on a download page.
const BINARY_SIZE: u64 = 4_600_000;
const MANY_WALL: Duration = Duration::from_secs(1);
const MANY_PEAK: u64 = 15 * MIB;

const MANY_CONNECTIONS: usize = 1_000;
const MANY_IDENTITIES: usize = 10;
const CROWD: usize = 100;

/// Where distributions keep their trusted authorities in one file.
const SYSTEM_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// A group of rows, with the name that a filter selects.
type Section = (&'static str, fn() -> Vec<Row>);

const SECTIONS: [Section; 8] = [
    ("rotate", rotate),
    ("federation", federation::federation),
    ("ready", service::ready),
    ("run", service::idle),
    ("growth", service::growth),
    ("binary", binary_size),
    ("connections", many_connections),
    ("at-once", all_at_once),
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let asks_for = |word: &str| words.iter().any(|given| given == word);
    // `cargo test --benches` runs this too, without `--bench` and with a debug build; criterion's listing has nothing here.
    if !asks_for("--bench") || asks_for("--list") || asks_for("--test") {
        return;
    }
    let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    let sections: Vec<&Section> = SECTIONS.iter().filter(|(name, _)| wanted(name)).collect();
    if sections.is_empty() {
        return;
    }
    program();
    let load = machine::load();
    let rows: Vec<Row> = sections.into_iter().flat_map(|(_, measure)| measure()).collect();
    print!("{}", table::markdown(&rows));
    println!("\n{}", machine::description(&load));
}

/// The binary as `cargo build --release` makes it, unless another one is named. The one that cargo builds for a benchmark also
/// has the features that tests need of shared dependencies (tokio's other scheduler, and with it libm): over a percent
/// of size, and 0.4 MiB at run time.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(named) = std::env::var_os("DBX_ROTATOR_PROGRAM") {
            return PathBuf::from(named);
        }
        eprintln!("building the release binary ...");
        let built_for_us = Path::new(env!("CARGO_BIN_EXE_dbx-rotator"));
        let target = built_for_us.ancestors().nth(2).expect("target/PROFILE/dbx-rotator");
        let build = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--release", "--bin", "dbx-rotator", "--manifest-path"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
            .arg("--target-dir")
            .arg(target)
            .status();
        assert!(build.expect("run cargo").success(), "the release binary cannot be built");
        target.join("release/dbx-rotator")
    })
}

/// Runs with one connection of the workspace's own service principal, given by the three documented variables and its
/// client.
fn dbx_rotator(home: &Home, workspace: &Workspace, arguments: &[&str]) -> Trial {
    home.trial(program(), arguments)
        .env("DATABRICKS_HOST", workspace.url())
        .env("DATABRICKS_PG_HOST", "instance-0.database.cloud.databricks.com")
        .env("DATABRICKS_PG_USERNAME", workspace.client_id())
        .env("DATABRICKS_CLIENT_ID", workspace.client_id())
        .env("DATABRICKS_CLIENT_SECRET", workspace.client_secret())
        .env("SSL_CERT_FILE", workspace.ca_file())
}

/// The POST that a rotation makes; none without curl.
fn curl(home: &Home, workspace: &Workspace, authorities: &Path) -> Option<Trial> {
    let program = measure::installed("curl")?;
    let user = format!("{}:{}", workspace.client_id(), workspace.client_secret());
    let trial = home.trial(program, &["-q", "--silent", "--show-error", "--fail", "--output", "answer.json"]);
    let data = "grant_type=client_credentials&scope=all-apis";
    Some(
        trial
            .arg("--cacert")
            .arg(authorities)
            .args(["--user", user.as_str(), "--data", data])
            .arg(workspace.token_url()),
    )
}

/// A file with all of the system's authorities and the stand-in's, and their number.
fn system_authorities(home: &Home, workspace: &Workspace) -> Option<(PathBuf, usize)> {
    let bundle = SYSTEM_BUNDLES.iter().find_map(|path| fs::read_to_string(path).ok())?;
    let all = bundle + &fs::read_to_string(workspace.ca_file()).expect("the stand-in's authority");
    let count = all.matches("BEGIN CERTIFICATE").count();
    Some((home.write("authorities.pem", &all), count))
}

/// As behind a company's proxy: one authority besides the platform's own store.
fn trust_beside_the_platforms_own(home: &Home, workspace: &Workspace) {
    let text = format!("[[workspace]]\nca_file = {:?}\n", workspace.ca_file());
    home.write(".config/dbx-rotator/config.toml", &text);
}

/// `rotate` compared with `curl`, and `rotate --if-due` with nothing due.
fn rotate() -> Vec<Row> {
    eprintln!("timing rotate, in turn with curl ...");
    let workspace = Workspace::start();
    let (home, others) = (Home::new(), Home::new());
    let authority = workspace.ca_file();
    let bundle = system_authorities(&others, &workspace);

    let rotate = dbx_rotator(&home, &workspace, &["rotate"]);
    let not_due = dbx_rotator(&home, &workspace, &["rotate", "--if-due"]);
    let status = dbx_rotator(&home, &workspace, &["status"]);
    let curl_one = curl(&others, &workspace, &authority);
    let nothing = measure::installed("true").map(|program| others.trial(program, &[]));
    let curl_many = bundle.as_ref().and_then(|(file, _)| curl(&others, &workspace, file));
    let platform = Home::new();
    trust_beside_the_platforms_own(&platform, &workspace);
    let rotate_many =
        bundle.as_ref().map(|_| dbx_rotator(&platform, &workspace, &["rotate"]).without_env("SSL_CERT_FILE"));

    let trials = [
        nothing.as_ref(),
        curl_one.as_ref(),
        Some(&rotate),
        Some(&not_due),
        Some(&status),
        curl_many.as_ref(),
        rotate_many.as_ref(),
    ];
    let samples = in_turn(&trials, ROUNDS);
    let peaks = peaks(&trials, PEAK_ROUNDS);
    let proof = no_tls(&not_due, &workspace);

    let count = bundle.map_or(0, |(_, count)| count);
    let names = [
        "a process that does nothing (`true`)".to_owned(),
        "`curl`: the POST alone".to_owned(),
        "`rotate`: discovery, the POST, the file synced to disk".to_owned(),
        format!("`rotate --if-due`, nothing due ({proof})"),
        "`status`, where there is no service manager to be asked".to_owned(),
        format!("`curl`, trusting the system's {count} authorities"),
        format!("`rotate`, trusting the system's {count} authorities"),
    ];
    let to_curl = |curl: &Option<Samples>| curl.as_ref().map(|curl| curl.median().mul_f64(ROTATE_TO_CURL));
    let limits = [
        None,
        None,
        Some(Limit { wall: to_curl(&samples[1]), peak: Some(ROTATE_PEAK) }),
        Some(Limit { wall: Some(NOT_DUE_WALL), peak: Some(NOT_DUE_PEAK) }),
        Some(Limit { wall: Some(STATUS_WALL), peak: None }),
        None,
        Some(Limit { wall: to_curl(&samples[5]), peak: Some(ROTATE_PEAK) }),
    ];
    let mut rows: Vec<Row> = names
        .into_iter()
        .zip(samples)
        .zip(peaks.into_iter().zip(limits))
        .filter_map(|((what, samples), (peak, limit))| Some(Row::timed(what, &samples?, peak, limit)))
        .collect();
    if curl_one.is_none() {
        rows.push(Row::remark("`curl` is not installed: nothing to compare with"));
    }
    rows
}

/// Proves that a command with nothing to do does not use network and TLS; says how far that could be observed.
fn no_tls(not_due: &Trial, workspace: &Workspace) -> &'static str {
    let connections = workspace.connections();
    let calls = not_due.system_calls("%network,openat,open,clone,clone3");
    if calls.is_none() {
        not_due.time();
    }
    assert_eq!(workspace.connections(), connections, "nothing was due, and yet it connected");
    let Some(calls) = calls else { return "no connection; files not checked, for want of strace" };
    let authority = workspace.ca_file().display().to_string();
    for (sign, what) in
        [(authority.as_str(), "it read authorities"), ("socket(", "it made a socket"), ("clone", "it made a thread")]
    {
        assert!(!calls.contains(sign), "nothing was due, and yet {what}:\n{calls}");
    }
    "no socket, no thread, no authorities read"
}

fn binary_size() -> Vec<Row> {
    let size = fs::metadata(program()).expect("the binary").len();
    let megabytes = |bytes: u64| format!("{}.{:02} MB", bytes / 1_000_000, bytes % 1_000_000 / 10_000);
    vec![Row {
        what: format!("the binary: {}", megabytes(size)),
        wall: None,
        spread: None,
        memory: None,
        limit: Some(megabytes(BINARY_SIZE)),
        met: Verdict::of(size <= BINARY_SIZE),
    }]
}

/// Many connections with few identities: one token request for each identity, and a write for those whose tokens come within
/// some milliseconds.
fn many_connections() -> Vec<Row> {
    eprintln!("rotating {MANY_CONNECTIONS} connections ...");
    let (workspace, home) = (Workspace::start(), Home::new());
    configure_many(&home, &workspace, MANY_CONNECTIONS, MANY_IDENTITIES);

    let rotate = home.trial(program(), &["rotate"]).env("SSL_CERT_FILE", workspace.ca_file());
    let mut versions = BTreeSet::new();
    let mut writes = 0;
    let mut time = || {
        let asked = workspace.token_requests();
        let took = rotate.time();
        assert_eq!(workspace.token_requests() - asked, MANY_IDENTITIES, "a token request for each identity");
        let now = rotate.said().matches("Successfully updated").count();
        assert!((1..=MANY_IDENTITIES).contains(&now), "{now} writes: {}", rotate.said());
        writes = writes.max(now);
        let published = fs::read_to_string(home.path(".pgpass")).expect("the password file");
        assert_eq!(published.lines().count(), MANY_CONNECTIONS);
        assert!(versions.insert(published), "a rotation changed nothing");
        took
    };
    time();
    let samples = Samples::new((0..FEW_ROUNDS).map(|_| time()).collect());
    let peak = peaks(&[Some(&rotate)], PEAK_ROUNDS)[0];
    let what = format!(
        "`rotate`, {MANY_CONNECTIONS} connections of {MANY_IDENTITIES} identities: {MANY_IDENTITIES} token requests, {writes} writes at most"
    );
    vec![Row::timed(what, &samples, peak, Some(Limit { wall: Some(MANY_WALL), peak: Some(MANY_PEAK) }))]
}

/// Settings for many connections of some identities.
fn configure_many(home: &Home, workspace: &Workspace, connections: usize, identities: usize) {
    let mut text = String::new();
    for identity in 0..identities {
        let (id, secret) = (client_id(identity), format!("stand-in-secret-{identity}"));
        workspace.set_client(&id, &secret);
        let file = home.write(&format!("secret-{identity}"), &secret);
        text += &format!(
            "[[workspace]]\nname = \"w{identity}\"\nhost = \"{}\"\nauth = \"oauth-m2m\"\nclient_id = \"{id}\"\n\
             client_secret_file = \"{}\"\n\n",
            workspace.url(),
            file.display()
        );
    }
    for connection in 0..connections {
        let identity = connection % identities;
        text += &format!(
            "[[connection]]\nname = \"c{connection}\"\nworkspace = \"w{identity}\"\nuser = \"{}\"\n\
             host = \"instance-{connection}.database.cloud.databricks.com\"\n\n",
            client_id(identity)
        );
    }
    home.write(".config/dbx-rotator/config.toml", &text);
}

fn client_id(identity: usize) -> String {
    format!("{identity:08x}-0000-4000-8000-00000000cafe")
}

/// Many timers with a missing entry: one requests a token, the others wait for it and find nothing due.
fn all_at_once() -> Vec<Row> {
    eprintln!("starting {CROWD} at once, {FEW_ROUNDS} times ...");
    let workspace = Workspace::start();
    let time = || {
        let home = Home::new();
        let asked = workspace.token_requests();
        // Each has its own output file, so that they do not overwrite each other's messages.
        let crowd: Vec<Trial> = (0..CROWD)
            .map(|number| {
                dbx_rotator(&home, &workspace, &["rotate", "--if-due"]).saying_into(&format!("said-{number}"))
            })
            .collect();
        let began = Instant::now();
        let children: Vec<_> = crowd.iter().map(Trial::spawn).collect();
        for (trial, mut child) in crowd.iter().zip(children) {
            let status = child.wait().expect("wait for its end");
            assert!(status.success(), "{status}: {}", trial.said());
        }
        let took = began.elapsed();
        assert_eq!(workspace.token_requests() - asked, 1, "{CROWD} at once: one token request");
        took
    };
    time();
    let samples = Samples::new((0..FEW_ROUNDS).map(|_| time()).collect());
    vec![Row {
        what: format!("`rotate --if-due`, {CROWD} at once on a missing entry: all exit 0, one token request"),
        wall: Some(milliseconds(samples.median())),
        spread: Some(milliseconds(samples.quantile(0.95))),
        memory: None,
        limit: Some("all succeed, one token request".to_owned()),
        met: Verdict::of(true),
    }]
}

/// The first line of a program's version output.
fn version_of(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.to_owned())
}
