//! A machine that resumes after its credential has expired has a new one within seconds; so has one whose clock is set.
//!
//! This needs a kernel that suspends: an emulated machine is suspended to RAM for long enough. Times are the guest's own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops where it fails, and says what it measured"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::workspace::scratch_directory;
use crate::support::{Vm, Workspace, skip};

/// The requirement: from the resume to the new credential in the password file.
const AT_ONCE_MS: u64 = 5_000;

/// The life of a token that expires during the suspend; half of it is the longest wait for the rotation before.
const SHORT_LIFE: Duration = Duration::from_secs(30);

const SLEEP: Duration = Duration::from_secs(33);

/// While the clock is set: a token with this life is replaced in this test only because of the clock.
const LONG_LIFE: Duration = Duration::from_secs(3600);

/// A flood of requests would show within this time of the guest.
const QUIET: Duration = Duration::from_secs(20);

/// How many requests a change of the clock may cost within [`QUIET`].
const REQUESTS_FOR_A_CLOCK: usize = 2;

/// For scripts that only wait for the emulated processor.
const SOON: Duration = Duration::from_secs(60);

/// For the guest's scripts: run as alice, and follow what was recorded, from a line on. (tail ends only at its next line, after
/// its readers; if it had standard error open, they would wait for that.)
const TOOLS: &str = r#"
alice() { runuser -u alice -- env HOME=/home/alice XDG_RUNTIME_DIR=/run/user/1000 "$@"; }
watched() { exec tail -n "$1" -F /run/watched 2>/dev/null; }
"#;

/// A line of /run/watched: when, what, and how much, in milliseconds.
struct Event<'a> {
    at: u64,
    what: &'a str,
    much: i64,
}

impl<'a> Event<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let (at, what) = (words.next()?.parse().ok()?, words.next()?);
        let much = words.next().and_then(|much| much.parse().ok()).unwrap_or(0);
        Some(Event { at, what, much })
    }
}

/// The last event of this kind, and how long after it the password file changed.
#[track_caller]
fn reaction(watched: &str, to: &str) -> (i64, u64) {
    let events: Vec<Event<'_>> = watched.lines().filter_map(Event::parse).collect();
    let cause = events.iter().rfind(|event| event.what == to).unwrap_or_else(|| panic!("never {to}:\n{watched}"));
    let change = events.iter().find(|event| event.what == "changed" && event.at >= cause.at);
    (cause.much, change.unwrap_or_else(|| panic!("nothing was done after {to}:\n{watched}")).at - cause.at)
}

fn write(root: &Path, file: &str, text: impl AsRef<[u8]>, mode: u32) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
}

/// The guest's files: the program, alice's configuration and the package's units.
fn files(workspace: &Workspace) -> tempfile::TempDir {
    let directory = scratch_directory(0o700);
    let root = directory.path();
    let config = format!(
        "[[workspace]]\nhost = \"{}\"\nca_file = \"ca.pem\"\nclient_id = \"{}\"\nclient_secret_file = \"client-secret\"\n\n\
         [[connection]]\nhost = \"lakebase.test\"\n",
        workspace.url_as("workspace.test"),
        workspace.client_id(),
    );
    let home = "home/alice/.config";
    write(root, &format!("{home}/dbx-rotator/config.toml"), config, 0o600);
    write(root, &format!("{home}/dbx-rotator/client-secret"), workspace.client_secret(), 0o600);
    write(root, &format!("{home}/dbx-rotator/ca.pem"), fs::read(workspace.ca_file()).unwrap(), 0o644);
    for unit in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/systemd/user")).unwrap().flatten() {
        let name = unit.file_name().into_string().unwrap();
        write(root, &format!("usr/lib/systemd/user/{name}"), fs::read(unit.path()).unwrap(), 0o644);
    }
    write(root, "usr/local/bin/watch", include_str!("../support/vm/watch"), 0o755);
    write(root, "usr/local/lib/tools", TOOLS, 0o644);
    // Debug symbols are most of the program, and would have to go through an emulated disk.
    let program = root.join("usr/bin/dbx-rotator");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    let strip = Command::new("strip").arg("-o").arg(&program).arg(env!("CARGO_BIN_EXE_dbx-rotator")).status();
    assert!(strip.unwrap().success(), "strip the program");
    directory
}

/// Runs a script that can use [`TOOLS`].
#[track_caller]
fn run(vm: &mut Vm, script: &str) -> String {
    let outcome = vm.run(&format!(". /usr/local/lib/tools\n{script}"), SOON);
    outcome.exits(0);
    outcome.stdout
}

