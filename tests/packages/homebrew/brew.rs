//! Homebrew itself, if it is installed: style, audit, a build from source, the formula's own test, and `brew services`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::brewed::{RELEASE, REPOSITORY, pack_source, tarball};
use crate::support::{Home, skip};

const TAP: &str = "dbx-rotator/test";
const NAME: &str = "dbx-rotator/test/dbx-rotator";

/// A Homebrew that may be used, or why there is none.
fn usable_brew() -> Result<PathBuf, &'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let brew = std::env::split_paths(&path).map(|directory| directory.join("brew")).find(|brew| brew.is_file());
    let brew = brew.ok_or("no brew on PATH")?;
    if rustix::process::getuid().is_root() {
        return Err("brew does not run as root");
    }
    if run(&brew, &["list", "--versions", "dbx-rotator"]).status.success() {
        return Err("dbx-rotator is installed by brew here, and shall stay as it is");
    }
    Ok(brew)
}

fn run(brew: &Path, words: &[&str]) -> Output {
    Command::new(brew)
        .args(words)
        .envs([("HOMEBREW_NO_AUTO_UPDATE", "1"), ("HOMEBREW_NO_ANALYTICS", "1"), ("HOMEBREW_NO_ENV_HINTS", "1")])
        .output()
        .expect("run brew")
}

/// Our tap in this Homebrew, removed together with what was installed from it.
struct Tap {
    brew: PathBuf,
}

impl Tap {
    /// Adds the formula of this working tree, as if it were released.
    fn with_the_formula(brew: PathBuf, home: &Home) -> Self {
        let tap = Self { brew };
        tap.succeeds(&["tap-new", "--no-git", TAP]);
        let source = home.path(tarball());
        pack_source(&source);
        let url = format!("file://{}", source.display());
        let formula = home.command(RELEASE).args([REPOSITORY, &url]).arg(&source).run().exits(0).stdout.clone();
        let directory = PathBuf::from(tap.succeeds(&["--repository", TAP]).trim()).join("Formula");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("dbx-rotator.rb"), formula).unwrap();
        tap
    }

    #[track_caller]
    fn succeeds(&self, words: &[&str]) -> String {
        let output = run(&self.brew, words);
        let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "brew {}\n{said}{complained}", words.join(" "));
        said.into_owned()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        for words in [&["services", "stop", NAME][..], &["uninstall", "--force", NAME], &["untap", "--force", TAP]] {
            run(&self.brew, words);
        }
    }
}

#[test]
fn homebrew_likes_builds_tests_and_starts_it() {
    let brew = match usable_brew() {
        Ok(brew) => brew,
        Err(reason) => return skip("homebrew_likes_builds_tests_and_starts_it", reason),
    };
    let home = Home::new();
    let tap = Tap::with_the_formula(brew, &home);
    tap.succeeds(&["style", NAME]);
    tap.succeeds(&["audit", "--strict", "--formula", NAME]);
    tap.succeeds(&["install", "--build-from-source", NAME]);
    tap.succeeds(&["test", NAME]);
    tap.succeeds(&["services", "start", NAME]);
    let service = tap.succeeds(&["services", "info", "--json", NAME]);
    let service: serde_json::Value = serde_json::from_str(&service).expect("what brew says of the service");
    // It need not run: it waits for a configuration, which this user may not have.
    assert_eq!(service[0]["registered"], true, "{service}");
}
