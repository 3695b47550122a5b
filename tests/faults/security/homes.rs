//! Root at work in another user's home. Whatever the owner put there, nothing of root's is read out, written or given away, no
//! program of the owner runs as root, and what root makes there belongs to the owner.
#![cfg(target_os = "linux")]

mod both;
mod programs;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use self::both::{COMMANDS, CONFIG, Homes, Link, ROTATE, SECRET, Seen};

/// The directories that a rotation works in.
const DIRECTORIES: [&str; 11] = [
    ".local",
    ".local/state",
    ".local/state/dbx-rotator",
    ".config",
    ".config/dbx-rotator",
    "passwords",
    "out",
    "envs",
    "made",
    "templates",
    "logs",
];

/// The files that a rotation reads or writes.
const FILES: [&str; 13] = [
    ".local/state/dbx-rotator/lock",
    ".local/state/dbx-rotator/record.json",
    "passwords/.pgpass",
    "out/token",
    "envs/env",
    "made/app",
    "templates/app",
    "logs/log",
    ".pg_service.conf",
    CONFIG,
    SECRET,
    "ca.pem",
    ".databrickscfg",
];

/// Asserts that nothing was found; one run shows everything.
fn none(findings: Vec<String>) {
    assert!(findings.is_empty(), "{} findings:\n  {}", findings.len(), findings.join("\n  "));
}

/// Runs each command with one of bob's names leading to something of root's.
fn trapped(test: &str, names: &[&str], to: &str, links: &[Link]) {
    let mut findings = Vec::new();
    for name in names {
        for link in links {
            let Some(homes) = Homes::new(test) else { return };
            if *name == ".databrickscfg" {
                let config = homes.config("").replace("client_secret_file", "profile = 'x'\n# ");
                homes.put(CONFIG, config.replace("client_id", "# "));
            }
            homes.link(name, &homes.of_root(to), *link);
            let was = homes.seen("root");
            for command in COMMANDS {
                let faults = homes.faults(&was, &homes.root("bob", command).run());
                findings.extend(faults.into_iter().map(|fault| format!("{name} {link:?}, {command:?}: {fault}")));
            }
            if *name == SECRET && homes.workspace.token_requests() > 0 {
                findings.push(format!("{name} {link:?}: what is in root's file was sent"));
            }
        }
    }
    none(findings);
}

#[test]
fn no_directory_of_roots_is_worked_in_for_one_of_bobs() {
    let test = "no_directory_of_roots_is_worked_in_for_one_of_bobs";
    trapped(test, &DIRECTORIES, "", &[Link::Absolute, Link::Relative]);
}

#[test]
fn no_file_of_roots_is_read_or_written_for_one_of_bobs() {
    let test = "no_file_of_roots_is_read_or_written_for_one_of_bobs";
    trapped(test, &FILES, "victim", &[Link::Absolute, Link::Relative, Link::Hard]);
}

#[test]
fn the_daemon_keeps_to_bobs_home_as_well() {
    let test = "the_daemon_keeps_to_bobs_home_as_well";
    let mut findings = Vec::new();
    for name in [".local/state", "passwords", "out", "logs"] {
        let Some(homes) = Homes::new(test) else { return };
        homes.link(name, &homes.of_root(""), Link::Absolute);
        let was = homes.seen("root");
        let running = homes.root("bob", &["run"]).spawn();
        // Its first round is over once it has signed in or ended. A trap may keep it from both: then two seconds are enough for it.
        let had_its_round = || homes.workspace.token_requests() > 0 || running.has_ended();
        for _ in 0..100 {
            if had_its_round() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let faults = homes.faults(&was, &running.terminate());
        findings.extend(faults.into_iter().map(|fault| format!("{name}: {fault}")));
    }
    none(findings);
}

#[test]
fn a_name_that_changes_under_the_program_leads_nowhere_else() {
    let test = "a_name_that_changes_under_the_program_leads_nowhere_else";
    let rounds = if std::env::var_os("DBX_ROTATOR_FAULTS").is_some_and(|level| level == "all") { 300 } else { 25 };
    let mut findings = Vec::new();
    for name in [".local/state", "passwords", "out"] {
        let Some(homes) = Homes::new(test) else { return };
        homes.make_parents(&format!("{name}/x"));
        homes.link("trap", &homes.of_root(""), Link::Absolute);
        let (place, trap, done) = (homes.of_bob(name), homes.of_bob("trap"), AtomicBool::new(false));
        let was = homes.seen("root");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    // The program may already have made the directory that is to be exchanged.
                    let _ = renameat_with(CWD, &place, CWD, &trap, RenameFlags::EXCHANGE);
                }
            });
            let faults = (0..rounds).map(|_| homes.faults_of_roots(&was, &homes.root("bob", ROTATE).run()));
            let faults = faults.filter(|faults| !faults.is_empty()).take(1).flatten();
            findings.extend(faults.map(|fault| format!("{name}: {fault}")));
            done.store(true, Ordering::Relaxed);
        });
    }
    none(findings);
}

