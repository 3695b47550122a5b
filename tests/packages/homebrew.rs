//! The Homebrew formula and the launchd agent, on a machine that probably has neither Homebrew nor launchd: run by a stand-in for
//! Homebrew's formula language (`tests/packages/homebrew/formula.rb`), and by Homebrew itself if it is installed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

mod agent;
mod brew;
mod brewed;

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::Home;
use brewed::{Brewed, DIST, FORMULA, RELEASE, REPOSITORY, is_here};

#[test]
fn ruby_reads_the_formula() {
    if is_here("ruby_reads_the_formula", "ruby") {
        for file in [FORMULA, brewed::HARNESS] {
            Home::new()
                .command("ruby")
                .args(["-W:no-experimental", "-wc", file])
                .run()
                .exits(0)
                .stderr_lacks("warning");
        }
    }
}

#[test]
fn rubocop_finds_nothing_in_the_formula() {
    if is_here("rubocop_finds_nothing_in_the_formula", "rubocop") {
        let style = concat!(env!("CARGO_MANIFEST_DIR"), "/homebrew/.rubocop.yml");
        Home::new()
            .command("rubocop")
            .args(["--config", style, FORMULA, brewed::HARNESS])
            .run()
            .exits(0)
            .stdout_has("2 files inspected, no offenses detected");
    }
}

#[test]
fn the_program_its_old_names_its_pages_and_its_completions_are_installed() {
    let test = "the_program_its_old_names_its_pages_and_its_completions_are_installed";
    let Some(brewed) = Brewed::install(test) else { return };
    for old in ["rotator", "install", "status", "restart", "uninstall"] {
        let link = brewed.keg(&format!("bin/databricks-oauth-{old}"));
        // Relative, so that the keg can be moved, as Homebrew does with bottles.
        assert_eq!(fs::read_link(&link).unwrap(), Path::new("dbx-rotator"), "{}", link.display());
    }
    assert_eq!(brewed.names_in("bin").len(), 6);
    // All pages, in the section that their names give.
    for page in &brewed.pages {
        let section = page.rsplit('.').next().unwrap();
        assert!(brewed.keg(&format!("share/man/man{section}/{page}")).exists(), "{page} is not installed");
    }
    assert!(brewed.pages.contains(&"dbx-rotator.1".to_owned()), "{:?}", brewed.pages);
    assert!(brewed.keg("share/man/man5/dbx-rotator.toml.5").exists());
    for (shell, file) in [
        ("bash", "etc/bash_completion.d/dbx-rotator"),
        ("zsh", "share/zsh/site-functions/_dbx-rotator"),
        ("fish", "share/fish/vendor_completions.d/dbx-rotator.fish"),
    ] {
        let printed = crate::support::dbx_rotator!(brewed.home).args(["completions", shell]).run().stdout;
        assert_eq!(fs::read_to_string(brewed.keg(file)).unwrap(), printed, "{shell}");
    }
}

#[test]
fn the_service_files_are_those_of_dist_under_the_names_that_brew_services_looks_for() {
    let test = "the_service_files_are_those_of_dist_under_the_names_that_brew_services_looks_for";
    let Some(brewed) = Brewed::install(test) else { return };
    let prefix = brewed.prefix();
    let program = format!("{prefix}/opt/dbx-rotator/bin/dbx-rotator");
    let installed = |word: &str, suffix: &str| {
        let name = brewed.said["service"][word].as_str().expect("a name in `service do`");
        (format!("{name}{suffix}"), brewed.keg(&format!("{name}{suffix}")))
    };

    // Named as in dist/: with another name it would replace another of our units, or be a second daemon.
    let (name, unit) = installed("linux", ".service");
    let packaged = fs::read_to_string(format!("{DIST}/systemd/user/{name}")).unwrap();
    assert!(packaged.contains("\nType=notify\n") && packaged.contains("\nWatchdogSec="), "{name} is not the daemon's");
    assert_eq!(fs::read_to_string(unit).unwrap(), packaged.replace("/usr/bin/dbx-rotator", &program));

    let (name, agent) = installed("macos", ".plist");
    let packaged = fs::read_to_string(format!("{DIST}/launchd/{name}")).unwrap();
    let filled = fs::read_to_string(agent).unwrap();
    assert_eq!(filled, packaged.replace("HOMEBREW_PREFIX", &prefix));
    assert!(filled.contains(&format!("<string>{program}</string>")), "{filled}");
    // launchd opens the log, and does not start the program if it cannot.
    assert!(brewed.path("var/log").is_dir());
    assert!(Path::new(&program).exists(), "what the service files start is not there");
}

