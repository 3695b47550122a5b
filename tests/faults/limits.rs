//! What a machine may refuse, and what may be in a file's place: commands end soon, with a documented exit code, within bounded
//! memory, and people's own data does not change.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::level::Findings;
use super::stage::{CONFIG, ENV, Files, LOCK, PASSWORDS, RECORD, SECRET, SERVICES, Stage, TOKEN};
use crate::support::workspace::scratch_directory;
use crate::support::{Outcome, skip};

/// A longer run counts as endless.
const SOON: Duration = Duration::from_secs(20);

/// How much memory a command may take, whatever a file contains: enough for the largest password file that is read.
const MEMORY: u64 = 160 * MIB;

/// Runs a command with a time limit, and records its peak memory in a file, in KiB.
const MEASURED: &str = "
import os, resource, sys
ended = os.spawnvp(os.P_WAIT, 'timeout', ['timeout', '-s', 'KILL', '30'] + sys.argv[2:])
with open(sys.argv[1], 'w') as file:
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=file)
if ended < 0:
    os.kill(os.getpid(), -ended)
sys.exit(ended)
";

const PRLIMIT: &str = "/usr/bin/prlimit";

const MIB: u64 = 1 << 20;

/// A signal that the tested limit does not explain.
fn signal(outcome: &Outcome) -> Option<String> {
    let signal = outcome.signal?;
    Some(format!("it was ended by signal {signal}: {}", outcome.stderr.trim()))
}

/// One rotation under a limit, then one without: each file is the old or the new one, and there is nothing else.
fn limited(findings: &mut Findings, limit: &str, judge: fn(&Outcome) -> Option<String>) {
    let stage = Stage::new();
    stage.rotate().run().exits(0);
    stage.configure("verify-full");
    let old = Files::of(&stage.home);
    stage.rotate().run().exits(0);
    let new = Files::of(&stage.home);
    old.restore(&stage.home);
    let outcome = stage.by(&[PRLIMIT, limit], &["rotate", "--retry-for", "0s"]).patience(SOON).run();
    let mut faults: Vec<String> = judge(&outcome).into_iter().collect();
    faults.extend(stage.faults_in_files(&old, &new));
    faults.extend(stage.faults_in_names(&new));
    faults.extend(stage.faults_after_the_next(&new));
    findings.add(limit, faults);
}

#[test]
fn a_limit_of_the_size_of_files_ends_no_process_and_leaves_nothing() {
    let mut findings = Findings::default();
    for bytes in [0, 1, 64, 500, 900, 1_200, 2_000, 4_096, 100_000] {
        let limit = format!("--fsize={bytes}");
        limited(&mut findings, &limit, |outcome| {
            signal(outcome).or_else(|| {
                let expected = matches!(outcome.code, Some(0 | 73));
                (!expected).then(|| format!("exit code {:?}: {}", outcome.code, outcome.stderr.trim()))
            })
        });
    }
    findings.are_none("a_limit_of_the_size_of_files_ends_no_process_and_leaves_nothing");
}

#[test]
fn a_limit_of_open_files_is_told_and_leaves_nothing() {
    let mut findings = Findings::default();
    for files in 4..=16 {
        let limit = format!("--nofile={files}");
        limited(&mut findings, &limit, |outcome| signal(outcome).or_else(|| undocumented(outcome)));
    }
    findings.are_none("a_limit_of_open_files_is_told_and_leaves_nothing");
}

#[test]
fn a_limit_of_memory_leaves_nothing() {
    let mut findings = Findings::default();
    for mib in [24, 32, 40, 48, 64, 96, 128, 256] {
        let limit = format!("--as={}", mib * MIB);
        // If not even the program can start, it can do no harm.
        if Stage::new().by(&[PRLIMIT, &limit], &["--version"]).run().code != Some(0) {
            continue;
        }
        limited(&mut findings, &limit, |outcome| match outcome.signal {
            // A Rust program cannot answer a failed allocation in another way.
            Some(ended) if ended == Signal::ABORT.as_raw() && outcome.stderr.contains("memory allocation of") => None,
            Some(_) => signal(outcome),
            None => undocumented(outcome),
        });
    }
    findings.are_none("a_limit_of_memory_leaves_nothing");
}

/// An exit code that is neither in docs/commands.md nor the loader's, whose failure comes before our program.
fn undocumented(outcome: &Outcome) -> Option<String> {
    const LOADER: i32 = 127;
    let known = matches!(outcome.code, Some(0 | 1 | 64 | 69 | 70 | 73 | 75 | 77 | 78 | LOADER));
    let panicked = outcome.stderr.contains("panicked at");
    (!known || panicked).then(|| format!("exit code {:?}: {}", outcome.code, outcome.stderr.trim()))
}

