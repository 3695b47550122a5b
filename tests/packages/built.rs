//! The packages, built once for all tests of this process by the scripts that build a release.
//!
//! `dist/build` has one place to build in and one for results. So simultaneous callers, also from other test programs,
//! wait for each other and take copies.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::support::skip;

/// The exit code of a program in `dist` that lacks a tool; it has reported which.
const UNAVAILABLE: i32 = 69;

/// What a build is asked for on its command line, and in its environment.
type Asked = (Vec<String>, &'static [(&'static str, &'static str)]);
type Known = HashMap<Asked, Result<PathBuf, String>>;

/// A later version than Cargo.toml's, for upgrades. A pre-release, so that one build tells how those are called, too.
pub(crate) const NEWER: &str = "99.0.0-rc.1";

/// The same as dpkg and rpm know it.
pub(crate) const NEWER_PACKAGED: &str = "99.0.0~rc.1";

/// What makes a build take half the time. The program is larger and slower, and does the same.
const QUICKLY: &[(&str, &str)] = &[
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0"),
];

/// The directory of the packages of this version, by default Cargo.toml's; or why there can be none here.
pub(crate) fn packages(version: Option<&str>) -> Result<PathBuf, String> {
    let words = version.into_iter().flat_map(|version| ["--version", version]);
    once((words.map(str::to_owned).collect(), &[]))
}

/// That of what is released for this target, or why there can be none here.
pub(crate) fn for_target(triple: &str) -> Result<PathBuf, String> {
    once((["--target", triple].map(str::to_owned).to_vec(), &[]))
}

/// The same for a test that only asks whether it works.
pub(crate) fn quickly_for_target(triple: &str) -> Result<PathBuf, String> {
    once((["--target", triple].map(str::to_owned).to_vec(), QUICKLY))
}

/// Packages of this version whose program still has the names of its functions.
#[cfg(target_os = "linux")]
pub(crate) fn with_symbols() -> Result<PathBuf, String> {
    once((Vec::new(), &[("CARGO_PROFILE_RELEASE_STRIP", "none")]))
}

fn once(asked: Asked) -> Result<PathBuf, String> {
    static KNOWN: Mutex<Option<Known>> = Mutex::new(None);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.get_or_insert_default().entry(asked).or_insert_with_key(build).clone()
}

/// The same if these programs for inspecting them are installed; otherwise the test is skipped.
pub(crate) fn packages_or_skip(test: &str, version: Option<&str>, programs: &[&str]) -> Option<PathBuf> {
    let ready = missing(programs).map_or(Ok(()), Err);
    ready.and_then(|()| packages(version)).map_err(|reason| skip(test, &reason)).ok()
}

/// The first of these programs that is not on PATH, as a reason to skip a test.
pub(crate) fn missing(programs: &[&str]) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |program: &str| std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    programs.iter().find(|program| !there(program)).map(|program| format!("{program} is not installed"))
}

fn build((words, environment): &Asked) -> Result<PathBuf, String> {
    if let Some(reason) = missing(&["dpkg-deb", "xz", "git"]) {
        return Err(reason);
    }
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::create_dir_all(repository.join("target")).expect("a directory to build in");
    let turn = File::create(repository.join("target/dist.lock")).expect("a file to lock");
    turn.lock().expect("the turn to build");
    let mut build = Command::new(repository.join("dist/build"));
    build.args(words).envs(environment.iter().copied());
    as_from_a_shell(&mut build);
    let output = build.stdin(Stdio::null()).output().expect("run dist/build");
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(UNAVAILABLE) {
        return Err(said.trim().to_owned());
    }
    assert!(output.status.success(), "dist/build {words:?}: {}\n{said}", output.status);
    let directory = until_the_end();
    for file in fs::read_dir(repository.join("target/dist")).expect("what was built").flatten() {
        if file.path().is_file() {
            fs::copy(file.path(), directory.join(file.file_name())).expect("copy it");
        }
    }
    Ok(directory)
}

/// A directory that is removed when this process ends, however it ends. Statics are never dropped, so a shell waits for
/// the end of its input, which the system closes together with this process.
fn until_the_end() -> PathBuf {
    let directory = tempfile::Builder::new().prefix("dbx-rotator-packages").tempdir().expect("a directory").keep();
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).expect("let others read it");
    let waits = Command::new("sh")
        .args(["-c", r#"read -r _; rm -rf -- "$1""#, "remove"])
        .arg(&directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // So that a Ctrl-C does not end it together with us.
        .process_group(0)
        .spawn()
        .expect("start a shell");
    // It is neither awaited nor closed.
    std::mem::forget(waits);
    directory
}

/// ring's build script would take cargo's variables about this package for a change, here and in the next build from a shell, and compile
/// everything again: a minute each time.
pub(super) fn as_from_a_shell(build: &mut Command) {
    let cargos = |name: &str| ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|start| name.starts_with(start));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(cargos)) {
        build.env_remove(name);
    }
}