#[test]
fn systemd_takes_the_unit_that_is_installed() {
    let test = "systemd_takes_the_unit_that_is_installed";
    if !is_here(test, "systemd-analyze") {
        return;
    }
    let Some(brewed) = Brewed::install(test) else { return };
    let name = brewed.said["service"]["linux"].as_str().unwrap();
    let unit = brewed.keg(&format!("{name}.service"));
    let outcome = brewed.home.command("systemd-analyze").args(["--user", "--man=no", "verify"]).arg(&unit).run();
    outcome.exits(0);
    // Ignore messages about other units of this machine.
    let of_ours = outcome.stderr.lines().filter(|line| line.contains(name));
    assert_eq!(of_ours.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn the_formula_tests_itself_against_a_workspace_on_loopback() {
    let test = "the_formula_tests_itself_against_a_workspace_on_loopback";
    let Some(brewed) = Brewed::install(test) else { return };
    brewed.run(&["test"]).exits(0).stdout_has("live").stderr_has("Token rotation completed successfully");
    // It leaves nothing outside the directory that it was given.
    assert!(brewed.path("test/pgpass").exists());
    assert!(brewed.home.files().iter().all(|file| !file.ends_with(".pgpass")), "{:?}", brewed.home.files());
}

#[test]
fn the_formulas_test_fails_with_a_program_that_does_not_rotate() {
    let test = "the_formulas_test_fails_with_a_program_that_does_not_rotate";
    let Some(brewed) = Brewed::install(test) else { return };
    fs::write(brewed.keg("bin/dbx-rotator"), "#!/bin/sh\necho 'dbx-rotator 0'\n").unwrap();
    let outcome = brewed.run(&["test"]);
    assert_ne!(outcome.code, Some(0), "it passed\n{outcome}");
}

#[test]
fn a_release_has_nothing_left_to_fill_in_and_its_version_from_the_tarball() {
    let test = "a_release_has_nothing_left_to_fill_in_and_its_version_from_the_tarball";
    let Some(brewed) = Brewed::install(test) else { return };
    let formula = brewed.home.read("dbx-rotator.rb");
    assert!(formula.starts_with("class DbxRotator < Formula\n") && !formula.contains('@'), "{formula}");
    let declared = &brewed.said["declared"];
    assert_eq!(declared["homepage"], REPOSITORY);
    assert_eq!(declared["license"], env!("CARGO_PKG_LICENSE"));
    assert_eq!(declared["desc"], env!("CARGO_PKG_DESCRIPTION"));
    let sum = Command::new("sha256sum").arg(brewed.home.path(brewed::tarball())).output().unwrap();
    assert_eq!(declared["sha256"], String::from_utf8_lossy(&sum.stdout).split(' ').next().unwrap());
    assert!(brewed.prefix_path().join("Cellar/dbx-rotator").join(env!("CARGO_PKG_VERSION")).is_dir());
}

#[test]
fn a_release_of_another_version_or_without_the_source_is_refused() {
    let home = Home::new();
    let release = |url: &str| {
        let url = format!("{REPOSITORY}/{url}");
        home.command(RELEASE).args([REPOSITORY, &url]).arg(home.path("x.tar.gz")).run()
    };
    home.write("dbx-rotator-1/bin/dbx-rotator", "", 0o755);
    home.command("tar").args(["-czf", "x.tar.gz", "dbx-rotator-1"]).run().exits(0);
    release("dbx-rotator-999.0.tar.gz").exits(65).prints_nothing().stderr_has(env!("CARGO_PKG_VERSION"));
    release(&brewed::tarball()).exits(65).prints_nothing().stderr_has("no Cargo.toml");
    home.command(RELEASE).args([REPOSITORY]).run().exits(64).prints_nothing();
}
