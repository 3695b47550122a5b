//! What the released program weighs and holds: its size, and its memory where it is all day long.
//!
//! How much of a program's text counts as its own is up to the kernel, which maps more of a file than was asked for; so what is
//! measured is the middle one of several runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::built::packages_or_skip;
use super::{printed, with_ending};
use crate::support::{Home, Running, Session, Workspace, skip};

const KIB: u64 = 1_024;

/// What is aimed at, and has been reached.
const LARGEST_PROGRAM: u64 = 4_650_000;
const NOTHING_DUE: u64 = 5_000 * KIB;
const IDLE: u64 = 6_144 * KIB;
const IDLE_WITH_MANY: u64 = 9_000 * KIB;

/// So many connections of as many identities, and so many rotations of all together.
const MANY: usize = 100;
const ROTATIONS: usize = 1_000;

/// What may come and go without anything being lost. A leak of one KiB a rotation is more.
const FLAT: u64 = 400 * KIB;

/// The program as it is in the archive; none where a test is skipped.
fn released(test: &str) -> Option<(tempfile::TempDir, PathBuf)> {
    packages_or_skip(test, None, &["tar", "gzip"]).map(|packages| unpacked(&packages))
}

/// The program of these packages' archive, in a directory of its own.
pub(crate) fn unpacked(packages: &Path) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let archive = with_ending(packages, ".tar.gz");
    printed(std::process::Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(directory.path()));
    let inside = fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
    (directory, inside.join("bin/dbx-rotator"))
}

pub(crate) fn service_principal<'a>(
    home: &'a Home,
    program: &Path,
    workspace: &Workspace,
    arguments: &[&str],
) -> Session<'a> {
    home.command(program)
        .args(arguments)
        .signed_in_to(workspace)
        .env("DATABRICKS_PG_HOST", "instance.example")
        .env("DATABRICKS_PG_USERNAME", workspace.client_id())
}

/// As most people have it: with a name to look up, and the authorities that the platform trusts.
pub(crate) fn with_the_platforms_authorities<'a>(
    home: &'a Home,
    program: &Path,
    workspace: &Workspace,
    arguments: &[&str],
) -> Session<'a> {
    let text = format!("[[workspace]]\nca_file = {:?}\n", workspace.ca_file());
    home.write(".config/dbx-rotator/config.toml", text, 0o600);
    let session = service_principal(home, program, workspace, arguments).without_env("SSL_CERT_FILE");
    session.env("DATABRICKS_HOST", workspace.url_as("localhost"))
}

/// The same with a host of Lakebase's, which the program looks for among the workspace's databases.
pub(crate) fn to_lakebase<'a>(
    home: &'a Home,
    program: &Path,
    workspace: &Workspace,
    arguments: &[&str],
) -> Session<'a> {
    let session = with_the_platforms_authorities(home, program, workspace, arguments);
    session.env("DATABRICKS_PG_HOST", "instance-0.database.cloud.databricks.com")
}

/// A figure of a process, in bytes.
fn memory(running: &Running<'_>, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", running.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).expect("such a figure");
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * KIB
}

/// What a process holds between two rotations: the least that is seen in so long a time.
fn resident_at_rest(running: &Running<'_>, time: Duration) -> u64 {
    const LOOK: Duration = Duration::from_millis(50);
    let resident = |_| {
        std::thread::sleep(LOOK);
        memory(running, "VmRSS")
    };
    (0..time.div_duration_f64(LOOK) as usize).map(resident).min().expect("more than none")
}

fn middle(mut all: Vec<u64>) -> u64 {
    all.sort_unstable();
    all[all.len() / 2]
}

#[test]
fn package_holds_a_program_of_a_size_that_was_meant() {
    let Some((_directory, program)) = released("package_holds_a_program_of_a_size_that_was_meant") else { return };
    let size = fs::metadata(program).unwrap().len();
    assert!(size <= LARGEST_PROGRAM, "{size} bytes");
}