#[test]
fn modes_are_right_whatever_the_umask_is() {
    let mut findings = Findings::default();
    for umask in ["0777", "0277", "0077", "0000"] {
        let stage = Stage::new();
        for file in [PASSWORDS, SERVICES] {
            fs::remove_file(stage.home.path(file)).unwrap();
        }
        let config = stage.config("require").replace("~/token", "~/new/token").replace("~/env", "~/new/env");
        stage.home.write(CONFIG, config, 0o600);
        let log = stage.home.path("log");
        let (script, log) = (format!("umask {umask}; exec \"$@\""), log.to_str().unwrap());
        for _ in 0..2 {
            stage.by(&["/bin/sh", "-c", &script, "sh"], &["rotate", "--log-file", log]).run().exits(0);
        }
        let mut faults = Vec::new();
        let mut judge = |inside: &str, wanted: u32| {
            let mode = stage.home.mode(inside);
            if mode != wanted {
                faults.push(format!("{inside} has mode {mode:04o}"));
            }
        };
        for directory in ["new", ".local/state/dbx-rotator"] {
            judge(directory, 0o700);
        }
        for file in [PASSWORDS, SERVICES, "new/token", "new/env", RECORD, LOCK, "log"] {
            judge(file, 0o600);
        }
        findings.add(umask, faults);
    }
    findings.are_none("modes_are_right_whatever_the_umask_is");
}

/// A directory where files can be added, but not removed.
struct AppendOnly<'a>(&'a Path);

impl<'a> AppendOnly<'a> {
    fn make(directory: &'a Path) -> Option<Self> {
        let changed = Command::new("chattr").arg("+a").arg(directory).output();
        changed.is_ok_and(|changed| changed.status.success()).then_some(AppendOnly(directory))
    }
}

impl Drop for AppendOnly<'_> {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg("-a").arg(self.0).status();
    }
}

#[test]
fn nothing_is_left_in_a_directory_that_can_only_be_added_to() {
    let test = "nothing_is_left_in_a_directory_that_can_only_be_added_to";
    let mut findings = Findings::default();
    for directory in [".", ".local/state/dbx-rotator"] {
        let stage = Stage::new();
        stage.rotate().run().exits(0);
        stage.configure("verify-full");
        let old = Files::of(&stage.home);
        stage.rotate().run().exits(0);
        let new = Files::of(&stage.home);
        old.restore(&stage.home);
        let path = stage.home.path(directory);
        let Some(only) = AppendOnly::make(&path) else {
            return skip(test, "chattr may not make a directory append-only here (not root, or not this file system)");
        };
        let mut faults = Vec::new();
        for _ in 0..2 {
            let outcome = stage.rotate().run();
            faults.extend(stage.faults_of(&outcome));
            faults.extend(stage.faults_in_files(&old, &new));
            faults.extend(stage.faults_in_names(&new));
        }
        drop(only);
        faults.extend(stage.faults_after_the_next(&new));
        findings.add(directory, faults);
    }
    findings.are_none(test);
}

/// What is in a file's place.
#[derive(Clone, Copy, Debug)]
enum Odd {
    /// A pipe that nobody writes or reads.
    Pipe,
    /// A device that never ends.
    Device,
    /// A file of 200 MB.
    Huge,
    Directory,
}

impl Odd {
    fn put(self, path: &Path) {
        match self {
            Odd::Pipe => assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
            Odd::Device => symlink("/dev/zero", path).unwrap(),
            Odd::Huge => {
                fs::File::create(path).unwrap().set_len(200_000_000).unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
            }
            Odd::Directory => fs::create_dir(path).unwrap(),
        }
    }
}

fn remove(path: &Path) {
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

#[test]
fn whatever_stands_where_a_file_should_be_commands_end_soon_and_take_little() {
    let mut findings = Findings::default();
    let log = "log";
    let (stage, measure) = (Stage::new(), scratch_directory(0o700));
    let (taken, mut most) = (measure.path().join("taken"), 0);
    let taken = taken.to_str().unwrap();
    stage.rotate().args(["--log-file", "log"]).run().exits(0);
    let kept = Files::of(&stage.home);
    for file in [LOCK, RECORD, CONFIG, SECRET, PASSWORDS, SERVICES, TOKEN, ENV, log] {
        let path = stage.home.path(file);
        for odd in [Odd::Pipe, Odd::Device, Odd::Huge, Odd::Directory] {
            for command in [&["rotate", "--retry-for", "0s", "--log-file", "log"][..], &["status"], &["check"]] {
                remove(&path);
                odd.put(&path);
                // A pipe may be where somebody is still asked for the secret: that is waited for.
                let session = stage.by(&["python3", "-c", MEASURED, taken], command).patience(2 * SOON);
                let outcome = session.run();
                remove(&path);
                let mut faults: Vec<String> = signal(&outcome).or_else(|| undocumented(&outcome)).into_iter().collect();
                let took = fs::read_to_string(taken).unwrap().trim().parse::<u64>().unwrap() * 1024;
                most = most.max(took);
                if took > MEMORY {
                    faults.push(format!("it took {} MiB", took / MIB));
                }
                // A log that is too large is renamed to the first of the old ones.
                remove(&stage.home.path("log.1"));
                faults.extend(stage.faults_in_names(&kept.without(file)));
                kept.restore(&stage.home);
                findings.add((file, odd, command[0]), faults);
            }
        }
    }
    eprintln!("at most {} MiB", most / MIB);
    // The device belongs to somebody else.
    let zero = fs::metadata("/dev/zero").unwrap();
    assert_eq!((zero.uid(), zero.mode() & 0o777), (0, 0o666));
    findings.are_none("whatever_stands_where_a_file_should_be_commands_end_soon_and_take_little");
}

impl Files {
    fn without(&self, file: &str) -> Self {
        let mut files = self.clone();
        files.0.remove(&PathBuf::from(file));
        files
    }
}
