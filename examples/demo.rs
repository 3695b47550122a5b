//! The main job in half a minute, without an account: a stand-in workspace hands out tokens that live 10 seconds, and
//! dbx-rotator keeps the password file fresh. Where a PostgreSQL server is installed, it checks them.
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
use std::time::{Duration, Instant};

use dbx_rotator::Rotator;
use postgres::Postgres;
use workspace::Workspace;

/// How long each token lives.
const LIFE: Duration = Duration::from_secs(10);

/// How many rotations are shown.
const ROTATIONS: usize = 3;

/// What stands in the password file already, and must stand there afterwards to the byte.
const FOREIGN: &str = "# my other databases\nother.example:5432:*:ada:kept\n";

fn main() {
    let workspace = Workspace::builder().token_life(LIFE).start();
    let scratch = workspace::scratch_directory(0o700);
    let file = scratch.path().join("pgpass");
    fs::write(&file, FOREIGN).expect("write the scratch password file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set its mode");
    let user = workspace.client_id().to_owned();
    let server = Postgres::start(&workspace, &[&user]);

    println!("A stand-in workspace serves {} with tokens that live {} s.", workspace.url(), LIFE.as_secs());
    match &server {
        Ok(server) => {
            println!("A real PostgreSQL on port {} takes them as passwords, and nothing else.", server.port())
        }
        Err(reason) => println!("No login is shown here: {reason}."),
    }
    println!("\nThe password file before:\n{}", shown(&file));

    let rotator = rotator(scratch.path(), &file, &workspace, server.as_ref().map_or(5432, Postgres::port));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let entries = runtime.block_on(rotate_and_watch(&rotator, &file));
    println!("\nThe password file now:\n{}", shown(&file));

    let mut login = "";
    if let Ok(server) = &server {
        log_in(server, &file, &user).expect("the fresh password logs in");
        login = ", and psql logged in to a real PostgreSQL with the last";
        let stale = scratch.path().join("pgpass-of-the-first-rotation");
        fs::write(&stale, entries.first().expect("a first entry")).expect("keep the first entry");
        fs::set_permissions(&stale, fs::Permissions::from_mode(0o600)).expect("set its mode");
        let refused = log_in(server, &stale, &user).expect_err("the first password is dead by now");
        println!("Without dbx-rotator psql would hear by now: {refused}");
    } else {
        println!("Without dbx-rotator the password would be dead by now: it lived {} s.", LIFE.as_secs());
    }

    let text = fs::read_to_string(&file).expect("read the password file");
    assert!(text.ends_with(FOREIGN), "foreign lines are as they were");
    println!("\nProven: {ROTATIONS} passwords in a row, each before the last one died{login}; no other line changed.");
}

/// Runs the rotator as a service does, and looks at the file until it has changed three times and the first token has died;
/// returns the entries that it saw.
async fn rotate_and_watch(rotator: &Rotator, file: &Path) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let started = Instant::now();
    let watching = async {
        while all.len() < ROTATIONS {
            assert!(started.elapsed() < LIFE * 5, "the rotations did not come");
            let entry = ours(file);
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

fn rotator(scratch: &Path, file: &Path, workspace: &Workspace, port: u16) -> Rotator {
    let config = scratch.join("config.toml");
    let authority: PathBuf = workspace.ca_file();
    fs::write(&config, format!("[[workspace]]\nca_file = {:?}\n", authority.display().to_string()))
        .expect("write config.toml");
    Rotator::builder()
        .without_environment()
        .config(config)
        .state_directory(scratch.join("state"))
        .workspace_url(workspace.url())
        .client_id(workspace.client_id())
        .client_secret(workspace.client_secret())
        .pg_host("127.0.0.1")
        .pg_port(port)
        .pgpass_file(file)
        .build()
        .expect("a complete configuration")
}

fn log_in(server: &Postgres, file: &Path, user: &str) -> Result<(), String> {
    let output = server.psql(file, user, "select 'logged in as ' || current_user");
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
    println!("psql: {}", String::from_utf8_lossy(&output.stdout).trim());
    Ok(())
}

/// The entry that dbx-rotator keeps, by its host.
fn ours(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find(|line| line.starts_with("127.0.0.1:")).map(|line| format!("{line}\n"))
}

/// The file with its tokens cut short: a demonstration shows no password either.
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
