//! `status` as people see it: at a terminal, in a pipe, with many connections, and drawn again and again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::fmt::Write as _;
use std::time::Duration;

use crate::support::{Home, Running, Session, Workspace, dbx_rotator};

/// Whatever happens at once has happened by then, on a machine under load.
const SOON: Duration = Duration::from_secs(30);

const CONFIG: &str = ".config/dbx-rotator/config.toml";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
/// What stands before and after a screen of its own.
const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

fn rotator<'a>(home: &'a Home, workspace: &Workspace, arguments: &[&str]) -> Session<'a> {
    dbx_rotator!(home).args(arguments).signed_in_to(workspace)
}

/// At a terminal of this size; `line` is for a shell, in which `rotator` is the program.
fn at_terminal<'a>(home: &'a Home, workspace: &Workspace, size: (u16, u16), line: &str) -> Session<'a> {
    let _ = std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_dbx-rotator"), home.path("bin/dbx-rotator"));
    home.command("script").at_terminal(size, line).signed_in_to(workspace)
}

fn write_connections<'n>(home: &Home, names: impl IntoIterator<Item = &'n str>) {
    let mut text = String::from("[[workspace]]\n");
    for (index, name) in names.into_iter().enumerate() {
        let _ = write!(text, "[[connection]]\nname = '{name}'\nhost = 'db{index}.example'\n");
    }
    home.write(CONFIG, text, 0o600);
}

/// The lines without what is only for the terminal.
fn plain(shown: &str) -> Vec<String> {
    let mut text = String::new();
    let mut rest = shown;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        text += before;
        rest = after.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, rest)| rest);
    }
    text += rest;
    text.lines().map(|line| line.trim_end_matches('\r').to_owned()).collect()
}

#[test]
fn a_line_has_a_bar_of_what_is_left_and_both_times_and_colours_only_at_a_terminal_that_wants_them() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let wide = "w".repeat(200);
    write_connections(&home, ["orders", &wide]);
    rotator(&home, &workspace, &["rotate", "--connection", "orders"]).run().exits(0);
    let in_pipe = rotator(&home, &workspace, &["status"]).run();
    in_pipe.exits(1).stdout_lacks("\x1b").stdout_has(&wide).stdout_has(":databricks_postgres:");
    in_pipe.stdout_has("2 connections: 1 live, 1 missing\n");
    in_pipe.stdout_has(&format!("{wide}: the password file has no entry for it - run `dbx-rotator rotate`\n"));
    let orders = in_pipe.stdout.lines().find(|line| line.starts_with("orders ")).unwrap();
    // A token of an hour, less the seconds since.
    assert!(orders.contains("  live     ##########  "), "{orders}");
    let times = orders.split("##########  ").nth(1).unwrap();
    assert!(times.as_bytes()[2] == b':' && times[5..].starts_with(", in 59 min"), "{orders}");

    let coloured = at_terminal(&home, &workspace, (80, 24), "dbx-rotator status").run();
    coloured.exits(1).stdout_has(&format!("{GREEN}live{}", "\x1b[0m")).stdout_has(&format!("{RED}missing\x1b[0m"));
    coloured.stdout_has(&format!("{RED}░░░░░░░░░░\x1b[0m")).stdout_has(&format!("{GREEN}██████████\x1b[0m"));
    let lines = plain(&coloured.stdout);
    assert!(lines[..3].iter().all(|line| line.chars().count() <= 80), "{coloured}");
    assert!(lines[2].starts_with("wwww") && lines[2].contains("...  missing"), "{coloured}");
    for line in [
        "NO_COLOR=1 LANG=C dbx-rotator status",
        "TERM=dumb dbx-rotator status",
        "dbx-rotator status | cat",
        "dbx-rotator status orders --json",
    ] {
        let outcome = at_terminal(&home, &workspace, (80, 24), line).run();
        outcome.stdout_lacks("\x1b").stdout_lacks("█").stdout_has("orders");
    }
    // Its entry has no room beside it.
    at_terminal(&home, &workspace, (80, 24), "dbx-rotator status orders").run().stdout_has("entry: db0.example:5432:");
}