#[test]
fn packaged_program_finds_nothing_due_in_little_memory() {
    const TEST: &str = "packaged_program_finds_nothing_due_in_little_memory";
    const TIME: &str = "/usr/bin/time";
    if !Path::new(TIME).exists() {
        return skip(TEST, "there is no GNU time");
    }
    let Some((_directory, program)) = released(TEST) else { return };
    let (workspace, home) = (Workspace::start(), Home::new());
    service_principal(&home, &program, &workspace, &["rotate"]).run().exits(0);
    let peak = |_| {
        let program = program.to_str().unwrap();
        let words = ["-o", "peak", "-f", "%M", program, "rotate", "--if-due"];
        service_principal(&home, Path::new(TIME), &workspace, &words).run().exits(0);
        home.read("peak").trim().parse::<u64>().unwrap() * KIB
    };
    let peak = middle((0..15).map(peak).collect());
    assert!(peak <= NOTHING_DUE, "{} KiB", peak / KIB);
}

#[test]
fn packaged_daemon_is_small_at_rest() {
    let Some((_directory, program)) = released("packaged_daemon_is_small_at_rest") else { return };
    let resident = |_| {
        let (workspace, home) = (Workspace::start(), Home::new());
        let running = to_lakebase(&home, &program, &workspace, &["run"]).spawn();
        running.says("is valid until", Duration::from_secs(30));
        let resident = resident_at_rest(&running, Duration::from_secs(5));
        running.terminate().exits(0);
        resident
    };
    let resident = middle((0..5).map(resident).collect());
    assert!(resident <= IDLE, "{} KiB", resident / KIB);
}

#[test]
fn packaged_daemon_does_not_grow_with_its_rotations() {
    let Some((_directory, program)) = released("packaged_daemon_does_not_grow_with_its_rotations") else { return };
    let (workspace, home) = (Workspace::start(), Home::new());
    const LIFE: Duration = Duration::from_secs(16);
    workspace.set_token_life(LIFE);
    let mut config = String::new();
    for number in 0..MANY {
        let id = format!("{number:08x}-0000-4000-8000-00000000cafe");
        workspace.set_client(&id, "a-secret-of-the-stand-in-0123456789");
        let secret = home.write(format!("secret-{number}"), "a-secret-of-the-stand-in-0123456789", 0o600);
        config += &format!(
            "[[workspace]]\nname = 'w{number}'\nhost = '{}'\nauth = 'oauth-m2m'\nclient_id = '{id}'\n\
             client_secret_file = '{}'\n[[connection]]\nname = 'c{number}'\nworkspace = 'w{number}'\n\
             host = 'h{number}.example'\nuser = '{id}'\n",
            workspace.url(),
            secret.display()
        );
    }
    home.write(".config/dbx-rotator/config.toml", config, 0o600);
    // All that the system trusts, as most people have it.
    let system = fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").unwrap_or_default();
    let authorities = home.write("authorities", system + &fs::read_to_string(workspace.ca_file()).unwrap(), 0o600);
    let running = home.command(&program).args(["run"]).env("SSL_CERT_FILE", authorities).spawn();
    let after = |rotations: usize| {
        let began = Instant::now();
        while workspace.tokens_issued() < rotations {
            assert!(began.elapsed() < Duration::from_secs(300), "{} rotations", workspace.tokens_issued());
            std::thread::sleep(Duration::from_millis(100));
        }
        // A whole life of a token: rotations are always under way, and more of them at once on a busy machine.
        resident_at_rest(&running, LIFE)
    };
    let (half, all) = (after(ROTATIONS / 2), after(ROTATIONS));
    running.terminate().exits(0);
    assert!(all <= IDLE_WITH_MANY, "{} KiB after {ROTATIONS} rotations", all / KIB);
    assert!(all <= half + FLAT, "{} KiB after {ROTATIONS} rotations, {} KiB after half of them", all / KIB, half / KIB);
}
