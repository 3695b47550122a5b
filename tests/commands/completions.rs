//! What completes in the real shells, with names that would do something if a shell took them for more than names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::fmt::Write as _;
use std::os::unix::fs::symlink;
use std::time::Duration;

use crate::support::{Home, Running, dbx_rotator, skip};

/// Whatever happens at once has happened by then, on a machine under load.
const SOON: Duration = Duration::from_secs(30);

/// Each connection's host has its number.
const NAMES: [&str; 6] = [
    "orders",
    "stock room",
    "$(touch pwned)`touch pwned`;touch pwned&",
    "it's \"q\" <x> * [y] ~ \\ ! # {a,b} (c) | z",
    "größe 日本",
    "-option",
];

fn home() -> Home {
    let home = Home::new();
    let mut text = String::from("[[workspace]]\nhost = 'w.example'\nauth = 'databricks-cli'\n");
    for (index, name) in NAMES.iter().enumerate() {
        let name = serde_json::to_string(name).unwrap();
        let _ = write!(text, "[[connection]]\nname = {name}\nhost = 'db{index}.example'\nuser = 'ada@example.com'\n");
    }
    home.write(".config/dbx-rotator/config.toml", text, 0o600);
    for name in ["dbx-rotator", "databricks-oauth-status", "databricks-oauth-uninstall"] {
        symlink(env!("CARGO_BIN_EXE_dbx-rotator"), home.path("bin").join(name)).unwrap();
    }
    home
}

/// A shell at a terminal, after these lines; none, and said, where it is not installed.
fn shell<'a>(test: &str, home: &'a Home, program: &str, lines: &str) -> Option<Running<'a>> {
    let name = program.split(' ').next().unwrap();
    if !["/usr/bin", "/bin"].iter().any(|directory| std::path::Path::new(directory).join(name).exists()) {
        skip(test, &format!("{name} is not installed"));
        return None;
    }
    let running = home.command("script").at_terminal((250, 50), program).spawn();
    running.types(&format!("{lines}; echo rea''dy\n"));
    running.shows(0, "that it is ready", SOON, |text| text.contains("ready\r"));
    Some(running)
}

/// Each line is typed with the key that completes, and run; then this must be shown.
#[track_caller]
fn completes(home: &Home, running: Running<'_>, lines: &[(&str, &str)]) {
    let mut seen = running.stdout().len();
    for (typed, shown) in lines {
        running.types(&format!("{typed}\n"));
        seen = running.shows(seen, &format!("{shown:?} after {typed:?}"), SOON, |text| text.contains(shown));
        // Until the whole of it has been printed, some of it would be taken for an answer to the next line.
        running.types("echo do''ne\n");
        seen = running.shows(seen, "that it is done", SOON, |text| text.contains("done\r")).max(seen);
    }
    assert!(!home.path("pwned").exists(), "a name was executed");
}

const EVERYWHERE: [(&str, &str); 11] = [
    ("dbx-rotator status or\t", "db0.example:5432"),
    ("dbx-rotator status st\t", "db1.example:5432"),
    ("dbx-rotator status 'st\t", "db1.example:5432"),
    ("dbx-rotator status \"st\t", "db1.example:5432"),
    ("dbx-rotator status \\$\t", "db2.example:5432"),
    ("dbx-rotator -q status it\t", "db3.example:5432"),
    ("dbx-rotator status gr\t", "db4.example:5432"),
    ("dbx-rotator rotate --dry-run --connection st\t", "stock room: would rotate"),
    ("databricks-oauth-status or\t", "db0.example:5432"),
    ("databricks-oauth-status --js\t", "\"version\":1"),
    ("databricks-oauth-uninstall --pur\t --help", "Usage:"),
];

#[test]
fn names_are_completed_in_bash_and_never_executed() {
    let test = "names_are_completed_in_bash_and_never_executed";
    let home = home();
    let lines = "PS1='$ '; source <(dbx-rotator completions bash)";
    let Some(running) = shell(test, &home, "bash --norc -i", lines) else { return };
    completes(&home, running, &EVERYWHERE);
}

#[test]
fn names_are_completed_in_zsh_and_never_executed() {
    let test = "names_are_completed_in_zsh_and_never_executed";
    let home = home();
    let lines = "PS1='$ '; mkdir functions; dbx-rotator completions zsh >functions/_dbx-rotator; \
                 fpath=($PWD/functions $fpath); autoload -Uz compinit; compinit -u -D";
    let Some(running) = shell(test, &home, "zsh -f -i", lines) else { return };
    completes(&home, running, &EVERYWHERE);
}

#[test]
fn names_are_completed_in_fish_and_never_executed() {
    let test = "names_are_completed_in_fish_and_never_executed";
    let home = home();
    let lines = "dbx-rotator completions fish | source";
    let Some(running) = shell(test, &home, "fish --no-config -i", lines) else { return };
    completes(&home, running, &EVERYWHERE);
}

#[test]
fn a_broken_configuration_completes_nothing_and_says_nothing() {
    let home = home();
    let names = |words: &[&str]| dbx_rotator!(&home).arg("__connection-names").args(words).run();
    let all: String = NAMES[..5].iter().map(|name| format!("{name}\n")).collect();
    assert_eq!(names(&[]).exits(0).stdout, all);
    assert_eq!(names(&["exec", "orders", "--", ""]).exits(0).stdout, "");
    home.write(
        "other.toml",
        "[[workspace]]\nhost = 'w.example'\nauth = 'databricks-cli'\n[[connection]]\nhost = 'x'\n",
        0o600,
    );
    assert_eq!(names(&["--config", "other.toml", "status", ""]).exits(0).stdout, "default\n");
    home.write(".config/dbx-rotator/config.toml", "no TOML", 0o600);
    let broken = names(&["status", ""]);
    assert_eq!((broken.exits(0).stdout.as_str(), broken.stderr.as_str()), ("", ""));
    // It is asked for by scripts, and nobody is to type it.
    dbx_rotator!(&home).arg("--help").run().stdout_lacks("connection-names");
}
