//! `conf.d`: settings that packages, roles and teams put beside config.toml.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Home, Running, Session, Workspace, dbx_rotator};

const DIRECTORY: &str = ".config/dbx-rotator";
const SOON: Duration = Duration::from_secs(30);

/// The path of a file of the configuration.
fn at(name: &str) -> String {
    format!("{DIRECTORY}/{name}")
}

fn workspace_table(workspace: &Workspace) -> String {
    format!(
        "[[workspace]]\nhost = '{}'\nclient_id = '{}'\nclient_secret_file = 'client-secret'\n",
        workspace.url(),
        workspace.client_id()
    )
}

fn connection(name: &str) -> String {
    format!(
        "[[connection]]\nname = '{name}'\nhost = '{name}.database.cloud.databricks.com'\ncredential = 'workspace-token'\n"
    )
}

/// A home with a workspace in config.toml, its secret beside it, and one connection.
fn set_up(workspace: &Workspace) -> Home {
    let home = Home::new();
    home.watch(workspace);
    home.write(at("config.toml"), workspace_table(workspace) + &connection("own"), 0o600);
    home.write(at("client-secret"), workspace.client_secret(), 0o600);
    home
}

fn command<'a>(home: &'a Home, workspace: &Workspace, words: &[&str]) -> Session<'a> {
    dbx_rotator!(home).trusting(workspace).args(words)
}

/// What the password file has entries for, in alphabetical order.
fn hosts(home: &Home) -> Vec<String> {
    let mut hosts: Vec<String> =
        home.pgpass().lines().map(|line| line.split('.').next().unwrap_or_default().to_owned()).collect();
    hosts.sort();
    hosts
}

#[test]
fn what_a_fragment_brings_is_renewed_and_shown_with_its_place() {
    let workspace = Workspace::start();
    let home = set_up(&workspace);
    home.write(at("conf.d/20-team.toml"), connection("team"), 0o644);
    home.write(at("conf.d/10-role.toml"), connection("role"), 0o644);
    home.write(at("conf.d/30-off.toml.rpmnew"), "broken", 0o644);
    command(&home, &workspace, &["rotate"]).run().exits(0);
    assert_eq!(hosts(&home), ["own", "role", "team"]);
    let shown = command(&home, &workspace, &["config", "show"]).run();
    shown.exits(0).stdout_has("conf.d/20-team.toml:3)").stdout_has("config.toml:7)");
    let check = command(&home, &workspace, &["config", "check"]).run();
    check.exits(0).stdout_has("config.toml and 2 of ").stdout_has("connections: 3");
    command(&home, &workspace, &["check"]).run().stdout_has("team");
    // By whatever path it is named.
    let named = command(&home, &workspace, &["config", "show", "--config", &at("config.toml")]).run();
    named.exits(0).stdout_has("conf.d/20-team.toml:3)");
    // A file that somebody names elsewhere is read alone.
    home.write("alone.toml", workspace_table(&workspace) + &connection("alone"), 0o600);
    let alone = command(&home, &workspace, &["config", "show", "--config", "alone.toml"]).run();
    alone.exits(0).stdout_lacks("team");
}

#[test]
fn a_broken_fragment_is_named_with_its_line_and_the_password_stays() {
    let workspace = Workspace::start();
    let home = set_up(&workspace);
    command(&home, &workspace, &["rotate"]).run().exits(0);
    let before = home.pgpass();
    home.write(at("conf.d/team.toml"), "\n[[connection]]\nhots = 'x'\n", 0o644);
    for words in [&["rotate"][..], &["status"], &["config", "check"], &["check"], &["token"]] {
        let outcome = command(&home, &workspace, words).run();
        outcome.exits(78).stderr_has("conf.d/team.toml:3:1").stderr_has("did you mean host?");
    }
    home.write(at("conf.d/team.toml"), connection("own"), 0o644);
    // The same words in two files say the same.
    command(&home, &workspace, &["rotate", "--if-due"]).run().exits(0);
    home.write(at("conf.d/team.toml"), connection("own").replace("own.", "other."), 0o644);
    let clash = command(&home, &workspace, &["rotate"]).run();
    clash.exits(78).stderr_has("conf.d/team.toml:2:").stderr_has("config.toml:5").stderr_has("and they differ");
    assert_eq!(home.pgpass(), before);
}

#[test]
fn a_secret_in_a_fragment_is_not_shown() {
    let workspace = Workspace::start();
    let home = set_up(&workspace);
    let text =
        format!("[[workspace]]\nname = 'x'\nhost = 'x.example'\nclient_secret = '{}'\n", workspace.client_secret());
    home.write(at("conf.d/team.toml"), text, 0o600);
    // A session looks for it in all that is printed.
    command(&home, &workspace, &["config", "show"]).run().exits(78).stderr_has("does not belong in config.toml");
}

