//! The vendor's own client for Python, as PyPI has it newest.
#![allow(dead_code, unreachable_pub, reason = "test support: each user takes a part of it")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The Python that has it, or why there is none.
pub fn python() -> Result<PathBuf, String> {
    // To look is to import it, which takes a second.
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    PYTHON.get_or_init(install).clone()
}

/// A Python that has PyPI's `databricks-sdk`, installed once and kept; or why there is none.
fn install() -> Result<PathBuf, String> {
    let cache = std::env::var_os("DBX_ROTATOR_TEST_CACHE")
        .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-cache"), PathBuf::from);
    fs::create_dir_all(&cache).map_err(|error| format!("{}: {error}", cache.display()))?;
    // Two test programs at once would install into each other.
    let lock = File::create(cache.join("databricks-sdk.lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;

    let environment = cache.join("databricks-sdk");
    let python = environment.join("bin/python");
    let works = || command_works(Command::new(&python).args(["-c", "import databricks.sdk"]));
    if works().is_err() {
        command_works(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
        command_works(Command::new(&python).args(["-m", "pip", "install", "--quiet", "databricks-sdk"]))?;
        works()?;
    }
    Ok(python)
}

fn command_works(command: &mut Command) -> Result<(), String> {
    let outcome = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let last_words = String::from_utf8_lossy(&outcome.stderr).lines().last().unwrap_or_default().to_owned();
    if outcome.status.success() { Ok(()) } else { Err(format!("{command:?}: {last_words}")) }
}
