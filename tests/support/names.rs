//! Names that resolve only in one home, so that a test can call its servers by realistic names.
//!
//! Debian's libnss-wrapper answers the C library's look-ups from a file of the home before asking anything else. Only
//! programs that look up names through the C library are affected; ours, psql and Python are. A program must not look up two
//! names at the same time: libnss-wrapper 1.1.12 reads its file without a lock in each thread that asks first. Twenty lines
//! of C that do so find nothing in a quarter of their runs, and corrupt the heap in one of 1,500.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::expect_used,
    reason = "test support: each user takes a part of it, and a broken one should stop the test loudly"
)]

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

/// The library to preload, or why there is none here, as a reason to skip a test.
pub fn wrapper() -> Result<PathBuf, String> {
    // By architecture, as Debian arranges libraries.
    let directories = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut found = directories.map(|entry| entry.path().join("libnss_wrapper.so")).filter(|library| library.exists());
    found.next().ok_or_else(|| "no libnss_wrapper.so under /usr/lib (Debian's libnss-wrapper)".to_owned())
}

/// Puts the name into a hosts file, replacing its earlier address.
pub(super) fn put(hosts: &Path, name: &str, address: impl Display) {
    let known = fs::read_to_string(hosts).unwrap_or_default();
    let others = known.lines().filter(|line| line.split_once(' ').is_none_or(|(_, other)| other != name));
    let text: String = others.map(|line| format!("{line}\n")).chain([format!("{address} {name}\n")]).collect();
    // A background program may be reading it.
    let new = hosts.with_extension("new");
    fs::write(&new, text).and_then(|()| fs::rename(&new, hosts)).expect("write the home's hosts file");
}