fn start(vm: &mut Vm) {
    run(
        vm,
        "set -e
        systemd-run -q --unit=watch -p StandardOutput=file:/run/watched watch /home/alice/.pgpass
        systemctl start user@1000.service
        alice systemctl --user start dbx-rotator-daemon.service
        alice dbx-rotator status",
    );
}

/// Sleeps past the expiry of the published token.
fn sleep_past_the_expiry(vm: &mut Vm, workspace: &Workspace) {
    let asked = workspace.token_requests();
    vm.begin(&format!("rtcwake -u -m mem -s {}", SLEEP.as_secs()));
    let early = workspace.wait_for_token_requests(asked + 1, SLEEP - Duration::from_secs(5));
    // From now on no token expires within this test.
    workspace.set_token_life(LONG_LIFE);
    let outcome = vm.finish(SLEEP + SOON);
    assert!(!early, "somebody asked for a token while the machine was asleep:\n{}", outcome.exits(0));
    outcome.exits(0);
    assert!(workspace.wait_for_tokens_issued(asked + 1, SOON), "no token after the resume");
}

/// Waits until the daemon has published a new credential after this event, and checks that clients have a live one.
#[track_caller]
fn acted_at_once(vm: &mut Vm, cause: &str) -> i64 {
    let watched = run(
        vm,
        &format!(
            "timeout 30 perl -ne '$seen ||= /{cause}/; exit if $seen && /changed/' <(watched +1)
            cat /run/watched"
        ),
    );
    let (much, took) = reaction(&watched, cause);
    eprintln!("{cause} ({:.1} s): a new credential after {took} ms", much as f64 / 1e3);
    assert!(took <= AT_ONCE_MS, "{took} ms after {cause}:\n{watched}");
    run(vm, "alice dbx-rotator status");
    much
}

/// Sets the clock, and checks that this leads to only a few requests.
#[track_caller]
fn set_clock(vm: &mut Vm, workspace: &Workspace, change: &str) {
    let asked = workspace.token_requests();
    run(vm, &format!("date -s '{change}'"));
    let storm = workspace.wait_for_token_requests(asked + REQUESTS_FOR_A_CLOCK + 1, QUIET);
    assert!(!storm, "more than {REQUESTS_FOR_A_CLOCK} requests after {change}");
    eprintln!("clock set {change}: {} token requests within {QUIET:?}", workspace.token_requests() - asked);
}

#[test]
fn suspend_past_the_expiry_and_a_clock_that_is_set_are_acted_on_at_once() {
    let workspace = Workspace::builder().token_life(SHORT_LIFE).start();
    let files = files(&workspace);
    let mut vm = match Vm::boot(files.path()) {
        Ok(vm) => vm,
        Err(reason) => return skip("suspend_past_the_expiry_and_a_clock_that_is_set_are_acted_on_at_once", &reason),
    };
    eprintln!("booted in {:.1} s", vm.booted_in.as_secs_f64());
    start(&mut vm);

    // Just after a rotation, so that the daemon's next one is not soon.
    run(&mut vm, "timeout 40 grep -q -m 1 changed <(watched 0)");
    sleep_past_the_expiry(&mut vm, &workspace);
    let slept = acted_at_once(&mut vm, "resumed");
    let asked = i64::try_from(SLEEP.as_millis()).unwrap();
    assert!((slept - asked).abs() < 15_000, "it slept for {slept} ms");

    set_clock(&mut vm, &workspace, "1 hour ago");
    set_clock(&mut vm, &workspace, "3 hours");
    acted_at_once(&mut vm, "clock");

    let restarts = run(&mut vm, "alice systemctl --user show -P NRestarts -P ActiveState dbx-rotator-daemon.service");
    assert_eq!(restarts.split_whitespace().collect::<Vec<_>>(), ["0", "active"], "{restarts}");

    // The same for the timer, which must start with a token that expires; it would not replace a longer-lived one.
    workspace.set_token_life(SHORT_LIFE);
    run(
        &mut vm,
        "set -e
        alice systemctl --user stop dbx-rotator-daemon.service
        rm /home/alice/.pgpass
        alice systemctl --user start dbx-rotator.timer dbx-rotator.service",
    );
    sleep_past_the_expiry(&mut vm, &workspace);
    acted_at_once(&mut vm, "resumed");
}
