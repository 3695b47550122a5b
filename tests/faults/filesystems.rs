//! File systems that know less than a disk of our own: no modes (drives of Windows in WSL, SMB, Azure Files), no links, no renaming
//! without replacing. What can be done without is done without, for each file that is written, and a person is told what others may
//! read there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::level::Findings;
use super::stage::{CONFIG, FOREIGN_PASSWORDS, FOREIGN_SERVICES, Files, LOCK, PASSWORDS, RECORD, SERVICES, Stage};
use super::trace::{can_trace, refuse};
use crate::support::workspace::scratch_directory;
use crate::support::{Outcome, Session, skip};

/// What may be refused to every file, by the names of the system calls.
const REFUSED: [&str; 5] = [
    "chmod,fchmod,fchmodat",
    "link,linkat",
    "renameat2",
    "link,linkat,renameat2",
    "chmod,fchmod,fchmodat,chown,fchown,lchown,fchownat,link,linkat,renameat2,flock",
];

/// How: by who forbids it, by who does not know it for this kind of file, with these flags, or at all.
const ERRORS: [&str; 4] = ["EPERM", "EOPNOTSUPP", "EINVAL", "ENOSYS"];

#[test]
fn what_is_refused_to_every_file_is_done_without() {
    let test = "what_is_refused_to_every_file_is_done_without";
    if !can_trace(test) {
        return;
    }
    let mut findings = Findings::default();
    for has_files in [false, true] {
        let stage = Stage::new();
        if has_files {
            stage.rotate().run().exits(0);
            stage.configure("verify-full");
        } else {
            for file in [PASSWORDS, SERVICES] {
                fs::remove_file(stage.home.path(file)).unwrap();
            }
            // A directory that is missing, too.
            let config = stage.config("require").replace("~/token", "~/new/token").replace("~/env", "~/new/env");
            stage.home.write(CONFIG, config, 0o600);
        }
        let old = Files::of(&stage.home);
        stage.rotate().run().exits(0);
        let new = Files::of(&stage.home);
        for calls in REFUSED {
            for error in ERRORS {
                old.restore(&stage.home);
                if !has_files {
                    fs::remove_dir_all(stage.home.path("new")).unwrap();
                    fs::remove_dir_all(stage.home.path(".local/state")).unwrap();
                }
                let outcome = refuse(|strace| stage.by(strace, &["rotate", "--retry-for", "0s"]), calls, error);
                let mut faults = stage.faults_of(&outcome);
                if outcome.code != Some(0) {
                    faults.push(format!("exit code {:?}: {}", outcome.code, outcome.stderr.trim()));
                }
                if !stage.password().is_some_and(|password| stage.issued(password.as_bytes())) {
                    faults.push("no password was published".to_owned());
                }
                faults.extend(faults_of_modes(&new, &Files::of(&stage.home)));
                faults.extend(stage.faults_in_names(&new));
                faults.extend(stage.faults_after_the_next(&new));
                findings.add((has_files, calls, error), faults);
            }
        }
    }
    findings.are_none(test);
}

/// Nobody gets to read more than where nothing is refused.
fn faults_of_modes(expected: &Files, now: &Files) -> Vec<String> {
    let wider = now.0.iter().filter(|(file, (mode, _))| expected.0.get(*file).is_some_and(|(was, _)| mode & !was != 0));
    wider.map(|(file, (mode, _))| format!("{} has mode {mode:04o}", file.display())).collect()
}

/// A file system without modes, in a directory of a home, for as long as this lives.
struct Mount {
    at: PathBuf,
    /// What it is made of.
    _backing: tempfile::TempDir,
    device: Option<String>,
}

/// The kinds that this machine may have, each with a way in which it differs from the others.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Another mode is refused.
    Refusing,
    /// Another mode seems to be set and is not.
    Silent,
    /// There are no links and no owners either.
    Fat,
}

impl Mount {
    /// None where that cannot be done here.
    fn make(kind: Kind, at: &Path) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let backing = scratch_directory(0o700);
        let image = backing.path().join("image");
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let mut device = None;
        let is_mounted = match kind {
            Kind::Refusing => does("bindfs", &["--chmod-deny", "--perms=a=rwx", &path(backing.path()), &path(at)]),
            Kind::Silent => {
                fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
                does("mkfs.ntfs", &["-F", "-Q", &path(&image)]) && does("ntfs-3g", &[&path(&image), &path(at)])
            }
            Kind::Fat => {
                fs::File::create(&image).unwrap().set_len(16 << 20).unwrap();
                device = said("losetup", &["-f", "--show", &path(&image)]);
                device.as_ref().is_some_and(|device| {
                    does("mkfs.exfat", &[device]) && does("mount.exfat-fuse", &[device, &path(at), "-o", "umask=000"])
                })
            }
        };
        let mount = Mount { at: at.to_owned(), _backing: backing, device };
        is_mounted.then_some(mount)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        does("umount", &["--lazy", self.at.to_str().unwrap()]);
        if let Some(device) = &self.device {
            does("losetup", &["-d", device]);
        }
    }
}

fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program).args(arguments).env("PATH", path).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn does(program: &str, arguments: &[&str]) -> bool {
    said(program, arguments).is_some()
}

#[test]
fn without_modes_all_is_published_once_and_a_person_is_told_who_may_read_it() {
    let test = "without_modes_all_is_published_once_and_a_person_is_told_who_may_read_it";
    let mut findings = Findings::default();
    for kind in [Kind::Refusing, Kind::Silent, Kind::Fat] {
        let stage = Stage::new();
        let share = stage.home.path("share");
        let Some(mount) = Mount::make(kind, &share) else {
            skip(test, &format!("no file system of this kind can be mounted here: {kind:?}"));
            continue;
        };
        findings.add(kind, faults_without_modes(&stage));
        drop(mount);
    }
    findings.are_none(test);
}

fn faults_without_modes(stage: &Stage) -> Vec<String> {
    let config = stage.config("require").replace("~/token", "~/share/new/token").replace("~/env", "~/share/new/env");
    stage.home.write(CONFIG, config, 0o600);
    let command = |arguments: &[&str]| -> Session<'_> {
        let at = |inside: &str| stage.home.path("share").join(inside);
        let session = stage.rotator(arguments).env("PGPASSFILE", at(PASSWORDS));
        session.env("PGSERVICEFILE", at(SERVICES)).env("XDG_STATE_HOME", at("state"))
    };
    let mut faults = Vec::new();
    let tokens = || stage.workspace.tokens_issued();
    faults.extend(judge("first", &command(&["rotate", "--retry-for", "0s"]).run(), true));
    let issued = tokens();
    for _ in 0..2 {
        faults.extend(judge("not due", &command(&["rotate", "--if-due", "--retry-for", "0s"]).run(), false));
    }
    if tokens() != issued {
        faults.push("the mode was reason for another rotation".to_owned());
    }
    let home = &stage.home;
    let text = fs::read_to_string(home.path("share/new/token")).unwrap_or_default();
    if !stage.issued(text.as_bytes()) {
        faults.push("there is no token".to_owned());
    }
    // Somebody else's lines, from before.
    for (file, foreign) in [(PASSWORDS, FOREIGN_PASSWORDS), (SERVICES, FOREIGN_SERVICES)] {
        let path = home.path("share").join(file);
        let ours = fs::read(&path).unwrap();
        fs::write(&path, [foreign, &ours].concat()).unwrap();
    }
    faults.extend(judge("again", &command(&["rotate", "--retry-for", "0s"]).run(), true));
    for (file, foreign) in [(PASSWORDS, FOREIGN_PASSWORDS), (SERVICES, FOREIGN_SERVICES)] {
        let now = fs::read(home.path("share").join(file)).unwrap();
        if !now.windows(foreign.len()).any(|part| part == foreign) {
            faults.push(format!("{file} lost somebody else's lines"));
        }
    }
    let mut names: Vec<String> =
        home.files().iter().filter_map(|file| Some(file.strip_prefix("share").ok()?.display().to_string())).collect();
    names.sort_unstable();
    let (record, lock) = (after_home(RECORD), after_home(LOCK));
    let mut expected = vec![SERVICES, PASSWORDS, "new/env", "new/token", &lock, &record];
    expected.sort_unstable();
    if names != expected {
        faults.push(format!("there are {names:?}"));
    }
    faults
}

/// What is wrong with how a command ended, which tells that others may read what it wrote, or has nothing to tell.
fn judge(when: &str, outcome: &Outcome, tells: bool) -> Vec<String> {
    let mut faults = Vec::new();
    if outcome.code != Some(0) {
        faults.push(format!("{when}: exit code {:?}: {}", outcome.code, outcome.stderr.trim()));
    }
    if outcome.stderr.contains("others may have access") != tells {
        let how = if tells { "not" } else { "needlessly" };
        faults.push(format!("{when}: that others may read it is {how} told: {}", outcome.stderr.trim()));
    }
    faults
}

/// Where this is when state is not below the home.
fn after_home(file: &str) -> String {
    file.replace(".local/state", "state")
}