#[test]
fn fragments_alone_are_a_configuration() {
    let workspace = Workspace::start();
    let home = set_up(&workspace);
    home.write(at("conf.d/team.toml"), home.read(at("config.toml")), 0o600);
    fs::remove_file(home.path(at("config.toml"))).unwrap();
    command(&home, &workspace, &["rotate"]).run().exits(0);
    assert_eq!(hosts(&home), ["own"]);
    // What is there is not asked for, and nothing is written into somebody else's file.
    let before = home.read(at("conf.d/team.toml"));
    let setup = command(&home, &workspace, &["setup", "--no-service", "--yes"]).run();
    setup.stdout_has("conf.d exists already and is used as it is");
    assert_eq!(home.read(at("conf.d/team.toml")), before);
}

/// The daemon, whose password lives.
fn running<'a>(home: &'a Home, workspace: &Workspace) -> Running<'a> {
    let running = command(home, workspace, &["run"]).spawn();
    running.says("Token rotation completed", SOON);
    running
}

fn awaited(what: &str, is_so: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !is_so() {
        assert!(began.elapsed() < SOON, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn run_takes_a_fragment_with_a_reload_and_keeps_what_it_has_when_one_is_broken() {
    let workspace = Workspace::start();
    let home = set_up(&workspace);
    let running = running(&home, &workspace);
    home.write(at("conf.d/team.toml"), connection("team"), 0o644);
    running.signal(Signal::HUP);
    awaited("the fragment's password", || hosts(&home) == ["own", "team"]);
    let before = home.pgpass();
    home.write(at("conf.d/broken.toml"), "[[connection]]\nhots = 'x'\n", 0o644);
    running.signal(Signal::HUP);
    running.says("the old configuration stays in use", SOON).says("broken.toml:2:1", SOON);
    assert_eq!(home.pgpass(), before);
    // Changed, and still broken: noticed without a signal, as is its repair, and so is its end.
    home.write(at("conf.d/broken.toml"), "[[connection]]\n\nhost = 1\n", 0o644);
    running.says("broken.toml:3:", SOON);
    home.write(at("conf.d/broken.toml"), connection("mended"), 0o644);
    awaited("the mended fragment's password", || hosts(&home) == ["mended", "own", "team"]);
    running.terminate().exits(0);
}

#[test]
fn run_notices_a_directory_of_fragments_that_appears_while_it_has_a_trouble() {
    let workspace = Workspace::start();
    let home = set_up(&workspace);
    let running = running(&home, &workspace);
    let good = home.read(at("config.toml"));
    home.write(at("config.toml"), good.clone() + "[[connection]]\nhots = 1\n", 0o600);
    running.signal(Signal::HUP);
    running.says("the old configuration stays in use", SOON);
    // The directory first, then a fragment in it, then the repair elsewhere.
    home.write(at("conf.d/team.toml"), connection("team"), 0o644);
    running.says_times(2, "the old configuration stays in use", SOON);
    home.write(at("config.toml"), &good, 0o600);
    awaited("the fragment's password", || hosts(&home) == ["own", "team"]);
    running.terminate().exits(0);
}

#[test]
fn setup_says_what_is_in_the_way_of_the_file_that_it_would_write() {
    let workspace = Workspace::start();
    let setup = |home: &Home| command(home, &workspace, &["setup", "--no-service", "--yes"]).run();
    // Somebody keeps it elsewhere, and that place is not there now.
    let linked = Home::new();
    fs::create_dir_all(linked.path(DIRECTORY)).unwrap();
    std::os::unix::fs::symlink("/nowhere/c.toml", linked.path(at("config.toml"))).unwrap();
    setup(&linked).exits(78).stderr_has("is a link that leads nowhere: there is no /nowhere/c.toml");
    assert!(linked.path(at("config.toml")).is_symlink());
    let blocked = Home::new();
    blocked.write(".config", "", 0o600);
    let said = setup(&blocked);
    said.exits(78).stderr_has(&format!("{} is no directory", blocked.path(".config").display()));
    said.stdout_lacks("exists already");
}

#[test]
fn setup_does_not_send_back_to_setup_who_has_half_a_configuration() {
    let workspace = Workspace::start();
    let home = set_up(&workspace);
    let setup = || command(&home, &workspace, &["setup", "--no-service", "--yes"]).run();
    let file = home.path(at("config.toml")).display().to_string();
    for (text, prints) in [
        (workspace_table(&workspace), "`dbx-rotator connections --toml` prints"),
        (String::new(), "`dbx-rotator connections --toml --workspace-url URL` prints"),
    ] {
        home.write(at("config.toml"), &text, 0o600);
        let said = setup();
        said.exits(78).stderr_has("the PostgreSQL host is not set").stderr_has(prints);
        said.stderr_has(&format!("setup leaves {file} as it is")).stderr_lacks("`dbx-rotator setup`");
        assert_eq!(home.read(at("config.toml")), text);
    }
}