#[test]
fn what_root_makes_in_a_home_belongs_to_its_owner() {
    let Some(homes) = Homes::new("what_root_makes_in_a_home_belongs_to_its_owner") else { return };
    for _ in 0..2 {
        homes.root("bob", ROTATE).run().exits(0);
        none(homes.not_of_bob());
    }
    for file in
        [".local/state/dbx-rotator/record.json", "passwords/.pgpass", "out/token", "envs/env", "made/app", "logs/log"]
    {
        assert!(homes.of_bob(file).exists(), "{file}");
    }
}

#[test]
fn links_to_what_is_bobs_own_are_followed() {
    let Some(homes) = Homes::new("links_to_what_is_bobs_own_are_followed") else { return };
    for (name, to) in [(".local/state", "disk/state"), ("passwords", "disk/passwords")] {
        homes.make_parents(&format!("{to}/x"));
        homes.link(name, &homes.of_bob(to), Link::Relative);
    }
    homes.put("dotfiles/services", "[other]\nhost=other.example\n");
    homes.link(".pg_service.conf", &homes.of_bob("dotfiles/services"), Link::Absolute);
    homes.root("bob", ROTATE).run().exits(0);
    none(homes.not_of_bob());
    assert!(fs::read_to_string(homes.of_bob("disk/passwords/.pgpass")).unwrap().contains("db.example"));
    assert!(fs::read_to_string(homes.of_bob("dotfiles/services")).unwrap().contains("[orders]"));
}

#[test]
fn a_password_file_of_bobs_is_bobs_whatever_home_root_has() {
    let test = "a_password_file_of_bobs_is_bobs_whatever_home_root_has";
    let Some(homes) = Homes::new(test) else { return };
    homes.own_settings("passwords/.pgpass").run().exits(0);
    none(homes.not_of_bob());
    assert!(homes.of_bob("passwords/.pgpass").exists());
    // The same with traps; what root keeps in root's own home does not matter.
    let mut findings = Vec::new();
    for (name, to, password_file) in
        [("passwords", "dbx-rotator", "passwords/.pgpass"), (".pgpass", "victim", ".pgpass")]
    {
        for link in [Link::Absolute, Link::Relative] {
            let Some(homes) = Homes::new(test) else { return };
            homes.link(name, &homes.of_root(to), link);
            let of_interest = |seen: Seen| -> Seen {
                let of = [homes.of_root("dbx-rotator"), homes.of_root("victim")];
                seen.into_iter().filter(|(path, _)| of.iter().any(|of| path.starts_with(of))).collect()
            };
            let was = of_interest(homes.seen("root"));
            homes.own_settings(password_file).run();
            if of_interest(homes.seen("root")) != was {
                findings.push(format!("{name} {link:?}: root's files were changed"));
            }
        }
    }
    none(findings);
}

/// Root's own limits do not count for root, but for whom it becomes.
#[test]
fn a_machine_without_threads_to_give_costs_a_try_and_not_the_program() {
    let Some(homes) = Homes::new("a_machine_without_threads_to_give_costs_a_try_and_not_the_program") else { return };
    homes.put(CONFIG, homes.config("").replace("127.0.0.1", "localhost"));
    let script = "ulimit -u 0; exec \"$0\" \"$@\"";
    let session = homes.desk.command("/bin/bash").args(["-c", script, env!("CARGO_BIN_EXE_dbx-rotator")]);
    homes.with_home(session.args(ROTATE), "bob").run().exits(69).stderr_has("no thread can be started now");
}
