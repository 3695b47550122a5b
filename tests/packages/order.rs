//! In which order the linker puts the program's functions (`dist/program.ld`): first those that run each minute and those that run all
//! day, so that few pages of the program are read and stay in memory.
//!
//! The list is what QEMU saw of a program that was built for it. A function that is missing there, or that has another name with a newer
//! compiler, only costs memory, which `cost.rs` watches. When that has grown, the list is made anew:
//! `DBX_ROTATOR_UPDATE=1 cargo test --test packages order -- --ignored`.

use std::collections::HashSet;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use super::built;
use super::cost::{service_principal, to_lakebase, unpacked, with_the_platforms_authorities};
use crate::support::{Home, Instance, Session, Workspace};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dist/program.ld");
const QEMU: &str = "/usr/bin/qemu-x86_64";
/// Before and after the list.
const START: &str = "    /* Made by tests/packages/order.rs. */\n";
const END: &str = "    /* The end of what it made. */\n";

/// What QEMU does not show of a real machine: the clock is read by the vDSO there.
const OF_MACHINES: [&str; 2] = ["_RNvM*_6rustix7backend4vdso*", "_RNvNt*_6rustix7backend4vdso*"];

#[test]
#[ignore = "no test: writes dist/program.ld, with DBX_ROTATOR_UPDATE=1"]
fn the_order_is_that_of_the_functions_that_run_often() {
    assert!(std::env::var_os("DBX_ROTATOR_UPDATE").is_some(), "it is only for writing {SCRIPT}");
    assert!(Path::new(QEMU).exists(), "there is no {QEMU} (Debian's qemu-user)");
    let (_directory, program) = unpacked(&built::with_symbols().unwrap());
    let workspace = Workspace::start();
    workspace.add_instance(Instance::named("orders"));
    let start = ["-cpu", "max", "-d", "in_asm", "-D", "log", program.to_str().unwrap()].map(str::to_owned);

    let mut seen = Seen::default();
    for session in [service_principal, with_the_platforms_authorities, to_lakebase, of_an_instance] {
        let home = Home::new();
        let under_qemu = |command: &[&str]| {
            let words: Vec<&str> = start.iter().map(String::as_str).chain(command.iter().copied()).collect();
            session(&home, Path::new(QEMU), &workspace, &words)
        };
        let log = home.path("log");
        run_once(&home, under_qemu(&["run"]));
        seen.all_day.extend(functions(&log));
        under_qemu(&["rotate"]).run().exits(0);
        seen.by_hand.extend(functions(&log));
        under_qemu(&["rotate", "--if-due"]).run().exits(0);
        seen.each_minute.extend(functions(&log));
        fs::remove_file(home.path(".pgpass")).unwrap();
        run_once(&home, under_qemu(&["run"]));
        seen.all_day.extend(functions(&log));
    }

    let mut listed = HashSet::new();
    let all =
        seen.each_minute.into_iter().chain(OF_MACHINES.map(str::to_owned)).chain(seen.all_day).chain(seen.by_hand);
    let all: Vec<String> = all.filter(|name| listed.insert(name.clone())).collect();
    assert!(all.len() > 1_000, "{} functions", all.len());
    let list: String = all.iter().map(|name| format!("    *(.text.*{name})\n")).collect();
    let script = fs::read_to_string(SCRIPT).unwrap();
    let (before, rest) = script.split_once(START).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    fs::write(SCRIPT, format!("{before}{START}{list}{END}{after}")).unwrap();
}

/// In the order of the program: what the timer does each minute, what `run` does all day, and what else a rotation does.
#[derive(Default)]
struct Seen {
    each_minute: Vec<String>,
    all_day: Vec<String>,
    by_hand: Vec<String>,
}

/// With a credential that the workspace mints, as most people need it.
fn of_an_instance<'a>(home: &'a Home, program: &Path, workspace: &Workspace, arguments: &[&str]) -> Session<'a> {
    home.command(program).args(arguments).for_instance(workspace, "")
}

/// `run` as systemd starts it, until it has rotated and has told that it is alive.
fn run_once(home: &Home, run: Session<'_>) {
    let manager = UnixDatagram::bind(home.path("manager")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let running = run.env("NOTIFY_SOCKET", home.path("manager")).env("WATCHDOG_USEC", "10000000").spawn();
    running.says("is valid until", Duration::from_secs(60));
    let mut heard = [0; 4_096];
    let mut is_alive = false;
    while !is_alive {
        let length = manager.recv(&mut heard).unwrap();
        is_alive = heard[..length].windows(10).any(|part| part == b"WATCHDOG=1");
    }
    running.terminate().exits(0);
    fs::remove_file(home.path("manager")).unwrap();
}

/// The functions of the program that ran, as patterns for the linker: without what a compiler adds to a name to make it the only one.
/// Rare ones are in sections of another name (`.text.unlikely.`). What is written in assembler stands together anyway.
fn functions(log: &Path) -> Vec<String> {
    let log = fs::read(log).unwrap();
    let log = String::from_utf8_lossy(&log);
    let names = log.lines().filter_map(|line| line.strip_prefix("IN: ")).map(str::trim);
    let of_rust = |name: &str| name.starts_with("_ZN") || name.starts_with("_R");
    let of_ring = |name: &str| name.starts_with("ring_core_");
    names.filter(|name| of_rust(name) || of_ring(name)).map(pattern).collect()
}

/// Names of generic functions can have hundreds of characters. What begins alike is mostly of one kind, and the list stays readable.
const LONGEST: usize = 100;

/// `_ZN4core5panic17h0123456789abcdefE` has a hash at its end, `_RNvCs1234_3std4exit` has one of each crate, and either can be followed by
/// a number of the compiler's (`.llvm.1234`).
fn pattern(name: &str) -> String {
    let name = name.split('.').next().unwrap_or(name);
    // ring_core_0_17_14__x25519_sc_mask
    if let Some((_, name)) = name.strip_prefix("ring_core_").and_then(|rest| rest.split_once("__")) {
        return format!("ring_core_*__{name}");
    }
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