#[test]
fn a_thousand_connections_are_counted_and_what_is_true_for_all_is_said_once() {
    let (workspace, home) = (Workspace::start(), Home::new());
    let names: Vec<String> = (0..1_000).map(|index| format!("c{index}")).collect();
    write_connections(&home, names.iter().map(String::as_str));
    let all = rotator(&home, &workspace, &["status"]).run();
    all.exits(1).stdout_has("1000 connections: 1000 missing\n");
    all.stdout_has("c0, c1, c2 and 997 more: the password file does not exist - run `dbx-rotator rotate`\n");
    assert!(all.stdout.lines().count() < 1_010, "{}", all.stdout.lines().count());
    let watched = at_terminal(&home, &workspace, (80, 24), "dbx-rotator status --watch").spawn();
    watched.shows(0, "the summary", SOON, |text| text.contains("1000 connections") && text.contains(" more\x1b"));
    watched.types("q");
    let screen = watched.ends();
    screen.exits(0);
    let first = screen.stdout.split("\x1b[J").next().unwrap();
    assert!(plain(first).len() <= 24, "{first}");
}

/// `status --watch` at a terminal, whose settings before and after are compared.
fn watch<'a>(home: &'a Home, workspace: &Workspace) -> Running<'a> {
    let line = "trap : INT; stty -g >before; dbx-rotator status --watch; code=$?; stty -g >after; exit $code";
    let running = at_terminal(home, workspace, (100, 30), line).spawn();
    running.shows(0, "a frame", SOON, |text| text.contains("\x1b[J"));
    running
}

#[track_caller]
fn ends_well(home: &Home, running: Running<'_>) {
    let outcome = running.ends();
    outcome.exits(0);
    assert_eq!(home.read("before"), home.read("after"), "the terminal's settings");
    assert_eq!(outcome.stdout.matches(ENTER).count(), outcome.stdout.matches(LEAVE).count(), "{outcome}");
    assert!(outcome.stdout.trim_end().ends_with(&format!("\x1b[?25h{LEAVE}")), "{outcome}");
}

#[test]
fn a_watch_shows_each_change_and_the_time_until_a_key_or_a_signal_ends_it() {
    let (workspace, home) = (Workspace::start(), Home::new());
    write_connections(&home, ["orders"]);
    let running = watch(&home, &workspace);
    let is_dead = |text: &str| text.contains(&format!("{RED}missing"));
    let is_live = |text: &str| text.contains(&format!("{GREEN}live"));
    let seen = running.shows(0, "that it is missing", SOON, is_dead);
    rotator(&home, &workspace, &["rotate"]).run().exits(0);
    let seen = running.shows(seen, "that it is live", SOON, is_live);
    std::fs::remove_file(home.path(".pgpass")).unwrap();
    let seen = running.shows(seen, "that the file has gone", SOON, is_dead);
    // Without any change it is drawn again, since times go on.
    running.shows(seen, "two more frames", SOON, |text| text.matches("\x1b[J").count() >= 2);
    // The service manager is asked, and the configuration is read, now and then; another connection is seen.
    write_connections(&home, ["orders", "stock"]);
    running.shows(seen, "the new connection", SOON, |text| text.contains("stock"));
    running.types("x").types("\x03");
    ends_well(&home, running);
}

#[test]
fn a_watch_gives_the_terminal_back_however_it_is_ended() {
    let (workspace, home) = (Workspace::start(), Home::new());
    write_connections(&home, ["orders"]);
    for key in ["q", "Q", "\x04", "\x03"] {
        let running = watch(&home, &workspace);
        running.types(key);
        ends_well(&home, running);
    }
    // Stopped by Ctrl-Z, it leaves the terminal to the shell until it goes on.
    let line = "set -m; stty -g >before; dbx-rotator status --watch; stty -g >after; fg >/dev/null";
    let running = at_terminal(&home, &workspace, (100, 30), &format!("exec bash --norc -c '{line}'")).spawn();
    let seen = running.shows(0, "a frame", SOON, |text| text.contains("\x1b[J"));
    running.types("\x1a");
    running.shows(seen, "the screen again", SOON, |text| text.contains(LEAVE) && text.contains(ENTER));
    running.types("q");
    ends_well(&home, running);
}

#[test]
fn where_nothing_can_be_drawn_a_watch_says_so() {
    let (workspace, home) = (Workspace::start(), Home::new());
    write_connections(&home, ["orders"]);
    rotator(&home, &workspace, &["status", "--watch"]).run().exits(64).stderr_has("--watch draws on a terminal");
    let dumb = at_terminal(&home, &workspace, (80, 24), "TERM=dumb dbx-rotator status --watch").run();
    dumb.exits(64).stdout_has("hint: leave out --watch").stdout_lacks("\x1b");
    rotator(&home, &workspace, &["status", "--watch", "--json"]).run().exits(64);
    at_terminal(&home, &workspace, (80, 24), "dbx-rotator status --watch nobody").run().exits(64).stdout_lacks("\x1b");
}
