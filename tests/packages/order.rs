//! In which order the linker puts the program's functions (`dist/program.ld`): first those that run each minute and those that run all
//! day, so that few pages of the program are read and stay in memory.
//!
//! The list is what QEMU saw of a program that was built for it. A function that is missing there, or that has another name with a newer
//! compiler, only costs memory, which `cost.rs` watches. When that has grown, the list is made anew:
//! `DBX_ROTATOR_UPDATE=1 cargo test --test packages order -- --ignored`.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::built;
use super::cost::{service_principal, unpacked};
use crate::support::{Home, Workspace};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/program.ld");
const QEMU: &str = "/usr/bin/qemu-x86_64";
/// Before and after the list.
const START: &str = "    /* Made by tests/packages/order.rs. */\n";
const END: &str = "    /* The end of what it made. */\n";

#[test]
#[ignore = "no test: writes dist/program.ld, with DBX_ROTATOR_UPDATE=1"]
fn the_order_is_that_of_the_functions_that_run_often() {
    assert!(std::env::var_os("DBX_ROTATOR_UPDATE").is_some(), "it is only for writing {SCRIPT}");
    let (_directory, program) = unpacked(&built::with_symbols().unwrap());

    let (workspace, home) = (Workspace::start(), Home::new());
    let log = home.path("log");
    let words = |command: &[&str]| {
        let start = ["-d", "in_asm", "-D", log.to_str().unwrap(), program.to_str().unwrap()];
        start.iter().chain(command).map(|word| (*word).to_owned()).collect::<Vec<_>>()
    };
    let under_qemu = |command: &[&str]| {
        let words = words(command);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        service_principal(&home, Path::new(QEMU), &workspace, &words)
    };
    under_qemu(&["rotate"]).run().exits(0);
    let rotate = functions(&log);
    under_qemu(&["rotate", "--if-due"]).run().exits(0);
    let mut all = functions(&log);
    fs::remove_file(home.path(".pgpass")).unwrap();
    let running = under_qemu(&["run"]).spawn();
    running.says("is valid until", Duration::from_secs(60));
    running.terminate().exits(0);
    all.extend(rotate);
    all.extend(functions(&log));

    let mut seen = HashSet::new();
    all.retain(|name| seen.insert(name.clone()));
    assert!(all.len() > 1_000, "{} functions", all.len());
    let list: String = all.iter().map(|name| format!("    *(.text.{name})\n")).collect();
    let script = fs::read_to_string(SCRIPT).unwrap();
    let (before, rest) = script.split_once(START).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    fs::write(SCRIPT, format!("{before}{START}{list}{END}{after}")).unwrap();
}

/// The functions of ours that ran, as patterns for the linker: without what a compiler adds to a name to make it the only one.
fn functions(log: &Path) -> Vec<String> {
    let log = fs::read(log).unwrap();
    let log = String::from_utf8_lossy(&log);
    let names = log.lines().filter_map(|line| line.strip_prefix("IN: ")).map(str::trim);
    names.filter(|name| name.starts_with("_ZN") || name.starts_with("_R")).map(pattern).collect()
}

/// Names of generic functions can have hundreds of characters. What begins alike is mostly of one kind, and the list stays readable.
const LONGEST: usize = 60;

/// `_ZN4core5panic17h0123456789abcdefE` has a hash at its end, `_RNvCs1234_3std4exit` has one of each crate, and either can be followed by
/// a number of the compiler's (`.llvm.1234`).
fn pattern(name: &str) -> String {
    let name = name.split('.').next().unwrap_or(name);
    let is_hash = |hash: &str| hash.len() == 17 && hash[..16].chars().all(|digit| digit.is_ascii_hexdigit());
    let pattern = match name.rsplit_once("17h").filter(|(_, hash)| is_hash(hash)) {
        Some((start, _)) => start.to_owned(),
        None => without_crates(name),
    };
    let pattern: String = pattern.chars().take(LONGEST).collect();
    format!("{}*", pattern.trim_end_matches('*'))
}

/// `Cs1234_3std` becomes `Cs*_3std`.
fn without_crates(name: &str) -> String {
    let mut parts = name.split("Cs");
    let start = parts.next().unwrap_or_default().to_owned();
    parts.fold(start, |pattern, part| match part.split_once('_') {
        Some((_, rest)) => format!("{pattern}Cs*_{rest}"),
        None => format!("{pattern}Cs{part}"),
    })
}
