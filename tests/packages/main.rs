//! What is released: built, inspected, installed, upgraded and removed as people do it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

#[path = "../support/mod.rs"]
mod support;

mod ansible;
mod arm64;
mod built;
#[cfg(target_os = "linux")]
mod cost;
mod deb;
mod homebrew;
#[cfg(target_os = "linux")]
mod image;
mod macos;
#[cfg(target_os = "linux")]
mod order;
mod pages;
mod release;
mod repository;
mod rpm;
mod same;

use std::path::Path;
use std::process::Command;

/// The output of a command that must succeed.
#[track_caller]
fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The file with this ending in a directory of packages.
#[track_caller]
fn with_ending(directory: &Path, ending: &str) -> std::path::PathBuf {
    let files = std::fs::read_dir(directory).unwrap().flatten().map(|file| file.path());
    files.into_iter().find(|file| file.to_string_lossy().ends_with(ending)).expect("a package of that kind")
}
