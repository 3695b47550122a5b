//! The main job in half a minute, without an account. A stand-in workspace mints credentials that live for 10 seconds.
//! dbx-rotator knows only the name of the Lakebase instance, and keeps the password file fresh. If a PostgreSQL server is
//! installed, `psql service=orders` logs in to it with these credentials.
//!
//! Everything happens in a scratch directory; nothing is left behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a demonstration talks to a person and stops where it fails"
)]

#[path = "../tests/support/postgres.rs"]
mod postgres;
#[path = "../tests/support/workspace.rs"]
mod workspace;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use dbx_rotator::Rotator;
use postgres::Postgres;
use workspace::{Instance, Workspace};

/// The name of the instance, and so of the service.
const INSTANCE: &str = "orders";

/// How long each credential lives.
const LIFE: Duration = Duration::from_secs(10);

/// How many rotations are shown.
const ROTATIONS: usize = 3;

/// What is already in the password file, and must not change.
const FOREIGN: &str = "# my other databases\nother.example:5432:*:ada:kept\n";

fn main() {
    let workspace = Workspace::start();
    workspace.add_instance(Instance::named(INSTANCE));
    workspace.set_credential_life(LIFE);
    let host = workspace.instance(INSTANCE).host.expect("its host");
    let scratch = workspace::scratch_directory(0o700);
    let file = scratch.path().join("pgpass");
    fs::write(&file, FOREIGN).expect("write the scratch password file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set its mode");
    let user = workspace.client_id().to_owned();
    let server = Postgres::builder(&workspace, &[&user]).at_5432().known_as(&host).start();

    println!("A stand-in workspace at {} mints credentials that live {} s.", workspace.url(), LIFE.as_secs());
    println!("Of its instance {INSTANCE} dbx-rotator is told the name: host and user it finds by itself.");
    match &server {
        Ok(server) => {
            println!(
                "A real PostgreSQL, at {} for this demo, takes them as passwords, and nothing else.",
                server.address()
            )
        }
        Err(reason) => println!("No login is shown here: {reason}."),
    }
    println!("\nThe password file before:\n{}", shown(&file));

    let rotator = rotator(scratch.path(), &file, &workspace);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let entries = runtime.block_on(rotate_and_watch(&rotator, &file, &host));
    println!("\nThe password file now:\n{}", shown(&file));

    let mut login = "";
    if let Ok(server) = &server {
        let services = services(scratch.path());
        log_in(server, &services, None).expect("the fresh password logs in");
        login = ", and psql logged in to a real PostgreSQL with the last";
        let first = entries.first().and_then(|entry| entry.trim_end().rsplit(':').next()).expect("a first password");
        let refused = log_in(server, &services, Some(first)).expect_err("the first password is dead by now");
        println!("Without dbx-rotator it would hear by now: {refused}");
    } else {
        println!("Without dbx-rotator the password would be dead by now: it lived {} s.", LIFE.as_secs());
    }

    let text = fs::read_to_string(&file).expect("read the password file");
    assert!(text.ends_with(FOREIGN), "foreign lines are as they were");
    println!("\nProven: {ROTATIONS} passwords in a row, each before the last one died{login}; no other line changed.");
}

/// Runs the rotator as a service does. Watches the file until it has changed three times and the first token has expired;
/// returns the entries that it saw.
async fn rotate_and_watch(rotator: &Rotator, file: &Path, host: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let started = Instant::now();
    let watching = async {
        while all.len() < ROTATIONS {
            assert!(started.elapsed() < LIFE * 5, "the rotations did not come");
            let entry = ours(file, host);
            if entry.is_some() && entry.as_ref() != all.last() {
                let shown = entry.as_deref().map(short).unwrap_or_default();
                println!("{:4.1} s  published  {shown}", started.elapsed().as_secs_f32());
                all.extend(entry);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep((LIFE + Duration::from_secs(1)).saturating_sub(started.elapsed())).await;
    };
    rotator.run(watching).await;
    all
}

fn services(scratch: &Path) -> PathBuf {
    scratch.join("pg_service.conf")
}

fn rotator(scratch: &Path, file: &Path, workspace: &Workspace) -> Rotator {
    let config = scratch.join("config.toml");
    let authority = workspace.ca_file().display().to_string();
    let text = format!("[[workspace]]\nca_file = '{authority}'\n\n[[connection]]\ninstance = '{INSTANCE}'\n");
    fs::write(&config, text).expect("write config.toml");
    Rotator::builder()
        .without_environment()
        .config(config)
        .state_directory(scratch.join("state"))
        .workspace_url(workspace.url())
        .client_id(workspace.client_id())
        .client_secret(workspace.client_secret())
        .pgpass_file(file)
        .service_file(services(scratch))
        .build()
        .expect("a complete configuration")
}

/// `psql service=orders`, with the instance's host resolved to this demo's server. Uses the published password, or the given one.
fn log_in(server: &Postgres, services: &Path, password: Option<&str>) -> Result<(), String> {
    let output = Command::new(postgres::psql_program().expect("the server's own psql"))
        .args([&format!("service={INSTANCE}"), "-w", "-Atc", "select 'logged in as ' || current_user"])
        .env("PGSERVICEFILE", services)
        .envs(password.map(|password| ("PGPASSWORD", password)))
        .env("PGHOSTADDR", server.address().to_string())
        .output()
        .expect("run psql");
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(said
            .lines()
            .next()
            .unwrap_or_default()
            .rsplit("FATAL:")
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned());
    }
    println!("psql service={INSTANCE}: {}", String::from_utf8_lossy(&output.stdout).trim());
    Ok(())
}

/// dbx-rotator's entry, found by its host.
fn ours(file: &Path, host: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find(|line| line.starts_with(host)).map(|line| format!("{line}\n"))
}

/// The file with its tokens shortened: even a demonstration shows no password.
fn shown(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("read the password file");
    text.lines().map(|line| format!("    {}\n", short(line))).collect()
}

fn short(line: &str) -> String {
    match line.trim_end().rsplit_once(":eyJ") {
        Some((key, token)) => format!("{key}:eyJ...{}", &token[token.len().saturating_sub(6)..]),
        None => line.trim_end().to_owned(),
    }
}
